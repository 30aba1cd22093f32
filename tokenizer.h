/* tokenizer.h - the tokenizers of BERT and of GPT-2: text to token ids.
 *
 * BERT's has three steps (Devlin et al., 2018, section 3 and the code published with it):
 *   1. the text is normalized: control characters go, an ideograph gets a space on both sides, an uncased model's text
 *      loses its accents and capitals;
 *   2. it is cut into words at white space and punctuation;
 *   3. WordPiece (Wu et al., 2016) cuts each word into the longest pieces that the vocabulary holds.
 * Added tokens, such as [MASK] or a name that somebody gave to a model, are looked for before all this, or after 1.
 *
 * GPT-2's (Radford et al., 2019, section 2.2) has two, and loses nothing of a text:
 *   1. it is cut into words, a space being the beginning of the word after it;
 *   2. byte-level BPE (Sennrich et al., 2016) takes a word as bytes and joins neighbours, the most frequent pair of the
 *      training text first.
 * Added tokens are looked for before. The reference for both is version 0.23.3 of the Hugging Face library
 * `tokenizers`. */

#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "unicode.h"

static inline Text text_from(Text text, size_t at) { return (Text){text.data + at, text.size - at}; }
static inline Text text_joined(Text a, Text b) {
    char *both = allocate(a.size + b.size);
    if (a.size) memcpy(both, a.data, a.size);
    if (b.size) memcpy(both + a.size, b.data, b.size);
    return (Text){both, a.size + b.size};
}

/* ---- The vocabulary ---------------------------------------------------------------------------------------------- */

/* A token that is found in the text as a whole. */
typedef struct {
    Text content;       /* as it was given */
    Text sought;        /* as it is looked for: normalized, or as it was given */
    int id;
    bool normalized;    /* it is looked for in the normalized text */
    bool special;       /* for transformers: it is no part of a text; ids do not depend on it */
    bool reserved;      /* one of special_tokens, or END_OF_TEXT: plain text where a text is data */
} AddedToken;

/* Of byte-level BPE: two tokens side by side become one. The merge with the lower number comes first. */
typedef struct { int left, right, joined; } Merge;
typedef struct {
    Merge *at;
    int count;
    int *table;                      /* pair -> merge: open addressing, holds its number + 1, 0 if empty */
    int buckets;                     /* of the table: a power of two, at least half of them empty */
} Merges;

typedef struct {
    int size;
    Text *piece;                     /* id -> text */
    int *table;                      /* text -> id: open addressing, holds id + 1, 0 if empty */
    int buckets;                     /* of the table: a power of two, more than half of them empty */
    bool cased;                      /* the model tells "A" from "a" */
    bool strips_accents;
    bool joins_ideographs;           /* an ideograph is a letter like others, not a word of its own */
    bool keeps_controls;             /* the text is not cleaned of control characters */
    int unk, cls, sep, mask;         /* ids of special tokens; -1: GPT-2's vocabulary has none of them */
    bool bytes;                      /* byte-level BPE, not WordPiece */
    int byte_id[256];                /* of byte-level BPE: the tokens of single bytes */
    Merges merges;
    int end;                         /* the id of END_OF_TEXT, or -1 */
    AddedToken *added;
    int added_count, base_size;      /* base_size: of the vocabulary without added tokens */
    bool begins[256];                /* the bytes with which added tokens begin */
    const char *path;                /* of its file, for messages */
} Vocab;

static const char *const special_tokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
enum { SPECIAL_TOKENS = sizeof special_tokens / sizeof *special_tokens };
static const char END_OF_TEXT[] = "<|endoftext|>"; /* GPT-2's only special token, between two texts */

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

/* ---- Added tokens ------------------------------------------------------------------------------------------------ */

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
/* The first added token in a text and where it begins; NULL and the end of the text if there is none. */
static inline const AddedToken *next_added(const Vocab *vocab, Text text, bool normal, bool reserved, size_t *at) {
    for (*at = 0; *at < text.size; ++*at) {
        const AddedToken *added = added_token_at(vocab, text_from(text, *at), normal, reserved);
        if (added) return added;
    }
    return NULL;
}

/* ---- WordPiece, step 1: the normalized text ---------------------------------------------------------------------- */

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

/* ---- WordPiece, step 3: the pieces of a word --------------------------------------------------------------------- */

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

/* ---- WordPiece, step 2: words ------------------------------------------------------------------------------------ */

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

/* ---- Byte-level BPE, step 1: words ------------------------------------------------------------------------------- */

/* In the files of a vocabulary a byte is a printable character: itself where Latin-1 has one that is not white, else
 * one from U+0100 on. A space is U+0120, a line end U+010A. */
static inline uint32_t byte_symbol(int byte) {
    if (byte <= ' ') return 0x100u + (uint32_t)byte;
    if (byte >= 0x7F && byte <= 0xA0) return 0x121u + (uint32_t)byte - 0x7F;
    return byte == 0xAD ? 0x143 : (uint32_t)byte;
}
static inline int symbol_byte(uint32_t symbol) { /* -1: it stands for none */
    int byte = 255;
    while (byte >= 0 && byte_symbol(byte) != symbol) byte--;
    return byte;
}

typedef enum { LETTERS, NUMBERS, SPACES, OTHERS } WordKind;

/* The kind of word that the character at `at` is for; a byte that is not valid UTF-8 is a character of its own. */
static inline WordKind kind_at(Text text, size_t at, size_t *length) {
    uint32_t code;
    *length = utf8_decode(text.data + at, text.size - at, &code);
    if (!*length) {
        *length = 1;
        return OTHERS;
    }
    if (is_letter(code)) return LETTERS;
    if (is_number(code)) return NUMBERS;
    return is_whitespace(code) ? SPACES : OTHERS;
}
/* Where the characters of this kind from `at` on end; *last: where the last of them begins. */
static inline size_t kind_end(Text text, size_t at, WordKind kind, size_t *last) {
    for (size_t length; at < text.size && kind_at(text, at, &length) == kind; at += length) *last = at;
    return at;
}
/* The size of the first word of a text that is not empty. GPT-2's pattern, the first of these that fits:
 *
 *     's|'t|'re|'ve|'m|'ll|'d    | ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+    |\s+(?!\S)|\s+
 *     an English ending           letters, numbers or others,              white space, without its last character
 *                                 with a space before them                 if something else follows */
static inline size_t first_word(Text text) {
    static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++)
        if (text_starts(text, endings[k])) return strlen(endings[k]);
    size_t length, last = 0;
    const size_t start = text.size > 1 && text.data[0] == ' ';
    const WordKind kind = kind_at(text, start, &length);
    if (kind != SPACES) return kind_end(text, start, kind, &last);
    const size_t end = kind_end(text, 0, SPACES, &last);
    return end == text.size || last == 0 ? end : last;
}

/* ---- Byte-level BPE, step 2: the merges -------------------------------------------------------------------------- */

/* The bucket that holds the merge of two tokens, or the empty one where it belongs. */
static inline int *merge_bucket(const Merges *merges, int left, int right) {
    const uint64_t hash = ((uint64_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio */
    const uint32_t last = (uint32_t)merges->buckets - 1;
    for (uint32_t at = (uint32_t)(hash >> 32) & last;; at = (at + 1) & last) {
        int *entry = &merges->table[at];
        if (*entry == 0) return entry;
        const Merge *merge = &merges->at[*entry - 1];
        if (merge->left == left && merge->right == right) return entry;
    }
}
/* Returns the number of the merge of two tokens, or -1. */
static inline int merge_find(const Merges *merges, int left, int right) {
    return merges->count ? *merge_bucket(merges, left, right) - 1 : -1;
}
static inline void merge_push(Merges *merges, Merge merge) {
    merges->at = grow(merges->at, merges->count, sizeof merge);
    merges->at[merges->count++] = merge;
    if (2 * merges->count <= merges->buckets) {
        *merge_bucket(merges, merge.left, merge.right) = merges->count;
        return;
    }
    merges->buckets = merges->buckets ? 2 * merges->buckets : 2;
    merges->table = allocate_zeroed((size_t)merges->buckets * sizeof *merges->table);
    for (int i = 0; i < merges->count; i++) *merge_bucket(merges, merges->at[i].left, merges->at[i].right) = i + 1;
}

/* A token of a word: a list, so that two of them are joined without moving the others. */
typedef struct { int id, before, after; } Symbol; /* indices, -1 at the ends; id -1: it was joined to the one before */

/* The merges that wait for their turn: a binary heap. No key is less than the one at (i - 1) / 2, so the first one is
 * the least. A key is the number of a merge, then the index of its left symbol: of equal merges the first in the word
 * comes first. */
typedef struct { uint64_t *key; size_t count; } Queue;

static inline void queue_push(Queue *queue, uint64_t key) {
    size_t i = queue->count++;
    for (; i > 0 && queue->key[(i - 1) / 2] > key; i = (i - 1) / 2) queue->key[i] = queue->key[(i - 1) / 2];
    queue->key[i] = key;
}
static inline uint64_t queue_pop(Queue *queue) {
    const uint64_t least = queue->key[0], last = queue->key[--queue->count];
    size_t i = 0;
    for (size_t child = 1; child < queue->count; child = 2 * i + 1) {
        if (child + 1 < queue->count && queue->key[child + 1] < queue->key[child]) child++;
        if (queue->key[child] >= last) break;
        queue->key[i] = queue->key[child];
        i = child;
    }
    queue->key[i] = last;
    return least;
}
/* If there is a merge for the symbol at `at` and the one after it, it gets into the queue. */
static inline void queue_pair(Queue *queue, const Merges *merges, const Symbol *symbol, int at) {
    if (at < 0 || symbol[at].after < 0) return;
    const int merge = merge_find(merges, symbol[at].id, symbol[symbol[at].after].id);
    if (merge >= 0) queue_push(queue, (uint64_t)merge << 32 | (uint32_t)at);
}
/* Joins the symbol after `at` to it. */
static inline void join_symbols(Symbol *symbol, int at, int joined) {
    Symbol *left = &symbol[at], *right = &symbol[left->after];
    *left = (Symbol){joined, left->before, right->after};
    right->id = -1;
    if (left->after >= 0) symbol[left->after].before = at;
}
/* Appends the tokens of a word: its bytes; then the earliest merge that fits anywhere, as long as there is one. Each
 * merge brings at most two new pairs; a waiting one whose symbols have changed is passed over. So a word of n bytes
 * takes n log n steps. */
static inline void bpe(const Vocab *vocab, Text word, Ids *out) {
    const int n = (int)word.size;
    Symbol *symbol = malloc(word.size * sizeof *symbol);
    Queue queue = {malloc(3 * word.size * sizeof *queue.key), 0};
    if (!symbol || !queue.key || word.size > INT32_MAX) die("out of memory: a word of %zu bytes", word.size);
    for (int i = 0; i < n; i++)
        symbol[i] = (Symbol){vocab->byte_id[(unsigned char)word.data[i]], i - 1, i + 1 < n ? i + 1 : -1};
    for (int i = 0; i < n; i++) queue_pair(&queue, &vocab->merges, symbol, i);
    while (queue.count) {
        const uint64_t key = queue_pop(&queue);
        const Merge *merge = &vocab->merges.at[key >> 32];
        const int at = (int)(uint32_t)key, after = symbol[at].after;
        if (symbol[at].id != merge->left || after < 0 || symbol[after].id != merge->right) continue;
        join_symbols(symbol, at, merge->joined);
        queue_pair(&queue, &vocab->merges, symbol, symbol[at].before);
        queue_pair(&queue, &vocab->merges, symbol, at);
    }
    for (int at = 0; at >= 0; at = symbol[at].after) ids_push(out, symbol[at].id);
    free(symbol), free(queue.key);
}

/* ---- A text ------------------------------------------------------------------------------------------------------ */

/* tokenize_span for byte-level BPE. Nothing is normalized: normalized added tokens are only found after the others. */
static inline void tokenize_bytes(const Vocab *vocab, Text text, bool reserved, Ids *out) {
    for (size_t at;; text = text_from(text, at)) {
        const AddedToken *added = next_added(vocab, text, true, reserved, &at);
        const Text plain = {text.data, at};
        for (size_t i = 0, size; i < plain.size; i += size) {
            size = first_word(text_from(plain, i));
            bpe(vocab, (Text){plain.data + i, size}, out);
        }
        if (!added) return;
        ids_push(out, added->id);
        at += added->sought.size;
    }
}
/* Added tokens are looked for first, in the text as it is, and what lies between them is tokenized span by span. */
static inline void tokenize_all(const Vocab *vocab, Text text, bool reserved, Ids *out) {
    for (size_t at;; text = text_from(text, at)) {
        const AddedToken *added = next_added(vocab, text, false, reserved, &at);
        if (vocab->bytes) tokenize_bytes(vocab, (Text){text.data, at}, reserved, out);
        else tokenize_span(vocab, (Text){text.data, at}, reserved, out);
        if (!added) return;
        ids_push(out, added->id);
        at += added->sought.size;
    }
}
/* Appends the ids of a text that is data: "[MASK]" and the other special tokens have no meaning in it. */
static inline void tokenize(const Vocab *vocab, Text text, Ids *out) { tokenize_all(vocab, text, false, out); }

/* Appends the ids of a text in which special tokens stand for themselves. */
static inline void tokenize_with_special(const Vocab *vocab, Text text, Ids *out) {
    tokenize_all(vocab, text, true, out);
}

/* ---- Single tokens ----------------------------------------------------------------------------------------------- */

/* The text of a token as it is printed: of byte-level BPE the bytes for which its characters stand. */
static inline Text vocab_text(const Vocab *vocab, int id) {
    const Text piece = vocab->piece[id];
    if (!vocab->bytes) return piece;
    char *text = allocate(piece.size);
    size_t size = 0;
    for (size_t i = 0, length; i < piece.size; i += length) {
        uint32_t symbol = 0;
        length = utf8_decode(piece.data + i, piece.size - i, &symbol);
        const int byte = symbol_byte(symbol);
        if (byte < 0) return piece;    /* an added token, which is written as it is */
        text[size++] = (char)byte;
    }
    return (Text){text, size};
}
/* The id of a word that is exactly one token where it stands in the middle of a text, or -1. */
static inline int vocab_word(const Vocab *vocab, Text word) {
    Ids ids = {0};
    if (vocab->bytes) word = text_joined(text_of(" "), word);
    tokenize(vocab, word, &ids);
    return ids.count == 1 && ids.id[0] != vocab->unk ? ids.id[0] : -1;
}

#endif
