#!/usr/bin/env bash
# Does training wait for its data? ViT-B/16 from a folder of JPEG photographs and a small ViT from CIFAR-10 JPEGs, on one GPU and
# 16 cores; beside it the loader alone, with upload and augmentation, and a PyTorch DataLoader where its packages are there.
# usage: gpu_loader.sh BIN_DIR OUT_DIR [PHOTOGRAPHS_DIR] [CIFAR_DIR]   (in the repository root; python3 with torch on the PATH.
#        PHOTOGRAPHS_DIR: pictures the JPEGs are cut from, else coloured noise; CIFAR_DIR holds train/ and test/)
set -u
bin=$1 out=$2 pictures=${3:-data/photographs} cifar=${4:-data/cifar10}
count=${COUNT:-5000} workers=$(($(nproc) - 1)) photos=data/bench/photos500
mkdir -p "$out"
{ lscpu | grep -E "Model name|^CPU\(s\)"; nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; } | tee "$out/machine.txt"
[ -d $photos ] || python3 bench/peers/make_photos.py $photos --count "$count" --quality 95 --source "$pictures" | tee "$out/photos.txt"
find $photos -type f -exec cat {} + > /dev/null

waits() { # metrics.jsonl: waits and steps, without the first step. Records are means of their steps; a record a step would leave out
          # the time in which the log waits for the GPU
  python3 - "$1" <<'PY'
import json, statistics, sys
records = [record for record in map(json.loads, open(sys.argv[1])) if "step_ms" in record]
counts = [after["step"] - before["step"] for before, after in zip(records, records[1:])]
records = records[1:]
wait, step = (sum(count * r[key] for count, r in zip(counts, records)) for key in ("data_wait_ms", "step_ms"))
print(f"{sys.argv[1]}: {sum(counts)} steps, mean {step / sum(counts):.2f} ms, "
      f"{statistics.median(r['images_per_second'] for r in records):.0f} images/s, waits {100 * wait / step:.4f} % of the step, "
      f"worst mean wait {max(r['data_wait_ms'] for r in records):.4f} ms")
PY
}
train() { # name recipe overrides...
  "$bin/vitrail" train "$2" run.name="$1" run.output="$out/runs" --resume never data.workers="$workers" "${@:3}" > "$out/$1.log" 2>&1 ||
    tail -5 "$out/$1.log"
  waits "$out/runs/$1/metrics.jsonl" | tee -a "$out/waits.txt"
}
train jpeg recipes/bench/vit_base_jpeg.yaml
[ -d "$cifar/train" ] && train cifar recipes/cifar10/vit_6m.yaml data.sources[0].root="$cifar/train" eval.sources[0].root="$cifar/test" \
  train.epochs=6 eval.every_epochs=6 logging.every_steps=97
for workers_alone in 4 8 "$workers"; do
  for device in cpu cuda; do
    "$bin/vitrail" bench loader recipes/bench/vit_base_jpeg.yaml data.workers=$workers_alone --device $device \
      --json "$out/loader_jpeg_${device}_$workers_alone.json"
  done
done
[ -d "$cifar/train" ] && "$bin/vitrail" bench loader recipes/cifar10/vit_6m.yaml data.sources[0].root="$cifar/train" data.workers="$workers" \
  --device cuda --json "$out/loader_cifar.json"
if python3 -c "import PIL, torchvision" 2> /dev/null; then
  python3 bench/peers/loader_torch.py $photos --size 224 224 --resized-crop --flip --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 \
    --batch 256 --workers "$workers" --json "$out/loader_jpeg_torch.json"
fi
