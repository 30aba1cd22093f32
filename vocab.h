/* vocab.h - the files of a tokenizer: a model's folder is read into a Vocab, and a Vocab written into a folder. */

#ifndef VOCAB_H
#define VOCAB_H

#include "tokenizer.h"

/* ---- Reading a folder -------------------------------------------------------------------------------------------- */

/* The pieces of a vocab.txt: line n, counted from 0, is the piece with id n. Blank lines at the end are none. */
static inline void vocab_read(Vocab *vocab, Text file, const char *path) {
    vocab->path = path;
    while (file.size && memchr(" \t\v\f\r\n", file.data[file.size - 1], 6)) file.size--;
    for (Text line; next_line(&file, &line);) {
        if (!utf8_valid(line)) die("%s:%d: not valid UTF-8", path, vocab->size + 1);
        vocab_push(vocab, line);
    }
}

/* vocab.txt or tokenizer.json has the vocabulary; settings are in tokenizer_config.json and in tokenizer.json, which
 * have different names for them. */
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

/* ---- Added tokens ------------------------------------------------------------------------------------------------ */

/* They are named in tokenizer_config.json, or in added_tokens.json and special_tokens_map.json, as older versions of
 * transformers wrote them, and in tokenizer.json. All are collected, then added in the order of their ids. */
typedef struct { AddedToken token; const char *path; bool strips; } FoundToken;
typedef struct { FoundToken *at; int count; } FoundTokens;

static inline bool is_reserved(Text content) {
    for (int m = 0; m < SPECIAL_TOKENS; m++)
        if (text_is(content, special_tokens[m])) return true;
    return false;
}
/* Of several with one content the first counts; id -1: the next free one. */
static inline void found_push(FoundTokens *found, FoundToken f) {
    AddedToken *t = &f.token;
    t->sought = t->content, t->reserved = is_reserved(t->content);
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
        const bool special = is_reserved(name);
        const FoundToken named = {{.content = name, .normalized = !special, .special = special, .id = id}, path, false};
        found_push(found, by_name ? named : found_token(value, id, false, path));
    }
}
/* The special tokens that an object lists beside BERT's. */
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
        for (int m = 0; m < SPECIAL_TOKENS; m++)
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
    if (own < 0 && token.reserved) return; /* a vocabulary without [PAD] */
    token.id = own < 0 ? vocab->size : own;
    if (f->token.id >= 0 && f->token.id != token.id)
        die("%s: the added token '%s' has the id %d; by %s it is %d", f->path, text_line(token.content), f->token.id,
            vocab->path, token.id);
    if (own < 0) vocab_push(vocab, token.content);
    vocab->added = grow(vocab->added, vocab->added_count, sizeof token);
    vocab->added[vocab->added_count++] = token;
}
/* White space before and after a token, which lstrip and rstrip remove, has no ids: what they say makes no difference,
 * unless a token is looked for with its white space. */
static inline void check_stripping(const FoundTokens *found) {
    const FoundToken *strips = NULL, *spaced = NULL;
    for (const FoundToken *f = found->at; f < found->at + found->count; f++) {
        const Text t = f->token.content;
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
/* All of them, and the form in which each is looked for. */
static inline void vocab_add_tokens(Vocab *vocab, FoundTokens *found) {
    vocab->base_size = vocab->size;
    for (int m = 0; m < SPECIAL_TOKENS; m++)
        found_push(found, (FoundToken){{.content = text_of(special_tokens[m]), .special = true, .id = -1}, "", false});
    FoundToken *sorted = allocate(sizeof *sorted * (size_t)found->count);
    int count = 0;
    for (int id = 1; id >= 0; id--) /* first those with an id */
        for (int i = 0; i < found->count; i++)
            if ((found->at[i].token.id >= 0) == id) sorted[count++] = found->at[i];
    for (count = 0; count < found->count && sorted[count].token.id >= 0;) count++;
    qsort(sorted, (size_t)count, sizeof *sorted, compare_found);
    check_stripping(found);
    for (int i = 0; i < found->count; i++) vocab_add_token(vocab, &sorted[i]);
    for (int i = 0; i < vocab->added_count; i++) {
        AddedToken *t = &vocab->added[i];
        if (t->normalized) {
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

/* ---- tokenizer.json ---------------------------------------------------------------------------------------------- */

/* The vocabulary of its model: an object of piece and id. */
static inline void vocab_read_json(Vocab *vocab, Text model, const char *path) {
    Text pieces, key, value;
    int most = -1;
    json_refuse_unless(model, "type", "WordPiece", path);
    json_refuse_unless(model, "unk_token", "[UNK]", path);
    json_refuse_unless(model, "continuing_subword_prefix", "##", path);
    if (json_member(model, "max_input_chars_per_word", &value) && json_int(value) != LONGEST_WORD)
        die("%s: max_input_chars_per_word is not %d", path, LONGEST_WORD);
    if (!json_member(model, "vocab", &pieces) || !json_is_object(pieces)) die("%s: no vocabulary", path);
    const int count = json_count(pieces);
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
    for (int id = 0; id <= most; id++) vocab_push(vocab, piece[id].data ? piece[id] : (Text){"", 0});
}
/* Its parts must be BERT's. Without a normalizer a text is left as it is. */
static inline Said tokenizer_json(Vocab *vocab, FoundTokens *found, Text json, const char *path) {
    Text part = {"{}", 2}, normalizer;
    if (!json_member(json, "model", &part) || !json_is_object(part)) die("%s: no model", path);
    vocab_read_json(vocab, part, path);
    if (json_member(json, "added_tokens", &part)) find_tokens(found, part, path);
    if (!json_member(json, "pre_tokenizer", &part) || !json_is_object(part)) die("%s: no pre_tokenizer", path);
    json_refuse_unless(part, "type", "BertPreTokenizer", path);
    if (!json_member(json, "normalizer", &normalizer) || !json_is_object(normalizer))
        return (Said){{0, 0, 0, 0}};
    json_refuse_unless(normalizer, "type", "BertNormalizer", path);
    return said_in(normalizer, json_name, path);
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
static const char *const general_classes[] = {"PreTrainedTokenizerFast", "TokenizersBackend", NULL};

static inline void check_tokenizer_config(Text config, const char *path) {
    Text value;
    const Text class = json_text(config, "tokenizer_class", path);
    if (class.size && !is_one_of(class, bert_classes) && !is_one_of(class, general_classes))
        die("%s: tokenizer_class is %s: only BERT's tokenizer is implemented", path, text_line(class));
    if (json_flag(config, "do_basic_tokenize", path) == 0) die("%s: do_basic_tokenize false is not implemented", path);
    if (json_flag(config, "split_special_tokens", path) == 1)
        die("%s: split_special_tokens true is not implemented", path);
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
/* A folder may have both: the vocabulary of tokenizer.json counts, as for transformers. */
static inline void compare_vocabularies(const Vocab *vocab, const char *path) {
    Vocab lines = {0};
    Mark before = mark();
    vocab_read(&lines, read_file(path), path);
    int same = 0;
    const int most = min_int(lines.size, vocab->size);
    while (same < most && text_equal(lines.piece[same], vocab->piece[same])) same++;
    if (same < most || lines.size < vocab->base_size || lines.size > vocab->size)
        note("%s and %s differ from id %d on: the latter counts", path, vocab->path, same);
    release(before);
}
/* Reads folder/vocab.txt or tokenizer.json, and the small files beside them that are there. */
static inline Vocab vocab_load(const char *folder) {
    const char *lines = format("%s/vocab.txt", folder), *whole = format("%s/tokenizer.json", folder),
               *path = format("%s/tokenizer_config.json", folder), *added = format("%s/added_tokens.json", folder),
               *map = format("%s/special_tokens_map.json", folder);
    const Text config = file_exists(path) ? read_json_object(path) : text_of("{}");
    Vocab vocab = {0};
    FoundTokens found = {0};
    Said json = {{-1, -1, -1, -1}};
    Text value;
    check_tokenizer_config(config, path);
    const bool decoder = json_member(config, "added_tokens_decoder", &value);
    if (decoder) find_tokens(&found, value, path);
    else if (file_exists(added)) find_tokens(&found, read_json_object(added), added);
    if (file_exists(whole)) json = tokenizer_json(&vocab, &found, read_json_object(whole), whole);
    else if (file_exists(lines)) vocab_read(&vocab, read_file(lines), lines);
    else die("%s: neither a vocab.txt nor a tokenizer.json", folder);
    const Text more = !decoder && file_exists(map) ? read_json_object(map) : text_of("{}");
    find_special(&found, config, path), find_special(&found, more, map);
    find_more_special(&found, config, path), find_more_special(&found, more, map);
    const bool general = is_one_of(json_text(config, "tokenizer_class", path), general_classes);
    vocab_settings(&vocab, said_by_both(said_in(config, config_name, path), json, general, folder));
    vocab.unk = vocab_special(&vocab, "[UNK]"), vocab.cls = vocab_special(&vocab, "[CLS]");
    vocab.sep = vocab_special(&vocab, "[SEP]"), vocab.mask = vocab_special(&vocab, "[MASK]");
    vocab_add_tokens(&vocab, &found);
    if (file_exists(whole) && file_exists(lines)) compare_vocabularies(&vocab, lines);
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
static inline void write_tokenizer_config(const Vocab *vocab, FILE *stream) {
    /* transformers cleans every text, unless it takes all from tokenizer.json */
    fprintf(stream, "{\"do_lower_case\": %s, \"strip_accents\": %s, \"tokenize_chinese_chars\": %s, "
            "\"tokenizer_class\": \"%s\"", json_bool(!vocab->cased), strip_accents_of(vocab),
            json_bool(!vocab->joins_ideographs), vocab->keeps_controls ? "PreTrainedTokenizerFast" : "BertTokenizer");
    fprintf(stream, ",\n \"pad_token\": \"[PAD]\", \"unk_token\": \"[UNK]\", \"cls_token\": \"[CLS]\", "
            "\"sep_token\": \"[SEP]\", \"mask_token\": \"[MASK]\"");
    for (int i = 0; i < vocab->added_count; i++) {
        fprintf(stream, "%s\n  \"%d\": ", i ? "," : ",\n \"added_tokens_decoder\": {", vocab->added[i].id);
        write_added_token(stream, &vocab->added[i], false);
    }
    fprintf(stream, "%s}\n", vocab->added_count ? "}" : "");
}
static inline void write_tokenizer_json(const Vocab *vocab, int base_size, FILE *stream) {
    fprintf(stream, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n \"added_tokens\": [");
    for (int m = 0; !vocab->added_count && m < SPECIAL_TOKENS; m++) {
        const Text token = text_of(special_tokens[m]);
        fputs(m ? ",\n  " : "\n  ", stream);
        const AddedToken special = {.content = token, .id = vocab_find(vocab, token), .special = true};
        write_added_token(stream, &special, true);
    }
    for (int i = 0; i < vocab->added_count; i++) {
        fputs(i ? ",\n  " : "\n  ", stream);
        write_added_token(stream, &vocab->added[i], true);
    }
    fprintf(stream, "],\n \"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": %s, "
            "\"handle_chinese_chars\": %s, \"strip_accents\": %s, \"lowercase\": %s},\n",
            json_bool(!vocab->keeps_controls), json_bool(!vocab->joins_ideographs), strip_accents_of(vocab),
            json_bool(!vocab->cased));
    fprintf(stream, " \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},\n \"post_processor\": {\"type\": "
            "\"BertProcessing\", \"sep\": [\"[SEP]\", %d], \"cls\": [\"[CLS]\", %d]},\n"
            " \"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},\n"
            " \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\", "
            "\"max_input_chars_per_word\": %d, \"vocab\": {",
            vocab_find(vocab, text_of("[SEP]")), vocab_find(vocab, text_of("[CLS]")), LONGEST_WORD);
    const char *between = "\n";
    for (int id = 0; id < base_size; id++) {
        Mark before = mark();
        if (vocab_find(vocab, vocab->piece[id]) != id) continue; /* the same piece has a later id */
        fprintf(stream, "%s  %s: %d", between, quoted(vocab->piece[id]), id);
        between = ",\n";
        release(before);
    }
    fprintf(stream, "}}}\n");
}
/* Writes vocab.txt, tokenizer_config.json and tokenizer.json: all that vocab_load and transformers read. */
static inline void vocab_save(const Vocab *vocab, const char *folder) {
    const int base_size = vocab_words(vocab);
    Output out = output_open(format("%s/vocab.txt", folder));
    for (int id = 0; id < base_size; id++)
        fprintf(out.stream, "%.*s\n", (int)vocab->piece[id].size, vocab->piece[id].data);
    output_close(out);
    out = output_open(format("%s/tokenizer_config.json", folder));
    write_tokenizer_config(vocab, out.stream);
    output_close(out);
    out = output_open(format("%s/tokenizer.json", folder));
    write_tokenizer_json(vocab, base_size, out.stream);
    output_close(out);
}

#endif
