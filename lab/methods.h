/* methods.h - the methods that the paper compares, on one relation or on many.
 *
 *   1  discrete search     AutoPrompt, a baseline
 *   2  methods             the paper's baselines and P-tuning, on one relation
 *   3  tables              many methods on many relations
 */
#ifndef METHODS_H
#define METHODS_H

#include "run.h"

/* ==== 1. Discrete search: AutoPrompt (Shin et al. 2020), one of the paper's baselines ============================= */

/* The word with the largest score, which is then set to -inf. */
static int pop_argmax(real *score, int words, real *value) {
    int best = 0;
    for (int w = 1; w < words; w++)
        if (score[w] > score[best]) best = w;
    *value = score[best], score[best] = -INFINITY;
    return best;
}
/* A word may be put into a template if it tokenises back to itself, is no placeholder and no answer of train. */
static bool *search_words(const Model *model, const Dataset *train) {
    const Vocab *vocab = &model->vocab;
    bool *usable = allocate_zeroed(sizeof(bool[lm_word(&model->lm).rows]));
    for (int w = 0; w < vocab->size; w++) {
        const Text word = trimmed(vocab_text(vocab, w));
        usable[w] = word.size && !(word.size > 1 && word.data[0] == '[') && !memchr(word.data, '{', word.size) &&
                    utf8_valid(word) && vocab_word(vocab, word) == w;
    }
    for (int i = 0; i < train->count; i++) usable[train->at[i].answer] = false;
    return usable;
}
/* A part of a template as text, a word for a [P]. */
static Text part_text(const Part *p, const Vocab *vocab, int word) {
    if (p->kind == PSEUDO) return trimmed(vocab_text(vocab, word));
    if (p->kind == MASK) return text_of("[MASK]");
    if (p->kind == SEPARATOR) return text_of("[SEP]");
    if (p->kind == WORDS) return p->text;
    return text_of(p->text.size ? format("{%.*s}", (int)p->text.size, p->text.data) : "[X]");
}
/* The template as text, with words in the places of its [P]. */
static const char *template_with_words(const Template *t, const Vocab *vocab, const int *word) {
    const bool space_first = vocab->bytes && t->part[0].kind == PSEUDO; /* as a word of byte-level BPE begins */
    const char *form = space_first ? " " : "";
    for (int i = 0, k = 0; i < t->parts; i++) {
        const Text text = part_text(&t->part[i], vocab, word[k]);
        const bool apart = !*form || form[strlen(form) - 1] == ' ' || text.data[0] == ' ';
        form = format(apart ? "%s%.*s" : "%s %.*s", form, (int)text.size, text.data);
        k += t->part[i].kind == PSEUDO;
    }
    return form;
}

static double batch_loss(const Lm *lm, Tensor prompt, const Inputs *in, const bool *in_loss) {
    return cross_entropy_forward(batch_logits(lm, prompt, in, in_loss), in->target);
}
static double loss_with_word(const Model *model, Tensor prompt, int slot, int word, const Inputs *in) {
    Mark before = mark();
    Tensor changed = tensor(prompt.rows, prompt.cols);
    memcpy(changed.data, prompt.data, size_of(prompt) * sizeof(real));
    memcpy(row(changed, slot), row(lm_word(&model->lm), word), sizeof(real[prompt.cols]));
    const double loss = batch_loss(&model->lm, changed, in, model->answers.in_loss);
    release(before);
    return loss;
}
/* Swapping the word of a slot for w changes the loss by (e_w - e_now) . dL/de to first order, e the slot's embedding.
 * The top candidates by estimated loss decrease are evaluated exactly; returns the best one, or the present word. */
static int best_swap(const Model *model, Tensor prompt, int slot, int present, const bool *usable, const Inputs *in) {
    enum { CANDIDATES = 10 };
    const Tensor table = lm_word(&model->lm);
    needs_grad(&prompt);
    double best_loss = loss_and_gradient(&model->lm, prompt, in, model->answers.in_loss);
    const Tensor decrease = tensor_zeros(1, table.rows); /* -e_w . dL/de */
    const Matrix dslot = part(gradient(prompt), slot, 1, 0, table.cols);
    int best = present;
    matmul(values(decrease), dslot, transposed(values(table)));
    for (int w = 0; w < table.rows; w++)
        decrease.data[w] = usable[w] && w != present ? -decrease.data[w] : -(real)INFINITY;
    for (int c = 0; c < CANDIDATES; c++) {
        real estimate;
        const int next = pop_argmax(decrease.data, table.rows, &estimate);
        if (!isfinite(estimate)) break;
        const double loss = loss_with_word(model, prompt, slot, next, in);
        if (loss < best_loss) best_loss = loss, best = next;
    }
    return best;
}
/* The template with its [P] replaced by words, slot after slot: a swap is made on one batch of train, and kept if it
 * also lowers the loss on another one. */
static const char *search(const Options *o, const Model *model, const char *form) {
    enum { EXAMPLES = 24, SWEEPS = 2 };
    const Template t = template_read(form);
    const Dataset train = read_split(o, model, TRAIN_SET, &t);
    const Tensor table = lm_word(&model->lm);
    const bool *usable = search_words(model, &train);
    int start = vocab_word(&model->vocab, text_of("the"));
    for (int w = 0; start < 0 && w < model->vocab.size; w++)
        if (usable[w]) start = w;
    const int each = min_int(EXAMPLES, train.count / 2);
    int *order = in_order(train.count), *word = allocate(sizeof(int) * (size_t)(t.pseudo + 1));
    const Tensor prompt = tensor(t.pseudo, table.cols);
    Random random = {(uint64_t)o->training.seed};
    if (train.count < 2) die("%s: one example is too few to search with", train.path);
    if (start < 0) die("%s: no word that may be put into a template", model->vocab.path);
    for (int k = 0; k < t.pseudo; k++) memcpy(row(prompt, k), row(table, start), sizeof(real[table.cols]));
    for (int k = 0; k <= t.pseudo; k++) word[k] = start;
    for (int turn = 0; turn < SWEEPS * t.pseudo; turn++) {
        Mark before = mark();
        const int slot = turn % t.pseudo;
        shuffle(order, train.count, &random);
        const Inputs in = inputs_of(train.at, order, each), other = inputs_of(train.at, order + each, each);
        const int best = best_swap(model, prompt, slot, word[slot], usable, &in);
        if (best != word[slot] && loss_with_word(model, prompt, slot, best, &other) <
                                      loss_with_word(model, prompt, slot, word[slot], &other)) {
            word[slot] = best;
            memcpy(row(prompt, slot), row(table, best), sizeof(real[table.cols]));
        }
        release(before);
    }
    return template_with_words(&t, &model->vocab, word);
}

/* ==== 2. Methods ================================================================================================== */

/* A method is a kind of answer, the template that it prompts with, and what is trained. */
typedef enum { MAJORITY, ZERO_SHOT, SEARCH, TRAIN, MEAN, MEAN_OF_SEEDS } MethodKind;
typedef struct {
    const char *name;
    MethodKind kind;
    const char *template; /* manual: that of relations.jsonl; hybrid: the same with [P] between its words and fields;
                             best, worst: of relation_prompts; start: the manual one's words are where [P] start;
                             NULL: --template */
    EncoderKind encoder;  /* ENCODERS: none */
    bool tune_lm, deep;   /* deep: a deep prompt, of --deep vectors in each layer */
    double demo_rate; /* on the small world, chosen on dev; elsewhere --lr and --lr-lm */
    const char *meaning;
} Method;
static const Method methods[] = {
    {"majority", MAJORITY, "[X] [MASK]", ENCODERS, false, false, 0, "the most frequent answer of train"},
    {"worst", ZERO_SHOT, "worst", ENCODERS, false, false, 0, "manual prompts, the worst one on test"},
    {"manual", ZERO_SHOT, "manual", ENCODERS, false, false, 0, "the manual prompt"},
    {"best", ZERO_SHOT, "best", ENCODERS, false, false, 0, "manual or given prompts, the best one on dev"},
    {"search", SEARCH, "[X] [P][P][P] [MASK] .", ENCODERS, false, false, 0, "discrete search, [X] [P][P][P] [MASK] ."},
    {"ft", TRAIN, "[X] [MASK]", ENCODERS, true, false, 5e-4, "fine-tuning, [X] [MASK]"},
    {"mp+ft", TRAIN, "manual", ENCODERS, true, false, 5e-4, "fine-tuning, the manual prompt"},
    {"best+ft", TRAIN, "best", ENCODERS, true, false, 2e-4, "fine-tuning, the best prompt"},
    {"p-lstm", TRAIN, NULL, ENCODER_LSTM, false, false, 5e-3, "P-tuning, LSTM and MLP"},
    {"p-mlp", TRAIN, NULL, ENCODER_MLP, false, false, 8e-3, "P-tuning, MLP"},
    {"p-embedding", TRAIN, NULL, ENCODER_EMBEDDING, false, false, 3e-2, "P-tuning, plain embeddings"},
    {"p-swapped", TRAIN, "(3,3,3)", ENCODER_LSTM, false, false, 5e-3, "P-tuning, mask before subject"},
    {"p-hybrid", TRAIN, "hybrid", ENCODER_LSTM, false, false, 5e-3,
     "P-tuning, [P] between the words of the manual prompt"},
    {"p-start", TRAIN, "start", ENCODER_EMBEDDING, false, false, 3e-2,
     "P-tuning, plain embeddings that start from the manual prompt"},
    {"p-deep", TRAIN, "manual", ENCODERS, false, true, 6e-2, "P-tuning v2: a deep prompt, the manual prompt as text"},
    {"mean", MEAN, "start", ENCODER_EMBEDDING, false, false, 3e-2, "the manual prompt and p-start, averaged"},
    {"mean-seeds", MEAN_OF_SEEDS, "start", ENCODER_EMBEDDING, false, false, 3e-2, "all seeds of p-start, averaged"}};
enum { METHODS = sizeof methods / sizeof *methods };

static const Method *method_named(Text name) {
    for (int m = 0; m < METHODS; m++)
        if (text_is(name, methods[m].name)) return &methods[m];
    usage("unknown method ", text_string(name));
}

/* ---- The template of a method ------------------------------------------------------------------------------------ */

static void prompts_push(Texts *prompts, const Model *model, Text prompt) {
    const char *form = readable_prompt(model, text_string(prompt));
    if (form) texts_push(prompts, text_of(form));
}
/* The discrete prompts of a relation, a line each. --prompts is a file, or a folder of <relation>.jsonl or .txt;
 * without it they are in prompts.txt beside the examples, if that exists, and the relation's own template comes last. A
 * line may be a JSON object with a template and, if the file has prompts of several relations, a relation. Left out are
 * those that the model cannot read. */
static Texts relation_prompts(const Options *o, const Model *model, const Relation *relation) {
    const char *path = o->prompts ? o->prompts : format("%s/prompts.txt", relation->folder);
    if (o->prompts && file_exists(format("%s/.", path))) {
        path = format("%s/%s.jsonl", o->prompts, relation->name);
        if (!file_exists(path)) path = format("%s/%s.txt", o->prompts, relation->name);
    }
    Texts prompts = {0};
    Text rest = o->prompts || file_exists(path) ? read_file(path) : (Text){"", 0}, template, name;
    if (!utf8_valid(rest)) die("%s: not valid UTF-8", path);
    for (int line = 1; next_line(&rest, &template); line++) {
        if (text_starts(template, "{\"")) {
            const Text json = template;
            json_check(json, path, line);
            template = example_field(json, text_of("template"), path, line);
            if (json_member(json, "relation", &name) && json_is_string(name) &&
                !text_is(json_string(name), relation->name))
                continue;
        }
        if (template.size) prompts_push(&prompts, model, template);
    }
    if (!o->prompts) prompts_push(&prompts, model, relation->template);
    if (!prompts.count) die("%s: no prompt for %s", path, relation->name);
    return prompts;
}
/* The relation's own template or, where the model cannot read that, the first of its other prompts that it can. */
static const char *manual_prompt(const Options *o, const Model *model, const Relation *relation) {
    const char *own = readable_prompt(model, text_string(relation->template));
    return own ? own : text_string(relation_prompts(o, model, relation).at[0]);
}
/* The prompt with the most hits on dev, or with the fewest on test. */
static const char *choose_prompt(const Options *o, const Model *model, const Relation *relation, bool best) {
    const Texts prompts = relation_prompts(o, model, relation);
    const char *chosen = NULL;
    for (int p = 0, top = INT32_MIN; p < prompts.count; p++) {
        const char *candidate = text_string(prompts.at[p]);
        Mark before = mark();
        const Template t = template_read(candidate);
        if (t.pseudo) die("%s: [P] where nothing is trained: %s", relation->name, candidate);
        const Dataset data = read_split(o, model, best ? DEV_SET : TEST_SET, &t);
        const int hits = evaluate(model, (Tensor){0}, &data, NULL).hits, merit = best ? hits : -hits;
        if (merit > top) top = merit, chosen = candidate;
        release(before);
    }
    return chosen;
}
/* What the template of a method says, before anything is chosen or searched. */
static const char *method_form(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const char *form = m->template;
    if (!form || !strcmp(form, "start")) return o->template;
    if (!strcmp(form, "best") || !strcmp(form, "worst")) return form;
    if (!strcmp(form, "manual")) return manual_prompt(o, model, relation);
    if (!strcmp(form, "hybrid"))
        return text_string(sentence(text_of(manual_prompt(o, model, relation)), text_of("[P] [X] [P]"),
                                    text_of("[P] [MASK]")));
    if (!readable_prompt(model, form))
        die("method %s: this LM is causal, and its answer comes last: %s", m->name, form);
    return readable_prompt(model, form);
}
static const char *method_template(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const char *form = method_form(m, o, model, relation);
    if (m->kind == SEARCH) return search(o, model, form);
    if (!strcmp(form, "best")) return choose_prompt(o, model, relation, true);
    if (!strcmp(form, "worst")) return choose_prompt(o, model, relation, false);
    return form;
}

/* ---- A start from words ------------------------------------------------------------------------------------------ */

/* Whether a part can be tokenised without the fields beside it: words can where a space stands between the two, or a
 * punctuation mark, which for BERT is a word of its own. `[X]s` may be one word. */
static bool stands_apart(const Template *t, int i, const Vocab *vocab) {
    const Text text = t->part[i].text;
    if (t->part[i].kind != WORDS || !trimmed_end(text).size) return true;
    const char first = text.data[0], last = text.data[text.size - 1];
    const bool left = first == ' ' || (!vocab->bytes && ispunct((unsigned char)first));
    const bool right = last == ' ' || (!vocab->bytes && ispunct((unsigned char)last));
    return (left || !i || t->part[i - 1].kind != FIELD) &&
           (right || i + 1 == t->parts || t->part[i + 1].kind != FIELD);
}
/* A part as text, with a [P] for each token of its words; where its [P] start is added to `start`. A space at the end
 * of words belongs to what follows, as in template_ids. */
static const char *part_with_start(const Part *p, const Vocab *vocab, Ids *start) {
    const Text words = trimmed_end(p->text);
    const int before = start->count;
    if (p->kind == PSEUDO) ids_push(start, -1);
    else if (p->kind == WORDS) tokenize(vocab, words, start);
    else return text_string(part_text(p, vocab, 0));
    return format("%s%s%.*s", words.size && words.data[0] == ' ' ? " " : "", pseudo_tokens(start->count - before),
                  (int)(p->text.size - words.size), p->text.data + words.size);
}
/* The template becomes the prompt o->start with [P] in the place of its words, each of which starts at the embedding of
 * its token: so until the first step the prompt says what it said before. */
static void start_from_words(Options *o, const Model *model) {
    const Template t = template_read(o->start);
    Ids start = {0};
    o->template = "";
    for (int i = 0; i < t.parts; i++) {
        if (!stands_apart(&t, i, &model->vocab))
            die("template '%s': no start from words that may be one word with a field: '%s'", o->start,
                text_string(t.part[i].text));
        o->template = format("%s%s", o->template, part_with_start(&t.part[i], &model->vocab, &start));
    }
    if (start.count == t.pseudo) die("template '%s': no words to start from", o->start);
    o->start_word = start.id;
}

/* ---- Several prompts at once ------------------------------------------------------------------------------------- */

/* The examples under one of several prompts. */
typedef struct { Model model; Tensor prompt; Dataset data; } Prompted; /* model: with the prompt's deep one */

/* Adds the words' probabilities, both as logarithms, of which the smallest would be 0 otherwise. */
static void add_probabilities(real *sum, const real *logits, int words) {
    const double all = log_sum_exp(logits, words);
    if (!isfinite(all)) die("the logits are not finite");
    for (int w = 0; w < words; w++) {
        const double p = (double)logits[w] - all, more = fmax(p, (double)sum[w]), less = fmin(p, (double)sum[w]);
        if (isfinite(more)) sum[w] = (real)(more + log1p(exp(less - more)));
    }
}
/* The score of the mean of the probabilities that several prompts give. */
static Score evaluate_mean(const Prompted *by, int prompts, Prediction *predictions) {
    Score score = {.examples = by->data.count};
    const int *order = in_order(score.examples), words = lm_word(&by->model.lm).rows;
    for (int first = 0, count; first < score.examples; first += count) {
        Mark before = mark();
        count = score.examples;
        for (int k = 0; k < prompts; k++) count = min_int(count, evaluation_batch(&by[k].data, first));
        const Tensor sum = tensor(count, words);
        fill_constant(sum, -(real)INFINITY);
        for (int k = 0; k < prompts; k++) {
            Mark one = mark();
            const Inputs in = inputs_of(by[k].data.at, order + first, count);
            const Tensor logits = batch_logits(&by[k].model.lm, by[k].prompt, &in, by[k].model.answers.allowed);
            for (int i = 0; i < count; i++) add_probabilities(row(sum, i), row(logits, i), words);
            release(one);
        }
        for (int i = 0; i < count; i++) {
            predictions[first + i] = prediction_of(row(sum, i), words, by->data.at[first + i].answer);
            score_add(&score, predictions[first + i]);
        }
        release(before);
    }
    return score;
}

/* ---- One method on one relation ---------------------------------------------------------------------------------- */

/* In a file it is one line: these fields with tabs between them. */
typedef struct {
    const char *relation, *method, *vocab, *seed, *template;
    Score score;       /* on test */
    int seen;          /* examples of test whose subject is also in train */
    int trained, kept; /* how many parameters were trained; how many must be kept to answer */
    double seconds, macro_f1;
    const char *settings; /* all that the score depends on */
    Tensor prompt;        /* what was learned; not in the file */
} Result;

static void result_print(FILE *stream, const Result *r) {
    fprintf(stream, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.2f\t%s\n", r->relation, r->method, r->vocab,
            r->seed, text_line(text_of(r->template)), r->score.hits, r->score.examples, r->seen, r->trained, r->kept,
            r->seconds, r->macro_f1, text_line(text_of(r->settings)));
}
static Result result_parse(Text line, const char *path) {
    const Texts fields = split(line, '\t');
    const Text *f = fields.at;
    if (fields.count != 13) die("%s: not one line of 13 fields", path);
    const Score score = {.hits = json_int(f[5]), .examples = json_int(f[6])};
    const Result r = {text_string(f[0]), text_string(f[1]), text_string(f[2]), text_string(f[3]), text_string(f[4]),
                      .score = score, .seen = json_int(f[7]), .trained = json_int(f[8]), .kept = json_int(f[9]),
                      .seconds = json_number(f[10]), .macro_f1 = json_number(f[11]), .settings = text_string(f[12])};
    if (score.hits < 0 || score.hits > score.examples || score.examples < 1 || r.seen < 0 || r.trained < 0 ||
        r.kept < 0 || !(r.seconds >= 0) || !(r.macro_f1 >= 0))
        die("%s: not a result", path);
    return r;
}
static void result_write(const char *path, const Result *r) {
    Output out = output_open(path);
    result_print(out.stream, r);
    output_close(out);
}
static Result result_read(const char *path) {
    const Texts lines = read_lines(path);
    return result_parse(lines.count == 1 ? lines.at[0] : text_of(""), path);
}

static Score majority_score(const Dataset *train, const Dataset *test, int words) {
    Score score = {.examples = test->count};
    int *times = allocate_zeroed(sizeof(int) * (size_t)words), best = train->at[0].answer;
    for (int i = 0; i < train->count; i++)
        if (++times[train->at[i].answer] > times[best]) best = train->at[i].answer;
    for (int i = 0; i < test->count; i++) score.hits += test->at[i].answer == best;
    return score;
}
/* How many examples of test have a subject that is also in train. */
static int seen_subjects(const Dataset *train, const Dataset *test) {
    Texts known = {0};
    int seen = 0;
    for (int i = 0; i < train->count; i++)
        if (train->at[i].subject) texts_push(&known, text_of(train->at[i].subject));
    if (!known.count) return 0;
    qsort(known.at, (size_t)known.count, sizeof(Text), compare_texts);
    for (int i = 0; i < test->count; i++) {
        if (!test->at[i].subject) continue;
        const Text subject = text_of(test->at[i].subject);
        seen += bsearch(&subject, known.at, (size_t)known.count, sizeof(Text), compare_texts) != NULL;
    }
    return seen;
}
/* The name of a file without its folder and what follows its last dot. */
static const char *stem(const char *path) {
    char *name = basename(text_string(text_of(path))), *dot = strrchr(name, '.');
    if (dot && dot > name) *dot = 0;
    return text_line(text_of(name));
}
/* The options with what the method says. Without --deep a deep prompt has four vectors in each layer. */
static Options method_options(const Method *m, const Options *options, const Model *model, const Relation *relation) {
    Options o = *options;
    o.data = relation->folder, o.training.encoder = m->encoder, o.training.tune_lm = m->tune_lm;
    if (!m->deep) o.deep = 0;
    else if (!o.deep) o.deep = 4;
    if (o.training.rate < 0) o.training.rate = o.training.rate_lm = m->demo_rate;
    if (m->template && !strcmp(m->template, "start")) {
        o.start = manual_prompt(&o, model, relation);
        start_from_words(&o, model);
    }
    return o;
}
/* All that the score of a method depends on; best and worst also depend on the prompts to choose from. */
static const char *method_settings(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const bool trains = m->kind >= TRAIN;
    const char *form = method_form(m, o, model, relation), *all = settings(o, trains);
    uint64_t prompts = 0;
    if (!strcmp(form, "best") || !strcmp(form, "worst")) {
        const Texts given = relation_prompts(o, model, relation);
        for (int i = 0; i < given.count; i++) prompts = hash_text(prompts, given.at[i]);
    }
    all = format("%s; prompts %016jx; template %s", all, (uintmax_t)prompts, form);
    if (m->kind == MEAN_OF_SEEDS) all = format("%s; seeds %d", all, o->seeds);
    return format("%s; patience %d", all, trains ? o->training.patience : 0);
}
/* Everything from the files to the score on test. A method that trains the LM loads its own copy, so `model` is always
 * as it was published. */
static Result run_method(const Method *m, const Options *options, Model *model, const Relation *relation) {
    const double start = seconds();
    Options o = method_options(m, options, model, relation);
    Dataset data[3];
    o.template = method_template(m, &o, model, relation);
    const Template t = template_read(o.template);
    Result r = {relation->name, m->name, o.vocab ? stem(o.vocab) : "all", format("%d", o.training.seed), o.template,
                .settings = o.out ? method_settings(m, &o, model, relation) : "-",
                .prompt = tensor(t.pseudo, lm_word(&model->lm).cols)};
    Mark before = mark();
    Model loaded = *model, *own = m->tune_lm ? &loaded : model;
    if (m->tune_lm && o.out && same_file(o.model, format("%s/model", o.out)))
        die("--out %s: the trained model would overwrite the one that is read, %s", o.out, o.model);
    if (m->tune_lm) lm_load(&own->lm, o.model);
    if (o.deep > lm_positions(&own->lm))
        die("--deep %d: the model has only %d positions", o.deep, lm_positions(&own->lm));
    const Tensor prefix = tensor(o.deep, 2 * r.prompt.cols * lm_layers(&own->lm));
    deep_prompt_set(own, prefix, o.shift ? o.deep : 0, "--shift-positions");
    if (t.pseudo && m->encoder == ENCODERS) die("%s: [P] where nothing is trained: %s", relation->name, o.template);
    for (int i = 0; i < 3; i++) { /* a relation that is one file has only a test set */
        const bool missing = m->kind == ZERO_SHOT && i != TEST_SET && is_regular(or_dash(o.data));
        data[i] = missing ? (Dataset){NULL, 0, o.data} : read_split(&o, own, (Split)i, &t);
    }
    if (m->kind == TRAIN && own->answers.field) {
        data[TRAIN_SET] = choices_to_train(&data[TRAIN_SET], o.training.seed, o.quiet);
        o.training.input = choice_inputs, o.training.score = evaluate_choices;
    }
    if (m->kind == TRAIN && o.recipe && data[TRAIN_SET].count < o.training.batch)
        die("%s: %d examples do not fill one batch of %d", data[TRAIN_SET].path, data[TRAIN_SET].count,
            o.training.batch);
    Prediction *predictions = allocate(sizeof(Prediction) * (size_t)data[TEST_SET].count);
    if (m->kind == TRAIN) r.trained = run_seed(&o, own, data, r.prompt, predictions, &r.score);
    else if (m->kind == MAJORITY) r.score = majority_score(&data[TRAIN_SET], &data[TEST_SET], lm_word(&model->lm).rows);
    else r.score = evaluate_any(model, r.prompt, &data[TEST_SET], predictions);
    if (m->kind != MAJORITY) r.macro_f1 = macro_f1(&model->answers, &data[TEST_SET], predictions);
    if (m->kind == SEARCH) r.kept = template_parse(m->template).pseudo;
    if (m->kind == TRAIN) r.kept = (int)(size_of(r.prompt) + size_of(prefix));
    if (m->tune_lm) r.kept += (int)parameters_size(lm_weights(&own->lm)), lm_close(&own->lm);
    deep_prompt_set(model, (Tensor){0}, 0, ""); /* it is this method's alone */
    if (!model->answers.labels) r.seen = seen_subjects(&data[TRAIN_SET], &data[TEST_SET]); /* else: sentences */
    r.seconds = round(10 * (seconds() - start)) / 10; /* as in the file, or sums over relations differ */
    release(before);
    return r;
}
/* Where the run of a method leaves its files. */
static const char *run_path(const Method *m, const Options *o, const Relation *relation) {
    return format("%s/%s.%s.%s.%d", o->out, relation->name, m->name, o->vocab ? stem(o->vocab) : "all",
                  o->training.seed);
}
static Result run_once(const Method *m, const Options *options, Model *model, const Relation *relation);
/* What p-start has learned with a seed: it is run, or read from --out. */
static Result run_part(const Options *options, int seed, Model *model, const Relation *relation) {
    const Method *start = method_named(text_of("p-start"));
    Options o = *options;
    o.training.seed = seed;
    Result part = run_once(start, &o, model, relation);
    Template t;
    if (!part.prompt.rows)
        part.prompt = prompt_read(format("%s/prompt.safetensors", run_path(start, &o, relation)), model, &t);
    return part;
}
/* The mean of the probabilities under the manual prompt and the one that p-start learns, or (MEAN_OF_SEEDS) under those
 * that it learns with all seeds. */
static Result run_mean(const Method *m, const Options *options, Model *model, const Relation *relation) {
    const Options o = method_options(m, options, model, relation);
    const int seed = o.training.seed, seeds = m->kind == MEAN ? 1 : o.seeds;
    Result r = {relation->name, m->name, o.vocab ? stem(o.vocab) : "all", format("%d", seed), o.start,
                .settings = o.out ? method_settings(m, &o, model, relation) : "-"};
    Prompted *by = allocate(sizeof(Prompted[seeds + 1]));
    const Template manual = template_read(o.start), start = template_read(o.template);
    const Dataset data = read_split(&o, model, TEST_SET, &start);
    for (int k = 0; k < seeds; k++) {
        const Result part = run_part(options, seed + k, model, relation);
        by[k] = (Prompted){*model, part.prompt, data};
        r.seen = part.seen, r.trained += part.trained, r.kept += part.kept;
    }
    if (m->kind == MEAN) by[seeds] = (Prompted){*model, {0}, read_split(&o, model, TEST_SET, &manual)};
    const double begin = seconds(); /* without what its parts took */
    Prediction *predictions = allocate(sizeof(Prediction[data.count]));
    r.score = evaluate_mean(by, m->kind == MEAN ? 2 : seeds, predictions);
    r.macro_f1 = macro_f1(&model->answers, &data, predictions);
    r.seconds = round(10 * (seconds() - begin)) / 10;
    return r;
}
/* As above, unless its result line exists: then that, if it was made with the same settings. Training goes on from its
 * checkpoint. */
static Result run_once(const Method *m, const Options *options, Model *model, const Relation *relation) {
    static const char *const used_up[] = {"checkpoint.safetensors", "model/config.json", "model/vocab.txt",
                                          "model/vocab.json", "model/merges.txt",
                                          "model/tokenizer_config.json", "model/tokenizer.json",
                                          "model/model.safetensors", "model"};
    const bool mean = m->kind >= MEAN;
    if (!options->out) return mean ? run_mean(m, options, model, relation) : run_method(m, options, model, relation);
    Options o = *options;
    o.resume = true;
    o.out = run_path(m, options, relation);
    const char *path = format("%s.result.tsv", o.out);
    const Lock lock = lock_file(format("%s.lock", o.out));
    Result r;
    if (file_exists(path)) {
        const Options now = method_options(m, &o, model, relation);
        r = result_read(path);
        check_same_settings(path, text_of(r.settings), text_line(text_of(method_settings(m, &now, model, relation))));
    } else {
        if (m->kind == TRAIN) make_folder(o.out);
        r = mean ? run_mean(m, options, model, relation) : run_method(m, &o, model, relation);
        result_write(path, &r);
        for (int i = 0; m->kind == TRAIN && i < 9; i++) remove(format("%s/%s", o.out, used_up[i]));
    }
    unlock_file(lock);
    return r;
}

/* ==== 3. Tables =================================================================================================== */

typedef struct { Result *at; int count; Texts relations, methods, vocabs, seeds; } Table;

static void add_name(Texts *names, const char *name) {
    if (!texts_contain(names, text_of(name))) texts_push(names, text_of(name));
}
static void table_add(Table *t, Result r) {
    for (int i = 0; i < t->count; i++) {
        const Result *old = &t->at[i];
        if (!strcmp(old->relation, r.relation) && !strcmp(old->method, r.method) && !strcmp(old->vocab, r.vocab) &&
            !strcmp(old->seed, r.seed))
            die("two results for relation %s, method %s, answers %s, seed %s", r.relation, r.method, r.vocab, r.seed);
    }
    t->at = grow(t->at, t->count, sizeof r);
    t->at[t->count++] = r;
    add_name(&t->relations, r.relation), add_name(&t->methods, r.method);
    add_name(&t->vocabs, r.vocab), add_name(&t->seeds, r.seed);
}
/* The runs of a method with a vocabulary, on one relation or (NULL) on all: for each seed P@1 averaged over the
 * relations and of all examples together, then the spread over the seeds. */
typedef struct { Spread average, pooled; int seeds, relations; double seconds; const Result *last; } Cell;
static Cell table_cell(const Table *t, Text method, Text vocab, const Text *relation) {
    Cell cell = {.seeds = 0};
    const size_t size = sizeof(double) * (size_t)t->seeds.count;
    double *average = allocate(size), *pooled = allocate(size);
    for (int s = 0; s < t->seeds.count; s++) {
        double sum = 0, hits = 0, examples = 0;
        int relations = 0;
        for (const Result *r = t->at; r < t->at + t->count; r++) {
            if (!text_is(t->seeds.at[s], r->seed) || !text_is(method, r->method) || !text_is(vocab, r->vocab) ||
                (relation && !text_is(*relation, r->relation)))
                continue;
            sum += p_at_1(r->score), hits += r->score.hits, examples += r->score.examples, relations++;
            cell.seconds += r->seconds, cell.last = r;
        }
        if (!relations) continue;
        cell.relations = cell.seeds ? min_int(cell.relations, relations) : relations;
        average[cell.seeds] = sum / relations, pooled[cell.seeds++] = 100 * hits / examples;
    }
    cell.average = spread_of(average, cell.seeds), cell.pooled = spread_of(pooled, cell.seeds);
    return cell;
}
/* A line of the table: the mean over the seeds of each method on a relation. Without a relation: the heading. */
static void print_relation(const Table *t, Text vocab, const Text *relation) {
    const Result *some = NULL;
    const char *line = "";
    for (int m = 0; m < t->methods.count; m++) {
        const Text method = t->methods.at[m];
        const int width = (int)method.size < 6 ? 8 : (int)method.size + 2;
        const char *value = "-";
        if (!relation) value = text_string(method);
        else {
            const Cell cell = table_cell(t, method, vocab, relation);
            if (cell.seeds) value = format("%.1f", cell.pooled.mean), some = cell.last;
        }
        line = format("%s%*s", line, width, value);
    }
    if (!relation) printf("%-16s%6s%6s%s\n", "relation", "test", "seen", line);
    else if (some) printf("%-16s%6d%6d%s\n", some->relation, some->score.examples, some->seen, line);
    fflush(stdout);
}
static const char *spread_text(Spread s, int seeds) {
    return seeds > 1 ? format("%.2f +- %.2f", s.mean, s.stddev) : format("%.2f", s.mean);
}
/* A line for each method: the average over the relations (the paper's 34k column) and all examples together (its 29k
 * column), with the standard deviation over several seeds. */
static void print_methods(const Table *t, Text vocab) {
    printf("\n%-12s%16s%16s%10s%6s%9s%11s%11s\n", "method", "average", "pooled", "relations", "seeds", "seconds",
           "trained", "kept");
    for (int m = 0; m < t->methods.count; m++) {
        const Cell c = table_cell(t, t->methods.at[m], vocab, NULL);
        if (!c.seeds) continue;
        printf("%-12s%16s%16s%10d%6d%9.1f%11d%11d", c.last->method, spread_text(c.average, c.seeds),
               spread_text(c.pooled, c.seeds), c.relations, c.seeds, c.seconds, c.last->trained, c.last->kept);
        for (int k = 0; k < METHODS; k++)
            if (!strcmp(methods[k].name, c.last->method)) printf("  %s", methods[k].meaning);
        printf("\n");
    }
}
static int method_seeds(const Method *m, const Options *o) { /* without training or search nothing is random */
    return m->kind < SEARCH || m->kind == MEAN_OF_SEEDS ? 1 : o->seeds;
}
/* All methods and seeds on a relation. */
static void run_relation(const Options *o, Model *model, const Relation *relation, Table *t) {
    for (int m = 0; m < t->methods.count; m++) {
        const Method *method = method_named(t->methods.at[m]);
        for (int s = 0; s < method_seeds(method, o); s++) {
            Options one = *o;
            one.training.seed += s;
            table_add(t, run_once(method, &one, model, relation));
        }
    }
}
/* Relations are independent, and too small for two threads: with --jobs N there are N processes with a thread each, of
 * which process k runs the relations k, k + N, ... and sends their result lines through a pipe, or an error message. */
typedef struct { FILE *stream; pid_t process; } Job;

_Noreturn static void job_run(const Options *o, Model *model, const World *world, const Texts *methods_run, int first,
                              int jobs, FILE *stream) {
    omp_set_num_threads(1);
    dup2(fileno(stream), STDERR_FILENO);
    for (int r = first; r < world->count; r += jobs) {
        Mark before = mark();
        Table t = {.methods = *methods_run};
        run_relation(o, model, &world->at[r], &t);
        for (int i = 0; i < t.count; i++) result_print(stream, &t.at[i]);
        fflush(stream);
        release(before);
    }
    _exit(0);
}
static void jobs_start(Job *job, int jobs, const Options *o, Model *model, const World *world, const Texts *names) {
    fflush(stdout);
    for (int k = 0; k < jobs; k++) {
        int ends[2];
        if (pipe(ends) || (job[k].process = fork()) < 0) die("no process for --jobs: %s", strerror(errno));
        if (!job[k].process) {
            for (int older = 0; older < k; older++) fclose(job[older].stream);
            close(ends[0]);
            job_run(o, model, world, names, k, jobs, fdopen(ends[1], "w"));
        }
        close(ends[1]);
        job[k].stream = fdopen(ends[0], "r");
    }
}
/* One process has ended early, with this message or because it was killed: the others are stopped, too. */
_Noreturn static void job_failed(Job *job, int jobs, int failed, const char *message) {
    int status;
    for (int k = 0; k < jobs; k++)
        if (k != failed) kill(job[k].process, SIGTERM), waitpid(job[k].process, NULL, 0);
    waitpid(job[failed].process, &status, 0);
    if (WIFSIGNALED(status)) die("a process of --jobs was killed by signal %d", WTERMSIG(status));
    fflush(stdout);
    fputs(message, stderr);
    exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}
/* The result lines of the next relation of a job. */
static void job_receive(Job *job, int jobs, int k, const Options *o, Table *t) {
    for (int m = 0; m < t->methods.count; m++) {
        const int seeds = method_seeds(method_named(t->methods.at[m]), o);
        for (int s = 0; s < seeds; s++) {
            char *line = NULL;
            size_t capacity = 0;
            const ssize_t size = getline(&line, &capacity, job[k].stream);
            const bool result = size > 0 && line[size - 1] == '\n' && strchr(line, '\t');
            if (!result) job_failed(job, jobs, k, size > 0 ? line : "");
            table_add(t, result_parse((Text){line, (size_t)size - 1}, "a process of --jobs"));
            free(line);
        }
    }
}
/* Where LAMA has the examples of a relation that has no folder: in one file; NULL if nowhere. */
static const char *relation_file(const char *data, const char *name) {
    static const char *const folders[] = {"TREx/", "", "Google_RE/", "data/TREx/"};
    for (int k = 0; k < 4; k++) {
        const char *path = format("%s/%s%s.jsonl", data, folders[k], name);
        if (is_regular(path)) return path;
    }
    return NULL;
}
/* The relations that are to be run: those that are named, or all that have a folder or a file. */
static World chosen_relations(const Options *o, const World *world) {
    const Texts wanted = o->relations ? split(text_of(o->relations), ',') : (Texts){0};
    World chosen = {0};
    for (int k = 0; k < wanted.count; k++)
        if (!has_relation(world, wanted.at[k]))
            die("--relations: no relation '%s' in relations.jsonl", text_string(wanted.at[k]));
    for (int r = 0; r < world->count; r++) {
        Relation relation = world->at[r];
        const char *file = file_exists(relation.folder) ? NULL : relation_file(o->data, relation.name);
        if (file) relation.folder = file;
        if (o->relations ? !texts_contain(&wanted, text_of(relation.name)) : !file_exists(relation.folder)) continue;
        chosen.at = grow(chosen.at, chosen.count, sizeof relation);
        chosen.at[chosen.count++] = relation;
    }
    if (!chosen.count) die("%s: no relation has a folder", o->data);
    return chosen;
}
/* Runs what is missing; a relation is printed once all its runs are done. */
static void run_table(const Options *o, Model *model, const World *world) {
    const Texts names = split(text_of(o->methods), ',');
    const int jobs = min_int(o->jobs, world->count);
    Table t = {0};
    Job *job = allocate(sizeof(Job) * (size_t)jobs);
    for (int m = 0; m < names.count; m++) add_name(&t.methods, method_named(names.at[m])->name);
    print_relation(&t, text_of(""), NULL);
    if (jobs > 1) jobs_start(job, jobs, o, model, world, &t.methods);
    for (int r = 0; r < world->count; r++) {
        if (jobs > 1) job_receive(job, jobs, r % jobs, o, &t);
        else run_relation(o, model, &world->at[r], &t);
        print_relation(&t, t.vocabs.at[0], &t.relations.at[t.relations.count - 1]);
    }
    for (int k = 0; jobs > 1 && k < jobs; k++) fclose(job[k].stream), waitpid(job[k].process, NULL, 0);
    print_methods(&t, t.vocabs.at[0]);
}
static int is_result(const struct dirent *file) {
    const size_t length = strlen(file->d_name), suffix = strlen("result.tsv");
    return length >= suffix && !strcmp(file->d_name + length - suffix, "result.tsv");
}
/* The tables of all result lines in a folder, one for each vocabulary. */
static void print_folder(const char *folder) {
    struct dirent **files;
    const int count = scandir(folder, &files, is_result, alphasort);
    if (count < 0) die("%s: %s", folder, strerror(errno));
    if (!count) die("%s: no file ...result.tsv", folder);
    Table t = {0};
    for (int i = 0; i < count; i++) {
        table_add(&t, result_read(format("%s/%s", folder, files[i]->d_name)));
        free(files[i]);
    }
    free(files);
    const Texts found = t.methods;
    t.methods = (Texts){0};
    for (int m = 0; m < METHODS; m++) /* first those of the list, in its order */
        if (texts_contain(&found, text_of(methods[m].name))) add_name(&t.methods, methods[m].name);
    for (int m = 0; m < found.count; m++) add_name(&t.methods, text_string(found.at[m]));
    for (int v = 0; v < t.vocabs.count; v++) {
        printf("%sanswers: %s\n", v ? "\n" : "", text_string(t.vocabs.at[v]));
        print_relation(&t, t.vocabs.at[v], NULL);
        for (int r = 0; r < t.relations.count; r++) print_relation(&t, t.vocabs.at[v], &t.relations.at[r]);
        print_methods(&t, t.vocabs.at[v]);
    }
}

#endif
