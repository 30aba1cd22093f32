/* Another right solution of assignment 11: a copy of each piece; the ids are undone by counting. */

static inline void wordpiece(const Vocab *vocab, char *word, size_t n, Ids *out) {
    const int before = out->count;
    size_t start = 0;
    while (start < n) {
        char piece[3000];
        size_t length = n - start;
        int id = -1;
        for (; length > 0 && id < 0; length -= id < 0) {
            const int size = sprintf(piece, "%s%.*s", start ? "##" : "", (int)length, word + start);
            id = vocab_find(vocab, (Text){piece, (size_t)size});
        }
        if (id < 0) break;
        ids_push(out, id);
        start += length;
    }
    if (start >= n) return;
    out->count = before;
    ids_push(out, vocab->unk);
}
static inline void tokenize(const Vocab *vocab, Text text, Ids *out) {
    Word word = {0};
    while (text.size > 0) {
        uint32_t code;
        size_t length = utf8_decode(text.data, text.size, &code);
        const bool valid = length > 0;
        if (!valid) length = 1;
        text.data += length, text.size -= length;
        if (!valid || is_removed(code)) continue;
        if (!is_whitespace(code)) word_continue(&word, vocab, code, out);
        else word_end(&word, vocab, out);
    }
    word_end(&word, vocab, out);
}
