#!/usr/bin/env bash
# usage: bash tools/run_tests.sh [pytest arguments]
# From a bare checkout to the test result. By default ruff, then all tests but those marked long; those: bash tools/run_tests.sh -m long
set -euo pipefail
source "$(dirname "$0")/env.sh"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
if [[ $# -eq 0 ]]; then
  python -m ruff check .
fi
exec python -m pytest "$@"
