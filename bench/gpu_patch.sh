#!/usr/bin/env bash
# Adaptive and mixed-resolution tokens on one GPU: the cost of making them (`bench patch`, `bench step`), and what trainings on the
# membrane stack, the MNI head, photographs and CIFAR-10 gain or lose by them beside the same model on a grid. Ends with one table.
# For 16 cores and one GPU, at most LIMIT seconds (480); what no time is left for is named and left out.
# usage: gpu_patch.sh BIN_DIR OUT_DIR   (in the repository root, python3 on the PATH; data/{em-membrane,mni,photographs,cifar10} filled)
set -u
bin=$1 out=$2
limit=${LIMIT:-480} workers=$(($(nproc) > 2 ? $(nproc) - 2 : 1))
mkdir -p "$out"
{ lscpu | grep -E "Model name|^CPU\(s\)"; nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; } | tee "$out/machine.txt"

bounded() { # seconds log command...: not beyond the whole's limit; says what fails
  local left=$((limit - SECONDS)) seconds=$1 log=$2
  shift 2
  [ $left -gt 8 ] || { echo "no time left for $(basename "$log" .log)"; return 1; }
  timeout $((seconds < left ? seconds : left)) "$@" > "$log" 2>&1 || { echo "FAILED rc $? $(basename "$log" .log): $(tail -1 "$log" | cut -c1-300)"; return 1; }
}
train() { # name tokens recipe overrides...
  local name=$1 start=$SECONDS
  echo "$name $2" >> "$out/order.txt"
  bounded "${SECONDS_A_RUN:-60}" "$out/$name.log" "$bin/vitrail" train "$3" run.name="$name" run.output="$out/runs" run.device=cuda --resume never \
    data.workers="$workers" logging.every_steps=20 logging.tensorboard=false checkpoint.every_steps=0 "${@:4}"
  echo "$name $((SECONDS - start))" >> "$out/seconds.txt"
}
steps() { # name recipe overrides...: whole steps on random data
  bounded 60 "$out/step-$1.log" "$bin/vitrail" bench step "$2" run.device=cuda --steps 60 --warmup 15 --json "$out/step-$1.json" "${@:3}"
}
: > "$out/order.txt"; : > "$out/seconds.txt"

bounded 90 "$out/patch.log" "$bin/vitrail" bench patch --seconds 0.2 --json "$out/patch.json"; cat "$out/patch.log"

# Mixed resolution: 64 tokens of a 256x256 image beside 64 tokens of a 32x32 one, the same trunk and batch.
plain="model.mixed_resolution.num_tokens=0 model.image_size=[32,32] model.patch_size=4"
cifar=recipes/cifar10/vit_mixed.yaml
steps cifar-mixed $cifar
steps cifar-plain $cifar $plain
steps cifar-grid256 $cifar model.mixed_resolution.num_tokens=0    # all 256 patches of 16
train cifar-mixed 64 $cifar train.epochs=3 eval.every_epochs=3 logging.every_steps=39
train cifar-plain 64 $cifar $plain train.epochs=3 eval.every_epochs=3 logging.every_steps=39

unetr=recipes/em/unetr_2d_adaptive.yaml sap=recipes/em/sap_2d_adaptive.yaml
train em-unetr-dense 64 recipes/em/unetr_2d.yaml
train em-unetr-adaptive 31 $unetr
train em-unetr-mixed 40 recipes/em/unetr_2d_mixed.yaml
train em-sap-dense 256 recipes/em/sap_2d.yaml
train em-sap-adaptive 127 $sap
train em-sap-adaptive-256 256 $sap model.adaptive.fixed_length=256
# Whole slices of 512x512 in patches of 8: where tokens are what a step costs.
large="model.image_size=[512,512] model.patch_size=8 eval.sources[0].tile=[512,512] data.sources[0].random_crop.per_epoch=8 eval.batch_size=2
  train.epochs=16 eval.every_epochs=16 train.precision=bf16"
train em512-unetr-dense 4096 recipes/em/unetr_2d.yaml $large
train em512-unetr-adaptive 1024 $unetr $large model.adaptive.fixed_length=1024 model.adaptive.min_leaf=4
train em512-unetr-adaptive-2047 2047 $unetr $large model.adaptive.fixed_length=2047 model.adaptive.min_leaf=4
train em512-sap-dense 4096 $sap $large model.adaptive.fixed_length=0
train em512-sap-adaptive 2047 $sap $large model.adaptive.fixed_length=2047 model.adaptive.min_leaf=4

train mni-unetr-dense 64 recipes/mni/unetr_3d.yaml
train mni-unetr-adaptive 29 recipes/mni/unetr_3d_adaptive.yaml
train mni-sap-dense 512 recipes/mni/sap_3d_adaptive.yaml model.adaptive.fixed_length=0
train mni-sap-adaptive 253 recipes/mni/sap_3d_adaptive.yaml
train mni-sap-adaptive-512 512 recipes/mni/sap_3d_adaptive.yaml model.adaptive.fixed_length=512
# Windows of 96x48x96, with much that is dark: 864 patches of 8^3 beside 421 leaves of 4^3 and larger.
wide="model.image_size=[96,48,96] model.patch_size=8 eval.sources[0].tile=[96,48,96] eval.batch_size=2"
train mni96-sap-dense 864 recipes/mni/sap_3d_adaptive.yaml $wide model.adaptive.fixed_length=0
train mni96-sap-adaptive 421 recipes/mni/sap_3d_adaptive.yaml $wide model.adaptive.fixed_length=421 model.adaptive.min_leaf=4
train mni96-unetr-dense 864 recipes/mni/unetr_3d.yaml $wide
train mni96-unetr-adaptive 421 recipes/mni/unetr_3d_adaptive.yaml $wide model.adaptive.fixed_length=421 model.adaptive.min_leaf=4

short="train.epochs=45 eval.every_epochs=45"
train mae-uniform 64 recipes/photographs/mae.yaml $short
train mae-adaptive 31 recipes/photographs/mae_adaptive.yaml $short
train mae-adaptive-64 64 recipes/photographs/mae_adaptive.yaml $short model.adaptive.fixed_length=64

# Pictures: the leaves, and what the models make of a held-out slice.
slice=$(ls data/em-membrane/train/image/* | sort -V | tail -1)
picture() { bounded 20 "$out/picture-$1.log" "$bin/vitrail" patch "$2" run.device=cpu --input "$3" --output "$out/$1.png"; }
picture em-leaves $unetr "$slice"
picture em-mixed recipes/em/unetr_2d_mixed.yaml "$slice"
picture photograph-leaves recipes/photographs/mae_adaptive.yaml data/photographs/astronaut.png
masks() { bounded 20 "$out/masks-$1.log" "$bin/vitrail" predict "$2" run.name="$1" run.output="$out/runs" run.device=cuda "${@:3}" --input "$slice" --output "$out/masks-$1"; }
masks em-unetr-dense recipes/em/unetr_2d.yaml
masks em-unetr-adaptive $unetr

python3 - "$out" <<'PY'
import json, os, statistics, sys
out = sys.argv[1]
seconds = dict(line.split() for line in open(f"{out}/seconds.txt"))
print("\n| run | tokens | steps | ms a step | waits ms | images/s | peak GiB | seconds | held out |\n|" + "---|" * 9)
for name, tokens in (line.split() for line in open(f"{out}/order.txt")):
    path = f"{out}/runs/{name}/metrics.jsonl"
    records = [json.loads(line) for line in open(path)] if os.path.exists(path) else []
    steps = [r for r in records if "step_ms" in r]
    later = steps[1:] or steps        # the first record holds the start
    found = [r for r in records if "split" in r]
    if not steps:
        print(f"| {name} | {tokens} | none |" + " |" * 6)
        continue
    middle = lambda key: statistics.median(r.get(key, float("nan")) for r in later)
    wanted = ("accuracy", "dice", "mean_dice", "pixel_accuracy", "psnr", "ssim", "rmse", "loss")
    metrics = found[-1]["metrics"] if found else {}
    classes = [key for key in metrics if key.startswith("dice_")][:4]
    text = ", ".join(f"{key} {metrics[key]:.4f}" for key in (*wanted, *classes) if isinstance(metrics.get(key), float))
    print(f"| {name} | {tokens} | {steps[-1]['step']} | {middle('step_ms'):.2f} | {middle('data_wait_ms'):.3f} | {middle('images_per_second'):.0f} "
          f"| {max(r.get('peak_memory_gib', 0) for r in steps):.2f} | {seconds.get(name, '')} | {text} |")
ms = {}
for name in ("cifar-mixed", "cifar-plain", "cifar-grid256"):
    if os.path.exists(f"{out}/step-{name}.json"):
        ms[name] = json.load(open(f"{out}/step-{name}.json"))["ms"]
        ms[name] = ms[name]["median"] if isinstance(ms[name], dict) else ms[name]
if len(ms) == 3:
    print(f"\nWhole steps on random data, batch 256: 64 mixed tokens {ms['cifar-mixed']:.2f} ms, 64 plain tokens {ms['cifar-plain']:.2f} ms, "
          f"256 plain tokens {ms['cifar-grid256']:.2f} ms; the tokenizer's share {100 * (1 - ms['cifar-plain'] / ms['cifar-mixed']):.1f} % of the step")
PY
echo "$SECONDS s"
