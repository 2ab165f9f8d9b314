#!/usr/bin/env bash
# Makes a virtual environment, VENV or .venv, and installs the given requirements files into it.
# Does nothing when they have not changed since.
set -euo pipefail

python=${PYTHON:-python3}
venv=${VENV:-.venv}
fail() { echo "$*" >&2; exit 1; }

make_venv() {
  command -v "$python" >/dev/null ||
    fail "$python was not found: install Python 3.11 or newer, or name one: make run PYTHON=python3.11"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1). Name a newer one: make run PYTHON=python3.11"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments. Install its venv module (Debian, Ubuntu: apt install python3-venv)"
  "$python" -m venv --clear "$venv"
}

# A copy of each installed file tells what is there, so that a second call needs no pip.
installed() { "$venv/bin/python" -c "" 2>/dev/null && cmp -s "$1" "$venv/installed-$1"; }

wanted=()
for file in "$@"; do
  installed "$file" || wanted+=(-r "$file")
done
[ ${#wanted[@]} -gt 0 ] || exit 0

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv

echo "Installing into $venv: once, some minutes ..." >&2
quiet=--quiet
[ -t 1 ] && quiet=--progress-bar=on
"$venv/bin/python" -m pip install $quiet --disable-pip-version-check --no-cache-dir --no-input "${wanted[@]}"
for file in "$@"; do
  cp "$file" "$venv/installed-$file"
done
