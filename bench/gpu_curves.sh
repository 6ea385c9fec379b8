#!/usr/bin/env bash
# One GPU: do engines and precisions learn alike? Loss curves of a ViT on CIFAR-10 and of an MAE on photographs, beside what
# another seed changes.
# usage: gpu_curves.sh BIN_DIR OUT_DIR [STEPS]     data/photographs and, for the ViT, CIFAR-10 JPEGs in ${CIFAR:-data/cifar10}
#   SMOOTH   steps of the running mean that curves are compared by (default 20)
set -u
bin=$1 out=$2 steps=${3:-300}
mkdir -p "$out"
common="train.epochs=null train.steps=$steps logging.every_steps=1 logging.html=false checkpoint.every_steps=0 eval.sources=[] run.output=$out/runs run.device=cuda"
train() { # name recipe overrides...
  local name=$1 recipe=$2
  shift 2
  "$bin/vitrail" train "$recipe" $common run.name="$name" "$@" --resume never > "$out/$name.log" 2>&1 || { echo "$name FAILED"; tail -n 2 "$out/$name.log"; }
}
cifar=${CIFAR:-data/cifar10}
vit="recipes/cifar10/vit_4m.yaml model.embed_dim=384 model.num_heads=6 data.batch_size=256 data.sources[0].root=$cifar/train"
mae="recipes/photographs/mae.yaml model.embed_dim=384 model.depth=12 model.decoder_embed_dim=192 model.decoder_num_heads=6"
for model in ${MODELS:-vit mae}; do
  recipe=${!model}
  for seed in 0 1; do
    train $model-autograd-fp32-$seed $recipe train.engine=autograd train.precision=fp32 run.seed=$seed
    train $model-autograd-bf16-$seed $recipe train.engine=autograd train.precision=bf16 run.seed=$seed
    train $model-fused-bf16-$seed $recipe train.engine=fused train.precision=bf16 run.seed=$seed
    [ -z "${FP8:-}" ] || train $model-fused-fp8-$seed $recipe train.engine=fused train.precision=fp8 run.seed=$seed
  done
done
python3 - "$out/runs" "${SMOOTH:-20}" <<'PY'
import glob, json, os, sys

smooth = int(sys.argv[2])
curves = {}
for folder in sorted(glob.glob(sys.argv[1] + "/*")):
    lines = [json.loads(line) for line in open(folder + "/metrics.jsonl")] if os.path.exists(folder + "/metrics.jsonl") else []
    losses = [line["loss"] for line in lines if "loss" in line and "split" not in line]
    curves[os.path.basename(folder)] = [sum(losses[max(0, i - smooth + 1): i + 1]) / min(i + 1, smooth) for i in range(len(losses))]


def apart(a, b):
    return max(abs(x - y) / y for x, y in zip(curves[a], curves[b])), abs(curves[a][-1] - curves[b][-1]) / curves[b][-1]


print("relative difference of running means: worst of all steps; at the end")
for model in sorted({name.split("-")[0] for name in curves}):
    names = [name for name in curves if name.startswith(model)]
    for name in names:
        reference = f"{model}-autograd-fp32-{name[-1]}"
        if name != reference and reference in curves:
            print(f"{name:<26} against fp32 of the same seed   {apart(name, reference)[0]:.4f}; {apart(name, reference)[1]:.4f}   last {curves[name][-1]:.4f}")
    if f"{model}-autograd-fp32-1" in curves:
        worst, end = apart(f"{model}-autograd-fp32-1", f"{model}-autograd-fp32-0")
        print(f"{model + ' fp32, seed 1 against 0':<58} {worst:.4f}; {end:.4f}")
PY
