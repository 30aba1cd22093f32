# Writes the handout of an assignment:  awk -F '\t' -v N=5 -v variant=0 -f handout.awk tools/assignments.tsv handouts.md
# The paragraphs under "# 5" begin with the name of an item and a colon.
function finish(   at, item) {
    at = index(text, ": ")
    item = substr(text, 1, at - 1)
    text = substr(text, at + 2)
    if (item == "goal") goal = text
    else if (item == "hint") hint[++hints] = text
    else if (item == "question") questions = questions (++asked) ". " text
    else if (item ~ /^variant / && item != "variant " variant) text = ""
    else if (item ~ /^variant /) different = "**Variant " variant ".** " text
    else if (at) { sub(/\n$/, "", text); facts = facts "| " item " | " text " |\n" }
    text = ""
}
FNR == NR {
    if ($1 == N) { title = $2; list = list "- `" $4 "` in " $3 "\n" }
    next
}
/^# / { finish(); here = $0 == "# " N; next }
here && $0 == "" { finish() }
here && $0 != "" { text = text $0 "\n" }
END {
    finish()
    print "# Assignment " N ": " title "\n\n" goal "\n" different (different ? "\n" : "") "| | |\n|---|---|\n" facts
    print "Write, in this order; the comment above each says what it does:\n\n" list
    print "The section named is one of NOTES.md. `make` names the next function or shows what is wrong with it; `make"
    print "grade` gives points. Stay inside the bodies of these functions: nothing else is graded, and in them no line may"
    print "begin with `#` but a pragma. If a case fails, its lines say what was frozen and how large it was.\n"
    print "## Pen and paper\n\n" questions
    print "## Hints" (different ? ", for the usual form" : "") "\n"
    for (i = 1; i <= hints; i++) print "<details><summary>Hint " i "</summary>\n\n" hint[i]
    for (i = 1; i <= hints; i++) print "</details>"
}
