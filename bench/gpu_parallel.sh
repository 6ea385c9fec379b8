#!/usr/bin/env bash
# The parallel engine on N GPUs beside PyTorch's FSDP2 in the same run: ViT-Huge (ddp) and a ViT of 3 billion parameters under
# ddp, zero1, zero2, zero3, hybrid, tensor and Hybrid-STOP; the prefetch x limit grid; the share of exposed communication; a trace.
# usage: gpu_parallel.sh BIN_DIR OUT_DIR N [PART ...]     PART: tests huge large grid trace peers (default: all)
#   BIN_DIR holds vitrail, test_nccl and test_gpu; PYTHON is the Python with torch (default .venv/bin/python3)
# Every measurement ends as a line on stdout and a JSON file in OUT_DIR.
set -u
bin=$1 out=$2 ranks=$3
shift 3
parts=${*:-tests huge large grid trace peers}
python=${PYTHON:-.venv/bin/python3}
mkdir -p "$out"
{ nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; nvidia-smi topo -m; lscpu | grep "Model name"; } > "$out/machine.txt" 2>&1
launch="mpirun --allow-run-as-root --oversubscribe --bind-to none"
has() { [[ " $parts " == *" $1 "* ]]; }
huge="model.embed_dim=1280 model.depth=32 model.num_heads=16 model.patch_size=14 data.batch_size=$((96 * ranks))"
# 32 blocks of width 2816: 3.05 billion
large="model.embed_dim=2816 model.depth=32 model.num_heads=32 model.patch_size=14 data.batch_size=$((32 * ranks)) train.recompute=block"
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
  same="--width 2816 --depth 32 --heads 32 --patch 14 --recompute"
  for strategy in zero2 zero3; do
    peer peer-large-$strategy "$ranks" --strategy $strategy $same --batch $((32 * ranks))
    peer peer-large-$strategy-compiled "$ranks" --strategy $strategy $same --batch $((32 * ranks)) --compile
  done
fi
