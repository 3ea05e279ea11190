#!/bin/sh
# The first day of a team that has a search over its own articles: from two CSV files to a deployed model.
#
#   sh search_team.sh SERVE     in a folder with articles.csv, questions.csv and statuses.csv
#
# It takes two minutes of CPU time. SERVE is the team's server, a Python file: `python SERVE MODEL URL_FILE`.
set -eu
serve=$1

# Questions name articles by number. Lines that name none are left out, and listed.
embedtune data convert questions.csv --corpus articles.csv --skip-bad 3 --output articles
embedtune data check articles

# Something else that the model must not unlearn.
embedtune data convert statuses.csv --split test --output statuses

# A recipe to begin with. A third of the questions is held out, in articles-split.
embedtune init articles --guard statuses --output first.yaml
embedtune recipes check first.yaml
embedtune train first.yaml --dry-run
embedtune train first.yaml --set train.max_steps=4
embedtune report runs/first

# How small may the vectors be?
embedtune eval runs/first/model --data articles-split --sizes 384,128,64 --quantize none,int8 --output results/sizes

# A search over all articles, in int8.
embedtune index articles.csv --model runs/first/model --quantize int8 --output indexes/articles
embedtune search indexes/articles "wait until a thread ends" -k 5

# Deployed: does the server answer with the model's vectors?
embedtune export runs/first --output exported
python "$serve" exported server.url &
trap 'kill $!' EXIT
for _ in $(seq 300); do
  [ -f server.url ] || sleep 1
done
embedtune parity exported --endpoint "$(cat server.url)" --data articles-split
