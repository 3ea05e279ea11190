#!/usr/bin/env bash
# Installs embedtune into .venv and runs its quickstart. Arguments go to `embedtune quickstart`.
source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
install_extra quickstart
echo "Running embedtune quickstart (some five minutes on two cores) ..."
.venv/bin/embedtune quickstart "$@"
echo "For these commands, first: source $PWD/.venv/bin/activate"
