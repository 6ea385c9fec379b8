#!/usr/bin/env bash
# UNETR, SAP, MAE, diffusion and the 3-D ViT: the recipes for a CPU on 2 cores each, while the GPU runs its tests, the 3-D MAE
# of 2 billion parameters, UNETR-3D on the membrane stack and the CIFAR-10 diffusion. For 16 cores and one GPU; 8 minutes.
# usage: gpu_architectures.sh BIN_DIR OUT_DIR   (in the repository root with data/ filled; BIN_DIR holds vitrail and test_gpu)
set -u
bin=$1 out=$2
mkdir -p "$out"
{ lscpu | grep -E "Model name|Thread|^CPU\(s\)"; nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; } > "$out/machine.txt"
train() { # name recipe overrides...
  local name=$1 recipe=$2 start=$SECONDS
  shift 2
  "$bin/vitrail" train "$recipe" run.name="$name" run.output="$out/runs" --resume never "$@" > "$out/$name.log" 2>&1
  echo "rc $? seconds $((SECONDS - start))" >> "$out/$name.log"
}
on_cpu() { # cores name recipe
  OMP_NUM_THREADS=2 taskset -c "$1" bash -c "$(declare -f train); bin='$bin' out='$out'; train $2 $3 run.device=cpu run.threads=2" &
}
on_cpu 2,3 em-unetr-2d recipes/em/unetr_2d.yaml
on_cpu 4,5 em-unetr-3d recipes/em/unetr_3d.yaml
on_cpu 6,7 em-sap-2d recipes/em/sap_2d.yaml
on_cpu 8,9 mni-unetr-3d recipes/mni/unetr_3d.yaml
on_cpu 10,11 photographs-mae recipes/photographs/mae.yaml
on_cpu 12,13 digits-diffusion recipes/digits/diffusion.yaml
on_cpu 14,15 mni-vit-3d recipes/mni/vit_3d.yaml
taskset -cp 0,1 $$ > /dev/null    # what follows; the runs above keep their own cores
"$bin/test_gpu" --gtest_filter=-GpuDdp.* --gtest_brief=1
for side in 128 256; do
  "$bin/vitrail" bench step recipes/bench/mae3d_2b.yaml model.image_size=[$side,$side,$side] --steps 6 --warmup 2 \
    --json "$out/mae3d_$side.json"
done
train em-unetr-3d-gpu recipes/em/unetr_3d.yaml run.device=cuda model.image_size=[8,128,128] eval.sources[0].tile=[8,128,128] \
  model.feature_size=16 model.embed_dim=384 model.num_heads=6 data.batch_size=16 data.sources[0].random_crop.per_epoch=1024 \
  train.epochs=24 train.precision=bf16 data.workers=2 eval.batch_size=16
train cifar10-diffusion recipes/cifar10/diffusion.yaml run.device=cuda data.workers=2
sample() { "$bin/vitrail" sample "$1" run.output="$out/runs" --output "$out/$2.png" "${@:3}"; }
sample recipes/cifar10/diffusion.yaml cifar10 run.device=cuda --count 80 --method ddpm --steps 250 --guidance 3
sample recipes/cifar10/diffusion.yaml cifar10-ddim run.device=cuda --count 80 --method ddim --steps 100 --guidance 2
wait
sample recipes/digits/diffusion.yaml digits run.device=cpu --count 60 --method ddim --steps 50 --guidance 2
grep -E "split=|^rc " "$out"/*.log | cut -c1-300
