#!/usr/bin/env bash
# Installs embedtune with its test tools into .venv, then lints, checks types and runs the tests.
# Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
install_extra test
export HF_HUB_OFFLINE=1 # no test needs a network; one that tries fails at once

echo "Linting ..."
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "Checking types ..."
.venv/bin/mypy
echo "Running the tests (some minutes) ..."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the processes share the cores; threads on top of them only wait
exec .venv/bin/pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"
