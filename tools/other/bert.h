/* Other right solutions of assignments 8 and 16: no view of a matrix, only loops; each row asks where it comes from. */

static inline Attention attention_forward(Tensor q, Tensor k, Tensor v, int heads, int sequences, const int *q_start,
                                          const int *k_start, const int *seen) {
    const int width = q.cols / heads;
    Attention a = {tensor_zeros(q.rows, q.cols), allocate(sizeof(Tensor[sequences]))};
    for (int s = 0; s < sequences; s++) {
        const int first = k_start[s], keys = k_start[s + 1] - first, queries = q_start[s + 1] - q_start[s];
        a.p[s] = tensor_zeros(heads * queries, keys);
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < queries; i++) {
                real *p = row(a.p[s], h * queries + i);
                const int used = seen ? seen[q_start[s] + i] : keys;
                for (int j = 0; j < used; j++)
                    for (int c = h * width; c < (h + 1) * width; c++)
                        p[j] += row(q, q_start[s] + i)[c] * row(k, first + j)[c];
                softmax_forward(p, used, (real)pow(width, -0.5));
                for (int j = 0; j < used; j++)
                    for (int c = h * width; c < (h + 1) * width; c++)
                        row(a.context, q_start[s] + i)[c] += p[j] * row(v, first + j)[c];
            }
    }
    return a;
}
static inline void attention_backward(const Attention *a, Tensor q, Tensor k, Tensor v, int heads, int sequences,
                                      const int *q_start, const int *k_start) {
    const int width = q.cols / heads;
    for (int s = 0; s < sequences; s++) {
        const int first = k_start[s], keys = k_start[s + 1] - first, queries = q_start[s + 1] - q_start[s];
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < queries; i++) {
                const real *p = row(a->p[s], h * queries + i), *dcontext = grad_row(a->context, q_start[s] + i);
                real ds[keys];
                for (int j = 0; j < keys; j++) {
                    ds[j] = 0;
                    for (int c = h * width; c < (h + 1) * width; c++) {
                        ds[j] += dcontext[c] * row(v, first + j)[c];
                        grad_row(v, first + j)[c] += p[j] * dcontext[c];
                    }
                }
                softmax_backward(p, ds, keys, (real)pow(width, -0.5));
                for (int j = 0; j < keys; j++)
                    for (int c = h * width; c < (h + 1) * width; c++) {
                        grad_row(q, q_start[s] + i)[c] += ds[j] * row(k, first + j)[c];
                        grad_row(k, first + j)[c] += ds[j] * row(q, q_start[s] + i)[c];
                    }
            }
    }
}

static inline Tensor prefix_forward(Tensor prefix, int column, Tensor x, const Batch *batch) {
    const int m = prefix.rows;
    Tensor y = tensor(x.rows + m * batch->sequences, x.cols);
    for (int r = 0, s = 0, i = 0; r < y.rows; r++, i++) {
        if (i == m + batch->start[s + 1] - batch->start[s]) s++, i = 0;
        for (int j = 0; j < x.cols; j++)
            row(y, r)[j] = i < m ? row(prefix, i)[column + j] : row(x, r - m * (s + 1))[j];
    }
    return y;
}
static inline Tensor prefix_backward(Tensor prefix, int column, Tensor y, const Batch *batch) {
    const int m = prefix.rows;
    if (m == 0) return y;
    Tensor x = tensor(batch->tokens, y.cols);
    x.grad = tensor(x.rows, x.cols).data;
    for (int r = 0, s = 0, i = 0; r < y.rows; r++, i++) {
        if (i == m + batch->start[s + 1] - batch->start[s]) s++, i = 0;
        for (int j = 0; j < y.cols; j++) {
            if (i >= m) grad_row(x, r - m * (s + 1))[j] = grad_row(y, r)[j];
            else if (prefix.grad) grad_row(prefix, i)[column + j] += grad_row(y, r)[j];
        }
    }
    return x;
}
