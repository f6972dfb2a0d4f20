#!/usr/bin/env bash
# usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] bash tools/slurm_train.sh PARTITION JOB CONFIG [arguments of tools/train.py]
set -euo pipefail
[[ $# -ge 3 ]] || { sed -n 2p "$0"; exit 2; }
partition=$1 job=$2 config=$3
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
(( per_node <= gpus )) || per_node=$gpus
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck disable=SC2086  # SRUN_ARGS is several words
PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" \
  --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$top/tools/train.py" "$config" --launcher slurm "${@:4}"
