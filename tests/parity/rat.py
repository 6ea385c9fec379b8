"""vitrail's resolution-aware transformer against one written in PyTorch from its formulas: outputs, taps, losses and every
gradient, in fp64 (1e-10) and fp32 (1e-5), 2-D and 3-D, dense and sparse, every kind of positions, masks, and with the
switches that repeat what the first program does. Usage: rat.py VITRAIL RAT_PASS.

The peer stores every map and knows nothing of pieces; its sparse form masks a dense map."""
import math
import os
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import common

PASS = os.path.abspath(sys.argv[2])
# fp64 rounds at 1e-16; sums of a thousand terms, three refinements and three blocks lie behind one another, and softmaxes
# and norms amplify what came before. The peer always runs in fp64. Single numbers like a temperature have gradients that
# are sums of thousands of terms which nearly cancel: those below a hundredth of the largest gradient are compared with that.
ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-5}
EPS = 1e-8


def groups_of(n, k, s):
    return (n + 2 * ((k - 1) // 2) - k) // s + 1


class Rose(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, axes, head = c, len(c.sides), c.width // c.heads
        self.turned = int(c.width * c.ratio) // head
        self.planes = head // 2
        theta = {"none": c.theta, "linear": c.theta ** (1 / axes), "sqrt": c.theta ** (1 / math.sqrt(axes)),
                 "adaptive": c.theta ** (2 / (axes * c.width))}[c.law]
        n = self.turned * self.planes
        p = torch.arange(n)
        shift = [0 if c.axis_frequencies == "equal" else a * n // axes for a in range(axes)]
        w = torch.stack([theta ** (-((p + d) % n).double() / n) for d in shift], -1)
        self.w = w.view(self.turned, self.planes, axes)
        if c.learnable and c.position == "rose":
            self.log_offset = nn.Parameter(torch.randn(self.turned, self.planes, axes) * 0.1)
        if c.scaling != "none" and c.position == "rose":
            start = {"identity": [1, 1, 0, 1], "log": [0, 1, 1, 1], "rope": [0, 0, 0, 1]}[c.scaling]
            self.scaling = nn.Parameter(torch.tensor(start).float()[:, None].repeat(1, axes))

    def angles(self, grid, spacing, like):
        w = self.w.to(like)
        if hasattr(self, "log_offset"):
            w = torch.exp(torch.clamp(w.log() + self.log_offset, -10, 10))
        s = torch.tensor(spacing, dtype=like.dtype)
        if hasattr(self, "scaling"):
            a, b, c, d = self.scaling
            s = a * s ** b + c * torch.log(s / d.clamp_min(1e-8))
            s = torch.where(torch.isfinite(s), s, torch.ones_like(s))
        index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid], indexing="ij"), -1).flatten(0, -2).to(like)
        return torch.einsum("hpa,ta->htp", w, index * s)

    def forward(self, x, angle):
        """x [B, N, T, E] with the first heads turned by angle [turned, T, P]."""
        turned, rest = x[:, :self.turned], x[:, self.turned:]
        a, b = turned[..., 0::2], turned[..., 1::2]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2), rest], 1)


class Grouping(nn.Module):
    def __init__(self, c, block):
        super().__init__()
        D, conv = c.width, nn.Conv2d if len(c.sides) == 2 else nn.Conv3d
        self.c, self.k, self.s = c, c.kernel, c.strides[block]
        self.sparse = c.attention[block] == "sparse"
        self.conv = conv(D, D, c.kernel, self.s, (c.kernel - 1) // 2)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(D), nn.LayerNorm(D), nn.LayerNorm(D)
        self.kv, self.q = nn.Linear(D, 2 * D), nn.Linear(D, D)
        self.temperature = nn.Parameter(torch.tensor([(D if c.temperature == "width" else D // c.heads) ** -0.5]))
        if c.turns:
            self.rose = Rose(c)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(D, 4 * D), "fc2": nn.Linear(4 * D, D)})
        self.mask_embedding = nn.Parameter(torch.zeros(D))

    def seen(self, grid):
        """bool [G, L]: which cells a group may take."""
        per_axis = []
        for n in grid:
            w = min(self.c.neighbourhood, n)
            rows = []
            for g in range(groups_of(n, self.k, self.s)):
                first = min(max(g * self.s - w // 2, 0), n - w)
                rows.append([first <= cell < first + w for cell in range(n)])
            per_axis.append(torch.tensor(rows))
        seen = per_axis[0]
        for more in per_axis[1:]:
            seen = torch.einsum("gl,hm->ghlm", seen.int(), more.int()).flatten(0, 1).flatten(1).bool()
        return seen

    def forward(self, x, grid, spacing, valid):
        B, L, D = x.shape
        N = self.c.heads
        if valid is not None:
            x = torch.where(valid[..., None], x, self.mask_embedding)
        y = self.conv(x.transpose(1, 2).reshape(B, D, *grid))
        out_grid = y.shape[2:]
        y = self.norm1(y.flatten(2).transpose(1, 2))
        split = lambda t: t.view(B, t.shape[1], N, D // N).transpose(1, 2)
        viewed = self.c.heads_form == "viewed"
        for _ in range(self.c.iterations):
            k, v = self.kv(x).chunk(2, -1)
            k, q = split(k), split(self.q(y))
            if self.c.turns:
                k = self.rose(k, self.rose.angles(grid, spacing, x))
                q = self.rose(q, self.rose.angles(out_grid, [s * self.s for s in spacing], x))
            k = k * self.temperature
            v = v.reshape(B, N, L, D // N) if viewed else split(v)
            scores = q @ k.transpose(-1, -2)
            if self.sparse:
                scores = scores.masked_fill(~self.seen(grid), -math.inf)
            assignment = scores.softmax(-1)
            share = assignment / (assignment.sum(-2, keepdim=True) + EPS)
            taken = share @ v
            taken = taken.reshape(B, -1, D) if viewed else taken.transpose(1, 2).reshape(B, -1, D)
            y = y + self.norm2(taken)
            y = y + self.norm3(self.mlp.fc2(F.gelu(self.mlp.fc1(y))))
        return y, list(out_grid), [s * self.s for s in spacing], share, assignment


class Block(nn.Module):
    def __init__(self, c, block):
        super().__init__()
        D = c.width
        self.c = c
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-6), nn.LayerNorm(D, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(D, 3 * D), "proj": nn.Linear(D, D)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(D, 4 * D), "fc2": nn.Linear(4 * D, D)})
        if c.turns:
            self.rose = Rose(c)
        self.grouping = Grouping(c, block)

    def joint(self, x, grids, spacings):
        B, T, D = x.shape
        N = self.c.heads
        q, k, v = self.attn.qkv(self.norm1(x)).view(B, T, 3, N, D // N).permute(2, 0, 3, 1, 4)
        if self.c.turns:
            angle = torch.cat([self.rose.angles(g, s, x) for g, s in zip(grids, spacings)], 1)
            q, k = self.rose(q, angle), self.rose(k, angle)
        attended = (q @ k.transpose(-1, -2) / math.sqrt(D // N)).softmax(-1) @ v
        x = x + self.attn.proj(attended.transpose(1, 2).reshape(B, T, D))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))

    def forward(self, scales):
        """scales: a list of {x, grid, spacing, valid, share, assignment}, of which new ones are made."""
        made = []
        for one in scales:
            y, grid, spacing, share, assignment = self.grouping(one["x"], one["grid"], one["spacing"], one["valid"])
            valid = one["valid"]
            if valid is not None:
                pool = F.max_pool2d if len(grid) == 2 else F.max_pool3d
                valid = pool(valid.float().view(-1, 1, *one["grid"]), self.c.kernel, self.grouping.s,
                             (self.c.kernel - 1) // 2).flatten(1) > 0.5
            made.append({"x": y, "grid": grid, "spacing": spacing, "valid": valid,
                         "share": share @ one["share"] if one["share"] is not None else share,
                         "assignment": assignment @ one["assignment"] if one["assignment"] is not None else assignment})
        x = self.joint(torch.cat([one["x"] for one in made], 1), [one["grid"] for one in made],
                       [one["spacing"] for one in made])
        for one, part in zip(made, x.split([math.prod(one["grid"]) for one in made], 1)):
            one["x"] = part
        return made


def sincos(grid, spacing, width):
    axes = len(grid)
    part = width // axes
    rates = 10000.0 ** (-torch.arange(part // 2).double() / (part // 2))
    index = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in grid], indexing="ij"), -1).flatten(0, -2)
    columns = []
    for axis in ([1, 0] if axes == 2 else range(axes)):
        angle = index[:, axis:axis + 1] * spacing[axis] * rates
        columns += [angle.sin(), angle.cos()]
    return torch.cat(columns, -1).float()


class Rat(nn.Module):
    def __init__(self, c):
        super().__init__()
        conv = nn.Conv2d if len(c.sides) == 2 else nn.Conv3d
        self.c, D = c, c.width
        self.proj = conv(c.channels, D, c.proj, padding=(c.proj - 1) // 2)
        self.blocks = nn.ModuleList([Block(c, i) for i in range(c.depth)])
        if c.final_norm:
            self.norm = nn.LayerNorm(D, eps=1e-6)
        if c.head == "segmentation":
            outputs = 1 if c.loss.startswith("bce") else c.classes
            self.head = nn.ModuleDict({"fc1": nn.Linear(D, D // 2), "fc2": nn.Linear(D // 2, D // 4),
                                       "fc3": nn.Linear(D // 4, outputs)})
        else:
            self.head = nn.Linear(D, c.classes)

    def pyramid(self, image):
        """Means over equal parts of each axis: every pixel m times, then means of n neighbours, makes n pixels m."""
        made = []
        for scale in self.c.scales:
            x = image
            for axis, n in enumerate(self.c.sides):
                m = int(n * scale + 0.5)
                x = x.repeat_interleave(m, axis + 2).unflatten(axis + 2, (m, n)).mean(axis + 3)
            made.append(x)
        return made

    def forward(self, images, label, valids=None):
        c, scales, taps = self.c, [], {}
        for i, image in enumerate(images):
            grid = list(image.shape[2:])
            flat = c.spacing == "unit" or c.position == "rope"
            spacing = [1.0 if flat else n / m for n, m in zip(c.sides, grid)]
            x = self.proj(image).flatten(2).transpose(1, 2)
            if c.position == "absolute":
                x = x + sincos(grid, spacing, c.width).to(x)
            valid = None
            if valids is not None:
                pool = F.max_pool2d if len(grid) == 2 else F.max_pool3d
                valid = pool((~valids[i]).float()[:, None], c.proj, 1, (c.proj - 1) // 2).flatten(1) < 0.5
            scales.append({"x": x, "grid": grid, "spacing": spacing, "valid": valid, "share": None, "assignment": None})
        taps["embed"] = torch.cat([one["x"] for one in scales], 1)
        for i, block in enumerate(self.blocks):
            scales = block(scales)
            taps[f"blocks.{i}"] = torch.cat([one["x"] for one in scales], 1)
        for i, one in enumerate(scales):
            taps[f"maps.{i}"], taps[f"assignments.{i}"] = one["share"], one["assignment"]
        x = scales[0]["x"]
        if c.final_norm:
            x = self.norm(x)
        taps["norm"] = x
        if c.head == "classification":
            out = self.head(x.mean(1))
            return {"output": out, **{"tap/" + k: v for k, v in taps.items()}}, F.cross_entropy(out, label)
        z = self.head.fc3(F.relu(self.head.fc2(F.relu(self.head.fc1(x)))))
        z = z.transpose(1, 2).reshape(z.shape[0], -1, *scales[0]["grid"])
        z = F.interpolate(z, c.sides, mode="bilinear" if len(c.sides) == 2 else "trilinear", align_corners=False)
        if c.loss.startswith("bce"):
            loss = F.binary_cross_entropy_with_logits(z[:, 0], label.to(z))
            if c.loss == "bce_dice":
                p, g = z[:, 0].sigmoid(), label.to(z)
                p, g = p.flatten(1), g.flatten(1)
                loss = 0.5 * loss + 0.5 * (1 - (2 * (p * g).sum(1) + 1e-6) / (p.sum(1) + g.sum(1) + 1e-6)).mean()
            out = torch.cat([torch.zeros_like(z), z], 1)
        else:
            loss, out = F.cross_entropy(z, label), z
        return {"output": out, **{"tap/" + k: v for k, v in taps.items()}}, loss


class Case:
    """Options of one comparison, under the recipe's words where they differ from the peer's."""

    def __init__(self, sides=(18, 15), **more):
        self.sides, self.channels, self.classes, self.width, self.depth, self.heads = sides, 2, 2, 24, 3, 3
        self.scales, self.proj, self.kernel, self.strides, self.attention = (1.0, 0.5), 3, 3, (2, 1, 2), ("dense",) * 3
        self.neighbourhood, self.iterations, self.position, self.ratio, self.law = 3, 2, "rose", 0.7, "sqrt"
        self.axis_frequencies, self.learnable, self.scaling, self.spacing = "shifted", True, "identity", "scales"
        self.temperature, self.heads_form, self.final_norm, self.head, self.loss = "head", "transposed", True, "segmentation", "bce_dice"
        self.theta, self.workspace, self.maps, self.masks = 100.0, 1, "streamed", False
        self.__dict__.update(more)
        self.turns = self.position in ("rose", "rope")

    def recipe(self):
        rat = {"head": self.head, "scales": list(self.scales), "proj_kernel": self.proj, "attention": list(self.attention),
               "kernel": self.kernel, "stride": list(self.strides), "neighbourhood": self.neighbourhood,
               "iterations": self.iterations, "position": self.position, "rotary_ratio": self.ratio,
               "frequency_scaling": self.law, "axis_frequencies": self.axis_frequencies,
               "learnable_rose": str(self.learnable).lower(), "spacing_scaling": self.scaling, "spacing": self.spacing,
               "temperature": self.temperature, "heads": self.heads_form, "maps": self.maps, "workspace_mib": self.workspace}
        text = ", ".join(f"{key}: {'[' + ', '.join(map(str, value)) + ']' if isinstance(value, list) else value}" for key, value in rat.items())
        return {"kind": "rat", "image_size": list(self.sides), "in_channels": self.channels, "num_classes": self.classes,
                "embed_dim": self.width, "depth": self.depth, "num_heads": self.heads, "rope_theta": self.theta,
                "final_norm": str(self.final_norm).lower(), "loss": self.loss, "rat": "{" + text + "}"}


def setup(case):
    torch.manual_seed(3)
    peer = Rat(case)
    common.scramble(peer)
    peer.double()
    # Values that fp32 holds, so that both types compare the same model.
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(parameter.float())
    image = torch.randn(2, case.channels, *case.sides).double()  # fp32 holds its values too
    label = torch.randint(0, case.classes, (2, *case.sides) if case.head == "segmentation" else (2,))
    return peer, image, label


def check_pass(title, case, dtype):
    peer, image, label = setup(case)
    where = common.folder()
    given = {"weight/" + name: value.detach() for name, value in peer.named_parameters()}
    given["label"] = label
    taps = ["embed", "norm", "blocks.0", f"blocks.{case.depth - 1}", "maps.0", "assignments.1"]
    if case.masks:
        images = [part.detach().clone().requires_grad_(True) for part in peer.pyramid(image)]
        valids = [torch.rand(2, *part.shape[2:]) > 0.1 for part in images]
        valids[0][0] = True
        for valid in valids:
            valid[1, :valid.shape[1] * 3 // 4] = False  # groups of all blocks lie in it
        for s, (part, valid) in enumerate(zip(images, valids)):
            given[f"scale.{s}"], given[f"valid.{s}"] = part.detach(), valid.to(torch.uint8)
        results, loss = peer(images, label, valids)
    else:
        image.requires_grad_(True)
        given["image"] = image.detach()
        results, loss = peer(peer.pyramid(image), label)
        valids = None
    loss.backward()
    results = {key: value.detach() for key, value in results.items() if not key.startswith("tap/") or key[4:] in taps}
    results["loss"] = loss.detach()
    for name, parameter in peer.named_parameters():
        results["grad/" + name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    if case.masks:
        for s, part in enumerate(images):
            results[f"grad/scale.{s}"] = part.grad
    else:
        results["grad/image"] = image.grad
    recipe = common.recipe(where, case.recipe())
    files = [os.path.join(where, name) for name in ("in.safetensors", "out.safetensors")]
    save_file({key: (value.to(dtype) if value.is_floating_point() else value).contiguous() for key, value in given.items()},
              files[0])
    # Maps are made by asking for them, so the pass that is compared must also run without.
    worst = (0.0, "")
    for wanted in (taps, taps[:4]) if dtype == torch.float64 else (taps[:4],):
        done = subprocess.run([PASS, recipe, *files, *wanted], capture_output=True, text=True)
        assert done.returncode == 0, f"{title}: {done.stderr}"
        mine = load_file(files[1])
        expected = {key: value for key, value in results.items() if not key.startswith("tap/") or key[4:] in wanted}
        assert set(mine) == set(expected), f"{title}: names differ: {sorted(set(mine) ^ set(expected))[:6]}"
        scale = max(value.abs().max().item() for key, value in expected.items() if key.startswith("grad/"))
        for key, value in expected.items():
            a, b = mine[key].double(), value.double()
            assert a.shape == b.shape, f"{title}: {key} is {tuple(a.shape)}, not {tuple(b.shape)}"
            size = b.norm().item()
            if key.startswith("grad/"):
                size = max(size, 1e-2 * scale)
            worst = max(worst, ((a - b).norm().item() / size, key))
    print(f"{title}, {str(dtype)[6:]}: {len(results)} tensors, worst relative difference {worst[0]:.2e} at {worst[1]} "
          f"(allowed {ALLOWED[dtype]:.0e})")
    assert worst[0] <= ALLOWED[dtype], f"{title}: {worst[1]} differs by {worst[0]:.2e}"
    unused = () if case.masks else ("mask_embedding",)
    for key, value in results.items():
        if not key.endswith(unused or ("none",)) and not key.startswith("tap/"):
            assert value.abs().max() > 0, f"{title}: {key} of zeros tests nothing"


def check_program(case):
    """The same through `vitrail forward`."""
    peer, image, label = setup(case)
    image.requires_grad_(True)
    results, loss = peer(peer.pyramid(image), label)
    wanted = ("embed", "norm")
    results = {key: value for key, value in results.items() if not key.startswith("tap/") or key[4:] in wanted}
    results = finish(results, loss, peer, image)
    single = {name: value.float() for name, value in peer.named_parameters()}
    mine = common.forward(common.folder(), case.recipe(), single, {"image": image.float(), "label": label},
                          name_from="vitrail", taps=wanted)
    for name in [name for name in mine if name.endswith("mask_embedding")]:
        assert mine.pop(name).abs().max() == 0, "without masks nothing reads the mask embedding"
    common.compare("rat through vitrail forward", mine, results)


def finish(results, loss, peer, image):
    loss.backward()
    results = {key: value.detach() for key, value in results.items()}
    results["loss"] = loss.detach()
    for name, parameter in peer.named_parameters():
        if parameter.grad is not None:
            results["grad/" + name] = parameter.grad
    results["grad/image"] = image.grad
    return results


CASES = {
    "2-D dense": Case(),
    "2-D dense, maps stored": Case(maps="stored"),
    "2-D sparse and dense": Case(attention=("sparse", "sparse", "dense"), strides=(3, 1, 1), scales=(1.0, 2 / 3)),
    "2-D kernel 4": Case(sides=(16, 16), kernel=4, strides=(2, 2), depth=2, attention=("sparse", "dense")),
    "3-D dense": Case(sides=(8, 9, 10), width=24, scales=(1.0, 0.5), strides=(2, 2, 1)),
    "3-D sparse": Case(sides=(8, 9, 10), attention=("sparse",) * 3, strides=(2, 1, 1), loss="cross_entropy", classes=3),
    "fixed frequencies": Case(position="rope"),
    "sin-cos table": Case(position="absolute"),
    "no positions": Case(position="none", loss="bce"),
    "law none, log spacing": Case(law="none", scaling="log"),
    "law linear, spacing as it is": Case(law="linear", scaling="none"),
    "law adaptive, not learned": Case(law="adaptive", learnable=False, ratio=1.0),
    "masks": Case(masks=True),
    "masks, 3-D sparse": Case(sides=(8, 9, 10), masks=True, attention=("sparse",) * 3),
    "classification": Case(head="classification", loss="cross_entropy", classes=5),
    "as the first program": Case(heads_form="viewed", temperature="width", spacing="unit", scaling="log",
                                 axis_frequencies="equal", final_norm=False, attention=("dense", "sparse", "dense")),
}

IN_FP32 = ("2-D dense", "2-D sparse and dense", "3-D dense", "3-D sparse", "no positions", "as the first program")

# At spacing 1 the logarithmic start puts every cell at place 0; scramble() moves it away.
if __name__ == "__main__":
    for title, case in CASES.items():
        check_pass(title, case, torch.float64)
        if title in IN_FP32:
            check_pass(title, case, torch.float32)
    check_program(Case())
    check_program(Case(sides=(8, 9, 10), attention=("sparse",) * 3))
