# make            builds ./ptune and the tests          make run      the demo; make run-gpt: with GPT
# make test       runs the suite [BERT="DIR DIR"]       make mutants  shows that the gradient checks can fail
# make gradcheck  gradients [LAYER=name] [BUG=name]     make error-curve [LAYER=name]  their error against the step
# make pretrain   trains the small world's BERT again (pretrain-gpt: its GPT)   make figures  the figures of NOTES.md
# make bench      times matmul and a training step      make sanitize the suite under ASan and UBSan
# make multi      one encoder for many relations: the table and the figure of NOTES.md
# make docs       runs the commands of NOTES.md and README.md and compares what they print
# make assignment N=3  a folder in which to write functions       make regrade FOLDER=F  grades it
# make assignments    shows that each assignment can be solved, and that wrong solutions are refused
# make -j4 lama MODEL=DIR LAMA=DIR OUT=DIR   the paper's table: NOTES.md
# make fuzz [SECONDS=60] [SEED=1001]  damaged files of every kind under the sanitizers
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
HEADERS := $(addsuffix .h,tensor files unicode tokenizer vocab lstm bert gpt lm deep \
    $(addprefix lab/,examples world choices run methods multi tag commands))
SOURCES := test.c ptune.c $(HEADERS)

all: ptune build/test build/test-double
ptune: ptune.c $(HEADERS) Makefile
	@echo "compiler: $(CC), for this machine: $(or $(NATIVE),no), OpenMP: $(OPENMP)"
	$(CC) $(CFLAGS) ptune.c -o $@ -lm
build/test build/test-double: build/%: $(SOURCES) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) $(if $(findstring double,$*),-DDOUBLE) test.c -o $@ -lm
	cp $@ $*

run: ptune
	./ptune
run-gpt: ptune
	./ptune demo --model data/gpt --methods majority,manual,best,search,ft,mp+ft,best+ft,p-lstm

run-deep: ptune
	sh tools/tagging.sh

# Trains the small world's models again: the same seed and binary give the same file.
pretrain: ptune
	./ptune vocab --data data --model data/bert
	./ptune pretrain --data data --model data/bert
pretrain-gpt: ptune
	./ptune vocab --causal --data data --model data/gpt
	./ptune pretrain --causal --data data --model data/gpt --epochs 30

# The figures of NOTES.md: see tools/figures.sh.
build/landscape: tools/landscape.c ptune.c $(HEADERS) Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) $< -o $@ -lm
figures: ptune build/landscape
	sh tools/figures.sh
multi: ptune
	sh tools/multi.sh

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

# Do the commands of NOTES.md and README.md give what is printed there?
docs: ptune build/test build/test-double
	sh tools/docs.sh

# Every run is a child of the test program: what a sanitizer reports is no error message, so it is found.
SECONDS := 60
build/test-sanitize: $(SOURCES) Makefile
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

# Each line of tools/mutants.tsv is one mistake, in a backward pass or beside it: tools/plant.awk plants it in the
# sources, the gradient checks run and the unit tests that the line names, and tools/judge.awk says whether the right
# ones failed. A race needs OpenMP and two processors.
MUTANTS := $(shell awk 'NR > 1 { print "build/mutants/" NR "/verdict" }' tools/mutants.tsv)
mutants:
	@rm -rf build/mutants
	@$(MAKE) --no-print-directory -j2 $(MUTANTS)
	@cat $(MUTANTS) | awk '{ $$1 == "killed" ? killed++ : survived++ } \
	    END { print killed + 0 " killed, " survived + 0 " survived"; exit survived > 0 || !killed }'
# The sources with one mistake, by its line or name. -Og: compiling takes as long as the checks.
build/mutants/%/mistake: $(SOURCES) tools/mutants.tsv
	@mkdir -p $(@D) && tar cf - $(SOURCES) | tar xf - -C $(@D)
	@awk -F '\t' 'NR == "$*" || $$6 == "$*"' tools/mutants.tsv >$@
	@file=$$(cut -f 2 $@); awk -F '\t' -f tools/plant.awk $@ $$file >$(@D)/$$file || \
	    { echo "tools/mutants.tsv: $*: its text must occur exactly once in $$file"; exit 1; }
build/mutants/%/test: build/mutants/%/mistake
	@$(CC) -std=c11 -w -Og $(OPENMP) $(@D)/test.c -o $@ -lm
build/mutants/%/test-double: build/mutants/%/mistake
	@$(CC) -std=c11 -w -Og $(OPENMP) -DDOUBLE $(@D)/test.c -o $@ -lm
build/mutants/%/verdict: build/mutants/%/test-double
	@$< gradcheck >$(@D)/output || true
	@cut -f 1 $(@D)/mistake | grep -o 'values [a-z_]*' | while read -r check; do \
	    $< $$check | sed 's/^FAIL  /FAIL  values /'; done >>$(@D)/output || true
	@awk -F '\t' -f tools/judge.awk $(@D)/mistake $(@D)/output >$@.part && mv $@.part $@ && cat $@
	@rm $<

# Class assignments: tools/assignments.tsv lists the functions to write, in order, the checks that grade each, and their
# points. tools/functions.awk removes and exchanges functions, tools/folder.awk writes a folder's Makefile and checks.
# With FROM, the student's own functions of earlier assignments replace ours. With VARIANT=1 the functions of
# tools/variant1 are the right ones, with VARIANT=2 those of tools/variant2.
FOLDER := assignment
VARIANT := 0
WRITTEN := 0
REFERENCE = build/reference/$(VARIANT)
TABLE := tools/assignments.tsv
functions = awk -F '\t' -v file=$$file $(1) -f tools/functions.awk $(TABLE) $(2)$$file
folder = awk -F '\t' -v N=$(1) -v variant=$(VARIANT) -v checks=$(2) -f tools/folder.awk $(TABLE)
$(REFERENCE)/grader: tools/grader.c $(SOURCES) $(TABLE) tools/functions.awk $(wildcard tools/variant$(VARIANT)/*)
	@test $(VARIANT) = 0 || test -d tools/variant$(VARIANT) || { echo "there is no VARIANT=$(VARIANT)"; exit 1; }
	@mkdir -p $(@D)/lab
	@cp tools/grader.c $(@D)
	@for file in $(SOURCES); do \
	    $(call functions,-v N=99 -v from=tools/variant$(VARIANT) -v first=1 -v last=99) >$(@D)/$$file || exit 1; done
	@$(CC) -std=c11 -w -O1 -DDOUBLE $(@D)/grader.c -o $@ -lm
$(REFERENCE)/cases-%: $(REFERENCE)/grader
	@$< record $* 8 >$@
assignment:
	@test ! -e $(FOLDER) || { echo "$(FOLDER)/ already exists: move it away first"; exit 1; }
	@rm -rf $(FOLDER).part && mkdir -p $(FOLDER).part/data $(FOLDER).part/lab && cp -r data/bert data/expected $(FOLDER).part/data
	@$(call folder,$(N),0) >$(FOLDER).part/Makefile
	@$(call folder,$(N),1) >$(FOLDER).part/checks.tsv
	@awk -F '\t' -v N=$(N) -v variant=$(VARIANT) -f tools/handout.awk $(TABLE) tools/handouts.md >$(FOLDER).part/HANDOUT.md
	@$(MAKE) -s $(REFERENCE)/cases-1 && cp $(REFERENCE)/cases-1 $(FOLDER).part/cases.txt
	@last=$$(($(N) - 1)); for file in grader.c $(SOURCES); do $(call functions,-v N=$(N) -v graded=$(N) \
	    -v written=$(WRITTEN) -v from='$(FROM)' -v first=1 -v last=$$last,$(REFERENCE)/) \
	    >$(FOLDER).part/$$file || exit 1; done
	@mv $(FOLDER).part $(FOLDER) && sed -n 's/^# //p' $(FOLDER)/Makefile

# What a teacher runs: only the functions of the assignment are taken from FOLDER. Other cases (SEED=1001), in double
# and float, with the sanitizers. RESULTS is in Gradescope's form.
SEED := 1001
TREE := build/regrade
RESULTS = $(FOLDER)/results.json
STRICT := -std=c11 -w -Og -g -fsanitize=address,undefined -fno-sanitize-recover=all
NOT_COMPILED := {"tests": [{"name": "it compiles", "score": 0, "max_score": 10, "output": "no: see what make says"}]}
of_folder = $(shell sed -n 's/^$(1) = //p' $(FOLDER)/Makefile 2>/dev/null)
regrade: number = $(or $(N),$(call of_folder,NUMBER))
regrade: VARIANT = $(or $(call of_folder,VARIANT),0)
regrade:
	@rm -rf $(TREE) && mkdir -p $(TREE)/lab && $(MAKE) -s VARIANT=$(VARIANT) $(REFERENCE)/cases-$(SEED)
	@for file in grader.c $(SOURCES); do $(call functions,-v N=99 -v graded=$(number) -v from=$(FOLDER) \
	    -v first=$(number) -v last=$(number) -v complete=1,$(REFERENCE)/) >$(TREE)/$$file || exit 1; done
	@$(call folder,$(number),1) >$(TREE)/checks.tsv
	@for real in DOUBLE FLOAT; do $(CC) $(STRICT) -D$$real $(TREE)/grader.c -o $(TREE)/$$real -lm || \
	    { echo '$(NOT_COMPILED)' >$(RESULTS); exit 1; }; done
	@$(REFERENCE)/grader all $(TREE)/checks.tsv $(REFERENCE)/cases-$(SEED) $(RESULTS) $(TREE)/DOUBLE $(TREE)/FLOAT

# Shows that each assignment can be solved, in more than one way, and that wrong solutions are refused:
#   step-N.K      the folder of assignment N with its first K functions written asks for the next one, or is done
#   other-N       tools/other, a solution written in another way, gets all points (3 and 9 have none)
#   variant-V.N   the right solution of VARIANT=V gets all points for that
#   last_year-V.N the right solution without a variant does not
#   wrong-LINE    that line of tools/wrong.tsv, planted in the right solution, costs points
STEPS := $(shell awk -F '\t' 'NR > 1 && !count[$$1]++ { print "step-" $$1 ".0" } \
    NR > 1 { print "step-" $$1 "." count[$$1] }' $(TABLE))
VARIED := 1.5 1.6 1.10 2.10
OTHER := $(filter-out 3 9,$(shell awk 'NR > 1 { print $$1 }' $(TABLE) | sort -un))
SHOWN := $(STEPS) $(addprefix other-,$(OTHER)) $(addprefix variant-,$(VARIED)) \
    $(addprefix last_year-,$(VARIED)) $(shell awk 'NR > 1 { print "wrong-" NR }' tools/wrong.tsv)
VERDICTS := $(SHOWN:%=build/assignments/%/verdict)
assignments:
	@rm -rf build/assignments
	@for variant in $(sort 0 $(basename $(VARIED))); do $(MAKE) -s VARIANT=$$variant build/reference/$$variant/cases-1 \
	    build/reference/$$variant/cases-$(SEED) || exit 1; done
	@SECONDS_ALLOWED=8 $(MAKE) --no-print-directory -j2 $(VERDICTS)
	@cat $(VERDICTS) | awk '{ $$1 == "ok" ? passed++ : failed++ } \
	    END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 || !passed }'
build/assignments/step-%/verdict: number = $(basename $*)
build/assignments/step-%/verdict: written = $(subst .,,$(suffix $*))
build/assignments/step-%/verdict:
	@mkdir -p $(@D) && $(MAKE) -s assignment N=$(number) WRITTEN=$(written) FROM=tools/other FOLDER=$(@D)/folder >/dev/null
	@$(MAKE) -C $(@D)/folder CFLAGS=-Og >$(@D)/output 2>&1 || true
	@awk -F '\t' 'NR > 1 && $$1 == $(number) && written++ == $(written) { next_one = "write " $$4 " in " $$3 ":" } \
	    END { print next_one ? next_one : ": done" }' $(TABLE) >$(@D)/expected
	@if grep -qFf $(@D)/expected $(@D)/output && ! grep -Eq '^FAIL|warning:' $(@D)/output; then right=ok; \
	    else right=FAIL; cat $(@D)/output; fi; \
	    echo "$$right  $(number), $(written) written: $$(cat $(@D)/expected)" >$@.part
	@rm -r $(@D)/folder && mv $@.part $@ && cat $@
# $(call regraded,FOLDER,VARIANT,N,what the points must be,what it is)
define regraded
	@mkdir -p $(@D)
	+@SECONDS_ALLOWED=30 $(MAKE) -s regrade FOLDER=$(1) VARIANT=$(2) N=$(3) TREE=$(@D)/tree RESULTS=$(@D)/results >$(@D)/output
	@awk 'END { print ($(4) ? "ok" : "FAIL") "  $(3), $(5):" $$0 }' $(@D)/output >$@.part
	@rm -r $(@D)/tree && mv $@.part $@ && cat $@
endef
build/assignments/other-%/verdict:
	$(call regraded,tools/other,0,$*,$$1 > 0 && $$1 == $$3,written in another way)
build/assignments/variant-%/verdict build/assignments/last_year-%/verdict: number = $(subst .,,$(suffix $*))
build/assignments/variant-%/verdict build/assignments/last_year-%/verdict: variant = $(basename $*)
build/assignments/variant-%/verdict:
	$(call regraded,build/reference/$(variant),$(variant),$(number),$$1 > 0 && $$1 == $$3,variant $(variant))
build/assignments/last_year-%/verdict:
	$(call regraded,.,$(variant),$(number),$$1 < $$3,variant $(variant) answered without it)
build/assignments/wrong-%/verdict:
	@mkdir -p $(@D) && tar cf - $(SOURCES) | tar xf - -C $(@D) && awk 'NR == $*' tools/wrong.tsv >$(@D)/mistake
	@file=$$(cut -f 2 $(@D)/mistake); awk -F '\t' -f tools/plant.awk $(@D)/mistake $$file >$(@D)/$$file || \
	    { echo "tools/wrong.tsv:$*: its text must occur exactly once in $$file"; exit 1; }
	@number=$$(cut -f 1 $(@D)/mistake); $(call folder,$$number,1) >$(@D)/checks.tsv; for file in grader.c test.c; do \
	    $(call functions,-v N=99 -v graded=$$number,$(REFERENCE)/) >$(@D)/$$file || exit 1; done
	@$(CC) -std=c11 -w -Og -DDOUBLE $(@D)/grader.c -o $(@D)/grader -lm
	@$(REFERENCE)/grader all $(@D)/checks.tsv $(REFERENCE)/cases-1 $(@D)/results $(@D)/grader >$(@D)/output
	@awk -F '\t' 'NR == 1 { mistake = $$1 ", wrong: " $$3 } END { split($$0, score, " of "); \
	    print (score[1] + 0 < score[2] + 0 ? "ok" : "FAIL") "  " mistake ":" $$0 }' $(@D)/mistake $(@D)/output >$@.part
	@rm $(@D)/grader && mv $@.part $@ && cat $@

clean:
	rm -rf ptune test test-double build
.PHONY: all docs fuzz run run-gpt run-deep pretrain pretrain-gpt figures multi lama test gradcheck error-curve bench mutants sanitize assignment assignments \
    regrade clean
.SECONDARY:
.DELETE_ON_ERROR:
