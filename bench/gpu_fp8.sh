#!/bin/bash
# Products of 8 bits on one GPU: tests, times of products and blocks, and steps of Huge and 3B beside bf16.
# usage: BIN=folder of test_gpu and vitrail OUT=folder bench/gpu_fp8.sh      about 150 s on an H200
set -u
BIN=${BIN:?folder of test_gpu and vitrail} OUT=${OUT:?folder for results}
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,power.limit,clocks.max.sm --format=csv,noheader
timeout 60 "$BIN/test_gpu" --gtest_filter='GpuFp8.*:GpuFusedFp8.*' 2>&1 | tee "$OUT/fp8_tests.log" | grep -vE '^\[ RUN|^\[-|^\[=|^$'

step() { # name, arguments of bench step
  local name=$1; shift
  timeout 60 "$BIN/vitrail" bench step recipes/bench/vit_base.yaml model.drop_path_rate=0 train.engine=fused "$@" \
    --warmup 5 --steps 20 --json "$OUT/$name.json" > "$OUT/$name.log" 2> "$OUT/$name.err"
  echo "== $name rc=$?"; head -3 "$OUT/$name.log" | cut -c1-300
}
for model in vit_huge:128 vit_3b:32; do
  preset=${model%:*} batch=${model#*:}
  step "$preset-bf16" model.preset="$preset" data.batch_size="$batch" train.precision=bf16
  step "$preset-fp8" model.preset="$preset" data.batch_size="$batch" train.precision=fp8
  step "$preset-fp8-gradients" model.preset="$preset" data.batch_size="$batch" train.precision=fp8 train.fp8_weight_gradients=fp8
done
