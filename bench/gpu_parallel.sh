#!/usr/bin/env bash
# The parallel engine on N GPUs beside PyTorch's FSDP2 in the same run: ViT-Huge (ddp) and a ViT of 3 billion parameters under
# ddp, zero1, zero2, zero3, hybrid, tensor and Hybrid-STOP; the cards alone at once; 15 billion; losses of N processes beside
# those of one; the prefetch x limit grid; the share of exposed communication; a trace.
# usage: gpu_parallel.sh BIN_DIR OUT_DIR N [PART ...]     PART: tests equal alone huge large 15b grid trace peers (default: all)
#   RECOMPUTE  of the large model and its peer: block (default) or none
#   BIN_DIR holds vitrail, test_nccl and test_gpu; PYTHON is the Python with torch (default .venv/bin/python3)
# Every measurement ends as a line on stdout and a JSON file in OUT_DIR.
set -u
bin=$1 out=$2 ranks=$3
shift 3
parts=${*:-tests equal alone huge large 15b grid trace peers}
recompute=${RECOMPUTE:-block}
python=${PYTHON:-.venv/bin/python3}
mkdir -p "$out"
{ nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; nvidia-smi topo -m; lscpu | grep "Model name"; } > "$out/machine.txt" 2>&1
launch="mpirun --allow-run-as-root --oversubscribe --bind-to none"
has() { [[ " $parts " == *" $1 "* ]]; }
huge="model.embed_dim=1280 model.depth=32 model.num_heads=16 model.patch_size=14 data.batch_size=$((96 * ranks))"
# 32 blocks of width 2816: 3.05 billion
large="model.embed_dim=2816 model.depth=32 model.num_heads=32 model.patch_size=14 data.batch_size=$((32 * ranks)) train.recompute=$recompute"
base="model.preset= train.precision=bf16 model.image_size=[224,224] model.num_classes=1000 model.drop_path_rate=0"
ours() { # name ranks overrides...
  local name=$1 n=$2
  shift 2
  printf '%-28s ' "$name"
  timeout 240 $launch -n "$n" "$bin/vitrail" bench step recipes/bench/vit_base.yaml $base "$@" --steps 10 --warmup 4 \
    --json "$out/$name.json" 2> "$out/$name.err" | head -n 1 || echo "FAILED, see $out/$name.err"
}
peer() { # name ranks arguments...
  local name=$1 n=$2
  shift 2
  printf '%-28s ' "$name"
  timeout 240 $launch -n "$n" "$python" bench/peers/fsdp2.py "$@" --steps 10 --warmup 4 --json "$out/$name.json" 2> "$out/$name.err" \
    | tail -n 1 || echo "FAILED, see $out/$name.err"
}
if has tests; then
  $launch -n 2 "$bin/test_nccl" 2
  for collective in all_reduce all_gather reduce_scatter; do
    for how in stall kill; do
      echo "== $how in $collective"
      VITRAIL_COMM_TIMEOUT_S=5 timeout 60 $launch -n 2 "$bin/test_nccl" 2 "$how" "$collective" 2>&1 | grep -E '^\[rank|still'
    done
  done
  "$bin/test_gpu" --gtest_filter='GpuDdp.*' --gtest_brief=1
fi
if has equal; then
  digits() { # name ranks overrides...
    local name=$1 n=$2
    shift 2
    $launch -n "$n" "$bin/vitrail" train recipes/digits/vit.yaml run.name="$name" run.output="$out/runs" run.device=cuda data.batch_size=128 \
      train.steps=12 train.epochs=null checkpoint.every_steps=0 eval.sources=[] logging.every_steps=1 logging.html=false \
      train.clip_grad_norm=1 model.depth=8 model.num_heads=4 model.embed_dim=128 "$@" --resume never > "$out/$name.log" 2>&1 \
      || { echo "$name FAILED"; tail -n 2 "$out/$name.log"; }
  }
  for precision in fp32 bf16; do
    digits one-$precision 1 parallel.strategy=none train.precision=$precision
    digits ddp-$precision "$ranks" parallel.strategy=ddp train.precision=$precision
    digits zero3-$precision "$ranks" parallel.strategy=zero3 train.precision=$precision
    ((ranks < 4)) || digits hybrid-$precision "$ranks" parallel.strategy=hybrid parallel.shard=2 train.precision=$precision
    digits tensor-$precision "$ranks" parallel.strategy=zero3 parallel.tensor=2 train.precision=$precision
    digits sequence-$precision "$ranks" parallel.strategy=zero2 parallel.sequence=2 train.precision=$precision
    digits pipeline-$precision "$ranks" parallel.strategy=zero2 parallel.pipeline=2 train.micro_batches=4 train.precision=$precision
  done
  python3 - "$out/runs" <<'PY'
import glob, json, os, sys


def losses(folder):
    lines = [json.loads(line) for line in open(folder + "/metrics.jsonl")] if os.path.exists(folder + "/metrics.jsonl") else []
    return [line["loss"] for line in lines if "loss" in line and "split" not in line]


for precision in ("fp32", "bf16"):
    one = losses(f"{sys.argv[1]}/one-{precision}")
    for folder in sorted(glob.glob(f"{sys.argv[1]}/*-{precision}")):
        apart = [abs(a - b) / a for a, b in zip(one, losses(folder))]
        print(f"{os.path.basename(folder):<16} {len(apart)} losses, first {apart[0]:.1e}, worst {max(apart):.1e}" if apart else f"{folder} has no losses")
PY
fi
if has alone; then
  for ((card = 0; card < ranks; ++card)); do
    CUDA_VISIBLE_DEVICES=$card ours "huge-alone-$card" 1 $huge data.batch_size=96 parallel.strategy=none train.cuda_graph=off &
  done
  wait
fi
if has huge; then
  ours huge-1 1 $huge data.batch_size=96 parallel.strategy=none train.cuda_graph=off
  ours huge-ddp-$ranks "$ranks" $huge parallel.strategy=ddp
  ours huge-zero1-$ranks "$ranks" $huge parallel.strategy=zero1
fi
if has large; then
  for strategy in zero1 zero2 zero3; do ours large-$strategy "$ranks" $large parallel.strategy=$strategy; done
  ours large-zero3-bf16-reduce "$ranks" $large parallel.strategy=zero3 parallel.reduce_precision=bf16
  ours large-tensor "$ranks" $large parallel.strategy=none parallel.tensor="$ranks"
  if ((ranks >= 4)); then
    ours large-hybrid "$ranks" $large parallel.strategy=hybrid parallel.shard=2
    ours large-hybrid-stop "$ranks" $large parallel.strategy=zero3 parallel.shard=$((ranks / 2)) parallel.tensor=2
    ours large-pipeline "$ranks" $large parallel.strategy=zero1 parallel.pipeline=2 train.micro_batches=8
    ours large-sequence "$ranks" $large parallel.strategy=zero3 parallel.sequence=2
  fi
fi
if has 15b; then
  for strategy in zero3 zero2; do
    ours 15b-$strategy "$ranks" model.preset=vit_15b data.batch_size=$((32 * ranks)) parallel.strategy=$strategy train.recompute=block
  done
fi
if has grid; then
  for prefetch in none post pre; do
    for limit in true false; do
      ours grid-$prefetch-$limit "$ranks" $large parallel.strategy=zero3 parallel.prefetch=$prefetch parallel.limit_all_gathers=$limit
    done
  done
fi
if has trace; then
  $launch -n "$ranks" "$bin/vitrail" train recipes/digits/vit.yaml run.name=trace run.output="$out/runs" run.device=cuda \
    parallel.strategy=zero3 data.batch_size=256 train.steps=14 train.epochs=null train.precision=bf16 model.embed_dim=1024 \
    model.num_heads=16 model.depth=12 checkpoint.every_steps=0 --resume never --trace "$out/trace.json" > "$out/trace.log" 2>&1 \
    || tail -n 3 "$out/trace.log"
fi
if has peers; then
  same="--width 1280 --depth 32 --heads 16 --patch 14"
  peer peer-huge-1 1 --strategy ddp $same --batch 96
  peer peer-huge-ddp "$ranks" --strategy ddp $same --batch $((96 * ranks))
  peer peer-huge-ddp-compiled "$ranks" --strategy ddp $same --batch $((96 * ranks)) --compile
  same="--width 2816 --depth 32 --heads 32 --patch 14"
  [ "$recompute" = none ] || same="$same --recompute"
  for strategy in zero2 zero3; do
    peer peer-large-$strategy "$ranks" --strategy $strategy $same --batch $((32 * ranks))
    peer peer-large-$strategy-compiled "$ranks" --strategy $strategy $same --batch $((32 * ranks)) --compile
  done
fi
