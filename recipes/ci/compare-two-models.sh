#!/bin/sh
# Measures two models on the same datasets and fails where the second is worse than the first by more than a tolerance.
#
#   embedtune recipes copy ci/compare-two-models.sh
#   sh compare-two-models.sh BASELINE MODEL OUTPUT DATA [DATA ...]
#
# BASELINE, MODEL  model folders, or ids on the Hugging Face hub (with @revision)
# OUTPUT           a folder for the results: OUTPUT/baseline/ and OUTPUT/model/; earlier ones in it are replaced
# DATA             dataset folders, each DIR or DIR:split
#
# Environment: EMBEDTUNE   the command, where it is not `embedtune`, as .venv/bin/embedtune
#              MEASURE     the measure that decides; nDCG@10 if not given
#              TOLERANCE   how much lower it may be on any dataset; 0.01 if not given
#
# Exit code: 0 not worse; 1 worse on a dataset, which is named; 2 bad input; other codes are embedtune's own.
# The table on stdout has the paired tests: a drop within the tolerance may still be a real one, and the other way round.
#
# Time: encoding the data with both models. Two models of all-MiniLM-L6-v2's size on 922 prose documents
# (the quickstart has 500) took 46 CPU seconds on one thread, and 19 where the embeddings were in the cache already.
set -eu

if [ $# -lt 4 ]; then
  echo "usage: compare-two-models.sh BASELINE MODEL OUTPUT DATA [DATA ...]" >&2
  exit 2
fi
embedtune=${EMBEDTUNE:-embedtune}
measure=${MEASURE:-nDCG@10}
baseline=$1
model=$2
output=$3
shift 3

# DATA becomes --data DATA: each is taken from the front and put back at the end.
for data in "$@"; do
  shift
  set -- "$@" --data "$data"
done

"$embedtune" eval "$baseline" "$@" --output "$output/baseline" --overwrite >&2
"$embedtune" eval "$model" "$@" --output "$output/model" --overwrite >&2
exec "$embedtune" compare "$output/baseline" "$output/model" --fail-if "$measure < baseline - ${TOLERANCE:-0.01}"
