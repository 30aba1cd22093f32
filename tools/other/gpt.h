/* Another right solution of assignment 15: the last layer like the others, but for the rows that it keeps. */

static inline int *seen_by_tokens(const Batch *batch, bool selected_only, int m) {
    int *seen = allocate(sizeof(int) * (size_t)batch->tokens), *kept = allocate(sizeof(int) * (size_t)batch->tokens);
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s], count = m + 1; i < batch->start[s + 1]; i++) seen[i] = count++;
    for (int r = 0; r < batch->selected_count; r++) kept[r] = seen[batch->selected[r]];
    return selected_only ? kept : seen;
}
static inline GptLayerActivations gpt_layer_forward(const GptLayer *l, Tensor x, int heads, const Batch *batch,
                                                    bool last, Tensor prefix) {
    GptLayerActivations a;
    const int *q_start = batch->start;
    a.query_input = a.normed = layernorm_forward(&l->attention_norm, x);
    a.residual = x;
    if (last) {
        a.query_input = rows_forward(a.normed, batch->selected, batch->selected_count);
        a.residual = rows_forward(x, batch->selected, batch->selected_count);
        q_start = batch->selected_start;
    }
    a.v = prefix_forward(prefix, l->column + x.cols, linear_forward(&l->value, a.normed), batch);
    a.k = prefix_forward(prefix, l->column, linear_forward(&l->key, a.normed), batch);
    a.q = linear_forward(&l->query, a.query_input);
    a.attention = attention_forward(a.q, a.k, a.v, heads, batch->sequences, q_start, prefix_starts(prefix, batch),
                                    seen_by_tokens(batch, last, prefix.rows));
    a.attended = linear_forward(&l->attention_output, a.attention.context);
    for (size_t i = 0; i < size_of(a.attended); i++) a.attended.data[i] += a.residual.data[i];
    a.attended_normed = layernorm_forward(&l->feed_forward_norm, a.attended);
    a.inner = linear_forward(&l->intermediate, a.attended_normed);
    a.active = activation_forward(l->tanh_gelu, a.inner);
    a.y = linear_forward(&l->output, a.active);
    residual_forward(a.y, a.attended);
    return a;
}
static inline void gpt_layer_backward(const GptLayer *l, Tensor x, GptLayerActivations *a, int heads,
                                      const Batch *batch, bool last, Tensor prefix) {
    needs_grad(&a->active), needs_grad(&a->inner), needs_grad(&a->attended_normed);
    linear_backward(&l->output, a->active, a->y);
    needs_grad(&a->attended);
    for (size_t i = 0; i < size_of(a->y); i++) a->attended.grad[i] = a->y.grad[i];
    activation_backward(l->tanh_gelu, a->inner, a->active);
    linear_backward(&l->intermediate, a->attended_normed, a->inner);
    layernorm_backward(&l->feed_forward_norm, a->attended, a->attended_normed);
    needs_grad(&a->attention.context), needs_grad(&a->q), needs_grad(&a->k), needs_grad(&a->v);
    linear_backward(&l->attention_output, a->attention.context, a->attended);
    attention_backward(&a->attention, a->q, a->k, a->v, heads, batch->sequences,
                       last ? batch->selected_start : batch->start, prefix_starts(prefix, batch));
    Tensor normed = a->normed, query_input = a->query_input;
    needs_grad(&normed), needs_grad(&query_input);
    linear_backward(&l->query, query_input, a->q);
    linear_backward(&l->key, normed, prefix_backward(prefix, l->column, a->k, batch));
    linear_backward(&l->value, normed, prefix_backward(prefix, l->column + x.cols, a->v, batch));
    for (int r = 0; r < query_input.rows; r++) {
        const int i = last ? batch->selected[r] : r;
        for (int j = 0; j < x.cols; j++) {
            grad_row(normed, i)[j] += grad_row(query_input, r)[j];
            if (x.grad) grad_row(x, i)[j] += grad_row(a->attended, r)[j];
        }
    }
    layernorm_backward(&l->attention_norm, x, normed);
}
