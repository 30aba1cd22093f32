/* Another right solution of assignment 10: no matmul, one element at a time; biases and weights step by step. */

static inline void lstm_cell_forward(const LstmCell *cell, Tensor x, Matrix h, LstmTrace trace, bool reverse) {
    const int H = cell->w_hh.cols, step = reverse ? -1 : 1;
    for (int t = reverse ? x.rows - 1 : 0, first = t; t >= 0 && t < x.rows; t += step) {
        real *gate = row(trace.gates, t);
        for (int j = 0; j < 4 * H; j++) {
            real sum = cell->b_ih.data[j] + cell->b_hh.data[j];
            for (int p = 0; p < x.cols; p++) sum += row(cell->w_ih, j)[p] * row(x, t)[p];
            for (int p = 0; p < H && t != first; p++)
                sum += row(cell->w_hh, j)[p] * h.data[(t - step) * h.row_stride + p];
            gate[j] = j / H == 2 ? tanh(sum) : sigmoid(sum);
        }
        for (int j = 0; j < H; j++) {
            real c = gate[j] * gate[2 * H + j];
            if (t != first) c += gate[H + j] * row(trace.c, t - step)[j];
            row(trace.c, t)[j] = c;
            h.data[t * h.row_stride + j] = gate[3 * H + j] * tanh(c);
        }
    }
}
static inline void lstm_cell_backward(const LstmCell *cell, Tensor x, Matrix h, Matrix dh, LstmTrace trace,
                                      bool reverse) {
    const int H = cell->w_hh.cols, step = reverse ? -1 : 1, first = reverse ? x.rows - 1 : 0;
    for (int t = reverse ? 0 : x.rows - 1; t >= 0 && t < x.rows; t -= step) {
        real *gate = row(trace.gates, t);
        for (int j = 0; j < H; j++) {
            const real i = gate[j], f = gate[H + j], g = gate[2 * H + j], o = gate[3 * H + j];
            const real c = tanh(row(trace.c, t)[j]);
            const real d = dh.data[t * dh.row_stride + j], dc = trace.dc.data[j] + d * o * (1 - c * c);
            gate[j] = dc * g * i * (1 - i);
            gate[H + j] = t == first ? 0 : dc * row(trace.c, t - step)[j] * f * (1 - f);
            gate[2 * H + j] = dc * i * (1 - g * g);
            gate[3 * H + j] = d * c * o * (1 - o);
            trace.dc.data[j] = dc * f;
        }
        for (int j = 0; j < 4 * H; j++) {
            for (int p = 0; p < H && t != first; p++) {
                dh.data[(t - step) * dh.row_stride + p] += gate[j] * row(cell->w_hh, j)[p];
                if (cell->w_hh.grad) grad_row(cell->w_hh, j)[p] += gate[j] * h.data[(t - step) * h.row_stride + p];
            }
            for (int p = 0; p < x.cols && cell->w_ih.grad; p++) grad_row(cell->w_ih, j)[p] += gate[j] * row(x, t)[p];
            if (cell->b_ih.grad) cell->b_ih.grad[j] += gate[j];
            if (cell->b_hh.grad) cell->b_hh.grad[j] += gate[j];
        }
    }
}
static inline LstmActivations lstm_forward(const Lstm *lstm, Tensor x) {
    LstmActivations a = {allocate(sizeof(Tensor[lstm->layers])), allocate(sizeof(LstmTrace[lstm->layers][2]))};
    for (int l = 0; l < lstm->layers; l++) {
        const Tensor input = l ? a.output[l - 1] : x;
        a.output[l] = tensor_zeros(x.rows, 2 * lstm->hidden);
        for (int d = 1; d >= 0; d--) {
            a.trace[l][d] = lstm_trace(x.rows, lstm->hidden);
            const Matrix half = {a.output[l].data + d * lstm->hidden, x.rows, lstm->hidden, 2 * lstm->hidden, 1};
            lstm_cell_forward(&lstm->cell[l][d], input, half, a.trace[l][d], d == 1);
        }
    }
    return a;
}
static inline void lstm_backward(const Lstm *lstm, Tensor x, LstmActivations a) {
    for (int l = lstm->layers; l-- > 0;) {
        Tensor below = x;
        if (l > 0) {
            needs_grad(&a.output[l - 1]);
            below = a.output[l - 1];
        }
        for (int d = 1; d >= 0; d--) {
            const int H = lstm->hidden;
            lstm_cell_backward(&lstm->cell[l][d], below, part(values(a.output[l]), 0, x.rows, d * H, H),
                               part(gradient(a.output[l]), 0, x.rows, d * H, H), a.trace[l][d], d == 1);
            if (below.grad) matmul(gradient(below), values(a.trace[l][d].gates), values(lstm->cell[l][d].w_ih));
        }
    }
}
