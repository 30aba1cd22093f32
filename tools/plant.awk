# Plants a mistake in a source:  awk -F '\t' -f plant.awk MISTAKE SOURCE
# MISTAKE is a line of tools/mutants.tsv or tools/wrong.tsv; its text must occur in the source exactly once. In both
# texts \n is a line end.
FNR == NR { text = $4; replacement = $5; gsub(/\\n/, "\n", text); gsub(/\\n/, "\n", replacement); next }
{ source = source $0 "\n" }
END {
    at = index(source, text)
    if (!at || text == "" || index(substr(source, at + 1), text)) exit 1
    printf "%s%s%s", substr(source, 1, at - 1), replacement, substr(source, at + length(text))
}
