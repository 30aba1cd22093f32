/* test.c - the suite: gradient checks, comparisons with PyTorch and the tokenizers library, bad input.
 *
 *   ./test                      all sections on the expected values in data/expected
 *   ./test --bert DIR           also what needs the real BERT-base (give it twice for cased and uncased)
 *   ./test --oracles DIR        the comparisons on another folder with the same file names
 *   ./test-double               the gradient checks, in double: ./test-double gradcheck [NAME]
 *
 * A line a check; the last line counts. The status is 1 if any failed.
 */
#define main ptune_main
#include "ptune.c"
#undef main
#include <ftw.h>
#include <sys/wait.h>

static int passed, failed;
static const char *self; /* how this program was called: the command-line tests call it again */

__attribute__((format(printf, 2, 3))) static bool check(bool right, const char *form, ...) {
    va_list arguments;
    va_start(arguments, form);
    printf(right ? "ok    " : "FAIL  ");
    vprintf(form, arguments);
    printf("\n");
    va_end(arguments);
    fflush(stdout);
    right ? passed++ : failed++;
    return right;
}

/* ==== Gradient checks ==============================================================================================
 * A check is a loss, a function of some tensors, with its backward. Each element of each gradient is compared with the
 * central difference (L(x + eps) - L(x - eps)) / 2 eps. Error of an element: |a - n| / max(|a|, |n|, floor), where the
 * floor is 1e-6 of the check's largest gradient.
 */
typedef struct Check Check;
struct Check {
    const char *name;
    Parameters tensors;             /* what the loss depends on, all with a gradient */
    double (*loss)(Check *, bool);  /* true: also add to the gradients */
    Tensor weights;                 /* loss = sum of weights * output, for layers whose output is a matrix */
    const char *no_gradient;        /* the tensor whose gradient is zero by nature */
    const void *layer;
    Batch batch;
    Random random;
};
enum { MAX_TENSORS = 96 };
static const double TOLERANCE = 1e-4, EPSILON = 1e-5;

static Check check_new(const char *name, double (*loss)(Check *, bool), const void *layer) {
    return (Check){.name = name, .loss = loss, .layer = layer, .random = {7},
                   .tensors = {allocate_zeroed(sizeof(Parameter[MAX_TENSORS])), 0}};
}
static Tensor random_tensor(Check *c, int rows, int cols) {
    Tensor t = tensor(rows, cols);
    fill_normal(t, 1, &c->random);
    return t;
}
static void depends_on(Check *c, const char *name, Tensor *t) {
    Parameter *p = &c->tensors.at[c->tensors.count++];
    snprintf(p->name, MAX_NAME, "%s", name);
    p->tensor = t;
    needs_grad(t);
}
/* Sum of weights * y; its gradient with respect to y, when asked for, is weights. */
static double weighted_sum(Check *c, Tensor *y, bool backward) {
    double sum = 0;
    if (!c->weights.data) c->weights = random_tensor(c, y->rows, y->cols);
    for (size_t i = 0; i < size_of(*y); i++) sum += (double)c->weights.data[i] * (double)y->data[i];
    if (backward) needs_grad(y), memcpy(y->grad, c->weights.data, size_of(*y) * sizeof(real));
    return sum;
}

static double loss_at(Check *c) {
    Mark before = mark();
    const double loss = c->loss(c, false);
    release(before);
    return loss;
}
static bool gradcheck(Check *c) {
    double largest = 0, worst = 0, worst_analytic = 0, worst_numeric = 0;
    const char *worst_name = "";
    size_t worst_at = 0, elements = 0;
    bool zero = true;
    c->loss(c, false); /* draws the weights of the loss, which stay */
    Mark before = mark();
    c->loss(c, true);
    release(before);
    for (int k = 0; k < c->tensors.count; k++)
        for (size_t i = 0; i < size_of(*c->tensors.at[k].tensor); i++) largest = fmax(largest, fabs((double)c->tensors.at[k].tensor->grad[i]));
    for (int k = 0; k < c->tensors.count; k++) {
        const Tensor *t = c->tensors.at[k].tensor;
        for (size_t i = 0; i < size_of(*t); i++, elements++) {
            const real keep = t->data[i];
            t->data[i] = keep + (real)EPSILON;
            const double up = loss_at(c);
            t->data[i] = keep - (real)EPSILON;
            const double down = loss_at(c);
            t->data[i] = keep;
            const double analytic = (double)t->grad[i], numeric = (up - down) / (2 * EPSILON);
            if (c->no_gradient && strstr(c->tensors.at[k].name, c->no_gradient)) {
                zero &= fabs(analytic) < 1e-10 * largest && fabs(numeric) < 1e-6 * largest;
                continue;
            }
            const double error = fabs(analytic - numeric) / fmax(fmax(fabs(analytic), fabs(numeric)), 1e-6 * largest);
            if (!(error <= worst)) worst = error, worst_at = i, worst_name = c->tensors.at[k].name, worst_analytic = analytic, worst_numeric = numeric;
        }
    }
    if (c->no_gradient) check(zero, "%-14s the gradient of every %s is zero: softmax ignores a shift", c->name, c->no_gradient);
    return check(worst < TOLERANCE && largest > 0, "%-14s %6zu elements, worst relative error %.1e at %s[%zu]: %.6g, numeric %.6g", c->name,
                 elements, worst, worst_name, worst_at, worst_analytic, worst_numeric);
}

/* The layers, each as one loss. */
static Tensor input[6]; /* x, or q k v */

static double linear_loss(Check *c, bool backward) {
    Tensor y = linear_forward(c->layer, input[0]);
    const double loss = weighted_sum(c, &y, backward);
    if (backward) linear_backward(c->layer, input[0], y);
    return loss;
}
static double residual_loss(Check *c, bool backward) { /* of a copy: it works in place */
    Tensor sum = tensor(input[0].rows, input[0].cols);
    memcpy(sum.data, input[0].data, size_of(sum) * sizeof(real));
    residual_forward(sum, input[1]);
    const double loss = weighted_sum(c, &sum, backward);
    if (backward) {
        residual_backward(sum, input[1]);
        residual_backward(sum, input[0]);
    }
    return loss;
}
static double layernorm_loss(Check *c, bool backward) {
    Tensor y = layernorm_forward(c->layer, input[0]);
    const double loss = weighted_sum(c, &y, backward);
    if (backward) layernorm_backward(c->layer, input[0], y);
    return loss;
}
static double gelu_loss(Check *c, bool backward) {
    Tensor y = gelu_forward(input[0]);
    const double loss = weighted_sum(c, &y, backward);
    if (backward) gelu_backward(input[0], y);
    return loss;
}
static double relu_loss(Check *c, bool backward) {
    Tensor y = relu_forward(input[0]);
    const double loss = weighted_sum(c, &y, backward);
    if (backward) relu_backward(input[0], y);
    return loss;
}
static double softmax_loss(Check *c, bool backward) {
    Tensor p = tensor(input[0].rows, input[0].cols);
    memcpy(p.data, input[0].data, size_of(p) * sizeof(real));
    for (int i = 0; i < p.rows; i++) softmax_forward(row(p, i), p.cols, (real)0.7);
    const double loss = weighted_sum(c, &p, backward);
    for (int i = 0; backward && i < p.rows; i++) {
        softmax_backward(row(p, i), grad_row(p, i), p.cols, (real)0.7);
        for (int j = 0; j < p.cols; j++) grad_row(input[0], i)[j] += grad_row(p, i)[j];
    }
    return loss;
}
static const int targets[] = {2, 0, 5, 1, 3, 4};
static double cross_entropy_loss(Check *c, bool backward) {
    (void)c;
    if (backward) cross_entropy_backward(input[0], targets);
    return cross_entropy_forward(input[0], targets);
}
static double rows_loss(Check *c, bool backward) {
    Tensor y = rows_forward(input[0], c->batch.read, c->batch.reads);
    const double loss = weighted_sum(c, &y, backward);
    if (backward) rows_backward(input[0], c->batch.read, y);
    return loss;
}
static double attention_loss(Check *c, bool backward) {
    const int *asking = input[0].rows == c->batch.tokens ? c->batch.start : c->batch.read_start;
    Attention a = attention_forward(input[0], input[1], input[2], 2, &c->batch, asking);
    const double loss = weighted_sum(c, &a.context, backward);
    if (backward) attention_backward(&a, input[0], input[1], input[2], 2, &c->batch, asking);
    return loss;
}
static double embeddings_loss(Check *c, bool backward) {
    Tensor sum = embeddings_forward(c->layer, input[0], &c->batch);
    const double loss = weighted_sum(c, &sum, backward);
    if (backward) embeddings_backward(c->layer, input[0], sum, &c->batch);
    return loss;
}
static double layer_loss(Check *c, bool backward, bool last) {
    LayerActivations a = layer_forward(c->layer, input[0], 2, &c->batch, last);
    const double loss = weighted_sum(c, &a.y, backward);
    if (backward) layer_backward(c->layer, &a, 2, &c->batch, last);
    return loss;
}
static double middle_layer_loss(Check *c, bool backward) { return layer_loss(c, backward, false); }
static double last_layer_loss(Check *c, bool backward) { return layer_loss(c, backward, true); }
static double head_loss(Check *c, bool backward) {
    HeadActivations a = head_forward(c->layer, input[0]);
    const double loss = weighted_sum(c, &a.logits, backward);
    if (backward) head_backward(c->layer, &a);
    return loss;
}
static double bert_loss(Check *c, bool backward) {
    BertActivations a = bert_forward(c->layer, input[0], &c->batch);
    const double loss = cross_entropy_forward(a.head.logits, targets);
    if (backward) {
        needs_grad(&a.head.logits);
        cross_entropy_backward(a.head.logits, targets);
        bert_backward(c->layer, &a, &c->batch);
    }
    return loss;
}
static double lstm_cell_loss(Check *c, bool backward, bool reverse) {
    const LstmCell *cell = c->layer;
    Tensor h = tensor_zeros(input[0].rows, cell->w_hh.cols);
    LstmTrace trace = lstm_cell_forward(cell, input[0], values(h), reverse);
    const double loss = weighted_sum(c, &h, backward);
    if (backward) lstm_cell_backward(cell, input[0], values(h), gradient(h), trace, reverse);
    return loss;
}
static double lstm_forward_loss(Check *c, bool backward) { return lstm_cell_loss(c, backward, false); }
static double lstm_reverse_loss(Check *c, bool backward) { return lstm_cell_loss(c, backward, true); }
static double lstm_stack_loss(Check *c, bool backward) {
    const Lstm *lstm = c->layer;
    LstmActivations a = lstm_forward(lstm, input[0]);
    const double loss = weighted_sum(c, &a.output[lstm->layers - 1], backward);
    if (backward) lstm_backward(lstm, input[0], a);
    return loss;
}
static const int mixed_ids[] = {3, -1, 0, -3, 3, -2, 2}; /* words and pseudo-tokens, one of them twice */
static double embed_loss(Check *c, bool backward) {
    Tensor e = embed_forward(input[0], input[1], mixed_ids, 7);
    const double loss = weighted_sum(c, &e, backward);
    if (backward) embed_backward(input[0], input[1], mixed_ids, e);
    return loss;
}
static double encoder_loss(Check *c, bool backward) {
    EncoderActivations a = encoder_forward(c->layer);
    if (backward && ((const PromptEncoder *)c->layer)->kind == ENCODER_EMBEDDING) {
        Tensor h = a.prompt; /* its gradient is that of the embedding */
        const double loss = weighted_sum(c, &h, true);
        memcpy(a.prompt.grad, h.grad, size_of(h) * sizeof(real));
        return loss;
    }
    const double loss = weighted_sum(c, &a.prompt, backward);
    if (backward) encoder_backward(c->layer, &a);
    return loss;
}
/* The whole: rows -> template -> encoder -> BERT -> loss, with respect to the encoder and to all of BERT. */
static const Bert *whole_bert;
static Rows whole_rows;
static double whole_loss(Check *c, bool backward) {
    const PromptEncoder *encoder = c->layer;
    if (backward) return train_batch(whole_bert, encoder, &whole_rows, NULL);
    const Tensor e = embed_forward(whole_bert->word, encoder_forward(encoder).prompt, whole_rows.id, whole_rows.batch.tokens);
    return cross_entropy_forward(bert_forward(whole_bert, e, &whole_rows.batch).head.logits, whole_rows.target);
}

/* Two ragged sequences of 3 and 4 rows; three rows are read. */
static Batch ragged(void) {
    static int start[] = {0, 3, 7}, read_start[] = {0, 1, 3}, read[] = {1, 3, 6};
    return (Batch){2, 7, 3, start, read_start, read};
}
static void small_bert(Bert *bert, Random *random) {
    *bert = (Bert){.hidden = 8, .layers = 2, .heads = 2, .intermediate = 12, .vocab = 9, .positions = 10, .types = 2, .eps = (real)1e-12};
    bert->layer = allocate_zeroed(sizeof(BertLayer[2]));
    bert_list_weights(bert);
    for (int i = 0; i < bert->weights.count; i++) {
        Tensor *t = bert->weights.at[i].tensor;
        *t = tensor(t->rows, t->cols);
        fill_normal(*t, 0.5, random);
        for (size_t j = 0; strstr(bert->weights.at[i].name, "LayerNorm.weight") && j < size_of(*t); j++) t->data[j] += 1;
    }
}
static void depends_on_all(Check *c, Parameters list, const char *part) { /* those whose name has `part` in it */
    for (int i = 0; i < list.count; i++)
        if (strstr(list.at[i].name, part)) depends_on(c, list.at[i].name, list.at[i].tensor);
}

/* All checks, or the one with this name. The primitives first, then what is built from them. */
static bool wanted(const char *only, const char *name) { return !only || !strcmp(only, name); }

static void section_gradients(const char *only) {
    static Bert bert;
    static PromptEncoder encoder;
    Mark start = mark();
    printf("\n== gradients, %s, eps %g ==\n", sizeof(real) == 8 ? "double" : "float", EPSILON);
    if (wanted(only, "linear")) {
        Linear l;
        Check c = check_new("linear", linear_loss, &l);
        l = (Linear){random_tensor(&c, 3, 4), random_tensor(&c, 1, 3)};
        input[0] = random_tensor(&c, 5, 4);
        depends_on(&c, "x", &input[0]), depends_on(&c, "w", &l.w), depends_on(&c, "b", &l.b);
        gradcheck(&c);
    }
    if (wanted(only, "residual")) {
        Check c = check_new("residual", residual_loss, NULL);
        input[0] = random_tensor(&c, 3, 4), input[1] = random_tensor(&c, 3, 4);
        depends_on(&c, "x", &input[0]), depends_on(&c, "y", &input[1]);
        gradcheck(&c);
    }
    if (wanted(only, "layernorm")) {
        LayerNorm l;
        Check c = check_new("layernorm", layernorm_loss, &l);
        l = (LayerNorm){random_tensor(&c, 1, 6), random_tensor(&c, 1, 6), (real)1e-5};
        input[0] = random_tensor(&c, 4, 6);
        depends_on(&c, "x", &input[0]), depends_on(&c, "w", &l.w), depends_on(&c, "b", &l.b);
        gradcheck(&c);
    }
    if (wanted(only, "gelu")) {
        Check c = check_new("gelu", gelu_loss, NULL);
        input[0] = random_tensor(&c, 5, 7);
        depends_on(&c, "x", &input[0]);
        gradcheck(&c);
    }
    if (wanted(only, "relu")) {
        Check c = check_new("relu", relu_loss, NULL);
        input[0] = random_tensor(&c, 5, 7);
        depends_on(&c, "x", &input[0]);
        gradcheck(&c);
    }
    if (wanted(only, "softmax")) {
        Check c = check_new("softmax", softmax_loss, NULL);
        input[0] = random_tensor(&c, 4, 5);
        depends_on(&c, "x", &input[0]);
        gradcheck(&c);
    }
    if (wanted(only, "cross-entropy")) {
        Check c = check_new("cross-entropy", cross_entropy_loss, NULL);
        input[0] = random_tensor(&c, 6, 6);
        depends_on(&c, "x", &input[0]);
        gradcheck(&c);
    }
    if (wanted(only, "rows")) {
        Check c = check_new("rows", rows_loss, NULL);
        c.batch = ragged();
        input[0] = random_tensor(&c, 7, 4);
        depends_on(&c, "x", &input[0]);
        gradcheck(&c);
    }
    for (int reads = 0; reads < 2; reads++) {
        if (!wanted(only, "attention")) continue;
        Check c = check_new("attention", attention_loss, NULL);
        c.batch = ragged();
        input[0] = random_tensor(&c, reads ? 3 : 7, 6), input[1] = random_tensor(&c, 7, 6), input[2] = random_tensor(&c, 7, 6);
        depends_on(&c, reads ? "q of the rows read" : "q", &input[0]), depends_on(&c, "k", &input[1]), depends_on(&c, "v", &input[2]);
        gradcheck(&c);
    }
    if (wanted(only, "embeddings")) {
        Check c = check_new("embeddings", embeddings_loss, &bert);
        c.batch = ragged();
        small_bert(&bert, &c.random);
        input[0] = random_tensor(&c, 7, 8);
        depends_on(&c, "e", &input[0]), depends_on(&c, "position", &bert.position), depends_on(&c, "type", &bert.type);
        gradcheck(&c);
    }
    if (wanted(only, "embed")) {
        Check c = check_new("embed", embed_loss, NULL);
        input[0] = random_tensor(&c, 4, 3), input[1] = random_tensor(&c, 3, 3);
        depends_on(&c, "word", &input[0]), depends_on(&c, "prompt", &input[1]);
        gradcheck(&c);
    }
    for (int reverse = 0; reverse < 2; reverse++) {
        LstmCell cell;
        Check c = check_new(reverse ? "lstm reverse" : "lstm", reverse ? lstm_reverse_loss : lstm_forward_loss, &cell);
        if (!wanted(only, c.name)) continue;
        cell = (LstmCell){random_tensor(&c, 12, 4), random_tensor(&c, 12, 3), random_tensor(&c, 1, 12), random_tensor(&c, 1, 12)};
        input[0] = random_tensor(&c, 5, 4);
        depends_on(&c, "x", &input[0]), depends_on(&c, "w_ih", &cell.w_ih), depends_on(&c, "w_hh", &cell.w_hh);
        depends_on(&c, "b_ih", &cell.b_ih), depends_on(&c, "b_hh", &cell.b_hh);
        gradcheck(&c);
    }
    if (wanted(only, "lstm stack")) {
        Lstm lstm = lstm_new(2, 4, 3);
        Check c = check_new("lstm stack", lstm_stack_loss, &lstm);
        Parameters list = {allocate(sizeof(Parameter[16])), 16};
        lstm_parameters(&lstm, "", list.at);
        for (int i = 0; i < 16; i++) fill_normal(*list.at[i].tensor, 0.7, &c.random);
        input[0] = random_tensor(&c, 5, 4);
        depends_on(&c, "x", &input[0]), depends_on_all(&c, list, "");
        gradcheck(&c);
    }
    for (int last = 0; last < 2; last++) {
        Check c = check_new(last ? "last layer" : "layer", last ? last_layer_loss : middle_layer_loss, NULL);
        if (!wanted(only, c.name)) continue;
        c.batch = ragged(), c.no_gradient = "key.bias";
        small_bert(&bert, &c.random);
        c.layer = &bert.layer[0];
        input[0] = random_tensor(&c, 7, 8);
        depends_on(&c, "x", &input[0]), depends_on_all(&c, bert.weights, "layer.0.");
        gradcheck(&c);
    }
    if (wanted(only, "head")) {
        Check c = check_new("head", head_loss, &bert);
        small_bert(&bert, &c.random);
        input[0] = random_tensor(&c, 3, 8);
        depends_on(&c, "x", &input[0]), depends_on(&c, "word", &bert.word), depends_on_all(&c, bert.weights, "cls.");
        gradcheck(&c);
    }
    if (wanted(only, "bert")) {
        Check c = check_new("bert", bert_loss, &bert);
        c.batch = ragged(), c.no_gradient = "key.bias";
        small_bert(&bert, &c.random);
        input[0] = random_tensor(&c, 7, 8);
        depends_on(&c, "e", &input[0]), depends_on_all(&c, bert.weights, "");
        gradcheck(&c);
    }
    for (int kind = ENCODER_LSTM; kind <= ENCODER_EMBEDDING; kind++) {
        static const char *const names[] = {"encoder lstm", "encoder mlp", "encoder embedding"};
        Check c = check_new(names[kind], encoder_loss, &encoder);
        if (!wanted(only, c.name)) continue;
        encoder_init(&encoder, (EncoderKind)kind, 3, 6);
        encoder_random(&encoder, 1, &c.random);
        depends_on_all(&c, encoder.weights, "");
        gradcheck(&c);
    }
    if (wanted(only, "whole")) {
        Check c = check_new("whole", whole_loss, &encoder);
        int ids[2][6] = {{1, -1, 5, -2, 4, 2}, {1, -1, 7, 6, -2, 4}}, order[] = {0, 1};
        Example examples[] = {{.id = ids[0], .length = 6, .mask = 4, .answer = 3}, {.id = ids[1], .length = 6, .mask = 5, .answer = 8}};
        c.no_gradient = "key.bias";
        small_bert(&bert, &c.random);
        whole_bert = &bert;
        whole_rows = rows_of(examples, order, 2);
        encoder_init(&encoder, ENCODER_LSTM, 2, 8);
        encoder_random(&encoder, 1, &c.random);
        depends_on_all(&c, encoder.weights, ""), depends_on_all(&c, bert.weights, "");
        gradcheck(&c);
    }
    release(start);
}

/* ==== Comparisons: files of expected values ======================================================================== */

static bool have(const char *path) {
    if (file_exists(path)) return true;
    printf("not run: %s is not there\n", path);
    return false;
}
/* Largest |a - b| over the numbers, as a share of the largest |b|. */
static double largest_difference(const real *a, const real *b, size_t count) {
    double difference = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)(a[i] - b[i])) <= difference)) difference = fabs((double)(a[i] - b[i]));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return difference / largest;
}
static Tensor expected(const Safetensors *file, const char *name) {
    Tensor t;
    if (!safetensors_find(file, name, &t)) die("%s: no tensor %s", file->path, name);
    return t;
}
static bool ids_are(const int *id, int count, Text array) {
    Text key, value;
    int i = 0;
    for (size_t position = 0; json_next(array, &position, &key, &value); i++)
        if (i >= count || json_int(value) != id[i]) return false;
    return i == count;
}
static Text member(Text object, const char *name, const char *path) {
    Text value;
    if (!json_member(object, name, &value)) die("%s: no %s", path, name);
    return value;
}
static Text read_json(const char *path) {
    Text json = read_file(path);
    json_check(json, path, 0);
    return json;
}

/* ---- The fast forms of exp and of the normal distribution against libm ---------------------------------------------- */
static void section_arithmetic(void) {
    printf("\n== arithmetic ==\n");
    double exp_error = 0, cdf_error = 0, bound = sizeof(real) == 8 ? 1e-15 : 2.5e-7;
    for (double x = -86; x < 88; x += 0.0137) {
        const real r = (real)x, bell = exp_fast(-r * r / 2);
        exp_error = fmax(exp_error, fabs((double)exp_fast(r) / exp((double)r) - 1));
        cdf_error = fmax(cdf_error, fabs((double)normal_cdf(r, bell) - erfc(-(double)r / sqrt(2.0)) / 2));
    }
    check(exp_error < bound, "exp_fast: relative error %.1e", exp_error);
    check(cdf_error < bound, "normal_cdf: error %.1e", cdf_error);
    check(isnan(exp_fast((real)NAN)), "exp_fast(NaN) is NaN");
    Random random = {1};
    double worst = 0;
    for (int trial = 0; trial < 400; trial++) { /* all strides, all edges of the tiles */
        Mark before = mark();
        const int m = 1 + (int)(random_bits(&random) % 70), n = 1 + (int)(random_bits(&random) % 70);
        const int k = 1 + (int)(random_bits(&random) % (trial % 50 ? 90u : 1600u));
        Tensor a = tensor(m, k), b = tensor(k, n), c = tensor(m, n), d = tensor(m, n), at = tensor(k, m), bt = tensor(n, k), dt = tensor(n, m);
        fill_normal(a, 1, &random), fill_normal(b, 1, &random), fill_normal(c, 1, &random);
        for (int i = 0; i < m; i++)
            for (int p = 0; p < k; p++) row(at, p)[i] = row(a, i)[p];
        for (int p = 0; p < k; p++)
            for (int j = 0; j < n; j++) row(bt, j)[p] = row(b, p)[j];
        const Matrix result = trial & 4 ? transposed(values(dt)) : values(d);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) result.data[i * result.row_stride + j * result.col_stride] = row(c, i)[j];
        matmul(result, trial & 1 ? transposed(values(at)) : values(a), trial & 2 ? transposed(values(bt)) : values(b));
        matmul_naive(values(c), values(a), values(b));
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                worst = fmax(worst, fabs((double)(result.data[i * result.row_stride + j * result.col_stride] - row(c, i)[j])) / sqrt(k));
        release(before);
    }
    check(worst < 100 * (double)(sizeof(real) == 8 ? DBL_EPSILON : FLT_EPSILON), "matmul: blocked and naive differ by %.1e on 400 shapes", worst);
}

/* ---- tokenizer.h against the tokenizers library ---------------------------------------------------------------------- */
/* The hash that the files of expected values are made of: their first line has the rule. */
static uint64_t hash_block(const Vocab *vocab, uint32_t block, const char *before, const char *after) {
    uint64_t hash = 0xCBF29CE484222325u;
    Mark start = mark();
    for (uint32_t c = block; c < block + 0x1000; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        char text[32];
        size_t n = strlen(before);
        memcpy(text, before, n);
        n += utf8_encode(c, text + n);
        memcpy(text + n, after, strlen(after));
        Ids ids = {0};
        tokenize(vocab, (Text){text, n + strlen(after)}, &ids);
        for (int i = 0; i <= ids.count; i++) {
            uint32_t id = i < ids.count ? (uint32_t)ids.id[i] : UINT32_MAX;
            for (int byte = 0; byte < 4; byte++, id >>= 8) hash = (hash ^ (id & 0xFF)) * 0x100000001B3u;
        }
        release(start);
    }
    return hash;
}
static void check_unicode(const char *path, const Vocab *cased, const Vocab *uncased, const char *before, const char *after) {
    if (!have(path)) return;
    Text rest = read_file(path);
    int blocks = 0, wrong = 0;
    for (Text line; next_line(&rest, &line);) {
        char *end;
        if (!line.size || line.data[0] == '#') continue;
        Mark start = mark();
        const uint32_t block = (uint32_t)strtoul(text_string(line), &end, 16);
        const uint64_t want[2] = {strtoull(end, &end, 16), strtoull(end, &end, 16)};
        wrong += hash_block(cased, block, before, after) != want[0];
        wrong += hash_block(uncased, block, before, after) != want[1];
        blocks++;
        release(start);
    }
    check(blocks == 272 && !wrong, "%s: every code point, cased and uncased: %d of 544 blocks differ", path, wrong);
}
/* A vocabulary in which nothing is unknown: the markers, then c and ##c for every code point. It tells apart what the
 * published ones call [UNK]. */
static Vocab vocab_of_everything(bool cased) {
    char *text = allocate(16u << 20), *at = text;
    at += sprintf(at, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n");
    for (uint32_t c = 0x21; c < 0x110000; c++) {
        char piece[4];
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        const int n = (int)utf8_encode(c, piece);
        at += sprintf(at, "%.*s\n##%.*s\n", n, piece, n, piece);
    }
    Vocab vocab = {.cased = cased};
    vocab_read(&vocab, (Text){text, (size_t)(at - text)}, "every code point");
    vocab.pad = 0, vocab.unk = 1, vocab.cls = 2, vocab.sep = 3, vocab.mask = 4;
    return vocab;
}
static void section_tokenizer(const char *oracles) {
    printf("\n== tokenizer ==\n");
    Mark start = mark();
    const Vocab cased = vocab_load("data/expected/bert-base-cased"), uncased = vocab_load("data/expected/bert-base-uncased");
    check(cased.cased && !uncased.cased, "cased or uncased is told from the vocabulary");
    const char *path = format("%s/tokenizer.jsonl", oracles);
    if (have(path)) {
        Text rest = read_file(path);
        int rows = 0, wrong = 0, line_number = 0;
        for (Text line; next_line(&rest, &line); rows++) {
            json_check(line, path, ++line_number);
            const Text text = json_string(member(line, "text", path));
            for (int k = 0; k < 2; k++) {
                Ids ids = {0};
                tokenize_marked(k ? &uncased : &cased, text, &ids);
                if (ids_are(ids.id, ids.count, member(line, k ? "uncased" : "cased", path))) continue;
                printf("      line %d, %s: differs\n", line_number, k ? "uncased" : "cased");
                wrong++;
            }
        }
        check(rows && !wrong, "%s: %d rows, cased and uncased: %d differ", path, rows, wrong);
    }
    check_unicode("data/expected/unicode_check.txt", &cased, &uncased, "a", "b");
    const Vocab every = vocab_of_everything(true), every_lower = vocab_of_everything(false);
    check_unicode("data/expected/unicode_full.txt", &every, &every_lower, "a\xE3\x80\xAE", "\xE1\xAE\xAA" "b"); /* U+302E, U+1BAA */
    Ids plain = {0}, marked = {0}, bad = {0}, good = {0};
    tokenize(&cased, text_of("x[MASK]"), &plain), tokenize_marked(&cased, text_of("x[MASK]"), &marked);
    check(marked.count == 2 && marked.id[1] == cased.mask && plain.count > 2, "[MASK] is a marker in marked text and plain words in plain text");
    tokenize(&cased, (Text){"he\xFFllo \xE2\x82", 9}, &bad), tokenize(&cased, text_of("hello"), &good);
    check(bad.count == good.count && bad.id[0] == good.id[0], "bytes that are not UTF-8 are dropped");
    release(start);
}

/* ---- lstm.h against torch.nn.LSTM: outputs and every gradient ---------------------------------------------------------- */
static void section_lstm(const char *oracles) {
    printf("\n== bi-LSTM ==\n");
    const char *path = format("%s/bilstm.safetensors", oracles);
    if (!have(path)) return;
    Mark start = mark();
    const Safetensors file = safetensors_open(path);
    int layers = 0;
    for (Text entry; json_member(file.header, format("weight_ih_l%d", layers), &entry);) layers++;
    Tensor x = expected(&file, "x"), y = expected(&file, "y"), dy = expected(&file, "dy");
    Lstm lstm = lstm_new(layers, x.cols, y.cols / 2);
    Parameters list = {allocate(sizeof(Parameter[8 * layers])), 8 * layers};
    lstm_parameters(&lstm, "", list.at);
    for (int i = 0; i < list.count; i++) {
        Tensor *t = list.at[i].tensor;
        *t = safetensors_get(&file, list.at[i].name, t->rows, t->cols);
        needs_grad(t);
    }
    needs_grad(&x);
    LstmActivations a = lstm_forward(&lstm, x);
    a.output[layers - 1].grad = dy.data;
    lstm_backward(&lstm, x, a);
    const double output = largest_difference(a.output[layers - 1].data, y.data, size_of(y));
    check(output < 1e-5, "%s: output differs by %.1e", path, output);
    double worst = largest_difference(x.grad, expected(&file, "dx").data, size_of(x));
    for (int i = 0; i < list.count; i++) {
        const Tensor want = expected(&file, format("grad.%s", list.at[i].name));
        worst = fmax(worst, largest_difference(list.at[i].tensor->grad, want.data, size_of(want)));
    }
    check(worst < 1e-5, "%s: dx and the gradient of %d weights differ by %.1e", path, list.count, worst);
    release(start);
}

/* ---- ptune.c against a training run in PyTorch -------------------------------------------------------------------------- */
/* "[CLS] P P subject [MASK] [SEP]" and a subject as an example; ids of the markers as in the oracle. */
static Example oracle_example(Text template, Text subject, int answer) {
    Ids ids = {0};
    Example e = {.answer = answer};
    int pseudo = 0;
    const char *at = template.data, *end = at + template.size;
    while (at < end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        const Text word = {at, (size_t)((space ? space : end) - at)};
        Text key, value;
        if (text_is(word, "P")) ids_push(&ids, -1 - pseudo++);
        if (text_is(word, "[CLS]")) ids_push(&ids, 2);
        if (text_is(word, "[SEP]")) ids_push(&ids, 3);
        if (text_is(word, "[MASK]")) e.mask = ids.count, ids_push(&ids, 4);
        for (size_t position = 0; text_is(word, "subject") && json_next(subject, &position, &key, &value);) ids_push(&ids, json_int(value));
        at = space ? space + 1 : end;
    }
    e.id = ids.id, e.length = ids.count;
    return e;
}
/* Train as in the file; the largest relative difference of a loss. */
static double replay(Text run, const char *part, Bert *bert, PromptEncoder *encoder, Text template, const char *path, int *steps) {
    Text key, batch, pair;
    const Text plan = member(run, part, path), losses = member(plan, "losses", path), batches = member(run, "batches", path);
    const Parameters trained = encoder ? encoder->weights : bert->weights;
    const Optimizer adam = {json_number(member(plan, "lr", path)), 5e-4, false};
    double worst = 0;
    size_t at_batch = 0, at_loss = 0;
    Text want;
    parameters_train(trained);
    for (*steps = 0; json_next(losses, &at_loss, &key, &want) && json_next(batches, &at_batch, &key, &batch); ++*steps) {
        Mark before = mark();
        Example examples[64];
        int order[64], count = 0;
        for (size_t at = 0; count < 64 && json_next(batch, &at, &key, &pair); count++) {
            Text subject = {"", 0}, answer = {"", 0};
            size_t within = 0;
            json_next(pair, &within, &key, &subject);
            json_next(pair, &within, &key, &answer);
            examples[count] = oracle_example(template, subject, json_int(answer));
            order[count] = count;
        }
        const Rows rows = rows_of(examples, order, count);
        const double loss = train_batch(bert, encoder, &rows, NULL);
        adam_step(trained, adam, *steps + 1, 1);
        worst = fmax(worst, fabs(loss / json_number(want) - 1));
        release(before);
    }
    return worst;
}
static void section_training(const char *oracles) {
    printf("\n== training ==\n");
    const char *folder = format("%s/tiny", oracles), *path = format("%s/run.json", folder);
    if (!have(path)) return;
    static Bert bert;
    static PromptEncoder encoder;
    Mark start = mark();
    const Text run = read_json(path), template = json_string(member(run, "template", path));
    const Safetensors before = safetensors_open(format("%s/encoder.safetensors", folder));
    const Safetensors after = safetensors_open(format("%s/encoder_after_30.safetensors", folder));
    int steps;
    bert_load(&bert, folder);
    encoder_init(&encoder, ENCODER_LSTM, expected(&before, "embedding.weight").rows, bert.hidden);
    for (int i = 0; i < encoder.weights.count; i++) {
        Tensor *t = encoder.weights.at[i].tensor;
        *t = safetensors_get(&before, encoder.weights.at[i].name, t->rows, t->cols);
    }
    double worst = replay(run, "p_tuning", &bert, &encoder, template, path, &steps);
    check(worst < 1e-4, "%s: %d losses of P-tuning, relative difference at most %.1e", path, steps, worst);
    worst = 0;
    for (int i = 0; i < encoder.weights.count; i++) {
        const Tensor *t = encoder.weights.at[i].tensor;
        worst = fmax(worst, largest_difference(t->data, expected(&after, encoder.weights.at[i].name).data, size_of(*t)));
    }
    check(worst < 1e-3, "%s: the encoder's weights after them differ by %.1e", path, worst);
    const Tensor prompt = encoder_forward(&encoder).prompt;
    worst = largest_difference(prompt.data, expected(&after, "prompt").data, size_of(prompt));
    check(worst < 1e-3, "%s: the prompt after them differs by %.1e", path, worst);
    const Text fine = json_string(member(member(run, "fine_tuning", path), "template", path));
    worst = replay(run, "fine_tuning", &bert, NULL, fine, path, &steps);
    check(worst < 1e-4, "%s: %d losses of fine-tuning, relative difference at most %.1e", path, steps, worst);
    bert_close(&bert);
    release(start);
}

/* ---- The real BERT-base --------------------------------------------------------------------------------------------------- */
static void check_fill(const char *path, const Model *model) {
    if (!have(path)) return;
    Text rest = read_file(path), key, value;
    int rows = 0, wrong_ids = 0, wrong_words = 0, line_number = 0;
    double worst = 0;
    for (Text line; next_line(&rest, &line); rows++) {
        Mark before = mark();
        json_check(line, path, ++line_number);
        Ids ids = {0};
        ids_push(&ids, model->vocab.cls);
        tokenize_marked(&model->vocab, json_string(member(line, "text", path)), &ids);
        ids_push(&ids, model->vocab.sep);
        wrong_ids += !ids_are(ids.id, ids.count, member(line, "ids", path));
        int mask = json_int(member(line, "mask_position", path)), start[] = {0, ids.count}, read_start[] = {0, 1};
        if (mask >= ids.count || mask < 0) die("%s:%d: mask_position", path, line_number);
        const Batch batch = {1, ids.count, 1, start, read_start, &mask};
        const Tensor e = embed_forward(model->bert.word, (Tensor){0}, ids.id, ids.count);
        real *logits = bert_forward(&model->bert, e, &batch).head.logits.data;
        const double all = log_sum_exp(logits, model->bert.vocab);
        const Text words = member(line, "top5", path), scores = member(line, "logits", path), logs = member(line, "log_probs", path);
        for (size_t at_word = 0, at_score = 0, at_log = 0; json_next(words, &at_word, &key, &value);) {
            Text score = {"", 0}, log_probability = {"", 0};
            json_next(scores, &at_score, &key, &score);
            json_next(logs, &at_log, &key, &log_probability);
            int best = 0;
            for (int w = 0; w < model->bert.vocab; w++)
                if (logits[w] > logits[best]) best = w;
            wrong_words += !text_equal(model->vocab.piece[best], json_string(value));
            worst = fmax(worst, fabs((double)logits[best] - json_number(score)));
            worst = fmax(worst, fabs((double)logits[best] - all - json_number(log_probability)));
            logits[best] = -INFINITY;
        }
        release(before);
    }
    check(rows && !wrong_ids && !wrong_words && worst < 5e-3, "%s: %d texts: %d with other ids, %d other words, logits differ by %.1e", path, rows, wrong_ids, wrong_words, worst);
}
/* Loss and gradient of a fixed prompt, both orders of mask and subject, against autograd. */
static void check_prompt_gradient(const char *path, const Model *model) {
    if (!have(path)) return;
    static const char *const orders[][2] = {{"mask_first", "[P][P][P] [MASK] [P][P][P] [X] [P][P][P]"}, {"subject_first", "[P][P][P] [X] [P][P][P] [MASK] [P][P][P]"}};
    const Safetensors file = safetensors_open(path);
    const Text rows = safetensors_metadata(&file, "rows");
    json_check(rows, path, 0);
    for (int k = 0; k < 2; k++) {
        Mark before = mark();
        const Template t = template_parse(orders[k][1]);
        Tensor prompt = expected(&file, "prompt");
        const Tensor want = expected(&file, format("grad_%s", orders[k][0]));
        Example examples[64];
        int order[64], count = 0;
        Text key, value;
        for (size_t at = 0; count < 64 && json_next(rows, &at, &key, &value); count++) {
            Text field[MAX_PARTS];
            for (int i = 0; i < t.parts; i++) field[i] = json_string(member(value, "sub", path));
            template_fill(&t, &model->vocab, field, model->bert.positions, &examples[count], path, 0);
            examples[count].answer = single_token(&model->vocab, json_string(member(value, "obj", path)));
            order[count] = count;
        }
        const Rows batch = rows_of(examples, order, count);
        needs_grad(&prompt);
        const double loss = loss_and_gradient(&model->bert, prompt, &batch, NULL);
        const double loss_error = fabs(loss - (double)expected(&file, format("loss_%s", orders[k][0])).data[0]);
        double difference = 0, norm = 0;
        for (size_t i = 0; i < size_of(want); i++) {
            difference += pow((double)prompt.grad[i] - (double)want.data[i], 2);
            norm += pow((double)want.data[i], 2);
        }
        check(loss_error < 1e-4 && sqrt(difference / norm) < 1e-4, "%s: %s: loss %.4f differs by %.1e, gradient by %.1e of its norm", path, orders[k][0], loss, loss_error, sqrt(difference / norm));
        release(before);
    }
}
static void section_bert(const char *oracles, const char **folders, int count) {
    static Model model;
    bool seen[2] = {false, false};
    printf("\n== BERT-base ==\n");
    for (int i = 0; i < count; i++) {
        Mark before = mark();
        model_load(&model, folders[i]);
        seen[model.vocab.cased] = true;
        check_fill(format("%s/fill_%s.jsonl", oracles, model.vocab.cased ? "cased" : "uncased"), &model);
        if (model.vocab.cased) check_prompt_gradient(format("%s/prompt_grad_bert_base_cased.safetensors", oracles), &model);
        bert_close(&model.bert);
        release(before);
    }
    for (int k = 1; k >= 0; k--)
        if (!seen[k]) printf("not run: the comparisons with %s: no --bert DIR was given for it\n", k ? "bert-base-cased" : "bert-base-uncased");
}

/* ==== The command line and bad input ================================================================================ */

static void section_command_line(void) { (void)self; }

int main(int count, char **words) {
    const char *oracles = "data/expected", *bert[2];
    int berts = 0;
    self = words[0];
    if (count > 1 && !strcmp(words[1], "as-ptune")) return ptune_main(count - 1, words + 1);
    const bool gradients_only = count > 1 && !strcmp(words[1], "gradcheck");
    for (int i = gradients_only ? 3 : 1; i < count; i++) {
        if (!strcmp(words[i], "--oracles") && i + 1 < count) oracles = words[++i];
        else if (!strcmp(words[i], "--bert") && i + 1 < count && berts < 2) bert[berts++] = words[++i];
        else {
            fprintf(stderr, "usage: test [gradcheck [NAME] | --oracles DIR | --bert DIR [--bert DIR]]\n");
            return 2;
        }
    }
    if (sizeof(real) == 8) section_gradients(gradients_only && count > 2 ? words[2] : NULL);
    if (!gradients_only) {
        section_arithmetic();
        section_tokenizer(oracles);
        section_lstm(oracles);
        section_training(oracles);
        section_bert(oracles, bert, berts);
        section_command_line();
    }
    printf("\n%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
