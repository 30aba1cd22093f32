# What must work: `./test` runs each paragraph as a separate process, in a folder with the files that the paragraphs
# above it have left. It must exit with status 0 and print nothing on stderr. This first paragraph, the functions that
# they share, is put before each of them, and before the commands of refused.tsv and broken.tsv.
ptune() { "$PTUNE" as-ptune "$@"; }
evaluate() { ptune eval --model model --data data/test.jsonl "$@"; }
manual() { evaluate --template '[X] [MASK]' "$@"; }
read_json() { ptune fill --model json '[MASK]'; }
read_bpe() { ptune tokenize --model "$1" bpe.jsonl; }
ask() { manual --predictions asked.tsv; }
go_on() { ptune fill --model gpt 'first is'; }
ask_prompt() { evaluate --prompt prompt.safetensors; }
multirc() { evaluate --template '{passage} {question} {answer} [MASK]' --labels 1=w115,0=w68 "$@"; }
train() { ptune train --model model --data data --epochs 2 --lr 0.01 "$@"; }
deep() { train --deep 3 --template '[X] is [Y] .' "$@"; }
tag() { ptune tag --model model --data tags --epochs 2 --lr 0.01 "$@"; }
ask_tagger() { ptune eval --model model --data tags/test.conll --tagger tagger.safetensors "$@"; }
multi() { ptune multi --model model --data two --epochs 2 --lr 0.01 "$@"; }
train_from() { train --encoder-from shared/encoder.safetensors "$@"; }
table() { ptune table --model model --data world --vocab words.txt --lr 0.01 "$@"; }
copa() { printf '{"premise": "%s", "choice1": "%s", "choice2": "%s", "question": "%s", "label": %d, "idx": 4}\n' "$@"; }
wsc() { printf '{"text": "w70 %s w72,", "target": {"span1_text": "%s", "span2_text": "w72", "span2_index": %d}, "label": %s}\n' "$@"; }
same_end() { test "$(tail -n 1 "$1")" = "$(tail -n 1 "$2")"; }
hits() { ptune eval "$@" | sed -n '$s/.*(\([0-9]*\) of.*/\1/p'; }
dots() { printf '. . . . . . . . . . %.0s' 1 2 3 4 5 6 7; }
separators() { printf '[SEP][SEP][SEP][SEP][SEP][SEP][SEP][SEP]%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; }
# Two relations with the same facts, in the form that ptune vocab, pretrain and the demo read.
make_world() {
    mkdir -p "$1/toy1" "$1/toy2"
    for toy in toy1 toy2; do
        for split in train dev test; do head -n 4 "$FOLDER/data/test.jsonl" >"$1/$toy/$split.jsonl"; done
        printf '[X] is [Y] .\n[Y] is [X] !\n' | tee "$1/$toy/pretrain.txt" >"$1/$toy/prompts.txt"
        printf '{"relation": "%s", "template": "[X] : [Y]"}\n' $toy
    done >"$1/relations.jsonl"
}
# Waits until the file exists, at most half a minute.
await() {
    tries=0
    while test $((tries += 1)) -lt 3000 && ! test -e "$1"; do sleep 0.01; done
}
# A run into the folder $1 that is interrupted after its first checkpoint; on a busy machine it may have ended by then:
# once more.
interrupted_run() {
    folder=$1
    shift
    for attempt in 1 2 3 4 5; do
        rm -rf $folder
        "$PTUNE" "$@" --out $folder >$folder.txt 2>interrupted &
        await $folder/checkpoint.safetensors
        kill -INT $! 2>gone
        wait $!
        test $? = 130 && return
    done
    return 1
}
# train --resume: an uninterrupted run in $1, and one in $2 that is interrupted and resumed.
resume() {
    whole=$1 part=$2
    shift 2
    set -- as-ptune train --model model --data data --epochs 30 --lr 0.003 "$@"
    "$PTUNE" "$@" --out $whole >$whole.txt || return 1
    interrupted_run $part "$@" && grep -q '^ptune: interrupted; the best epoch so far, epoch [0-9]*, is kept in ' interrupted &&
        "$PTUNE" "$@" --out $part --resume >$part.txt && same_end $whole.txt $part.txt &&
        cmp $whole/prompt.safetensors $part/prompt.safetensors &&
        cut -f 1-5 $whole/log.tsv >$whole.log && cut -f 1-5 $part/log.tsv | cmp $whole.log -
}

# a model of 120 words with random weights, and a task
mkdir model data && cp "$HERE"/data/expected/tiny/config.json "$HERE"/data/expected/tiny/model.safetensors model &&
printf '{"do_lower_case": true}\n' >model/tokenizer_config.json &&
printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' . , : ';' '!' '?' - "'" >model/vocab.txt &&
awk 'BEGIN {
    for (i = 97; i < 123; i++) printf "%c\n", i
    for (i = 97; i < 123; i++) printf "##%c\n", i
    for (i = 65; i < 120; i++) print "w" i
}' >>model/vocab.txt && test $(wc -l <model/vocab.txt) = 120 &&
printf 'name\ttemplate\tlabels\ntoy\t{premise} [P] {hypothesis-} [MASK]\t1=w80,0=w81\n' >data/tasks.tsv

# train, dev and test: two answers in three are w70, the last is not one token; the first example is for broken.tsv
rows() {
    awk -v rows=$1 -v state=$2 '
    function random(n) { state = (1103 * state + 12345) % 65536; return int(state / 16) % n }
    BEGIN {
        print "{\"sub_label\": \"first\", \"obj_label\": \"w70\"}"
        while (--rows) {
            word = 65 + random(55)
            answer = word % 3 ? 70 : 70 + word % 5
            printf "{\"sub_label\": \"w%d %c\", \"obj_label\": \"w%d\"}\n", word, 97 + random(26), answer
        }
        print "{\"sub_label\": \"last\", \"obj_label\": \"two words\"}"
    }'
}
rows 100 1 >data/train.jsonl && rows 20 2 >data/dev.jsonl && rows 12 5 >data/test.jsonl

# --help: prints the usage on standard output
ptune --help >help.txt && for command in fill tokenize train multi eval search table words vocab pretrain; do
    grep -q "^ *ptune $command " help.txt || exit 1
done

# fill: five words for each [MASK], with probability and logit
ptune fill --model model 'w70 is [MASK] . [MASK]' >fill.txt &&
awk -F '\t' 'NF == 3 && $2 > 0 && $2 < 1 { words++ } END { exit words != 10 || NR != 11 }' fill.txt

# fill: a text may begin with a dash, after -- even look like an option; - reads one text per line from standard input
ptune fill --model model '-5 w70 [MASK]' >dash.txt && ptune fill --model model -- '--w70 [MASK]' >dashes.txt &&
printf 'w70 [MASK]\n-5 w70 [MASK]\n' | ptune fill --model model - >lines.txt && test $(wc -l <lines.txt) = 11 &&
tail -n 5 lines.txt | cmp - dash.txt && test $(wc -l <dashes.txt) = 5

# fill: weights and settings in other forms give what transformers gives, also from the folder that --tune-lm writes
tab=$(printf '\t') forms=0
near() { awk -F '\t' -v w="$1" -v l="$2" '{ d = $3 - l; exit !(NR == 1 && $1 == w && d * d < 1.1e-8) }'; }
while IFS="$tab" read -r kind change word probability logit; do
    test "$kind" = weights && continue
    rm -rf form kept && "$PTUNE" weights $kind model form && sed "$change" model/config.json >form/config.json &&
    train --model form --tune-lm --lr-lm 0 --epochs 1 --template '[X] [MASK]' --out kept >kept.txt || exit 1
    for folder in form kept/model; do
        ptune fill --model $folder 'w70 is w80 [MASK] .' | head -n 1 | near "$word" $logit ||
        { echo "$kind $change $folder" >&2; exit 1; }
    done
    forms=$((forms + 1))
done <"$HERE"/data/expected/models.tsv
test $forms = 11

# tokenize: the ids of each line
printf '{"text": "W70 ab[MASK]"}\n{"text": ""}\n' >text.jsonl &&
ptune tokenize --model model text.jsonl >ids.txt && printf '70 13 40 4\n\n' | cmp - ids.txt

# tokenize: settings and added tokens as transformers has them, also from the files that ptune writes
tab=$(printf '\t') rows=0
while IFS="$tab" read -r config added map text ids; do
    test "$ids" = ids && continue
    rm -rf set copy whole && mkdir set && cp "$HERE"/data/expected/tokenizer_words.txt set/vocab.txt || exit 1
    printf '%s\n' "$config" >set/tokenizer_config.json
    test "$added" = - || printf '%s\n' "$added" >set/added_tokens.json
    test "$map" = - || printf '%s\n' "$map" >set/special_tokens_map.json
    printf '%s\n' "$text" >set.jsonl
    "$PTUNE" copy-tokenizer set copy && cp -r copy whole && rm whole/vocab.txt whole/tokenizer_config.json || exit 1
    for folder in set copy whole; do
        test "$(ptune tokenize --model $folder set.jsonl)" = "$ids" || { echo "$folder: $config" >&2; exit 1; }
    done
    rows=$((rows + 1))
done <"$HERE"/data/expected/tokenizer_settings.tsv
test $rows -gt 20

# where vocab.txt and tokenizer.json differ, and where no file says whether the model is cased, a line says it
"$PTUNE" copy-tokenizer model agree && sed 's/w70/v70/' model/vocab.txt >agree/vocab.txt &&
ptune tokenize --model agree text.jsonl 2>noted >ids2.txt && cmp ids.txt ids2.txt &&
grep -qx 'note: agree/vocab.txt and agree/tokenizer.json differ from id 70 on: the latter counts' noted &&
printf '{"do_lower_case": false}' >agree/tokenizer_config.json && cp model/vocab.txt agree &&
ptune tokenize --model agree text.jsonl 2>noted >ids3.txt && grep -q '^1 13' ids3.txt &&
grep -q 'do_lower_case is false in tokenizer_config.json, lowercase is true in tokenizer.json: the former' noted &&
rm agree/*.json && ptune tokenize --model agree text.jsonl 2>noted >ids4.txt && cmp ids.txt ids4.txt &&
grep -q 'no file says do_lower_case; by its words the model is taken for uncased' noted

# fill and tokenize: a folder with tokenizer.json alone, as transformers 5 writes it
"$PTUNE" copy-tokenizer model json && rm json/vocab.txt && cp model/config.json model/model.safetensors json &&
ptune tokenize --model json text.jsonl | cmp - ids.txt && rm json/tokenizer_config.json &&
ptune fill --model json 'w70 is [MASK] . [MASK]' | cmp - fill.txt

# tokenize: byte-level BPE, from merges.txt alone and from the files that ptune writes
sed 's/.*"ids": \[\(.*\)\]}/\1/; s/,//g' "$HERE"/data/expected/gpt/bpe.jsonl >bpe.txt &&
cp "$HERE"/data/expected/gpt/bpe.jsonl . && mkdir bytes && cp "$HERE"/data/expected/gpt/merges.txt bytes &&
read_bpe bytes | cmp - bpe.txt && "$PTUNE" copy-tokenizer bytes bpe && read_bpe bpe | cmp - bpe.txt &&
cp -r bpe bpe2 && rm bpe2/tokenizer.json && read_bpe bpe2 | cmp - bpe.txt && rm bpe2/tokenizer_config.json &&
read_bpe bpe2 | cmp - bpe.txt && rm bpe2/* && cp bpe/tokenizer.json bpe2 && read_bpe bpe2 | cmp - bpe.txt &&
"$PTUNE" copy-tokenizer bpe2 bpe2 && diff -r bpe bpe2 && cp -r bpe pairs && rm pairs/tokenizer.json

# tokenize: byte-level BPE with merges as strings, with a model that does not say its type, and with ids of its own
rm bpe2/*.* && sed 's/^  \["\(.*\)", "\(.*\)"\]/  "\1 \2"/' bpe/tokenizer.json >bpe2/tokenizer.json &&
grep -qx '  "h e",' bpe2/tokenizer.json && read_bpe bpe2 | cmp - bpe.txt &&
sed 's/"type": "BPE", //' bpe/tokenizer.json >bpe2/tokenizer.json && read_bpe bpe2 | cmp - bpe.txt &&
cp bpe/merges.txt bpe2 && rm bpe2/tokenizer.json &&
sed -e 's/": 64,/": 65,/' -e t -e 's/": 65,/": 64,/' bpe/vocab.json >bpe2/vocab.json &&
printf '{"text": "a<|endoftext|>b"}\n' >ab.jsonl && test "$(ptune tokenize --model bpe2 ab.jsonl)" = '65 619 64'

# tokenize: added tokens of byte-level BPE; where the folder's files differ, a line says it
printf '%s' '{"tokenizer_class": "GPT2Tokenizer", "pad_token": "[PAD]", "eos_token": "<|endoftext|>", "added_tokens_decoder":
    {"620": {"content": "[PAD]", "special": true}, "621": {"content": "b b", "normalized": true}}}' \
    >bpe2/tokenizer_config.json && cp bytes/merges.txt bpe2 && rm bpe2/vocab.json &&
printf '{"text": "ab b[PAD] <|endoftext|>"}\n' >ab.jsonl &&
test "$(ptune tokenize --model bpe2 ab.jsonl)" = '64 621 620 220 619' && "$PTUNE" copy-tokenizer bpe2 bpe2 &&
test "$(ptune tokenize --model bpe2 ab.jsonl)" = '64 621 620 220 619' && sed '$d' bytes/merges.txt >bpe2/merges.txt &&
ptune tokenize --model bpe2 ab.jsonl 2>noted >/dev/null &&
grep -qx 'note: bpe2/merges.txt and bpe2/tokenizer.json differ in their merges: the latter counts' noted

# tokenize: a merges.txt that was cut between two lines
sed '$d' pairs/merges.txt >bpe2/merges.txt && cp pairs/vocab.json bpe2 && rm bpe2/tokenizer*.json &&
ptune tokenize --model bpe2 ab.jsonl 2>noted >/dev/null &&
grep -qx 'note: bpe2/vocab.json: no merge makes 1 of its 620 tokens: are all merges there?' noted

# tokenize: from standard input
ptune tokenize --model model - <text.jsonl | cmp - ids.txt

# train: ends with P@1, counts the skipped examples, logs each epoch
train --out run >run.txt && tail -n 1 run.txt | grep -Eqx 'P@1 [0-9]+\.[0-9][0-9] \([0-9]+ of 12\)' &&
grep -q 'test.jsonl: 12 examples (1 skipped)' run.txt && test $(wc -l <run/log.tsv) = 2

# train: keeps 9 vectors, not the encoder
cp run/prompt.safetensors . && test ! -e run/model &&
grep -q '"prompt":{"dtype":"F32","shape":\[9,32\]' prompt.safetensors &&
test $(LC_ALL=C tr '{' '\n' <prompt.safetensors | grep -c dtype) = 1

# train --out: the result line has relation, method, vocabulary, seed, template, seven numbers, and what they depend on
awk -F '\t' 'NF != 13 || $1 != "data" || $2 != "p-lstm" || $3 != "all" || $4 != 34 || $7 != 12 || $8 > 12 ||
    $10 != 288 || $13 !~ /^model .*; epochs 2; .*; template .*; patience 20$/ { exit 1 }' run/result.tsv

# train: the same seed gives the same bytes
train --out again && cmp prompt.safetensors again/prompt.safetensors

# train: one, two and three threads give the same bytes; matmul, gelu and layernorm are large enough to be shared
for threads in 1 2 3; do
    export OMP_NUM_THREADS=$threads
    train --tune-lm --batch 128 --template '(25,25,0)' --out threads$threads || exit 1
done
for threads in 2 3; do
    cmp threads1/prompt.safetensors threads$threads/prompt.safetensors &&
    cmp threads1/model/model.safetensors threads$threads/model/model.safetensors || exit 1
done

# train: another seed gives other bytes
train --seed 35 --out other && ! cmp -s prompt.safetensors other/prompt.safetensors

# train: every option has an effect
for option in '--encoder mlp' '--encoder embedding' '--optimizer adamw' '--clip 0.01' '--warmup 0.5' \
    '--weight-decay 0.5' '--init-scale 2' '--batch 5' '--max-length 12'; do
    train $option --out option && ! cmp -s prompt.safetensors option/prompt.safetensors ||
    { echo "$option changes nothing" >&2; exit 1; }
done

# train: a template with quotes and a backslash is kept unchanged
train --template '[P] "[X]" \ [MASK] .' --out quoted >quoted.txt &&
evaluate --prompt quoted/prompt.safetensors >eval.txt && same_end quoted.txt eval.txt &&
ptune words --model model --prompt quoted/prompt.safetensors | head -n 1 | grep -qFx '[P] "[X]" \ [MASK] .'

# train --tune-lm: model/ is a model
train --tune-lm --template '[X] [MASK]' --out tuned >tuned.txt && test ! -e tuned/prompt.safetensors &&
manual --model tuned/model >eval.txt && same_end tuned.txt eval.txt

# train --tune-lm with [P]: model/ and the prompt belong together
train --tune-lm --lr-lm 0.001 --out both >both.txt &&
evaluate --model both/model --prompt both/prompt.safetensors >eval.txt && same_end both.txt eval.txt

# train: the best epoch is kept, the last of equal ones; --patience 1 stops after a worse one
train --tune-lm --lr-lm 0.001 --batch 20 --test data/dev.jsonl --patience 1 --epochs 200 --out best >best.txt &&
awk '{ falls += $4 < best; equal += $4 == best; if ($4 >= best) best = $4 }
    END { printf "^P@1 %.2f ", best; exit NR == 200 || !equal || falls != 1 || $4 == best }' best/log.tsv >best.line &&
evaluate --data data/dev.jsonl --model best/model --prompt best/prompt.safetensors >eval.txt &&
same_end best.txt eval.txt && grep -qf best.line eval.txt

# train --select: the epoch with the highest P@1 on dev is kept, or the one with the lowest loss, which is another one;
# the loss in the log is that of what is kept
train --lr 0.1 --epochs 6 --test data/dev.jsonl --select p@1 --out by_hits >by_hits.txt &&
train --lr 0.1 --epochs 6 --test data/dev.jsonl --select loss --out by_loss >by_loss.txt &&
cut -f 1-5 by_hits/log.tsv >by_hits.log && cut -f 1-5 by_loss/log.tsv | cmp - by_hits.log &&
! cmp -s by_hits/prompt.safetensors by_loss/prompt.safetensors &&
evaluate --data data/dev.jsonl --prompt by_loss/prompt.safetensors --predictions by_loss.tsv &&
awk -F '\t' 'FILENAME == "by_loss.tsv" && FNR > 1 { sum -= $5; rows++ }
    FILENAME != "by_loss.tsv" && (!least || $5 < least) { least = $5 }
    END { exit !(rows == 20 && (least - sum / rows) ^ 2 < 1e-10) }' by_loss.tsv by_loss/log.tsv

# train --resume: the same numbers as without an interrupt
resume whole part

# train --resume --tune-lm: the same, training all of BERT
resume whole_lm part_lm --tune-lm --lr-lm 0.001

# train --resume: a log line without its checkpoint, left by a kill, is dropped
cut -f 1-5 run/log.tsv >log.cut && cp -r run logged && printf '34\t3\t0.1\t99.00\t9.0\t1.0\n34\t4' >>logged/log.tsv &&
train --resume --out logged && cut -f 1-5 logged/log.tsv | cmp - log.cut

# train --out: a second run in the same folder is refused while the first is running, but not after that was killed
"$PTUNE" as-ptune train --model model --data data --epochs 1000 --patience 1000 --out taken >taken.txt &
await taken/checkpoint.safetensors
train --out taken 2>second.err
status=$?
kill -KILL $!
wait $! 2>killed
test $status = 1 && grep -qx 'ptune: taken/lock: another run is writing here' second.err && train --out taken &&
test ! -e taken/lock

# train --start: with a rate of 0 the hits are the prompt's own, and what is kept gives its predictions
for encoder in lstm mlp embedding; do
    train --start '[X] w70, [Y] w71' --lr 0 --encoder $encoder --epochs 1 --out started >started.txt &&
    test "$(cut -f 2 started/log.tsv | tr '\n' ' ')" = '0 1 ' &&
    evaluate --template '[X] w70, [Y] w71' --predictions words.tsv >eval.txt && same_end started.txt eval.txt &&
    evaluate --prompt started/prompt.safetensors --predictions start.tsv && cmp words.tsv start.tsv || exit 1
done
ptune words --model model --prompt started/prompt.safetensors | head -n 1 | grep -qFx '[X] [P][P] [MASK] [P]'

# train --start: words that no epoch improves are what is kept; with --tune-lm, too
train --tune-lm --lr-lm 0.003 --epochs 20 --template '[X] w70 [MASK]' --out knows &&
train --model knows/model --start '[X] w70 [Y]' --encoder embedding --lr 3 --out spoilt >spoilt.txt &&
evaluate --model knows/model --template '[X] w70 [MASK]' >eval.txt && same_end spoilt.txt eval.txt &&
awk '{ dev[NR] = $4 } END { exit !(NR == 3 && dev[1] > dev[2] && dev[1] > dev[3]) }' spoilt/log.tsv &&
train --start '[X] [P] w70 [Y]' --tune-lm --lr-lm 0.001 --out both_start >both.txt &&
evaluate --model both_start/model --prompt both_start/prompt.safetensors >eval.txt && same_end both.txt eval.txt

# train --start --resume: the same numbers as without an interrupt
resume whole_start part_start --start '[X] w70 [P] [Y] w71' && head -n 1 part_start/log.tsv | grep -q '^34	0	-	'

# train --deep: without [P] the deep prompt alone is kept; words says what it is; eval and fill use it
deep --out deep >deep.txt && test ! -e deep/model && cp deep/prompt.safetensors deep.safetensors &&
grep -q '"prefix":{"dtype":"F32","shape":\[3,128\]' deep/prompt.safetensors &&
test $(LC_ALL=C tr '{' '\n' <deep/prompt.safetensors | grep -c dtype) = 1 &&
evaluate --prompt deep/prompt.safetensors --predictions deep.tsv >eval.txt && same_end deep.txt eval.txt &&
awk -F '\t' '$2 != "p-deep" || $9 != 384 || $10 != 384 || $13 !~ /; deep 3; / { exit 1 }' deep/result.tsv &&
ptune words --model model --prompt deep/prompt.safetensors | grep -q '^a deep prompt: 3 keys and values in each of 2' &&
test "$(ptune fill --model model --prompt deep/prompt.safetensors first | sed -n '1s/	.*//p')" = \
    "$(awk -F '\t' '$1 == "first" { print $3 }' deep.tsv)"

# train --deep: with [P], or all of BERT, both are trained and belong together; every option has an effect
train --deep 3 --out deep_p >deep_p.txt && evaluate --prompt deep_p/prompt.safetensors >eval.txt &&
same_end deep_p.txt eval.txt && test $(LC_ALL=C tr '{' '\n' <deep_p/prompt.safetensors | grep -c dtype) = 2 &&
awk -F '\t' '$2 != "p-lstm+deep" || $10 != 672 { exit 1 }' deep_p/result.tsv &&
deep --tune-lm --lr-lm 0.001 --out deep_lm >deep_lm.txt && grep -q 'p-deep+ft' deep_lm/result.tsv &&
evaluate --model deep_lm/model --prompt deep_lm/prompt.safetensors >eval.txt && same_end deep_lm.txt eval.txt || exit 1
for option in --deep-encoder --shift-positions '--deep 2' '--seed 35' '--lr 0.1'; do
    deep $option --out option >option.txt && ! cmp -s deep/prompt.safetensors option/prompt.safetensors &&
    evaluate --prompt option/prompt.safetensors >eval.txt && same_end option.txt eval.txt ||
    { echo "$option changes nothing" >&2; exit 1; }
done
deep --shift-positions --out shifted && cp shifted/prompt.safetensors shifted.safetensors

# train --deep: a mean of prompts gives each its own deep prompt; none stays behind
evaluate --prompt deep/prompt.safetensors --template '[X] w70 [Y]' --predictions both.tsv &&
evaluate --template '[X] w70 [Y]' --predictions plain.tsv && paste both.tsv deep.tsv plain.tsv | awk -F '\t' 'NR > 1 {
        if ((log((exp($10) + exp($15)) / 2) - $5) ^ 2 > 1e-8) exit 1 }'

# train --deep: one, two and three threads give the same bytes
for threads in 1 2 3; do
    OMP_NUM_THREADS=$threads train --deep 3 --tune-lm --batch 128 --template '(25,25,0)' --out deep$threads || exit 1
done
for threads in 2 3; do
    cmp deep1/prompt.safetensors deep$threads/prompt.safetensors &&
    cmp deep1/model/model.safetensors deep$threads/model/model.safetensors || exit 1
done

# train --deep --resume: the same numbers as without an interrupt, with an encoder, too
resume whole_deep part_deep --deep 3 && resume whole_deep_e part_deep_e --deep 3 --deep-encoder --template '[X] is [Y]'

# multi: with one relation it is train: the same log, the same prompt, the same score
mkdir -p two/one two/other && cp data/*.jsonl two/one && for split in train dev test; do
    head -n 60 data/$split.jsonl | sed 's/"w70"/"w71"/' >two/other/$split.jsonl
done && printf '{"relation": "%s", "template": "[X] [Y]"}\n' one other >two/relations.jsonl || exit 1
for options in '' '--encoder mlp --clip 0.01 --select loss --seed 5' '--encoder embedding --optimizer adamw --warmup 0.5'; do
    train $options --out single >single.txt && multi $options --relations one --out alone >alone.txt &&
    cmp single/prompt.safetensors alone/one.prompt.safetensors && cut -f 1-5 single/log.tsv >single.log &&
    cut -f 1-5 alone/log.tsv | cmp - single.log && grep -qFx "one: $(tail -n 1 single.txt)" alone.txt ||
    { echo "not as train: $options" >&2; exit 1; }
done

# multi: each relation's prompt gives what is printed; one thread and two give the same bytes; --cap and --seed count
multi --out shared >shared.txt && ptune table shared | grep -q '^shared-lstm .* 2 .* 288$' || exit 1
for relation in one other; do
    evaluate --data two/$relation/test.jsonl --prompt shared/$relation.prompt.safetensors >eval.txt &&
    grep -qFx "$relation: $(tail -n 1 eval.txt)" shared.txt || exit 1
done
OMP_NUM_THREADS=2 multi --out shared2 && cmp shared/encoder.safetensors shared2/encoder.safetensors || exit 1
for option in '--cap 30' '--seed 35'; do
    multi $option --out shared2 && ! cmp -s shared/encoder.safetensors shared2/encoder.safetensors || exit 1
done

# multi --resume: the same numbers as without an interrupt
set -- as-ptune multi --model model --data two --epochs 30 --lr 0.003
"$PTUNE" "$@" --out whole_multi >whole.txt || exit 1
"$PTUNE" "$@" --out part_multi >part.txt 2>interrupted &
await part_multi/checkpoint.safetensors
kill -INT $!
wait $!
test $? = 130 && "$PTUNE" "$@" --out part_multi --resume >part.txt && same_end whole.txt part.txt &&
cmp whole_multi/other.prompt.safetensors part_multi/other.prompt.safetensors &&
cmp whole_multi/encoder.safetensors part_multi/encoder.safetensors &&
cut -f 1-5 whole_multi/log.tsv >whole.log && cut -f 1-5 part_multi/log.tsv | cmp - whole.log

# train --encoder-from: from another start; with --freeze-encoder E alone is trained, and the deep prompt, if there is one
train_from --out from && ! cmp -s from/prompt.safetensors prompt.safetensors &&
train_from --freeze-encoder --out frozen && ! cmp -s from/prompt.safetensors frozen/prompt.safetensors &&
grep -q '"lstm_head' from/checkpoint.safetensors && ! grep -q '"lstm_head' frozen/checkpoint.safetensors &&
train_from --freeze-encoder --deep 2 --out frozen_deep && test "$(cut -f 9 frozen_deep/result.tsv)" = $((288 + 256))

# train --encoder-from --freeze-encoder --resume: the same numbers as without an interrupt
resume whole_from part_from --encoder-from shared/encoder.safetensors --freeze-encoder

# train --seeds: mean and standard deviation
train --seeds 2 --out seeds | tail -n 1 |
grep -Eqx 'mean P@1 [0-9.]+, standard deviation [0-9.]+, 2 seeds' &&
test -e seeds/seed34/prompt.safetensors && test -e seeds/seed35/result.tsv

# train --encoder mlp
train --encoder mlp --optimizer adamw --clip 1 --warmup 0

# train --encoder embedding
train --encoder embedding --max-length 16

# train --recipe paper
train --recipe paper --patience 1

# train --labels: the answer is one of the label words
for i in 1 2 3; do
    printf '{"sub": "w7%d", "label": true}\n{"sub": "a", "label": 0}\n' $i
done >labels.jsonl &&
ptune train --model model --train labels.jsonl --dev labels.jsonl --test labels.jsonl --epochs 20 --lr 0.1 \
    --labels true=w70,0=w80 | tail -n 1 | grep -qF '(6 of 6)'

# train: the largest integers that the options take
train --batch 2147483647 --max-length 2147483647 --patience 2147483647 --seed 2147483646 --seeds 2

# eval: the prompt gives the result that train printed
evaluate --prompt prompt.safetensors >eval.txt && same_end run.txt eval.txt

# eval --predictions: one line per example; P@1, P@10 and MRR follow from the ranks
evaluate --data data/train.jsonl --prompt prompt.safetensors --predictions predictions.tsv >eval.txt &&
awk -F '\t' 'NF != 5 || (NR > 1 && ($4 == 1) != ($2 == $3)) { exit 1 }
    NR > 1 { first += $4 == 1; ten += $4 <= 10; reciprocal += 1 / $4 }
    END {
        if (NR != 101) exit 1
        printf "P@10 %.2f, MRR %.4f\n", ten, reciprocal / 100
        printf "P@1 %.2f (%d of 100)\n", first, first
    }' predictions.tsv >ranks.txt && tail -n 2 eval.txt | cmp - ranks.txt

# eval: with one example for each of 55 allowed words, each rank from 1 to 55 occurs once
awk 'BEGIN {
    for (i = 65; i < 120; i++) {
        printf "w%d\n", i >"all.txt"
        printf "{\"sub\": \"a\", \"obj\": \"w%d\"}\n", i >"all.jsonl"
    }
    for (rank = 1; rank <= 55; rank++) sum += 1 / rank
    printf "P@10 %.2f, MRR %.4f\nP@1 %.2f (1 of 55)\n", 1000 / 55, sum / 55, 100 / 55
}' >ranks.txt && manual --data all.jsonl --vocab all.txt | tail -n 2 | cmp - ranks.txt

# eval: examples that need several batches have the same predictions as in two halves
for i in 1 2 3; do head -n 100 data/train.jsonl; done >many.jsonl &&
head -n 150 many.jsonl >first.jsonl && tail -n 150 many.jsonl >second.jsonl &&
for rows in many first second; do
    manual --data $rows.jsonl --predictions $rows.tsv || exit 1
    tail -n +2 $rows.tsv | cut -f 1-4 >$rows.cut
done
test $(wc -l <many.cut) = 300 && cat first.cut second.cut | cmp - many.cut

# eval: a row of the word table that has no word in vocab.txt is never predicted
mkdir short && cp model/* short && head -n 90 model/vocab.txt >short/vocab.txt &&
manual --model short --predictions short.tsv &&
awk -F '\t' 'NR == FNR { word[$0]; next } FNR > 1 && !($3 in word) { exit 1 }' short/vocab.txt short.tsv

# eval: examples from standard input and from a pipe
manual | tail -n 2 >file.txt && manual --data - <data/test.jsonl | tail -n 2 | cmp - file.txt && mkfifo pipe &&
{ cat data/test.jsonl >pipe & } && manual --data pipe | tail -n 2 | cmp - file.txt

# eval --labels: 81 labels
for word in $(sed -n '14,39p; 66,120p' model/vocab.txt); do printf '%s' "$comma$word=$word" && comma=,; done >labels.txt &&
printf '{"sub": "a", "label": "w119"}\n' >label.jsonl &&
manual --data label.jsonl --labels "$(cat labels.txt)" | grep -q '^accuracy .* of 1)'

# eval --vocab: only these words are predicted
printf 'w70\nw71\n' >words.txt && manual --vocab words.txt --predictions few.tsv &&
awk -F '\t' 'NR > 1 && $3 != "w70" && $3 != "w71" { exit 1 }' few.tsv

# eval --labels: accuracy and macro-F1 follow from the predictions
set -- yes no yes maybe no yes no
for i in 1 2 3 4 5 6 7; do
    printf '{"sub": "w7%d a", "label": "%s"}\n' $i $1
    shift
done >f1.jsonl &&
manual --data f1.jsonl --labels yes=w80,no=w81,maybe=w82 --predictions f1.tsv | tail -n 1 >f1.txt &&
awk -F '\t' 'NR > 1 { right += $2 == $3; both[$3] += $2 == $3; times[$3]++; times[$2]++ }
    END {
        for (w in times) { f += 200 * both[w] / times[w]; n++ }
        printf "accuracy %.2f (%d of 7), macro-F1 %.2f\n", 100 * right / 7, right, f / n
    }' f1.tsv | cmp - f1.txt

# {name-}: the field without its final punctuation
printf '{"sub": "w70 w71 .?", "obj": "w72"}\n' >dots.jsonl &&
printf '{"sub": "w70 w71", "obj": "w72"}\n' >bare.jsonl &&
evaluate --data dots.jsonl --template '{sub-} [MASK]' --predictions dots.tsv &&
evaluate --data bare.jsonl --template '{sub} [MASK]' --predictions bare.tsv &&
test "$(cut -f 2- dots.tsv)" = "$(cut -f 2- bare.tsv)"

# a subject that is a number or a boolean is printed as it is used
printf '{"sub": 1957, "obj": "w72"}\n{"sub": "1957", "obj": "w72"}\n{"sub": true, "obj": "w72"}\n' >number.jsonl &&
manual --data number.jsonl --predictions number.tsv && test "$(sed -n 2p number.tsv)" = "$(sed -n 3p number.tsv)" &&
test "$(cut -f 1 number.tsv | tr '\n' ' ')" = 'subject 1957 1957 true '

# of equal keys the last counts, escaped or not; a byte order mark is skipped, in a list of words, too
printf '\357\273\277{"sub": "a", "obj": "w71", "s\\u0075b": "w70", "obj": "w72"}\n' >twice.jsonl &&
printf '{"sub": "w70", "obj": "w72"}\n' >once.jsonl && printf '\357\273\277w70\nw72\n' >marked.txt &&
manual --data twice.jsonl --vocab marked.txt --predictions twice.tsv &&
manual --data once.jsonl --vocab marked.txt --predictions once.tsv && cmp once.tsv twice.tsv

# the fields of an object are named with a dot
printf '{"target": {"span1_text": "w70 w71"}, "obj": "w72"}\n' >within.jsonl &&
printf '{"target.span1_text": "w70 w71", "obj": "w72"}\n' >dotted.jsonl &&
for file in within dotted; do
    evaluate --data $file.jsonl --template '{target.span1_text} [MASK]' --predictions $file.tsv || exit 1
done
cmp within.tsv dotted.tsv

# eval: LAMA's masked_sentences are their own templates
printf '{"masked_sentences": ["w70 [MASK] {w71} ."], "sub_label": "a", "obj_label": "w72"}\n' >own.jsonl &&
printf '{"sub_label": "a", "obj_label": "w72", "rest": "{w71} ."}\n' >rest.jsonl &&
evaluate --data own.jsonl --predictions own.tsv &&
evaluate --data rest.jsonl --template 'w70 [MASK] {rest}' --predictions rest.tsv && cmp own.tsv rest.tsv

# table: a relation of LAMA that is one file is a test set
mkdir -p one/TREx && cp data/test.jsonl one/TREx/P1.jsonl && printf '{"relation": "P1", "template": "[X] w70 [Y]"}\n' \
    >one/relations.jsonl && ptune table --model model --data one --methods manual >one.txt && grep -q '^P1 *12 *0 ' one.txt

# eval --vocab: for an uncased model also a capitalised word; what the model does not have is counted
printf 'W70\nw71\nUnknown\n' >capital.txt && manual --vocab capital.txt --predictions capital.tsv 2>counted.txt &&
manual --vocab words.txt --predictions few.tsv && cmp few.tsv capital.tsv &&
grep -qx "note: capital.txt: 1 of its 3 words are not in the model's vocabulary: they are no answers" counted.txt

# eval --labels: names and words without white space around them
manual --data f1.jsonl --labels "$(printf ' yes = w80, no=w81 ,\n\tmaybe=w82\r')" | tail -n 1 | cmp - f1.txt

# eval --predictions: a test set without labels, or with -1, gives idx and the label that is predicted; no score
sed 's/, "label": "[a-z]*"/, "idx": {"a": 1}/' f1.jsonl >none.jsonl &&
sed 's/"label": "[a-z]*"/"label": -1/' f1.jsonl >minus.jsonl &&
for file in none minus; do
    for form in tsv jsonl; do
        manual --data $file.jsonl --labels yes=w80,no=w81,maybe=w82 --predictions $file.out.$form >$file.txt &&
        ! grep -q accuracy $file.txt || exit 1
    done
done
awk -F '\t' 'BEGIN { name["w80"] = "yes"; name["w81"] = "no"; name["w82"] = "maybe" }
    NR == 1 { print "idx\tlabel" } NR > 1 { print NR - 2 "\t" name[$3] }' f1.tsv | cmp - minus.out.tsv &&
awk -F '\t' 'NR > 1 { printf "{\"idx\": {\"a\": 1}, \"label\": \"%s\"}\n", $2 }' minus.out.tsv | cmp - none.out.jsonl

# eval: a line of MultiRC is a row for each answer; F1a, EM and the form of a submission follow from the rows
printf '{"idx": 7, "passage": {"text": "w70", "questions": [%s, %s, %s, %s]}, %s}\n' \
    '{"question": "w71", "idx": 2, "answers": [{"text": "w72", "idx": 5, "label": 1}' \
    '{"label": 0, "text": "a", "idx": 6}' '{"text": "w79", "idx": 7, "label": 0}]}' \
    '{"answers": [{"idx": 0, "text": "w74", "label": 1}], "idx": 0, "question": "w73"}' '"version": 1' >nested.jsonl &&
printf '{"passage": {"questions": [%s], "text": "w\\u0037\\u0036"}}\n' \
    '{"answers": [{"text": "w75", "label": 0}], "question": "b"}' >>nested.jsonl &&
printf '{"passage": "%s", "question": "%s", "answer": "%s", "label": %d}\n' \
    w70 w71 w72 1 w70 w71 a 0 w70 w71 w79 0 w70 w73 w74 1 w76 b w75 0 >flat.jsonl &&
multirc --data nested.jsonl --predictions nested.tsv >nested.txt &&
multirc --data flat.jsonl --predictions flat.tsv && cmp nested.tsv flat.tsv &&
awk -F '\t' 'NR > 1 {
        both += $2 == "w115" && $3 == "w115"
        times += ($2 == "w115") + ($3 == "w115")
        wrong[NR < 5 ? 2 : NR] += $2 != $3
    }
    END {
        for (question in wrong) exact += !wrong[question]
        printf "F1a %.2f, EM %.2f (%d of 3 questions)\n", 200 * both / times, 100 * exact / 3, exact
    }' flat.tsv >figures.txt && sed -n 2p nested.txt | cmp - figures.txt || exit 1
set -- $(awk -F '\t' 'NR > 1 { print $3 == "w115" ? 1 : 0 }' flat.tsv)
printf '{"idx": 7, "passage": {"questions": [{"idx": 2, "answers": [%s, %s, %s]}, {"idx": 0, "answers": [%s]}]}}\n' \
    "{\"idx\": 5, \"label\": $1}" "{\"idx\": 6, \"label\": $2}" "{\"idx\": 7, \"label\": $3}" \
    "{\"idx\": 0, \"label\": $4}" >submission.txt &&
printf '{"idx": 1, "passage": {"questions": [{"idx": 0, "answers": [%s]}]}}\n' "{\"idx\": 0, \"label\": $5}" \
    >>submission.txt &&
for change in '' 's/"label": [01]/"label": -1/g' 's/, "label": [01]//g; s/"label": [01], //g'; do
    sed "$change" nested.jsonl >changed.jsonl && multirc --data changed.jsonl --predictions changed.out.jsonl &&
    cmp changed.out.jsonl submission.txt || exit 1
done

# eval --task: the rows of COPA and WSC as they are; in a submission a label that is a number has no quotes. Of two
# answers the one with more than half of their probability is predicted
copa w70. "W75 w76." "w77 a" cause 0 w71 "w77 a" "W75 w76." effect 1 w72 "W75 w76." "w78 w79" cause 0 w73 "w78 w79" "W75 w76" cause 1 >copa.jsonl &&
wsc w65 "a b" 2 true w65 c 1 false w66 D 3 true w66 "e f g" 2 false >wsc.jsonl &&
evaluate --data copa.jsonl --task COPA-manual --predictions copa.tsv >copa.txt &&
evaluate --data wsc.jsonl --task WSC-manual --predictions wsc.tsv >wsc.txt &&
evaluate --data copa.jsonl --task COPA-manual --predictions copa.out.jsonl &&
evaluate --data wsc.jsonl --task WSC-manual --predictions wsc.out.jsonl &&
awk -F '\t' 'NR > 1 { printf "{\"idx\": 4, \"label\": %d}\n", $3 }' copa.tsv | cmp - copa.out.jsonl &&
awk -F '\t' 'NR > 1 { printf "{\"idx\": %d, \"label\": \"%s\"}\n", NR - 2, $3 }' wsc.tsv | cmp - wsc.out.jsonl &&
for task in copa wsc; do
    awk -F '\t' -v task=$task 'NR > 1 {
        right += $2 == $3
        bad += ($2 == $3) != ($4 == 1) || (task == "copa" && ($2 == $3) != ($5 > log(0.5)))
    }
    END { printf "accuracy %.2f (%d of 4)\n", 100 * right / 4, right; exit bad || NR != 5 }' $task.tsv >right.txt &&
    grep -qf right.txt $task.txt || exit 1
done
awk -F '\t' 'NR > 1 && $5 != ($2 == $3 ? 0 : -1) { exit 1 }' wsc.tsv &&
evaluate --data wsc.jsonl --task WSC-manual --labels 'false={},true={target.span1_text}' --predictions wsc.other.tsv &&
cmp wsc.tsv wsc.other.tsv

# eval --max-length: with all fields cut to nothing a template needs these tokens, and its answers need theirs: two, or
# one and three more
shortest() {
    size=3
    while ! evaluate --task $1 --data $2 --max-length $size 2>refused; do size=$((size + 1)); done >shortest.txt
    test $size = $3
}
copa "" "w78 w79" w77 cause 0 >copa0.jsonl && shortest COPA-manual copa0.jsonl 8 &&
wsc w65 c 2 true >wsc0.jsonl && shortest WSC-manual wsc0.jsonl 29

# train --task: answers of several tokens are learned, by a prompt, a deep prompt, the LM; what is kept knows them
learn() {
    file=$1
    shift
    ptune train --model model --train $file.jsonl --dev $file.jsonl --test $file.jsonl --batch 2 --epochs 60 "$@" |
    tail -n 1 >learned.txt && grep -qx 'accuracy 100.00 (4 of 4), macro-F1 100.00' learned.txt
}
learn copa --task COPA --lr 0.1 --out copa1 && learn copa --task COPA-manual --deep 4 --lr 0.1 --out copa2 &&
learn copa --task COPA-manual --tune-lm --lr-lm 1e-2 --out copa3 && learn wsc --task WSC --tune-lm --lr-lm 1e-2 --out wsc1 &&
evaluate --data copa.jsonl --task COPA --prompt copa1/prompt.safetensors | tail -n 1 | cmp - learned.txt &&
evaluate --data copa.jsonl --task COPA --prompt copa2/prompt.safetensors | tail -n 1 | cmp - learned.txt &&
evaluate --model copa3/model --data copa.jsonl --task COPA-manual | tail -n 1 | cmp - learned.txt &&
evaluate --model wsc1/model --data wsc.jsonl --task WSC --prompt wsc1/prompt.safetensors | tail -n 1 | cmp - learned.txt

# train and eval --task: template and labels from the file of --tasks
printf '{"premise": "w70", "hypothesis": "w71 .", "label": 1}\n' >toy.jsonl &&
printf '{"premise": "w72", "hypothesis": "w73", "label": 0}\n' >>toy.jsonl &&
ptune train --model model --train toy.jsonl --dev toy.jsonl --test toy.jsonl --tasks data/tasks.tsv --task toy --lr 0.1 --epochs 20 \
    --out task | tail -n 1 | grep -qx 'accuracy 100.00 (2 of 2), macro-F1 100.00' &&
test "$(cut -f 1,2,6,7,12 task/result.tsv)" = "$(printf 'toy\tp-lstm\t2\t2\t100.00')" &&
evaluate --data toy.jsonl --tasks data/tasks.tsv --task toy --prompt task/prompt.safetensors |
grep -qx 'accuracy 100.00 (2 of 2), macro-F1 100.00'

# train --task --recipe paper: the task's template, not the recipe's
ptune train --model model --train toy.jsonl --dev toy.jsonl --test toy.jsonl --tasks data/tasks.tsv --task toy --recipe paper --batch 2 \
    --epochs 1 --out recipe && grep -qF '{premise}' recipe/result.tsv

# a template may name the [CLS] and the [SEP] at its ends, as AutoPrompt's do
manual --predictions plain.tsv && evaluate --template '[CLS] [X] [MASK] [SEP]' --predictions named.tsv &&
cmp plain.tsv named.tsv

# train: more pseudo-tokens than there are in a usual template, up to the position table
train --template "$(awk 'BEGIN { while (i++ < 59) printf "[P]" }') [X] [MASK]" --max-length 64 --epochs 1 --out long &&
grep -q '"prompt":{"dtype":"F32","shape":\[59,32\]' long/prompt.safetensors

# words: the five nearest words of each pseudo-token
ptune words --model model --prompt prompt.safetensors |
awk 'NR > 1 && NF != 11 { bad = 1 } END { exit bad || NR != 10 }'

# fill --prompt: a subject is enough, and the first word is what eval predicts
ptune fill --model model --prompt prompt.safetensors first >fill.txt && test $(wc -l <fill.txt) = 5 &&
test "$(head -n 1 fill.txt | cut -f 1)" = "$(awk -F '\t' '$1 == "first" { print $3 }' predictions.tsv)"

# eval: with several templates and prompts the answer's probability is the mean of theirs, for label words too
mean() { evaluate --predictions mean.tsv "$@" --template '[X] w70 [Y]' --template '[Y] [X]' --prompt prompt.safetensors; }
mean >mean.txt && evaluate --template '[X] w70 [Y]' --predictions mean1.tsv >mean1.txt &&
evaluate --template '[Y] [X]' --predictions mean2.tsv && evaluate --prompt prompt.safetensors --predictions mean3.tsv &&
paste mean.tsv mean1.tsv mean2.tsv mean3.tsv | awk -F '\t' 'NR > 1 {
        p = (exp($10) + exp($15) + exp($20)) / 3
        if ((log(p) - $5) ^ 2 > 1e-8 || $1 != $6 || $1 != $16) wrong++
        hits += $4 == 1
    }
    END { print "P@1", hits; exit wrong || NR != 13 }' >mean.hits &&
test "$(tail -n 1 mean.txt | tr -d '(' | cut -d ' ' -f 1,3)" = "$(cat mean.hits)" &&
test $(grep -c test.jsonl mean.txt) = 1 && evaluate --template '[X] w70 [Y]' --template '[X] w70 [Y]' >twice.txt &&
cmp twice.txt mean1.txt && mean --data f1.jsonl --labels yes=w80,no=w81,maybe=w82 --template '[MASK]' >labels.txt &&
grep -q '^accuracy .*macro-F1' labels.txt

# search: prints a template
ptune search --model model --data data --template '[X] [P] [MASK] .' >found.txt &&
evaluate --template "$(cat found.txt)"

# vocab, pretrain: a model from facts and paraphrases
make_world world && ptune vocab --model world/bert --data world --size 150 &&
ptune pretrain --model world/bert --data world --epochs 2 --batch 32 &&
evaluate --model world/bert --template '[X] is [MASK] .'

# the demo: relations with the same facts have the same results, whatever is trained in between
mkdir home && cd home && make_world data && cp -r ../model data/bert && ptune >demo.txt &&
test $(grep '^toy. ' demo.txt | cut -c 5- | sort -u | wc -l) = 1 && grep -q 'seconds. Next: ./ptune fill' demo.txt

# table: every method, on two relations with the same facts, one result line each
table --out results --epochs 1 --methods majority,worst,manual,best,search,ft,mp+ft,best+ft,p-lstm,p-mlp,p-embedding,\
p-swapped,p-hybrid,p-start,p-deep,mean >table.txt && test $(ls results/*.result.tsv | wc -l) = 32 &&
grep -qF '; start [X] : [Y]; ' results/toy1.p-start.*tsv && grep -qF '	[X] [P] [MASK]	' results/toy1.p-start.*tsv &&
grep -qF '[P] [X] [P] ' results/toy1.p-hybrid.*tsv &&
test $(grep '^toy. ' table.txt | cut -c 5- | sort -u | wc -l) = 1 &&
test -e results/toy1.p-lstm.words.34/prompt.safetensors && grep -q '; deep 4; ' results/toy1.p-deep.*tsv &&
! grep -q '; deep ' results/toy1.p-lstm.*tsv &&
! find results | grep -q checkpoint && ! find results | grep -q /model

# table: mean has the hits of the manual and the kept prompt together, mean-seeds of all kept ones
means() { ptune table --model "$HERE"/data/bert --data "$HERE"/data --relations shares_border --epochs 1 --lr 0.005 "$@"; }
means --seeds 3 --methods mean,mean-seeds --out means >ran.txt &&
means --seeds 3 --methods mean,mean-seeds --out means >read.txt && cmp ran.txt read.txt &&
test $(ls means/*.result.tsv | wc -l) = 7 && cd means &&
set -- --model "$HERE"/data/bert --data "$HERE"/data/shares_border/test.jsonl &&
manual=$(cut -f 5 shares_border.mean.all.34.result.tsv) &&
kept() { for seed in "$@"; do echo --prompt shares_border.p-start.all.$seed/prompt.safetensors; done; }
result() { cut -f 6 shares_border.$1.result.tsv; }
test $(hits "$@" --template "$manual" $(kept 34)) = $(result mean.all.34) &&
test $(hits "$@" --template "$manual" $(kept 35)) = $(result mean.all.35) &&
test $(hits "$@" $(kept 34 35 36)) = $(result mean-seeds.all.34)

# tools/where.awk: an example counts in the first group that it belongs to; train's most frequent answer is an allowed one
fact() { printf '{"sub_label": "%s", "obj_label": "%s"}\n' "$@"; }
printf '%s\n' Oslo Rome Lima Bonn >allowed.txt &&
fact a Oslo b Oslo c Rome d Kiev e Kiev f Kiev 'a \"g\" h' Rome >train.jsonl &&
predicted() {
    printf 'subject\tanswer\tprediction\trank\tlog_probability\n'
    printf '%s\t%s\t-\t%s\t-1\n' 'Oslo' Oslo $1 'Rome, b' Rome $2 'c' Lima $3 'a "g" h' Bonn $4 x Bonn $5 y Rome $6 Romeo Rome $7
} && predicted 1 1 2 1 2 10 2 >manual.tsv && predicted 2 1 1 2 1 1 1 >learned.tsv &&
awk -f "$HERE"/tools/where.awk allowed.txt train.jsonl manual.tsv learned.tsv | tr '\n' ';' |
    grep -qxF 'majority 1 1 0;inside 1 1 1;subject 2 1 1;unseen 1 0 1;others 2 0 2;'

# table: a folder's table has the same numbers
ptune table results >again.txt && sed -n '/^toy/p; /^method/,$p' table.txt >ran.txt &&
sed -n '/^toy/p; /^method/,$p' again.txt | cmp ran.txt -

# table: average and pooled, over relations of 2 and 6 examples; a relation's line has the means over its seeds
line() { printf '%s\tmanual\tv\t%d\tT\t%d\t%d\t%d\t0\t0\t1.5\t0\t-\n' "$@"; }
mkdir made && cd made && line a 34 1 2 1 >a.34.result.tsv && line b 34 6 6 0 >b.34.result.tsv &&
line a 35 2 2 1 >a.35.result.tsv && line b 35 0 6 0 >b.35.result.tsv && ptune table . >table.txt &&
grep -Eq '^a +2 +1 +75.0$' table.txt && grep -Eq '^b +6 +0 +50.0$' table.txt &&
grep -Eq '^manual +62.50 \+- 17.68 +56.25 \+- 44.19 +2 +2 +6.0 ' table.txt

# table: a run whose result exists is not repeated
mv results/toy1.manual.words.34.result.tsv was &&
awk -F '\t' -v OFS='\t' '{ $6 = $6 == $7 ? 0 : $7; print }' was >changed &&
cp changed results/toy1.manual.words.34.result.tsv &&
table --out results --methods manual --relations toy1 >again.txt &&
cmp changed results/toy1.manual.words.34.result.tsv &&
grep -q "^toy1 .* $(awk -F '\t' '{ print 100 * $6 / $7 }' changed).0$" again.txt

# table: a stopped run continues with the same numbers
set -- --methods p-lstm --relations toy1 --epochs 200
table "$@" --out whole || exit 1
"$PTUNE" as-ptune table --model model --data world --vocab words.txt --lr 0.01 --out part "$@" &
await part/toy1.p-lstm.words.34/checkpoint.safetensors
kill -KILL $!
wait $! 2>killed
test ! -e part/toy1.p-lstm.words.34.result.tsv && table "$@" --out part &&
cmp whole/toy1.p-lstm.words.34/prompt.safetensors part/toy1.p-lstm.words.34/prompt.safetensors &&
cut -f 1-10 whole/*.result.tsv >whole.cut && cut -f 1-10 part/*.result.tsv | cmp whole.cut -

# table: a result does not depend on settings that its method does not have
table --out results --methods manual,majority --epochs 7 --lr 3

# table --jobs: the same numbers, and the same result lines
table --methods majority,manual,search,ft,p-lstm --seeds 2 --epochs 1 >alone.txt &&
table --methods majority,manual,search,ft,p-lstm --seeds 2 --epochs 1 --jobs 2 --out side >side.txt &&
test $(ls side/*.result.tsv | wc -l) = 16 && ! ls side | grep lock &&
for file in alone side; do grep '^toy' $file.txt >$file.cut || exit 1; done && cmp alone.cut side.cut

# table --jobs: a process that is killed is named, and the others end
"$PTUNE" as-ptune table --model model --data world --lr 0.01 --jobs 2 --methods p-lstm --epochs 100000 \
    --patience 100000 --out killed_job >killed.txt 2>killed.err &
parent=$!
await killed_job/toy1.p-lstm.all.34/checkpoint.safetensors
set -- $(ps -A -o pid= -o ppid= | awk -v parent=$parent '$2 == parent { print $1 }')
test $# = 2 && kill -KILL $1
wait $parent
test $? = 1 && grep -qx 'ptune: a process of --jobs was killed by signal 9' killed.err || exit 1
! kill -0 $2 2>gone && rm -r killed_job

# table --prompts: a folder, or a .jsonl with relations; the best prompt on dev is used
mkdir prompts && printf '{"template": "[X] w70 [Y]", "weight": 0.5}\n' >prompts/toy1.jsonl &&
printf '[X] w71 [Y]\n' >prompts/toy2.txt && table --prompts prompts --methods best --out asked &&
grep -qF '	[X] w70 [Y]	' asked/toy1.*tsv && grep -qF '	[X] w71 [Y]	' asked/toy2.*tsv &&
printf '{"relation": "toy1", "template": "[Y] [X]"}\n{"relation": "toy2", "template": "[X] [Y]"}\n' >auto.jsonl &&
table --prompts auto.jsonl --methods best --out auto &&
grep -qF '	[Y] [X]	' auto/toy1.*tsv && grep -qF '	[X] [Y]	' auto/toy2.*tsv

# table: LAMA's layout; relations without a folder are skipped; several seeds only for methods that depend on them
mkdir -p lama/relations && cp -r world/toy1 lama/relations && cp world/relations.jsonl lama &&
ptune table --model model --data lama --methods manual,p-lstm --seeds 2 --epochs 1 --out lama/results >lama.txt &&
test $(ls lama/results/*.tsv | wc -l) = 3 && grep -q '^toy1 ' lama.txt && ! grep -q '^toy2 ' lama.txt

# table: best is the prompt that is best on dev, worst the one that is worst on test
mkdir -p pick/toy && cp data/*.jsonl pick/toy && head -n 5 data/train.jsonl >>pick/toy/test.jsonl &&
printf '[Y] [X]\n[X] [Y]\n' >pick/toy/prompts.txt &&
printf '{"relation": "toy", "template": "[Y] w71 [X]"}\n' >pick/relations.jsonl &&
train --tune-lm --lr-lm 0.003 --epochs 30 --template '[X] [MASK]' --out apt &&
ptune table --model apt/model --data pick --methods best,worst,majority --out picked || exit 1
for split in dev test; do
    for template in '[Y] [X]' '[X] [Y]' '[Y] w71 [X]'; do
        hits --model apt/model --data pick/toy/$split.jsonl --template "$template"
    done | sort -n >$split.hits
done
asked() { hits --model apt/model --data pick/toy/$2.jsonl --template "$(cut -f 5 picked/toy.$1.*.result.tsv)"; }
test "$(asked best dev)" = "$(tail -n 1 dev.hits)" && test "$(asked worst test)" = "$(head -n 1 test.hits)"

# table: majority's hits and the subjects seen in train are those counted in the data
awk -F '"' '/two words/ { next }
    NR == FNR { seen[$4]; if (++times[$8] > times[most]) most = $8; next }
    { rows++; hits += $8 == most; known += $4 in seen }
    END { print hits "\t" rows "\t" known }' pick/toy/train.jsonl pick/toy/test.jsonl >counted &&
cut -f 6-8 picked/toy.majority.*.result.tsv | cmp - counted

# GPT: vocab and pretrain --causal, a byte-level BPE and a causal LM; each answer of the world is one token
lettered() { tr 0123456789 abcdefghij; } # byte-level BPE cuts w70 between letter and number
make_world gworld && mkdir gdata || exit 1
for split in train dev test; do
    lettered <data/$split.jsonl >gdata/$split.jsonl
    for toy in toy1 toy2; do head -n 4 data/test.jsonl | lettered >gworld/$toy/$split.jsonl; done
done
ptune vocab --causal --model gpt --data gworld --size 300 &&
ptune pretrain --causal --model gpt --data gworld --epochs 2 --batch 8 --lr 0.003 >learnt.txt &&
ls gpt | tr '\n' ' ' | grep -qx 'config.json merges.txt model.safetensors tokenizer.json tokenizer_config.json vocab.json ' &&
! grep -q skipped learnt.txt && grep -q '^in all: ' learnt.txt

# GPT: the same seed writes the same file, whatever the number of threads
cp -r gpt gpt_again && OMP_NUM_THREADS=3 ptune pretrain --causal --model gpt_again --data gworld --epochs 2 --batch 8 \
    --lr 0.003 >learnt.txt && cmp gpt/model.safetensors gpt_again/model.safetensors

# GPT: fill goes on with a text; a space or [MASK] at its end changes nothing
ptune fill --model gpt 'first is' >next.txt && test $(wc -l <next.txt) = 5 &&
for text in 'first is ' 'first is [MASK]' 'first is [MASK] '; do
    ptune fill --model gpt "$text" | cmp next.txt - || exit 1
done && ! ptune fill --model gpt ' first is' | cmp -s next.txt -

# GPT: a file may have the word table twice
"$PTUNE" weights head gpt tied && ptune fill --model tied 'first is' | cmp next.txt -

# GPT: LAMA's own sentences are read up to their [MASK]
printf '{"masked_sentences": ["first is [MASK] ."], "obj_label": "wha"}\n' >gpt_own.jsonl &&
printf '{"sub_label": "first", "obj_label": "wha"}\n' >gpt_first.jsonl &&
ptune eval --model gpt --data gpt_own.jsonl | tail -n 2 >own.txt &&
ptune eval --model gpt --data gpt_first.jsonl --template '[X] is [MASK]' | tail -n 2 | cmp own.txt -

# GPT: training, from which the prompt alone is kept; eval, fill and words use it
gtrain() { ptune train --model gpt --data gdata --epochs 2 --lr 0.01 "$@"; }
gtrain --out gpt_run >gpt.txt && test $(wc -l <gpt_run/log.tsv) = 2 &&
ptune eval --model gpt --data gdata/test.jsonl --prompt gpt_run/prompt.safetensors --predictions gpt.tsv >eval.txt &&
same_end gpt.txt eval.txt && ! grep -q "$(printf '\304\240')" gpt.tsv && ptune words --model gpt \
    --prompt gpt_run/prompt.safetensors >gpt_words.txt && test $(grep -c '^\[P\][0-9]' gpt_words.txt) = 6 &&
head -n 1 gpt_words.txt | grep -qF '[P][P][P] [X] [P][P][P] [MASK]' && test "$(sed -n '2s/	.*//p' gpt.tsv)" = first &&
test "$(ptune fill --model gpt --prompt gpt_run/prompt.safetensors first | sed -n '1s/^ *\([^	]*\)	.*/\1/p')" = \
    "$(awk -F '\t' 'NR == 2 { print $3 }' gpt.tsv)"

# GPT: a deep prompt
ptune train --model gpt --data gdata --epochs 2 --deep 3 --template '[X] is [Y]' --shift-positions --out gpt_deep \
    >gpt.txt && ptune eval --model gpt --data gdata/test.jsonl --prompt gpt_deep/prompt.safetensors >eval.txt &&
same_end gpt.txt eval.txt

# GPT: the published short form, label words, a trained LM that is written as it is read
ptune train --model gpt --data gdata --epochs 1 --template '(2,1,0)' --out gpt_short &&
ptune words --model gpt --prompt gpt_short/prompt.safetensors | head -n 1 | grep -qx '\[P\]\[P\] \[X\] \[P\] \[MASK\]' &&
sed 's/"obj_label": "wha"/"label": 1/; s/"obj_label".*/"label": 0}/' gdata/dev.jsonl >gpt_labels.jsonl &&
ptune train --model gpt --train gpt_labels.jsonl --dev gpt_labels.jsonl --test gpt_labels.jsonl --epochs 1 \
    --template '{sub_label} [P] [MASK]' --labels '1=wha,0=whb' --tune-lm --out gpt_tuned | grep -q '^accuracy' &&
ptune fill --model gpt_tuned/model 'first is' >tuned.txt && ! cmp -s tuned.txt next.txt &&
for file in tokenizer.json vocab.json merges.txt; do cmp gpt/$file gpt_tuned/model/$file || exit 1; done

# GPT: every method of the table but mask first; search prints words that are tokens
ptune table --model gpt --data gworld --out gpt_results --lr 0.01 --lr-lm 0.001 --epochs 1 --methods majority,worst,\
manual,best,search,ft,mp+ft,best+ft,p-lstm,p-mlp,p-embedding,p-hybrid,p-start,mean >gpt_table.txt &&
test $(ls gpt_results/*.result.tsv | wc -l) = 28 && test $(grep '^toy. ' gpt_table.txt | cut -c 5- | sort -u | wc -l) = 1 &&
grep -qF '	[X] : [Y]	' gpt_results/toy1.manual.*tsv && ! grep -qF '[Y] is' gpt_results/toy1.best.*tsv &&
ptune search --model gpt --data gworld/toy1 --template '[P] [X] [P] [MASK]' >gpt_found.txt &&
grep -q '^ [^ ]' gpt_found.txt && # a token with its space
ptune eval --model gpt --data gworld/toy1/test.jsonl --template "$(cat gpt_found.txt)"

# GPT: a run that was interrupted ends with the same numbers
set -- as-ptune train --model gpt --data gdata --epochs 30 --lr 0.003 --tune-lm
"$PTUNE" "$@" --out gpt_whole >gpt_whole.txt || exit 1
interrupted_run gpt_part "$@" && "$PTUNE" "$@" --out gpt_part --resume >gpt_part.txt && same_end gpt_whole.txt gpt_part.txt &&
cmp gpt_whole/model/model.safetensors gpt_part/model/model.safetensors

# tag: sentences whose words tell their tags; train has O, B-x, I-x, B-y and I-y, and some words of two pieces
sentences() {
    awk -v sentences=$1 -v state=$2 '
    function random(n) { state = (1103 * state + 12345) % 65536; return int(state / 16) % n }
    BEGIN {
        while (sentences--) {
            for (words = 2 + random(5); words; words--) {
                word = 65 + random(24)
                if (word % 4) print word % 4 == 1 ? "ab O" : "w" word " O"
                else print "w" word " " (word % 3 ? "B-" : "I-") (word % 8 ? "x" : "y")
            }
            print ""
        }
    }'
}
mkdir tags && sentences 80 1 >tags/train.conll && sentences 20 2 >tags/dev.conll && sentences 30 3 >tags/test.conll

# tag: the head alone, behind pseudo-tokens, with a deep prompt, with all of BERT: what is kept gives the same tags
for how in '' '--pseudo 3' '--pseudo 2 --encoder embedding' '--deep 2 --shift-positions' '--deep 2 --pseudo 1' --tune-lm; do
    model=model
    test "$how" != --tune-lm || model=tag_run/model
    rm -rf tag_run && tag $how --out tag_run --predictions tagged.conll >tag.txt &&
    test $(grep -c '^epoch [12]: loss [0-9.]*, dev F1 [0-9.]*' tag.txt) = 2 &&
    ptune eval --model $model --data tags/test.conll --tagger tag_run/tagger.safetensors --predictions again.conll \
        >again.txt && cmp tagged.conll again.conll && same_end tag.txt again.txt || { echo "$how" >&2; exit 1; }
done

# tag: the predictions are the words of the file, their tags, and tags of train; training is worth it
tag --deep 4 --lr 0.03 --epochs 20 --out tag_run >tag.txt && cp tag_run/tagger.safetensors . &&
tag --tune-lm --lr 0.01 --epochs 20 --predictions tagged.conll >tag.txt && tail -n 1 tag.txt | awk '{ exit !($NF > 50) }' &&
cut -d ' ' -f 1,2 tagged.conll | sed 's/^ $//' | cmp - tags/test.conll &&
awk 'NF && !($3 ~ /^(O|[BI]-[xy])$/) { exit 1 } NF { words++; right += $2 == $3 } END { exit right < 0.8 * words }' tagged.conll

# tag: the same seed gives the same tagger, whatever the number of threads; another seed another one
tag --deep 2 --pseudo 2 --out tag_1 >tag_1.txt && OMP_NUM_THREADS=3 tag --deep 2 --pseudo 2 --out tag_3 >tag_3.txt &&
cmp tag_1.txt tag_3.txt && cmp tag_1/tagger.safetensors tag_3/tagger.safetensors &&
tag --deep 2 --pseudo 2 --seed 35 --out tag_3 >tag_3.txt && ! cmp -s tag_1/tagger.safetensors tag_3/tagger.safetensors

# tag --resume: the same tagger as without an interrupt; a run that has ended gives what its best epoch gave
earlier=
for how in '--lr 0.2' '--lr 0.2 --pseudo 2 --deep 2' '--lr 0.01 --tune-lm'; do
    set -- as-ptune tag --model model --data tags --epochs 30 $how
    "$PTUNE" "$@" --out whole_tag >whole.txt && tail -n 1 whole.txt >whole.last || exit 1
    grep '^epoch' whole.txt | tail -n 1 | grep -q '[*]' || earlier=yes # the best epoch is not the last one
    "$PTUNE" "$@" --out whole_tag --resume | cmp - whole.last && interrupted_run part_tag "$@" &&
    "$PTUNE" "$@" --out part_tag --resume >part.txt && same_end whole.txt part.txt &&
    cmp whole_tag/tagger.safetensors part_tag/tagger.safetensors || { echo "$how" >&2; exit 1; }
done
test "$earlier" && cmp whole_tag/model/model.safetensors part_tag/model/model.safetensors

# tag --out: a new run in the folder of another leaves nothing to be continued of that
tag --out tag_3 >tag.txt && ! tag --lr 1e300 --out tag_3 >tag.txt 2>noted && ! test -e tag_3/checkpoint.safetensors &&
tag --deep 2 --pseudo 2 --out tag_3 >tag.txt

# eval --tagger: tabs, several columns, ends of lines as Windows has them, -DOCSTART- and more empty lines say the same
ask_tagger --predictions tagged.conll >tag.txt &&
{ printf '\357\273\277-DOCSTART- -X- O\r\n\n'; sed 's/ /\tNN\t/; s/$/\r/; s/^\r$/\r\n\t/' tags/test.conll; } >tags/other.conll &&
ask_tagger --data tags/other.conll --predictions again.conll >again.txt && cmp tag.txt again.txt &&
cmp tagged.conll again.conll && sed '$d' tags/test.conll | ask_tagger --data - | cmp - tag.txt

# eval --tagger: words that are cut are predicted to be O, and their entities are missed; a line says how many there are
ask_tagger --max-length 4 --predictions cut.conll >tag.txt 2>noted &&
grep -Eq "^note: tags/test.conll: [0-9]+ of 30 sentences are cut to 4 tokens: their last [0-9]+ words are" noted &&
awk '!NF { n = 0 } NF && ++n > 2 && $3 != "O" { exit 1 }' cut.conll &&
ask_tagger >all.txt && test "$(sed 's/.*of \([0-9]*\)), F1.*/\1/' tag.txt)" = "$(sed 's/.*of \([0-9]*\)), F1.*/\1/' all.txt)"

# tag: a tag that train does not have is never predicted; a line says how many words have it
sed 's/B-x/B-z/' tags/test.conll >tags/more.conll &&
tag --test tags/more.conll --predictions tagged.conll 2>noted >tag.txt && ! grep -q ' [BI]-z$' tagged.conll &&
grep -q "^note: tags/more.conll: $(grep -c 'B-z' tags/more.conll) words have a tag that train does not have: " noted
