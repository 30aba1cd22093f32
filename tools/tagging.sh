# Tagging in the small world: the facts in phrasings that BERT has never read (prompts.txt), as CoNLL files in build/tagging,
# and four ways to train a tagger on them, at the rates that were the best on dev (NOTES.md). `sh tools/tagging.sh SEED`
seed=${1:-34} out=build/tagging
mkdir -p $out
for set in train dev test; do awk -v set=$set -f tools/conll.awk >$out/$set.conll || exit 1; done
try() {
    name=$1
    shift
    ./ptune tag --model data/bert --data $out --seed $seed "$@" >$out/log || exit 1
    awk -v name="$name" '/\*$/ { dev = $6 } END { printf "%-28s dev F1 %s, test %s\n", name, dev, $0 }' $out/log
}
try 'the head alone' --lr 2e-2
try 'P-tuning, 20 in front' --lr 2e-2 --pseudo 20
try 'P-tuning v2, 20 in each layer' --lr 6e-2 --deep 20
try 'fine-tuning' --lr 1e-3 --tune-lm
