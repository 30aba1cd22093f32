/* run.h - what surrounds the paper's pass: a run that is reported and kept. methods.h has the baselines and tables,
 * commands.h the command line.
 *
 *   1  settings            what the command line says
 *   2  a model, and the three sets of examples
 *   3  what is written     prompts, models, checkpoints, and what a result depends on
 *   4  a run               from the examples to the score on test, with its report
 */
#ifndef RUN_H
#define RUN_H

#include "../vocab.h"
#include "choices.h"

#include <dirent.h>
#include <libgen.h>
#include <signal.h>
#include <sys/wait.h>

/* ==== 1. Settings ================================================================================================= */

/* What the command line says. README.md has the list, option_table the names. NULL or 0: not given. */
typedef struct {
    Training training;
    const char *model, *data, *train, *dev, *test, *template, *prompt, *encoder, *vocab, *labels, *out, *predictions;
    Texts templates, prompt_files; /* all that were given: eval takes several, elsewhere the last one counts */
    const char *start;     /* the prompt in whose words a run starts: template and start_word follow from it */
    const int *start_word; /* (m): the word at which each [P] starts, negative: at random; NULL: all at random */
    const char *encoder_from; /* the file of a trained encoder, from which a run starts */
    const char *select, *optimizer, *recipe, *task, *tasks, *methods, *relations, *prompts, *text, *tagger;
    int seeds, jobs, max_length, size;
    int cap;    /* the most examples of a relation in an epoch, where relations share an encoder */
    int pseudo; /* how many pseudo-tokens stand before a sentence to be tagged */
    int deep;   /* how many vectors a deep prompt has in each layer; 0: there is none */
    uint64_t model_hash; /* of the files in --model, where results are kept */
    bool resume, quiet, causal, freeze_encoder;
    bool tags; /* the files in --data are CoNLL's */
    bool shift; /* the positions of the text begin after the deep prompt */
} Options;

static const char usage_text[] =
    "usage: ptune [demo [--seeds N] [--methods M,M] ...]      the demo: the paper's table on data/\n"
    "       ptune fill     --model DIR TEXT                   five best words for each [MASK], or (GPT) to go on\n"
    "       ptune fill     --model DIR --prompt FILE SUBJECT  the same, under a learned prompt\n"
    "       ptune tokenize --model DIR FILE.jsonl             the ids of each line's \"text\"\n"
    "       ptune train    --model DIR --data DIR [--template T | --start T] [--encoder lstm|mlp|embedding]\n"
    "                      [--deep M] [--tune-lm] [--out DIR] [--seed N] [--seeds N] ... (all: README.md)\n"
    "                      [--encoder-from FILE [--freeze-encoder]]\n"
    "       ptune multi    --model DIR --data DIR [--relations R,R] [--out DIR] ...   one encoder for many relations\n"
    "       ptune eval     --model DIR --data FILE.jsonl (--template T | --prompt FILE) ... [--vocab FILE]\n"
    "       ptune tag      --model DIR --data DIR [--tune-lm | --pseudo N | --deep N] ...   a tagger\n"
    "       ptune eval     --model DIR --data FILE.conll --tagger FILE\n"
    "       ptune search   --model DIR --data DIR             discrete prompt search; prints a template\n"
    "       ptune table    --model DIR --data DIR [--methods M,M] [--relations R,R] [--out RESULTS]\n"
    "                      [--vocab FILE] [--seeds N] ...     runs methods on relations\n"
    "       ptune table    RESULTS                            the table of all results there\n"
    "       ptune words    --model DIR --prompt FILE          nearest words of each pseudo-token\n"
    "       ptune vocab    --model DIR --data DIR [--size N] [--causal]   a vocabulary for a world of facts\n"
    "       ptune pretrain --model DIR --data DIR [--causal]  a small BERT, or GPT, that has read them\n";

_Noreturn static void usage(const char *wrong, const char *what) {
    fprintf(stderr, "ptune: %s%s\n%s", wrong, what ? what : "", usage_text);
    exit(2);
}

static const char *const encoder_names[] = {"lstm", "mlp", "embedding", "none"};
static EncoderKind encoder_named(const char *name) { /* ENCODERS: none of them */
    int kind = 0;
    while (kind < ENCODERS && strcmp(name, encoder_names[kind])) kind++;
    return (EncoderKind)kind;
}
static const char *or_dash(const char *option) { return option ? option : "-"; }
/* The mean of n values, and their sample standard deviation (0 if there is one value). */
typedef struct { double mean, stddev; } Spread;
static Spread spread_of(const double *x, int n) {
    Spread s = {0, 0};
    for (int i = 0; i < n; i++) s.mean += x[i] / n;
    for (int i = 0; i < n; i++) s.stddev += (x[i] - s.mean) * (x[i] - s.mean);
    s.stddev = n > 1 ? sqrt(s.stddev / (n - 1)) : 0;
    return s;
}
static inline int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static inline double median(double *x, int n) { /* sorts x; used by the tests and the benchmark */
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    return x[n / 2];
}

/* ==== 2. A model, and the three sets of examples ================================================================== */

static const char *lm_name(const Model *model) { return model->lm.causal ? "GPT-2" : "BERT"; }
static Model *model_load(const Options *o) {
    Model *model = allocate(sizeof *model);
    lm_load(&model->lm, o->model);
    model->vocab = vocab_load(o->model);
    if (model->lm.causal != model->vocab.bytes)
        die("%s: config.json is that of %s, but its vocabulary that of %s", o->model, lm_name(model),
            model->vocab.bytes ? "GPT-2" : "BERT");
    if (model->vocab.size > lm_word(&model->lm).rows)
        die("%s: %d entries%s, but config.json has a vocab_size of %d", model->vocab.path, model->vocab.size,
            model->vocab.size > model->vocab.base_size ? " with the added tokens" : "", lm_word(&model->lm).rows);
    model->answers = answers_from(&model->vocab, lm_word(&model->lm).rows, o->vocab, o->labels);
    return model;
}
/* A token as an answer: as it would be printed, without the space that byte-level BPE has before a word. */
static const char *answer_text(const Model *model, int id) {
    return text_line(trimmed(vocab_text(&model->vocab, id)));
}
/* --data may be a file, a relation of LAMA: then that is the test set, and there are no others. */
static const char *split_path(const Options *o, Split which) {
    const char *const given[] = {o->train, o->dev, o->test};
    if (!given[which] && which == TEST_SET && o->data && is_regular(o->data)) return o->data;
    if (given[which]) return given[which];
    return format("%s/%s.%s", or_dash(o->data), split_name[which], o->tags ? "conll" : "jsonl");
}
/* One of the three sets under a template. */
static Dataset read_split(const Options *o, const Model *model, Split which, const Template *t) {
    if (o->data && is_regular(o->data) && !file_exists(split_path(o, which)))
        die("%s: one file, not a folder with train.jsonl, dev.jsonl and test.jsonl: it has no %s set", o->data,
            split_name[which]);
    return read_examples(split_path(o, which), model, t, o->max_length, o->quiet);
}

/* A deep prompt for the model; an empty one takes away what was there. The text begins at position `first`, and
 * something of it must fit behind: `from` is where the prompt comes from. */
static void deep_prompt_set(Model *model, Tensor prefix, int first, const char *from) {
    lm_set_prefix(&model->lm, prefix, 0);
    const int positions = lm_positions(&model->lm);
    if (first < 0 || first >= positions || (first && !prefix.rows))
        die("%s: the text would begin at position %d of %d", from, first, positions);
    lm_set_prefix(&model->lm, prefix, first);
}

/* ---- Templates for a causal LM, which answers at the end --------------------------------------------------------- */

/* A prompt of the data without what follows its answer, as in the published code, or NULL if it goes on with a
 * field. */
static const char *causal_prompt(const char *form) {
    Template t = template_read(form);
    const char *end = form + strlen(form);
    for (int i = t.parts - 1; i >= 0 && t.part[i].kind != MASK; i--)
        if (t.part[i].kind != WORDS) return NULL;
    for (const char *at = form; at < end; at++)
        if (!strncmp(at, "[Y]", 3) || !strncmp(at, "[MASK]", 6)) end = strchr(at, ']') + 1;
    return format("%.*s", (int)(end - form), form);
}
/* A prompt of the data, or of a method, as the model can read it. */
static const char *readable_prompt(const Model *model, const char *form) {
    return model->lm.causal ? causal_prompt(form) : form;
}
/* The published short form for GPT, (a,b,0): pseudo-tokens before the subject and after it, then the answer. */
static const char *causal_form(const char *form) {
    int a, b, used = 0;
    if (sscanf(form, " (%5d,%5d,0)%n", &a, &b, &used) != 2 || form[used] || a < 0 || b < 0) return form;
    return format("%s [X] %s [MASK]", pseudo_tokens(a), pseudo_tokens(b));
}
/* --template, or the default: three pseudo-tokens in each place. */
static const char *chosen_template(const Options *o, const Model *model) {
    if (model->lm.causal) return causal_form(o->template ? o->template : "(3,3,0)");
    if (o->template) return o->template;
    return o->recipe ? "(3,3,3)" : "[P][P][P] [X] [P][P][P] [MASK] [P][P][P]";
}

/* ==== 3. What is written ========================================================================================== */

/* ---- The prompt, and a trained model ----------------------------------------------------------------------------- */

/* FNV-1a of vocab.txt: a prompt is of use only with the vocabulary it was trained with. */
static const char *vocab_hash(const Vocab *vocab) {
    uint64_t hash = 14695981039346656037u;
    for (int id = 0; id < vocab->size; id++)
        for (size_t i = 0; i <= vocab->piece[id].size; i++) /* <= : a line end between two pieces */
            hash = (hash ^ (i < vocab->piece[id].size ? (unsigned char)vocab->piece[id].data[i] : '\n')) *
                   1099511628211u;
    return format("%016jx", (uintmax_t)hash);
}
static Parameters prompts_list(Tensor *prompt, Tensor *prefix) { /* those of the two that are not empty */
    Parameters list = {allocate(sizeof(Parameter[2])), 0};
    if (prompt->rows) list.at[list.count++] = (Parameter){.name = "prompt", .tensor = prompt};
    if (prefix->rows) list.at[list.count++] = (Parameter){.name = "prefix", .tensor = prefix};
    return list;
}
/* The position at which a text begins behind a deep prompt, for a file's metadata; nothing where it is 0. */
static const char *first_position_entry(const Lm *lm) {
    return lm_first_position(lm) ? format(",\"first_position\":\"%d\"", lm_first_position(lm)) : "";
}
/* What was learned: h (m, H) if the template has [P], the LM's deep prompt if it has one, and with that the position at
 * which a text begins; the template, and whose vocabulary that was. */
static void prompt_write(const char *path, Tensor prompt, const char *template, const Model *model) {
    Lm lm = model->lm;
    const Parameters list = prompts_list(&prompt, lm_prefix(&lm));
    safetensors_write(path, list, format("{\"template\":%s,\"vocab\":\"%s\"%s}", json_quote(template),
                                         vocab_hash(&model->vocab), first_position_entry(&lm)));
}
/* One of its tensors, empty if it has none. Exits if it is not for this model. */
static Tensor prompt_tensor(const Safetensors *file, const char *name, int cols) {
    Tensor t;
    if (!safetensors_find(file, name, &t)) return (Tensor){0};
    if (t.cols != cols) die("%s: %s: vectors of %d elements, the model has %d", file->path, name, t.cols, cols);
    for (size_t i = 0; i < size_of(t); i++)
        if (!isfinite(t.data[i])) die("%s: %s has an element that is not finite", file->path, name);
    return t;
}
/* h; a deep prompt is put into the model. Exits unless the file is a prompt for this model. */
static Tensor prompt_read(const char *path, Model *model, Template *t) {
    const Safetensors file = safetensors_open(path);
    const Text text = safetensors_metadata(&file, "template"), hash = safetensors_metadata(&file, "vocab"),
               first = safetensors_metadata(&file, "first_position");
    const int H = lm_word(&model->lm).cols;
    if (!text.size) die("%s: not a prompt: no template", path);
    if (!text_is(hash, vocab_hash(&model->vocab))) die("%s: this prompt was trained with another vocabulary", path);
    const Tensor prompt = prompt_tensor(&file, "prompt", H),
                 prefix = prompt_tensor(&file, "prefix", 2 * H * lm_layers(&model->lm));
    if (!prompt.rows && !prefix.rows) die("%s: not a prompt: no tensor 'prompt' or 'prefix'", path);
    *t = template_read(text_string(text));
    template_origin = path;
    if (t->pseudo != prompt.rows)
        die("%s: %d vectors, but its template has %d [P]", path, prompt.rows, t->pseudo);
    deep_prompt_set(model, prefix, first.size ? json_int(first) : 0, path);
    return prompt;
}

/* ---- A prompt encoder, for relations that it has not seen -------------------------------------------------------- */

/* Its E (R m, H) has m rows for each of the relations that it was trained on, in this order. */
static void encoder_write(const char *path, const PromptEncoder *e, int pseudo, const char *relations,
                          const Model *model) {
    safetensors_write(path, e->weights,
                      format("{\"encoder\":\"%s\",\"lm\":\"%s\",\"vocab\":\"%s\",\"pseudo\":\"%d\",\"relations\":%s}",
                             encoder_names[e->kind], lm_name(model), vocab_hash(&model->vocab), pseudo,
                             json_quote(relations)));
}
/* E (m, H) becomes the mean of its relations' E, row by row: E_k = (E_k + E_(m + k) + .. ) / R. */
static void start_from_mean(Tensor e, Tensor all) {
    const int relations = all.rows / e.rows;
    fill_constant(e, 0);
    for (int k = 0; k < all.rows; k++)
        for (int j = 0; j < e.cols; j++) row(e, k % e.rows)[j] += row(all, k)[j] / (real)relations;
}
/* Exits unless the file is an encoder of e's kind and size, for this model. */
static void encoder_check(const Safetensors *file, Tensor all, const PromptEncoder *e, const Model *model) {
    const Text kind = safetensors_metadata(file, "encoder"), lm = safetensors_metadata(file, "lm");
    const int pseudo = json_int(safetensors_metadata(file, "pseudo"));
    if (!kind.size || !lm.size || pseudo < 1 || !all.rows || all.rows % pseudo)
        die("%s: not an encoder that ptune multi has written", file->path);
    if (!text_is(lm, lm_name(model)))
        die("%s: an encoder for %s, the model is %s", file->path, text_line(lm), lm_name(model));
    if (all.cols != e->embedding.cols)
        die("%s: vectors of %d elements, the model has %d", file->path, all.cols, e->embedding.cols);
    if (!text_is(safetensors_metadata(file, "vocab"), vocab_hash(&model->vocab)))
        die("%s: this encoder was trained with another vocabulary", file->path);
    if (!text_is(kind, encoder_names[e->kind]))
        die("%s: an encoder of kind %s, not %s", file->path, text_line(kind), encoder_names[e->kind]);
    if (pseudo != e->embedding.rows)
        die("%s: an encoder for %d [P], the template has %d", file->path, pseudo, e->embedding.rows);
}
/* The weights of a trained encoder into those of e. */
static void encoder_read(const char *path, const Model *model, PromptEncoder *e) {
    Mark before = mark();
    const Safetensors file = safetensors_open(path);
    Tensor all = {0};
    safetensors_find(&file, "embedding.weight", &all);
    encoder_check(&file, all, e, model);
    safetensors_read(&file, (Parameters){e->weights.at + 1, e->weights.count - 1}); /* what is shared */
    start_from_mean(e->embedding, all);
    for (int p = 0; p < e->weights.count; p++)
        for (size_t i = 0; i < size_of(*e->weights.at[p].tensor); i++)
            if (!isfinite(e->weights.at[p].tensor->data[i])) die("%s: has an element that is not finite", path);
    unmap_file(file.file);
    release(before);
}

static void model_write(const Model *model, const char *folder) { /* a Hugging Face folder of all five files */
    make_folder(folder);
    lm_save(&model->lm, folder);
    vocab_save(&model->vocab, folder);
}

/* ---- What a run depends on --------------------------------------------------------------------------------------- */

static uint64_t hash_file(uint64_t hash, const char *path) { /* what is missing counts as empty */
    if (!strcmp(path, "-") || (file_exists(path) && !is_regular(path)))
        die("%s: with --out this must be a regular file: results are compared by what they were made from", path);
    const Text file = file_exists(path) ? read_file(path) : (Text){"", 0};
    hash = hash_text(hash, file);
    unmap_file(file);
    return hash;
}
static uint64_t hash_model(const char *folder) {
    static const char *const files[] = {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"};
    static const char *const others[] = {"tokenizer.json", "added_tokens.json", "special_tokens_map.json",
                                         "model.safetensors.index.json", "vocab.json", "merges.txt"};
    uint64_t hash = 0;
    for (int i = 0; i < 4; i++) hash = hash_file(hash, format("%s/%s", folder, files[i]));
    for (int i = 0; i < 6; i++)
        if (file_exists(format("%s/%s", folder, others[i]))) hash = hash_file(hash, format("%s/%s", folder, others[i]));
    if (file_exists(format("%s/model.safetensors", folder))) return hash;
    TensorFiles parts = tensor_files_open(folder);
    for (int k = 0; k < parts.parts; k++) hash = hash_text(hash, parts.part[k].file);
    tensor_files_close(&parts);
    return hash;
}
/* Everything that determines the outcome of a run, as "name value; name value": settings, and hashes of what is read.
 * Patience is left out: it only says when to stop. */
static const char *settings(const Options *o, bool trains) {
    const Training *t = &o->training;
    uint64_t examples = 0;
    for (int i = 0; i < 3; i++) examples = hash_file(examples, split_path(o, (Split)i));
    const char *read = format("model %016jx; examples %016jx; vocab %016jx; labels %s; max-length %d; seed %d",
                              (uintmax_t)o->model_hash, (uintmax_t)examples,
                              (uintmax_t)(o->vocab ? hash_file(0, o->vocab) : 0), or_dash(o->labels), o->max_length,
                              t->seed);
    if (!trains) return read;
    const bool encodes = t->encoder != ENCODERS; /* what a run does not use does not matter */
    const double rate = encodes || o->deep ? t->rate : 0;
    const double scale = encodes ? t->scale : 0;
    const double rate_lm = t->tune_lm ? t->rate_lm : 0;
    if (o->deep)
        read = format("%s; deep %d; deep-encoder %d; shift-positions %d", read, o->deep, t->deep_encoder, o->shift);
    const char *from = "";
    if (o->encoder_from)
        from = format("; encoder-from %016jx; freeze-encoder %d", (uintmax_t)hash_file(0, o->encoder_from),
                      o->freeze_encoder);
    return format("%s; encoder %s; tune-lm %d; optimizer %s; lr %.15g; lr-lm %.15g; weight-decay %.15g; clip %.15g; "
                  "warmup %.15g; init-scale %.15g; epochs %d; batch %d; recipe %s; select %s; start %s%s",
                  read, encoder_names[t->encoder], t->tune_lm, o->optimizer, rate, rate_lm, t->decay, t->clip,
                  t->warmup, scale, t->epochs, t->batch, or_dash(o->recipe), o->select, or_dash(o->start),
                  from);
}
/* Exits, naming the first setting that differs, unless both lists are equal. */
static void check_same_settings(const char *path, Text then, const char *now) {
    if (text_is(then, now)) return;
    const Texts old = split(then, ';'), new = split(text_of(now), ';');
    int i = 0;
    while (i < old.count && i < new.count && text_equal(old.at[i], new.at[i])) i++;
    const char *was = i < old.count ? text_string(old.at[i]) : "(none)";
    const char *is = i < new.count ? text_string(new.at[i]) : "(none)";
    die("%s: made with other settings: %s; now: %s", path, was + (*was == ' '), is + (*is == ' '));
}

/* ---- Checkpoints: the state between two epochs ------------------------------------------------------------------- */

/* Every trained tensor and Adam's moments; of the best epoch the prompt, the deep prompt, and what best_lm has under a
 * name that begins with "best.", which is not in model/. */
static Parameters checkpoint_list(Run *run) {
    Parameters list = {allocate(sizeof(Parameter[3 * run->trained.count + 2 + run->best_lm.count])), 0};
    for (int i = 0; i < run->trained.count; i++) {
        Parameter *p = &run->trained.at[i];
        const int rows = p->tensor->rows, cols = p->tensor->cols;
        add_parameter(&list, p->kind, p->tensor, rows, cols, p->name);
        add_parameter(&list, p->kind, &p->m, rows, cols, format("adam.m.%s", p->name));
        add_parameter(&list, p->kind, &p->v, rows, cols, format("adam.v.%s", p->name));
    }
    if (run->encoder) add_parameter(&list, MATRIX, &run->prompt, run->prompt.rows, run->prompt.cols, "best.prompt");
    if (run->deep) {
        Tensor *best = &run->deep->best;
        add_parameter(&list, MATRIX, best, best->rows, best->cols, "best.prefix");
    }
    for (int i = 0; i < run->best_lm.count; i++)
        if (!strncmp(run->best_lm.at[i].name, "best.", 5)) list.at[list.count++] = run->best_lm.at[i];
    return list;
}
static const char *checkpoint_settings(const Options *o) {
    return format("%s; template %s", settings(o, true), o->template);
}
static void checkpoint_write(const Options *o, Run *run, const char *made_with) {
    safetensors_write(
        format("%s/checkpoint.safetensors", o->out), checkpoint_list(run),
        format("{\"settings\":%s,\"epoch\":\"%d\",\"best_epoch\":\"%d\",\"best\":\"%.17g\"}",
               json_quote(made_with), run->epoch, run->best_epoch, run->best));
}
/* False: there is none, and the run starts at the beginning. */
static bool checkpoint_read(const Options *o, Run *run, const char *made_with) {
    const char *path = format("%s/checkpoint.safetensors", o->out);
    if (!file_exists(path)) return false;
    Mark before = mark();
    const Safetensors file = safetensors_open(path);
    check_same_settings(path, safetensors_metadata(&file, "settings"), made_with);
    safetensors_read(&file, checkpoint_list(run));
    run->epoch = json_int(safetensors_metadata(&file, "epoch"));
    run->best_epoch = json_int(safetensors_metadata(&file, "best_epoch"));
    run->best = json_number(safetensors_metadata(&file, "best"));
    if (run->epoch < 0 || run->best_epoch < 0 || isnan(run->best)) die("%s: not a checkpoint", path);
    unmap_file(file.file);
    release(before);
    return true;
}
/* The LM of the best epoch, if it is trained, is not in the checkpoint: it has its own folder. */
static void best_lm_read(const Options *o, Parameters best_lm) {
    Mark before = mark();
    Lm *best = allocate(sizeof *best);
    lm_load(best, format("%s/model", o->out));
    const Parameters from = lm_weights(best);
    bool fits = from.count == best_lm.count;
    for (int i = 0; fits && i < from.count; i++) {
        const Tensor *a = from.at[i].tensor, *b = best_lm.at[i].tensor;
        fits = a->rows == b->rows && a->cols == b->cols;
    }
    if (!fits) die("%s/model: not the model of this checkpoint", o->out);
    parameters_copy(best_lm, from);
    lm_close(best);
    release(before);
}

/* ==== 4. A run ==================================================================================================== */

/* ---- Its report -------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal_number) { (void)signal_number; interrupted = 1; }
static void catch_interrupts(bool on) { /* Ctrl-C: training stops after the step */
    struct sigaction action = {.sa_handler = on ? on_interrupt : SIG_DFL};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

/* Of the run that is trained now: its start in this process, in seconds, and how many epochs were done before. */
static struct { bool shown; double start; int epochs_before; } progress;

static void progress_bar(const Run *run, double loss) {
    const double steps = (double)run->training->epochs * run->steps_an_epoch, share = run->step / steps;
    const int steps_here = run->step - progress.epochs_before * run->steps_an_epoch;
    const double left = fmin((seconds() - progress.start) / steps_here * (steps - run->step), 1e6);
    char bar[31] = "..............................";
    memset(bar, '#', (size_t)(30 * share));
    fprintf(stderr, "\repoch %d/%d [%s] %3.0f %%, loss %.3f, %d:%02d left ", run->epoch, run->training->epochs, bar,
            100 * share, loss, (int)left / 60, (int)left % 60);
    if (run->step % run->steps_an_epoch == 0) fprintf(stderr, "\r%79s\r", "");
}
static void progress_begin(const Options *o, const Run *run) {
    progress.shown = !o->quiet && isatty(2), progress.start = seconds();
    progress.epochs_before = run->epoch < 0 ? 0 : run->epoch;
    catch_interrupts(true);
}
static bool after_step(const Run *run, double loss) {
    if (progress.shown) progress_bar(run, loss);
    return !interrupted;
}
static void stop_if_interrupted(const Options *o, const Run *run) {
    if (!interrupted) return;
    fprintf(stderr, "ptune: interrupted");
    if (isfinite(run->best) && o->out)
        fprintf(stderr, "; the best epoch so far, epoch %d, is kept in %s", run->best_epoch, o->out);
    fputc('\n', stderr);
    exit(130);
}

/* log.tsv has a line an epoch, a start from words included: seed, epoch, mean loss, dev P@1, dev loss, seconds. A run
 * that goes on keeps the lines up to its checkpoint: a run killed between the two writes has left one line too many. */
static FILE *log_open(const Options *o, const Run *run) {
    const char *path = format("%s/log.tsv", o->out);
    if (o->resume && file_exists(path)) {
        const Texts lines = read_lines(path);
        Output kept = output_open(path);
        for (int i = 0; i < min_int(lines.count, run->epoch + (o->start != NULL)); i++)
            fprintf(kept.stream, "%.*s\n", (int)lines.at[i].size, lines.at[i].data);
        output_close(kept);
    }
    if (!o->resume) { /* nothing of an earlier run may be taken for this one's */
        remove(format("%s/checkpoint.safetensors", o->out));
        remove(format("%s/result.tsv", o->out));
    }
    FILE *stream = fopen(path, o->resume ? "a" : "w");
    if (!stream) die("%s: %s", path, strerror(errno));
    return stream;
}
static void report_end(const Options *o, const Run *run, FILE *log_file) {
    stop_if_interrupted(o, run);
    catch_interrupts(false);
    if (log_file && fclose(log_file)) die("%s/log.tsv: cannot be written", o->out);
}
/* What the epoch gave, with P@1 and loss on dev: on the terminal and in the log. */
static void log_epoch(const Options *o, const Run *run, double hits, double dev_loss, FILE *log_file,
                      double epoch_seconds) {
    if (!o->quiet) {
        const char *loss = run->epoch ? format("loss %.4f, ", run->loss) : "";
        const char *star = run->best_epoch == run->epoch ? " *" : "";
        const char *speed = run->epoch ? format(", %.0f tokens/s", run->tokens / epoch_seconds) : "";
        printf("epoch %d: %sdev loss %.4f, dev %s %.2f%s%s\n", run->epoch, loss, dev_loss,
               o->labels ? "accuracy" : "P@1", hits, star, speed);
        fflush(stdout);
    }
    if (!log_file) return;
    fprintf(log_file, "%d\t%d\t%s\t%.2f\t%.6f\t%.1f\n", run->training->seed, run->epoch,
            run->epoch ? format("%.6f", run->loss) : "-", hits, dev_loss, seconds() - progress.start);
    if (fflush(log_file)) die("%s/log.tsv: cannot be written", o->out);
}
/* That, then what is kept of the epoch if it is the best, and finally the checkpoint. */
static void report_epoch(const Options *o, Run *run, FILE *log_file, double epoch_seconds) {
    Mark before = mark();
    const bool better = run->best_epoch == run->epoch;
    log_epoch(o, run, p_at_1(run->dev), run->dev.loss, log_file, epoch_seconds);
    if (o->out && better && (run->encoder || run->deep))
        prompt_write(format("%s/prompt.safetensors", o->out), run->prompt, o->template, run->model);
    if (o->out && better && run->lm.count) model_write(run->model, format("%s/model", o->out));
    if (o->out) checkpoint_write(o, run, checkpoint_settings(o));
    release(before);
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

/* F1 = 2 TP / (2 TP + FP + FN) of the label with this word, in per cent; -1 if it is neither predicted nor true. */
static double label_f1(int word, const Dataset *data, const Prediction *predictions) {
    int hits = 0, times = 0; /* TP; 2 TP + FP + FN */
    for (int i = 0; i < data->count; i++) {
        const bool predicted = predictions[i].predicted == word, truth = data->at[i].answer == word;
        hits += predicted && truth;
        times += predicted + truth;
    }
    return times ? 200.0 * hits / times : -1;
}
/* The mean over the labels that are predicted or true at all. */
static double macro_f1(const Answers *answers, const Dataset *data, const Prediction *predictions) {
    double sum = 0;
    int occurring = 0;
    for (int k = 0; k < answers->labels; k++) {
        const double f1 = label_f1(answers->word[k], data, predictions);
        if (f1 >= 0) sum += f1, occurring++;
    }
    return occurring ? sum / occurring : 0;
}
/* The run starts from the trained encoder in --encoder-from. With --freeze-encoder E is all that is trained of it. */
static void run_from(const Options *o, Run *run) {
    PromptEncoder *e = run->encoder;
    encoder_read(o->encoder_from, run->model, e);
    if (!o->freeze_encoder) return;
    const Parameters rest = {run->trained.at + e->weights.count, run->trained.count - e->weights.count};
    parameters_freeze((Parameters){e->weights.at + 1, e->weights.count - 1});
    e->weights.count = 1; /* E is the first */
    run->trained = parameters_joined(e->weights, rest);
}
/* Row k of h starts at the embedding of word[k], exactly; where that is negative it stays as it was drawn. The plain
 * encoder's E begins there. A network's last layer begins at 0 instead, and h is the start plus what it learns. */
static void encoder_start(PromptEncoder *e, Tensor table, const int *word) {
    const Tensor h = encoder_forward(e).prompt;
    for (int k = 0; k < h.rows; k++)
        if (word[k] >= 0) memcpy(row(h, k), row(table, word[k]), (size_t)h.cols * sizeof(real));
    if (e->kind == ENCODER_EMBEDDING) return; /* h is E */
    e->start = h;
    fill_constant(e->second.w, 0), fill_constant(e->second.b, 0);
}
/* One seed, from its start to its score on test. The best epoch's h goes to `prompt` (m, H). With --resume it continues
 * from the checkpoint in --out. Returns how many parameters were trained. */
static int run_seed(const Options *o, Model *model, const Dataset data[3], Tensor prompt, Prediction *predictions,
                    Score *score) {
    Mark before = mark();
    Run run = run_begin(&o->training, model, prompt);
    if (o->encoder_from) run_from(o, &run);
    if (o->start_word) encoder_start(run.encoder, lm_word(&model->lm), o->start_word), run.epoch = -1;
    if (o->resume && checkpoint_read(o, &run, checkpoint_settings(o)) && run.lm.count) best_lm_read(o, run.best_lm);
    FILE *log_file = o->out ? log_open(o, &run) : NULL;
    progress_begin(o, &run);
    while (run_goes_on(&run)) {
        const double start = seconds();
        const bool done = next_epoch(&run, &data[TRAIN_SET], &data[DEV_SET]);
        if (!done) stop_if_interrupted(o, &run);
        report_epoch(o, &run, log_file, seconds() - start);
    }
    report_end(o, &run, log_file);
    run_end(&run);
    *score = evaluate_any(model, prompt, &data[TEST_SET], predictions);
    const int trained = (int)parameters_size(run.trained);
    release(before);
    return trained;
}

#endif
