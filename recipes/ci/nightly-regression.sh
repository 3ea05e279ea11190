#!/bin/sh
# Trains by a recipe with today's code and versions, and fails where the result is worse than that of a known good run.
#
#   embedtune recipes copy ci/nightly-regression.sh
#   sh nightly-regression.sh RECIPE BASELINE [OUTPUT]
#
# Needs: embedtune, with its extra `plots` for the report.
#
# RECIPE     the recipe to train by; it must name datasets to evaluate on
# BASELINE   the folder of the known good run, kept between nights. If it is absent, this night's run becomes it.
# OUTPUT     this night's run, replaced if it is there; runs/nightly if not given
#
# Environment: EMBEDTUNE   the command, where it is not `embedtune`, as .venv/bin/embedtune
#              MEASURE     the measure that is compared; nDCG@10 if not given
#              TOLERANCE   how much lower it may be on any dataset; 0.005 if not given. The same recipe and seed give
#                          the same weights on the same machine, so 0 is right where nothing is meant to change.
#
# Exit code: 0 not worse (or the first night); 1 worse on a dataset, which is named; 2 bad input, as datasets that
# changed since; other codes are embedtune's own.
# OUTPUT-against-baseline.html, beside OUTPUT, shows both runs side by side, with the queries that changed most.
#
# Time: the recipe's own and some ten seconds. A small one is enough to notice a change: recipes/text/quickstart.yaml
# with 8 steps (train.max_steps), measured on 922 prose documents alone (it has 500 now), took 50 CPU seconds a night on one thread.
set -eu

if [ $# -lt 2 ]; then
  echo "usage: nightly-regression.sh RECIPE BASELINE [OUTPUT]" >&2
  exit 2
fi
embedtune=${EMBEDTUNE:-embedtune}
measure=${MEASURE:-nDCG@10}
recipe=$1
baseline=$2
output=${3:-runs/nightly}

code=0
"$embedtune" train "$recipe" --output "$output" --overwrite || code=$?
# A missed guard (1) is not an error here: the comparison with the baseline decides.
if [ "$code" -gt 1 ]; then
  exit "$code"
fi

if [ ! -d "$output/evaluation" ]; then
  echo "error: $recipe names no dataset to evaluate on (evaluate.in_domain, evaluate.out_of_domain)" >&2
  exit 2
fi

if [ ! -e "$baseline" ]; then
  # Later nights are compared with evaluations, recipe and log; weights and checkpoints need not be kept.
  rm -rf "$baseline.partial"
  mkdir -p "$baseline.partial"
  for part in recipe.yaml environment.json summary.json log.jsonl evaluation evaluation-base evaluation-bm25; do
    if [ -e "$output/$part" ]; then
      cp -R "$output/$part" "$baseline.partial/"
    fi
  done
  mv "$baseline.partial" "$baseline"
  echo "No baseline yet: this run's results are kept in $baseline" >&2
  exit 0
fi

# Without a report the comparison decides all the same.
"$embedtune" report "$baseline" "$output" --output "$output-against-baseline.html" --overwrite || true
exec "$embedtune" compare "$baseline" "$output" --measures "$measure" --changes 0 \
  --fail-if "$measure < baseline - ${TOLERANCE:-0.005}"
