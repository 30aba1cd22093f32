/* test.c - the test suite: unit tests, gradient checks, uses of the commands, bad input.
 *
 *   ./test                      everything, with the expected values in data/expected
 *   ./test --bert DIR           also the comparisons with the real BERT-base (twice: one cased, one uncased)
 *   ./test --oracles DIR        expected values from another folder with the same file names
 *   ./test values [NAME]        only the unit tests, or those of one function
 *   ./test gradcheck            only the gradient checks; ./test-double gradcheck: in double
 *   ./test commands             only the command line and bad input
 *   ./test fuzz SECONDS [SEED]  the program on damaged files of every kind, from this seed on
 *
 * Prints one line per check, then the totals; the exit status is 1 if a check failed. The unit tests come first, module
 * by module, then the gradient checks and the command line.
 */
static int ptune_main(int argc, char **argv);
#define main ptune_main
#include "ptune.c"
#undef main
#include <float.h>
#include <sys/wait.h>

/* ==== Helpers ===================================================================================================== */

static int max_int(int a, int b) { return a > b ? a : b; }
static int passed, failed;
static const char *self; /* argv[0]: some checks run this program again */

__attribute__((format(printf, 2, 3))) static bool check(bool right, const char *form, ...) {
    va_list arguments;
    va_start(arguments, form);
    printf(right ? "ok    " : "FAIL  ");
    vprintf(form, arguments);
    printf("\n");
    va_end(arguments);
    fflush(stdout);
    if (right) passed++;
    else failed++;
    return right;
}

/* A crash is a failed check too. After this line it takes its usual course. */
static const char *running = "this program"; /* the check that runs now */
static struct sigaction usual;
static void report_crash(int number) {
    check(false, "%-17s crashes", running);
    sigaction(number, &usual, NULL);
}

/* The larger of two errors. NaN counts as infinite: fmax would drop it. */
static double worse(double a, double b) { return isnan(a) || isnan(b) ? (double)INFINITY : fmax(a, b); }
static int random_int(Random *random, int least, int most) {
    return least + (int)(random_bits(random) % (uint64_t)(most - least + 1));
}

/* ---- Files of expected values ------------------------------------------------------------------------------------ */
static const char *oracles = "data/expected";

static const char *oracle(const char *name) { return format("%s/%s", oracles, name); }
/* Whether a check has its file. data/expected must be complete; another folder may lack some files. */
static bool have(const char *name, const char *check_name) {
    if (file_exists(oracle(name))) return true;
    if (!strcmp(oracles, "data/expected")) die("%s: missing", oracle(name));
    printf("not run: %s: %s is missing\n", check_name, oracle(name));
    return false;
}
static Tensor expected(const Safetensors *file, const char *name) {
    Tensor t;
    if (!safetensors_find(file, name, &t)) die("%s: no tensor %s", file->path, name);
    return t;
}
static void read_weights(const Safetensors *file, Parameters list) {
    for (int i = 0; i < list.count; i++) {
        Tensor *t = list.at[i].tensor;
        *t = safetensors_get(file, list.at[i].name, t->rows, t->cols);
    }
}
/* A tensor of layers.safetensors: small inputs, and PyTorch's outputs for them, computed in double. */
static Tensor given(const char *name) {
    const Safetensors file = safetensors_open(oracle("layers.safetensors"));
    return expected(&file, name);
}
/* The largest |a - b| over all elements, relative to the largest |b|. */
static double largest_difference(const real *a, const real *b, size_t count) {
    double difference = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        difference = worse(difference, fabs((double)(a[i] - b[i])));
        largest = worse(largest, fabs((double)b[i]));
    }
    return largest > 0 ? difference / largest : difference;
}
static double weights_difference(Parameters got, Parameters want) {
    double worst = 0;
    for (int i = 0; i < got.count; i++) {
        const Tensor *t = got.at[i].tensor;
        worst = worse(worst, largest_difference(t->data, want.at[i].tensor->data, size_of(*t)));
    }
    return worst;
}
static Tensor copy_of(Tensor t) {
    return (Tensor){t.rows, t.cols, memcpy(tensor(t.rows, t.cols).data, t.data, size_of(t) * sizeof(real)), NULL, NULL};
}
static void check_output(const char *name, Tensor y) {
    const Tensor want = given(name);
    double worst = 0, largest = 0;
    size_t at = 0;
    if (y.rows != want.rows || y.cols != want.cols) {
        check(false, "%-22s is (%d, %d), expected (%d, %d)", name, y.rows, y.cols, want.rows, want.cols);
        return;
    }
    for (size_t i = 0; i < size_of(y) && !isnan(worst); i++) {
        const double difference = fabs((double)(y.data[i] - want.data[i]));
        if (!(difference <= worst)) worst = difference, at = i;
        largest = worse(largest, fabs((double)want.data[i]));
    }
    check(worst < 1e-5 * largest, "%-22s %3zu elements, largest difference %.1e at [%zu]: %.6g, expected %.6g", name,
          size_of(y), worst, at, (double)y.data[at], (double)want.data[at]);
}

static Text read_json(const char *path) {
    Text json = read_file(path);
    json_check(json, path, 0);
    return json;
}
static Text member(Text object, const char *name, const char *path) {
    Text value;
    if (!json_member(object, name, &value)) die("%s: no %s", path, name);
    return value;
}
static Text json_at(Text array, int i) {
    Text key, value;
    size_t position = 0;
    for (int k = 0; k <= i; k++)
        if (!json_next(array, &position, &key, &value)) die("a list of expected values has only %d elements", k);
    return value;
}
static bool ids_are(const int *id, int count, Text array) {
    if (json_count(array) != count) return false;
    for (int i = 0; i < count; i++)
        if (json_int(json_at(array, i)) != id[i]) return false;
    return true;
}

/* ---- Small inputs shared by several checks ----------------------------------------------------------------------- */
static const int targets[] = {2, 0, 5, 1, 3, 4};
static const int mixed_ids[] = {3, -1, 0, -3, 3, -2, 2}; /* words and pseudo-tokens; word 3 occurs twice */
static const int repeated_ids[] = {3, -1, 0, -3, 3, -1, 2}; /* pseudo-token -1 too; -2 does not occur */
/* Two sequences, of 3 and 4 tokens, with three selected positions. */
static Batch ragged(void) {
    static int start[] = {0, 3, 7}, selected_start[] = {0, 1, 3}, selected[] = {1, 3, 6};
    return (Batch){2, 7, 3, start, selected_start, selected};
}
/* Four sequences, one of them a single token. All positions of a sequence are selected, or none, or some. */
static Batch more_ragged(void) {
    static int start[] = {0, 3, 5, 6, 10}, selected_start[] = {0, 3, 3, 4, 6}, selected[] = {0, 1, 2, 5, 7, 9};
    return (Batch){4, 10, 6, start, selected_start, selected};
}

/* ==== tensor.h ==================================================================================================== */

/* The fast approximations of exp and of the normal distribution function, against libm. */
static void check_exp_fast(void) {
    double exp_error = 0, cdf_error = 0, bound = sizeof(real) == 8 ? 1e-15 : 2.5e-7;
    for (double x = -86; x < 88; x += 0.0137) {
        const real r = (real)x, bell = exp_fast(-r * r / 2);
        exp_error = worse(exp_error, fabs((double)exp_fast(r) / exp((double)r) - 1));
        cdf_error = worse(cdf_error, fabs((double)normal_cdf(r, bell) - erfc(-(double)r / sqrt(2.0)) / 2));
    }
    check(exp_error < bound, "%-22s relative error %.1e", "exp_fast", exp_error);
    check(cdf_error < bound, "%-22s error %.1e", "normal_cdf", cdf_error);
    real nan[2] = {(real)NAN}; /* and one whose bits are all ones */
    memset(&nan[1], 0xFF, sizeof nan[1]);
    Tensor x = {1, 2, nan, NULL, NULL};
    const Tensor y = relu_forward(x), z = gelu_forward(x);
    for (int i = 0; i < 2; i++)
        check(isnan(exp_fast(nan[i])) && isnan(y.data[i]) && isnan(z.data[i]),
              "%-22s exp, relu and gelu of NaN are NaN", "exp_fast");
}
/* Surrogates, code points beyond U+10FFFF, overlong and truncated forms, and their valid neighbours. */
static void check_utf8_valid(void) {
    static const struct { const char *bytes; bool valid; } cases[] = {
        {"\xED\x9F\xBF", true},      {"\xED\xA0\x80", false},     {"\xED\xBF\xBF", false}, {"\xEE\x80\x80", true},
        {"\xF4\x8F\xBF\xBF", true},  {"\xF4\x90\x80\x80", false}, {"\xE0\x9F\xBF", false}, {"\xE0\xA0\x80", true},
        {"\xF0\x8F\xBF\xBF", false}, {"\xC1\xBF", false},         {"\xC2\x80", true},      {"\xE2\x82", false}};
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        wrong += utf8_valid(text_of(cases[i].bytes)) != cases[i].valid;
    check(!wrong, "%-22s %d of %zu byte sequences are misjudged", "utf8_valid", wrong, sizeof cases / sizeof *cases);
}
/* A zero added at the end, a change of any one byte, and two flipped high bits all change the hash. */
static void check_hash_text(void) {
    char bytes[41] = {0};
    const uint64_t hash = hash_text(0, (Text){bytes, 40});
    int same = hash_text(0, (Text){bytes, 41}) == hash;
    for (int i = 0; i < 40; i++) {
        bytes[i] ^= 0x40;
        same += hash_text(0, (Text){bytes, 40}) == hash;
        bytes[i] ^= 0x40;
    }
    for (int i = 7; i + 8 < 40; i += 8) {
        bytes[i] ^= (char)0x80, bytes[i + 8] ^= (char)0x80;
        same += hash_text(0, (Text){bytes, 40}) == hash;
        bytes[i] ^= (char)0x80, bytes[i + 8] ^= (char)0x80;
    }
    check(!same, "%-22s %d of 45 other texts have the same hash", "hash_text", same);
}
static void check_json_value(void) {
    static const char *const valid[] = {"0", "-0", "1.5", "1e5", "1E-5", "-0.1e+2", "[]", "{\"a\":[1,{}]}", "null"};
    static const char *const invalid[] = {"1.",  "1e+",  "-",       "1e",    ".5",  "+1",      "01",
                                          "1.e", "[1,]", "{\"a\"}", "{1:2}", "nul", "\"\\x\"", "\"\n\""};
    const char *wrong = "";
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        const char *end = valid[i] + strlen(valid[i]);
        if (json_value(valid[i], end, 0) != end) wrong = valid[i];
    }
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        const char *end = invalid[i] + strlen(invalid[i]);
        if (json_value(invalid[i], end, 0) == end) wrong = invalid[i];
    }
    check(!*wrong, "%-22s 9 texts are JSON, 14 are not: misjudged '%s'", "json_value", wrong);
}

/* Memory that ends at a page boundary, before a guard page: any access past its end is a crash. */
static real *guarded(size_t count) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (count * sizeof(real) + page - 1) / page * page;
    FILE *zeros = tmpfile(); /* a hole: macOS does not map /dev/zero, and POSIX has no MAP_ANONYMOUS */
    if (!zeros || ftruncate(fileno(zeros), (off_t)(bytes + page))) die("tmpfile: %s", strerror(errno));
    char *base = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(zeros), 0);
    if (base == MAP_FAILED || fclose(zeros) || mprotect(base + bytes, page, PROT_NONE))
        die("no memory with a guard page");
    return (real *)(base + bytes) - count;
}
/* A view of the last rows and columns of a larger random matrix. */
static Matrix random_view(int rows, int cols, bool transpose, Random *random) {
    Tensor whole = {(transpose ? cols : rows) + 1, (transpose ? rows : cols) + 3, NULL, NULL, NULL};
    whole.data = guarded(size_of(whole));
    fill_normal(whole, 1, random);
    const Matrix view = part(values(whole), 1, whole.rows - 1, 3, whole.cols - 3);
    return transpose ? transposed(view) : view;
}
static real *element(Matrix a, int i, int j) { return a.data + i * a.row_stride + j * a.col_stride; }
/* C += A B for (m, k) x (k, n), against plain sums in double: the largest error, divided by sqrt(k). The bits of layout
 * say which of A, B and C are transposed. */
static double product_error(void (*product)(Matrix, Matrix, Matrix), int m, int n, int k, int layout,
                            Random *random) {
    const Matrix a = random_view(m, k, layout & 1, random), b = random_view(k, n, layout & 2, random);
    const Matrix c = random_view(m, n, layout & 4, random);
    double *want = allocate(sizeof(double[m * n])), error = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = (double)*element(c, i, j);
            for (int p = 0; p < k; p++) sum += (double)*element(a, i, p) * (double)*element(b, p, j);
            want[i * n + j] = sum;
        }
    product(c, a, b);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            error = worse(error, fabs((double)*element(c, i, j) - want[i * n + j]) / sqrt(k));
    return error;
}
/* Random small shapes, a few with a long inner dimension; or, if `large`, shapes in all layouts that are split across
 * threads, with several groups of panels and one to three blocks of the inner dimension, whole or not. */
static void check_product(const char *name, void (*product)(Matrix, Matrix, Matrix), bool large) {
    const double bound = 100 * (double)(sizeof(real) == 8 ? DBL_EPSILON : FLT_EPSILON);
    const int trials = large ? 16 : 400;
    Random random = {1};
    double worst = 0;
    int wrong = 0;
    for (int trial = 0; trial < trials; trial++) {
        Mark before = mark();
        const int m = random_int(&random, large ? 100 : 1, large ? 400 : 70);
        const int n = random_int(&random, large ? 100 : 1, large ? 400 : 70);
        int k = random_int(&random, 1, trial % 50 ? 90 : 1600);
        if (large) { /* after one or two whole blocks of the inner dimension 0, 1 or some more */
            if (trial < 4) k = 0;
            else if (trial < 6) k = 1;
            k += BLOCK_K * (1 + trial / 8 % 2);
        }
        const double error = product_error(product, m, n, k, trial % 8, &random);
        if (!(error < bound) && !wrong++) printf("      C (%d, %d) += A (%d, %d) B: differs\n", m, n, m, k);
        worst = worse(worst, error);
        release(before);
    }
    check(!wrong, "%-22s %d %sshapes and strides: %d differ from plain sums, largest error %.1e", name, trials,
          large ? "large " : "", wrong, worst);
}
/* ---- The same bits on any number of threads ----------------------------------------------------------------------
 * No sum is split across threads, so every result is the same to the last bit, whatever their number. One process per
 * number, which prints hashes of its results: threads that end before their process would leak their buffers. */
static uint64_t hash_elements(uint64_t hash, const real *x, size_t count) {
    const unsigned char *bytes = (const unsigned char *)x;
    for (size_t i = 0; i < count * sizeof(real); i++) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return hash;
}
static uint64_t matmul_bits(uint64_t hash, Random *random) { /* over all layouts */
    for (int layout = 0; layout < 8; layout++) {
        const Matrix a = random_view(300, 900, layout & 1, random), b = random_view(900, 200, layout & 2, random);
        const Tensor c = layout & 4 ? tensor_zeros(200, 300) : tensor_zeros(300, 200);
        matmul(layout & 4 ? transposed(values(c)) : values(c), a, b);
        hash = hash_elements(hash, c.data, size_of(c));
    }
    return hash;
}
/* A tensor and its gradient, both drawn: the order in which something is added to a gradient changes its bits. */
static Tensor random_tensor(int rows, int cols, Random *random) {
    Tensor t = tensor(rows, cols), gradients = tensor(rows, cols);
    fill_normal(t, 1, random), fill_normal(gradients, 1, random);
    t.grad = gradients.data;
    return t;
}
static void draw_gradient(Tensor *t, Random *random) { t->grad = random_tensor(t->rows, t->cols, random).data; }
/* The layers whose loops are split across threads, each large enough for that. */
static uint64_t attention_bits(uint64_t hash, Random *random) {
    static int start[] = {0, 100, 200, 300};
    Tensor qkv[3];
    for (int i = 0; i < 3; i++) qkv[i] = random_tensor(300, 99, random);
    Attention a = attention_forward(qkv[0], qkv[1], qkv[2], 3, 3, start, start, NULL);
    draw_gradient(&a.context, random);
    attention_backward(&a, qkv[0], qkv[1], qkv[2], 3, 3, start, start);
    for (int i = 0; i < 3; i++) hash = hash_elements(hash, qkv[i].grad, size_of(qkv[i]));
    return hash_elements(hash, a.context.data, size_of(a.context));
}
static uint64_t layer_bits(uint64_t hash, Random *random) {
    const LayerNorm l = {random_tensor(1, 100, random), random_tensor(1, 100, random), (real)1e-5};
    Tensor x = random_tensor(900, 100, random), logits = random_tensor(900, 100, random);
    Tensor normed = layernorm_forward(&l, x), active = gelu_forward(normed);
    cross_entropy_backward(logits, allocate_zeroed(sizeof(int[900])));
    draw_gradient(&active, random), draw_gradient(&normed, random);
    gelu_backward(normed, active);
    layernorm_backward(&l, x, normed);
    const Tensor results[] = {logits, active, normed, x, l.w, l.b};
    for (int i = 0; i < 6; i++) {
        hash = hash_elements(hash, results[i].data, size_of(results[i]));
        hash = hash_elements(hash, results[i].grad, size_of(results[i]));
    }
    Parameter p = {"", MATRIX, &x, tensor_zeros(900, 100), tensor_zeros(900, 100)};
    adam_step((Parameters){&p, 1}, (Optimizer){0.1, 0.1, false}, 1, 1);
    return hash_elements(hash, x.data, size_of(x));
}
/* An LSTM above 100 units, several times: threads that meet where they should not do so by chance. */
static Lstm large_lstm(Parameters *list, Random *random) { /* the list has room for one more */
    *list = (Parameters){allocate(sizeof(Parameter[17])), 0};
    const Lstm lstm = lstm_new(2, 300, 104, "", list);
    parameters_allocate(*list);
    lstm_random(&lstm, random);
    return lstm;
}
static uint64_t lstm_bits(uint64_t hash, Random *random) {
    Parameters list;
    const Lstm lstm = large_lstm(&list, random);
    const Tensor x = random_tensor(4, 300, random), dy = random_tensor(4, 208, random);
    for (int run = 0; run < 16; run++) {
        Mark before = mark();
        for (int i = 0; i < list.count; i++) needs_grad(list.at[i].tensor);
        LstmActivations a = lstm_forward(&lstm, x);
        a.output[1].grad = copy_of(dy).data;
        lstm_backward(&lstm, x, a);
        for (int i = 0; i < list.count; i++)
            hash = hash_elements(hash, list.at[i].tensor->grad, size_of(*list.at[i].tensor));
        hash = hash_elements(hash, x.grad, size_of(x));
        release(before);
    }
    return hash;
}
static const struct { const char *name; uint64_t (*bits)(uint64_t, Random *); } threaded[] = {
    {"matmul", matmul_bits}, {"attention", attention_bits}, {"layers", layer_bits}, {"lstm", lstm_bits}};

static void print_bits(const char *name) {
    for (size_t i = 0; i < sizeof threaded / sizeof *threaded; i++)
        if (!strcmp(name, threaded[i].name))
            printf("%016jx\n", (uintmax_t)threaded[i].bits(0xCBF29CE484222325u, &(Random){1}));
}
static void check_bits(const char *unit, const char *name) {
    char one[20] = "", line[20] = "";
    int different = 0;
    for (int count = 1; count <= 4; count++) {
        FILE *stream = popen(format("OMP_NUM_THREADS=%d '%s' bits %s", count, self, name), "r");
        if (!stream || !fgets(line, sizeof line, stream) || pclose(stream)) die("%s bits %s: failed", self, name);
        if (count == 1) strcpy(one, line);
        different += strcmp(one, line) != 0;
    }
    check(!different, "%-22s %s: the same bits on 1, 2, 3 and 4 threads: %d differ", unit, name, different);
}
static void check_matmul_threads(void) { check_bits("matmul", "matmul"); }
static void check_lstm_threads(void) { check_bits("lstm_backward", "lstm"); }
static void check_layer_threads(void) { check_bits("threads", "layers"), check_bits("threads", "attention"); }

static void check_matmul_naive(void) { check_product("matmul_naive", matmul_naive, false); }
static void check_pack(void) {
    Random random = {1};
    int wrong = 0;
    for (int trial = 0; trial < 100; trial++) {
        const int k = random_int(&random, 1, 40), n = random_int(&random, 1, 100);
        const Matrix b = random_view(k, n, trial % 2, &random);
        const int width = trial % 4 < 2 ? TILE_COLS : TILE_ROWS, all = ceil_div(n, width) * width;
        real *packed = guarded((size_t)(k * all));
        for (int i = 0; i < k * all; i++) packed[i] = (real)NAN;
        pack(packed, b, width);
        for (int p = 0; p < k; p++)
            for (int j = 0; j < all; j++)
                wrong += packed[(j / width * k + p) * width + j % width] != (j < n ? *element(b, p, j) : 0);
    }
    check(!wrong, "%-22s 100 shapes and strides: %d elements out of place", "pack", wrong);
}
static void check_matmul(void) {
    check_product("matmul", matmul, false);
    check_product("matmul", matmul, true);
}
static void matmul_in_region(Matrix c, Matrix a, Matrix b) { /* as the LSTM calls it, once per direction */
#pragma omp parallel for schedule(static, 1)
    for (int i = 0; i < 2; i++)
        if (i) matmul(c, a, b);
}
/* With a packed copy of B, which is read in its place. */
static void matmul_with_copy(Matrix c, Matrix a, Matrix b) {
    b.packed = packed_copy(b);
    matmul(c, a, b);
}
/* The copy changes no bit of a product. Elements of C that differ, over all layouts. */
static int differ_with_copy(int m, int n, int k, Random *random) {
    int differ = 0;
    for (int layout = 0; layout < 8; layout++) {
        Mark before = mark();
        const Matrix a = random_view(m, k, layout & 1, random), b = random_view(k, n, layout & 2, random);
        const Tensor without = tensor_zeros(m, n), with = tensor_zeros(m, n);
        const bool transpose = layout & 4;
        Matrix c[] = {values(without), values(with)};
        for (int i = 0; i < 2; i++)
            if (transpose) c[i] = (Matrix){c[i].data, m, n, 1, m, NULL};
        matmul(c[0], a, b);
        matmul_with_copy(c[1], a, b);
        for (int i = 0; i < m * n; i++) differ += without.data[i] != with.data[i];
        release(before);
    }
    return differ;
}
static void check_packed_copy(void) {
    static const int shapes[][3] = {{1, 1, 1}, {8, 100, 24}, {50, 49, 800}, {300, 200, 900}, {7, 500, 1600}};
    Random random = {3};
    check_product("packed_copy", matmul_with_copy, false);
    check_product("packed_copy", matmul_with_copy, true);
    for (int i = 0; i < 5; i++) {
        const int m = shapes[i][0], n = shapes[i][1], k = shapes[i][2], differ = differ_with_copy(m, n, k, &random);
        check(!differ, "%-22s C (%d, %d) += A (%d, %d) B: %d elements differ from those without a copy", "packed_copy",
              m, n, m, k, differ);
    }
    Tensor t = tensor_zeros(50, 90);
    t.packed = packed_copy(values(t));
    check(values(t).packed && !transposed(values(t)).packed && !part(values(t), 0, 20, 0, 90).packed,
          "%-22s of a matrix, not of a part of it, nor of it transposed", "packed_copy");
}
static void check_matmul_in_region(void) { check_product("matmul in a region", matmul_in_region, true); }
/* The shares of three threads, one after the other: tested even with one thread, and on small products. */
static void matmul_in_shares(Matrix c, Matrix a, Matrix b) {
    real *packed_a = a.col_stride == 1 ? NULL : allocate(sizeof(real[a.rows + TILE_ROWS][a.cols]));
    if (packed_a) pack(packed_a, transposed(a), TILE_ROWS);
    for (int share = 0; share < 3; share++) matmul_share(c, a, b, packed_a, share, 3);
}
static void check_matmul_share(void) {
    check_product("matmul_share", matmul_in_shares, false);
    check_product("matmul_share", matmul_in_shares, true);
}

static void check_linear(void) {
    const Linear l = {given("w"), given("b")};
    check_output("linear_forward", linear_forward(&l, given("x")));
}
static void check_residual(void) {
    const Tensor sum = copy_of(given("x"));
    residual_forward(sum, given("k"));
    check_output("residual_forward", sum);
}
static void check_layernorm(void) {
    const LayerNorm l = {given("gain"), given("bias"), (real)1e-2};
    check_output("layernorm_forward", layernorm_forward(&l, given("x")));
}
static void check_relu(void) { check_output("relu_forward", relu_forward(given("x"))); }
static void check_gelu(void) { check_output("gelu_forward", gelu_forward(given("x"))); }
/* The form with tanh: its values by tanh itself, its slope by differences. */
static void check_tanh_gelu(void) {
    enum { COUNT = 161 };
    Tensor x = tensor(1, COUNT), above = tensor(1, COUNT), below = tensor(1, COUNT);
    double worst = 0, worst_slope = 0;
    const double eps = 1e-2;
    for (int i = 0; i < COUNT; i++) {
        x.data[i] = (real)(i - 80) / 10;
        above.data[i] = x.data[i] + (real)eps, below.data[i] = x.data[i] - (real)eps;
    }
    Tensor y = tanh_gelu_forward(x);
    const Tensor up = tanh_gelu_forward(above), down = tanh_gelu_forward(below);
    needs_grad(&x), needs_grad(&y);
    fill_constant((Tensor){1, COUNT, y.grad, NULL, NULL}, 1);
    tanh_gelu_backward(x, y);
    for (int i = 0; i < COUNT; i++) {
        const double at = (double)x.data[i], u = sqrt(2 / 3.14159265358979323846) * (at + 0.044715 * at * at * at);
        worst = fmax(worst, fabs((double)y.data[i] - at * (1 + tanh(u)) / 2));
        const double slope = (double)(up.data[i] - down.data[i]) / (2 * eps);
        worst_slope = fmax(worst_slope, fabs((double)x.grad[i] - slope));
    }
    check(worst < 2e-6, "%-22s x from -8 to 8, largest error %.1e", "tanh_gelu_forward", worst);
    check(worst_slope < 2e-4, "%-22s against differences, largest error %.1e", "tanh_gelu_backward", worst_slope);
}
/* All 65536 halves: sign, exponent and fraction by ldexp. */
static void check_half(void) {
    int wrong = 0;
    for (unsigned half = 0; half < 0x10000; half++) {
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const double size = ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
        const float x = float_of_half((uint16_t)half);
        const bool negative = signbit(x), special = exponent == 31;
        wrong += negative != (half >= 0x8000);
        if (special) wrong += fraction ? !isnan(x) : !isinf(x);
        else wrong += fabs((double)x) != size;
    }
    wrong += float_of_brain(0x3FC0) != 1.5f || float_of_brain(0xC000) != -2.0f;
    check(!wrong, "%-22s all 65536 halves, %d wrong", "float_of_half", wrong);
}
static void check_softmax(void) {
    const Tensor p = copy_of(given("logits"));
    for (int i = 0; i < p.rows; i++) softmax_forward(row(p, i), p.cols, (real)0.7);
    check_output("softmax_forward", p);
}
static void check_cross_entropy(void) {
    const Tensor loss = tensor(1, 1);
    loss.data[0] = (real)cross_entropy_forward(given("logits"), targets);
    check_output("cross_entropy_forward", loss);
}
/* A row is shifted by 2000 or -2000: the gradient is that of the row as it was, computed in double. */
static void check_cross_entropy_backward(void) {
    static const double x[] = {0.25, -1.5, 3, 0.5, 9.75};
    static const int shift[] = {0, 2000, -2000}, target[] = {1, 1, 1};
    Tensor logits = tensor(3, 5);
    double sum = 0, worst = 0;
    for (int j = 0; j < 5; j++) sum += exp(x[j]);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++) row(logits, i)[j] = (real)(x[j] + shift[i]);
    needs_grad(&logits);
    cross_entropy_backward(logits, target);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 5; j++)
            worst = worse(worst, fabs((double)grad_row(logits, i)[j] - (exp(x[j]) / sum - (j == 1)) / 3));
    check(worst < 1e-6, "%-22s logits near 0, 2000 and -2000: the gradient differs by %.1e", "cross_entropy_backward",
          worst);
}
/* A thousand steps with changing gradients, against the formulas in double: the corrections fade. */
static void check_adam_steps(void) {
    Tensor w = tensor_zeros(1, 1);
    Parameter p = {.tensor = &w};
    double weight = 0, m = 0, v = 0, worst = 0;
    parameters_train((Parameters){&p, 1});
    for (int step = 1; step <= 1000; step++) {
        const double g = sin(step) + 0.5;
        w.grad[0] = (real)g;
        adam_step((Parameters){&p, 1}, (Optimizer){1e-3, 0, false}, step, 1);
        m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
        weight -= 1e-3 * (m / (1 - pow(0.9, step))) / (sqrt(v / (1 - pow(0.999, step))) + 1e-8);
        worst = worse(worst, fabs((double)w.data[0] - weight));
    }
    check(worst < 1e-5, "%-22s 1000 steps from 0 to %.4f: differs by %.1e", "adam_step", weight, worst);
}
/* Two steps of one weight from 1, with gradients 0.5 and -1 (doubled here, and scaled by 0.5), against torch.optim. */
static void check_adam_step(void) {
    static const double want[2][2] = {{0.900000002, 0.925263519}, {0.890000002, 0.917710354}};
    for (int decoupled = 0; decoupled < 2; decoupled++) {
        Tensor w = tensor(1, 1);
        Parameter p = {.tensor = &w};
        double got[2];
        fill_constant(w, 1);
        parameters_train((Parameters){&p, 1});
        for (int step = 1; step <= 2; step++) {
            w.grad[0] = step == 1 ? 1 : -2;
            adam_step((Parameters){&p, 1}, (Optimizer){0.1, 0.1, decoupled}, step, 0.5);
            got[step - 1] = (double)w.data[0];
        }
        check(fabs(got[0] - want[decoupled][0]) < 1e-6 && fabs(got[1] - want[decoupled][1]) < 1e-6 && w.grad[0] == 0,
              "%-22s %s: 1, %.6f, %.6f, expected 1, %.6f, %.6f; gradient %g, expected 0", "adam_step",
              decoupled ? "AdamW" : "Adam", got[0], got[1], want[decoupled][0], want[decoupled][1], (double)w.grad[0]);
    }
}

/* ==== tokenizer.h: against the tokenizers library ================================================================= */

static Vocab cased_vocab(void) { return vocab_load("data/expected/bert-base-cased"); }
static Vocab uncased_vocab(void) { return vocab_load("data/expected/bert-base-uncased"); }

static void check_wordpiece(void) {
    const Vocab cased = cased_vocab();
    static const struct { const char *word; int count, id[4]; } cases[] = {
        {"a", 1, {170}},
        {"unaffable", 4, {8362, 9823, 8057, 2165}},
        {"na\xC3\xAFvet\xC3\xA9", 4, {9468, 28203, 21095, 2744}},
        {"x\xE2\x98\x83", 1, {100}}}; /* a snowman: no piece, so the word is [UNK] */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Ids ids = {0};
        const char *word = cases[i].word;
        wordpiece(&cased, text_string(text_of(format("  %s", word))) + 2, strlen(word), &ids);
        bool right = ids.count == cases[i].count;
        for (int k = 0; right && k < ids.count; k++) right = ids.id[k] == cases[i].id[k];
        check(right, "%-22s %s: %d pieces, expected %d", "wordpiece", word, ids.count, cases[i].count);
    }
}
static void check_tokenize(void) {
    const Vocab vocabs[] = {cased_vocab(), uncased_vocab()};
    static const char *const names[] = {"cased", "uncased"};
    const char *path = oracle("tokenizer.jsonl");
    Text rest = read_file(path);
    int texts = 0, wrong = 0;
    for (Text line; next_line(&rest, &line);) {
        json_check(line, path, ++texts);
        const Text text = json_string(member(line, "text", path));
        for (int k = 0; k < 2; k++) {
            Ids ids = {0};
            tokenize_with_special(&vocabs[k], text, &ids);
            if (ids_are(ids.id, ids.count, member(line, names[k], path))) continue;
            printf("      line %d, %s: differs\n", texts, names[k]);
            wrong++;
        }
    }
    check(texts && !wrong, "%-22s %s: %d texts, cased and uncased: %d differ", "tokenize", path, texts, wrong);
}
static void check_special_tokens(void) {
    const Vocab cased = cased_vocab();
    Ids plain = {0}, special = {0}, bad = {0}, good = {0};
    tokenize(&cased, text_of("x[MASK]"), &plain), tokenize_with_special(&cased, text_of("x[MASK]"), &special);
    check(special.count == 2 && special.id[1] == cased.mask && plain.count > 2,
          "%-22s [MASK] is one special token; for tokenize it is plain text", "tokenize_with_special");
    tokenize(&cased, (Text){"he\xFFllo \xE2\x82", 9}, &bad), tokenize(&cased, text_of("hello"), &good);
    check(bad.count == good.count && bad.id[0] == good.id[0], "%-22s bytes that are not UTF-8 are dropped", "tokenize");
}
static void check_looks_cased(void) {
    static const struct { const char *words; bool cased; } cases[] = {
        {"[PAD]\n[CLS]\nLOL\nthe\ncapital\nof\nfrance", false}, {"the\nParis\nRome\n##A\n[MASK]", true},
        {"I\nthe\ncapital", false}, {"a\nb\nA\nB\nParis\nRome", true}, {"", false}};
    const Vocab published[] = {uncased_vocab(), cased_vocab()};
    int wrong = 0;
    for (int k = 0; k < 2; k++) wrong += vocab_looks_cased(&published[k]) != (k == 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Vocab vocab = {0};
        vocab_read(&vocab, text_of(cases[i].words), "words");
        wrong += vocab_looks_cased(&vocab) != cases[i].cased;
    }
    check(!wrong, "%-22s both published vocabularies and five small ones: %d wrong", "vocab_looks_cased", wrong);
}
/* The hash of a block of code points; the first line of each file of expected hashes defines it. */
static uint64_t hash_codes(uint64_t hash, const Vocab *vocab, uint32_t block, uint32_t end, const char *before,
                           const char *after) {
    Mark start = mark();
    for (uint32_t c = block; c < end; c++) {
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
static uint64_t hash_block(const Vocab *vocab, uint32_t block, const char *before, const char *after) {
    return hash_codes(0xCBF29CE484222325u, vocab, block, block + 0x1000, before, after);
}
static void check_every_code_point(const char *path, const Vocab *cased, const Vocab *uncased, const char *before,
                                   const char *after) {
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
    check(blocks == 272 && !wrong, "%-22s %s: every code point, cased and uncased: %d of 544 blocks differ", "tokenize",
          path, wrong);
}
static const char MARKS_BEFORE[] = "a\xE3\x80\xAE", MARKS_AFTER[] = "\xE1\xAE\xAA" "b"; /* U+302E, U+1BAA */

/* A vocabulary in which nothing is unknown: the special tokens, then c and ##c for every code point c. It distinguishes
 * what the published vocabularies map to [UNK]. */
static Vocab vocab_of_everything(void) {
    char *text = allocate(16u << 20), *at = text;
    at += sprintf(at, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n");
    for (uint32_t c = 0x21; c < 0x110000; c++) {
        char piece[4];
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        const int n = (int)utf8_encode(c, piece);
        at += sprintf(at, "%.*s\n##%.*s\n", n, piece, n, piece);
    }
    Vocab vocab = {0};
    vocab_read(&vocab, (Text){text, (size_t)(at - text)}, "every code point");
    vocab.unk = 1, vocab.cls = 2, vocab.sep = 3, vocab.mask = 4;
    return vocab;
}
static Vocab every_vocab(bool lower, bool strips_accents) {
    static Vocab every;
    if (!every.size) every = vocab_of_everything();
    Vocab vocab = every;
    vocab.cased = !lower, vocab.strips_accents = strips_accents;
    return vocab;
}
/* Each combination of the four settings: a line has them and the hash. */
static void check_unicode_settings(void) {
    const char *path = "data/expected/unicode_settings.txt";
    const Texts lines = read_lines(path);
    int combinations = 0, wrong = 0;
    for (int i = 0; i < lines.count; i++) {
        int lower, accents, ideographs, clean;
        char want[17] = "";
        if (sscanf(text_string(lines.at[i]), "%d %d %d %d %16s", &lower, &accents, &ideographs, &clean, want) != 5)
            continue;
        Vocab vocab = every_vocab(lower, accents);
        vocab.joins_ideographs = !ideographs, vocab.keeps_controls = !clean;
        uint64_t hash = hash_codes(0xCBF29CE484222325u, &vocab, 0, 0x30000, MARKS_BEFORE, MARKS_AFTER);
        hash = hash_codes(hash, &vocab, 0xE0000, 0xE1000, MARKS_BEFORE, MARKS_AFTER);
        combinations++, wrong += hash != strtoull(want, NULL, 16);
    }
    check(combinations == 16 && !wrong, "%-22s %s: %d combinations of settings, %d differ", "tokenize", path,
          combinations, wrong);
}
static void check_unicode(void) {
    const Vocab cased = cased_vocab(), uncased = uncased_vocab();
    check_every_code_point("data/expected/unicode_check.txt", &cased, &uncased, "a", "b");
    const Vocab every = every_vocab(false, false), every_lower = every_vocab(true, true);
    check_every_code_point("data/expected/unicode_full.txt", &every, &every_lower, MARKS_BEFORE, MARKS_AFTER);
}

/* The vocabulary of gpt/bpe.jsonl: gpt/merges.txt beside it, or GPT-2's own. */
static Vocab gpt_vocab(const char *folder) {
    const char *own = format("%s/gpt/merges.txt", folder);
    Vocab vocab = {.bytes = true};
    vocab_read_merges(&vocab, file_exists(own) ? own : format("%s/../vocab/gpt2-merges.txt", folder));
    vocab_finish(&vocab, &(FoundTokens){.bytes = true}, (Said){{0}});
    return vocab;
}
static Vocab small_gpt_vocab(void) { return gpt_vocab("data/expected"); }

static void check_tokenize_bytes(void) {
    const char *path = oracle("gpt/bpe.jsonl");
    const Vocab vocab = gpt_vocab(oracles);
    Text rest = read_file(path);
    int texts = 0, wrong = 0;
    for (Text line; next_line(&rest, &line);) {
        Ids ids = {0};
        json_check(line, path, ++texts);
        tokenize_with_special(&vocab, json_string(member(line, "text", path)), &ids);
        if (ids_are(ids.id, ids.count, member(line, "ids", path))) continue;
        printf("      line %d differs\n", texts);
        wrong++;
    }
    check(texts && !wrong, "%-22s %s: %d texts, %d tokens: %d differ", "tokenize_bytes", path, texts, vocab.size,
          wrong);
}
static void check_end_of_text(void) {
    const Vocab vocab = small_gpt_vocab();
    const Text text = text_of("x<|endoftext|>");
    Ids plain = {0}, special = {0}, bad = {0};
    tokenize(&vocab, text, &plain), tokenize_with_special(&vocab, text, &special);
    check(special.count == 2 && special.id[1] == vocab.end && vocab.end == vocab.size - 1 && plain.count > 2,
          "%-22s <|endoftext|> is one special token; for tokenize it is plain text", "tokenize_bytes");
    tokenize(&vocab, text_of("\xFF" "of\xFE"), &bad);
    check(bad.count == 3 && bad.id[0] == vocab.byte_id[0xFF] && bad.id[1] == vocab_find(&vocab, text_of("of")) &&
              bad.id[2] == vocab.byte_id[0xFE],
          "%-22s bytes that are not UTF-8 stand for themselves", "tokenize_bytes");
}
/* A form with the code point in the places of c. */
static Text with_code_point(const char *form, uint32_t code) {
    char *text = allocate(4 * strlen(form));
    size_t size = 0;
    for (; *form; form++)
        if (*form == 'c') size += utf8_encode(code, text + size);
        else text[size++] = *form;
    return (Text){text, size};
}
/* The sizes of the words of a text around each code point; the first line of words.txt defines the hash. */
static void check_first_word(void) {
    const char *path = "data/expected/gpt/words.txt";
    const Texts lines = read_lines(path);
    int wrong = 0;
    for (int i = 1; i < lines.count; i++) {
        char *end;
        const uint32_t block = (uint32_t)strtoul(text_string(lines.at[i]), &end, 16);
        uint64_t hash = 0xCBF29CE484222325u;
        for (uint32_t c = block; c < block + 0x1000; c++) {
            if (c >= 0xD800 && c <= 0xDFFF) continue;
            Mark before = mark();
            for (Text rest = with_code_point("ac1c!cc c's", c); rest.size; rest = text_from(rest, first_word(rest)))
                hash = (hash ^ first_word(rest)) * 0x100000001B3u;
            hash *= 0x100000001B3u;
            release(before);
        }
        wrong += hash != strtoull(end, NULL, 16);
    }
    check(lines.count == 273 && !wrong, "%-22s %s: every code point: %d of 272 blocks differ", "first_word", path,
          wrong);
}
/* The definition: of all pairs the one with the earliest merge, the first one of these; again and again. */
static void plain_bpe(const Vocab *vocab, Text word, Ids *out) {
    for (size_t i = 0; i < word.size; i++) ids_push(out, vocab->byte_id[(unsigned char)word.data[i]]);
    for (;;) {
        int at = -1, earliest = INT32_MAX;
        for (int i = 0; i + 1 < out->count; i++)
            for (int m = 0; m < vocab->merges.count && m < earliest; m++)
                if (vocab->merges.at[m].left == out->id[i] && vocab->merges.at[m].right == out->id[i + 1])
                    at = i, earliest = m;
        if (at < 0) return;
        out->id[at] = vocab->merges.at[earliest].joined;
        out->count--;
        memmove(&out->id[at + 1], &out->id[at + 2], sizeof(int) * (size_t)(out->count - at - 1));
    }
}
/* Against the definition, on words of the letters of the merges; and a word of a megabyte, which is a repetition. */
static void check_bpe(void) {
    enum { RANDOM_WORDS = 300, LONG = 1 << 20 };
    const Vocab vocab = small_gpt_vocab();
    Random random = {1};
    Ids many = {0}, once = {0};
    int wrong = 0, joined = 0;
    char *text = allocate(LONG);
    for (int w = 0; w < RANDOM_WORDS; w++) {
        Mark before = mark();
        Ids got = {0}, want = {0};
        const int size = random_int(&random, 1, 60);
        for (int i = 0; i < size; i++) text[i] = "aaaenrstiou "[random_int(&random, 0, 11)];
        bpe(&vocab, (Text){text, (size_t)size}, &got), plain_bpe(&vocab, (Text){text, (size_t)size}, &want);
        wrong += got.count != want.count || memcmp(got.id, want.id, sizeof(int) * (size_t)want.count);
        joined += size - got.count;
        release(before);
    }
    check(!wrong && joined, "%-22s %d words, %d merges in them: %d differ from the definition", "bpe", RANDOM_WORDS,
          joined, wrong);
    for (int i = 0; i < LONG; i++) text[i] = "banana .the.of.in"[i % 16];
    bpe(&vocab, (Text){text, LONG}, &many), bpe(&vocab, (Text){text, 16}, &once);
    int different = many.count != once.count * (LONG / 16);
    for (int i = 0; !different && i < many.count; i++) different += many.id[i] != once.id[i % once.count];
    check(!different && once.count < 16, "%-22s a word of %d bytes: %d tokens, %d of them wrong", "bpe", LONG,
          many.count, different);
}
static void check_vocab_word(void) {
    const Vocab gpt = small_gpt_vocab(), cased = cased_vocab();
    const int the = vocab_word(&gpt, text_of("the"));
    check(the >= 0 && text_is(gpt.piece[the], "\xC4\xA0the") && text_is(vocab_text(&gpt, the), " the") &&
              vocab_word(&gpt, text_of("the of")) < 0 && vocab_word(&gpt, (Text){"the\0", 4}) < 0 &&
              text_is(vocab_text(&gpt, gpt.end), "<|endoftext|>"),
          "%-22s byte-level BPE: a word with the space before it", "vocab_word");
    check(vocab_word(&cased, text_of("a")) == 170 && vocab_word(&cased, text_of("unaffable")) < 0 &&
              vocab_word(&cased, text_of("\xE2\x98\x83")) < 0 && text_is(vocab_text(&cased, 9823), "##af"),
          "%-22s WordPiece: a word of one piece", "vocab_word");
}

/* ==== lstm.h: against torch.nn.LSTM =============================================================================== */

static Lstm lstm_load(Safetensors *file, Parameters *list) {
    int layers = 0;
    *file = safetensors_open(oracle("bilstm.safetensors"));
    for (Text entry; json_member(file->header, format("weight_ih_l%d", layers), &entry);) layers++;
    *list = (Parameters){allocate(sizeof(Parameter[8 * layers])), 0};
    const Lstm lstm = lstm_new(layers, expected(file, "x").cols, expected(file, "y").cols / 2, "", list);
    read_weights(file, *list);
    return lstm;
}
static void check_lstm_cell(void) {
    Safetensors file;
    Parameters list;
    const Lstm lstm = lstm_load(&file, &list);
    const Tensor x = expected(&file, "x"), h = tensor(x.rows, 2 * lstm.hidden);
    for (int d = 0; d < 2; d++)
        lstm_cell_forward(&lstm.cell[0][d], x, part(values(h), 0, h.rows, d * lstm.hidden, lstm.hidden),
                          lstm_trace(x.rows, lstm.hidden), d);
    check_output("lstm_cell_forward", h);
}
static void check_lstm_forward(void) {
    Safetensors file;
    Parameters list;
    const Lstm lstm = lstm_load(&file, &list);
    const LstmActivations a = lstm_forward(&lstm, expected(&file, "x"));
    const Tensor y = expected(&file, "y");
    const double difference = largest_difference(a.output[lstm.layers - 1].data, y.data, size_of(y));
    check(difference < 1e-5, "%-22s %s: the output differs by %.1e", "lstm_forward", file.path, difference);
}
static void check_lstm_backward(void) {
    Safetensors file;
    Parameters list;
    const Lstm lstm = lstm_load(&file, &list);
    Tensor x = expected(&file, "x");
    needs_grad(&x);
    for (int i = 0; i < list.count; i++) needs_grad(list.at[i].tensor);
    LstmActivations a = lstm_forward(&lstm, x);
    a.output[lstm.layers - 1].grad = expected(&file, "dy").data;
    lstm_backward(&lstm, x, a);
    double worst = largest_difference(x.grad, expected(&file, "dx").data, size_of(x));
    for (int i = 0; i < list.count; i++) {
        const Tensor want = expected(&file, format("grad.%s", list.at[i].name));
        worst = worse(worst, largest_difference(list.at[i].tensor->grad, want.data, size_of(want)));
    }
    check(worst < 1e-5, "%-22s %s: dx and the gradients of %d weights differ by %.1e", "lstm_backward", file.path,
          list.count, worst);
}

/* One direction of one layer in plain loops, in double. x (T, in); h: its columns of the layer's output (T, 2H). */
static void plain_cell(const LstmCell *cell, const double *x, int steps, bool reverse, double *h) {
    const int H = cell->w_hh.cols, inputs = cell->w_ih.cols;
    double *c = allocate_zeroed(sizeof(double[H])), *gate = allocate(sizeof(double[4 * H]));
    for (int t = 0; t < steps; t++) {
        const int now = reverse ? steps - 1 - t : t, before = reverse ? now + 1 : now - 1;
        for (int k = 0; k < 4 * H; k++) {
            gate[k] = (double)cell->b_ih.data[k] + (double)cell->b_hh.data[k];
            for (int j = 0; j < inputs; j++) gate[k] += (double)row(cell->w_ih, k)[j] * x[now * inputs + j];
            for (int j = 0; t > 0 && j < H; j++) gate[k] += (double)row(cell->w_hh, k)[j] * h[before * 2 * H + j];
            gate[k] = k / H == 2 ? tanh(gate[k]) : 1 / (1 + exp(-gate[k]));
        }
        for (int j = 0; j < H; j++) {
            c[j] = gate[H + j] * c[j] + gate[j] * gate[2 * H + j];
            h[now * 2 * H + j] = gate[3 * H + j] * tanh(c[j]);
        }
    }
}
/* The sum of all elements of the output, each times its weight. */
static double plain_lstm(const Lstm *lstm, Tensor x, const real *weight) {
    double *in = allocate(sizeof(double[size_of(x)])), *out = in, sum = 0;
    for (size_t i = 0; i < size_of(x); i++) in[i] = (double)x.data[i];
    for (int l = 0; l < lstm->layers; l++, in = out) {
        out = allocate(sizeof(double[x.rows * 2 * lstm->hidden]));
        for (int d = 0; d < 2; d++) plain_cell(&lstm->cell[l][d], in, x.rows, d, out + d * lstm->hidden);
    }
    for (int i = 0; i < x.rows * 2 * lstm->hidden; i++) sum += (double)weight[i] * out[i];
    return sum;
}
/* Moves every element by `step` times a random number, always the same ones. Returns what that adds to the loss
 * according to the gradients. */
static double move(Parameters list, double step) {
    Random random = {2};
    double change = 0;
    for (int k = 0; k < list.count; k++) {
        const Tensor *t = list.at[k].tensor;
        for (size_t i = 0; i < size_of(*t); i++) {
            const real from = t->data[i];
            t->data[i] += (real)(step * normal(&random));
            change += (double)t->grad[i] * ((double)t->data[i] - (double)from);
        }
    }
    return change;
}
/* Above 100 units both directions run at the same time: the output, and the gradient along a random direction in all
 * weights and x, against the plain loops. */
static void check_large_lstm(void) {
    Random random = {1};
    Parameters list;
    Lstm lstm = large_lstm(&list, &random);
    Tensor x = tensor(4, 300);
    const Tensor weight = random_tensor(4, 208, &random);
    fill_normal(x, 1, &random);
    add_parameter(&list, MATRIX, &x, x.rows, x.cols, "x");
    for (int i = 0; i < list.count; i++) needs_grad(list.at[i].tensor);
    LstmActivations a = lstm_forward(&lstm, x);
    a.output[1].grad = copy_of(weight).data; /* dL is the weight itself */
    lstm_backward(&lstm, x, a);
    double output = 0;
    for (size_t i = 0; i < size_of(weight); i++) output += (double)weight.data[i] * (double)a.output[1].data[i];
    const double want = plain_lstm(&lstm, x, weight.data);
    move(list, 1e-5);
    const double before = plain_lstm(&lstm, x, weight.data), change = move(list, -2e-5),
                 want_change = plain_lstm(&lstm, x, weight.data) - before;
    check(fabs(output - want) < 1e-5 * fabs(want) && fabs(change - want_change) < 1e-4 * fabs(want_change),
          "%-22s 104 units: output %.6g, in plain loops %.6g; a step changes it by %.6g, in plain loops %.6g",
          "lstm_backward", output, want, change, want_change);
}

/* ==== bert.h ====================================================================================================== */

static void check_attention(void) {
    const Batch batch = ragged();
    const Tensor x = given("x"), k = given("k"), v = given("v");
    const Tensor selected_q = {batch.selected_count, x.cols, x.data, NULL, NULL};
    check_output("attention_forward", attention_forward(x, k, v, 2, 2, batch.start, batch.start, NULL).context);
    check_output("attention_forward.read",
                 attention_forward(selected_q, k, v, 2, 2, batch.selected_start, batch.start, NULL).context);
}
/* The largest difference of a context from plain loops in double. */
static double attention_difference(Tensor q, Tensor k, Tensor v, int heads, int sequences, const int *q_start,
                                   const int *k_start) {
    const Tensor context = attention_forward(q, k, v, heads, sequences, q_start, k_start, NULL).context;
    const int width = q.cols / heads;
    double worst = 0;
    for (int s = 0; s < sequences; s++)
        for (int i = q_start[s]; i < q_start[s + 1]; i++)
            for (int j = 0; j < q.cols; j++) { /* column j of the context is an average of column j of v */
                double sum = 0, all = 0;
                for (int t = k_start[s]; t < k_start[s + 1]; t++) {
                    double dot = 0;
                    for (int c = j / width * width; c < (j / width + 1) * width; c++)
                        dot += (double)row(q, i)[c] * (double)row(k, t)[c];
                    const double weight = exp(dot / sqrt((double)width));
                    all += weight, sum += weight * (double)row(v, t)[j];
                }
                worst = worse(worst, fabs((double)row(context, i)[j] - sum / all));
            }
    return worst;
}
static void check_more_attention(void) {
    Random random = {1};
    const Batch batch = more_ragged();
    const Tensor q = random_tensor(10, 15, &random), k = random_tensor(10, 15, &random),
                 v = random_tensor(10, 15, &random), selected_q = {6, 15, q.data, NULL, NULL};
    const double all = attention_difference(q, k, v, 3, 4, batch.start, batch.start),
                 selected = attention_difference(selected_q, k, v, 3, 4, batch.selected_start, batch.start);
    check(all < 1e-5 && selected < 1e-5,
          "%-22s three heads, four sequences: differs from plain loops by %.1e, at the selected positions by %.1e",
          "attention_forward", all, selected);
}
/* A batch of several sequences has the logits that each has alone. */
static void check_batch(void) {
    static Bert bert;
    bert_load(&bert, oracle("tiny"));
    Random random = {1};
    const Batch all = more_ragged();
    const Tensor e = random_tensor(all.tokens, bert.hidden, &random), logits = bert_logits(&bert, e, &all);
    double worst = 0;
    for (int s = 0; s < all.sequences; s++) {
        const int from = all.start[s], first = all.selected_start[s], count = all.selected_start[s + 1] - first;
        int start[] = {0, all.start[s + 1] - from}, selected_start[] = {0, count}, selected[10];
        for (int i = 0; i < count; i++) selected[i] = all.selected[first + i] - from;
        if (!count) continue;
        const Batch one = {1, start[1], count, start, selected_start, selected};
        const Tensor alone = bert_logits(&bert, (Tensor){start[1], e.cols, row(e, from), NULL, NULL}, &one);
        worst = worse(worst, largest_difference(alone.data, row(logits, first), size_of(alone)));
    }
    check(worst < 1e-5, "%-22s four sequences in one batch, and each alone: logits differ by %.1e", "bert_logits",
          worst);
    bert_close(&bert);
}
/* ==== gpt.h ======================================================================================================= */

/* All logits of a text, against transformers, also when the last layer computes a selection of them. */
static void check_gpt_logits(void) {
    static Gpt gpt;
    const Safetensors file = safetensors_open(oracle("gpt/logits.safetensors"));
    Tensor ids, want;
    gpt_load(&gpt, oracle("gpt"));
    if (!safetensors_find(&file, "ids", &ids) || !safetensors_find(&file, "logits", &want))
        die("%s: no ids or no logits", oracle("gpt/logits.safetensors"));
    const int count = (int)size_of(ids);
    int *id = allocate(sizeof(int[count])), start[] = {0, count}, some[] = {1, count - 1}, two[] = {0, 2};
    for (int i = 0; i < count; i++) id[i] = (int)ids.data[i];
    const Tensor e = rows_forward(gpt.word, id, count);
    const Tensor all = gpt_logits(&gpt, e, &(Batch){1, count, count, start, start, in_order(count)});
    const Tensor selected = gpt_forward(&gpt, e, &(Batch){1, count, 2, start, two, some}).logits;
    double largest = 0, worst = largest_difference(all.data, want.data, size_of(want)), worst_of_two = 0;
    for (size_t i = 0; i < size_of(want); i++) largest = worse(largest, fabs((double)want.data[i]));
    for (int i = 0; i < 2; i++)
        worst_of_two = worse(worst_of_two, largest_difference(row(selected, i), row(want, some[i]), (size_t)want.cols));
    check(worst < 1e-5 * largest && worst_of_two < 1e-5 * largest && all.rows == count && selected.rows == 2,
          "%-22s %d positions: logits up to %.2f differ by %.1e, those of two of them by %.1e", "gpt_logits", count,
          largest, worst, worst_of_two);
    gpt_close(&gpt);
}
/* A batch of several sequences has the logits that each has alone, and no token sees the next one. */
static void check_gpt_batch(void) {
    static Gpt gpt;
    gpt_load(&gpt, oracle("gpt"));
    Random random = {1};
    const Batch all = more_ragged();
    Tensor e = random_tensor(all.tokens, gpt.hidden, &random);
    const Tensor logits = gpt_logits(&gpt, e, &all);
    double worst = 0, seen = 0;
    for (int s = 0; s < all.sequences; s++)
        for (int r = all.selected_start[s]; r < all.selected_start[s + 1]; r++) { /* the text up to that position */
            const int from = all.start[s], length = all.selected[r] - from + 1;
            int start[] = {0, length}, selected_start[] = {0, 1}, last = length - 1;
            const Batch one = {1, length, 1, start, selected_start, &last};
            const Tensor alone = gpt_logits(&gpt, (Tensor){length, e.cols, row(e, from), NULL, NULL}, &one);
            worst = worse(worst, largest_difference(alone.data, row(logits, r), (size_t)alone.cols));
        }
    for (int i = 0; i + 1 < all.tokens; i++) { /* does the logit at i see the token after it? */
        const Batch whole = {1, all.tokens, 1, (int[]){0, all.tokens}, (int[]){0, 1}, &i};
        const Tensor before = gpt_logits(&gpt, e, &whole);
        row(e, i + 1)[0] += 1;
        seen = worse(seen, largest_difference(before.data, gpt_logits(&gpt, e, &whole).data, size_of(before)));
    }
    check(worst < 1e-5, "%-22s four sequences in one batch, and each text alone up to its position: logits differ by "
          "%.1e", "gpt_logits", worst);
    check(seen == 0, "%-22s the next token changes a logit by %.1e", "gpt_logits", seen);
    gpt_close(&gpt);
}
/* What config.json does not say is as in the smallest published model. */
static void check_gpt_config(void) {
    Gpt gpt;
    gpt_config(&gpt, text_of("{}"), "{}");
    check(gpt.hidden == 768 && gpt.layers == 12 && gpt.heads == 12 && gpt.intermediate == 3072 && gpt.vocab == 50257 &&
              gpt.positions == 1024 && gpt.tanh_gelu && gpt.eps == (real)1e-5,
          "%-22s {} is the smallest GPT-2", "gpt_config");
}
static const char *temporary_folder(void) {
    const char *folder = getenv("TMPDIR");
    char *place = text_string(text_of(format("%s/ptune-XXXXXX", folder ? folder : "/tmp")));
    if (!mkdtemp(place)) die("%s: %s", place, strerror(errno));
    return place;
}
/* What is saved is loaded: each weight of each layer, and the settings. */
static void check_gpt_save(void) {
    static Gpt saved, loaded;
    const char *place = temporary_folder();
    Random random = {1};
    saved = (Gpt){.hidden = 12, .layers = 2, .heads = 3, .intermediate = 10, .vocab = 9, .positions = 8, .eps = 0.25};
    gpt_list_weights(&saved);
    parameters_allocate(saved.weights);
    for (int i = 0; i < saved.weights.count; i++) fill_normal(*saved.weights.at[i].tensor, 1, &random);
    gpt_save(&saved, place);
    gpt_load(&loaded, place);
    const double worst = weights_difference(loaded.weights, saved.weights);
    check(worst < 1e-6 && loaded.heads == 3 && loaded.eps == saved.eps && !loaded.layer[1].tanh_gelu,
          "%-22s weights differ by %.1e from what was saved", "gpt_save", worst);
    gpt_close(&loaded);
    remove(format("%s/config.json", place)), remove(format("%s/model.safetensors", place)), remove(place);
}
/* The matrices that end in a residual are smaller by sqrt(2 layers), in every layer; all others are as BERT's. */
static void check_gpt_random(void) {
    static Lm lm;
    small_lm(&lm, true, 100);
    lm_random(&lm, &(Random){1});
    double worst = 0;
    for (int i = 0; i < lm.gpt.weights.count; i++) {
        const Parameter *p = &lm.gpt.weights.at[i];
        const double spread = p->kind == MATRIX ? 0.02 : 0;
        const double want = strstr(p->name, ".c_proj.") ? spread / sqrt(6) : spread;
        worst = worse(worst, fabs(standard_deviation(*p->tensor) - want));
    }
    check(worst < 1e-3, "%-22s standard deviations differ from 0.02, 0.02 / sqrt(6) and 0 by %.1e", "gpt_random",
          worst);
}
/* The five best words for each text with a [MASK], or GPT's to go on with, against transformers: all of the LM. */
static void check_fill(const char *path, const Model *model, double tolerance) {
    Text rest = read_file(path);
    int texts = 0, wrong_ids = 0, wrong_words = 0;
    double worst = 0;
    for (Text line; next_line(&rest, &line);) {
        Mark before = mark();
        json_check(line, path, ++texts);
        Ids ids = {0};
        if (!model->lm.causal) ids_push(&ids, model->vocab.cls);
        tokenize_with_special(&model->vocab, json_string(member(line, "text", path)), &ids);
        if (!model->lm.causal) ids_push(&ids, model->vocab.sep);
        wrong_ids += !ids_are(ids.id, ids.count, member(line, "ids", path));
        int mask = json_int(member(line, "mask_position", path)), start[] = {0, ids.count}, selected_start[] = {0, 1};
        if (mask >= ids.count || mask < 0) die("%s:%d: mask_position", path, texts);
        const Batch batch = {1, ids.count, 1, start, selected_start, &mask};
        const Tensor e = embed_forward(lm_word(&model->lm), (Tensor){0}, ids.id, ids.count);
        real *logits = lm_forward(&model->lm, e, &batch).logits.data;
        const double all = log_sum_exp(logits, lm_word(&model->lm).rows);
        const Text words = member(line, "top5", path), scores = member(line, "logits", path),
                   logs = member(line, "log_probs", path);
        for (int k = 0; k < 5; k++) {
            int best = 0;
            for (int w = 0; w < lm_word(&model->lm).rows; w++)
                if (logits[w] > logits[best]) best = w;
            wrong_words += !text_equal(model->vocab.piece[best], json_string(json_at(words, k)));
            worst = worse(worst, fabs((double)logits[best] - json_number(json_at(scores, k))));
            worst = worse(worst, fabs((double)logits[best] - all - json_number(json_at(logs, k))));
            logits[best] = -INFINITY;
        }
        release(before);
    }
    check(texts && !wrong_ids && !wrong_words && worst < tolerance,
          "%s: %d texts: %d with wrong ids, %d wrong words, logits differ by %.1e", path, texts, wrong_ids, wrong_words,
          worst);
}
static void check_layers(void) { /* in the small world's BERT */
    Model *model = model_load(&(Options){.model = "data/bert"});
    check_fill("data/expected/fill_world.jsonl", model, 1e-4);
    lm_close(&model->lm);
}
static void check_gpt_layers(void) {
    Model *model = model_load(&(Options){.model = "data/gpt"});
    check_fill("data/expected/fill_gpt.jsonl", model, 1e-4);
    lm_close(&model->lm);
}

/* The gradient of e, by frozen weights as they are, packed, and with nothing in the packed copies but zeros: packing
 * changes no bit of it, and the copies are what counts. Then they are put away. */
static void check_packed_weights_of(const char *folder) {
    static int start[] = {0, 9, 14}, selected[] = {3, 8, 13}, selected_start[] = {0, 2, 3};
    const Batch batch = {2, 14, 3, start, selected_start, selected};
    Model *model = model_load(&(Options){.model = folder});
    Lm *lm = &model->lm;
    const Parameters weights = lm_weights(lm);
    Random random = {5};
    const Tensor word = lm_word(lm), drawn = random_tensor(14, word.cols, &random);
    Tensor e[3];
    int differ[3] = {0}, left = 0;
    for (int k = 0; k < 3; k++) {
        if (k == 1) parameters_pack(weights);
        for (int i = 0; k == 2 && i < weights.count; i++) {
            const Tensor t = *weights.at[i].tensor;
            if (t.packed) fill_constant((Tensor){t.rows, t.cols, t.packed, NULL, NULL}, 0);
        }
        e[k] = (Tensor){14, word.cols, drawn.data, NULL, NULL};
        needs_grad(&e[k]);
        LmActivations a = lm_forward(lm, e[k], &batch);
        a.logits.grad = random_tensor(3, word.rows, &(Random){6}).data;
        lm_backward(lm, &a, &batch);
        for (size_t j = 0; j < size_of(drawn); j++) differ[k] += e[k].grad[j] != e[0].grad[j];
    }
    parameters_unpack(weights);
    for (int i = 0; i < weights.count; i++) left += weights.at[i].tensor->packed != NULL;
    check(!differ[1] && differ[2] > 14 * word.cols / 2 && !left,
          "%-22s %s: packed, %d of %zu elements of the gradient differ; with zeros in the copies, %d; %d are left",
          "parameters_pack", folder, differ[1], size_of(drawn), differ[2], left);
    lm_close(lm);
}
static void check_packed_weights(void) {
    check_packed_weights_of("data/bert");
    check_packed_weights_of("data/gpt");
}

/* ==== ptune.c ===================================================================================================== */

/* ---- Templates --------------------------------------------------------------------------------------------------- */
static const char *const PLACES = "[P][P] [X]s is near {place} [P] [Y].[SEP]and";

static void template_kinds(const Template *t, char *kinds) { /* one letter per part */
    for (int i = 0; i < t->parts; i++) kinds[i] = "wfpms"[t->part[i].kind];
    kinds[t->parts] = 0;
}
static void check_template_parse(void) {
    const Template t = template_parse(PLACES);
    char kinds[32];
    template_kinds(&t, kinds);
    check(!strcmp(kinds, "ppwfwfwpwmwsw") && t.pseudo == 3,
          "%-22s parts %s, expected ppwfwfwpwmwsw; %d [P], expected 3", "template_parse", kinds, t.pseudo);
    check(!t.part[3].text.size && text_is(t.part[4].text, "s is near ") && text_is(t.part[5].text, "place"),
          "%-22s the texts of [X], of the words after it, and of {place}", "template_parse");
    const Template published = template_read("(2,1,0)");
    template_kinds(&published, kinds);
    check(!strcmp(kinds, "ppwmwpwfw") && text_is(published.part[8].text, " ."),
          "%-22s (2,1,0) has the parts %s, expected ppwmwpwfw, and ends with a full stop", "template_parse", kinds);
    const Template ends = template_parse(" [CLS] [X] [SEP] is [MASK] . [SEP] ");
    template_kinds(&ends, kinds);
    check(!strcmp(kinds, "wfwswmw"), "%-22s without outer [CLS] and [SEP] %s, expected wfwswmw", "template_parse",
          kinds);
    check(template_read("(64,64,9)").pseudo == 137, "%-22s (64,64,9) has 137 [P]", "template_parse");
}
/* A start from words has the ids of the prompt itself where [P] stands for a word. */
static void check_start_of(const Vocab *vocab, const char *form, const char *template) {
    Model model = {.vocab = *vocab};
    Options o = {.start = form};
    start_from_words(&o, &model);
    const Template prompt = template_read(form), start = template_read(o.template);
    Text field[32];
    Example want = {0}, e = {0};
    for (int i = 0; i < 32; i++) field[i] = text_of("Paris");
    template_ids(&prompt, vocab, field, &want), template_ids(&start, vocab, field, &e);
    int same = e.length == want.length && e.mask == want.mask, pseudo = 0;
    for (int i = 0, own = 0; same && i < e.length; i++) {
        if (want.id[i] < 0) same = e.id[i] < 0 && o.start_word[-1 - e.id[i]] < 0, own++;
        else if (e.id[i] < 0) same = o.start_word[-1 - e.id[i]] == want.id[i];
        else same = e.id[i] == want.id[i];
        pseudo += e.id[i] < 0;
    }
    check(same && !strcmp(o.template, template) && pseudo == start.pseudo,
          "%-22s '%s' has the ids of '%s' (%s)", "start_from_words", o.template, form, vocab->bytes ? "BPE" : "BERT");
}
static void check_start_from_words(void) {
    const Vocab cased = cased_vocab(), bytes = small_gpt_vocab();
    check_start_of(&cased, "The  Mordor of [X] is [P] [Y] .", "[P][P][P][P][P] [X] [P] [P] [MASK] [P]");
    check_start_of(&cased, "\"[X]\", {a} {b}: in[SEP][Y]", "[P][X][P][P] {a} {b}[P][P][SEP][MASK]");
    check_start_of(&bytes, "in [X] [P] [X]  is [Y]", "[P] [X] [P] [X] [P][P] [MASK]");
}
/* "Berlins" is one span: Berlin ##s. On its own, s would be another piece. */
static void check_template_ids(void) {
    const Vocab cased = cased_vocab();
    static const int want[] = {101, -1, -2, 3206, 1116, 1110, 1485, 18959, 2145, 10775, -3, 103, 119, 102, 1105, 102};
    const Template t = template_parse(PLACES);
    const Text field[32] = {[3] = text_of("Berlin"), [5] = text_of("Potsdam")};
    Example e = {0};
    template_ids(&t, &cased, field, &e);
    check(e.length == 16 && !memcmp(e.id, want, sizeof want) && e.mask == 11,
          "%-22s %d ids, expected 16; [MASK] at %d, expected 11", "template_ids", e.length, e.mask);
}
/* For a causal LM: no special tokens, no [MASK], and no spaces before a placeholder. */
static void check_causal_template_ids(void) {
    const Vocab vocab = small_gpt_vocab();
    const Template t = template_parse("[P] born in [X] [P]of  [MASK]");
    Text field[32];
    Ids want = {0};
    Example e = {0};
    for (int i = 0; i < t.parts; i++) field[i] = text_of("Paris");
    ids_push(&want, -1), tokenize(&vocab, text_of(" born in Paris"), &want);
    ids_push(&want, -2), tokenize(&vocab, text_of("of"), &want);
    template_ids(&t, &vocab, field, &e);
    check(e.length == want.count && !memcmp(e.id, want.id, sizeof(int[want.count])) && e.mask == e.length - 1,
          "%-22s causal: %d ids, expected %d; the answer is predicted at %d, expected %d", "template_ids", e.length,
          want.count, e.mask, want.count - 1);
}
static void check_template_fill(void) {
    const Vocab cased = cased_vocab();
    const Template t = template_parse(PLACES);
    Text field[32] = {[3] = text_of("Berlin Berlin Berlin Berlin Berlin Berlin"), [5] = text_of("Potsdam")};
    Example all, e = {0};
    template_ids(&t, &cased, field, &all);
    template_fill(&t, &cased, field, 17, &e, "PLACES", 1);
    check(e.length <= 17 && e.id[3] == 3206 && e.id[e.mask] == 103 &&
              !memcmp(e.id + e.length - 11, all.id + all.length - 11, sizeof(int[11])),
          "%-22s a subject that is too long is cut at its end: %d ids, at most 17", "template_fill", e.length);
}

/* Fields that are too long are cut to the same length, a short one is left alone; no cut splits a character. */
static void check_template_cut(void) {
    const Vocab cased = cased_vocab();
    const Template t = template_parse("{a} [SEP] {b} {c} [MASK]");
    const Text letters = text_of("a a a a a a a a a a"), accents = text_of("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
    const Text field[32] = {[0] = letters, [4] = letters, [6] = text_of("b")};
    const Text wide[32] = {[0] = accents, [4] = text_of("b"), [6] = text_of("b")};
    Example e = {0};
    template_fill(&t, &cased, field, 12, &e, "fields", 1);
    check(e.length == 11 && e.id[4] == cased.sep && e.id[8] == vocab_word(&cased, text_of("b")),
          "%-22s two fields of 10 words, at most 12 tokens: %d, expected 11, with 3 words each", "template_fill",
          e.length);
    Text cut[32];
    fields_cut(&t, wide, 3, cut);
    check(cut[0].size == 2 && cut[4].size == 1,
          "%-22s no character is split: 2-byte letters cut at 3 bytes leave %zu, expected 2", "template_fill",
          cut[0].size);
}

/* ---- Prompt encoder, one batch, an epoch ------------------------------------------------------------------------- */
static void encoder_load(PromptEncoder *encoder, EncoderKind kind, const Safetensors *file) {
    const Tensor embedding = expected(file, "embedding.weight");
    encoder_init(encoder, kind, embedding.rows, embedding.cols);
    read_weights(file, encoder->weights);
}
static void check_encoder(void) {
    static PromptEncoder encoder;
    const Safetensors file = safetensors_open(oracle("tiny/encoder_after_30.safetensors"));
    encoder_load(&encoder, ENCODER_LSTM, &file);
    check_output("encoder_forward", encoder_forward(&encoder).prompt);
    encoder_load(&encoder, ENCODER_MLP, &file);
    check_output("encoder_forward.mlp", encoder_forward(&encoder).prompt);
}
/* h starts at words 7 and 5 exactly, and between them, where no word is given, as it would without a start. */
static void check_encoder_start(void) {
    static const int words[] = {7, -1, 5};
    static PromptEncoder without, with;
    const Tensor table = tensor(9, 12);
    Random random = {2};
    fill_normal(table, 1, &random);
    for (int kind = 0; kind < ENCODERS; kind++) {
        PromptEncoder *const encoder[] = {&without, &with};
        for (int k = 0; k < 2; k++) {
            encoder_init(encoder[k], (EncoderKind)kind, 3, 12);
            encoder_random(encoder[k], 0.5, &(Random){3});
        }
        encoder_start(&with, table, words);
        const Tensor random_h = encoder_forward(&without).prompt, h = encoder_forward(&with).prompt;
        const real *const want[] = {row(table, 7), row(random_h, 1), row(table, 5)};
        int wrong = 0;
        for (int k = 0; k < 3; k++)
            for (int j = 0; j < 12; j++) wrong += row(h, k)[j] != want[k][j];
        check(!wrong, "%-22s encoder %s: %d of 36 elements of h are not where they start", "encoder_start",
              encoder_names[kind], wrong);
    }
}
static void check_embed(void) { check_output("embed_forward", embed_forward(given("k"), given("v"), mixed_ids, 7)); }

/* The tiny BERT, its prompt encoder, and five examples [CLS] P x P [MASK] [SEP]. */
typedef struct { Model model; PromptEncoder encoder; Example example[5]; int id[5][6]; } Tiny;
static void tiny_load(Tiny *t) {
    const Safetensors file = safetensors_open(oracle("tiny/encoder.safetensors"));
    lm_load(&t->model.lm, oracle("tiny"));
    encoder_load(&t->encoder, ENCODER_LSTM, &file);
    parameters_train(t->encoder.weights);
    for (int s = 0; s < 5; s++) {
        memcpy(t->id[s], (int[6]){2, -1, 10 + s, -2, 4, 3}, sizeof t->id[s]);
        t->example[s] = (Example){.id = t->id[s], .length = 6, .mask = 4, .answer = 20 + s};
    }
}
static bool *answers_of(const Tiny *t) { /* as the words that are allowed */
    bool *allowed = allocate_zeroed(sizeof(bool[lm_word(&t->model.lm).rows]));
    for (int i = 0; i < 5; i++) allowed[t->example[i].answer] = true;
    return allowed;
}
/* Words that are not allowed are not in the loss: five examples, of which the five answers alone are allowed. */
static void check_mask_logits(void) {
    static Tiny t;
    tiny_load(&t);
    const Inputs in = inputs_of(t.example, in_order(5), 5);
    const Tensor prompt = encoder_forward(&t.encoder).prompt, logits = batch_logits(&t.model.lm, prompt, &in, NULL);
    double want = 0;
    for (int i = 0; i < 5; i++) {
        double sum = 0;
        for (int k = 0; k < 5; k++) sum += exp((double)row(logits, i)[t.example[k].answer]);
        want += (log(sum) - (double)row(logits, i)[t.example[i].answer]) / 5;
    }
    const bool *allowed = answers_of(&t);
    const double all = batch_loss(&t.model.lm, prompt, &in, NULL);
    const double labels = batch_loss(&t.model.lm, prompt, &in, allowed);
    const double trained = loss_and_gradient(&t.model.lm, prompt, &in, allowed);
    check(all > 1 && fabs(labels - want) < 1e-5 && fabs(trained - want) < 1e-5,
          "%-22s loss %.3f; %.6f and %.6f with the answers as the only words, expected %.6f", "mask_logits", all,
          labels, trained, want);
    lm_close(&t.model.lm);
}
/* In prediction too, and in each of several batches: the five examples a hundred times. */
static void check_evaluate(void) {
    enum { TIMES = 100 };
    static Tiny t;
    static Example example[5 * TIMES];
    static Prediction predicted[5 * TIMES];
    tiny_load(&t);
    t.model.answers.allowed = answers_of(&t);
    for (int i = 0; i < 5 * TIMES; i++) example[i] = t.example[i % 5];
    const Dataset data = {example, 5 * TIMES, ""};
    const Score score = evaluate(&t.model, encoder_forward(&t.encoder).prompt, &data, predicted);
    int wrong = 0, hits = 0;
    double loss = 0;
    for (int i = 0; i < 5 * TIMES; i++) {
        const Prediction p = predicted[i];
        loss -= p.log_probability / (5 * TIMES);
        wrong += !t.model.answers.allowed[p.predicted] || p.rank < 1 || p.rank > 5;
        wrong += (p.rank == 1) != (p.predicted == example[i].answer) || p.predicted != predicted[i % 5].predicted;
        hits += p.rank == 1;
    }
    check(!wrong && score.hits == hits && score.examples == 5 * TIMES,
          "%-22s five words are allowed: %d of %d predictions are wrong; %d hits, counted %d", "evaluate", wrong,
          5 * TIMES, hits, score.hits);
    check(fabs(score.loss / loss - 1) < 1e-9, "%-22s loss %.6f, expected %.6f", "evaluate", score.loss, loss);
    lm_close(&t.model.lm);
}
/* The mean of the probabilities that three random prompts give, in each of several batches. */
static void check_evaluate_mean(void) {
    enum { TIMES = 100, PROMPTS = 3 };
    static Tiny t;
    static Example example[5 * TIMES];
    static Prediction predicted[5 * TIMES];
    tiny_load(&t);
    t.model.answers.allowed = answers_of(&t);
    for (int i = 0; i < 5 * TIMES; i++) example[i] = t.example[i % 5];
    const Dataset data = {example, 5 * TIMES, ""};
    const Inputs in = inputs_of(t.example, in_order(5), 5);
    const int H = lm_word(&t.model.lm).cols;
    Prompted by[PROMPTS]; /* one of them has a deep prompt */
    double mean[5][5] = {{0}}, loss = 0;
    Random random = {5};
    for (int k = 0; k < PROMPTS; k++) {
        by[k] = (Prompted){t.model, random_tensor(2, H, &random), data};
        if (k == 1) lm_set_prefix(&by[k].model.lm, random_tensor(3, 2 * H * lm_layers(&t.model.lm), &random), 3);
        const Tensor logits = batch_logits(&by[k].model.lm, by[k].prompt, &in, t.model.answers.allowed);
        for (int i = 0; i < 5; i++)
            for (int w = 0; w < 5; w++)
                mean[i][w] += exp((double)row(logits, i)[20 + w] - log_sum_exp(row(logits, i), logits.cols)) / PROMPTS;
    }
    const Score score = evaluate_mean(by, PROMPTS, predicted);
    int wrong = 0;
    for (int i = 0; i < 5 * TIMES; i++) {
        const double *p = mean[i % 5];
        int rank = 1;
        for (int w = 0; w < 5; w++) rank += p[w] > p[i % 5];
        wrong += predicted[i].rank != rank || fabs(predicted[i].log_probability - log(p[i % 5])) > 1e-5;
        loss -= log(p[i % 5]) / (5 * TIMES);
    }
    check(!wrong && fabs(score.loss - loss) < 1e-5 && score.examples == 5 * TIMES,
          "%-22s three prompts: %d of %d predictions are wrong; loss %.6f, expected %.6f", "evaluate_mean", wrong,
          5 * TIMES, score.loss, loss);
    lm_close(&t.model.lm);
}
/* A word whose probability is less than the smallest number counts, one that is not allowed does not. */
static void check_add_probabilities(void) {
    const real logits[] = {0, -200, -(real)INFINITY};
    real sum[] = {-(real)INFINITY, -(real)INFINITY, -(real)INFINITY};
    for (int k = 0; k < 2; k++) add_probabilities(sum, logits, 3);
    check(fabs((double)sum[0] - log(2)) < 1e-5 && fabs((double)sum[1] - log(2) + 200) < 1e-4 && isinf(sum[2]),
          "%-22s twice 0, -200, -inf: %g, %g, %g, expected log 2 more", "evaluate_mean", (double)sum[0], (double)sum[1],
          (double)sum[2]);
}
/* At rate 0 an epoch's loss is the mean over the examples, whatever the batches; --recipe paper drops the short one. */
static void check_train_epoch(void) {
    static Tiny t;
    tiny_load(&t);
    Training settings = {.epochs = 1, .batch = 2};
    Run run = {&settings, &t.model, &t.encoder, .trained = t.encoder.weights, .epoch = 1};
    const Dataset five = {t.example, 5, ""};
    const Inputs all = inputs_of(t.example, in_order(5), 5);
    const double want = batch_loss(&t.model.lm, encoder_forward(&t.encoder).prompt, &all, NULL);
    train_epoch(&run, &five);
    check(fabs(run.loss / want - 1) < 1e-5 && run.tokens == 30 && run.step == 3,
          "%-22s loss %.6f, expected %.6f; %d tokens, expected 30; %d steps, expected 3", "train_epoch", run.loss,
          want, run.tokens, run.step);
    settings.published = true, run.step = 0;
    train_epoch(&run, &five);
    check(run.tokens == 24 && run.step == 2, "%-22s --recipe paper: %d tokens, expected 24; %d steps, expected 2",
          "train_epoch", run.tokens, run.step);
    lm_close(&t.model.lm);
}
/* The tiny BERT with a deep prompt and its encoder. */
static DeepPrompt *tiny_deep(Tiny *t) {
    Random random = {2};
    tiny_load(t);
    lm_set_prefix(&t->model.lm, tensor(3, 2 * lm_word(&t->model.lm).cols * lm_layers(&t->model.lm)), 3);
    return deep_begin(&t->model.lm, true, &random);
}
/* An epoch of one batch is one step of Adam: a rate for both encoders, another for BERT, one clipping for all. */
static void check_train_step(void) {
    static Tiny t, hand;
    DeepPrompt *deep = tiny_deep(&t), *hand_deep = tiny_deep(&hand);
    const Parameters lm = lm_weights(&t.model.lm), hand_lm = lm_weights(&hand.model.lm);
    parameters_train(lm), parameters_train(hand_lm);
    const Training settings = {.rate = 0.01, .rate_lm = 0.002, .decay = 0.1, .adamw = true, .clip = 0.001, .epochs = 1,
                               .batch = 1};
    const Parameters all = parameters_joined(parameters_joined(t.encoder.weights, deep->weights), lm);
    Run run = {&settings, &t.model, &t.encoder, lm, all, deep, .epoch = 1};
    train_epoch(&run, &(Dataset){t.example, 1, ""});
    const Inputs in = inputs_of(hand.example, in_order(1), 1);
    deep_forward(hand_deep);
    train_batch(&hand.model.lm, &hand.encoder, &in, NULL);
    deep_backward(hand_deep);
    const Parameters prompts = parameters_joined(hand.encoder.weights, hand_deep->weights);
    const double share = schedule(&settings, 1, 1);
    const double scale = 0.001 / gradient_norm(parameters_joined(prompts, hand_lm));
    adam_step(prompts, (Optimizer){0.01 * share, 0.1, true}, 1, scale);
    adam_step(hand_lm, (Optimizer){0.002 * share, 0.1, true}, 1, scale);
    const double encoder = weights_difference(t.encoder.weights, hand.encoder.weights),
                 of_deep = weights_difference(deep->weights, hand_deep->weights),
                 bert = weights_difference(lm, hand_lm);
    check(encoder < 1e-6 && of_deep < 1e-6 && bert < 1e-6,
          "%-22s clipped AdamW on one example, against a step by hand: encoder differs by %.1e, that of the deep "
          "prompt by %.1e, BERT by %.1e", "train_epoch", encoder, of_deep, bert);
    lm_close(&t.model.lm), lm_close(&hand.model.lm);
}
/* The best epoch's weights are kept. After a run nothing has a gradient, so its memory may be released, and the next
 * run with the same LM, which is frozen again, has the same loss as if it were the first. */
static void check_run(void) {
    static Tiny t;
    double loss[2];
    int left = 0, packed = 0;
    tiny_load(&t);
    Training settings = {.rate = 0.01, .rate_lm = 0.01, .epochs = 3, .batch = 2, .patience = 9, .scale = -1, .seed = 1};
    const Dataset five = {t.example, 5, ""};
    const Tensor prompt = tensor(2, lm_word(&t.model.lm).cols);
    const Parameters lm = lm_weights(&t.model.lm), published = parameters_like(lm);
    parameters_copy(published, lm);
    for (int k = 0; k < 2; k++) { /* P-tuning, before and after a run that trains the LM too */
        Mark before = mark();
        Run run = run_begin(&settings, &t.model, prompt);
        next_epoch(&run, &five, &five);
        loss[k] = run.loss;
        packed += lm_word(&t.model.lm).packed != NULL;
        run_end(&run);
        settings.tune_lm = true;
        Run both = run_begin(&settings, &t.model, prompt);
        packed += lm_word(&t.model.lm).packed != NULL;
        while (k == 0 && run_goes_on(&both)) next_epoch(&both, &five, &five);
        const double kept = weights_difference(lm, both.best_lm);
        run_end(&both);
        if (k == 0)
            check(both.epoch == 3 && (both.best_epoch == 3 ? kept == 0 : kept > 0) &&
                      weights_difference(lm, both.best_lm) == 0,
                  "%-22s after %d epochs the LM has the weights of epoch %d", "run_end", both.epoch, both.best_epoch);
        settings.tune_lm = false;
        parameters_copy(lm, published);
        release(before);
        memset(allocate(1 << 20), 0xFF, 1 << 20); /* where a forgotten gradient would point now */
        release(before);
    }
    for (int i = 0; i < lm.count; i++) {
        const Parameter *p = &lm.at[i];
        left += p->tensor->grad || p->tensor->packed || p->m.data || p->v.data;
    }
    check(!left && loss[0] == loss[1],
          "%-22s %d weights still have a gradient or a copy; the next run has loss %.6f, expected %.6f", "run_end",
          left, loss[1], loss[0]);
    check(packed == 2, "%-22s of four runs, two with a frozen LM, %d had packed its weights", "run_end", packed);
    lm_close(&t.model.lm);
}
/* A method of a table trains on the model itself, not on a copy, to which the packed weights would not belong. */
static int steps_with_copies, steps_without;
static bool count_copies(const Run *run, double loss) {
    (void)loss;
    const Parameters all = lm_weights(&run->model->lm);
    int copies = 0, matrices = 0;
    for (int i = 0; i < all.count; i++)
        copies += all.at[i].tensor->packed != NULL, matrices += all.at[i].kind == MATRIX;
    const bool packed = copies == matrices && lm_word(&run->model->lm).packed;
    steps_with_copies += packed, steps_without += !copies && !lm_word(&run->model->lm).packed;
    return true;
}
static void check_run_method(void) {
    static const char *const folders[] = {"data/bert", "data/gpt"};
    for (int k = 0; k < 4; k++) {
        Options o = default_options('t');
        o.model = folders[k / 2], o.data = "data/capital", o.template = "[X] [P] [MASK]", o.deep = 2;
        o.quiet = true, o.training.epochs = 1, o.training.batch = 40, o.training.tune_lm = k % 2;
        o.training.after_step = count_copies;
        Model *model = model_load(&o);
        const Method method = method_of(&o, true);
        const Relation relation = {"capital", o.data, {0}};
        steps_with_copies = steps_without = 0;
        run_method(&method, &o, model, &relation);
        check((k % 2 ? steps_without : steps_with_copies) > 1 && !(k % 2 ? steps_with_copies : steps_without) &&
                  !lm_word(&model->lm).packed && !lm_prefix(&model->lm)->rows,
              "%-22s %s %s: %d steps with packed weights, %d without; afterwards the model is as before", "run_method",
              method.name, o.model, steps_with_copies, steps_without);
        lm_close(&model->lm);
    }
}
/* A deep prompt, with its encoder and without: the LM has that of the best epoch afterwards, which is not the last one
 * at this rate, and it is frozen. */
static void check_deep_run(void) {
    static Tiny t;
    tiny_load(&t);
    const Dataset five = {t.example, 5, ""};
    const int H = lm_word(&t.model.lm).cols;
    t.model.answers.allowed = answers_of(&t);
    for (int encoder = 0; encoder < 2; encoder++) {
        const Training settings = {.rate = encoder ? 0.1 : 1, .epochs = 9, .batch = 2, .patience = 9, .seed = 1,
                                   .by_loss = true, .deep_encoder = encoder};
        const Tensor prefix = tensor(3, 2 * H * lm_layers(&t.model.lm)), prompt = tensor(2, H);
        double first = 0;
        lm_set_prefix(&t.model.lm, prefix, 3);
        Run run = run_begin(&settings, &t.model, prompt);
        while (run_goes_on(&run)) {
            next_epoch(&run, &five, &five);
            if (run.epoch == 1) first = run.dev.loss;
        }
        const double last = run.dev.loss;
        run_end(&run);
        const double kept = evaluate(&t.model, prompt, &five, NULL).loss;
        check(-run.best == kept && kept < first && kept < last && !lm_prefix(&t.model.lm)->grad,
              "%-22s a deep prompt%s: dev loss %.4f, %.4f in epoch %d, %.4f; with what is kept %.4f", "deep_end",
              encoder ? " with an encoder" : "", first, -run.best, run.best_epoch, last, kept);
    }
    lm_close(&t.model.lm);
}
/* Which of three epochs is kept: by P@1 the third, which has as many hits as the first; by loss the second. */
static void check_merit(void) {
    static const Score dev[] = {{9, 5, 1.5}, {9, 4, 0.5}, {9, 5, 2.5}};
    int kept[2];
    for (int by_loss = 0; by_loss < 2; by_loss++) {
        const Training settings = {.by_loss = by_loss};
        Run run = {.training = &settings, .best = -INFINITY};
        for (run.epoch = 1; run.epoch <= 3; run.epoch++) {
            run.dev = dev[run.epoch - 1];
            if (merit(&run) >= run.best) keep_best(&run, (Tensor){0});
        }
        kept[by_loss] = run.best_epoch;
    }
    check(kept[0] == 3 && kept[1] == 2, "%-22s by P@1 epoch %d is kept, expected 3; by loss %d, expected 2", "merit",
          kept[0], kept[1]);
}
/* Two relations with three and two examples and an encoder for both; train is also dev and test. */
static void shared_load(Tiny *t, const Training *settings, int cap, Shared *s) {
    static Relation relation[2] = {{.name = "first"}, {.name = "second"}};
    tiny_load(t);
    *s = (Shared){.world = {.at = relation, .count = 2}, .data = allocate(sizeof(Dataset[2][3])), .pseudo = 2,
                  .cap = cap};
    for (int k = 0; k < 6; k++)
        s->data[k / 3][k % 3] = (Dataset){&t->example[k / 3 * 3], 3 - k / 3, ""};
    s->run = run_begin(settings, &t->model, tensor(4, lm_word(&t->model.lm).cols));
}
/* The mean loss over the first `count` examples of relation r under its h. */
static double shared_loss_of(const Shared *s, int r, int count) {
    const PromptEncoder one = relation_encoder(s->run.encoder, r, 2);
    const Inputs in = inputs_of(s->data[r][TRAIN_SET].at, in_order(count), count);
    return batch_loss(&s->run.model->lm, encoder_forward(&one).prompt, &in, NULL);
}
/* At rate 0 an epoch's loss is the mean over all examples, each under its relation's h; with a cap over fewer. */
static void check_shared_epoch(void) {
    static Tiny t;
    static Shared s;
    const Training settings = {.epochs = 1, .batch = 2, .scale = -1, .seed = 3};
    shared_load(&t, &settings, INT32_MAX, &s);
    const double first = shared_loss_of(&s, 0, 3), second = shared_loss_of(&s, 1, 2);
    const double want = (3 * first + 2 * second) / 5;
    s.run.epoch = 1;
    shared_epoch(&s);
    check(fabs(s.run.loss / want - 1) < 1e-5 && s.run.step == 3 && s.run.tokens == 30 && fabs(first - second) > 1e-3,
          "%-22s two relations: loss %.6f, expected %.6f; %d steps, expected 3; %d tokens, expected 30",
          "shared_epoch", s.run.loss, want, s.run.step, s.run.tokens);
    s.cap = 1;
    shared_epoch(&s);
    check(s.run.step == 2 && s.run.tokens == 12, "%-22s --cap 1: %d steps, expected 2; %d tokens, expected 12",
          "shared_epoch", s.run.step, s.run.tokens);
    lm_close(&t.model.lm);
}
/* Batches of one example: each relation has its share of them all, and about that of the first half. */
static void check_turns(void) {
    static Shared s;
    const Training settings = {.batch = 1};
    Dataset data[2][3] = {{{.count = 100}}, {{.count = 200}}};
    Random random = {1};
    int all = 0, half = 0;
    s.world.count = 2, s.data = data, s.cap = 150, s.run.training = &settings;
    const Turns turns = shuffled_turns(&s, &random);
    for (int k = 0; k < turns.count; k++) all += turns.relation[k], half += k < 125 ? turns.relation[k] : 0;
    check(turns.count == 250 && all == 150 && half > 60 && half < 90,
          "%-22s 100 and 200 examples, --cap 150: %d batches, expected 250; %d of the second relation, expected 150, "
          "%d of them in the first half, expected about 75", "shuffled_turns", turns.count, all, half);
}
/* A step on the second relation, by hand: what is shared moves, and E of the second; E of the first has no gradient. */
static void check_shared_step(void) {
    static Tiny t, hand;
    static Shared s, by_hand;
    const Training settings = {.rate = 0.01, .clip = 0.001, .epochs = 1, .batch = 2, .scale = -1, .seed = 3};
    shared_load(&t, &settings, 9, &s), shared_load(&hand, &settings, 9, &by_hand);
    const PromptEncoder *e = by_hand.run.encoder;
    const Tensor before = copy_of(e->embedding);
    const Inputs in = inputs_of(&t.example[3], in_order(2), 2);
    s.run.steps_an_epoch = 1;
    const double loss = shared_step(&s, 1, &in), want = shared_loss_of(&by_hand, 1, 2);
    const PromptEncoder second = relation_encoder(e, 1, 2);
    train_batch(&hand.model.lm, &second, &in, NULL);
    const double scale = 0.001 / gradient_norm(e->weights);
    adam_step(e->weights, (Optimizer){0.01 * schedule(&settings, 1, 1), 0, false}, 1, scale);
    const double differs = weights_difference(s.run.encoder->weights, e->weights);
    const size_t half = size_of(before) / 2;
    const double first = largest_difference(s.run.encoder->embedding.data, before.data, half);
    const double moved = largest_difference(s.run.encoder->embedding.data + half, before.data + half, half);
    check(fabs(loss - want) < 1e-5 && differs < 1e-6 && first == 0 && moved > 1e-3,
          "%-22s loss %.6f, expected %.6f; against a step by hand %.1e; E of the other relation moves by %.1e, its own "
          "by %.1e", "shared_step", loss, want, differs, first, moved);
    lm_close(&t.model.lm), lm_close(&hand.model.lm);
}
/* Dev is the mean over the relations, whatever their sizes, each under its h; the best epoch has the best mean. */
static void check_shared_next_epoch(void) {
    static Tiny t;
    static Shared s;
    const Training settings = {.rate = 0.01, .epochs = 1, .batch = 2, .scale = -1, .seed = 3, .by_loss = true};
    shared_load(&t, &settings, 9, &s);
    const size_t words = (size_t)lm_word(&t.model.lm).rows;
    t.model.answers.allowed = memset(allocate(words), true, words);
    shared_next_epoch(&s);
    double loss = 0, hits = 0, lost = 0;
    for (int r = 0; r < 2; r++) {
        const Score dev = evaluate(&t.model, relation_rows(s.run.prompt, r, 2), &s.data[r][DEV_SET], NULL);
        loss += dev.loss / 2, hits += p_at_1(dev) / 2, lost += shared_loss_of(&s, r, 3 - r) / 2;
    }
    check(fabs(s.loss - loss) < 1e-9 && fabs(s.loss - lost) < 1e-5 && s.p_at_1 == hits && s.run.best == -s.loss,
          "%-22s dev loss %.6f, expected %.6f and %.6f; P@1 %.2f, expected %.2f; best %.6f", "shared_next_epoch",
          s.loss, loss, lost, s.p_at_1, hits, s.run.best);
    lm_close(&t.model.lm);
}
/* What is written of an encoder for two relations is read for a third: what is shared as it was, E as the mean. Frozen,
 * E alone moves. */
static void check_run_from(void) {
    static Tiny t;
    static Shared s;
    const Training settings = {.rate = 0.01, .epochs = 1, .batch = 2, .scale = -1, .seed = 3};
    shared_load(&t, &settings, 9, &s);
    const PromptEncoder *from = s.run.encoder;
    const Options o = {.encoder_from = format("%s/encoder", temporary_folder()), .freeze_encoder = true};
    encoder_write(o.encoder_from, from, 2, "first,second", &t.model);
    Run run = run_begin(&(Training){.rate = 0.01, .epochs = 1, .batch = 9, .seed = 4, .scale = -1}, &t.model,
                        tensor(2, from->embedding.cols));
    const Parameters all = run.encoder->weights;
    run_from(&o, &run);
    double mean = 0;
    for (int k = 0; k < 2; k++)
        for (int j = 0; j < from->embedding.cols; j++)
            mean = worse(mean, fabs((double)(row(run.encoder->embedding, k)[j] -
                                             (row(from->embedding, k)[j] + row(from->embedding, k + 2)[j]) / 2)));
    const Tensor before = copy_of(run.encoder->embedding);
    run.epoch = 1;
    train_epoch(&run, &s.data[0][TRAIN_SET]);
    double shared = 0;
    for (int p = 1; p < all.count; p++)
        shared = worse(shared, largest_difference(all.at[p].tensor->data, from->weights.at[p].tensor->data,
                                                  size_of(*all.at[p].tensor)));
    const double moved = largest_difference(before.data, run.encoder->embedding.data, size_of(before));
    check(mean < 1e-6 && shared < 1e-6 && moved > 1e-3 && run.trained.count == 1,
          "%-22s E differs from the mean by %.1e; frozen, what is shared moves by %.1e, E by %.1e", "run_from", mean,
          shared, moved);
    if (system(format("rm -r $(dirname %s)", o.encoder_from))) die("%s: cannot be removed", o.encoder_from);
    lm_close(&t.model.lm);
}
/* Two epochs of five steps. */
static void check_schedule(void) {
    Training o = {.epochs = 2, .warmup = 0.2};
    const double warm[] = {schedule(&o, 1, 5), schedule(&o, 2, 5), schedule(&o, 10, 5)};
    check(fabs(warm[0] - 0.5) < 1e-9 && fabs(warm[1] - 1) < 1e-9 && fabs(warm[2] - 1.0 / 9) < 1e-9,
          "%-22s steps 1, 2, 10 of 10: %.4f, %.4f, %.4f, expected 1/2, 1, 1/9", "schedule", warm[0], warm[1], warm[2]);
    o.published = true;
    const double paper[] = {schedule(&o, 5, 5), schedule(&o, 6, 5), schedule(&o, 11, 5)};
    check(fabs(paper[0] - 1) < 1e-9 && fabs(paper[1] - 0.98) < 1e-9 && fabs(paper[2] - 0.9604) < 1e-9,
          "%-22s --recipe paper, steps 5, 6, 11: %.4f, %.4f, %.4f, expected 1, 0.98, 0.98^2", "schedule", paper[0],
          paper[1], paper[2]);
}
static void check_clip_factor(void) { /* a gradient of norm 5 */
    Tensor w = tensor(1, 2);
    Parameter p = {.tensor = &w};
    const Parameters list = {&p, 1};
    needs_grad(&w);
    w.grad[0] = 3, w.grad[1] = 4;
    const double one = clip_factor(&(Training){.clip = 1}, list), ten = clip_factor(&(Training){.clip = 10}, list),
                 off = clip_factor(&(Training){.clip = 0}, list);
    check(fabs(one - 0.2) < 1e-6 && ten == 1 && off == 1,
          "%-22s --clip 1, 10, 0 of (3, 4): %g, %g, %g, expected 0.2, 1, 1", "clip_factor", one, ten, off);
}
/* Word 1 is the best. The answer, word 3, ranks behind it and behind word 2: the same logit, but a lower id. */
static void check_prediction(void) {
    const real logits[] = {1, 3, 2, 2};
    const double want = 2 - log(exp(1.0) + exp(3.0) + 2 * exp(2.0));
    const Prediction p = prediction_of(logits, 4, 3);
    check(p.predicted == 1 && p.rank == 3 && fabs(p.log_probability - want) < 1e-6,
          "%-22s predicted %d, expected 1; rank %d, expected 3; log probability %.6f, expected %.6f", "prediction_of",
          p.predicted, p.rank, p.log_probability, want);
}
/* True y y y n n m, predicted y y n n y y: F1 is 4/7, 2/4 and 0; a fourth label is neither true nor predicted. */
static void check_macro_f1(void) {
    const Answers answers = {.labels = 4, .word = (int[]){11, 12, 13, 14}};
    Example examples[] = {{.answer = 11}, {.answer = 11}, {.answer = 11},
                          {.answer = 12}, {.answer = 12}, {.answer = 13}};
    const Prediction predicted[] = {{11, 1, 0}, {11, 1, 0}, {12, 2, 0}, {12, 1, 0}, {11, 2, 0}, {11, 3, 0}};
    const double f1 = macro_f1(&answers, &(Dataset){.at = examples, .count = 6}, predicted);
    check(fabs(f1 - 100 * (4.0 / 7 + 0.5) / 3) < 1e-9, "%-22s %.4f, expected 35.7143", "macro_f1", f1);
}

/* ---- A training run in PyTorch ----------------------------------------------------------------------------------- */
/* The example for a template like "[CLS] P P subject [MASK] [SEP]", or for GPT "P P subject", whose answer is predicted
 * at the last position; special tokens as in the oracle. */
static Example oracle_example(Text template, Text subject, int answer) {
    Ids ids = {0};
    Example e = {.answer = answer, .mask = -1};
    const Texts words = split(template, ' ');
    for (int w = 0, pseudo = 0; w < words.count; w++) {
        const Text word = words.at[w];
        if (text_is(word, "P")) ids_push(&ids, -1 - pseudo++);
        if (text_is(word, "[CLS]")) ids_push(&ids, 2);
        if (text_is(word, "[SEP]")) ids_push(&ids, 3);
        if (text_is(word, "[MASK]")) e.mask = ids.count, ids_push(&ids, 4);
        for (int i = 0; text_is(word, "subject") && i < json_count(subject); i++)
            ids_push(&ids, json_int(json_at(subject, i)));
    }
    e.id = ids.id, e.length = ids.count;
    if (e.mask < 0) e.mask = ids.count - 1;
    return e;
}
/* Trains as in the plan; returns the largest relative difference of a loss. */
static double replay(Text plan, Text batches, Lm *lm, PromptEncoder *encoder, Parameters trained, double decay,
                     Text template, const char *path) {
    const Text losses = member(plan, "losses", path);
    const Optimizer adam = {json_number(member(plan, "lr", path)), decay, false};
    double worst = 0;
    parameters_train(trained);
    for (int step = 1; step <= json_count(losses); step++) {
        Mark before = mark();
        const Text batch = json_at(batches, step - 1);
        const int count = json_count(batch);
        Example *examples = allocate(sizeof(Example[count]));
        for (int i = 0; i < count; i++) {
            const Text pair = json_at(batch, i); /* subject, answer */
            examples[i] = oracle_example(template, json_at(pair, 0), json_int(json_at(pair, 1)));
        }
        const Inputs in = inputs_of(examples, in_order(count), count);
        const double loss = train_batch(lm, encoder, &in, NULL);
        adam_step(trained, adam, step, 1);
        worst = worse(worst, fabs(loss / json_number(json_at(losses, step - 1)) - 1));
        release(before);
    }
    return worst;
}
/* 30 steps of P-tuning, then 10 of fine-tuning, of the model in oracles/<name>. */
static void check_training_of(const char *name, Text template, Text fine) {
    static PromptEncoder encoder, want;
    Lm *lm = allocate_zeroed(sizeof *lm);
    const char *folder_of_model = oracle(name), *path = format("%s/run.json", folder_of_model);
    const Text run = read_json(path);
    const Safetensors before = safetensors_open(format("%s/encoder.safetensors", folder_of_model));
    const Safetensors after = safetensors_open(format("%s/encoder_after_30.safetensors", folder_of_model));
    lm_load(lm, folder_of_model);
    encoder_load(&encoder, ENCODER_LSTM, &before), encoder_load(&want, ENCODER_LSTM, &after);
    const Text batches = member(run, "batches", path);
    double worst = replay(member(run, "p_tuning", path), batches, lm, &encoder, encoder.weights, 5e-4, template, path);
    check(worst < 1e-4, "%-22s %s: 30 losses of P-tuning, relative difference at most %.1e", "training", path, worst);
    worst = weights_difference(encoder.weights, want.weights);
    check(worst < 1e-3, "%-22s %s: the encoder's weights after them differ by %.1e", "training", path, worst);
    worst = replay(member(run, "fine_tuning", path), batches, lm, NULL, lm_weights(lm), 5e-4, fine, path);
    check(worst < 1e-4, "%-22s %s: 10 losses of fine-tuning, relative difference at most %.1e", "training", path,
          worst);
    lm_close(lm);
}
static void check_training(void) {
    const char *path = oracle("tiny/run.json");
    const Text run = read_json(path);
    check_training_of("tiny", json_string(member(run, "template", path)),
                      json_string(member(member(run, "fine_tuning", path), "template", path)));
}
static void check_gpt_training(void) {
    check_training_of("gpt", text_of("P P P subject P P P"), text_of("subject"));
}
/* 30 steps of a deep prompt alone, for the model in `folder_of_model`; transformers has it as past keys and values. */
static void check_deep_training_of(const char *name, const char *folder_of_model, Text template) {
    const char *path = oracle(format("%s/run.json", name));
    const Text plan = member(read_json(path), "mlm", path), batches = member(plan, "batches", path);
    const Safetensors before = safetensors_open(oracle(format("%s/prefix.safetensors", name)));
    const Safetensors after = safetensors_open(oracle(format("%s/after.safetensors", name)));
    const Tensor want = expected(&after, "grad_prefix"), kept = expected(&after, "prefix_after_30");
    Lm *lm = allocate_zeroed(sizeof *lm);
    Text first;
    lm_load(lm, folder_of_model);
    lm_set_prefix(lm, copy_of(expected(&before, "prefix")),
                  json_member(plan, "first_position", &first) ? json_int(first) : 0);
    Tensor *prefix = lm_prefix(lm);
    Example examples[8];
    const Text batch = json_at(batches, 0);
    for (int i = 0; i < json_count(batch); i++)
        examples[i] = oracle_example(template, json_at(json_at(batch, i), 0), json_int(json_at(json_at(batch, i), 1)));
    const Inputs in = inputs_of(examples, in_order(json_count(batch)), json_count(batch));
    needs_grad(prefix);
    const double loss = loss_and_gradient(lm, (Tensor){0}, &in, NULL);
    for (size_t i = 0; i < size_of(want); i++) prefix->grad[i] -= want.data[i];
    const double error = norm_of(prefix->grad, (int)size_of(want)) / norm_of(want.data, (int)size_of(want));
    check(fabs(loss - (double)expected(&after, "loss").data[0]) < 1e-5 && error < 1e-5,
          "%-22s %s: loss %.4f, the gradient differs by %.1e of its norm", "prefix_forward", path, loss, error);
    Parameter p = {.name = "prefix", .tensor = prefix};
    const double worst = replay(plan, batches, lm, NULL, (Parameters){&p, 1}, 0, template, path);
    const double moved = largest_difference(prefix->data, kept.data, size_of(kept));
    check(worst < 1e-4 && moved < 1e-3, "%-22s %s: 30 losses, relative difference at most %.1e; the prefix after them "
          "differs by %.1e", "prefix_forward", path, worst, moved);
    lm_close(lm);
}
static void check_deep_training(void) {
    const bool own = file_exists(oracle("deep/model.safetensors"));
    check_deep_training_of("deep", oracle(own ? "deep" : "tiny"), text_of("[CLS] subject [MASK] [SEP]"));
}
static void check_gpt_deep_training(void) {
    check_deep_training_of("deep_gpt", oracle("gpt"), text_of("subject"));
}
/* The encoder's prefix against plain loops in double, and its initial values. */
static void check_deep_encoder(void) {
    Random random = {1};
    Tensor prefix = tensor(3, 8);
    DeepPrompt d;
    deep_init(&d, &prefix, 6, true, &random);
    const double drawn = standard_deviation(d.second.w);
    for (int k = 0; k < d.weights.count; k++) fill_normal(*d.weights.at[k].tensor, 0.4, &random);
    deep_forward(&d);
    double worst = 0;
    for (int i = 0; i < prefix.rows; i++)
        for (int j = 0; j < prefix.cols; j++) {
            double sum = (double)d.second.b.data[j];
            for (int u = 0; u < d.first.w.rows; u++) {
                double inner = (double)d.first.b.data[u];
                for (int c = 0; c < 6; c++) inner += (double)row(d.first.w, u)[c] * (double)row(d.embedding, i)[c];
                sum += (double)row(d.second.w, j)[u] * tanh(inner);
            }
            worst = worse(worst, fabs(sum - (double)row(prefix, i)[j]));
        }
    check(worst < 1e-4 && fabs(drawn - 0.02) < 1e-3 && d.first.w.rows == 512,
          "%-22s differs from plain loops by %.1e; begins with a standard deviation of %.4f", "deep_forward", worst,
          drawn);
}
/* 5 steps of AdamW on every next token of texts, each a subject and its answer. */
static void check_pretraining(void) {
    Lm *lm = allocate_zeroed(sizeof *lm);
    const char *path = oracle("gpt/run.json");
    const Text run = read_json(path), plan = member(run, "causal_lm", path), losses = member(plan, "losses", path);
    const Optimizer adam = {json_number(member(plan, "lr", path)), 0.01, true};
    double worst = 0;
    lm_load(lm, oracle("gpt"));
    parameters_train(lm_weights(lm));
    for (int step = 1; step <= 5; step++) {
        Mark before = mark();
        const Text batch = json_at(member(run, "batches", path), step - 1);
        const int count = json_count(batch);
        Example *texts = allocate(sizeof(Example[count]));
        for (int i = 0; i < count; i++) {
            const Text pair = json_at(batch, i);
            Ids ids = {0};
            const Text subject = json_at(pair, 0);
            for (int k = 0; k < json_count(subject); k++) ids_push(&ids, json_int(json_at(subject, k)));
            ids_push(&ids, json_int(json_at(pair, 1)));
            texts[i] = (Example){.id = ids.id, .length = ids.count};
        }
        const Inputs in = next_words(texts, in_order(count), count);
        const double loss = loss_and_gradient(lm, (Tensor){0}, &in, NULL);
        adam_step(lm_weights(lm), adam, step, 1);
        worst = worse(worst, fabs(loss / json_number(json_at(losses, step - 1)) - 1));
        release(before);
    }
    check(worst < 1e-4, "%-22s %s: 5 losses of causal pretraining, relative difference at most %.1e", "next_words",
          path, worst);
    lm_close(lm);
}

/* ---- Tagging ----------------------------------------------------------------------------------------------------- */

/* Random tags, and the entities that conlleval and seqeval count in them. */
static void check_entities(void) {
    const char *path = oracle("entities.tsv");
    const Texts lines = read_lines(path);
    int wrong = 0;
    for (int i = 1; i < lines.count; i++) {
        const Texts field = split(lines.at[i], '\t');
        const Texts gold = split(field.at[0], ' '), predicted = split(field.at[1], ' ');
        Entities e = {0};
        count_entities(&e, gold.at, predicted.at, gold.count);
        wrong += e.gold != atoi(field.at[2].data) || e.predicted != atoi(field.at[3].data) ||
                 e.right != atoi(field.at[4].data);
    }
    check(!wrong && lines.count > 50, "%-22s %d of %d lines of %s are counted otherwise", "count_entities", wrong,
          lines.count - 1, path);
}
/* By hand: an I- after nothing, after a B- of another type, after O; an entity that is too long, or too short. */
static void check_entities_by_hand(void) {
    static const struct { const char *gold, *predicted; Entities want; } cases[] = {
        {"O", "O", {0, 0, 0}},                                       {"I-a", "B-a", {1, 1, 1}},
        {"B-a I-a", "I-a I-a", {1, 1, 1}},                           {"B-a B-a", "B-a I-a", {2, 1, 0}},
        {"B-a I-b", "B-a I-b", {2, 2, 2}},                           {"B-a I-a O", "B-a I-a I-a", {1, 1, 0}},
        {"B-a I-a I-a", "B-a I-a O", {1, 1, 0}},                     {"B-a I-a", "B-b I-b", {1, 1, 0}},
        {"B-a O I-a", "B-a O B-a", {2, 2, 2}},                       {"B-a I-a", "O I-a", {1, 1, 0}},
        {"B-a O B-a-b", "B-a O B-a", {2, 2, 1}},                     {"I-a I-a B-a", "I-a B-a B-a", {2, 3, 1}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const Texts gold = split(text_of(cases[k].gold), ' '), predicted = split(text_of(cases[k].predicted), ' ');
        const Entities *want = &cases[k].want;
        Entities e = {0};
        count_entities(&e, gold.at, predicted.at, gold.count);
        check(!memcmp(&e, want, sizeof e), "%-22s %s, predicted %s: %d, %d, both %d; expected %d, %d, %d",
              "count_entities", cases[k].gold, cases[k].predicted, e.gold, e.predicted, e.right, want->gold,
              want->predicted, want->right);
    }
}
/* Each word's tag stands at its first piece, after [CLS] and the pseudo-tokens. A tag that train does not have (B-z)
 * has O's number; a word without a piece is [UNK]; what is cut ends in [SEP]. */
static void check_tag_example(void) {
    enum { CLS = 101, SEP = 102, UNK = 100 };
    static const struct { int pseudo, most, length, id[14], tag[14]; } cases[] = {
        {0, 99, 12, {CLS, 163, 3354, 1161, 6467, 2386, UNK, 1107, 14465, 192, 20829, SEP},
         {-1, 2, -1, -1, 1, -1, 0, 0, 2, 0, -1, -1}},
        {2, 99, 14, {CLS, -1, -2, 163, 3354, 1161, 6467, 2386, UNK, 1107, 14465, 192, 20829, SEP},
         {-1, -1, -1, 2, -1, -1, 1, -1, 0, 0, 2, 0, -1, -1}},
        {2, 8, 8, {CLS, -1, -2, 163, 3354, 1161, 6467, SEP}, {-1, -1, -1, 2, -1, -1, 1, -1}},
        {0, 5, 5, {CLS, 163, 3354, 1161, SEP}, {-1, 2, -1, -1, -1}}};
    const Text o = text_of("O"), b = text_of("B-a"), i = text_of("I-a"), z = text_of("B-z");
    Word words[] = {{text_of("Zaha"), b, o}, {text_of("Hadid"), i, o},   {text_of("\x01"), o, o},
                    {text_of("in"), o, o},   {text_of("Baghdad"), b, o}, {text_of("w70"), z, o}};
    Text tags[] = {o, i, b};
    const Model model = {.vocab = cased_vocab(), .answers = {.labels = 3, .name = tags}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const Example e = tag_example(&(Sentence){words, 6}, &model, cases[k].pseudo, cases[k].most);
        const size_t size = sizeof(int) * (size_t)cases[k].length;
        check(e.length == cases[k].length && !memcmp(e.id, cases[k].id, size) && !memcmp(e.tag, cases[k].tag, size),
              "%-22s %d pseudo-tokens, at most %d tokens: %d tokens, expected %d, with their tags", "tag_example",
              cases[k].pseudo, cases[k].most, e.length, cases[k].length);
    }
}
/* Two sentences in another order: their selected positions and tags. */
static void check_tagged_inputs(void) {
    int id[] = {2, 9, 8, 7, 3}, tag[2][5] = {{-1, 4, -1, 5, -1}, {-1, 6, -1}};
    const Example both[] = {{.id = id, .length = 5, .tag = tag[0]}, {.id = id, .length = 3, .tag = tag[1]}};
    const Inputs in = tagged_inputs(both, (int[]){1, 0}, 2);
    const Batch *b = &in.batch;
    check(b->tokens == 8 && b->selected_count == 3 && !memcmp(b->selected, (int[]){1, 4, 6}, sizeof(int[3])) &&
              !memcmp(b->selected_start, (int[]){0, 1, 3}, sizeof(int[3])) &&
              !memcmp(in.target, (int[]){6, 4, 5}, sizeof(int[3])),
          "%-22s %d tokens, expected 8; %d selected, expected 3, with their tags", "tagged_inputs", b->tokens,
          b->selected_count);
}
/* An oracle's sentence: pieces and tags, in which -100 is no tag. */
static Example oracle_sentence(Text pair) {
    const Text ids = json_at(pair, 0), tags = json_at(pair, 1);
    const int pieces = json_count(ids);
    Example e = {.id = allocate(sizeof(int[pieces + 2])), .length = pieces + 2,
                 .tag = allocate(sizeof(int[pieces + 2]))};
    for (int i = 0; i < pieces; i++) {
        const double tag = json_number(json_at(tags, i));
        e.id[i + 1] = json_int(json_at(ids, i)), e.tag[i + 1] = tag < 0 ? -1 : (int)tag;
    }
    e.id[0] = 2, e.id[pieces + 1] = 3, e.tag[0] = e.tag[pieces + 1] = -1;
    return e;
}
/* Trains as in the file; returns the largest relative difference of one of these losses. */
static double replay_tagging(Text plan, Text losses, const Lm *lm, Parameters trained, const char *path) {
    const Optimizer adam = {json_number(member(plan, "lr", path)), 0, false};
    double worst = 0;
    parameters_train(trained);
    for (int step = 1; step <= json_count(losses); step++) {
        Mark before = mark();
        const Text batch = json_at(member(plan, "batches", path), step - 1);
        const int count = json_count(batch);
        Example *sentences = allocate(sizeof(Example[count]));
        for (int i = 0; i < count; i++) sentences[i] = oracle_sentence(json_at(batch, i));
        const Inputs in = tagged_inputs(sentences, in_order(count), count);
        const double loss = train_batch(lm, NULL, &in, NULL);
        adam_step(trained, adam, step, 1);
        worst = worse(worst, fabs(loss / json_number(json_at(losses, step - 1)) - 1));
        release(before);
    }
    return worst;
}
/* Losses in PyTorch: a deep prompt and the head are trained, the head alone, all of BERT and the head. */
static void check_tagging_of(const char *name, const char *what, bool deep, bool tune_lm) {
    const char *path = oracle("deep/run.json");
    const Text plan = member(read_json(path), "tagging", path);
    const Safetensors head = safetensors_open(oracle("deep/head.safetensors")),
                      before = safetensors_open(oracle("deep/prefix.safetensors"));
    const Tensor bias = expected(&head, "bias"), prefix = expected(&before, "prefix");
    Model *model = allocate_zeroed(sizeof *model);
    Text losses;
    if (!json_member(plan, name, &losses)) {
        printf("not run: tagging, %s: %s has no %s\n", what, path, name);
        return;
    }
    lm_load(&model->lm, oracle(file_exists(oracle("deep/model.safetensors")) ? "deep" : "tiny"));
    model->answers.labels = bias.cols;
    lm_set_prefix(&model->lm, tensor(deep ? prefix.rows : 0, prefix.cols), 0);
    Parameter p = {.tensor = lm_prefix(&model->lm), .name = "prefix"};
    Parameters added = parameters_joined(classifier_of(model), (Parameters){&p, deep});
    parameters_allocate(added);
    parameters_copy(added, (Parameters){(Parameter[]){{.tensor = &(Tensor){bias.cols, lm_word(&model->lm).cols,
                                                                          expected(&head, "weight").data, NULL, NULL}},
                                                      {.tensor = (Tensor *)&bias},
                                                      {.tensor = (Tensor *)&prefix}}, added.count});
    if (tune_lm) added = parameters_joined(lm_weights(&model->lm), added);
    const double worst = replay_tagging(plan, losses, &model->lm, added, path);
    check(worst < 1e-4, "%-22s %s, %s: %d losses, relative difference at most %.1e", "tagging", path, what,
          json_count(losses), worst);
    lm_close(&model->lm);
}
static void check_tagging(void) {
    check_tagging_of("losses", "deep prompt and head", true, false);
    check_tagging_of("head", "head alone", false, false);
    check_tagging_of("fine_tuning", "BERT and head", false, true);
}

/* ---- Answers of several tokens ----------------------------------------------------------------------------------- */
static Ids oracle_ids(Text list) {
    Ids ids = {0};
    for (int i = 0; i < json_count(list); i++) ids_push(&ids, json_int(json_at(list, i)));
    return ids;
}
/* The examples of choices.json with one [MASK] each. With `end` each has its right answer alone. */
static Dataset oracle_choices(Text file, const char *path, int end) {
    const Text list = member(file, "examples", path);
    Dataset data = {allocate(sizeof(Example[json_count(list)])), json_count(list), path};
    for (int i = 0; i < data.count; i++) {
        const Text e = json_at(list, i), answers = member(e, "answers", path);
        const Ids left = oracle_ids(member(e, "left", path)), right = oracle_ids(member(e, "right", path));
        struct Choice *c = allocate_zeroed(sizeof *c);
        Ids ids = {0};
        ids_push(&ids, 2);
        for (int k = 0; k < left.count; k++) ids_push(&ids, left.id[k]);
        ids_push(&ids, 4);
        for (int k = 0; k < right.count; k++) ids_push(&ids, right.id[k]);
        ids_push(&ids, 3);
        const int answer = json_int(member(e, "answer", path));
        c->pad = end;
        for (int k = 0; k < 2; k++)
            if (end < 0 || k == answer) c->answer[k] = oracle_ids(json_at(answers, k));
        data.at[i] = (Example){.id = ids.id, .length = ids.count, .mask = 1 + left.count, .answer = answer};
        data.at[i].choice = c;
    }
    return data;
}
/* Fine-tuning in PyTorch, three examples a step: with two answers each (the loss of the last steps is 0), and with the
 * right answer and after it 0 to 3 times the token 0. */
static void check_choice_training_of(const char *name, const char *what, int end) {
    const char *path = oracle("choices.json");
    const Text file = read_json(path), plan = member(file, name, path), losses = member(plan, "losses", path);
    const Optimizer adam = {json_number(member(plan, "lr", path)), 0, false};
    Lm *lm = allocate_zeroed(sizeof *lm);
    Dataset data = oracle_choices(file, path, end);
    double worst = 0;
    lm_load(lm, oracle("tiny"));
    data = choices_to_train(&data, 1, true);
    for (int i = 0; end >= 0 && i < data.count; i++) { /* as many as the oracle has */
        const Example one = oracle_choices(file, path, end).at[i];
        struct Choice *c = allocate(sizeof *c);
        *c = *one.choice;
        c->masks = c->answer[one.answer].count + i % 4;
        data.at[i] = with_masks(&one, c->masks), data.at[i].choice = c;
    }
    parameters_train(lm_weights(lm));
    for (int step = 0; step < json_count(losses); step++) {
        Mark before = mark();
        const int order[] = {2 * step % 6, (2 * step + 1) % 6, (2 * step + 2) % 6};
        const Inputs in = choice_inputs(data.at, order, 3);
        const double loss = train_batch(lm, NULL, &in, NULL);
        adam_step(lm_weights(lm), adam, step + 1, 1);
        worst = worse(worst, fabs(loss - json_number(json_at(losses, step))));
        release(before);
    }
    check(worst < 1e-4, "%-22s %s, %s: %d losses, difference at most %.1e", "choice_inputs", path, what,
          json_count(losses), worst);
    lm_close(lm);
}
static void check_choice_training(void) {
    check_choice_training_of("two", "a right and a wrong answer", -1);
    check_choice_training_of("one", "one answer", 0);
}
/* The same examples many times, so that they need several batches. */
static Dataset repeated(const Dataset *data, int times) {
    Dataset all = {allocate(sizeof(Example) * (size_t)(data->count * times)), data->count * times, data->path};
    for (int i = 0; i < all.count; i++) all.at[i] = data->at[i % data->count];
    return all;
}
/* Each answer's probability in PyTorch, and what the model says where the right one belongs, with one more token. */
static void check_fill_in(void) {
    enum { TIMES = 30, COUNT = 6 * TIMES };
    const char *path = oracle("choices.json");
    const Text file = read_json(path), log_p = member(file, "log_p", path), said = member(file, "said", path);
    static Tiny t;
    tiny_load(&t);
    t.model.answers.allowed = NULL;
    const Dataset both = oracle_choices(file, path, -1), right = oracle_choices(file, path, 0);
    const Dataset two = repeated(&both, TIMES), one = repeated(&right, TIMES);
    double worst = 0, sum[COUNT];
    int wrong = 0;
    for (int k = 0; k < 2; k++) {
        const Dataset texts = texts_for(&two, k);
        fill_in(&t.model, (Tensor){0}, &texts, false, sum);
        for (int i = 0; i < COUNT; i++) {
            const Ids answer = two.at[i].choice->answer[k];
            worst = worse(worst, fabs(sum[i] - json_number(json_at(json_at(log_p, i % 6), k))));
            wrong += memcmp(texts.at[i].id + two.at[i].mask, answer.id, sizeof(int) * (size_t)answer.count) != 0;
        }
    }
    check(worst < 1e-4 && !wrong, "%-22s %s: %d log probabilities differ by at most %.1e, %d texts are not the answer",
          "fill_in", path, 2 * COUNT, worst, wrong);
    for (int k = 0; k < 2; k++) {
        const Dataset texts = texts_for(&one, k);
        fill_in(&t.model, (Tensor){0}, &texts, true, sum);
        for (int i = 0; i < COUNT; i++) {
            const Ids want = oracle_ids(json_at(said, i % 6));
            if (one.at[i].answer != k) continue;
            wrong += texts.at[i].length != one.at[i].length + want.count - 1 ||
                     memcmp(texts.at[i].id + one.at[i].mask, want.id, sizeof(int) * (size_t)want.count) != 0;
        }
    }
    check(!wrong, "%-22s %s: what the model says, %d of %d wrong", "fill_in", path, wrong, COUNT);
    lm_close(&t.model.lm);
}
/* With one answer only examples stay for which it is right, with 0 to 3 more [MASK], all of these numbers at times. */
static void check_choices_to_train(void) {
    enum { TIMES = 200 };
    static int id[] = {2, 9, 4, 8, 3}, token[] = {5, 6};
    static Example examples[TIMES];
    int times[4] = {0}, wrong = 0;
    struct Choice one = {.answer = {{token, 2}, {NULL, 0}}};
    for (int i = 0; i < TIMES; i++)
        examples[i] = (Example){.id = id, .length = 5, .mask = 2, .answer = i % 2, .choice = &one};
    const Dataset kept = choices_to_train(&(Dataset){examples, TIMES, ""}, 1, true);
    for (int i = 0; i < kept.count; i++) {
        const Example *e = &kept.at[i];
        const int more = e->choice->masks - 2;
        if (more >= 0 && more <= 3) times[more]++;
        wrong += more < 0 || more > 3 || e->length != 6 + more || e->answer || e->id[1] != 9 || e->id[5 + more] != 3 ||
                 e->id[4 + more] != 8 || e->id[2] != 4 || e->id[3 + more] != 4;
    }
    check(kept.count == TIMES / 2 && !wrong && times[0] > 9 && times[1] > 9 && times[2] > 9 && times[3] > 9,
          "%-22s %d of 200 stay, expected 100; %d are wrong; %d, %d, %d, %d have 0 to 3 more [MASK]",
          "choices_to_train", kept.count, wrong, times[0], times[1], times[2], times[3]);
}
/* What counts as the answer "The Lady", said in up to three tokens of the cased vocabulary. */
static void check_says(void) {
    static const struct { const char *said; bool right; } cases[] = {
        {"The Lady [PAD]", true},   {"lady [PAD] [PAD]", true}, {"the Lady Anne", true}, {"Anne [PAD] [PAD]", false},
        {"[PAD] [PAD] [PAD]", true}, {"La ##dy the", true},      {"Lady La .", false},    {". The .", true},
        {"the [PAD] Anne", false}};
    static int id[] = {101, 0, 0, 0, 102};
    const Vocab vocab = cased_vocab();
    struct Choice c = {.text = {text_of("The Lady")}, .answer = {{NULL, 2}}};
    const Example filled = {.id = id, .length = 5, .mask = 1, .choice = &c};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const Texts tokens = split(text_of(cases[k].said), ' ');
        for (int i = 0; i < 3; i++) id[1 + i] = vocab_find(&vocab, tokens.at[i]);
        check(says(&vocab, &filled, 0) == cases[k].right, "%-22s The Lady, the model says %s: %s", "says",
              cases[k].said, cases[k].right ? "right" : "wrong");
    }
}
/* Fields with what a template may do to them. */
static void check_fields(void) {
    static const char *const cases[][2] = {
        {"a", "The End!"},  {"a-", "The End"},           {"a~", "the End!"},        {"a~-", "the End"},
        {"empty~-", ""},    {"q:cause=because,effect=so", "so"},                    {"t*w.he", "if *he* is he ."},
        {"t*w.late", "if he is *he* ."}, {"t*w.early", "if *he* is he ."}, {"u*w.him", "a  b *him*, c"},
        {"v*w.he", "he *he* he"}, {"x*w.he", "he  b *he*"}};
    const Text json = text_of("{\"a\": \"The End!\", \"empty\": \"\", \"q\": \"effect\", \"t\": \"if he is he .\", "
                              "\"u\": \"a  b him, c\", \"v\": \"he he he\", \"x\": \"he  b he\", "
                              "\"w\": {\"he_text\": \"he\", \"he_index\": 1, \"late_text\": \"he\", "
                              "\"late_index\": 4, \"early_text\": \"he\", \"early_index\": 0, "
                              "\"him_text\": \"him\", \"him_index\": 2}}");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const Text got = example_field(json, text_of(cases[k][0]), "", 1);
        check(text_is(got, cases[k][1]), "%-22s {%s}: '%s', expected '%s'", "example_field", cases[k][0],
              text_string(got), cases[k][1]);
    }
}

/* ---- The small world --------------------------------------------------------------------------------------------- */
static void check_sentence(void) { /* long names, which occur twice each */
    const char *x = format("%0200d", 1), *y = format("%0300d", 2), *want = format("%s, %s: %s%s.", x, x, y, y);
    const Text got = sentence(text_of("[X], [X]: [Y][Y]."), text_of(x), text_of(y));
    memset(allocate(1000), '?', 1000); /* would overwrite what lies beyond the memory of the result */
    check(text_is(got, want), "%-22s subject and object twice each: %zu bytes, expected %zu", "sentence", got.size,
          strlen(want));
}
/* 2000 times [CLS], ten words, [SEP]. A word is a target with probability 15 %, or because it is the forced one: 23.5 %
 * = 1 - 0.85 * 0.9. Of the targets 80 % become [MASK], 10 % stay, 10 % become any word; all other words stay. */
static void check_mask_words(void) {
    enum { TIMES = 2000, LENGTH = 12 };
    static int id[LENGTH] = {2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 3};
    const Example sentence = {.id = id, .length = LENGTH};
    const Vocab vocab = {.size = 1000, .mask = 4};
    Random random = {1};
    const Inputs in = mask_words(&sentence, allocate_zeroed(sizeof(int[TIMES])), TIMES, &vocab, &random);
    const int targets_drawn = in.batch.selected_count;
    int wrong = in.batch.selected_start[TIMES] != targets_drawn, masked = 0, kept = 0;
    for (int s = 0; s < TIMES; s++) wrong += in.batch.selected_start[s] >= in.batch.selected_start[s + 1];
    for (int k = 0; k < targets_drawn; k++) {
        const int at = in.batch.selected[k];
        wrong += at % LENGTH == 0 || at % LENGTH == LENGTH - 1 || in.target[k] != id[at % LENGTH];
        masked += in.id[at] == vocab.mask;
        kept += in.id[at] == in.target[k];
        in.id[at] = in.target[k];
    }
    for (int i = 0; i < in.batch.tokens; i++) wrong += in.id[i] != id[i % LENGTH];
    const double drawn = targets_drawn / (10.0 * TIMES), mask = (double)masked / targets_drawn,
                 same = (double)kept / targets_drawn;
    check(!wrong, "%-22s %d targets, sentences or other words are wrong", "mask_words", wrong);
    check(fabs(drawn - 0.235) < 0.01 && fabs(mask - 0.8) < 0.02 && fabs(same - 0.1) < 0.015,
          "%-22s %.3f of the words are targets, expected 0.235; of these %.3f are [MASK], expected 0.8; %.3f stay, "
          "expected 0.1", "mask_words", drawn, mask, same);
}
static int occurrences(Text text, const char *placeholder) {
    int count = 0;
    for (size_t i = 0; i < text.size; i++) count += text_starts((Text){text.data + i, text.size - i}, placeholder);
    return count;
}
/* Whether data/relations.jsonl has the type N-M for a relation: a subject may have several objects. */
static bool many_to_many(const char *name) {
    const Texts lines = read_lines("data/relations.jsonl");
    Text relation, type;
    for (int i = 0; i < lines.count; i++)
        if (json_member(lines.at[i], "relation", &relation) && text_is(json_string(relation), name))
            return json_member(lines.at[i], "type", &type) && text_is(json_string(type), "N-M");
    return false;
}
/* In a relation each subject occurs once over all sets (in one of type N-M in one of the sets, each time with another
 * object), each object is one token, and no prompt is a paraphrase that pretraining reads. */
static int check_relation(const Relation *relation, const Vocab *vocab) {
    const bool many = many_to_many(relation->name);
    Texts subjects = {0}, pairs = {0}, paraphrases = read_lines(format("%s/pretrain.txt", relation->folder)),
          prompts = read_lines(format("%s/prompts.txt", relation->folder));
    int twice = 0, long_objects = 0, wrong = 0, known = 0, facts = 0;
    for (int s = 0; s < 3; s++) {
        const char *path = format("%s/%s.jsonl", relation->folder, split_name[s]);
        const Texts lines = read_lines(path), other_sets = subjects;
        for (int i = 0; i < lines.count; i++, facts++) {
            json_check(lines.at[i], path, i + 1);
            const Text subject = example_field(lines.at[i], text_of(""), path, i + 1),
                       object = example_field(lines.at[i], text_of("obj_label"), path, i + 1),
                       pair = text_of(format("%s\n%s", text_string(subject), text_string(object)));
            twice += texts_contain(many ? &other_sets : &subjects, subject) || texts_contain(&pairs, pair);
            long_objects += vocab_word(vocab, object) < 0;
            texts_push(&subjects, subject), texts_push(&pairs, pair);
        }
    }
    texts_push(&prompts, relation->template);
    for (int w = 0; w < paraphrases.count; w++)
        wrong += occurrences(paraphrases.at[w], "[X]") != 1 || occurrences(paraphrases.at[w], "[Y]") != 1;
    for (int p = 0; p < prompts.count; p++) {
        wrong += occurrences(prompts.at[p], "[X]") != 1 || occurrences(prompts.at[p], "[Y]") != 1;
        known += texts_contain(&paraphrases, prompts.at[p]);
    }
    check(!twice && !long_objects && !wrong && !known && paraphrases.count >= 10 && prompts.count >= 6,
          "%-16s %d facts (%d repeated subjects, %d objects of several tokens), %d paraphrases, %d prompts (%d of them "
          "read in pretraining), %d malformed",
          relation->name, facts, twice, long_objects, paraphrases.count, prompts.count, known, wrong);
    return facts;
}
static void check_world(void) {
    const World world = world_read("data");
    const Vocab vocab = vocab_load("data/bert");
    int facts = 0;
    for (int r = 0; r < world.count; r++) facts += check_relation(&world.at[r], &vocab);
    check(world.count >= 18 && facts >= 3500, "%-22s %d relations, %d facts", "world", world.count, facts);
}
static void check_vocab_learn(void) {
    const World world = world_read("data");
    const Vocab want = vocab_load("data/bert");
    Texts objects = {0};
    const Options o = default_options('v');
    const Texts sentences = world_sentences(&world, o.training.seed, &objects);
    const Vocab vocab = vocab_learn(&sentences, &objects, o.size);
    int different = vocab.size != want.size;
    for (int i = 0; i < min_int(vocab.size, want.size); i++)
        different += !text_equal(vocab.piece[i], want.piece[i]);
    check(!different, "%-22s data/bert/vocab.txt, learned again: %d entries, %d differ", "vocab_learn", vocab.size,
          different);
}

/* The world's sentences, with a token for every object; and as the tokenizer cuts them. */
static void check_bpe_learn(void) {
    const World world = world_read("data");
    Texts objects = {0};
    const Options o = default_options('v');
    const Texts sentences = world_sentences(&world, o.training.seed, &objects);
    const Vocab vocab = bpe_learn(&sentences, &objects, o.size), again = bpe_learn(&sentences, &objects, o.size);
    int in_pieces = 0, different = vocab.size != again.size || !same_merges(&vocab.merges, &again.merges);
    size_t bytes = 0;
    int tokens = 0;
    for (int i = 0; i < objects.count; i++) in_pieces += vocab_word(&vocab, objects.at[i]) < 0;
    for (int i = 0; i < sentences.count; i++) {
        Mark before = mark();
        Ids ids = {0};
        tokenize(&vocab, sentences.at[i], &ids);
        tokens += ids.count, bytes += sentences.at[i].size;
        release(before);
    }
    check(!different && !in_pieces && vocab.size == o.size && vocab.end == o.size - 1 && tokens < (int)bytes / 3,
          "%-22s %d tokens; %d of %d objects in pieces; the sentences have %zu bytes, %d tokens", "bpe_learn",
          vocab.size, in_pieces, objects.count, bytes, tokens);
}

/* ---- The real BERT-base ------------------------------------------------------------------------------------------ */
/* Loss and gradient of a fixed prompt, in both orders of mask and subject, against autograd. */
static void check_prompt_gradient(const char *path, const Model *model) {
    static const char *const orders[][2] = {{"mask_first", "[P][P][P] [MASK] [P][P][P] [X] [P][P][P]"},
                                            {"subject_first", "[P][P][P] [X] [P][P][P] [MASK] [P][P][P]"}};
    const Safetensors file = safetensors_open(path);
    const Text facts = safetensors_metadata(&file, "rows");
    json_check(facts, path, 0);
    for (int k = 0; k < 2; k++) {
        Mark before = mark();
        const Template t = template_read(orders[k][1]);
        Tensor prompt = expected(&file, "prompt");
        const Tensor want = expected(&file, format("grad_%s", orders[k][0]));
        const int count = json_count(facts);
        Example *examples = allocate(sizeof(Example[count]));
        for (int f = 0; f < count; f++) {
            const Text fact = json_at(facts, f);
            Text field[32];
            for (int i = 0; i < t.parts; i++) field[i] = json_string(member(fact, "sub", path));
            template_fill(&t, &model->vocab, field, lm_positions(&model->lm), &examples[f], path, 0);
            examples[f].answer = vocab_word(&model->vocab, json_string(member(fact, "obj", path)));
        }
        const Inputs in = inputs_of(examples, in_order(count), count);
        needs_grad(&prompt);
        const double loss = loss_and_gradient(&model->lm, prompt, &in, NULL);
        const double loss_error = fabs(loss - (double)expected(&file, format("loss_%s", orders[k][0])).data[0]);
        const int elements = (int)size_of(want);
        for (int i = 0; i < elements; i++) prompt.grad[i] -= want.data[i];
        const double difference = norm_of(prompt.grad, elements) / norm_of(want.data, elements);
        check(loss_error < 1e-4 && difference < 1e-4, "%s: %s: loss %.4f differs by %.1e, gradient by %.1e of its norm",
              path, orders[k][0], loss, loss_error, difference);
        release(before);
    }
}
static void section_bert(const char **folders, int count) {
    bool seen[2] = {false, false};
    printf("\n== BERT-base ==\n");
    for (int i = 0; i < count; i++) {
        Mark before = mark();
        Model *model = model_load(&(Options){.model = folders[i]});
        const bool cased = model->vocab.cased;
        const char *texts = cased ? "fill_cased.jsonl" : "fill_uncased.jsonl",
                   *prompt = "prompt_grad_bert_base_cased.safetensors";
        seen[cased] = true;
        if (have(texts, "BERT-base")) check_fill(oracle(texts), model, 5e-3);
        if (cased && have(prompt, "BERT-base")) check_prompt_gradient(oracle(prompt), model);
        lm_close(&model->lm);
        release(before);
    }
    for (int k = 1; k >= 0; k--)
        if (!seen[k])
            printf("not run: the comparisons with %s: no --bert DIR was given for it\n",
                   k ? "bert-base-cased" : "bert-base-uncased");
}

/* ==== All unit tests ============================================================================================== */
/* Each is named after the function under test; `file` is the file of expected values that it needs. An entry without a
 * function begins a module. */
static const struct { const char *name; void (*run)(void); const char *file; } units[] = {
    {"tensor.h", NULL, NULL},
    {"exp_fast", check_exp_fast, NULL},
    {"utf8_valid", check_utf8_valid, NULL},
    {"hash_text", check_hash_text, NULL},
    {"json_value", check_json_value, NULL},
    {"float_of_half", check_half, NULL},
    {"matmul_naive", check_matmul_naive, NULL},
    {"pack", check_pack, NULL},
    {"matmul", check_matmul, NULL},
    {"matmul", check_matmul_threads, NULL},
    {"matmul", check_matmul_in_region, NULL},
    {"matmul_share", check_matmul_share, NULL},
    {"packed_copy", check_packed_copy, NULL},
    {"linear_forward", check_linear, "layers.safetensors"},
    {"residual_forward", check_residual, "layers.safetensors"},
    {"layernorm_forward", check_layernorm, "layers.safetensors"},
    {"relu_forward", check_relu, "layers.safetensors"},
    {"gelu_forward", check_gelu, "layers.safetensors"},
    {"tanh_gelu", check_tanh_gelu, NULL},
    {"softmax_forward", check_softmax, "layers.safetensors"},
    {"cross_entropy_forward", check_cross_entropy, "layers.safetensors"},
    {"cross_entropy_backward", check_cross_entropy_backward, NULL},
    {"adam_step", check_adam_step, NULL},
    {"adam_step", check_adam_steps, NULL},
    {"threads", check_layer_threads, NULL},
    {"tokenizer.h", NULL, NULL},
    {"wordpiece", check_wordpiece, NULL},
    {"tokenize", check_tokenize, "tokenizer.jsonl"},
    {"tokenize_with_special", check_special_tokens, NULL},
    {"unicode", check_unicode, NULL},
    {"unicode_settings", check_unicode_settings, NULL},
    {"first_word", check_first_word, NULL},
    {"bpe", check_bpe, NULL},
    {"tokenize_bytes", check_tokenize_bytes, "gpt/bpe.jsonl"},
    {"tokenize_bytes", check_end_of_text, NULL},
    {"vocab_word", check_vocab_word, NULL},
    {"vocab.h", NULL, NULL},
    {"vocab_looks_cased", check_looks_cased, NULL},
    {"lstm.h", NULL, NULL},
    {"lstm_cell_forward", check_lstm_cell, "layers.safetensors"},
    {"lstm_forward", check_lstm_forward, "bilstm.safetensors"},
    {"lstm_backward", check_lstm_backward, "bilstm.safetensors"},
    {"lstm_backward", check_large_lstm, NULL},
    {"lstm_backward", check_lstm_threads, NULL},
    {"bert.h", NULL, NULL},
    {"attention_forward", check_attention, "layers.safetensors"},
    {"attention_forward", check_more_attention, NULL},
    {"bert_logits", check_batch, "tiny/encoder.safetensors"},
    {"layer_forward", check_layers, NULL},
    {"gpt.h", NULL, NULL},
    {"gpt_logits", check_gpt_logits, "gpt/logits.safetensors"},
    {"gpt_logits", check_gpt_batch, "gpt/model.safetensors"},
    {"gpt_layer_forward", check_gpt_layers, NULL},
    {"gpt_config", check_gpt_config, NULL},
    {"gpt_save", check_gpt_save, NULL},
    {"gpt_random", check_gpt_random, NULL},
    {"parameters_pack", check_packed_weights, NULL},
    {"ptune.c", NULL, NULL},
    {"template_parse", check_template_parse, NULL},
    {"template_ids", check_template_ids, NULL},
    {"template_ids", check_causal_template_ids, NULL},
    {"template_fill", check_template_fill, NULL},
    {"template_fill", check_template_cut, NULL},
    {"encoder_forward", check_encoder, "layers.safetensors"},
    {"encoder_start", check_encoder_start, NULL},
    {"start_from_words", check_start_from_words, NULL},
    {"embed_forward", check_embed, "layers.safetensors"},
    {"mask_logits", check_mask_logits, "tiny/encoder.safetensors"},
    {"evaluate", check_evaluate, "tiny/encoder.safetensors"},
    {"train_epoch", check_train_epoch, "tiny/encoder.safetensors"},
    {"train_epoch", check_train_step, "tiny/encoder.safetensors"},
    {"run_end", check_run, "tiny/encoder.safetensors"},
    {"run_method", check_run_method, NULL},
    {"deep_end", check_deep_run, "tiny/encoder.safetensors"},
    {"multi.h", NULL, NULL},
    {"shuffled_turns", check_turns, NULL},
    {"shared_step", check_shared_step, "tiny/encoder.safetensors"},
    {"shared_epoch", check_shared_epoch, "tiny/encoder.safetensors"},
    {"shared_next_epoch", check_shared_next_epoch, "tiny/encoder.safetensors"},
    {"run_from", check_run_from, "tiny/encoder.safetensors"},
    {"evaluate_mean", check_evaluate_mean, "tiny/encoder.safetensors"},
    {"evaluate_mean", check_add_probabilities, NULL},
    {"merit", check_merit, NULL},
    {"schedule", check_schedule, NULL},
    {"clip_factor", check_clip_factor, NULL},
    {"prediction_of", check_prediction, NULL},
    {"macro_f1", check_macro_f1, NULL},
    {"training", check_training, "tiny/run.json"},
    {"training", check_gpt_training, "gpt/run.json"},
    {"deep_forward", check_deep_encoder, NULL},
    {"prefix_forward", check_deep_training, "deep/run.json"},
    {"prefix_forward", check_gpt_deep_training, "deep_gpt/run.json"},
    {"next_words", check_pretraining, "gpt/run.json"},
    {"count_entities", check_entities, "entities.tsv"},
    {"count_entities", check_entities_by_hand, NULL},
    {"tag_example", check_tag_example, NULL},
    {"tagged_inputs", check_tagged_inputs, NULL},
    {"tagging", check_tagging, "deep/head.safetensors"},
    {"choice_inputs", check_choice_training, "choices.json"},
    {"fill_in", check_fill_in, "choices.json"},
    {"choices_to_train", check_choices_to_train, NULL},
    {"says", check_says, NULL},
    {"example_field", check_fields, NULL},
    {"sentence", check_sentence, NULL},
    {"mask_words", check_mask_words, NULL},
    {"world", check_world, NULL},
    {"vocab_learn", check_vocab_learn, NULL},
    {"bpe_learn", check_bpe_learn, NULL},
};
static void section_values(const char *only) {
    const char *names = "";
    bool known = !only;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!units[i].run) {
            if (!only) printf("\n== %s ==\n", units[i].name);
            continue;
        }
        if (strcmp(units[i].name, units[i - 1].name)) names = format("%s, %s", names, units[i].name);
        if (only && strcmp(only, units[i].name)) continue;
        known = true;
        if (units[i].file && !have(units[i].file, units[i].name)) continue;
        Mark before = mark();
        running = units[i].name;
        units[i].run();
        release(before);
    }
    if (!known) die("no check '%s'; there are%s", only, names + 1);
}

/* ==== Gradient checks ================================================================================================
 *   ./test gradcheck [LAYER] [--eps E] [--bug NAME]       one line per check; a LAYER's experiments in detail
 *
 * A check is a loss L, a function of some tensors, and its backward pass, which computes dL. Is dL the gradient of L?
 *   elements  each against the central difference (L(x + eps) - L(x - eps)) / 2 eps. Relative error:
 *             |a - n| / max(|a|, |n|, floor), where the floor is a fraction of the check's largest gradient.
 *   Taylor    |L(x + t v) - L(x) - t dL.v| along a random direction v falls as t^2 if dL is right, as t if not.
 *   frozen    dL of a tensor is the same, to the last bit, if another tensor is frozen, and if all others are.
 *   scaled    a loss 2^20 or 2^-20 times as large has a gradient as many times as large, to the last bit.
 * The central difference has an error of eps^2 L''' / 6 (truncation) and one of about u L / eps (rounding; u = 1e-16 in
 * double, 6e-8 in float); their sum is least near eps = u^(1/3). In float that is 1e-5 to 1e-3 of the largest gradient,
 * so float cannot judge an element below a tenth of the largest, nor a small Taylor remainder. Double can.
 */
#ifdef DOUBLE
static const double EPSILON = 1e-5, FLOOR = 1e-6, TOLERANCE = 1e-4; /* of the relative error */
static const double TAYLOR_STEP = 1e-4, SLOPE_TOLERANCE = 0.1, SMALLEST_STEP = 1e-12;
#else
static const double EPSILON = 4e-3, FLOOR = 0.1, TOLERANCE = 1e-2;
static const double TAYLOR_STEP = 1e-2, SLOPE_TOLERANCE = INFINITY, SMALLEST_STEP = 1e-8;
#endif
enum { MAX_TENSORS = 96 };
typedef struct Check Check;
struct Check {
    const char *name;
    double (*loss)(Check *, bool); /* true: also add to the gradients */
    int variant;                   /* one loss serves several checks */
    Parameters tensors;            /* what the loss depends on, all with a gradient */
    const char *no_gradient;       /* tensors whose names contain this: gradient zero by their nature */
    const char *never_frozen;      /* tensors whose names contain this: their layer always computes the gradient */
    const bool *in_loss;           /* words whose probabilities sum to 1 in the loss */
    Random random;
    double largest;                /* absolute value in all gradients */
    bool fixed_scale;              /* the gradient with which the backward pass begins is not set by this file */
    real scale;                    /* of that gradient */
    Tensor weights, x, y, z;       /* weights: of the loss; the rest: whatever the losses below need */
    Linear linear;
    LayerNorm layernorm;
    LstmCell cell;
    Lstm lstm;
    Lm lm;
    PromptEncoder encoder;
    DeepPrompt deep;
    Inputs in;
};

/* ---- The experiments --------------------------------------------------------------------------------------------- */

static double loss_at(Check *c) {
    Mark before = mark();
    const double loss = c->loss(c, false);
    release(before);
    return loss;
}
static void add_to_gradients(Check *c, real amount) {
    for (int k = 0; k < c->tensors.count; k++)
        for (size_t i = 0; i < size_of(*c->tensors.at[k].tensor); i++) c->tensors.at[k].tensor->grad[i] += amount;
}
/* The largest in the tensors whose name contains `part`. */
static double largest_gradient(const Check *c, const char *part) {
    double largest = 0;
    for (int k = 0; k < c->tensors.count; k++)
        for (size_t i = 0; strstr(c->tensors.at[k].name, part) && i < size_of(*c->tensors.at[k].tensor); i++)
            largest = worse(largest, fabs((double)c->tensors.at[k].tensor->grad[i]));
    return largest;
}
static void analytic_gradient(Check *c) {
    c->loss(c, false);      /* draws the weights of the loss, once */
    add_to_gradients(c, 1); /* a backward pass that sets instead of adding loses this */
    Mark before = mark();
    c->loss(c, true);
    release(before);
    add_to_gradients(c, -1);
    c->largest = largest_gradient(c, "");
}
static double central_difference(Check *c, real *x, double eps) {
    const real keep = *x;
    *x = keep + (real)eps;
    const double up = loss_at(c);
    *x = keep - (real)eps;
    const double down = loss_at(c);
    *x = keep;
    return (up - down) / (2 * eps);
}

typedef struct { double error, analytic, numeric; size_t at; const char *name; } Worst;

/* All elements of a tensor; the floor is this fraction of the largest gradient; all errors also go to `errors`. Where a
 * gradient is zero by its nature, the numeric value is rounding error: there the floor is the largest gradient. */
static Worst compare(Check *c, const Parameter *p, double eps, double fraction, double *errors) {
    const bool zero = c->no_gradient && strstr(p->name, c->no_gradient);
    const double floor = zero ? c->largest : fraction * c->largest;
    Worst worst = {.error = -1, .name = p->name};
    for (size_t i = 0; i < size_of(*p->tensor); i++) {
        const double a = (double)p->tensor->grad[i], n = central_difference(c, &p->tensor->data[i], eps);
        errors[i] = fabs(a - n) / fmax(fmax(fabs(a), fabs(n)), floor);
        if (isnan(errors[i])) errors[i] = INFINITY;
        if (errors[i] > worst.error) worst = (Worst){errors[i], a, n, i, p->name};
    }
    return worst;
}
static Worst compare_all(Check *c, double eps, double fraction, double *errors) {
    Worst worst = {.error = -1};
    for (int k = 0; k < c->tensors.count; k++) {
        const Worst w = compare(c, &c->tensors.at[k], eps, fraction, errors);
        errors += size_of(*c->tensors.at[k].tensor);
        if (w.error > worst.error) worst = w;
    }
    return worst;
}

/* |L(x + t v) - L(x) - t dL.v|; v is a random direction of length about 1. */
static double taylor_remainder(Check *c, double t) {
    Mark before = mark();
    Random random = {11};
    real *keep[MAX_TENSORS];
    const double start = loss_at(c), length = sqrt((double)parameters_size(c->tensors));
    double linear = 0;
    for (int k = 0; k < c->tensors.count; k++) {
        Tensor *x = c->tensors.at[k].tensor;
        keep[k] = x->data;
        x->data = allocate(size_of(*x) * sizeof(real));
        for (size_t i = 0; i < size_of(*x); i++) {
            x->data[i] = keep[k][i] + (real)(t * normal(&random) / length);
            linear += (double)x->grad[i] * ((double)x->data[i] - (double)keep[k][i]);
        }
    }
    const double remainder = fabs(loss_at(c) - start - linear);
    for (int k = 0; k < c->tensors.count; k++) c->tensors.at[k].tensor->data = keep[k];
    release(before);
    return remainder;
}
/* The exponent of t with which the remainder falls from 10 t to t. */
static double taylor_slope(Check *c, double t) { return log10(taylor_remainder(c, 10 * t) / taylor_remainder(c, t)); }

/* One run of the backward pass with tensor number `one` frozen, or (alone) all others; -1: none. It begins with `scale`
 * times the gradient of the loss. The gradients go to `grad`, NULL where frozen. Returns the loss. */
static double gradients(Check *c, int one, bool alone, real scale, real **grad) {
    real *keep[MAX_TENSORS];
    for (int k = 0; k < c->tensors.count; k++) {
        Tensor *t = c->tensors.at[k].tensor;
        const bool always = c->never_frozen && strstr(c->tensors.at[k].name, c->never_frozen);
        keep[k] = t->grad;
        if (one >= 0 && (k == one) != alone && !always) t->grad = NULL;
        else needs_grad(t);
        grad[k] = t->grad;
    }
    c->scale = scale;
    const double loss = c->loss(c, true);
    c->scale = 1;
    for (int k = 0; k < c->tensors.count; k++) c->tensors.at[k].tensor->grad = keep[k];
    return loss;
}
/* What differs in such a run, or NULL: the loss, or a gradient that is not `scale` times that in `full`. */
static const char *difference(Check *c, int one, bool alone, real scale, double loss, real *const *full) {
    Mark before = mark();
    real *grad[MAX_TENSORS];
    const char *differs = gradients(c, one, alone, scale, grad) == loss ? NULL : "the loss";
    for (int k = 0; k < c->tensors.count; k++)
        for (size_t i = 0; grad[k] && !differs && i < size_of(*c->tensors.at[k].tensor); i++)
            if (grad[k][i] != scale * full[k][i]) differs = c->tensors.at[k].name;
    release(before);
    return differs;
}
/* Nothing is computed differently because something else is frozen, or because the gradients are large or small. */
static void check_frozen(Check *c) {
    Mark start = mark();
    const int ways = c->tensors.count > 1 ? 2 * c->tensors.count : 0;
    real *full[MAX_TENSORS];
    const double loss = gradients(c, -1, false, 1, full), forward = loss_at(c);
    const char *differs = fabs(loss - forward) <= 1e-5 * fabs(forward) ? NULL : "the loss", *with = "a backward pass";
    for (int way = 0; way < ways && !differs; way++) {
        differs = difference(c, way / 2, way % 2, 1, loss, full);
        with = format("%s %s", c->tensors.at[way / 2].name, way % 2 ? "alone trained" : "frozen");
    }
    for (int power = -20; power <= 20 && !differs && !c->fixed_scale; power += 40) {
        differs = difference(c, -1, false, (real)pow(2, power), loss, full);
        with = format("the loss times 2^%d", power);
    }
    check(!differs, "%-17s %4d runs, frozen or scaled: %s%s%s", c->name, ways + (c->fixed_scale ? 0 : 2),
          differs ? differs : "the same gradients", differs ? " differs with " : "", differs ? with : "");
    release(start);
}
/* The experiments in detail: one line per tensor, the errors at many eps, the Taylor remainder at many t. */
static void print_experiments(Check *c, double eps, double *errors) {
    int width = 6;
    for (int k = 0; k < c->tensors.count; k++) width = max_int(width, (int)strlen(c->tensors.at[k].name));
    printf("\n%-*s  elements  worst error  at element      analytic       numeric\n", width, "tensor");
    for (int k = 0; k < c->tensors.count; k++) {
        const Worst w = compare(c, &c->tensors.at[k], eps, FLOOR, errors);
        printf("%-*s  %8zu  %11.1e  %10zu  %12.5e  %12.5e\n", width, w.name, size_of(*c->tensors.at[k].tensor), w.error,
               w.at, w.analytic, w.numeric);
    }
    printf("\neps    median error  worst error\n");
    for (double e = 0.1; e > SMALLEST_STEP / 2; e /= 10) {
        const double worst = compare_all(c, e, 1e-6, errors).error; /* one floor, to compare float and double */
        printf("%.0e  %12.1e  %11.1e\n", e, median(errors, (int)parameters_size(c->tensors)), worst);
    }
    printf("\nt      |L(x + t v) - L(x) - t dL.v|  slope\n");
    for (double t = 0.1; t > sqrt(SMALLEST_STEP) / 2; t /= 10)
        printf("%.0e  %28.1e  %5.2f\n", t, taylor_remainder(c, t), taylor_slope(c, t));
    printf("\n");
}
static void gradcheck(Check *c, double eps, bool in_detail) {
    const size_t elements = parameters_size(c->tensors);
    double *errors = allocate(sizeof(double[elements]));
    analytic_gradient(c);
    if (c->no_gradient)
        check(largest_gradient(c, c->no_gradient) <= TOLERANCE * FLOOR * c->largest,
              "%-17s the gradient of every %s is zero: softmax ignores a shift", c->name, c->no_gradient);
    const Worst w = compare_all(c, eps, FLOOR, errors);
    const double slope = taylor_slope(c, TAYLOR_STEP);
    check(w.error < TOLERANCE && c->largest > 0 && fabs(slope - 2) < SLOPE_TOLERANCE,
          "%-17s %4zu elements, worst relative error %.1e at %s[%zu]: %.6g, numeric %.6g; Taylor slope %.2f", c->name,
          elements, w.error, w.name, w.at, w.analytic, w.numeric, slope);
    check_frozen(c);
    if (in_detail) print_experiments(c, eps, errors);
}

/* ---- The layers: each loss, and below it the tensors that it depends on ------------------------------------------ */

/* The loss of a layer whose output is a matrix: the sum of w y + y^2 / 2 with fixed random w. The square gives even a
 * linear layer a second derivative, without which the Taylor remainder would be rounding error. */
static double loss_of(Check *c, Tensor *y, bool backward) {
    double loss = 0;
    if (!c->weights.data) fill_normal(c->weights = tensor(y->rows, y->cols), 1, &c->random);
    if (backward && !y->grad) needs_grad(y);
    for (size_t i = 0; i < size_of(*y); i++) {
        loss += (double)c->weights.data[i] * (double)y->data[i] + (double)y->data[i] * (double)y->data[i] / 2;
        if (backward) y->grad[i] += c->scale * (c->weights.data[i] + y->data[i]);
    }
    return loss;
}
static void depends_on(Check *c, const char *name, Tensor *t) {
    add_parameter(&c->tensors, MATRIX, t, t->rows, t->cols, name);
    needs_grad(t);
}
static void depends_on_random(Check *c, const char *name, Tensor *t, int rows, int cols) { /* drawn here */
    fill_normal(*t = tensor(rows, cols), 1, &c->random);
    depends_on(c, name, t);
}
static void depends_on_all(Check *c, Parameters list, const char *part) { /* those whose name contains `part` */
    for (int i = 0; i < list.count; i++)
        if (strstr(list.at[i].name, part)) depends_on(c, list.at[i].name, list.at[i].tensor);
}

static double linear_loss(Check *c, bool backward) {
    Tensor y = linear_forward(&c->linear, c->x);
    const double loss = loss_of(c, &y, backward);
    if (backward) linear_backward(&c->linear, c->x, y);
    return loss;
}
static void linear_tensors(Check *c) {
    depends_on_random(c, "x", &c->x, 5, 4);
    depends_on_random(c, "w", &c->linear.w, 3, 4);
    depends_on_random(c, "b", &c->linear.b, 1, 3);
}

static double residual_loss(Check *c, bool backward) { /* of a copy: it works in place */
    Tensor sum = tensor(c->x.rows, c->x.cols);
    memcpy(sum.data, c->x.data, size_of(sum) * sizeof(real));
    residual_forward(sum, c->y);
    const double loss = loss_of(c, &sum, backward);
    if (backward) {
        residual_backward(sum, c->y);
        residual_backward(sum, c->x);
    }
    return loss;
}
static void residual_tensors(Check *c) {
    depends_on_random(c, "x", &c->x, 3, 4);
    depends_on_random(c, "y", &c->y, 3, 4);
}

static double layernorm_loss(Check *c, bool backward) {
    Tensor y = layernorm_forward(&c->layernorm, c->x);
    const double loss = loss_of(c, &y, backward);
    if (backward) layernorm_backward(&c->layernorm, c->x, y);
    return loss;
}
static void layernorm_tensors(Check *c) {
    c->layernorm.eps = (real)1e-5;
    depends_on_random(c, "x", &c->x, 4, 6);
    depends_on_random(c, "w", &c->layernorm.w, 1, 6);
    depends_on_random(c, "b", &c->layernorm.b, 1, 6);
}
static void flat_tensors(Check *c) { /* a row of equal elements: without eps its scale would be infinite */
    layernorm_tensors(c);
    c->layernorm.eps = (real)0.1;
    for (int j = 0; j < c->x.cols; j++) row(c->x, 1)[j] = 2;
}

static void x_tensor(Check *c) { depends_on_random(c, "x", &c->x, 5, 7); }
static void wide_tensor(Check *c) { /* into the tails of gelu */
    x_tensor(c);
    for (int j = 0; j < c->x.cols; j++) row(c->x, 3)[j] *= 3;
}
/* One probability above 0.999, in cross-entropy that of the target. Variant: what is added for that. */
static void saturated_tensor(Check *c) {
    x_tensor(c);
    row(c->x, 1)[targets[1]] += (real)c->variant;
}

static double gelu_loss(Check *c, bool backward) {
    Tensor y = gelu_forward(c->x);
    const double loss = loss_of(c, &y, backward);
    if (backward) gelu_backward(c->x, y);
    return loss;
}
static double tanh_gelu_loss(Check *c, bool backward) {
    Tensor y = tanh_gelu_forward(c->x);
    const double loss = loss_of(c, &y, backward);
    if (backward) tanh_gelu_backward(c->x, y);
    return loss;
}
static double relu_loss(Check *c, bool backward) {
    Tensor y = relu_forward(c->x);
    const double loss = loss_of(c, &y, backward);
    if (backward) relu_backward(c->x, y);
    return loss;
}
static double tanh_loss(Check *c, bool backward) {
    Tensor y = tanh_forward(c->x);
    const double loss = loss_of(c, &y, backward);
    if (backward) tanh_backward(c->x, y);
    return loss;
}
static double softmax_loss(Check *c, bool backward) {
    Tensor p = tensor(c->x.rows, c->x.cols);
    memcpy(p.data, c->x.data, size_of(p) * sizeof(real));
    for (int i = 0; i < p.rows; i++) softmax_forward(row(p, i), p.cols, (real)0.7);
    const double loss = loss_of(c, &p, backward);
    for (int i = 0; backward && i < p.rows; i++) {
        softmax_backward(row(p, i), grad_row(p, i), p.cols, (real)0.7);
        for (int j = 0; j < p.cols; j++) grad_row(c->x, i)[j] += grad_row(p, i)[j];
    }
    return loss;
}
static double cross_entropy_loss(Check *c, bool backward) {
    Tensor x = c->x; /* with its own gradient: this backward pass is the first, and sets it */
    needs_grad(&x);
    if (backward) cross_entropy_backward(x, targets);
    for (size_t i = 0; i < size_of(x); i++) c->x.grad[i] += c->scale * x.grad[i];
    return cross_entropy_forward(x, targets);
}

/* Three examples with answers of two tokens and one, of one and three, of one and one. The last is far enough ahead:
 * it has no gradient. */
static void hinge_tensors(Check *c) {
    static int selected_start[] = {0, 2, 5, 6}, target[] = {2, 5, 1, -1, -1, 7}, wrong[] = {4, -1, 3, 3, 0, 2};
    c->in = (Inputs){.batch = {.sequences = 3, .selected_count = 6, .selected_start = selected_start},
                     .target = target, .wrong = wrong};
    depends_on_random(c, "x", &c->x, 6, 9);
    row(c->x, 5)[7] += 6;
}
static double hinge_loss(Check *c, bool backward) {
    Tensor x = c->x; /* with its own gradient: this backward pass is the first, and sets it */
    needs_grad(&x);
    if (backward) hinge_backward(x, c->in.target, c->in.wrong, c->in.batch.selected_start, 3);
    for (size_t i = 0; i < size_of(x); i++) c->x.grad[i] += c->scale * x.grad[i];
    return hinge_forward(x, c->in.target, c->in.wrong, c->in.batch.selected_start, 3);
}

static double rows_loss(Check *c, bool backward) {
    Tensor y = rows_forward(c->x, c->in.batch.selected, c->in.batch.selected_count);
    const double loss = loss_of(c, &y, backward);
    if (backward) rows_backward(c->x, c->in.batch.selected, y);
    return loss;
}
static void rows_tensors(Check *c) {
    c->in.batch = more_ragged();
    depends_on_random(c, "x", &c->x, 10, 4);
}

static double prefix_loss(Check *c, bool backward) {
    enum { COLUMN = 5 };
    Tensor y = prefix_forward(c->z, COLUMN, c->x, &c->in.batch);
    const double loss = loss_of(c, &y, backward);
    if (backward) residual_backward(prefix_backward(c->z, COLUMN, y, &c->in.batch), c->x);
    return loss;
}
static void prefix_tensors(Check *c) {
    c->in.batch = more_ragged();
    depends_on_random(c, "prefix", &c->z, 3, 11);
    depends_on_random(c, "x", &c->x, 10, 4);
}

/* Variants: queries at the selected positions only, as in the last layer; each query sees the keys up to its own; two
 * more keys before those of each sequence. */
enum { SELECTED = 1, CAUSAL = 2, PREFIX = 4 };
static double attention_loss(Check *c, bool backward) {
    const Batch *batch = &c->in.batch;
    const bool selected = c->variant & SELECTED;
    const int *q_start = selected ? batch->selected_start : batch->start;
    const int *seen = c->variant & CAUSAL ? seen_by_tokens(batch, selected, c->lm.bert.prefix.rows) : NULL;
    const int *k_start = prefix_starts(c->lm.bert.prefix, batch);
    Attention a = attention_forward(c->x, c->y, c->z, 3, batch->sequences, q_start, k_start, seen);
    const double loss = loss_of(c, &a.context, backward);
    if (backward) attention_backward(&a, c->x, c->y, c->z, 3, batch->sequences, q_start, k_start);
    return loss;
}
static void attention_tensors(Check *c) {
    c->in.batch = more_ragged();
    c->never_frozen = "";
    const bool selected = c->variant & SELECTED;
    depends_on_random(c, selected ? "selected q" : "q", &c->x, selected ? 6 : 10, 9);
    c->lm.bert.prefix.rows = c->variant & PREFIX ? 2 : 0;
    const int keys = 10 + 4 * c->lm.bert.prefix.rows;
    depends_on_random(c, "k", &c->y, keys, 9);
    depends_on_random(c, "v", &c->z, keys, 9);
}

static double embed_loss(Check *c, bool backward) {
    Tensor e = embed_forward(c->x, c->y, repeated_ids, 7);
    const double loss = loss_of(c, &e, backward);
    if (backward) embed_backward(c->x, c->y, repeated_ids, e);
    return loss;
}
static void embed_tensors(Check *c) {
    depends_on_random(c, "word", &c->x, 4, 3);
    depends_on_random(c, "prompt", &c->y, 3, 3);
}

static double lstm_cell_loss(Check *c, bool backward) { /* variant: reverse */
    Tensor h = tensor_zeros(c->x.rows, c->cell.w_hh.cols);
    const LstmTrace trace = lstm_trace(h.rows, h.cols);
    lstm_cell_forward(&c->cell, c->x, values(h), trace, c->variant);
    const double loss = loss_of(c, &h, backward);
    if (backward) lstm_cell_backward(&c->cell, c->x, values(h), gradient(h), trace, c->variant);
    return loss;
}
static void lstm_cell_tensors(Check *c) { /* not x: lstm_backward computes its gradient */
    fill_normal(c->x = tensor(5, 4), 1, &c->random);
    depends_on_random(c, "w_ih", &c->cell.w_ih, 12, 4);
    depends_on_random(c, "w_hh", &c->cell.w_hh, 12, 3);
    depends_on_random(c, "b_ih", &c->cell.b_ih, 1, 12);
    depends_on_random(c, "b_hh", &c->cell.b_hh, 1, 12);
}

static double lstm_stack_loss(Check *c, bool backward) {
    LstmActivations a = lstm_forward(&c->lstm, c->x);
    const double loss = loss_of(c, &a.output[c->lstm.layers - 1], backward);
    if (backward) lstm_backward(&c->lstm, c->x, a);
    return loss;
}
static void lstm_stack_tensors(Check *c) {
    Parameters list = {allocate(sizeof(Parameter[16])), 0};
    c->lstm = lstm_new(2, 4, 3, "", &list);
    parameters_allocate(list);
    for (int i = 0; i < list.count; i++) fill_normal(*list.at[i].tensor, 0.7, &c->random);
    depends_on_random(c, "x", &c->x, 5, 4);
    depends_on_all(c, list, "");
}

static void draw_weights(Check *c, Parameters weights) {
    for (int i = 0; i < weights.count; i++) {
        const Parameter *p = &weights.at[i];
        fill_normal(*p->tensor = tensor(p->tensor->rows, p->tensor->cols), 0.4, &c->random);
        for (size_t j = 0; p->kind == GAIN && j < size_of(*p->tensor); j++) p->tensor->data[j] += 1;
    }
}
static void small_bert(Check *c) {
    c->in.batch = more_ragged();
    c->lm.bert = (Bert){.hidden = 12, .layers = 3, .heads = 3, .intermediate = 10, .vocab = 9, .positions = 8,
                        .types = 2, .eps = (real)1e-12};
    bert_list_weights(&c->lm.bert);
    draw_weights(c, c->lm.bert.weights);
}
static double embeddings_loss(Check *c, bool backward) {
    Tensor sum = embeddings_forward(&c->lm.bert, c->x, &c->in.batch);
    const double loss = loss_of(c, &sum, backward);
    if (backward) embeddings_backward(&c->lm.bert, c->x, sum, &c->in.batch);
    return loss;
}
static void embeddings_tensors(Check *c) {
    small_bert(c);
    depends_on_random(c, "e", &c->x, 10, 12);
    depends_on(c, "position", &c->lm.bert.position);
    depends_on(c, "type", &c->lm.bert.type);
}

static double layer_loss(Check *c, bool backward) { /* variant: the last layer, selected positions only */
    LayerActivations a = layer_forward(&c->lm.bert.layer[0], c->x, 3, &c->in.batch, c->variant, c->lm.bert.prefix);
    const double loss = loss_of(c, &a.y, backward);
    if (backward) layer_backward(&c->lm.bert.layer[0], c->x, &a, 3, &c->in.batch, c->variant, c->lm.bert.prefix);
    return loss;
}
static void layer_tensors(Check *c) {
    small_bert(c);
    c->no_gradient = "key.bias";
    if (c->variant) c->never_frozen = "x";
    depends_on_random(c, "x", &c->x, 10, 12);
    depends_on_all(c, c->lm.bert.weights, "layer.0.");
}

static double head_loss(Check *c, bool backward) {
    HeadActivations a = head_forward(&c->lm.bert, c->x);
    const double loss = loss_of(c, &a.logits, backward);
    if (backward) head_backward(&c->lm.bert, c->x, &a);
    return loss;
}
static void head_tensors(Check *c) {
    small_bert(c);
    depends_on_random(c, "x", &c->x, 3, 12);
    depends_on(c, "word", &c->lm.bert.word);
    depends_on_all(c, c->lm.bert.weights, "cls.");
}

static double bert_loss(Check *c, bool backward) {
    BertActivations a = bert_forward(&c->lm.bert, c->x, &c->in.batch);
    if (backward) {
        needs_grad(&a.head.logits);
        cross_entropy_backward(a.head.logits, targets);
        for (size_t i = 0; i < size_of(a.head.logits); i++) a.head.logits.grad[i] *= c->scale;
        bert_backward(&c->lm.bert, &a, &c->in.batch);
    }
    return cross_entropy_forward(a.head.logits, targets);
}
static void depends_on_classifier(Check *c) { /* a tagger's head, for six tags */
    Parameters list = {(Parameter[2]){{0}}, 0};
    add_linear(&list, &c->lm.bert.classifier, 6, 12, "classifier");
    draw_weights(c, list);
    depends_on(c, "classifier.weight", &c->lm.bert.classifier.w);
    depends_on(c, "classifier.bias", &c->lm.bert.classifier.b);
}
static void classifier_tensors(Check *c) {
    small_bert(c);
    depends_on_random(c, "x", &c->x, 3, 12);
    depends_on_classifier(c);
}
static void tagger_tensors(Check *c) { /* all of it but the masked-LM head, with a deep prompt */
    small_bert(c);
    depends_on_random(c, "e", &c->x, 10, 12);
    depends_on_all(c, c->lm.bert.weights, "encoder.");
    depends_on_random(c, "prefix", &c->lm.bert.prefix, 2, 72);
    depends_on_classifier(c);
}
static void bert_tensors(Check *c) {
    small_bert(c);
    c->no_gradient = "key.bias";
    depends_on_random(c, "e", &c->x, 10, 12);
    depends_on_all(c, c->lm.bert.weights, "");
}

/* A deep prompt, and positions that begin after it. Variant: in a batch of one sequence. The bias of the keys is not in
 * the prompt's keys, so here it has a gradient. */
static void deep(Check *c) {
    static int start[] = {0, 5}, selected_start[] = {0, 2}, selected[] = {1, 4};
    if (c->variant) c->in.batch = (Batch){1, 5, 2, start, selected_start, selected};
    lm_set_prefix(&c->lm, (Tensor){0}, 3);
    depends_on_random(c, "e", &c->x, c->in.batch.tokens, 12);
    depends_on_random(c, "prefix", lm_prefix(&c->lm), 2, 72);
    depends_on_all(c, lm_weights(&c->lm), "");
}
static void deep_bert_tensors(Check *c) {
    small_bert(c);
    deep(c);
}

static void small_gpt(Check *c) {
    c->in.batch = more_ragged();
    c->lm.causal = true;
    c->lm.gpt = (Gpt){.hidden = 12, .layers = 3, .heads = 3, .intermediate = 10, .vocab = 9, .positions = 8,
                      .tanh_gelu = true, .eps = (real)1e-5};
    gpt_list_weights(&c->lm.gpt);
    draw_weights(c, c->lm.gpt.weights);
}
static double positions_loss(Check *c, bool backward) {
    Tensor x = positions_forward(c->lm.gpt.position, c->x, &c->in.batch);
    const double loss = loss_of(c, &x, backward);
    if (backward) positions_backward(c->lm.gpt.position, c->x, x, &c->in.batch);
    return loss;
}
static void positions_tensors(Check *c) {
    small_gpt(c);
    depends_on_random(c, "e", &c->x, 10, 12);
    depends_on(c, "position", &c->lm.gpt.position);
}
static double gpt_layer_loss(Check *c, bool backward) { /* variant: the last layer, selected positions only */
    GptLayerActivations a = gpt_layer_forward(&c->lm.gpt.layer[0], c->x, 3, &c->in.batch, c->variant, c->lm.gpt.prefix);
    const double loss = loss_of(c, &a.y, backward);
    if (backward) gpt_layer_backward(&c->lm.gpt.layer[0], c->x, &a, 3, &c->in.batch, c->variant, c->lm.gpt.prefix);
    return loss;
}
static void gpt_layer_tensors(Check *c) {
    small_gpt(c);
    c->no_gradient = "key.bias";
    c->never_frozen = "x";
    depends_on_random(c, "x", &c->x, 10, 12);
    depends_on_all(c, c->lm.gpt.weights, "h.0.");
}
static double gpt_head_loss(Check *c, bool backward) {
    Tensor logits = gpt_head_forward(c->lm.gpt.word, c->x);
    const double loss = loss_of(c, &logits, backward);
    if (backward) gpt_head_backward(c->lm.gpt.word, c->x, logits);
    return loss;
}
static void gpt_head_tensors(Check *c) {
    small_gpt(c);
    c->never_frozen = "x";
    depends_on_random(c, "x", &c->x, 3, 12);
    depends_on(c, "word", &c->lm.gpt.word);
}
static double gpt_loss(Check *c, bool backward) {
    GptActivations a = gpt_forward(&c->lm.gpt, c->x, &c->in.batch);
    if (backward) {
        needs_grad(&a.logits);
        cross_entropy_backward(a.logits, targets);
        for (size_t i = 0; i < size_of(a.logits); i++) a.logits.grad[i] *= c->scale;
        gpt_backward(&c->lm.gpt, &a, &c->in.batch);
    }
    return cross_entropy_forward(a.logits, targets);
}
static void gpt_tensors(Check *c) {
    small_gpt(c);
    c->no_gradient = "key.bias";
    depends_on_random(c, "e", &c->x, 10, 12);
    depends_on_all(c, c->lm.gpt.weights, "");
}

static void deep_gpt_tensors(Check *c) {
    small_gpt(c);
    deep(c);
}

static double encoder_loss(Check *c, bool backward) { /* variant: the kind of encoder */
    EncoderActivations a = encoder_forward(&c->encoder);
    const double loss = loss_of(c, &a.prompt, backward);
    if (backward) encoder_backward(&c->encoder, &a);
    return loss;
}
static void encoder_of(Check *c, int pseudo) {
    encoder_init(&c->encoder, (EncoderKind)c->variant, pseudo, 12);
    encoder_random(&c->encoder, 1, &c->random);
    depends_on_all(c, c->encoder.weights, "");
}
static void encoder_tensors(Check *c) { encoder_of(c, 3); }
static void encoder_of_one_tensors(Check *c) { encoder_of(c, 1); }
static void encoder_start_tensors(Check *c) {
    encoder_of(c, 3);
    fill_normal(c->encoder.start = tensor(3, 12), 1, &c->random);
}
/* One encoder for two relations, with three rows of E each: the sum of their losses. */
static double shared_loss(Check *c, bool backward) {
    double loss = 0;
    for (int r = 0; r < 2; r++) {
        const PromptEncoder one = relation_encoder(&c->encoder, r, 3);
        EncoderActivations a = encoder_forward(&one);
        loss += loss_of(c, &a.prompt, backward);
        if (backward) encoder_backward(&one, &a);
    }
    return loss;
}
static void shared_tensors(Check *c) {
    c->random = (Random){1}; /* as above, for six rows */
    encoder_of(c, 6);
}

static double deep_encoder_loss(Check *c, bool backward) {
    deep_forward(&c->deep);
    const double loss = loss_of(c, &c->y, backward);
    if (backward) deep_backward(&c->deep);
    return loss;
}
static void deep_encoder_tensors(Check *c) {
    c->y = tensor(3, 4);
    deep_init(&c->deep, &c->y, 5, true, &c->random);
    draw_weights(c, c->deep.weights);
    depends_on_all(c, c->deep.weights, "");
}

/* The whole training step: ids -> prompt encoder -> BERT -> loss, with respect to the encoder and to all of BERT; with
 * the embedding as the encoder, to d loss / d h, which P-tuning descends along, and to BERT outside of its layers. */
static double whole_loss(Check *c, bool backward) {
    if (backward) return train_batch(&c->lm, &c->encoder, &c->in, c->in_loss);
    return batch_loss(&c->lm, encoder_forward(&c->encoder).prompt, &c->in, c->in_loss);
}
static void whole_inputs(Check *c) {
    static int ids[3][8] = {{1, -1, 5, -2, 4, -3}, {4}, {1, -3, 7, -1, 6, -2, 4, 2}};
    const Example examples[] = {{.id = ids[0], .length = 6, .mask = 4, .answer = 3},
                                {.id = ids[1], .length = 1, .mask = 0, .answer = 8},
                                {.id = ids[2], .length = 8, .mask = 6, .answer = 0}};
    encoder_tensors(c);
    small_bert(c);
    c->in = inputs_of(examples, in_order(3), 3);
    c->fixed_scale = true;
}
static void whole_tensors(Check *c) {
    whole_inputs(c);
    c->no_gradient = "key.bias";
    depends_on_all(c, c->lm.bert.weights, "");
}
static void whole_embedding_tensors(Check *c) {
    whole_inputs(c);
    depends_on_all(c, c->lm.bert.weights, "embeddings");
    depends_on_all(c, c->lm.bert.weights, "cls.");
}
static void whole_labels_tensors(Check *c) { /* the loss is of the probabilities of label words alone */
    static const bool label[9] = {[0] = true, [3] = true, [5] = true, [8] = true};
    whole_embedding_tensors(c);
    c->in_loss = label;
}
/* The same with GPT-2: the answer is predicted at the last position. */
static void whole_gpt_inputs(Check *c) {
    static int ids[3][6] = {{-1, 5, -2, 4, -3}, {4}, {-3, 7, -1, 6, -2, 4}};
    const Example examples[] = {{.id = ids[0], .length = 5, .mask = 4, .answer = 3},
                                {.id = ids[1], .length = 1, .mask = 0, .answer = 8},
                                {.id = ids[2], .length = 6, .mask = 5, .answer = 0}};
    encoder_tensors(c);
    small_gpt(c);
    c->in = inputs_of(examples, in_order(3), 3);
    c->fixed_scale = true;
}
static void whole_gpt_tensors(Check *c) {
    whole_gpt_inputs(c);
    c->no_gradient = "key.bias";
    depends_on_all(c, c->lm.gpt.weights, "");
}
static void whole_gpt_embedding_tensors(Check *c) {
    whole_gpt_inputs(c);
    depends_on(c, "word", &c->lm.gpt.word);
    depends_on(c, "position", &c->lm.gpt.position);
}

/* The primitives first, then what is built from them. */
static const struct {
    const char *name;
    void (*tensors)(Check *);
    double (*loss)(Check *, bool);
    int variant;
} checks[] = {
    {"linear", linear_tensors, linear_loss, 0},
    {"residual", residual_tensors, residual_loss, 0},
    {"layernorm", layernorm_tensors, layernorm_loss, 0},
    {"layernorm flat", flat_tensors, layernorm_loss, 0},
    {"gelu", wide_tensor, gelu_loss, 0},
    {"tanh gelu", wide_tensor, tanh_gelu_loss, 0},
    {"relu", x_tensor, relu_loss, 0},
    {"tanh", x_tensor, tanh_loss, 0},
    {"softmax", saturated_tensor, softmax_loss, 14},
    {"cross-entropy", saturated_tensor, cross_entropy_loss, 11},
    {"hinge", hinge_tensors, hinge_loss, 0},
    {"rows", rows_tensors, rows_loss, 0},
    {"attention", attention_tensors, attention_loss, 0},
    {"attention", attention_tensors, attention_loss, SELECTED},
    {"causal attention", attention_tensors, attention_loss, CAUSAL},
    {"causal attention", attention_tensors, attention_loss, CAUSAL | SELECTED},
    {"prefix", prefix_tensors, prefix_loss, 0},
    {"attention", attention_tensors, attention_loss, PREFIX},
    {"attention", attention_tensors, attention_loss, PREFIX | SELECTED},
    {"causal attention", attention_tensors, attention_loss, PREFIX | CAUSAL | SELECTED},
    {"embeddings", embeddings_tensors, embeddings_loss, 0},
    {"embed", embed_tensors, embed_loss, 0},
    {"lstm", lstm_cell_tensors, lstm_cell_loss, false},
    {"lstm reverse", lstm_cell_tensors, lstm_cell_loss, true},
    {"lstm stack", lstm_stack_tensors, lstm_stack_loss, 0},
    {"layer", layer_tensors, layer_loss, false},
    {"last layer", layer_tensors, layer_loss, true},
    {"head", head_tensors, head_loss, 0},
    {"bert", bert_tensors, bert_loss, 0},
    {"classifier", classifier_tensors, head_loss, 0},
    {"tagger", tagger_tensors, bert_loss, 0},
    {"deep bert", deep_bert_tensors, bert_loss, false},
    {"deep bert", deep_bert_tensors, bert_loss, true},
    {"positions", positions_tensors, positions_loss, 0},
    {"gpt layer", gpt_layer_tensors, gpt_layer_loss, false},
    {"gpt last layer", gpt_layer_tensors, gpt_layer_loss, true},
    {"gpt head", gpt_head_tensors, gpt_head_loss, 0},
    {"gpt", gpt_tensors, gpt_loss, 0},
    {"deep gpt", deep_gpt_tensors, gpt_loss, false},
    {"deep gpt", deep_gpt_tensors, gpt_loss, true},
    {"encoder lstm", encoder_tensors, encoder_loss, ENCODER_LSTM},
    {"encoder mlp", encoder_tensors, encoder_loss, ENCODER_MLP},
    {"encoder embedding", encoder_tensors, encoder_loss, ENCODER_EMBEDDING},
    {"encoder of one", encoder_of_one_tensors, encoder_loss, ENCODER_LSTM},
    {"encoder start", encoder_start_tensors, encoder_loss, ENCODER_LSTM},
    {"deep encoder", deep_encoder_tensors, deep_encoder_loss, 0},
    {"shared encoder", shared_tensors, shared_loss, ENCODER_LSTM},
    {"shared embedding", shared_tensors, shared_loss, ENCODER_EMBEDDING},
    {"whole", whole_tensors, whole_loss, ENCODER_LSTM},
    {"whole embedding", whole_embedding_tensors, whole_loss, ENCODER_EMBEDDING},
    {"whole labels", whole_labels_tensors, whole_loss, ENCODER_EMBEDDING},
    {"whole gpt", whole_gpt_tensors, whole_loss, ENCODER_MLP},
    {"whole gpt embedding", whole_gpt_embedding_tensors, whole_loss, ENCODER_EMBEDDING},
};

/* All checks, or those of one layer. */
static void check_gradients(const char *layer, double eps, bool in_detail) {
    const char *names = "";
    bool known = !layer;
    Mark start = mark();
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (!i || strcmp(checks[i].name, checks[i - 1].name))
            names = format("%s%s %s", names, i ? "," : "", checks[i].name);
        if (layer && strcmp(layer, checks[i].name)) continue;
        known = true;
        running = checks[i].name;
        Check c = {.name = checks[i].name, .loss = checks[i].loss, .variant = checks[i].variant, .scale = 1,
                   .random = {3}, /* a seed with which no input of a relu is within eps of its kink */
                   .tensors = {allocate_zeroed(sizeof(Parameter[MAX_TENSORS])), 0}};
        checks[i].tensors(&c);
        gradcheck(&c, eps, in_detail);
    }
    if (!known) die("no layer '%s'; there are%s", layer, names);
    release(start);
}
static void section_gradients(const char *layer, double eps) { /* a layer in detail */
    printf("\n== gradients, %s, eps %g ==\n", sizeof(real) == 8 ? "double" : "float", eps);
    check_gradients(layer, eps, layer);
}

/* Runs this program with a mistake compiled in: the line of tools/mutants.tsv that ends with this name. */
_Noreturn static void run_bug(const char *bug, const char *layer, double eps) {
    const char *names = "";
    bool known = false;
    const Texts lines = read_lines("tools/mutants.tsv");
    for (int i = 1; i < lines.count; i++) {
        const Texts field = split(lines.at[i], '\t');
        if (field.count < 6) continue;
        names = format("%s %s", names, text_string(field.at[5]));
        known |= text_is(field.at[5], bug);
    }
    if (!known) die("no bug '%s'; tools/mutants.tsv has%s", bug, names);
    const char *program = format("build/mutants/%s/%s", bug, sizeof(real) == 8 ? "test-double" : "test");
    if (system(format("make -s %s", program))) die("%s cannot be built", program);
    execl(program, program, "gradcheck", "--eps", format("%.17g", eps), layer, (char *)NULL);
    die("%s: %s", program, strerror(errno));
}

/* ==== The command line and bad input =================================================================================
 * The program runs as a user runs it: from the shell, in a folder of its own, where tools/uses.sh first puts a small
 * model and some data. Every run is a separate process, so a crash is just a failed check.
 */
static const char *folder;

static const char *inside(const char *name) { return format("%s/%s", folder, name); }
static void put(const char *name, Text bytes) {
    FILE *stream = fopen(inside(name), "wb");
    if (!stream || fwrite(bytes.data, 1, bytes.size, stream) != bytes.size || fclose(stream))
        die("%s: %s", inside(name), strerror(errno));
}
static Text get(const char *path) { /* a copy: the file will change */
    const Text file = read_file(path), copy = {text_string(file), file.size};
    unmap_file(file);
    return copy;
}

typedef struct { int status; const char *err, *left; } Outcome; /* left: files that must not stay behind */

static const char *shared_functions; /* of the shell: the first paragraph of tools/uses.sh */

static Outcome run(const char *line) {
    const int status = system(format("cd \"$FOLDER\"\n%s\n( %s\n) >out 2>err\n"
                                     "status=$?; find . -name '*.part' -o -path './bad/*.safetensors' >left\n"
                                     "rm -rf bad $(cat left); exit $status", shared_functions, line));
    return (Outcome){WIFEXITED(status) ? WEXITSTATUS(status) : -1, get(inside("err")).data, get(inside("left")).data};
}
static const char *without_notes(const char *err) { /* lines that say what was assumed */
    while (!strncmp(err, "note: ", 6) && strchr(err, '\n')) err = strchr(err, '\n') + 1;
    return err;
}
static bool is_error_message(const char *err, int status) { /* one line; after a wrong command line also the usage */
    const char *end = strchr(err, '\n');
    return !strncmp(err, "ptune: ", 7) && end && (status == 2 ? !strncmp(end, "\nusage: ptune ", 14) : !end[1]);
}
static void check_good(const char *what, const char *line) { /* succeeds, with nothing on stderr */
    Mark before = mark();
    const Outcome o = run(line);
    check(!o.status && !*o.err && !*o.left, "%s%s%.200s", what, *o.err ? ": " : "", o.err);
    release(before);
}
/* Exits with this status, says what is wrong, and leaves no file behind. */
static void check_refused(const char *what, int status, const char *line, const char *message) {
    Mark before = mark();
    Outcome o = run(line);
    o.err = without_notes(o.err);
    const char *first = text_string((Text){o.err, strcspn(o.err, "\n")});
    const bool right = o.status == status && is_error_message(o.err, status) && strstr(first, message) && !*o.left;
    check(right, "%s: status %d, '%s'%s%s%s", what, o.status, first, right ? "" : ", expected: ", right ? "" : message,
          *o.left ? ", leaves files" : "");
    release(before);
}

/* The fields of a line, separated by tabs. */
static const char *const *fields(const char *path, Text line, int count) {
    const Texts parts = split(line, '\t');
    const char **field = allocate(sizeof(char *[count]));
    if (parts.count != count) die("%s: not %d fields: %s", path, count, text_string(line));
    for (int i = 0; i < count; i++) field[i] = text_string(parts.at[i]);
    return field;
}

/* ---- What must work: the paragraphs of tools/uses.sh; the comment above each says what it shows ------------------ */
static Texts paragraphs(Text rest) {
    Texts list = {0};
    const char *start = NULL, *end = NULL;
    for (Text line; next_line(&rest, &line);) {
        if (line.size) start = start ? start : line.data, end = line.data + line.size;
        if (!start || (line.size && rest.size)) continue;
        texts_push(&list, (Text){start, (size_t)(end - start)});
        start = NULL;
    }
    return list;
}
static void check_uses(void) {
    const Texts uses = paragraphs(read_file("tools/uses.sh"));
    shared_functions = text_string(uses.at[0]);
    for (int i = 1; i < uses.count; i++) {
        Text rest = uses.at[i], what = rest;
        next_line(&rest, &what);
        check_good(text_string((Text){what.data + 2, what.size - 2}), text_string(rest));
    }
}

/* ---- What must be refused: tools/refused.tsv --------------------------------------------------------------------- */
static void check_lines(void) {
    const Texts lines = read_lines("tools/refused.tsv");
    for (int i = 1; i < lines.count; i++) {
        if (text_starts(lines.at[i], "#")) continue;
        const char *const *field = fields("tools/refused.tsv", lines.at[i], 3);
        if (strstr(field[1], "/dev/full") && !file_exists("/dev/full")) continue;
        check_refused(field[1], atoi(field[0]), field[1], field[2]);
    }
}

/* ---- Broken files ------------------------------------------------------------------------------------------------ */
static Text replaced(Text bytes, Text old, Text new) { /* the first `old` */
    size_t at = 0;
    while (at + old.size <= bytes.size && memcmp(bytes.data + at, old.data, old.size)) at++;
    if (at + old.size > bytes.size) die("the fixture has no %s", text_string(old));
    char *result = allocate(bytes.size + new.size);
    memcpy(result, bytes.data, at);
    memcpy(result + at, new.data, new.size);
    memcpy(result + at + new.size, bytes.data + at + old.size, bytes.size - at - old.size);
    return (Text){result, bytes.size - old.size + new.size};
}
/* The first eight bytes of a safetensors file: the length of its header. */
static uint64_t header_length(Text bytes) {
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | (unsigned char)bytes.data[i];
    return length;
}
static Text with_header_length(Text bytes, uint64_t length) {
    char *result = text_string(bytes);
    for (int i = 0; i < 8; i++) result[i] = (char)(length >> 8 * i & 0xFF);
    return (Text){result, bytes.size};
}
static Text with_nan(Text bytes) { /* as its last element */
    char *result = text_string(bytes);
    memset(result + bytes.size - 4, 0xFF, 4);
    return (Text){result, bytes.size};
}
static Text with_zero_pad(Text bytes) { /* in the first row of the word table, as many models have it */
    char *result = text_string(bytes), *entry = strstr(result + 8, "word_embeddings");
    const size_t from = strtoul(strstr(entry, "data_offsets") + strlen("data_offsets\":["), NULL, 10);
    memset(result + 8 + header_length(bytes) + from, 0, 32 * sizeof(float));
    return (Text){result, bytes.size};
}
/* Runs the command while the file has other bytes. It must fail with the message, or, if that is NULL, succeed. */
static void check_file(const char *file, const char *how, Text bytes, const char *line, const char *message) {
    const Text keep = get(inside(file));
    put(file, bytes);
    if (message) check_refused(format("%s %s", file, how), 1, line, message);
    else check_good(format("%s %s: accepted", file, how), line);
    put(file, keep);
}
/* A field of a table with its escapes replaced: \n, \r, \t, \\, \xFF. */
static Text unescaped(const char *from) {
    char *text = allocate(strlen(from) + 1), *to = text;
    for (; *from; from++) {
        const char *simple = *from == '\\' ? strchr("nrt\\", from[1]) : NULL;
        if (simple) *to++ = "\n\r\t\\"[simple - "nrt\\"], from++;
        else if (*from == '\\') *to++ = (char)strtol(from + 2, NULL, 16), from += 3;
        else *to++ = *from;
    }
    return (Text){text, (size_t)(to - text)};
}
static void check_broken_files(void) {
    const Texts lines = read_lines("tools/broken.tsv");
    for (int i = 1; i < lines.count; i++) {
        if (text_starts(lines.at[i], "#")) continue;
        Mark before = mark();
        const char *const *field = fields("tools/broken.tsv", lines.at[i], 5), *file = field[0];
        const Text good = get(inside(file)), old = unescaped(field[1]), new = unescaped(field[2]);
        Text bad = *field[1] ? replaced(good, old, new) : new;
        if (*field[1] && strstr(file, ".safetensors")) /* the header is longer or shorter by as much */
            bad = with_header_length(bad, header_length(good) + bad.size - good.size);
        const char *how = *field[1] ? format("with '%s' for '%s'", field[2], field[1]) : format("= '%s'", field[2]);
        check_file(file, how, bad, field[3], strcmp(field[4], "accepted") ? field[4] : NULL);
        release(before);
    }
}
#define CONFIG "model/config.json"
#define WEIGHTS "model/model.safetensors"
#define PROMPT "prompt.safetensors"
#define EXAMPLES "data/test.jsonl"
static void check_broken_bytes(void) { /* what the table cannot express */
    Mark before = mark();
    const Text weights = get(inside(WEIGHTS)), prompt = get(inside(PROMPT));
    const Text list = {"\2\0\0\0\0\0\0\0[]", 10}, nested = {memset(allocate(100000), '[', 100000), 100000};
    const Text endless = with_header_length(weights, (uint64_t)1 << 63), nan = with_nan(weights);
    check_file(WEIGHTS, "with an endless header", endless, "ask", "its header should have 9223372036854775808 bytes");
    check_file(WEIGHTS, "with a list as header", list, "ask", "its header is not an object");
    check_file(WEIGHTS, "cut in the header", (Text){weights.data, 1000}, "ask", "its header should have");
    check_file(WEIGHTS, "cut in the elements", (Text){weights.data, weights.size - 4}, "ask",
               "its data_offsets do not fit");
    check_file(WEIGHTS, "with NaN, train", nan, "train --out bad", "the loss is");
    check_file(WEIGHTS, "with NaN, eval", nan, "ask", "not finite");
    check_file(WEIGHTS, "with NaN, fill", nan, "ptune fill --model model 'w70 [MASK]'", "not finite");
    check_file(WEIGHTS, "with zeros for [PAD]", with_zero_pad(weights),
               "ptune words --model model --prompt prompt.safetensors >zero.txt && ! grep nan zero.txt", NULL);
    check_file(PROMPT, "with NaN", with_nan(prompt), "ask_prompt", "has an element that is not finite");
    check_file(PROMPT, "cut", (Text){prompt.data, prompt.size - 4}, "ask_prompt", "its data_offsets do not fit");
    check_file(EXAMPLES, "of 100000 [", nested, "ask", "test.jsonl:1: not valid JSON");
    check_file(CONFIG, "of 100000 [", nested, "ask", "config.json: not valid JSON");
    release(before);
}

/* ---- Random damage: a run succeeds or says in one line what is wrong --------------------------------------------- */
/* Cut within the first `part` bytes, or with one to three of these changed. */
static Text damaged(Text bytes, size_t part, Random *random) {
    char *result = text_string(bytes);
    if (random_bits(random) % 4 == 0) return (Text){result, (size_t)random_bits(random) % part};
    for (uint64_t edits = 1 + random_bits(random) % 3; edits > 0; edits--) {
        char *at = result + random_bits(random) % part;
        const int bit = 1 << random_bits(random) % 8, any = (int)(random_bits(random) % 256);
        *at = (char)(random_bits(random) % 2 ? *at ^ bit : any);
    }
    return (Text){result, bytes.size};
}
static void check_damaged(const char *file, const char *line, int runs) {
    const Text good = get(inside(file));
    const size_t part = strstr(file, ".safetensors") ? 8 + (size_t)header_length(good) : good.size;
    int refused = 0, wrong = 0;
    for (int seed = 1; seed <= runs; seed++) {
        Mark before = mark();
        Random random = {(uint64_t)seed};
        put(file, damaged(good, part, &random));
        Outcome o = run(line);
        o.err = without_notes(o.err);
        const bool accepts = o.status == 0 && !*o.err, refuses = o.status == 1 && is_error_message(o.err, 1);
        if (!accepts && !refuses) printf("      seed %d: status %d, %s\n", seed, o.status, o.err);
        refused += refuses;
        wrong += !(accepts || refuses) || *o.left;
        release(before);
    }
    put(file, good);
    check(!wrong && refused, "%s: %d damaged copies: %d refused, %d wrong", file, runs, refused, wrong);
}

/* ---- Fuzzing: the same, on every kind of file, in this process's children ---------------------------------------- */

/* Bytes that a parser may trip over. */
static const char *const awkward[] = {
    "\"", "{", "}", "[", "]", ",", ":", "\\", "\\u0000", "\\ud800", "\\u0041", "null", "true", "false", "-1", "0",
    "1e308", "-0", "0.5", "2147483648", "9007199254740993", "18446744073709551616", "\xFF", "\xEF\xBB\xBF", "\xC3\xA9",
    "\xE4\xB8\xAD", "e\xCC\x81", "\n", "\r", "\t", " ", "[MASK]", "[P]", "[X]", "[SEP]", "{x}", "w70", "##",
    "\"F16\"", "\"I64\"", "\"special\":true,", "<|endoftext|>", "\xC4\xA0", "\"normalized\":true,", "=", "../"};
enum { AWKWARD = sizeof awkward / sizeof *awkward };

static size_t below(Random *random, size_t limit) { return limit ? (size_t)(random_bits(random) % limit) : 0; }

/* One edit within the first `part` bytes, which are counted anew. */
static Text edited(Text bytes, size_t *part, Random *random) {
    const size_t at = below(random, *part + 1), length = below(random, 1 + below(random, *part - at + 1));
    const size_t kind = below(random, 6);
    Text put = text_of(awkward[below(random, AWKWARD)]);
    size_t cut = below(random, 2) ? length : 0; /* that many bytes at `at` give way to `put` */
    char any[2] = {(char)below(random, 256), 0};
    if (kind == 0) put = (Text){bytes.data + at, length}, cut = 0;              /* twice */
    if (kind == 1) put = (Text){"", 0}, cut = length;                          /* gone */
    if (kind == 2 && at < *part) put = (Text){any, 1}, cut = 1;                 /* another byte */
    if (kind == 3) put = (Text){bytes.data + below(random, *part - length + 1), length}; /* from elsewhere */
    char *result = allocate(bytes.size + put.size + 1);
    memcpy(result, bytes.data, at);
    if (put.size) memcpy(result + at, put.data, put.size);
    memcpy(result + at + put.size, bytes.data + at + cut, bytes.size - at - cut);
    *part = *part + put.size - cut;
    return (Text){result, bytes.size + put.size - cut};
}
static Text mutated(Text good, bool weights, Random *random) {
    size_t part = weights ? 8 + (size_t)header_length(good) : good.size, before = part;
    Text bytes = good;
    for (size_t edits = 1 + below(random, 4); edits > 0; edits--) bytes = edited(bytes, &part, random);
    if (weights && bytes.size >= 8 && below(random, 8)) /* mostly the header's length is right */
        bytes = with_header_length(bytes, header_length(good) + part - before);
    if (!below(random, 16)) bytes.size = below(random, bytes.size + 1);
    return bytes;
}
/* The program in a child, with what it prints in the files out and err. A child that takes a minute is killed. */
static int fuzz_child(const char *command) {
    const Texts words = split(text_of(command), ' ');
    char **argv = allocate(sizeof *argv * (size_t)(words.count + 2));
    int status;
    argv[0] = "ptune", argv[words.count + 1] = NULL;
    for (int i = 0; i < words.count; i++) argv[i + 1] = text_string(words.at[i]);
    fflush(stdout);
    const pid_t child = fork();
    if (!child) {
        alarm(60);
        if (chdir(folder) || !freopen("out", "w", stdout) || !freopen("err", "w", stderr)) _exit(98);
        exit(ptune_main(words.count + 1, argv));
    }
    if (child < 0 || waitpid(child, &status, 0) < 0) die("no child: %s", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
/* It succeeds without a word, or says in one line what is wrong. */
static bool fuzz_right(int status, const char *err) {
    err = without_notes(err);
    return status == 0 ? !*err : status == 1 && is_error_message(err, 1);
}
/* One run; where it goes wrong the damaged file is kept. */
static bool fuzz_once(uint64_t seed, const char *const *file, const Text *good, int files, int *refused) {
    Random random = {seed};
    const size_t k = below(&random, (size_t)files);
    const char *name = file[2 * k];
    const Text bytes = mutated(good[k], strstr(name, ".safetensors") && !strstr(name, ".json"), &random);
    put(name, bytes);
    const int status = fuzz_child(file[2 * k + 1]);
    const Text err = get(inside("err"));
    const bool right = fuzz_right(status, err.data);
    put(name, good[k]);
    *refused += status == 1;
    if (right) return true;
    put(format("wrong-%ju", (uintmax_t)seed), bytes);
    printf("FAIL  seed %ju: %s in %s, ptune %s: status %d, kept as wrong-%ju:\n%s\n", (uintmax_t)seed, name, folder,
           file[2 * k + 1], status, (uintmax_t)seed, err.data);
    return false;
}
static void make_folder_for_runs(void);
static void command_fuzz(double limit, uint64_t seed) {
    const Texts uses = paragraphs(read_file("tools/uses.sh"));
    const Text lines = read_file("tools/fuzz.tsv");
    Text rest = lines, line;
    const char *file[2 * 64];
    Text good[64];
    int files = 0, wrong = 0, refused = 0;
    make_folder_for_runs();
    shared_functions = text_string(uses.at[0]);
    for (int i = 1; i < 3; i++) check_good("tools/uses.sh: the model, the data", text_string(uses.at[i]));
    check_good("tools/fuzz.sh: the files", text_string(read_file("tools/fuzz.sh")));
    if (failed) die("the files cannot be made: see %s", folder);
    for (next_line(&rest, &line); next_line(&rest, &line) && files < 64; files++) {
        const char *const *field = fields("tools/fuzz.tsv", line, 2);
        file[2 * files] = field[0], file[2 * files + 1] = field[1];
        good[files] = get(inside(field[0]));
        if (fuzz_child(field[1])) die("tools/fuzz.tsv: fails on good files: %s, in %s", field[1], folder);
    }
    const uint64_t first = seed;
    for (const double start = seconds(); seconds() - start < limit; seed++) {
        Mark before = mark();
        wrong += !fuzz_once(seed, file, good, files, &refused);
        release(before);
    }
    check(!wrong && seed > first, "fuzz: %d kinds of files, seeds %ju to %ju: %ju runs, %d refused, %d wrong", files,
          (uintmax_t)first, (uintmax_t)seed - 1, (uintmax_t)(seed - first), refused, wrong);
    if (!wrong && system("rm -rf \"$FOLDER\"")) die("%s: cannot be removed", folder);
}

/* A folder of its own for the runs, and what their commands need to know. */
static void make_folder_for_runs(void) {
    char here[4096];
    folder = temporary_folder();
    if (!getcwd(here, sizeof here)) die("the working folder: %s", strerror(errno));
    setenv("FOLDER", folder, 1);
    setenv("HERE", here, 1);
    setenv("PTUNE", *self == '/' ? self : format("%s/%s", here, self), 1);
    setenv("OMP_NUM_THREADS", "1", 1); /* for all runs: their products are tiny */
}
static void section_command_line(void) {
    const int failed_before = failed;
    printf("\n== the command line and bad input ==\n");
    Mark start = mark();
    make_folder_for_runs();
    check_uses();
    check_lines();
    check_broken_files();
    check_broken_bytes();
    check_damaged(CONFIG, "ask", 30);
    check_damaged(WEIGHTS, "ask", 40);
    check_damaged("model/vocab.txt", "ask", 30);
    check_damaged(EXAMPLES, "ask", 30);
    check_damaged(PROMPT, "ask_prompt", 30);
    check_damaged("shared/encoder.safetensors", "train_from --epochs 1", 30);
    if (failed > failed_before) printf("the files of the failed commands are in %s\n", folder);
    else if (system("rm -rf \"$FOLDER\"")) die("%s: cannot be removed", folder);
    release(start);
}

/* ==== The arguments of this program =============================================================================== */

_Noreturn static void test_usage(void) {
    fprintf(stderr, "usage: test [--oracles DIR] [--bert DIR [--bert DIR]]\n"
                    "       test gradcheck [LAYER] [--eps E] [--bug NAME]\n"
                    "       test values [NAME] | commands | fuzz SECONDS [SEED]\n");
    exit(2);
}
/* ---- A folder's weights, written in another way ------------------------------------------------------------------ */

typedef struct { const char *name; Text shape; Tensor t; } Weight;
typedef struct { Weight *at; int count; } Weights;

static uint16_t half_of(float x) { /* rounded to the nearest, of two the even one */
    const float size = fabs(x);
    const int exponent = size > 0 && ilogb(size) > -14 ? ilogb(size) : -14;
    const unsigned fraction = (unsigned)rint(ldexp((double)size, 10 - exponent));
    return (uint16_t)((x < 0 ? 0x8000u : 0) + ((unsigned)(exponent + 14) << 10) + fraction);
}
static uint16_t brain_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
static void write_element(FILE *stream, float x, const char *type) {
    const uint16_t half = !strcmp(type, "F16") ? half_of(x) : brain_of(x);
    if (!strcmp(type, "F32")) fwrite(&x, sizeof x, 1, stream);
    else fwrite(&half, sizeof half, 1, stream);
}
static void write_weights(const char *path, const Weights *list, const char *type) {
    const char *header = "{";
    size_t offset = 0;
    for (int i = 0; i < list->count; i++) {
        const Weight *w = &list->at[i];
        const size_t end = offset + size_of(w->t) * (strcmp(type, "F32") ? 2 : 4);
        header = format("%s%s%s:{\"dtype\":\"%s\",\"shape\":%.*s,\"data_offsets\":[%zu,%zu]}", header, i ? "," : "",
                        json_quote(w->name), type, (int)w->shape.size, w->shape.data, offset, end);
        offset = end;
    }
    Output out = output_open(path);
    const size_t length = strlen(header) + 1;
    for (int i = 0; i < 8; i++) fputc((int)(length >> 8 * i & 0xFF), out.stream);
    fprintf(out.stream, "%s}", header);
    for (int i = 0; i < list->count; i++)
        for (size_t k = 0; k < size_of(list->at[i].t); k++)
            write_element(out.stream, (float)list->at[i].t.data[k], type);
    output_close(out);
}
static Weights read_all_weights(const char *path) {
    const Safetensors file = safetensors_open(path);
    Weights list = {0};
    Text key, value;
    for (size_t position = 0; json_next(file.header, &position, &key, &value);) {
        Weight w = {text_string(json_key(key)), {0}, {0}};
        if (!strcmp(w.name, "__metadata__") || !safetensors_find(&file, w.name, &w.t)) continue;
        json_member(value, "shape", &w.shape);
        list.at = grow(list.at, list.count, sizeof w);
        list.at[list.count++] = w;
    }
    return list;
}
static void write_parts(const char *to, const Weights *all) { /* of three parts, in turn */
    Output index = output_open(format("%s/model.safetensors.index.json", to));
    fprintf(index.stream, "{\"metadata\": {}, \"weight_map\": {");
    for (int k = 0; k < 3; k++) {
        Weights part = {allocate(sizeof(Weight) * (size_t)all->count), 0};
        for (int i = k; i < all->count; i += 3) {
            part.at[part.count++] = all->at[i];
            fprintf(index.stream, "%s%s: \"model-%d.safetensors\"", k + i ? ", " : "", json_quote(all->at[i].name), k);
        }
        write_weights(format("%s/model-%d.safetensors", to, k), &part, "F32");
    }
    fprintf(index.stream, "}}\n");
    output_close(index);
}
/* A table for the end of the model: the rows of the word table, each moved by `moved`. */
static Tensor add_head(Weights *list, const char *word_table, const char *name, int moved) {
    Weight w = list->at[0];
    for (int i = 0; i < list->count; i++)
        if (strstr(list->at[i].name, word_table)) w = list->at[i];
    const Tensor word = w.t;
    w.name = name, w.t = tensor(word.rows, word.cols);
    for (int r = 0; r < word.rows; r++)
        memcpy(row(w.t, r), row(word, (r + moved) % word.rows), sizeof(real[word.cols]));
    list->at = grow(list->at, list->count, sizeof w);
    list->at[list->count++] = w;
    return w.t;
}
/* kind: F16, BF16, parts, bare (names without "bert."), decoder (one that differs); of a GPT-2: head (the word table
 * again), other-head (but for its last element). The folder's small files come along. */
static void command_weights(const char *kind, const char *from, const char *to) {
    Weights list = read_all_weights(format("%s/model.safetensors", from));
    make_folder(to);
    for (int i = 0; !strcmp(kind, "bare") && i < list.count; i++)
        if (!strncmp(list.at[i].name, "bert.", 5)) list.at[i].name += 5;
    if (!strcmp(kind, "decoder")) add_head(&list, "word_embeddings", "cls.predictions.decoder.weight", 7);
    if (strstr(kind, "head")) {
        const Tensor head = add_head(&list, "wte", "lm_head.weight", 0);
        if (!strcmp(kind, "other-head")) head.data[size_of(head) - 1] += 1;
    }
    if (!strcmp(kind, "parts")) write_parts(to, &list);
    else write_weights(format("%s/model.safetensors", to), &list, strstr(kind, "F16") ? kind : "F32");
    if (system(format("cp %s/*.json %s/*.txt %s", from, from, to))) die("%s: cannot be copied", from);
}
/* Writes a folder's tokenizer into another one, as a trained model's is. */
static void command_copy_tokenizer(const char *from, const char *to) {
    const Vocab vocab = vocab_load(from);
    make_folder(to);
    vocab_save(&vocab, to);
}
static void command_gradcheck(int argc, char **argv) {
    const char *layer = NULL, *bug = NULL;
    double eps = EPSILON;
    for (int i = 0; i < argc; i++) {
        char *end = NULL;
        if (!strcmp(argv[i], "--bug") && i + 1 < argc) bug = argv[++i];
        else if (!strcmp(argv[i], "--eps") && i + 1 < argc) eps = strtod(argv[++i], &end);
        else if (*argv[i] != '-' && !layer) layer = argv[i];
        else test_usage();
        if (end && (*end || !(eps > 0 && eps <= 1))) test_usage();
    }
    if (bug) run_bug(bug, layer, eps);
    section_gradients(layer, eps);
}
static void all_sections(int argc, char **argv) {
    const char *bert[2];
    int berts = 0;
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--oracles") && i + 1 < argc) oracles = argv[++i];
        else if (!strcmp(argv[i], "--bert") && i + 1 < argc && berts < 2) bert[berts++] = argv[++i];
        else test_usage();
    }
    section_values(NULL);
    section_bert(bert, berts);
    section_gradients(NULL, EPSILON);
    section_command_line();
}

#ifndef GRADER /* which includes this file */
int main(int argc, char **argv) {
    const char *first = argc > 1 ? argv[1] : "";
    self = argv[0];
    if (!strcmp(first, "as-ptune")) return ptune_main(argc - 1, argv + 1);
    if (!strcmp(first, "bits") && argc == 3) return print_bits(argv[2]), 0;
    if (!strcmp(first, "weights") && argc == 5) return command_weights(argv[2], argv[3], argv[4]), 0;
    if (!strcmp(first, "copy-tokenizer") && argc == 4) return command_copy_tokenizer(argv[2], argv[3]), 0;
    sigaction(SIGSEGV, &(struct sigaction){.sa_handler = report_crash}, &usual);
    if (!strcmp(first, "gradcheck")) command_gradcheck(argc - 2, argv + 2);
    else if (!strcmp(first, "values") && argc < 4) section_values(argv[2]);
    else if (!strcmp(first, "commands") && argc == 2) section_command_line();
    else if (!strcmp(first, "fuzz") && (argc == 3 || argc == 4))
        command_fuzz(atof(argv[2]), argc == 4 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL));
    else all_sections(argc - 1, argv + 1);
    printf("\n%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
#endif
