/* grader.c - grades the class assignments: NOTES.md, "Class assignments".
 *
 *   ./grader next CHECKS CASES                      names the next function, or shows what is wrong with it
 *   ./grader all CHECKS CASES RESULTS PROGRAM ...   all checks, with points; a PROGRAM is a build of this file
 *   ./grader check "gradcheck layernorm" CASES      one check; the two above run each in a process of its own
 *   ./grader record SEED COUNT                      COUNT cases of each function: what the file CASES holds
 *
 * CHECKS has one line per check: points, function, file, check. A check is one of
 *   values NAME      against PyTorch, the tokenizers library or plain sums
 *   gradcheck NAME   a backward pass against its forward pass
 *   cases NAME       against what the right solution computes from inputs whose shapes, values and frozen parts follow
 *                    from a seed. Gradients start at 1, so that one that is set instead of added is recognised.
 */
#define GRADER
#include "test.c"
#include <sys/resource.h>

/* ==== Cases ======================================================================================================= */

enum { MOST_PARTS = 256 }; /* of the templates in the cases */
static int seed;
static Random draw;    /* follows from the seed */
static bool recording;
static Text wanted;    /* what this case must compute: the rest of the file */

static int whole(int least, int most) { return random_int(&draw, least, most); }
static bool chance(int bit) { return seed >> bit & 1; }
static Tensor drawn(int rows, int cols) {
    const Tensor t = tensor(rows, cols);
    fill_normal(t, 1, &draw);
    return t;
}
/* Never two draws in one list of arguments or initial values: their order would be the compiler's. */
static Tensor drawn_up_to(int rows, int cols) {
    const int r = whole(1, rows), c = whole(1, cols);
    return drawn(r, c);
}
static Tensor output_drawn(int rows, int cols) { /* with a gradient */
    Tensor y = drawn(rows, cols);
    y.grad = drawn(rows, cols).data;
    return y;
}
__attribute__((format(printf, 1, 2))) static void explain(const char *form, ...) { /* shown if the case fails */
    va_list arguments;
    va_start(arguments, form);
    if (!recording) printf("      "), vprintf(form, arguments), printf("\n"), fflush(stdout);
    va_end(arguments);
}
/* Gradients that start at 1, unless the tensor is frozen. */
static void trained(Tensor *t) {
    needs_grad(t);
    for (size_t i = 0; i < size_of(*t); i++) t->grad[i] = 1;
}
static void trained_unless(bool frozen, const char *name, Tensor *t) {
    if (frozen) explain("%s is frozen: no gradient", name);
    else trained(t);
}
static void all_trained_unless(bool frozen, const char *name, Parameters list) {
    if (frozen) explain("%s are frozen: no gradients", name);
    for (int i = 0; !frozen && i < list.count; i++) trained(list.at[i].tensor);
}

/* Records what was computed under a name, or compares it with what is wanted; `start` is what a gradient began with. */
static void show(const char *name, const real *got, size_t count, double start) {
    const double tolerance = sizeof(real) == 8 ? 1e-6 : 2e-3;
    Text line;
    if (recording) {
        printf("%s\t%zu", name, count);
        for (size_t i = 0; i < count; i++) printf(" %.9g", (double)got[i]);
        printf("\n");
        return;
    }
    if (!next_line(&wanted, &line) || !text_starts(line, format("%s\t", name))) die("the cases have no %s here", name);
    char *at = text_string(line) + strlen(name);
    const size_t expected_count = strtoul(at, &at, 10);
    if (count != expected_count) {
        check(false, "%s: %zu numbers, expected %zu", name, count, expected_count);
        exit(1);
    }
    double *want = allocate(sizeof(double[count + 1])), largest = 1e-3;
    size_t first = count;
    bool set = start != 0, same = start != 0;
    for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs(want[i] = strtod(at, &at)));
    for (size_t i = count; i-- > 0;) {
        if (!(fabs((double)got[i] - want[i]) <= tolerance * largest)) first = i;
        set &= fabs((double)got[i] - (want[i] - start)) <= tolerance * largest;
        same &= (double)got[i] == start;
    }
    if (first == count) return;
    const char *how = set ? ": set instead of added" : "";
    if (same) how = ": nothing was added";
    check(false, "%s[%zu] is %.9g, expected %.9g%s", name, first, (double)got[first], want[first], how);
    exit(1);
}
static void show_values(const char *name, Tensor t) { show(name, t.data, size_of(t), 0); }
static void show_gradient(const char *name, Tensor t) {
    if (t.grad) show(format("d%s", name), t.grad, size_of(t), 1);
}
static void show_gradients(Parameters list) {
    for (int i = 0; i < list.count; i++) show_gradient(list.at[i].name, *list.at[i].tensor);
}
static void show_number(const char *name, double value) {
    const real number = (real)value;
    show(name, &number, 1, 0);
}
static void show_ids(const char *name, const int *id, int count) {
    real *numbers = allocate(sizeof(real[count + 1]));
    for (int i = 0; i < count; i++) numbers[i] = (real)id[i];
    show(name, numbers, (size_t)count, 0);
}
static void show_bytes(const char *name, Text text) {
    int *id = allocate(sizeof(int[text.size + 1]));
    for (size_t i = 0; i < text.size; i++) id[i] = (unsigned char)text.data[i];
    show_ids(name, id, (int)text.size);
}
/* Whether it ends in `die`: 1 or 0. */
static void show_refused(const char *name, void (*attempt)(void *), void *with) {
    int status;
    fflush(stdout);
    const pid_t child = fork();
    if (!child) {
        if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout)) _exit(2);
        attempt(with);
        _exit(0);
    }
    waitpid(child, &status, 0);
    show_number(format("refused: %s", name), WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

/* ---- tensor.h ---------------------------------------------------------------------------------------------------- */

static void product_case(void (*product)(Matrix, Matrix, Matrix)) {
    const int m = whole(1, 20), n = whole(1, 40), k = whole(1, 30);
    const Matrix a = random_view(m, k, chance(0), &draw), b = random_view(k, n, chance(1), &draw);
    const Matrix c = random_view(m, n, chance(2), &draw);
    const Tensor got = tensor(m, n);
    explain("C (%d, %d) += A (%d, %d) B%s%s%s", m, n, m, k, chance(0) ? ", A transposed" : "",
         chance(1) ? ", B transposed" : "", chance(2) ? ", C transposed" : "");
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) *element(c, i, j) = 1;
    product(c, a, b);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) row(got, i)[j] = *element(c, i, j);
    show("C", got.data, size_of(got), 1);
}
static void case_matmul_naive(void) { product_case(matmul_naive); }
static void case_matmul_share(void) { product_case(matmul_in_shares); }
static void case_matmul(void) { product_case(matmul); }

static Linear linear_drawn(int out, int in) {
    const Tensor w = drawn(out, in), b = drawn(1, out);
    return (Linear){w, b};
}
static LayerNorm layernorm_drawn(int cols, double eps) {
    const Tensor w = drawn(1, cols), b = drawn(1, cols);
    return (LayerNorm){w, b, (real)eps};
}
static void case_linear_forward(void) {
    const int rows = whole(1, 6), in = whole(1, 5), out = whole(1, 7);
    const Linear l = linear_drawn(out, in);
    show_values("y", linear_forward(&l, drawn(rows, in)));
}
static void case_linear_backward(void) {
    const int rows = whole(1, 6), in = whole(1, 5), out = whole(1, 7);
    Linear l = linear_drawn(out, in);
    Tensor x = drawn(rows, in);
    trained_unless(chance(0), "x", &x), trained_unless(chance(1), "w", &l.w), trained_unless(chance(2), "b", &l.b);
    linear_backward(&l, x, output_drawn(rows, out));
    show_gradient("x", x), show_gradient("w", l.w), show_gradient("b", l.b);
}
static void case_residual_forward(void) {
    const int rows = whole(1, 6), cols = whole(1, 6);
    const Tensor x = drawn(rows, cols);
    residual_forward(x, drawn(rows, cols));
    show_values("x", x);
}
static void case_residual_backward(void) {
    const int rows = whole(1, 6), cols = whole(1, 6);
    Tensor y = drawn(rows, cols);
    trained_unless(chance(0), "y", &y);
    residual_backward(output_drawn(rows, cols), y);
    show_gradient("y", y);
}
static void case_layernorm_forward(void) {
    const int rows = whole(1, 6), cols = whole(2, 9);
    const LayerNorm l = layernorm_drawn(cols, chance(0) ? 1e-5 : 0.1);
    const Tensor x = drawn(rows, cols);
    for (int j = 0; j < cols; j++) row(x, rows - 1)[j] += (real)(chance(1) ? 50 : 0);
    show_values("y", layernorm_forward(&l, x));
}
static void case_layernorm_backward(void) {
    const int rows = whole(1, 6), cols = whole(2, 9);
    LayerNorm l = layernorm_drawn(cols, chance(2) ? 1e-5 : 0.1);
    Tensor x = drawn(rows, cols);
    trained_unless(chance(0), "x", &x), trained_unless(chance(1), "w", &l.w), trained_unless(chance(2), "b", &l.b);
    layernorm_backward(&l, x, output_drawn(rows, cols));
    show_gradient("x", x), show_gradient("w", l.w), show_gradient("b", l.b);
}
static void forward_case(Tensor (*forward)(Tensor)) {
    const Tensor x = drawn_up_to(6, 9);
    for (size_t i = 0; i < size_of(x); i++) x.data[i] *= 2;
    show_values("y", forward(x));
}
static void backward_case(void (*backward)(Tensor, Tensor)) {
    Tensor x = drawn_up_to(6, 9);
    for (size_t i = 0; i < size_of(x); i++) x.data[i] *= 2;
    trained(&x);
    backward(x, output_drawn(x.rows, x.cols));
    show_gradient("x", x);
}
static void case_relu_forward(void) { forward_case(relu_forward); }
static void case_relu_backward(void) { backward_case(relu_backward); }
static void case_gelu_forward(void) { forward_case(gelu_forward); }
static void case_gelu_backward(void) { backward_case(gelu_backward); }

/* Logits far from 0, above or below: exp of them overflows or vanishes. */
static Tensor logits_drawn(int most_rows) {
    const int far = (seed % 3 - 1) * 3000, rows = whole(1, most_rows), cols = whole(5, 9);
    const Tensor x = drawn(rows, cols);
    for (size_t i = 0; i < size_of(x); i++) x.data[i] += (real)far;
    explain("logits near %d", far);
    return x;
}
static void case_softmax_forward(void) {
    const Tensor x = logits_drawn(1);
    softmax_forward(x.data, x.cols, (real)(0.2 + 1.5 * uniform(&draw)));
    show_values("p", x);
}
static void case_softmax_backward(void) {
    const int cols = whole(1, 9);
    const real scale = (real)(0.2 + 1.5 * uniform(&draw));
    const Tensor p = drawn(1, cols), dp = drawn(1, cols);
    softmax_forward(p.data, cols, 1);
    softmax_backward(p.data, dp.data, cols, scale);
    show_values("dx", dp);
}
static int *targets_drawn(int rows, int cols) {
    int *target = allocate(sizeof(int[rows]));
    for (int i = 0; i < rows; i++) target[i] = whole(0, cols - 1);
    return target;
}
static void case_cross_entropy_forward(void) {
    const Tensor x = logits_drawn(4);
    show_number("loss", cross_entropy_forward(x, targets_drawn(x.rows, x.cols)));
}
static void case_cross_entropy_backward(void) {
    Tensor x = logits_drawn(4);
    trained(&x);
    cross_entropy_backward(x, targets_drawn(x.rows, x.cols));
    show("dx, set and not added", x.grad, size_of(x), 0);
}
static void case_adam_step(void) {
    Tensor w[2] = {drawn_up_to(3, 5)};
    w[1] = drawn_up_to(1, 4);
    Parameter p[2] = {{.name = "w", .tensor = &w[0]}, {.name = "b", .tensor = &w[1]}};
    const Parameters list = {p, 2};
    const Optimizer o = {0.01 + 0.1 * uniform(&draw), chance(0) ? 0.1 : 0, chance(1)};
    explain("rate %g, decay %g%s", o.rate, o.decay, o.decoupled ? ", decoupled" : "");
    parameters_train(list);
    for (int step = 1; step <= 3; step++) {
        for (int k = 0; k < 2; k++) memcpy(w[k].grad, drawn(w[k].rows, w[k].cols).data, sizeof(real[size_of(w[k])]));
        adam_step(list, o, step, 0.7);
        for (int k = 0; k < 2; k++) {
            show_values(format("step %d: %s", step, p[k].name), w[k]);
            show(format("step %d: d%s, cleared", step, p[k].name), w[k].grad, size_of(w[k]), 0);
        }
    }
}

/* ---- bert.h ------------------------------------------------------------------------------------------------------ */

/* One to three sequences, each with one or two selected positions. */
static Batch batch_drawn(void) {
    Batch b = {.sequences = whole(1, 3)};
    b.start = allocate(sizeof(int[b.sequences + 1])), b.selected_start = allocate(sizeof(int[b.sequences + 1]));
    b.selected = allocate(sizeof(int[2 * b.sequences]));
    b.start[0] = b.selected_start[0] = 0;
    for (int s = 0; s < b.sequences; s++) {
        const int length = whole(2, 5), count = whole(1, 2);
        for (int k = 0; k < count; k++) b.selected[b.selected_count++] = b.tokens + (k ? length - 1 : 0);
        b.start[s + 1] = b.tokens += length;
        b.selected_start[s + 1] = b.selected_count;
    }
    explain("%d sequences, %d tokens, %d of them selected", b.sequences, b.tokens, b.selected_count);
    return b;
}
static void case_attention_forward(void) {
    const Batch b = batch_drawn();
    const int heads = whole(1, 3), H = heads * whole(1, 3), *start = chance(0) ? b.selected_start : b.start;
    const Tensor q = drawn(chance(0) ? b.selected_count : b.tokens, H), k = drawn(b.tokens, H), v = drawn(b.tokens, H);
    explain("%d heads, hidden size %d", heads, H);
    show_values("context", attention_forward(q, k, v, heads, b.sequences, start, b.start, NULL).context);
}
static void case_attention_backward(void) {
    const Batch b = batch_drawn();
    const int heads = whole(1, 3), H = heads * whole(1, 3), *start = chance(0) ? b.selected_start : b.start;
    Tensor q = drawn(chance(0) ? b.selected_count : b.tokens, H), k = drawn(b.tokens, H), v = drawn(b.tokens, H);
    explain("%d heads, hidden size %d", heads, H);
    Attention a = attention_forward(q, k, v, heads, b.sequences, start, b.start, NULL);
    trained(&q), trained(&k), trained(&v);
    a.context.grad = drawn(q.rows, H).data;
    attention_backward(&a, q, k, v, heads, b.sequences, start, b.start);
    show_gradient("q", q), show_gradient("k", k), show_gradient("v", v);
}
static void weights_drawn(Parameters weights) {
    for (int i = 0; i < weights.count; i++) {
        const Parameter *p = &weights.at[i];
        fill_normal(*p->tensor = tensor(p->tensor->rows, p->tensor->cols), 0.5, &draw);
        for (size_t j = 0; p->kind == GAIN && j < size_of(*p->tensor); j++) p->tensor->data[j] += 1;
    }
}
static void bert_drawn(Bert *bert) {
    *bert = (Bert){.vocab = 12, .positions = 8, .types = 2, .eps = (real)1e-5};
    bert->layers = whole(1, 3), bert->heads = whole(1, 2), bert->intermediate = whole(3, 9);
    bert->hidden = bert->heads * 2 * whole(1, 3);
    bert_list_weights(bert);
    explain("%d layers, %d heads, hidden size %d", bert->layers, bert->heads, bert->hidden);
    weights_drawn(bert->weights);
}
static void case_layer_forward(void) {
    static Bert bert;
    const Batch batch = batch_drawn();
    bert_drawn(&bert);
    explain("%s", chance(0) ? "the last layer: selected positions only" : "a layer below the last");
    const Tensor x = drawn(batch.tokens, bert.hidden);
    show_values("y", layer_forward(&bert.layer[0], x, bert.heads, &batch, chance(0), (Tensor){0}).y);
}
static void case_layer_backward(void) {
    static Bert bert;
    const Batch batch = batch_drawn();
    bert_drawn(&bert);
    explain("%s", chance(0) ? "the last layer: selected positions only" : "a layer below the last");
    Tensor x = drawn(batch.tokens, bert.hidden);
    LayerActivations a = layer_forward(&bert.layer[0], x, bert.heads, &batch, chance(0), (Tensor){0});
    trained(&x);
    all_trained_unless(chance(1), "the weights", bert.weights);
    a.y.grad = drawn(a.y.rows, a.y.cols).data;
    layer_backward(&bert.layer[0], x, &a, bert.heads, &batch, chance(0), (Tensor){0});
    show_gradient("x", x), show_gradients(bert.weights);
}
static void case_bert_backward(void) {
    static Bert bert;
    const Batch batch = batch_drawn();
    bert_drawn(&bert);
    Tensor e = drawn(batch.tokens, bert.hidden);
    trained_unless(chance(0), "e", &e);
    all_trained_unless(chance(1), "the weights", bert.weights);
    BertActivations a = bert_forward(&bert, e, &batch);
    a.head.logits.grad = drawn(a.head.logits.rows, a.head.logits.cols).data;
    bert_backward(&bert, &a, &batch);
    show_gradient("e", e), show_gradients(bert.weights);
}

/* ---- gpt.h ------------------------------------------------------------------------------------------------------- */

static void gpt_drawn(Gpt *gpt) {
    *gpt = (Gpt){.vocab = 12, .positions = 8, .tanh_gelu = true, .eps = (real)1e-5};
    gpt->layers = whole(1, 3), gpt->heads = whole(1, 2), gpt->intermediate = whole(3, 9);
    gpt->hidden = gpt->heads * 2 * whole(1, 3);
    gpt_list_weights(gpt);
    explain("%d layers, %d heads, hidden size %d", gpt->layers, gpt->heads, gpt->hidden);
    explain("%s", chance(0) ? "the last layer: selected positions only" : "a layer below the last");
    weights_drawn(gpt->weights);
}
static void case_seen_by_tokens(void) {
    const Batch b = batch_drawn();
    for (int selected_only = 0; selected_only < 2; selected_only++) {
        const int count = selected_only ? b.selected_count : b.tokens, *seen = seen_by_tokens(&b, selected_only, 0);
        const Tensor shown = tensor(1, count);
        for (int i = 0; i < count; i++) shown.data[i] = (real)seen[i];
        show_values(selected_only ? "of the selected tokens" : "of all tokens", shown);
    }
}
static void case_gpt_layer_forward(void) {
    static Gpt gpt;
    const Batch batch = batch_drawn();
    gpt_drawn(&gpt);
    const Tensor x = drawn(batch.tokens, gpt.hidden);
    show_values("y", gpt_layer_forward(&gpt.layer[0], x, gpt.heads, &batch, chance(0), (Tensor){0}).y);
}
static void case_gpt_layer_backward(void) {
    static Gpt gpt;
    const Batch batch = batch_drawn();
    gpt_drawn(&gpt);
    Tensor x = drawn(batch.tokens, gpt.hidden);
    GptLayerActivations a = gpt_layer_forward(&gpt.layer[0], x, gpt.heads, &batch, chance(0), (Tensor){0});
    trained(&x);
    all_trained_unless(chance(1), "the weights", gpt.weights);
    a.y.grad = drawn(a.y.rows, a.y.cols).data;
    gpt_layer_backward(&gpt.layer[0], x, &a, gpt.heads, &batch, chance(0), (Tensor){0});
    show_gradient("x", x), show_gradients(gpt.weights);
}

/* ---- deep.h ------------------------------------------------------------------------------------------------------ */

/* m vectors, of which the columns from `column` on are this layer's keys, or its values. */
static Tensor prefix_drawn(int H, int *column) {
    const int m = whole(1, 3), behind = whole(0, 2);
    *column = whole(0, 3);
    explain("m %d, H %d, from column %d on", m, H, *column);
    return drawn(m, *column + H + behind);
}
static void case_prefix_forward(void) {
    const Batch b = batch_drawn();
    int column;
    const int H = whole(1, 4);
    const Tensor prefix = prefix_drawn(H, &column), x = drawn(b.tokens, H);
    show_values("y", prefix_forward(prefix, column, x, &b));
}
static void case_prefix_backward(void) {
    const Batch b = batch_drawn();
    int column;
    const int H = whole(1, 4);
    Tensor prefix = prefix_drawn(H, &column), y = output_drawn(b.tokens + prefix.rows * b.sequences, H);
    trained_unless(chance(0), "the prefix", &prefix);
    const Tensor x = prefix_backward(prefix, column, y, &b);
    show("dx", x.grad, size_of(x), 0);
    show_gradient("prefix", prefix);
}
/* With fewer units than the published 512. */
static void deep_drawn(DeepPrompt *d, Tensor *prefix) {
    const int m = whole(1, 3), H = whole(1, 4), units = whole(2, 5), columns = 2 * H * whole(1, 3);
    *prefix = drawn(m, columns);
    *d = (DeepPrompt){.prefix = prefix, .weights = {allocate(sizeof(Parameter[5])), 0}};
    add_parameter(&d->weights, MATRIX, &d->embedding, m, H, "E");
    add_linear(&d->weights, &d->first, units, H, "first");
    add_linear(&d->weights, &d->second, columns, units, "second");
    weights_drawn(d->weights);
    explain("m %d, H %d, %d units, %d columns", m, H, units, columns);
}
static void case_deep_forward(void) {
    DeepPrompt d;
    Tensor prefix;
    deep_drawn(&d, &prefix);
    deep_forward(&d);
    show_values("prefix", prefix);
}
static void case_deep_backward(void) {
    DeepPrompt d;
    Tensor prefix;
    deep_drawn(&d, &prefix);
    deep_forward(&d);
    prefix.grad = drawn(prefix.rows, prefix.cols).data;
    all_trained_unless(chance(0), "the weights", d.weights);
    deep_backward(&d);
    show_gradients(d.weights);
    show("dprefix, cleared", prefix.grad, size_of(prefix), 0);
}
/* The logits of the five best words for each [MASK], against transformers: all of the small world's BERT. */
static void check_bert_logits(void) {
    static Bert bert;
    const char *path = "data/expected/fill_world.jsonl";
    const Vocab vocab = vocab_load("data/bert");
    Text rest = read_file(path);
    double worst = 0;
    int texts = 0;
    bert_load(&bert, "data/bert");
    for (Text line; next_line(&rest, &line); texts++) {
        const Text ids = member(line, "ids", path), words = member(line, "top5", path),
                   logits = member(line, "logits", path);
        const int count = json_count(ids);
        int *id = allocate(sizeof(int[count])), mask = json_int(member(line, "mask_position", path));
        for (int i = 0; i < count; i++) id[i] = json_int(json_at(ids, i));
        const Batch batch = {1, count, 1, (int[]){0, count}, (int[]){0, 1}, &mask};
        const Tensor got = bert_forward(&bert, rows_forward(bert.word, id, count), &batch).head.logits;
        for (int k = 0; k < 5; k++) {
            const int word = vocab_find(&vocab, json_string(json_at(words, k)));
            worst = worse(worst, fabs((double)got.data[word] - json_number(json_at(logits, k))));
        }
    }
    check(texts && worst < 1e-4, "%-22s %s: %d texts, logits differ by %.1e", "layer_forward", path, texts, worst);
}

/* ---- lstm.h ------------------------------------------------------------------------------------------------------ */

static LstmCell cell_drawn(int in, int H) {
    const Tensor w_ih = drawn(4 * H, in), w_hh = drawn(4 * H, H), b_ih = drawn(1, 4 * H), b_hh = drawn(1, 4 * H);
    return (LstmCell){w_ih, w_hh, b_ih, b_hh};
}
static void case_lstm_cell_forward(void) {
    const int steps = whole(1, 5), in = whole(1, 4), H = whole(1, 4);
    const LstmCell cell = cell_drawn(in, H);
    const Tensor both = drawn(steps, 2 * H);
    explain("%d steps of %d inputs, %d units%s", steps, in, H, chance(0) ? ", reverse" : "");
    lstm_cell_forward(&cell, drawn(steps, in), part(values(both), 0, steps, H, H), lstm_trace(steps, H), chance(0));
    show_values("h, in the second half of each row", both);
}
static void case_lstm_cell_backward(void) {
    const int steps = whole(1, 5), in = whole(1, 4), H = whole(1, 4);
    LstmCell cell = cell_drawn(in, H);
    const Tensor x = drawn(steps, in), both = output_drawn(steps, 2 * H);
    const LstmTrace trace = lstm_trace(steps, H);
    const Matrix h = part(values(both), 0, steps, H, H), dh = part(gradient(both), 0, steps, H, H);
    explain("%d steps of %d inputs, %d units%s", steps, in, H, chance(0) ? ", reverse" : "");
    lstm_cell_forward(&cell, x, h, trace, chance(0));
    trained_unless(chance(1), "w_ih", &cell.w_ih), trained_unless(chance(2), "w_hh", &cell.w_hh);
    trained_unless(chance(1), "b_ih", &cell.b_ih), trained_unless(chance(2), "b_hh", &cell.b_hh);
    lstm_cell_backward(&cell, x, h, dh, trace, chance(0));
    show_gradient("w_ih", cell.w_ih), show_gradient("w_hh", cell.w_hh);
    show_gradient("b_ih", cell.b_ih), show_gradient("b_hh", cell.b_hh);
}
static Lstm stack_drawn(int in, Parameters *list) {
    const int layers = whole(1, 3), H = whole(1, 3);
    *list = (Parameters){allocate(sizeof(Parameter[8 * layers])), 0};
    const Lstm lstm = lstm_new(layers, in, H, "", list);
    for (int i = 0; i < list->count; i++) {
        Tensor *t = list->at[i].tensor;
        *t = drawn(t->rows, t->cols);
    }
    explain("%d layers of %d units in each direction, %d inputs", layers, H, in);
    return lstm;
}
static void case_lstm_forward(void) {
    Parameters list;
    const Tensor x = drawn_up_to(5, 4);
    const Lstm lstm = stack_drawn(x.cols, &list);
    show_values("output", lstm_forward(&lstm, x).output[lstm.layers - 1]);
}
static void case_lstm_backward(void) {
    Parameters list;
    Tensor x = drawn_up_to(5, 4);
    const Lstm lstm = stack_drawn(x.cols, &list);
    LstmActivations a = lstm_forward(&lstm, x);
    trained_unless(chance(0), "x", &x), all_trained_unless(chance(1), "the weights", list);
    a.output[lstm.layers - 1].grad = drawn(x.rows, 2 * lstm.hidden).data;
    lstm_backward(&lstm, x, a);
    show_gradient("x", x), show_gradients(list);
}

/* ---- tokenizer.h ------------------------------------------------------------------------------------------------- */

static const char *any_of(const char *const *texts, int count) { return texts[whole(0, count - 1)]; }
#define ANY(texts) any_of(texts, (int)(sizeof(texts) / sizeof *(texts)))

static void case_wordpiece(void) {
    static const char *const pieces[] = {"a", "un", "king", "der", "s", "\xC3\xA9", "Ber",
                                         "lin", "x", "7", "\xE2\x98\x83"};
    const Vocab vocab = cased_vocab();
    Ids ids = {0};
    ids_push(&ids, 7); /* of a word before */
    for (int k = 0; k < 8; k++) {
        const char *word = "";
        for (int i = whole(1, 5); i > 0; i--) word = format("%s%s", word, ANY(pieces));
        explain("word %s", word);
        wordpiece(&vocab, text_string(text_of(format("  %s", word))) + 2, strlen(word), &ids);
        show_ids("ids", ids.id, ids.count);
    }
}
static void case_tokenize(void) {
    static const char *const pieces[] = {"Berlin", " ", "\t", "it's", "\xC3\x89t\xC3\xA9", "\xE4\xB8\xAD\xE6\x96\x87",
                                         "...", "s", "-", "[MASK]", "\xC2\xAD", "\x01", "\xFF", "e\xCC\x81", " is ",
                                         "\xE3\x80\x80", "\xC2\xBF", "I"};
    const Vocab vocab = chance(0) ? cased_vocab() : uncased_vocab();
    for (int k = 0; k < 8; k++) {
        const char *text = k ? "" : format("%0*d a", whole(99, 102), 0); /* the longest word that is no [UNK]: 100 */
        for (int i = whole(1, 9); i > 0; i--) text = format("%s%s", text, ANY(pieces));
        Ids ids = {0};
        explain("%s: '%s'", chance(0) ? "cased" : "uncased", text);
        tokenize(&vocab, text_of(text), &ids);
        show_ids("ids", ids.id, ids.count);
    }
}

/* ---- ptune.c: templates ------------------------------------------------------------------------------------------ */

static const char *const placeholders[] = {"[P]", "[X]", "{place}", "{s-}", "[SEP]", " is ", "near",
                                           ".", "\xC3\xA9", "[P", "]", "}", " "};

static const char *template_drawn(void) { /* with one mask */
    static const char *const masks[] = {"[Y]", "[MASK]"};
    const int parts = whole(0, 9), mask = whole(0, parts);
    const char *form = "";
    for (int i = 0; i <= parts; i++) form = format("%s%s", form, i == mask ? masks[chance(0)] : ANY(placeholders));
    return chance(1) ? format("%s{open", form) : form; /* a brace that nothing closes is text */
}
static void attempt_parse(void *form) { template_parse(form); }
static void case_template_parse(void) {
    const char *form = template_drawn();
    explain("template '%s'", form);
    const Template t = template_parse(form);
    char kinds[MOST_PARTS + 1];
    template_kinds(&t, kinds);
    show_bytes("kinds of the parts (characters w f p m s)", text_of(kinds));
    for (int i = 0; i < t.parts; i++) show_bytes(format("text of part %d (characters)", i), t.part[i].text);
    show_ids("counts of [P] and [MASK]", (int[]){t.pseudo, t.masks}, 2);
    const char *const bad[] = {"[X] is here", "[MASK] [X] [Y]", "[MASK] \xC3 [X]", "[MASK] [X] \xFF"};
    const char *const why[] = {"no mask", "two masks", "a cut character", "a byte that is not UTF-8"};
    for (int k = 0; k < 4; k++) show_refused(why[k], attempt_parse, (void *)bad[k]);
}
static const char *words_drawn(int count) { /* single letters: each is one token, whatever is cut off */
    static const char *const letters[] = {"a ", "b ", "c ", "d "};
    const char *words = "";
    for (int i = 0; i < count; i++) words = format("%s%s", words, ANY(letters));
    return words;
}
static Example causal_ids(const char *form) {
    const Vocab vocab = small_gpt_vocab();
    const Template t = template_parse(form);
    Text field[MOST_PARTS];
    Example e = {0};
    for (int i = 0; i < t.parts; i++) field[i] = text_of("Berlin");
    template_ids(&t, &vocab, field, &e);
    return e;
}
static void attempt_causal(void *form) { causal_ids(form); }
static void case_causal_template_ids(void) {
    static const char *const forms[] = {"[P][P] [X] [P] [MASK]", "The capital of [X] is [Y]", "[X] [MASK] ",
                                        " {a} of [P]{b}[P]  [MASK]"};
    const char *form = ANY(forms);
    explain("a causal LM: template '%s'", form);
    const Example e = causal_ids(form);
    show_ids("ids", e.id, e.length);
    show_number("position at which the answer is predicted", e.mask);
    show_refused("words after the answer", attempt_causal, (void *)"[X] is [MASK] .");
    show_refused("[SEP]", attempt_causal, (void *)"[X] [SEP] [MASK]");
}
static void case_template_ids(void) {
    static const char *const subjects[] = {"Berlin", "Potsdam", "a b", "\xC3\xA9t\xC3\xA9", "", "[MASK]"};
    const Vocab vocab = cased_vocab();
    const char *form = template_drawn();
    const Template t = template_parse(form);
    Text field[MOST_PARTS];
    Example e = {0};
    for (int i = 0; i < t.parts; i++) field[i] = text_of(ANY(subjects));
    explain("template '%s'", form);
    template_ids(&t, &vocab, field, &e);
    show_ids("ids", e.id, e.length);
    show_number("position of [MASK]", e.mask);
    case_causal_template_ids();
}
typedef struct { Template t; Vocab vocab; Text field[MOST_PARTS]; int most; Example e; } Filling;
static void attempt_fill(void *with) {
    Filling *f = with;
    template_fill(&f->t, &f->vocab, f->field, f->most, &f->e, "fields", 1);
}
static void case_template_fill(void) {
    static const char *const forms[] = {"[P] {a} [P] {b} [MASK] {c} [P]", "{a} [SEP] {b} {c} [MASK]", "[X] [MASK] ."};
    static Filling f;
    f.t = template_parse(ANY(forms)), f.vocab = cased_vocab(), f.e = (Example){0};
    int words = 0;
    for (int i = 0; i < f.t.parts; i++) {
        const int count = whole(1, 9);
        f.field[i] = text_of(words_drawn(count));
        words += f.t.part[i].kind == FIELD ? count : 0;
    }
    template_ids(&f.t, &f.vocab, f.field, &f.e);
    const int all = f.e.length, alone = all - words;
    const int room[] = {0, whole(0, words), words - 1, words}; /* words that fit */
    for (int k = 0; k < 4; k++) {
        f.most = alone + room[k];
        explain("template '%s', fields of %d tokens, at most %d in all", f.t.text, words, f.most);
        attempt_fill(&f);
        show_ids("ids", f.e.id, f.e.length);
        show_number("position of [MASK]", f.e.mask);
    }
    f.most = alone - 1;
    show_refused("a template that is too long even without its fields", attempt_fill, &f);
}

/* ---- ptune.c: encoder, batch, epoch ------------------------------------------------------------------------------ */

static void encoder_drawn(PromptEncoder *encoder, EncoderKind kind, int H) {
    static const char *const kinds[] = {"lstm", "mlp", "embedding"};
    encoder_init(encoder, kind, whole(1, 4), H);
    explain("encoder %s, %d pseudo-tokens, hidden size %d", kinds[kind], encoder->embedding.rows, H);
    for (int i = 0; i < encoder->weights.count; i++) fill_normal(*encoder->weights.at[i].tensor, 0.7, &draw);
    if (kind == ENCODER_EMBEDDING || chance(1)) return;
    encoder->start = drawn(encoder->embedding.rows, H);
    explain("a start that is added");
}
static void case_encoder_forward(void) {
    static PromptEncoder encoder;
    encoder_drawn(&encoder, (EncoderKind)(seed % ENCODERS), 2 * whole(1, 4));
    show_values("h", encoder_forward(&encoder).prompt);
}
static void case_encoder_backward(void) {
    static PromptEncoder encoder;
    encoder_drawn(&encoder, (EncoderKind)(seed % ENCODERS), 2 * whole(1, 4));
    all_trained_unless(false, "", encoder.weights);
    EncoderActivations a = encoder_forward(&encoder);
    if (encoder.kind != ENCODER_EMBEDDING) a.prompt.grad = drawn(a.prompt.rows, a.prompt.cols).data;
    encoder_backward(&encoder, &a);
    show_gradients(encoder.weights);
}
static void case_embed_forward(void) {
    const Tensor word = drawn_up_to(5, 4), prompt = drawn(whole(1, 3), word.cols);
    int id[7];
    for (int i = 0; i < 7; i++) id[i] = whole(-prompt.rows, word.rows - 1);
    show_values("e", embed_forward(word, prompt, id, 7));
}
static void case_embed_backward(void) {
    Tensor word = drawn_up_to(5, 4), prompt = drawn(whole(1, 3), word.cols);
    int id[7];
    for (int i = 0; i < 7; i++) id[i] = whole(-prompt.rows, word.rows - 1);
    trained_unless(chance(0), "the word table", &word), trained_unless(chance(1), "the prompt", &prompt);
    embed_backward(word, prompt, id, output_drawn(7, word.cols));
    show_gradient("word", word), show_gradient("prompt", prompt);
}
/* Examples of 4 to 7 tokens, words and pseudo-tokens. */
static Example *examples_drawn(int count, int pseudo, int vocab) {
    Example *examples = allocate_zeroed(sizeof(Example[count]));
    for (int s = 0; s < count; s++) {
        Example *e = &examples[s];
        e->length = whole(4, 7), e->mask = whole(0, e->length - 1), e->answer = whole(0, vocab - 1);
        e->id = allocate(sizeof(int[e->length]));
        for (int i = 0; i < e->length; i++) e->id[i] = whole(-pseudo, vocab - 1);
    }
    return examples;
}
/* Label words: those of the examples and some others; or NULL. */
static const bool *label_words(const Example *examples, int count, int vocab) {
    bool *in_loss = allocate_zeroed(sizeof(bool[vocab]));
    if (chance(0)) return NULL;
    explain("the loss is of label words alone");
    for (int w = 0; w < vocab; w += 3) in_loss[w] = true;
    for (int s = 0; s < count; s++) in_loss[examples[s].answer] = true;
    return in_loss;
}
static void case_loss_and_gradient(void) {
    static Lm lm;
    bert_drawn(&lm.bert);
    Tensor prompt = drawn(whole(1, 3), lm.bert.hidden);
    const int count = whole(1, 3);
    const Example *examples = examples_drawn(count, prompt.rows, lm.bert.vocab);
    const bool *in_loss = label_words(examples, count, lm.bert.vocab);
    const Inputs in = inputs_of(examples, in_order(count), count);
    trained_unless(chance(2), "the prompt", &prompt);
    all_trained_unless(chance(1), "the LM's weights", lm.bert.weights);
    show_number("loss", loss_and_gradient(&lm, prompt, &in, in_loss));
    show_gradient("prompt", prompt), show_gradients(lm.bert.weights);
}
static void case_train_batch(void) {
    static Lm lm;
    static PromptEncoder encoder;
    const int kind = seed % (ENCODERS + 1);
    const PromptEncoder *e = kind == ENCODERS ? NULL : &encoder;
    bert_drawn(&lm.bert);
    if (e) encoder_drawn(&encoder, (EncoderKind)kind, lm.bert.hidden);
    else explain("no encoder");
    const int count = whole(1, 3);
    const Example *examples = examples_drawn(count, e ? encoder.embedding.rows : 0, lm.bert.vocab);
    const bool *in_loss = label_words(examples, count, lm.bert.vocab);
    const Inputs in = inputs_of(examples, in_order(count), count);
    if (e) all_trained_unless(false, "", encoder.weights);
    all_trained_unless(e && chance(1), "the LM's weights", lm.bert.weights);
    show_number("loss", train_batch(&lm, e, &in, in_loss));
    if (e) show_gradients(encoder.weights);
    show_gradients(lm.bert.weights);
}

enum { MOST_STEPS = 40 };
static double step_loss[MOST_STEPS];
static int steps_seen, stop_after;
static bool count_step(const Run *run, double loss) {
    (void)run;
    step_loss[steps_seen++ % MOST_STEPS] = loss;
    return steps_seen != stop_after;
}
static void show_epoch(Run *run, const Dataset *data, int epoch) {
    run->epoch = epoch, run->step = 99, run->loss = 99, run->tokens = 99; /* an epoch sets all but its number */
    steps_seen = 0;
    explain("epoch %d", epoch);
    show_number(format("epoch %d: finished", epoch), train_epoch(run, data));
    show_number(format("epoch %d: steps", epoch), steps_seen);
    for (int i = 0; i < min_int(steps_seen, MOST_STEPS); i++)
        show_number(format("epoch %d: loss of batch %d", epoch, i + 1), step_loss[i]);
    show_ids(format("epoch %d: run->step, tokens, steps_an_epoch", epoch),
             (int[]){run->step, run->tokens, run->steps_an_epoch}, 3);
    if (!stop_after) show_number(format("epoch %d: run->loss", epoch), run->loss);
}
typedef struct { Run *run; const Dataset *data; } Epoch;
static void attempt_epoch(void *with) {
    const Epoch *e = with;
    train_epoch(e->run, e->data);
}
static void case_train_epoch(void) {
    static Model model;
    static PromptEncoder encoder;
    bert_drawn(&model.lm.bert);
    encoder_drawn(&encoder, chance(2) ? ENCODER_MLP : ENCODER_EMBEDDING, model.lm.bert.hidden);
    const int count = whole(5, 9);
    const Dataset data = {examples_drawn(count, encoder.embedding.rows, model.lm.bert.vocab), count, "cases"};
    const int batch = whole(2, 4), number = whole(1, 99);
    const Training settings = {.rate = 0.01, .rate_lm = 0.003, .decay = 0.01, .adamw = chance(1),
                               .clip = chance(2) ? 0.5 : 0, .warmup = 0.1, .published = chance(1), .epochs = 4,
                               .batch = batch, .seed = number, .after_step = count_step};
    Run run = {.training = &settings, .model = &model, .encoder = &encoder, .trained = encoder.weights};
    model.answers.in_loss = label_words(data.at, count, model.lm.bert.vocab);
    parameters_train(encoder.weights);
    if (!chance(2)) {
        run.lm = model.lm.bert.weights;
        parameters_train(run.lm);
        run.trained = parameters_joined(run.trained, run.lm);
    }
    explain("%d examples in batches of %d%s%s%s", count, settings.batch, settings.published ? ", --recipe paper" : "",
         settings.clip > 0 ? ", clipped" : "", run.lm.count ? ", the LM is trained too" : "");
    stop_after = 0;
    show_epoch(&run, &data, 1), show_epoch(&run, &data, 2), show_epoch(&run, &data, 4);
    stop_after = 1;
    show_epoch(&run, &data, 3);
    stop_after = 0;
    encoder.embedding.data[0] = (real)NAN, model.lm.bert.position.data[0] = (real)NAN;
    show_refused("a loss that is not finite", attempt_epoch, &(Epoch){&run, &data});
}

/* ---- assignment 2: the kernel without the loops around it -------------------------------------------------------- */
static void check_micro_kernel(void) {
    Random random = {1};
    double worst = 0;
    for (int trial = 0; trial < 60; trial++) {
        const int k = random_int(&random, 1, 40), step = random_int(&random, 1, 3), vectors = 1 + trial % TILE_VECTORS;
        const int rows = vectors == 1 ? THIN_ROWS : TILE_ROWS;
        const Tensor a = tensor(rows, k * step), b = tensor(k, TILE_COLS), tile = tensor(rows, TILE_COLS);
        const real *row_of_a[MOST_ROWS];
        fill_normal(a, 1, &random), fill_normal(b, 1, &random), fill_constant(tile, (real)NAN);
        for (int i = 0; i < rows; i++) row_of_a[i] = row(a, i);
        kernel(k, row_of_a, step, b.data, tile.data, vectors);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vectors * LANES; j++) {
                double sum = 0;
                for (int p = 0; p < k; p++) sum += (double)row(a, i)[p * step] * (double)row(b, p)[j];
                worst = worse(worst, fabs(sum - (double)row(tile, i)[j]));
            }
    }
    check(worst < (sizeof(real) == 8 ? 1e-12 : 1e-4), "%-22s 60 tiles, the largest difference from plain sums is %.1e",
          "micro_kernel", worst);
}
/* ---- assignment 3: more than one block in each dimension --------------------------------------------------------- */
static void large_products(const char *name, void (*product)(Matrix, Matrix, Matrix)) {
    Random random = {1};
    double worst = 0;
    for (int layout = 0; layout < 8; layout++) {
        const int m = random_int(&random, 50, 130), n = random_int(&random, 50, 130), k = BLOCK_K + layout % 3;
        worst = worse(worst, product_error(product, m, n, k, layout, &random));
    }
    check(worst < 100 * (double)(sizeof(real) == 8 ? DBL_EPSILON : FLT_EPSILON),
          "%-22s 8 large shapes and strides, largest error %.1e", name, worst);
}
static void check_large_share(void) { large_products("matmul_share", matmul_in_shares); }
static void check_large_matmul(void) { large_products("matmul", matmul); }

/* ==== All checks ================================================================================================== */

/* The checks of each function: `values NAME` and `cases NAME`. */
typedef struct { const char *name; void (*values)(void), (*cases)(void); } FunctionChecks;
static const FunctionChecks function_checks[] = {
    {"matmul_naive", check_matmul_naive, case_matmul_naive},
    {"pack", check_pack, NULL},
    {"micro_kernel", check_micro_kernel, NULL},
    {"matmul_share", check_large_share, case_matmul_share},
    {"matmul", check_large_matmul, case_matmul},
    {"linear_forward", check_linear, case_linear_forward},
    {"linear_backward", NULL, case_linear_backward},
    {"residual_forward", check_residual, case_residual_forward},
    {"residual_backward", NULL, case_residual_backward},
    {"layernorm_forward", check_layernorm, case_layernorm_forward},
    {"layernorm_backward", NULL, case_layernorm_backward},
    {"relu_forward", check_relu, case_relu_forward},
    {"relu_backward", NULL, case_relu_backward},
    {"gelu_forward", check_gelu, case_gelu_forward},
    {"gelu_backward", NULL, case_gelu_backward},
    {"softmax_forward", check_softmax, case_softmax_forward},
    {"softmax_backward", NULL, case_softmax_backward},
    {"cross_entropy_forward", check_cross_entropy, case_cross_entropy_forward},
    {"cross_entropy_backward", check_cross_entropy_backward, case_cross_entropy_backward},
    {"attention_forward", check_attention, case_attention_forward},
    {"attention_backward", NULL, case_attention_backward},
    {"layer_forward", check_bert_logits, case_layer_forward},
    {"layer_backward", NULL, case_layer_backward},
    {"bert_backward", NULL, case_bert_backward},
    {"lstm_cell_forward", check_lstm_cell, case_lstm_cell_forward},
    {"lstm_cell_backward", NULL, case_lstm_cell_backward},
    {"lstm_forward", check_lstm_forward, case_lstm_forward},
    {"lstm_backward", check_lstm_backward, case_lstm_backward},
    {"wordpiece", check_wordpiece, case_wordpiece},
    {"tokenize", check_tokenize, case_tokenize},
    {"template_parse", check_template_parse, case_template_parse},
    {"template_ids", check_template_ids, case_template_ids},
    {"template_fill", check_template_fill, case_template_fill},
    {"encoder_forward", check_encoder, case_encoder_forward},
    {"encoder_backward", NULL, case_encoder_backward},
    {"embed_forward", check_embed, case_embed_forward},
    {"embed_backward", NULL, case_embed_backward},
    {"loss_and_gradient", NULL, case_loss_and_gradient},
    {"adam_step", check_adam_step, case_adam_step},
    {"training", check_training, NULL},
    {"train_batch", NULL, case_train_batch},
    {"train_epoch", check_train_epoch, case_train_epoch},
    {"gpt_logits", check_gpt_logits, NULL},
    {"seen_by_tokens", NULL, case_seen_by_tokens},
    {"gpt_layer_forward", NULL, case_gpt_layer_forward},
    {"gpt_layer_backward", NULL, case_gpt_layer_backward},
    {"prefix_forward", check_deep_training, case_prefix_forward},
    {"prefix_backward", NULL, case_prefix_backward},
    {"deep_forward", check_deep_encoder, case_deep_forward},
    {"deep_backward", NULL, case_deep_backward},
};
static const FunctionChecks *checks_of(const char *name) {
    for (size_t i = 0; i < sizeof function_checks / sizeof *function_checks; i++)
        if (!strcmp(function_checks[i].name, name)) return &function_checks[i];
    die("no checks of %s", name);
}

static void run_case(void (*compute)(void), int number) {
    Mark before = mark();
    seed = number, draw = (Random){(uint64_t)number};
    compute();
    release(before);
}
static void record(int first, int count) {
    recording = true;
    for (size_t i = 0; i < sizeof function_checks / sizeof *function_checks; i++)
        for (int number = first; function_checks[i].cases && number < first + count; number++) {
            printf("case %s %d\n", function_checks[i].name, number);
            run_case(function_checks[i].cases, number);
        }
}
static void check_cases(const FunctionChecks *function, const char *path) {
    const char *heading = format("case %s ", function->name);
    int count = 0;
    Text rest = read_file(path);
    for (Text line; next_line(&rest, &line);) {
        if (!text_starts(line, heading)) continue;
        wanted = rest;
        count++;
        const int number = atoi(text_string(line) + strlen(heading));
        explain("case %d", number);
        run_case(function->cases, number);
    }
    check(count > 0, "%-22s %d cases", function->name, count);
}
static bool in_detail(void) { return getenv("LONG"); } /* make LONG=1: all tables */
static void run_check(const char *name, const char *path) {
    if (!strncmp(name, "gradcheck ", 10)) check_gradients(name + 10, EPSILON, in_detail());
    else if (!strncmp(name, "values ", 7) && checks_of(name + 7)->values) checks_of(name + 7)->values();
    else if (!strncmp(name, "cases ", 6) && checks_of(name + 6)->cases) check_cases(checks_of(name + 6), path);
    else die("no check '%s'", name);
}

/* ==== Points ====================================================================================================== */

enum { OUTPUT = 40000 }; /* bytes that are kept of what a check prints */
static int seconds_allowed(void) { /* of processor time, for a check */
    return getenv("SECONDS_ALLOWED") ? atoi(getenv("SECONDS_ALLOWED")) : 20;
}
typedef struct { bool passed; const char *output; } Verdict;

/* What to show: the lines that say ok; or what to write; or what follows the heading of the last case, up to a
 * sanitizer's table of the memory around. */
static const char *essence(const char *output, bool right) {
    const char *shown = strstr(output, right ? "\nok " : "ptune: write "), *heading = "      case ";
    for (const char *at = output; !shown && (at = strstr(at, heading)); at++)
        if (!strstr(at + 1, heading)) shown = at;
    if (!shown) shown = output;
    if (*shown == '\n') shown++;
    const char *table = strstr(shown, "Shadow bytes around");
    if (in_detail()) return format("%s", shown);
    return format("%.*s", table ? (int)(table - shown) : 3000, shown);
}
/* JSON must be UTF-8; what a check prints need not be. */
static const char *in_json(const char *output) {
    char *text = text_string(text_of(output));
    for (char *s = text; !utf8_valid(text_of(output)) && *s; s++)
        if ((unsigned char)*s >= 0x80) *s = '?';
    return json_quote(text);
}
/* In the child: the check takes its place, and writes to the pipe. */
_Noreturn static void become_check(const char *program, const char *name, const char *path, const char *token,
                                   int out) {
    const rlim_t limit = (rlim_t)seconds_allowed();
    setrlimit(RLIMIT_CPU, &(struct rlimit){limit, limit + 5});
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    dup2(open("/dev/null", O_RDONLY), 0), dup2(out, 1), dup2(out, 2);
    close(out);
    execl(program, program, "check", name, path, token, (char *)NULL);
    die("%s: %s", program, strerror(errno));
}
static char *read_output(int from) { /* all of it, or the end: at least half of OUTPUT */
    char *output = allocate(OUTPUT + 1);
    size_t used = 0;
    for (ssize_t got; (got = read(from, output + used, OUTPUT - used)) > 0;) {
        used += (size_t)got;
        if (used == OUTPUT) memmove(output, output + OUTPUT / 2, used = OUTPUT / 2);
    }
    output[used] = 0;
    close(from);
    return output;
}
static const char *reason(const char *name, int status, bool finished) { /* why it did not finish */
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL))
        return format("FAIL  %s took more than %d seconds: an endless loop?\n", name, seconds_allowed());
    if (WIFSIGNALED(status)) return format("FAIL  %s crashed: signal %d\n", name, WTERMSIG(status));
    if (!status && !finished) return format("FAIL  %s: the program exited before the check was over\n", name);
    return "";
}
/* Runs a check in a process of its own, where a crash or an endless loop costs this check alone. A check that is over
 * and has passed ends with a random token as its last line: a function that prints "ok" and exits does not know it. */
static Verdict run_apart(const char *program, const char *name, const char *path) {
    static Random random;
    int ends[2], status;
    if (!random.state) random.state = (uint64_t)time(NULL) << 32 | (uint64_t)getpid();
    const char *token = format("token %016llx\n", (unsigned long long)random_bits(&random));
    fflush(stdout);
    if (pipe(ends)) die("pipe: %s", strerror(errno));
    const pid_t child = fork();
    if (!child) close(ends[0]), become_check(program, name, path, token, ends[1]);
    close(ends[1]);
    char *output = read_output(ends[0]), *finished = strstr(output, token);
    if (child < 0 || waitpid(child, &status, 0) != child) die("fork: %s", strerror(errno));
    if (finished) *finished = 0;
    const bool passes = finished && !status;
    return (Verdict){passes, format("%s%s", essence(output, passes), reason(name, status, finished))};
}
/* A line of CHECKS: points, function, file, check. */
enum { POINTS, FUNCTION, SOURCE, CHECK };

/* The checks in the order of writing, up to the first function of which one fails. */
static void next_function(const char *program, const Texts *lines, const char *path) {
    bool right = true;
    const char *before = "";
    for (int i = 0; i < lines->count; i++) {
        const char *const *field = fields("checks", lines->at[i], 4);
        if (!right && strcmp(field[FUNCTION], before)) exit(1);
        const Verdict v = run_apart(program, field[CHECK], path);
        printf("%s", v.output);
        if (strstr(v.output, "ptune: write ")) exit(1);
        right &= v.passed;
        before = field[FUNCTION];
    }
    if (!right) exit(1);
}
/* All checks by all programs: a line each, and RESULTS in the form of Gradescope. */
static void grade_all(const Texts *lines, const char *path, const char *results, char *const *programs) {
    double score = 0, most = 0;
    const Output out = output_open(results);
    fprintf(out.stream, "{\"tests\": [");
    for (int i = 0; i < lines->count; i++) {
        const char *const *field = fields("checks", lines->at[i], 4);
        const double points = atof(field[POINTS]);
        Verdict v = {.passed = true};
        for (int k = 0; v.passed && programs[k]; k++) v = run_apart(programs[k], field[CHECK], path);
        score += v.passed ? points : 0, most += points;
        printf("%4g of %g   %-24s %s\n", v.passed ? points : 0, points, field[FUNCTION], field[CHECK]);
        if (!v.passed) printf("%s", v.output);
        fprintf(out.stream, "%s\n{\"name\": %s, \"score\": %g, \"max_score\": %g, \"output\": %s}", i ? "," : "",
                json_quote(format("%s: %s", field[FUNCTION], field[CHECK])), v.passed ? points : 0, points,
                in_json(v.output));
    }
    fprintf(out.stream, "\n]}\n");
    output_close(out);
    printf("%4g of %g points\n", score, most);
}

int main(int argc, char **argv) {
    const char *first = argc > 1 ? argv[1] : "";
    self = argv[0];
    if (!strcmp(first, "record") && argc == 4) record(atoi(argv[2]), atoi(argv[3]));
    else if (!strcmp(first, "check") && (argc == 4 || argc == 5)) {
        printf("\n");
        run_check(argv[2], argv[3]);
        if (passed && !failed && argc == 5) printf("%s", argv[4]);
    } else if (!strcmp(first, "next") && argc == 4) {
        const Texts lines = read_lines(argv[2]);
        next_function(argv[0], &lines, argv[3]);
    } else if (!strcmp(first, "all") && argc > 5) {
        const Texts lines = read_lines(argv[2]);
        grade_all(&lines, argv[3], argv[4], argv + 5);
    } else die("usage: see the beginning of grader.c");
    return failed > 0;
}
