/* Another right solution of assignment 16: sums by hand, tanh by its exponentials. */

static inline void deep_forward(DeepPrompt *d) {
    if (d->embedding.rows == 0) return;
    const int m = d->embedding.rows, units = d->first.w.rows;
    d->inner = tensor(m, units), d->active = tensor(m, units);
    for (int i = 0; i < m; i++) {
        for (int u = 0; u < units; u++) {
            real sum = d->first.b.data[u];
            for (int j = 0; j < d->embedding.cols; j++) sum += row(d->first.w, u)[j] * row(d->embedding, i)[j];
            row(d->inner, i)[u] = sum;
            row(d->active, i)[u] = 1 - 2 / (exp(2 * sum) + 1);
        }
        for (int c = 0; c < d->prefix->cols; c++) {
            real sum = d->second.b.data[c];
            for (int u = 0; u < units; u++) sum += row(d->second.w, c)[u] * row(d->active, i)[u];
            row(*d->prefix, i)[c] = sum;
        }
    }
}
static inline void deep_backward(DeepPrompt *d) {
    if (d->embedding.rows == 0) return;
    const int m = d->embedding.rows, units = d->first.w.rows;
    for (int i = 0; i < m; i++) {
        real *dprefix = grad_row(*d->prefix, i);
        for (int u = 0; u < units; u++) {
            const real active = row(d->active, i)[u];
            real dinner = 0;
            for (int c = 0; c < d->prefix->cols; c++) {
                dinner += dprefix[c] * row(d->second.w, c)[u];
                if (d->second.w.grad) grad_row(d->second.w, c)[u] += dprefix[c] * active;
            }
            dinner *= 1 - active * active;
            if (d->first.b.grad) d->first.b.grad[u] += dinner;
            for (int j = 0; j < d->embedding.cols; j++) {
                if (d->first.w.grad) grad_row(d->first.w, u)[j] += dinner * row(d->embedding, i)[j];
                if (d->embedding.grad) grad_row(d->embedding, i)[j] += dinner * row(d->first.w, u)[j];
            }
        }
        for (int c = 0; c < d->prefix->cols; c++) {
            if (d->second.b.grad) d->second.b.grad[c] += dprefix[c];
            dprefix[c] = 0;
        }
    }
}
