#!/bin/bash
# Makes the virtual environment in which this checkout is developed and tested, or brings it up to date.
#
#   tools/make-venv.sh DIRECTORY [PYTHON]
#
# PYTHON must be 3.10 or later; without it, python3 is taken.
set -euo pipefail

directory=$1
python=${2:-python3}

stop() {
    echo "make-venv: $1" >&2
    exit 1
}

# Run, not only looked up: a shim on PATH may stand for a Python that is not there.
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null ||
    stop "$python is not Python 3.10 or later; name one that is: make PYTHON=/path/to/python3.12"
"$python" -c 'import ensurepip, venv' 2> /dev/null ||
    stop "$python cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)"

# --clear: an environment of another Python, or one half made, is not built upon.
"$python" -m venv --clear "$directory"
# 25.1 is the first pip that reads dependency groups.
"$directory/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
"$directory/bin/python" -m pip install --quiet --editable . --group test --group lint --group build
