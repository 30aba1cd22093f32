/* ptune.c - P-tuning ("GPT Understands, Too", Liu et al. 2021, arXiv 2103.10385): the paper's method in one pass, from
 * a text to the gradient of the prompt. In brackets the section of the paper's first version:
 *
 *   1  the template         an example becomes token ids with pseudo-tokens [P] and one [MASK]             (3.1)
 *   2  vectors for words    a word's embedding for a word, a free vector for a pseudo-token: the idea      (3.1)
 *   3  the prompt encoder   a bi-LSTM and an MLP make the vectors h of the pseudo-tokens                   (3.2)
 *   4  one batch            the loss at [MASK], and its gradient all the way back to h                     (3.1)
 *   5  evaluation           the best allowed word at [MASK]: P@1                                           (4.1)
 *   6  an epoch             Adam on whatever is trainable                                                  (4.1)
 *   7  the run              epoch after epoch; the one that is best on dev is kept                         (4.1)
 *   8  what is kept         the vectors h alone: the encoder is thrown away                                (3.2)
 *
 * The language models are in bert.h and gpt.h, the LSTM in lstm.h, the layers in tensor.h, the next paper in deep.h.
 * What surrounds the pass (data, other tasks, files, baselines, tables, options) is in lab/.
 */
#include "deep.h"
#include "lstm.h"
#include "tokenizer.h"

/* ==== 1. The template ============================================================================================= */

/* A template is text with placeholders: [P] a pseudo-token, [MASK] (LAMA's [Y]) the answer, [SEP], [X] the subject and
 * {name} any field of the example, {name-} the same without its final punctuation. It is cut into parts once. */
typedef enum { WORDS, FIELD, PSEUDO, MASK, SEPARATOR } PartKind;
typedef struct { PartKind kind; Text text; } Part;
typedef struct { const char *text; Part *part; int parts, pseudo, masks; } Template;

static void template_add(Template *t, PartKind kind, const char *from, const char *to) {
    if (from == to && kind == WORDS) return;
    t->part = grow(t->part, t->parts, sizeof *t->part);
    t->part[t->parts++] = (Part){kind, {from, (size_t)(to - from)}};
    t->pseudo += kind == PSEUDO, t->masks += kind == MASK;
}
/* [CLS] at the beginning and [SEP] at the end stand there anyway: a template may name them, and end in spaces. */
static const char *without_ends(const char *form) {
    const char *start = form + strspn(form, " "), *end = form + strlen(form);
    if (!strncmp(start, "[CLS]", 5)) form = start + 5;
    while (end > form && end[-1] == ' ') end--;
    if (end - form >= 5 && !strncmp(end - 5, "[SEP]", 5)) end -= 5;
    return format("%.*s", (int)(end - form), form);
}
/* The parts of a template, from left to right; they point into its text, which without_ends gives from the form. [P],
 * [MASK], [Y], [SEP] and [X] become parts without text; {name} a FIELD with the text between the braces, if a } follows
 * anywhere. All that lies between these is WORDS, spaces included. template_add leaves out empty WORDS and counts.
 * Exits if the form is not UTF-8, has [CLS] in its middle, or not exactly one [MASK]. */
static Template template_parse(const char *form) {
    static const struct { const char *name; PartKind kind; } kinds[] = {
        {"[P]", PSEUDO}, {"[MASK]", MASK}, {"[Y]", MASK}, {"[SEP]", SEPARATOR}, {"[X]", FIELD}};
    Template t = {.text = form};
    if (!utf8_valid(text_of(form))) die("template '%s': not valid UTF-8", form);
    const char *at = without_ends(form), *words = at;
    if (strstr(at, "[CLS]")) die("template '%s': [CLS] stands at the beginning only", form);
    while (*at) {
        const char *close = *at == '{' ? strchr(at, '}') : NULL;
        size_t m = 0;
        while (m < 5 && strncmp(at, kinds[m].name, strlen(kinds[m].name))) m++;
        if (!close && m == 5) {
            at++;
            continue;
        }
        template_add(&t, WORDS, words, at);
        if (close) template_add(&t, FIELD, at + 1, close);
        else template_add(&t, kinds[m].kind, at, at); /* no text: [X] is the field without a name */
        words = at = close ? close + 1 : at + strlen(kinds[m].name);
    }
    template_add(&t, WORDS, words, at);
    if (t.masks != 1) die("template '%s': %s [MASK], it needs exactly one", form, t.masks ? "more than one" : "no");
    return t;
}

/* An example under a template: its token ids, where an id < 0 stands for vector -1 - id of the prompt. */
typedef struct {
    int *id, length, mask, answer;           /* mask: where the answer, a token, is predicted */
    const char *subject;                     /* NULL: the example names none */
    int *tag; const struct Choice *choice;   /* of other tasks: lab/tag.h, lab/choices.h */
} Example;
typedef struct { Example *at; int count; const char *path; } Dataset; /* path: of its file, for messages */
static int placeholder_id(PartKind kind, const Vocab *vocab, int *pseudo) {
    if (kind == MASK) return vocab->mask;
    if (kind == SEPARATOR) return vocab->sep;
    return -1 - (*pseudo)++;
}
/* A causal LM reads from left to right: the answer must come last, and [SEP] says nothing to it. */
static void template_check_causal(const Template *t) {
    for (int i = 0; i < t->parts; i++)
        if (t->part[i].kind == SEPARATOR) die("template '%s': [SEP] is BERT's, and this LM is causal", t->text);
    if (t->part[t->parts - 1].kind != MASK) die("template '%s' must end in [MASK]: this LM is causal", t->text);
}
/* [CLS] template [SEP] as ids, with field[i] in the place of part i if that is a field. Words and fields up to the next
 * placeholder are one span of text, which is tokenised whole, as in the published code; a space at its end belongs to
 * what follows. A causal LM, whose vocabulary has no [CLS], [SEP] and [MASK], is given the template up to its [MASK]:
 * the answer is the next token, predicted at the last one that is given. */
static void template_ids(const Template *t, const Vocab *vocab, const Text *field, Example *example) {
    const bool causal = vocab->mask < 0;
    Ids ids = {0};
    int pseudo = 0;
    size_t size = 1, used = 0;
    for (int i = 0; i < t->parts; i++) size += t->part[i].kind == FIELD ? field[i].size : t->part[i].text.size;
    char *span = allocate(size);
    if (causal) template_check_causal(t);
    else ids_push(&ids, vocab->cls);
    for (int i = 0; i < t->parts; i++) {
        const Part *p = &t->part[i];
        if (p->kind == WORDS || p->kind == FIELD) {
            const Text text = p->kind == FIELD ? field[i] : p->text;
            if (text.size) memcpy(span + used, text.data, text.size);
            used += text.size;
            continue;
        }
        while (used && span[used - 1] == ' ') used--;
        tokenize(vocab, (Text){span, used}, &ids);
        used = 0;
        if (p->kind == MASK) example->mask = causal ? ids.count - 1 : ids.count;
        if (p->kind != MASK || !causal) ids_push(&ids, placeholder_id(p->kind, vocab, &pseudo));
    }
    tokenize(vocab, (Text){span, used}, &ids);
    if (!causal) ids_push(&ids, vocab->sep);
    example->id = ids.id, example->length = ids.count;
}

/* ==== 2. Vectors for words ======================================================================================== */

/* Equation 4 of the paper, { h_0 .. h_i, e(x), h_i+1 .. h_m-1, e([MASK]) }: for a word its row of the word table (V,
 * H), for a pseudo-token its row of the prompt h (m, H); e is (tokens, H). Position and type embeddings are added
 * later, for both alike. (The paper counts its vectors up to h_m.) */
static Tensor embed_forward(Tensor word, Tensor prompt, const int *id, int tokens) {
    Tensor e = tensor(tokens, word.cols);
    for (int i = 0; i < tokens; i++)
        memcpy(row(e, i), id[i] < 0 ? row(prompt, -1 - id[i]) : row(word, id[i]), (size_t)e.cols * sizeof(real));
    return e;
}
/* Each row of de is added to where its vector came from: to dh, and to the word table's gradient if that is trained. */
static void embed_backward(Tensor word, Tensor prompt, const int *id, Tensor e) {
    for (int i = 0; i < e.rows; i++) {
        const Tensor source = id[i] < 0 ? prompt : word;
        if (!source.grad) continue;
        real *to = grad_row(source, id[i] < 0 ? -1 - id[i] : id[i]);
        for (int j = 0; j < e.cols; j++) to[j] += grad_row(e, i)[j];
    }
}

/* ==== 3. The prompt encoder ========================================================================================
 * h = W2 relu(W0 bilstm(E) + b0) + b2,   E (m, H): one trained vector per pseudo-token, h (m, H).
 * The paper's ablation leaves parts out: `mlp` has no LSTM, `embedding` has h = E. If h starts from words, their
 * embeddings are added to what the network gives.
 */
typedef enum { ENCODER_LSTM, ENCODER_MLP, ENCODER_EMBEDDING, ENCODERS } EncoderKind;
typedef struct {
    EncoderKind kind;
    Tensor embedding;     /* E (m, H) */
    Lstm lstm;            /* 2 layers, H / 2 units per direction */
    Linear first, second; /* of the MLP, (H, H) each: W0, b0 and W2, b2 */
    Tensor start;         /* (m, H), added to the MLP's output and not trained; empty: nothing is added */
    Parameters weights;
} PromptEncoder;
typedef struct { LstmActivations lstm; Tensor context, inner, active, prompt; } EncoderActivations;

/* `context` is the output of the last LSTM layer, or E where there is none; `inner` and `active` are before and after
 * relu; `prompt` is h, for the plain embedding E itself, gradient included. All of it serves the backward. */
static EncoderActivations encoder_forward(const PromptEncoder *e) {
    EncoderActivations a = {.context = e->embedding, .prompt = e->embedding};
    if (e->kind == ENCODER_EMBEDDING) return a;
    if (e->kind == ENCODER_LSTM) {
        a.lstm = lstm_forward(&e->lstm, e->embedding);
        a.context = a.lstm.output[e->lstm.layers - 1];
    }
    a.inner = linear_forward(&e->first, a.context);
    a.active = relu_forward(a.inner);
    a.prompt = linear_forward(&e->second, a.active);
    if (e->start.rows) residual_forward(a.prompt, e->start);
    return a;
}
/* From the gradient of h to those of the encoder's weights. */
static void encoder_backward(const PromptEncoder *e, EncoderActivations *a) {
    if (e->kind == ENCODER_EMBEDDING) return; /* the gradient of h is that of E */
    needs_grad(&a->active);
    linear_backward(&e->second, a->active, a->prompt);
    needs_grad(&a->inner);
    relu_backward(a->inner, a->active);
    if (e->kind == ENCODER_LSTM) needs_grad(&a->context);
    linear_backward(&e->first, a->context, a->inner);
    if (e->kind == ENCODER_MLP) return;
    a->lstm.output[e->lstm.layers - 1] = a->context;
    lstm_backward(&e->lstm, e->embedding, a->lstm);
}

/* Lists the encoder's tensors under their names in the published checkpoints and allocates them; values not set. */
static void encoder_init(PromptEncoder *e, EncoderKind kind, int pseudo, int H) {
    *e = (PromptEncoder){.kind = kind, .weights = {allocate(sizeof(Parameter[24])), 0}};
    add_parameter(&e->weights, MATRIX, &e->embedding, pseudo, H, "embedding.weight");
    if (kind == ENCODER_LSTM) {
        if (H % 2) die("the LSTM encoder needs an even hidden size, not %d", H);
        e->lstm = lstm_new(2, H, H / 2, "lstm_head.", &e->weights);
    }
    if (kind != ENCODER_EMBEDDING) {
        add_linear(&e->weights, &e->first, H, H, "mlp_head.0");
        add_linear(&e->weights, &e->second, H, H, "mlp_head.2");
    }
    parameters_allocate(e->weights);
}
/* PyTorch's initial values, E from N(0, 1). Then the last layer is scaled so that h has the standard deviation `scale`
 * (0: it is left as it is). Neither paper nor code says at which scale h starts; the word table's own works. */
static void encoder_random(PromptEncoder *e, double scale, Random *random) {
    fill_normal(e->embedding, 1, random);
    if (e->kind == ENCODER_LSTM) lstm_random(&e->lstm, random);
    if (e->kind != ENCODER_EMBEDDING) linear_random(&e->first, random), linear_random(&e->second, random);
    if (scale <= 0) return;
    Mark before = mark();
    const real factor = (real)(scale / standard_deviation(encoder_forward(e).prompt));
    release(before);
    if (e->kind == ENCODER_EMBEDDING) multiply_by(e->embedding, factor);
    else multiply_by(e->second.w, factor), multiply_by(e->second.b, factor);
}

/* ==== 4. One batch ================================================================================================ */

/* The answers that are allowed. With label words (SuperGLUE) they are these words, each with its label's name in the
 * data, and the loss is of their probabilities alone. */
typedef struct {
    bool *allowed;       /* (V): words that may be predicted */
    const bool *in_loss; /* (V): words whose probabilities sum to 1 in the loss; NULL: all */
    int labels;
    Text *name, *field; /* (labels); field: where an example has the label's answer; NULL: answers are words */
    int *word;          /* (labels); with fields it is the label's own number */
} Answers;

/* What answers, and what it may answer with. */
typedef struct { Lm lm; Vocab vocab; Answers answers; } Model;

/* Several examples as one tall matrix without padding: where each begins, the ids of all tokens, the selected positions
 * (here the one position of each example at which its answer is predicted) and the word that belongs there. */
typedef struct { Batch batch; int *id, *target, *wrong; } Inputs; /* id (tokens), target and wrong (selected_count) */

/* The examples order[0 .. count - 1]. */
static Inputs inputs_of(const Example *examples, const int *order, int count) {
    Inputs in = {.batch = {.sequences = count, .selected_count = count, .selected_start = in_order(count + 1)}};
    in.batch.start = allocate_zeroed(sizeof(int[count + 1]));
    in.batch.selected = allocate(sizeof(int[count]));
    in.target = allocate(sizeof(int[count]));
    for (int s = 0; s < count; s++) {
        const Example *e = &examples[order[s]];
        in.batch.selected[s] = in.batch.start[s] + e->mask;
        in.target[s] = e->answer;
        in.batch.start[s + 1] = in.batch.tokens += e->length;
    }
    in.id = allocate(sizeof(int[in.batch.tokens]));
    for (int s = 0; s < count; s++)
        memcpy(in.id + in.batch.start[s], examples[order[s]].id, sizeof(int[examples[order[s]].length]));
    return in;
}

/* A word that is not allowed has probability 0, in the loss over label words as in a prediction. NULL: all are. */
static void mask_logits(Tensor logits, const bool *allowed) {
    for (int i = 0; allowed && i < logits.rows; i++)
        for (int w = 0; w < logits.cols; w++)
            if (!allowed[w]) row(logits, i)[w] = -INFINITY;
}
/* The logits (selected_count, V), for when no backward follows. */
static Tensor batch_logits(const Lm *lm, Tensor prompt, const Inputs *in, const bool *allowed) {
    const Tensor e = embed_forward(lm_word(lm), prompt, in->id, in->batch.tokens);
    const Tensor logits = lm_logits(lm, e, &in->batch);
    mask_logits(logits, allowed);
    return logits;
}
/* The loss at the selected positions, and the gradient of all that is trained: of the prompt, of the LM's weights. The
 * loss is the cross-entropy or, if there are wrong answers, the hinge. */
static double loss_and_gradient(const Lm *lm, Tensor prompt, const Inputs *in, const bool *in_loss) {
    const Tensor e = embed_forward(lm_word(lm), prompt, in->id, in->batch.tokens);
    LmActivations a = lm_forward(lm, e, &in->batch);
    mask_logits(a.logits, in_loss);
    const int *start = in->batch.selected_start, examples = in->batch.sequences;
    const double loss = in->wrong ? hinge_forward(a.logits, in->target, in->wrong, start, examples)
                                  : cross_entropy_forward(a.logits, in->target);
    needs_grad(&a.logits);
    if (in->wrong) hinge_backward(a.logits, in->target, in->wrong, start, examples);
    else cross_entropy_backward(a.logits, in->target);
    needs_grad(&a.e);
    lm_backward(lm, &a, &in->batch);
    embed_backward(lm_word(lm), prompt, in->id, a.e);
    return loss;
}
/* A step's work, but for Adam: the prompt encoder, the loss, and back to the encoder's weights; returns the loss. h
 * needs a gradient first, unless it is E, which has its own. Without an encoder (NULL: the template has no [P]) the
 * prompt is an empty tensor, and only the LM is trained. */
static double train_batch(const Lm *lm, const PromptEncoder *encoder, const Inputs *in, const bool *in_loss) {
    if (!encoder) return loss_and_gradient(lm, (Tensor){0}, in, in_loss);
    EncoderActivations a = encoder_forward(encoder);
    if (encoder->kind != ENCODER_EMBEDDING) needs_grad(&a.prompt); /* else h is E, which has its gradient */
    const double loss = loss_and_gradient(lm, a.prompt, in, in_loss);
    encoder_backward(encoder, &a);
    return loss;
}

/* ==== 5. Evaluation =============================================================================================== */

typedef struct { int examples, hits; double loss; } Score; /* loss: the mean of -log p(answer), p over allowed words */
typedef struct { int predicted, rank; double log_probability; } Prediction; /* rank: of the answer; 1 is a hit */

/* The best allowed word, and the rank of the right one: a word with the same logit and a lower id comes before it. */
static Prediction prediction_of(const real *logits, int words, int truth) {
    Prediction p = {0, 1, (double)logits[truth] - log_sum_exp(logits, words)};
    for (int w = 0; w < words; w++) {
        if (logits[w] > logits[p.predicted]) p.predicted = w;
        p.rank += logits[w] > logits[truth] || (logits[w] == logits[truth] && w < truth);
    }
    return p;
}
/* One of score->examples. Exits if a logit is not finite: NaN would rank first. */
static void score_add(Score *score, Prediction p) {
    if (!isfinite(p.log_probability)) die("the logits are not finite");
    score->hits += p.rank == 1, score->loss -= p.log_probability / score->examples;
}
/* How many examples from `first` on make a batch: with more tokens the products are hardly faster. */
enum { EVALUATION_TOKENS = 960 };
static int evaluation_batch(const Dataset *data, int first) {
    int count = 0, tokens = 0;
    while (first + count < data->count && (tokens += data->at[first + count].length) <= EVALUATION_TOKENS) count++;
    return count ? count : 1;
}
/* The score on all examples; their predictions go to `predictions` (count) if it is not NULL. */
static Score evaluate(const Model *model, Tensor prompt, const Dataset *data, Prediction *predictions) {
    Score score = {.examples = data->count};
    const int *order = in_order(data->count);
    for (int first = 0, count; first < data->count; first += count) {
        Mark before = mark();
        count = evaluation_batch(data, first);
        const Inputs in = inputs_of(data->at, order + first, count);
        const Tensor logits = batch_logits(&model->lm, prompt, &in, model->answers.allowed);
        for (int i = 0; i < count; i++) {
            const Prediction p = prediction_of(row(logits, i), logits.cols, in.target[i]);
            score_add(&score, p);
            if (predictions) predictions[first + i] = p;
        }
        release(before);
    }
    return score;
}
static double p_at_1(Score score) { return 100.0 * score.hits / score.examples; } /* per cent */

/* ==== 6. An epoch ================================================================================================= */

typedef struct Run Run;
/* The settings of a training run. Warm-up, clipping and AdamW are those of the published code for SuperGLUE. */
typedef struct {
    double rate, rate_lm; /* Adam's rates: of the prompt encoder; of the LM, if it is trained too */
    double decay;         /* weight decay: L2 in the gradient, as published, or (adamw) decoupled */
    bool adamw;
    double clip;    /* the largest norm of all gradients together; 0: no limit */
    double warmup;  /* share of the steps in which the rate rises */
    bool published; /* the published code's schedule: times 0.98 after each epoch, the last short batch dropped */
    int epochs, batch, patience; /* stop after `patience` epochs that were not the best on dev */
    int seed;                    /* of the encoder's first values; with the epoch, of the order of the examples */
    EncoderKind encoder;
    bool deep_encoder; /* a deep prompt has an encoder, too */
    double scale; /* standard deviation of h at the start; 0: as the encoder gives it; negative: the word table's */
    bool by_loss; /* the best epoch is the one with the lowest loss on dev, not with the highest P@1 */
    bool tune_lm; /* train all of the LM too */
    Inputs (*input)(const Example *, const int *order, int count); /* makes a batch; NULL: inputs_of */
    Score (*score)(const Model *, Tensor prompt, const Dataset *dev, Prediction *); /* NULL: evaluate */
    bool (*after_step)(const Run *, double loss); /* called after each step; false: stop here. NULL: nothing */
} Training;

/* A run: what is trained, and the best epoch so far. */
struct Run {
    const Training *training;
    Model *model;
    PromptEncoder *encoder;      /* NULL: the template has no [P] */
    Parameters lm;               /* the LM's weights if they are trained, else none */
    Parameters trained;          /* the encoder's weights, then the deep prompt's, then the LM's */
    DeepPrompt *deep;            /* NULL: the LM has no deep prompt */
    Tensor prompt;               /* (m, H): h of the best epoch */
    Parameters best_lm;          /* the LM's weights of the best epoch, if they are trained */
    int epoch, best_epoch, step, steps_an_epoch; /* from 1; 0: none yet, or the start from words; -1: not scored yet */
    double best; /* the merit of the best epoch: what it has most of */
    Score dev;   /* of this epoch */
    double loss; /* the mean over the examples of this epoch */
    int tokens;  /* in this epoch */
};

/* The share of the rate at a step, from 1 on: it rises linearly in the warm-up and falls to 0 after the last step; the
 * published code for LAMA multiplies it by 0.98 after every epoch. */
static double schedule(const Training *t, int step, int steps_an_epoch) {
    if (t->published) return pow(0.98, (step - 1) / steps_an_epoch);
    const double steps = (double)t->epochs * steps_an_epoch, warm = t->warmup * steps;
    return step < warm ? step / warm : (steps - step + 1) / (steps - warm + 1);
}
/* What the gradients are multiplied by so that their common norm is at most `clip`. */
static double clip_factor(const Training *t, Parameters trained) {
    const double norm = t->clip > 0 ? gradient_norm(trained) : 0;
    return norm > t->clip ? t->clip / norm : 1;
}
/* Epoch run->epoch (from 1): all batches once, each t->batch examples, the last one what is left (if `published`, it is
 * dropped). The order is that of shuffle, by a Random whose state is seed << 32 | epoch. A batch: inputs_of (or
 * t->input, if given), deep_forward, train_batch with the model's in_loss, deep_backward, adam_step for encoder and
 * deep prompt (if any) and for run->lm, with its rate times schedule and the clip_factor of run->trained. Steps count
 * from 1 through all epochs, and follow from the epoch alone. Exits if a loss is not finite. Sets step, steps_an_epoch,
 * tokens and loss (the mean over the examples that were used); what a batch allocates is released after it. Calls
 * after_step, if given, after each step: false stops the epoch, returns false, and run->loss is not an epoch's. */
static bool train_epoch(Run *run, const Dataset *train) {
    const Training *t = run->training;
    int *order = in_order(train->count);
    Random random = {(uint64_t)t->seed << 32 | (uint64_t)run->epoch};
    shuffle(order, train->count, &random);
    const int count = t->published ? train->count - train->count % t->batch : train->count;
    run->steps_an_epoch = (count - 1) / t->batch + 1;
    run->step = (run->epoch - 1) * run->steps_an_epoch;
    run->loss = 0, run->tokens = 0;
    for (int first = 0; first < count; first += t->batch) {
        Mark before = mark();
        const Inputs in = (t->input ? t->input : inputs_of)(train->at, order + first, min_int(t->batch, count - first));
        if (run->deep) deep_forward(run->deep);
        const double loss = train_batch(&run->model->lm, run->encoder, &in, run->model->answers.in_loss);
        if (run->deep) deep_backward(run->deep);
        const double share = schedule(t, ++run->step, run->steps_an_epoch), scale = clip_factor(t, run->trained);
        if (!isfinite(loss))
            die("the loss is %g in epoch %d, step %d: a smaller learning rate may help", loss, run->epoch, run->step);
        const Optimizer adam = {t->rate * share, t->decay, t->adamw};
        if (run->encoder) adam_step(run->encoder->weights, adam, run->step, scale);
        if (run->deep) adam_step(run->deep->weights, adam, run->step, scale);
        adam_step(run->lm, (Optimizer){t->rate_lm * share, t->decay, t->adamw}, run->step, scale);
        run->loss += loss * in.batch.sequences / count, run->tokens += in.batch.tokens;
        release(before);
        if (t->after_step && !t->after_step(run, loss)) return false;
    }
    return true;
}

/* ==== 7. The run ================================================================================================== */

/* Starts a run, whose outcome depends on the seed alone. `prompt` (m, H), a row for each [P], will be the best epoch's
 * h; a deep prompt that the LM has is trained too. What is allocated here may be released after run_end. */
static Run run_begin(const Training *t, Model *model, Tensor prompt) {
    Run run = {.training = t, .model = model, .prompt = prompt, .best = -INFINITY};
    Random random = {(uint64_t)t->seed};
    if (t->tune_lm) run.lm = lm_weights(&model->lm);
    else parameters_pack(lm_weights(&model->lm)); /* it stays as it is */
    if (prompt.rows) {
        run.encoder = allocate(sizeof *run.encoder);
        encoder_init(run.encoder, t->encoder, prompt.rows, prompt.cols);
        encoder_random(run.encoder, t->scale < 0 ? standard_deviation(lm_word(&model->lm)) : t->scale, &random);
        parameters_train(run.encoder->weights);
        run.trained = run.encoder->weights;
    }
    run.deep = deep_begin(&model->lm, t->deep_encoder, &random);
    if (run.deep) run.trained = parameters_joined(run.trained, run.deep->weights);
    parameters_train(run.lm);
    run.trained = parameters_joined(run.trained, run.lm);
    run.best_lm = parameters_like(run.lm);
    return run;
}
static bool run_goes_on(const Run *run) {
    return run->epoch < run->training->epochs && run->epoch - run->best_epoch < run->training->patience;
}
static double merit(const Run *run) { return run->training->by_loss ? -run->dev.loss : p_at_1(run->dev); }
static void keep_best(Run *run, Tensor prompt) {
    run->best = merit(run), run->best_epoch = run->epoch;
    if (run->encoder) memcpy(run->prompt.data, prompt.data, size_of(prompt) * sizeof(real));
    if (run->deep) deep_keep_best(run->deep);
    parameters_copy(run->best_lm, run->lm);
}
/* Trains one epoch, scores dev, and keeps the best. Whoever calls it reports, writes checkpoints, stops. False: it was
 * stopped before its end. A start from words is worth keeping too: in epoch 0 nothing is trained. */
static bool next_epoch(Run *run, const Dataset *train, const Dataset *dev) {
    Mark before = mark();
    run->epoch++;
    if (run->epoch && !train_epoch(run, train)) return false;
    if (run->deep) deep_forward(run->deep);
    const Tensor prompt = run->encoder ? encoder_forward(run->encoder).prompt : (Tensor){0};
    run->dev = (run->training->score ? run->training->score : evaluate)(run->model, prompt, dev, NULL);
    if (merit(run) >= run->best) keep_best(run, prompt); /* ties take the later epoch, as published */
    release(before);
    return true;
}

/* ==== 8. What is kept ============================================================================================= */

/* The encoder's input never changes, so neither does its output h: run->prompt is all that is needed to answer, and the
 * encoder is thrown away. The LM is frozen again, with the weights of the best epoch if it was trained. */
static void run_end(Run *run) {
    if (run->deep) deep_end(run->deep);
    parameters_copy(run->lm, run->best_lm);
    parameters_freeze(run->lm);
    parameters_unpack(lm_weights(&run->model->lm));
}

/* ==== The program ================================================================================================= */

#include "lab/commands.h"

int main(int argc, char **argv) {
    const Command *command = command_named(argc < 2 ? "demo" : argv[1]);
    Options options = options_read(command, argc - 2, argv + 2);
    command->run(&options);
    return finish_output();
}
