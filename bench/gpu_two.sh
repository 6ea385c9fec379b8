#!/usr/bin/env bash
# What needs two GPUs: NCCL collectives, ddp on two GPUs against one, resume on a GPU, a checkpoint under asynchronous saving.
# usage: gpu_two.sh BIN_DIR CIFAR_DIR OUT_DIR   (BIN_DIR holds vitrail, test_gpu and test_nccl)
set -u
bin=$1 cifar=$2 out=$3
launch="mpirun --allow-run-as-root --oversubscribe --bind-to none"
recipe="recipes/cifar10/vit_4m.yaml data.sources[0].root=$cifar/train eval.sources[0].root=$cifar/test"
small="train.steps=20 model.drop_path_rate=0.1 logging.every_steps=1 logging.html=false eval.every_epochs=0 checkpoint.every_steps=10 checkpoint.keep=0"
losses() { python3 -c "import json,sys; print(*[json.loads(l)['loss'] for l in open(sys.argv[1]) if 'loss' in json.loads(l) and 'split' not in json.loads(l)])" "$out/runs/$1/metrics.jsonl"; }
compare() { python3 - "$@" <<'PY'
import sys
a, b = ([float(x) for x in text.split()] for text in sys.argv[2:4])
print(f"{sys.argv[1]}: {len(a)} and {len(b)} losses, first {abs(a[0]-b[0])/abs(a[0]):.1e}, worst {max(abs(x-y)/abs(x) for x,y in zip(a,b)):.1e} relative")
PY
}
$launch -n 2 "$bin/test_nccl" 2
"$bin/test_gpu" --gtest_filter='GpuDdp.*' --gtest_brief=1
for precision in fp32 bf16; do
  quiet="run.output=$out/runs train.precision=$precision $small --resume never"
  "$bin/vitrail" train $recipe $quiet run.name=one-$precision >/dev/null || echo "FAILED one-$precision"
  $launch -n 2 "$bin/vitrail" train $recipe $quiet run.name=two-$precision >"$out/two-$precision.txt" || echo "FAILED two-$precision"
  compare "ddp on 2 GPUs against 1, $precision" "$(losses one-$precision)" "$(losses two-$precision)"
done
# Resume: 10 + save + new process + 10 against 20, deterministic operators.
again="run.output=$out/runs run.deterministic=true $small"
"$bin/vitrail" train $recipe $again run.name=whole --resume never >/dev/null || echo "FAILED whole"
"$bin/vitrail" train $recipe $again run.name=parts --resume never >/dev/null || echo "FAILED parts"
rm -rf "$out/runs/parts/checkpoints/step-00000020"
"$bin/vitrail" train $recipe $again run.name=parts --resume auto | grep -E 'resumed'
compare "resume on a GPU, bf16" "$(losses whole)" "$(losses parts)"
cmp "$out/runs/whole/weights.safetensors" "$out/runs/parts/weights.safetensors" && echo "weights after resume: bit-equal"
grep -E 'images_per_second' "$out/two-bf16.txt" | tail -n 1
