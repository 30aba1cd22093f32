/* tag.h - tagging, sequence labelling: a tag for each word of a sentence, by a linear layer on BERT in the place of its
 * masked-LM head. It is the task with which P-tuning v2 (Liu et al. 2022) compares fine-tuning and prompts.
 *
 *   1  CoNLL files     words with their tags
 *   2  examples        the first piece of each word has its tag
 *   3  evaluation      F1 of whole entities, as conlleval counts them
 *   4  a tagger        what is trained, and what is kept of it
 */
#ifndef TAG_H
#define TAG_H

#include "methods.h"

/* ==== 1. CoNLL files ============================================================================================== */

/* A word and its tag: B-TYPE where an entity begins, I-TYPE where it goes on, O outside of entities. */
typedef struct { Text text, tag, predicted; } Word;
typedef struct { Word *word; int words; } Sentence;
typedef struct { Sentence *at; int count; const char *path; } Sentences;

static bool is_outside(Text tag) { return text_is(tag, "O"); }
static Text tag_type(Text tag) { return text_from(tag, 2); } /* of a B- or an I- */
static bool is_tag(Text tag) {
    return is_outside(tag) || (tag.size > 2 && (text_starts(tag, "B-") || text_starts(tag, "I-")));
}
/* The word is in the first column, its tag in the last. Columns end at tabs or, in a line without one, at spaces. */
static Word word_parse(Text line, const char *path, int number) {
    const Texts columns = split(line, memchr(line.data, '\t', line.size) ? '\t' : ' ');
    const Word word = {columns.at[0], columns.at[columns.count - 1], text_of("O")};
    if (!utf8_valid(line)) die("%s:%d: not valid UTF-8", path, number);
    if (!word.text.size) die("%s:%d: no word", path, number);
    if (columns.count < 2) die("%s:%d: no tag: a word, a tab or a space, and its tag", path, number);
    if (!is_tag(word.tag)) die("%s:%d: tag '%s' is not O, B-TYPE or I-TYPE", path, number, text_line(word.tag));
    return word;
}
/* The sentences of a file, with an empty line or one of -DOCSTART- between them. */
static Sentences conll_read(const char *file) {
    Sentences all = {.path = input_name(file)};
    Text rest = read_file(file), line;
    bool inside = false; /* of a sentence */
    for (int number = 1; next_line(&rest, &line); number++) {
        const bool word = line.size && !text_starts(line, "-DOCSTART-");
        if (word && !inside) {
            all.at = grow(all.at, all.count, sizeof(Sentence));
            all.at[all.count++] = (Sentence){NULL, 0};
        }
        inside = word;
        if (!word) continue;
        Sentence *s = &all.at[all.count - 1];
        s->word = grow(s->word, s->words, sizeof(Word));
        s->word[s->words++] = word_parse(line, all.path, number);
    }
    if (!all.count) die("%s: no sentences", all.path);
    return all;
}
/* Words, gold and predicted tags, in the columns that conlleval reads. */
static void conll_write(const char *path, const Sentences *all) {
    Output out = output_open(path);
    for (const Sentence *s = all->at; s < all->at + all->count; s++) {
        for (const Word *w = s->word; w < s->word + s->words; w++)
            fprintf(out.stream, "%.*s %.*s %.*s\n", (int)w->text.size, w->text.data, (int)w->tag.size, w->tag.data,
                    (int)w->predicted.size, w->predicted.data);
        fputc('\n', out.stream);
    }
    output_close(out);
}

/* ==== 2. Examples ================================================================================================= */

/* The tags of train, by number, O first. A tag that train does not have is never predicted: its entities are missed. */
static Answers tags_of(const Sentences *train) {
    Texts tags = {0};
    texts_push(&tags, text_of("O"));
    for (const Sentence *s = train->at; s < train->at + train->count; s++)
        for (const Word *w = s->word; w < s->word + s->words; w++)
            if (!texts_contain(&tags, w->tag)) texts_push(&tags, w->tag);
    return (Answers){.labels = tags.count, .name = tags.at};
}
/* [CLS], the pseudo-tokens, the pieces of the words, [SEP], in at most `most` tokens. e.tag[i] is the number of a
 * word's tag (0 if train does not have it) where its first piece stands, else -1: the other pieces say nothing. A word
 * that the tokenizer drops, such as a control character, is [UNK], so that each has a first piece. */
static Example tag_example(const Sentence *s, const Model *model, int pseudo, int most) {
    Ids ids = {0};
    int *first = allocate(sizeof(int[s->words]));
    ids_push(&ids, model->vocab.cls);
    for (int k = 0; k < pseudo; k++) ids_push(&ids, -1 - k);
    for (int i = 0; i < s->words; i++) {
        first[i] = ids.count;
        tokenize(&model->vocab, s->word[i].text, &ids);
        if (ids.count == first[i]) ids_push(&ids, model->vocab.unk);
    }
    ids.count = min_int(ids.count, most - 1);
    ids_push(&ids, model->vocab.sep);
    Example e = {.id = ids.id, .length = ids.count, .tag = allocate(sizeof(int[ids.count]))};
    for (int i = 0; i < e.length; i++) e.tag[i] = -1;
    for (int i = 0; i < s->words && first[i] < e.length - 1; i++) {
        const int number = label_named(&model->answers, s->word[i].tag);
        e.tag[first[i]] = number < 0 ? 0 : number;
    }
    return e;
}
static int tagged_words(const Example *e) {
    int words = 0;
    for (int i = 0; i < e->length; i++) words += e->tag[i] >= 0;
    return words;
}
/* The sentences as examples. max_length 0: as many tokens as the model has positions. */
static Dataset tag_examples(const Sentences *all, const Model *model, int pseudo, int max_length) {
    const int positions = lm_positions(&model->lm), most = max_length ? min_int(max_length, positions) : positions;
    Dataset data = {allocate(sizeof(Example[all->count])), all->count, all->path};
    int cut = 0, words = 0, unknown = 0;
    if (most < pseudo + 3) die("%s: %d tokens hold no word beside [CLS], [SEP] and %d [P]", all->path, most, pseudo);
    for (int i = 0; i < all->count; i++) {
        const Sentence *s = &all->at[i];
        data.at[i] = tag_example(s, model, pseudo, most);
        const int left_out = s->words - tagged_words(&data.at[i]);
        cut += left_out > 0, words += left_out;
        for (int k = 0; k < s->words; k++) unknown += label_named(&model->answers, s->word[k].tag) < 0;
    }
    if (cut)
        note("%s: %d of %d sentences are cut to %d tokens: their last %d words are predicted to be O", all->path, cut,
             all->count, most, words);
    if (unknown) note("%s: %d words have a tag that train does not have: they are never right", all->path, unknown);
    return data;
}
/* ==== 3. Evaluation =============================================================================================== */

/* The tags with the largest logits, those of `word` in the rows from `first` to `end`. Destroys the logits. */
static void predict_words(Word *word, const Answers *tags, Tensor logits, int first, int end) {
    real largest;
    for (int i = first; i < end; i++) {
        word[i - first].predicted = tags->name[pop_argmax(row(logits, i), logits.cols, &largest)];
        if (!isfinite(largest)) die("the logits are not finite");
    }
}
/* Predicts the tags of all words; those that were cut stay O. */
static void predict(const Model *model, Tensor prompt, const Dataset *data, const Sentences *all) {
    const int *order = in_order(data->count);
    for (int first = 0, count; first < data->count; first += count) {
        Mark before = mark();
        count = evaluation_batch(data, first);
        const Inputs in = tagged_inputs(data->at, order + first, count);
        const Tensor logits = batch_logits(&model->lm, prompt, &in, NULL);
        for (int s = 0; s < count; s++) {
            const int row0 = in.batch.selected_start[s], end = in.batch.selected_start[s + 1];
            predict_words(all->at[first + s].word, &model->answers, logits, row0, end);
        }
        release(before);
    }
}

/* An entity begins at a B-, and at an I- that does not follow a tag of its type. */
static bool begins(const Text *tag, int i) {
    if (is_outside(tag[i])) return false;
    if (i == 0 || is_outside(tag[i - 1]) || text_starts(tag[i], "B-")) return true;
    return !text_equal(tag_type(tag[i]), tag_type(tag[i - 1]));
}
static int entity_end(const Text *tag, int words, int first) {
    int end = first + 1;
    while (end < words && !is_outside(tag[end]) && !begins(tag, end)) end++;
    return end;
}
/* Entities of the gold tags, of the predicted ones, and those that are in both with the same words and type. */
typedef struct { int gold, predicted, right; } Entities;

static void count_entities(Entities *count, const Text *gold, const Text *predicted, int words) {
    for (int i = 0; i < words; i++) {
        const bool is_gold = begins(gold, i), is_predicted = begins(predicted, i);
        count->gold += is_gold, count->predicted += is_predicted;
        count->right += is_gold && is_predicted && text_equal(tag_type(gold[i]), tag_type(predicted[i])) &&
                        entity_end(gold, words, i) == entity_end(predicted, words, i);
    }
}
static Entities entities_of(const Sentences *all) {
    Entities count = {0};
    for (const Sentence *s = all->at; s < all->at + all->count; s++) {
        Mark before = mark();
        Text *gold = allocate(sizeof(Text[s->words])), *predicted = allocate(sizeof(Text[s->words]));
        for (int i = 0; i < s->words; i++) gold[i] = s->word[i].tag, predicted[i] = s->word[i].predicted;
        count_entities(&count, gold, predicted, s->words);
        release(before);
    }
    return count;
}
static double per_cent(int part, int all) { return all ? 100.0 * part / all : 0; }
/* F1 = 2 right / (predicted + gold), the harmonic mean of precision and recall. */
static void print_entities(Entities e) {
    printf("precision %.2f (%d of %d), recall %.2f (%d of %d), F1 %.2f\n", per_cent(e.right, e.predicted), e.right,
           e.predicted, per_cent(e.right, e.gold), e.right, e.gold, per_cent(2 * e.right, e.predicted + e.gold));
}

/* ==== 4. A tagger ================================================================================================= */

/* The classifier (K, H), values not set. */
static Parameters classifier_of(Model *model) {
    Parameters list = {allocate(sizeof(Parameter[2])), 0};
    add_linear(&list, &model->lm.bert.classifier, model->answers.labels, model->lm.bert.hidden, "classifier");
    return list;
}
/* The classifier, the tags, and the prompt and the deep prompt if there are any. */
static void tagger_write(const char *path, Model *model, Parameters classifier, Tensor prompt) {
    const Answers *tags = &model->answers;
    const char *names = "O"; /* a tag has no tab in it */
    for (int k = 1; k < tags->labels; k++)
        names = format("%s\t%.*s", names, (int)tags->name[k].size, tags->name[k].data);
    safetensors_write(path, parameters_joined(classifier, prompts_list(&prompt, lm_prefix(&model->lm))),
                      format("{\"tags\":%s,\"vocab\":\"%s\"%s}", json_quote(names), vocab_hash(&model->vocab),
                             first_position_entry(&model->lm)));
}
/* Puts the tagger into the model and returns its prompt. Exits unless the file is a tagger for this model. */
static Tensor tagger_read(const char *path, Model *model) {
    const Safetensors file = safetensors_open(path);
    const Texts tags = split(safetensors_metadata(&file, "tags"), '\t');
    const Text first = safetensors_metadata(&file, "first_position");
    const int H = model->lm.bert.hidden;
    if (!is_outside(tags.at[0])) die("%s: not a tagger: its tags do not begin with O", path);
    for (int k = 0; k < tags.count; k++)
        if (!is_tag(tags.at[k])) die("%s: tag '%s' is not B-TYPE or I-TYPE", path, text_line(tags.at[k]));
    if (!text_is(safetensors_metadata(&file, "vocab"), vocab_hash(&model->vocab)))
        die("%s: this tagger was trained with another vocabulary", path);
    model->answers = (Answers){.labels = tags.count, .name = tags.at};
    const Parameters classifier = classifier_of(model);
    parameters_allocate(classifier);
    safetensors_read(&file, classifier);
    deep_prompt_set(model, prompt_tensor(&file, "prefix", 2 * H * lm_layers(&model->lm)),
                    first.size ? json_int(first) : 0, path);
    return prompt_tensor(&file, "prompt", H);
}

/* A run that trains the classifier, too: as a part of the LM, whose other weights may be frozen. That of the best epoch
 * is named for the checkpoint. */
static Run tag_begin(const Training *t, Model *model, Tensor prompt, Parameters classifier) {
    Run run = run_begin(t, model, prompt);
    parameters_train(classifier);
    run.lm = parameters_joined(run.lm, classifier);
    run.trained = parameters_joined(run.trained, classifier);
    const Parameters best = parameters_like(classifier);
    for (int i = 0; i < best.count; i++) best.at[i].name = format("best.%s", best.at[i].name);
    run.best_lm = parameters_joined(run.best_lm, best);
    return run;
}
/* As next_epoch, but the best epoch has the highest F1 on dev: `right` counts as a hit in both predicted and gold. */
static bool tag_epoch(Run *run, const Dataset *train, const Dataset *dev, const Sentences *dev_sentences) {
    Mark before = mark();
    run->epoch++;
    if (!train_epoch(run, train)) return false;
    if (run->deep) deep_forward(run->deep);
    const Tensor prompt = run->encoder ? encoder_forward(run->encoder).prompt : (Tensor){0};
    predict(run->model, prompt, dev, dev_sentences);
    const Entities e = entities_of(dev_sentences);
    run->dev = (Score){.examples = e.predicted + e.gold, .hits = 2 * e.right};
    if (merit(run) >= run->best) keep_best(run, prompt);
    release(before);
    return true;
}
/* As settings; what a tagger has of its own comes first. */
static const char *tag_settings(const Options *o) {
    return format("a tagger; pseudo %d; lr %.15g; %s", o->pseudo, o->training.rate, settings(o, true));
}
/* What the epoch gave; if it is the best so far, the tagger, and the LM if it was trained; then the checkpoint. */
static void tag_report(const Options *o, Run *run, Parameters classifier, const char *made_with) {
    const bool better = run->best_epoch == run->epoch;
    Mark before = mark();
    printf("epoch %d: loss %.4f, dev F1 %.2f%s\n", run->epoch, run->loss, p_at_1(run->dev), better ? " *" : "");
    fflush(stdout);
    if (better && o->out) tagger_write(format("%s/tagger.safetensors", o->out), run->model, classifier, run->prompt);
    if (better && o->out && o->training.tune_lm) model_write(run->model, format("%s/model", o->out));
    if (o->out) checkpoint_write(o, run, made_with);
    release(before);
}
static void train_tagger(const Options *o, Model *model, const Dataset data[3], const Sentences sentences[3]) {
    Random random = {(uint64_t)o->training.seed + 1};
    const Tensor prompt = tensor(o->pseudo, model->lm.bert.hidden);
    const Parameters classifier = classifier_of(model);
    parameters_random(classifier, &random);
    const char *made_with = o->out ? tag_settings(o) : "-";
    Run run = tag_begin(&o->training, model, prompt, classifier);
    if (o->resume && checkpoint_read(o, &run, made_with) && o->training.tune_lm)
        best_lm_read(o, (Parameters){run.best_lm.at, run.best_lm.count - classifier.count});
    if (o->out && !o->resume) remove(format("%s/checkpoint.safetensors", o->out)); /* that of an earlier run */
    progress_begin(o, &run);
    while (run_goes_on(&run)) {
        if (!tag_epoch(&run, &data[TRAIN_SET], &data[DEV_SET], &sentences[DEV_SET])) stop_if_interrupted(o, &run);
        tag_report(o, &run, classifier, made_with);
    }
    stop_if_interrupted(o, &run);
    catch_interrupts(false);
    run_end(&run);
    if (o->out) tagger_write(format("%s/tagger.safetensors", o->out), model, classifier, prompt);
    predict(model, prompt, &data[TEST_SET], &sentences[TEST_SET]);
}

/* One of the three sets: --train, --dev, --test, or a file of --data. */
static Sentences read_tagged(const Options *o, Split which) {
    const Sentences all = conll_read(split_path(o, which));
    if (which != TEST_SET && !entities_of(&all).gold) die("%s: no entity", all.path);
    return all;
}
static Model *tag_model(const Options *o) {
    Model *model = model_load(o);
    if (model->lm.causal)
        die("%s: tagging is implemented for BERT only: a causal LM has not seen what follows a word", o->model);
    return model;
}

#endif
