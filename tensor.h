/* tensor.h - tensors and the layers of a network, forward and backward: no file, no language, no model.
 *
 *   memory     one stack: allocate, and release to a mark
 *   random     splitmix64: uniform, normal, shuffle
 *   matmul     naive (the definition) and cache-blocked (the fast one, same signature)
 *   layers     linear, layernorm, gelu, relu, tanh, softmax, cross-entropy: backward under forward
 *   Adam       over the tensors that have a gradient
 *
 * Matrices are row-major; a batch is one tall matrix with one row per token. A backward pass ADDS to gradients. A
 * weight without a gradient is frozen: the backward pass skips it. That rule is the whole difference between P-tuning,
 * fine-tuning and pretraining.
 */
#ifndef TENSOR_H
#define TENSOR_H

#define _POSIX_C_SOURCE 200809L /* mmap, clock_gettime, open, ...: tensor.h comes before any other header */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h> /* exp(x) is expf or exp, by the type of x */
#include <time.h>

#ifdef _OPENMP
int omp_get_thread_num(void), omp_get_num_threads(void), omp_get_max_threads(void);
void omp_set_num_threads(int count);
#else
static inline int omp_get_thread_num(void) { return 0; }
static inline int omp_get_num_threads(void) { return 1; }
static inline int omp_get_max_threads(void) { return 1; }
static inline void omp_set_num_threads(int count) { (void)count; }
#endif

#ifdef DOUBLE
typedef double real; /* for gradient checks */
#else
typedef float real;
#endif

typedef struct {
    int rows, cols;
    real *data;   /* (rows, cols), row-major */
    real *grad;   /* same shape: d loss / d data; NULL: frozen */
    real *packed; /* a copy of the data in the order in which matmul reads it, see packed_copy; NULL: none */
} Tensor;

static inline int min_int(int a, int b) { return a < b ? a : b; }
static inline int ceil_div(int a, int b) { return (a + b - 1) / b; }
static inline size_t size_of(Tensor t) { return (size_t)t.rows * (size_t)t.cols; }
static inline real *row(Tensor t, int i) { return t.data + (size_t)i * (size_t)t.cols; }
static inline real *grad_row(Tensor t, int i) { return t.grad + (size_t)i * (size_t)t.cols; }

/* Prints one line on stderr and exits with status 1. Every error of input, file or memory ends here. */
__attribute__((format(printf, 1, 2))) _Noreturn static inline void die(const char *format, ...) {
    char line[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (char *s = line; *s; s++)
        if ((unsigned char)*s < ' ') *s = ' '; /* names and templates may contain line ends */
    fflush(stdout);
    fprintf(stderr, "ptune: %s\n", line);
    exit(1);
}

static inline double seconds(void) { /* on a clock that only goes forward */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- memory ------------------------------------------------------------------------------------------------
 * Lifetimes nest: the model outlives a run, a run its steps, a step the backward of one layer. So memory is a
 * stack: allocate on top, and release everything above a mark at once. Blocks stay with the program for reuse.
 */
enum { ALIGNMENT = 64, MAX_BLOCKS = 4096 };
typedef struct { int block; size_t used; } Mark;
static struct { char *base[MAX_BLOCKS]; size_t size[MAX_BLOCKS]; int blocks; Mark top; } memory;

static inline Mark mark(void) { return memory.top; }
static inline void release(Mark to) { memory.top = to; }

/* `bytes` of memory, not zeroed, aligned to a cache line. Not for use inside a parallel region. */
static inline void *allocate(size_t bytes) {
    if (bytes > (size_t)1 << 46) die("out of memory: %zu bytes requested", bytes);
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    Mark *top = &memory.top;
    while (top->block < memory.blocks && top->used + bytes > memory.size[top->block])
        *top = (Mark){top->block + 1, 0};
    if (top->block == memory.blocks) {
        size_t size = bytes > (size_t)1 << 24 ? bytes : (size_t)1 << 24;
        char *base = memory.blocks < MAX_BLOCKS ? aligned_alloc(ALIGNMENT, size) : NULL;
        if (!base) die("out of memory: %zu bytes requested", bytes);
        memory.base[memory.blocks] = base;
        memory.size[memory.blocks++] = size;
    }
    void *result = memory.base[top->block] + top->used;
    top->used += bytes;
    return result;
}
static inline void *allocate_zeroed(size_t bytes) { return memset(allocate(bytes), 0, bytes); }

static inline Tensor tensor(int rows, int cols) { /* values not set */
    return (Tensor){rows, cols, allocate((size_t)rows * (size_t)cols * sizeof(real)), NULL, NULL};
}
static inline Tensor tensor_zeros(int rows, int cols) {
    return (Tensor){rows, cols, allocate_zeroed((size_t)rows * (size_t)cols * sizeof(real)), NULL, NULL};
}
/* From here on the backward passes compute d loss / d t. */
static inline void needs_grad(Tensor *t) { t->grad = allocate_zeroed(size_of(*t) * sizeof(real)); }

/* sprintf into new memory */
__attribute__((format(printf, 1, 2))) static inline const char *format(const char *form, ...) {
    va_list arguments, again;
    va_start(arguments, form);
    va_copy(again, arguments);
    const int length = vsnprintf(NULL, 0, form, arguments);
    char *s = allocate((size_t)length + 1);
    vsnprintf(s, (size_t)length + 1, form, again);
    va_end(arguments);
    va_end(again);
    return s;
}

/* ---- random numbers: splitmix64 (Steele, Lea, Flood 2014) ---------------------------------------------------- */
typedef struct { uint64_t state; } Random;

static inline uint64_t random_bits(Random *random) {
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static inline double uniform(Random *random) { return (double)(random_bits(random) >> 11) * 0x1p-53; } /* [0, 1) */
static inline double normal(Random *random) { /* Box and Muller 1958 */
    double radius = sqrt(-2 * log(1 - uniform(random)));
    return radius * cos(6.283185307179586 * uniform(random));
}
static inline void fill_uniform(Tensor t, double bound, Random *random) { /* U(-bound, bound) */
    for (size_t i = 0; i < size_of(t); i++) t.data[i] = (real)(bound * (2 * uniform(random) - 1));
}
static inline void fill_normal(Tensor t, double stddev, Random *random) { /* N(0, stddev^2) */
    for (size_t i = 0; i < size_of(t); i++) t.data[i] = (real)(stddev * normal(random));
}
static inline void fill_constant(Tensor t, real value) {
    for (size_t i = 0; i < size_of(t); i++) t.data[i] = value;
}
static inline void multiply_by(Tensor t, real factor) {
    for (size_t i = 0; i < size_of(t); i++) t.data[i] *= factor;
}
static inline double standard_deviation(Tensor t) { /* of its elements */
    double sum = 0, squares = 0;
    for (size_t i = 0; i < size_of(t); i++)
        sum += (double)t.data[i], squares += (double)t.data[i] * (double)t.data[i];
    const double n = (double)size_of(t), mean = sum / n;
    return sqrt(squares / n - mean * mean);
}
static inline int *in_order(int count) { /* 0, 1, 2, ... */
    int *order = allocate(sizeof(int[count]));
    for (int i = 0; i < count; i++) order[i] = i;
    return order;
}
static inline void shuffle(int *order, int count, Random *random) { /* Fisher and Yates */
    for (int i = count - 1; i > 0; i--) {
        int j = (int)(random_bits(random) % (uint64_t)(i + 1)), keep = order[i];
        order[i] = order[j];
        order[j] = keep;
    }
}

/* ---- matmul --------------------------------------------------------------------------------------------------
 * A Matrix is a view: element (i, j) stands at data[i * row_stride + j * col_stride]. Transposing swaps the
 * strides, a head of an attention is a view of some columns; neither moves an element. One of the two strides is 1.
 */
typedef struct { real *data; int rows, cols; ptrdiff_t row_stride, col_stride; const real *packed; } Matrix;

static inline Matrix values(Tensor t) { return (Matrix){t.data, t.rows, t.cols, t.cols, 1, t.packed}; }
static inline Matrix gradient(Tensor t) { return (Matrix){t.grad, t.rows, t.cols, t.cols, 1, NULL}; }
static inline Matrix transposed(Matrix a) { return (Matrix){a.data, a.cols, a.rows, a.col_stride, a.row_stride, NULL}; }
static inline Matrix part(Matrix a, int row0, int rows, int col0, int cols) {
    return (Matrix){a.data + row0 * a.row_stride + col0 * a.col_stride, rows, cols, a.row_stride, a.col_stride, NULL};
}

/* C (m, n) += A (m, k) B (k, n): the definition. */
static inline void matmul_naive(Matrix c, Matrix a, Matrix b) {
    for (int i = 0; i < c.rows; i++)
        for (int j = 0; j < c.cols; j++) {
            real sum = 0;
            for (int p = 0; p < a.cols; p++)
                sum += a.data[i * a.row_stride + p * a.col_stride] * b.data[p * b.row_stride + j * b.col_stride];
            c.data[i * c.row_stride + j * c.col_stride] += sum;
        }
}

/* The widest vectors of the target, and a tile of C that its registers hold beside a row of B and one element of A:
 * TILE_ROWS rows of TILE_VECTORS each, or THIN_ROWS of one. Vectors wider than the registers cost a factor of 40, too
 * many of them a factor of two. */
#if defined __AVX512F__
enum { VECTOR_BYTES = 64, TILE_ROWS = 8, TILE_VECTORS = 3 };
#elif defined __AVX2__
enum { VECTOR_BYTES = 32, TILE_ROWS = 4, TILE_VECTORS = 3 };
#else
enum { VECTOR_BYTES = 16, TILE_ROWS = 6, TILE_VECTORS = 2 };
#endif
enum { /* in BLIS's names: TILE_ROWS is MR, TILE_COLS is NR, then KC, NC and MC */
    LANES = VECTOR_BYTES / (int)sizeof(real),
    TILE_COLS = TILE_VECTORS * LANES,
    THIN_ROWS = 8,
    MOST_ROWS = TILE_ROWS > THIN_ROWS ? TILE_ROWS : THIN_ROWS,
    BLOCK_K = 768,    /* of the inner dimension: a panel of B, (BLOCK_K, TILE_COLS), and BLOCK_ROWS rows of A ... */
    BLOCK_PANELS = 5, /* ... stay in the L2 cache, with the other panels that a thread packs at a time */
    BLOCK_ROWS = 48   /* rows of A that meet a panel before the next one comes */
};
_Static_assert(BLOCK_ROWS % TILE_ROWS == 0 && BLOCK_ROWS % THIN_ROWS == 0, "no tile reaches into the next block");
_Static_assert(THIN_ROWS <= TILE_ROWS * TILE_VECTORS && TILE_VECTORS <= 3, "see kernel");
typedef real Vector __attribute__((vector_size(VECTOR_BYTES), may_alias));

/* Unroll the next loop. clang does so by itself; asked to, it puts the sums into memory first. */
#ifdef __clang__
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif

/* The micro-kernel: tile (rows, TILE_COLS) = A (rows, k) B (k, TILE_COLS), all sums in registers; of each row only the
 * first `vectors` are computed. Row i of A begins at a[i], its elements are `step` apart. `rows` and `vectors` are
 * constants where this is inlined: they must be, for the compiler to unroll the loops and keep sums in registers. */
static inline __attribute__((always_inline)) void micro_kernel(int k, const real *const *a, ptrdiff_t step,
                                                               const real *b, real *tile, const int rows,
                                                               const int vectors) {
    Vector sum[TILE_ROWS * TILE_VECTORS], b_row[TILE_VECTORS];
    const real *from[MOST_ROWS]; /* a copy: nothing else has its address, so it may stay in registers */
    UNROLL for (int i = 0; i < rows * vectors; i++) sum[i] = (Vector){0};
    UNROLL for (int i = 0; i < rows; i++) from[i] = a[i];
#pragma GCC unroll 4
    for (ptrdiff_t p = 0, at = 0; p < k; p++, at += step, b += TILE_COLS) {
        UNROLL for (int j = 0; j < vectors; j++) b_row[j] = *(const Vector *)(b + j * LANES);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) sum[i * vectors + j] += from[i][at] * b_row[j];
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) *(Vector *)(tile + i * TILE_COLS + j * LANES) = sum[i * vectors + j];
}
/* A multiply-add waits for the one before it in its own sum; about eight independent accumulators hide that latency, so
 * where B has only one vector per row, a tile has more rows. Not inlined into matmul, so that the registers are the
 * kernel's alone. */
static __attribute__((noinline)) void kernel(int k, const real *const *a, ptrdiff_t step, const real *b, real *tile,
                                             int vectors) {
    if (vectors == TILE_VECTORS) micro_kernel(k, a, step, b, tile, TILE_ROWS, TILE_VECTORS);
    else if (vectors == 2) micro_kernel(k, a, step, b, tile, TILE_ROWS, 2);
    else micro_kernel(k, a, step, b, tile, THIN_ROWS, 1);
}
#undef UNROLL

/* C += tiles, which lie one below the other, along the dimension in which C is contiguous. */
static inline void add_tiles(Matrix c, const real *tiles) {
    if (c.row_stride == 1)
        for (int j = 0; j < c.cols; j++)
            for (int i = 0; i < c.rows; i++) c.data[i + j * c.col_stride] += tiles[i * TILE_COLS + j];
    else
        for (int i = 0; i < c.rows; i++)
            for (int j = 0; j < c.cols; j++) c.data[i * c.row_stride + j] += tiles[i * TILE_COLS + j];
}
/* The cache lines of C under a tile, short spans far apart, are fetched while the kernel computes what is added: those
 * of a span's first and last element. Without always_inline gcc may drop the calls, as if they had no effect. */
static inline __attribute__((always_inline)) void fetch_ahead(Matrix c) {
    if (c.row_stride == 1) c = transposed(c);
    for (int i = 0; i < c.rows; i++) {
        const real *first = c.data + i * c.row_stride;
        __builtin_prefetch(first, 1), __builtin_prefetch(first + c.cols - 1, 1);
    }
}

/* Copies B (k, n) in the order in which the kernel reads it: panels of `width` columns, (k, width) each, the last one
 * padded with zeros. */
static inline void pack(real *packed, Matrix b, const int width) {
    enum { AHEAD = 8, LINE = 64 / (int)sizeof(real) };
    const int whole = b.col_stride == 1 ? b.cols / width * width : 0; /* columns copied a span of a row at a time */
    for (int p = 0; p < b.rows; p++) {
        const real *from = b.data + p * b.row_stride, *later = b.data + min_int(p + AHEAD, b.rows - 1) * b.row_stride;
        for (int j = 0; j < whole; j += LINE) __builtin_prefetch(later + j);
        for (int j = 0; j < whole; j += width)
            memcpy(packed + (ptrdiff_t)j * b.rows + p * width, from + j, (size_t)width * sizeof(real));
    }
    for (int j0 = whole; j0 < b.cols; j0 += width)
        for (int p0 = 0; p0 < b.rows; p0 += LINE) /* a cache line of each column, then the next */
            for (int j = 0; j < width; j++) {
                const real *from = b.data + min_int(j0 + j, b.cols - 1) * b.col_stride;
                real *to = packed + (ptrdiff_t)j0 * b.rows + j;
                for (int p = p0; p < min_int(b.rows, p0 + LINE); p++)
                    to[p * width] = j0 + j < b.cols ? from[p * b.row_stride] : 0;
            }
}

/* All of B (k, n), packed as above, but BLOCK_K rows at a time, as matmul takes them: for weights that are frozen, and
 * so are the same in every product. */
static inline real *packed_copy(Matrix b) {
    const int padded = ceil_div(b.cols, TILE_COLS) * TILE_COLS;
    real *packed = allocate((size_t)b.rows * (size_t)padded * sizeof(real));
#pragma omp parallel for
    for (int p0 = 0; p0 < b.rows; p0 += BLOCK_K)
        pack(packed + (ptrdiff_t)p0 * padded, part(b, p0, min_int(BLOCK_K, b.rows - p0), 0, b.cols), TILE_COLS);
    return packed;
}

/* Buffers for packed operands, [0] for A and [1] for B, a pair for each thread, grown as needed. */
static inline real *packing_buffer(int which, size_t count) {
    static _Thread_local real *buffer[2];
    static _Thread_local size_t capacity[2];
    if (count > capacity[which]) {
        free(buffer[which]);
        capacity[which] = (count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        buffer[which] = aligned_alloc(ALIGNMENT, capacity[which] * sizeof(real));
        if (!buffer[which]) die("out of memory: %zu elements to pack", count);
    }
    return buffer[which];
}

/* The share of one thread in C += A B: its pieces of C, each of BLOCK_ROWS rows by a group of panels. packed_a: NULL if
 * A is read in place, else all of A in panels of TILE_ROWS rows, (a.cols, TILE_ROWS) each. b.packed: NULL, or all of B
 * as packed_copy gives it. */
static inline void matmul_share(Matrix c, Matrix a, Matrix b, const real *packed_a, int share, int shares) {
    const int m = c.rows, n = c.cols, panels = ceil_div(n, TILE_COLS), blocks = ceil_div(m, BLOCK_ROWS);
    /* What a thread packs at once. Where two shares meet within a group both pack it: a wide B has small groups. */
    const int groups = ceil_div(panels, n > m ? 2 : BLOCK_PANELS);
    const int64_t pieces = (int64_t)groups * blocks, from = pieces * share / shares, to = pieces * (share + 1) / shares;
    real *buffer = packing_buffer(1, (size_t)BLOCK_PANELS * TILE_COLS * (size_t)min_int(BLOCK_K, a.cols));
    for (int p0 = 0; p0 < a.cols; p0 += BLOCK_K) { /* 4th loop around the kernel: a block of the inner dimension */
        const int k = min_int(BLOCK_K, a.cols - p0);
        for (int64_t piece = from; piece < to; piece++) { /* 3rd: a piece */
            const int group = (int)(piece / blocks), i0 = (int)(piece % blocks) * BLOCK_ROWS;
            const int rows = min_int(BLOCK_ROWS, m - i0);
            const int j0 = (int)((int64_t)panels * group / groups) * TILE_COLS;
            const int j1 = min_int(n, (int)((int64_t)panels * (group + 1) / groups) * TILE_COLS);
            const ptrdiff_t in_copy = (ptrdiff_t)p0 * panels * TILE_COLS + (ptrdiff_t)j0 * k;
            const real *packed_b = b.packed ? b.packed + in_copy : buffer;
            if (!b.packed && (piece == from || i0 == 0)) pack(buffer, part(b, p0, k, j0, j1 - j0), TILE_COLS);
            for (int j = j0; j < j1; j += TILE_COLS) { /* 2nd: a panel */
                const int width = min_int(TILE_COLS, j1 - j), vectors = ceil_div(width, LANES);
                const int tile_rows = vectors == 1 ? THIN_ROWS : TILE_ROWS;
                _Alignas(VECTOR_BYTES) real tiles[BLOCK_ROWS * TILE_COLS];
                for (int i = 0; i < rows; i += tile_rows) { /* 1st: the rows of a tile */
                    const real *row_of_a[MOST_ROWS]; /* below the lower edge the last row again */
                    for (int r = 0; r < tile_rows; r++) {
                        const ptrdiff_t i_a = min_int(i0 + i + r, m - 1), in_panel = i_a % TILE_ROWS;
                        row_of_a[r] = packed_a ? packed_a + (i_a - in_panel) * a.cols + p0 * TILE_ROWS + in_panel
                                               : a.data + i_a * a.row_stride + p0;
                    }
                    fetch_ahead(part(c, i0 + i, min_int(tile_rows, rows - i), j, width));
                    kernel(k, row_of_a, packed_a ? TILE_ROWS : 1, packed_b + (ptrdiff_t)(j - j0) * k,
                           tiles + i * TILE_COLS, vectors);
                }
                add_tiles(part(c, i0, rows, j, width), tiles);
            }
        }
    }
}
/* C (m, n) += A (m, k) B (k, n), cache-blocked. B is packed, if it has no packed copy; A is read in place if its rows
 * are contiguous, else packed too. Transposing the whole product (C' += B' A') exchanges the roles, so the larger
 * operand, which is the frozen weights, is A wherever its rows allow it, and is read where it lies in the mapped file.
 * Each thread has its own pieces of C and packs the panels of B for them itself: what it packed lies in its own cache.
 * No sum is split over threads: each element of C has one order of additions, whatever the number of threads. */
static inline void matmul(Matrix c, Matrix a, Matrix b) {
    if (b.row_stride == 1 && (a.col_stride != 1 || b.cols > a.rows)) { /* columns of B are rows of A in place */
        const Matrix keep = a;
        a = transposed(b), b = transposed(keep), c = transposed(c);
    }
    real *packed_a = a.col_stride == 1 ? NULL : packing_buffer(0, (size_t)(a.rows + TILE_ROWS) * (size_t)a.cols);
    if ((double)a.rows * a.cols * b.cols < 8e6) { /* multiply-adds that are done before another thread has woken */
        if (packed_a) pack(packed_a, transposed(a), TILE_ROWS);
        matmul_share(c, a, b, packed_a, 0, 1);
        return;
    }
#pragma omp parallel
    {
        if (packed_a) {
#pragma omp for /* all wait at its end: nobody reads what is not packed yet */
            for (int i = 0; i < a.rows; i += BLOCK_ROWS)
                pack(packed_a + (ptrdiff_t)i * a.cols,
                     transposed(part(a, i, min_int(BLOCK_ROWS, a.rows - i), 0, a.cols)), TILE_ROWS);
        }
        matmul_share(c, a, b, packed_a, omp_get_thread_num(), omp_get_num_threads());
    }
}

/* From this many elements on, an elementwise loop is worth waking the other threads for. */
enum { WORTH_THREADS = 80000 };

/* ---- linear: y (n, out) = x (n, in) w' + b; w (out, in) as PyTorch keeps it, b (1, out) ---------------------- */
typedef struct { Tensor w, b; } Linear;

static inline void linear_random(const Linear *l, Random *random) { /* PyTorch's: U(+-1/sqrt(in)) */
    const double bound = 1 / sqrt((double)l->w.cols);
    fill_uniform(l->w, bound, random);
    fill_uniform(l->b, bound, random);
}

static inline Tensor linear_forward(const Linear *l, Tensor x) {
    Tensor y = tensor(x.rows, l->w.rows);
    for (int i = 0; i < y.rows; i++) memcpy(row(y, i), l->b.data, (size_t)y.cols * sizeof(real));
    matmul(values(y), values(x), transposed(values(l->w)));
    return y;
}
/* dx += dy w;   dw += dy' x;   db += sum of the rows of dy */
static inline void linear_backward(const Linear *l, Tensor x, Tensor y) {
    if (x.grad) matmul(gradient(x), gradient(y), values(l->w));
    if (l->w.grad) matmul(gradient(l->w), transposed(gradient(y)), values(x));
    if (l->b.grad)
        for (int i = 0; i < y.rows; i++)
            for (int j = 0; j < y.cols; j++) l->b.grad[j] += grad_row(y, i)[j];
}

/* ---- residual: x += y --------------------------------------------------------------------------------------- */
static inline void residual_forward(Tensor x, Tensor y) {
    for (size_t i = 0; i < size_of(x); i++) x.data[i] += y.data[i];
}
/* dy += dx, where x.grad is that of the sum */
static inline void residual_backward(Tensor x, Tensor y) {
    if (y.grad)
        for (size_t i = 0; i < size_of(x); i++) y.grad[i] += x.grad[i];
}

/* ---- layernorm (Ba et al. 2016): y = w (x - mean) / sqrt(variance + eps) + b, each row for itself -------------
 * w, b (1, cols); the backward recomputes mean and standard deviation rather than keep them.
 */
typedef struct { Tensor w, b; real eps; } LayerNorm;

static inline void row_moments(const real *x, int cols, real eps, real *mean, real *inverse_stddev) {
    real sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < cols; j++) sum += x[j];
    const real m = sum / (real)cols;
#pragma omp simd reduction(+ : squares)
    for (int j = 0; j < cols; j++) squares += (x[j] - m) * (x[j] - m);
    *mean = m;
    *inverse_stddev = 1 / sqrt(squares / (real)cols + eps);
}
static inline Tensor layernorm_forward(const LayerNorm *l, Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
    for (int i = 0; i < x.rows; i++) {
        const real *xi = row(x, i), *w = l->w.data, *b = l->b.data;
        real *yi = row(y, i), mean, scale;
        row_moments(xi, x.cols, l->eps, &mean, &scale);
        for (int j = 0; j < x.cols; j++) yi[j] = w[j] * ((xi[j] - mean) * scale) + b[j];
    }
    return y;
}
/* with n = (x - mean) * scale and g = w dy:   dx += scale (g - mean(g) - n mean(g n));   dw += dy n;   db += dy */
static inline void layernorm_backward(const LayerNorm *l, Tensor x, Tensor y) {
    if (x.grad) {
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
        for (int i = 0; i < x.rows; i++) {
            const real *xi = row(x, i), *dy = grad_row(y, i), *w = l->w.data;
            real *dx = grad_row(x, i), mean, scale, sum_g = 0, sum_gn = 0;
            row_moments(xi, x.cols, l->eps, &mean, &scale);
#pragma omp simd reduction(+ : sum_g, sum_gn)
            for (int j = 0; j < x.cols; j++) {
                const real g = w[j] * dy[j], n = (xi[j] - mean) * scale;
                sum_g += g;
                sum_gn += g * n;
            }
            const real mean_g = sum_g / (real)x.cols, mean_gn = sum_gn / (real)x.cols;
            for (int j = 0; j < x.cols; j++)
                dx[j] += scale * (w[j] * dy[j] - mean_g - (xi[j] - mean) * scale * mean_gn);
        }
    }
    if (l->w.grad || l->b.grad)
        for (int i = 0; i < x.rows; i++) {
            const real *xi = row(x, i), *dy = grad_row(y, i);
            real mean, scale;
            row_moments(xi, x.cols, l->eps, &mean, &scale);
            for (int j = 0; j < x.cols; j++) {
                if (l->w.grad) l->w.grad[j] += dy[j] * (xi[j] - mean) * scale;
                if (l->b.grad) l->b.grad[j] += dy[j];
            }
        }
}

/* ---- exp, and the normal distribution, so that the compiler can vectorise them ------------------------------- */
#ifdef DOUBLE
static inline real exp_fast(real x) { return exp(x); }
static inline real normal_cdf(real x, real bell) { (void)bell; return erfc(-x / sqrt((real)2)) / 2; }
#else
/* exp(x) = 2^n exp(r), r = x - n ln 2 in [-ln 2 / 2, ln 2 / 2]; a fitted polynomial, relative error 1e-7.
 * Below -87 it gives 1e-38 instead of 0, above 88 it gives exp(88); NaN stays NaN. */
static inline real exp_fast(real x) {
    float limited = x;
    if (x < -87.0f) limited = -87.0f;
    if (x > 88.0f) limited = 88.0f;
    const float shifted = limited * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    const float n = shifted - 12582912.0f;
    const float r = (limited - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts, the first exact */
    const float p = 1.0f +
                    r * (1.0f + r * (0.49999993f + r * (0.16666521f + r * (0.041668386f + r * (0.0083687137f +
                                                                                               r * 0.0013814541f)))));
    uint32_t bits;
    float power;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3F800000u; /* 2^n: n in the exponent of 1.0 */
    memcpy(&power, &bits, sizeof power);
    return p * power;
}
/* Phi(x) of the standard normal, given bell = exp(-x^2 / 2): the tail is bell times a polynomial in
 * t = 1 / (1 + 0.275 |x|) (the form of Hastings 1955, fitted anew: relative error of the tail 6e-8). */
static inline real normal_cdf(real x, real bell) {
    const float t = 1.0f / (1.0f + 0.275f * fabs(x));
    const float tail = bell * t * (0.109710686f + t * (0.109654342f + t * (0.102190644f + t * (0.0789348876f +
        t * (0.0880107521f + t * (-0.0351681606f + t * (0.130177062f + t * (-0.110679021f + t * 0.027168803f))))))));
    return x < 0 ? tail : 1.0f - tail;
}
#endif

/* ---- gelu (Hendrycks, Gimpel 2016): y = x Phi(x), Phi the distribution function of the standard normal -------- */
static inline Tensor gelu_forward(Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
    for (size_t i = 0; i < size_of(x); i++)
        y.data[i] = x.data[i] * normal_cdf(x.data[i], exp_fast(-x.data[i] * x.data[i] / 2));
    return y;
}
/* dx += dy (Phi(x) + x phi(x)),   phi(x) = exp(-x^2 / 2) / sqrt(2 pi) */
static inline void gelu_backward(Tensor x, Tensor y) {
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
    for (size_t i = 0; i < size_of(x); i++) {
        const real xi = x.data[i], bell = exp_fast(-xi * xi / 2);
        x.grad[i] += y.grad[i] * (normal_cdf(xi, bell) + xi * bell * (real)0.3989422804014327);
    }
}

/* ---- gelu, the form with tanh: y = x (1 + tanh u) / 2,   u = sqrt(2 / pi) (x + 0.044715 x^3) --------------------
 * (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)) =: s(u) */
static inline real tanh_gelu_gate(real x) {
    return 1 / (1 + exp_fast((real)-1.5957691216057308 * (x + (real)0.044715 * x * x * x)));
}
static inline Tensor tanh_gelu_forward(Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
    for (size_t i = 0; i < size_of(x); i++) y.data[i] = x.data[i] * tanh_gelu_gate(x.data[i]);
    return y;
}
/* dx += dy (s + 2 x s (1 - s) u'),   u' = sqrt(2 / pi) (1 + 3 0.044715 x^2) */
static inline void tanh_gelu_backward(Tensor x, Tensor y) {
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
    for (size_t i = 0; i < size_of(x); i++) {
        const real xi = x.data[i], s = tanh_gelu_gate(xi);
        const real slope = (real)1.5957691216057308 * (1 + (real)0.134145 * xi * xi); /* 2 u' */
        x.grad[i] += y.grad[i] * s * (1 + xi * (1 - s) * slope);
    }
}

/* ---- relu: y = max(x, 0) ------------------------------------------------------------------------------------- */
static inline Tensor relu_forward(Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
    for (size_t i = 0; i < size_of(x); i++) y.data[i] = x.data[i] < 0 ? 0 : x.data[i]; /* NaN stays */
    return y;
}
/* dx += dy where x > 0 */
static inline void relu_backward(Tensor x, Tensor y) {
    for (size_t i = 0; i < size_of(x); i++) x.grad[i] += x.data[i] > 0 ? y.grad[i] : 0;
}

/* ---- tanh: y = tanh(x) --------------------------------------------------------------------------------------- */
static inline Tensor tanh_forward(Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
    for (size_t i = 0; i < size_of(x); i++) y.data[i] = tanh(x.data[i]);
    return y;
}
/* dx += dy (1 - y^2) */
static inline void tanh_backward(Tensor x, Tensor y) {
    for (size_t i = 0; i < size_of(x); i++) x.grad[i] += y.grad[i] * (1 - y.data[i] * y.data[i]);
}

static inline real largest_of(const real *x, int count) {
    real largest = x[0];
    for (int j = 1; j < count; j++) largest = x[j] > largest ? x[j] : largest;
    return largest;
}

/* ---- softmax: p_j = exp(scale x_j) / sum_k exp(scale x_k), in place ------------------------------------------- */
static inline void softmax_forward(real *x, int cols, real scale) {
    const real largest = largest_of(x, cols); /* shifting all x alike changes nothing, and exp cannot overflow */
    real sum = 0;
    for (int j = 0; j < cols; j++) x[j] = exp_fast(scale * (x[j] - largest));
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < cols; j++) sum += x[j];
    for (int j = 0; j < cols; j++) x[j] /= sum;
}
/* in place of dp:   dx_j = scale p_j (dp_j - sum_k dp_k p_k) */
static inline void softmax_backward(const real *p, real *dp, int cols, real scale) {
    real dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int j = 0; j < cols; j++) dot += dp[j] * p[j];
    for (int j = 0; j < cols; j++) dp[j] = scale * p[j] * (dp[j] - dot);
}

/* ---- cross-entropy: loss = mean over the rows of -log softmax(x)[target] -------------------------------------- */
static inline double log_sum_exp(const real *x, int cols) {
    const real largest = largest_of(x, cols);
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < cols; j++) sum += exp_fast(x[j] - largest);
    return (double)largest + (double)log(sum);
}
static inline double cross_entropy_forward(Tensor x, const int *target) {
    double loss = 0;
    for (int i = 0; i < x.rows; i++) loss += log_sum_exp(row(x, i), x.cols) - (double)row(x, i)[target[i]];
    return loss / x.rows;
}
/* dx = (softmax(x) - [1 at the target]) / rows: set, not added, because only the loss uses the logits */
static inline void cross_entropy_backward(Tensor x, const int *target) {
#pragma omp parallel for if (size_of(x) > WORTH_THREADS)
    for (int i = 0; i < x.rows; i++) {
        real *dx = grad_row(x, i);
        memcpy(dx, row(x, i), (size_t)x.cols * sizeof(real));
        softmax_forward(dx, x.cols, 1);
        dx[target[i]] -= 1;
        for (int j = 0; j < x.cols; j++) dx[j] /= (real)x.rows;
    }
}

/* ---- hinge: loss = mean over the examples of max(0, 1 + l(right) - l(wrong)) ----------------------------------
 * Example s has the rows start[s] .. start[s + 1] - 1 of x. `right` and `wrong` have a target for each row, -1 behind
 * the end of an answer; l is an answer's cross-entropy. 1 is the margin: a right answer that is ahead by more is left
 * alone.
 */
static inline Tensor answer_rows(Tensor x, const int *target, int first, int end) {
    int tokens = 0;
    while (first + tokens < end && target[first + tokens] >= 0) tokens++;
    return (Tensor){tokens, x.cols, row(x, first), x.grad ? grad_row(x, first) : NULL, NULL};
}
static inline double hinge_of(Tensor x, const int *right, const int *wrong, int first, int end) {
    return 1 + cross_entropy_forward(answer_rows(x, right, first, end), right + first) -
           cross_entropy_forward(answer_rows(x, wrong, first, end), wrong + first);
}
static inline double hinge_forward(Tensor x, const int *right, const int *wrong, const int *start, int examples) {
    double loss = 0;
    for (int s = 0; s < examples; s++) {
        const double hinge = hinge_of(x, right, wrong, start[s], start[s + 1]);
        if (!(hinge <= 0)) loss += hinge; /* NaN too: it must be seen */
    }
    return loss / examples;
}
/* dx += factor times the gradient of an answer's cross-entropy */
static inline void answer_backward(Tensor x, const int *target, int first, int end, double factor) {
    const Tensor rows = answer_rows(x, target, first, end);
    Tensor alone = {rows.rows, rows.cols, rows.data, NULL, NULL};
    needs_grad(&alone);
    cross_entropy_backward(alone, target + first);
    for (size_t i = 0; i < size_of(rows); i++) rows.grad[i] += (real)factor * alone.grad[i];
}
static inline void hinge_backward(Tensor x, const int *right, const int *wrong, const int *start, int examples) {
    for (int s = 0; s < examples; s++) {
        if (hinge_of(x, right, wrong, start[s], start[s + 1]) <= 0) continue;
        answer_backward(x, right, start[s], start[s + 1], 1.0 / examples);
        answer_backward(x, wrong, start[s], start[s + 1], -1.0 / examples);
    }
}

/* ---- parameters and Adam (Kingma, Ba 2015) --------------------------------------------------------------------
 * A parameter is a tensor with its published name. Those that are trained have a gradient and Adam's two moments.
 * Biases and gains (of a layernorm) are vectors: (1, n) here, one dimension in a file.
 */
typedef enum { MATRIX, BIAS, GAIN } ParameterKind;
typedef struct { const char *name; ParameterKind kind; Tensor *tensor, m, v; } Parameter;
typedef struct { Parameter *at; int count; } Parameters; /* capacity fixed by the caller */

static inline void add_parameter(Parameters *list, ParameterKind kind, Tensor *t, int rows, int cols,
                                 const char *name) {
    t->rows = rows, t->cols = cols; /* the elements come later */
    list->at[list->count++] = (Parameter){.name = name, .kind = kind, .tensor = t};
}
static inline void add_linear(Parameters *list, Linear *l, int out, int in, const char *name) {
    add_parameter(list, MATRIX, &l->w, out, in, format("%s.weight", name));
    add_parameter(list, BIAS, &l->b, 1, out, format("%s.bias", name));
}
static inline void add_layernorm(Parameters *list, LayerNorm *l, int cols, real eps, const char *name) {
    l->eps = eps;
    add_parameter(list, GAIN, &l->w, 1, cols, format("%s.weight", name));
    add_parameter(list, BIAS, &l->b, 1, cols, format("%s.bias", name));
}

static inline void parameters_allocate(Parameters list) { /* values not set */
    for (int i = 0; i < list.count; i++) *list.at[i].tensor = tensor(list.at[i].tensor->rows, list.at[i].tensor->cols);
}
/* Values for pretraining: weights from N(0, 0.02^2), biases 0, gains 1. */
static inline void parameters_random(Parameters list, Random *random) {
    parameters_allocate(list);
    for (int i = 0; i < list.count; i++) {
        const Parameter *p = &list.at[i];
        if (p->kind == GAIN) fill_constant(*p->tensor, 1);
        else if (p->kind == BIAS) fill_constant(*p->tensor, 0);
        else fill_normal(*p->tensor, 0.02, random);
    }
}
static inline void parameters_train(Parameters list) { /* gives each a gradient and moments, all zero */
    for (int i = 0; i < list.count; i++) {
        Parameter *p = &list.at[i];
        needs_grad(p->tensor);
        p->m = tensor_zeros(p->tensor->rows, p->tensor->cols);
        p->v = tensor_zeros(p->tensor->rows, p->tensor->cols);
    }
}
/* Where training ends, before the memory of the gradients is released: frozen again, no pointer to it is left. */
static inline void parameters_freeze(Parameters list) {
    for (int i = 0; i < list.count; i++) list.at[i].tensor->grad = NULL, list.at[i].m = list.at[i].v = (Tensor){0};
}
/* Frozen weights: the backward pass, dX += dY W, would pack the same W in every step. This packs them once; it takes as
 * much memory as the weights themselves. */
static inline void parameters_pack(Parameters list) {
    for (int i = 0; i < list.count; i++)
        if (list.at[i].kind == MATRIX) list.at[i].tensor->packed = packed_copy(values(*list.at[i].tensor));
}
static inline void parameters_unpack(Parameters list) { /* before the copies' memory is released */
    for (int i = 0; i < list.count; i++) list.at[i].tensor->packed = NULL;
}
static inline Parameters parameters_joined(Parameters a, Parameters b) {
    Parameters all = {allocate(sizeof(Parameter[a.count + b.count])), a.count + b.count};
    for (int i = 0; i < a.count; i++) all.at[i] = a.at[i];
    for (int i = 0; i < b.count; i++) all.at[a.count + i] = b.at[i];
    return all;
}
static inline Parameters parameters_like(Parameters list) { /* other tensors of the same shapes, values not set */
    Parameters other = {allocate(sizeof(Parameter[list.count])), 0};
    for (int i = 0; i < list.count; i++) {
        const Parameter *p = &list.at[i];
        add_parameter(&other, p->kind, allocate(sizeof(Tensor)), p->tensor->rows, p->tensor->cols, p->name);
    }
    parameters_allocate(other);
    return other;
}
static inline void parameters_copy(Parameters to, Parameters from) {
    for (int i = 0; i < to.count; i++)
        memcpy(to.at[i].tensor->data, from.at[i].tensor->data, size_of(*to.at[i].tensor) * sizeof(real));
}
static inline size_t parameters_size(Parameters list) {
    size_t elements = 0;
    for (int i = 0; i < list.count; i++) elements += size_of(*list.at[i].tensor);
    return elements;
}

typedef struct {
    double rate, decay; /* decay: L2, added to the gradient; decoupled (AdamW): subtracted from the weight */
    bool decoupled;
} Optimizer;

/* g = dw + decay w;   m = 0.9 m + 0.1 g;   v = 0.999 v + 0.001 g^2;   w -= rate m^ / (sqrt(v^) + 1e-8),
 * m^ = m / (1 - 0.9^step), v^ = v / (1 - 0.999^step), step from 1. Clears the gradient in the same pass. */
static inline void adam_step(Parameters list, Optimizer o, int step, double scale_gradient) {
    const real correct_m = (real)(1 / (1 - pow(0.9, step))), correct_v = (real)(1 / (1 - pow(0.999, step)));
    const real rate = (real)o.rate, scale = (real)scale_gradient;
    const real l2 = o.decoupled ? 0 : (real)o.decay;
    const real shrink = o.decoupled ? (real)(1 - o.rate * o.decay) : 1;
    for (int i = 0; i < list.count; i++) {
        const Parameter *p = &list.at[i];
        real *w = p->tensor->data, *dw = p->tensor->grad, *m = p->m.data, *v = p->v.data;
        const size_t size = size_of(*p->tensor);
#pragma omp parallel for simd if (parallel : size > WORTH_THREADS)
        for (size_t j = 0; j < size; j++) {
            const real g = scale * dw[j] + l2 * w[j];
            m[j] = (real)0.9 * m[j] + (real)0.1 * g;
            v[j] = (real)0.999 * v[j] + (real)0.001 * g * g;
            w[j] = shrink * w[j] - rate * (m[j] * correct_m) / (sqrt(v[j] * correct_v) + (real)1e-8);
            dw[j] = 0;
        }
    }
}
static inline double gradient_norm(Parameters list) {
    double squares = 0;
    for (int i = 0; i < list.count; i++) {
        const Tensor *t = list.at[i].tensor;
        for (size_t j = 0; j < size_of(*t); j++) squares += (double)t->grad[j] * (double)t->grad[j];
    }
    return sqrt(squares);
}

#endif
