#!/usr/bin/env bash
# Installs embedtune into .venv and runs its quickstart. Arguments go to `embedtune quickstart`. With --images it uses
# pictures, and installs the packages for that.
extra=quickstart
for argument in "$@"; do
  if [ "$argument" = --images ]; then extra=images; fi
done
source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
install_extra "$extra"
echo "Running embedtune quickstart (some minutes on two cores) ..."
.venv/bin/embedtune quickstart "$@"
echo "For these commands, first: source $PWD/.venv/bin/activate"
