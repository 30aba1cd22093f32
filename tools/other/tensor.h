/* Other right solutions of assignments 1, 2, 4 to 7 and 14, which `make assignments` grades. */

static inline void matmul_naive(Matrix c, Matrix a, Matrix b)
{
    for (int p = 0; p < a.cols; p++)
        for (int i = 0; i < c.rows; i++)
        {
            const real factor = a.data[i * a.row_stride + p * a.col_stride];
            const real *from = b.data + p * b.row_stride;
            real *to = c.data + i * c.row_stride;
            for (int j = 0; j < c.cols; j++, from += b.col_stride, to += c.col_stride) *to += factor * *from;
        }
}

static inline void pack(real *packed, Matrix b, const int width) {
    const Matrix panel_rows = {packed, b.rows, width, width, 1, NULL};
    for (int j = 0; j < (b.cols + width - 1) / width * width; j++)
        for (int p = 0; p < b.rows; p++) {
            const real element = j < b.cols ? b.data[p * b.row_stride + j * b.col_stride] : 0;
            panel_rows.data[(j / width * b.rows + p) * width + j % width] = element;
        }
}
static inline __attribute__((always_inline)) void micro_kernel(int k, const real *const *a, ptrdiff_t step,
                                                               const real *b, real *tile, const int rows,
                                                               const int vectors) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors * LANES; j++) {
            real sum = 0;
            for (int p = 0; p < k; p++) sum += a[i][p * step] * b[p * TILE_COLS + j];
            tile[i * TILE_COLS + j] = sum;
        }
}

static inline Tensor linear_forward(const Linear *l, Tensor x) {
    Tensor y = tensor_zeros(x.rows, l->w.rows);
    matmul(transposed(values(y)), values(l->w), transposed(values(x)));
    for (size_t i = 0; i < size_of(y); i++) y.data[i] += l->b.data[i % (size_t)y.cols];
    return y;
}
static inline void linear_backward(const Linear *l, Tensor x, Tensor y) {
    for (int i = 0; i < y.rows; i++)
        for (int o = 0; o < y.cols; o++) {
            const real dy = grad_row(y, i)[o];
            for (int j = 0; j < x.cols; j++) {
                if (x.grad) grad_row(x, i)[j] += dy * row(l->w, o)[j];
                if (l->w.grad) grad_row(l->w, o)[j] += dy * row(x, i)[j];
            }
            if (l->b.grad) l->b.grad[o] += dy;
        }
}
static inline void residual_forward(Tensor x, Tensor y) {
    for (int i = 0; i < x.rows; i++)
        for (int j = 0; j < x.cols; j++) row(x, i)[j] += row(y, i)[j];
}
static inline void residual_backward(Tensor x, Tensor y) {
    if (!y.grad) return;
    for (int i = 0; i < x.rows; i++)
        for (int j = 0; j < x.cols; j++) grad_row(y, i)[j] += grad_row(x, i)[j];
}

static inline Tensor layernorm_forward(const LayerNorm *l, Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
    for (int i = 0; i < x.rows; i++) {
        double mean = 0, variance = 0;
        for (int j = 0; j < x.cols; j++) mean += (double)row(x, i)[j] / x.cols;
        for (int j = 0; j < x.cols; j++) variance += pow((double)row(x, i)[j] - mean, 2) / x.cols;
        for (int j = 0; j < x.cols; j++) {
            const double n = ((double)row(x, i)[j] - mean) / sqrt(variance + (double)l->eps);
            row(y, i)[j] = (real)n * l->w.data[j] + l->b.data[j];
        }
    }
    return y;
}
static inline void layernorm_backward(const LayerNorm *l, Tensor x, Tensor y) {
    for (int i = 0; i < x.rows; i++) {
        const real *dy = grad_row(y, i);
        real mean, scale, g = 0, gn = 0;
        row_moments(row(x, i), x.cols, l->eps, &mean, &scale);
        for (int j = 0; j < x.cols; j++) {
            const real n = (row(x, i)[j] - mean) * scale;
            if (l->w.grad) l->w.grad[j] += dy[j] * n;
            if (l->b.grad) l->b.grad[j] += dy[j];
            g += l->w.data[j] * dy[j], gn += l->w.data[j] * dy[j] * n;
        }
        for (int j = 0; x.grad && j < x.cols; j++) {
            const real n = (row(x, i)[j] - mean) * scale;
            grad_row(x, i)[j] += scale * (l->w.data[j] * dy[j] - (g + n * gn) / (real)x.cols);
        }
    }
}

static inline Tensor relu_forward(Tensor x) {
    Tensor y = tensor_zeros(x.rows, x.cols);
    for (size_t i = 0; i < size_of(x); i++)
        if (x.data[i] > 0) y.data[i] = x.data[i];
    return y;
}
static inline void relu_backward(Tensor x, Tensor y) {
    for (size_t i = 0; i < size_of(x); i++)
        if (x.data[i] > 0) x.grad[i] += y.grad[i];
}
static inline Tensor gelu_forward(Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
    for (size_t i = 0; i < size_of(x); i++) y.data[i] = x.data[i] * (1 + erf(x.data[i] / sqrt((real)2))) / 2;
    return y;
}
static inline void gelu_backward(Tensor x, Tensor y) {
    const double pi = 3.14159265358979323846;
    for (size_t i = 0; i < size_of(x); i++) {
        const double v = (double)x.data[i];
        x.grad[i] += y.grad[i] * (real)((1 + erf(v / sqrt(2.0))) / 2 + v * exp(-v * v / 2) / sqrt(2 * pi));
    }
}

static inline void softmax_forward(real *x, int cols, real scale) {
    double sum = 0, most = -INFINITY;
    for (int j = 0; j < cols; j++) most = fmax(most, (double)x[j] * (double)scale);
    for (int j = 0; j < cols; j++) sum += exp((double)x[j] * (double)scale - most);
    for (int j = 0; j < cols; j++) x[j] = (real)(exp((double)x[j] * (double)scale - most) / sum);
}
static inline void softmax_backward(const real *p, real *dp, int cols, real scale) {
    real dx[cols];
    for (int j = 0; j < cols; j++) {
        dx[j] = 0;
        for (int k = 0; k < cols; k++) dx[j] += dp[k] * p[k] * ((j == k) - p[j]); /* the Jacobian, written out */
    }
    for (int j = 0; j < cols; j++) dp[j] = scale * dx[j];
}
static inline double cross_entropy_forward(Tensor x, const int *target) {
    double loss = 0;
    for (int i = 0; i < x.rows; i++) {
        double sum = 0, right = (double)row(x, i)[target[i]];
        const double largest = (double)largest_of(row(x, i), x.cols);
        for (int j = 0; j < x.cols; j++) sum += exp((double)row(x, i)[j] - largest);
        loss -= (right - largest - log(sum)) / x.rows;
    }
    return loss;
}
static inline void cross_entropy_backward(Tensor x, const int *target) {
    for (int i = 0; i < x.rows; i++) {
        const double all = log_sum_exp(row(x, i), x.cols);
        for (int j = 0; j < x.cols; j++)
            grad_row(x, i)[j] = (real)((exp((double)row(x, i)[j] - all) - (j == target[i])) / x.rows);
    }
}

static inline void adam_step(Parameters list, Optimizer o, int step, double scale_gradient) {
    for (int i = 0; i < list.count; i++)
        for (size_t j = 0; j < size_of(*list.at[i].tensor); j++) {
            const Parameter *p = &list.at[i];
            double w = (double)p->tensor->data[j], g = (double)p->tensor->grad[j] * scale_gradient;
            if (o.decoupled) w -= o.rate * o.decay * w;
            else g += o.decay * w;
            p->m.data[j] += (real)(0.1 * (g - (double)p->m.data[j]));
            p->v.data[j] += (real)(0.001 * (g * g - (double)p->v.data[j]));
            const double m = (double)p->m.data[j] / (1 - pow(0.9, step));
            const double v = (double)p->v.data[j] / (1 - pow(0.999, step));
            p->tensor->data[j] = (real)(w - o.rate * m / (sqrt(v) + 1e-8));
            p->tensor->grad[j] = 0;
        }
}
