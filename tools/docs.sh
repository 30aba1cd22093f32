#!/bin/sh
# Do the commands of NOTES.md and README.md give what is printed there? `make docs`
# Numbers may differ by 5 % or 0.03: another processor rounds in another order. Speeds, the words nearest to a prompt, and
# which element has the largest rounding error, may be any.
passed=0 failed=0
check() { # place; on standard input the command, then its output
    read -r command
    cat >build/docs.expected
    sh -c "$command" >build/docs.output 2>&1
    if awk '
    function by_rounding(line) { return line ~ /worst relative error|[0-9]e-[0-9]+ .*[0-9]e-[0-9]/ }
    function skeleton(line,    word) {
        if (by_rounding(line)) {
            split(line, word)
            line = word[1] " " (word[1] == "ok" ? word[2] : "")
        }
        sub(/[0-9]+ tokens\/s/, "N tokens/s", line)
        if (line ~ /^\[P\]/) line = "[P]"
        gsub(/[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/, "#", line)
        gsub(/[ \t]+/, " ", line)
        return line
    }
    function near(a, b,    i, count, x, y) { # the numbers of two lines with the same skeleton
        sub(/[0-9]+ tokens\/s/, "", a)
        sub(/[0-9]+ tokens\/s/, "", b)
        if (a ~ /^\[P\]/ || by_rounding(a)) return 1
        while (match(a, /[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/)) {
            x = substr(a, RSTART, RLENGTH) + 0
            a = substr(a, RSTART + RLENGTH)
            match(b, /[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/)
            y = substr(b, RSTART, RLENGTH) + 0
            b = substr(b, RSTART + RLENGTH)
            if ((x > y ? x - y : y - x) > 0.03 + 0.05 * (x > y ? x : y)) return 0
        }
        return 1
    }
    NR == FNR { output[++lines] = $0; next }
    /^$/ || $0 == "..." { next }
    {
        while (at < lines) {
            at++
            if (skeleton(output[at]) == skeleton($0) && near(output[at], $0)) next
        }
        print "      not printed: " $0
        bad = 1
        exit
    }
    END { exit bad }' build/docs.output build/docs.expected; then
        echo "ok    $1: $command"
        passed=$((passed + 1))
    else
        echo "FAIL  $1: $command"
        failed=$((failed + 1))
    fi
}
mkdir -p build
rm -rf run run-gpt run-multi
awk -f tools/docs.awk NOTES.md README.md >build/docs.checks
. ./build/docs.checks
echo "$passed passed, $failed failed"
test "$failed" = 0 && test "$passed" -gt 0
