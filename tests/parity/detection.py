"""Detection against its peers.

Numbers   IoU, GIoU and its gradient against torchvision's formulas, assignment against SciPy, COCO's average precision
          against pycocotools, on random cases each.
Passes    `vitrail forward` of vit_detection against the same model written in plain PyTorch with SciPy's assignment, in
          fp64: logits, boxes, loss and every gradient, for learned and grid queries, cross-entropy and focal loss."""
import math
import os
import random
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F
from torchvision.ops import box_iou, generalized_box_iou

import common

NUMBERS = os.path.abspath(sys.argv[2])
CASES = 250
# fp64 throughout, a dozen operations on numbers of order 1 to 1e4 each.
EXACT = 1e-12


def ask(cases):
    done = subprocess.run([NUMBERS], input="\n".join(cases), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases)
    return [[float(word) for word in line.split()] for line in lines]


def words(values):
    return " ".join(repr(float(value)) for value in np.asarray(values).flatten())


def random_corners(rng, count, side=100.0):
    low = rng.uniform(0, side, (count, 2))
    size = rng.uniform(0.5, side / 2, (count, 2))
    return np.concatenate([low, low + size], 1)


def check_overlaps():
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for case in range(CASES):
        count = 1 + case % 40
        side = [1.0, 100.0, 640.0][case % 3]
        pairs = np.concatenate([random_corners(rng, count, side), random_corners(rng, count, side)], 1)
        if case % 5 == 0:
            pairs[0, 4:] = pairs[0, :4] + np.array([0.25, 0.25, -0.25, -0.25]) * side / 100  # one inside the other
        cases.append(f"overlap {count} {words(pairs)}")
        leaf = torch.tensor(pairs, requires_grad=True)
        iou, giou = box_iou(leaf[:, :4], leaf[:, 4:]).diagonal(), generalized_box_iou(leaf[:, :4], leaf[:, 4:]).diagonal()
        giou.sum().backward()
        expected.append(torch.cat([iou.detach(), giou.detach(), leaf.grad.flatten()]).numpy())
    worst = 0.0
    for mine, peer in zip(ask(cases), expected):
        worst = max(worst, np.max(np.abs(np.array(mine) - peer) / np.maximum(np.abs(peer), 1)))
    print(f"overlap: {len(cases)} cases, worst difference {worst:.2e} (allowed {EXACT:.0e})")
    assert worst <= EXACT


def check_assignment():
    rng = np.random.default_rng(1)
    cases, costs = [], []
    for case in range(CASES):
        rows, columns = rng.integers(1, 41, 2) if case % 10 else (13, 100)
        cost = rng.normal(size=(rows, columns))
        if case % 4 == 1:
            cost = rng.integers(0, 5, (rows, columns)).astype(float)  # many equal costs
        if case % 4 == 2:
            cost *= 10.0 ** rng.integers(-8, 9)
        cases.append(f"assign {rows} {columns} {words(cost)}")
        costs.append(cost)
    worst, same = 0.0, 0
    for mine, cost in zip(ask(cases), costs):
        column = np.array(mine, dtype=int)
        used = column[column >= 0]
        assert len(set(used)) == len(used) == min(cost.shape), "not an assignment"
        rows, columns = linear_sum_assignment(cost)
        total, best = cost[np.arange(len(column))[column >= 0], used].sum(), cost[rows, columns].sum()
        worst = max(worst, abs(total - best) / np.abs(cost).max())
        same += np.array_equal(np.sort(rows), np.where(column >= 0)[0]) and np.array_equal(column[rows], columns)
    print(f"assign: {len(cases)} cases, worst relative difference of the sum {worst:.2e} (allowed {EXACT:.0e}), "
          f"{same} with the very same pairs")
    assert worst <= EXACT


def coco_case(rng, case):
    """A list of images with found boxes near true ones, wrong ones, crowds, equal scores and areas at the limits."""
    classes, images = int(rng.integers(1, 5)), []
    for _ in range(int(rng.integers(1, 8))):
        truth, found = [], []
        for _ in range(int(rng.integers(0, 12))):
            size = rng.choice([8, 16, 32, 64, 96, 200], 2) if case % 3 else rng.integers(4, 250, 2)
            low = rng.integers(0, 400, 2)
            box = [*low, *(low + size)]
            label, crowd = int(rng.integers(classes)), bool(rng.random() < 0.15)
            truth.append((box, label, float(size[0] * size[1]) * (0.7 if case % 4 == 0 else 1), crowd))
            for _ in range(int(rng.integers(0, 4))):
                shift = rng.integers(-size.min() // 4, size.min() // 4 + 1, 4)
                near = [max(0, int(a + b)) for a, b in zip(box, shift)]
                if near[2] > near[0] and near[3] > near[1]:
                    score = rng.random() if case % 2 else rng.integers(0, 6) / 8
                    found.append((near, label if rng.random() < 0.9 else int(rng.integers(classes)), float(score)))
        for _ in range(int(rng.integers(0, 130 if case % 7 == 0 else 5))):
            low, size = rng.integers(0, 400, 2), rng.integers(4, 150, 2)
            found.append(([*low, *(low + size)], int(rng.integers(classes)), float(rng.random())))
        images.append((found, truth))
    return classes, images


def pycocotools_numbers(classes, images):
    annotations, results = [], []
    for image, (found, truth) in enumerate(images):
        for box, label, area, crowd in truth:
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": label, "area": area,
                                "iscrowd": int(crowd), "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]})
        for box, label, score in found:
            results.append({"image_id": image, "category_id": label, "score": score,
                            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]})
    with open(os.devnull, "w") as quiet, redirect_stdout(quiet):
        coco = COCO()
        coco.dataset = {"images": [{"id": i} for i in range(len(images))], "annotations": annotations,
                        "categories": [{"id": c} for c in range(classes)]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results) if results else COCO(), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # [threshold, recall, class]
    of_class = [p[p > -1].mean() if (p > -1).any() else -1 for p in np.moveaxis(precision, 2, 0)]
    return np.concatenate([evaluation.stats, of_class])


def check_average_precision():
    rng = np.random.default_rng(2)
    cases, expected = [], []
    while len(cases) < CASES:
        classes, images = coco_case(rng, len(cases))
        if not any(found for found, _ in images):
            continue
        text = [f"coco {classes} {len(images)}"]
        for found, truth in images:
            text.append(str(len(found)))
            text += [words([*box, label, score]) for box, label, score in found]
            text.append(str(len(truth)))
            text += [words([*box, label, area, crowd]) for box, label, area, crowd in truth]
        cases.append(" ".join(text))
        expected.append(pycocotools_numbers(classes, images))
    worst, compared = 0.0, 0
    for mine, peer in zip(ask(cases), expected):
        mine = np.where(np.isnan(mine), -1, mine)  # pycocotools writes -1 for what does not exist
        worst = max(worst, np.max(np.abs(mine - peer)))
        compared += int((peer > -1).sum())
    print(f"coco: {len(cases)} cases, {compared} numbers, worst difference {worst:.2e} (allowed {EXACT:.0e})")
    assert worst <= EXACT


# ------------------------------------------------------------------------------------------------- the model

CLASSES, CHANNELS, WIDTH, HEADS, DECODER, QUERIES = 3, 3, 32, 4, 24, 7


def model_options(**more):
    flow = ", ".join(f"{key}: {value}" for key, value in more.items())
    return {"kind": "vit_detection", "image_size": [32, 48], "patch_size": 8, "in_channels": CHANNELS,
            "num_classes": CLASSES, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS, "mlp_ratio": 2,
            "detection": "{decoder_embed_dim: %d, decoder_num_heads: 3, num_queries: %d, %s}" % (DECODER, QUERIES, flow)}


def linear(w, name, x):
    return F.linear(x, w[name + ".weight"], w[name + ".bias"])


def norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-6)


def attention(w, name, q, k, v, heads, bias=0.0):
    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    q, k, v = (split(linear(w, f"{name}.{part}", x)) for part, x in (("q", q), ("k", k), ("v", v)))
    p = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
    return linear(w, name + ".proj", (p @ v).transpose(1, 2).flatten(2))


def backbone(w, image, options):
    x = F.conv2d(image, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=8).flatten(2).transpose(1, 2)
    x = x + w["pos_embed"]
    for i in range(2):
        name = f"blocks.{i}"
        qkv = linear(w, name + ".attn.qkv", norm(w, name + ".norm1", x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(w, name + ".attn.proj", y)
        y = norm(w, name + ".norm2", x)
        x = x + linear(w, name + ".mlp.fc2", F.gelu(linear(w, name + ".mlp.fc1", y)))
    return norm(w, "norm", x)


def waves(x, width):
    rates = 2 * math.pi * 20.0 ** (-torch.arange(width // 4, dtype=x.dtype) * 4 / width)
    angles = x[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


def logit(x):
    return torch.logit(x, 1e-4)


def say(w, prefix, x, places):
    h = F.relu(linear(w, prefix + "box.fc2", F.relu(linear(w, prefix + "box.fc1", x))))
    return linear(w, prefix + "class", x), torch.sigmoid(linear(w, prefix + "box.fc3", h) + places)


def head(w, tokens, grid, depth, focal):
    """The predictions, first ones first; the last is the final one."""
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    places = torch.stack([x.flatten() / columns, y.flatten() / rows], -1).to(tokens.dtype)
    memory = linear(w, "head.input", tokens)
    said = []
    if "head.dense_class.weight" in w:
        start = logit(torch.cat([places, torch.full_like(places, 0.1)], -1))
        said.append(say(w, "head.dense_", norm(w, "head.dense_norm", memory), start))
        scores = said[0][0].max(-1).values if focal else 1 - said[0][0].softmax(-1)[..., -1]
        best = scores.topk(QUERIES, 1).indices[..., None]
        content = memory.gather(1, best.expand(-1, -1, DECODER))
        place = logit(said[0][1].detach().gather(1, best.expand(-1, -1, 4)))
    else:
        content = w["head.query_contents"].expand(len(tokens), -1, -1)
        place = w["head.query_places"].expand(len(tokens), -1, -1)
    keys = memory + waves(places, DECODER)
    for i in range(depth):
        name, box = f"head.blocks.{i}", place.sigmoid()
        where = linear(w, "head.place.fc2", F.relu(linear(w, "head.place.fc1", waves(box, DECODER))))
        y = norm(w, name + ".norm1", content)
        content = content + attention(w, name + ".self", y + where, y + where, y, 3)
        offset = (places - box.detach()[..., None, :2]) / box.detach()[..., None, 2:]
        nearness = -w[name + ".reach"].exp()[:, None, None] * offset.square().sum(-1)[:, None]
        y = norm(w, name + ".norm2", content) + where
        content = content + attention(w, name + ".cross", y, keys, memory, 3, nearness)
        y = norm(w, name + ".norm3", content)
        content = content + linear(w, name + ".mlp.fc2", F.gelu(linear(w, name + ".mlp.fc1", y)))
        said.append(say(w, "head.", norm(w, "head.norm", content), place))
        place = logit(said[-1][1].detach())
    return said


def corners(boxes):
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def focal_pair(x, alpha=0.25, gamma=2.0):
    p = x.sigmoid()
    return alpha * (1 - p) ** gamma * F.softplus(-x), (1 - alpha) * p ** gamma * F.softplus(x)


def sample_loss(logits, boxes, truth, labels, focal, times):
    """DETR's loss of one sample, its terms divided by the sample's own number of pairs."""
    count = len(labels)
    with torch.no_grad():
        yes, no = focal_pair(logits)
        of_class = (yes - no if focal else -logits.softmax(-1))[:, labels]
        cost = of_class + 5 * torch.cdist(boxes, truth, p=1) - 2 * generalized_box_iou(corners(boxes), corners(truth))
        times = min(times, len(boxes) // count) if count else 1
        box, query = linear_sum_assignment(cost.T.repeat(times, 1)) if count else (np.zeros(0, int), np.zeros(0, int))
        box = box % max(count, 1)
    pairs = max(len(box), 1)
    target = torch.full((len(boxes),), CLASSES)
    target[query] = labels[box]
    if focal:
        hot = F.one_hot(target, CLASSES + 1)[:, :-1].bool()
        yes, no = focal_pair(logits)
        class_term = torch.where(hot, yes, no).sum() / pairs
    else:
        weight = torch.ones(CLASSES + 1, dtype=logits.dtype)
        weight[-1] = 0.1
        class_term = F.cross_entropy(logits, target, weight)
    distance = (boxes[query] - truth[box]).abs().sum()
    overlap = generalized_box_iou(corners(boxes[query]), corners(truth[box])).diagonal()
    return class_term + 5 * distance / pairs + 2 * (1 - overlap).sum() / pairs


def check_model(title, depth, focal, times=1, **more):
    options = model_options(decoder_depth=depth, class_loss="focal" if focal else "cross_entropy",
                            auxiliary_matches=times, **more)
    where = common.folder()
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(3, CHANNELS, 32, 48, generator=generator)
    rng = np.random.default_rng(4)
    boxes, labels = torch.zeros(3, 4, 4), torch.full((3, 4), -1)
    for sample, count in enumerate((4, 0, 2)):
        low = rng.uniform(0, 20, (count, 2))
        boxes[sample, :count] = torch.tensor(np.concatenate([low, low + rng.uniform(4, 12, (count, 2))], 1))
        labels[sample, :count] = torch.tensor(rng.integers(0, CLASSES, count))
    inputs = {"image": image, "boxes": boxes, "classes": labels}
    weights = random_weights(where, options, inputs, generator)
    mine = common.forward(where, options, weights, inputs)
    w = {name: value.double().requires_grad_(True) for name, value in weights.items()}
    leaf = image.double().requires_grad_(True)
    said = head(w, backbone(w, leaf, options), (4, 6), depth, focal)
    share = boxes.double() / torch.tensor([48.0, 32.0, 48.0, 32.0])
    truth = torch.cat([(share[..., :2] + share[..., 2:]) / 2, share[..., 2:] - share[..., :2]], -1)
    loss = 0
    for i, (logits, found) in enumerate(said):
        last = i + 1 == len(said)
        for sample in range(3):
            real = labels[sample] >= 0
            loss = loss + sample_loss(logits[sample], found[sample], truth[sample][real], labels[sample][real], focal,
                                      1 if last else times) / 3
    peer = common.with_gradients({"output": said[-1][0], "boxes": said[-1][1]}, loss, w.items(), leaf)
    # A bias added to every key moves all scores of a query alike, which softmax ignores: rounding is left of its gradient.
    for name in [name for name in peer if name.endswith(".k.bias")]:
        beside = peer[name.replace(".k.", ".q.")].norm().item()
        assert max(mine.pop(name).norm().item(), peer.pop(name).norm().item()) <= common.ALLOWED * beside, name
    common.compare(title, mine, peer)


def random_weights(where, options, inputs, generator):
    """Of the shapes that vitrail gives its gradients."""
    files = [os.path.join(where, name) for name in ("shapes-in.safetensors", "shapes.safetensors")]
    common.save_file(inputs, files[0])
    common.run("forward", common.recipe(where, options), "--input", files[0], "--output", files[1], "--backward")
    weights = {}
    for name, gradient in common.load_file(files[1]).items():
        if not name.startswith("grad/") or name == "grad/image":
            continue
        values = torch.randn(gradient.shape, generator=generator)
        scale = gradient[0].numel() ** -0.5 if name.endswith("weight") and gradient.dim() > 1 else 0.2
        is_norm = name.endswith("weight") and gradient.dim() == 1
        weights[name[5:]] = values * scale + (1 if is_norm else 0)
    return weights


if __name__ == "__main__":
    random.seed(0)
    check_overlaps()
    check_assignment()
    check_average_precision()
    check_model("learned queries, cross-entropy", 2, False)
    check_model("learned queries, focal", 2, True)
    check_model("grid queries, cross-entropy", 2, False, queries="grid")
    check_model("grid queries, focal, three matches", 2, True, 3, queries="grid")
    check_model("grid queries without decoder, focal", 0, True, queries="grid")
