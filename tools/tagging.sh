# Tagging in the small world: its facts as CoNLL files in build/tagging, and four ways to train a tagger on them, each
# at the rate that was the best on dev (NOTES.md). A seed may follow: sh tools/tagging.sh 35
seed=${1:-34} data=build/tagging
mkdir -p $data
for set in train dev test; do awk -v set=$set -f tools/conll.awk >$data/$set.conll || exit 1; done
try() {
    method=$1
    shift
    ./ptune tag --model data/bert --data $data --seed $seed "$@" >$data/log || exit 1
    awk -v method="$method" -v options="$*" '/\*$/ { dev = $7 }
        END { printf "%-16s%7s%9s  %s\n", method, dev, $NF, options }' $data/log
}
echo 'F1              on dev  on test'
try 'head alone' --lr 2e-2
try 'P-tuning' --lr 5e-2 --pseudo 20
try 'P-tuning v2' --lr 6e-2 --deep 20
try 'fine-tuning' --lr 1e-3 --tune-lm
