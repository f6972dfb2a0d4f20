#!/usr/bin/env bash
# usage: bash tools/dist_test.sh CONFIG CHECKPOINT N [arguments of tools/test.py]
# N processes on this machine, one a GPU (or, without a GPU, on the CPU). Several machines: set NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail
[[ $# -ge 3 ]] || { sed -n 2,3p "$0"; exit 2; }
config=$1 checkpoint=$2 processes=$3
top=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$processes" "$top/tools/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
