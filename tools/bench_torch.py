"""The speed of ptune and of PyTorch: `make bench TORCH=1`.

Both do the same work with random weights of BERT-base's shape, and of GPT-2 small's. Training: batches of 8 examples of
13 to 18 tokens, 120 in all, which PyTorch pads to 144 (1.20 times; LAMA: 1.17 to 1.27). Evaluation: for PyTorch batches
of 32 examples of equal length, since batches sorted by length need hardly any padding; for ptune its own batches of 960
tokens. The two take turns, so that a slow minute of the machine affects both; ROUNDS=7 in the environment runs more
rounds. A step of P-tuning is also timed in bfloat16 (autocast), compiled (torch.compile, which needs a C++ compiler),
and both; ptune computes in float32 always. Needs torch and transformers.
"""
import os
import re
import statistics
import subprocess
import time

import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CORES = len(os.sched_getaffinity(0))
SUBJECT = torch.tensor([3, 2, 4, 1, 3, 2, 6, 3])  # tokens of x in [CLS] P P P x P P P [MASK] P P P [SEP]
EAGER = "P-tuning, logits at the masks, ms"
BFLOAT16, COMPILED, BOTH, FASTEST = (
    f"the same, PyTorch {how}" for how in ("in bfloat16", "compiled", "compiled, bfloat16", "as it is fastest"))
PRODUCTS = [(176, 768, 768), (176, 3072, 768), (176, 768, 3072), (512, 768, 768), (8, 28996, 768)]


class PromptEncoder(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, hidden)
        self.lstm = torch.nn.LSTM(hidden, hidden // 2, 2, bidirectional=True, batch_first=True)
        linear = torch.nn.Linear
        self.mlp = torch.nn.Sequential(linear(hidden, hidden), torch.nn.ReLU(), linear(hidden, hidden))

    def forward(self):
        return self.mlp(self.lstm(self.embedding.weight[None])[0])[0]


def median_time(work, times):
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def products(rates):
    for m, n, k in PRODUCTS:
        x, y = torch.rand(m, k), torch.rand(m, n)
        weights = [torch.rand(n, k) for _ in range(8)]  # taken in turn, as from layer to layer: they come from memory
        for name, product in (("X W'", lambda w: x @ w.T), ("dY W", lambda w: y @ w), ("dY' X", lambda w: y.T @ x)):
            for threads in sorted({1, CORES}):
                torch.set_num_threads(threads)
                turn = iter(range(10**9))
                seconds = median_time(lambda: product(weights[next(turn) % 8]), 15)
                rates[f"{name} ({m}, {n}, {k}), {threads} threads, GFLOP/s"] = 2e-9 * m * n * k / seconds
    torch.set_num_threads(CORES)


def steps(lm, rates):
    encoder = PromptEncoder(lm.config.hidden_size)
    length = SUBJECT + 12
    sequences = torch.arange(len(SUBJECT))
    mask = SUBJECT + 7
    padding = (torch.arange(length.max()) < length[:, None]).long()
    ids = torch.randint(100, 20000, padding.shape)
    answers = torch.randint(100, 20000, (len(SUBJECT),))
    places = torch.tensor([[1, 2, 3, x + 4, x + 5, x + 6, x + 8, x + 9, x + 10] for x in SUBJECT])
    words = lm.get_input_embeddings()

    def loss_of(prompt, only_masks):
        e = words(ids)
        if prompt:
            e[sequences[:, None], places] = encoder().to(e.dtype)
        y = lm.bert(inputs_embeds=e, attention_mask=padding)[0]
        logits = lm.cls(y[sequences, mask]) if only_masks else lm.cls(y)[sequences, mask]
        return torch.nn.functional.cross_entropy(logits, answers)

    def train(optimizer, prompt, only_masks, loss_of=loss_of, bfloat16=False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = loss_of(prompt, only_masks)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    lm.requires_grad_(False)
    adam = torch.optim.Adam(encoder.parameters(), lr=5e-4, weight_decay=5e-4)
    rates[EAGER] = 1e3 * median_time(lambda: train(adam, True, True), 9)
    rates["P-tuning, logits at all positions, ms"] = 1e3 * median_time(lambda: train(adam, True, False), 9)
    compiled = torch.compile(loss_of)
    variants = {BFLOAT16: (loss_of, True), COMPILED: (compiled, False), BOTH: (compiled, True)}
    for name, (loss, bfloat16) in variants.items():
        rates[name] = 1e3 * median_time(lambda: train(adam, True, True, loss, bfloat16), 9)
    rates[FASTEST] = min(rates[name] for name in (EAGER, *variants))
    batch, at = torch.randint(100, 20000, (32, 15)), 10
    with torch.no_grad():
        rates["evaluation, examples/s"] = 32 / median_time(lambda: lm.cls(lm.bert(batch)[0][:, at]), 9)
    lm.requires_grad_(True)
    adam = torch.optim.Adam(lm.parameters(), lr=5e-6, weight_decay=5e-4)
    rates["fine-tuning, ms"] = 1e3 * median_time(lambda: train(adam, False, True), 5)


def gpt_steps(lm, rates):
    encoder = PromptEncoder(lm.config.n_embd)
    length = SUBJECT + 12
    sequences = torch.arange(len(SUBJECT))
    padding = (torch.arange(length.max()) < length[:, None]).long()
    ids = torch.randint(100, 20000, padding.shape)
    answers = torch.randint(100, 20000, (len(SUBJECT),))
    places = torch.tensor([[1, 2, 3, x + 4, x + 5, x + 6, x + 8, x + 9, x + 10] for x in SUBJECT])
    words = lm.get_input_embeddings()
    adam = torch.optim.Adam(encoder.parameters(), lr=5e-4, weight_decay=5e-4)
    lm.requires_grad_(False)

    def train(last_alone):
        e = words(ids).index_put((sequences[:, None], places), encoder())
        y = lm.transformer(inputs_embeds=e, attention_mask=padding)[0]
        logits = lm.lm_head(y[sequences, length - 1]) if last_alone else lm.lm_head(y)[sequences, length - 1]
        torch.nn.functional.cross_entropy(logits, answers).backward()
        adam.step()
        adam.zero_grad()

    rates["GPT-2, logits at the last position, ms"] = 1e3 * median_time(lambda: train(True), 9)
    rates["GPT-2, logits at all positions, ms"] = 1e3 * median_time(lambda: train(False), 9)


def ptune():
    text = subprocess.run(["build/bench", "brief"], capture_output=True, text=True, check=True).stdout
    rates = {}
    for m, n, k in PRODUCTS:
        rate = re.search(rf"\( *{m}, *{n}, *{k}\)(.*)", text).group(1).split()
        for i, name in enumerate(("X W'", "dY W", "dY' X")):
            rates[f"{name} ({m}, {n}, {k}), 1 threads, GFLOP/s"] = float(rate[i * len(rate) // 3])
            rates[f"{name} ({m}, {n}, {k}), {CORES} threads, GFLOP/s"] = float(rate[(i + 1) * len(rate) // 3 - 1])
    step = float(re.search(r"a step +([\d. ]+)", text).group(1).split()[-1])
    for name in (EAGER, BFLOAT16, COMPILED, BOTH, FASTEST, "P-tuning, logits at all positions, ms"):
        rates[name] = step
    rates["evaluation, examples/s"] = float(re.search(r"([\d.]+) examples/s", text).group(1))
    rates["fine-tuning, ms"] = float(re.search(r"([\d.]+) ms per step", text).group(1))
    gpt = float(re.search(r"([\d.]+) ms each step", text).group(1))
    rates["GPT-2, logits at the last position, ms"] = rates["GPT-2, logits at all positions, ms"] = gpt
    return rates


torch.manual_seed(0)
lm = BertForMaskedLM(BertConfig(vocab_size=28996)).eval()
gpt = GPT2LMHeadModel(GPT2Config()).eval()
ours, theirs = [], []
for _ in range(ROUNDS):
    ours.append(ptune())
    theirs.append({})
    products(theirs[-1])
    steps(lm, theirs[-1])
    gpt_steps(gpt, theirs[-1])
print(f"medians of {ROUNDS} rounds, PyTorch {torch.__version__}")
print(f"{'':<44} {'ptune':>8} {'PyTorch':>8}   times as fast (least, most)")
for name in theirs[0]:
    ratios = [p[name] / t[name] if "/s" in name else t[name] / p[name] for p, t in zip(ours, theirs)]
    p, t = (statistics.median(side[name] for side in sides) for sides in (ours, theirs))
    print(f"{name:<44} {p:8.1f} {t:8.1f}   {statistics.median(ratios):5.2f}   ({min(ratios):.2f}, {max(ratios):.2f})")
