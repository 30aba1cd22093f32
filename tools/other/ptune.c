/* Other right solutions of assignments 12 to 14. */

static Template template_parse(const char *form) {
    Template t = {.text = form};
    if (!utf8_valid(text_of(form))) die("template '%s': not valid UTF-8", form);
    const char *rest = without_ends(form);
    if (strstr(rest, "[CLS]")) die("template '%s': [CLS] in its middle", form);
    while (*rest) {
        const char *at = rest;
        size_t length = 0;
        PartKind kind = WORDS;
        for (; *at; at++) { /* the next placeholder */
            if (!strncmp(at, "[P]", 3)) kind = PSEUDO, length = 3;
            else if (!strncmp(at, "[X]", 3)) kind = FIELD, length = 3;
            else if (!strncmp(at, "[Y]", 3)) kind = MASK, length = 3;
            else if (!strncmp(at, "[MASK]", 6)) kind = MASK, length = 6;
            else if (!strncmp(at, "[SEP]", 5)) kind = SEPARATOR, length = 5;
            else if (*at == '{' && strchr(at, '}')) kind = FIELD, length = strcspn(at, "}") + 1;
            if (length) break;
        }
        template_add(&t, WORDS, rest, at);
        if (length && *at == '{') template_add(&t, kind, at + 1, at + length - 1);
        else if (length) template_add(&t, kind, at, at);
        rest = at + length;
    }
    if (t.masks == 0) die("template '%s' has no [MASK]", form);
    if (t.masks > 1) die("template '%s' has %d [MASK]", form, t.masks);
    return t;
}
static void template_ids(const Template *t, const Vocab *vocab, const Text *field, Example *example) {
    Ids ids = {0};
    int pseudo = 0;
    const char *span = "";
    if (vocab->mask < 0) {
        if (t->part[t->parts - 1].kind != MASK) die("template '%s': words after [MASK]", t->text);
        for (int i = 0; i < t->parts; i++)
            if (t->part[i].kind == SEPARATOR) die("template '%s': [SEP]", t->text);
    } else ids_push(&ids, vocab->cls);
    for (int i = 0; i <= t->parts; i++) {
        const Part *p = i < t->parts ? &t->part[i] : NULL;
        if (p && p->kind <= FIELD) {
            const Text text = p->kind == WORDS ? p->text : field[i];
            span = format("%s%s", span, text_string(text));
            continue;
        }
        tokenize(vocab, trimmed_end(text_of(span)), &ids);
        span = "";
        if (!p) break;
        if (p->kind == MASK) example->mask = ids.count - (vocab->mask < 0);
        if (p->kind == MASK && vocab->mask < 0) continue;
        ids_push(&ids, p->kind == MASK ? vocab->mask : p->kind == SEPARATOR ? vocab->sep : -1 - pseudo++);
    }
    if (vocab->sep >= 0) ids_push(&ids, vocab->sep);
    example->id = ids.id, example->length = ids.count;
}
static EncoderActivations encoder_forward(const PromptEncoder *e) {
    EncoderActivations a = {0};
    a.context = a.prompt = e->embedding;
    switch (e->kind) {
    case ENCODER_LSTM:
        a.lstm = lstm_forward(&e->lstm, e->embedding);
        a.context = a.lstm.output[1]; /* it has two layers */
        /* fall through */
    case ENCODER_MLP:
        a.inner = linear_forward(&e->first, a.context);
        a.active = relu_forward(a.inner);
        a.prompt = linear_forward(&e->second, a.active);
        for (size_t i = 0; i < size_of(e->start); i++) a.prompt.data[i] += e->start.data[i];
        /* fall through */
    default: return a;
    }
}
static void encoder_backward(const PromptEncoder *e, EncoderActivations *a) {
    if (e->kind != ENCODER_EMBEDDING) {
        needs_grad(&a->inner), needs_grad(&a->active);
        linear_backward(&e->second, a->active, a->prompt);
        relu_backward(a->inner, a->active);
    }
    if (e->kind == ENCODER_MLP) linear_backward(&e->first, e->embedding, a->inner);
    if (e->kind == ENCODER_LSTM) {
        Tensor *top = &a->lstm.output[1];
        needs_grad(top);
        linear_backward(&e->first, *top, a->inner);
        lstm_backward(&e->lstm, e->embedding, a->lstm);
    }
}

static Tensor embed_forward(Tensor word, Tensor prompt, const int *id, int tokens) {
    Tensor e = tensor(tokens, word.cols);
    for (int i = 0; i < tokens; i++)
        for (int j = 0; j < e.cols; j++) row(e, i)[j] = id[i] >= 0 ? row(word, id[i])[j] : row(prompt, -1 - id[i])[j];
    return e;
}
static void embed_backward(Tensor word, Tensor prompt, const int *id, Tensor e) {
    for (int i = 0; i < e.rows; i++)
        for (int j = 0; j < e.cols; j++) {
            if (id[i] >= 0 && word.grad) grad_row(word, id[i])[j] += grad_row(e, i)[j];
            if (id[i] < 0 && prompt.grad) grad_row(prompt, -1 - id[i])[j] += grad_row(e, i)[j];
        }
}
static double loss_and_gradient(const Lm *lm, Tensor prompt, const Inputs *in, const bool *in_loss) {
    Tensor e = embed_forward(lm_word(lm), prompt, in->id, in->batch.tokens);
    needs_grad(&e);
    LmActivations a = lm_forward(lm, e, &in->batch);
    Tensor *logits = &a.logits;
    needs_grad(logits);
    for (int i = 0; in_loss && i < logits->rows; i++)
        for (int w = 0; w < logits->cols; w++)
            if (!in_loss[w]) row(*logits, i)[w] = (real)-1e30;
    cross_entropy_backward(*logits, in->target);
    a.e = e;
    lm_backward(lm, &a, &in->batch);
    embed_backward(lm_word(lm), prompt, in->id, e);
    return cross_entropy_forward(*logits, in->target);
}

static double train_batch(const Lm *lm, const PromptEncoder *encoder, const Inputs *in, const bool *in_loss) {
    EncoderActivations a = {0};
    if (encoder) a = encoder_forward(encoder);
    if (encoder && !a.prompt.grad) needs_grad(&a.prompt);
    const double loss = loss_and_gradient(lm, a.prompt, in, in_loss);
    if (encoder) encoder_backward(encoder, &a);
    return loss;
}
static bool train_epoch(Run *run, const Dataset *train) {
    const Training *t = run->training;
    const int steps = t->published ? train->count / t->batch : ceil_div(train->count, t->batch);
    const int used = min_int(train->count, steps * t->batch);
    double sum = 0;
    int *order = in_order(train->count);
    shuffle(order, train->count, &(Random){((uint64_t)t->seed << 32) + (uint64_t)run->epoch});
    run->steps_an_epoch = steps, run->tokens = 0;
    for (int i = 0; i < steps; i++) {
        Mark before = mark();
        const int first = i * t->batch, count = min_int(t->batch, used - first);
        const Inputs in = inputs_of(train->at, order + first, count);
        const double loss = train_batch(&run->model->lm, run->encoder, &in, run->model->answers.in_loss);
        run->step = (run->epoch - 1) * steps + i + 1;
        if (isnan(loss) || isinf(loss)) die("the loss is %g", loss);
        const double rate = schedule(t, run->step, steps), factor = clip_factor(t, run->trained);
        adam_step(run->lm, (Optimizer){rate * t->rate_lm, t->decay, t->adamw}, run->step, factor);
        if (run->encoder)
            adam_step(run->encoder->weights, (Optimizer){rate * t->rate, t->decay, t->adamw}, run->step, factor);
        sum += loss * count;
        run->tokens += in.batch.tokens;
        release(before);
        if (t->after_step && !t->after_step(run, loss)) return false;
    }
    run->loss = sum / used;
    return true;
}
