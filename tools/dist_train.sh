#!/usr/bin/env bash
# usage: bash tools/dist_train.sh CONFIG N [arguments of tools/train.py]
# N processes on this machine, one a GPU (or, without a GPU, on the CPU). Several machines: set NNODES, NODE_RANK, MASTER_ADDR, PORT.
# MAX_RESTARTS=3: a run whose processes die goes on from its newest checkpoint, up to three times.
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n 2,3p "$0"; exit 2; }
config=$1 processes=$2
top=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --max_restarts="${MAX_RESTARTS:-0}" --nproc_per_node="$processes" "$top/tools/train.py" "$config" --launcher pytorch "${@:3}"
