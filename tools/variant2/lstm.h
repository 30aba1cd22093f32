/* VARIANT=2: a GRU (Cho et al. 2014) as PyTorch computes it, in the first 3H rows of each weight, one direction of one
 * layer. The last H rows are not used.
 *     r = sigma(W_ir x_t + b_ir + W_hr h_(t-1) + b_hr)        z = sigma(W_iz x_t + b_iz + W_hz h_(t-1) + b_hz)
 *     q = W_hn h_(t-1) + b_hn                                 n = tanh(W_in x_t + b_in + r q)
 *     h_t = (1 - z) n + z h_(t-1)
 * trace.gates keeps [r z n q] (T, 4H). trace.c and trace.dc are not used. */

static inline void lstm_cell_forward(const LstmCell *cell, Tensor x, Matrix h, LstmTrace trace, bool reverse) {
    const int steps = x.rows, H = cell->w_hh.cols;
    const Matrix gates = values(trace.gates), w_ih = values(cell->w_ih), w_hh = values(cell->w_hh);
    for (int t = 0; t < steps; t++)
        for (int j = 0; j < H; j++) {
            real *gate = row(trace.gates, t) + j;
            gate[0] = cell->b_ih.data[j] + cell->b_hh.data[j];
            gate[H] = cell->b_ih.data[H + j] + cell->b_hh.data[H + j];
            gate[2 * H] = cell->b_ih.data[2 * H + j];
            gate[3 * H] = cell->b_hh.data[2 * H + j];
        }
    matmul(part(gates, 0, steps, 0, 3 * H), values(x), transposed(part(w_ih, 0, 3 * H, 0, x.cols)));
    for (int t = 0; t < steps; t++) {
        int now = t, before = t - 1; /* at t = 0 there is none */
        if (reverse) now = steps - 1 - t, before = now + 1;
        real *r = row(trace.gates, now), *z = r + H, *n = z + H, *q = n + H;
        if (t > 0) {
            const Matrix h_before = part(h, before, 1, 0, H);
            matmul(part(gates, now, 1, 0, 2 * H), h_before, transposed(part(w_hh, 0, 2 * H, 0, H)));
            matmul(part(gates, now, 1, 3 * H, H), h_before, transposed(part(w_hh, 2 * H, H, 0, H)));
        }
        for (int j = 0; j < H; j++) {
            const real h_before = t > 0 ? h.data[before * h.row_stride + j] : 0;
            r[j] = sigmoid(r[j]), z[j] = sigmoid(z[j]), n[j] = tanh(n[j] + r[j] * q[j]);
            h.data[now * h.row_stride + j] = (1 - z[j]) * n[j] + z[j] * h_before;
        }
    }
}
/* From the last step to the first, dh_t = dh from above + z dh_(t+1) + W_hh' [da_r da_z dq]_(t+1).
 *     da_n = dh (1 - z) (1 - n^2)       dq = da_n r
 *     da_r = da_n q r(1-r)              da_z = dh (h_(t-1) - n) z(1-z)
 * [r z n q] are overwritten by [da_r da_z da_n dq], then q by 0: lstm_backward multiplies all 4H columns by W_ih. */
static inline void lstm_cell_backward(const LstmCell *cell, Tensor x, Matrix h, Matrix dh, LstmTrace trace,
                                      bool reverse) {
    const int steps = x.rows, H = cell->w_hh.cols;
    const Matrix dgates = values(trace.gates), w_hh = values(cell->w_hh);
    for (int t = steps - 1; t >= 0; t--) {
        int now = t, before = t - 1;
        if (reverse) now = steps - 1 - t, before = now + 1;
        real *gate = row(trace.gates, now);
        for (int j = 0; j < H; j++) {
            const real r = gate[j], z = gate[H + j], n = gate[2 * H + j], q = gate[3 * H + j];
            const real dh_j = dh.data[now * dh.row_stride + j], da_n = dh_j * (1 - z) * (1 - n * n);
            const real h_before = t > 0 ? h.data[before * h.row_stride + j] : 0;
            gate[j] = da_n * q * r * (1 - r);
            gate[H + j] = dh_j * (h_before - n) * z * (1 - z);
            gate[2 * H + j] = da_n;
            gate[3 * H + j] = da_n * r;
            if (t > 0) dh.data[before * dh.row_stride + j] += dh_j * z;
        }
        if (t > 0) {
            const Matrix dh_before = part(dh, before, 1, 0, H);
            matmul(dh_before, part(dgates, now, 1, 0, 2 * H), part(w_hh, 0, 2 * H, 0, H));
            matmul(dh_before, part(dgates, now, 1, 3 * H, H), part(w_hh, 2 * H, H, 0, H));
        }
    }
    const int later = reverse ? 0 : 1, earlier = 1 - later; /* rows of the steps after the first, and before them */
    if (cell->w_hh.grad) {
        const Matrix dw = gradient(cell->w_hh), h_before = part(h, earlier, steps - 1, 0, H);
        matmul(part(dw, 0, 2 * H, 0, H), transposed(part(dgates, later, steps - 1, 0, 2 * H)), h_before);
        matmul(part(dw, 2 * H, H, 0, H), transposed(part(dgates, later, steps - 1, 3 * H, H)), h_before);
    }
    for (int t = 0; t < steps; t++)
        for (int j = 0; j < 3 * H; j++) { /* n has its two biases in two places: a_n and q */
            real *gate = row(trace.gates, t), *hidden_gate = j < 2 * H ? gate : gate + H;
            if (cell->b_ih.grad) cell->b_ih.grad[j] += gate[j];
            if (cell->b_hh.grad) cell->b_hh.grad[j] += hidden_gate[j];
        }
    for (int t = 0; t < steps; t++) memset(row(trace.gates, t) + 3 * H, 0, (size_t)H * sizeof(real));
    if (cell->w_ih.grad) matmul(gradient(cell->w_ih), transposed(dgates), values(x));
}
