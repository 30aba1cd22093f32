#!/bin/sh
# One encoder for many relations (NOTES.md): relations are held out, the encoder is trained on the others, and then meets
# a few examples of each one that was held out. Prints a table of P@1 on test. `make multi`; with gnuplot also the figure.
# What is measured stays in $OUT; what is there already is not measured again. About twenty minutes on a quiet core.
#
# The settings, for another model and other data (NOTES.md has LAMA's):
#   MODEL, DATA, VOCAB   a model, a folder as for `ptune table`, the file of allowed answers (empty: all words)
#   HELD                 the relations that are held out together, with commas; the groups with spaces between them
#   SHARED               the relations that the encoder is trained on (empty: all but those that are held out)
#   SIZES                training examples and epochs; `all` examples, too
#   WAYS                 which runs, with the rate of each
#   SHARED_RUN           options of the encoder's own training
set -eu
export LC_ALL=C
MODEL=${MODEL:-data/bert} DATA=${DATA:-data} VOCAB=${VOCAB:-} OUT=${OUT:-build/multi} SEEDS=${SEEDS:-34 35 36}
SHARED=${SHARED:-} SIZES=${SIZES:-8:80 16:40 32:20 all:8} SHARED_RUN=${SHARED_RUN:---lr 5e-3 --epochs 8}
WAYS=${WAYS:-scratch:5e-3 frozen:5e-2 trained:2e-3 shuffled-frozen:5e-2 shuffled-trained:2e-3}
names() { sed 's/.*"relation": *"\([^"]*\)".*/\1/' "$DATA/relations.jsonl"; }
folder() { if test -e "$DATA/relations/$1"; then echo "$DATA/relations/$1"; else echo "$DATA/$1"; fi; }
every_fifth() { names | awk -v first=$1 'NR % 5 == first' | paste -sd , -; }
HELD=${HELD:-$(for first in 1 2 3 4 0; do every_fifth $first; done)}
answers=${VOCAB:+--vocab $VOCAB}
ptune() { ./ptune "$@" --model "$MODEL" $answers; }
measured() { # file, command: its output, unless that is there
    test -e "$1" && return
    file=$1
    shift
    "$@" >"$file.part" || exit 1
    mv "$file.part" "$file"
}

# The answers of a file dealt out anew among its examples: what is left to learn is what an answer looks like.
shuffled() {
    awk -v state=$1 '
    function random(n) { state = (1103 * state + 12345) % 65536; return int(state / 16) % n }
    {
        match($0, /"obj_label": *"[^"]*"/)
        before[NR] = substr($0, 1, RSTART - 1)
        answer[NR] = substr($0, RSTART, RLENGTH)
        after[NR] = substr($0, RSTART + RLENGTH)
    }
    END {
        for (i = NR; i > 1; i--) {
            j = 1 + random(i)
            keep = answer[i]
            answer[i] = answer[j]
            answer[j] = keep
        }
        for (i = 1; i <= NR; i++) print before[i] answer[i] after[i]
    }'
}
# The data with shuffled answers in train and dev, and with few examples in train.
mkdir -p "$OUT"
for world in shuffled $SIZES; do
    world=${world%:*} data=$OUT/data-${world%:*}
    test -e "$data/relations.jsonl" && continue
    for relation in $(names); do
        from=$(folder $relation)
        test -e "$from/train.jsonl" || continue
        mkdir -p "$data/$relation"
        cp "$from/train.jsonl" "$from/dev.jsonl" "$from/test.jsonl" "$data/$relation"
        for split in train dev; do
            case $world in
            shuffled) shuffled 34 <"$from/$split.jsonl" >"$data/$relation/$split.jsonl" ;;
            all) ;;
            *) head -n $world "$from/train.jsonl" >"$data/$relation/train.jsonl" ;;
            esac
        done
    done
    cp "$DATA/relations.jsonl" "$data"
done

# $1 examples for $2 epochs of relation $3, way $4 with rate $5, seed $6, after the encoders that were trained without $7.
run() {
    from=
    case $4 in
    shuffled-*) from="--encoder-from $OUT/encoder-shuffled.$7.$6/encoder.safetensors" ;;
    frozen | trained) from="--encoder-from $OUT/encoder.$7.$6/encoder.safetensors" ;;
    esac
    case $4 in *frozen) from="$from --freeze-encoder" ;; esac
    measured "$OUT/$3.$1.$4.$5.$6.txt" \
        ptune train --data "$OUT/data-$1/$3" --epochs $2 --patience 1000 --lr $5 --seed $6 $from
}
for held in $HELD; do
    others=${SHARED:-$(names | awk -v held=",$held," '!index(held, "," $0 ",")' | paste -sd , -)}
    for seed in $SEEDS; do
        measured "$OUT/encoder.$held.$seed.txt" ptune multi --data "$DATA" --relations $others $SHARED_RUN \
            --seed $seed --out "$OUT/encoder.$held.$seed"
        case $WAYS in *shuffled*)
            measured "$OUT/encoder-shuffled.$held.$seed.txt" ptune multi --data "$OUT/data-shuffled" \
                --relations $others $SHARED_RUN --seed $seed --out "$OUT/encoder-shuffled.$held.$seed" ;;
        esac
        rm -f "$OUT"/encoder*/checkpoint.safetensors
    done
    for size in $SIZES; do
        measured "$OUT/$held.${size%:*}.txt" ptune table --data "$OUT/data-${size%:*}" --relations $held --methods majority,manual
        for relation in $(echo $held | tr , ' '); do
            for way in $WAYS; do
                for seed in $SEEDS; do run ${size%:*} ${size#*:} $relation ${way%:*} ${way#*:} $seed $held; done
            done
        done
    done
done

# One line for each run: size, way, seed, P@1 on dev of the epoch that is kept, P@1 on test.
for size in $SIZES; do
    for held in $HELD; do
        awk -v size=${size%:*} 'NF > 4 && $2 ~ /^[0-9]+$/ {
            print size, "majority", 0, 0, $4
            print size, "manual", 0, 0, $5
        }' "$OUT/$held.${size%:*}.txt"
        for relation in $(echo $held | tr , ' '); do
            for way in $WAYS; do
                for seed in $SEEDS; do
                    awk -v run="${size%:*} ${way%:*} $seed" '/ \*/ { sub(/.*dev P@1 /, ""); dev = $1 }
                        /^P@1/ { print run, dev + 0, $2 }' "$OUT/$relation.${size%:*}.${way%:*}.${way#*:}.$seed.txt"
                done
            done
        done
    done
done >"$OUT/runs.txt"

# Means over the relations; of these, mean and standard deviation over the seeds: size, way, test, deviation, dev.
awk '{
        key = $1 " " $2
        if (!(key in seeds)) order[++keys] = key
        if (!((key, $3) in runs)) seed[key, ++seeds[key]] = $3
        runs[key, $3]++
        dev[key, $3] += $4
        test[key, $3] += $5
    }
    END {
        for (k = 1; k <= keys; k++) {
            key = order[k]
            mean = square = kept = 0
            for (s = 1; s <= seeds[key]; s++) {
                at = key SUBSEP seed[key, s]
                mean += test[at] / runs[at] / seeds[key]
                kept += dev[at] / runs[at] / seeds[key]
            }
            for (s = 1; s <= seeds[key]; s++) {
                at = key SUBSEP seed[key, s]
                square += (test[at] / runs[at] - mean) ^ 2
            }
            print key, mean, sqrt(square / (seeds[key] > 1 ? seeds[key] - 1 : 1)), kept
        }
    }' "$OUT/runs.txt" >"$OUT/means.txt"

# A line for each way, a column for each size: P@1 on test, or (column 5) on dev.
table() {
    awk -v what="$1" -v column=$2 '{
            if (!($2 in cells)) way[++ways] = $2
            if (!($1 in known)) size[++sizes] = $1
            known[$1]
            cells[$2] = cells[$2] sprintf("%16s", sprintf(column == 3 && $4 > 0 ? "%.1f +- %.1f" : "%.1f", $column, $4))
        }
        END {
            printf "%-18s", what
            for (s = 1; s <= sizes; s++) printf "%16s", size[s]
            print ""
            for (w = 1; w <= ways; w++) printf "%-18s%s\n", way[w], cells[way[w]]
        }'
}
table "P@1 on test" 3 <"$OUT/means.txt"
echo
awk '$3 && $5' "$OUT/means.txt" | table "P@1 on dev" 5

# The figure of the small world's table, without the frozen encoder that learned from shuffled answers: it is far below.
test "$OUT" = build/multi && command -v gnuplot >/dev/null || exit 0
for way in manual scratch frozen trained shuffled-trained; do
    awk -v way=$way '$2 == way { print; count++ } END { if (count) print "\n" }' "$OUT/means.txt"
done >"$OUT/curves.txt"
gnuplot -e "set terminal svg noenhanced size 800,380 background 'white' font 'sans-serif,13'; \
    set output 'data/figures/multi.svg'; set border 3; set tics nomirror; set key outside right; \
    set xrange [-0.2:3.2]; set yrange [45:100]; set xlabel 'training examples of the new relation'; \
    set ylabel 'P@1, average of the relations held out'; titles = \"'manual prompt' 'from scratch' \
    'shared, frozen' 'shared, trained' 'shuffled, trained'\"; \
    plot for [k=0:4] '$OUT/curves.txt' index k using 0:3:4:xticlabels(1) with yerrorlines linetype k + 1 title word(titles, k + 1)"
