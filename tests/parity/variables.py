"""vitrail's variables (every aggregation), variable subsets and adaptive leaves against the formulas written out in PyTorch.

Padding is tested by leaving it out: the peer computes every sample alone, on its real leaves only.
"""
import math
import os

import torch
from torch import nn
from torch.nn import functional as F

import common
from blocks import Block, Mlp

WIDTH, HEADS, PATCH, SIDES, CLASSES = 24, 3, 4, (12, 8), 5
LEAVES = 9
TRAINING = common.recipe
NORM = lambda width: nn.LayerNorm(width, eps=1e-6)
# bf16 keeps 8 bits: 2^-9 a rounding, some dozens of them on the way to a gradient.
BF16 = 6e-2


def trunk(width, heads, depth):
    return nn.ModuleList([Block(width, heads, NORM, lambda: Mlp(width, 2 * width)) for _ in range(depth)])


def sincos(count, width):
    rates = 10000.0 ** (-torch.arange(width // 2).double() / (width / 2))
    at = torch.arange(count).double()[:, None] * rates
    return torch.cat([at.sin(), at.cos()], 1)


def grid_table(width):
    rows, columns = torch.meshgrid(*[torch.arange(side // PATCH) for side in SIDES], indexing="ij")
    code = sincos(max(SIDES), width // 2)
    return torch.cat([code[columns.flatten()], code[rows.flatten()]], 1).float()


class Linear(nn.Module):
    """Mean over the tokens that are there, each times its weight."""
    def __init__(self, known):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(known))

    def forward(self, tokens, ids):
        return sum(self.weight[i] * token for i, token in zip(ids, tokens)) / len(ids)


class Cross(nn.Module):
    """softmax(q k / sqrt(E)) v over the tokens of one place, head by head, for every query."""
    def __init__(self, heads, queries, own_query):
        super().__init__()
        self.heads = heads
        if own_query:
            self.query = nn.Parameter(torch.zeros(1, queries, WIDTH))
        self.q, self.kv = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)
        if queries > 1:
            self.merge = nn.Linear(queries * WIDTH, WIDTH)

    def forward(self, tokens, ids, query=None):
        query = self.query if query is None else query
        x = torch.stack(tokens, -2)  # [..., V, D]
        keys, values = self.kv(x).chunk(2, -1)
        each, results = WIDTH // self.heads, []
        for one in self.q(query)[0]:
            heads = []
            for n in range(self.heads):
                part = slice(n * each, (n + 1) * each)
                weights = (keys[..., part] @ one[part] / math.sqrt(each)).softmax(-1)
                heads.append((weights[..., None] * values[..., part]).sum(-2))
            results.append(self.proj(torch.cat(heads, -1)))
        return results[0] if len(results) == 1 else self.merge(torch.cat(results, -1))


class Leaf(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.norm1, self.proj, self.norm2 = nn.LayerNorm(values), nn.Linear(values, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x):
        return self.norm2(self.proj(self.norm1(x)))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(1, WIDTH, PATCH, PATCH)

    def forward(self, image):
        return self.proj(image[:, None]).flatten(2).transpose(1, 2)


class Net(nn.Module):
    """kind vit or mae. `image` is [B, V, H, W], or [B, V, L, P^2] with boxes [B, L, 4] (low row, low column, high ...).

    apart: every variable has leaves of its own, [B, 1, V * L, P^2], which are never aggregated. area: a leaf counts in the
    loss by the pixels it covers.
    """

    def __init__(self, kind, variables=4, adaptive=False, table=False, separate=True, embed=True, aggregation="cross_attention",
                 queries=1, heads=HEADS, groups=1, partial="linear", shared=False, single=False, pool="token", mask_ratio=0.5,
                 apart=False, area=False):
        super().__init__()
        self.kind, self.known, self.adaptive, self.single, self.groups = kind, variables, adaptive, single, groups
        self.pool, self.mask_ratio, self.mixed = pool, mask_ratio, separate is None
        self.apart, self.area = apart, area
        places = LEAVES * (variables if apart else 1) if adaptive else SIDES[0] * SIDES[1] // PATCH ** 2
        layer = (lambda channels: Leaf(channels * PATCH ** 2)) if adaptive else lambda channels: Convolution()
        if self.mixed:
            self.patch_embed = layer(variables)
        else:
            self.token_embeds = nn.ModuleList([layer(1) for _ in range(variables if separate else 1)])
            if embed:
                self.var_embed = nn.Parameter(sincos(variables, WIDTH).float()[None])
            if not single and not apart:
                if groups > 1:
                    size = variables // groups
                    one = lambda: Linear(size) if partial == "linear" else Cross(heads, 1, True)
                    self.var_groups = nn.ModuleList([one() for _ in range(1 if shared else groups)])
                if aggregation == "linear":
                    self.var_agg = Linear(groups if groups > 1 else variables)
                else:
                    self.var_query = nn.Parameter(torch.zeros(1, queries, WIDTH))
                    self.var_agg = Cross(heads, queries, False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.add_positions("", WIDTH, places, adaptive, table)
        self.blocks, self.norm = trunk(WIDTH, HEADS, 2), NORM(WIDTH)
        if kind == "vit":
            self.head = nn.Linear(WIDTH, CLASSES)
            if pool == "avg":
                self.fc_norm, self.norm = self.norm, nn.Identity()
        else:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, 16))
            self.decoder_embed = nn.Linear(WIDTH, 16)
            self.add_positions("decoder_", 16, places, adaptive, table)
            if apart:
                self.decoder_var_embed = nn.Parameter(sincos(variables, 16).float()[None])
            self.decoder_blocks, self.decoder_norm = trunk(16, 2, 1), NORM(16)
            self.decoder_pred = nn.Linear(16, PATCH ** 2 * variables)

    def add_positions(self, prefix, width, places, adaptive, table):
        if adaptive and not table:
            layer = nn.Module()
            layer.proj = nn.Linear(3, width)
            setattr(self, prefix + "leaf_position", layer)
        else:
            start = torch.zeros(1 + places, width)
            if not adaptive:
                start[1:] = grid_table(width)
            setattr(self, prefix + "pos_embed", nn.Parameter(start[None]))

    def positions(self, prefix, boxes, rows):
        """Of the class token and of the places `rows` of one sample."""
        if hasattr(self, prefix + "leaf_position"):
            layer = getattr(self, prefix + "leaf_position").proj
            low, high = boxes[rows, :2] / torch.tensor(SIDES), boxes[rows, 2:] / torch.tensor(SIDES)
            size = (high - low).mean(1, keepdim=True)
            coded = F.gelu(layer(torch.cat([size, (low + high) / 2], 1)))
            return torch.cat([torch.zeros(1, coded.shape[1]), coded])
        table = getattr(self, prefix + "pos_embed")[0]
        return torch.cat([table[:1], table[1:][self.places[rows]]])

    def tokens(self, image, ids):
        if self.mixed:
            return self.patch_embed(image.permute(0, 2, 3, 1).flatten(2))
        tokens = []
        for place, v in enumerate(ids):
            pixels = image[:, 0, place * LEAVES:(place + 1) * LEAVES] if self.apart else image[:, place]
            token = self.token_embeds[v if len(self.token_embeds) > 1 else 0](pixels)
            tokens.append(token + self.var_embed[0, v] if hasattr(self, "var_embed") else token)
        if self.single:
            return tokens[0]
        if self.apart:
            return torch.cat(tokens, 1)
        present = list(ids)
        if self.groups > 1:
            size, gathered = self.known // self.groups, []
            present = []
            for g in range(self.groups):
                members = [place for place, v in enumerate(ids) if v // size == g]
                if members:
                    group = self.var_groups[g if len(self.var_groups) > 1 else 0]
                    gathered.append(group([tokens[m] for m in members], [ids[m] % size for m in members]))
                    present.append(g)
            tokens = gathered
        return self.var_agg(tokens, present, self.var_query) if hasattr(self, "var_query") else self.var_agg(tokens, present)

    def encode(self, tokens, boxes, rows):
        x = torch.cat([self.cls_token[0], tokens[rows]]) + self.positions("", boxes, rows)
        x = x[None]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[0]

    def classify(self, tokens, boxes, rows):
        x = self.encode(tokens, boxes, rows)
        return self.head(self.fc_norm(x[1:].mean(0)) if self.pool == "avg" else x[0])

    def reconstruct(self, tokens, boxes, rows, noise):
        """Prediction of the places `rows` and which of them are hidden."""
        order = noise[rows].argsort()
        kept = max(1, math.floor(len(rows) * (1 - self.mask_ratio)))
        visible = order[:kept]
        x = self.decoder_embed(self.encode(tokens, boxes, rows[visible]))
        full = self.mask_token[0].expand(len(rows), -1).clone()
        full[visible] = x[1:]
        if self.apart:
            full = full + self.decoder_var_embed[0, self.variable_of[rows]]
        x = (torch.cat([x[:1], full]) + self.positions("decoder_", boxes, rows))[None]
        for block in self.decoder_blocks:
            x = block(x)
        mask = torch.ones(len(rows))
        mask[visible] = 0
        return self.decoder_norm(x)[0, 1:], mask

    def rows_of(self, boxes, b, count):
        if boxes is None:
            return torch.arange(count)
        return ((boxes[b, :, 2:] - boxes[b, :, :2]) > 0).all(1).nonzero().flatten()

    def run(self, image, ids, boxes=None, noise=None, label=None):
        tokens = self.tokens(image, ids)
        count = tokens.shape[1]
        self.variable_of = torch.tensor(ids).repeat_interleave(LEAVES)
        self.places = torch.arange(count)
        if self.apart:
            self.places = self.variable_of * LEAVES + torch.arange(LEAVES).repeat(len(ids))
        samples = [(tokens[b], None if boxes is None else boxes[b], self.rows_of(boxes, b, count)) for b in range(len(tokens))]
        if self.kind == "vit":
            output = torch.stack([self.classify(*sample) for sample in samples])
            return {"output": output}, F.cross_entropy(output, label)
        if self.adaptive:
            target = image.permute(0, 2, 3, 1).flatten(2)
        else:
            target = image.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(2, 3).flatten(3).permute(0, 2, 3, 1).flatten(2)
        weight = self.decoder_pred.weight.view(PATCH ** 2, self.known, -1)
        bias = self.decoder_pred.bias.view(PATCH ** 2, self.known)
        output, mask = torch.zeros_like(target), torch.zeros(target.shape[:2])
        total, counted = 0, 0
        for b, sample in enumerate(samples):
            x, hidden = self.reconstruct(*sample, noise[b])
            rows = sample[2]
            if self.apart:
                of = self.variable_of[rows]
                prediction = torch.stack([weight[:, v] @ one + bias[:, v] for v, one in zip(of, x)])
            else:
                prediction = F.linear(x, weight[:, ids].flatten(0, 1), bias[:, ids].flatten())
            counts = (sample[1][rows, 2:] - sample[1][rows, :2]).prod(1) * hidden if self.area else hidden
            total = total + ((prediction - target[b, rows]).square().mean(-1) * counts).sum()
            counted = counted + counts.sum()
            output[b, rows], mask[b, rows] = prediction, hidden
        return {"output": output, "mask": mask}, total / counted


def model_alone(where, model):
    """A recipe that trains nothing: readers of adaptive patches are not needed for a forward pass."""
    path = os.path.join(where, "recipe.yaml")
    with open(path, "w") as file:
        file.write("\n".join(["run: {name: parity, device: cpu}", "model:"] + [f"  {key}: {value}" for key, value in model.items()]) + "\n")
    return path


def recipe_of(net, options):
    model = {"kind": net.kind, "image_size": list(SIDES), "patch_size": PATCH, "in_channels": net.known, "embed_dim": WIDTH,
             "depth": 2, "num_heads": HEADS, "mlp_ratio": 2, "pos_embed": "learned", "num_classes": CLASSES}
    if not net.mixed:
        model["variables"] = [f"v{v}" for v in range(net.known)]
    if net.kind == "mae":
        model.update(decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, decoder_mlp_ratio=2, loss="masked_mse",
                     mask_ratio=net.mask_ratio)
    if net.adaptive:
        table, trees = str(not options.get("table", False)).lower(), "per_channel" if net.apart else "shared"
        model["adaptive"] = (f"{{fixed_length: {LEAVES}, token_norm: true, position_embedding: {table}, trees: {trees}, "
                             f"area_weight: {str(net.area).lower()}}}")
    words = {"separate": ("shared_tokenizer", lambda v: str(not v).lower()), "embed": ("variable_embedding", lambda v: str(v).lower()),
             "single": ("single_channel", lambda v: str(v).lower()), "pool": ("pool", str)}
    for key, value in options.items():
        if key in words and value is not None:
            model[words[key][0]] = words[key][1](value)
    inner = {"aggregation": "kind", "queries": "queries", "heads": "num_heads", "groups": "groups", "partial": "partial",
             "shared": "shared_groups"}
    given = [f"{inner[key]}: {str(value).lower()}" for key, value in options.items() if key in inner]
    if given:
        model["aggregation"] = "{" + ", ".join(given) + "}"
    return model


def leaf_inputs(batch, channels, trees=1):
    """Boxes inside the image; sample 1 has 4 leaves less a tree, with numbers in their place that must not matter."""
    low = torch.rand(batch, trees * LEAVES, 2) * torch.tensor([6.0, 4.0])
    boxes = torch.cat([low, low + 1 + torch.rand(batch, trees * LEAVES, 2) * 3], 2)
    for tree in range(trees):
        boxes[1, (tree + 1) * LEAVES - 4:(tree + 1) * LEAVES] = 0
    return torch.randn(batch, channels, trees * LEAVES, PATCH ** 2), boxes


def check(title, kind, ids=None, attention="sdpa", precision="fp32", allowed=common.ALLOWED, batch=3, **options):
    net = Net(kind, **options)
    common.scramble(net)
    ids_used = list(range(net.known)) if ids is None else ids
    boxes = None
    if net.adaptive:
        image, boxes = leaf_inputs(batch, 1, len(ids_used)) if net.apart else leaf_inputs(batch, len(ids_used))
    else:
        image = torch.randn(batch, len(ids_used), *SIDES)
    image.requires_grad_(True)
    places = image.shape[2] if net.adaptive else SIDES[0] * SIDES[1] // PATCH ** 2
    noise, label = torch.rand(batch, places), torch.arange(batch) % CLASSES
    results, loss = net.run(image, ids_used, boxes, noise, label)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)  # of absent variables it stays
    expected = common.with_gradients(results, loss, net.named_parameters(), image)
    inputs = {"leaf_tokens" if net.adaptive else "image": image}
    inputs.update({"label": label} if kind == "vit" else {"mask_noise": noise})
    if net.adaptive:
        inputs["leaf_boxes"] = boxes
        expected["grad/leaf_tokens"] = expected.pop("grad/image")
    if ids is not None:
        inputs["variable_ids"] = torch.tensor(ids)
    common.recipe = model_alone if net.adaptive else TRAINING
    source = [f"data.sources[0].variables=[v{ids_used[0]}]"] if net.single and not net.adaptive else []
    mine = common.forward(common.folder(), recipe_of(net, options), net.state_dict(), inputs, f"train.attention={attention}",
                          f"train.precision={precision}", *source)
    if net.adaptive and kind == "mae":  # what is predicted for padding means nothing
        mine["output"] = mine["output"] * ((boxes[..., 2:] - boxes[..., :2]) > 0).all(-1)[..., None]
    for name in [name for name, value in expected.items() if value.abs().max() == 0]:
        assert mine.pop(name).abs().max() == 0, f"{title}: {name} must be zero"
        expected.pop(name)
    common.compare(f"{kind}, {title}, {attention}, {precision}", mine, expected, allowed)


for kind in ("vit", "mae"):
    for attention in ("sdpa", "plain"):
        check("one query", kind, attention=attention)
    check("other order and subset", kind, ids=[3, 0])
    check("three queries, 2 heads, one tokenizer", kind, queries=3, heads=2, separate=False)
    check("linear, no variable embedding", kind, aggregation="linear", embed=False)
    check("linear, subset", kind, ids=[2], aggregation="linear")
    check("single channel", kind, ids=[2], single=True)
    check("one sample", kind, batch=1)
    for aggregation in ("cross_attention", "linear"):
        for partial in ("cross_attention", "linear"):
            for shared in (False, True):
                title = f"3 groups, {partial}, {'shared' if shared else 'own'} weights, then {aggregation}"
                check(title, kind, variables=6, aggregation=aggregation, groups=3, partial=partial, shared=shared)
    check("3 groups, one absent", kind, ids=[5, 0, 1], variables=6, groups=3, partial="cross_attention")
    check("all variables", kind, precision="bf16", allowed=BF16)

    for attention in ("sdpa", "plain"):
        check("leaves", kind, adaptive=True, separate=None, variables=2, attention=attention)
    check("leaves, table of positions", kind, adaptive=True, separate=None, variables=2, table=True)
    check("leaves of variables", kind, ids=[3, 1, 0], adaptive=True)
    check("leaves of variables, one tokenizer", kind, adaptive=True, separate=False)
    check("leaves of each variable's own tree", kind, adaptive=True, apart=True)
    check("own trees of some, one tokenizer, table", kind, ids=[3, 1], adaptive=True, apart=True, separate=False, table=True)
    check("leaves of one variable", kind, ids=[1], adaptive=True, single=True)
    check("leaves", kind, adaptive=True, separate=None, variables=2, precision="bf16", allowed=BF16)
check("leaves by area", "mae", adaptive=True, separate=None, variables=2, area=True)
check("leaves of own trees by area", "mae", adaptive=True, apart=True, area=True)
check("leaves, average pool", "vit", adaptive=True, separate=None, variables=2, pool="avg")
