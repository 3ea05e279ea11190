# Sourced by quickstart.sh and test.sh with the name of an extra: makes .venv in the checkout and installs embedtune
# there, editable. Needs Python 3.11 or newer and a package index; nothing is compiled. With an unchanged
# pyproject.toml and constraints.txt a second run has nothing to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python_is_right='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'
# What was installed: the two files' content, under this extra, with this interpreter's version.
stamp_of='import hashlib, pathlib, sys
files = b"".join(pathlib.Path(name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
print(sys.version, hashlib.sha256(files).hexdigest())'

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
    if "$name" -c "$python_is_right" >/dev/null 2>&1; then
      echo "$name"
      return
    fi
  done
  echo "error: no Python 3.11 to 3.14 with venv on the PATH (on Debian and Ubuntu: the package python3-venv)" >&2
  return 1
}

say_size_of_torch() {
  if .venv/bin/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then
    return
  elif [ -n "${EMBEDTUNE_TORCH_INDEX:-}" ]; then
    echo "Torch comes from EMBEDTUNE_TORCH_INDEX; a CPU build is about 200 MB to download."
  elif [ "$(uname -s)" = Linux ]; then
    echo "Torch is the large part: the usual Linux build brings CUDA and is 2 to 3 GB to download, 6 GB installed."
    echo "For a CPU build (200 MB), stop here and set EMBEDTUNE_TORCH_INDEX; the README says how."
  else
    echo "Torch is the large part: about 100 to 200 MB to download."
  fi
}

install_extra() {
  local extra=$1 python
  python=$(find_python)
  if ! .venv/bin/python -c "$python_is_right" >/dev/null 2>&1; then
    echo "Making .venv with $("$python" --version) ..."
    "$python" -m venv --clear .venv
  fi
  local stamp=".venv/installed-$extra"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(.venv/bin/python -c "$stamp_of")" ]; then
    return
  fi
  echo "Installing embedtune[$extra] and what it needs into .venv ..."
  say_size_of_torch
  local pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt)
  if [ -n "${EMBEDTUNE_TORCH_INDEX:-}" ]; then
    "${pip[@]}" --no-deps --index-url "$EMBEDTUNE_TORCH_INDEX" torch
  fi
  "${pip[@]}" --editable ".[$extra]"
  .venv/bin/python -c "$stamp_of" >"$stamp"
}
