# Writes the Makefile for an assignment's folder:  awk -F '\t' -v N=3 -f grade.awk tools/assignments.tsv
# Its test runs the checks in the order of writing and stops at the first that fails. Lists all assignments if there is
# no assignment N.
NR > 1 { titles[$1] = $2; last = $1 }
$1 == N {
    list = list "#     " $4 " in " $3 "\n"
    count = split($5, check, ", ")
    for (i = 1; i <= count; i++) {
        if (sub(/ /, " \"", check[i])) check[i] = check[i] "\""
        checks = checks "\t@./test-double " check[i] "\n"
    }
}
END {
    if (!list) {
        for (i = 1; i <= last; i++) print "make assignment N=" i "   " titles[i] >"/dev/stderr"
        exit 1
    }
    printf "# Assignment %s, %s. Write\n%s", N, titles[N], list
    print "# `make` names the next function, or shows what is wrong with the last one."
    printf "test: test-double\n%s\t@echo \"assignment %s, %s: done\"\n", checks, N, titles[N]
    print "test-double: test.c ptune.c tensor.h files.h tokenizer.h lstm.h bert.h examples.h world.h lab.h"
    print "\t$(CC) -std=c11 -Wall -Wno-unused -Wno-unknown-pragmas -g \\"
    print "\t    -DDOUBLE test.c -o $@ -lm"
    print ".PHONY: test"
}
