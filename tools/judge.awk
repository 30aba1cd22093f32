# Did the checks find the mistake?  awk -F '\t' -f judge.awk MISTAKE OUTPUT
# MISTAKE is a line of tools/mutants.tsv. OUTPUT is what ./test-double gradcheck printed, then, for each `values NAME`
# in the line, what ./test-double values NAME printed, with `values` before the name. The checks that the line names
# must fail, and no other gradient check of a single layer may. Where elements of a gradient are wrong, the Taylor slope
# must be near 1, unless an element is NaN (its error is infinite). A crash fails the check that ran.
BEGIN {
    split("linear,residual,layernorm,gelu,relu,tanh,softmax,cross-entropy,rows,attention,prefix,embeddings,embed," \
          "lstm,lstm reverse", layers, ",")
    for (i in layers) alone[layers[i]]
}
FNR == NR { count = split($1, expected, ", "); mistake = $1 ": " $3; next }
/^FAIL/ {
    slope = match($0, /slope .*/) && !/relative error inf/ ? substr($0, RSTART + 6) : 1
    sub(/^FAIL +/, "")
    if (match($0, /^values [^ ]+/)) $0 = substr($0, 1, RLENGTH)
    else sub(/ +([0-9]+ (elements|runs)|the gradient|crashes).*/, "")
    if (!($0 in failed) || failed[$0] == 1) failed[$0] = slope
}
END {
    verdict = "killed"
    for (i = 1; i <= count; i++) {
        if (!(expected[i] in failed)) verdict = "SURVIVED"
        else if (failed[expected[i]] < 0.5 || failed[expected[i]] > 1.5) verdict = "WRONG SLOPE"
        delete failed[expected[i]]
    }
    for (name in failed)
        if (verdict == "killed" && name in alone) verdict = "WRONG CHECK (" name ")"
    print verdict "  " mistake
}
