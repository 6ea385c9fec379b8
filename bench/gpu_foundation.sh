#!/usr/bin/env bash
# Everything of the foundation that needs one GPU: the gpu tests, the ViT-B/16 step beside its ceiling and its peers, and
# CIFAR-10 by its recipe.
# usage: gpu_foundation.sh BIN_DIR CIFAR_DIR OUT_DIR   (BIN_DIR holds vitrail and test_gpu; CIFAR_DIR holds train/ and test/)
set -u
bin=$1 cifar=$2 out=$3
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv
"$bin/vitrail" doctor
"$bin/test_gpu" --gtest_filter=-GpuDdp.* --gtest_brief=1
"$bin/vitrail" bench optimizer --json "$out/optimizer.json"
for model in base large; do
  "$bin/vitrail" bench step recipes/bench/vit_$model.yaml --ceiling --json "$out/step_vit_$model.json"
done
python3 bench/peers/step_pytorch.py --json "$out/step_pytorch_vit_base.json"
"$bin/vitrail" train recipes/cifar10/vit_4m.yaml run.output="$out/runs" data.sources[0].root="$cifar/train" \
  eval.sources[0].root="$cifar/test" logging.every_steps=195 --resume never
cp "$out/runs/cifar10-vit-4m/"{report.html,metrics.jsonl} "$out"
