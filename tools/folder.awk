# Writes the Makefile of an assignment's folder:  awk -F '\t' -v N=5 -v variant=0 -f folder.awk tools/assignments.tsv
# With checks=1 instead the lines of its checks.tsv: points, function, file, check. A variant has no values of PyTorch
# where it has cases: their points go to these. Lists all assignments if there is no assignment N.
NR > 1 { titles[$1] = $2; last = $1 }
$1 == N && NR > 1 {
    list = list "#     " $4 " in " $3 "\n"
    count = split($5, check, ", ")
    split($6, points, ", ")
    for (i = 1; i <= count; i++) {
        if (variant > 0 && check[i] ~ /^values/ && $5 ~ /cases/) points[i + 1] += points[i]
        else lines = lines points[i] "\t" $4 "\t" $3 "\t" check[i] "\n"
    }
}
END {
    if (!list) {
        for (i = 1; i <= last; i++) print "make assignment N=" i "   " titles[i] >"/dev/stderr"
        exit 1
    }
    if (checks) { printf "%s", lines; exit }
    name = "assignment " N ", " titles[N] (variant > 0 ? ", variant " variant : "")
    printf "# A%s. Write\n%s", substr(name, 2), list
    print "# HANDOUT.md says more. `make` names the next function, or shows what is wrong with it; `make grade` runs"
    print "# all checks, gives points and writes results.json. `make LONG=1` prints the tables of each gradient check too."
    print "NUMBER = " N
    print "VARIANT = " variant
    print "CFLAGS = -O2 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    print "NOT_COMPILED = {\"tests\": [{\"name\": \"it compiles\", \"score\": 0, \"max_score\": 10, " \
        "\"output\": \"no: see what make says\"}]}"
    print "SOURCES = grader.c test.c ptune.c tensor.h files.h unicode.h tokenizer.h vocab.h lstm.h " \
        "bert.h gpt.h lm.h deep.h lab/examples.h lab/world.h lab/choices.h lab/run.h lab/methods.h lab/multi.h lab/tag.h lab/commands.h"
    print "next: grader"
    printf "\t@./grader next checks.tsv cases.txt && echo \"%s: done\"\n", name
    print "grade:"
    print "\t@rm -f results.json && $(MAKE) -s grader || { echo '$(NOT_COMPILED)' >results.json; exit 1; }"
    print "\t@./grader all checks.tsv cases.txt results.json ./grader"
    print "grader: $(SOURCES)"
    print "\t$(CC) -std=c11 -Wall -Wno-unused -Wno-unknown-pragmas $(CFLAGS) \\"
    print "\t    -DDOUBLE grader.c -o $@ -lm"
    print ".PHONY: next grade"
}
