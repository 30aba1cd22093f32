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
static inline void tokenize_span(const Vocab *vocab, Text text, bool reserved, Ids *out) {
    if (text.size == 0) return;
    const Text normal = normalized(vocab, text);
    char *start = (char *)normal.data;
    size_t from = 0, at = 0, length;
    for (; at < normal.size; at += length) {
        const Text rest = {start + at, normal.size - at};
        const AddedToken *added = added_token_at(vocab, rest, true, reserved);
        uint32_t code = 0;
        length = added ? added->sought.size : utf8_decode(rest.data, rest.size, &code);
        if (!added && !is_whitespace(code) && !is_punctuation(code)) continue;
        word_ids(vocab, start + from, at - from, out);
        if (added) ids_push(out, added->id);
        else if (is_punctuation(code)) word_ids(vocab, start + at, length, out);
        from = at + length;
    }
    word_ids(vocab, start + from, at - from, out);
    free_normalized(normal);
}
