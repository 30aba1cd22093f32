# Removes from a source the functions that an assignment asks for:
#   awk -F '\t' -v N=3 -v written=0 -v file=tensor.h -f strip.awk tools/assignments.tsv tensor.h
# Keeps the first `written` functions of assignment N; the body of each of the others says what to write.
FNR == NR { if ($1 == N && ++count > written && $3 == file) missing[$4]; next }
inside { if ($0 == "}") inside = 0; else next }
/^[a-z_]/ && !/;$/ { for (name in missing) if ($0 ~ "[ *]" name "[(]") found = name }
found && /[{]/ {
    inside = !/}$/
    if (!inside) sub(/[{].*/, "{")
    print
    printf "    die(\"write %s in %s: the comment above says what it does\");\n", found, file
    if (!inside) print "}"
    delete missing[found]
    found = ""
    next
}
{ print }
END { for (name in missing) { print "tools/assignments.tsv: no function " name " in " file >"/dev/stderr"; exit 1 } }
