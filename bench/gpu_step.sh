#!/usr/bin/env bash
# One GPU: whole training steps beside their kernel ceiling and beside what else there is, model by model in one run, because
# the card's clock follows its power and only times of the same minutes compare.
# usage: gpu_step.sh BIN_DIR OUT_DIR [PART ...]
#   PART     base large huge huge32 1b 3b mae unetr attention gemm (default: all)
#   BIN_DIR  holds vitrail; PYTHON is a Python with torch and timm (MONAI for unetr; default .venv/bin/python3)
#   SECONDS_EACH   timed for each measurement (default 20)
#   UCF_VIT_SOURCE its checkout, to be measured as well
# Every measurement is a JSON file in OUT_DIR; the table at the end is made of them.
set -u
bin=$1 out=$2
shift 2
parts=${*:-base large huge huge32 1b 3b mae unetr attention gemm}
python=${PYTHON:-.venv/bin/python3}
seconds=${SECONDS_EACH:-20}
mkdir -p "$out"
has() { [[ " $parts " == *" $1 "* ]]; }
{ date -u +%FT%TZ; nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader; "$bin/vitrail" --version; } \
  > "$out/machine.txt" 2>&1
cat "$out/machine.txt"

ours() { # name about_ms overrides...
  local name=$1 ms=$2
  shift 2
  local steps=$(awk -v s="$seconds" -v ms="$ms" 'BEGIN { n = int(1000 * s / ms); print n < 10 ? 10 : n }')
  "$bin/vitrail" bench step recipes/bench/vit_base.yaml model.drop_path_rate=0 train.precision=bf16 "$@" --warmup 10 --steps "$steps" \
    --ceiling --json "$out/$name.json" 2> "$out/$name.err" | head -n 1
  [ -s "$out/$name.json" ] || { echo "$name FAILED"; tail -n 3 "$out/$name.err"; }
}
peer() { # name script arguments...
  local name=$1 script=$2
  shift 2
  "$python" "bench/peers/$script" "$@" --seconds "$seconds" --json "$out/$name.json" > "$out/$name.log" 2>&1
  [ -s "$out/$name.json" ] || { echo "$name FAILED"; tail -n 3 "$out/$name.log"; }
}
model() { # part preset batch about_ms
  has "$1" || return 0
  echo "== $1"
  ours "$1" "$4" model.preset="$2" data.batch_size="$3"
  peer "$1-timm" timm_step.py --model "$2" --batch "$3"
  [ -z "${UCF_VIT_SOURCE:-}" ] || peer "$1-ucf-vit" from_source.py ucf-vit --source "$UCF_VIT_SOURCE" --model "$2" --batch "$3"
}
model base vit_base 256 57
model large vit_large 256 180
model huge vit_huge 128 250
model huge32 vit_huge 32 66
model 1b vit_1b 128 380
model 3b vit_3b 32 280
if has mae; then
  echo "== mae"
  ours mae 150 model.kind=mae model.preset=vit_large data.batch_size=256 model.mask_ratio=0.75 model.decoder_embed_dim=512 \
    model.decoder_depth=8 model.decoder_num_heads=16 model.norm_pix_loss=true
  peer mae-timm mae_timm.py --batch 256
fi
if has unetr; then
  echo "== unetr"
  ours unetr 60 model.kind=unetr model.preset=vit_base model.image_size=[96,96,96] model.in_channels=1 model.num_classes=14 \
    model.class_token=false model.feature_size=16 data.batch_size=4
  peer unetr-monai unetr_monai.py --batch 4
fi
has attention && "$bin/vitrail" bench attention --seconds 1 --json "$out/attention.json"
has gemm && for preset in vit_base vit_huge vit_3b; do
  "$bin/vitrail" bench gemm recipes/bench/vit_base.yaml model.preset=$preset data.batch_size=64 --json "$out/gemm-$preset.json"
done

"$python" - "$out" $parts <<'PY'
import json, os, sys

folder, parts = sys.argv[1], sys.argv[2:]


def load(name):
    path = os.path.join(folder, name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None


print(f"\n{'model':<8} {'batch':>5} {'ms':>8} {'images/s':>9} {'of ceiling':>10} {'MFU':>6} {'GiB':>6}   peer: images/s, GiB, ours/peer")
for part in parts:
    mine = load(part)
    if not mine or "ms" not in mine:
        continue
    line = f"{part:<8} {mine['batch_size']:>5} {mine['ms']['median']:>8.2f} {mine['images_per_second']:>9.1f}"
    line += f" {mine['ceiling_ratio'] or 0:>10.3f} {100 * (mine['mfu'] or 0):>5.1f}% {mine['peak_memory_gib']:>6.1f}  "
    for suffix in ("timm", "monai", "ucf-vit"):
        peer = load(f"{part}-{suffix}")
        if peer:
            ratio = mine["images_per_second"] / peer["images_per_second"]
            line += f" {suffix}: {peer['images_per_second']:.1f}, {peer['peak_memory_gib'] or 0:.1f}, {ratio:.2f}x"
    print(line)
PY
