"""Runs build/bin/vitrail as a user does: one rank and several, stopped and resumed.

usage: program_test.py [test ...]; without names all of them. VITRAIL names the program.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from program import MPIRUN, command, losses, make_workplace, metrics, must, read_bytes, run, safetensors_header

STEP_KEYS = ["step", "epoch", "samples", "loss", "lr", "grad_norm", "step_ms", "data_wait_ms", "images_per_second",
             "tokens_per_second", "model_tflops", "mfu", "peak_memory_gib", "host_memory_gib", "skipped_samples", "source_epochs"]


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def relative(a, b):
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


def train(folder, recipe, name, ranks=1, *overrides, options=()):
    must(["train", recipe, f"run.name={name}", *overrides, *options], ranks)
    return os.path.join(folder, "runs", name)


def test_a_run_leaves_what_the_contract_names(folder, recipe):
    run_folder = train(folder, recipe, "whole", 1, "train.steps=120", "model.drop_path_rate=0.0", "train.ema_decay=0.9")
    for name in ["recipe.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "report.html", "log.txt",
                 "weights.safetensors", "weights-ema.safetensors"]:
        check(os.path.exists(os.path.join(run_folder, name)), f"{name} is missing in {run_folder}")
    steps, evaluations = metrics(run_folder)
    check([record["step"] for record in steps] == list(range(1, 121)), "metrics.jsonl must hold each step once")
    check(list(steps[0]) == STEP_KEYS, f"keys are {list(steps[0])}")
    check(steps[0]["mfu"] is None, "mfu must be null on a CPU")
    check(steps[-1]["loss"] < 0.7 * steps[0]["loss"], f"the loss went from {steps[0]['loss']} to {steps[-1]['loss']}")
    check(evaluations[-1]["split"] == "digits" and evaluations[-1]["samples"] == 81, f"evaluation {evaluations[-1]}")
    page = open(os.path.join(run_folder, "report.html")).read()
    for link in ["http://", "https://", "<link", " src=\"/", "@import"]:
        check(link not in page, f"report.html must be self-contained but has {link}")
    names = safetensors_header(os.path.join(run_folder, "weights.safetensors"))
    check("blocks.0.attn.qkv.weight" in names and "patch_embed.proj.weight" in names, f"names are {list(names)[:5]}")
    print(f"  loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, {evaluations[-1]['metrics']}")


def test_eval_report_and_predict_read_a_run(folder, recipe):
    run_folder = train(folder, recipe, "read", 1, "train.steps=40")
    expected = metrics(run_folder)[1][-1]["metrics"]
    for weights in [[], ["--weights", run_folder], ["--weights", os.path.join(run_folder, "weights.safetensors")]]:
        done = must(["eval", recipe, "run.name=read", *weights])
        found = json.loads(done.stdout)["metrics"]
        check(found == expected, f"eval {weights} must give {expected} but gave {found}")
    for ranks in [2, 4] if MPIRUN else []:
        found = json.loads(must(["eval", recipe, "run.name=read", "--json"], ranks).stdout)
        check(found["samples"] == 81, f"{ranks} ranks counted {found['samples']} samples")
        check(found["metrics"]["accuracy"] == expected["accuracy"], f"accuracy on {ranks} ranks")
        check(relative(found["metrics"]["loss"], expected["loss"]) < 1e-6, f"loss on {ranks} ranks")
    before = read_bytes(os.path.join(run_folder, "report.html"))
    must(["report", run_folder])
    check(read_bytes(os.path.join(run_folder, "report.html")) == before, "report must rebuild the same page")
    other = train(folder, recipe, "read2", 1, "train.optimizer.lr=1.0e-3")
    must(["report", run_folder, other, "--output", os.path.join(folder, "two.html")])
    check("train.optimizer.lr" in open(os.path.join(folder, "two.html")).read(), "the comparison must name what differs")


def test_probes_score_a_frozen_encoder(folder, recipe):
    mae = ["run.name=probed", "model.kind=mae", "model.decoder_embed_dim=32", "model.decoder_depth=1",
           "model.decoder_num_heads=2", "model.drop_path_rate=0", "train.steps=40"]
    must(["train", recipe, *mae])
    for kind in ["knn", "linear"]:
        one = json.loads(must(["eval", recipe, *mae, "--probe", kind, "--json"]).stdout)
        check(one["split"] == "digits" and one["samples"] == 81, f"{one}")
        check(one["metrics"]["accuracy"] > 0.5, f"ten easy classes: {one}")
        for ranks in [2, 4] if MPIRUN else []:
            many = json.loads(must(["eval", recipe, *mae, "--probe", kind, "--json"], ranks).stdout)
            worst = max(relative(many["metrics"][name], value) for name, value in one["metrics"].items())
            check(worst < 1e-4, f"{kind} on {ranks} ranks: {many} instead of {one}")
        print(f"  {kind}: {one['metrics']}")


def test_predict_writes_masks(folder, recipe):
    from PIL import Image
    path = os.path.join(folder, "masks.yaml")
    images, labels = os.path.join(folder, "images"), os.path.join(folder, "labels")
    os.makedirs(images)
    os.makedirs(labels)
    for i in range(6):  # bright squares of class 1, whose masks say 200
        image, label = Image.new("L", (20, 24), 40), Image.new("L", (20, 24), 0)
        box = (2 + i, 3 + i, 10 + i, 12 + i)
        image.paste(220, box)
        label.paste(200, box)
        image.save(os.path.join(images, f"{i}.png"))
        label.save(os.path.join(labels, f"{i}.png"))
    source = f"reader: images, root: {images}, labels: {labels}, label_values: [0, 200]"
    with open(path, "w") as out:
        out.write(f"run: {{name: masks, output: {folder}/runs, device: cpu, threads: 1}}\n"
                  "model: {kind: sap, image_size: [8, 8], patch_size: 2, in_channels: 1, num_classes: 2, embed_dim: 32, depth: 2,\n"
                  "        num_heads: 2, decoder_embed_dim: 16}\n"
                  f"data: {{batch_size: 12, workers: 1, sources: [{{{source}, random_crop: {{per_epoch: 8}}}}]}}\n"
                  "train: {steps: 60, optimizer: {lr: 3.0e-3}, schedule: {kind: constant}}\n"
                  f"eval: {{sources: [{{{source}, tile: [8, 8], overlap: [0.5, 0.5]}}]}}\n")
    must(["train", path])
    dice = metrics(os.path.join(folder, "runs", "masks"))[1][-1]["metrics"]["dice"]
    check("predicted classes" in open(os.path.join(folder, "runs", "masks", "report.html")).read(), "the report must show masks")
    output = os.path.join(folder, "out")
    done = must(["predict", path, "--input", images, "--output", output])
    check(done.stdout.startswith("6 images"), done.stdout)
    check(sorted(os.listdir(output)) == [f"{i:05}-{i}.png" for i in range(6)], f"{os.listdir(output)}")
    right = 0
    for i in range(6):
        mine, truth = Image.open(os.path.join(output, f"{i:05}-{i}.png")), Image.open(os.path.join(labels, f"{i}.png"))
        check(mine.size == (20, 24) and mine.mode == "L", f"mask {mine.size} {mine.mode}")
        check(set(mine.tobytes()) <= {0, 200}, "masks must hold the values of the labels")
        right += sum(a == b for a, b in zip(mine.tobytes(), truth.tobytes()))
    share = right / (6 * 20 * 24)
    print(f"  dice of tiles {dice:.4f}, right pixels of whole images {share:.4f}")
    check(share > 0.95, f"only {share} of the pixels are right")  # background alone would be 0.85


def write_pictures(folder, count, side=8):
    """Grey pictures of squares and noise, one a file, in two folders."""
    import random
    from PIL import Image
    draw = random.Random(5)
    for i in range(count):
        image = Image.new("L", (side, side), draw.randint(0, 90))
        image.paste(draw.randint(120, 255), (i % 4, i % 3, i % 4 + 4, i % 3 + 3))
        path = os.path.join(folder, "ab"[i % 2], f"{i:03}.png")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        image.save(path)
    return folder


def tree(path):
    """Every file below a path, or the file itself, with its bytes."""
    if os.path.isfile(path):
        return {"": read_bytes(path)}
    return {os.path.relpath(os.path.join(at, name), path): read_bytes(os.path.join(at, name))
            for at, _, names in os.walk(path) for name in names}


def on_one_and_more(arguments, folder, name, ranks):
    """Runs a verb with --output on one rank and on several, which must write the same bytes."""
    outputs = {}
    for n in [1, *ranks]:
        output = os.path.join(folder, f"out{n}", name)
        os.makedirs(os.path.dirname(output), exist_ok=True)
        done = must([*arguments, "--output", output], n)
        check(done.stdout.count(" -> ") == 1, f"{n} ranks must print one line but printed {done.stdout}")
        outputs[n] = tree(output)
        check(outputs[n], f"nothing in {output}")
        check(outputs[n].keys() == outputs[1].keys(), f"{n} ranks wrote {sorted(outputs[n])}, one rank {sorted(outputs[1])}")
        for file, data in outputs[1].items():
            check(outputs[n][file] == data, f"{file or name} differs between {n} ranks and one")
    print(f"  {arguments[0]} {name}: {len(outputs[1])} files, the same on 1 and {ranks} ranks")
    return outputs[1]


def test_predict_on_several_ranks_writes_what_one_rank_writes(folder, recipe):
    if not MPIRUN:
        return
    pictures = write_pictures(os.path.join(folder, "pictures"), 150)  # two batches of 64 and one of 22
    must(["train", recipe, "run.name=classes"])
    classes = ["predict", recipe, "run.name=classes", "--input", pictures]
    rows = on_one_and_more(classes, folder, "classes.csv", [2, 4])[""].decode().splitlines()
    check(len(rows) == 151 and rows[0].startswith("file,class") and rows[1].split(",")[0].endswith("a/000.png"), rows[:2])
    mae = ["run.name=mae", "model.kind=mae", "model.decoder_embed_dim=32", "model.decoder_depth=1",
           "model.decoder_num_heads=2", "model.drop_path_rate=0", "train.steps=5"]
    must(["train", recipe, *mae])
    check(len(on_one_and_more(["predict", recipe, *mae, "--input", pictures], folder, "mae", [2])) == 600, "four pictures a file")
    sap = ["run.name=sap", "model.kind=sap", "model.decoder_embed_dim=16", "model.num_classes=2", "model.drop_path_rate=0",
           "train.steps=3", "data.batch_size=8", "eval.sources=[]", "data.sources=[{reader: random, root: '32'}]"]
    must(["train", recipe, *sap])
    few = write_pictures(os.path.join(folder, "few"), 7, 20)
    masks = on_one_and_more(["predict", recipe, *sap, "--input", os.path.join(few, "*", "*.png")], folder, "masks", [2, 4])
    check(len(masks) == 7, f"{sorted(masks)}")
    # A file that only the second rank reads.
    with open(os.path.join(pictures, "a", "140.png"), "w") as out:
        out.write("broken")
    done = run([*classes, "--output", os.path.join(folder, "broken.csv")], 2, timeout=60)
    check(done.returncode == 3 and "140.png" in done.stderr, f"exit {done.returncode}\n{done.stderr}")
    check(not os.path.exists(os.path.join(folder, "broken.csv")), "no half of a file")


def test_sample_on_several_ranks_draws_what_one_rank_draws(folder, recipe):
    if not MPIRUN:
        return
    model = ["run.name=draws", "model.kind=diffusion", "model.decoder=linear", "model.num_timesteps=10", "model.drop_path_rate=0",
             "train.steps=5", "logging.html=false"]
    must(["train", recipe, *model])
    draw = ["sample", recipe, *model, "--count", "10", "--batch", "3", "--steps", "4"]
    check(len(on_one_and_more(draw, folder, "folder", [2, 4])) == 11, "ten samples and a sheet")
    on_one_and_more(draw, folder, "sheet.png", [2])
    on_one_and_more([*draw, "--method", "ddpm"], folder, "samples.safetensors", [3])


def test_ranks_that_share_samples_may_read_them_once(folder, recipe):
    if not MPIRUN:
        return
    layout = ["parallel.strategy=ddp", "parallel.tensor=2", "train.steps=15"]
    curves = {share: losses(train(folder, recipe, share, 4, *layout, f"data.share={share}")) for share in ["every_rank", "load_once"]}
    check(len(curves["load_once"]) == 15 and curves["load_once"] == curves["every_rank"], f"{curves}")
    weights = [read_bytes(os.path.join(folder, "runs", share, "weights.safetensors")) for share in curves]
    check(weights[0] == weights[1], "weights differ")
    evaluations = [json.loads(must(["eval", recipe, "run.name=load_once", *layout, f"data.share={share}", "--json"], 4).stdout)
                   for share in curves]
    check(evaluations[0] == evaluations[1] and evaluations[0]["samples"] == 81, f"{evaluations}")
    pictures = write_pictures(os.path.join(folder, "pictures"), 64)
    for i in range(0, 64, 2):
        with open(os.path.join(pictures, "a", f"{i:03}.png"), "w") as out:
            out.write("broken")
    done = run(["train", recipe, *layout, "run.name=fails", "data.share=load_once",
                f"data.sources=[{{reader: image_folder, root: {pictures}}}]"], 4, timeout=60)
    lines = [line for line in done.stderr.splitlines() if ".png" in line]
    check(done.returncode == 3 and lines and done.seconds < 30, f"exit {done.returncode} after {done.seconds:.0f} s\n{done.stderr}")
    print(f"  tensor 2 x replicate 2: {done.seconds:.1f} s, {len(lines)} lines: {lines[0]}")


def test_losses_do_not_depend_on_the_number_of_ranks(folder, recipe):
    counts = [1, 2, 4] if MPIRUN else [1]
    curves = {n: losses(train(folder, recipe, f"ranks{n}", n)) for n in counts}
    # fp32: the order of additions differs between layouts; worst seen is printed below.
    for n in counts[1:]:
        first = relative(curves[1][1], curves[n][1])
        worst = max(relative(curves[1][step], curves[n][step]) for step in range(1, 21))
        print(f"  {n} ranks against 1: first step {first:.2e}, worst of 20 steps {worst:.2e}")
        check(first <= 1e-6, f"first loss of {n} ranks differs by {first:.2e}")
        check(worst <= 1e-5, f"loss of {n} ranks differs by {worst:.2e}")


def test_resume_is_equal(folder, recipe):
    for ranks in [1, 4] if MPIRUN else [1]:
        straight = train(folder, recipe, f"straight{ranks}", ranks)
        train(folder, recipe, f"halves{ranks}", ranks, "train.steps=10")
        halves = train(folder, recipe, f"halves{ranks}", ranks)
        check(losses(straight) == losses(halves), f"losses after resuming differ on {ranks} ranks")
        check([r["step"] for r in metrics(halves)[0]] == list(range(1, 21)), "each step must stand once in metrics.jsonl")
        check(read_bytes(os.path.join(straight, "weights.safetensors")) == read_bytes(os.path.join(halves, "weights.safetensors")),
              f"weights after resuming differ on {ranks} ranks")
        print(f"  {ranks} ranks: 20 steps = 10 + 10, losses and weights bit-equal")


def test_a_stop_signal_saves_and_the_same_command_goes_on(folder, recipe):
    straight = train(folder, recipe, "calm", 1, "train.steps=400", "checkpoint.every_steps=0", "logging.every_steps=20")
    for name, sent in [("term", signal.SIGTERM), ("usr1", signal.SIGUSR1)]:
        overrides = [f"run.name={name}", "train.steps=400", "checkpoint.every_steps=0", "logging.every_steps=20"]
        path = os.path.join(folder, "runs", name, "metrics.jsonl")
        process = subprocess.Popen(command(["train", recipe, *overrides]), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        deadline = time.time() + 60
        while time.time() < deadline and not (os.path.exists(path) and os.path.getsize(path) > 0):
            time.sleep(0.01)
        process.send_signal(sent)
        errors = process.communicate(timeout=60)[1]
        check(process.returncode == 75, f"exit code must be 75 but is {process.returncode}: {errors}")
        check(len(errors.splitlines()) == 1 and errors.startswith("[train] SIG"), f"stderr: {errors}")
        must(["train", recipe, *overrides])
        check(losses(straight) == losses(os.path.join(folder, "runs", name)), "losses after the stop differ")
        print(f"  {errors.strip()}")


def test_a_newest_checkpoint_that_is_broken_is_named_and_skipped(folder, recipe):
    run_folder = train(folder, recipe, "bitten")
    expected = read_bytes(os.path.join(run_folder, "weights.safetensors"))
    newest = os.path.join(run_folder, "checkpoints", "step-00000020")
    victim = [name for name in sorted(os.listdir(newest)) if name.endswith(".safetensors")][0]
    data = bytearray(read_bytes(os.path.join(newest, victim)))
    data[len(data) // 2] ^= 4
    with open(os.path.join(newest, victim), "wb") as out:
        out.write(data)
    done = must(["train", recipe, "run.name=bitten"])
    check("step-00000020" in done.stdout + done.stderr, "the skipped checkpoint must be named")
    check("step 10 of 20" in done.stdout, f"the run must go on from step 10:\n{done.stdout}")
    check(read_bytes(os.path.join(run_folder, "weights.safetensors")) == expected, "weights must be as without the fault")


def test_dry_run_writes_nothing(folder, recipe):
    done = must(["train", recipe, "run.name=dry", "--dry-run"])
    check("parameters" in done.stdout and "no step was run" in done.stdout, done.stdout)
    check(not os.path.exists(os.path.join(folder, "runs", "dry")), "a dry run must not write")


def test_a_failing_rank_ends_the_job(folder, recipe):
    if not MPIRUN:
        return
    broken = os.path.join(folder, "short.csv.gz")
    import gzip
    with gzip.open(broken, "wt") as out:
        out.write("1,2,3\n")
    done = run(["train", recipe, f"data.sources[0].root={broken}", "run.name=fails"], 2, timeout=60)
    check(done.returncode != 0, "must fail")
    check(done.seconds < 30, f"took {done.seconds:.0f} s")
    # A job of which one rank alone sees the fault: its output folder is below a file.
    blocked = os.path.join(folder, "blocked")
    open(blocked, "w").close()
    done = run(["train", recipe, f"run.output={blocked}/runs"], 2, timeout=60)
    check(done.returncode != 0 and done.seconds < 30, f"exit {done.returncode} after {done.seconds:.0f} s")
    check("[rank 0/2" in done.stderr, f"the failing rank must be named:\n{done.stderr}")
    print(f"  two ranks, rank 0 fails: exit code {done.returncode} after {done.seconds:.1f} s")


def main():
    tests = {name: function for name, function in globals().items() if name.startswith("test_")}
    chosen = sys.argv[1:] or list(tests)
    failures = 0
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix="vitrail-") as folder:
            start = time.time()
            print(f"{name[5:].replace('_', ' ')}", flush=True)
            try:
                tests[name](folder, make_workplace(folder))
            except (AssertionError, SystemExit, subprocess.TimeoutExpired) as error:
                failures += 1
                print(f"  FAILED: {error}")
            print(f"  {time.time() - start:.1f} s", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
