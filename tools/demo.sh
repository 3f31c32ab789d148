#!/bin/bash
# Runs an example task file on all cores of this machine, in demo-run/, and shows what disbatch writes down about it.
#
#   tools/demo.sh DISBATCH
set -euo pipefail

disbatch=$(realpath "$1")
example=$(realpath exampleTaskFiles/collatz.tasks)
cores=$(nproc)

rm -rf demo-run
mkdir demo-run
cd demo-run

echo "The task file, exampleTaskFiles/${example##*/}, without its comments:"
echo
grep -v -e '^# ' -e '^#$' -e '^$' "$example" | cut -c 1-150 | sed 's/^/    /'
echo
echo "In demo-run/:  disbatch -e --status-header -s localhost:$cores ../exampleTaskFiles/${example##*/}"
echo
"$disbatch" -e --status-header -s "localhost:$cores" "$example"
echo
echo "Its status file, one line a task (task, line, repeat index, node, return code, seconds, command):"
echo
cut -f 2,3,4,5,7,8,15 ./*_status.txt | cut -c 1-120 | sed 's/^/    /'
echo
echo "What the tasks left in demo-run/:"
echo
for file in ./*; do
    echo "    ${file#./}"
done
echo
echo "The result:"
echo
sed 's/^/    /' longest_chain.txt
