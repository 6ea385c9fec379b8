"""Runs `vitrail bench attention` and `vitrail bench gemm` on the CPU. VITRAIL names the program."""

import json
import os
import tempfile

from program import make_workplace, must, run

ATTENTION_KEYS = ["samples", "tokens", "heads", "kv_heads", "head_width", "lengths", "kind", "forward_ms", "forward_tflops",
                  "forward_ratio", "both_ms", "both_tflops", "both_ratio", "forward_error", "backward_error", "workspace_bytes",
                  "build_ms"]
GEMM_KEYS = ["trunk", "position", "pass", "count", "m", "n", "k", "kind", "first_ms", "ms", "tflops", "algorithm"]


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def attention(folder):
    path = os.path.join(folder, "attention.json")
    brief = ["--device", "cpu", "--seconds", "0.02"]
    done = must(["bench", "attention", *brief, "--shapes", "2x17x4x16,1x9x4x8x2", "--lengths", "--json", path])
    found = json.load(open(path))
    check([r["kind"] for r in found["rows"]] == ["aten", "plain"] * 2, f"kinds {[r['kind'] for r in found['rows']]}")
    for row in found["rows"]:
        check(list(row) == ATTENTION_KEYS, f"keys are {list(row)}")
        # bf16 keeps 8 bits: root mean square 1e-3 a rounding, and a few of them follow one another.
        check(0 < row["forward_error"] < 1e-2 and 0 < row["backward_error"] < 2e-2, f"{row}")
        check(row["forward_ms"] > 0 and row["both_ms"] > 0 and row["lengths"], f"{row}")
    check([r["kv_heads"] for r in found["rows"]] == [4, 4, 2, 2], f"{found['rows']}")
    check(len(done.stdout.splitlines()) == 6, f"a heading of two lines and four rows: {done.stdout}")
    only = json.loads(must(["bench", "attention", *brief, "--shapes", "1x8x1x8", "--kinds", "plain", "--forward-only", "--json", "-"]).stdout)
    check([(r["kind"], r["both_ms"], r["forward_ratio"]) for r in only["rows"]] == [("plain", None, None)], f"{only}")
    for shape in ("3x4x5", "1x8x3x8x2", "1x8x2x12", "0x8x2x8", "axbxcxd"):
        refused = run(["bench", "attention", "--shapes", shape])
        check(refused.returncode == 2 and shape in refused.stderr, f"{shape}: {refused.returncode} {refused.stderr}")


def gemm(folder):
    recipe = make_workplace(folder)
    path = os.path.join(folder, "gemm.json")
    brief = ["--device", "cpu", "--seconds", "0.01"]
    done = must(["bench", "gemm", recipe, *brief, "--json", path])
    found = json.load(open(path))
    rows = found["rows"]
    check(all(list(row) == GEMM_KEYS for row in rows), f"keys are {list(rows[0])}")
    # 32 samples of 16 tokens and a class token, 32 wide, hidden 64, 3 blocks.
    sides = {(r["position"], r["pass"]): (r["m"], r["n"], r["k"], r["count"]) for r in rows}
    check(sides == {("qkv", "forward"): (544, 96, 32, 3), ("qkv", "input"): (544, 32, 96, 3), ("qkv", "weight"): (96, 32, 544, 3),
                    ("proj", "forward"): (544, 32, 32, 3), ("proj", "input"): (544, 32, 32, 3), ("proj", "weight"): (32, 32, 544, 3),
                    ("up", "forward"): (544, 64, 32, 3), ("up", "input"): (544, 32, 64, 3), ("up", "weight"): (64, 32, 544, 3),
                    ("down", "forward"): (544, 32, 64, 3), ("down", "input"): (544, 64, 32, 3), ("down", "weight"): (32, 64, 544, 3)},
          f"{sides}")
    check(abs(found["ms"] - sum(r["count"] * r["ms"] for r in rows)) < 1e-6 * found["ms"], "the sum is that of the rows")
    check(len(done.stdout.splitlines()) == 13, done.stdout)
    half = json.loads(must(["bench", "gemm", recipe, "train.micro_batches=2", *brief, "--json", "-"]).stdout)
    check(half["rows"][0]["m"] == 272 and half["rows"][0]["count"] == 6, f"{half['rows'][0]}")
    refused = run(["bench", "gemm", recipe, *brief, "--table", os.path.join(folder, "table.txt")])
    check(refused.returncode == 2 and "--table" in refused.stderr, f"{refused.returncode} {refused.stderr}")


with tempfile.TemporaryDirectory() as place:
    attention(place)
    gemm(place)
