/* choices.h - answers of several tokens: [MASK] is repeated, once for each token of the answer. The published code asks
 * two tasks of SuperGLUE in this way. An example of COPA gives two answers, of which one is right; one of WSC gives one
 * answer, which is right or not. read_named has put the answers into Example.choice, and one [MASK] into the text.
 *
 *   1  training       a text with all its [MASK]
 *   2  filling in     [MASK] after [MASK], the most certain first
 *   3  evaluation     the more probable of two answers; whether the one answer is what the model says
 */
#ifndef CHOICES_H
#define CHOICES_H

#include "examples.h"
#include "world.h"

/* ==== 1. Training ================================================================================================= */

/* The example with its [MASK] repeated, `masks` times in all; no token has a tag. */
static Example with_masks(const Example *e, int masks) {
    Example more = *e;
    const size_t behind = (size_t)(e->length - e->mask - 1);
    more.length = e->length + masks - 1;
    more.id = allocate(sizeof(int[more.length]));
    more.tag = allocate(sizeof(int[more.length]));
    memcpy(more.id, e->id, sizeof(int[e->mask + 1]));
    for (int j = 1; j < masks; j++) more.id[e->mask + j] = e->id[e->mask];
    memcpy(more.id + e->mask + masks, e->id + e->mask + 1, sizeof(int) * behind);
    for (int i = 0; i < more.length; i++) more.tag[i] = -1;
    return more;
}
/* The examples as they are trained on. With two answers there are as many [MASK] as the longer one has tokens. With one
 * answer only the examples stay for which it is right, and up to MOST_PADS more [MASK] than it has tokens, by chance,
 * so that the number does not give it away. */
static Dataset choices_to_train(const Dataset *data, int seed, bool quiet) {
    Dataset kept = {allocate(sizeof(Example[data->count])), 0, data->path};
    Random random = {(uint64_t)seed};
    for (int i = 0; i < data->count; i++) {
        struct Choice *c = allocate(sizeof *c);
        *c = *data->at[i].choice;
        if (!c->answer[data->at[i].answer].count) continue;
        c->masks = choice_most(c);
        if (!has_two_answers(c)) c->masks -= (int)(random_bits(&random) % (MOST_PADS + 1));
        kept.at[kept.count] = with_masks(&data->at[i], c->masks);
        kept.at[kept.count++].choice = c;
    }
    if (!kept.count) die("%s: no example with a right answer to train on", data->path);
    if (kept.count < data->count && !quiet)
        printf("%s: training uses the %d examples whose answer is right\n", data->path, kept.count);
    return kept;
}
/* The token that belongs at [MASK] number j; behind the end of an answer [PAD], or -1, nothing. */
static int choice_target(const struct Choice *c, int answer, int j) {
    return j < c->answer[answer].count ? c->answer[answer].id[j] : c->pad;
}
/* The examples order[0 .. count - 1], which choices_to_train has made: all their [MASK] are selected, for the tokens of
 * the right answer, and with two answers for those of the wrong one, too: then the loss is hinge_forward's. */
static Inputs choice_inputs(const Example *examples, const int *order, int count) {
    Inputs in = unselected(examples, order, count);
    int *wrong = allocate(sizeof(int[in.batch.tokens]));
    if (has_two_answers(examples->choice)) in.wrong = wrong;
    for (int s = 0; s < count; s++) {
        const Example *e = &examples[order[s]];
        in.batch.selected_start[s] = in.batch.selected_count;
        for (int j = 0; j < e->choice->masks; j++) {
            wrong[in.batch.selected_count] = choice_target(e->choice, 1 - e->answer, j);
            select_position(&in, in.batch.start[s] + e->mask + j, choice_target(e->choice, e->answer, j));
        }
    }
    in.batch.selected_start[count] = in.batch.selected_count;
    return in;
}

/* ==== 2. Filling in =============================================================================================== */

/* A [MASK] is open where the example has a tag: the token that belongs there. */
static bool is_open(const Example *e) {
    int i = 0;
    while (i < e->length && e->tag[i] < 0) i++;
    return i < e->length;
}
static int best_word(const real *logits, int words) {
    int best = 0;
    for (int w = 1; w < words; w++)
        if (logits[w] > logits[best]) best = w;
    return best;
}
/* Closes one open [MASK] of the example, whose logits are the rows from `row0` on: the one at which its token (or,
 * `freely`, the best word) is most probable. Returns the logarithm of that probability. */
static double fill_most_certain(Example *e, Tensor logits, int row0, bool freely) {
    double best = -INFINITY;
    int at = -1, token = -1;
    for (int i = 0, r = row0; i < e->length; i++) {
        if (e->tag[i] < 0) continue;
        const real *x = row(logits, r++);
        const int word = freely ? best_word(x, logits.cols) : e->tag[i];
        const double p = prediction_of(x, logits.cols, word).log_probability;
        if (!isfinite(p)) die("the logits are not finite");
        if (p > best) best = p, at = i, token = word;
    }
    e->id[at] = token, e->tag[at] = -1;
    return best;
}
/* Fills in all open [MASK], one after the other: each time the LM sees what was filled in before. log_p[i] is the sum
 * of the logarithms of the probabilities. */
static void fill_in(const Model *model, Tensor prompt, const Dataset *texts, bool freely, double *log_p) {
    Dataset open = {allocate(sizeof(Example[texts->count])), 1, texts->path};
    int *which = allocate(sizeof(int[texts->count]));
    const int *order = in_order(texts->count);
    for (int i = 0; i < texts->count; i++) log_p[i] = 0;
    while (open.count) {
        open.count = 0;
        for (int i = 0; i < texts->count; i++)
            if (is_open(&texts->at[i])) which[open.count] = i, open.at[open.count++] = texts->at[i];
        for (int first = 0, count; first < open.count; first += count) {
            Mark before = mark();
            count = evaluation_batch(&open, first);
            const Inputs in = tagged_inputs(open.at, order + first, count);
            const Tensor logits = batch_logits(&model->lm, prompt, &in, model->answers.allowed);
            for (int s = 0; s < count; s++)
                log_p[which[first + s]] +=
                    fill_most_certain(&open.at[first + s], logits, in.batch.selected_start[s], freely);
            release(before);
        }
    }
}

/* ==== 3. Evaluation =============================================================================================== */

/* The examples with their [MASK] open for an answer; for the only one there is one [MASK] more. */
static Dataset texts_for(const Dataset *data, int answer) {
    Dataset texts = {allocate(sizeof(Example[data->count])), data->count, data->path};
    for (int i = 0; i < data->count; i++) {
        const struct Choice *c = data->at[i].choice;
        const int masks = c->answer[answer].count + !has_two_answers(c);
        texts.at[i] = with_masks(&data->at[i], masks);
        for (int j = 0; j < masks; j++) texts.at[i].tag[data->at[i].mask + j] = choice_target(c, answer, j);
    }
    return texts;
}
/* The words of a text in small letters, by the letters from a to z alone. */
static Texts letter_words(Text text) {
    char *letters = text_string(text);
    Texts words = {0};
    for (size_t i = 0; i < text.size; i++) {
        const unsigned char c = (unsigned char)letters[i];
        letters[i] = c < 128 && isalpha(c) ? (char)tolower(c) : ' ';
    }
    const Texts all = split((Text){letters, text.size}, ' ');
    for (int i = 0; i < all.count; i++)
        if (all.at[i].size) texts_push(&words, all.at[i]);
    return words;
}
static bool all_among(const Texts *some, const Texts *others) {
    int i = 0;
    while (i < some->count && texts_contain(others, some->at[i])) i++;
    return i == some->count;
}
/* WordPiece's tokens as a text, without special tokens. */
static Text text_of_tokens(const Vocab *vocab, const int *id, int count) {
    Text text = {"", 0};
    for (int i = 0; i < count; i++) {
        const Text piece = vocab->piece[id[i]];
        if (text_starts(piece, "[") && text_ends(piece, "]") && piece.size > 2) continue;
        if (text_starts(piece, "##")) text = text_joined(text, text_from(piece, 2));
        else text = text_joined(text_joined(text, text_of(" ")), piece);
    }
    return text;
}
/* Whether the model says the answer: all words of the one are among those of the other. */
static bool says(const Vocab *vocab, const Example *filled, int answer) {
    const struct Choice *c = filled->choice;
    const Texts said = letter_words(text_of_tokens(vocab, filled->id + filled->mask, c->answer[answer].count + 1)),
                given = letter_words(c->text[answer]);
    return all_among(&said, &given) || all_among(&given, &said);
}
/* A label is right or wrong: its rank is 1 or 2. Of two answers each has its share of the probability of both. Whether
 * the model says the only answer has no probability: the loss counts the errors. */
static Prediction choose(const Vocab *vocab, const Dataset filled[2], double *const log_p[2], int i, int truth) {
    const int given = filled[0].count ? 0 : 1;
    const Example *e = &filled[given].at[i];
    if (has_two_answers(e->choice))
        return prediction_of((real[]){(real)log_p[0][i], (real)log_p[1][i]}, 2, truth);
    const int chosen = says(vocab, e, given) ? given : 1 - given;
    return chosen == truth ? (Prediction){chosen, 1, 0} : (Prediction){chosen, 2, -1};
}
/* As evaluate. */
static Score evaluate_choices(const Model *model, Tensor prompt, const Dataset *data, Prediction *predictions) {
    Mark before = mark();
    const Text *field = model->answers.field;
    Score score = {.examples = data->count};
    Dataset filled[2] = {{0}};
    double *log_p[2];
    for (int k = 0; k < 2; k++) {
        if (!field[k].size) continue;
        filled[k] = texts_for(data, k);
        log_p[k] = allocate(sizeof(double[data->count]));
        fill_in(model, prompt, &filled[k], !field[1 - k].size, log_p[k]);
    }
    for (int i = 0; i < data->count; i++) {
        const Prediction p = choose(&model->vocab, filled, log_p, i, data->at[i].answer);
        score_add(&score, p);
        if (predictions) predictions[i] = p;
    }
    release(before);
    return score;
}
/* The score on examples of either kind. */
static Score evaluate_any(const Model *model, Tensor prompt, const Dataset *data, Prediction *predictions) {
    return (model->answers.field ? evaluate_choices : evaluate)(model, prompt, data, predictions);
}

#endif
