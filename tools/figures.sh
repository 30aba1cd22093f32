#!/bin/sh
# The figures of NOTES.md, measured anew on the small world and drawn by gnuplot: data/figures/*.svg. `make figures`
# What is measured stays in build/figures; what is there already is not measured again. About ten minutes on two cores.
set -eu
out=build/figures
mkdir -p $out data/figures
demo() { ./ptune demo "$@"; }
draw() { # name, width, height, commands of gnuplot
    gnuplot -e "set terminal svg noenhanced size $2,$3 background 'white' font 'sans-serif,13'; \
        set output 'data/figures/$1.svg'; set border 3; set tics nomirror; $4"
}
average() { awk -v method="$1" '$1 == method && $2 ~ /^[0-9.]+$/ { print $2, ($3 == "+-" ? $4 : 0) }' "$2"; }

# One question in many phrasings: a relation's manual prompts, and P-tuning.
if ! test -e $out/prompts.tsv; then
    demo --methods manual --relations country_of_city |
        awk '/^ +[0-9.]+  [#.]+  / { p = $1; sub(/^ +[0-9.]+  [#.]+  /, ""); print $0 "\t" p }' >$out/prompts.part
    mv $out/prompts.part $out/prompts.tsv
fi
draw prompts 800 340 "set datafile separator '\t'; set xrange [0:115]; set yrange [:] reverse; set xlabel 'P@1 on the test examples'; \
    set lmargin 42; set style fill solid 0.7; unset key; set offsets 0,0,0.5,0.5; \
    plot '$out/prompts.tsv' using (\$2/2):0:(\$2/2):(0.35):(\$0 == 9 ? 2 : 1):yticlabels(1) with boxxyerror linecolor variable, \
         '' using (\$2+2):0:(sprintf('%.1f', \$2)) with labels left"

# P@1 by method: mean of three seeds over all relations.
if ! test -e $out/methods.txt; then
    demo --seeds 3 --methods majority,worst,manual,best,search,ft,best+ft,p-lstm,p-mlp,p-embedding >$out/methods.part
    mv $out/methods.part $out/methods.txt
fi
for method in majority worst manual best search ft best+ft p-lstm p-mlp p-embedding; do
    echo "$method $(average $method $out/methods.txt)"
done >$out/methods.tsv
draw methods 900 340 "set yrange [0:110]; set ylabel 'P@1, average of the relations'; set style fill solid 0.7; unset key; set boxwidth 0.6; \
    plot '$out/methods.tsv' using 0:2:(\$0 > 6 ? 2 : 1):xticlabels(1) with boxes linecolor variable, \
         '' using 0:(\$2-\$3):(0):(2*\$3) with vectors nohead linewidth 2 linecolor 'black', '' using 0:(\$2+5):(sprintf('%.1f', \$2)) with labels"

# P@1 against the number of training examples. As many steps for few examples as for all: more epochs.
for size in 8:80 16:40 32:20 80:8; do
    n=${size%:*} world=$out/world${size%:*}
    test -e $out/examples$n.txt && continue
    mkdir -p $world
    cp data/relations.jsonl $world
    for folder in data/*/; do
        test -e ${folder}pretrain.txt || continue
        mkdir -p $world/$(basename $folder)
        cp ${folder}*.jsonl ${folder}prompts.txt $world/$(basename $folder)
        head -n $n ${folder}train.jsonl >$world/$(basename $folder)/train.jsonl
    done
    demo --data $world --seeds 3 --epochs ${size#*:} --patience 1000 --methods manual,ft,p-lstm >$out/examples.part
    mv $out/examples.part $out/examples$n.txt
done
for n in 8 16 32 80; do
    echo "$n $(average manual $out/examples$n.txt) $(average ft $out/examples$n.txt) $(average p-lstm $out/examples$n.txt)"
done >$out/examples.tsv
draw examples 700 360 "set logscale x 2; set xrange [7:90]; set yrange [0:100]; set xtics (8,16,32,'at most 80' 80); set key bottom right; \
    set xlabel 'training examples per relation'; set ylabel 'P@1, average of the relations'; \
    plot '$out/examples.tsv' using 1:2 with lines title 'manual prompt', \
         '' using 1:4:5 with yerrorlines title 'fine-tuning', '' using 1:6:7 with yerrorlines title 'P-tuning'"

# Learning curves: one relation, three prompt encoders at their own rates.
for run in lstm:5e-3 mlp:8e-3 embedding:3e-2; do
    encoder=${run%:*}
    test -e $out/$encoder/result.tsv ||
        ./ptune train --model data/bert --data data/occupation --encoder $encoder --lr ${run#*:} --epochs 20 --out $out/$encoder
done
draw curves 900 340 "set multiplot layout 1,2; set xlabel 'epoch'; set key right top; set ylabel 'training loss'; \
    plot for [e in 'lstm mlp embedding'] '$out/'.e.'/log.tsv' using 2:3 with linespoints title e; \
    set key right bottom; set ylabel 'dev P@1'; \
    plot for [e in 'lstm mlp embedding'] '$out/'.e.'/log.tsv' using 2:4 with linespoints title e"

# The landscape: words beside one word of a prompt, and lines between two words and between two learned prompts.
test -e $out/landscape.tsv || { build/landscape data/capital capital city >$out/landscape.part && mv $out/landscape.part $out/landscape.tsv; }
draw landscape 900 360 "set multiplot layout 1,2; set datafile separator '\t'; set yrange [0:]; set ylabel 'loss on train'; unset key; \
    set title 'discrete: the 59 words nearest to \"capital\" in its place'; set xlabel 'distance of the two embeddings'; \
    plot '<grep ^word $out/landscape.tsv | tail -n +2' using 2:3 with impulses linecolor 1, \
         '' using 2:3 with points pointtype 7 pointsize 0.4 linecolor 1; \
    set title 'continuous: vectors on a line'; set xlabel 'from one end to the other'; set key top left; set yrange [0:8]; \
    plot '<grep ^line $out/landscape.tsv' using 2:3 with lines title 'from \"capital\" to \"city\"', \
         '<grep ^learned $out/landscape.tsv' using 2:3 with lines title 'from one learned prompt to another'"

# BERT-base on LAMA: the manual prompt and a learned one, a point a relation. The hits are in data/figures/lama.tsv.
draw lama 720 640 "set datafile separator '\t'; set xrange [-2:100]; set yrange [-2:100]; set key above; \
    set xlabel 'P@1 under the manual prompt'; set ylabel 'P@1 under the learned prompt'; \
    plot x with lines linecolor 'gray' notitle, \
         'data/figures/lama.tsv' every ::1 using (100*\$4/\$2):(100*\$3/\$2) with points pointtype 6 linecolor 2 title 'the most frequent answer', \
         '' every ::1 using (100*\$4/\$2):(100*\$3/\$2):(0):(100*(\$6-\$3)/\$2) with vectors nohead linecolor 'gray' notitle, \
         '' every ::1 using (100*\$4/\$2):(100*\$6/\$2) with points pointtype 7 linecolor 1 title 'learned, [P] start from the manual prompt', \
         '' every ::1 using (100*\$4/\$2+1.2):(100*\$6/\$2):1 with labels left font 'sans-serif,8' notitle"
