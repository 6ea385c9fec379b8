"""Writes tests/models/golden_{losses,metrics,probe}.inc: what MONAI, torch and SciPy give on formula inputs.

run: .venv/bin/python3 tools/golden/losses.py     (needs torch, monai, numpy, scipy; about 10 s)

Inputs are formulas of the flat index i, repeated in the tests, so that only results are stored:
logits 2 sin(1.3 i + 0.2), labels (7 i + floor(i / 3)) mod C, every fifth label from the third on ignored where asked.
Everything is computed in fp64, apart from MONAI's FocalLoss and SSIMMetric, which convert to fp32 themselves.
"""
import pathlib

import monai
import numpy as np
import scipy
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, GeneralizedDiceLoss
from monai.metrics import DiceMetric, SSIMMetric
from scipy.ndimage import gaussian_filter

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "models"
VERSIONS = f"torch {torch.__version__}, monai {monai.__version__}, numpy {np.__version__}, scipy {scipy.__version__}"
SHAPES = {1: (6, 3), 2: (2, 3, 3, 4), 3: (2, 3, 2, 3, 2)}  # [B, C, sides...]
WEIGHTS = [0.5, 2.0, 1.25]


def count(shape):
    return int(np.prod(shape))


def logits_of(shape):
    i = torch.arange(count(shape), dtype=torch.float64)
    return (2 * torch.sin(1.3 * i + 0.2)).view(shape)


def labels_of(shape, ignores):
    sides = shape[:1] + shape[2:]
    i = torch.arange(count(sides))
    label = (7 * i + i // 3) % shape[1]
    if ignores:
        label[i % 5 == 2] = -1
    return label.view(sides)


def generalized_dice(logits, label):
    """Sample by sample over the pixels that count, which MONAI's class cannot leave out."""
    loss = GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0)
    values = []
    for row, truth in zip(logits, label):
        keep = truth.flatten() >= 0
        values.append(loss(row.flatten(1)[None, :, keep], truth.flatten()[None, None, keep]))
    return torch.stack(values).mean()


def focal(logits, label, gamma, weight):
    """With an ignore_index, even if no pixel has it, MONAI divides by pixels and not by pixels times classes."""
    loss = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=gamma, weight=weight, ignore_index=-1)
    return loss(logits, label.unsqueeze(1))


def dice(logits, label, ignore=-1):
    return DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6,
                    ignore_index=ignore)(logits, label.unsqueeze(1))


def cross_entropy(logits, label, weight, smoothing):
    weight = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    return F.cross_entropy(logits, label, weight=weight, ignore_index=-1, label_smoothing=smoothing)


def value(name, logits, label, weight, smoothing, gamma):
    ignores = bool((label < 0).any())
    if name == "cross_entropy":
        return cross_entropy(logits, label, weight, smoothing)
    if name == "dice":
        return dice(logits, label)
    if name == "generalized_dice":
        return generalized_dice(logits, label)
    if name == "focal":
        return focal(logits, label, gamma, weight)
    if name == "dice_focal":
        return dice(logits, label) + focal(logits, label, gamma, weight)
    if name == "dice_ce":
        plain = dice(logits, label) + cross_entropy(logits, label, weight, smoothing)
        if not ignores and weight is None:  # UCF-VIT's own call
            whole = DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6,
                               label_smoothing=smoothing)(logits, label.unsqueeze(1))
            assert abs(whole - plain) < 1e-14, (whole, plain)
        return plain
    raise ValueError(name)


def check_what_the_header_says():
    """FocalLoss without ignore_index is 1 / C of ours."""
    logits, label = logits_of(SHAPES[2]), labels_of(SHAPES[2], False)
    unmasked = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2)(logits, label.unsqueeze(1))
    assert abs(3 * unmasked - focal(logits, label, 2, None)) < 1e-6


def number(x):
    return f"{float(x.detach() if torch.is_tensor(x) else x):.17g}"


def numbers(values):
    return "{" + ", ".join(number(x) for x in values) + "}"


def loss_cases():
    for name in ("cross_entropy", "dice", "dice_ce", "generalized_dice", "focal", "dice_focal"):
        for sides in (2, 3):
            yield name, sides, sides == 3, None, 0.0, 2.0
    yield "dice_ce", 2, True, None, 0.1, 2.0
    yield "dice_ce", 3, True, WEIGHTS, 0.1, 2.0
    yield "focal", 2, True, WEIGHTS, 0.0, 0.5
    yield "cross_entropy", 1, False, None, 0.1, 2.0
    yield "cross_entropy", 1, True, WEIGHTS, 0.1, 2.0
    yield "focal", 1, True, WEIGHTS, 0.0, 1.5


def loss_lines():
    for name, sides, ignores, weight, smoothing, gamma in loss_cases():
        logits = logits_of(SHAPES[sides]).requires_grad_()
        label = labels_of(SHAPES[sides], ignores)
        if sides == 1:  # MONAI wants pixels; torch takes rows
            logits_in = logits if name == "cross_entropy" else logits.unsqueeze(2)
            label_in = label if name == "cross_entropy" else label.unsqueeze(1)
        else:
            logits_in, label_in = logits, label
        loss = value(name, logits_in, label_in, weight, smoothing, gamma)
        loss.backward()
        shape = "{" + ", ".join(map(str, SHAPES[sides])) + "}"
        yield (f'    {{"{name}", {shape}, {str(ignores).lower()}, {numbers(weight or [])}, {number(smoothing)}, '
               f"{number(gamma)}, {number(loss)},\n     {numbers(logits.grad.flatten())}}},")


def sample_dice():
    logits, label = logits_of(SHAPES[2]), labels_of(SHAPES[2], False)
    label[1][label[1] == 2] = 0  # a class that one sample lacks
    metric = DiceMetric(include_background=False, reduction="mean", num_classes=3)
    metric(y_pred=logits.argmax(1, keepdim=True), y=label.unsqueeze(1))
    return metric.aggregate()


def pictures(shape):
    i = torch.arange(count(shape), dtype=torch.float64)
    a = 0.5 + 0.5 * torch.sin(0.37 * i + 0.1)
    return a.view(shape), (0.8 * a + 0.1 * torch.cos(1.7 * i)).view(shape)


def similarity(a, b, sides):
    """Wang et al. with SciPy in fp64, as scikit-image's structural_similarity does it; MONAI's in fp32 beside it."""
    blur = lambda x: gaussian_filter(x, 1.5, truncate=3.5)
    values = []
    for x, y in zip(a.numpy().reshape(-1, *a.shape[2:]), b.numpy().reshape(-1, *b.shape[2:])):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        ssim = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        values.append(ssim[(slice(5, -5),) * sides].mean())
    mine = np.mean(np.reshape(values, a.shape[:2]), axis=1)
    peer = SSIMMetric(spatial_dims=sides, data_range=1.0)(b, a).flatten()
    print("SSIM: fp64", mine, "MONAI fp32", peer.numpy(), "differ by", np.abs(mine - peer.numpy()).max())
    assert np.abs(mine - peer.numpy()).max() < 1e-5
    return mine


def probe_data():
    """300 and 60 points of 4 features in 3 classes that overlap."""
    def rows(first, n):
        i = torch.arange(first, first + n, dtype=torch.float64)
        label = (torch.arange(first, first + n) * 7) % 3
        noise = torch.stack([torch.sin(12.9898 * i * (j + 1) + j) * 1.5 for j in range(4)], 1)
        centre = torch.stack([(label == 0) * 1.0, (label == 1) * 2.0, label * 0.5, torch.zeros(n)], 1)
        return (noise + centre).float().double() * torch.tensor([1.0, 10.0, 0.1, 3.0]).double(), label
    return rows(0, 300), rows(300, 60)


def linear_probe():
    (x, y), (xt, yt) = probe_data()
    x, xt = x.float().double(), xt.float().double()
    mean, std = x.mean(0), x.std(0, correction=0)
    x, xt = (x - mean) / std, (xt - mean) / std
    weight = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=1000, tolerance_grad=1e-12, tolerance_change=0,
                                  line_search_fn="strong_wolfe")
    def objective():
        return F.cross_entropy(x @ weight.T + bias, y) + 0.5 * 1e-2 * weight.square().sum()
    def closure():
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss
    optimizer.step(closure)
    accuracy = ((xt @ weight.T + bias).argmax(1) == yt).double().mean()
    print("linear probe: objective", objective().item(), "gradient", float(weight.grad.abs().max()), "accuracy", float(accuracy))
    return float(objective().detach()), weight.detach().flatten(), bias.detach() - bias.detach().mean(), accuracy


def neighbours():
    """DINO's k-NN classifier (facebookresearch/dino, eval_knn.py): votes of exp(cosine / 0.07) of the k nearest."""
    (x, y), (xt, yt) = probe_data()
    x, xt = F.normalize(x.float(), dim=1).double(), F.normalize(xt.float(), dim=1).double()
    close, index = (xt @ x.T).topk(10, 1)
    votes = torch.zeros(len(xt), 3, dtype=torch.float64).scatter_add_(1, y[index], (close / 0.07).exp())
    return (votes.argmax(1) == yt).double().mean()


def write(name, text):
    path = FOLDER / f"golden_{name}.inc"
    path.write_text(f"// Written by tools/golden/losses.py with {VERSIONS}.\n{text}\n")
    print(path, path.stat().st_size, "bytes")


check_what_the_header_says()
objective, weight, bias, linear_accuracy = linear_probe()
lines = "\n".join(loss_lines())
write("losses", f"""const char* const golden_versions = "{VERSIONS}";
const std::vector<GoldenLoss> golden_losses{{
{lines}
}};""")
write("metrics", f"""const double golden_sample_dice = {number(sample_dice())};
const std::vector<double> golden_ssim_2d{numbers(similarity(*pictures((2, 2, 14, 17)), 2))};
const std::vector<double> golden_ssim_3d{numbers(similarity(*pictures((1, 1, 12, 13, 11)), 3))};""")
write("probe", f"""const double golden_objective = {number(objective)};
const std::vector<double> golden_weight{numbers(weight)};
const std::vector<double> golden_bias{numbers(bias)};
const double golden_linear_accuracy = {number(linear_accuracy)};
const double golden_neighbor_accuracy = {number(neighbours())};""")
