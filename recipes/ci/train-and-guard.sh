#!/bin/sh
# Trains by a recipe and fails where a foreign dataset loses more than the recipe's guard allows.
#
#   embedtune recipes copy ci/train-and-guard.sh
#   sh train-and-guard.sh RECIPE [OUTPUT] [KEY=VALUE ...]
#
# Needs: embedtune, with its extra `plots` for the report.
#
# RECIPE     a recipe with evaluate.out_of_domain and evaluate.guard, such as {largest_drop: 0.01}
# OUTPUT     the run folder; runs/ and the recipe's name if not given. A run that was killed in it goes on.
# KEY=VALUE  changes to the recipe, as `embedtune train --set` takes them
#
# Environment: EMBEDTUNE   the command, where it is not `embedtune`, as .venv/bin/embedtune
#              SUMMARY     a file that the report is added to in Markdown, as $GITHUB_STEP_SUMMARY
#
# Exit code: 0 trained and within the budget; 1 trained, and a guarded set lost more than it may; 2 bad input, nothing
# trained; 3 trained and within the budget, but there is no report; other codes are embedtune's own (130: interrupted,
# with the state saved). OUTPUT/report.html is written in the first two cases: keep it as the job's artifact.
#
# Time: the recipe's own and some ten seconds for the report. recipes/text/quickstart.yaml takes some 2 CPU minutes.
set -eu

if [ $# -lt 1 ]; then
  echo "usage: train-and-guard.sh RECIPE [OUTPUT] [KEY=VALUE ...]" >&2
  exit 2
fi
embedtune=${EMBEDTUNE:-embedtune}
recipe=$1
output=${2:-runs/$(basename "$recipe" .yaml)}
if [ $# -ge 2 ]; then shift 2; else shift; fi

# KEY=VALUE becomes --set KEY=VALUE: each is taken from the front and put back at the end.
for change in "$@"; do
  shift
  set -- "$@" --set "$change"
done

"$embedtune" recipes check "$recipe" "$@"
code=0
"$embedtune" train "$recipe" --output "$output" --resume "$@" || code=$?

# After a missed guard the report says what it cost. A run that stopped earlier has nothing to report.
if [ "$code" -le 1 ]; then
  missing=
  "$embedtune" report "$output" || missing=report
  if [ -n "${SUMMARY:-}" ]; then
    "$embedtune" report "$output" --format md >>"$SUMMARY" || missing=summary
  fi
  if [ "$code" -eq 0 ] && [ -n "$missing" ]; then code=3; fi
fi
exit "$code"
