/* landscape.c - what a prompt search walks on: the loss on train as one vector of a prompt moves. `make figures`
 *
 *   build/landscape DATA WORD TARGET
 *
 * The prompt is the relation's manual template with each of its words as a [P] whose vector is that word's embedding; the
 * vector of WORD moves. Prints three kinds of lines, with tabs: kind, x, loss, and a word if there is one.
 *   word     a word of the vocabulary in its place; x is the distance of the two embeddings. The nearest words only.
 *   line     a vector between the embeddings of WORD (x = 0) and TARGET (x = 1)
 *   learned  a prompt between two that P-tuning has learned from two seeds (x = 0, x = 1)
 */
#define main ptune_main
#include "../ptune.c"
#undef main

enum { NEAREST = 60, STEPS = 40, MOST_WORDS = 100 };

/* The template with a [P] for every word, and the words' ids. */
static const char *words_as_pseudo(const Model *model, const Template *t, int *word, int *count) {
    const char *form = "";
    *count = 0;
    for (int i = 0; i < t->parts; i++) {
        Ids ids = {0};
        if (t->part[i].kind == FIELD) form = format("%s [X]", form);
        if (t->part[i].kind == MASK) form = format("%s [MASK]", form);
        if (t->part[i].kind == WORDS) tokenize(&model->vocab, t->part[i].text, &ids);
        for (int k = 0; k < ids.count; k++) form = format("%s [P]", form), word[(*count)++] = ids.id[k];
    }
    return form;
}
static Inputs all_of(const Dataset *data) { return inputs_of(data->at, in_order(data->count), data->count); }
static double distance(const real *a, const real *b, int count) {
    double squares = 0;
    for (int j = 0; j < count; j++) squares += (double)(a[j] - b[j]) * (double)(a[j] - b[j]);
    return sqrt(squares);
}
/* to = (1 - x) a + x b */
static void between(real *to, const real *a, const real *b, double x, size_t count) {
    for (size_t j = 0; j < count; j++) to[j] = (real)((1 - x) * (double)a[j] + x * (double)b[j]);
}
static void nearest_words(const Model *model, Tensor prompt, int slot, int word, const Inputs *in) {
    const Tensor table = lm_word(&model->lm);
    real *nearness = allocate(sizeof(real) * (size_t)table.rows), value;
    for (int w = 0; w < table.rows; w++) nearness[w] = -(real)distance(row(table, w), row(table, word), table.cols);
    for (int k = 0; k < NEAREST; k++) {
        const int w = pop_argmax(nearness, table.rows, &value);
        const Text piece = model->vocab.piece[w];
        printf("word\t%.4f\t%.4f\t%.*s\n", -(double)value, loss_with_word(model, prompt, slot, w, in), (int)piece.size,
               piece.data);
    }
}
static Tensor learned_prompt(const Options *o, Model *model, const Relation *relation, int seed) {
    Options one = *o;
    one.training.seed = seed;
    return run_method(method_named(text_of("p-lstm")), &one, model, relation).prompt;
}

int main(int argc, char **argv) {
    if (argc != 4) die("usage: landscape DATA WORD TARGET");
    Options o = default_options('d');
    o.data = argv[1];
    Model *model = model_load(&o);
    const World world = world_read("data");
    const Relation *relation = world.at;
    while (relation < world.at + world.count - 1 && strcmp(relation->folder, o.data)) relation++;
    const Template manual = template_parse(text_string(relation->template));
    int words[MOST_WORDS], count, slot = 0;
    const Template t = template_parse(words_as_pseudo(model, &manual, words, &count));
    const int word = vocab_word(&model->vocab, text_of(argv[2])), to = vocab_word(&model->vocab, text_of(argv[3]));
    while (slot < count && words[slot] != word) slot++;
    if (word < 0 || to < 0 || slot == count) die("%s, %s: not a word of the template, or not one token", argv[2], argv[3]);
    const Tensor table = lm_word(&model->lm), prompt = tensor(count, table.cols);
    for (int k = 0; k < count; k++) memcpy(row(prompt, k), row(table, words[k]), sizeof(real) * (size_t)table.cols);
    Dataset train = read_split(&o, model, TRAIN_SET, &t);
    const Inputs in = all_of(&train);
    nearest_words(model, prompt, slot, word, &in);
    for (int k = 0; k <= STEPS; k++) {
        Mark before = mark();
        between(row(prompt, slot), row(table, word), row(table, to), (double)k / STEPS, (size_t)table.cols);
        printf("line\t%.4f\t%.4f\n", (double)k / STEPS, batch_loss(&model->lm, prompt, &in, NULL));
        release(before);
    }
    const Template with = template_read(o.template);
    train = read_split(&o, model, TRAIN_SET, &with);
    const Inputs tuned = all_of(&train);
    const Tensor a = learned_prompt(&o, model, relation, 34), b = learned_prompt(&o, model, relation, 35);
    const Tensor h = tensor(a.rows, a.cols);
    for (int k = 0; k <= STEPS; k++) {
        Mark before = mark();
        between(h.data, a.data, b.data, (double)k / STEPS, size_of(h));
        printf("learned\t%.4f\t%.4f\n", (double)k / STEPS, batch_loss(&model->lm, h, &tuned, NULL));
        release(before);
    }
    return finish_output();
}
