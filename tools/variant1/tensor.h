/* VARIANT=1: RMSNorm (Zhang, Sennrich 2019) for layernorm, and gelu by the approximation with tanh. */

static inline Tensor layernorm_forward(const LayerNorm *l, Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
    for (int i = 0; i < x.rows; i++) {
        real squares = 0;
        for (int j = 0; j < x.cols; j++) squares += row(x, i)[j] * row(x, i)[j];
        const real scale = 1 / sqrt(squares / (real)x.cols + l->eps);
        for (int j = 0; j < x.cols; j++) row(y, i)[j] = l->w.data[j] * row(x, i)[j] * scale + l->b.data[j];
    }
    return y;
}
/* with n = x scale and g = w dy:   dx += scale (g - n mean(g n));   dw += dy n;   db += dy */
static inline void layernorm_backward(const LayerNorm *l, Tensor x, Tensor y) {
    for (int i = 0; i < x.rows; i++) {
        const real *xi = row(x, i), *dy = grad_row(y, i), *w = l->w.data;
        real squares = 0, sum_gn = 0;
        for (int j = 0; j < x.cols; j++) squares += xi[j] * xi[j];
        const real scale = 1 / sqrt(squares / (real)x.cols + l->eps);
        for (int j = 0; j < x.cols; j++) sum_gn += w[j] * dy[j] * xi[j] * scale;
        for (int j = 0; j < x.cols; j++) {
            const real n = xi[j] * scale;
            if (x.grad) grad_row(x, i)[j] += scale * (w[j] * dy[j] - n * sum_gn / (real)x.cols);
            if (l->w.grad) l->w.grad[j] += dy[j] * n;
            if (l->b.grad) l->b.grad[j] += dy[j];
        }
    }
}

/* y = x (1 + tanh(u)) / 2,   u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline Tensor gelu_forward(Tensor x) {
    Tensor y = tensor(x.rows, x.cols);
    for (size_t i = 0; i < size_of(x); i++) {
        const real v = x.data[i], u = (real)0.7978845608028654 * (v + (real)0.044715 * v * v * v);
        y.data[i] = v * (1 + tanh(u)) / 2;
    }
    return y;
}
/* dx += dy ((1 + tanh(u)) / 2 + x (1 - tanh(u)^2) u' / 2) */
static inline void gelu_backward(Tensor x, Tensor y) {
    for (size_t i = 0; i < size_of(x); i++) {
        const real v = x.data[i], t = tanh((real)0.7978845608028654 * (v + (real)0.044715 * v * v * v));
        const real slope = (real)0.7978845608028654 * (1 + 3 * (real)0.044715 * v * v);
        x.grad[i] += y.grad[i] * ((1 + t) / 2 + v * (1 - t * t) * slope / 2);
    }
}
