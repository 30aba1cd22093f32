# make            builds ./ptune and the tests          make run      the demo
# make test       runs the suite [BERT="DIR DIR"]       make mutants  shows that the gradient checks can fail
# make pretrain   the small world's BERT again          make curves   the learning curves of NOTES.md
# make bench      matmul and a training step            make sanitize the suite under ASan and UBSan
# make -j4 lama MODEL=DIR LAMA=DIR OUT=DIR   the paper's table: NOTES.md
# make clean
CC ?= cc
probe = $(shell printf 'int main(void) { return 0; }' | $(CC) $(1) -x c - -o /dev/null 2>/dev/null && echo '$(1)')
NATIVE := $(call probe,-march=native)
OPENMP := $(or $(call probe,-fopenmp),$(call probe,-fopenmp-simd) -Wno-unknown-pragmas)
# -ffp-contract=fast: -std=c11 alone turns fused multiply-add off. -fno-trapping-math: nobody reads exception flags; NaN stays NaN.
FAST := -O3 $(NATIVE) -ffp-contract=fast -fno-math-errno -fno-trapping-math
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes
CFLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L $(WARN) $(FAST) $(OPENMP)
SANITIZE := -std=c11 -D_POSIX_C_SOURCE=200809L $(WARN) -O1 -g $(OPENMP) -fsanitize=address,undefined -fno-sanitize-recover=all $(call probe,-Wno-pass-failed)
HEADERS := tensor.h tokenizer.h lstm.h bert.h


all: ptune build/test build/test-double
ptune: ptune.c $(HEADERS) Makefile
	@echo "compiler: $(CC), for this machine: $(or $(NATIVE),no), OpenMP: $(OPENMP)"
	$(CC) $(CFLAGS) ptune.c -o $@ -lm
build/test: test.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) test.c -o $@ -lm
	cp $@ test
build/test-double: test.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) -DDOUBLE test.c -o $@ -lm
	cp $@ test-double

run: ptune
	./ptune

# The small world's BERT again: the same file for the same seed and binary.
pretrain: ptune
	./ptune vocab --data data --model data/bert
	./ptune pretrain --data data --model data/bert

# The learning curves of NOTES.md: one relation, three prompt encoders.
curves: ptune
	@mkdir -p build/curves
	for encoder in lstm mlp embedding; do \
	    ./ptune train --model data/bert --data data/occupation --encoder $$encoder --lr 5e-3 --epochs 20 --out build/curves/$$encoder; done
	gnuplot -e "set terminal svg noenhanced size 900,340 background 'white'; set output 'data/curves.svg'; set multiplot layout 1,2; set xlabel 'epoch'; \
	    set key right top; set ylabel 'training loss'; \
	    plot for [e in 'lstm mlp embedding'] 'build/curves/'.e.'/log.tsv' using 2:3 with linespoints title e; \
	    set key right bottom; set ylabel 'dev P@1'; \
	    plot for [e in 'lstm mlp embedding'] 'build/curves/'.e.'/log.tsv' using 2:4 with linespoints title e"

# The paper's table on LAMA, a process a relation: what OUT lacks is run, then the table of all results in OUT is printed.
# OPTIONS are those of ./ptune table.
RELATIONS = $(notdir $(wildcard $(LAMA)/relations/*))
VOCABS = $(LAMA)/29k-vocab.cased.txt $(LAMA)/common_vocab_cased.txt
lama: $(addprefix lama/,$(RELATIONS))
	./ptune table $(OUT)
lama/%: ptune
	for vocab in $(VOCABS); do OMP_NUM_THREADS=1 ./ptune table --model $(MODEL) --data $(LAMA) --relations $* \
	    --vocab $$vocab --out $(OUT) $(OPTIONS) || exit 1; done

test: build/test build/test-double
	./test-double gradcheck
	./test $(foreach folder,$(BERT),--bert $(folder))

sanitize:
	@mkdir -p build
	$(CC) $(SANITIZE) test.c -o build/test-sanitize -lm
	$(CC) $(SANITIZE) -DDOUBLE test.c -o build/test-double-sanitize -lm
	build/test-double-sanitize gradcheck
	build/test-sanitize

# Each line of data/mutants.tsv is one mistake in a backward pass. The checks it names must fail, and no other check of
# a layer that stands alone. Compiled without optimisation, because compiling is where the time goes.
MUTANTS := $(shell awk 'NR > 1 { print "build/mutants/" NR "/verdict" }' data/mutants.tsv)
define PLANT
FNR == NR { text = $$4; replacement = $$5; next }
{ whole = whole $$0 "\n" }
END {
    at = index(whole, text)
    if (!at || text == "" || index(substr(whole, at + 1), text)) exit 1
    printf "%s%s%s", substr(whole, 1, at - 1), replacement, substr(whole, at + length(text))
}
endef
define JUDGE
BEGIN {
    alone = ",linear,residual,layernorm,gelu,relu,softmax,cross-entropy,rows,attention,embeddings,embed,"
    alone = alone "lstm,lstm reverse,"
}
FNR == NR { count = split($$1, expected, ", "); mistake = $$1 ": " $$3; next }
/^FAIL/ { sub(/^FAIL +/, ""); sub(/ +([0-9]+ elements|the gradient).*/, ""); failed[$$0] }
END {
    verdict = "killed"
    for (i = 1; i <= count; i++) if (!(expected[i] in failed)) verdict = "SURVIVED"; else delete failed[expected[i]]
    if (verdict == "killed") for (name in failed) if (index(alone, "," name ",")) verdict = "WRONG CHECK (" name ")"
    print verdict "  " mistake
}
endef
export PLANT JUDGE

bench: build/test
	./test bench

mutants:
	@rm -rf build/mutants
	@$(MAKE) --no-print-directory -j2 $(MUTANTS)
	@cat $(MUTANTS) | awk '{ $$1 == "killed" ? killed++ : survived++ } \
	    END { print killed + 0 " killed, " survived + 0 " survived"; exit survived > 0 || !killed }'
build/mutants/%/verdict:
	@mkdir -p $(@D) && cp test.c ptune.c $(HEADERS) $(@D) && sed -n '$*p' data/mutants.tsv >$(@D)/mistake
	@file=$$(cut -f 2 $(@D)/mistake); awk -F '\t' "$$PLANT" $(@D)/mistake $$file >$(@D)/$$file || \
	    { echo "data/mutants.tsv:$*: its text is not exactly once in $$file"; exit 1; }
	@$(CC) -std=c11 -D_POSIX_C_SOURCE=200809L -w -DDOUBLE $(@D)/test.c -o $(@D)/test -lm
	@$(@D)/test gradcheck >$(@D)/output || true
	@awk -F '\t' "$$JUDGE" $(@D)/mistake $(@D)/output >$@.part && mv $@.part $@ && cat $@
	@rm $(@D)/test

clean:
	rm -rf ptune test test-double build
.PHONY: all run pretrain curves lama test bench mutants sanitize clean
