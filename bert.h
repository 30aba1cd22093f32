/* bert.h - BERT (Devlin et al. 2019) with its masked-LM head: forward and backward, weights by their published names.
 *
 * It takes embeddings rather than word ids, so that a caller may put any vector in the place of a word, and it is told
 * the selected positions: those whose logits are wanted. A batch is one tall matrix of all its tokens, without padding:
 *     sequence s has the rows start[s] .. start[s + 1] - 1;
 *     its selected positions are the rows selected[selected_start[s]] .. selected[selected_start[s + 1] - 1].
 * H hidden size, I intermediate size, A heads, V words, N tokens of the batch, R selected positions.
 */
#ifndef BERT_H
#define BERT_H

#include "files.h"

typedef struct {
    Linear query, key, value, attention_output; /* (H, H) each */
    LayerNorm attention_norm;
    Linear intermediate, output; /* (I, H), (H, I) */
    LayerNorm output_norm;
    bool tanh_gelu; /* the activation is gelu's form with tanh */
    int column;     /* where this layer's columns of a deep prompt begin */
} BertLayer;

typedef struct {
    int hidden, layers, heads, intermediate, vocab, positions, types;
    real eps; /* of every layernorm */
    Tensor word, position, type; /* embedding tables (V, H), (positions, H), (types, H) */
    LayerNorm embedding_norm;
    BertLayer *layer;
    Linear transform; /* the head: (H, H), gelu, layernorm, then the word table again, with a bias per word */
    LayerNorm transform_norm;
    Tensor decoder_bias; /* (1, V) */
    bool separate_decoder; /* some models have been trained with a table of its own in the word table's place: */
    Tensor decoder;        /* (V, H) */
    Linear classifier;     /* (K, H): a tagger's head, in the masked LM's place; empty: none. Not a published weight */
    bool tanh_gelu;
    Tensor prefix;      /* a deep prompt (m, 2 H layers), see prefix_forward; empty: none. Not a published weight */
    int first_position; /* of each sequence: 0, or where a deep prompt takes the first ones, m */
    Parameters weights;  /* all weights by their published names; they point into this struct, which must not move */
    TensorFiles files;   /* the mapped files they lie in */
} Bert;

typedef struct {
    int sequences, tokens, selected_count;
    int *start, *selected_start; /* (sequences + 1) each: first row of a sequence, its first entry in `selected` */
    int *selected;               /* (selected_count): rows of the batch */
} Batch;

/* ---- rows: y = the listed rows of x --------------------------------------------------------------------------- */
static inline Tensor rows_forward(Tensor x, const int *index, int count) {
    Tensor y = tensor(count, x.cols);
    for (int i = 0; i < count; i++) memcpy(row(y, i), row(x, index[i]), (size_t)x.cols * sizeof(real));
    return y;
}
static inline void rows_backward(Tensor x, const int *index, Tensor y) {
    for (int i = 0; i < y.rows; i++)
        for (int j = 0; j < y.cols; j++) grad_row(x, index[i])[j] += grad_row(y, i)[j];
}
/* The rows from `first` on, with their gradient: not a copy. */
static inline Tensor rows_from(Tensor t, int first) {
    return (Tensor){t.rows - first, t.cols, row(t, first), t.grad ? grad_row(t, first) : NULL, NULL};
}

/* ---- attention (Vaswani et al. 2017), for each sequence and each head with its columns of q, k, v:
 *     P = softmax(Q K' / sqrt(H / A)),   context = P V
 * q (R or N, H): of the selected positions or of all; k, v (N, H), or with a deep prompt's rows among them. Sequence s
 * has the rows q_start[s] .. q_start[s + 1] - 1 of q, and k_start says the same of k and v. In a causal LM query i sees
 * only the first seen[i] keys of its sequence, and the rest of its row of P is 0; in BERT seen is NULL, and every query
 * sees all keys. */
typedef struct { Tensor context, *p; } Attention; /* p[s] (A queries, keys): the P of a sequence, head under head */

/* The rows of sequence s and the columns of head h. */
static inline Matrix attention_head(Matrix all, const int *start, int heads, int s, int h) {
    const int width = all.cols / heads;
    return part(all, start[s], start[s + 1] - start[s], h * width, width);
}
/* The P of head h. */
static inline Matrix attention_p(Matrix p, int heads, int h) {
    return part(p, h * (p.rows / heads), p.rows / heads, 0, p.cols);
}
/* The softmax of each row of P; row i is that of query q0 + i. */
static inline void attention_softmax(Matrix P, real scale, const int *seen, int q0) {
    for (int i = 0; i < P.rows; i++) {
        real *p = P.data + i * P.row_stride;
        const int keys = seen ? seen[q0 + i] : P.cols;
        softmax_forward(p, keys, scale);
        for (int j = keys; j < P.cols; j++) p[j] = 0;
    }
}
static inline Attention attention_forward(Tensor q, Tensor k, Tensor v, int heads, int sequences, const int *q_start,
                                          const int *k_start, const int *seen) {
    const real scale = 1 / sqrt((real)(q.cols / heads));
    Attention a = {tensor_zeros(q.rows, q.cols), allocate(sizeof(Tensor[sequences]))};
    for (int s = 0; s < sequences; s++)
        a.p[s] = tensor_zeros(heads * (q_start[s + 1] - q_start[s]), k_start[s + 1] - k_start[s]);
#pragma omp parallel for collapse(2) schedule(dynamic) if (size_of(q) > 20000)
    for (int s = 0; s < sequences; s++)
        for (int h = 0; h < heads; h++) {
            const Matrix Q = attention_head(values(q), q_start, heads, s, h);
            const Matrix K = attention_head(values(k), k_start, heads, s, h);
            const Matrix V = attention_head(values(v), k_start, heads, s, h);
            const Matrix P = attention_p(values(a.p[s]), heads, h);
            matmul(P, Q, transposed(K));
            attention_softmax(P, scale, seen, q_start[s]);
            matmul(attention_head(values(a.context), q_start, heads, s, h), P, V);
        }
    return a;
}
/* dV += P' dcontext;   dP = dcontext V';   dS = P (dP - rowsum(dP P)) / sqrt(H / A);   dQ += dS K;   dK += dS' Q
 * Where a key is not seen P is 0, and so is dS: nothing flows back there. */
static inline void attention_backward(const Attention *a, Tensor q, Tensor k, Tensor v, int heads, int sequences,
                                      const int *q_start, const int *k_start) {
    const real scale = 1 / sqrt((real)(q.cols / heads));
    for (int s = 0; s < sequences; s++) needs_grad(&a->p[s]);
#pragma omp parallel for collapse(2) schedule(dynamic) if (size_of(q) > 20000)
    for (int s = 0; s < sequences; s++)
        for (int h = 0; h < heads; h++) {
            const Matrix Q = attention_head(values(q), q_start, heads, s, h);
            const Matrix K = attention_head(values(k), k_start, heads, s, h);
            const Matrix V = attention_head(values(v), k_start, heads, s, h);
            const Matrix P = attention_p(values(a->p[s]), heads, h), dS = attention_p(gradient(a->p[s]), heads, h);
            const Matrix dcontext = attention_head(gradient(a->context), q_start, heads, s, h);
            matmul(attention_head(gradient(v), k_start, heads, s, h), transposed(P), dcontext);
            matmul(dS, dcontext, transposed(V));
            for (int i = 0; i < P.rows; i++)
                softmax_backward(P.data + i * P.row_stride, dS.data + i * dS.row_stride, P.cols, scale);
            matmul(attention_head(gradient(q), q_start, heads, s, h), dS, K);
            matmul(attention_head(gradient(k), k_start, heads, s, h), transposed(dS), Q);
        }
}

/* ---- a deep prompt (Liu et al. 2022): m trained vectors before the keys and before the values of every layer --------
 * prefix (m, 2 H layers): from column 2 H l on the keys of layer l, then its values. All sequences share it. x (N, H)
 * becomes y (N + m S, H), S sequences: sequence s begins with the m rows of the prefix, at row start[s] + m s, and its
 * rows of x follow. Without a prefix y is x. */
static inline const int *prefix_starts(Tensor prefix, const Batch *batch) {
    if (!prefix.rows) return batch->start;
    int *start = allocate(sizeof(int[batch->sequences + 1]));
    for (int s = 0; s <= batch->sequences; s++) start[s] = batch->start[s] + prefix.rows * s;
    return start;
}
static inline Tensor prefix_forward(Tensor prefix, int column, Tensor x, const Batch *batch) {
    if (!prefix.rows) return x;
    const int *start = prefix_starts(prefix, batch), m = prefix.rows;
    Tensor y = tensor(start[batch->sequences], x.cols);
    for (int s = 0; s < batch->sequences; s++) {
        for (int i = 0; i < m; i++)
            memcpy(row(y, start[s] + i), row(prefix, i) + column, (size_t)x.cols * sizeof(real));
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++)
            memcpy(row(y, i + m * (s + 1)), row(x, i), (size_t)x.cols * sizeof(real));
    }
    return y;
}
/* dprefix += the sum of its copies' dy, in the order of the sequences; dx, the other rows of dy, is returned. */
static inline Tensor prefix_backward(Tensor prefix, int column, Tensor y, const Batch *batch) {
    if (!prefix.rows) return y;
    const int *start = prefix_starts(prefix, batch), m = prefix.rows;
    Tensor x = {batch->tokens, y.cols, NULL, NULL, NULL};
    needs_grad(&x);
    for (int s = 0; s < batch->sequences; s++) {
        for (int i = 0; prefix.grad && i < m; i++)
            for (int j = 0; j < y.cols; j++) grad_row(prefix, i)[column + j] += grad_row(y, start[s] + i)[j];
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++)
            memcpy(grad_row(x, i), grad_row(y, i + m * (s + 1)), (size_t)y.cols * sizeof(real));
    }
    return x;
}

/* ---- embeddings: sum = e + position + type 0; the layernorm after it stands in bert_forward ---------------------
 * e (N, H): one row per token, chosen by the caller. */
static inline Tensor embeddings_forward(const Bert *bert, Tensor e, const Batch *batch) {
    const Tensor table = rows_from(bert->position, bert->first_position);
    Tensor sum = tensor(e.rows, e.cols);
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++) {
            const real *position = row(table, i - batch->start[s]);
            for (int j = 0; j < e.cols; j++) row(sum, i)[j] = row(e, i)[j] + position[j] + bert->type.data[j];
        }
    return sum;
}
static inline void embeddings_backward(const Bert *bert, Tensor e, Tensor sum, const Batch *batch) {
    const Tensor table = rows_from(bert->position, bert->first_position);
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++)
            for (int j = 0; j < e.cols; j++) {
                if (e.grad) grad_row(e, i)[j] += grad_row(sum, i)[j];
                if (table.grad) grad_row(table, i - batch->start[s])[j] += grad_row(sum, i)[j];
                if (bert->type.grad) bert->type.grad[j] += grad_row(sum, i)[j];
            }
}

/* ---- the activation: one of gelu's two forms --------------------------------------------------------------------- */
static inline Tensor activation_forward(bool tanh_gelu, Tensor x) {
    return tanh_gelu ? tanh_gelu_forward(x) : gelu_forward(x);
}
static inline void activation_backward(bool tanh_gelu, Tensor x, Tensor y) {
    if (tanh_gelu) tanh_gelu_backward(x, y);
    else gelu_backward(x, y);
}

/* ---- one layer: attention and feed-forward, each with a residual and a layernorm after it -----------------------
 * x (N, H). In the last layer only selected positions compute queries and outputs; keys and values need all of x. */
typedef struct {
    Tensor query_input; /* x itself, or its selected rows */
    Tensor q, k, v;     /* k and v with the deep prompt, if there is one */
    Attention attention;
    Tensor attended, normed; /* dense(context) + query_input; its layernorm */
    Tensor inner, active;    /* (., I): before and after gelu */
    Tensor sum, y;           /* dense(active) + normed; its layernorm: the layer's output */
} LayerActivations;

static inline LayerActivations layer_forward(const BertLayer *l, Tensor x, int heads, const Batch *batch, bool last,
                                             Tensor prefix) {
    LayerActivations a = {.query_input = last ? rows_forward(x, batch->selected, batch->selected_count) : x};
    a.q = linear_forward(&l->query, a.query_input);
    a.k = prefix_forward(prefix, l->column, linear_forward(&l->key, x), batch);
    a.v = prefix_forward(prefix, l->column + x.cols, linear_forward(&l->value, x), batch);
    a.attention = attention_forward(a.q, a.k, a.v, heads, batch->sequences, last ? batch->selected_start : batch->start,
                                    prefix_starts(prefix, batch), NULL);
    a.attended = linear_forward(&l->attention_output, a.attention.context);
    residual_forward(a.attended, a.query_input);
    a.normed = layernorm_forward(&l->attention_norm, a.attended);
    a.inner = linear_forward(&l->intermediate, a.normed);
    a.active = activation_forward(l->tanh_gelu, a.inner);
    a.sum = linear_forward(&l->output, a.active);
    residual_forward(a.sum, a.normed);
    a.y = layernorm_forward(&l->output_norm, a.sum);
    return a;
}
/* From y.grad to x.grad. The gradients in between are released when the layer is done. */
static inline void layer_backward(const BertLayer *l, Tensor x, LayerActivations *a, int heads, const Batch *batch,
                                  bool last, Tensor prefix) {
    Mark before = mark();
    Tensor query_input = last ? a->query_input : x;
    needs_grad(&a->sum);
    layernorm_backward(&l->output_norm, a->sum, a->y);
    needs_grad(&a->normed);
    residual_backward(a->sum, a->normed);
    needs_grad(&a->active);
    linear_backward(&l->output, a->active, a->sum);
    needs_grad(&a->inner);
    activation_backward(l->tanh_gelu, a->inner, a->active);
    linear_backward(&l->intermediate, a->normed, a->inner);
    needs_grad(&a->attended);
    layernorm_backward(&l->attention_norm, a->attended, a->normed);
    if (last) needs_grad(&query_input);
    residual_backward(a->attended, query_input);
    needs_grad(&a->attention.context);
    linear_backward(&l->attention_output, a->attention.context, a->attended);
    needs_grad(&a->q), needs_grad(&a->k), needs_grad(&a->v);
    attention_backward(&a->attention, a->q, a->k, a->v, heads, batch->sequences,
                       last ? batch->selected_start : batch->start, prefix_starts(prefix, batch));
    linear_backward(&l->value, x, prefix_backward(prefix, l->column + x.cols, a->v, batch));
    linear_backward(&l->key, x, prefix_backward(prefix, l->column, a->k, batch));
    linear_backward(&l->query, query_input, a->q);
    if (last) rows_backward(x, batch->selected, query_input);
    release(before);
}

/* ---- the masked-LM head: logits = layernorm(gelu(dense(x))) word' + bias; or a tagger's: logits = x W' + b ------- */
typedef struct { Tensor inner, active, normed, logits; } HeadActivations;

static inline Linear bert_decoder(const Bert *bert) { /* tied: the word table serves both ends */
    return (Linear){bert->separate_decoder ? bert->decoder : bert->word, bert->decoder_bias};
}
static inline HeadActivations head_forward(const Bert *bert, Tensor x) {
    if (bert->classifier.w.rows) return (HeadActivations){.logits = linear_forward(&bert->classifier, x)};
    const Linear decoder = bert_decoder(bert);
    HeadActivations a;
    a.inner = linear_forward(&bert->transform, x);
    a.active = activation_forward(bert->tanh_gelu, a.inner);
    a.normed = layernorm_forward(&bert->transform_norm, a.active);
    a.logits = linear_forward(&decoder, a.normed);
    return a;
}
static inline void head_backward(const Bert *bert, Tensor x, HeadActivations *a) {
    if (bert->classifier.w.rows) {
        linear_backward(&bert->classifier, x, a->logits);
        return;
    }
    const Linear decoder = bert_decoder(bert);
    needs_grad(&a->normed);
    linear_backward(&decoder, a->normed, a->logits);
    needs_grad(&a->active);
    layernorm_backward(&bert->transform_norm, a->active, a->normed);
    needs_grad(&a->inner);
    activation_backward(bert->tanh_gelu, a->inner, a->active);
    linear_backward(&bert->transform, x, a->inner);
}

/* ---- the whole: e (N, H) -> logits (R, V) of the selected positions ---------------------------------------------- */
typedef struct { Tensor e, sum, x; LayerActivations *layer; HeadActivations head; } BertActivations;

static inline BertActivations bert_forward(const Bert *bert, Tensor e, const Batch *batch) {
    BertActivations a = {.e = e, .layer = allocate(sizeof(LayerActivations[bert->layers]))};
    a.sum = embeddings_forward(bert, e, batch);
    a.x = layernorm_forward(&bert->embedding_norm, a.sum);
    for (int l = 0; l < bert->layers; l++)
        a.layer[l] = layer_forward(&bert->layer[l], l ? a.layer[l - 1].y : a.x, bert->heads, batch,
                                   l == bert->layers - 1, bert->prefix);
    a.head = head_forward(bert, a.layer[bert->layers - 1].y);
    return a;
}
/* The logits alone, for when no backward follows: a layer's activations are released once its output is copied. */
static inline Tensor bert_logits(const Bert *bert, Tensor e, const Batch *batch) {
    Tensor x = layernorm_forward(&bert->embedding_norm, embeddings_forward(bert, e, batch));
    for (int l = 0; l < bert->layers; l++) {
        Mark before = mark();
        const Tensor y = layer_forward(&bert->layer[l], x, bert->heads, batch, l == bert->layers - 1, bert->prefix).y;
        memcpy(x.data, y.data, size_of(y) * sizeof(real));
        x.rows = y.rows;
        release(before);
    }
    return head_forward(bert, x).logits;
}
/* From the gradient of the logits to that of e and of every trained weight. */
static inline void bert_backward(const Bert *bert, BertActivations *a, const Batch *batch) {
    Tensor *top = &a->layer[bert->layers - 1].y;
    needs_grad(top);
    head_backward(bert, *top, &a->head);
    for (int l = bert->layers - 1; l >= 0; l--) {
        Tensor *below = l ? &a->layer[l - 1].y : &a->x;
        needs_grad(below);
        layer_backward(&bert->layer[l], *below, &a->layer[l], bert->heads, batch, l == bert->layers - 1, bert->prefix);
    }
    needs_grad(&a->sum);
    layernorm_backward(&bert->embedding_norm, a->sum, a->x);
    embeddings_backward(bert, a->e, a->sum, batch);
}

/* ---- weights: each with its published name and its shape, in the order of the forward pass ----------------------- */
static inline void bert_list_weights(Bert *b) {
    Parameters list = {allocate(sizeof(Parameter[11 + 16 * b->layers])), 0};
    b->layer = allocate_zeroed(sizeof(BertLayer[b->layers]));
    const int H = b->hidden;
    add_parameter(&list, MATRIX, &b->word, b->vocab, H, "bert.embeddings.word_embeddings.weight");
    add_parameter(&list, MATRIX, &b->position, b->positions, H, "bert.embeddings.position_embeddings.weight");
    add_parameter(&list, MATRIX, &b->type, b->types, H, "bert.embeddings.token_type_embeddings.weight");
    add_layernorm(&list, &b->embedding_norm, H, b->eps, "bert.embeddings.LayerNorm");
    for (int i = 0; i < b->layers; i++) {
        BertLayer *l = &b->layer[i];
        l->tanh_gelu = b->tanh_gelu, l->column = 2 * H * i;
        const char *in = format("bert.encoder.layer.%d", i);
        add_linear(&list, &l->query, H, H, format("%s.attention.self.query", in));
        add_linear(&list, &l->key, H, H, format("%s.attention.self.key", in));
        add_linear(&list, &l->value, H, H, format("%s.attention.self.value", in));
        add_linear(&list, &l->attention_output, H, H, format("%s.attention.output.dense", in));
        add_layernorm(&list, &l->attention_norm, H, b->eps, format("%s.attention.output.LayerNorm", in));
        add_linear(&list, &l->intermediate, b->intermediate, H, format("%s.intermediate.dense", in));
        add_linear(&list, &l->output, H, b->intermediate, format("%s.output.dense", in));
        add_layernorm(&list, &l->output_norm, H, b->eps, format("%s.output.LayerNorm", in));
    }
    add_linear(&list, &b->transform, H, H, "cls.predictions.transform.dense");
    add_layernorm(&list, &b->transform_norm, H, b->eps, "cls.predictions.transform.LayerNorm");
    if (b->separate_decoder)
        add_parameter(&list, MATRIX, &b->decoder, b->vocab, H, "cls.predictions.decoder.weight");
    add_parameter(&list, BIAS, &b->decoder_bias, 1, b->vocab,
                  b->separate_decoder ? "cls.predictions.decoder.bias" : "cls.predictions.bias");
    b->weights = list;
}

/* Initial values for pretraining (Devlin et al. 2019). */
static inline void bert_random(Bert *bert, Random *random) { parameters_random(bert->weights, random); }

/* ---- config.json: what is absent has BERT's value; a setting that is not implemented is refused by its name ------ */
static inline int config_int(Text config, const char *path, const char *name, int absent) {
    Text value;
    const int number = json_member(config, name, &value) ? json_int(value) : absent;
    if (number < 1 || number > 1 << 24) die("%s: no sensible %s", path, name);
    return number;
}
static inline void config_refuse(Text config, const char *path, const char *name, const char *implemented) {
    Text value;
    if (json_member(config, name, &value) && !text_is(value, implemented) && !text_is(value, "null"))
        die("%s: %s is %.40s: only %s is implemented", path, name, text_line(value), implemented);
}
/* Both names of gelu, and all names of its form with tanh. */
static inline bool config_tanh_gelu(Text config, const char *path, const char *name, bool absent) {
    static const char *const names[] = {"\"gelu\"", "\"gelu_python\"", "\"gelu_new\"", "\"gelu_pytorch_tanh\"",
                                        "\"gelu_fast\"", "\"gelu_accurate\"", "\"gelu_python_tanh\""};
    Text value;
    if (!json_member(config, name, &value)) return absent;
    for (int k = 0; k < 7; k++)
        if (text_is(value, names[k])) return k > 1;
    die("%s: %s is not gelu or its form with tanh (gelu_new): %.40s", path, name, text_line(value));
}
static inline real config_eps(Text config, const char *path, const char *name, double absent) {
    Text value;
    const double eps = json_member(config, name, &value) ? json_number(value) : absent;
    if (!(eps >= 0)) die("%s: no sensible %s", path, name);
    return (real)eps;
}
static inline void config_check_sizes(const char *path, const char *hidden_name, int hidden, const char *heads_name,
                                      int heads, int layers) {
    if (hidden % heads) die("%s: %s %d is not a multiple of %s %d", path, hidden_name, hidden, heads_name, heads);
    if (layers > 1000) die("%s: %d layers", path, layers);
}
static inline void config_check_common(Text config, const char *path) { /* BERT's and GPT-2's */
    Text value;
    if (json_member(config, "pruned_heads", &value) && json_count(value))
        die("%s: pruned_heads is not implemented", path);
    if (json_member(config, "quantization_config", &value) && !text_is(value, "null"))
        die("%s: quantization_config is not implemented: save the model without it", path);
}
static inline void config_check(Text config, const char *path) {
    Text value;
    if (json_member(config, "model_type", &value) && !text_is(value, "\"bert\""))
        die("%s: model_type is %.40s: only bert and gpt2 are implemented", path, text_line(value));
    config_refuse(config, path, "is_decoder", "false");
    config_refuse(config, path, "add_cross_attention", "false");
    config_refuse(config, path, "position_embedding_type", "\"absolute\"");
    config_check_common(config, path);
}
static inline void bert_config(Bert *bert, Text config, const char *path) { /* the sizes */
    config_check(config, path);
    *bert = (Bert){.hidden = config_int(config, path, "hidden_size", 768),
                   .layers = config_int(config, path, "num_hidden_layers", 12),
                   .heads = config_int(config, path, "num_attention_heads", 12),
                   .intermediate = config_int(config, path, "intermediate_size", 3072),
                   .vocab = config_int(config, path, "vocab_size", 30522),
                   .positions = config_int(config, path, "max_position_embeddings", 512),
                   .types = config_int(config, path, "type_vocab_size", 2),
                   .tanh_gelu = config_tanh_gelu(config, path, "hidden_act", false),
                   .eps = config_eps(config, path, "layer_norm_eps", 1e-12)};
    config_check_sizes(path, "hidden_size", bert->hidden, "num_attention_heads", bert->heads, bert->layers);
}

/* ---- the weights of a folder ------------------------------------------------------------------------------------- */

/* The tensor with a published name, or with one of its other spellings: without "bert.", as a model without a head is
 * saved, and with gamma and beta, as it was first published. */
static inline bool find_weight(const TensorFiles *files, const char *published, Tensor *t) {
    static const char *const spellings[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"},
                                               {"LayerNorm.bias", "LayerNorm.beta"}};
    const char *names[4] = {published};
    int count = 1;
    for (int s = 0; s < 2; s++) {
        const char *at = strstr(published, spellings[s][0]);
        if (at) names[count++] = format("%.*s%s", (int)(at - published), published, spellings[s][1]);
    }
    for (int i = 0, all = count; i < all; i++)
        if (!strncmp(names[i], "bert.", 5)) names[count++] = names[i] + 5;
    for (int i = 0; i < count; i++)
        if (tensor_files_find(files, names[i], t)) return true;
    return false;
}
static inline void check_shape(const TensorFiles *files, const char *name, Tensor t, int rows, int cols) {
    if (t.rows != rows || t.cols != cols)
        die("%s: %s is (%d, %d), expected (%d, %d)", files->path, name, t.rows, t.cols, rows, cols);
}
static inline Tensor get_weight(const TensorFiles *files, const char *name, int rows, int cols) {
    Tensor t;
    if (!find_weight(files, name, &t))
        die("%s: no tensor %s%s", files->path, name,
            strncmp(name, "cls.", 4) ? "" : ": is this a model without its masked-LM head?");
    check_shape(files, name, t, rows, cols);
    return t;
}
/* Whether the words have a table of their own at the end: a decoder.weight that differs from the word table, whatever
 * tie_word_embeddings says. If that says false, there must be one. */
static inline bool has_separate_decoder(const TensorFiles *files, const Bert *bert, Text config, const char *path) {
    Text value;
    Tensor decoder;
    const bool tied = !json_member(config, "tie_word_embeddings", &value) || !text_is(value, "false");
    Mark before = mark();
    const bool given = tensor_files_find(files, "cls.predictions.decoder.weight", &decoder);
    const Tensor word = get_weight(files, "bert.embeddings.word_embeddings.weight", bert->vocab, bert->hidden);
    if (!tied && !given)
        die("%s: tie_word_embeddings is false, but %s has no cls.predictions.decoder.weight", path, files->path);
    if (given) check_shape(files, "cls.predictions.decoder.weight", decoder, bert->vocab, bert->hidden);
    const bool differs = given && memcmp(decoder.data, word.data, size_of(word) * sizeof(real));
    release(before);
    return differs;
}
/* A model folder. Exits if a file is missing or broken, or a tensor has another shape than config.json says. */
static inline void bert_load(Bert *bert, const char *folder) {
    const char *path = format("%s/config.json", folder);
    const Text config = read_json_object(path);
    bert_config(bert, config, path);
    const TensorFiles files = tensor_files_open(folder);
    bert->separate_decoder = has_separate_decoder(&files, bert, config, path);
    bert_list_weights(bert);
    bert->files = files;
    for (int i = 0; i < bert->weights.count; i++) {
        const Parameter *p = &bert->weights.at[i];
        const char *name = p->name;
        Tensor other;
        if (p->tensor == &bert->decoder_bias && tensor_files_find(&files, "cls.predictions.decoder.bias", &other))
            name = "cls.predictions.decoder.bias"; /* the bias has two names; where they differ, this one counts */
        else if (p->tensor == &bert->decoder_bias) name = "cls.predictions.bias";
        *p->tensor = get_weight(&files, name, p->tensor->rows, p->tensor->cols);
    }
}
/* Unmaps the weights: the pages of those that were trained were private copies. */
static inline void bert_close(Bert *bert) { tensor_files_close(&bert->files); }

/* As few digits as give the same number again. */
static inline const char *shortest_number(real x) {
    const char *digits = format("%g", (double)x);
    return (real)strtod(digits, NULL) == x ? digits : format("%.9g", (double)x);
}
/* config.json and model.safetensors as transformers reads them. */
static inline void bert_save(const Bert *b, const char *folder) {
    Output out = output_open(format("%s/config.json", folder));
    fprintf(out.stream,
            "{\n"
            "  \"architectures\": [\"BertForMaskedLM\"],\n"
            "  \"model_type\": \"bert\",\n"
            "  \"hidden_act\": \"%s\",\n"
            "  \"hidden_size\": %d,\n"
            "  \"num_hidden_layers\": %d,\n"
            "  \"num_attention_heads\": %d,\n"
            "  \"intermediate_size\": %d,\n"
            "  \"vocab_size\": %d,\n"
            "  \"max_position_embeddings\": %d,\n"
            "  \"type_vocab_size\": %d,\n"
            "  \"layer_norm_eps\": %s,\n%s"
            "  \"pad_token_id\": 0\n"
            "}\n",
            b->tanh_gelu ? "gelu_new" : "gelu", b->hidden, b->layers, b->heads, b->intermediate, b->vocab, b->positions,
            b->types, shortest_number(b->eps), b->separate_decoder ? "  \"tie_word_embeddings\": false,\n" : "");
    output_close(out);
    safetensors_write(format("%s/model.safetensors", folder), b->weights, "{\"format\":\"pt\"}");
}

#endif
