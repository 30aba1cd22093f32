/* gpt.h - GPT-2 (Radford et al. 2019): forward and backward, weights by their published names.
 *
 * The same parts as BERT's in another order: the layernorm stands before attention and before the feed-forward part,
 * not after them, so that a residual runs from the embeddings to the top (pre-norm); a token sees only those before it
 * and itself (causal), so the logits at a position are of the token that follows it. Notation and Batch are bert.h's.
 */
#ifndef GPT_H
#define GPT_H

#include "bert.h"

typedef struct {
    LayerNorm attention_norm;
    Linear query, key, value, attention_output; /* (H, H) each */
    LayerNorm feed_forward_norm;
    Linear intermediate, output; /* (I, H), (H, I) */
    bool tanh_gelu;
    int column; /* where this layer's columns of a deep prompt begin */
} GptLayer;

typedef struct {
    int hidden, layers, heads, intermediate, vocab, positions;
    real eps;              /* of every layernorm */
    bool tanh_gelu;        /* the activation is gelu's form with tanh: it is, in the published models */
    Tensor word, position; /* embedding tables (V, H), (positions, H) */
    GptLayer *layer;
    LayerNorm final_norm;
    Tensor prefix;         /* a deep prompt (m, 2 H layers), see prefix_forward; empty: none */
    int first_position;    /* of each sequence: 0, or where a deep prompt takes the first ones, m */
    Parameters weights; /* all of the weights; they point into this struct, which must not move */
    TensorFiles files;  /* the mapped files in which the tables and the layernorms lie */
} Gpt;

/* ---- positions: x = e + position -------------------------------------------------------------------------------- */
static inline Tensor positions_forward(Tensor position, Tensor e, const Batch *batch) {
    Tensor x = tensor(e.rows, e.cols);
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++)
            for (int j = 0; j < e.cols; j++) row(x, i)[j] = row(e, i)[j] + row(position, i - batch->start[s])[j];
    return x;
}
static inline void positions_backward(Tensor position, Tensor e, Tensor x, const Batch *batch) {
    for (int s = 0; s < batch->sequences; s++)
        for (int i = batch->start[s]; i < batch->start[s + 1]; i++)
            for (int j = 0; j < e.cols; j++) {
                if (e.grad) grad_row(e, i)[j] += grad_row(x, i)[j];
                if (position.grad) grad_row(position, i - batch->start[s])[j] += grad_row(x, i)[j];
            }
}

/* ---- one layer: attended = attention(layernorm(x)) + x;   y = feed_forward(layernorm(attended)) + attended ---------
 * x (N, H). In the last layer only selected positions compute queries and outputs, as in BERT. */
typedef struct {
    Tensor normed;      /* (N, H): layernorm(x) */
    Tensor query_input; /* normed itself, or its selected rows */
    Tensor residual;    /* x itself, or its selected rows */
    Tensor q, k, v;     /* k and v with the deep prompt, if there is one */
    Attention attention;
    Tensor attended, attended_normed;
    Tensor inner, active; /* (., I): before and after gelu */
    Tensor y;
} GptLayerActivations;

/* A token sees itself, those before it in its sequence, and the m keys of a deep prompt before these. */
static inline int *seen_by_tokens(const Batch *batch, bool selected_only, int m) {
    const int *start = batch->start, *first = selected_only ? batch->selected_start : start;
    int *seen = allocate(sizeof(int[first[batch->sequences]]));
    for (int s = 0; s < batch->sequences; s++)
        for (int i = first[s]; i < first[s + 1]; i++)
            seen[i] = m + (selected_only ? batch->selected[i] : i) - start[s] + 1;
    return seen;
}
static inline GptLayerActivations gpt_layer_forward(const GptLayer *l, Tensor x, int heads, const Batch *batch,
                                                    bool last, Tensor prefix) {
    GptLayerActivations a = {.normed = layernorm_forward(&l->attention_norm, x)};
    a.query_input = last ? rows_forward(a.normed, batch->selected, batch->selected_count) : a.normed;
    a.residual = last ? rows_forward(x, batch->selected, batch->selected_count) : x;
    a.q = linear_forward(&l->query, a.query_input);
    a.k = prefix_forward(prefix, l->column, linear_forward(&l->key, a.normed), batch);
    a.v = prefix_forward(prefix, l->column + x.cols, linear_forward(&l->value, a.normed), batch);
    a.attention = attention_forward(a.q, a.k, a.v, heads, batch->sequences, last ? batch->selected_start : batch->start,
                                    prefix_starts(prefix, batch), seen_by_tokens(batch, last, prefix.rows));
    a.attended = linear_forward(&l->attention_output, a.attention.context);
    residual_forward(a.attended, a.residual);
    a.attended_normed = layernorm_forward(&l->feed_forward_norm, a.attended);
    a.inner = linear_forward(&l->intermediate, a.attended_normed);
    a.active = activation_forward(l->tanh_gelu, a.inner);
    a.y = linear_forward(&l->output, a.active);
    residual_forward(a.y, a.attended);
    return a;
}
/* From y.grad to x.grad. The gradients in between are released when the layer is done. */
static inline void gpt_layer_backward(const GptLayer *l, Tensor x, GptLayerActivations *a, int heads,
                                      const Batch *batch, bool last, Tensor prefix) {
    Mark before = mark();
    needs_grad(&a->attended);
    residual_backward(a->y, a->attended);
    needs_grad(&a->active);
    linear_backward(&l->output, a->active, a->y);
    needs_grad(&a->inner);
    activation_backward(l->tanh_gelu, a->inner, a->active);
    needs_grad(&a->attended_normed);
    linear_backward(&l->intermediate, a->attended_normed, a->inner);
    layernorm_backward(&l->feed_forward_norm, a->attended, a->attended_normed);
    needs_grad(&a->attention.context);
    linear_backward(&l->attention_output, a->attention.context, a->attended);
    needs_grad(&a->q), needs_grad(&a->k), needs_grad(&a->v);
    attention_backward(&a->attention, a->q, a->k, a->v, heads, batch->sequences,
                       last ? batch->selected_start : batch->start, prefix_starts(prefix, batch));
    needs_grad(&a->normed);
    linear_backward(&l->value, a->normed, prefix_backward(prefix, l->column + x.cols, a->v, batch));
    linear_backward(&l->key, a->normed, prefix_backward(prefix, l->column, a->k, batch));
    Tensor query_input = last ? a->query_input : a->normed;
    Tensor residual = last ? a->residual : x;
    if (last) needs_grad(&query_input), needs_grad(&residual);
    linear_backward(&l->query, query_input, a->q);
    residual_backward(a->attended, residual);
    if (last) {
        rows_backward(a->normed, batch->selected, query_input);
        rows_backward(x, batch->selected, residual);
    }
    layernorm_backward(&l->attention_norm, x, a->normed);
    release(before);
}

/* ---- the whole: e (N, H) -> logits (R, V) of the selected positions: logits = layernorm(x) word' ----------------- */
typedef struct { Tensor e, x, normed, logits; GptLayerActivations *layer; } GptActivations;

/* normed (R, H): the final layernorm of the last layer's output. Tied, without a bias: the word table serves both
 * ends. */
static inline Tensor gpt_head_forward(Tensor word, Tensor normed) {
    Tensor logits = tensor_zeros(normed.rows, word.rows);
    matmul(values(logits), values(normed), transposed(values(word)));
    return logits;
}
/* dnormed += dlogits word;   dword += dlogits' normed */
static inline void gpt_head_backward(Tensor word, Tensor normed, Tensor logits) {
    matmul(gradient(normed), gradient(logits), values(word));
    if (word.grad) matmul(gradient(word), transposed(gradient(logits)), values(normed));
}
static inline GptActivations gpt_forward(const Gpt *gpt, Tensor e, const Batch *batch) {
    GptActivations a = {.e = e, .layer = allocate(sizeof(GptLayerActivations[gpt->layers]))};
    a.x = positions_forward(rows_from(gpt->position, gpt->first_position), e, batch);
    for (int l = 0; l < gpt->layers; l++)
        a.layer[l] = gpt_layer_forward(&gpt->layer[l], l ? a.layer[l - 1].y : a.x, gpt->heads, batch,
                                       l == gpt->layers - 1, gpt->prefix);
    a.normed = layernorm_forward(&gpt->final_norm, a.layer[gpt->layers - 1].y);
    a.logits = gpt_head_forward(gpt->word, a.normed);
    return a;
}
/* The logits alone, for when no backward follows: a layer's activations are released once its output is copied. */
static inline Tensor gpt_logits(const Gpt *gpt, Tensor e, const Batch *batch) {
    Tensor x = positions_forward(rows_from(gpt->position, gpt->first_position), e, batch);
    for (int l = 0; l < gpt->layers; l++) {
        Mark before = mark();
        const Tensor y = gpt_layer_forward(&gpt->layer[l], x, gpt->heads, batch, l == gpt->layers - 1, gpt->prefix).y;
        memcpy(x.data, y.data, size_of(y) * sizeof(real));
        x.rows = y.rows;
        release(before);
    }
    return gpt_head_forward(gpt->word, layernorm_forward(&gpt->final_norm, x));
}
/* From the gradient of the logits to that of e and of every trained weight. */
static inline void gpt_backward(const Gpt *gpt, GptActivations *a, const Batch *batch) {
    Tensor *top = &a->layer[gpt->layers - 1].y;
    needs_grad(&a->normed);
    gpt_head_backward(gpt->word, a->normed, a->logits);
    needs_grad(top);
    layernorm_backward(&gpt->final_norm, *top, a->normed);
    for (int l = gpt->layers - 1; l >= 0; l--) {
        Tensor *below = l ? &a->layer[l - 1].y : &a->x;
        needs_grad(below);
        gpt_layer_backward(&gpt->layer[l], *below, &a->layer[l], gpt->heads, batch, l == gpt->layers - 1, gpt->prefix);
    }
    positions_backward(rows_from(gpt->position, gpt->first_position), a->e, a->x, batch);
}

/* ---- weights: each with its shape, in the order of the forward pass ------------------------------------------------
 * The published names but for query, key and value, which lie in one matrix, c_attn, there. */
static inline void gpt_list_weights(Gpt *g) {
    Parameters list = {allocate(sizeof(Parameter[4 + 16 * g->layers])), 0};
    g->layer = allocate_zeroed(sizeof(GptLayer[g->layers]));
    const int H = g->hidden;
    add_parameter(&list, MATRIX, &g->word, g->vocab, H, "transformer.wte.weight");
    add_parameter(&list, MATRIX, &g->position, g->positions, H, "transformer.wpe.weight");
    for (int i = 0; i < g->layers; i++) {
        GptLayer *l = &g->layer[i];
        l->tanh_gelu = g->tanh_gelu, l->column = 2 * H * i;
        const char *in = format("transformer.h.%d", i);
        add_layernorm(&list, &l->attention_norm, H, g->eps, format("%s.ln_1", in));
        add_linear(&list, &l->query, H, H, format("%s.attn.query", in));
        add_linear(&list, &l->key, H, H, format("%s.attn.key", in));
        add_linear(&list, &l->value, H, H, format("%s.attn.value", in));
        add_linear(&list, &l->attention_output, H, H, format("%s.attn.c_proj", in));
        add_layernorm(&list, &l->feed_forward_norm, H, g->eps, format("%s.ln_2", in));
        add_linear(&list, &l->intermediate, g->intermediate, H, format("%s.mlp.c_fc", in));
        add_linear(&list, &l->output, H, g->intermediate, format("%s.mlp.c_proj", in));
    }
    add_layernorm(&list, &g->final_norm, H, g->eps, "transformer.ln_f");
    g->weights = list;
}

/* Initial values for pretraining (Radford et al. 2019, section 2.3): as BERT's, but the 2 `layers` matrices that end in
 * a residual are scaled by 1 / sqrt(2 layers), so that the sum has the same size in models of any depth. */
static inline void gpt_random(Gpt *gpt, Random *random) {
    const real scale = 1 / sqrt((real)(2 * gpt->layers));
    parameters_random(gpt->weights, random);
    for (int l = 0; l < gpt->layers; l++)
        multiply_by(gpt->layer[l].attention_output.w, scale), multiply_by(gpt->layer[l].output.w, scale);
}

/* ---- config.json: what is absent has GPT-2's value --------------------------------------------------------------- */
static inline void gpt_config(Gpt *gpt, Text config, const char *path) {
    Text value;
    config_refuse(config, path, "add_cross_attention", "false");
    config_refuse(config, path, "scale_attn_weights", "true");
    config_refuse(config, path, "scale_attn_by_inverse_layer_idx", "false");
    config_refuse(config, path, "tie_word_embeddings", "true");
    config_check_common(config, path);
    *gpt = (Gpt){.hidden = config_int(config, path, "n_embd", 768), .layers = config_int(config, path, "n_layer", 12),
                 .heads = config_int(config, path, "n_head", 12),
                 .vocab = config_int(config, path, "vocab_size", 50257),
                 .positions = config_int(config, path, "n_positions", 1024),
                 .tanh_gelu = config_tanh_gelu(config, path, "activation_function", true),
                 .eps = config_eps(config, path, "layer_norm_epsilon", 1e-5)};
    const bool given = json_member(config, "n_inner", &value) && !text_is(value, "null");
    gpt->intermediate = given ? config_int(config, path, "n_inner", 0) : 4 * gpt->hidden;
    config_check_sizes(path, "n_embd", gpt->hidden, "n_head", gpt->heads, gpt->layers);
}

/* ---- the weights of a folder: a published matrix is (in, out), and c_attn has query, key and value side by side -- */

/* The tensor with a published name, or without "transformer.", as a model without a head is saved. */
static inline Tensor gpt_weight(const TensorFiles *files, const char *name, int rows, int cols) {
    Tensor t;
    if (!tensor_files_find(files, name, &t) && !tensor_files_find(files, name + strlen("transformer."), &t))
        die("%s: no tensor %s", files->path, name);
    check_shape(files, name, t, rows, cols);
    return t;
}
/* A linear layer from the columns `first` on of a published matrix (in, columns) and of its bias. */
static inline void gpt_load_linear(const TensorFiles *files, Linear *l, const char *name, int first, int columns) {
    const int out = l->w.rows, in = l->w.cols;
    const Tensor w = gpt_weight(files, format("%s.weight", name), in, columns),
                 b = gpt_weight(files, format("%s.bias", name), 1, columns);
    l->w = tensor(out, in), l->b = tensor(1, out);
    for (int i = 0; i < out; i++) {
        for (int j = 0; j < in; j++) row(l->w, i)[j] = row(w, j)[first + i];
        l->b.data[i] = b.data[first + i];
    }
}
/* A separate table at the end is another model: none is published, and it would give other logits. */
static inline void gpt_refuse_separate_head(const TensorFiles *files, const Gpt *gpt) {
    Tensor head;
    if (!tensor_files_find(files, "lm_head.weight", &head)) return;
    check_shape(files, "lm_head.weight", head, gpt->vocab, gpt->hidden);
    if (memcmp(head.data, gpt->word.data, size_of(head) * sizeof(real)))
        die("%s: lm_head.weight differs from wte.weight: a separate table is not implemented", files->path);
}
static inline void gpt_load_layer(const Gpt *gpt, GptLayer *l, const char *in) {
    const TensorFiles *files = &gpt->files;
    const int H = gpt->hidden;
    const char *attention = format("%s.attn.c_attn", in);
    gpt_load_linear(files, &l->query, attention, 0, 3 * H);
    gpt_load_linear(files, &l->key, attention, H, 3 * H);
    gpt_load_linear(files, &l->value, attention, 2 * H, 3 * H);
    gpt_load_linear(files, &l->attention_output, format("%s.attn.c_proj", in), 0, H);
    gpt_load_linear(files, &l->intermediate, format("%s.mlp.c_fc", in), 0, gpt->intermediate);
    gpt_load_linear(files, &l->output, format("%s.mlp.c_proj", in), 0, H);
}
/* A model folder. Exits if a file is missing or broken, or a tensor has another shape than config.json says. */
static inline void gpt_load(Gpt *gpt, const char *folder) {
    const char *path = format("%s/config.json", folder);
    gpt_config(gpt, read_json_object(path), path);
    gpt_list_weights(gpt);
    gpt->files = tensor_files_open(folder);
    for (int i = 0; i < gpt->weights.count; i++) {
        const Parameter *p = &gpt->weights.at[i];
        if (strstr(p->name, ".attn.") || strstr(p->name, ".mlp.")) continue; /* of a linear layer */
        *p->tensor = gpt_weight(&gpt->files, p->name, p->tensor->rows, p->tensor->cols);
    }
    for (int i = 0; i < gpt->layers; i++) gpt_load_layer(gpt, &gpt->layer[i], format("transformer.h.%d", i));
    gpt_refuse_separate_head(&gpt->files, gpt);
}
static inline void gpt_close(Gpt *gpt) { tensor_files_close(&gpt->files); }

/* Linear layers side by side as one published matrix, and its bias. */
static inline void add_published_linear(Parameters *list, const Linear *l, int count, const char *name) {
    const int out = l->w.rows, in = l->w.cols;
    Linear *all = allocate(sizeof *all);
    add_parameter(list, MATRIX, &all->w, in, count * out, format("%s.weight", name));
    add_parameter(list, BIAS, &all->b, 1, count * out, format("%s.bias", name));
    all->w = tensor(in, count * out), all->b = tensor(1, count * out);
    for (int k = 0; k < count; k++)
        for (int i = 0; i < out; i++) {
            for (int j = 0; j < in; j++) row(all->w, j)[k * out + i] = row(l[k].w, i)[j];
            all->b.data[k * out + i] = l[k].b.data[i];
        }
}
static inline Parameters gpt_published(const Gpt *gpt) {
    Parameters list = {allocate(sizeof(Parameter[gpt->weights.count])), 0};
    for (int i = 0; i < gpt->weights.count; i++) {
        const Parameter *p = &gpt->weights.at[i];
        if (!strstr(p->name, ".attn.") && !strstr(p->name, ".mlp.")) list.at[list.count++] = *p;
    }
    for (int i = 0; i < gpt->layers; i++) {
        const GptLayer *l = &gpt->layer[i];
        const Linear qkv[] = {l->query, l->key, l->value};
        const char *in = format("transformer.h.%d", i);
        add_published_linear(&list, qkv, 3, format("%s.attn.c_attn", in));
        add_published_linear(&list, &l->attention_output, 1, format("%s.attn.c_proj", in));
        add_published_linear(&list, &l->intermediate, 1, format("%s.mlp.c_fc", in));
        add_published_linear(&list, &l->output, 1, format("%s.mlp.c_proj", in));
    }
    return list;
}
/* config.json and model.safetensors as transformers reads them. */
static inline void gpt_save(const Gpt *g, const char *folder) {
    Mark before = mark();
    Output out = output_open(format("%s/config.json", folder));
    fprintf(out.stream,
            "{\n"
            "  \"architectures\": [\"GPT2LMHeadModel\"],\n"
            "  \"model_type\": \"gpt2\",\n"
            "  \"activation_function\": \"%s\",\n"
            "  \"n_embd\": %d,\n"
            "  \"n_layer\": %d,\n"
            "  \"n_head\": %d,\n"
            "  \"n_inner\": %d,\n"
            "  \"n_positions\": %d,\n"
            "  \"vocab_size\": %d,\n"
            "  \"layer_norm_epsilon\": %s,\n"
            "  \"bos_token_id\": null,\n"
            "  \"eos_token_id\": null\n"
            "}\n",
            g->tanh_gelu ? "gelu_new" : "gelu", g->hidden, g->layers, g->heads, g->intermediate, g->positions,
            g->vocab, shortest_number(g->eps));
    output_close(out);
    safetensors_write(format("%s/model.safetensors", folder), gpt_published(g), "{\"format\":\"pt\"}");
    release(before);
}

#endif
