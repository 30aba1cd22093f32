# make            builds ./ptune and the tests          make run      the demo
# make test       runs the suite [BERT="DIR DIR"]       make mutants  shows that the gradient checks can fail
# make sanitize   the suite under ASan and UBSan        make clean
CC ?= cc
probe = $(shell printf 'int main(void) { return 0; }' | $(CC) $(1) -x c - -o /dev/null 2>/dev/null && echo '$(1)')
NATIVE := $(call probe,-march=native)
OPENMP := $(or $(call probe,-fopenmp),$(call probe,-fopenmp-simd) -Wno-unknown-pragmas)
# -ffp-contract=fast: -std=c11 alone turns fused multiply-add off. -fno-trapping-math: nobody reads exception flags; NaN stays NaN.
FAST := -O3 $(NATIVE) -ffp-contract=fast -fno-math-errno -fno-trapping-math
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes
CFLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L $(WARN) $(FAST) $(OPENMP)
SANITIZE := -std=c11 -D_POSIX_C_SOURCE=200809L $(WARN) -O1 -g $(OPENMP) -fsanitize=address,undefined -fno-sanitize-recover=all
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

test: build/test build/test-double
	./test-double gradcheck
	./test $(foreach folder,$(BERT),--bert $(folder))

sanitize:
	@mkdir -p build
	$(CC) $(SANITIZE) test.c -o build/test-sanitize -lm
	$(CC) $(SANITIZE) -DDOUBLE test.c -o build/test-double-sanitize -lm
	build/test-double-sanitize gradcheck
	build/test-sanitize

clean:
	rm -rf ptune test test-double build
.PHONY: all run test sanitize clean
