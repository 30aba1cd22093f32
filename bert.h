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
    Parameters weights;  /* all of these by their published names; they point into this struct, which must not move */
    Text file;           /* the mapped file they lie in */
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

/* ---- attention (Vaswani et al. 2017), for each sequence and each head with its columns of q, k, v:
 *     P = softmax(Q K' / sqrt(H / A)),   context = P V
 * q (R or N, H): of the selected positions or of all; k, v (N, H). */
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
static inline Attention attention_forward(Tensor q, Tensor k, Tensor v, int heads, const Batch *batch,
                                          const int *q_start) {
    const int *start = batch->start;
    const real scale = 1 / sqrt((real)(q.cols / heads));
    Attention a = {tensor_zeros(q.rows, q.cols), allocate(sizeof(Tensor[batch->sequences]))};
    for (int s = 0; s < batch->sequences; s++)
        a.p[s] = tensor_zeros(heads * (q_start[s + 1] - q_start[s]), start[s + 1] - start[s]);
#pragma omp parallel for collapse(2) schedule(dynamic) if (size_of(q) > 20000)
    for (int s = 0; s < batch->sequences; s++)
        for (int h = 0; h < heads; h++) {
            const Matrix Q = attention_head(values(q), q_start, heads, s, h);
            const Matrix K = attention_head(values(k), start, heads, s, h);
            const Matrix V = attention_head(values(v), start, heads, s, h);
            const Matrix P = attention_p(values(a.p[s]), heads, h);
            matmul(P, Q, transposed(K));
            for (int i = 0; i < P.rows; i++) softmax_forward(P.data + i * P.row_stride, P.cols, scale);
            matmul(attention_head(values(a.context), q_start, heads, s, h), P, V);
        }
    return a;
}
/* dV += P' dcontext;   dP = dcontext V';   dS = P (dP - rowsum(dP P)) / sqrt(H / A);   dQ += dS K;   dK += dS' Q */
static inline void attention_backward(const Attention *a, Tensor q, Tensor k, Tensor v, int heads, const Batch *batch,
                                      const int *q_start) {
    const int *start = batch->start;
    const real scale = 1 / sqrt((real)(q.cols / heads));
    for (int s = 0; s < batch->sequences; s++) needs_grad(&a->p[s]);
#pragma omp parallel for collapse(2) schedule(dynamic) if (size_of(q) > 20000)
    for (int s = 0; s < batch->sequences; s++)
        for (int h = 0; h < heads; h++) {
            const Matrix Q = attention_head(values(q), q_start, heads, s, h);
            const Matrix K = attention_head(values(k), start, heads, s, h);
            const Matrix V = attention_head(values(v), start, heads, s, h);
            const Matrix P = attention_p(values(a->p[s]), heads, h), dS = attention_p(gradient(a->p[s]), heads, h);
            const Matrix dcontext = attention_head(gradient(a->context), q_start, heads, s, h);
            matmul(attention_head(gradient(v), start, heads, s, h), transposed(P), dcontext);
            matmul(dS, dcontext, transposed(V));
            for (int i = 0; i < P.rows; i++)
                softmax_backward(P.data + i * P.row_stride, dS.data + i * dS.row_stride, P.cols, scale);
            matmul(attention_head(gradient(q), q_start, heads, s, h), dS, K);
            matmul(attention_head(gradient(k), start, heads, s, h), transposed(dS), Q);
        }
}

/* ---- embeddings: sum = e + position + type 0; the layernorm after it stands in bert_forward ---------------------
 * e (N, H): one row per token, chosen by the caller. */
static inline Tensor embeddings_forward(const Bert *bert, Tensor e, const Batch *batch) {
    Tensor sum = tensor(e.rows, e.cols);
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++) {
            const real *position = row(bert->position, i - batch->start[s]);
            for (int j = 0; j < e.cols; j++) row(sum, i)[j] = row(e, i)[j] + position[j] + bert->type.data[j];
        }
    return sum;
}
static inline void embeddings_backward(const Bert *bert, Tensor e, Tensor sum, const Batch *batch) {
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++)
            for (int j = 0; j < e.cols; j++) {
                if (e.grad) grad_row(e, i)[j] += grad_row(sum, i)[j];
                if (bert->position.grad) grad_row(bert->position, i - batch->start[s])[j] += grad_row(sum, i)[j];
                if (bert->type.grad) bert->type.grad[j] += grad_row(sum, i)[j];
            }
}

/* ---- one layer: attention and feed-forward, each with a residual and a layernorm after it -----------------------
 * x (N, H). In the last layer only selected positions compute queries and outputs; keys and values need all of x. */
typedef struct {
    Tensor query_input; /* x itself, or its selected rows */
    Tensor q, k, v;
    Attention attention;
    Tensor attended, normed; /* dense(context) + query_input; its layernorm */
    Tensor inner, active;    /* (., I): before and after gelu */
    Tensor sum, y;           /* dense(active) + normed; its layernorm: the layer's output */
} LayerActivations;

static inline LayerActivations layer_forward(const BertLayer *l, Tensor x, int heads, const Batch *batch, bool last) {
    LayerActivations a = {.query_input = last ? rows_forward(x, batch->selected, batch->selected_count) : x};
    a.q = linear_forward(&l->query, a.query_input);
    a.k = linear_forward(&l->key, x);
    a.v = linear_forward(&l->value, x);
    a.attention = attention_forward(a.q, a.k, a.v, heads, batch, last ? batch->selected_start : batch->start);
    a.attended = linear_forward(&l->attention_output, a.attention.context);
    residual_forward(a.attended, a.query_input);
    a.normed = layernorm_forward(&l->attention_norm, a.attended);
    a.inner = linear_forward(&l->intermediate, a.normed);
    a.active = gelu_forward(a.inner);
    a.sum = linear_forward(&l->output, a.active);
    residual_forward(a.sum, a.normed);
    a.y = layernorm_forward(&l->output_norm, a.sum);
    return a;
}
/* From y.grad to x.grad. The gradients in between are released when the layer is done. */
static inline void layer_backward(const BertLayer *l, Tensor x, LayerActivations *a, int heads, const Batch *batch,
                                  bool last) {
    Mark before = mark();
    Tensor query_input = last ? a->query_input : x;
    needs_grad(&a->sum);
    layernorm_backward(&l->output_norm, a->sum, a->y);
    needs_grad(&a->normed);
    residual_backward(a->sum, a->normed);
    needs_grad(&a->active);
    linear_backward(&l->output, a->active, a->sum);
    needs_grad(&a->inner);
    gelu_backward(a->inner, a->active);
    linear_backward(&l->intermediate, a->normed, a->inner);
    needs_grad(&a->attended);
    layernorm_backward(&l->attention_norm, a->attended, a->normed);
    if (last) needs_grad(&query_input);
    residual_backward(a->attended, query_input);
    needs_grad(&a->attention.context);
    linear_backward(&l->attention_output, a->attention.context, a->attended);
    needs_grad(&a->q), needs_grad(&a->k), needs_grad(&a->v);
    attention_backward(&a->attention, a->q, a->k, a->v, heads, batch, last ? batch->selected_start : batch->start);
    linear_backward(&l->value, x, a->v);
    linear_backward(&l->key, x, a->k);
    linear_backward(&l->query, query_input, a->q);
    if (last) rows_backward(x, batch->selected, query_input);
    release(before);
}

/* ---- the masked-LM head: logits = layernorm(gelu(dense(x))) word' + bias ---------------------------------------- */
typedef struct { Tensor inner, active, normed, logits; } HeadActivations;

static inline HeadActivations head_forward(const Bert *bert, Tensor x) {
    const Linear decoder = {bert->word, bert->decoder_bias}; /* tied: the word table serves both ends */
    HeadActivations a;
    a.inner = linear_forward(&bert->transform, x);
    a.active = gelu_forward(a.inner);
    a.normed = layernorm_forward(&bert->transform_norm, a.active);
    a.logits = linear_forward(&decoder, a.normed);
    return a;
}
static inline void head_backward(const Bert *bert, Tensor x, HeadActivations *a) {
    const Linear decoder = {bert->word, bert->decoder_bias};
    needs_grad(&a->normed);
    linear_backward(&decoder, a->normed, a->logits);
    needs_grad(&a->active);
    layernorm_backward(&bert->transform_norm, a->active, a->normed);
    needs_grad(&a->inner);
    gelu_backward(a->inner, a->active);
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
                                   l == bert->layers - 1);
    a.head = head_forward(bert, a.layer[bert->layers - 1].y);
    return a;
}
/* The logits alone, for when no backward follows: a layer's activations are released once its output is copied. */
static inline Tensor bert_logits(const Bert *bert, Tensor e, const Batch *batch) {
    Tensor x = layernorm_forward(&bert->embedding_norm, embeddings_forward(bert, e, batch));
    for (int l = 0; l < bert->layers; l++) {
        Mark before = mark();
        const Tensor y = layer_forward(&bert->layer[l], x, bert->heads, batch, l == bert->layers - 1).y;
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
        layer_backward(&bert->layer[l], *below, &a->layer[l], bert->heads, batch, l == bert->layers - 1);
    }
    needs_grad(&a->sum);
    layernorm_backward(&bert->embedding_norm, a->sum, a->x);
    embeddings_backward(bert, a->e, a->sum, batch);
}

/* ---- weights: each with its published name and its shape, in the order of the forward pass ----------------------- */
static inline void bert_list_weights(Bert *b) {
    Parameters list = {allocate(sizeof(Parameter[10 + 16 * b->layers])), 0};
    b->layer = allocate_zeroed(sizeof(BertLayer[b->layers]));
    const int H = b->hidden;
    add_parameter(&list, MATRIX, &b->word, b->vocab, H, "bert.embeddings.word_embeddings.weight");
    add_parameter(&list, MATRIX, &b->position, b->positions, H, "bert.embeddings.position_embeddings.weight");
    add_parameter(&list, MATRIX, &b->type, b->types, H, "bert.embeddings.token_type_embeddings.weight");
    add_layernorm(&list, &b->embedding_norm, H, b->eps, "bert.embeddings.LayerNorm");
    for (int i = 0; i < b->layers; i++) {
        BertLayer *l = &b->layer[i];
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
    add_parameter(&list, BIAS, &b->decoder_bias, 1, b->vocab, "cls.predictions.bias");
    b->weights = list;
}

/* Initial values for pretraining (Devlin et al. 2019): N(0, 0.02^2), biases 0, gains 1. */
static inline void bert_random(Bert *bert, Random *random) {
    parameters_allocate(bert->weights);
    for (int i = 0; i < bert->weights.count; i++) {
        const Parameter *p = &bert->weights.at[i];
        if (p->kind == GAIN) fill_constant(*p->tensor, 1);
        else if (p->kind == BIAS) fill_constant(*p->tensor, 0);
        else fill_normal(*p->tensor, 0.02, random);
    }
}

/* ---- config.json and model.safetensors of a Hugging Face folder -------------------------------------------------- */
static inline int config_int(Text config, const char *path, const char *name) {
    Text value;
    const int number = json_member(config, name, &value) ? json_int(value) : -1;
    if (number < 1 || number > 1 << 24) die("%s: no sensible %s", path, name);
    return number;
}
static inline void bert_config(Bert *bert, const char *path) { /* the sizes; the tensors have no elements yet */
    Text config = read_file(path), value;
    json_check(config, path, 0);
    *bert = (Bert){.hidden = config_int(config, path, "hidden_size"),
                   .layers = config_int(config, path, "num_hidden_layers"),
                   .heads = config_int(config, path, "num_attention_heads"),
                   .intermediate = config_int(config, path, "intermediate_size"),
                   .vocab = config_int(config, path, "vocab_size"),
                   .positions = config_int(config, path, "max_position_embeddings"),
                   .types = config_int(config, path, "type_vocab_size"),
                   .eps = (real)1e-12};
    if (json_member(config, "layer_norm_eps", &value)) bert->eps = (real)json_number(value);
    if (!(bert->eps >= 0)) die("%s: no sensible layer_norm_eps", path);
    if (bert->hidden % bert->heads)
        die("%s: hidden_size %d is not a multiple of num_attention_heads %d", path, bert->hidden, bert->heads);
    if (bert->layers > 1000) die("%s: %d layers", path, bert->layers);
    if (json_member(config, "hidden_act", &value) && !text_is(value, "\"gelu\""))
        die("%s: hidden_act is not gelu", path);
    if (json_member(config, "position_embedding_type", &value) && !text_is(value, "\"absolute\""))
        die("%s: position_embedding_type is not absolute", path);
    bert_list_weights(bert);
}
/* A model folder. Two spellings of the names of layernorms and of the last bias are published. Exits if a file is
 * missing or broken, or a tensor has another shape than config.json says. */
static inline void bert_load(Bert *bert, const char *folder) {
    static const char *const spellings[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"},
                                               {"LayerNorm.bias", "LayerNorm.beta"},
                                               {"predictions.bias", "predictions.decoder.bias"}};
    bert_config(bert, format("%s/config.json", folder));
    const Safetensors file = safetensors_open(format("%s/model.safetensors", folder));
    bert->file = file.file;
    for (int i = 0; i < bert->weights.count; i++) {
        const Parameter *p = &bert->weights.at[i];
        const char *name = p->name;
        Text entry;
        for (int s = 0; s < 3; s++) {
            const char *at = strstr(p->name, spellings[s][0]);
            if (!at || json_member(file.header, p->name, &entry)) continue;
            const char *other = format("%.*s%s", (int)(at - p->name), p->name, spellings[s][1]);
            if (json_member(file.header, other, &entry)) name = other;
        }
        *p->tensor = safetensors_get(&file, name, p->tensor->rows, p->tensor->cols);
    }
}
/* Unmaps the weights: the pages of those that were trained were private copies. */
static inline void bert_close(Bert *bert) {
    unmap_file(bert->file);
    bert->file = (Text){"", 0};
}
/* config.json and model.safetensors as transformers reads them. */
static inline void bert_save(const Bert *b, const char *folder) {
    Output out = output_open(format("%s/config.json", folder));
    fprintf(out.stream,
            "{\n"
            "  \"architectures\": [\"BertForMaskedLM\"],\n"
            "  \"model_type\": \"bert\",\n"
            "  \"hidden_act\": \"gelu\",\n"
            "  \"hidden_size\": %d,\n"
            "  \"num_hidden_layers\": %d,\n"
            "  \"num_attention_heads\": %d,\n"
            "  \"intermediate_size\": %d,\n"
            "  \"vocab_size\": %d,\n"
            "  \"max_position_embeddings\": %d,\n"
            "  \"type_vocab_size\": %d,\n"
            "  \"layer_norm_eps\": %g,\n"
            "  \"pad_token_id\": 0\n"
            "}\n",
            b->hidden, b->layers, b->heads, b->intermediate, b->vocab, b->positions, b->types, (double)b->eps);
    output_close(out);
    safetensors_write(format("%s/model.safetensors", folder), b->weights, "{\"format\":\"pt\"}");
}

#endif
