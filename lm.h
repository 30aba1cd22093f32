/* lm.h - a language model as the pass sees it: embeddings in, logits of the selected positions out. It is BERT, which
 * fills in a blank, or GPT-2, which goes on with a text.
 */
#ifndef LM_H
#define LM_H

#include "gpt.h"

typedef struct {
    bool causal; /* GPT-2: the logits at a position are of the next token */
    Bert bert;   /* one of the two */
    Gpt gpt;
} Lm;

static inline Tensor lm_word(const Lm *lm) { return lm->causal ? lm->gpt.word : lm->bert.word; } /* (V, H) */
static inline int lm_layers(const Lm *lm) { return lm->causal ? lm->gpt.layers : lm->bert.layers; }
static inline int lm_first_position(const Lm *lm) {
    return lm->causal ? lm->gpt.first_position : lm->bert.first_position;
}
static inline int lm_positions(const Lm *lm) { /* how many tokens a text may have */
    return (lm->causal ? lm->gpt.positions : lm->bert.positions) - lm_first_position(lm);
}
static inline Parameters lm_weights(const Lm *lm) { return lm->causal ? lm->gpt.weights : lm->bert.weights; }

/* A deep prompt (m, 2 H layers), empty to take it away; the tokens' positions count from first_position on. */
static inline void lm_set_prefix(Lm *lm, Tensor prefix, int first_position) {
    if (lm->causal) lm->gpt.prefix = prefix, lm->gpt.first_position = first_position;
    else lm->bert.prefix = prefix, lm->bert.first_position = first_position;
}
static inline Tensor *lm_prefix(Lm *lm) { return lm->causal ? &lm->gpt.prefix : &lm->bert.prefix; }

/* e (N, H) are the vectors of all tokens, logits (R, V) those of the selected positions. */
typedef struct {
    Tensor e, logits;
    union { BertActivations bert; GptActivations gpt; };
} LmActivations;

static inline LmActivations lm_forward(const Lm *lm, Tensor e, const Batch *batch) {
    LmActivations a = {.e = e};
    if (lm->causal) a.gpt = gpt_forward(&lm->gpt, e, batch), a.logits = a.gpt.logits;
    else a.bert = bert_forward(&lm->bert, e, batch), a.logits = a.bert.head.logits;
    return a;
}
/* From logits.grad to e.grad and the gradients of all trained weights. */
static inline void lm_backward(const Lm *lm, LmActivations *a, const Batch *batch) {
    if (lm->causal) {
        a->gpt.logits = a->logits, a->gpt.e = a->e;
        gpt_backward(&lm->gpt, &a->gpt, batch);
    } else {
        a->bert.head.logits = a->logits, a->bert.e = a->e;
        bert_backward(&lm->bert, &a->bert, batch);
    }
}
/* The logits alone, for when no backward follows. */
static inline Tensor lm_logits(const Lm *lm, Tensor e, const Batch *batch) {
    return lm->causal ? gpt_logits(&lm->gpt, e, batch) : bert_logits(&lm->bert, e, batch);
}

/* ---- A model folder: config.json says which model it is ---------------------------------------------------------- */
static inline void lm_load(Lm *lm, const char *folder) {
    Text type;
    const char *path = format("%s/config.json", folder);
    lm->causal = json_member(read_json_object(path), "model_type", &type) && text_is(type, "\"gpt2\"");
    if (lm->causal) gpt_load(&lm->gpt, folder);
    else bert_load(&lm->bert, folder);
}
/* Unmaps the weights: the pages of those that were trained were private copies. */
static inline void lm_close(Lm *lm) {
    if (lm->causal) gpt_close(&lm->gpt);
    else bert_close(&lm->bert);
}
static inline void lm_save(const Lm *lm, const char *folder) {
    if (lm->causal) gpt_save(&lm->gpt, folder);
    else bert_save(&lm->bert, folder);
}
static inline void lm_random(Lm *lm, Random *random) {
    if (lm->causal) gpt_random(&lm->gpt, random);
    else bert_random(&lm->bert, random);
}

#endif
