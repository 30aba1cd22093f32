/* tokenizer.h - BERT's tokenizer: text to token ids.
 *
 * Three steps (Devlin et al., 2018, section 3 and the code published with it):
 *   1. the text is normalized: control characters go, an ideograph gets a space on both sides, an uncased model's text
 *      loses its accents and capitals;
 *   2. it is cut into words at white space and punctuation;
 *   3. WordPiece (Wu et al., 2016) cuts each word into the longest pieces that the vocabulary holds.
 * Added tokens, such as [MASK] or a name that somebody gave to a model, are looked for before all this, or after 1.
 * The reference is version 0.23.3 of the Hugging Face library `tokenizers`. */

#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "unicode.h"

/* ---- The vocabulary ---------------------------------------------------------------------------------------------- */

/* A token that is found in the text as a whole. */
typedef struct {
    Text content;       /* as it was given */
    Text sought;        /* as it is looked for: normalized, or as it was given */
    int id;
    bool normalized;    /* it is looked for in the normalized text */
    bool special;       /* for transformers: it is no part of a text; ids do not depend on it */
    bool reserved;      /* one of special_tokens: plain text where a text is data */
} AddedToken;

typedef struct {
    int size;
    Text *piece;                     /* id -> text */
    int *table;                      /* text -> id: open addressing, holds id + 1, 0 if empty */
    int buckets;                     /* of the table: a power of two, more than half of them empty */
    bool cased;                      /* the model tells "A" from "a" */
    bool strips_accents;
    bool joins_ideographs;           /* an ideograph is a letter like others, not a word of its own */
    bool keeps_controls;             /* the text is not cleaned of control characters */
    int unk, cls, sep, mask;         /* ids of special tokens */
    AddedToken *added;
    int added_count, base_size;      /* base_size: of the vocabulary without added tokens */
    bool begins[256];                /* the bytes with which added tokens begin */
    const char *path;                /* of its file, for messages */
} Vocab;

static const char *const special_tokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
enum { SPECIAL_TOKENS = sizeof special_tokens / sizeof *special_tokens };

/* The bucket that holds the piece, or the empty one where it belongs. */
static inline int *vocab_bucket(const Vocab *vocab, Text piece) {
    uint32_t hash = 2166136261u;     /* FNV-1a */
    for (size_t i = 0; i < piece.size; i++) hash = (hash ^ (unsigned char)piece.data[i]) * 16777619u;
    uint32_t last = (uint32_t)vocab->buckets - 1;
    for (uint32_t at = hash & last;; at = (at + 1) & last) {
        int *entry = &vocab->table[at];
        if (*entry == 0 || text_equal(vocab->piece[*entry - 1], piece)) return entry;
    }
}

/* Returns the id of a piece, or -1. */
static inline int vocab_find(const Vocab *vocab, Text piece) {
    return *vocab_bucket(vocab, piece) - 1;
}
static inline int vocab_special(const Vocab *vocab, const char *token) {
    const int id = vocab->buckets ? vocab_find(vocab, text_of(token)) : -1;
    if (id < 0) die("%s: no %s in the vocabulary", vocab->path, token);
    return id;
}

/* Makes room for so many entries. */
static inline void vocab_reserve(Vocab *vocab, size_t entries) {
    if (entries > INT32_MAX / 8) die("%s: too many entries", vocab->path);
    if (vocab->buckets >= 2 && (size_t)vocab->buckets / 2 > entries) return;
    for (vocab->buckets = 2; (size_t)vocab->buckets / 2 <= entries;) vocab->buckets *= 2;
    Text *piece = allocate((size_t)vocab->buckets / 2 * sizeof *piece);
    if (vocab->size) memcpy(piece, vocab->piece, (size_t)vocab->size * sizeof *piece);
    vocab->piece = piece;
    vocab->table = allocate_zeroed((size_t)vocab->buckets * sizeof *vocab->table);
    for (int id = 0; id < vocab->size; id++) *vocab_bucket(vocab, piece[id]) = id + 1;
}
/* Appends an entry; of equal ones the last one wins. */
static inline void vocab_push(Vocab *vocab, Text piece) {
    vocab_reserve(vocab, (size_t)vocab->size + 1);
    vocab->piece[vocab->size++] = piece;
    *vocab_bucket(vocab, piece) = vocab->size;
}

/* How many entries are no added tokens: words are cut into these alone. */
static inline int vocab_words(const Vocab *vocab) { return vocab->added_count ? vocab->base_size : vocab->size; }

/* ---- Step 1: the normalized text --------------------------------------------------------------------------------- */

enum { LONGEST_WORD = 100 };     /* code points; a longer word is [UNK] */

typedef struct {
    uint32_t *code;
    size_t count, fixed;    /* fixed: no mark may move in front of this index */
} CodePoints;

/* Appends a code point. Marks that follow the same letter are put in the order of their combining classes, an insertion
 * sort: this is the canonical ordering of Unicode (section 3.11). More marks than a word may have stay as they are:
 * that word is [UNK] in any order. */
static inline void push_ordered(CodePoints *text, uint32_t code) {
    const uint32_t class = combining_class(code), *before = text->code - 1;
    size_t at = text->count++;
    if (class == 0) text->fixed = at;
    if (at - text->fixed > LONGEST_WORD) text->fixed = at;
    for (; at > text->fixed && combining_class(before[at]) > class; at--) text->code[at] = before[at];
    text->code[at] = code;
}
/* Appends what becomes of a code point that is not removed. */
static inline void normalize_code(const Vocab *vocab, uint32_t code, CodePoints *out) {
    uint32_t letter[3] = {code}, lower[2];
    const int letters = vocab->strips_accents ? without_accents(code, letter) : 1;
    if (!letters && is_starter_accent(code)) out->fixed = out->count;    /* gone, but it kept marks apart */
    for (int i = 0; i < letters; i++) {
        lower[0] = letter[i];
        const int count = vocab->cased ? 1 : lower_case(letter[i], lower);
        for (int k = 0; k < count; k++)
            if (vocab->strips_accents) push_ordered(out, lower[k]);
            else out->code[out->count++] = lower[k];
    }
}
/* The normalized text in memory that the caller frees, from *text.data - 4 on: wordpiece writes before a word. A byte
 * that is not valid UTF-8 is taken for U+FFFD. No code point becomes more of them than it has bytes. */
static inline Text normalized(const Vocab *vocab, Text text) {
    CodePoints out = {malloc((text.size + 2) * sizeof *out.code), 1, 1};
    if (!out.code) die("out of memory: a text of %zu bytes", text.size);
    for (size_t i = 0, length; i < text.size; i += length ? length : 1) {
        uint32_t code = 0xFFFD;
        length = utf8_decode(text.data + i, text.size - i, &code);
        if (!vocab->keeps_controls && is_removed(code)) continue;
        if (!vocab->keeps_controls && is_whitespace(code)) code = ' ';
        const bool apart = !vocab->joins_ideographs && is_ideograph(code);
        if (apart) normalize_code(vocab, ' ', &out);
        normalize_code(vocab, code, &out);
        if (apart) normalize_code(vocab, ' ', &out);
    }
    char *start = (char *)(out.code + 1), *end = start;
    for (size_t i = 1; i < out.count; i++) end += utf8_encode(out.code[i], end);    /* never more than four bytes */
    return (Text){start, (size_t)(end - start)};
}
static inline void free_normalized(Text text) { free((void *)(text.data - sizeof(uint32_t))); }

/* ---- Step 3: WordPiece ------------------------------------------------------------------------------------------- */

/* Appends the pieces of a word of n bytes: greedily the longest piece first, "##" before those that continue the word.
 * A word that cannot be cut up to its end is [UNK]. The "##" is written over the two bytes before the rest of the word,
 * which are not needed any more; so word[-1] must be writable. */
static inline void wordpiece(const Vocab *vocab, char *word, size_t n, Ids *out) {
    const int before = out->count, words = vocab_words(vocab);
    for (size_t start = 0, end; start < n; start = end) {
        char *piece = word + start;
        if (start > 0) piece = memcpy(piece - 2, "##", 2);
        int id = -1;
        for (end = n; end > start; end--) /* a cut inside a code point is not UTF-8, so in no vocabulary */
            if ((id = vocab_find(vocab, (Text){piece, (size_t)(word + end - piece)})) >= 0 && id < words) break;
        if (end == start) {
            out->count = before;
            ids_push(out, vocab->unk);
            return;
        }
        ids_push(out, id);
    }
}
/* The same for a word of any length. */
static inline void word_ids(const Vocab *vocab, char *word, size_t n, Ids *out) {
    int letters = 0;
    for (size_t i = 0; i < n && letters <= LONGEST_WORD; i++) letters += ((unsigned char)word[i] & 0xC0) != 0x80;
    if (letters > LONGEST_WORD) ids_push(out, vocab->unk);
    else wordpiece(vocab, word, n, out);
}

/* ---- Step 2, and added tokens ------------------------------------------------------------------------------------ */

/* The added token that the text begins with, the longest of several, of equal ones the last; NULL if there is none. */
static inline const AddedToken *added_token_at(const Vocab *vocab, Text text, bool normal, bool reserved) {
    const AddedToken *best = NULL;
    if (!text.size || !vocab->begins[(unsigned char)text.data[0]]) return NULL;
    for (const AddedToken *t = vocab->added; t < vocab->added + vocab->added_count; t++) {
        if (t->normalized != normal || (t->reserved && !reserved) || t->sought.size > text.size ||
            memcmp(t->sought.data, text.data, t->sought.size))
            continue;
        if (!best || t->sought.size >= best->sought.size) best = t;
    }
    return best;
}
/* Appends the ids of a text without added tokens other than normalized ones. */
static inline void tokenize_span(const Vocab *vocab, Text text, bool reserved, Ids *out) {
    if (!text.size) return;
    const Text normal = normalized(vocab, text);
    char *s = (char *)normal.data, *word = s, *end = s + normal.size;    /* word: it begins here and ends before s */
    for (size_t length; s < end; s += length) {
        const AddedToken *added = added_token_at(vocab, (Text){s, (size_t)(end - s)}, true, reserved);
        uint32_t code = 0;
        length = added ? added->sought.size : utf8_decode(s, (size_t)(end - s), &code);
        const bool space = !added && is_whitespace(code);
        if (!added && !space && !is_punctuation(code)) continue;
        word_ids(vocab, word, (size_t)(s - word), out);
        if (added) ids_push(out, added->id);
        else if (!space) word_ids(vocab, s, length, out);
        word = s + length;
    }
    word_ids(vocab, word, (size_t)(end - word), out);
    free_normalized(normal);
}
/* Added tokens are looked for first, in the text as it is, and what lies between them is tokenized span by span. */
static inline void tokenize_all(const Vocab *vocab, Text text, bool reserved, Ids *out) {
    size_t plain = 0;    /* start of the span without added tokens */
    for (size_t i = 0; i < text.size;) {
        const AddedToken *added = added_token_at(vocab, (Text){text.data + i, text.size - i}, false, reserved);
        if (!added) { i++; continue; }
        tokenize_span(vocab, (Text){text.data + plain, i - plain}, reserved, out);
        ids_push(out, added->id);
        plain = i += added->sought.size;
    }
    tokenize_span(vocab, (Text){text.data + plain, text.size - plain}, reserved, out);
}
/* Appends the ids of a text that is data: "[MASK]" and the other special tokens have no meaning in it. */
static inline void tokenize(const Vocab *vocab, Text text, Ids *out) { tokenize_all(vocab, text, false, out); }

/* Appends the ids of a text in which special tokens stand for themselves. */
static inline void tokenize_with_special(const Vocab *vocab, Text text, Ids *out) {
    tokenize_all(vocab, text, true, out);
}

#endif
