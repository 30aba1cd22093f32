# make            builds ./ptune and the tests          make run      the demo
# make test       runs the suite [BERT="DIR DIR"]       make mutants  shows that the gradient checks can fail
# make gradcheck  gradients [LAYER=name] [BUG=name]     make error-curve [LAYER=name]  their error against the step
# make pretrain   trains the small world's BERT again   make figures  the figures of NOTES.md
# make bench      times matmul and a training step      make sanitize the suite under ASan and UBSan
# make assignment N=3  a folder in which to write functions       make assignments  shows that each can be solved
# make -j4 lama MODEL=DIR LAMA=DIR OUT=DIR   the paper's table: NOTES.md
# make fuzz [SECONDS=60] [SEED=1]  damaged files of every kind under the sanitizers
# make clean
CC ?= cc
probe = $(shell printf 'int main(void) { return 0; }' | $(CC) $(1) -x c - -o /dev/null 2>/dev/null && echo '$(1)')
NATIVE := $(call probe,-march=native)
OPENMP := $(or $(call probe,-fopenmp),$(call probe,-fopenmp-simd) -Wno-unknown-pragmas)
# -ffp-contract=fast: -std=c11 alone turns fused multiply-add off. -fno-trapping-math: nobody reads exception flags; NaN
# stays NaN.
FAST := -O3 $(NATIVE) -ffp-contract=fast -fno-math-errno -fno-trapping-math
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes
CFLAGS := -std=c11 $(WARN) $(FAST) $(OPENMP)
SANITIZE := -std=c11 $(WARN) -O1 -g $(OPENMP) -fsanitize=address,undefined -fno-sanitize-recover=all $(call probe,-Wno-pass-failed)
HEADERS := tensor.h files.h tokenizer.h lstm.h bert.h examples.h world.h lab.h

all: ptune build/test build/test-double
ptune: ptune.c $(HEADERS) Makefile
	@echo "compiler: $(CC), for this machine: $(or $(NATIVE),no), OpenMP: $(OPENMP)"
	$(CC) $(CFLAGS) ptune.c -o $@ -lm
build/test build/test-double: build/%: test.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) $(if $(findstring double,$*),-DDOUBLE) test.c -o $@ -lm
	cp $@ $*

run: ptune
	./ptune

# Trains the small world's BERT again: the same seed and binary give the same file.
pretrain: ptune
	./ptune vocab --data data --model data/bert
	./ptune pretrain --data data --model data/bert

# The figures of NOTES.md: see tools/figures.sh.
build/landscape: tools/landscape.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) $< -o $@ -lm
figures: ptune build/landscape
	sh tools/figures.sh

# The paper's table on LAMA, one process per relation: runs what OUT lacks, then prints the table of all results in OUT.
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

# The gradient checks in float and in double; with a LAYER its experiments, with a BUG that mistake planted.
gradcheck: build/test build/test-double
	@status=0; for program in ./test ./test-double; do \
	    $$program gradcheck $(if $(LAYER),"$(LAYER)") $(if $(BUG),--bug "$(BUG)") || status=1; done; exit $$status
error-curve: build/test build/test-double
	for program in test test-double; do ./$$program gradcheck "$(or $(LAYER),layernorm)" | \
	    awk '/^eps/ { on = 1 } !NF { on = 0 } on' >build/$$program.curve; done
	gnuplot -e "set terminal svg background 'white'; set output 'build/error-curve.svg'; set logscale xy; \
	    set xlabel 'eps'; set ylabel 'median relative error'; plot for [p in 'test test-double'] \
	    'build/'.p.'.curve' using 1:2 with linespoints title p"

sanitize: build/test-sanitize
	$(CC) $(SANITIZE) -DDOUBLE test.c -o build/test-double-sanitize -lm
	build/test-double-sanitize gradcheck
	build/test-sanitize

# Every run is a child of the test program: what a sanitizer reports is no error message, so it is found.
SECONDS := 60
build/test-sanitize: test.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(SANITIZE) test.c -o $@ -lm
fuzz: build/test-sanitize
	ASAN_OPTIONS=detect_leaks=0 build/test-sanitize fuzz $(SECONDS) $(SEED)

# With TORCH=1 (or TORCH=python3, a Python that has torch and transformers) compared with PyTorch.
build/bench: tools/bench.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) $< -o $@ -lm
bench: build/bench
	$(if $(TORCH),$(if $(filter 1,$(TORCH)),python3,$(TORCH)) tools/bench_torch.py,build/bench)

# Each line of tools/mutants.tsv is one mistake in a backward pass: tools/plant.awk plants it in the sources, the
# gradient checks run, and tools/judge.awk says whether the right ones failed.
MUTANTS := $(shell awk 'NR > 1 { print "build/mutants/" NR "/verdict" }' tools/mutants.tsv)
mutants:
	@rm -rf build/mutants
	@$(MAKE) --no-print-directory -j2 $(MUTANTS)
	@cat $(MUTANTS) | awk '{ $$1 == "killed" ? killed++ : survived++ } \
	    END { print killed + 0 " killed, " survived + 0 " survived"; exit survived > 0 || !killed }'
# The sources with one mistake, by its line or name. Compiled without optimisation: compiling takes most of the time.
build/mutants/%/mistake: test.c ptune.c $(HEADERS) tools/mutants.tsv
	@mkdir -p $(@D) && cp test.c ptune.c $(HEADERS) $(@D)
	@awk -F '\t' 'NR == "$*" || $$6 == "$*"' tools/mutants.tsv >$@
	@file=$$(cut -f 2 $@); awk -F '\t' -f tools/plant.awk $@ $$file >$(@D)/$$file || \
	    { echo "tools/mutants.tsv: $*: its text must occur exactly once in $$file"; exit 1; }
build/mutants/%/test: build/mutants/%/mistake
	@$(CC) -std=c11 -w $(@D)/test.c -o $@ -lm
build/mutants/%/test-double: build/mutants/%/mistake
	@$(CC) -std=c11 -w -DDOUBLE $(@D)/test.c -o $@ -lm
build/mutants/%/verdict: build/mutants/%/test-double
	@$< gradcheck >$(@D)/output || true
	@awk -F '\t' -f tools/judge.awk $(@D)/mistake $(@D)/output >$@.part && mv $@.part $@ && cat $@
	@rm $<

# Class assignments: tools/assignments.tsv lists the functions to write, in order, and the checks that grade each.
# tools/strip.awk removes their bodies from a file, tools/grade.awk writes the folder's Makefile.
FOLDER := assignment
WRITTEN := 0
assignment:
	@test ! -e $(FOLDER) || { echo "$(FOLDER)/ already exists: move it away first"; exit 1; }
	@rm -rf $(FOLDER).part && mkdir -p $(FOLDER).part/data && cp -r data/bert data/expected $(FOLDER).part/data
	@awk -F '\t' -v N=$(N) -f tools/grade.awk tools/assignments.tsv >$(FOLDER).part/Makefile
	@for file in test.c ptune.c $(HEADERS); do awk -F '\t' -v N=$(N) -v written=$(WRITTEN) -v file=$$file \
	    -f tools/strip.awk tools/assignments.tsv $$file >$(FOLDER).part/$$file || exit 1; done
	@mv $(FOLDER).part $(FOLDER) && sed -n 's/^# //p' $(FOLDER)/Makefile

# N.K: assignment N with its first K functions written. Its folder must ask for the next one, or say that it is done.
ASSIGNMENTS := $(shell awk -F '\t' 'NR > 1 && !count[$$1]++ { print $$1 ".0" } NR > 1 { print $$1 "." count[$$1] }' \
    tools/assignments.tsv)
assignments:
	@rm -rf build/assignments
	@$(MAKE) --no-print-directory -j2 $(ASSIGNMENTS:%=build/assignments/%/verdict)
	@cat $(ASSIGNMENTS:%=build/assignments/%/verdict) | awk '{ $$1 == "ok" ? passed++ : failed++ } \
	    END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 || !passed }'
build/assignments/%/verdict: number = $(basename $*)
build/assignments/%/verdict: written = $(subst .,,$(suffix $*))
build/assignments/%/verdict:
	@mkdir -p $(@D) && $(MAKE) -s assignment N=$(number) WRITTEN=$(written) FOLDER=$(@D)/folder >/dev/null
	@$(MAKE) -C $(@D)/folder >$(@D)/output 2>&1 || true
	@awk -F '\t' '$$1 == $(number) && written++ == $(written) { next_one = "write " $$4 " in " $$3 ":" } \
	    END { print next_one ? next_one : ": done" }' tools/assignments.tsv >$(@D)/expected
	@if grep -qFf $(@D)/expected $(@D)/output && ! grep -Eq '^FAIL|warning:' $(@D)/output; then right=ok; \
	    else right=FAIL; cat $(@D)/output; fi; echo "$$right  $(number), $(written) written: $$(cat $(@D)/expected)" >$@.part
	@rm -r $(@D)/folder && mv $@.part $@ && cat $@

clean:
	rm -rf ptune test test-double build
.PHONY: fuzz all run pretrain figures lama test gradcheck error-curve bench mutants sanitize assignment assignments clean
.SECONDARY:
.DELETE_ON_ERROR:
