/* bench.c - the benchmark: matmul step by step, then the parts of a training step of BERT-base. `make bench`
 *
 *   build/bench          everything
 *   build/bench brief    what tools/bench_torch.py compares with PyTorch
 *
 * Random weights, nothing is downloaded. Times are medians; the peak is the best of nine.
 */
#define _DARWIN_C_SOURCE /* macOS: ru_maxrss, in bytes */
#define main ptune_main
#include "../ptune.c"
#undef main
#include <sys/resource.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static int cores = 1; /* threads available: the machine's, or OMP_NUM_THREADS */

static void threads(int count) {
#ifdef _OPENMP
    omp_set_num_threads(count);
#else
    (void)count;
#endif
}

/* ==== matmul ====================================================================================================== */

/* The rate of independent multiply-adds in registers, in GFLOP/s: no product can be faster. */
static double multiply_add_peak(void) {
    enum { COUNT = 4000000 };
    double best = 0, sink = 0;
    for (int i = 0; i < 9; i++) {
        const double start = seconds();
        double operations = 0;
#pragma omp parallel reduction(+ : operations, sink)
        {
            Vector sum[TILE_ROWS * TILE_VECTORS], total = {0};
#pragma GCC unroll 24
            for (int s = 0; s < TILE_ROWS * TILE_VECTORS; s++) sum[s] = total + (real)s;
            for (int p = 0; p < COUNT; p++) {
#pragma GCC unroll 24
                for (int s = 0; s < TILE_ROWS * TILE_VECTORS; s++) sum[s] = sum[s] * (real)0.5 + (real)1;
            }
#pragma GCC unroll 24
            for (int s = 0; s < TILE_ROWS * TILE_VECTORS; s++) total += sum[s];
            sink += (double)total[0];
            operations += 2.0 * COUNT * TILE_ROWS * TILE_COLS;
        }
        best = fmax(best, 1e-9 * operations / (seconds() - start));
    }
    return sink > 0 ? best : 0;
}

/* How fast memory is read, in bytes a second: a sum over more than any cache holds. */
static double memory_bandwidth(void) {
    Mark before = mark();
    const Tensor x = tensor(1 << 14, 1 << 12);
    double best = 0, sink = 0;
    fill_constant(x, 1);
    for (int i = 0; i < 9; i++) {
        const double start = seconds();
#pragma omp parallel for reduction(+ : sink)
        for (int r = 0; r < x.rows; r++) {
            const real *from = row(x, r);
            real sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int j = 0; j < x.cols; j++) sum += from[j];
            sink += (double)sum;
        }
        best = fmax(best, (double)(size_of(x) * sizeof(real)) / (seconds() - start));
    }
    release(before);
    return sink > 0 ? best : 0;
}

/* The steps from the definition to matmul, C (m, n) += A (m, k) B (k, n), for row-major A, B and C. */
static void matmul_reordered(Matrix c, Matrix a, Matrix b) { /* B and C are read along their rows */
    for (int i = 0; i < c.rows; i++)
        for (int p = 0; p < a.cols; p++)
            for (int j = 0; j < c.cols; j++)
                c.data[i * c.row_stride + j] += a.data[i * a.row_stride + p] * b.data[p * b.row_stride + j];
}
static void matmul_tiled(Matrix c, Matrix a, Matrix b) { /* a block of B stays in the L1 cache for all rows of A */
    enum { TILE = 64 };
    for (int p = 0; p < a.cols; p += TILE)
        for (int j = 0; j < c.cols; j += TILE) {
            const int k = min_int(TILE, a.cols - p), n = min_int(TILE, c.cols - j);
            matmul_reordered(part(c, 0, c.rows, j, n), part(a, 0, a.rows, p, k), part(b, p, k, j, n));
        }
}

/* The products of a linear layer with weights W (n, k) and m rows. The weights change from product to product, as they
 * do from layer to layer, so they come from memory, or from an L3 cache that holds eight copies. */
typedef enum { FORWARD, BACKWARD_X, BACKWARD_W } Product;
static double bench_product(int m, int n, int k, Product which, void (*product)(Matrix, Matrix, Matrix)) {
    enum { COPIES = 8, TIMES = 15 };
    Mark before = mark();
    Random random = {1};
    Tensor x = tensor(m, k), y = tensor(m, n), w[COPIES];
    fill_uniform(x, 1, &random), fill_uniform(y, 1, &random);
    for (int i = 0; i < COPIES; i++) fill_constant(w[i] = tensor(n, k), 1);
    double times[TIMES];
    const int count = product == matmul ? TIMES : 3;
    for (int i = -1; i < count; i++) {
        const Matrix weights = values(w[(i + 1) % COPIES]);
        const double start = seconds();
        if (which == FORWARD) product(values(y), values(x), transposed(weights)); /* Y += X W' */
        if (which == BACKWARD_X) product(values(x), values(y), weights);          /* dX += dY W */
        if (which == BACKWARD_W) product(weights, transposed(values(y)), values(x)); /* dW += dY' X */
        if (i >= 0) times[i] = seconds() - start;
    }
    release(before);
    return 2e-9 * m * n * k / median(times, count);
}
static void bench_ladder(void) {
    static const struct { const char *what; void (*product)(Matrix, Matrix, Matrix); } steps[] = {
        {"naive: the definition", matmul_naive}, {"reordered: rows of B and C", matmul_reordered},
        {"tiled: blocks of B in L1", matmul_tiled}, {"in registers and packed: matmul", matmul}};
    printf("\nFrom the definition to matmul: dX (120, 768) += dY (120, 768) W (768, 768), GFLOP/s\n");
    threads(1);
    for (int i = 0; i < 4; i++)
        printf("%-34s %7.1f\n", steps[i].what, bench_product(120, 768, 768, BACKWARD_X, steps[i].product));
    threads(cores);
    printf("%-34s %7.1f\n", format("on %d threads", cores), bench_product(120, 768, 768, BACKWARD_X, matmul));
}
static void bench_matmul(void) {
    static const int shapes[][3] = {{120, 768, 768}, {176, 768, 768}, {176, 3072, 768}, {176, 768, 3072},
                                    {512, 768, 768}, {8, 28996, 768}};
    printf("\nmatmul, GFLOP/s on 1 and on %d threads; X (m, k), W (n, k)\n", cores);
    printf("(  m,     n,    k)      X W'             dY W             dY' X\n");
    for (int i = 0; i < 6; i++) {
        printf("(%3d, %5d, %4d)   ", shapes[i][0], shapes[i][1], shapes[i][2]);
        for (Product p = FORWARD; p <= BACKWARD_W; p++)
            for (int all = 0; all <= (cores > 1); all++) {
                threads(all ? cores : 1);
                printf(" %7.1f", bench_product(shapes[i][0], shapes[i][1], shapes[i][2], p, matmul));
            }
        printf("\n");
    }
    threads(cores);
}

/* ==== Steps of a BERT-base with random weights ==================================================================== */

/* Examples [CLS] P P P x P P P [MASK] P P P [SEP], or with words for P; x has 1 to 6 tokens, a batch of 8 has 120. */
enum { MEAN_LENGTH = 15, LONGEST = 18, MAX_BATCH = 64 };
static void bench_examples(Example *examples, int (*ids)[LONGEST], bool pseudo) {
    static const int subject[8] = {3, 2, 4, 1, 3, 2, 6, 3};
    for (int s = 0; s < MAX_BATCH; s++) {
        const int x = subject[s % 8], length = 12 + x;
        for (int i = 0, p = 0; i < length; i++) {
            const bool word = !pseudo || i == 0 || (i > 3 && i < 4 + x) || i == 7 + x || i == length - 1;
            ids[s][i] = word ? 100 + 37 * s + i : -1 - p++;
        }
        examples[s] = (Example){.id = ids[s], .length = length, .mask = 7 + x, .answer = 1000 + s};
    }
}
/* The products of a P-tuning step with BERT's weights: each matrix, forward and backward. */
typedef struct { double operations, bytes; } Work; /* bytes: of the weights, each way once */
static Work products_alone(const Bert *bert, int tokens, int selected) {
    Work work = {0};
    Tensor x = tensor_zeros(tokens, bert->intermediate), y = tensor_zeros(tokens, bert->intermediate);
    for (int i = 0; i < bert->weights.count; i++) {
        const Tensor w = *bert->weights.at[i].tensor;
        const char *name = bert->weights.at[i].name;
        const bool last = strstr(name, format("layer.%d.", bert->layers - 1)) && !strstr(name, ".key") &&
                          !strstr(name, ".value");
        if (w.rows < bert->hidden || strstr(name, "position") || !strstr(name, "weight")) continue;
        const int rows = last || w.rows == bert->vocab || strstr(name, "transform") ? selected : tokens;
        Tensor logits = w.rows == bert->vocab ? tensor_zeros(rows, w.rows) : y;
        const Matrix to = part((Matrix){logits.data, rows, w.rows, w.rows, 1, NULL}, 0, rows, 0, w.rows);
        const Matrix from = part(values(x), 0, rows, 0, w.cols);
        matmul(to, from, transposed(values(w)));
        matmul(from, to, values(w));
        work.operations += 4.0 * rows * (double)size_of(w), work.bytes += 2.0 * sizeof(real) * (double)size_of(w);
    }
    return work;
}
enum { ENCODER, FORWARD_PASS, BACKWARD_PASS, ADAM, STEP, PRODUCTS, PARTS };
static void bench_step(const Bert *bert, PromptEncoder *encoder, const Example *examples, int batch, int times,
                       double *parts, int *tokens) {
    double all[PARTS][32];
    for (int i = -1; i < times; i++) {
        Mark before = mark();
        const Inputs in = inputs_of(examples, in_order(batch), batch);
        double at[7] = {seconds()};
        EncoderActivations e = encoder_forward(encoder);
        needs_grad(&e.prompt);
        at[1] = seconds();
        BertActivations a = bert_forward(bert, embed_forward(bert->word, e.prompt, in.id, in.batch.tokens), &in.batch);
        at[2] = seconds();
        needs_grad(&a.head.logits), needs_grad(&a.e);
        cross_entropy_backward(a.head.logits, in.target);
        bert_backward(bert, &a, &in.batch);
        embed_backward(bert->word, e.prompt, in.id, a.e);
        at[3] = seconds();
        encoder_backward(encoder, &e);
        at[4] = seconds();
        adam_step(encoder->weights, (Optimizer){5e-4, 5e-4, false}, i + 2, 1);
        at[5] = seconds();
        products_alone(bert, in.batch.tokens, batch);
        at[6] = seconds();
        *tokens = in.batch.tokens;
        release(before);
        if (i < 0) continue;
        all[ENCODER][i] = at[1] - at[0] + at[4] - at[3];
        all[FORWARD_PASS][i] = at[2] - at[1], all[BACKWARD_PASS][i] = at[3] - at[2], all[ADAM][i] = at[5] - at[4];
        all[STEP][i] = at[5] - at[0], all[PRODUCTS][i] = at[6] - at[5];
    }
    for (int k = 0; k < PARTS; k++) parts[k] = median(all[k], times);
}
static double peak_memory(void) { /* MiB */
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return (double)usage.ru_maxrss / (1 << 20);
#else
    return (double)usage.ru_maxrss / 1024;
#endif
}
static void bench_growth(const Bert *bert, PromptEncoder *encoder, const Example *examples) {
    double n = 0, x = 0, y = 0, xx = 0, xy = 0, parts[PARTS];
    int tokens;
    printf("\nbatch  tokens  ms per step  tokens/s  outside BERT's products and Adam\n");
    for (int batch = 1; batch <= MAX_BATCH; batch *= 2) {
        bench_step(bert, encoder, examples, batch, batch < 32 ? 7 : 3, parts, &tokens);
        printf("%5d  %6d  %11.1f  %8.0f  %5.1f %%\n", batch, tokens, 1e3 * parts[STEP], tokens / parts[STEP],
               100 * (1 - (parts[PRODUCTS] + parts[ADAM]) / parts[STEP]));
        n++, x += tokens, y += parts[STEP], xx += (double)tokens * tokens, xy += tokens * parts[STEP];
    }
    const double slope = (n * xy - x * y) / (n * xx - x * x);
    printf("a step takes %.1f ms + %.2f ms per token\n", 1e3 * (y - slope * x) / n, 1e3 * slope);
}
/* What no step can do without: its products at the peak, its weights read once forward and once backward. */
static void print_limit(const Bert *bert, int tokens, double step, double peak) {
    Mark before = mark();
    const Work work = products_alone(bert, tokens, 8);
    release(before);
    const double bandwidth = memory_bandwidth(), compute = 1e-9 * work.operations / peak,
                 reading = work.bytes / bandwidth;
    printf("its limit: %.1f GFLOP of products at the peak, %.0f ms, and %.0f MB of weights at %.1f GB/s, %.0f ms, read "
           "meanwhile\n", 1e-9 * work.operations, 1e3 * compute, 1e-6 * work.bytes, 1e-9 * bandwidth, 1e3 * reading);
    printf("%-42s %9.0f %% of a step\n", "the limit", 100 * fmax(compute, reading) / step);
}
static void bench_bert(bool brief, double peak) {
    static Lm lm;
    static PromptEncoder encoder;
    static Example examples[MAX_BATCH], words[MAX_BATCH];
    static int ids[MAX_BATCH][LONGEST], word_ids[MAX_BATCH][LONGEST];
    static const char *const names[] = {"prompt encoder", "BERT forward", "BERT backward",
                                        "Adam",           "a step",       "the products with weights"};
    Random random = {1};
    lm.bert = (Bert){.hidden = 768, .layers = 12, .heads = 12, .intermediate = 3072, .vocab = 28996, .positions = 512,
                  .types = 2, .eps = (real)1e-12};
    bert_list_weights(&lm.bert);
    bert_random(&lm.bert, &random);
    encoder_init(&encoder, ENCODER_LSTM, 9, 768);
    encoder_random(&encoder, 0, &random);
    parameters_train(encoder.weights);
    parameters_pack(lm_weights(&lm));
    bench_examples(examples, ids, true), bench_examples(words, word_ids, false);
    double parts[PARTS], one[PARTS];
    int tokens;
    threads(1);
    bench_step(&lm.bert, &encoder, examples, 8, 5, one, &tokens);
    threads(cores);
    bench_step(&lm.bert, &encoder, examples, 8, 15, parts, &tokens);
    printf("\na step of P-tuning, batch 8, %d tokens, ms   1 thread   %d threads\n", tokens, cores);
    for (int k = 0; k < PARTS; k++) printf("%-42s %9.1f   %9.1f\n", names[k], 1e3 * one[k], 1e3 * parts[k]);
    printf("%-42s %9.0f   %9.0f   (%.2f times as many)\n", "tokens/s", tokens / one[STEP], tokens / parts[STEP],
           one[STEP] / parts[STEP]);
    printf("%-42s %9.0f MiB\n", "peak memory", peak_memory());
    print_limit(&lm.bert, tokens, parts[STEP], peak);
    if (!brief) bench_growth(&lm.bert, &encoder, examples);
    double times[9];
    const int count = min_int(MAX_BATCH, EVALUATION_TOKENS / MEAN_LENGTH);
    for (int i = 0; i < 9; i++) {
        Mark before = mark();
        const double start = seconds();
        const Inputs in = inputs_of(words, in_order(count), count);
        bert_logits(&lm.bert, embed_forward(lm.bert.word, (Tensor){0}, in.id, in.batch.tokens), &in.batch);
        times[i] = seconds() - start;
        release(before);
    }
    printf("\nevaluation, %d tokens per example: %.1f examples/s\n", MEAN_LENGTH, count / median(times, 9));
    parameters_unpack(lm.bert.weights);
    parameters_train(lm.bert.weights);
    for (int i = 0; i < 5; i++) {
        Mark before = mark();
        const double start = seconds();
        const Inputs in = inputs_of(words, in_order(8), 8);
        loss_and_gradient(&lm, (Tensor){0}, &in, NULL);
        adam_step(lm.bert.weights, (Optimizer){5e-6, 5e-4, false}, i + 1, 1);
        times[i] = seconds() - start;
        release(before);
    }
    printf("fine-tuning all of BERT, batch 8, %d tokens: %.0f ms per step\n", tokens, 1e3 * median(times, 5));
}
/* The same tokens for GPT-2, its smallest published size: a step of P-tuning. */
static void bench_gpt(void) {
    static Lm lm;
    static PromptEncoder encoder;
    static Example examples[MAX_BATCH];
    static int ids[MAX_BATCH][LONGEST];
    double times[9];
    Random random = {1};
    lm.causal = true;
    lm.gpt = (Gpt){.hidden = 768, .layers = 12, .heads = 12, .intermediate = 3072, .vocab = 50257, .positions = 1024,
                   .tanh_gelu = true, .eps = (real)1e-5};
    gpt_list_weights(&lm.gpt);
    gpt_random(&lm.gpt, &random);
    encoder_init(&encoder, ENCODER_LSTM, 9, 768);
    encoder_random(&encoder, 0, &random);
    parameters_train(encoder.weights);
    parameters_pack(lm_weights(&lm));
    bench_examples(examples, ids, true);
    for (int s = 0; s < MAX_BATCH; s++) examples[s].mask = examples[s].length - 1;
    for (int i = -1; i < 9; i++) {
        Mark before = mark();
        const double start = seconds();
        const Inputs in = inputs_of(examples, in_order(8), 8);
        train_batch(&lm, &encoder, &in, NULL);
        adam_step(encoder.weights, (Optimizer){5e-4, 5e-4, false}, i + 2, 1);
        if (i >= 0) times[i] = seconds() - start;
        release(before);
    }
    printf("P-tuning of GPT-2 small, batch 8, 120 tokens: %.1f ms each step\n", 1e3 * median(times, 9));
}
int main(int argc, char **argv) {
    const bool brief = argc == 2 && !strcmp(argv[1], "brief");
    if (argc > 1 && !brief) return fprintf(stderr, "usage: bench [brief]\n"), 2;
#ifdef _OPENMP
    cores = omp_get_max_threads();
#endif
    threads(1);
    const double one = multiply_add_peak();
    threads(cores);
    const double all = multiply_add_peak();
    printf("peak of multiply-adds in registers, vectors of %d elements: %.1f GFLOP/s on one thread, %.1f on %d\n",
           LANES, one, all, cores);
    if (!brief) bench_ladder();
    bench_bert(brief, all); /* before bench_matmul, whose weights would add to its peak memory */
    bench_gpt();
    bench_matmul();
    return 0;
}
