#!/usr/bin/env bash
# usage: bash tools/run_tests.sh [pytest arguments]
# From a bare checkout to the test result. By default ruff, then all tests but those marked long, two files at a time; those: bash tools/run_tests.sh -m long
set -euo pipefail
source "$(dirname "$0")/env.sh"
# One thread a process: where another program has a core, two wait for each other ten times as long as they compute
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [[ $# -eq 0 ]]; then
  python -m ruff check .
  set -- -n 2 --dist loadfile --no-loadscope-reorder
fi
exec python -m pytest "$@"
