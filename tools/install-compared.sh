#!/bin/bash
# Puts the programs that disbatch is compared with into .compared/, where that is possible and not done yet.
#
#   tools/install-compared.sh PYTHON
#
# Never an error: benchmarks leave out what is not there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
compared=.compared
mkdir -p $compared

try() {  # try WHAT COMMAND...: say why where it cannot be had
    local what=$1 told
    shift
    echo "getting $what into $compared"
    if ! told=$("$@" < /dev/null 2>&1); then
        echo "could not get $what:"
        tail -n 5 <<< "$told"
        return 1
    fi
}

unpack_parallel() {  # not installed: what it depends on is for options that nobody gives it here
    (cd $compared && apt-get update && apt-get download parallel && dpkg-deb -x parallel_*.deb parallel)
}

type -P parallel > /dev/null || [ -e $compared/parallel ] || try "GNU parallel" unpack_parallel
[ -e $compared/venv ] || "$python" -m venv $compared/venv
for package in hyperqueue hypershell; do
    [ -e $compared/$package.got ] ||
        { try $package $compared/venv/bin/python -m pip install --quiet $package && touch $compared/$package.got; }
done
exit 0
