# The files that `make fuzz` damages, beside the model and the data of the first paragraphs of uses.sh: one of each kind.
train --out run >run.txt && cp run/prompt.safetensors . && make_world world &&
deep --shift-positions --out shifted >run.txt && cp shifted/prompt.safetensors shifted.safetensors &&
mkdir tags && printf 'w70 O\nab B-x\nw71 I-x\n\n-DOCSTART- O\n\nw72\tNN\tI-y\n' | tee tags/train.conll tags/dev.conll \
    >tags/test.conll && tag --deep 2 --pseudo 2 --out tag_run >run.txt && cp tag_run/tagger.safetensors . &&
printf '{"text": "W70 ab[MASK] w71\\u00e9"}\n' >text.jsonl && printf 'w70\nW71\nnone\n' >words.txt &&
printf '{"masked_sentences": ["w70 [MASK] ."], "obj_label": "w72"}\n' >own.jsonl &&
printf '{"sub": "w70 a", "label": "yes", "idx": 3}\n{"sub": 7, "label": "no", "idx": {"a": 1}}\n' >labels.jsonl &&
printf '{"idx": 0, "passage": {"text": "w70", "questions": [{"question": "w71", "idx": 0, "answers": [%s, %s]}]}}\n' \
    '{"text": "a", "idx": 0, "label": 1}' '{"text": "b", "idx": 1, "label": 0}' >nested.jsonl &&
printf '{"premise": "w70", "hypothesis": "w71 .", "label": 1}\n' >toy.jsonl &&
mkdir made && printf 'a\tmanual\tv\t34\tT\t1\t2\t1\t0\t0\t1.5\t0\t-\n' >made/a.result.tsv &&
cp -r model rich && printf '%s' '{"do_lower_case": true, "strip_accents": false, "tokenize_chinese_chars": false,
    "tokenizer_class": "BertTokenizer", "mask_token": {"content": "[MASK]"}, "additional_special_tokens": ["w71"],
    "added_tokens_decoder": {"70": {"content": "w70", "lstrip": true, "normalized": true, "special": false}}}' \
    >rich/tokenizer_config.json && cp -r model old && printf '{"w70": 70, "ab": 120}' >old/added_tokens.json &&
printf '{"mask_token": "[MASK]", "additional_special_tokens": ["w72"]}' >old/special_tokens_map.json &&
"$PTUNE" copy-tokenizer rich rich && cp -r rich whole && rm whole/vocab.txt &&
mkdir bytes && cp "$HERE"/data/expected/gpt/merges.txt bytes && "$PTUNE" copy-tokenizer bytes bpe &&
cp -r bpe pairs && rm pairs/tokenizer.json &&
"$PTUNE" weights F16 model half && "$PTUNE" weights parts model parts && "$PTUNE" weights decoder model decoder
