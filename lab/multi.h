/* multi.h - one prompt encoder for many relations: LSTM and MLP are shared, and each of the R relations has m rows of E
 * of its own (not in the paper, which trains an encoder for each relation):
 *
 *     h_r = W2 relu(W0 bilstm(E_r) + b0) + b2      E (R m, H); E_r its rows r m .. r m + m - 1; h_r (m, H)
 *
 * A batch is of one relation, so the pass is as ever, with E_r for E. Its gradient goes to E_r and to what is shared.
 */
#ifndef MULTI_H
#define MULTI_H

#include "methods.h"

typedef struct {
    World world;          /* the R relations */
    Dataset (*data)[3];   /* (R): train, dev, test */
    int pseudo, cap;      /* m; the most examples of a relation in an epoch */
    const char *names;    /* of the relations, with commas between */
    const char *settings; /* all that the outcome depends on */
    Run run;              /* its E, and the best epoch's h in its prompt, are (R m, H) */
    double p_at_1, loss;  /* of this epoch: the mean over the relations of what dev gives */
} Shared;

/* ---- The part of a relation -------------------------------------------------------------------------------------- */

/* The rows of relation r as a tensor of their own: elements and gradient are those of t. */
static Tensor relation_rows(Tensor t, int r, int m) {
    return (Tensor){m, t.cols, row(t, r * m), t.grad ? grad_row(t, r * m) : NULL, NULL};
}
static PromptEncoder relation_encoder(const PromptEncoder *e, int r, int m) {
    PromptEncoder one = *e;
    one.embedding = relation_rows(e->embedding, r, m);
    return one;
}
/* h of all relations, one below the other (R m, H). */
static Tensor shared_prompts(const PromptEncoder *e, int m) {
    const Tensor h = tensor(e->embedding.rows, e->embedding.cols);
    for (int r = 0; r < h.rows / m; r++) {
        const PromptEncoder one = relation_encoder(e, r, m);
        memcpy(row(h, r * m), encoder_forward(&one).prompt.data, sizeof(real[m * h.cols]));
    }
    return h;
}

/* ---- An epoch ---------------------------------------------------------------------------------------------------- */

/* How many examples of relation r an epoch has. */
static int epoch_examples(const Shared *s, int r) { return min_int(s->data[r][TRAIN_SET].count, s->cap); }

/* The relation of each batch of an epoch: as often as its examples fill batches, in random order. */
typedef struct { int *relation, count; } Turns;
static Turns shuffled_turns(const Shared *s, Random *random) {
    Turns turns = {NULL, 0};
    for (int r = 0; r < s->world.count; r++) turns.count += ceil_div(epoch_examples(s, r), s->run.training->batch);
    turns.relation = allocate(sizeof(int[turns.count]));
    for (int r = 0, k = 0; r < s->world.count; r++)
        for (int n = ceil_div(epoch_examples(s, r), s->run.training->batch); n > 0; n--) turns.relation[k++] = r;
    shuffle(turns.relation, turns.count, random);
    return turns;
}
/* A step on a batch of relation r. Adam moves everything that is trained, the rows of the other relations by what their
 * moments remember. */
static double shared_step(Shared *s, int r, const Inputs *in) {
    Run *run = &s->run;
    const Training *t = run->training;
    const PromptEncoder one = relation_encoder(run->encoder, r, s->pseudo);
    const double loss = train_batch(&run->model->lm, &one, in, run->model->answers.in_loss);
    const double share = schedule(t, ++run->step, run->steps_an_epoch), scale = clip_factor(t, run->trained);
    if (!isfinite(loss))
        die("the loss is %g in epoch %d, step %d: a smaller learning rate may help", loss, run->epoch, run->step);
    adam_step(run->encoder->weights, (Optimizer){t->rate * share, t->decay, t->adamw}, run->step, scale);
    return loss;
}
/* The examples of each relation are shuffled, and the first ones, at most `cap`, are used. So a batch is drawn from a
 * relation in proportion to min(its examples, cap), and no example comes twice. With one relation this is train_epoch.
 * False: it was stopped. */
static bool shared_epoch(Shared *s) {
    Run *run = &s->run;
    const int R = s->world.count;
    Random random = {(uint64_t)run->training->seed << 32 | (uint64_t)run->epoch};
    int **order = allocate(sizeof(int *[R])), *used = allocate_zeroed(sizeof(int[R])), all = 0;
    for (int r = 0; r < R; r++) {
        order[r] = in_order(s->data[r][TRAIN_SET].count);
        shuffle(order[r], s->data[r][TRAIN_SET].count, &random);
        all += epoch_examples(s, r);
    }
    const Turns turns = shuffled_turns(s, &random);
    run->steps_an_epoch = turns.count, run->step = (run->epoch - 1) * turns.count;
    run->loss = 0, run->tokens = 0;
    for (int k = 0; k < turns.count; k++) {
        Mark before = mark();
        const int r = turns.relation[k], count = min_int(run->training->batch, epoch_examples(s, r) - used[r]);
        const Inputs in = inputs_of(s->data[r][TRAIN_SET].at, order[r] + used[r], count);
        const double loss = shared_step(s, r, &in);
        used[r] += count;
        run->loss += loss * count / all;
        run->tokens += in.batch.tokens;
        release(before);
        if (run->training->after_step && !run->training->after_step(run, loss)) return false;
    }
    return true;
}
/* As next_epoch: trains one epoch, scores each relation's dev, and keeps the epoch whose mean merit is best: of every
 * relation h, although another epoch may have been better for it. */
static bool shared_next_epoch(Shared *s) {
    Mark before = mark();
    Run *run = &s->run;
    const int R = s->world.count;
    double mean = 0;
    run->epoch++;
    if (!shared_epoch(s)) return false;
    const Tensor prompt = shared_prompts(run->encoder, s->pseudo);
    s->p_at_1 = s->loss = 0;
    for (int r = 0; r < R; r++) {
        run->dev = evaluate(run->model, relation_rows(prompt, r, s->pseudo), &s->data[r][DEV_SET], NULL);
        s->p_at_1 += p_at_1(run->dev) / R, s->loss += run->dev.loss / R, mean += merit(run) / R;
    }
    if (mean >= run->best) keep_best(run, prompt), run->best = mean;
    release(before);
    return true;
}

/* ---- The run ----------------------------------------------------------------------------------------------------- */

/* As settings, with the examples of all relations. */
static const char *shared_settings(const Options *o, const World *world, const char *names) {
    Options one = *o;
    uint64_t examples = 0;
    for (int r = 0; r < world->count; r++) {
        one.data = world->at[r].folder;
        for (int i = 0; i < 3; i++) examples = hash_file(examples, split_path(&one, (Split)i));
    }
    return format("relations %s; cap %d; all examples %016jx; %s; template %s", names, o->cap, (uintmax_t)examples,
                  settings(&one, true), o->template);
}
/* Reads the examples and draws the encoder's first values. Its last layer is scaled so that the output for all of E, as
 * one long sequence, has the standard deviation --init-scale. */
static Shared shared_begin(const Options *o, Model *model, const World *world) {
    const Template t = template_read(o->template);
    Shared s = {.world = *world, .data = allocate(sizeof(Dataset[world->count][3])), .pseudo = t.pseudo, .cap = o->cap,
                .names = world->at[0].name, .settings = "-"};
    for (int r = 1; r < world->count; r++) s.names = format("%s,%s", s.names, world->at[r].name);
    if (o->out) s.settings = shared_settings(o, world, s.names);
    for (int r = 0; r < world->count; r++) {
        Options one = *o;
        one.data = world->at[r].folder;
        for (int i = 0; i < 3; i++) s.data[r][i] = read_split(&one, model, (Split)i, &t);
    }
    s.run = run_begin(&o->training, model, tensor(world->count * t.pseudo, lm_word(&model->lm).cols));
    return s;
}
static const char *shared_file(const Options *o, const Shared *s, int r, const char *what) {
    return format("%s/%s.%s", o->out, s->world.at[r].name, what);
}
/* What the epoch gave, then what is kept of it if it is the best: h of each relation, and the encoder. */
static void shared_report(const Options *o, Shared *s, FILE *log_file, double epoch_seconds) {
    Mark before = mark();
    Run *run = &s->run;
    log_epoch(o, run, s->p_at_1, s->loss, log_file, epoch_seconds);
    const bool keep = o->out && run->best_epoch == run->epoch;
    for (int r = 0; keep && r < s->world.count; r++)
        prompt_write(shared_file(o, s, r, "prompt.safetensors"), relation_rows(run->prompt, r, s->pseudo), o->template,
                     run->model);
    if (keep)
        encoder_write(format("%s/encoder.safetensors", o->out), run->encoder, s->pseudo, s->names, run->model);
    if (o->out) checkpoint_write(o, run, s->settings);
    release(before);
}
static void shared_train(const Options *o, Shared *s) {
    if (o->resume) checkpoint_read(o, &s->run, s->settings);
    FILE *log_file = o->out ? log_open(o, &s->run) : NULL;
    progress_begin(o, &s->run);
    for (int r = 0; o->out && !o->resume && r < s->world.count; r++) remove(shared_file(o, s, r, "result.tsv"));
    while (run_goes_on(&s->run)) {
        const double start = seconds();
        if (!shared_next_epoch(s)) stop_if_interrupted(o, &s->run);
        shared_report(o, s, log_file, seconds() - start);
    }
    report_end(o, &s->run, log_file);
    run_end(&s->run);
}
/* Relation r on test, as a line of a table. */
static Result shared_result(const Options *o, const Shared *s, int r) {
    const Dataset *data = s->data[r];
    const Tensor prompt = relation_rows(s->run.prompt, r, s->pseudo);
    return (Result){s->world.at[r].name, format("shared-%s", o->encoder), o->vocab ? stem(o->vocab) : "all",
                    format("%d", o->training.seed), o->template,
                    .score = evaluate(s->run.model, prompt, &data[TEST_SET], NULL),
                    .seen = seen_subjects(&data[TRAIN_SET], &data[TEST_SET]),
                    .trained = (int)parameters_size(s->run.trained), .kept = (int)size_of(prompt),
                    .seconds = (seconds() - progress.start) / s->world.count, .prompt = prompt,
                    .settings = format("%s; patience %d", s->settings, o->training.patience)};
}

#endif
