# The commands that a text prints with their output, as a list of checks for tools/docs.sh:
#   awk -f tools/docs.awk NOTES.md README.md
# In an indented block a line that begins with ./ptune or ./test is a command, what follows it is its output, and `...`
# stands for any lines. Commands without output, or with models and data that are not in data/, are not checked. In the
# table of exercises a row has options for the last command above it, and P@1 on its 103 test examples.
function finish() {
    if (command != "" && output != "" && command !~ /bert-base|lama|CB\/|DIR|FILE/) {
        printf "check '%s' <<'END_OF_OUTPUT'\n%s\n%sEND_OF_OUTPUT\n", place, command, output
    }
    command = output = ""
}
FNR == 1 { finish() }
/^    \.\/(ptune|test|test-double) / {
    finish()
    place = FILENAME ":" FNR
    base = command = substr($0, 5)
    next
}
/^    make / { finish(); next }
/^\| [^|]* \| *`--/ {
    split($0, column, / *\| */)
    options = split(column[3], option, /; */)
    split(column[4], score, /; */)
    for (i = 1; i <= options; i++) {
        gsub(/`/, "", option[i])
        printf "check '%s:%d' <<'END_OF_OUTPUT'\n%s %s\n", FILENAME, FNR, base, option[i]
        printf "P@1 %.2f (%d of 103)\nEND_OF_OUTPUT\n", score[i], score[i] * 1.03 + 0.5
    }
}
/^    / && command != "" {
    if (command ~ /\\$/) {
        sub(/ *\\$/, "", command)
        line = $0
        sub(/^ */, " ", line)
        command = command line
    } else output = output substr($0, 5) "\n"
    next
}
/^$/ { next }
{ finish() }
END { finish() }
