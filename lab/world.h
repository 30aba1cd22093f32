/* world.h - the small world of data/: its relations and facts, the sentences that state them, a vocabulary learned from
 * these, and the pretraining of a language model that reads them.
 */
#ifndef WORLD_H
#define WORLD_H

#include <ctype.h>

/* ---- Relations and their sentences ------------------------------------------------------------------------------- */

/* data/relations.jsonl names the relations; each has a folder, here or in relations/, with its facts
 * ({train,dev,test}.jsonl) and the paraphrases in which the LM reads them (pretrain.txt: a template a line, with [X]
 * and [Y]; LAMA has none). sentences.txt, if there is one, has sentences without a fact. */
typedef struct { const char *name, *folder; Text template; } Relation;
typedef struct { Relation *at; int count; const char *sentences; } World;

static bool has_relation(const World *world, Text name) {
    for (int r = 0; r < world->count; r++)
        if (text_is(name, world->at[r].name)) return true;
    return false;
}
static World world_read(const char *data) {
    const char *path = format("%s/relations.jsonl", data);
    World world = {.sentences = format("%s/sentences.txt", data)};
    Text rest = read_file(path), name, template;
    int line = 0;
    for (Text json; next_object(&rest, &json, path, &line);) {
        if (!json_member(json, "relation", &name) || !json_member(json, "template", &template) ||
            !json_is_string(name) || !json_is_string(template))
            die("%s:%d: no relation or template", path, line);
        const char *word = text_line(json_string(name)), *folder = format("%s/relations/%s", data, word);
        if (!*word || strchr(word, '/')) die("%s:%d: not a name for a folder: '%s'", path, line, word);
        if (has_relation(&world, text_of(word))) die("%s:%d: relation '%s' again", path, line, word);
        if (!file_exists(folder)) folder = format("%s/%s", data, word);
        world.at = grow(world.at, world.count, sizeof(Relation));
        world.at[world.count++] = (Relation){word, folder, json_string(template)};
    }
    if (!world.count) die("%s: no relation", path);
    return world;
}

/* A paraphrase with subject and object in the places of [X] and [Y]. */
static Text sentence(Text paraphrase, Text subject, Text object) {
    const size_t places = paraphrase.size / 3; /* a placeholder is 3 bytes */
    char *out = allocate(paraphrase.size + places * (subject.size + object.size));
    size_t size = 0;
    for (size_t i = 0; i < paraphrase.size;) {
        const Text rest = {paraphrase.data + i, paraphrase.size - i};
        const Text *put = text_starts(rest, "[X]") ? &subject : text_starts(rest, "[Y]") ? &object : NULL;
        if (put) memcpy(out + size, put->data, put->size);
        else out[size] = rest.data[0];
        size += put ? put->size : 1;
        i += put ? 3 : 1;
    }
    return (Text){out, size};
}
static Texts relation_paraphrases(const Relation *relation) {
    const char *path = format("%s/pretrain.txt", relation->folder);
    const Texts paraphrases = read_lines(path);
    if (!paraphrases.count) die("%s: no paraphrase to read the facts in", path);
    return paraphrases;
}
/* As in a library, a fact is stated in a few phrasings: the first ones of this order of its relation's paraphrases,
 * which follows from seed, subject and object. */
enum { PARAPHRASES_READ = 4, SENTENCES_READ = 3 };
static int *paraphrase_order(int seed, Text subject, Text object, int count) {
    const Text key = text_of(format("%.*s\n%.*s", (int)subject.size, subject.data, (int)object.size, object.data));
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (size_t i = 0; i < key.size; i++) hash = (hash ^ (unsigned char)key.data[i]) * 0x100000001B3u;
    Random random = {hash + (uint64_t)seed};
    int *order = in_order(count);
    shuffle(order, count, &random);
    return order;
}
static void read_facts(const Relation *relation, Split set, int seed, Texts *sentences, Texts *objects) {
    const Texts paraphrases = relation_paraphrases(relation);
    const char *path = format("%s/%s.jsonl", relation->folder, split_name[set]);
    Text rest = read_file(path);
    int line = 0;
    for (Text json; next_object(&rest, &json, path, &line);) {
        const Text subject = example_field(json, text_of(""), path, line),
                   object = text_of(text_line(example_field(json, text_of("obj_label"), path, line)));
        const int *order = paraphrase_order(seed, subject, object, paraphrases.count);
        if (objects) texts_push(objects, object);
        for (int p = 0; p < min_int(PARAPHRASES_READ, paraphrases.count); p++)
            texts_push(sentences, sentence(paraphrases.at[order[p]], subject, object));
    }
}
/* What the LM reads in an epoch: every fact of the three sets in a few phrasings, and the sentences without a fact a
 * few times. objects, if wanted: one per fact. */
static Texts world_sentences(const World *world, int seed, Texts *objects) {
    const Texts plain = file_exists(world->sentences) ? read_lines(world->sentences) : (Texts){0};
    Texts sentences = {0};
    for (int i = 0; i < SENTENCES_READ * plain.count; i++) texts_push(&sentences, plain.at[i % plain.count]);
    for (int r = 0; r < world->count; r++)
        for (int set = 0; set < 3; set++) read_facts(&world->at[r], (Split)set, seed, &sentences, objects);
    return sentences;
}

/* ---- Learning a vocabulary: the special tokens, every object, every character, then the most frequent pair of pieces
 * joined, again and again: byte-pair encoding (Sennrich et al. 2016). Its pieces are used as WordPiece's. */
typedef struct {
    Text text;
    int *piece, pieces, count;
} CountedWord; /* a word, as it is cut now, and how often it occurs */
typedef struct { CountedWord *at; int count; } CountedWords;

static int vocab_add(Vocab *vocab, Text piece) {
    enum { MOST_PIECES = 1 << 18 };
    int *bucket = vocab_bucket(vocab, piece);
    if (!vocab->piece) vocab->piece = allocate(sizeof(Text[MOST_PIECES]));
    if (!*bucket && vocab->size == MOST_PIECES) die("more than %d pieces", MOST_PIECES);
    if (!*bucket) vocab->piece[vocab->size++] = piece, *bucket = vocab->size;
    return *bucket - 1;
}
static bool is_word_byte(char c) { return isalnum((unsigned char)c) || (unsigned char)c >= 0x80; }
static Texts words_of(const Texts *sentences) { /* each as often as it occurs */
    Texts words = {0};
    for (int s = 0; s < sentences->count; s++) {
        const Text t = sentences->at[s];
        for (size_t i = 0, from; i < t.size; i = i > from ? i : i + 1) {
            for (from = i; i < t.size && is_word_byte(t.data[i]);) i++;
            if (i > from) texts_push(&words, (Text){t.data + from, i - from});
            else if (t.data[i] != ' ') texts_push(&words, (Text){t.data + i, 1});
        }
    }
    return words;
}
/* The different ones, in the order of their bytes, not cut yet. */
static CountedWords count_words(Texts all) {
    CountedWords words = {allocate(sizeof(CountedWord) * (size_t)all.count), 0};
    if (all.count) qsort(all.at, (size_t)all.count, sizeof(Text), compare_texts);
    for (int i = 0, next; i < all.count; i = next) {
        for (next = i + 1; next < all.count && text_equal(all.at[i], all.at[next]);) next++;
        words.at[words.count++] = (CountedWord){all.at[i], allocate(sizeof(int) * all.at[i].size), 0, next - i};
    }
    return words;
}
/* Replaces left, right by joined wherever they follow each other in the word. */
static void join_pair(CountedWord *word, int left, int right, int joined) {
    int kept = 0;
    for (int i = 0; i < word->pieces; i++, kept++) {
        const bool pair = i + 1 < word->pieces && word->piece[i] == left && word->piece[i + 1] == right;
        word->piece[kept] = pair ? joined : word->piece[i];
        i += pair;
    }
    word->pieces = kept;
}
/* Cuts a word into characters, which are added to the vocabulary. */
static void cut_characters(CountedWord *word, Vocab *vocab) {
    uint32_t code;
    for (size_t at = 0, length; at < word->text.size; at += length) {
        length = utf8_decode(word->text.data + at, word->text.size - at, &code);
        const char *form = format(at ? "##%.*s" : "%.*s", (int)length, word->text.data + at);
        word->piece[word->pieces++] = vocab_add(vocab, text_of(form));
    }
}
/* The most frequent pair in the words; false if none occurs twice. pairs (size, size): to count in. */
static bool most_frequent_pair(const CountedWords *words, int *pairs, int size, int *left, int *right) {
    int most = 1;
    for (const CountedWord *word = words->at; word < words->at + words->count; word++) /* zero where it will count */
        for (int i = 0; i + 1 < word->pieces; i++)
            pairs[(size_t)word->piece[i] * (size_t)size + (size_t)word->piece[i + 1]] = 0;
    for (const CountedWord *word = words->at; word < words->at + words->count; word++)
        for (int i = 0; i + 1 < word->pieces; i++) {
            int *pair = &pairs[(size_t)word->piece[i] * (size_t)size + (size_t)word->piece[i + 1]];
            *pair += word->count;
            if (*pair > most) most = *pair, *left = word->piece[i], *right = word->piece[i + 1];
        }
    return most > 1;
}
static Vocab vocab_learn(const Texts *sentences, const Texts *objects, int size) {
    Vocab vocab = {.buckets = 1 << 20, .table = allocate_zeroed(sizeof(int) << 20), .cased = true};
    for (int m = 0; m < SPECIAL_TOKENS; m++) vocab_add(&vocab, text_of(special_tokens[m]));
    for (int i = 0; i < objects->count; i++) vocab_add(&vocab, objects->at[i]);
    const CountedWords words = count_words(words_of(sentences));
    for (int w = 0; w < words.count; w++) cut_characters(&words.at[w], &vocab);
    if (vocab.size > size) die("--size %d is too small: special tokens, objects and characters alone are more", size);
    int *pairs = allocate(sizeof(int) * (size_t)size * (size_t)size), left = 0, right = 0;
    while (vocab.size < size && most_frequent_pair(&words, pairs, size, &left, &right)) {
        const Text a = vocab.piece[left], b = vocab.piece[right]; /* the right one has ## before it */
        const int joined = vocab_add(&vocab,
                                     text_of(format("%.*s%.*s", (int)a.size, a.data, (int)b.size - 2, b.data + 2)));
        for (int w = 0; w < words.count; w++) join_pair(&words.at[w], left, right, joined);
    }
    return vocab;
}

/* ---- Learning a vocabulary of byte-level BPE: the bytes, then merges of the most frequent pair, first in the objects
 * until each of them is one token, then in the sentences. Words are cut by the tokenizer itself, so that what is one
 * token here is one token there. */
static Texts byte_words_of(const Texts *sentences) { /* each as often as it occurs, with its space */
    Texts words = {0};
    for (int s = 0; s < sentences->count; s++)
        for (Text rest = sentences->at[s]; rest.size; rest = text_from(rest, words.at[words.count - 1].size))
            texts_push(&words, (Text){rest.data, first_word(rest)});
    return words;
}
static void cut_bytes(CountedWord *word, const Vocab *vocab) {
    Mark before = mark();
    Ids ids = {0};
    bpe(vocab, word->text, &ids);
    memcpy(word->piece, ids.id, sizeof(int) * (size_t)ids.count);
    word->pieces = ids.count;
    release(before);
}
static bool has_pair(const CountedWord *word, int left, int right) {
    for (int i = 0; i + 1 < word->pieces; i++)
        if (word->piece[i] == left && word->piece[i + 1] == right) return true;
    return false;
}
/* Merges the most frequent pair of the words, as long as one occurs twice and the vocabulary has fewer tokens. */
static void learn_merges(Vocab *vocab, const CountedWords *words, int *pairs, int size) {
    int left = 0, right = 0;
    for (int w = 0; w < words->count; w++) cut_bytes(&words->at[w], vocab);
    while (vocab->size < size && most_frequent_pair(words, pairs, size, &left, &right)) {
        const Text joined = text_joined(vocab->piece[left], vocab->piece[right]);
        if (vocab_find(vocab, joined) < 0) vocab_push(vocab, joined); /* else other merges lead to it too */
        merge_push(&vocab->merges, (Merge){left, right, vocab_find(vocab, joined)});
        for (CountedWord *word = words->at; word < words->at + words->count; word++)
            if (has_pair(word, left, right)) cut_bytes(word, vocab);
    }
}
static Vocab bpe_learn(const Texts *sentences, const Texts *objects, int size) {
    Vocab vocab = {.bytes = true, .cased = true, .unk = -1, .cls = -1, .sep = -1, .mask = -1, .path = "the sentences"};
    Texts answers = {0};
    for (int i = 0; i < 2 * objects->count; i++) { /* twice, so that none of their pairs occurs once */
        const Text answer = text_joined(text_of(" "), objects->at[i / 2]);
        if (first_word(answer) == answer.size) texts_push(&answers, answer);
    }
    vocab_push_bytes(&vocab), vocab_find_bytes(&vocab);
    if (size <= vocab.size) die("--size %d is too small: bytes and special token alone are more", size);
    int *pairs = allocate(sizeof(int) * (size_t)size * (size_t)size);
    const CountedWords names = count_words(answers), words = count_words(byte_words_of(sentences));
    learn_merges(&vocab, &names, pairs, size - 1);
    for (int i = 0; i < names.count; i++)
        if (names.at[i].pieces > 1) die("--size %d is too small: bytes and objects alone are more", size);
    learn_merges(&vocab, &words, pairs, size - 1);
    vocab.end = vocab.size;
    vocab_push(&vocab, text_of(END_OF_TEXT));
    return vocab;
}

/* ---- Batches in which several positions are selected ------------------------------------------------------------- */

/* Sentences as a batch in which no position is selected yet, with room for all. */
static Inputs unselected(const Example *sentences, const int *order, int count) {
    Inputs in = inputs_of(sentences, order, count);
    in.batch.selected_count = 0;
    in.batch.selected = allocate(sizeof(int[in.batch.tokens]));
    in.target = allocate(sizeof(int[in.batch.tokens]));
    return in;
}
static void select_position(Inputs *in, int position, int target) {
    in->target[in->batch.selected_count] = target;
    in->batch.selected[in->batch.selected_count++] = position;
}
/* The sentences order[0 .. count - 1]: selected is what has a tag, which is its target. */
static Inputs tagged_inputs(const Example *sentences, const int *order, int count) {
    Inputs in = unselected(sentences, order, count);
    for (int s = 0; s < count; s++) {
        const Example *e = &sentences[order[s]];
        in.batch.selected_start[s] = in.batch.selected_count;
        for (int i = 0; i < e->length; i++)
            if (e->tag[i] >= 0) select_position(&in, in.batch.start[s] + i, e->tag[i]);
    }
    in.batch.selected_start[count] = in.batch.selected_count;
    return in;
}

/* ---- Pretraining: the masked LM of BERT (Devlin et al. 2019, section 3.1), or the next token (GPT) --------------- */

/* Of the tokens of each sentence 15 % are prediction targets, at least one (the forced one): 80 % of them are replaced
 * by [MASK], 10 % by a random token, 10 % stay. */
static Inputs mask_words(const Example *sentences, const int *order, int count, const Vocab *vocab, Random *random) {
    Inputs in = unselected(sentences, order, count);
    const Batch *batch = &in.batch;
    for (int s = 0; s < count; s++) {
        const int first = batch->start[s] + 1, last = batch->start[s + 1] - 1; /* without [CLS] and [SEP] */
        const int forced = first + (int)(random_bits(random) % (uint64_t)(last - first));
        batch->selected_start[s] = batch->selected_count;
        for (int i = first; i < last; i++) {
            if (uniform(random) >= 0.15 && i != forced) continue;
            select_position(&in, i, in.id[i]);
            const double change = uniform(random);
            const int words = vocab->size - SPECIAL_TOKENS;
            if (change < 0.8) in.id[i] = vocab->mask;
            else if (change < 0.9) in.id[i] = SPECIAL_TOKENS + (int)(random_bits(random) % (uint64_t)words);
        }
    }
    batch->selected_start[count] = batch->selected_count;
    return in;
}
/* GPT's task: at each token but the last, the one that follows (Radford et al. 2018, equation 1). */
static Inputs next_words(const Example *sentences, const int *order, int count) {
    Inputs in = unselected(sentences, order, count);
    const Batch *batch = &in.batch;
    for (int s = 0; s < count; s++) {
        batch->selected_start[s] = batch->selected_count;
        for (int i = batch->start[s]; i + 1 < batch->start[s + 1]; i++) select_position(&in, i, in.id[i + 1]);
    }
    batch->selected_start[count] = batch->selected_count;
    return in;
}
static void pretrain(Lm *lm, const Vocab *vocab, const Example *sentences, int count, const Training *t) {
    const Parameters weights = lm_weights(lm);
    const int steps_an_epoch = count / t->batch; /* the last short batch is dropped */
    const double start = seconds();
    int *order = in_order(count), step = 0;
    double loss = 0;
    Random random = {(uint64_t)t->seed + 1};
    if (!steps_an_epoch) die("%d sentences do not fill one batch of %d", count, t->batch);
    parameters_train(weights);
    for (int epoch = 1; epoch <= t->epochs; epoch++) {
        shuffle(order, count, &random);
        for (int first = 0; first + t->batch <= count; first += t->batch) {
            Mark before = mark();
            const Inputs in = lm->causal ? next_words(sentences, order + first, t->batch)
                                         : mask_words(sentences, order + first, t->batch, vocab, &random);
            const double share = schedule(t, ++step, steps_an_epoch);
            loss += loss_and_gradient(lm, (Tensor){0}, &in, NULL);
            if (!isfinite(loss)) die("the loss is not finite in step %d: a smaller learning rate may help", step);
            adam_step(weights, (Optimizer){t->rate * share, t->decay, t->adamw}, step, clip_factor(t, weights));
            release(before);
            if (step % 500) continue;
            printf("step %d of %.0f, loss %.4f, %.0f s\n", step, (double)steps_an_epoch * t->epochs, loss / 500,
                   seconds() - start);
            fflush(stdout);
            loss = 0;
        }
    }
    parameters_freeze(weights);
}

#endif
