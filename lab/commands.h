/* commands.h - what `ptune` can do.
 *
 *   1  the commands        the demo first
 *   2  the command line
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "tag.h"
#include "multi.h"

/* ==== 1. The commands ============================================================================================= */

/* ---- The demo: the table on the small world, and one relation in many paraphrases -------------------------------- */

static double norm_of(const real *x, int count) {
    double squares = 0;
    for (int j = 0; j < count; j++) squares += (double)x[j] * (double)x[j];
    return sqrt(squares);
}
/* The words whose embeddings have the largest cosine with each vector of the prompt. */
static void print_nearest(const Model *model, Tensor prompt) {
    const Tensor word = lm_word(&model->lm);
    Tensor cosine = tensor_zeros(prompt.rows, word.rows); /* times the norm of the prompt's vector */
    matmul(values(cosine), values(prompt), transposed(values(word)));
    for (int w = 0; w < word.rows; w++) {
        const double norm = norm_of(row(word, w), word.cols);
        for (int i = 0; i < prompt.rows; i++)
            row(cosine, i)[w] = norm > 0 ? row(cosine, i)[w] / (real)norm : -(real)INFINITY;
    }
    for (int i = 0; i < prompt.rows; i++) {
        const double norm = norm_of(row(prompt, i), prompt.cols);
        printf("[P]%d", i + 1);
        for (int k = 0; k < 5; k++) {
            real largest;
            const char *near = answer_text(model, pop_argmax(row(cosine, i), model->vocab.size, &largest));
            if (isfinite(largest)) printf("  %s %.2f", near, norm > 0 ? (double)largest / norm : 0);
        }
        printf("\n");
    }
}
/* The answers to the test examples of a relation under a template. */
static Prediction *answers_to(const Options *o, const Model *model, const Relation *relation, const char *form,
                              Tensor prompt, Dataset *data) {
    Options here = *o;
    here.data = relation->folder;
    const Template t = template_read(form);
    *data = read_split(&here, model, TEST_SET, &t);
    Prediction *predictions = allocate(sizeof(Prediction) * (size_t)data->count);
    evaluate(model, prompt, data, predictions);
    return predictions;
}
static void print_bar(double per_cent, const char *form) {
    char bar[] = "..............................";
    memset(bar, '#', (size_t)(0.3 * per_cent + 0.5));
    printf("%8.1f  %s  %s\n", per_cent, bar, form);
}
/* The paper's first table: one question in other words, and other answers; then what P-tuning makes of it. */
static void demo_instability(Model *model, const Relation *relation, const Options *o, const Result *tuned) {
    const Texts prompts = relation_prompts(o, model, relation);
    printf("\n%s: the same question in other words. P@1:\n", relation->name);
    for (int p = 0; p < prompts.count; p++) {
        const Method manual = {.name = "", .kind = ZERO_SHOT, .encoder = ENCODERS,
                               .template = text_string(prompts.at[p])};
        print_bar(p_at_1(run_method(&manual, o, model, relation).score), manual.template);
    }
    print_bar(p_at_1(tuned->score), tuned->template);
}
/* Five test examples, at equal distances among those that the manual prompt gets wrong. */
static void demo_examples(const Model *model, const Relation *relation, const Options *o, const Result *tuned) {
    enum { SHOWN = 5 };
    Dataset data;
    const char *form = manual_prompt(o, model, relation);
    const Prediction *manual = answers_to(o, model, relation, form, (Tensor){0}, &data);
    const Prediction *learned = answers_to(o, model, relation, tuned->template, tuned->prompt, &data);
    int *wrong = allocate(sizeof(int) * (size_t)data.count), count = 0;
    for (int i = 0; i < data.count; i++)
        if (manual[i].rank > 1) wrong[count++] = i;
    const int shown = min_int(SHOWN, count);
    printf("\n%d of the %d answers that the manual prompt gets wrong:\n%-24s%-20s%-20s%s\n", shown, count, "subject",
           "manual prompt", "P-tuning", "truth");
    for (int k = 0; k < shown; k++) {
        const int i = wrong[k * count / shown];
        printf("%-24s%-20s%-20s%s\n", or_dash(data.at[i].subject), answer_text(model, manual[i].predicted),
               answer_text(model, learned[i].predicted), answer_text(model, data.at[i].answer));
    }
}
/* The relation of the paper's first table (LAMA's P17, country), if it is among them. */
static const Relation *shown_relation(const World *world) {
    for (int r = 0; r < world->count; r++)
        if (!strcmp(world->at[r].name, "country_of_city")) return &world->at[r];
    return &world->at[0];
}
static void command_demo(Options *o) {
    const double start = seconds();
    const World all = world_read(o->data), world = chosen_relations(o, &all);
    Model *model = model_load(o);
    o->template = chosen_template(o, model);
    printf("A %s of %zu parameters has read a small world of %d relations, each fact in a few phrasings. What does\n"
           "it answer to subjects that no method was trained on? P@1 on the test examples in per cent, seed %d.\n\n",
           model->lm.causal ? "GPT" : "BERT", parameters_size(lm_weights(&model->lm)), world.count, o->training.seed);
    run_table(o, model, &world);
    const Relation *shown = shown_relation(&world);
    const Result tuned = run_method(method_named(text_of("p-lstm")), o, model, shown);
    demo_instability(model, shown, o, &tuned);
    demo_examples(model, shown, o, &tuned);
    printf("\n%.0f seconds. Next: ./ptune fill --model %s \"The capital of France is%s\"\n"
           "      ./ptune train --model %s --data data/%s --lr 5e-3 --out run\n"
           "      make gradcheck LAYER=layernorm\n", seconds() - start, o->model,
           model->lm.causal ? "" : " [MASK] .", o->model, shown->name);
}

/* ---- fill, tokenize, train, multi, eval, tag, words, search, table, vocab, pretrain ------------------------------ */

/* What is no printable text is shown by its number, \x0a for a line end. */
static void print_token(Text token) {
    for (size_t i = 0, length; i < token.size; i += length ? length : 1) {
        uint32_t code;
        length = utf8_decode(token.data + i, token.size - i, &code);
        const unsigned char first = (unsigned char)token.data[i];
        if (length && first >= ' ' && first != 0x7F) printf("%.*s", (int)length, token.data + i);
        else printf("\\x%02x", first);
    }
}
/* The five best words for one [MASK], or the five best next tokens: word, probability, logit. Destroys the logits. */
static void print_best(const Model *model, real *logits) {
    const double all = log_sum_exp(logits, lm_word(&model->lm).rows);
    if (!isfinite(all)) die("the logits are not finite");
    for (int k = 0; k < 5 && k < model->vocab.size; k++) {
        real logit;
        const int id = pop_argmax(logits, model->vocab.size, &logit);
        print_token(vocab_text(&model->vocab, id));
        printf("\t%.4f\t%.4f\n", exp((double)logit - all), (double)logit);
    }
}
/* The ids of a subject under a learned prompt. */
static Ids prompt_ids(const Options *o, const Model *model, const Template *t, Text subject) {
    Text *field = allocate(sizeof *field * (size_t)t->parts);
    Example example;
    for (int i = 0; i < t->parts; i++) {
        if (t->part[i].kind == FIELD && t->part[i].text.size)
            die("%s: its template needs more than a subject: %s", o->prompt, t->text);
        field[i] = subject;
    }
    template_fill(t, &model->vocab, field, lm_positions(&model->lm), &example, "SUBJECT", 1);
    return (Ids){example.id, example.length};
}
/* The ids of a text with [MASK] in it. A causal LM goes on with a text: it may end in [MASK], which is not fed. */
static Ids text_ids(const Model *model, Text text) {
    const bool causal = model->lm.causal;
    Ids ids = {0};
    if (causal) text = trimmed_end(text);
    if (causal && text_ends(text, "[MASK]")) text.size -= strlen("[MASK]"), text = trimmed_end(text);
    if (causal && strstr(text_string(text), "[MASK]"))
        die("the text goes on after its [MASK]: this LM is causal");
    if (!causal) ids_push(&ids, model->vocab.cls);
    tokenize_with_special(&model->vocab, text, &ids);
    if (!causal) ids_push(&ids, model->vocab.sep);
    if (!ids.count) die("the text is empty");
    if (ids.count > lm_positions(&model->lm))
        die("the text has %d tokens, the model takes %d", ids.count, lm_positions(&model->lm));
    return ids;
}
/* Five best words for each [MASK], or five best next tokens. */
static void fill(const Model *model, Tensor prompt, Ids ids) {
    int *masks = allocate(sizeof(int) * (size_t)ids.count), start[] = {0, ids.count}, selected_start[] = {0, 0};
    for (int i = 0; i < ids.count; i++)
        if (model->lm.causal ? i == ids.count - 1 : ids.id[i] == model->vocab.mask) masks[selected_start[1]++] = i;
    if (!selected_start[1]) die("no [MASK] in the text");
    const Batch batch = {1, ids.count, selected_start[1], start, selected_start, masks};
    const Tensor e = embed_forward(lm_word(&model->lm), prompt, ids.id, ids.count);
    const Tensor logits = lm_logits(&model->lm, e, &batch);
    for (int i = 0; i < logits.rows; i++) {
        if (i) putchar('\n');
        print_best(model, row(logits, i));
    }
}
static void command_fill(Options *o) {
    if (!o->text) usage(o->prompt ? "SUBJECT is missing" : "TEXT is missing", NULL);
    Model *model = model_load(o);
    Template t;
    const Tensor prompt = o->prompt ? prompt_read(o->prompt, model, &t) : (Tensor){0};
    const bool from_input = !strcmp(o->text, "-"); /* a text a line */
    Text rest = from_input ? read_file("-") : text_of(o->text), text;
    if (from_input && !rest.size) die("standard input: no text");
    for (int line = 0; from_input ? next_line(&rest, &text) : line == 0; line++) {
        Mark before = mark();
        if (!from_input) text = rest;
        if (!utf8_valid(text)) die("the text is not valid UTF-8");
        if (line) putchar('\n');
        fill(model, prompt, o->prompt ? prompt_ids(o, model, &t, text) : text_ids(model, text));
        release(before);
    }
}

static void command_tokenize(Options *o) {
    if (!o->text) usage("FILE.jsonl is missing", NULL);
    const Vocab vocab = vocab_load(o->model);
    const char *path = input_name(o->text);
    Text rest = read_file(o->text), value;
    int line = 0;
    for (Text json; next_object(&rest, &json, path, &line);) {
        Mark before = mark();
        Ids ids = {0};
        if (!json_member(json, "text", &value) || !json_is_string(value)) die("%s:%d: no field 'text'", path, line);
        tokenize_with_special(&vocab, json_string(value), &ids);
        for (int i = 0; i < ids.count; i++) printf(i ? " %d" : "%d", ids.id[i]);
        putchar('\n');
        release(before);
    }
}

static void print_score(const Options *o, Score s, double f1) {
    printf("%s %.2f (%d of %d)%s\n", o->labels ? "accuracy" : "P@1", p_at_1(s), s.hits, s.examples,
           o->labels ? format(", macro-F1 %.2f", f1) : "");
}
/* What train and table have in common: names become settings. */
static void check_settings(Options *o) {
    Training *t = &o->training;
    t->encoder = encoder_named(o->encoder);
    t->adamw = !strcmp(o->optimizer, "adamw");
    t->published = o->recipe != NULL;
    t->by_loss = !strcmp(o->select, "loss");
    if (t->encoder == ENCODERS) usage("--encoder is lstm, mlp or embedding, not ", o->encoder);
    if (strcmp(o->optimizer, "adam") && !t->adamw) usage("--optimizer is adam or adamw, not ", o->optimizer);
    if (strcmp(o->select, "p@1") && !t->by_loss) usage("--select is p@1 or loss, not ", o->select);
    if (o->recipe && strcmp(o->recipe, "paper")) usage("--recipe is paper, not ", o->recipe);
    const bool trains = !o->template || template_read(o->template).pseudo || o->deep || t->tune_lm;
    if (!trains && template_origin) die("%s: nothing to train: no [P] in its template", template_origin);
    if (!trains)
        usage("nothing to train: no [P] in the template, no --deep and no --tune-lm", NULL);
    if (t->deep_encoder && !o->deep) usage("--deep-encoder goes with --deep", NULL);
    if (o->shift && !o->deep) usage("--shift-positions goes with --deep", NULL);
}
/* Mean and standard deviation of several seeds. */
static void print_seeds(const Options *o, const double *p_at_1s, const double *f1s) {
    const Spread p = spread_of(p_at_1s, o->seeds), f = spread_of(f1s, o->seeds);
    if (o->labels) printf("mean macro-F1 %.2f, standard deviation %.2f\n", f.mean, f.stddev);
    printf("mean %s %.2f, standard deviation %.2f, %d seeds\n", o->labels ? "accuracy" : "P@1", p.mean, p.stddev,
           o->seeds);
}
/* One seed into the folder `out` (NULL: nothing is written). */
static Result train_into(const char *out, const Method *method, const Options *o, Model *model,
                         const Relation *relation) {
    Options one = *o;
    one.out = out;
    if (!out) return run_method(method, &one, model, relation);
    make_folder(out);
    const Lock lock = lock_file(format("%s/lock", out));
    const Result r = run_method(method, &one, model, relation);
    result_write(format("%s/result.tsv", out), &r);
    unlock_file(lock);
    return r;
}
/* What is trained, as a method: p-lstm, p-deep, p-lstm+deep, ft, p-lstm+ft, ... */
static Method method_of(const Options *o, bool pseudo) {
    const bool tune_lm = o->training.tune_lm;
    const char *name = pseudo ? format("p-%s", o->encoder) : NULL;
    if (o->deep) name = name ? format("%s+deep", name) : "p-deep";
    if (tune_lm) name = name ? format("%s+ft", name) : "ft";
    return (Method){.name = name, .kind = TRAIN, .encoder = pseudo ? o->training.encoder : ENCODERS,
                    .tune_lm = tune_lm, .deep = o->deep > 0};
}
static void command_train(Options *o) {
    if (!o->data && !(o->train && o->dev && o->test)) usage("--data DIR is missing", NULL);
    check_settings(o);
    if (o->resume && !o->out) usage("--resume goes with --out", NULL);
    if (o->seeds > 1 && o->resume) usage("--resume cannot be combined with --seeds", NULL);
    Model *model = model_load(o);
    if (o->start) start_from_words(o, model);
    else o->template = chosen_template(o, model);
    const bool pseudo = template_read(o->template).pseudo > 0;
    if (o->encoder_from && !pseudo) usage("--encoder-from needs a template with [P]", NULL);
    const Method method = method_of(o, pseudo);
    const char *data_name = stem(o->data ? o->data : o->test);
    const Relation relation = {o->task ? o->task : data_name, o->data, {0}};
    if (o->out) make_folder(o->out), o->model_hash = hash_model(o->model);
    const size_t size = sizeof(double) * (size_t)o->seeds;
    double *p_at_1s = allocate(size), *f1s = allocate(size);
    const int first_seed = o->training.seed;
    for (int k = 0; k < o->seeds; k++) {
        o->training.seed = first_seed + k;
        const char *out = o->out && o->seeds > 1 ? format("%s/seed%d", o->out, o->training.seed) : o->out;
        const Result r = train_into(out, &method, o, model, &relation);
        if (o->seeds > 1) printf("seed %d: ", o->training.seed);
        print_score(o, r.score, r.macro_f1);
        p_at_1s[k] = p_at_1(r.score), f1s[k] = r.macro_f1;
    }
    if (o->seeds > 1) print_seeds(o, p_at_1s, f1s);
}

/* One encoder for many relations. */
static void command_multi(Options *o) {
    if (!o->data) usage("--data DIR is missing", NULL);
    check_settings(o);
    if (o->resume && !o->out) usage("--resume goes with --out", NULL);
    const World all = world_read(o->data), world = chosen_relations(o, &all);
    Model *model = model_load(o);
    o->template = chosen_template(o, model);
    if (o->out) make_folder(o->out), o->model_hash = hash_model(o->model);
    const Lock lock = o->out ? lock_file(format("%s/lock", o->out)) : (Lock){0};
    Shared shared = shared_begin(o, model, &world);
    double sum = 0;
    shared_train(o, &shared);
    for (int r = 0; r < world.count; r++) {
        const Result result = shared_result(o, &shared, r);
        if (o->out) result_write(shared_file(o, &shared, r, "result.tsv"), &result);
        printf("%s: ", result.relation);
        print_score(o, result.score, 0);
        sum += p_at_1(result.score);
    }
    printf("mean P@1 %.2f, relations: %d\n", sum / world.count, world.count);
    if (o->out) unlock_file(lock);
}

static bool ends_in(const char *path, const char *suffix) {
    const size_t length = strlen(path), size = strlen(suffix);
    return length >= size && !strcmp(path + length - size, suffix);
}
/* The idx of an answer in MultiRC: of the passage, the question, the answer. False: it is another task's idx. */
typedef struct { Text passage, question, answer; } AnswerIdx;
static bool answer_idx(Text idx, AnswerIdx *parts) {
    return json_member(idx, "paragraph", &parts->passage) && json_member(idx, "question", &parts->question) &&
           json_member(idx, "answer", &parts->answer);
}
static bool is_multirc(const Names *names) {
    AnswerIdx parts;
    int i = 0;
    while (i < names->idx.count && answer_idx(names->idx.at[i], &parts)) i++;
    return i == names->idx.count;
}
static const char *predicted_label(const Answers *answers, const Prediction *p) {
    int k = 0;
    while (answers->word[k] != p->predicted) k++;
    return text_string(answers->name[k]);
}
static const char *json_label(const char *name) { /* a label that is a number stands without quotes */
    const char *end = name + strlen(name);
    const bool number = strchr("-0123456789", *name) && json_value(name, end, 0) == end;
    return number ? name : json_quote(name);
}
/* MultiRC's form of a submission: a line a passage, in it the questions, in them the answers. */
static void passages_write(FILE *stream, const Answers *answers, const Names *names, const Prediction *predictions) {
    AnswerIdx before, now;
    for (int i = 0; i < names->idx.count; i++, before = now) {
        answer_idx(names->idx.at[i], &now);
        const bool new_passage = !i || !text_equal(now.passage, before.passage);
        const bool new_question = new_passage || !text_equal(now.question, before.question);
        if (i && new_question) fprintf(stream, "]}");
        if (i && new_passage) fprintf(stream, "]}}\n");
        if (new_passage)
            fprintf(stream, "{\"idx\": %s, \"passage\": {\"questions\": [", text_string(now.passage));
        if (new_question)
            fprintf(stream, "%s{\"idx\": %s, \"answers\": [", new_passage ? "" : ", ", text_string(now.question));
        fprintf(stream, "%s{\"idx\": %s, \"label\": %s}", new_question ? "" : ", ", text_string(now.answer),
                json_label(predicted_label(answers, &predictions[i])));
    }
    fprintf(stream, "]}]}}\n");
}
/* The label that is predicted for each example, by its idx: a table, or for FILE.jsonl the form of a submission to
 * SuperGLUE. */
static void labels_write(const char *path, const Answers *answers, const Names *names, const Prediction *predictions) {
    Output out = output_open(path);
    const bool submission = ends_in(path, ".jsonl"), nested = submission && is_multirc(names);
    if (nested) passages_write(out.stream, answers, names, predictions);
    if (!submission) fprintf(out.stream, "idx\tlabel\n");
    for (int i = 0; i < names->idx.count && !nested; i++) {
        Mark before = mark();
        const char *name = predicted_label(answers, &predictions[i]), *idx = text_line(names->idx.at[i]);
        if (submission) fprintf(out.stream, "{\"idx\": %s, \"label\": %s}\n", idx, json_label(name));
        else fprintf(out.stream, "%s\t%s\n", idx, name);
        release(before);
    }
    output_close(out);
}
/* An answer as it is printed: its token, or its label where the tokens are the example's own. */
static const char *answer_name(const Model *model, int answer) {
    return model->answers.field ? text_line(model->answers.name[answer]) : answer_text(model, answer);
}
/* A line for each example. */
static void predictions_write(const char *path, const Model *model, const Dataset *data,
                              const Prediction *predictions) {
    Output out = output_open(path);
    fprintf(out.stream, "subject\tanswer\tprediction\trank\tlog_probability\n");
    for (int i = 0; i < data->count; i++) {
        const Example *e = &data->at[i];
        const Prediction *p = &predictions[i];
        Mark before = mark();
        fprintf(out.stream, "%s\t%s\t%s\t%d\t%.6f\n", or_dash(e->subject), answer_name(model, e->answer),
                answer_name(model, p->predicted), p->rank, p->log_probability);
        release(before);
    }
    output_close(out);
}
static void print_ranks(const Prediction *predictions, int count) {
    int hits_at_10 = 0;
    double reciprocal_rank = 0;
    for (int i = 0; i < count; i++) {
        hits_at_10 += predictions[i].rank <= 10;
        reciprocal_rank += 1.0 / predictions[i].rank;
    }
    printf("P@10 %.2f, MRR %.4f\n", 100.0 * hits_at_10 / count, reciprocal_rank / count);
}
/* MultiRC's own figures: F1 of label 1 over all answers, and the share of questions whose answers are all right. */
static void print_multirc(const Answers *answers, const Dataset *data, const Names *names,
                          const Prediction *predictions) {
    AnswerIdx before, now;
    int questions = 0, exact = 0;
    bool right = false; /* so far, in this question */
    for (int i = 0; i < data->count; i++, before = now) {
        answer_idx(names->idx.at[i], &now);
        const bool same = i && text_equal(now.passage, before.passage) && text_equal(now.question, before.question);
        if (!same) right = true, questions++, exact++;
        if (right && predictions[i].rank > 1) right = false, exact--;
    }
    const int one = label_named(answers, text_of("1"));
    if (one >= 0) printf("F1a %.2f, ", fmax(0, label_f1(answers->word[one], data, predictions)));
    printf("EM %.2f (%d of %d questions)\n", 100.0 * exact / questions, exact, questions);
}
/* Whether the first example of a file brings the sentence to complete. */
static bool has_own_sentences(const char *path) {
    int line = 0;
    if (!is_regular(path)) return false;
    const Text file = read_file(path);
    Text rest = file, json, value;
    const bool found = next_object(&rest, &json, path, &line) && json_member(json, "masked_sentences", &value);
    unmap_file(file);
    return found;
}
/* Those of --data under a template or, if there is none, under a learned prompt. */
static Prompted prompted_by(const Options *o, const Model *model, const Text *template, const Text *file, bool quiet,
                            Names *names) {
    Prompted p = {.model = *model};
    Template t;
    if (template) t = template_read(text_string(*template));
    if (template && t.pseudo) usage("a template with [P] needs what was learned for it: --prompt FILE", NULL);
    if (!template) p.prompt = prompt_read(text_string(*file), &p.model, &t);
    *names = (Names){.unlabelled = 0};
    p.data = read_named(o->data, &p.model, &t, o->max_length, quiet, names);
    return p;
}
/* eval --tagger: a kept tagger on the sentences of a file. */
static void eval_tagger(const Options *o) {
    if (o->templates.count || o->prompt_files.count || o->vocab || o->labels)
        usage("--tagger goes with --model, --data, --max-length and --predictions alone", NULL);
    Model *model = tag_model(o);
    const Tensor prompt = tagger_read(o->tagger, model);
    const Sentences all = conll_read(o->data);
    const Dataset data = tag_examples(&all, model, prompt.rows, o->max_length);
    predict(model, prompt, &data, &all);
    if (o->predictions) conll_write(o->predictions, &all);
    print_entities(entities_of(&all));
}
static void command_eval(Options *o) {
    if (!o->data) usage("--data FILE.jsonl is missing", NULL);
    if (o->tagger) {
        eval_tagger(o);
        return;
    }
    if (!o->template && !o->prompt && has_own_sentences(o->data)) o->template = MASKED_SENTENCES;
    if (!o->template && !o->prompt) usage("--template T or --prompt FILE is missing", NULL);
    if (o->template && !o->templates.count) texts_push(&o->templates, text_of(o->template));
    const int templates = o->templates.count, prompts = templates + o->prompt_files.count;
    if (prompts > 1 && !is_regular(o->data)) die("%s: with several prompts this must be a regular file", o->data);
    Model *model = model_load(o);
    if (prompts > 1 && model->answers.field)
        die("the mean of several prompts is implemented only for answers of one token");
    Prompted *by = allocate(sizeof(Prompted[prompts]));
    Names names = {.unlabelled = 0};
    for (int k = 0; k < prompts; k++)
        by[k] = prompted_by(o, model, k < templates ? &o->templates.at[k] : NULL,
                            k < templates ? NULL : &o->prompt_files.at[k - templates], k > 0, &names);
    const Dataset data = by->data;
    if (names.unlabelled && !o->predictions)
        die("%s: no labels, so no score: --predictions FILE says what is predicted", data.path);
    Prediction *predictions = allocate(sizeof(Prediction) * (size_t)data.count);
    const Score score = prompts == 1 ? evaluate_any(&by->model, by->prompt, &data, predictions)
                                     : evaluate_mean(by, prompts, predictions);
    if (names.unlabelled || (o->labels && o->predictions && ends_in(o->predictions, ".jsonl"))) {
        labels_write(o->predictions, &model->answers, &names, predictions);
        if (names.unlabelled) return;
    } else if (o->predictions) predictions_write(o->predictions, model, &data, predictions);
    if (!o->labels) print_ranks(predictions, data.count);
    else if (is_multirc(&names)) print_multirc(&model->answers, &data, &names, predictions);
    print_score(o, score, macro_f1(&model->answers, &data, predictions));
}

static void command_tag(Options *o) {
    if (!o->data && !(o->train && o->dev && o->test)) usage("--data DIR is missing", NULL);
    check_settings(o);
    if (o->resume && !o->out) usage("--resume goes with --out", NULL);
    if (!o->pseudo && (strcmp(o->encoder, "lstm") || o->training.scale >= 0))
        usage("--encoder and --init-scale go with --pseudo", NULL);
    if (!o->pseudo) o->training.encoder = ENCODERS;
    o->tags = true;
    if (o->training.tune_lm && o->out && same_file(o->model, format("%s/model", o->out)))
        die("--out %s: the trained model would overwrite the one that is read, %s", o->out, o->model);
    Model *model = tag_model(o);
    Sentences sentences[3];
    Dataset data[3];
    const Tensor prefix = tensor(o->deep, 2 * model->lm.bert.hidden * lm_layers(&model->lm));
    deep_prompt_set(model, prefix, o->shift ? o->deep : 0, "--shift-positions");
    for (int set = 0; set < 3; set++) sentences[set] = read_tagged(o, (Split)set);
    model->answers = tags_of(&sentences[TRAIN_SET]);
    for (int set = 0; set < 3; set++) data[set] = tag_examples(&sentences[set], model, o->pseudo, o->max_length);
    if (o->training.rate < 0) o->training.rate = o->training.tune_lm ? 5e-5 : 5e-3;
    o->training.rate_lm = o->training.rate, o->training.input = tagged_inputs;
    if (o->out) make_folder(o->out), o->model_hash = hash_model(o->model);
    const Lock lock = o->out ? lock_file(format("%s/lock", o->out)) : (Lock){0};
    train_tagger(o, model, data, sentences);
    if (o->out) unlock_file(lock);
    if (o->predictions) conll_write(o->predictions, &sentences[TEST_SET]);
    print_entities(entities_of(&sentences[TEST_SET]));
}

static void command_words(Options *o) {
    if (!o->prompt) usage("--prompt FILE is missing", NULL);
    Model *model = model_load(o);
    Template t;
    const Tensor prompt = prompt_read(o->prompt, model, &t);
    printf("%s\n", t.text);
    print_nearest(model, prompt);
    if (lm_prefix(&model->lm)->rows)
        printf("a deep prompt: %d keys and values in each of %d layers, which are no embeddings and near no words\n",
               lm_prefix(&model->lm)->rows, lm_layers(&model->lm));
}

static void command_search(Options *o) {
    if (!o->data && !o->train) usage("--data DIR is missing", NULL);
    if (o->template && !template_read(o->template).pseudo)
        usage("nothing to search: no [P] in the template", NULL);
    Model *model = model_load(o);
    if (model->answers.field) die("the search is implemented only for answers of one token");
    o->template = chosen_template(o, model);
    printf("%s\n", search(o, model, o->template));
}

static void command_table(Options *o) {
    if (o->text) {
        print_folder(o->text);
        return;
    }
    if (!o->data) usage("--data DIR is missing", NULL);
    check_settings(o);
    const World all = world_read(o->data), world = chosen_relations(o, &all);
    Model *model = model_load(o);
    o->template = chosen_template(o, model);
    if (o->out) make_folder(o->out), o->model_hash = hash_model(o->model);
    run_table(o, model, &world);
}

/* The tokenizer's files for a world. */
static void command_vocab(Options *o) {
    const char *other = format("%s/%s", or_dash(o->model), o->causal ? "vocab.txt" : "merges.txt");
    if (!o->data) usage("--data DIR is missing", NULL);
    if (file_exists(other)) die("%s: this folder has the vocabulary of another kind of model", other);
    const World world = world_read(o->data);
    Texts objects = {0};
    const Texts sentences = world_sentences(&world, o->training.seed, &objects);
    const Vocab vocab =
        o->causal ? bpe_learn(&sentences, &objects, o->size) : vocab_learn(&sentences, &objects, o->size);
    make_folder(o->model);
    vocab_save(&vocab, o->model);
    printf("%d sentences, %d entries\n", sentences.count, vocab.size);
}

/* Sentences as examples without an answer. */
static Example *sentence_examples(const Texts *sentences, const Vocab *vocab, int positions) {
    Example *examples = allocate(sizeof(Example) * (size_t)sentences->count);
    for (int i = 0; i < sentences->count; i++) {
        const Text text = sentences->at[i];
        Ids ids = {0};
        if (!vocab->bytes) ids_push(&ids, vocab->cls);
        tokenize(vocab, text, &ids);
        if (!vocab->bytes) ids_push(&ids, vocab->sep);
        if (ids.count < (vocab->bytes ? 2 : 3) || ids.count > positions)
            die("'%.*s': %d tokens, at most %d fit", (int)text.size, text.data, ids.count, positions);
        examples[i] = (Example){.id = ids.id, .length = ids.count};
    }
    return examples;
}
/* The test facts that the LM knows, asked for in one paraphrase of their relation; and those that it has read in it. */
typedef struct { Score all, read; } Knowledge;
static void add_knowledge(Knowledge *k, const Model *model, const Relation *relation, int paraphrase,
                          const Options *o) {
    Mark before = mark();
    const Texts paraphrases = relation_paraphrases(relation);
    const char *form = readable_prompt(model, text_string(paraphrases.at[paraphrase]));
    Dataset facts = {0};
    const Prediction *p = form ? answers_to(o, model, relation, form, (Tensor){0}, &facts) : NULL;
    for (int i = 0; i < facts.count; i++) {
        const Example *fact = &facts.at[i];
        const Text object = text_of(answer_text(model, fact->answer));
        const int *order = paraphrase_order(o->training.seed, text_of(fact->subject), object, paraphrases.count);
        bool read = false;
        for (int w = 0; w < min_int(PARAPHRASES_READ, paraphrases.count); w++) read |= order[w] == paraphrase;
        k->all.examples++, k->all.hits += p[i].rank == 1;
        k->read.examples += read, k->read.hits += read && p[i].rank == 1;
    }
    release(before);
}
/* Does it know its world? A line for each relation. */
static void print_knowledge(const Options *o, const Model *model, const World *world) {
    Knowledge sum = {{0}, {0}};
    printf("test facts, P@1 in the paraphrases that each was read in, and in all paraphrases of its relation\n");
    for (int r = 0; r < world->count; r++) {
        Knowledge here = {{0}, {0}};
        const int paraphrases = relation_paraphrases(&world->at[r]).count;
        for (int p = 0; p < paraphrases; p++) add_knowledge(&here, model, &world->at[r], p, o);
        printf("%-16s %6.1f %6.1f\n", world->at[r].name, p_at_1(here.read), p_at_1(here.all));
        sum.read.hits += here.read.hits, sum.read.examples += here.read.examples;
        sum.all.hits += here.all.hits, sum.all.examples += here.all.examples;
    }
    printf("in all: %.2f (%d of %d) and %.2f (%d of %d)\n", p_at_1(sum.read), sum.read.hits, sum.read.examples,
           p_at_1(sum.all), sum.all.hits, sum.all.examples);
}
/* The sizes of the small world's models. */
static void small_lm(Lm *lm, bool causal, int words) {
    enum { HIDDEN = 128, LAYERS = 3, HEADS = 4, INTERMEDIATE = 512, POSITIONS = 64 };
    lm->causal = causal;
    lm->bert = (Bert){.hidden = HIDDEN, .layers = LAYERS, .heads = HEADS, .intermediate = INTERMEDIATE, .vocab = words,
                      .positions = POSITIONS, .types = 2, .eps = (real)1e-12};
    lm->gpt = (Gpt){.hidden = HIDDEN, .layers = LAYERS, .heads = HEADS, .intermediate = INTERMEDIATE, .vocab = words,
                    .positions = POSITIONS, .tanh_gelu = true, .eps = (real)1e-5};
    if (causal) gpt_list_weights(&lm->gpt);
    else bert_list_weights(&lm->bert);
}
/* A small BERT or GPT that has read every sentence of the world. */
static void command_pretrain(Options *o) {
    if (!o->data) usage("--data DIR is missing", NULL);
    const World world = world_read(o->data);
    const Texts sentences = world_sentences(&world, o->training.seed, NULL);
    Model model = {.vocab = vocab_load(o->model)};
    if (model.vocab.size <= SPECIAL_TOKENS) die("%s: no words beside the special tokens", model.vocab.path);
    if (model.vocab.bytes != o->causal)
        die("%s: %s needs the vocabulary of ptune vocab%s", o->model, o->causal ? "--causal" : "pretraining BERT",
            o->causal ? " --causal" : " without --causal");
    small_lm(&model.lm, o->causal, model.vocab.size);
    Random random = {(uint64_t)o->training.seed};
    lm_random(&model.lm, &random);
    const Example *examples = sentence_examples(&sentences, &model.vocab, lm_positions(&model.lm));
    printf("%d sentences, %zu parameters\n", sentences.count, parameters_size(lm_weights(&model.lm)));
    pretrain(&model.lm, &model.vocab, examples, sentences.count, &o->training);
    model_write(&model, o->model);
    model.answers = answers_from(&model.vocab, lm_word(&model.lm).rows, NULL, NULL);
    print_knowledge(o, &model, &world);
}

static void command_help(Options *o) {
    (void)o;
    fputs(usage_text, stdout);
}

/* ==== 2. The command line ========================================================================================= */

typedef struct {
    const char *name;
    char letter; /* in the table of options */
    void (*run)(Options *);
} Command;
static const Command commands[] = {
    {"demo", 'd', command_demo},     {"fill", 'f', command_fill},   {"tokenize", 'k', command_tokenize},
    {"train", 't', command_train},   {"eval", 'e', command_eval},   {"words", 'w', command_words},
    {"search", 's', command_search}, {"table", 'b', command_table}, {"vocab", 'v', command_vocab},
    {"pretrain", 'p', command_pretrain}, {"tag", 'g', command_tag}, {"multi", 'm', command_multi},
    {"--help", 'h', command_help}};

static const Command *command_named(const char *name) {
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++)
        if (!strcmp(name, commands[c].name)) return &commands[c];
    usage("unknown command ", name);
}
/* Chosen on dev (NOTES.md): for LAMA on BERT-base, for pretraining ('p'), for the demo ('d'; its rates are the methods'
 * own, its epochs are what a minute holds). */
static Options default_options(char command) {
    Options o = {.encoder = "lstm", .optimizer = "adam", .select = "p@1", .seeds = 1, .jobs = 1, .size = 3600,
                 .cap = INT32_MAX};
    o.training = (Training){.rate = 5e-4, .rate_lm = 5e-6, .decay = 5e-4, .warmup = 0.1, .epochs = 5, .batch = 8,
                            .patience = 20, .seed = 34, .scale = -1, .after_step = after_step};
    o.quiet = !strchr("tegm", command); /* these say what they do: their examples, each epoch */
    o.methods = "majority,manual,ft,mp+ft,p-lstm";
    if (command == 'p') {
        o.training.rate = 2e-3, o.training.decay = 0.01, o.training.clip = 1;
        o.training.epochs = 56, o.training.batch = 64, o.training.adamw = true;
    }
    if (command == 'g') o.training.rate = -1, o.training.decay = 0, o.training.batch = 16, o.training.epochs = 10;
    if (command == 'd') {
        o.model = "data/bert", o.data = "data";
        o.training.rate = -1, o.training.epochs = 8, o.jobs = omp_get_max_threads();
        o.methods = "majority,worst,manual,best,search,ft,best+ft,p-lstm,p-mlp,p-embedding";
    }
    return o;
}

/* Which commands know an option, and the least value that it may have. */
typedef enum { STRING, LIST, NUMBER, INTEGER, SWITCH } OptionKind;
typedef struct { const char *name; OptionKind kind; size_t offset; const char *commands; double least; } Option;
static const Option option_table[] = {
    {"--model", STRING, offsetof(Options, model), "dfktewvpsbgm", 0},
    {"--data", STRING, offsetof(Options, data), "dtevpsbgm", 0},
    {"--train", STRING, offsetof(Options, train), "tsg", 0},
    {"--dev", STRING, offsetof(Options, dev), "tg", 0},
    {"--test", STRING, offsetof(Options, test), "tg", 0},
    {"--template", LIST, offsetof(Options, templates), "tesbm", 0},
    {"--start", STRING, offsetof(Options, start), "t", 0},
    {"--prompt", LIST, offsetof(Options, prompt_files), "few", 0},
    {"--encoder", STRING, offsetof(Options, encoder), "tgm", 0},
    {"--encoder-from", STRING, offsetof(Options, encoder_from), "t", 0},
    {"--vocab", STRING, offsetof(Options, vocab), "tesbm", 0},
    {"--labels", STRING, offsetof(Options, labels), "tes", 0},
    {"--out", STRING, offsetof(Options, out), "tbgm", 0},
    {"--predictions", STRING, offsetof(Options, predictions), "eg", 0},
    {"--tagger", STRING, offsetof(Options, tagger), "e", 0},
    {"--optimizer", STRING, offsetof(Options, optimizer), "tbgm", 0},
    {"--recipe", STRING, offsetof(Options, recipe), "tb", 0},
    {"--select", STRING, offsetof(Options, select), "tbm", 0},
    {"--methods", STRING, offsetof(Options, methods), "db", 0},
    {"--relations", STRING, offsetof(Options, relations), "dbm", 0},
    {"--prompts", STRING, offsetof(Options, prompts), "b", 0},
    {"--task", STRING, offsetof(Options, task), "te", 0},
    {"--tasks", STRING, offsetof(Options, tasks), "te", 0},
    {"--init-scale", NUMBER, offsetof(Options, training.scale), "tbgm", 0},
    {"--lr", NUMBER, offsetof(Options, training.rate), "tpbgm", 0},
    {"--lr-lm", NUMBER, offsetof(Options, training.rate_lm), "tb", 0},
    {"--weight-decay", NUMBER, offsetof(Options, training.decay), "tpbgm", 0},
    {"--clip", NUMBER, offsetof(Options, training.clip), "tpbgm", 0},
    {"--warmup", NUMBER, offsetof(Options, training.warmup), "tpbgm", 0},
    {"--epochs", INTEGER, offsetof(Options, training.epochs), "dtpbgm", 1},
    {"--batch", INTEGER, offsetof(Options, training.batch), "tpbgm", 1},
    {"--patience", INTEGER, offsetof(Options, training.patience), "dtbgm", 1},
    {"--seed", INTEGER, offsetof(Options, training.seed), "dtpsbvgm", 0},
    {"--seeds", INTEGER, offsetof(Options, seeds), "dtb", 1},
    {"--jobs", INTEGER, offsetof(Options, jobs), "db", 1},
    {"--deep", INTEGER, offsetof(Options, deep), "tbg", 1},
    {"--size", INTEGER, offsetof(Options, size), "v", 100},
    {"--max-length", INTEGER, offsetof(Options, max_length), "tebgm", 3},
    {"--pseudo", INTEGER, offsetof(Options, pseudo), "g", 1},
    {"--cap", INTEGER, offsetof(Options, cap), "m", 1},
    {"--freeze-encoder", SWITCH, offsetof(Options, freeze_encoder), "t", 0},
    {"--tune-lm", SWITCH, offsetof(Options, training.tune_lm), "tg", 0},
    {"--deep-encoder", SWITCH, offsetof(Options, training.deep_encoder), "tbg", 0},
    {"--shift-positions", SWITCH, offsetof(Options, shift), "tbg", 0},
    {"--resume", SWITCH, offsetof(Options, resume), "tgm", 0},
    {"--causal", SWITCH, offsetof(Options, causal), "vp", 0},
};
static const Option *option_named(const char *word) { /* NULL: none */
    for (size_t k = 0; k < sizeof option_table / sizeof *option_table; k++)
        if (!strcmp(word, option_table[k].name)) return &option_table[k];
    return NULL;
}
static double option_number(const Option *option, const char *word) {
    char *end;
    const double number = strtod(word, &end);
    if (end == word || *end || !isfinite(number) || number < option->least) usage("not a value for ", option->name);
    if (option->kind == INTEGER && (number > INT32_MAX || number != floor(number)))
        usage("expected an integer for ", option->name);
    return number;
}
static void option_set(Options *o, const Option *option, const char *value) { /* value: NULL for a switch */
    void *field = (char *)o + option->offset;
    if (option->kind == SWITCH) *(bool *)field = true;
    else if (option->kind == STRING) *(const char **)field = value;
    else if (option->kind == LIST) texts_push(field, text_of(value));
    else if (option->kind == NUMBER) *(double *)field = option_number(option, value);
    else *(int *)field = (int)option_number(option, value);
}
/* An option has a name; a text may begin with a dash, too: "-5 degrees", "-". After "--" everything is text. */
static bool looks_like_option(const char *word) {
    return word[0] == '-' && (isalpha((unsigned char)word[1]) || word[1] == '-') && !strchr(word, ' ');
}
static void add_argument(Options *o, char command, const char *word) {
    if (o->text || !strchr("fkb", command)) usage("unexpected argument: ", word);
    o->text = word;
}

/* SuperGLUE's tasks with the patterns of the published code. --tasks names another file of this form: a heading, then
 * name, template and labels with tabs between. */
static const char known_tasks[] =
    "name\ttemplate\tlabels\n"
    "RTE\t{premise} Question: {hypothesis-}? [P] Answer: [MASK].\tentailment=Yes,not_entailment=No\n"
    "CB\t{premise} [SEP] {hypothesis}? [P] answer: [MASK]\tentailment=Yes,contradiction=No,neutral=Maybe\n"
    "BoolQ\t{passage}. [P] Question: {question}? Answer: [MASK].\ttrue=Yes,false=No\n"
    "WiC\t{sentence1} [SEP] {sentence2} [P] *{word} *? [MASK]\ttrue=Yes,false=No\n"
    "MultiRC\t{passage}. Question: {question}? Is it {answer}? [P] [MASK].\t1=Yes,0=No\n"
    "COPA\t{choice1~-} or {choice2~-}? {premise-} {question:cause=because,effect=so} [P] [MASK].\t"
    "0={choice1~-},1={choice2~-}\n"
    "WSC\t{text*target.span2} [P] pronoun '*{target.span2_text}*' refers to [MASK].\t"
    "true={target.span1_text},false={}\n"
    "RTE-manual\t{premise} Question: {hypothesis-}? Answer: [MASK].\tentailment=Yes,not_entailment=No\n"
    "CB-manual\t{premise} [SEP] {hypothesis}? answer: [MASK]\tentailment=Yes,contradiction=No,neutral=Maybe\n"
    "BoolQ-manual\t{passage}. Question: {question}? Answer: [MASK].\ttrue=Yes,false=No\n"
    "WiC-manual\t{sentence1} [SEP] {sentence2} *{word} *? [MASK]\ttrue=Yes,false=No\n"
    "MultiRC-manual\t{passage}. Question: {question}? Is it {answer}? [MASK].\t1=Yes,0=No\n"
    "COPA-manual\t{choice1~-} or {choice2~-}? {premise-} {question:cause=because,effect=so} [MASK].\t"
    "0={choice1~-},1={choice2~-}\n"
    "WSC-manual\t{text*target.span2} The pronoun '*{target.span2_text}*' refers to [MASK].\t"
    "true={target.span1_text},false={}\n";

/* Command-line options override what the task says. */
static void task_read(Options *o) {
    const char *path = o->tasks ? o->tasks : "the known tasks";
    Text rest = o->tasks ? read_file(o->tasks) : text_of(known_tasks), line;
    if (!utf8_valid(rest)) die("%s: not valid UTF-8", path);
    for (bool heading = true; next_line(&rest, &line); heading = false) {
        const Texts field = split(line, '\t');
        if (heading || !line.size) continue;
        if (field.count != 3) die("%s: a line has %d fields, not 3", path, field.count);
        if (!text_is(field.at[0], o->task)) continue;
        const char *origin = format("task %s", o->task);
        if (!o->template && !o->prompt && !o->start) o->template = text_string(field.at[1]), template_origin = origin;
        if (!o->labels) o->labels = text_string(field.at[2]), labels_origin = origin;
        return;
    }
    die("%s: no task '%s'", path, o->task);
}
/* Reads argv[0 .. argc - 1], what follows the command. A wrong command line exits with status 2. */
static Options options_read(const Command *command, int argc, char **argv) {
    Options o = default_options(command->letter);
    const char *given = NULL; /* the first option */
    bool only_text = false;
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) /* a set of defaults: other options override it */
        if (!strcmp(argv[i], "--recipe") && i + 1 < argc)
            o.training.rate = 1e-5, o.training.epochs = 100, o.training.scale = 0;
    for (int i = 0; i < argc; i++) {
        const Option *option = only_text ? NULL : option_named(argv[i]);
        if (!only_text && !strcmp(argv[i], "--")) only_text = true;
        else if (!option && !only_text && looks_like_option(argv[i])) usage("unknown option ", argv[i]);
        else if (!option) add_argument(&o, command->letter, argv[i]);
        else {
            if (!strchr(option->commands, command->letter))
                usage("option does not apply to this command: ", option->name);
            given = given ? given : option->name;
            const bool with_value = option->kind != SWITCH;
            if (with_value && i + 1 == argc) usage("a value is missing after ", option->name);
            option_set(&o, option, with_value ? argv[++i] : NULL);
        }
    }
    if (o.templates.count) o.template = text_string(o.templates.at[o.templates.count - 1]);
    if (o.prompt_files.count) o.prompt = text_string(o.prompt_files.at[o.prompt_files.count - 1]);
    const bool folder_of_results = command->letter == 'b' && o.text;
    if (folder_of_results && o.model) usage("either --model DIR, to run, or a folder of results", NULL);
    if (folder_of_results && given) usage("option does not apply to a folder of results: ", given);
    if (!o.model && !folder_of_results && command->letter != 'h') usage("--model DIR is missing", NULL);
    if (o.tasks && !o.task) usage("--tasks goes with --task", NULL);
    if (o.start && o.template) usage("--start gives the template: no --template beside it", NULL);
    if (o.freeze_encoder && !o.encoder_from) usage("--freeze-encoder goes with --encoder-from", NULL);
    if (o.encoder_from && (o.start || o.recipe || o.training.scale >= 0))
        usage("--encoder-from says how h starts: no --start, --init-scale or --recipe beside it", NULL);
    if (o.task) task_read(&o);
    if (o.vocab && o.labels) usage("--vocab and --labels exclude each other", NULL);
    if (o.labels && !*o.labels && labels_origin) die("%s has no labels", labels_origin);
    if (o.labels && !*o.labels) usage("--labels is empty", NULL);
    if (o.training.seed > INT32_MAX - (o.seeds - 1)) usage("--seed is too large for so many --seeds", NULL);
    if (o.training.warmup > 0.9) usage("--warmup is a share of all steps, at most 0.9", NULL);
    return o;
}
/* What was printed has arrived, or the status is 1: a full disk is no success. */
static int finish_output(void) {
    if (fflush(stdout) || ferror(stdout)) die("standard output: %s", strerror(errno));
    return 0;
}

#endif
