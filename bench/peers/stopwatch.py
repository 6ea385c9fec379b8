"""What the peers share: a device, a training step under torch.compile, its timing, and the line they print.

Step: bf16 autocast over fp32 weights, SDPA (cuDNN first where a GPU is), fused AdamW, random data. Times are medians over
`--seconds` of hot steps, between CUDA events.
"""
import contextlib
import json
import statistics
import time

import torch


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=20, help="timed, after the warm-up")
    parser.add_argument("--warmup", type=int, default=10, help="steps before; the first compiles")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--compile-mode", default="default", help="default, reduce-overhead, max-autotune")
    parser.add_argument("--flash", action="store_true", help="FlashAttention before cuDNN")
    parser.add_argument("--json", help="file for the line as well")


def attention(options):
    """Which of PyTorch's attention kernels come first."""
    if options.device == "cpu":
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    if options.flash:
        order.reverse()
    return sdpa_kernel(order + [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True)


def compiled(model, options):
    model = model.to(options.device)
    return model if options.eager else torch.compile(model, mode=options.compile_mode)


def train_step(model, loss_of, options, lr=1e-4):
    """A function that does one step; loss_of(model) gives the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=True)
    kind = torch.device(options.device).type

    def step():
        with torch.autocast(kind, torch.bfloat16):
            loss = loss_of(model)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return step


def measure(step, options):
    """Milliseconds of each timed step."""
    on_gpu = torch.device(options.device).type == "cuda"
    for _ in range(options.warmup):
        loss = step()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    if not torch.isfinite(loss.detach()).item():
        raise SystemExit("the loss is not finite after the warm-up: the times would mean nothing")
    times, begin = [], time.perf_counter()
    while not times or time.perf_counter() - begin < options.seconds:
        if not on_gpu:
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
            continue
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(9)]
        marks[0].record()
        for mark in marks[1:]:
            step()
            mark.record()
        torch.cuda.synchronize()
        times += [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]
    return times


def report(name, batch, parameters, times, options, **more):
    """Prints one JSON line."""
    on_gpu = torch.device(options.device).type == "cuda"
    ms = statistics.median(times)
    cuts = statistics.quantiles(times, n=10) if len(times) > 1 else [ms] * 9
    line = {
        "peer": name,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "compiled": not options.eager,
        "compile_mode": None if options.eager else options.compile_mode,
        "attention": "flash" if options.flash else "cudnn",
        "batch_size": batch,
        "parameters": parameters,
        "steps": len(times),
        "ms": ms,
        "ms_p10": cuts[0],
        "ms_p90": cuts[-1],
        "images_per_second": 1e3 * batch / ms,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        **more,
    }
    text = json.dumps(line)
    print(text, flush=True)
    if options.json:
        with open(options.json, "w") as file:
            file.write(text + "\n")


def count(model):
    return sum(p.numel() for p in model.parameters())
