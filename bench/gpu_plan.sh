#!/usr/bin/env bash
# Peak memory and time of a step against `vitrail plan`, for layouts of ViT-H, 3B and 15B on the GPUs of one host.
# usage: gpu_plan.sh BIN_DIR OUT_DIR [GPUS]   (BIN_DIR holds vitrail; GPUS: 4 unless given)
set -u
bin=$1 out=$2 gpus=${3:-4}
mkdir -p "$out"
layout() {  # name, ranks, recipe overrides ...
  local name=$1 ranks=$2
  shift 2
  local launch=()
  [ "$ranks" -gt 1 ] && launch=(mpirun --allow-run-as-root --oversubscribe --bind-to none -n "$ranks")
  "$bin/vitrail" plan recipes/bench/vit_huge.yaml "$@" --machine bench/machines/h200-8.yaml --gpus "$ranks" --json "$out/$name.plan.json" > "$out/$name.plan.txt"
  "${launch[@]}" "$bin/vitrail" bench step recipes/bench/vit_huge.yaml "$@" --steps 8 --warmup 3 --json "$out/$name.step.json" > "$out/$name.log" 2>&1
  python3 - "$name" "$out" <<'PYTHON'
import json, sys
name, out = sys.argv[1:]
try:
    plan, step = (json.load(open(f"{out}/{name}.{kind}.json")) for kind in ("plan", "step"))
except (OSError, ValueError) as error:
    print(f"{name:<28} failed: {error}; see {out}/{name}.log")
    sys.exit()
gib, ms = step["peak_memory_gib"], step["ms"]["median"]
print(f"{name:<28} GiB {gib:7.2f} plan {plan['peak_gib']:7.2f} ratio {plan['peak_gib'] / gib:5.2f}"
      f"   ms {ms:8.1f} plan {plan['ms']['step']:8.1f} ratio {plan['ms']['step'] / ms:5.2f}")
PYTHON
}
batch() { echo "data.batch_size=$((32 * $1))"; }
three=(model.preset=vit_3b train.recompute=block "$(batch "$gpus")")
fifteen=(model.preset=vit_15b train.recompute=block "$(batch "$gpus")")
layout huge_one 1 parallel.strategy=none data.batch_size=64
layout huge_one_recompute 1 parallel.strategy=none data.batch_size=64 train.recompute=block
layout huge_ddp "$gpus" parallel.strategy=ddp "$(batch "$gpus")"
layout huge_zero1 "$gpus" parallel.strategy=zero1 "$(batch "$gpus")"
layout 3b_zero2 "$gpus" parallel.strategy=zero2 "${three[@]}"
layout 3b_zero3 "$gpus" parallel.strategy=zero3 "${three[@]}"
layout 3b_hybrid_tensor "$gpus" parallel.strategy=zero3 parallel.tensor=2 "${three[@]}"
layout 15b_zero3 "$gpus" parallel.strategy=zero3 "${fifteen[@]}"
