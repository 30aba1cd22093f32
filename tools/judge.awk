# Did the gradient checks find the mistake?  awk -F '\t' -f judge.awk MISTAKE OUTPUT
# MISTAKE is a line of tools/mutants.tsv, OUTPUT is what ./test-double gradcheck printed. The checks that the line names
# must fail, with a Taylor slope near 1, and no other check of a single layer may.
BEGIN {
    split("linear,residual,layernorm,gelu,relu,softmax,cross-entropy,rows,attention,embeddings,embed,lstm,lstm reverse",
          layers, ",")
    for (i in layers) alone[layers[i]]
}
FNR == NR { count = split($1, expected, ", "); mistake = $1 ": " $3; next }
/^FAIL/ {
    slope = match($0, /slope .*/) ? substr($0, RSTART + 6) : 1
    sub(/^FAIL +/, "")
    sub(/ +([0-9]+ elements|the gradient).*/, "")
    failed[$0] = slope
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
