#!/usr/bin/env bash
# `vitrail bench loader` beside a PyTorch DataLoader (JPEG folders) and tensorstore (cubes of sharded zarr): the same files, the same
# steps, by turns, three times each. Writes a JSON object a run and prints medians and ratios. About 8 minutes on 2 cores.
# usage: bench/loader.sh VITRAIL OUT_DIR [CASE...]     cases: cifar jpeg256 jpeg256-crop jpeg500 jpeg500-crop zarr-* (default: all)
# data   data/cifar10 (docs/data.md); the rest is made here
set -euo pipefail
cd "$(dirname "$0")/.."
vitrail=$1 out=$2
shift 2
python=.venv/bin/python3 seconds=${SECONDS_A_RUN:-4} cores=$(nproc)
mkdir -p "$out"
[ -d data/bench/photos256 ] || $python bench/peers/make_photos.py data/bench/photos256 --sides 256 256 --count 2000 --quality 95
[ -d data/bench/photos500 ] || $python bench/peers/make_photos.py data/bench/photos500 --count 1500 --quality 95
for volume in zstd64 zstd32 blosc64; do
  [ -d data/bench/zarr/$volume.zarr ] ||
    $python bench/peers/make_volume.py data/bench/zarr/$volume.zarr --chunk ${volume: -2} --codec ${volume:0:-2}
done
# Cubes begin anywhere, with -aligned where chunks do.
for codec in zstd blosc; do
  [ -d data/bench/zarr/${codec}40.zarr ] ||
    $python bench/peers/make_volume.py data/bench/zarr/${codec}40.zarr --chunk 40 --shard 240 --side 480 --codec $codec
done
find data/cifar10/train data/bench -type f -exec cat {} + > /dev/null    # into the page cache

ours() { # case run recipe overrides...
  "$vitrail" bench loader "${@:3}" data.workers="$cores" --device cpu --runs 1 --seconds "$seconds" --json "$out/$1.ours.$2.json"
}
torch() { # case run arguments...
  $python bench/peers/loader_torch.py "${@:3}" --workers "$cores" $((2 * cores)) --seconds "$seconds" --json "$out/$1.peer.$2.json"
}
tensorstore() {
  $python bench/peers/loader_tensorstore.py "${@:3}" --threads "$cores" --runs 1 --seconds "$seconds" --json "$out/$1.peer.$2.json"
}
photos() { # folder augment
  echo "recipes/bench/vit_base_jpeg.yaml data.batch_size=64 data.prefetch=4 data.sources[0].root=data/bench/$1 data.sources[0].augment=[$2]"
}
photos_peer="--size 224 224 --flip --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --batch 64"
volume() { echo "recipes/bench/zarr_crops.yaml data.sources[0].root=data/bench/zarr/$1.zarr data.cache_gib=$2"; }

one() { # case run
  case $1 in
    cifar)
      ours $1 $2 recipes/cifar10/vit_4m.yaml
      torch $1 $2 data/cifar10/train --size 32 32 --crop 4 --flip --mean 0.4914 0.4822 0.4465 --std 0.2023 0.1994 0.2010 ;;
    jpeg256) ours $1 $2 $(photos photos256 flip); torch $1 $2 data/bench/photos256 --resize 224 224 $photos_peer ;;
    jpeg500) ours $1 $2 $(photos photos500 flip); torch $1 $2 data/bench/photos500 --resize 224 224 $photos_peer ;;
    jpeg256-crop) ours $1 $2 $(photos photos256 resized_crop,flip); torch $1 $2 data/bench/photos256 --resized-crop $photos_peer ;;
    jpeg500-crop) ours $1 $2 $(photos photos500 resized_crop,flip); torch $1 $2 data/bench/photos500 --resized-crop $photos_peer ;;
    zarr-*)
      local name=${1#zarr-} cache=0 step
      [[ $name != *-cached ]] || { name=${name%-cached} cache=1; }
      step=1 align=false
      [[ $name != *-aligned ]] || { name=${name%-aligned} align=true step=${name: -2}; }
      ours $1 $2 $(volume $name $cache) data.sources[0].random_crop.align=$align
      tensorstore $1 $2 data/bench/zarr/$name.zarr --cache-gib $cache --step $step ;;
    *) echo "no case '$1'" >&2; exit 2 ;;
  esac
}
cases=${*:-cifar jpeg256 jpeg256-crop jpeg500 jpeg500-crop zarr-zstd64 zarr-zstd32 zarr-zstd40 zarr-blosc64 zarr-blosc40 zarr-zstd64-aligned zarr-zstd64-cached}
for case in $cases; do
  for run in 1 2 3; do one "$case" $run; done
done
$python - "$out" $cases <<'PY'
import glob, json, statistics, sys
out, cases = sys.argv[1], sys.argv[2:]
print("| case | vitrail /s | (runs) | us of CPU | read, decode, transform us | peer /s | (runs) | ratio |\n|---|---|---|---|---|---|---|---|")
for case in cases:
    side = {who: [json.load(open(path)) for path in sorted(glob.glob(f"{out}/{case}.{who}.?.json"))] for who in ["ours", "peer"]}
    rate = {who: [run["images_per_second"] for run in runs] for who, runs in side.items()}
    middle = {who: statistics.median(rates) for who, rates in rate.items()}
    stages = side["ours"][-1]["stages"]
    stages = ", ".join(f"{stages[key]:.1f}" for key in ["read_us", "decode_us", "transform_us"]) if stages else ""
    cpu = statistics.median(run["cpu_us_per_image"] for run in side["ours"])
    show = lambda who: ", ".join(f"{value:.0f}" for value in rate[who])
    print(f"| {case} | {middle['ours']:.0f} | {show('ours')} | {cpu:.1f} | {stages} | {middle['peer']:.0f} | {show('peer')} | "
          f"{middle['ours'] / middle['peer']:.2f} |")
PY
