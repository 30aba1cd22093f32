/* ptune.c - P-tuning ("GPT Understands, Too", Liu et al. 2021, arXiv 2103.10385) in one pass, in the order of the
 * calls. In brackets the section of the paper's first version:
 *
 *   1  rows and templates      a row of data becomes token ids with pseudo-tokens [P] and one [MASK]          (3.1)
 *   2  the prompt encoder      bi-LSTM and MLP make the rows h that stand in for the pseudo-tokens             (3.2)
 *   3  one batch               embed, BERT, loss at [MASK]; the gradient all the way back to h                (3.1)
 *   4  evaluation              the best allowed word at [MASK]: P@1                                           (4.1)
 *   5  a training epoch        Adam on whatever is trainable                                                  (4.1)
 *   6  what is kept            prompt.safetensors: the rows h alone, the encoder is thrown away               (3.2)
 *   7  the loop over epochs    the epoch that is best on dev is kept, and scored on test                      (4.1)
 *   8  discrete search         AutoPrompt, a baseline                                                         (4.1)
 *   9  the small world         its vocabulary and its pretraining
 *  10  the paper's table       methods on relations                                                           (4.1)
 *  11  the command line
 *  12  the commands            the demo first
 */
#include "tensor.h"
#include "bert.h"
#include "lstm.h"
#include "tokenizer.h"

#include <dirent.h>
#include <libgen.h>
#include <signal.h>
#include <time.h>

/* ==== 1. Rows and templates ======================================================================================= */

/* What the command line says; README.md has the list, option_table the names. */
typedef struct {
    const char *model, *data, *train, *dev, *test, *template, *prompt, *encoder, *vocab, *labels, *out, *predictions;
    const char *optimizer, *recipe, *task, *methods, *relations, *prompts, *text;
    double init_scale, lr, lr_lm, decay, clip, warmup;
    int epochs, batch, patience, seed, seeds, max_length, size;
    bool tune_lm, resume, quiet;
} Options;
static const char *said(const char *option) { return option ? option : "-"; }

/* A template is text with markers: [P] a pseudo-token, [MASK] (LAMA's [Y]) the answer, [SEP], [X] the subject and
 * {name} any field of the row, {name-} the same without the punctuation at its end. It is cut into parts once. */
typedef enum { WORDS, FIELD, PSEUDO, MASK, SEPARATOR } PartKind;
typedef struct { PartKind kind; Text text; } Part;
enum { MAX_PARTS = 128 };
typedef struct { const char *text; Part part[MAX_PARTS]; int parts, pseudo, masks; } Template;

static void template_add(Template *t, PartKind kind, const char *from, const char *to) {
    if (from == to && kind == WORDS) return;
    if (t->parts == MAX_PARTS) die("template '%s': more than %d parts", t->text, MAX_PARTS);
    t->part[t->parts++] = (Part){kind, {from, (size_t)(to - from)}};
    t->pseudo += kind == PSEUDO, t->masks += kind == MASK;
}
static const char *pseudo_tokens(int count) { /* [P], so many times */
    return count ? format("[P]%s", pseudo_tokens(count - 1)) : "";
}
/* The published short form (a,b,c): pseudo-tokens before the mask, between mask and subject, at the end; a third count
 * of 0 puts a full stop there. */
static const char *template_from_counts(const char *form) {
    int a, b, c, used = 0;
    if (sscanf(form, " (%2d,%2d,%2d)%n", &a, &b, &c, &used) != 3 || form[used] || a < 0 || b < 0 || c < 0)
        return form;
    return format("%s [MASK] %s [X] %s", pseudo_tokens(a), pseudo_tokens(b), c ? pseudo_tokens(c) : ".");
}
static Template template_parse(const char *form) {
    static const struct { const char *name; PartKind kind; } kinds[] = {
        {"[P]", PSEUDO}, {"[MASK]", MASK}, {"[Y]", MASK}, {"[SEP]", SEPARATOR}, {"[X]", FIELD}};
    Template t = {.text = form};
    if (!utf8_valid(text_of(form))) die("template '%s': not valid UTF-8", form);
    const char *at = template_from_counts(form), *words = at;
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

/* One row of data after the template: token ids, where id < 0 stands for row -1 - id of the prompt. */
typedef struct { int *id, length, mask, answer; const char *subject; } Example; /* subject: NULL if none is named */
typedef struct { Example *at; int count; const char *path; } Dataset;

static bool row_subject(Text json, Text *value) { /* LAMA's two names for it */
    return json_member(json, "sub_label", value) || json_member(json, "sub", value);
}
/* A field of a row as text: [X] (empty name) is the subject; numbers and booleans by their JSON text. */
static Text row_field(Text json, Text name, const char *file, int line) {
    const bool bare = name.size && name.data[name.size - 1] == '-';
    Text value;
    name.size -= bare;
    const char *key = name.size ? text_string(name) : "sub_label";
    if (!(name.size ? json_member(json, key, &value) : row_subject(json, &value)))
        die("%s:%d: no field '%s'", file, line, key);
    if (!json_is_string(value) && strchr("{[n", value.data[0]))
        die("%s:%d: field '%s' is not a string", file, line, key);
    if (json_is_string(value)) value = json_string(value);
    while (bare && value.size && strchr(".,:;!?\"'", value.data[value.size - 1])) value.size--;
    return value;
}

/* [CLS] template [SEP] as ids. Fields are put into the text first, then each stretch between markers is tokenised
 * whole. */
static void template_ids(const Template *t, const Vocab *vocab, const Text *field, Example *example) {
    Ids ids = {0};
    int pseudo = 0;
    size_t size = 1, used = 0;
    for (int i = 0; i < t->parts; i++) size += t->part[i].kind == FIELD ? field[i].size : t->part[i].text.size;
    char *stretch = allocate(size);
    ids_push(&ids, vocab->cls);
    for (int i = 0; i <= t->parts; i++) {
        const Part *p = &t->part[i];
        if (i < t->parts && p->kind <= FIELD) {
            Text text = p->kind == FIELD ? field[i] : p->text;
            if (text.size) memcpy(stretch + used, text.data, text.size);
            used += text.size;
            continue;
        }
        tokenize(vocab, (Text){stretch, used}, &ids);
        used = 0;
        if (i == t->parts) break;
        if (p->kind == MASK) example->mask = ids.count;
        ids_push(&ids, p->kind == MASK ? vocab->mask : p->kind == SEPARATOR ? vocab->sep : -1 - pseudo++);
    }
    ids_push(&ids, vocab->sep);
    example->id = ids.id, example->length = ids.count;
}
/* The same in at most max_length tokens: what is too long loses the end of its longest field, never a word of the
 * template. */
static void template_fill(const Template *t, const Vocab *vocab, Text *field, int max_length, Example *example,
                          const char *file, int line) {
    for (;;) {
        Mark before = mark();
        template_ids(t, vocab, field, example);
        if (example->length <= max_length) return;
        release(before);
        Text *longest = NULL;
        for (int i = 0; i < t->parts; i++)
            if (t->part[i].kind == FIELD && (!longest || field[i].size > longest->size)) longest = &field[i];
        if (!longest || !longest->size)
            die("%s:%d: the template alone needs %d tokens, at most %d fit", file, line, example->length, max_length);
        const size_t cut = (size_t)(example->length - max_length);
        longest->size -= cut < longest->size ? cut : longest->size;
        while (longest->size && ((unsigned char)longest->data[longest->size] & 0xC0) == 0x80) longest->size--;
    }
}

/* The answers that are allowed, and how a row names its answer. */
typedef struct {
    bool *allowed;       /* (V): words that may be predicted */
    const bool *in_loss; /* (V): words whose probabilities the loss is of, the label words; NULL: all */
    int labels;          /* with --labels: how many, their names in the data and their words */
    Text name[64];
    int word[64];
} Answers;

/* The id of a word that is exactly one token, or -1. */
static int single_token(const Vocab *vocab, Text word) {
    Ids ids = {0};
    tokenize(vocab, word, &ids);
    return ids.count == 1 && ids.id[0] != vocab->unk ? ids.id[0] : -1;
}
/* The words of a file, or of labels (name=Word,name=Word), or all of vocab.txt (the word table may have more rows). */
static Answers answers_from(const Vocab *vocab, int table_rows, const char *vocab_file, const char *labels) {
    Answers answers = {.allowed = allocate_zeroed(sizeof(bool[table_rows]))};
    for (int w = 0; w < vocab->size; w++) answers.allowed[w] = !vocab_file && !labels;
    if (vocab_file) {
        const Texts words = read_lines(vocab_file);
        int known = 0;
        for (int i = 0; i < words.count; i++) {
            const int id = vocab_find(vocab, words.at[i]);
            if (id >= 0) known++, answers.allowed[id] = true;
        }
        if (!known) die("%s: none of its words is in the model's vocabulary", vocab_file);
    }
    const Texts pairs = labels ? split(text_of(labels), ',') : (Texts){0};
    for (int k = 0; k < pairs.count; k++) {
        const Texts pair = split(pairs.at[k], '=');
        if (pair.count != 2 || k == 64) die("--labels '%s': expected name=Word,name=Word", labels);
        const Text word = pair.at[1];
        const int id = single_token(vocab, word);
        if (id < 0) die("--labels: '%.*s' is not one token of the vocabulary", (int)word.size, word.data);
        if (answers.allowed[id]) die("--labels: two labels have the word '%.*s'", (int)word.size, word.data);
        answers.name[k] = pair.at[0], answers.word[k] = id;
        answers.allowed[id] = true;
    }
    answers.labels = pairs.count;
    if (labels) answers.in_loss = answers.allowed;
    return answers;
}

/* What answers, and what it may answer with. */
typedef struct { Bert bert; Vocab vocab; Answers answers; } Model;

static Model *model_load(const Options *o) {
    Model *model = allocate(sizeof *model);
    bert_load(&model->bert, o->model);
    model->vocab = vocab_load(o->model);
    if (model->vocab.size > model->bert.vocab)
        die("%s/vocab.txt: %d entries, but config.json has a vocab_size of %d", o->model, model->vocab.size,
            model->bert.vocab);
    model->answers = answers_from(&model->vocab, model->bert.vocab, o->vocab, o->labels);
    return model;
}

/* The answer of a row as a token, or -1: not one token, or not allowed. */
static int row_answer(const Model *model, Text json, const char *file, int line) {
    const Answers *answers = &model->answers;
    Text value;
    if (answers->labels) {
        const Text label = row_field(json, text_of("label"), file, line);
        for (int i = 0; i < answers->labels; i++)
            if (text_equal(label, answers->name[i])) return answers->word[i];
        die("%s:%d: label '%.*s' is not among --labels", file, line, (int)min_int((int)label.size, 40), label.data);
    }
    if (!json_member(json, "obj_label", &value) && !json_member(json, "obj", &value))
        die("%s:%d: no obj_label", file, line);
    if (!json_is_string(value)) die("%s:%d: obj_label is not a string", file, line);
    const int id = single_token(&model->vocab, json_string(value));
    return id >= 0 && answers->allowed[id] ? id : -1;
}
/* The next row of a JSONL file that is not blank; `line` counts on. */
static bool next_row(Text *rest, Text *json, const char *path, int *line) {
    while (next_line(rest, json)) {
        ++*line;
        if (!json->size) continue;
        json_check(*json, path, *line);
        if (*json_space(json->data, json->data + json->size) != '{') die("%s:%d: not a JSON object", path, *line);
        return true;
    }
    return false;
}
/* The rows of one of the three files, under a template. Those without an allowed answer are left out and counted. */
typedef enum { TRAIN_ROWS, DEV_ROWS, TEST_ROWS } Split;
static const char *const split_name[] = {"train", "dev", "test"};
static Dataset read_split(const Options *o, const Model *model, Split which, const Template *t) {
    const char *const given[] = {o->train, o->dev, o->test};
    const char *path = given[which] ? given[which] : format("%s/%s.jsonl", said(o->data), split_name[which]);
    const int most = model->bert.positions, max_length = o->max_length ? min_int(o->max_length, most) : most;
    const Text file = read_file(path);
    Text rest = file, subject, field[MAX_PARTS];
    Dataset data = {.path = path};
    int line = 0, left_out = 0;
    for (Text json; next_row(&rest, &json, path, &line);) {
        for (int i = 0; i < t->parts; i++)
            if (t->part[i].kind == FIELD) field[i] = row_field(json, t->part[i].text, path, line);
        Example example = {.answer = row_answer(model, json, path, line)};
        if (example.answer < 0) {
            left_out++;
            continue;
        }
        if (row_subject(json, &subject) && json_is_string(subject)) example.subject = text_line(json_string(subject));
        template_fill(t, &model->vocab, field, max_length, &example, path, line);
        data.at = room(data.at, data.count, sizeof example);
        data.at[data.count++] = example;
    }
    unmap_file(file);
    if (!data.count) die("%s: no row is left (%d without an allowed answer of one token)", path, left_out);
    if (!o->quiet) printf("%s: %d rows%s\n", path, data.count, left_out ? format(" (%d left out)", left_out) : "");
    return data;
}

/* ==== 2. The prompt encoder ========================================================================================
 * h = W2 relu(W0 bilstm(E) + b0) + b2,   E (m, H) one trained row a pseudo-token, h (m, H).
 * The paper's ablation leaves parts away: `mlp` has no LSTM, `embedding` has h = E.
 */
typedef enum { ENCODER_LSTM, ENCODER_MLP, ENCODER_EMBEDDING, ENCODERS } EncoderKind;
static const char *const encoder_names[] = {"lstm", "mlp", "embedding"};
static EncoderKind encoder_named(const char *name) { /* ENCODERS: none of them */
    int kind = 0;
    while (kind < ENCODERS && strcmp(name, encoder_names[kind])) kind++;
    return (EncoderKind)kind;
}
typedef struct {
    EncoderKind kind;
    Tensor embedding;    /* (m, H) */
    Lstm lstm;           /* 2 layers, H / 2 units a direction */
    Linear first, second; /* of the MLP, (H, H) each */
    Parameters weights;
} PromptEncoder;
typedef struct { LstmActivations lstm; Tensor context, inner, active, prompt; } EncoderActivations;

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

/* The encoder's tensors with their names in the published checkpoints; values not set. */
static void encoder_init(PromptEncoder *e, EncoderKind kind, int pseudo, int H) {
    *e = (PromptEncoder){.kind = kind, .weights = {allocate(sizeof(Parameter[24])), 0}};
    add_parameter(&e->weights, &e->embedding, pseudo, H, "embedding.weight");
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
static double standard_deviation(Tensor t) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < size_of(t); i++)
        sum += (double)t.data[i], squares += (double)t.data[i] * (double)t.data[i];
    const double n = (double)size_of(t), mean = sum / n;
    return sqrt(squares / n - mean * mean);
}
/* PyTorch's initial values: E from N(0, 1), the LSTM from U(+-1/sqrt(units)), a linear layer from U(+-1/sqrt(inputs)).
 * Then the last layer is multiplied so that h has the standard deviation `scale` (0: it is left as it is). */
static void encoder_random(PromptEncoder *e, double scale, Random *random) {
    const int H = e->embedding.cols;
    for (int i = 0; i < e->weights.count; i++) {
        const Parameter *p = &e->weights.at[i];
        if (p->tensor == &e->embedding) fill_normal(*p->tensor, 1, random);
        else fill_uniform(*p->tensor, 1 / sqrt(strncmp(p->name, "lstm", 4) ? H : H / 2), random);
    }
    if (scale <= 0) return;
    Mark before = mark();
    const real factor = (real)(scale / standard_deviation(encoder_forward(e).prompt));
    release(before);
    Tensor last[] = {e->kind == ENCODER_EMBEDDING ? e->embedding : e->second.w, e->second.b};
    for (int k = 0; k < (e->kind == ENCODER_EMBEDDING ? 1 : 2); k++)
        for (size_t i = 0; i < size_of(last[k]); i++) last[k].data[i] *= factor;
}

/* ==== 3. One batch ================================================================================================ */

/* The examples order[0 .. count - 1] as one tall matrix: sequence starts, the [MASK] rows to read, ids, targets. */
typedef struct { Batch batch; int *id, *target; } Rows;

static Rows rows_of(const Example *examples, const int *order, int count) {
    Rows r = {.batch = {.sequences = count, .reads = count}};
    r.batch.start = allocate(sizeof(int[count + 1]));
    r.batch.read_start = allocate(sizeof(int[count + 1]));
    r.batch.read = allocate(sizeof(int[count]));
    r.target = allocate(sizeof(int[count]));
    for (int s = 0; s < count; s++) {
        const Example *e = &examples[order[s]];
        r.batch.start[s] = r.batch.tokens;
        r.batch.read_start[s] = s;
        r.batch.read[s] = r.batch.tokens + e->mask;
        r.target[s] = e->answer;
        r.batch.tokens += e->length;
    }
    r.batch.start[count] = r.batch.tokens;
    r.batch.read_start[count] = count;
    r.id = allocate(sizeof(int[r.batch.tokens]));
    for (int s = 0; s < count; s++)
        memcpy(r.id + r.batch.start[s], examples[order[s]].id, sizeof(int[examples[order[s]].length]));
    return r;
}

/* Equation 4 of the paper: { h_0 .. h_i, e(x), h_i+1 .. h_m, e([MASK]) }: a row of the word table for a word, a row of
 * the prompt for a pseudo-token. Position and type are added after this, for both alike. */
static Tensor embed_forward(Tensor word, Tensor prompt, const int *id, int tokens) {
    Tensor e = tensor(tokens, word.cols);
    for (int i = 0; i < tokens; i++)
        memcpy(row(e, i), id[i] < 0 ? row(prompt, -1 - id[i]) : row(word, id[i]), (size_t)e.cols * sizeof(real));
    return e;
}
static void embed_backward(Tensor word, Tensor prompt, const int *id, Tensor e) {
    for (int i = 0; i < e.rows; i++) {
        real *to = id[i] < 0 ? (prompt.grad ? grad_row(prompt, -1 - id[i]) : NULL)
                             : (word.grad ? grad_row(word, id[i]) : NULL);
        for (int j = 0; to && j < e.cols; j++) to[j] += grad_row(e, i)[j];
    }
}
/* Words that may not be answered have probability 0, in the loss over labels as in a prediction. */
static void forbid(Tensor logits, const bool *allowed) {
    for (int i = 0; allowed && i < logits.rows; i++)
        for (int w = 0; w < logits.cols; w++)
            if (!allowed[w]) row(logits, i)[w] = -INFINITY;
}

/* Without a backward: the logits (R, V) at the [MASK] rows, and the loss. */
static Tensor batch_logits(const Bert *bert, Tensor prompt, const Rows *r, const bool *allowed) {
    const Tensor e = embed_forward(bert->word, prompt, r->id, r->batch.tokens);
    const Tensor logits = bert_logits(bert, e, &r->batch);
    forbid(logits, allowed);
    return logits;
}
static double batch_loss(const Bert *bert, Tensor prompt, const Rows *r, const bool *loss_words) {
    return cross_entropy_forward(batch_logits(bert, prompt, r, loss_words), r->target);
}
/* Loss of the rows and all gradients: those of the prompt (if it has one) and of BERT's weights (if they have). */
static double loss_and_gradient(const Bert *bert, Tensor prompt, const Rows *r, const bool *loss_words) {
    Tensor e = embed_forward(bert->word, prompt, r->id, r->batch.tokens);
    BertActivations a = bert_forward(bert, e, &r->batch);
    forbid(a.head.logits, loss_words);
    const double loss = cross_entropy_forward(a.head.logits, r->target);
    needs_grad(&a.head.logits);
    cross_entropy_backward(a.head.logits, r->target);
    needs_grad(&a.e);
    bert_backward(bert, &a, &r->batch);
    embed_backward(bert->word, prompt, r->id, a.e);
    return loss;
}
/* The same with the prompt encoder in front: from the rows to the gradient of every trained tensor. */
static double train_batch(const Bert *bert, const PromptEncoder *encoder, const Rows *r, const bool *loss_words) {
    if (!encoder) return loss_and_gradient(bert, (Tensor){0}, r, loss_words);
    EncoderActivations a = encoder_forward(encoder);
    if (encoder->kind != ENCODER_EMBEDDING) needs_grad(&a.prompt);
    const double loss = loss_and_gradient(bert, a.prompt, r, loss_words);
    encoder_backward(encoder, &a);
    return loss;
}

/* ==== 4. Evaluation =============================================================================================== */

typedef struct { int rows, hits, hits_at_10; double reciprocal_rank, macro_f1; } Score; /* the last: with labels */
typedef struct { int predicted, rank; double log_probability; } Prediction; /* of one row; rank 1 is a hit */

/* The best allowed word, and where the true one stands: a word with the same logit and a lower id stands before it. */
static Prediction prediction_of(const real *logits, int words, int truth) {
    Prediction a = {0, 1, (double)logits[truth] - log_sum_exp(logits, words)};
    for (int w = 0; w < words; w++) {
        if (logits[w] > logits[a.predicted]) a.predicted = w;
        a.rank += logits[w] > logits[truth] || (logits[w] == logits[truth] && w < truth);
    }
    return a;
}
enum { EVALUATION_TOKENS = 960 }; /* a batch: with more the products are hardly faster */

/* The mean of F1 = 2 TP / (2 TP + FP + FN), in per cent, over the labels that are predicted or true at all. */
static double macro_f1(const Answers *answers, const Dataset *data, const Prediction *predictions) {
    double sum = 0;
    int occurring = 0;
    for (int k = 0; k < answers->labels; k++) {
        int hits = 0, times = 0; /* TP; 2 TP + FP + FN */
        for (int i = 0; i < data->count; i++) {
            const bool predicted = predictions[i].predicted == answers->word[k];
            const bool truth = data->at[i].answer == answers->word[k];
            hits += predicted && truth;
            times += predicted + truth;
        }
        if (times) sum += 200.0 * hits / times, occurring++;
    }
    return sum / occurring;
}
/* Predictions for all rows, into `predictions` (count) if it is not NULL. */
static Score evaluate(const Model *model, Tensor prompt, const Dataset *data, Prediction *predictions) {
    const Answers *answers = &model->answers;
    Score score = {.rows = data->count};
    const int *order = in_order(data->count);
    if (!predictions) predictions = allocate(sizeof(Prediction[data->count]));
    for (int first = 0, count; first < data->count; first += count) {
        Mark before = mark();
        int tokens = 0;
        for (count = 0; first + count < data->count; count++)
            if ((tokens += data->at[first + count].length) > EVALUATION_TOKENS && count) break;
        Rows r = rows_of(data->at, order + first, count);
        const Tensor logits = batch_logits(&model->bert, prompt, &r, answers->allowed);
        for (int i = 0; i < count; i++) {
            const Prediction p = prediction_of(row(logits, i), logits.cols, r.target[i]);
            if (!isfinite(p.log_probability)) die("the logits are not finite"); /* else NaN would rank first */
            score.hits += p.rank == 1;
            score.hits_at_10 += p.rank <= 10;
            score.reciprocal_rank += 1.0 / p.rank;
            predictions[first + i] = p;
        }
        release(before);
    }
    if (answers->labels) score.macro_f1 = macro_f1(answers, data, predictions);
    return score;
}
static double p_at_1(Score score) { return 100.0 * score.hits / score.rows; }

/* ==== 5. A training epoch ========================================================================================= */

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal_number) { (void)signal_number; interrupted = 1; }

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* One run: what is trained, and the best epoch so far. */
typedef struct {
    Model *model;
    PromptEncoder *encoder; /* NULL: a template without [P] */
    Parameters trained;     /* the encoder's weights and, with --tune-lm, BERT's */
    Tensor prompt;          /* (m, H) of the best epoch */
    Parameters best_lm;     /* BERT's weights of the best epoch, with --tune-lm */
    int step, epoch, best_epoch;
    double best;            /* dev P@1 */
    double loss;            /* of this epoch: the mean over its rows */
    int tokens;             /* of this epoch */
    double start;           /* when this process began to train, in seconds */
    int epochs_before;      /* that were done by then */
} Run;

/* The share of the rate at a step: it rises from 0 over the warm-up and falls to 0 at the end, both linearly; the
 * published recipe multiplies it by 0.98 after every epoch. */
static double schedule(const Options *o, int step, int steps_an_epoch) {
    if (o->recipe) return pow(0.98, (step - 1) / steps_an_epoch);
    const double steps = (double)o->epochs * steps_an_epoch, warm = o->warmup * steps;
    return step < warm ? step / warm : (steps - step + 1) / (steps - warm + 1);
}

/* What the gradients are multiplied by so that their norm is at most --clip (0: any norm). */
static double clip_factor(const Options *o, Parameters trained) {
    const double norm = o->clip > 0 ? gradient_norm(trained) : 0;
    return norm > o->clip ? o->clip / norm : 1;
}

static void progress_bar(const Options *o, const Run *run, int steps_an_epoch, double loss) {
    const double steps = (double)o->epochs * steps_an_epoch, share = run->step / steps;
    const int steps_here = run->step - run->epochs_before * steps_an_epoch;
    const double left = (seconds() - run->start) / steps_here * (steps - run->step);
    char bar[31] = "..............................";
    memset(bar, '#', (size_t)(30 * share));
    fprintf(stderr, "\repoch %d/%d [%s] %3.0f %%, loss %.3f, %d:%02d left ", run->epoch, o->epochs, bar, 100 * share,
            loss, (int)left / 60, (int)left % 60);
    if (run->step % steps_an_epoch == 0) fprintf(stderr, "\r%79s\r", "");
}

static void train_epoch(const Options *o, Run *run, const Dataset *train, const bool *loss_words) {
    const Bert *bert = &run->model->bert;
    int *order = in_order(train->count);
    Random random = {(uint64_t)o->seed << 32 | (uint64_t)run->epoch}; /* the order is a function of seed and epoch */
    shuffle(order, train->count, &random);
    const int left_over = train->count % o->batch; /* the published recipe drops the last short batch */
    const int count = train->count - (o->recipe ? left_over : 0), steps = (count - 1) / o->batch + 1;
    const bool adamw = !strcmp(o->optimizer, "adamw");
    run->loss = 0, run->tokens = 0, run->step = (run->epoch - 1) * steps;
    for (int first = 0; first < count && !interrupted; first += o->batch) {
        Mark before = mark();
        const Rows r = rows_of(train->at, order + first, min_int(o->batch, count - first));
        const double loss = train_batch(bert, run->encoder, &r, loss_words);
        if (!isfinite(loss))
            die("the loss is %g in epoch %d, step %d: a smaller --lr may help", loss, run->epoch, run->step + 1);
        const double share = schedule(o, ++run->step, steps), scale = clip_factor(o, run->trained);
        if (run->encoder)
            adam_step(run->encoder->weights, (Optimizer){o->lr * share, o->decay, adamw}, run->step, scale);
        if (o->tune_lm) adam_step(bert->weights, (Optimizer){o->lr_lm * share, o->decay, adamw}, run->step, scale);
        run->loss += loss * r.batch.sequences / count;
        run->tokens += r.batch.tokens;
        release(before);
        if (!o->quiet && isatty(2)) progress_bar(o, run, steps, loss);
    }
}

/* ==== 6. What is kept ============================================================================================= */

/* FNV-1a of vocab.txt: a prompt is of use only with the vocabulary it was trained with. */
static const char *vocab_hash(const Vocab *vocab) {
    uint64_t hash = 14695981039346656037u;
    for (int id = 0; id < vocab->size; id++)
        for (size_t i = 0; i <= vocab->piece[id].size; i++) /* <= : a line end between two pieces */
            hash = (hash ^ (i < vocab->piece[id].size ? (unsigned char)vocab->piece[id].data[i] : '\n')) *
                   1099511628211u;
    return format("%016jx", (uintmax_t)hash);
}
/* After training only h is needed: (m, H) numbers, the template they belong to, and whose vocabulary it was. */
static void prompt_write(const char *path, Tensor prompt, const char *template, const Vocab *vocab) {
    Parameter p = {.name = "prompt", .tensor = &prompt};
    safetensors_write(path, (Parameters){&p, 1},
                      format("{\"template\":%s,\"vocab\":\"%s\"}", json_quote(template), vocab_hash(vocab)));
}
static Tensor prompt_read(const char *path, const Model *model, Template *t) {
    const Safetensors file = safetensors_open(path);
    Text text = safetensors_metadata(&file, "template"), hash = safetensors_metadata(&file, "vocab");
    Tensor prompt;
    if (!text.size || !safetensors_find(&file, "prompt", &prompt))
        die("%s: not a prompt: no template or no tensor 'prompt'", path);
    if (!text_is(hash, vocab_hash(&model->vocab))) die("%s: this prompt was trained with another vocabulary", path);
    if (prompt.cols != model->bert.hidden)
        die("%s: rows of %d numbers, the model has %d", path, prompt.cols, model->bert.hidden);
    for (size_t i = 0; i < size_of(prompt); i++)
        if (!isfinite(prompt.data[i])) die("%s: holds a number that is not finite", path);
    *t = template_parse(text_string(text));
    if (t->pseudo != prompt.rows)
        die("%s: %d rows, but its template has another number of [P]", path, prompt.rows);
    return prompt;
}
static void model_write(const Model *model, const char *folder) { /* a Hugging Face folder of all four files */
    make_folder(folder);
    bert_save(&model->bert, folder);
    vocab_save(&model->vocab, folder);
}

static void keep_best(const Options *o, Run *run, Tensor prompt) {
    if (run->encoder) memcpy(run->prompt.data, prompt.data, size_of(prompt) * sizeof(real));
    if (o->tune_lm) parameters_copy(run->best_lm, run->model->bert.weights);
    if (!o->out) return;
    if (run->encoder) prompt_write(format("%s/prompt.safetensors", o->out), prompt, o->template, &run->model->vocab);
    if (o->tune_lm) model_write(run->model, format("%s/model", o->out));
}

/* The state between two epochs: every trained tensor, Adam's moments, the best prompt, the counters. */
static Parameters checkpoint_list(Run *run) {
    Parameters list = {allocate(sizeof(Parameter[3 * run->trained.count + 1])), 0};
    for (int i = 0; i < run->trained.count; i++) {
        Parameter *p = &run->trained.at[i];
        const int rows = p->tensor->rows, cols = p->tensor->cols;
        add_parameter(&list, p->tensor, rows, cols, p->name);
        add_parameter(&list, &p->m, rows, cols, format("adam.m.%s", p->name));
        add_parameter(&list, &p->v, rows, cols, format("adam.v.%s", p->name));
    }
    if (run->encoder) add_parameter(&list, &run->prompt, run->prompt.rows, run->prompt.cols, "best.prompt");
    return list;
}
static const char *settings(const Options *o) { /* what must be the same when a run goes on */
    return format("%s %s %s %s %s vocab %s labels %s length %d template %s %s %s lr %g %g decay %g clip %g warmup %g "
                  "scale %g epochs %d batch %d seed %d tune-lm %d recipe %s",
                  o->model, said(o->data), said(o->train), said(o->dev), said(o->test), said(o->vocab), said(o->labels),
                  o->max_length, o->template, said(o->encoder), o->optimizer, o->lr, o->lr_lm, o->decay, o->clip,
                  o->warmup, o->init_scale, o->epochs, o->batch, o->seed, o->tune_lm, said(o->recipe));
}
static void checkpoint_write(const Options *o, Run *run) {
    safetensors_write(
        format("%s/checkpoint.safetensors", o->out), checkpoint_list(run),
        format("{\"settings\":%s,\"epoch\":\"%d\",\"best_epoch\":\"%d\",\"best\":\"%.17g\"}",
               json_quote(settings(o)), run->epoch, run->best_epoch, run->best));
}
static void checkpoint_read(const Options *o, Run *run) {
    const char *path = format("%s/checkpoint.safetensors", o->out);
    if (!file_exists(path)) return; /* stopped before its first epoch ended: it starts at the beginning */
    Mark before = mark();
    const Safetensors file = safetensors_open(path);
    if (!text_is(safetensors_metadata(&file, "settings"), settings(o))) die("%s: this run had other settings", path);
    safetensors_read(&file, checkpoint_list(run));
    run->epoch = json_int(safetensors_metadata(&file, "epoch"));
    run->best_epoch = json_int(safetensors_metadata(&file, "best_epoch"));
    run->best = json_number(safetensors_metadata(&file, "best"));
    if (run->epoch < 0 || run->best_epoch < 0 || isnan(run->best)) die("%s: not a checkpoint", path);
    if (o->tune_lm) { /* the best epoch's weights stand in model/ */
        const Safetensors best = safetensors_open(format("%s/model/model.safetensors", o->out));
        safetensors_read(&best, run->best_lm);
        unmap_file(best.file);
    }
    unmap_file(file.file);
    release(before);
}

/* ==== 7. The loop over the epochs ================================================================================= */

static void stop_if_interrupted(const Options *o, const Run *run) {
    if (!interrupted) return;
    if (run->best_epoch && o->out)
        fprintf(stderr, "ptune: interrupted; the best prompt so far, of epoch %d, is in %s\n", run->best_epoch, o->out);
    else fprintf(stderr, "ptune: interrupted\n");
    exit(130);
}
/* Trains, and returns the score of the best dev epoch on test. The encoder's start and every epoch's order follow from
 * the seed alone, so the same seed gives the same numbers. */
static Score train(const Options *o, Run *run, const Dataset data[3], FILE *log_file) {
    const Model *model = run->model;
    run->start = seconds(), run->epochs_before = run->epoch;
    while (run->epoch < o->epochs && run->epoch - run->best_epoch < o->patience) {
        Mark before = mark();
        const double epoch_start = seconds();
        run->epoch++;
        train_epoch(o, run, &data[TRAIN_ROWS], model->answers.in_loss);
        stop_if_interrupted(o, run);
        const double speed = run->tokens / (seconds() - epoch_start);
        const Tensor prompt = run->encoder ? encoder_forward(run->encoder).prompt : (Tensor){0};
        const double dev_score = p_at_1(evaluate(model, prompt, &data[DEV_ROWS], NULL));
        const bool better = dev_score >= run->best; /* ties take the later epoch, as published */
        if (better) {
            run->best = dev_score, run->best_epoch = run->epoch;
            keep_best(o, run, prompt);
        }
        if (!o->quiet) {
            printf("epoch %d: loss %.4f, dev %s %.2f%s, %.0f tokens/s\n", run->epoch, run->loss,
                   o->labels ? "accuracy" : "P@1", dev_score, better ? " *" : "", speed);
            fflush(stdout);
        }
        if (o->out) checkpoint_write(o, run);
        if (log_file) {
            fprintf(log_file, "%d\t%d\t%.6f\t%.2f\t%.1f\n", o->seed, run->epoch, run->loss, dev_score,
                    seconds() - run->start);
            fflush(log_file);
        }
        release(before);
    }
    stop_if_interrupted(o, run);
    if (o->tune_lm) parameters_copy(model->bert.weights, run->best_lm);
    return evaluate(model, run->prompt, &data[TEST_ROWS], NULL);
}

/* One seed: everything from its start to its test score. The best epoch's h goes to `prompt` (m, H). */
static Score run_seed(const Options *o, Model *model, const Dataset data[3], Tensor prompt, int *trained) {
    PromptEncoder encoder;
    Mark before = mark();
    Run run = {.model = model, .prompt = prompt, .best = -1};
    if (prompt.rows) {
        Random random = {(uint64_t)o->seed};
        encoder_init(&encoder, encoder_named(o->encoder), prompt.rows, prompt.cols);
        encoder_random(&encoder, o->init_scale < 0 ? standard_deviation(model->bert.word) : o->init_scale, &random);
        parameters_train(encoder.weights);
        run.trained = encoder.weights;
        run.encoder = &encoder;
    }
    if (o->tune_lm) {
        parameters_train(model->bert.weights);
        run.trained = parameters_joined(run.trained, model->bert.weights);
        run.best_lm = parameters_like(model->bert.weights);
    }
    if (o->resume) checkpoint_read(o, &run);
    *trained = (int)parameters_size(run.trained);
    FILE *log_file = o->out ? fopen(format("%s/log.tsv", o->out), o->resume ? "a" : "w") : NULL;
    if (o->out && !log_file) die("%s/log.tsv: %s", o->out, strerror(errno));
    const Score score = train(o, &run, data, log_file);
    if (log_file && (ferror(log_file) || fclose(log_file))) die("%s/log.tsv: cannot be written", o->out);
    release(before);
    return score;
}

/* ==== 8. Discrete prompt search: AutoPrompt (Shin et al. 2020), one of the paper's baselines ====================== */

/* The word with the largest score, which is then out of the running. */
static int take_best(real *score, int words, real *value) {
    int best = 0;
    for (int w = 1; w < words; w++)
        if (score[w] > score[best]) best = w;
    *value = score[best], score[best] = -INFINITY;
    return best;
}

/* A word may stand in a template if it tokenises back to itself, is no marker and no answer of the training rows. */
static bool *search_words(const Model *model, const Dataset *train) {
    const Vocab *vocab = &model->vocab;
    bool *usable = allocate_zeroed(sizeof(bool[model->bert.vocab]));
    for (int w = 0; w < vocab->size; w++) {
        const Text piece = vocab->piece[w];
        usable[w] = piece.size && !(piece.size > 1 && piece.data[0] == '[') && !memchr(piece.data, '{', piece.size) &&
                    single_token(vocab, piece) == w;
    }
    for (int i = 0; i < train->count; i++) usable[train->at[i].answer] = false;
    return usable;
}
static double loss_with_word(const Model *model, Tensor prompt, int slot, int word, const Rows *rows) {
    Mark before = mark();
    Tensor changed = tensor(prompt.rows, prompt.cols);
    memcpy(changed.data, prompt.data, size_of(prompt) * sizeof(real));
    memcpy(row(changed, slot), row(model->bert.word, word), sizeof(real[prompt.cols]));
    const double loss = batch_loss(&model->bert, changed, rows, model->answers.in_loss);
    release(before);
    return loss;
}
/* The template as text, with words in the places of its [P]. */
static const char *template_with_words(const Template *t, const Vocab *vocab, const int *word) {
    static const char *const names[] = {NULL, NULL, NULL, "[MASK]", "[SEP]"};
    const char *form = "";
    for (int i = 0, k = 0; i < t->parts; i++) {
        const Part *p = &t->part[i];
        Text text = p->kind == PSEUDO ? vocab->piece[word[k++]] : p->kind >= MASK ? text_of(names[p->kind]) : p->text;
        if (p->kind == FIELD) text = text_of(text.size ? format("{%.*s}", (int)text.size, text.data) : "[X]");
        const bool apart = !i || form[strlen(form) - 1] == ' ' || text.data[0] == ' ';
        form = format(apart ? "%s%.*s" : "%s %.*s", form, (int)text.size, text.data);
    }
    return form;
}
/* The template with its [P] replaced by words. Each slot in turn: by the gradient of the loss at the slot's embedding,
 * a swap to word w changes the loss by (e_w - e_now) . dL/de to first order. The words that promise most are tried;
 * the best one is kept if the true loss falls, on these rows and on other ones too. */
enum { SEARCH_CANDIDATES = 10, SEARCH_ROWS = 24, SEARCH_SWEEPS = 2 };
static const char *search(const Options *o, const Model *model, const char *form) {
    const Template t = template_parse(form);
    const Dataset train = read_split(o, model, TRAIN_ROWS, &t);
    const Tensor table = model->bert.word;
    const bool *usable = search_words(model, &train);
    const int the = single_token(&model->vocab, text_of("the")), start_word = the >= 0 ? the : model->vocab.unk;
    const int rows_each = min_int(SEARCH_ROWS, train.count / 2);
    int *order = in_order(train.count), *word = allocate(sizeof(int[t.pseudo]));
    Tensor prompt = tensor(t.pseudo, table.cols);
    Random random = {(uint64_t)o->seed};
    if (train.count < 2) die("%s: too few rows to search on", train.path);
    for (int k = 0; k < t.pseudo; k++)
        memcpy(row(prompt, k), row(table, word[k] = start_word), sizeof(real[table.cols]));
    for (int turn = 0; turn < SEARCH_SWEEPS * t.pseudo; turn++) {
        Mark before = mark();
        const int slot = turn % t.pseudo;
        shuffle(order, train.count, &random);
        const Rows rows = rows_of(train.at, order, rows_each),
                   other = rows_of(train.at, order + rows_each, rows_each);
        needs_grad(&prompt);
        double best_loss = loss_and_gradient(&model->bert, prompt, &rows, model->answers.in_loss);
        const Tensor gain = tensor_zeros(1, table.rows);
        const Matrix dslot = part(gradient(prompt), slot, 1, 0, table.cols);
        matmul(values(gain), dslot, transposed(values(table))); /* e_w . dL/de */
        for (int w = 0; w < table.rows; w++)
            gain.data[w] = usable[w] && w != word[slot] ? -gain.data[w] : -(real)INFINITY;
        int best = word[slot];
        for (int c = 0; c < SEARCH_CANDIDATES; c++) {
            real promise;
            const int next = take_best(gain.data, table.rows, &promise);
            if (!isfinite(promise)) break;
            const double loss = loss_with_word(model, prompt, slot, next, &rows);
            if (loss < best_loss) best_loss = loss, best = next;
        }
        if (best != word[slot] && loss_with_word(model, prompt, slot, best, &other) <
                                      loss_with_word(model, prompt, slot, word[slot], &other)) {
            word[slot] = best;
            memcpy(row(prompt, slot), row(table, best), sizeof(real[table.cols]));
        }
        release(before);
    }
    return template_with_words(&t, &model->vocab, word);
}

/* ==== 9. The small world: a vocabulary and a BERT from facts and wordings ========================================= */

/* data/relations.jsonl names the relations; each has a folder, here or in relations/, with its facts
 * ({train,dev,test}.jsonl) and the wordings that the LM reads them in (pretrain.txt: a template a line, with [X] and
 * [Y]; LAMA has none). */
typedef struct { const char *name, *folder; Text template; } Relation;
typedef struct { Relation *at; int count; } World;

static bool has_relation(const World *world, Text name) {
    for (int r = 0; r < world->count; r++)
        if (text_is(name, world->at[r].name)) return true;
    return false;
}
static World world_read(const char *data) {
    const char *path = format("%s/relations.jsonl", data);
    World world = {0};
    Text rest = read_file(path), name, template;
    int line = 0;
    for (Text json; next_row(&rest, &json, path, &line);) {
        if (!json_member(json, "relation", &name) || !json_member(json, "template", &template) ||
            !json_is_string(name) || !json_is_string(template))
            die("%s:%d: no relation or template", path, line);
        const char *word = text_line(json_string(name)), *folder = format("%s/relations/%s", data, word);
        if (!*word || strchr(word, '/')) die("%s:%d: not a name for a folder: '%s'", path, line, word);
        if (has_relation(&world, text_of(word))) die("%s:%d: relation '%s' again", path, line, word);
        if (!file_exists(folder)) folder = format("%s/%s", data, word);
        world.at = room(world.at, world.count, sizeof(Relation));
        world.at[world.count++] = (Relation){word, folder, json_string(template)};
    }
    if (!world.count) die("%s: no relation", path);
    return world;
}

/* A wording with subject and object in the places of [X] and [Y]. */
static Text sentence(Text wording, Text subject, Text object) {
    char *out = allocate(wording.size + wording.size / 3 * (subject.size + object.size)); /* a marker is 3 bytes */
    size_t size = 0;
    for (size_t i = 0; i < wording.size;) {
        const Text rest = {wording.data + i, wording.size - i};
        const Text *put = text_starts(rest, "[X]") ? &subject : text_starts(rest, "[Y]") ? &object : NULL;
        if (put) memcpy(out + size, put->data, put->size);
        else out[size] = rest.data[0];
        size += put ? put->size : 1;
        i += put ? 3 : 1;
    }
    return (Text){out, size};
}
/* Every fact of every split in every wording; objects, if asked for, one an entry. */
static Texts world_sentences(const World *world, Texts *objects) {
    Texts sentences = {0};
    for (int r = 0; r < world->count; r++) {
        const Texts wordings = read_lines(format("%s/pretrain.txt", world->at[r].folder));
        for (int s = 0; s < 3; s++) {
            const char *path = format("%s/%s.jsonl", world->at[r].folder, split_name[s]);
            Text rest = read_file(path);
            int line = 0;
            for (Text json; next_row(&rest, &json, path, &line);) {
                const Text subject = row_field(json, text_of(""), path, line),
                           object = text_of(text_line(row_field(json, text_of("obj_label"), path, line)));
                if (objects) texts_push(objects, object);
                for (int w = 0; w < wordings.count; w++)
                    texts_push(&sentences, sentence(wordings.at[w], subject, object));
            }
        }
    }
    return sentences;
}

/* ---- Pretraining: the masked LM of BERT (Devlin et al. 2019, section 3.1) ---------------------------------------- */

/* Of the words of each sentence 15 % are to be told, at least one: 80 % of them are replaced by [MASK], 10 % by a
 * random word, 10 % are left. */
static Rows mask_words(const Example *sentences, const int *order, int count, const Vocab *vocab, Random *random) {
    Rows r = rows_of(sentences, order, count);
    Batch *batch = &r.batch;
    batch->reads = 0;
    batch->read = allocate(sizeof(int[batch->tokens]));
    r.target = allocate(sizeof(int[batch->tokens]));
    for (int s = 0; s < count; s++) {
        const int first = batch->start[s] + 1, last = batch->start[s + 1] - 1; /* without [CLS] and [SEP] */
        const int surely = first + (int)(random_bits(random) % (uint64_t)(last - first));
        batch->read_start[s] = batch->reads;
        for (int i = first; i < last; i++) {
            if (uniform(random) >= 0.15 && i != surely) continue;
            r.target[batch->reads] = r.id[i];
            batch->read[batch->reads++] = i;
            const double change = uniform(random);
            if (change < 0.8) r.id[i] = vocab->mask;
            else if (change < 0.9) r.id[i] = MARKERS + (int)(random_bits(random) % (uint64_t)(vocab->size - MARKERS));
        }
    }
    batch->read_start[count] = batch->reads;
    return r;
}
static void pretrain(Bert *bert, const Vocab *vocab, const Example *sentences, int count, const Options *o) {
    const double steps = (double)(count / o->batch) * o->epochs, start = seconds();
    int *order = in_order(count), step = 0;
    double loss = 0;
    Random random = {(uint64_t)o->seed + 1};
    if (count < o->batch) die("%d sentences do not fill one batch of %d", count, o->batch);
    parameters_train(bert->weights);
    for (int epoch = 1; epoch <= o->epochs; epoch++) {
        shuffle(order, count, &random);
        for (int first = 0; first + o->batch <= count; first += o->batch) {
            Mark before = mark();
            const Rows r = mask_words(sentences, order + first, o->batch, vocab, &random);
            const double share = schedule(o, ++step, count / o->batch);
            loss += loss_and_gradient(bert, (Tensor){0}, &r, NULL);
            if (!isfinite(loss)) die("the loss is not finite in step %d: a smaller --lr may help", step);
            adam_step(bert->weights, (Optimizer){o->lr * share, o->decay, true}, step,
                      clip_factor(o, bert->weights));
            release(before);
            if (step % 500 == 0) {
                printf("step %d of %.0f, loss %.4f, %.0f s\n", step, steps, loss / 500, seconds() - start);
                fflush(stdout);
                loss = 0;
            }
        }
    }
}

/* ==== 10. The paper's table: methods on relations ================================================================= */

/* A method is a way to an answer, the template that it asks with, and what is trained. */
typedef enum { MAJORITY, ASK, SEARCH, TRAIN } Way;
typedef struct {
    const char *name;
    Way way;
    const char *template; /* manual: that of relations.jsonl; hybrid: the same with [P] between its words and fields;
                             best, worst: of relation_prompts; NULL: --template */
    const char *encoder;
    bool tune_lm;
    double demo_rate; /* on the small world, by dev; elsewhere --lr and --lr-lm */
    const char *meaning;
} Method;
static const Method methods[] = {
    {"majority", MAJORITY, "[X] [MASK]", NULL, false, 0, "the most frequent answer of train"},
    {"worst", ASK, "worst", NULL, false, 0, "manual prompts, the worst one on test"},
    {"manual", ASK, "manual", NULL, false, 0, "manual prompt, LAMA's"},
    {"best", ASK, "best", NULL, false, 0, "manual or given prompts, the best one on dev"},
    {"search", SEARCH, "[X] [P][P][P] [MASK] .", NULL, false, 0, "discrete search, [X] [P][P][P] [MASK] ."},
    {"ft", TRAIN, "[X] [MASK]", NULL, true, 5e-4, "fine-tuning, [X] [MASK]"},
    {"mp+ft", TRAIN, "manual", NULL, true, 5e-4, "fine-tuning, LAMA's manual prompt"},
    {"best+ft", TRAIN, "best", NULL, true, 5e-4, "fine-tuning, the best prompt"},
    {"p-lstm", TRAIN, NULL, "lstm", false, 5e-3, "P-tuning, LSTM and MLP"},
    {"p-mlp", TRAIN, NULL, "mlp", false, 5e-3, "P-tuning, MLP"},
    {"p-embedding", TRAIN, NULL, "embedding", false, 1e-2, "P-tuning, plain embeddings"},
    {"p-swapped", TRAIN, "(3,3,3)", "lstm", false, 5e-3, "P-tuning, mask before subject"},
    {"p-hybrid", TRAIN, "hybrid", "lstm", false, 5e-3, "P-tuning, [P] between the words of LAMA's prompt"}};
enum { METHODS = sizeof methods / sizeof *methods };

_Noreturn static void usage(const char *wrong, const char *what);

static const Method *method_named(Text name) {
    for (int m = 0; m < METHODS; m++)
        if (text_is(name, methods[m].name)) return &methods[m];
    usage("unknown method ", text_string(name));
}

/* One run: a method on a relation. In a file it is one line: these fields with tabs between them. */
typedef struct {
    const char *relation, *method, *vocab, *seed, *template;
    Score score;       /* on test */
    int seen;          /* rows whose subject also stands in train */
    int trained, kept; /* numbers that were trained, and that must be kept to answer */
    double seconds;
    Tensor prompt; /* what was learned; not in the file */
} Result;

static void result_write(const char *path, const Result *r) {
    Output out = output_open(path);
    fprintf(out.stream, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.2f\n", r->relation, r->method, r->vocab,
            r->seed, text_line(text_of(r->template)), r->score.hits, r->score.rows, r->seen, r->trained, r->kept,
            r->seconds, r->score.macro_f1);
    output_close(out);
}
static Result result_read(const char *path) {
    const Texts lines = read_lines(path), fields = split(lines.count == 1 ? lines.at[0] : text_of(""), '\t');
    const Text *f = fields.at;
    if (fields.count != 12) die("%s: not one line of 12 fields", path);
    Result r = {text_string(f[0]), text_string(f[1]), text_string(f[2]), text_string(f[3]), text_string(f[4]),
                .score = {.hits = json_int(f[5]), .rows = json_int(f[6]), .macro_f1 = json_number(f[11])},
                .seen = json_int(f[7]), .trained = json_int(f[8]), .kept = json_int(f[9]),
                .seconds = json_number(f[10])};
    if (r.score.hits < 0 || r.score.hits > r.score.rows || r.score.rows < 1 || !(r.score.macro_f1 >= 0) || r.seen < 0 ||
        r.trained < 0 || r.kept < 0 || !(r.seconds >= 0))
        die("%s: not a result", path);
    return r;
}

/* The discrete prompts of a relation, a line each. --prompts is a file, or a folder of <relation>.jsonl or .txt;
 * without it they stand in prompts.txt beside the rows, if there is one, and the relation's own template comes last. A
 * line may be a JSON object with a template and, if the file has prompts of several relations, a relation. */
static Texts relation_prompts(const Options *o, const Relation *relation) {
    const char *path = o->prompts ? o->prompts : format("%s/prompts.txt", relation->folder);
    if (o->prompts && file_exists(format("%s/.", path))) {
        path = format("%s/%s.jsonl", o->prompts, relation->name);
        if (!file_exists(path)) path = format("%s/%s.txt", o->prompts, relation->name);
    }
    Texts prompts = {0}, lines = o->prompts || file_exists(path) ? read_lines(path) : prompts;
    for (int i = 0; i < lines.count; i++) {
        Text template = lines.at[i], name;
        if (text_starts(template, "{\"")) {
            json_check(lines.at[i], path, i + 1);
            template = row_field(lines.at[i], text_of("template"), path, i + 1);
            if (json_member(lines.at[i], "relation", &name) && json_is_string(name) &&
                !text_is(json_string(name), relation->name))
                continue;
        }
        texts_push(&prompts, template);
    }
    if (!o->prompts) texts_push(&prompts, relation->template);
    if (!prompts.count) die("%s: no prompt for %s", path, relation->name);
    return prompts;
}
static const char *method_template(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const char *form = m->template ? m->template : o->template, *chosen = NULL;
    const bool best = !strcmp(form, "best");
    if (!strcmp(form, "manual")) return text_string(relation->template);
    if (!strcmp(form, "hybrid"))
        return text_string(sentence(relation->template, text_of("[P] [X] [P]"), text_of("[P] [MASK]")));
    if (m->way == SEARCH) return search(o, model, form);
    if (!best && strcmp(form, "worst")) return form;
    const Texts prompts = relation_prompts(o, relation);
    for (int p = 0, top = INT32_MIN; p < prompts.count; p++) {
        const char *candidate = text_string(prompts.at[p]);
        Mark before = mark();
        const Template t = template_parse(candidate);
        if (t.pseudo) die("%s: [P] where nothing is trained: %s", relation->name, candidate);
        const Dataset rows = read_split(o, model, best ? DEV_ROWS : TEST_ROWS, &t);
        const int hits = evaluate(model, (Tensor){0}, &rows, NULL).hits, merit = best ? hits : -hits;
        if (merit > top) top = merit, chosen = candidate;
        release(before);
    }
    return chosen;
}
static Score majority_score(const Dataset *train, const Dataset *test, int words) {
    Score score = {.rows = test->count};
    int *times = allocate_zeroed(sizeof(int[words])), best = train->at[0].answer;
    for (int i = 0; i < train->count; i++)
        if (++times[train->at[i].answer] > times[best]) best = train->at[i].answer;
    for (int i = 0; i < test->count; i++) score.hits += test->at[i].answer == best;
    return score;
}
/* Rows of test whose subject also stands in train. */
static int seen_subjects(const Dataset *train, const Dataset *test) {
    Texts known = {0};
    int seen = 0;
    for (int i = 0; i < train->count; i++)
        if (train->at[i].subject) texts_push(&known, text_of(train->at[i].subject));
    for (int i = 0; i < test->count; i++)
        seen += test->at[i].subject && among(&known, text_of(test->at[i].subject));
    return seen;
}
/* The name of a file without its folder and what follows its last dot. */
static const char *stem(const char *path) {
    char *name = basename(text_string(text_of(path))), *dot = strrchr(name, '.');
    if (dot && dot > name) *dot = 0;
    return text_line(text_of(name));
}
/* Everything from the files to the score on test. */
static Result run_method(const Method *m, const Options *options, Model *model, const Relation *relation) {
    const double start = seconds();
    Options o = *options;
    Dataset data[3];
    o.data = relation->folder, o.encoder = m->encoder, o.tune_lm = m->tune_lm;
    if (o.lr < 0) o.lr = o.lr_lm = m->demo_rate;
    o.template = method_template(m, &o, model, relation);
    const Template t = template_parse(o.template);
    Result r = {relation->name, m->name, o.vocab ? stem(o.vocab) : "all", format("%d", o.seed), o.template,
                .prompt = tensor(t.pseudo, model->bert.hidden)};
    Mark before = mark();
    if (t.pseudo && !m->encoder) die("%s: [P] where nothing is trained: %s", relation->name, o.template);
    for (int i = 0; i < 3; i++) data[i] = read_split(&o, model, (Split)i, &t);
    if (m->way == TRAIN && o.recipe && data[0].count < o.batch)
        die("%s: %d rows do not fill one batch of %d", data[0].path, data[0].count, o.batch);
    r.score = m->way == MAJORITY ? majority_score(&data[TRAIN_ROWS], &data[TEST_ROWS], model->bert.vocab)
              : m->way == TRAIN  ? run_seed(&o, model, data, r.prompt, &r.trained)
                                 : evaluate(model, r.prompt, &data[TEST_ROWS], NULL);
    if (m->way == SEARCH) r.kept = template_parse(m->template).pseudo;
    if (m->way == TRAIN) r.kept = (int)size_of(r.prompt);
    if (o.tune_lm) r.kept += (int)parameters_size(model->bert.weights);
    r.seen = model->answers.labels ? 0 : seen_subjects(&data[0], &data[2]); /* with labels: sentences, not subjects */
    r.seconds = seconds() - start;
    release(before);
    if (!o.tune_lm) return r;
    bert_close(&model->bert); /* the next run starts from the published weights */
    bert_load(&model->bert, o.model);
    return r;
}
/* The same, unless its result line is there. What is trained goes on from its checkpoint. */
static Result run_once(const Method *m, const Options *options, Model *model, const Relation *relation) {
    static const char *const used_up[] = {"checkpoint.safetensors", "model/config.json", "model/vocab.txt",
                                          "model/tokenizer_config.json", "model/model.safetensors", "model"};
    if (!options->out) return run_method(m, options, model, relation);
    Options o = *options;
    o.resume = true;
    o.out = format("%s/%s.%s.%s.%d", o.out, relation->name, m->name, o.vocab ? stem(o.vocab) : "all", o.seed);
    const char *path = format("%s.result.tsv", o.out);
    if (!file_exists(path)) {
        if (m->way == TRAIN) make_folder(o.out);
        const Result r = run_method(m, &o, model, relation);
        result_write(path, &r);
        for (int i = 0; m->way == TRAIN && i < 6; i++) remove(format("%s/%s", o.out, used_up[i]));
    }
    return result_read(path);
}

/* ---- The table of many results ----------------------------------------------------------------------------------- */

/* The mean of n numbers, and their standard deviation (0 if there is one). */
typedef struct { double mean, deviation; } Spread;
static Spread spread_of(const double *x, int n) {
    Spread s = {0, 0};
    for (int i = 0; i < n; i++) s.mean += x[i] / n;
    for (int i = 0; i < n; i++) s.deviation += (x[i] - s.mean) * (x[i] - s.mean);
    s.deviation = n > 1 ? sqrt(s.deviation / (n - 1)) : 0;
    return s;
}
typedef struct { Result *at; int count; Texts relations, methods, vocabs, seeds; } Table;

static void add_name(Texts *names, const char *name) {
    if (!among(names, text_of(name))) texts_push(names, text_of(name));
}
static void table_add(Table *t, Result r) {
    t->at = room(t->at, t->count, sizeof r);
    t->at[t->count++] = r;
    add_name(&t->relations, r.relation), add_name(&t->methods, r.method);
    add_name(&t->vocabs, r.vocab), add_name(&t->seeds, r.seed);
}
/* The runs of a method with a vocabulary, on one relation or (NULL) on all: for each seed P@1 averaged over the
 * relations and of all rows together, then the spread over the seeds. */
typedef struct { Spread average, pooled; int seeds, relations; double seconds; const Result *last; } Cell;
static Cell table_cell(const Table *t, Text method, Text vocab, const Text *relation) {
    Cell cell = {.seeds = 0};
    double *average = allocate(sizeof(double[t->seeds.count])), *pooled = allocate(sizeof(double[t->seeds.count]));
    for (int s = 0; s < t->seeds.count; s++) {
        double sum = 0, hits = 0, rows = 0;
        int relations = 0;
        for (const Result *r = t->at; r < t->at + t->count; r++) {
            if (!text_is(t->seeds.at[s], r->seed) || !text_is(method, r->method) || !text_is(vocab, r->vocab) ||
                (relation && !text_is(*relation, r->relation)))
                continue;
            sum += p_at_1(r->score), hits += r->score.hits, rows += r->score.rows, relations++;
            cell.seconds += r->seconds, cell.last = r;
        }
        if (!relations) continue;
        cell.relations = cell.seeds ? min_int(cell.relations, relations) : relations;
        average[cell.seeds] = sum / relations, pooled[cell.seeds++] = 100 * hits / rows;
    }
    cell.average = spread_of(average, cell.seeds), cell.pooled = spread_of(pooled, cell.seeds);
    return cell;
}
/* A column a method, a line a relation: the mean over the seeds. Without a relation: the heading. */
static void print_relation(const Table *t, Text vocab, const Text *relation) {
    const Result *some = NULL;
    const char *line = "";
    for (int m = 0; m < t->methods.count; m++) {
        const Text method = t->methods.at[m];
        const Cell cell = relation ? table_cell(t, method, vocab, relation) : (Cell){.seeds = 0};
        line = format("%s%*s", line, (int)method.size < 6 ? 8 : (int)method.size + 2,
                      !relation ? text_string(method) : cell.seeds ? format("%.1f", cell.pooled.mean) : "-");
        if (cell.seeds) some = cell.last;
    }
    if (!relation) printf("%-16s%6s%6s%s\n", "relation", "rows", "seen", line);
    else if (some) printf("%-16s%6d%6d%s\n", some->relation, some->score.rows, some->seen, line);
    fflush(stdout);
}
static const char *spread_text(Spread s, int seeds) {
    return seeds > 1 ? format("%.2f +- %.2f", s.mean, s.deviation) : format("%.2f", s.mean);
}
/* A line a method: the average over the relations (the paper's 34k column) and all rows together (its 29k column), with
 * the standard deviation over several seeds. */
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
/* Runs what is missing; a relation's line comes when it is whole. */
static void run_table(const Options *o, Model *model, const World *world) {
    const Texts names = split(text_of(o->methods), ',');
    const Texts wanted = o->relations ? split(text_of(o->relations), ',') : (Texts){0};
    Table t = {0};
    for (int m = 0; m < names.count; m++) add_name(&t.methods, method_named(names.at[m])->name);
    for (int k = 0; k < wanted.count; k++)
        if (!has_relation(world, wanted.at[k]))
            die("--relations: no relation '%s' in relations.jsonl", text_string(wanted.at[k]));
    print_relation(&t, text_of(""), NULL);
    for (int r = 0; r < world->count; r++) {
        const Relation *relation = &world->at[r];
        if (o->relations ? !among(&wanted, text_of(relation->name)) : !file_exists(relation->folder)) continue;
        for (int m = 0; m < t.methods.count; m++) {
            const Method *method = method_named(t.methods.at[m]);
            for (int s = 0; s < (method->way < SEARCH ? 1 : o->seeds); s++) { /* chance has no part in the others */
                Options one = *o;
                one.seed += s;
                table_add(&t, run_once(method, &one, model, relation));
            }
        }
        print_relation(&t, t.vocabs.at[0], &t.relations.at[t.relations.count - 1]);
    }
    if (!t.count) die("%s: no relation has a folder", o->data);
    print_methods(&t, t.vocabs.at[0]);
}
static int is_result(const struct dirent *file) {
    const size_t length = strlen(file->d_name), suffix = strlen("result.tsv");
    return length >= suffix && !strcmp(file->d_name + length - suffix, "result.tsv");
}
/* The tables of all result lines in a folder, one a vocabulary. */
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
        if (among(&found, text_of(methods[m].name))) add_name(&t.methods, methods[m].name);
    for (int m = 0; m < found.count; m++) add_name(&t.methods, text_string(found.at[m]));
    for (int v = 0; v < t.vocabs.count; v++) {
        printf("%sanswers: %s\n", v ? "\n" : "", text_string(t.vocabs.at[v]));
        print_relation(&t, t.vocabs.at[v], NULL);
        for (int r = 0; r < t.relations.count; r++) print_relation(&t, t.vocabs.at[v], &t.relations.at[r]);
        print_methods(&t, t.vocabs.at[v]);
    }
}

/* ==== 11. The command line ======================================================================================== */

static const char usage_text[] =
    "usage: ptune                                             the demo: the paper's table on data/\n"
    "       ptune fill     --model DIR TEXT                   five best words for each [MASK]\n"
    "       ptune fill     --model DIR --prompt FILE SUBJECT  the same, asked with a learned prompt\n"
    "       ptune tokenize --model DIR FILE.jsonl             the ids of each row's \"text\"\n"
    "       ptune train    --model DIR --data DIR [--template T] [--encoder lstm|mlp|embedding] [--tune-lm]\n"
    "                      [--out DIR] [--seed N] [--seeds N] [--epochs N] [--lr F] ...   (README.md has all)\n"
    "       ptune eval     --model DIR --data FILE.jsonl (--template T | --prompt FILE) [--vocab FILE]\n"
    "       ptune search   --model DIR --data DIR             discrete prompt search; prints a template\n"
    "       ptune table    --model DIR --data DIR [--methods M,M] [--relations R,R] [--out RESULTS]\n"
    "                      [--vocab FILE] [--seeds N] ...     runs methods on relations\n"
    "       ptune table    RESULTS                            the table of all results there\n"
    "       ptune words    --model DIR --prompt FILE          nearest words of each pseudo-token\n"
    "       ptune vocab    --model DIR --data DIR [--size N]  a vocabulary for a world of facts\n"
    "       ptune pretrain --model DIR --data DIR             a small BERT that has read them\n";

_Noreturn static void usage(const char *wrong, const char *what) {
    fprintf(stderr, "ptune: %s%s\n%s", wrong, what ? what : "", usage_text);
    exit(2);
}

static const char *const DEFAULT_TEMPLATE = "[P][P][P] [X] [P][P][P] [MASK] [P][P][P]";

/* Found on dev (NOTES.md): for LAMA on BERT-base, and for pretraining ('p'). */
static Options default_options(char command) {
    Options o = {.encoder = "lstm", .optimizer = "adam", .lr = 5e-4, .lr_lm = 5e-6, .decay = 5e-4};
    o.init_scale = -1; /* h starts at the scale of the word table */
    o.warmup = 0.1, o.epochs = 5, o.batch = 8, o.patience = 20, o.seed = 34, o.seeds = 1, o.size = 2400;
    o.quiet = !strchr("te", command); /* train and eval say what they do: their rows, each epoch */
    if (command == 'p') o.lr = 2e-3, o.decay = 0.01, o.clip = 1, o.epochs = 16, o.batch = 64;
    o.methods = "majority,manual,ft,mp+ft,p-lstm";
    if (command == 'd') { /* the rates: each method's own; the epochs: by the minute */
        o.model = "data/bert", o.data = "data", o.template = DEFAULT_TEMPLATE, o.lr = -1, o.epochs = 8;
        o.methods = "majority,worst,manual,best,search,ft,best+ft,p-lstm,p-mlp,p-embedding";
    }
    return o;
}

/* Which commands know an option: see commands[] in main for the letters. */
typedef enum { STRING, NUMBER, INTEGER, SWITCH } OptionKind;
typedef struct { const char *name; OptionKind kind; size_t offset; const char *commands; double least; } Option;
static const Option option_table[] = {
    {"--model", STRING, offsetof(Options, model), "fktewvpsb", 0},
    {"--data", STRING, offsetof(Options, data), "tevpsb", 0},
    {"--train", STRING, offsetof(Options, train), "ts", 0},
    {"--dev", STRING, offsetof(Options, dev), "t", 0},
    {"--test", STRING, offsetof(Options, test), "t", 0},
    {"--template", STRING, offsetof(Options, template), "tesb", 0},
    {"--prompt", STRING, offsetof(Options, prompt), "few", 0},
    {"--encoder", STRING, offsetof(Options, encoder), "t", 0},
    {"--vocab", STRING, offsetof(Options, vocab), "tesb", 0},
    {"--labels", STRING, offsetof(Options, labels), "tes", 0},
    {"--out", STRING, offsetof(Options, out), "tb", 0},
    {"--predictions", STRING, offsetof(Options, predictions), "e", 0},
    {"--optimizer", STRING, offsetof(Options, optimizer), "tb", 0},
    {"--recipe", STRING, offsetof(Options, recipe), "tb", 0},
    {"--methods", STRING, offsetof(Options, methods), "b", 0},
    {"--relations", STRING, offsetof(Options, relations), "b", 0},
    {"--prompts", STRING, offsetof(Options, prompts), "b", 0},
    {"--task", STRING, offsetof(Options, task), "te", 0},
    {"--init-scale", NUMBER, offsetof(Options, init_scale), "tb", 0},
    {"--lr", NUMBER, offsetof(Options, lr), "tpb", 0},
    {"--lr-lm", NUMBER, offsetof(Options, lr_lm), "tb", 0},
    {"--weight-decay", NUMBER, offsetof(Options, decay), "tpb", 0},
    {"--clip", NUMBER, offsetof(Options, clip), "tpb", 0},
    {"--warmup", NUMBER, offsetof(Options, warmup), "tpb", 0},
    {"--epochs", INTEGER, offsetof(Options, epochs), "tpb", 1},
    {"--batch", INTEGER, offsetof(Options, batch), "tpb", 1},
    {"--patience", INTEGER, offsetof(Options, patience), "tb", 1},
    {"--seed", INTEGER, offsetof(Options, seed), "tpsb", 0},
    {"--seeds", INTEGER, offsetof(Options, seeds), "tb", 1},
    {"--size", INTEGER, offsetof(Options, size), "v", 100},
    {"--max-length", INTEGER, offsetof(Options, max_length), "teb", 3},
    {"--tune-lm", SWITCH, offsetof(Options, tune_lm), "t", 0},
    {"--resume", SWITCH, offsetof(Options, resume), "t", 0},
};
/* data/tasks.tsv: a heading, then a line a task: name, template, labels. What the command line says goes before it. */
static void task_read(Options *o) {
    const char *path = "data/tasks.tsv";
    const Texts tasks = read_lines(path);
    for (int i = 1; i < tasks.count; i++) {
        const Texts field = split(tasks.at[i], '\t');
        if (field.count != 3) die("%s: a line has %d fields, not 3", path, field.count);
        if (!text_is(field.at[0], o->task)) continue;
        if (!o->template && !o->prompt) o->template = text_string(field.at[1]);
        if (!o->labels) o->labels = text_string(field.at[2]);
        return;
    }
    die("%s: no task '%s'", path, o->task);
}
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
        usage("not a whole number for ", option->name);
    return number;
}
static Options options_read(char command, int count, char **words) {
    Options o = default_options(command);
    for (int i = 0; i < count; i++) /* a recipe is a set of defaults: whatever else is said goes before it */
        if (!strcmp(words[i], "--recipe") && i + 1 < count)
            o.lr = 1e-5, o.epochs = 100, o.init_scale = 0;
    for (int i = 0; i < count; i++) {
        const Option *option = option_named(words[i]);
        if (!option) {
            if (words[i][0] == '-' && words[i][1]) usage("unknown option ", words[i]);
            if (o.text || !strchr("fkb", command)) usage("one argument too many: ", words[i]);
            o.text = words[i];
            continue;
        }
        if (!strchr(option->commands, command)) usage("this command has no ", words[i]);
        void *field = (char *)&o + option->offset;
        if (option->kind == SWITCH) *(bool *)field = true;
        else if (++i == count) usage("a value is missing after ", option->name);
        else if (option->kind == STRING) *(const char **)field = words[i];
        else if (option->kind == NUMBER) *(double *)field = option_number(option, words[i]);
        else *(int *)field = (int)option_number(option, words[i]);
    }
    if (!o.model && !(command == 'b' && o.text)) usage("--model DIR is missing", NULL);
    if (o.task) task_read(&o);
    if (o.vocab && o.labels) usage("--vocab and --labels exclude each other", NULL);
    if (o.labels && !*o.labels) usage("--labels is empty", NULL);
    return o;
}

/* ==== 12. The commands ============================================================================================ */

/* ---- The demo: the table on the small world, and one relation in many wordings ----------------------------------- */

static double row_norm(const real *x, int cols) {
    double squares = 0;
    for (int j = 0; j < cols; j++) squares += (double)x[j] * (double)x[j];
    return sqrt(squares);
}
/* The words whose embeddings have the largest cosine with each row of the prompt. */
static void print_nearest(const Model *model, Tensor prompt) {
    const Tensor word = model->bert.word;
    Tensor cosine = tensor_zeros(prompt.rows, word.rows); /* times the norm of the prompt's row */
    matmul(values(cosine), values(prompt), transposed(values(word)));
    for (int w = 0; w < word.rows; w++) {
        const double norm = row_norm(row(word, w), word.cols);
        for (int i = 0; i < prompt.rows; i++)
            row(cosine, i)[w] = norm > 0 ? row(cosine, i)[w] / (real)norm : -(real)INFINITY;
    }
    for (int i = 0; i < prompt.rows; i++) {
        const double norm = row_norm(row(prompt, i), prompt.cols);
        printf("[P]%d", i + 1);
        for (int k = 0; k < 5; k++) {
            real largest;
            const Text piece = model->vocab.piece[take_best(row(cosine, i), model->vocab.size, &largest)];
            if (isfinite(largest))
                printf("  %.*s %.2f", (int)piece.size, piece.data, norm > 0 ? (double)largest / norm : 0);
        }
        printf("\n");
    }
}
/* The paper's first table: a prompt is changed by a word and the answers are others; then what P-tuning gives. */
static void demo_instability(Model *model, const Relation *relation, const Options *o) {
    const Texts prompts = relation_prompts(o, relation);
    const Method *p_tuning = method_named(text_of("p-lstm"));
    Result r;
    printf("\n%s: the same question in other words\n", relation->name);
    for (int p = 0; p <= prompts.count; p++) {
        const Method ask = {.way = ASK, .template = p < prompts.count ? text_string(prompts.at[p]) : NULL};
        r = run_method(ask.template ? &ask : p_tuning, o, model, relation);
        printf("%8.1f  %s\n", p_at_1(r.score), r.template);
    }
    printf("\nThe words nearest to what was learned there (cosine):\n");
    print_nearest(model, r.prompt);
}
static void command_demo(void) {
    const Options o = default_options('d');
    const double start = seconds();
    const World world = world_read(o.data);
    Model *model = model_load(&o);
    printf("A BERT of %zu parameters that has read a small world: %d relations. What does it answer to subjects that "
           "no method\nwas trained on? P@1 on the test rows, in per cent; each column is one method, seed %d.\n\n",
           parameters_size(model->bert.weights), world.count, o.seed);
    run_table(&o, model, &world);
    demo_instability(model, &world.at[0], &o);
    printf("\n%.0f seconds in all\n", seconds() - start);
}

/* ---- fill, tokenize, train, eval, words, search, table, vocab, pretrain ------------------------------------------ */

/* Five best words for each [MASK] of a text: word, probability, logit. */
static void print_best(const Model *model, real *logits) {
    const double all = log_sum_exp(logits, model->bert.vocab);
    if (!isfinite(all)) die("the logits are not finite");
    for (int k = 0; k < 5 && k < model->vocab.size; k++) {
        real logit;
        const Text piece = model->vocab.piece[take_best(logits, model->vocab.size, &logit)];
        printf("%.*s\t%.4f\t%.4f\n", (int)piece.size, piece.data, exp((double)logit - all), (double)logit);
    }
}
static void command_fill(Options *o) {
    if (!o->text) usage(o->prompt ? "SUBJECT is missing" : "TEXT is missing", NULL);
    if (!utf8_valid(text_of(o->text))) die("the text is not valid UTF-8");
    Ids ids = {0};
    Tensor prompt = {0};
    Model *model = model_load(o);
    if (o->prompt) {
        Template t;
        Text field[MAX_PARTS];
        prompt = prompt_read(o->prompt, model, &t);
        for (int i = 0; i < t.parts; i++) {
            if (t.part[i].kind == FIELD && t.part[i].text.size)
                die("%s: its template asks for more than a subject: %s", o->prompt, t.text);
            field[i] = text_of(o->text);
        }
        Example example;
        template_fill(&t, &model->vocab, field, model->bert.positions, &example, "SUBJECT", 1);
        ids = (Ids){example.id, example.length};
    } else {
        ids_push(&ids, model->vocab.cls);
        tokenize_marked(&model->vocab, text_of(o->text), &ids);
        ids_push(&ids, model->vocab.sep);
    }
    if (ids.count > model->bert.positions)
        die("the text has %d tokens, the model takes %d", ids.count, model->bert.positions);
    int *reads = allocate(sizeof(int[ids.count])), start[] = {0, ids.count}, read_start[] = {0, 0};
    for (int i = 0; i < ids.count; i++)
        if (ids.id[i] == model->vocab.mask) reads[read_start[1]++] = i;
    if (!read_start[1]) die("no [MASK] in the text");
    const Batch batch = {1, ids.count, read_start[1], start, read_start, reads};
    const Tensor e = embed_forward(model->bert.word, prompt, ids.id, ids.count);
    const Tensor logits = bert_logits(&model->bert, e, &batch);
    for (int i = 0; i < logits.rows; i++) {
        if (i) putchar('\n');
        print_best(model, row(logits, i));
    }
}

static void command_tokenize(Options *o) {
    if (!o->text) usage("FILE.jsonl is missing", NULL);
    const Vocab vocab = vocab_load(o->model);
    Text rest = read_file(o->text), value;
    int line = 0;
    for (Text json; next_row(&rest, &json, o->text, &line);) {
        Mark before = mark();
        Ids ids = {0};
        if (!json_member(json, "text", &value) || !json_is_string(value))
            die("%s:%d: no field 'text'", o->text, line);
        tokenize_marked(&vocab, json_string(value), &ids);
        for (int i = 0; i < ids.count; i++) printf(i ? " %d" : "%d", ids.id[i]);
        putchar('\n');
        release(before);
    }
}

static void print_score(const Options *o, Score s) {
    printf("%s %.2f (%d of %d)%s\n", o->labels ? "accuracy" : "P@1", p_at_1(s), s.hits, s.rows,
           o->labels ? format(", macro-F1 %.2f", s.macro_f1) : "");
}
/* What train, table and search have in common. */
static void check_settings(Options *o) {
    if (encoder_named(o->encoder) == ENCODERS) usage("--encoder is lstm, mlp or embedding, not ", o->encoder);
    if (strcmp(o->optimizer, "adam") && strcmp(o->optimizer, "adamw"))
        usage("--optimizer is adam or adamw, not ", o->optimizer);
    if (o->recipe && strcmp(o->recipe, "paper")) usage("--recipe is paper, not ", o->recipe);
    if (o->warmup > 0.9) usage("--warmup is a share of all steps, at most 0.9", NULL);
    if (o->seed > INT32_MAX - (o->seeds - 1)) usage("--seed is too large for so many --seeds", NULL);
    if (!o->template) o->template = o->recipe ? "(3,3,3)" : DEFAULT_TEMPLATE;
    if (!template_parse(o->template).pseudo && !o->tune_lm)
        usage("nothing to train: no [P] in the template and no --tune-lm", NULL);
}
static void command_train(Options *o) {
    if (!o->data && !(o->train && o->dev && o->test)) usage("--data DIR is missing", NULL);
    check_settings(o);
    if (o->resume && !o->out) usage("--resume goes with --out", NULL);
    if (o->seeds > 1 && o->resume) usage("--resume goes on with one seed, without --seeds", NULL);
    Model *model = model_load(o);
    const bool pseudo = template_parse(o->template).pseudo > 0;
    const char *name = pseudo ? format(o->tune_lm ? "p-%s+ft" : "p-%s", o->encoder) : "ft";
    const Method method = {
        .name = name, .way = TRAIN, .template = o->template, .encoder = o->encoder, .tune_lm = o->tune_lm};
    const Relation relation = {o->task ? o->task : stem(o->data ? o->data : o->test), o->data, {0}};
    if (o->out) make_folder(o->out);
    signal(SIGINT, on_interrupt);
    double *hits = allocate(sizeof(double[o->seeds])), *f1 = allocate(sizeof(double[o->seeds]));
    for (int k = 0; k < o->seeds; k++) {
        Options one = *o;
        one.seed += k;
        if (o->out && o->seeds > 1) make_folder(one.out = format("%s/seed%d", o->out, one.seed));
        const Result r = run_method(&method, &one, model, &relation);
        if (o->out) result_write(format("%s/result.tsv", one.out), &r);
        if (o->seeds > 1) printf("seed %d: ", one.seed);
        print_score(o, r.score);
        hits[k] = p_at_1(r.score), f1[k] = r.score.macro_f1;
    }
    if (o->seeds == 1) return;
    const Spread p = spread_of(hits, o->seeds), f = spread_of(f1, o->seeds);
    if (o->labels) printf("mean macro-F1 %.2f, standard deviation %.2f\n", f.mean, f.deviation);
    printf("mean %s %.2f, standard deviation %.2f, %d seeds\n", o->labels ? "accuracy" : "P@1", p.mean, p.deviation,
           o->seeds);
}

static void command_eval(Options *o) {
    Template t = {0};
    Tensor prompt = {0};
    if (!o->data) usage("--data FILE.jsonl is missing", NULL);
    if (!o->template == !o->prompt) usage("either --template T or --prompt FILE", NULL);
    if (o->template) t = template_parse(o->template);
    if (t.pseudo) usage("a template with [P] needs what was learned for it: --prompt FILE", NULL);
    Model *model = model_load(o);
    if (o->prompt) prompt = prompt_read(o->prompt, model, &t);
    o->test = o->data;
    const Dataset data = read_split(o, model, TEST_ROWS, &t);
    Prediction *predictions = allocate(sizeof(Prediction[data.count]));
    const Score score = evaluate(model, prompt, &data, predictions);
    if (o->predictions) {
        Output out = output_open(o->predictions);
        fprintf(out.stream, "subject\tanswer\tprediction\trank\tlog_probability\n");
        for (int i = 0; i < data.count; i++) {
            const Example *e = &data.at[i];
            const Prediction *p = &predictions[i];
            const Text gold = model->vocab.piece[e->answer], best = model->vocab.piece[p->predicted];
            fprintf(out.stream, "%s\t%.*s\t%.*s\t%d\t%.6f\n", said(e->subject), (int)gold.size, gold.data,
                    (int)best.size, best.data, p->rank, p->log_probability);
        }
        output_close(out);
    }
    if (!o->labels)
        printf("P@10 %.2f, MRR %.4f\n", 100.0 * score.hits_at_10 / score.rows, score.reciprocal_rank / score.rows);
    print_score(o, score);
}

static void command_words(Options *o) {
    if (!o->prompt) usage("--prompt FILE is missing", NULL);
    Model *model = model_load(o);
    Template t;
    const Tensor prompt = prompt_read(o->prompt, model, &t);
    printf("%s\n", t.text);
    print_nearest(model, prompt);
}

static void command_search(Options *o) {
    if (!o->data && !o->train) usage("--data DIR is missing", NULL);
    check_settings(o);
    Model *model = model_load(o);
    printf("%s\n", search(o, model, o->template));
}

static void command_table(Options *o) {
    if (o->text && o->model) usage("either --model DIR, to run, or a folder of results", NULL);
    if (o->text) {
        print_folder(o->text);
        return;
    }
    if (!o->data) usage("--data DIR is missing", NULL);
    check_settings(o);
    const World world = world_read(o->data);
    Model *model = model_load(o);
    if (o->out) make_folder(o->out);
    run_table(o, model, &world);
}

/* vocab.txt and tokenizer_config.json of a world. */
static void command_vocab(Options *o) {
    if (!o->data) usage("--data DIR is missing", NULL);
    const World world = world_read(o->data);
    Texts objects = {0};
    const Texts sentences = world_sentences(&world, &objects);
    const Vocab vocab = vocab_learn(&sentences, &objects, o->size);
    make_folder(o->model);
    vocab_save(&vocab, o->model);
    printf("%d sentences, %d entries\n", sentences.count, vocab.size);
}

/* A small BERT that has read every sentence of the world. */
static void command_pretrain(Options *o) {
    if (!o->data) usage("--data DIR is missing", NULL);
    const World world = world_read(o->data);
    const Texts sentences = world_sentences(&world, NULL);
    Model model = {.vocab = vocab_load(o->model)};
    if (model.vocab.size <= MARKERS) die("%s/vocab.txt: no words beside the markers", o->model);
    model.bert = (Bert){.hidden = 128, .layers = 3, .heads = 4, .intermediate = 512, .vocab = model.vocab.size,
                        .positions = 64, .types = 2, .eps = (real)1e-12};
    bert_list_weights(&model.bert);
    Random random = {(uint64_t)o->seed};
    bert_random(&model.bert, &random);
    Example *examples = allocate(sizeof(Example) * (size_t)sentences.count);
    for (int i = 0; i < sentences.count; i++) {
        Ids ids = {0};
        ids_push(&ids, model.vocab.cls);
        tokenize(&model.vocab, sentences.at[i], &ids);
        ids_push(&ids, model.vocab.sep);
        if (ids.count < 3 || ids.count > model.bert.positions)
            die("'%.*s': %d tokens, at most %d fit", (int)sentences.at[i].size, sentences.at[i].data, ids.count,
                model.bert.positions);
        examples[i] = (Example){.id = ids.id, .length = ids.count};
    }
    printf("%d sentences, %zu parameters\n", sentences.count, parameters_size(model.bert.weights));
    pretrain(&model.bert, &model.vocab, examples, sentences.count, o);
    bert_save(&model.bert, o->model);
    model.answers = answers_from(&model.vocab, model.bert.vocab, NULL, NULL);
    int hits = 0, rows = 0;
    for (int r = 0; r < world.count; r++) { /* does it know its world? test facts in the wordings it has read */
        const Texts wordings = read_lines(format("%s/pretrain.txt", world.at[r].folder));
        int hits_here = 0, rows_here = 0;
        for (int w = 0; w < wordings.count; w++) {
            const Method ask = {.way = ASK, .template = text_string(wordings.at[w])};
            const Score score = run_method(&ask, o, &model, &world.at[r]).score;
            hits_here += score.hits, rows_here += score.rows;
        }
        printf("%-16s %.1f\n", world.at[r].name, 100.0 * hits_here / rows_here);
        hits += hits_here, rows += rows_here;
    }
    printf("test facts in pretraining wordings: P@1 %.2f (%d of %d)\n", 100.0 * hits / rows, hits, rows);
}

int main(int count, char **words) {
    static const struct { const char *name; char letter; void (*run)(Options *); } commands[] = {
        {"fill", 'f', command_fill},   {"tokenize", 'k', command_tokenize}, {"train", 't', command_train},
        {"eval", 'e', command_eval},   {"words", 'w', command_words},       {"search", 's', command_search},
        {"table", 'b', command_table}, {"vocab", 'v', command_vocab},       {"pretrain", 'p', command_pretrain}};
    if (count < 2) command_demo();
    else if (!strcmp(words[1], "--help")) fputs(usage_text, stdout);
    else {
        int c = 0;
        while (c < 9 && strcmp(words[1], commands[c].name)) c++;
        if (c == 9) usage("unknown command ", words[1]);
        Options o = options_read(commands[c].letter, count - 2, words + 2);
        commands[c].run(&o);
    }
    if (fflush(stdout) || ferror(stdout)) die("standard output: %s", strerror(errno));
    return 0;
}
