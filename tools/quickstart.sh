#!/usr/bin/env bash
# usage: bash tools/quickstart.sh [cls|det|seg] [--seed N]
# From a bare checkout to a table: installs, makes the data, scores the teacher, trains the student alone and with SFKD, compares.
set -euo pipefail
task=cls
if [[ $# -gt 0 && $1 != -* ]]; then task=$1; shift; fi
[[ $task =~ ^(cls|det|seg)$ ]] || { echo "no such task: $task" >&2; sed -n 2p "$0" >&2; exit 2; }
source "$(dirname "$0")/env.sh"
python tools/make_digits_wild.py "$task"
exec python tools/quickstart.py "$task" "$@"
