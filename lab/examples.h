/* examples.h - what goes into the pass: lines of data become examples, words become the answers that are allowed.
 *
 * A line of data is one JSON object. LAMA's has "sub_label" and "obj_label" (or "sub" and "obj"), or a sentence with
 * [MASK] in "masked_sentences"; with label words it has a "label" and whatever fields the template names. A
 * line of MultiRC is a passage with many answers: a row for each of them, like the lines of other data.
 */
#ifndef EXAMPLES_H
#define EXAMPLES_H

#include <ctype.h>

typedef enum { TRAIN_SET, DEV_SET, TEST_SET } Split;
static const char *const split_name[] = {"train", "dev", "test"};

/* ---- A line of data is one JSON object --------------------------------------------------------------------------- */

/* The next object of a JSONL file; blank lines are skipped, `line` counts all of them. Exits if a line is anything
 * else. */
static bool next_object(Text *rest, Text *json, const char *path, int *line) {
    while (next_line(rest, json)) {
        ++*line;
        if (!json->size) continue;
        json_check(*json, path, *line);
        if (*json_space(json->data, json->data + json->size) != '{') die("%s:%d: not a JSON object", path, *line);
        return true;
    }
    return false;
}
/* A member of an object under another name, as `"name": value, `; nothing if there is none. */
static const char *renamed_member(Text object, const char *member, const char *name) {
    Text value;
    if (!json_member(object, member, &value)) return "";
    return format("\"%s\": %.*s, ", name, (int)value.size, value.data);
}
static Text nested_list(Text object, const char *name, const char *path, int line) {
    Text list;
    if (!json_member(object, name, &list) || list.data[0] != '[' || !json_count(list))
        die("%s:%d: in its passage, '%s' is not a list with something in it", path, line, name);
    return list;
}
static const char *idx_or(Text object, int place) { /* failing an idx, its place in its list */
    Text idx;
    return json_member(object, "idx", &idx) ? text_string(idx) : format("%d", place);
}
static void add_answers(Texts *rows, Text question, const char *common, const char *idx, const char *path, int line) {
    const Text answers = nested_list(question, "answers", path, line);
    Text answer, key;
    int place = 0;
    for (size_t at = 0; json_next(answers, &at, &key, &answer); place++)
        texts_push(rows, text_of(format("{%s%s%s\"idx\": {%s, \"answer\": %s}}", common,
                                        renamed_member(answer, "text", "answer"),
                                        renamed_member(answer, "label", "label"), idx, idx_or(answer, place))));
}
/* The rows of a line: the line itself. But a line of MultiRC is a passage with questions that have answers, and gives a
 * row for each answer: {"passage": .., "question": .., "answer": .., "label": .., "idx": ..}. Their idx is that of the
 * copy of MultiRC on the Hugging Face hub, {"paragraph": .., "question": .., "answer": ..}. What the line lacks, the
 * rows lack: a test set has no label. */
static Texts rows_of(Text json, const char *path, int line) {
    Texts rows = {0};
    Text passage, question, key;
    if (!json_member(json, "passage", &passage) || !json_member(passage, "questions", &question)) {
        texts_push(&rows, json);
        return rows;
    }
    const Text questions = nested_list(passage, "questions", path, line);
    const char *text = renamed_member(passage, "text", "passage"), *passage_idx = idx_or(json, line - 1);
    int place = 0;
    for (size_t at = 0; json_next(questions, &at, &key, &question); place++) {
        const char *common = format("%s%s", text, renamed_member(question, "question", "question"));
        const char *idx = format("\"paragraph\": %s, \"question\": %s", passage_idx, idx_or(question, place));
        add_answers(&rows, question, common, idx, path, line);
    }
    return rows;
}
/* The rows of a JSONL file, one after the other: `line` is that of the last one. */
typedef struct { Text rest; const char *path; int line; Texts rows; int given; } Rows;

static bool next_row(Rows *file, Text *json) {
    if (file->given == file->rows.count) {
        if (!next_object(&file->rest, json, file->path, &file->line)) return false;
        file->rows = rows_of(*json, file->path, file->line), file->given = 0;
    }
    *json = file->rows.at[file->given++];
    return true;
}

/* A member by its name; failing that, target.span1_text is the span1_text in target, as WSC has it. */
static bool member_within(Text json, const char *name, Text *value) {
    const char *dot = strchr(name, '.');
    if (json_member(json, name, value)) return true;
    if (!dot || !json_member(json, format("%.*s", (int)(dot - name), name), value) || !json_is_object(*value))
        return false;
    return member_within(*value, dot + 1, value);
}
static bool example_subject(Text json, Text *value) { /* LAMA's two names for it */
    return json_member(json, "sub_label", value) || json_member(json, "sub", value);
}
/* Where template and labels come from, if not from the command line: "task RTE", or the file of a prompt. */
static const char *template_origin, *labels_origin;

/* What stands in an object under a name: without one the subject; numbers and booleans by their JSON text. */
static Text example_value(Text json, Text name, const char *file, int line) {
    const char *key = name.size ? text_string(name) : "sub_label";
    Text value;
    if (!(name.size ? member_within(json, key, &value) : example_subject(json, &value)))
        die("%s:%d: no field '%s'%s%s", file, line, key, template_origin ? ", named by the template of " : "",
            template_origin ? template_origin : "");
    if (!json_is_string(value) && strchr("{[n", value.data[0]))
        die("%s:%d: field '%s' is not a string%s", file, line, key,
            json_is_object(value) ? ", but an object: {name.field} names a field in it" : "");
    return json_is_string(value) ? json_string(value) : value;
}
static const char *shortened(Text text) { /* for a message */
    return text_line((Text){text.data, text.size < 40 ? text.size : 40});
}
/* The text that a list, cause=because,effect=so, gives for a value. */
static Text translated(Text value, Text list, const char *file, int line) {
    const Texts pairs = split(list, ',');
    for (int k = 0; k < pairs.count; k++) {
        const Texts pair = split(pairs.at[k], '=');
        if (pair.count != 2) die("a field with '%s': expected {name:value=text,value=text}", text_line(list));
        if (text_equal(pair.at[0], value)) return pair.at[1];
    }
    die("%s:%d: '%s' is none of %s", file, line, shortened(value), text_line(list));
}
/* Whether a word, with what follows it up to the next space, is the given one: only a punctuation mark may follow. */
static bool is_the_word(Text word, Text given) {
    if (word.size < given.size || memcmp(word.data, given.data, given.size)) return false;
    const unsigned char next = word.size > given.size ? (unsigned char)word.data[given.size] : ' ';
    return next < 128 && !isalnum(next);
}
/* WSC's text with its pronoun between asterisks: `span` has a text and the number of its word, which in the published
 * data is wrong by one here and there. */
static Text marked(Text text, Text json, Text span, const char *file, int line) {
    const Text pronoun = example_value(json, text_joined(span, text_of("_text")), file, line);
    const int number = json_int(example_value(json, text_joined(span, text_of("_index")), file, line));
    const Texts words = split(text, ' ');
    size_t at = text.size;
    if (!pronoun.size) die("%s:%d: '%s_text' is empty", file, line, text_line(span));
    if (number < 0) die("%s:%d: '%s_index' is not the number of a word", file, line, text_line(span));
    for (int i = 0, word = -1; i < words.count && word <= number; i++) {
        word += words.at[i].size > 0;
        if (word < number - 1 || !is_the_word(words.at[i], pronoun)) continue;
        at = (size_t)(words.at[i].data - text.data);
        if (word == number) break;
    }
    if (at == text.size) die("%s:%d: word %d is not '%s'", file, line, number, shortened(pronoun));
    const Text star = text_of("*"), before = text_joined((Text){text.data, at}, star);
    return text_joined(text_joined(before, pronoun), text_joined(star, text_from(text, at + pronoun.size)));
}
/* A field as a template names it: name; `name-` without the punctuation at its end; `name~` with a small letter for a
 * first one from A to Z; `name:value=text,value=text` another text for each value; `name*span` with the word of a span
 * between asterisks. */
static Text example_field(Text json, Text name, const char *file, int line) {
    const Texts values = split(name, ':'), spans = split(name, '*');
    if (values.count == 2) return translated(example_value(json, values.at[0], file, line), values.at[1], file, line);
    if (spans.count == 2) return marked(example_value(json, spans.at[0], file, line), json, spans.at[1], file, line);
    const bool bare = name.size && name.data[name.size - 1] == '-';
    name.size -= bare;
    const bool small = name.size && name.data[name.size - 1] == '~';
    name.size -= small;
    Text value = example_value(json, name, file, line);
    while (bare && value.size && strchr(".,:;!?\"'", value.data[value.size - 1])) value.size--;
    if (!small || !value.size) return value;
    const char first = (char)tolower((unsigned char)value.data[0]);
    return text_joined((Text){&first, 1}, text_from(value, 1));
}

static const char *pseudo_tokens(int count) { /* [P], `count` times */
    char *tokens = allocate(3 * (size_t)count + 1);
    for (int i = 0; i < count; i++) memcpy(tokens + 3 * i, "[P]", 3);
    tokens[3 * count] = 0;
    return tokens;
}
/* The published short form (a,b,c): pseudo-tokens before the mask, between mask and subject, at the end; a third count
 * of 0 puts a full stop there. */
static const char *template_from_counts(const char *form) {
    int a, b, c, used = 0;
    if (sscanf(form, " (%5d,%5d,%5d)%n", &a, &b, &c, &used) != 3 || form[used] || a < 0 || b < 0 || c < 0)
        return form;
    return format("%s [MASK] %s [X] %s", pseudo_tokens(a), pseudo_tokens(b), c ? pseudo_tokens(c) : ".");
}
/* With this form each example has a template of its own, LAMA's sentence; any other form is parsed. */
static const char MASKED_SENTENCES[] = "{masked_sentences}";
static Template template_read(const char *form) {
    Template t = {.text = form};
    if (!strcmp(form, MASKED_SENTENCES)) return t;
    t = template_parse(template_from_counts(form));
    t.text = form;
    return t;
}
/* LAMA's sentence as a template, for a causal LM up to its [MASK]. It has one [MASK]; of two sentences the second would
 * need token types. */
static Template sentence_template(Text json, bool causal, const char *file, int line) {
    Text list, key, sentence, other;
    size_t position = 0, at = 0;
    Template t = {.text = MASKED_SENTENCES};
    if (!json_member(json, "masked_sentences", &list)) die("%s:%d: no field 'masked_sentences'", file, line);
    if (list.data[0] != '[' || !json_next(list, &position, &key, &sentence) || !json_is_string(sentence))
        die("%s:%d: masked_sentences is not a list of strings", file, line);
    if (json_next(list, &position, &key, &other))
        die("%s:%d: masked_sentences has more than one sentence: not implemented", file, line);
    sentence = json_string(sentence);
    for (size_t i = 0; i < sentence.size; i++) {
        if (!text_starts((Text){sentence.data + i, sentence.size - i}, "[MASK]")) continue;
        template_add(&t, WORDS, sentence.data + at, sentence.data + i);
        template_add(&t, MASK, sentence.data, sentence.data);
        at = i + 6;
    }
    if (!causal) template_add(&t, WORDS, sentence.data + at, sentence.data + sentence.size);
    if (t.masks != 1) die("%s:%d: its masked sentence has %d [MASK], not one", file, line, t.masks);
    return t;
}

/* ---- Examples that are too long ---------------------------------------------------------------------------------- */

/* The fields of a template, each cut to at most `most` bytes, between two characters. */
static void fields_cut(const Template *t, const Text *field, size_t most, Text *cut) {
    for (int i = 0; i < t->parts; i++) {
        if (t->part[i].kind != FIELD) continue;
        cut[i] = field[i];
        if (cut[i].size <= most) continue;
        for (cut[i].size = most; cut[i].size && ((unsigned char)cut[i].data[cut[i].size] & 0xC0) == 0x80;)
            cut[i].size--;
    }
}
/* template_ids in at most max_length tokens. Every field is cut to the same number of bytes, the largest that is found
 * to fit by bisection: so the longest field gives way first, never the template. Exits if that alone is too long. */
static void template_fill(const Template *t, const Vocab *vocab, const Text *field, int max_length, Example *example,
                          const char *file, int line) {
    size_t fits = 0, too_long = 0;
    Mark before = mark();
    template_ids(t, vocab, field, example);
    if (example->length <= max_length) return;
    release(before);
    Text *cut = allocate(sizeof *cut * (size_t)t->parts);
    before = mark();
    for (int i = 0; i < t->parts; i++)
        if (t->part[i].kind == FIELD && field[i].size > too_long) too_long = field[i].size;
    while (too_long - fits > 1) {
        release(before);
        const size_t middle = fits + (too_long - fits) / 2;
        fields_cut(t, field, middle, cut);
        template_ids(t, vocab, cut, example);
        if (example->length <= max_length) fits = middle;
        else too_long = middle;
    }
    release(before);
    fields_cut(t, field, fits, cut);
    template_ids(t, vocab, cut, example);
    if (example->length > max_length)
        die("%s:%d: the template alone needs %d tokens, at most %d fit", file, line, example->length, max_length);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/* The words of a file, one a line, as the model has them: for an uncased one also without capitals. */
static void allow_words(Answers *answers, const Vocab *vocab, const char *file) {
    const Texts words = read_lines(file);
    int known = 0;
    for (int i = 0; i < words.count; i++) {
        int id = vocab->bytes ? vocab_word(vocab, words.at[i]) : vocab_find(vocab, words.at[i]);
        if (id < 0 && !vocab->bytes && !vocab->cased) id = vocab_word(vocab, words.at[i]);
        if (id >= 0) known++, answers->allowed[id] = true;
    }
    if (!known) die("%s: none of its words is in the model's vocabulary", file);
    if (known < words.count)
        note("%s: %d of its %d words are not in the model's vocabulary: they are no answers", file,
             words.count - known, words.count);
}
/* The names of the labels, and the texts beside them, which are returned: name=text,name=text. */
static Texts read_labels(Answers *answers, const char *labels, const char *from) {
    const Texts pairs = split(text_of(labels), ',');
    Texts texts = {0};
    answers->name = allocate(sizeof(Text) * (size_t)pairs.count);
    answers->word = allocate(sizeof(int) * (size_t)pairs.count);
    for (int p = 0; p < pairs.count; p++) {
        const Texts pair = split(pairs.at[p], '=');
        if (pair.count != 2) die("%s '%s': expected name=Word,name=Word or name={field},...", from, labels);
        const Text name = trimmed(pair.at[0]);
        for (int k = 0; k < p; k++)
            if (text_equal(answers->name[k], name)) die("%s: label '%.*s' twice", from, (int)name.size, name.data);
        answers->name[answers->labels++] = name;
        texts_push(&texts, trimmed(pair.at[1]));
    }
    return texts;
}
static bool is_field(Text text) { return text_starts(text, "{") && text_ends(text, "}"); }
/* The answer is a field of the example, of any number of tokens: one for each of two labels, or for one of them, with
 * {}, anything else, for the other. A label stands for itself where others have a word. */
static void allow_fields(Answers *answers, const Vocab *vocab, const Texts *texts, const char *from) {
    answers->field = allocate(sizeof(Text) * (size_t)texts->count);
    for (int k = 0; k < texts->count; k++) {
        const Text text = texts->at[k];
        if (!is_field(text)) die("%s: '%s' is a word, but another label has a field", from, text_line(text));
        answers->field[k] = (Text){text.data + 1, text.size - 2}, answers->word[k] = k;
    }
    if (texts->count != 2 || !(answers->field[0].size + answers->field[1].size))
        die("%s: expected two labels, with a field each or one with {}", from);
    if (text_equal(answers->field[0], answers->field[1]))
        die("%s: two labels have the field '%s'", from, text_line(answers->field[0]));
    if (vocab->bytes) die("%s: answers of several tokens are implemented for BERT only", from);
    memset(answers->allowed, true, (size_t)vocab->size);
}
static void allow_labels(Answers *answers, const Vocab *vocab, const char *labels) {
    const char *from = labels_origin ? labels_origin : "--labels";
    const Texts texts = read_labels(answers, labels, from);
    if (is_field(texts.at[0])) {
        allow_fields(answers, vocab, &texts, from);
        return;
    }
    answers->in_loss = answers->allowed;
    for (int k = 0; k < texts.count; k++) {
        const Text word = texts.at[k];
        const int id = vocab_word(vocab, word);
        if (id < 0) die("%s: '%.*s' is not one token of the vocabulary", from, (int)word.size, word.data);
        if (answers->allowed[id]) die("%s: two labels have the word '%.*s'", from, (int)word.size, word.data);
        answers->word[k] = id, answers->allowed[id] = true;
    }
}
/* The words of a file, or of labels, or all of vocab.txt (the word table may have more rows). */
static Answers answers_from(const Vocab *vocab, int table_rows, const char *vocab_file, const char *labels) {
    Answers answers = {.allowed = allocate_zeroed(sizeof(bool) * (size_t)table_rows)};
    if (vocab_file) allow_words(&answers, vocab, vocab_file);
    else if (labels) allow_labels(&answers, vocab, labels);
    else memset(answers.allowed, true, (size_t)vocab->size);
    return answers;
}
static const char *label_names(const Answers *answers) {
    const char *names = "";
    for (int k = 0; k < answers->labels; k++)
        names = format("%s%s%.*s", names, k ? ", " : "", (int)answers->name[k].size, answers->name[k].data);
    return names;
}
static int label_named(const Answers *answers, Text name) { /* -1: none */
    int k = answers->labels - 1;
    while (k >= 0 && !text_equal(answers->name[k], name)) k--;
    return k;
}
/* SuperGLUE's test sets have no label; in other copies of them it is -1. */
static bool is_unlabelled(const Answers *answers, Text json) {
    Text label;
    if (!json_member(json, "label", &label) || text_is(label, "null")) return true;
    return text_is(label, "-1") && label_named(answers, label) < 0;
}
/* The answer of an example, as Answers.word has it; -1: it is not one token, or not allowed. */
static int example_answer(const Model *model, Text json, const char *file, int line) {
    const Answers *answers = &model->answers;
    Text value;
    if (answers->labels) {
        const Text label = example_field(json, text_of("label"), file, line);
        const int k = label_named(answers, label);
        if (k >= 0) return answers->word[k];
        die("%s:%d: label '%s': %s has the labels %s", file, line, shortened(label),
            labels_origin ? labels_origin : "--labels", label_names(answers));
    }
    if (!json_member(json, "obj_label", &value) && !json_member(json, "obj", &value))
        die("%s:%d: no obj_label", file, line);
    if (!json_is_string(value)) die("%s:%d: obj_label is not a string", file, line);
    const int id = vocab_word(&model->vocab, json_string(value));
    return id >= 0 && answers->allowed[id] ? id : -1;
}

/* ---- Answers of several tokens ----------------------------------------------------------------------------------- */

/* The answers that an example has for its two labels, and the tokens of each; {} has none. */
struct Choice {
    Text text[2];
    Ids answer[2];
    int pad;   /* [PAD], which belongs at the [MASK] behind the only answer; -1: there are two answers */
    int masks; /* how many [MASK] there are, while the example is trained on */
};
enum { MOST_PADS = 3 }; /* how many [MASK] there may be behind the only answer */
static bool has_two_answers(const struct Choice *c) { return c->pad < 0; }

static Ids choice_tokens(const Vocab *vocab, Text text, const char *file, int line) {
    Ids ids = {0};
    tokenize(vocab, text, &ids);
    if (!ids.count) die("%s:%d: an answer without tokens: '%s'", file, line, text_line(text));
    return ids;
}
static struct Choice *choice_read(const Model *model, Text json, const char *file, int line) {
    struct Choice *c = allocate_zeroed(sizeof *c);
    const char *origin = template_origin;
    template_origin = labels_origin; /* names these fields */
    c->pad = -1;
    for (int k = 0; k < 2; k++) {
        if (!model->answers.field[k].size) {
            c->pad = vocab_find(&model->vocab, text_of("[PAD]"));
            if (c->pad < 0) die("%s: no [PAD], which follows an answer", model->vocab.path);
            continue;
        }
        c->text[k] = example_field(json, model->answers.field[k], file, line);
        c->answer[k] = choice_tokens(&model->vocab, c->text[k], file, line);
    }
    template_origin = origin;
    return c;
}
/* The most [MASK] that an example may have. */
static int choice_most(const struct Choice *c) {
    const int longest = c->answer[0].count > c->answer[1].count ? c->answer[0].count : c->answer[1].count;
    return longest + (has_two_answers(c) ? 0 : MOST_PADS);
}

/* ---- A file of examples ------------------------------------------------------------------------------------------ */

/* What a file of labelled examples says beside them: idx is the example's name in a submission. */
typedef struct { Texts idx; int unlabelled; } Names;

static void add_name_of(Names *names, Text json) {
    Text idx;
    if (!json_member(json, "idx", &idx)) idx = text_of(format("%d", names->idx.count)); /* its number */
    texts_push(&names->idx, text_of(text_string(idx)));
}
/* The field that a subject is printed as: what stands in the place of [X]. */
static const char *subject_of(Text json) {
    Text subject;
    if (!example_subject(json, &subject) || strchr("{[n", subject.data[0])) return NULL;
    return text_line(json_is_string(subject) ? json_string(subject) : subject);
}
/* The examples of a JSONL file under a template, in at most max_length tokens each (0: what the position table holds).
 * Those without an allowed answer are skipped and counted. With `names` they may have no labels: their answer is any.
 * Exits if none is left. */
static Dataset read_named(const char *path, const Model *model, const Template *t, int max_length, bool quiet,
                          Names *names) {
    const bool own_sentences = !strcmp(t->text, MASKED_SENTENCES);
    const int most = lm_positions(&model->lm), length = max_length ? min_int(max_length, most) : most;
    const Text file = read_file(path);
    Text *field = allocate(sizeof *field * (size_t)(t->parts + 1));
    path = input_name(path);
    Dataset data = {.path = path};
    Rows rows = {.rest = file, .path = path};
    int skipped = 0;
    for (Text json; next_row(&rows, &json);) {
        const int line = rows.line;
        const bool unlabelled = names && model->answers.labels && is_unlabelled(&model->answers, json);
        for (int i = 0; i < t->parts; i++)
            if (t->part[i].kind == FIELD) field[i] = example_field(json, t->part[i].text, path, line);
        Example example = {.answer = unlabelled ? model->answers.word[0] : example_answer(model, json, path, line)};
        if (example.answer < 0) {
            skipped++;
            continue;
        }
        if (names && names->unlabelled != (unlabelled ? data.count : 0))
            die("%s:%d: %s label, unlike the lines before", path, line, unlabelled ? "no" : "a");
        if (names) add_name_of(names, json), names->unlabelled += unlabelled;
        example.subject = subject_of(json);
        if (model->answers.field) example.choice = choice_read(model, json, path, line);
        const int most_masks = example.choice ? choice_most(example.choice) : 1, room = length + 1 - most_masks;
        if (example.choice && room < 3)
            die("%s:%d: an answer of up to %d tokens, at most %d fit", path, line, most_masks, length - 2);
        if (own_sentences) {
            const Template own = sentence_template(json, model->lm.causal, path, line);
            template_fill(&own, &model->vocab, field, room, &example, path, line);
        } else template_fill(t, &model->vocab, field, room, &example, path, line);
        if (!example.length) die("%s:%d: nothing stands before [MASK]", path, line);
        data.at = grow(data.at, data.count, sizeof example);
        data.at[data.count++] = example;
    }
    unmap_file(file);
    if (!data.count && !skipped) die("%s: no examples", path);
    if (!data.count) die("%s: no usable examples (%d skipped: answer is not a single allowed token)", path, skipped);
    if (!quiet) printf("%s: %d examples%s\n", path, data.count, skipped ? format(" (%d skipped)", skipped) : "");
    return data;
}
static Dataset read_examples(const char *path, const Model *model, const Template *t, int max_length, bool quiet) {
    return read_named(path, model, t, max_length, quiet, NULL);
}

#endif
