#!/usr/bin/env bash
# usage: bash tools/gpu_check.sh [--device cuda|cpu] [--out FOLDER] [--minutes 20] [--parts NAME...]
# Everything that a GPU is needed for, in one command: what runs there, in which precision, how exactly, how fast. A part that fails
# or runs out of its time ends alone. FOLDER (default work_dirs/gpu_check) gets a log a part, the benchmarks' rows as JSON, and summary.md.
# Parts: device values steps speed memory operators training channels_last compiled float32 tests comparison. With --device cpu,
# all at small sizes.
# Where torch and mmengine can be imported that Python is used as it is (PYTHON names it); otherwise a virtual environment is made.
# Exit status 0 only if nothing failed; a part that the time did not suffice for has not failed.
set -uo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
device=cuda out=$top/work_dirs/gpu_check minutes=20
all=(device values steps speed memory operators training channels_last compiled float32 tests comparison)
parts=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --device) device=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --parts) shift; while [[ $# -gt 0 && $1 != --* ]]; do parts+=("$1"); shift; done ;;
    *) sed -n 2,7p "$0"; exit 2 ;;
  esac
done
[[ $device =~ ^(cuda|cpu)$ && $minutes =~ ^[0-9]+$ ]] || { sed -n 2,7p "$0"; exit 2; }
[[ ${#parts[@]} -gt 0 ]] || parts=("${all[@]}")
for name in "${parts[@]}"; do
  [[ " ${all[*]} " == *" $name "* ]] || { echo "no part '$name'; there are ${all[*]}" >&2; exit 2; }
done
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$top"
python=${PYTHON:-python}
if ! "$python" -c 'import torch, mmengine' 2> /dev/null; then
  source tools/env.sh || exit 1
  python=python
fi
export PYTHON=$python PYTHONPATH=$top${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
[[ $device == cuda ]] || export CUDA_VISIBLE_DEVICES=
ends=$((SECONDS + 60 * minutes)) failed=0
rows=()

# part NAME MOST_SECONDS COMMAND...
part() {
  local name=$1 most=$2 began=$SECONDS left=$((ends - SECONDS)) status result
  shift 2
  [[ " ${parts[*]} " == *" $name "* ]] || return 0
  [[ $most -lt $left ]] || most=$left
  if [[ $left -lt 5 ]]; then
    rows+=("| $name | not begun: no time was left | |")
    return 0
  fi
  echo "$name ..."
  timeout --kill-after=10 "$most" "$@" > "$out/$name.log" 2>&1
  status=$?
  result=passed
  if [[ $status == 124 || $status == 137 ]]; then
    result="out of its $most s"
  elif [[ $status != 0 ]]; then
    result="FAILED, exit status $status: $(grep -v '^ *$' "$out/$name.log" | tail -n 1 | cut -c 1-160)"
    failed=$((failed + 1))
  fi
  echo "$name: $result ($((SECONDS - began)) s)"
  rows+=("| $name | $result | $((SECONDS - began)) |")
}

versions() {
  if [[ $device == cuda ]]; then nvidia-smi || return 1; else lscpu | head -n 20; fi
  "$python" - "$device" << 'PY'
import importlib
import platform
import sys

import torch
print(platform.platform(), 'Python', platform.python_version())
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'numpy'):
    print(name, importlib.import_module(name).__version__)
if sys.argv[1] == 'cuda':
    print(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), 'CUDA', torch.version.cuda)
PY
}

# sizes PAIR: a flagship pair at the size that it is trained at, or a small pair for the CPU
sizes() {
  if [[ $device == cpu ]]; then echo "--pairs $1 --config configs/mini/cls_resnet_to_mixer.py --image 64 64 --batch 2"; return; fi
  case $1 in
    cls) echo "--pairs cls --image 224 224 --batch 128" ;;
    det) echo "--pairs det --image 800 1333 --batch 2" ;;
    seg) echo "--pairs seg --image 512 512 --batch 4" ;;
  esac
}
# each_pair SCRIPT LABEL [arguments of a benchmark]
each_pair() {
  local script=$1 label=$2 pair status=0
  shift 2
  for pair in $([[ $device == cpu ]] && echo cls || echo cls det seg); do
    # shellcheck disable=SC2046
    "$python" "tools/benchmarks/$script.py" --device "$device" $(sizes "$pair") --json "$out/$label.$pair.json" "$@" || status=1
  done
  return $status
}
train_one() {
  "$python" tools/make_digits_wild.py cls && bash tools/dist_train.sh configs/mini/cls_resnet_to_mixer.py 1 --work-dir "$out/training" --amp \
    --cfg-options train_cfg.max_epochs=2 param_scheduler.1.end=2 param_scheduler.1.T_max=1
}
compare() {
  "$python" tools/make_digits_wild.py cls && "$python" tools/compare.py --pairs resnet_to_mixer --methods alone kd sfkd \
    --seeds $([[ $device == cpu ]] && echo 0 || echo 0 1 2 3 4) $([[ $device == cpu ]] && echo --epochs 2) --results "$out/comparison.jsonl"
}
export -f versions sizes each_pair train_one compare
export device out python
rounds=$([[ $device == cpu ]] && echo 1 || echo 15)
few=$([[ $device == cpu ]] && echo '--shapes 2,8,9,12' || true)
tests=(tests/ops tests/distillation tests/losses tests/connectors)
[[ $device == cuda ]] || tests=(tests/ops)

part device 60 bash -c versions
part values 120 "$python" tools/benchmarks/check_values.py --device "$device" --json "$out/values.json"
part steps 180 "$python" tools/benchmarks/check_steps.py --device "$device" --json "$out/steps.json"
part speed 240 bash -c "each_pair bench_step speed --amp --repeats $rounds"
part memory 120 bash -c "each_pair bench_memory memory --amp"
# shellcheck disable=SC2086
part operators 120 "$python" tools/benchmarks/bench_ops.py --device "$device" --repeats "$rounds" $few --json "$out/operators.json"
part training 180 bash -c train_one
part channels_last 240 bash -c "each_pair bench_step channels_last --amp --channels-last --repeats $rounds"
part compiled 240 bash -c "each_pair bench_step compiled --amp --compile --teacher-compile --repeats $rounds"
part float32 180 bash -c "each_pair bench_step float32 --repeats $rounds"
part tests 300 "$python" -m pytest -q "${tests[@]}"
part comparison 600 bash -c compare

{
  echo "# gpu_check: $device, $(date -u +%F), commit $(git rev-parse --short HEAD 2> /dev/null || echo unknown)"
  printf '\n| part | result | seconds |\n|---|---|---|\n'
  printf '%s\n' "${rows[@]}"
  for log in "${parts[@]}"; do
    [[ $log =~ ^(values|steps|speed|memory|operators|channels_last|compiled|float32|comparison)$ && -f $out/$log.log ]] || continue
    printf '\n## %s\n\n' "$log"
    grep -E '^\||thread|rounds;|within|right' "$out/$log.log"
  done
} > "$out/summary.md"
printf '%s\n' "${rows[@]}"
echo "all of it: $out/summary.md"
[[ $failed == 0 ]]
