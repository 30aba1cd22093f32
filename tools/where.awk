# Where the hits of a relation come from: NOTES.md, "Where the gain comes from".
#   awk -f tools/where.awk VOCAB train.jsonl MANUAL.tsv LEARNED.tsv
# The last two are what `ptune eval --predictions` has written about one test set, under two prompts. Each test example is
# counted once, in the first of these groups that it belongs to; a line has the group, its examples, the hits of the two.
#   majority   its answer is the most frequent one of train
#   inside     its answer is a word of the subject
#   subject    the subject also occurs in train
#   unseen     its answer does not occur in train: how often an answer is right cannot be learned
#   others
function member(name,   value) { # of this line's object
    if (!match($0, "\"" name "\": *\"(\\\\.|[^\"\\\\])*\"")) return ""
    value = substr($0, RSTART, RLENGTH - 1)
    sub(/^"[^"]*": *"/, "", value)
    gsub(/\\"/, "\"", value)
    return value
}
function group(subject, answer) {
    if (answer == majority) return "majority"
    gsub(/[,()]/, " ", subject)
    if (index(" " subject " ", " " answer " ")) return "inside"
    if ($1 in subjects) return "subject"
    return answer in count ? "others" : "unseen"
}
FNR == 1 { file++; if (file >= 3) { FS = "\t"; next } }
file == 1 { allowed[$0]; next }
file == 2 {
    answer = member("obj_label")
    if (!(answer in allowed)) next
    subjects[member("sub_label")]
    if (++count[answer] > most) { most = count[answer]; majority = answer }
    next
}
file == 3 { examples[group($1, $2)]++ }
$4 == 1 { hits[group($1, $2), file]++ }
END {
    names = split("majority inside subject unseen others", name, " ")
    for (i = 1; i <= names; i++)
        print name[i], examples[name[i]] + 0, hits[name[i], 3] + 0, hits[name[i], 4] + 0
}
