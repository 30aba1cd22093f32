/* vocab.h - the files of a tokenizer: a model's folder is read into a Vocab, and a Vocab written into a folder. */

#ifndef VOCAB_H
#define VOCAB_H

#include "tokenizer.h"

/* ---- Pieces and merges ------------------------------------------------------------------------------------------- */

/* The pieces of a vocab.txt: line n, counted from 0, is the piece with id n. Blank lines at the end are none. */
static inline void vocab_read(Vocab *vocab, Text file, const char *path) {
    vocab->path = path;
    while (file.size && memchr(" \t\v\f\r\n", file.data[file.size - 1], 6)) file.size--;
    for (Text line; next_line(&file, &line);) {
        if (!utf8_valid(line)) die("%s:%d: not valid UTF-8", path, vocab->size + 1);
        vocab_push(vocab, line);
    }
}
/* The pieces of a vocab.json, or of a tokenizer.json: an object of piece and id. */
static inline void vocab_read_pieces(Vocab *vocab, Text pieces, const char *path) {
    Text key, value;
    const int count = json_count(pieces);
    int most = -1;
    vocab->path = path;
    for (size_t position = 0; json_next(pieces, &position, &key, &value);) {
        const int id = json_int(value);
        if (id < 0 || id > 2 * count + 1000) die("%s: '%s' has no sensible id", path, text_line(json_key(key)));
        if (id > most) most = id;
    }
    Text *piece = allocate_zeroed(sizeof *piece * (size_t)(most + 2));
    for (size_t position = 0; json_next(pieces, &position, &key, &value);) {
        Text *at = &piece[json_int(value)];
        if (at->data && !text_equal(*at, json_key(key)))
            die("%s: '%s' and '%s' have the same id", path, text_line(*at), text_line(json_key(key)));
        *at = json_key(key);
    }
    vocab_reserve(vocab, (size_t)most + 1);
    for (int id = 0; id <= most; id++) vocab_push(vocab, piece[id].data ? piece[id] : (Text){"", 0});
}

static inline Text symbol_text(int byte) {
    char *text = allocate(4);
    return (Text){text, utf8_encode(byte_symbol(byte), text)};
}
/* The tokens of single bytes in GPT-2's order: first those that stand for themselves. */
static inline void vocab_push_bytes(Vocab *vocab) {
    for (int other = 0; other < 2; other++)
        for (int byte = 0; byte < 256; byte++)
            if ((byte_symbol(byte) != (uint32_t)byte) == other) vocab_push(vocab, symbol_text(byte));
}
static inline void vocab_find_bytes(Vocab *vocab) {
    for (int byte = 0; byte < 256; byte++) {
        vocab->byte_id[byte] = vocab_find(vocab, symbol_text(byte));
        if (vocab->byte_id[byte] < 0)
            die("%s: no token for the byte 0x%02X ('%s')", vocab->path, byte, text_line(symbol_text(byte)));
    }
}
/* Adds the next merge. Its token is in the vocabulary; or, with `makes`, it gets the next id. */
static inline void vocab_add_merge(Vocab *vocab, Texts parts, bool makes, const char *where) {
    if (parts.count != 2 || !parts.at[0].size || !parts.at[1].size) die("%s: a merge has two parts", where);
    const Text left = parts.at[0], right = parts.at[1], joined = text_joined(left, right);
    const Text needed[] = {left, right, joined};
    for (int k = 0; k < (makes ? 2 : 3); k++)
        if (vocab_find(vocab, needed[k]) < 0) die("%s: '%s' is not in the vocabulary", where, text_line(needed[k]));
    if (makes && vocab_find(vocab, joined) >= 0) die("%s: '%s' is made twice", where, text_line(joined));
    if (makes) vocab_push(vocab, joined);
    const Merge merge = {vocab_find(vocab, left), vocab_find(vocab, right), vocab_find(vocab, joined)};
    if (merge_find(&vocab->merges, merge.left, merge.right) >= 0)
        die("%s: the merge of '%s' and '%s' again", where, text_line(left), text_line(right));
    merge_push(&vocab->merges, merge);
}
/* The lines of a merges.txt: two parts with a space between them. The first one may name a version. */
static inline void merges_read(Vocab *vocab, Text file, bool makes, const char *path) {
    int number = 0;
    while (file.size && memchr(" \r\n", file.data[file.size - 1], 3)) file.size--;
    for (Text line; next_line(&file, &line);) {
        const char *where = format("%s:%d", path, ++number);
        if (!utf8_valid(line)) die("%s: not valid UTF-8", where);
        if (number > 1 || !text_starts(line, "#version")) vocab_add_merge(vocab, split(line, ' '), makes, where);
    }
}
/* Those of a tokenizer.json: strings "a b", or arrays ["a", "b"]. */
static inline void merges_read_json(Vocab *vocab, Text list, const char *path) {
    Text none, value, part;
    int number = 0;
    for (size_t position = 0; json_next(list, &position, &none, &value);) {
        const char *where = format("%s: merge %d", path, ++number);
        Texts parts = {0};
        if (json_is_string(value)) parts = split(json_string(value), ' ');
        for (size_t at = 0; *value.data == '[' && json_next(value, &at, &none, &part);) {
            if (!json_is_string(part)) die("%s: not a string: %s", where, text_line(part));
            texts_push(&parts, json_string(part));
        }
        vocab_add_merge(vocab, parts, false, where);
    }
}

/* ---- Settings ---------------------------------------------------------------------------------------------------- */

/* They are in tokenizer_config.json and in tokenizer.json, which have different names for them. */
enum { LOWER, ACCENTS, IDEOGRAPHS, CLEAN, SETTINGS };
static const char *const config_name[] = {"do_lower_case", "strip_accents", "tokenize_chinese_chars", "clean_text"};
static const char *const json_name[] = {"lowercase", "strip_accents", "handle_chinese_chars", "clean_text"};
typedef struct { int said[SETTINGS]; } Said; /* 0 or 1; -1: nothing */

static inline int json_flag(Text object, const char *name, const char *path) {
    Text value;
    if (!json_member(object, name, &value) || text_is(value, "null")) return -1;
    if (!text_is(value, "true") && !text_is(value, "false")) die("%s: %s must be true or false", path, name);
    return text_is(value, "true");
}
static inline Said said_in(Text object, const char *const names[], const char *path) {
    Said s;
    for (int k = 0; k < SETTINGS; k++) s.said[k] = json_flag(object, names[k], path);
    return s;
}
/* A member that must be a string, or absent or null: then the text is empty. */
static inline Text json_text(Text object, const char *name, const char *path) {
    Text value;
    if (!json_member(object, name, &value) || text_is(value, "null")) return (Text){"", 0};
    if (!json_is_string(value)) die("%s: %s is not a string", path, name);
    return json_string(value);
}
static inline void json_refuse_unless(Text object, const char *name, const char *wanted, const char *path) {
    const Text value = json_text(object, name, path);
    if (value.size && !text_is(value, wanted))
        die("%s: %s is \"%s\": only \"%s\" is implemented", path, name, text_line(value), wanted);
}
static inline void json_refuse_true(Text object, const char *const *names, const char *path) { /* up to a NULL */
    for (; *names; names++)
        if (json_flag(object, *names, path) == 1) die("%s: %s true is not implemented", path, *names);
}

/* ---- Added tokens ------------------------------------------------------------------------------------------------ */

/* They are named in tokenizer_config.json, or in added_tokens.json and special_tokens_map.json, as older versions of
 * transformers wrote them, and in tokenizer.json. All are collected, then added in the order of their ids. */
typedef struct { AddedToken token; const char *path; bool strips; } FoundToken;
typedef struct { FoundToken *at; int count; bool bytes; } FoundTokens; /* bytes: for byte-level BPE */

static inline bool is_reserved(Text content, bool bytes) {
    if (bytes) return text_is(content, END_OF_TEXT);
    for (int m = 0; m < SPECIAL_TOKENS; m++)
        if (text_is(content, special_tokens[m])) return true;
    return false;
}
/* Of several with one content the first counts; id -1: the next free one. */
static inline void found_push(FoundTokens *found, FoundToken f) {
    AddedToken *t = &f.token;
    t->sought = t->content, t->reserved = is_reserved(t->content, found->bytes);
    for (int i = 0; i < found->count; i++) {
        AddedToken *old = &found->at[i].token;
        if (!text_equal(old->content, t->content)) continue;
        if (t->id >= 0 && old->id >= 0 && (old->id != t->id || old->normalized != t->normalized))
            note("%s and %s differ in the added token '%s': the former counts", found->at[i].path, f.path,
                 text_line(t->content));
        if (old->id < 0) old->id = t->id;
        return;
    }
    if (!t->content.size) return;
    found->at = grow(found->at, found->count, sizeof f);
    found->at[found->count++] = f;
}
/* A string, or an object with a content and flags. */
static inline FoundToken found_token(Text value, int id, bool special, const char *path) {
    FoundToken f = {{.id = id, .special = special, .normalized = false}, path, false};
    if (json_is_string(value)) {
        f.token.content = json_string(value);
        return f;
    }
    if (!json_is_object(value)) die("%s: an added token is neither a string nor an object", path);
    f.token.content = json_text(value, "content", path);
    if (json_flag(value, "single_word", path) == 1)
        die("%s: single_word of the added token '%s' is not implemented", path, text_line(f.token.content));
    const int normal = json_flag(value, "normalized", path);
    f.token.special = special || json_flag(value, "special", path) == 1;
    f.token.normalized = normal < 0 ? !f.token.special : normal;
    f.strips = json_flag(value, "lstrip", path) == 1 || json_flag(value, "rstrip", path) == 1;
    return f;
}
/* Members whose keys are ids, or whose values are, or elements that have one. */
static inline void find_tokens(FoundTokens *found, Text container, const char *path) {
    Text key, value, number;
    for (size_t position = 0; json_next(container, &position, &key, &value);) {
        const bool list = container.data[0] == '[', by_name = !list && !json_is_object(value);
        const Text name = json_key(key);
        number = by_name ? value : name;
        if (list && (!json_is_object(value) || !json_member(value, "id", &number)))
            die("%s: an added token without an id", path);
        const int id = json_int(number);
        if (id < 0) die("%s: '%s' is not the id of an added token", path, text_line(number));
        const bool special = is_reserved(name, found->bytes);
        const FoundToken named = {{.content = name, .normalized = !special, .special = special, .id = id}, path, false};
        found_push(found, by_name ? named : found_token(value, id, false, path));
    }
}
/* The special tokens that an object lists beside the usual ones. */
static inline void find_more_special(FoundTokens *found, Text object, const char *path) {
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    Text list, none, token;
    for (int k = 0; k < 2; k++)
        if (json_member(object, lists[k], &list))
            for (size_t position = 0; json_next(list, &position, &none, &token);)
                found_push(found, found_token(token, -1, true, path));
}
/* Those that it names: mask_token and so on. BERT's must have BERT's names. */
static inline void find_special(FoundTokens *found, Text object, const char *path) {
    static const char *const known[] = {"pad_token", "unk_token", "cls_token", "sep_token", "mask_token"};
    Text key, value;
    for (size_t position = 0; json_next(object, &position, &key, &value);) {
        const Text name = json_key(key);
        if (name.size < 6 || memcmp(name.data + name.size - 6, "_token", 6)) continue;
        if (!json_is_string(value) && !json_is_object(value)) continue;
        const FoundToken f = found_token(value, -1, true, path);
        for (int m = 0; m < SPECIAL_TOKENS && !found->bytes; m++)
            if (text_is(name, known[m]) && !text_is(f.token.content, special_tokens[m]))
                die("%s: %s is '%s': only %s is implemented", path, known[m], text_line(f.token.content),
                    special_tokens[m]);
        found_push(found, f);
    }
}
static inline int compare_found(const void *a, const void *b) { /* by id; those without one last */
    const unsigned x = (unsigned)((const FoundToken *)a)->token.id, y = (unsigned)((const FoundToken *)b)->token.id;
    return (x > y) - (x < y);
}
/* An added token's id is that of its entry in the vocabulary, or the next free one. */
static inline void vocab_add_token(Vocab *vocab, const FoundToken *f) {
    AddedToken token = f->token;
    const int own = vocab_find(vocab, token.content);
    if (own < 0 && token.reserved && !vocab->bytes) return; /* a vocabulary without [PAD] */
    token.id = own < 0 ? vocab->size : own;
    if (f->token.id >= 0 && f->token.id != token.id)
        die("%s: the added token '%s' has the id %d; by %s it is %d", f->path, text_line(token.content), f->token.id,
            vocab->path, token.id);
    if (own < 0) vocab_push(vocab, token.content);
    vocab->added = grow(vocab->added, vocab->added_count, sizeof token);
    vocab->added[vocab->added_count++] = token;
}
/* White space before and after a token, which lstrip and rstrip remove, has no ids for BERT: what they say makes no
 * difference, unless a token is looked for with its white space. */
static inline void check_stripping(const FoundTokens *found) {
    const FoundToken *strips = NULL, *spaced = NULL;
    for (int i = 0; i < found->count; i++) {
        const FoundToken *f = &found->at[i];
        const Text t = f->token.content;
        if (f->strips && found->bytes)
            die("%s: lstrip or rstrip of '%s' is not implemented with byte-level BPE", f->path, text_line(t));
        if (f->strips) strips = f;
        uint32_t first = 0, last = 0;
        size_t end = t.size - 1;
        while (end > 0 && ((unsigned char)t.data[end] & 0xC0) == 0x80) end--;
        utf8_decode(t.data, t.size, &first), utf8_decode(t.data + end, t.size - end, &last);
        if (is_whitespace(first) || is_whitespace(last)) spaced = f;
    }
    if (strips && spaced)
        die("%s: lstrip or rstrip of '%s' is not implemented beside '%s', which has white space at an end",
            strips->path, text_line(strips->token.content), text_line(spaced->token.content));
}
/* The form in which each of them is looked for. */
static inline void vocab_seek_tokens(Vocab *vocab) {
    for (int i = 0; i < vocab->added_count; i++) {
        AddedToken *t = &vocab->added[i];
        if (t->normalized && !vocab->bytes) {
            const Text normal = normalized(vocab, t->content);
            t->sought = (Text){text_string(normal), normal.size};
            free_normalized(normal);
        }
        if (!t->sought.size) die("%s: nothing is left of the added token '%s'", vocab->path, text_line(t->content));
        for (int k = 0; k < i; k++)
            if (t->normalized && vocab->added[k].normalized && text_equal(t->sought, vocab->added[k].sought))
                note("%s: the added tokens '%s' and '%s' are the same to this model: the latter counts", vocab->path,
                     text_line(vocab->added[k].content), text_line(t->content));
        vocab->begins[(unsigned char)t->sought.data[0]] = true;
    }
}
static inline void vocab_add_tokens(Vocab *vocab, FoundTokens *found) {
    vocab->base_size = vocab->size;
    for (int m = 0; m < SPECIAL_TOKENS && !vocab->bytes; m++)
        found_push(found, (FoundToken){{.content = text_of(special_tokens[m]), .special = true, .id = -1}, "", false});
    if (vocab->bytes && vocab_find(vocab, text_of(END_OF_TEXT)) >= 0)
        found_push(found, (FoundToken){{.content = text_of(END_OF_TEXT), .special = true, .id = -1}, "", false});
    FoundToken *sorted = allocate(sizeof *sorted * (size_t)found->count);
    int count = 0;
    for (int id = 1; id >= 0; id--) /* first those with an id */
        for (int i = 0; i < found->count; i++)
            if ((found->at[i].token.id >= 0) == id) sorted[count++] = found->at[i];
    for (count = 0; count < found->count && sorted[count].token.id >= 0;) count++;
    qsort(sorted, (size_t)count, sizeof *sorted, compare_found);
    check_stripping(found);
    for (int i = 0; i < found->count; i++) vocab_add_token(vocab, &sorted[i]);
    vocab_seek_tokens(vocab);
}

/* ---- tokenizer.json ---------------------------------------------------------------------------------------------- */

/* The vocabulary of a WordPiece model. */
static inline void read_wordpiece(Vocab *vocab, Text model, const char *path) {
    Text pieces, value;
    json_refuse_unless(model, "unk_token", "[UNK]", path);
    json_refuse_unless(model, "continuing_subword_prefix", "##", path);
    if (json_member(model, "max_input_chars_per_word", &value) && json_int(value) != LONGEST_WORD)
        die("%s: max_input_chars_per_word is not %d", path, LONGEST_WORD);
    if (!json_member(model, "vocab", &pieces) || !json_is_object(pieces)) die("%s: no vocabulary", path);
    vocab_read_pieces(vocab, pieces, path);
}
/* Vocabulary and merges of a BPE model. */
static inline void read_bpe(Vocab *vocab, Text model, const char *path) {
    static const char *const texts[] = {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"};
    static const char *const flags[] = {"byte_fallback", "ignore_merges", NULL};
    Text pieces, merges, value;
    for (int k = 0; k < 3; k++)
        if (json_text(model, texts[k], path).size) die("%s: %s is not implemented for BPE", path, texts[k]);
    json_refuse_true(model, flags, path);
    if (json_member(model, "dropout", &value) && !text_is(value, "null") && json_number(value) != 0)
        die("%s: dropout is not implemented for BPE", path);
    if (!json_member(model, "vocab", &pieces) || !json_is_object(pieces)) die("%s: no vocabulary", path);
    if (!json_member(model, "merges", &merges) || *merges.data != '[') die("%s: no list of merges", path);
    vocab_read_pieces(vocab, pieces, path);
    merges_read_json(vocab, merges, path);
}
/* What stands beside a WordPiece model must be BERT's. Without a normalizer a text is left as it is. */
static inline Said check_bert(Text json, const char *path) {
    Text part, normalizer;
    if (!json_member(json, "pre_tokenizer", &part) || !json_is_object(part)) die("%s: no pre_tokenizer", path);
    json_refuse_unless(part, "type", "BertPreTokenizer", path);
    if (!json_member(json, "normalizer", &normalizer) || !json_is_object(normalizer))
        return (Said){{0, 0, 0, 0}};
    json_refuse_unless(normalizer, "type", "BertNormalizer", path);
    return said_in(normalizer, json_name, path);
}
/* What stands beside a BPE model must be GPT-2's: no normalizer, its words, and no special tokens around a text. */
static inline void check_gpt(Text json, const char *path) {
    static const char *const flags[] = {"add_prefix_space", NULL};
    Text part, added;
    if (json_member(json, "normalizer", &part) && !text_is(part, "null"))
        die("%s: a normalizer is not implemented for BPE: %s", path, text_line(part));
    if (!json_member(json, "pre_tokenizer", &part) || !json_is_object(part)) die("%s: no pre_tokenizer", path);
    json_refuse_unless(part, "type", "ByteLevel", path);
    json_refuse_true(part, flags, path);
    if (json_flag(part, "use_regex", path) == 0) die("%s: use_regex false is not implemented", path);
    if (!json_member(json, "post_processor", &part) || !json_is_object(part)) return;
    const Text type = json_text(part, "type", path);
    const bool adds = json_member(part, "special_tokens", &added) && json_count(added);
    if (!text_is(type, "ByteLevel") && (!text_is(type, "TemplateProcessing") || adds))
        die("%s: this post_processor is not implemented for BPE: %s", path, text_line(type));
}
static inline Said tokenizer_json(Vocab *vocab, FoundTokens *found, Text json, const char *path) {
    Text model, tokens;
    if (!json_member(json, "model", &model) || !json_is_object(model)) die("%s: no model", path);
    if (vocab->bytes) read_bpe(vocab, model, path);
    else read_wordpiece(vocab, model, path);
    if (json_member(json, "added_tokens", &tokens)) find_tokens(found, tokens, path);
    if (!vocab->bytes) return check_bert(json, path);
    check_gpt(json, path);
    return (Said){{0, 0, 0, 0}};
}

/* ---- A folder ---------------------------------------------------------------------------------------------------- */

/* Cased or not, if no file says it: a cased vocabulary has most of the capital letters beside the small ones. One that
 * has few single letters is cased if most of its words have a capital. A single word proves nothing: people add some.
 * */
static inline bool vocab_looks_cased(const Vocab *vocab) {
    int letters[2] = {0, 0}, words[2] = {0, 0}; /* without and with a capital */
    for (int id = 0; id < vocab->size; id++) {
        const Text piece = vocab->piece[id];
        bool capital = false, small = false;
        if (!piece.size || piece.data[0] == '#' || (piece.data[0] == '[' && piece.size > 1)) continue;
        for (size_t i = 0; i < piece.size; i++) {
            capital |= piece.data[i] >= 'A' && piece.data[i] <= 'Z';
            small |= piece.data[i] >= 'a' && piece.data[i] <= 'z';
        }
        if (capital || small) words[capital]++;
        if ((capital || small) && piece.size == 1) letters[capital]++;
    }
    return letters[0] + letters[1] >= 13 ? 2 * letters[1] > letters[0] : words[1] > words[0];
}
static inline bool is_one_of(Text text, const char *const *names) { /* up to a NULL */
    while (*names && !text_is(text, *names)) names++;
    return *names;
}
static const char *const bert_classes[] = {
    "BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizer",
    "ElectraTokenizerFast", NULL};
static const char *const gpt_classes[] = {"GPT2Tokenizer", "GPT2TokenizerFast", NULL};
static const char *const general_classes[] = {"PreTrainedTokenizerFast", "TokenizersBackend", NULL};

static inline void check_tokenizer_config(Text config, bool bytes, const char *path) {
    static const char *const flags[] = {
        "split_special_tokens", "add_prefix_space", "add_bos_token", "add_eos_token", NULL};
    Text value;
    const Text class = json_text(config, "tokenizer_class", path);
    if (class.size && !is_one_of(class, bytes ? gpt_classes : bert_classes) && !is_one_of(class, general_classes))
        die("%s: tokenizer_class is %s: only %s tokenizer is implemented", path, text_line(class),
            bytes ? "GPT-2's byte-level BPE" : "BERT's");
    json_refuse_true(config, flags, path);
    if (bytes) return;
    if (json_flag(config, "do_basic_tokenize", path) == 0) die("%s: do_basic_tokenize false is not implemented", path);
    if (json_member(config, "never_split", &value) && json_count(value))
        die("%s: never_split is not implemented", path);
    json_refuse_unless(config, "wordpieces_prefix", "##", path);
}
/* What the two files say; where they differ, that for which transformers decides by the class. */
static inline Said said_by_both(Said config, Said json, bool general, const char *folder) {
    Said s = config;
    for (int k = 0; k < SETTINGS; k++) {
        if (config.said[k] >= 0 && json.said[k] >= 0 && config.said[k] != json.said[k])
            note("%s: %s is %s in tokenizer_config.json, %s is %s in tokenizer.json: %s counts", folder, config_name[k],
                 config.said[k] ? "true" : "false", json_name[k], json.said[k] ? "true" : "false",
                 general ? "the latter" : "the former");
        if (config.said[k] < 0 || (general && json.said[k] >= 0)) s.said[k] = json.said[k];
    }
    return s;
}
static inline void vocab_settings(Vocab *vocab, Said s) {
    if (s.said[LOWER] < 0) {
        vocab->cased = vocab_looks_cased(vocab);
        note("%s: no file says do_lower_case; by its words the model is taken for %s", vocab->path,
             vocab->cased ? "cased (false)" : "uncased (true)");
    } else vocab->cased = !s.said[LOWER];
    vocab->strips_accents = s.said[ACCENTS] < 0 ? !vocab->cased : s.said[ACCENTS];
    vocab->joins_ideographs = s.said[IDEOGRAPHS] == 0;
    vocab->keeps_controls = s.said[CLEAN] == 0;
}
/* Byte-level BPE or WordPiece: what tokenizer.json says, or which files there are. json: empty if there is none. */
static inline bool has_bpe(const char *folder, Text json, const char *path) {
    Text model, merges;
    const bool lines = file_exists(format("%s/vocab.txt", folder)),
               pairs = file_exists(format("%s/merges.txt", folder));
    if (json.size && json_member(json, "model", &model)) {
        const Text type = json_text(model, "type", path);
        if (type.size && !text_is(type, "BPE") && !text_is(type, "WordPiece"))
            die("%s: type is \"%s\": only \"WordPiece\" and \"BPE\" are implemented", path, text_line(type));
        return type.size ? text_is(type, "BPE") : json_member(model, "merges", &merges);
    }
    if (!json.size && lines && pairs)
        die("%s: WordPiece's vocab.txt and BPE's merges.txt, and no tokenizer.json: which of them counts?", folder);
    return pairs;
}
/* A merges.txt alone: bytes, what the merges make in their order, END_OF_TEXT. */
static inline void vocab_read_merges(Vocab *vocab, const char *path) {
    vocab->path = path;
    vocab_push_bytes(vocab);
    merges_read(vocab, read_file(path), true, path);
    vocab_push(vocab, text_of(END_OF_TEXT));
}
/* vocab.txt; or merges.txt, with vocab.json if there is one: then that has the ids. */
static inline void vocab_read_files(Vocab *vocab, const char *folder) {
    const char *lines = format("%s/vocab.txt", folder), *merges = format("%s/merges.txt", folder),
               *pieces = format("%s/vocab.json", folder);
    if (!vocab->bytes) vocab_read(vocab, read_file(lines), lines);
    else if (!file_exists(pieces)) vocab_read_merges(vocab, merges);
    else {
        vocab_read_pieces(vocab, read_json_object(pieces), pieces);
        merges_read(vocab, read_file(merges), false, merges);
    }
}
static inline bool same_merges(const Merges *a, const Merges *b) {
    return a->count == b->count && (!a->count || !memcmp(a->at, b->at, sizeof(Merge) * (size_t)a->count));
}
/* A folder may have both: the vocabulary of tokenizer.json counts, as for transformers. */
static inline void compare_vocabularies(const Vocab *vocab, const char *folder) {
    Vocab files = {.bytes = vocab->bytes};
    Mark before = mark();
    vocab_read_files(&files, folder);
    int same = 0;
    const int most = min_int(files.size, vocab->size);
    while (same < most && text_equal(files.piece[same], vocab->piece[same])) same++;
    if (same < most || files.size < vocab->base_size || files.size > vocab->size)
        note("%s and %s differ from id %d on: the latter counts", files.path, vocab->path, same);
    else if (!same_merges(&files.merges, &vocab->merges))
        note("%s/merges.txt and %s differ in their merges: the latter counts", folder, vocab->path);
    release(before);
}
static inline bool has_files(const char *folder, bool bytes) {
    return file_exists(format(bytes ? "%s/merges.txt" : "%s/vocab.txt", folder));
}
/* Tokens that no merge makes never occur: the sign of a merges.txt that was cut. */
static inline void check_merges(const Vocab *vocab) {
    bool *made = allocate_zeroed(sizeof(bool) * (size_t)vocab->size);
    int unmade = 0;
    for (int byte = 0; byte < 256; byte++) made[vocab->byte_id[byte]] = true;
    for (int i = 0; i < vocab->merges.count; i++) made[vocab->merges.at[i].joined] = true;
    for (int i = 0; i < vocab->added_count; i++) made[vocab->added[i].id] = true;
    for (int id = 0; id < vocab->size; id++) unmade += vocab->piece[id].size && !made[id];
    if (unmade) note("%s: no merge makes %d of its %d tokens: are all merges there?", vocab->path, unmade, vocab->size);
}
/* The special tokens of a vocabulary, and for WordPiece its settings. */
static inline void vocab_finish(Vocab *vocab, FoundTokens *found, Said said) {
    if (vocab->bytes) {
        vocab_find_bytes(vocab);
        vocab->cased = true;
        vocab->unk = vocab->cls = vocab->sep = vocab->mask = -1;
    } else {
        vocab_settings(vocab, said);
        vocab->unk = vocab_special(vocab, "[UNK]"), vocab->cls = vocab_special(vocab, "[CLS]");
        vocab->sep = vocab_special(vocab, "[SEP]"), vocab->mask = vocab_special(vocab, "[MASK]");
    }
    vocab_add_tokens(vocab, found);
    vocab->end = vocab->bytes ? vocab_find(vocab, text_of(END_OF_TEXT)) : -1;
    if (vocab->bytes) check_merges(vocab);
}
/* Reads a folder's tokenizer.json, or the files of vocab_read_files, and the small files beside them that are there. */
static inline Vocab vocab_load(const char *folder) {
    const char *whole = format("%s/tokenizer.json", folder), *path = format("%s/tokenizer_config.json", folder),
               *added = format("%s/added_tokens.json", folder), *map = format("%s/special_tokens_map.json", folder);
    const Text config = file_exists(path) ? read_json_object(path) : text_of("{}"),
               json = file_exists(whole) ? read_json_object(whole) : (Text){"", 0};
    Vocab vocab = {.bytes = has_bpe(folder, json, whole)};
    FoundTokens found = {.bytes = vocab.bytes};
    Said said = {{-1, -1, -1, -1}};
    Text value;
    check_tokenizer_config(config, vocab.bytes, path);
    const bool decoder = json_member(config, "added_tokens_decoder", &value);
    if (decoder) find_tokens(&found, value, path);
    else if (file_exists(added)) find_tokens(&found, read_json_object(added), added);
    if (json.size) said = tokenizer_json(&vocab, &found, json, whole);
    else if (has_files(folder, vocab.bytes)) vocab_read_files(&vocab, folder);
    else die("%s: neither a vocab.txt nor a merges.txt nor a tokenizer.json", folder);
    const Text more = !decoder && file_exists(map) ? read_json_object(map) : text_of("{}");
    find_special(&found, config, path), find_special(&found, more, map);
    find_more_special(&found, config, path), find_more_special(&found, more, map);
    const bool general = is_one_of(json_text(config, "tokenizer_class", path), general_classes);
    if (!vocab.bytes) said = said_by_both(said_in(config, config_name, path), said, general, folder);
    vocab_finish(&vocab, &found, said);
    if (json.size && has_files(folder, vocab.bytes)) compare_vocabularies(&vocab, folder);
    return vocab;
}

/* ---- Writing a folder -------------------------------------------------------------------------------------------- */

static inline const char *json_bool(bool value) { return value ? "true" : "false"; }
static inline const char *quoted(Text text) { return json_quote(text_string(text)); }

static inline const char *strip_accents_of(const Vocab *vocab) { /* null: as for capitals */
    return vocab->strips_accents == !vocab->cased ? "null" : json_bool(vocab->strips_accents);
}
/* The flags of an added token, and for tokenizer.json its id. */
static inline void write_added_token(FILE *stream, const AddedToken *t, bool with_id) {
    Mark before = mark();
    fputc('{', stream);
    if (with_id) fprintf(stream, "\"id\": %d, ", t->id);
    fprintf(stream, "\"content\": %s, \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
            "\"normalized\": %s, \"special\": %s}",
            quoted(t->content), json_bool(t->normalized), json_bool(t->special));
    release(before);
}
static inline void write_bert_config(const Vocab *vocab, FILE *stream) {
    /* transformers cleans every text, unless it takes all from tokenizer.json */
    fprintf(stream, "{\"do_lower_case\": %s, \"strip_accents\": %s, \"tokenize_chinese_chars\": %s, "
            "\"tokenizer_class\": \"%s\"", json_bool(!vocab->cased), strip_accents_of(vocab),
            json_bool(!vocab->joins_ideographs), vocab->keeps_controls ? "PreTrainedTokenizerFast" : "BertTokenizer");
    fprintf(stream, ",\n \"pad_token\": \"[PAD]\", \"unk_token\": \"[UNK]\", \"cls_token\": \"[CLS]\", "
            "\"sep_token\": \"[SEP]\", \"mask_token\": \"[MASK]\"");
}
static inline void write_gpt_config(const Vocab *vocab, FILE *stream) {
    static const char *const roles[] = {"bos_token", "eos_token", "unk_token"};
    /* GPT2Tokenizer adds END_OF_TEXT to a vocabulary without it */
    fprintf(stream, "{\"add_prefix_space\": false, \"tokenizer_class\": \"%s\"",
            vocab->end < 0 ? "PreTrainedTokenizerFast" : "GPT2Tokenizer");
    for (int k = 0; k < 3 && vocab->end >= 0; k++) fprintf(stream, ",\n \"%s\": \"%s\"", roles[k], END_OF_TEXT);
}
static inline void write_tokenizer_config(const Vocab *vocab, FILE *stream) {
    if (vocab->bytes) write_gpt_config(vocab, stream);
    else write_bert_config(vocab, stream);
    for (int i = 0; i < vocab->added_count; i++) {
        fprintf(stream, "%s\n  \"%d\": ", i ? "," : ",\n \"added_tokens_decoder\": {", vocab->added[i].id);
        write_added_token(stream, &vocab->added[i], false);
    }
    fprintf(stream, "%s}\n", vocab->added_count ? "}" : "");
}
/* All added tokens; of a vocabulary that was learned the special ones. */
static inline void write_added_tokens(const Vocab *vocab, FILE *stream) {
    const char *const end[] = {END_OF_TEXT}, *const *special = vocab->bytes ? end : special_tokens;
    const int count = vocab->bytes ? vocab->end >= 0 : SPECIAL_TOKENS;
    for (int m = 0; !vocab->added_count && m < count; m++) {
        const Text token = text_of(special[m]);
        const AddedToken written = {.content = token, .id = vocab_find(vocab, token), .special = true};
        fputs(m ? ",\n  " : "\n  ", stream);
        write_added_token(stream, &written, true);
    }
    for (int i = 0; i < vocab->added_count; i++) {
        fputs(i ? ",\n  " : "\n  ", stream);
        write_added_token(stream, &vocab->added[i], true);
    }
}
static inline void write_pieces(const Vocab *vocab, FILE *stream) { /* an object of piece and id */
    const char *between = "\n";
    fputs("{", stream);
    for (int id = 0; id < vocab_words(vocab); id++) {
        if (vocab_find(vocab, vocab->piece[id]) != id) continue; /* the same piece has a later id */
        Mark before = mark();
        fprintf(stream, "%s  %s: %d", between, quoted(vocab->piece[id]), id);
        between = ",\n";
        release(before);
    }
    fputs("}", stream);
}
static inline void write_wordpiece(const Vocab *vocab, FILE *stream) {
    fprintf(stream, " \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": %s, "
            "\"handle_chinese_chars\": %s, \"strip_accents\": %s, \"lowercase\": %s},\n",
            json_bool(!vocab->keeps_controls), json_bool(!vocab->joins_ideographs), strip_accents_of(vocab),
            json_bool(!vocab->cased));
    fprintf(stream, " \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n \"post_processor\": {\"type\": "
            "\"BertProcessing\", \"sep\": [\"[SEP]\", %d], \"cls\": [\"[CLS]\", %d]},\n"
            " \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},\n"
            " \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\", "
            "\"max_input_chars_per_word\": %d, \"vocab\": ",
            vocab_find(vocab, text_of("[SEP]")), vocab_find(vocab, text_of("[CLS]")), LONGEST_WORD);
    write_pieces(vocab, stream);
}
static inline void write_bpe(const Vocab *vocab, FILE *stream) {
    static const char level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                                "\"use_regex\": true}";
    fprintf(stream, " \"normalizer\": null,\n \"pre_tokenizer\": %s,\n \"post_processor\": %s,\n \"decoder\": %s,\n"
            " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
            "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", \"fuse_unk\": false, "
            "\"byte_fallback\": false, \"ignore_merges\": false, \"vocab\": ", level, level, level);
    write_pieces(vocab, stream);
    fputs(", \"merges\": [", stream);
    for (int i = 0; i < vocab->merges.count; i++) {
        Mark before = mark();
        const Merge *merge = &vocab->merges.at[i];
        fprintf(stream, "%s\n  [%s, %s]", i ? "," : "", quoted(vocab->piece[merge->left]),
                quoted(vocab->piece[merge->right]));
        release(before);
    }
    fputs("]", stream);
}
static inline void write_tokenizer_json(const Vocab *vocab, FILE *stream) {
    fprintf(stream, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n \"added_tokens\": [");
    write_added_tokens(vocab, stream);
    fprintf(stream, "],\n");
    if (vocab->bytes) write_bpe(vocab, stream);
    else write_wordpiece(vocab, stream);
    fprintf(stream, "}}\n");
}
static inline void write_vocab_txt(const Vocab *vocab, FILE *stream) {
    for (int id = 0; id < vocab_words(vocab); id++)
        fprintf(stream, "%.*s\n", (int)vocab->piece[id].size, vocab->piece[id].data);
}
static inline void write_merges(const Vocab *vocab, FILE *stream) {
    fprintf(stream, "#version: 0.2\n");
    for (int i = 0; i < vocab->merges.count; i++) {
        const Text left = vocab->piece[vocab->merges.at[i].left], right = vocab->piece[vocab->merges.at[i].right];
        fprintf(stream, "%.*s %.*s\n", (int)left.size, left.data, (int)right.size, right.data);
    }
}
static inline void write_with(void (*write)(const Vocab *, FILE *), const Vocab *vocab, const char *path) {
    const Output out = output_open(path);
    write(vocab, out.stream);
    output_close(out);
}
/* Writes vocab.txt, or vocab.json and merges.txt, then tokenizer_config.json and tokenizer.json: all that vocab_load
 * and transformers read. */
static inline void vocab_save(const Vocab *vocab, const char *folder) {
    if (vocab->bytes) write_with(write_pieces, vocab, format("%s/vocab.json", folder));
    if (vocab->bytes) write_with(write_merges, vocab, format("%s/merges.txt", folder));
    else write_with(write_vocab_txt, vocab, format("%s/vocab.txt", folder));
    write_with(write_tokenizer_config, vocab, format("%s/tokenizer_config.json", folder));
    write_with(write_tokenizer_json, vocab, format("%s/tokenizer.json", folder));
}

#endif
