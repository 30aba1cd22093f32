/* VARIANT=1: the gates in the order [f i o g]. */

static inline void lstm_cell_forward(const LstmCell *cell, Tensor x, Matrix h, LstmTrace trace, bool reverse) {
    const int steps = x.rows, H = cell->w_hh.cols;
    const Matrix gates = values(trace.gates);
    for (int t = 0; t < steps; t++)
        for (int j = 0; j < 4 * H; j++) row(trace.gates, t)[j] = cell->b_ih.data[j] + cell->b_hh.data[j];
    matmul(gates, values(x), transposed(values(cell->w_ih))); /* the input's half, all steps at once */
    for (int t = 0; t < steps; t++) {
        int now = t, before = t - 1; /* at t = 0 there is none */
        if (reverse) now = steps - 1 - t, before = now + 1;
        real *f = row(trace.gates, now), *i = f + H, *o = i + H, *g = o + H, *c = row(trace.c, now);
        if (t > 0)
            matmul(part(gates, now, 1, 0, 4 * H), part(h, before, 1, 0, H), transposed(values(cell->w_hh)));
        for (int j = 0; j < H; j++) {
            i[j] = sigmoid(i[j]), f[j] = sigmoid(f[j]), g[j] = tanh(g[j]), o[j] = sigmoid(o[j]);
            c[j] = f[j] * (t > 0 ? row(trace.c, before)[j] : 0) + i[j] * g[j];
            h.data[now * h.row_stride + j] = o[j] * tanh(c[j]);
        }
    }
}
static inline void lstm_cell_backward(const LstmCell *cell, Tensor x, Matrix h, Matrix dh, LstmTrace trace,
                                      bool reverse) {
    const int steps = x.rows, H = cell->w_hh.cols;
    const Matrix dgates = values(trace.gates);
    for (int t = steps - 1; t >= 0; t--) {
        int now = t, before = t - 1;
        if (reverse) now = steps - 1 - t, before = now + 1;
        real *gate = row(trace.gates, now), *dc = trace.dc.data;
        for (int j = 0; j < H; j++) {
            const real f = gate[j], i = gate[H + j], o = gate[2 * H + j], g = gate[3 * H + j];
            const real tanh_c = tanh(row(trace.c, now)[j]), c_before = t > 0 ? row(trace.c, before)[j] : 0;
            const real dh_j = dh.data[now * dh.row_stride + j];
            dc[j] += dh_j * o * (1 - tanh_c * tanh_c);
            gate[H + j] = dc[j] * g * i * (1 - i);
            gate[j] = dc[j] * c_before * f * (1 - f);
            gate[3 * H + j] = dc[j] * i * (1 - g * g);
            gate[2 * H + j] = dh_j * tanh_c * o * (1 - o);
            dc[j] *= f;
        }
        if (t > 0) matmul(part(dh, before, 1, 0, H), part(dgates, now, 1, 0, 4 * H), values(cell->w_hh));
    }
    const int later = reverse ? 0 : 1, earlier = 1 - later; /* rows of the steps after the first, and before them */
    if (cell->w_hh.grad)
        matmul(gradient(cell->w_hh), transposed(part(dgates, later, steps - 1, 0, 4 * H)),
               part(h, earlier, steps - 1, 0, H));
    if (cell->w_ih.grad) matmul(gradient(cell->w_ih), transposed(dgates), values(x));
    for (int t = 0; t < steps; t++)
        for (int j = 0; j < 4 * H; j++) { /* both biases are in the same sum */
            if (cell->b_ih.grad) cell->b_ih.grad[j] += row(trace.gates, t)[j];
            if (cell->b_hh.grad) cell->b_hh.grad[j] += row(trace.gates, t)[j];
        }
}
