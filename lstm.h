/* lstm.h - a stack of bidirectional LSTM layers (Hochreiter, Schmidhuber 1997; Graves 2005), as PyTorch computes it.
 *
 * One direction of one layer, for t = 1 .. T (the reverse one: T .. 1), sigma the logistic function:
 *     [a_i a_f a_g a_o] = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh                                   (4H)
 *     i, f, o = sigma(a_i), sigma(a_f), sigma(a_o)   g = tanh(a_g)       input, forget, output gate; candidate
 *     c_t = f c_(t-1) + i g
 *     h_t = o tanh(c_t)
 * A layer's output is (T, 2H): the forward h_t and the reverse h_t side by side.
 */
#ifndef LSTM_H
#define LSTM_H

#include "tensor.h"

typedef struct { Tensor w_ih, w_hh, b_ih, b_hh; } LstmCell; /* (4H, in), (4H, H), (1, 4H), (1, 4H) */
typedef struct {
    int layers, hidden;        /* hidden: H, units of one direction */
    LstmCell (*cell)[2];       /* [layer][0: forward, 1: reverse] */
} Lstm;

/* What the backward needs: the gates' values (T, 4H), the cell states (T, H); a row (1, H) to work in. */
typedef struct { Tensor gates, c, dc; } LstmTrace;

static inline LstmTrace lstm_trace(int steps, int hidden) {
    return (LstmTrace){tensor(steps, 4 * hidden), tensor(steps, hidden), tensor_zeros(1, hidden)};
}
static inline real sigmoid(real x) { return 1 / (1 + exp(-x)); }

/* x (T, in); h: a view (T, H) of the layer's output, filled here as the trace is. */
static inline void lstm_cell_forward(const LstmCell *cell, Tensor x, Matrix h, LstmTrace trace, bool reverse) {
    const int steps = x.rows, H = cell->w_hh.cols;
    const Matrix gates = values(trace.gates);
    for (int t = 0; t < steps; t++)
        for (int j = 0; j < 4 * H; j++) row(trace.gates, t)[j] = cell->b_ih.data[j] + cell->b_hh.data[j];
    matmul(gates, values(x), transposed(values(cell->w_ih))); /* the input's half, all steps at once */
    for (int t = 0; t < steps; t++) {
        int now = t, before = t - 1; /* at t = 0 there is none */
        if (reverse) now = steps - 1 - t, before = now + 1;
        real *i = row(trace.gates, now), *f = i + H, *g = f + H, *o = g + H, *c = row(trace.c, now);
        if (t > 0)
            matmul(part(gates, now, 1, 0, 4 * H), part(h, before, 1, 0, H), transposed(values(cell->w_hh)));
        for (int j = 0; j < H; j++) {
            i[j] = sigmoid(i[j]), f[j] = sigmoid(f[j]), g[j] = tanh(g[j]), o[j] = sigmoid(o[j]);
            c[j] = f[j] * (t > 0 ? row(trace.c, before)[j] : 0) + i[j] * g[j];
            h.data[now * h.row_stride + j] = o[j] * tanh(c[j]);
        }
    }
}
/* Backpropagation through time: from the last step to the first, dh_t = dh from above + W_hh' da_(t+1).
 *     da_o = dh tanh(c) o(1-o)          dc += dh o (1 - tanh(c)^2)
 *     da_i = dc g i(1-i)    da_f = dc c_(t-1) f(1-f)    da_g = dc i (1-g^2)    dc_(t-1) = dc f
 * Gate values are overwritten in place by their gradients. Then dW_ih, dW_hh and db, from all steps at once.
 * dh: a view (T, H) of the output's gradient, added to here. The gradient of x is left to lstm_backward. */
static inline void lstm_cell_backward(const LstmCell *cell, Tensor x, Matrix h, Matrix dh, LstmTrace trace,
                                      bool reverse) {
    const int steps = x.rows, H = cell->w_hh.cols;
    const Matrix dgates = values(trace.gates);
    for (int t = steps - 1; t >= 0; t--) {
        int now = t, before = t - 1;
        if (reverse) now = steps - 1 - t, before = now + 1;
        real *gate = row(trace.gates, now), *dc = trace.dc.data;
        for (int j = 0; j < H; j++) {
            const real i = gate[j], f = gate[H + j], g = gate[2 * H + j], o = gate[3 * H + j];
            const real tanh_c = tanh(row(trace.c, now)[j]), c_before = t > 0 ? row(trace.c, before)[j] : 0;
            const real dh_j = dh.data[now * dh.row_stride + j];
            dc[j] += dh_j * o * (1 - tanh_c * tanh_c);
            gate[j] = dc[j] * g * i * (1 - i);
            gate[H + j] = dc[j] * c_before * f * (1 - f);
            gate[2 * H + j] = dc[j] * i * (1 - g * g);
            gate[3 * H + j] = dh_j * tanh_c * o * (1 - o);
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

/* The stack: the input of layer l is the output (T, 2H) of layer l - 1. output[l] and trace[l][direction] are kept. */
typedef struct { Tensor *output; LstmTrace (*trace)[2]; } LstmActivations;

static inline LstmActivations lstm_forward(const Lstm *lstm, Tensor x) {
    LstmActivations a = {allocate(sizeof(Tensor[lstm->layers])), allocate(sizeof(LstmTrace[lstm->layers][2]))};
    for (int l = 0; l < lstm->layers; l++) {
        a.output[l] = tensor(x.rows, 2 * lstm->hidden);
        for (int d = 0; d < 2; d++) a.trace[l][d] = lstm_trace(x.rows, lstm->hidden);
#pragma omp parallel for if (lstm->hidden > 100)
        for (int d = 0; d < 2; d++) {
            const Matrix h = part(values(a.output[l]), 0, x.rows, d * lstm->hidden, lstm->hidden);
            lstm_cell_forward(&lstm->cell[l][d], l ? a.output[l - 1] : x, h, a.trace[l][d], d);
        }
    }
    return a;
}
/* From the gradient of the last layer's output. dx += da W_ih: both directions have the same input x. */
static inline void lstm_backward(const Lstm *lstm, Tensor x, LstmActivations a) {
    for (int l = lstm->layers - 1; l >= 0; l--) {
        if (l) needs_grad(&a.output[l - 1]);
        const Tensor below = l ? a.output[l - 1] : x;
#pragma omp parallel for if (lstm->hidden > 100)
        for (int d = 0; d < 2; d++) {
            const Matrix h = part(values(a.output[l]), 0, x.rows, d * lstm->hidden, lstm->hidden);
            const Matrix dh = part(gradient(a.output[l]), 0, x.rows, d * lstm->hidden, lstm->hidden);
            lstm_cell_backward(&lstm->cell[l][d], below, h, dh, a.trace[l][d], d);
        }
        for (int d = 0; below.grad && d < 2; d++)
            matmul(gradient(below), values(a.trace[l][d].gates), values(lstm->cell[l][d].w_ih));
    }
}

/* The weights are added to the list with PyTorch's names: PREFIXweight_ih_l0, PREFIXweight_ih_l0_reverse, ... */
static inline Lstm lstm_new(int layers, int inputs, int hidden, const char *prefix, Parameters *list) {
    Lstm lstm = {layers, hidden, allocate(sizeof(LstmCell[layers][2]))};
    for (int l = 0; l < layers; l++)
        for (int d = 0; d < 2; d++) {
            LstmCell *cell = &lstm.cell[l][d];
            const char *end = format("l%d%s", l, d ? "_reverse" : "");
            const int width = l ? 2 * hidden : inputs; /* of the layer's input */
            add_parameter(list, MATRIX, &cell->w_ih, 4 * hidden, width, format("%sweight_ih_%s", prefix, end));
            add_parameter(list, MATRIX, &cell->w_hh, 4 * hidden, hidden, format("%sweight_hh_%s", prefix, end));
            add_parameter(list, BIAS, &cell->b_ih, 1, 4 * hidden, format("%sbias_ih_%s", prefix, end));
            add_parameter(list, BIAS, &cell->b_hh, 1, 4 * hidden, format("%sbias_hh_%s", prefix, end));
        }
    return lstm;
}
static inline void lstm_random(const Lstm *lstm, Random *random) { /* PyTorch's: U(+-1/sqrt(hidden)) */
    const double bound = 1 / sqrt((double)lstm->hidden);
    for (int l = 0; l < lstm->layers; l++)
        for (int d = 0; d < 2; d++) {
            const LstmCell *cell = &lstm->cell[l][d];
            const Tensor tensors[] = {cell->w_ih, cell->w_hh, cell->b_ih, cell->b_hh};
            for (int k = 0; k < 4; k++) fill_uniform(tensors[k], bound, random);
        }
}

#endif
