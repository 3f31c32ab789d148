#!/bin/bash
# Installs the Debian packages that tests with real ssh hosts, a real Slurm, users' shells and a browser need, and unpacks
# those of Grid Engine into this checkout, where that is possible and not done yet.
#
# Never an error: tests that miss a tool say so themselves. They are skipped then, or fail in CI.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wanted=()
need() {  # need PACKAGE TOOL...: the package is wanted when one of its tools is missing
    local package=$1 tool
    shift
    for tool; do
        PATH=$PATH:/usr/sbin:/sbin type -P "$tool" > /dev/null || { wanted+=("$package"); return; }
    done
}
need openssh-server sshd
need openssh-client ssh ssh-keygen
need iproute2 ip bridge
need munge munged
need slurmctld slurmctld
need slurmd slurmd
need slurm-client srun
need procps ps
need zsh zsh
need fish fish
need chromium chromium

# Not installed: that would start a Grid Engine on this machine.
grid_engine=.gridengine
if [ ! -e $grid_engine/usr/lib/gridengine/sge_qmaster ] && ((EUID == 0)) && type -P apt-get > /dev/null; then
    echo "unpacking gridengine into $grid_engine"
    packages=(gridengine-{client,common,exec,master} libjemalloc2)
    mkdir -p $grid_engine/packages
    if (cd $grid_engine/packages && { apt-get update && apt-get download "${packages[@]}"; } < /dev/null > ../log 2>&1); then
        for package in $grid_engine/packages/*.deb; do dpkg-deb -x "$package" $grid_engine; done
    else
        echo "could not get ${packages[*]}:"
        tail -n 5 $grid_engine/log
    fi
fi

((${#wanted[@]})) || exit 0
if ! type -P apt-get > /dev/null; then
    echo "not installed, and there is no apt-get to do it: ${wanted[*]}"
    exit 0
fi
if ((EUID)); then
    echo "not installed, and only root can do it: ${wanted[*]}"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing ${wanted[*]}"
if ! told=$({ apt-get update && apt-get install --yes --no-install-recommends "${wanted[@]}"; } < /dev/null 2>&1); then
    echo "could not install ${wanted[*]}:"
    tail -n 5 <<< "$told"
fi
