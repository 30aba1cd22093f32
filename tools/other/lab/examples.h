/* Another right solution of assignment 12: the cap falls by one byte at a time, between two characters. */

static void template_fill(const Template *t, const Vocab *vocab, const Text *field, int max_length, Example *example,
                          const char *file, int line) {
    Text *cut = allocate(sizeof(Text) * (size_t)(t->parts + 1));
    size_t cap = 0;
    for (int i = 0; i < t->parts; i++)
        if (t->part[i].kind == FIELD) cap = cap > field[i].size ? cap : field[i].size;
    for (;; cap--) {
        for (int i = 0; i < t->parts; i++) {
            if (t->part[i].kind != FIELD) continue;
            cut[i] = field[i];
            while (cut[i].size > cap || (cut[i].size < field[i].size && (cut[i].data[cut[i].size] & 0xC0) == 0x80))
                cut[i].size--;
        }
        template_ids(t, vocab, cut, example);
        if (example->length <= max_length) return;
        if (cap == 0) die("%s:%d: the template needs %d tokens", file, line, example->length);
    }
}
