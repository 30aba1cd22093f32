# Prints a source with some of its functions taken from another folder, and the bodies of others removed:
#   awk -F '\t' -v file=tensor.h -v N=5 -v written=0 -v from=THEIRS -v first=1 -v last=4 \
#       -v graded=5 -f functions.awk tools/assignments.tsv tensor.h
# Of assignment N the first `written` functions stay; the bodies of its others, and of all later assignments, are
# removed; of a body that begins with "if (!X.rows) return" that line stays: what is done without X. The functions of the
# assignments first .. last are those of THEIRS/tensor.h; what is not there stays, or, with complete=1, loses its body. A
# function ends with a line that is only "}". With graded=5 the tables of checks keep those of assignment 5 alone: what
# only others use is not compiled then.
function begins(line,   name) { # the function of the table that begins here
    if (line ~ /^[a-z_]/ && line !~ /;$/)
        for (name in number) if (line ~ "[ *]" name "[(]") return name
    return ""
}
function collect(line) { # a line of a function; true: it was the last one
    if (whole == "") head = guard = opened = ""
    if (whole == head && line ~ /^    if [(]![^ ]*[.]rows[)] return/) guard = line "\n"
    whole = whole line "\n"
    if (opened) return line == "}"
    head = head line "\n"
    opened = line ~ /[{]/
    return opened && line ~ /[}]$/
}
function read_theirs(   line, name) {
    while ((getline line <(from "/" file)) > 0) {
        sub(/\r$/, "", line)
        if (name == "") name = begins(line)
        if (name == "") continue
        if (line ~ /^[ \t]*#/ && line !~ /#[ \t]*pragma/) macro[name] # would reach beyond the function
        if (collect(line)) { theirs[name] = whole; name = whole = "" }
    }
    whole = ""
}
function without_body(message) {
    sub(/[{][^\n]*\n$/, "{\n", head)
    return head guard "    die(\"" message "\");\n}\n"
}
function result(name) {
    if (number[name] > N) return without_body(name " in " file " belongs to assignment " number[name])
    if (number[name] == N && place[name] > written)
        return without_body("write " name " in " file ": the comment above says what it does")
    if (from == "" || number[name] < first || number[name] > last) return whole
    if (name in macro) return without_body(name " in " file ": preprocessor lines are not allowed in it")
    if (name in theirs) return theirs[name]
    return complete ? without_body(name " is missing in " file) : whole
}
FNR == NR {
    if (FNR > 1) ++count[$1]
    if ($3 == file) { number[$4] = $1; place[$4] = count[$1]; missing[$4] }
    checks = $1 == graded ? split($5, check, ", ") : 0
    for (i = 1; i <= checks; i++) { sub(/^[a-z]+ /, "", check[i]); kept[check[i]] }
    next
}
FNR == 1 && from != "" { read_theirs() }
/checks\[\] = [{]$/ { in_checks = graded }
/^}/ && !/[{]$/ { in_checks = 0 }
in_checks && /^    [{]"/ { split($0, part, "\""); if (!(part[2] in kept)) next }
name == "" { name = begins($0) }
name == "" { print; next }
collect($0) { printf "%s", result(name); delete missing[name]; name = whole = "" }
END { for (name in missing) { print "tools/assignments.tsv: no function " name " in " file >"/dev/stderr"; exit 1 } }
