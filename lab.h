/* lab.h - what surrounds the paper's pass: runs that are reported and kept, baselines, tables, the command line.
 *
 *   1  settings            what the command line says
 *   2  a model, and the three sets of examples
 *   3  what is written     prompts, models, checkpoints, and what a result depends on
 *   4  a run               from the examples to the score on test, with its report
 *   5  discrete search     AutoPrompt, a baseline
 *   6  methods             the paper's baselines and P-tuning, on one relation
 *   7  tables              many methods on many relations
 *   8  the commands        the demo first
 *   9  the command line
 */
#ifndef LAB_H
#define LAB_H

#include "vocab.h"
#include "examples.h"
#include "world.h"

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
    const char *start; /* the prompt in whose words a run starts: template and training.start follow from it */
    const char *select, *optimizer, *recipe, *task, *tasks, *methods, *relations, *prompts, *text;
    int seeds, jobs, max_length, size;
    uint64_t model_hash; /* of the files in --model, where results are kept */
    bool resume, quiet, causal;
} Options;

static const char usage_text[] =
    "usage: ptune [demo [--seeds N] [--methods M,M] ...]      the demo: the paper's table on data/\n"
    "       ptune fill     --model DIR TEXT                   five best words for each [MASK], or (GPT) to go on\n"
    "       ptune fill     --model DIR --prompt FILE SUBJECT  the same, under a learned prompt\n"
    "       ptune tokenize --model DIR FILE.jsonl             the ids of each line's \"text\"\n"
    "       ptune train    --model DIR --data DIR [--template T | --start T] [--encoder lstm|mlp|embedding]\n"
    "                      [--tune-lm] [--out DIR] [--seed N] [--seeds N] [--epochs N] [--lr F] ... (README.md has all)\n"
    "       ptune eval     --model DIR --data FILE.jsonl (--template T | --prompt FILE) ... [--vocab FILE]\n"
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

static Model *model_load(const Options *o) {
    Model *model = allocate(sizeof *model);
    lm_load(&model->lm, o->model);
    model->vocab = vocab_load(o->model);
    if (model->lm.causal != model->vocab.bytes)
        die("%s: config.json is that of %s, but its vocabulary that of %s", o->model,
            model->lm.causal ? "GPT-2" : "BERT", model->vocab.bytes ? "GPT-2" : "BERT");
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
    return given[which] ? given[which] : format("%s/%s.jsonl", or_dash(o->data), split_name[which]);
}
/* One of the three sets under a template. */
static Dataset read_split(const Options *o, const Model *model, Split which, const Template *t) {
    if (o->data && is_regular(o->data) && !file_exists(split_path(o, which)))
        die("%s: one file, not a folder with train.jsonl, dev.jsonl and test.jsonl: it has no %s set", o->data,
            split_name[which]);
    return read_examples(split_path(o, which), model, t, o->max_length, o->quiet);
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
/* The prompt h (m, H), the template it belongs to, and whose vocabulary that was. */
static void prompt_write(const char *path, Tensor prompt, const char *template, const Vocab *vocab) {
    Parameter p = {.name = "prompt", .tensor = &prompt};
    safetensors_write(path, (Parameters){&p, 1},
                      format("{\"template\":%s,\"vocab\":\"%s\"}", json_quote(template), vocab_hash(vocab)));
}
/* Exits unless the file is a prompt for this model. */
static Tensor prompt_read(const char *path, const Model *model, Template *t) {
    const Safetensors file = safetensors_open(path);
    Text text = safetensors_metadata(&file, "template"), hash = safetensors_metadata(&file, "vocab");
    Tensor prompt;
    if (!text.size || !safetensors_find(&file, "prompt", &prompt))
        die("%s: not a prompt: no template or no tensor 'prompt'", path);
    if (!text_is(hash, vocab_hash(&model->vocab))) die("%s: this prompt was trained with another vocabulary", path);
    if (prompt.cols != lm_word(&model->lm).cols)
        die("%s: vectors of %d elements, the model has %d", path, prompt.cols, lm_word(&model->lm).cols);
    for (size_t i = 0; i < size_of(prompt); i++)
        if (!isfinite(prompt.data[i])) die("%s: has an element that is not finite", path);
    *t = template_read(text_string(text));
    template_origin = path;
    if (t->pseudo != prompt.rows)
        die("%s: %d vectors, but its template has %d [P]", path, prompt.rows, t->pseudo);
    return prompt;
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
    const double rate = encodes ? t->rate : 0, scale = encodes ? t->scale : 0;
    const double rate_lm = t->tune_lm ? t->rate_lm : 0;
    return format("%s; encoder %s; tune-lm %d; optimizer %s; lr %.15g; lr-lm %.15g; weight-decay %.15g; clip %.15g; "
                  "warmup %.15g; init-scale %.15g; epochs %d; batch %d; recipe %s; select %s; start %s",
                  read, encoder_names[t->encoder], t->tune_lm, o->optimizer, rate, rate_lm, t->decay, t->clip,
                  t->warmup, scale, t->epochs, t->batch, or_dash(o->recipe), o->select, or_dash(o->start));
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

/* Every trained tensor, Adam's moments, the best prompt. */
static Parameters checkpoint_list(Run *run) {
    Parameters list = {allocate(sizeof(Parameter[3 * run->trained.count + 1])), 0};
    for (int i = 0; i < run->trained.count; i++) {
        Parameter *p = &run->trained.at[i];
        const int rows = p->tensor->rows, cols = p->tensor->cols;
        add_parameter(&list, p->kind, p->tensor, rows, cols, p->name);
        add_parameter(&list, p->kind, &p->m, rows, cols, format("adam.m.%s", p->name));
        add_parameter(&list, p->kind, &p->v, rows, cols, format("adam.v.%s", p->name));
    }
    if (run->encoder) add_parameter(&list, MATRIX, &run->prompt, run->prompt.rows, run->prompt.cols, "best.prompt");
    return list;
}
static const char *checkpoint_settings(const Options *o) {
    return format("%s; template %s", settings(o, true), o->template);
}
static void checkpoint_write(const Options *o, Run *run) {
    safetensors_write(
        format("%s/checkpoint.safetensors", o->out), checkpoint_list(run),
        format("{\"settings\":%s,\"epoch\":\"%d\",\"best_epoch\":\"%d\",\"best\":\"%.17g\"}",
               json_quote(checkpoint_settings(o)), run->epoch, run->best_epoch, run->best));
}
static void checkpoint_read(const Options *o, Run *run) {
    const char *path = format("%s/checkpoint.safetensors", o->out);
    if (!file_exists(path)) return; /* stopped before its first epoch ended: it starts at the beginning */
    Mark before = mark();
    const Safetensors file = safetensors_open(path);
    check_same_settings(path, safetensors_metadata(&file, "settings"), checkpoint_settings(o));
    safetensors_read(&file, checkpoint_list(run));
    run->epoch = json_int(safetensors_metadata(&file, "epoch"));
    run->best_epoch = json_int(safetensors_metadata(&file, "best_epoch"));
    run->best = json_number(safetensors_metadata(&file, "best"));
    if (run->epoch < 0 || run->best_epoch < 0 || isnan(run->best)) die("%s: not a checkpoint", path);
    if (run->lm.count) { /* the best epoch's weights are in model/ */
        Lm *best = allocate(sizeof *best);
        lm_load(best, format("%s/model", o->out));
        parameters_copy(run->best_lm, lm_weights(best));
        lm_close(best);
    }
    unmap_file(file.file);
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
/* What the epoch gave: on the terminal, in the log, and finally in the checkpoint. */
static void report_epoch(const Options *o, Run *run, FILE *log_file, double epoch_seconds) {
    Mark before = mark();
    const bool better = run->best_epoch == run->epoch;
    if (!o->quiet) {
        const char *loss = run->epoch ? format("loss %.4f, ", run->loss) : "", *star = better ? " *" : "";
        const char *speed = run->epoch ? format(", %.0f tokens/s", run->tokens / epoch_seconds) : "";
        printf("epoch %d: %sdev loss %.4f, dev %s %.2f%s%s\n", run->epoch, loss, run->dev.loss,
               o->labels ? "accuracy" : "P@1", p_at_1(run->dev), star, speed);
        fflush(stdout);
    }
    if (!o->out) return;
    if (better && run->encoder)
        prompt_write(format("%s/prompt.safetensors", o->out), run->prompt, o->template, &run->model->vocab);
    if (better && run->lm.count) model_write(run->model, format("%s/model", o->out));
    fprintf(log_file, "%d\t%d\t%s\t%.2f\t%.6f\t%.1f\n", run->training->seed, run->epoch,
            run->epoch ? format("%.6f", run->loss) : "-", p_at_1(run->dev), run->dev.loss, seconds() - progress.start);
    if (fflush(log_file)) die("%s/log.tsv: cannot be written", o->out);
    checkpoint_write(o, run);
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
/* One seed, from its start to its score on test. The best epoch's h goes to `prompt` (m, H). With --resume it continues
 * from the checkpoint in --out. Returns how many parameters were trained. */
static int run_seed(const Options *o, Model *model, const Dataset data[3], Tensor prompt, Prediction *predictions,
                    Score *score) {
    Mark before = mark();
    Run run = run_begin(&o->training, model, prompt);
    if (o->resume) checkpoint_read(o, &run);
    FILE *log_file = o->out ? log_open(o, &run) : NULL;
    progress.shown = !o->quiet && isatty(2), progress.start = seconds();
    progress.epochs_before = run.epoch < 0 ? 0 : run.epoch;
    catch_interrupts(true);
    while (run_goes_on(&run)) {
        const double start = seconds();
        const bool done = next_epoch(&run, &data[TRAIN_SET], &data[DEV_SET]);
        if (!done) stop_if_interrupted(o, &run);
        report_epoch(o, &run, log_file, seconds() - start);
    }
    stop_if_interrupted(o, &run);
    catch_interrupts(false);
    if (log_file && fclose(log_file)) die("%s/log.tsv: cannot be written", o->out);
    run_end(&run);
    *score = evaluate(model, prompt, &data[TEST_SET], predictions);
    const int trained = (int)parameters_size(run.trained);
    release(before);
    return trained;
}

/* ==== 5. Discrete search: AutoPrompt (Shin et al. 2020), one of the paper's baselines ============================= */

/* The word with the largest score, which is then set to -inf. */
static int pop_argmax(real *score, int words, real *value) {
    int best = 0;
    for (int w = 1; w < words; w++)
        if (score[w] > score[best]) best = w;
    *value = score[best], score[best] = -INFINITY;
    return best;
}
/* A word may be put into a template if it tokenises back to itself, is no placeholder and no answer of train. */
static bool *search_words(const Model *model, const Dataset *train) {
    const Vocab *vocab = &model->vocab;
    bool *usable = allocate_zeroed(sizeof(bool[lm_word(&model->lm).rows]));
    for (int w = 0; w < vocab->size; w++) {
        const Text word = trimmed(vocab_text(vocab, w));
        usable[w] = word.size && !(word.size > 1 && word.data[0] == '[') && !memchr(word.data, '{', word.size) &&
                    utf8_valid(word) && vocab_word(vocab, word) == w;
    }
    for (int i = 0; i < train->count; i++) usable[train->at[i].answer] = false;
    return usable;
}
/* A part of a template as text, a word for a [P]. */
static Text part_text(const Part *p, const Vocab *vocab, int word) {
    if (p->kind == PSEUDO) return trimmed(vocab_text(vocab, word));
    if (p->kind == MASK) return text_of("[MASK]");
    if (p->kind == SEPARATOR) return text_of("[SEP]");
    if (p->kind == WORDS) return p->text;
    return text_of(p->text.size ? format("{%.*s}", (int)p->text.size, p->text.data) : "[X]");
}
/* The template as text, with words in the places of its [P]. */
static const char *template_with_words(const Template *t, const Vocab *vocab, const int *word) {
    const bool space_first = vocab->bytes && t->part[0].kind == PSEUDO; /* as a word of byte-level BPE begins */
    const char *form = space_first ? " " : "";
    for (int i = 0, k = 0; i < t->parts; i++) {
        const Text text = part_text(&t->part[i], vocab, word[k]);
        const bool apart = !*form || form[strlen(form) - 1] == ' ' || text.data[0] == ' ';
        form = format(apart ? "%s%.*s" : "%s %.*s", form, (int)text.size, text.data);
        k += t->part[i].kind == PSEUDO;
    }
    return form;
}

static double batch_loss(const Lm *lm, Tensor prompt, const Inputs *in, const bool *in_loss) {
    return cross_entropy_forward(batch_logits(lm, prompt, in, in_loss), in->target);
}
static double loss_with_word(const Model *model, Tensor prompt, int slot, int word, const Inputs *in) {
    Mark before = mark();
    Tensor changed = tensor(prompt.rows, prompt.cols);
    memcpy(changed.data, prompt.data, size_of(prompt) * sizeof(real));
    memcpy(row(changed, slot), row(lm_word(&model->lm), word), sizeof(real[prompt.cols]));
    const double loss = batch_loss(&model->lm, changed, in, model->answers.in_loss);
    release(before);
    return loss;
}
/* Swapping the word of a slot for w changes the loss by (e_w - e_now) . dL/de to first order, e the slot's embedding.
 * The top candidates by estimated loss decrease are evaluated exactly; returns the best one, or the present word. */
static int best_swap(const Model *model, Tensor prompt, int slot, int present, const bool *usable, const Inputs *in) {
    enum { CANDIDATES = 10 };
    const Tensor table = lm_word(&model->lm);
    needs_grad(&prompt);
    double best_loss = loss_and_gradient(&model->lm, prompt, in, model->answers.in_loss);
    const Tensor decrease = tensor_zeros(1, table.rows); /* -e_w . dL/de */
    const Matrix dslot = part(gradient(prompt), slot, 1, 0, table.cols);
    int best = present;
    matmul(values(decrease), dslot, transposed(values(table)));
    for (int w = 0; w < table.rows; w++)
        decrease.data[w] = usable[w] && w != present ? -decrease.data[w] : -(real)INFINITY;
    for (int c = 0; c < CANDIDATES; c++) {
        real estimate;
        const int next = pop_argmax(decrease.data, table.rows, &estimate);
        if (!isfinite(estimate)) break;
        const double loss = loss_with_word(model, prompt, slot, next, in);
        if (loss < best_loss) best_loss = loss, best = next;
    }
    return best;
}
/* The template with its [P] replaced by words, slot after slot: a swap is made on one batch of train, and kept if it
 * also lowers the loss on another one. */
static const char *search(const Options *o, const Model *model, const char *form) {
    enum { EXAMPLES = 24, SWEEPS = 2 };
    const Template t = template_read(form);
    const Dataset train = read_split(o, model, TRAIN_SET, &t);
    const Tensor table = lm_word(&model->lm);
    const bool *usable = search_words(model, &train);
    int start = vocab_word(&model->vocab, text_of("the"));
    for (int w = 0; start < 0 && w < model->vocab.size; w++)
        if (usable[w]) start = w;
    const int each = min_int(EXAMPLES, train.count / 2);
    int *order = in_order(train.count), *word = allocate(sizeof(int) * (size_t)(t.pseudo + 1));
    const Tensor prompt = tensor(t.pseudo, table.cols);
    Random random = {(uint64_t)o->training.seed};
    if (train.count < 2) die("%s: one example is too few to search with", train.path);
    if (start < 0) die("%s: no word that may be put into a template", model->vocab.path);
    for (int k = 0; k < t.pseudo; k++) memcpy(row(prompt, k), row(table, start), sizeof(real[table.cols]));
    for (int k = 0; k <= t.pseudo; k++) word[k] = start;
    for (int turn = 0; turn < SWEEPS * t.pseudo; turn++) {
        Mark before = mark();
        const int slot = turn % t.pseudo;
        shuffle(order, train.count, &random);
        const Inputs in = inputs_of(train.at, order, each), other = inputs_of(train.at, order + each, each);
        const int best = best_swap(model, prompt, slot, word[slot], usable, &in);
        if (best != word[slot] && loss_with_word(model, prompt, slot, best, &other) <
                                      loss_with_word(model, prompt, slot, word[slot], &other)) {
            word[slot] = best;
            memcpy(row(prompt, slot), row(table, best), sizeof(real[table.cols]));
        }
        release(before);
    }
    return template_with_words(&t, &model->vocab, word);
}

/* ==== 6. Methods ================================================================================================== */

/* A method is a kind of answer, the template that it prompts with, and what is trained. */
typedef enum { MAJORITY, ZERO_SHOT, SEARCH, TRAIN } MethodKind;
typedef struct {
    const char *name;
    MethodKind kind;
    const char *template; /* manual: that of relations.jsonl; hybrid: the same with [P] between its words and fields;
                             best, worst: of relation_prompts; start: the manual one's words are where [P] start;
                             NULL: --template */
    EncoderKind encoder;  /* ENCODERS: none */
    bool tune_lm;
    double demo_rate; /* on the small world, chosen on dev; elsewhere --lr and --lr-lm */
    const char *meaning;
} Method;
static const Method methods[] = {
    {"majority", MAJORITY, "[X] [MASK]", ENCODERS, false, 0, "the most frequent answer of train"},
    {"worst", ZERO_SHOT, "worst", ENCODERS, false, 0, "manual prompts, the worst one on test"},
    {"manual", ZERO_SHOT, "manual", ENCODERS, false, 0, "the manual prompt"},
    {"best", ZERO_SHOT, "best", ENCODERS, false, 0, "manual or given prompts, the best one on dev"},
    {"search", SEARCH, "[X] [P][P][P] [MASK] .", ENCODERS, false, 0, "discrete search, [X] [P][P][P] [MASK] ."},
    {"ft", TRAIN, "[X] [MASK]", ENCODERS, true, 5e-4, "fine-tuning, [X] [MASK]"},
    {"mp+ft", TRAIN, "manual", ENCODERS, true, 5e-4, "fine-tuning, the manual prompt"},
    {"best+ft", TRAIN, "best", ENCODERS, true, 2e-4, "fine-tuning, the best prompt"},
    {"p-lstm", TRAIN, NULL, ENCODER_LSTM, false, 5e-3, "P-tuning, LSTM and MLP"},
    {"p-mlp", TRAIN, NULL, ENCODER_MLP, false, 8e-3, "P-tuning, MLP"},
    {"p-embedding", TRAIN, NULL, ENCODER_EMBEDDING, false, 3e-2, "P-tuning, plain embeddings"},
    {"p-swapped", TRAIN, "(3,3,3)", ENCODER_LSTM, false, 5e-3, "P-tuning, mask before subject"},
    {"p-hybrid", TRAIN, "hybrid", ENCODER_LSTM, false, 5e-3, "P-tuning, [P] between the words of the manual prompt"},
    {"p-start", TRAIN, "start", ENCODER_LSTM, false, 5e-3, "P-tuning, [P] that start from the manual prompt"}};
enum { METHODS = sizeof methods / sizeof *methods };

static const Method *method_named(Text name) {
    for (int m = 0; m < METHODS; m++)
        if (text_is(name, methods[m].name)) return &methods[m];
    usage("unknown method ", text_string(name));
}

/* ---- The template of a method ------------------------------------------------------------------------------------ */

static void prompts_push(Texts *prompts, const Model *model, Text prompt) {
    const char *form = readable_prompt(model, text_string(prompt));
    if (form) texts_push(prompts, text_of(form));
}
/* The discrete prompts of a relation, a line each. --prompts is a file, or a folder of <relation>.jsonl or .txt;
 * without it they are in prompts.txt beside the examples, if that exists, and the relation's own template comes last. A
 * line may be a JSON object with a template and, if the file has prompts of several relations, a relation. Left out are
 * those that the model cannot read. */
static Texts relation_prompts(const Options *o, const Model *model, const Relation *relation) {
    const char *path = o->prompts ? o->prompts : format("%s/prompts.txt", relation->folder);
    if (o->prompts && file_exists(format("%s/.", path))) {
        path = format("%s/%s.jsonl", o->prompts, relation->name);
        if (!file_exists(path)) path = format("%s/%s.txt", o->prompts, relation->name);
    }
    Texts prompts = {0};
    Text rest = o->prompts || file_exists(path) ? read_file(path) : (Text){"", 0}, template, name;
    if (!utf8_valid(rest)) die("%s: not valid UTF-8", path);
    for (int line = 1; next_line(&rest, &template); line++) {
        if (text_starts(template, "{\"")) {
            const Text json = template;
            json_check(json, path, line);
            template = example_field(json, text_of("template"), path, line);
            if (json_member(json, "relation", &name) && json_is_string(name) &&
                !text_is(json_string(name), relation->name))
                continue;
        }
        if (template.size) prompts_push(&prompts, model, template);
    }
    if (!o->prompts) prompts_push(&prompts, model, relation->template);
    if (!prompts.count) die("%s: no prompt for %s", path, relation->name);
    return prompts;
}
/* The relation's own template or, where the model cannot read that, the first of its other prompts that it can. */
static const char *manual_prompt(const Options *o, const Model *model, const Relation *relation) {
    const char *own = readable_prompt(model, text_string(relation->template));
    return own ? own : text_string(relation_prompts(o, model, relation).at[0]);
}
/* The prompt with the most hits on dev, or with the fewest on test. */
static const char *choose_prompt(const Options *o, const Model *model, const Relation *relation, bool best) {
    const Texts prompts = relation_prompts(o, model, relation);
    const char *chosen = NULL;
    for (int p = 0, top = INT32_MIN; p < prompts.count; p++) {
        const char *candidate = text_string(prompts.at[p]);
        Mark before = mark();
        const Template t = template_read(candidate);
        if (t.pseudo) die("%s: [P] where nothing is trained: %s", relation->name, candidate);
        const Dataset data = read_split(o, model, best ? DEV_SET : TEST_SET, &t);
        const int hits = evaluate(model, (Tensor){0}, &data, NULL).hits, merit = best ? hits : -hits;
        if (merit > top) top = merit, chosen = candidate;
        release(before);
    }
    return chosen;
}
/* What the template of a method says, before anything is chosen or searched. */
static const char *method_form(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const char *form = m->template;
    if (!form || !strcmp(form, "start")) return o->template;
    if (!strcmp(form, "best") || !strcmp(form, "worst")) return form;
    if (!strcmp(form, "manual")) return manual_prompt(o, model, relation);
    if (!strcmp(form, "hybrid"))
        return text_string(sentence(text_of(manual_prompt(o, model, relation)), text_of("[P] [X] [P]"),
                                    text_of("[P] [MASK]")));
    if (!readable_prompt(model, form))
        die("method %s: this LM is causal, and its answer comes last: %s", m->name, form);
    return readable_prompt(model, form);
}
static const char *method_template(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const char *form = method_form(m, o, model, relation);
    if (m->kind == SEARCH) return search(o, model, form);
    if (!strcmp(form, "best")) return choose_prompt(o, model, relation, true);
    if (!strcmp(form, "worst")) return choose_prompt(o, model, relation, false);
    return form;
}

/* ---- A start from words ------------------------------------------------------------------------------------------ */

/* Whether a part can be tokenised without the fields beside it: words can where a space stands between the two, or a
 * punctuation mark, which for BERT is a word of its own. `[X]s` may be one word. */
static bool stands_apart(const Template *t, int i, const Vocab *vocab) {
    const Text text = t->part[i].text;
    if (t->part[i].kind != WORDS || !trimmed_end(text).size) return true;
    const char first = text.data[0], last = text.data[text.size - 1];
    const bool left = first == ' ' || (!vocab->bytes && ispunct((unsigned char)first));
    const bool right = last == ' ' || (!vocab->bytes && ispunct((unsigned char)last));
    return (left || !i || t->part[i - 1].kind != FIELD) &&
           (right || i + 1 == t->parts || t->part[i + 1].kind != FIELD);
}
/* A part as text, with a [P] for each token of its words; where its [P] start is added to `start`. A space at the end
 * of words belongs to what follows, as in template_ids. */
static const char *part_with_start(const Part *p, const Vocab *vocab, Ids *start) {
    const Text words = trimmed_end(p->text);
    const int before = start->count;
    if (p->kind == PSEUDO) ids_push(start, -1);
    else if (p->kind == WORDS) tokenize(vocab, words, start);
    else return text_string(part_text(p, vocab, 0));
    return format("%s%s%.*s", words.size && words.data[0] == ' ' ? " " : "", pseudo_tokens(start->count - before),
                  (int)(p->text.size - words.size), p->text.data + words.size);
}
/* The template becomes the prompt o->start with [P] in the place of its words, each of which starts at the embedding of
 * its token: so until the first step the prompt says what it said before. */
static void start_from_words(Options *o, const Model *model) {
    const Template t = template_read(o->start);
    Ids start = {0};
    o->template = "";
    for (int i = 0; i < t.parts; i++) {
        if (!stands_apart(&t, i, &model->vocab))
            die("template '%s': no start from words that may be one word with a field: '%s'", o->start,
                text_string(t.part[i].text));
        o->template = format("%s%s", o->template, part_with_start(&t.part[i], &model->vocab, &start));
    }
    if (start.count == t.pseudo) die("template '%s': no words to start from", o->start);
    o->training.start = start.id;
}

/* ---- One method on one relation ---------------------------------------------------------------------------------- */

/* In a file it is one line: these fields with tabs between them. */
typedef struct {
    const char *relation, *method, *vocab, *seed, *template;
    Score score;       /* on test */
    int seen;          /* examples of test whose subject is also in train */
    int trained, kept; /* how many parameters were trained; how many must be kept to answer */
    double seconds, macro_f1;
    const char *settings; /* all that the score depends on */
    Tensor prompt;        /* what was learned; not in the file */
} Result;

static void result_print(FILE *stream, const Result *r) {
    fprintf(stream, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.1f\t%.2f\t%s\n", r->relation, r->method, r->vocab,
            r->seed, text_line(text_of(r->template)), r->score.hits, r->score.examples, r->seen, r->trained, r->kept,
            r->seconds, r->macro_f1, text_line(text_of(r->settings)));
}
static Result result_parse(Text line, const char *path) {
    const Texts fields = split(line, '\t');
    const Text *f = fields.at;
    if (fields.count != 13) die("%s: not one line of 13 fields", path);
    const Score score = {.hits = json_int(f[5]), .examples = json_int(f[6])};
    const Result r = {text_string(f[0]), text_string(f[1]), text_string(f[2]), text_string(f[3]), text_string(f[4]),
                      .score = score, .seen = json_int(f[7]), .trained = json_int(f[8]), .kept = json_int(f[9]),
                      .seconds = json_number(f[10]), .macro_f1 = json_number(f[11]), .settings = text_string(f[12])};
    if (score.hits < 0 || score.hits > score.examples || score.examples < 1 || r.seen < 0 || r.trained < 0 ||
        r.kept < 0 || !(r.seconds >= 0) || !(r.macro_f1 >= 0))
        die("%s: not a result", path);
    return r;
}
static void result_write(const char *path, const Result *r) {
    Output out = output_open(path);
    result_print(out.stream, r);
    output_close(out);
}
static Result result_read(const char *path) {
    const Texts lines = read_lines(path);
    return result_parse(lines.count == 1 ? lines.at[0] : text_of(""), path);
}

static Score majority_score(const Dataset *train, const Dataset *test, int words) {
    Score score = {.examples = test->count};
    int *times = allocate_zeroed(sizeof(int) * (size_t)words), best = train->at[0].answer;
    for (int i = 0; i < train->count; i++)
        if (++times[train->at[i].answer] > times[best]) best = train->at[i].answer;
    for (int i = 0; i < test->count; i++) score.hits += test->at[i].answer == best;
    return score;
}
/* How many examples of test have a subject that is also in train. */
static int seen_subjects(const Dataset *train, const Dataset *test) {
    Texts known = {0};
    int seen = 0;
    for (int i = 0; i < train->count; i++)
        if (train->at[i].subject) texts_push(&known, text_of(train->at[i].subject));
    if (!known.count) return 0;
    qsort(known.at, (size_t)known.count, sizeof(Text), compare_texts);
    for (int i = 0; i < test->count; i++) {
        if (!test->at[i].subject) continue;
        const Text subject = text_of(test->at[i].subject);
        seen += bsearch(&subject, known.at, (size_t)known.count, sizeof(Text), compare_texts) != NULL;
    }
    return seen;
}
/* The name of a file without its folder and what follows its last dot. */
static const char *stem(const char *path) {
    char *name = basename(text_string(text_of(path))), *dot = strrchr(name, '.');
    if (dot && dot > name) *dot = 0;
    return text_line(text_of(name));
}
/* The options with what the method says. */
static Options method_options(const Method *m, const Options *options, const Model *model, const Relation *relation) {
    Options o = *options;
    o.data = relation->folder, o.training.encoder = m->encoder, o.training.tune_lm = m->tune_lm;
    if (o.training.rate < 0) o.training.rate = o.training.rate_lm = m->demo_rate;
    if (m->template && !strcmp(m->template, "start")) {
        o.start = manual_prompt(&o, model, relation);
        start_from_words(&o, model);
    }
    return o;
}
/* All that the score of a method depends on; best and worst also depend on the prompts to choose from. */
static const char *method_settings(const Method *m, const Options *o, const Model *model, const Relation *relation) {
    const bool trains = m->kind == TRAIN;
    const char *form = method_form(m, o, model, relation), *all = settings(o, trains);
    uint64_t prompts = 0;
    if (!strcmp(form, "best") || !strcmp(form, "worst")) {
        const Texts given = relation_prompts(o, model, relation);
        for (int i = 0; i < given.count; i++) prompts = hash_text(prompts, given.at[i]);
    }
    all = format("%s; prompts %016jx; template %s", all, (uintmax_t)prompts, form);
    return format("%s; patience %d", all, trains ? o->training.patience : 0);
}
/* Everything from the files to the score on test. A method that trains the LM loads its own copy, so `model` is always
 * as it was published. */
static Result run_method(const Method *m, const Options *options, Model *model, const Relation *relation) {
    const double start = seconds();
    Options o = method_options(m, options, model, relation);
    Dataset data[3];
    o.template = method_template(m, &o, model, relation);
    const Template t = template_read(o.template);
    Result r = {relation->name, m->name, o.vocab ? stem(o.vocab) : "all", format("%d", o.training.seed), o.template,
                .settings = o.out ? method_settings(m, &o, model, relation) : "-",
                .prompt = tensor(t.pseudo, lm_word(&model->lm).cols)};
    Mark before = mark();
    Model own = *model;
    if (m->tune_lm && o.out && same_file(o.model, format("%s/model", o.out)))
        die("--out %s: the trained model would overwrite the one that is read, %s", o.out, o.model);
    if (m->tune_lm) lm_load(&own.lm, o.model);
    if (t.pseudo && m->encoder == ENCODERS) die("%s: [P] where nothing is trained: %s", relation->name, o.template);
    for (int i = 0; i < 3; i++) { /* a relation that is one file has only a test set */
        const bool missing = m->kind == ZERO_SHOT && i != TEST_SET && is_regular(or_dash(o.data));
        data[i] = missing ? (Dataset){NULL, 0, o.data} : read_split(&o, model, (Split)i, &t);
    }
    if (m->kind == TRAIN && o.recipe && data[TRAIN_SET].count < o.training.batch)
        die("%s: %d examples do not fill one batch of %d", data[TRAIN_SET].path, data[TRAIN_SET].count,
            o.training.batch);
    Prediction *predictions = allocate(sizeof(Prediction) * (size_t)data[TEST_SET].count);
    if (m->kind == TRAIN) r.trained = run_seed(&o, m->tune_lm ? &own : model, data, r.prompt, predictions, &r.score);
    else if (m->kind == MAJORITY) r.score = majority_score(&data[TRAIN_SET], &data[TEST_SET], lm_word(&model->lm).rows);
    else r.score = evaluate(model, r.prompt, &data[TEST_SET], predictions);
    if (m->kind != MAJORITY) r.macro_f1 = macro_f1(&model->answers, &data[TEST_SET], predictions);
    if (m->kind == SEARCH) r.kept = template_parse(m->template).pseudo;
    if (m->kind == TRAIN) r.kept = (int)size_of(r.prompt);
    if (m->tune_lm) r.kept += (int)parameters_size(lm_weights(&own.lm)), lm_close(&own.lm);
    if (!model->answers.labels) r.seen = seen_subjects(&data[TRAIN_SET], &data[TEST_SET]); /* else: sentences */
    r.seconds = round(10 * (seconds() - start)) / 10; /* as in the file, or sums over relations differ */
    release(before);
    return r;
}
/* As above, unless its result line exists: then that, if it was made with the same settings. Training goes on from its
 * checkpoint. */
static Result run_once(const Method *m, const Options *options, Model *model, const Relation *relation) {
    static const char *const used_up[] = {"checkpoint.safetensors", "model/config.json", "model/vocab.txt",
                                          "model/vocab.json", "model/merges.txt",
                                          "model/tokenizer_config.json", "model/tokenizer.json",
                                          "model/model.safetensors", "model"};
    if (!options->out) return run_method(m, options, model, relation);
    Options o = *options;
    o.resume = true;
    o.out = format("%s/%s.%s.%s.%d", o.out, relation->name, m->name, o.vocab ? stem(o.vocab) : "all", o.training.seed);
    const char *path = format("%s.result.tsv", o.out);
    const Lock lock = lock_file(format("%s.lock", o.out));
    Result r;
    if (file_exists(path)) {
        const Options now = method_options(m, &o, model, relation);
        r = result_read(path);
        check_same_settings(path, text_of(r.settings), text_line(text_of(method_settings(m, &now, model, relation))));
    } else {
        if (m->kind == TRAIN) make_folder(o.out);
        r = run_method(m, &o, model, relation);
        result_write(path, &r);
        for (int i = 0; m->kind == TRAIN && i < 9; i++) remove(format("%s/%s", o.out, used_up[i]));
    }
    unlock_file(lock);
    return r;
}

/* ==== 7. Tables =================================================================================================== */

typedef struct { Result *at; int count; Texts relations, methods, vocabs, seeds; } Table;

static void add_name(Texts *names, const char *name) {
    if (!texts_contain(names, text_of(name))) texts_push(names, text_of(name));
}
static void table_add(Table *t, Result r) {
    for (int i = 0; i < t->count; i++) {
        const Result *old = &t->at[i];
        if (!strcmp(old->relation, r.relation) && !strcmp(old->method, r.method) && !strcmp(old->vocab, r.vocab) &&
            !strcmp(old->seed, r.seed))
            die("two results for relation %s, method %s, answers %s, seed %s", r.relation, r.method, r.vocab, r.seed);
    }
    t->at = grow(t->at, t->count, sizeof r);
    t->at[t->count++] = r;
    add_name(&t->relations, r.relation), add_name(&t->methods, r.method);
    add_name(&t->vocabs, r.vocab), add_name(&t->seeds, r.seed);
}
/* The runs of a method with a vocabulary, on one relation or (NULL) on all: for each seed P@1 averaged over the
 * relations and of all examples together, then the spread over the seeds. */
typedef struct { Spread average, pooled; int seeds, relations; double seconds; const Result *last; } Cell;
static Cell table_cell(const Table *t, Text method, Text vocab, const Text *relation) {
    Cell cell = {.seeds = 0};
    const size_t size = sizeof(double) * (size_t)t->seeds.count;
    double *average = allocate(size), *pooled = allocate(size);
    for (int s = 0; s < t->seeds.count; s++) {
        double sum = 0, hits = 0, examples = 0;
        int relations = 0;
        for (const Result *r = t->at; r < t->at + t->count; r++) {
            if (!text_is(t->seeds.at[s], r->seed) || !text_is(method, r->method) || !text_is(vocab, r->vocab) ||
                (relation && !text_is(*relation, r->relation)))
                continue;
            sum += p_at_1(r->score), hits += r->score.hits, examples += r->score.examples, relations++;
            cell.seconds += r->seconds, cell.last = r;
        }
        if (!relations) continue;
        cell.relations = cell.seeds ? min_int(cell.relations, relations) : relations;
        average[cell.seeds] = sum / relations, pooled[cell.seeds++] = 100 * hits / examples;
    }
    cell.average = spread_of(average, cell.seeds), cell.pooled = spread_of(pooled, cell.seeds);
    return cell;
}
/* A line of the table: the mean over the seeds of each method on a relation. Without a relation: the heading. */
static void print_relation(const Table *t, Text vocab, const Text *relation) {
    const Result *some = NULL;
    const char *line = "";
    for (int m = 0; m < t->methods.count; m++) {
        const Text method = t->methods.at[m];
        const int width = (int)method.size < 6 ? 8 : (int)method.size + 2;
        const char *value = "-";
        if (!relation) value = text_string(method);
        else {
            const Cell cell = table_cell(t, method, vocab, relation);
            if (cell.seeds) value = format("%.1f", cell.pooled.mean), some = cell.last;
        }
        line = format("%s%*s", line, width, value);
    }
    if (!relation) printf("%-16s%6s%6s%s\n", "relation", "test", "seen", line);
    else if (some) printf("%-16s%6d%6d%s\n", some->relation, some->score.examples, some->seen, line);
    fflush(stdout);
}
static const char *spread_text(Spread s, int seeds) {
    return seeds > 1 ? format("%.2f +- %.2f", s.mean, s.stddev) : format("%.2f", s.mean);
}
/* A line for each method: the average over the relations (the paper's 34k column) and all examples together (its 29k
 * column), with the standard deviation over several seeds. */
static void print_methods(const Table *t, Text vocab) {
    printf("\n%-12s%16s%16s%10s%6s%9s%11s%11s\n", "method", "average", "pooled", "relations", "seeds", "seconds",
           "trained", "kept");
    for (int m = 0; m < t->methods.count; m++) {
        const Cell c = table_cell(t, t->methods.at[m], vocab, NULL);
        if (!c.seeds) continue;
        printf("%-12s%16s%16s%10d%6d%9.1f%11d%11d", c.last->method, spread_text(c.average, c.seeds),
               spread_text(c.pooled, c.seeds), c.relations, c.seeds, c.seconds, c.last->trained, c.last->kept);
        for (int k = 0; k < METHODS; k++)
            if (!strcmp(methods[k].name, c.last->method)) printf("  %s", methods[k].meaning);
        printf("\n");
    }
}
static int method_seeds(const Method *m, const Options *o) { /* without training or search nothing is random */
    return m->kind < SEARCH ? 1 : o->seeds;
}
/* All methods and seeds on a relation. */
static void run_relation(const Options *o, Model *model, const Relation *relation, Table *t) {
    for (int m = 0; m < t->methods.count; m++) {
        const Method *method = method_named(t->methods.at[m]);
        for (int s = 0; s < method_seeds(method, o); s++) {
            Options one = *o;
            one.training.seed += s;
            table_add(t, run_once(method, &one, model, relation));
        }
    }
}
/* Relations are independent, and too small for two threads: with --jobs N there are N processes with a thread each, of
 * which process k runs the relations k, k + N, ... and sends their result lines through a pipe, or an error message. */
typedef struct { FILE *stream; pid_t process; } Job;

_Noreturn static void job_run(const Options *o, Model *model, const World *world, const Texts *methods_run, int first,
                              int jobs, FILE *stream) {
    omp_set_num_threads(1);
    dup2(fileno(stream), STDERR_FILENO);
    for (int r = first; r < world->count; r += jobs) {
        Mark before = mark();
        Table t = {.methods = *methods_run};
        run_relation(o, model, &world->at[r], &t);
        for (int i = 0; i < t.count; i++) result_print(stream, &t.at[i]);
        fflush(stream);
        release(before);
    }
    _exit(0);
}
static void jobs_start(Job *job, int jobs, const Options *o, Model *model, const World *world, const Texts *names) {
    fflush(stdout);
    for (int k = 0; k < jobs; k++) {
        int ends[2];
        if (pipe(ends) || (job[k].process = fork()) < 0) die("no process for --jobs: %s", strerror(errno));
        if (!job[k].process) {
            for (int older = 0; older < k; older++) fclose(job[older].stream);
            close(ends[0]);
            job_run(o, model, world, names, k, jobs, fdopen(ends[1], "w"));
        }
        close(ends[1]);
        job[k].stream = fdopen(ends[0], "r");
    }
}
/* One process has ended early, with this message or because it was killed: the others are stopped, too. */
_Noreturn static void job_failed(Job *job, int jobs, int failed, const char *message) {
    int status;
    for (int k = 0; k < jobs; k++)
        if (k != failed) kill(job[k].process, SIGTERM), waitpid(job[k].process, NULL, 0);
    waitpid(job[failed].process, &status, 0);
    if (WIFSIGNALED(status)) die("a process of --jobs was killed by signal %d", WTERMSIG(status));
    fflush(stdout);
    fputs(message, stderr);
    exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}
/* The result lines of the next relation of a job. */
static void job_receive(Job *job, int jobs, int k, const Options *o, Table *t) {
    for (int m = 0; m < t->methods.count; m++) {
        const int seeds = method_seeds(method_named(t->methods.at[m]), o);
        for (int s = 0; s < seeds; s++) {
            char *line = NULL;
            size_t capacity = 0;
            const ssize_t size = getline(&line, &capacity, job[k].stream);
            const bool result = size > 0 && line[size - 1] == '\n' && strchr(line, '\t');
            if (!result) job_failed(job, jobs, k, size > 0 ? line : "");
            table_add(t, result_parse((Text){line, (size_t)size - 1}, "a process of --jobs"));
            free(line);
        }
    }
}
/* Where LAMA has the examples of a relation that has no folder: in one file; NULL if nowhere. */
static const char *relation_file(const char *data, const char *name) {
    static const char *const folders[] = {"TREx/", "", "Google_RE/", "data/TREx/"};
    for (int k = 0; k < 4; k++) {
        const char *path = format("%s/%s%s.jsonl", data, folders[k], name);
        if (is_regular(path)) return path;
    }
    return NULL;
}
/* The relations that are to be run: those that are named, or all that have a folder or a file. */
static World chosen_relations(const Options *o, const World *world) {
    const Texts wanted = o->relations ? split(text_of(o->relations), ',') : (Texts){0};
    World chosen = {0};
    for (int k = 0; k < wanted.count; k++)
        if (!has_relation(world, wanted.at[k]))
            die("--relations: no relation '%s' in relations.jsonl", text_string(wanted.at[k]));
    for (int r = 0; r < world->count; r++) {
        Relation relation = world->at[r];
        const char *file = file_exists(relation.folder) ? NULL : relation_file(o->data, relation.name);
        if (file) relation.folder = file;
        if (o->relations ? !texts_contain(&wanted, text_of(relation.name)) : !file_exists(relation.folder)) continue;
        chosen.at = grow(chosen.at, chosen.count, sizeof relation);
        chosen.at[chosen.count++] = relation;
    }
    if (!chosen.count) die("%s: no relation has a folder", o->data);
    return chosen;
}
/* Runs what is missing; a relation is printed once all its runs are done. */
static void run_table(const Options *o, Model *model, const World *world) {
    const Texts names = split(text_of(o->methods), ',');
    const int jobs = min_int(o->jobs, world->count);
    Table t = {0};
    Job *job = allocate(sizeof(Job) * (size_t)jobs);
    for (int m = 0; m < names.count; m++) add_name(&t.methods, method_named(names.at[m])->name);
    print_relation(&t, text_of(""), NULL);
    if (jobs > 1) jobs_start(job, jobs, o, model, world, &t.methods);
    for (int r = 0; r < world->count; r++) {
        if (jobs > 1) job_receive(job, jobs, r % jobs, o, &t);
        else run_relation(o, model, &world->at[r], &t);
        print_relation(&t, t.vocabs.at[0], &t.relations.at[t.relations.count - 1]);
    }
    for (int k = 0; jobs > 1 && k < jobs; k++) fclose(job[k].stream), waitpid(job[k].process, NULL, 0);
    print_methods(&t, t.vocabs.at[0]);
}
static int is_result(const struct dirent *file) {
    const size_t length = strlen(file->d_name), suffix = strlen("result.tsv");
    return length >= suffix && !strcmp(file->d_name + length - suffix, "result.tsv");
}
/* The tables of all result lines in a folder, one for each vocabulary. */
static void print_folder(const char *folder) {
    struct dirent **files;
    const int count = scandir(folder, &files, is_result, alphasort);
    if (count < 0) die("%s: %s", folder, strerror(errno));
    if (!count) die("%s: no file ...result.tsv", folder);
    Table t = {0};
    for (int i = 0; i < count; i++) {
        table_add(&t, result_read(format("%s/%s", folder, files[i]->d_name)));
        free(files[i]);
    }
    free(files);
    const Texts found = t.methods;
    t.methods = (Texts){0};
    for (int m = 0; m < METHODS; m++) /* first those of the list, in its order */
        if (texts_contain(&found, text_of(methods[m].name))) add_name(&t.methods, methods[m].name);
    for (int m = 0; m < found.count; m++) add_name(&t.methods, text_string(found.at[m]));
    for (int v = 0; v < t.vocabs.count; v++) {
        printf("%sanswers: %s\n", v ? "\n" : "", text_string(t.vocabs.at[v]));
        print_relation(&t, t.vocabs.at[v], NULL);
        for (int r = 0; r < t.relations.count; r++) print_relation(&t, t.vocabs.at[v], &t.relations.at[r]);
        print_methods(&t, t.vocabs.at[v]);
    }
}

/* ==== 8. The commands ============================================================================================= */

/* ---- The demo: the table on the small world, and one relation in many paraphrases -------------------------------- */

static double norm_of(const real *x, int count) {
    double squares = 0;
    for (int j = 0; j < count; j++) squares += (double)x[j] * (double)x[j];
    return sqrt(squares);
}
/* The words whose embeddings have the largest cosine with each vector of the prompt. */
static void print_nearest(const Model *model, Tensor prompt) {
    const Tensor word = lm_word(&model->lm);
    Tensor cosine = tensor_zeros(prompt.rows, word.rows); /* times the norm of the prompt's vector */
    matmul(values(cosine), values(prompt), transposed(values(word)));
    for (int w = 0; w < word.rows; w++) {
        const double norm = norm_of(row(word, w), word.cols);
        for (int i = 0; i < prompt.rows; i++)
            row(cosine, i)[w] = norm > 0 ? row(cosine, i)[w] / (real)norm : -(real)INFINITY;
    }
    for (int i = 0; i < prompt.rows; i++) {
        const double norm = norm_of(row(prompt, i), prompt.cols);
        printf("[P]%d", i + 1);
        for (int k = 0; k < 5; k++) {
            real largest;
            const char *near = answer_text(model, pop_argmax(row(cosine, i), model->vocab.size, &largest));
            if (isfinite(largest)) printf("  %s %.2f", near, norm > 0 ? (double)largest / norm : 0);
        }
        printf("\n");
    }
}
/* The answers to the test examples of a relation under a template. */
static Prediction *answers_to(const Options *o, const Model *model, const Relation *relation, const char *form,
                              Tensor prompt, Dataset *data) {
    Options here = *o;
    here.data = relation->folder;
    const Template t = template_read(form);
    *data = read_split(&here, model, TEST_SET, &t);
    Prediction *predictions = allocate(sizeof(Prediction) * (size_t)data->count);
    evaluate(model, prompt, data, predictions);
    return predictions;
}
static void print_bar(double per_cent, const char *form) {
    char bar[] = "..............................";
    memset(bar, '#', (size_t)(0.3 * per_cent + 0.5));
    printf("%8.1f  %s  %s\n", per_cent, bar, form);
}
/* The paper's first table: one question in other words, and other answers; then what P-tuning makes of it. */
static void demo_instability(Model *model, const Relation *relation, const Options *o, const Result *tuned) {
    const Texts prompts = relation_prompts(o, model, relation);
    printf("\n%s: the same question in other words. P@1:\n", relation->name);
    for (int p = 0; p < prompts.count; p++) {
        const Method manual = {.name = "", .kind = ZERO_SHOT, .encoder = ENCODERS,
                               .template = text_string(prompts.at[p])};
        print_bar(p_at_1(run_method(&manual, o, model, relation).score), manual.template);
    }
    print_bar(p_at_1(tuned->score), tuned->template);
}
/* Five test examples, at equal distances among those that the manual prompt gets wrong. */
static void demo_examples(const Model *model, const Relation *relation, const Options *o, const Result *tuned) {
    enum { SHOWN = 5 };
    Dataset data;
    const char *form = manual_prompt(o, model, relation);
    const Prediction *manual = answers_to(o, model, relation, form, (Tensor){0}, &data);
    const Prediction *learned = answers_to(o, model, relation, tuned->template, tuned->prompt, &data);
    int *wrong = allocate(sizeof(int) * (size_t)data.count), count = 0;
    for (int i = 0; i < data.count; i++)
        if (manual[i].rank > 1) wrong[count++] = i;
    const int shown = min_int(SHOWN, count);
    printf("\n%d of the %d answers that the manual prompt gets wrong:\n%-24s%-20s%-20s%s\n", shown, count, "subject",
           "manual prompt", "P-tuning", "truth");
    for (int k = 0; k < shown; k++) {
        const int i = wrong[k * count / shown];
        printf("%-24s%-20s%-20s%s\n", or_dash(data.at[i].subject), answer_text(model, manual[i].predicted),
               answer_text(model, learned[i].predicted), answer_text(model, data.at[i].answer));
    }
}
/* The relation of the paper's first table (LAMA's P17, country), if it is among them. */
static const Relation *shown_relation(const World *world) {
    for (int r = 0; r < world->count; r++)
        if (!strcmp(world->at[r].name, "country_of_city")) return &world->at[r];
    return &world->at[0];
}
static void command_demo(Options *o) {
    const double start = seconds();
    const World all = world_read(o->data), world = chosen_relations(o, &all);
    Model *model = model_load(o);
    o->template = chosen_template(o, model);
    printf("A %s of %zu parameters has read a small world of %d relations, each fact in a few phrasings. What does\n"
           "it answer to subjects that no method was trained on? P@1 on the test examples in per cent, seed %d.\n\n",
           model->lm.causal ? "GPT" : "BERT", parameters_size(lm_weights(&model->lm)), world.count, o->training.seed);
    run_table(o, model, &world);
    const Relation *shown = shown_relation(&world);
    const Result tuned = run_method(method_named(text_of("p-lstm")), o, model, shown);
    demo_instability(model, shown, o, &tuned);
    demo_examples(model, shown, o, &tuned);
    printf("\n%.0f seconds. Next: ./ptune fill --model %s \"The capital of France is%s\"\n"
           "      ./ptune train --model %s --data data/%s --lr 5e-3 --out run\n"
           "      make gradcheck LAYER=layernorm\n", seconds() - start, o->model,
           model->lm.causal ? "" : " [MASK] .", o->model, shown->name);
}

/* ---- fill, tokenize, train, eval, words, search, table, vocab, pretrain ------------------------------------------ */

/* What is no printable text is shown by its number, \x0a for a line end. */
static void print_token(Text token) {
    for (size_t i = 0, length; i < token.size; i += length ? length : 1) {
        uint32_t code;
        length = utf8_decode(token.data + i, token.size - i, &code);
        const unsigned char first = (unsigned char)token.data[i];
        if (length && first >= ' ' && first != 0x7F) printf("%.*s", (int)length, token.data + i);
        else printf("\\x%02x", first);
    }
}
/* The five best words for one [MASK], or the five best next tokens: word, probability, logit. Destroys the logits. */
static void print_best(const Model *model, real *logits) {
    const double all = log_sum_exp(logits, lm_word(&model->lm).rows);
    if (!isfinite(all)) die("the logits are not finite");
    for (int k = 0; k < 5 && k < model->vocab.size; k++) {
        real logit;
        const int id = pop_argmax(logits, model->vocab.size, &logit);
        print_token(vocab_text(&model->vocab, id));
        printf("\t%.4f\t%.4f\n", exp((double)logit - all), (double)logit);
    }
}
/* The ids of a subject under a learned prompt. */
static Ids prompt_ids(const Options *o, const Model *model, const Template *t, Text subject) {
    Text *field = allocate(sizeof *field * (size_t)t->parts);
    Example example;
    for (int i = 0; i < t->parts; i++) {
        if (t->part[i].kind == FIELD && t->part[i].text.size)
            die("%s: its template needs more than a subject: %s", o->prompt, t->text);
        field[i] = subject;
    }
    template_fill(t, &model->vocab, field, lm_positions(&model->lm), &example, "SUBJECT", 1);
    return (Ids){example.id, example.length};
}
/* The ids of a text with [MASK] in it. A causal LM goes on with a text: it may end in [MASK], which is not fed. */
static Ids text_ids(const Model *model, Text text) {
    const bool causal = model->lm.causal;
    Ids ids = {0};
    if (causal) text = trimmed_end(text);
    if (causal && text_ends(text, "[MASK]")) text.size -= strlen("[MASK]"), text = trimmed_end(text);
    if (causal && strstr(text_string(text), "[MASK]"))
        die("the text goes on after its [MASK]: this LM is causal");
    if (!causal) ids_push(&ids, model->vocab.cls);
    tokenize_with_special(&model->vocab, text, &ids);
    if (!causal) ids_push(&ids, model->vocab.sep);
    if (!ids.count) die("the text is empty");
    if (ids.count > lm_positions(&model->lm))
        die("the text has %d tokens, the model takes %d", ids.count, lm_positions(&model->lm));
    return ids;
}
/* Five best words for each [MASK], or five best next tokens. */
static void fill(const Model *model, Tensor prompt, Ids ids) {
    int *masks = allocate(sizeof(int) * (size_t)ids.count), start[] = {0, ids.count}, selected_start[] = {0, 0};
    for (int i = 0; i < ids.count; i++)
        if (model->lm.causal ? i == ids.count - 1 : ids.id[i] == model->vocab.mask) masks[selected_start[1]++] = i;
    if (!selected_start[1]) die("no [MASK] in the text");
    const Batch batch = {1, ids.count, selected_start[1], start, selected_start, masks};
    const Tensor e = embed_forward(lm_word(&model->lm), prompt, ids.id, ids.count);
    const Tensor logits = lm_logits(&model->lm, e, &batch);
    for (int i = 0; i < logits.rows; i++) {
        if (i) putchar('\n');
        print_best(model, row(logits, i));
    }
}
static void command_fill(Options *o) {
    if (!o->text) usage(o->prompt ? "SUBJECT is missing" : "TEXT is missing", NULL);
    Model *model = model_load(o);
    Template t;
    const Tensor prompt = o->prompt ? prompt_read(o->prompt, model, &t) : (Tensor){0};
    const bool from_input = !strcmp(o->text, "-"); /* a text a line */
    Text rest = from_input ? read_file("-") : text_of(o->text), text;
    if (from_input && !rest.size) die("standard input: no text");
    for (int line = 0; from_input ? next_line(&rest, &text) : line == 0; line++) {
        Mark before = mark();
        if (!from_input) text = rest;
        if (!utf8_valid(text)) die("the text is not valid UTF-8");
        if (line) putchar('\n');
        fill(model, prompt, o->prompt ? prompt_ids(o, model, &t, text) : text_ids(model, text));
        release(before);
    }
}

static void command_tokenize(Options *o) {
    if (!o->text) usage("FILE.jsonl is missing", NULL);
    const Vocab vocab = vocab_load(o->model);
    const char *path = input_name(o->text);
    Text rest = read_file(o->text), value;
    int line = 0;
    for (Text json; next_object(&rest, &json, path, &line);) {
        Mark before = mark();
        Ids ids = {0};
        if (!json_member(json, "text", &value) || !json_is_string(value)) die("%s:%d: no field 'text'", path, line);
        tokenize_with_special(&vocab, json_string(value), &ids);
        for (int i = 0; i < ids.count; i++) printf(i ? " %d" : "%d", ids.id[i]);
        putchar('\n');
        release(before);
    }
}

static void print_score(const Options *o, Score s, double f1) {
    printf("%s %.2f (%d of %d)%s\n", o->labels ? "accuracy" : "P@1", p_at_1(s), s.hits, s.examples,
           o->labels ? format(", macro-F1 %.2f", f1) : "");
}
/* What train and table have in common: names become settings. */
static void check_settings(Options *o) {
    Training *t = &o->training;
    t->encoder = encoder_named(o->encoder);
    t->adamw = !strcmp(o->optimizer, "adamw");
    t->published = o->recipe != NULL;
    t->by_loss = !strcmp(o->select, "loss");
    if (t->encoder == ENCODERS) usage("--encoder is lstm, mlp or embedding, not ", o->encoder);
    if (strcmp(o->optimizer, "adam") && !t->adamw) usage("--optimizer is adam or adamw, not ", o->optimizer);
    if (strcmp(o->select, "p@1") && !t->by_loss) usage("--select is p@1 or loss, not ", o->select);
    if (o->recipe && strcmp(o->recipe, "paper")) usage("--recipe is paper, not ", o->recipe);
    const bool trains = !o->template || template_read(o->template).pseudo || t->tune_lm;
    if (!trains && template_origin) die("%s: nothing to train: no [P] in its template", template_origin);
    if (!trains)
        usage("nothing to train: no [P] in the template and no --tune-lm", NULL);
}
/* Mean and standard deviation of several seeds. */
static void print_seeds(const Options *o, const double *p_at_1s, const double *f1s) {
    const Spread p = spread_of(p_at_1s, o->seeds), f = spread_of(f1s, o->seeds);
    if (o->labels) printf("mean macro-F1 %.2f, standard deviation %.2f\n", f.mean, f.stddev);
    printf("mean %s %.2f, standard deviation %.2f, %d seeds\n", o->labels ? "accuracy" : "P@1", p.mean, p.stddev,
           o->seeds);
}
/* One seed into the folder `out` (NULL: nothing is written). */
static Result train_into(const char *out, const Method *method, const Options *o, Model *model,
                         const Relation *relation) {
    Options one = *o;
    one.out = out;
    if (!out) return run_method(method, &one, model, relation);
    make_folder(out);
    const Lock lock = lock_file(format("%s/lock", out));
    const Result r = run_method(method, &one, model, relation);
    result_write(format("%s/result.tsv", out), &r);
    unlock_file(lock);
    return r;
}
static void command_train(Options *o) {
    if (!o->data && !(o->train && o->dev && o->test)) usage("--data DIR is missing", NULL);
    check_settings(o);
    if (o->resume && !o->out) usage("--resume goes with --out", NULL);
    if (o->seeds > 1 && o->resume) usage("--resume cannot be combined with --seeds", NULL);
    Model *model = model_load(o);
    if (o->start) start_from_words(o, model);
    else o->template = chosen_template(o, model);
    const bool pseudo = template_read(o->template).pseudo > 0, tune_lm = o->training.tune_lm;
    const char *name = pseudo ? format(tune_lm ? "p-%s+ft" : "p-%s", o->encoder) : "ft";
    const Method method = {
        .name = name, .kind = TRAIN, .encoder = pseudo ? o->training.encoder : ENCODERS,
        .tune_lm = tune_lm};
    const char *data_name = stem(o->data ? o->data : o->test);
    const Relation relation = {o->task ? o->task : data_name, o->data, {0}};
    if (o->out) make_folder(o->out), o->model_hash = hash_model(o->model);
    const size_t size = sizeof(double) * (size_t)o->seeds;
    double *p_at_1s = allocate(size), *f1s = allocate(size);
    const int first_seed = o->training.seed;
    for (int k = 0; k < o->seeds; k++) {
        o->training.seed = first_seed + k;
        const char *out = o->out && o->seeds > 1 ? format("%s/seed%d", o->out, o->training.seed) : o->out;
        const Result r = train_into(out, &method, o, model, &relation);
        if (o->seeds > 1) printf("seed %d: ", o->training.seed);
        print_score(o, r.score, r.macro_f1);
        p_at_1s[k] = p_at_1(r.score), f1s[k] = r.macro_f1;
    }
    if (o->seeds > 1) print_seeds(o, p_at_1s, f1s);
}

static bool ends_in(const char *path, const char *suffix) {
    const size_t length = strlen(path), size = strlen(suffix);
    return length >= size && !strcmp(path + length - size, suffix);
}
/* The idx of an answer in MultiRC: of the passage, the question, the answer. False: it is another task's idx. */
typedef struct { Text passage, question, answer; } AnswerIdx;
static bool answer_idx(Text idx, AnswerIdx *parts) {
    return json_member(idx, "paragraph", &parts->passage) && json_member(idx, "question", &parts->question) &&
           json_member(idx, "answer", &parts->answer);
}
static bool is_multirc(const Names *names) {
    AnswerIdx parts;
    int i = 0;
    while (i < names->idx.count && answer_idx(names->idx.at[i], &parts)) i++;
    return i == names->idx.count;
}
static const char *predicted_label(const Answers *answers, const Prediction *p) {
    int k = 0;
    while (answers->word[k] != p->predicted) k++;
    return text_string(answers->name[k]);
}
static const char *json_label(const char *name) { /* a label that is a number stands without quotes */
    const char *end = name + strlen(name);
    const bool number = strchr("-0123456789", *name) && json_value(name, end, 0) == end;
    return number ? name : json_quote(name);
}
/* MultiRC's form of a submission: a line a passage, in it the questions, in them the answers. */
static void passages_write(FILE *stream, const Answers *answers, const Names *names, const Prediction *predictions) {
    AnswerIdx before, now;
    for (int i = 0; i < names->idx.count; i++, before = now) {
        answer_idx(names->idx.at[i], &now);
        const bool new_passage = !i || !text_equal(now.passage, before.passage);
        const bool new_question = new_passage || !text_equal(now.question, before.question);
        if (i && new_question) fprintf(stream, "]}");
        if (i && new_passage) fprintf(stream, "]}}\n");
        if (new_passage)
            fprintf(stream, "{\"idx\": %s, \"passage\": {\"questions\": [", text_string(now.passage));
        if (new_question)
            fprintf(stream, "%s{\"idx\": %s, \"answers\": [", new_passage ? "" : ", ", text_string(now.question));
        fprintf(stream, "%s{\"idx\": %s, \"label\": %s}", new_question ? "" : ", ", text_string(now.answer),
                json_label(predicted_label(answers, &predictions[i])));
    }
    fprintf(stream, "]}]}}\n");
}
/* The label that is predicted for each example, by its idx: a table, or for FILE.jsonl the form of a submission to
 * SuperGLUE. */
static void labels_write(const char *path, const Answers *answers, const Names *names, const Prediction *predictions) {
    Output out = output_open(path);
    const bool submission = ends_in(path, ".jsonl"), nested = submission && is_multirc(names);
    if (nested) passages_write(out.stream, answers, names, predictions);
    if (!submission) fprintf(out.stream, "idx\tlabel\n");
    for (int i = 0; i < names->idx.count && !nested; i++) {
        Mark before = mark();
        const char *name = predicted_label(answers, &predictions[i]), *idx = text_line(names->idx.at[i]);
        if (submission) fprintf(out.stream, "{\"idx\": %s, \"label\": %s}\n", idx, json_label(name));
        else fprintf(out.stream, "%s\t%s\n", idx, name);
        release(before);
    }
    output_close(out);
}
/* A line for each example. */
static void predictions_write(const char *path, const Model *model, const Dataset *data,
                              const Prediction *predictions) {
    Output out = output_open(path);
    fprintf(out.stream, "subject\tanswer\tprediction\trank\tlog_probability\n");
    for (int i = 0; i < data->count; i++) {
        const Example *e = &data->at[i];
        const Prediction *p = &predictions[i];
        Mark before = mark();
        fprintf(out.stream, "%s\t%s\t%s\t%d\t%.6f\n", or_dash(e->subject), answer_text(model, e->answer),
                answer_text(model, p->predicted), p->rank, p->log_probability);
        release(before);
    }
    output_close(out);
}
static void print_ranks(const Prediction *predictions, int count) {
    int hits_at_10 = 0;
    double reciprocal_rank = 0;
    for (int i = 0; i < count; i++) {
        hits_at_10 += predictions[i].rank <= 10;
        reciprocal_rank += 1.0 / predictions[i].rank;
    }
    printf("P@10 %.2f, MRR %.4f\n", 100.0 * hits_at_10 / count, reciprocal_rank / count);
}
/* MultiRC's own figures: F1 of label 1 over all answers, and the share of questions whose answers are all right. */
static void print_multirc(const Answers *answers, const Dataset *data, const Names *names,
                          const Prediction *predictions) {
    AnswerIdx before, now;
    int questions = 0, exact = 0;
    bool right = false; /* so far, in this question */
    for (int i = 0; i < data->count; i++, before = now) {
        answer_idx(names->idx.at[i], &now);
        const bool same = i && text_equal(now.passage, before.passage) && text_equal(now.question, before.question);
        if (!same) right = true, questions++, exact++;
        if (right && predictions[i].rank > 1) right = false, exact--;
    }
    const int one = label_named(answers, text_of("1"));
    if (one >= 0) printf("F1a %.2f, ", fmax(0, label_f1(answers->word[one], data, predictions)));
    printf("EM %.2f (%d of %d questions)\n", 100.0 * exact / questions, exact, questions);
}
/* Whether the first example of a file brings the sentence to complete. */
static bool has_own_sentences(const char *path) {
    int line = 0;
    if (!is_regular(path)) return false;
    const Text file = read_file(path);
    Text rest = file, json, value;
    const bool found = next_object(&rest, &json, path, &line) && json_member(json, "masked_sentences", &value);
    unmap_file(file);
    return found;
}
/* The examples under one of several prompts. */
typedef struct { Tensor prompt; Dataset data; } Prompted;

/* Those of --data under a template or, if there is none, under a learned prompt. */
static Prompted prompted_by(const Options *o, const Model *model, const Text *template, const Text *file, bool quiet,
                            Names *names) {
    Prompted p = {.prompt = {0}};
    Template t;
    if (template) t = template_read(text_string(*template));
    if (template && t.pseudo) usage("a template with [P] needs what was learned for it: --prompt FILE", NULL);
    if (!template) p.prompt = prompt_read(text_string(*file), model, &t);
    *names = (Names){.unlabelled = 0};
    p.data = read_named(o->data, model, &t, o->max_length, quiet, names);
    return p;
}
/* Adds the words' probabilities, both as logarithms, of which the smallest would be 0 otherwise. */
static void add_probabilities(real *sum, const real *logits, int words) {
    const double all = log_sum_exp(logits, words);
    if (!isfinite(all)) die("the logits are not finite");
    for (int w = 0; w < words; w++) {
        const double p = (double)logits[w] - all, more = fmax(p, (double)sum[w]), less = fmin(p, (double)sum[w]);
        if (isfinite(more)) sum[w] = (real)(more + log1p(exp(less - more)));
    }
}
/* The score of the mean of the probabilities that several prompts give. */
static Score evaluate_mean(const Model *model, const Prompted *by, int prompts, Prediction *predictions) {
    Score score = {.examples = by->data.count};
    const int *order = in_order(score.examples), words = lm_word(&model->lm).rows;
    for (int first = 0, count; first < score.examples; first += count) {
        Mark before = mark();
        count = score.examples;
        for (int k = 0; k < prompts; k++) count = min_int(count, evaluation_batch(&by[k].data, first));
        const Tensor sum = tensor(count, words);
        fill_constant(sum, -(real)INFINITY);
        for (int k = 0; k < prompts; k++) {
            Mark one = mark();
            const Inputs in = inputs_of(by[k].data.at, order + first, count);
            const Tensor logits = batch_logits(&model->lm, by[k].prompt, &in, model->answers.allowed);
            for (int i = 0; i < count; i++) add_probabilities(row(sum, i), row(logits, i), words);
            release(one);
        }
        for (int i = 0; i < count; i++) {
            predictions[first + i] = prediction_of(row(sum, i), words, by->data.at[first + i].answer);
            score_add(&score, predictions[first + i]);
        }
        release(before);
    }
    return score;
}
static void command_eval(Options *o) {
    if (!o->data) usage("--data FILE.jsonl is missing", NULL);
    if (!o->template && !o->prompt && has_own_sentences(o->data)) o->template = MASKED_SENTENCES;
    if (!o->template && !o->prompt) usage("--template T or --prompt FILE is missing", NULL);
    if (o->template && !o->templates.count) texts_push(&o->templates, text_of(o->template));
    const int templates = o->templates.count, prompts = templates + o->prompt_files.count;
    if (prompts > 1 && !is_regular(o->data)) die("%s: with several prompts this must be a regular file", o->data);
    Model *model = model_load(o);
    Prompted *by = allocate(sizeof(Prompted[prompts]));
    Names names = {.unlabelled = 0};
    for (int k = 0; k < prompts; k++)
        by[k] = prompted_by(o, model, k < templates ? &o->templates.at[k] : NULL,
                            k < templates ? NULL : &o->prompt_files.at[k - templates], k > 0, &names);
    const Dataset data = by->data;
    if (names.unlabelled && !o->predictions)
        die("%s: no labels, so no score: --predictions FILE says what is predicted", data.path);
    Prediction *predictions = allocate(sizeof(Prediction) * (size_t)data.count);
    const Score score = prompts == 1 ? evaluate(model, by->prompt, &data, predictions)
                                     : evaluate_mean(model, by, prompts, predictions);
    if (names.unlabelled || (o->labels && o->predictions && ends_in(o->predictions, ".jsonl"))) {
        labels_write(o->predictions, &model->answers, &names, predictions);
        if (names.unlabelled) return;
    } else if (o->predictions) predictions_write(o->predictions, model, &data, predictions);
    if (!o->labels) print_ranks(predictions, data.count);
    else if (is_multirc(&names)) print_multirc(&model->answers, &data, &names, predictions);
    print_score(o, score, macro_f1(&model->answers, &data, predictions));
}

static void command_words(Options *o) {
    if (!o->prompt) usage("--prompt FILE is missing", NULL);
    Model *model = model_load(o);
    Template t;
    const Tensor prompt = prompt_read(o->prompt, model, &t);
    printf("%s\n", t.text);
    print_nearest(model, prompt);
}

static void command_search(Options *o) {
    if (!o->data && !o->train) usage("--data DIR is missing", NULL);
    if (o->template && !template_read(o->template).pseudo)
        usage("nothing to search: no [P] in the template", NULL);
    Model *model = model_load(o);
    o->template = chosen_template(o, model);
    printf("%s\n", search(o, model, o->template));
}

static void command_table(Options *o) {
    if (o->text) {
        print_folder(o->text);
        return;
    }
    if (!o->data) usage("--data DIR is missing", NULL);
    check_settings(o);
    const World all = world_read(o->data), world = chosen_relations(o, &all);
    Model *model = model_load(o);
    o->template = chosen_template(o, model);
    if (o->out) make_folder(o->out), o->model_hash = hash_model(o->model);
    run_table(o, model, &world);
}

/* The tokenizer's files for a world. */
static void command_vocab(Options *o) {
    const char *other = format("%s/%s", or_dash(o->model), o->causal ? "vocab.txt" : "merges.txt");
    if (!o->data) usage("--data DIR is missing", NULL);
    if (file_exists(other)) die("%s: this folder has the vocabulary of another kind of model", other);
    const World world = world_read(o->data);
    Texts objects = {0};
    const Texts sentences = world_sentences(&world, o->training.seed, &objects);
    const Vocab vocab =
        o->causal ? bpe_learn(&sentences, &objects, o->size) : vocab_learn(&sentences, &objects, o->size);
    make_folder(o->model);
    vocab_save(&vocab, o->model);
    printf("%d sentences, %d entries\n", sentences.count, vocab.size);
}

/* Sentences as examples without an answer. */
static Example *sentence_examples(const Texts *sentences, const Vocab *vocab, int positions) {
    Example *examples = allocate(sizeof(Example) * (size_t)sentences->count);
    for (int i = 0; i < sentences->count; i++) {
        const Text text = sentences->at[i];
        Ids ids = {0};
        if (!vocab->bytes) ids_push(&ids, vocab->cls);
        tokenize(vocab, text, &ids);
        if (!vocab->bytes) ids_push(&ids, vocab->sep);
        if (ids.count < (vocab->bytes ? 2 : 3) || ids.count > positions)
            die("'%.*s': %d tokens, at most %d fit", (int)text.size, text.data, ids.count, positions);
        examples[i] = (Example){.id = ids.id, .length = ids.count};
    }
    return examples;
}
/* The test facts that the LM knows, asked for in one paraphrase of their relation; and those that it has read in it. */
typedef struct { Score all, read; } Knowledge;
static void add_knowledge(Knowledge *k, const Model *model, const Relation *relation, int paraphrase,
                          const Options *o) {
    Mark before = mark();
    const Texts paraphrases = relation_paraphrases(relation);
    const char *form = readable_prompt(model, text_string(paraphrases.at[paraphrase]));
    Dataset facts = {0};
    const Prediction *p = form ? answers_to(o, model, relation, form, (Tensor){0}, &facts) : NULL;
    for (int i = 0; i < facts.count; i++) {
        const Example *fact = &facts.at[i];
        const Text object = text_of(answer_text(model, fact->answer));
        const int *order = paraphrase_order(o->training.seed, text_of(fact->subject), object, paraphrases.count);
        bool read = false;
        for (int w = 0; w < min_int(PARAPHRASES_READ, paraphrases.count); w++) read |= order[w] == paraphrase;
        k->all.examples++, k->all.hits += p[i].rank == 1;
        k->read.examples += read, k->read.hits += read && p[i].rank == 1;
    }
    release(before);
}
/* Does it know its world? A line for each relation. */
static void print_knowledge(const Options *o, const Model *model, const World *world) {
    Knowledge sum = {{0}, {0}};
    printf("test facts, P@1 in the paraphrases that each was read in, and in all paraphrases of its relation\n");
    for (int r = 0; r < world->count; r++) {
        Knowledge here = {{0}, {0}};
        const int paraphrases = relation_paraphrases(&world->at[r]).count;
        for (int p = 0; p < paraphrases; p++) add_knowledge(&here, model, &world->at[r], p, o);
        printf("%-16s %6.1f %6.1f\n", world->at[r].name, p_at_1(here.read), p_at_1(here.all));
        sum.read.hits += here.read.hits, sum.read.examples += here.read.examples;
        sum.all.hits += here.all.hits, sum.all.examples += here.all.examples;
    }
    printf("in all: %.2f (%d of %d) and %.2f (%d of %d)\n", p_at_1(sum.read), sum.read.hits, sum.read.examples,
           p_at_1(sum.all), sum.all.hits, sum.all.examples);
}
/* The sizes of the small world's models. */
static void small_lm(Lm *lm, bool causal, int words) {
    enum { HIDDEN = 128, LAYERS = 3, HEADS = 4, INTERMEDIATE = 512, POSITIONS = 64 };
    lm->causal = causal;
    lm->bert = (Bert){.hidden = HIDDEN, .layers = LAYERS, .heads = HEADS, .intermediate = INTERMEDIATE, .vocab = words,
                      .positions = POSITIONS, .types = 2, .eps = (real)1e-12};
    lm->gpt = (Gpt){.hidden = HIDDEN, .layers = LAYERS, .heads = HEADS, .intermediate = INTERMEDIATE, .vocab = words,
                    .positions = POSITIONS, .tanh_gelu = true, .eps = (real)1e-5};
    if (causal) gpt_list_weights(&lm->gpt);
    else bert_list_weights(&lm->bert);
}
/* A small BERT or GPT that has read every sentence of the world. */
static void command_pretrain(Options *o) {
    if (!o->data) usage("--data DIR is missing", NULL);
    const World world = world_read(o->data);
    const Texts sentences = world_sentences(&world, o->training.seed, NULL);
    Model model = {.vocab = vocab_load(o->model)};
    if (model.vocab.size <= SPECIAL_TOKENS) die("%s: no words beside the special tokens", model.vocab.path);
    if (model.vocab.bytes != o->causal)
        die("%s: %s needs the vocabulary of ptune vocab%s", o->model, o->causal ? "--causal" : "pretraining BERT",
            o->causal ? " --causal" : " without --causal");
    small_lm(&model.lm, o->causal, model.vocab.size);
    Random random = {(uint64_t)o->training.seed};
    lm_random(&model.lm, &random);
    const Example *examples = sentence_examples(&sentences, &model.vocab, lm_positions(&model.lm));
    printf("%d sentences, %zu parameters\n", sentences.count, parameters_size(lm_weights(&model.lm)));
    pretrain(&model.lm, &model.vocab, examples, sentences.count, &o->training);
    model_write(&model, o->model);
    model.answers = answers_from(&model.vocab, lm_word(&model.lm).rows, NULL, NULL);
    print_knowledge(o, &model, &world);
}

static void command_help(Options *o) {
    (void)o;
    fputs(usage_text, stdout);
}

/* ==== 9. The command line ========================================================================================= */

typedef struct {
    const char *name;
    char letter; /* in the table of options */
    void (*run)(Options *);
} Command;
static const Command commands[] = {
    {"demo", 'd', command_demo},     {"fill", 'f', command_fill},   {"tokenize", 'k', command_tokenize},
    {"train", 't', command_train},   {"eval", 'e', command_eval},   {"words", 'w', command_words},
    {"search", 's', command_search}, {"table", 'b', command_table}, {"vocab", 'v', command_vocab},
    {"pretrain", 'p', command_pretrain}, {"--help", 'h', command_help}};

static const Command *command_named(const char *name) {
    for (size_t c = 0; c < sizeof commands / sizeof *commands; c++)
        if (!strcmp(name, commands[c].name)) return &commands[c];
    usage("unknown command ", name);
}
/* Chosen on dev (NOTES.md): for LAMA on BERT-base, for pretraining ('p'), for the demo ('d'; its rates are the methods'
 * own, its epochs are what a minute holds). */
static Options default_options(char command) {
    Options o = {.encoder = "lstm", .optimizer = "adam", .select = "p@1", .seeds = 1, .jobs = 1, .size = 3600};
    o.training = (Training){.rate = 5e-4, .rate_lm = 5e-6, .decay = 5e-4, .warmup = 0.1, .epochs = 5, .batch = 8,
                            .patience = 20, .seed = 34, .scale = -1, .after_step = after_step};
    o.quiet = !strchr("te", command); /* train and eval say what they do: their examples, each epoch */
    o.methods = "majority,manual,ft,mp+ft,p-lstm";
    if (command == 'p') {
        o.training.rate = 2e-3, o.training.decay = 0.01, o.training.clip = 1;
        o.training.epochs = 56, o.training.batch = 64, o.training.adamw = true;
    }
    if (command == 'd') {
        o.model = "data/bert", o.data = "data";
        o.training.rate = -1, o.training.epochs = 8, o.jobs = omp_get_max_threads();
        o.methods = "majority,worst,manual,best,search,ft,best+ft,p-lstm,p-mlp,p-embedding";
    }
    return o;
}

/* Which commands know an option, and the least value that it may have. */
typedef enum { STRING, LIST, NUMBER, INTEGER, SWITCH } OptionKind;
typedef struct { const char *name; OptionKind kind; size_t offset; const char *commands; double least; } Option;
static const Option option_table[] = {
    {"--model", STRING, offsetof(Options, model), "dfktewvpsb", 0},
    {"--data", STRING, offsetof(Options, data), "dtevpsb", 0},
    {"--train", STRING, offsetof(Options, train), "ts", 0},
    {"--dev", STRING, offsetof(Options, dev), "t", 0},
    {"--test", STRING, offsetof(Options, test), "t", 0},
    {"--template", LIST, offsetof(Options, templates), "tesb", 0},
    {"--start", STRING, offsetof(Options, start), "t", 0},
    {"--prompt", LIST, offsetof(Options, prompt_files), "few", 0},
    {"--encoder", STRING, offsetof(Options, encoder), "t", 0},
    {"--vocab", STRING, offsetof(Options, vocab), "tesb", 0},
    {"--labels", STRING, offsetof(Options, labels), "tes", 0},
    {"--out", STRING, offsetof(Options, out), "tb", 0},
    {"--predictions", STRING, offsetof(Options, predictions), "e", 0},
    {"--optimizer", STRING, offsetof(Options, optimizer), "tb", 0},
    {"--recipe", STRING, offsetof(Options, recipe), "tb", 0},
    {"--select", STRING, offsetof(Options, select), "tb", 0},
    {"--methods", STRING, offsetof(Options, methods), "db", 0},
    {"--relations", STRING, offsetof(Options, relations), "db", 0},
    {"--prompts", STRING, offsetof(Options, prompts), "b", 0},
    {"--task", STRING, offsetof(Options, task), "te", 0},
    {"--tasks", STRING, offsetof(Options, tasks), "te", 0},
    {"--init-scale", NUMBER, offsetof(Options, training.scale), "tb", 0},
    {"--lr", NUMBER, offsetof(Options, training.rate), "tpb", 0},
    {"--lr-lm", NUMBER, offsetof(Options, training.rate_lm), "tb", 0},
    {"--weight-decay", NUMBER, offsetof(Options, training.decay), "tpb", 0},
    {"--clip", NUMBER, offsetof(Options, training.clip), "tpb", 0},
    {"--warmup", NUMBER, offsetof(Options, training.warmup), "tpb", 0},
    {"--epochs", INTEGER, offsetof(Options, training.epochs), "dtpb", 1},
    {"--batch", INTEGER, offsetof(Options, training.batch), "tpb", 1},
    {"--patience", INTEGER, offsetof(Options, training.patience), "dtb", 1},
    {"--seed", INTEGER, offsetof(Options, training.seed), "dtpsbv", 0},
    {"--seeds", INTEGER, offsetof(Options, seeds), "dtb", 1},
    {"--jobs", INTEGER, offsetof(Options, jobs), "db", 1},
    {"--size", INTEGER, offsetof(Options, size), "v", 100},
    {"--max-length", INTEGER, offsetof(Options, max_length), "teb", 3},
    {"--tune-lm", SWITCH, offsetof(Options, training.tune_lm), "t", 0},
    {"--resume", SWITCH, offsetof(Options, resume), "t", 0},
    {"--causal", SWITCH, offsetof(Options, causal), "vp", 0},
};
static const Option *option_named(const char *word) { /* NULL: none */
    for (size_t k = 0; k < sizeof option_table / sizeof *option_table; k++)
        if (!strcmp(word, option_table[k].name)) return &option_table[k];
    return NULL;
}
static double option_number(const Option *option, const char *word) {
    char *end;
    const double number = strtod(word, &end);
    if (end == word || *end || !isfinite(number) || number < option->least) usage("not a value for ", option->name);
    if (option->kind == INTEGER && (number > INT32_MAX || number != floor(number)))
        usage("expected an integer for ", option->name);
    return number;
}
static void option_set(Options *o, const Option *option, const char *value) { /* value: NULL for a switch */
    void *field = (char *)o + option->offset;
    if (option->kind == SWITCH) *(bool *)field = true;
    else if (option->kind == STRING) *(const char **)field = value;
    else if (option->kind == LIST) texts_push(field, text_of(value));
    else if (option->kind == NUMBER) *(double *)field = option_number(option, value);
    else *(int *)field = (int)option_number(option, value);
}
/* An option has a name; a text may begin with a dash, too: "-5 degrees", "-". After "--" everything is text. */
static bool looks_like_option(const char *word) {
    return word[0] == '-' && (isalpha((unsigned char)word[1]) || word[1] == '-') && !strchr(word, ' ');
}
static void add_argument(Options *o, char command, const char *word) {
    if (o->text || !strchr("fkb", command)) usage("unexpected argument: ", word);
    o->text = word;
}

/* SuperGLUE's tasks with the patterns of the published code; but COPA and WSC, for which that scores the words of an
 * answer at several [MASK], ask for a label word here. --tasks names another file of this form: a heading, then name,
 * template and labels with tabs between. */
static const char known_tasks[] =
    "name\ttemplate\tlabels\n"
    "RTE\t{premise} Question: {hypothesis-}? [P] Answer: [MASK].\tentailment=Yes,not_entailment=No\n"
    "CB\t{premise} [SEP] {hypothesis}? [P] answer: [MASK]\tentailment=Yes,contradiction=No,neutral=Maybe\n"
    "BoolQ\t{passage}. [P] Question: {question}? Answer: [MASK].\ttrue=Yes,false=No\n"
    "WiC\t{sentence1} [SEP] {sentence2} [P] *{word} *? [MASK]\ttrue=Yes,false=No\n"
    "MultiRC\t{passage}. Question: {question}? Is it {answer}? [P] [MASK].\t1=Yes,0=No\n"
    "COPA\t{premise} What was the {question}? {choice1} Or: {choice2} [P] The [MASK].\t0=first,1=second\n"
    "WSC\t{text} [P] Here {target.span2_text} means {target.span1_text}? [MASK].\ttrue=Yes,false=No\n"
    "RTE-manual\t{premise} Question: {hypothesis-}? Answer: [MASK].\tentailment=Yes,not_entailment=No\n"
    "CB-manual\t{premise} [SEP] {hypothesis}? answer: [MASK]\tentailment=Yes,contradiction=No,neutral=Maybe\n"
    "BoolQ-manual\t{passage}. Question: {question}? Answer: [MASK].\ttrue=Yes,false=No\n"
    "WiC-manual\t{sentence1} [SEP] {sentence2} *{word} *? [MASK]\ttrue=Yes,false=No\n"
    "MultiRC-manual\t{passage}. Question: {question}? Is it {answer}? [MASK].\t1=Yes,0=No\n"
    "COPA-manual\t{premise} What was the {question}? {choice1} Or: {choice2} The [MASK].\t0=first,1=second\n"
    "WSC-manual\t{text} Here {target.span2_text} means {target.span1_text}? [MASK].\ttrue=Yes,false=No\n";

/* Command-line options override what the task says. */
static void task_read(Options *o) {
    const char *path = o->tasks ? o->tasks : "the known tasks";
    Text rest = o->tasks ? read_file(o->tasks) : text_of(known_tasks), line;
    if (!utf8_valid(rest)) die("%s: not valid UTF-8", path);
    for (bool heading = true; next_line(&rest, &line); heading = false) {
        const Texts field = split(line, '\t');
        if (heading || !line.size) continue;
        if (field.count != 3) die("%s: a line has %d fields, not 3", path, field.count);
        if (!text_is(field.at[0], o->task)) continue;
        const char *origin = format("task %s", o->task);
        if (!o->template && !o->prompt && !o->start) o->template = text_string(field.at[1]), template_origin = origin;
        if (!o->labels) o->labels = text_string(field.at[2]), labels_origin = origin;
        return;
    }
    die("%s: no task '%s'", path, o->task);
}
/* Reads argv[0 .. argc - 1], what follows the command. A wrong command line exits with status 2. */
static Options options_read(const Command *command, int argc, char **argv) {
    Options o = default_options(command->letter);
    const char *given = NULL; /* the first option */
    bool only_text = false;
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) /* a set of defaults: other options override it */
        if (!strcmp(argv[i], "--recipe") && i + 1 < argc)
            o.training.rate = 1e-5, o.training.epochs = 100, o.training.scale = 0;
    for (int i = 0; i < argc; i++) {
        const Option *option = only_text ? NULL : option_named(argv[i]);
        if (!only_text && !strcmp(argv[i], "--")) only_text = true;
        else if (!option && !only_text && looks_like_option(argv[i])) usage("unknown option ", argv[i]);
        else if (!option) add_argument(&o, command->letter, argv[i]);
        else {
            if (!strchr(option->commands, command->letter))
                usage("option does not apply to this command: ", option->name);
            given = given ? given : option->name;
            const bool with_value = option->kind != SWITCH;
            if (with_value && i + 1 == argc) usage("a value is missing after ", option->name);
            option_set(&o, option, with_value ? argv[++i] : NULL);
        }
    }
    if (o.templates.count) o.template = text_string(o.templates.at[o.templates.count - 1]);
    if (o.prompt_files.count) o.prompt = text_string(o.prompt_files.at[o.prompt_files.count - 1]);
    const bool folder_of_results = command->letter == 'b' && o.text;
    if (folder_of_results && o.model) usage("either --model DIR, to run, or a folder of results", NULL);
    if (folder_of_results && given) usage("option does not apply to a folder of results: ", given);
    if (!o.model && !folder_of_results && command->letter != 'h') usage("--model DIR is missing", NULL);
    if (o.tasks && !o.task) usage("--tasks goes with --task", NULL);
    if (o.start && o.template) usage("--start gives the template: no --template beside it", NULL);
    if (o.task) task_read(&o);
    if (o.vocab && o.labels) usage("--vocab and --labels exclude each other", NULL);
    if (o.labels && !*o.labels && labels_origin) die("%s has no labels", labels_origin);
    if (o.labels && !*o.labels) usage("--labels is empty", NULL);
    if (o.training.seed > INT32_MAX - (o.seeds - 1)) usage("--seed is too large for so many --seeds", NULL);
    if (o.training.warmup > 0.9) usage("--warmup is a share of all steps, at most 0.9", NULL);
    return o;
}
/* What was printed has arrived, or the status is 1: a full disk is no success. */
static int finish_output(void) {
    if (fflush(stdout) || ferror(stdout)) die("standard output: %s", strerror(errno));
    return 0;
}

#endif
