/* deep.h - training a deep prompt, P-tuning v2: the next paper of four of the authors (arXiv 2110.07602, 2022).
 *
 * The prompt is not in the text but in every layer: prefix_forward in bert.h puts m trained vectors before its keys and
 * before its values. What is trained is that prefix itself or, an option of the published code, an encoder that makes
 * it and is thrown away afterwards, like the one of P-tuning:
 *     prefix = W2 tanh(W1 E + b1) + b2,   E (m, H), W1 (512, H), W2 (2 H layers, 512), prefix (m, 2 H layers)
 */
#ifndef DEEP_H
#define DEEP_H

#include "lm.h"

typedef struct {
    Tensor *prefix;       /* the LM's: what it answers with now */
    Tensor best;          /* the same of the best epoch */
    Tensor embedding;     /* E; empty: there is no encoder */
    Linear first, second; /* W1, b1 and W2, b2 */
    Tensor inner, active; /* (m, 512): before and after tanh, for the backward */
    Parameters weights;   /* what is trained: the encoder's or the prefix */
} DeepPrompt;

static inline void deep_forward(DeepPrompt *d) {
    if (!d->embedding.rows) return; /* what is trained is in the LM already */
    d->inner = linear_forward(&d->first, d->embedding);
    d->active = tanh_forward(d->inner);
    const Tensor prefix = linear_forward(&d->second, d->active);
    memcpy(d->prefix->data, prefix.data, size_of(prefix) * sizeof(real));
}
/* From the gradient of the prefix, which is 0 again after it, to those of the encoder. */
static inline void deep_backward(DeepPrompt *d) {
    if (!d->embedding.rows) return;
    needs_grad(&d->active);
    linear_backward(&d->second, d->active, *d->prefix);
    needs_grad(&d->inner);
    tanh_backward(d->inner, d->active);
    linear_backward(&d->first, d->embedding, d->inner);
    memset(d->prefix->grad, 0, size_of(*d->prefix) * sizeof(real));
}

/* Lists what is trained, with the names of the published code, and draws it: the prefix or the encoder's weights from
 * N(0, 0.02^2), its biases 0. */
static inline void deep_init(DeepPrompt *d, Tensor *prefix, int H, bool encoder, Random *random) {
    enum { UNITS = 512 };
    *d = (DeepPrompt){.prefix = prefix, .best = tensor(prefix->rows, prefix->cols),
                      .weights = {allocate(sizeof(Parameter[5])), 0}};
    if (!encoder) {
        add_parameter(&d->weights, MATRIX, prefix, prefix->rows, prefix->cols, "prefix");
        fill_normal(*prefix, 0.02, random);
        return;
    }
    needs_grad(prefix);
    add_parameter(&d->weights, MATRIX, &d->embedding, prefix->rows, H, "prefix_encoder.embedding.weight");
    add_linear(&d->weights, &d->first, UNITS, H, "prefix_encoder.trans.0");
    add_linear(&d->weights, &d->second, prefix->cols, UNITS, "prefix_encoder.trans.2");
    parameters_random(d->weights, random);
}
/* For the deep prompt of an LM; NULL if it has none. */
static inline DeepPrompt *deep_begin(Lm *lm, bool encoder, Random *random) {
    if (!lm_prefix(lm)->rows) return NULL;
    DeepPrompt *d = allocate(sizeof *d);
    deep_init(d, lm_prefix(lm), lm_word(lm).cols, encoder, random);
    parameters_train(d->weights);
    return d;
}
static inline void deep_keep_best(DeepPrompt *d) {
    memcpy(d->best.data, d->prefix->data, size_of(d->best) * sizeof(real));
}
/* The encoder is thrown away; the LM has the best epoch's prefix, and that is frozen. */
static inline void deep_end(DeepPrompt *d) {
    memcpy(d->prefix->data, d->best.data, size_of(d->best) * sizeof(real));
    d->prefix->grad = NULL;
}

#endif
