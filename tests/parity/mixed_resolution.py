"""Mixed-resolution tokens against a peer written from the specification with a heap and loops over samples: leaves, their
pixels, positions, embeddings, and what timm's blocks make of them; the frozen network against torchvision's; rules.

The peer's scores are in fp64: a score that ties with another within the rounding of fp32 could be divided in another
order, which none of these random images shows.
"""
import heapq
import math
import os
import subprocess
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torchvision.models import shufflenet_v2_x0_5

import common
import philox

FEATURES_PROGRAM = os.path.abspath(sys.argv[2])
PATCH_DROP, SCORE_LAYER, SEED = 9, 1, 0
MEAN, STD = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def resize(image, height, width):
    """Bilinear with half-pixel centres and repeated edges, image [C, H, W] in fp64."""

    def matrix(old, new):
        weights = np.zeros((new, old))
        for i in range(new):
            place = max((i + 0.5) * old / new - 0.5, 0)
            low = int(place)
            weights[i, low] += 1 - (place - low)
            weights[i, min(low + 1, old - 1)] += place - low
        return weights

    return matrix(image.shape[1], height) @ image @ matrix(image.shape[2], width).T


def smaller(image, factor):
    return resize(image, image.shape[1] // factor, image.shape[2] // factor)


def copy_of(image, factor):
    """The image reduced and enlarged again."""
    return resize(smaller(image, factor), *image.shape[1:])


def cell(values, edge, y, x):
    return values[..., y * edge:(y + 1) * edge, x * edge:(x + 1) * edge]


def morton(y, x):
    return sum((y >> bit & 1) << 2 * bit + 1 | (x >> bit & 1) << 2 * bit for bit in range(16))


def pixel_blur(image, patch, sample):
    copies = {}

    def score(edge, y, x):
        if edge not in copies:
            copies[edge] = copy_of(image, edge // patch)
        lost = cell(image, edge, y, x) - cell(copies[edge], edge, y, x)
        return math.sqrt(edge * (lost**2).mean())

    return score


def given(channel):
    return lambda image, patch, sample: lambda edge, y, x: cell(image[channel], edge, y, x).mean()


def chance(largest):
    def scorer(image, patch, sample):
        grids = {}
        edge, count = 2 * patch, 0
        while edge <= largest:
            grids[edge] = count
            count += (image.shape[1] // edge) * (image.shape[2] // edge)
            edge *= 2
        values = philox.uniform(SEED, PATCH_DROP, 0, SCORE_LAYER, [sample], count)[0]
        return lambda edge, y, x: values[grids[edge] + y * (image.shape[2] // edge) + x]

    return scorer


def features_of(net, images):
    x = net.maxpool(net.conv1(images))
    return net.conv5(net.stage4(net.stage3(net.stage2(x))))


def feature_based(net, pixel_range):
    """pixel_range [B, 3, 2]: what 0 and 1 became in the source's normalisation."""

    def scorer(image, patch, sample):
        black, white = (pixel_range[sample, :, i].view(3, 1, 1).double() for i in range(2))

        def features(pixels):
            unit = (torch.from_numpy(pixels) - black) / (white - black)
            with torch.no_grad():
                return features_of(net, ((unit - MEAN) / STD).float()[None])[0].double()

        whole, maps = features(image), {}

        def score(edge, y, x):
            if edge not in maps:
                loss = ((features(copy_of(image, edge // patch)) - whole) ** 2).mean(0)
                maps[edge] = torch.nn.functional.avg_pool2d(loss[None], edge // 32)[0]
            return maps[edge][y, x].item()

        return score

    return scorer


def divide(score, sides, smallest, largest, count):
    """Leaves (edge, y, x) in Morton order: a heap of (-score, -edge, order)."""

    def entry(edge, y, x):
        rank = morton(y * edge // smallest, x * edge // smallest)
        return -score(edge, y, x) if edge > smallest else math.inf, -edge, rank, (edge, y, x)

    live = [entry(largest, y, x) for y in range(sides[0] // largest) for x in range(sides[1] // largest)]
    heapq.heapify(live)
    while len(live) < count:
        edge, y, x = heapq.heappop(live)[-1]
        assert edge > smallest
        for part in range(4):
            heapq.heappush(live, entry(edge // 2, 2 * y + part // 2, 2 * x + part % 2))
    return [leaf for _, _, _, leaf in sorted(live, key=lambda item: item[2])]


def positions(centres, width):
    """First half for x, second for y, each [sin | cos]; centres [..., 2] as (x, y) in units of the smallest patch."""
    count = width // 4
    frequencies = torch.exp(torch.arange(count, dtype=torch.float64) * -(math.log(10000) / (count - 1)))
    angles = centres[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


def tokens_of(image, leaves, smallest):
    """Pixels [n, C * P * P] and centres [n, 2]."""
    small = {edge: smaller(image, edge // smallest) for edge, _, _ in leaves}
    pixels = np.stack([cell(small[edge], smallest, y, x).reshape(-1) for edge, y, x in leaves])
    centres = np.array([[(x + 0.5) * edge / smallest, (y + 0.5) * edge / smallest] for edge, y, x in leaves])
    return torch.from_numpy(pixels), torch.from_numpy(centres)


def forward_of(peer, x):
    x = torch.cat([peer.cls_token.expand(len(x), -1, -1), x], 1)
    embed = x
    for block in peer.blocks:
        x = block(x)
    return embed, peer.head(peer.norm(x)[:, 0])


def rough_images(sides, generator):
    """Two samples, noise of a strength that varies over the image."""
    strength = generator.random((2, 1, sides[0] // 8, sides[1] // 8)).repeat(8, 2).repeat(8, 3) ** 4
    return torch.from_numpy(generator.standard_normal((2, 3, *sides)) * strength).float()


def case(title, scorer, sides, smallest, largest, count, extra, pixel_range=None, size_embedding=False):
    width = 48
    peer = VisionTransformer(img_size=sides, patch_size=smallest, embed_dim=width, depth=2, num_heads=3, num_classes=5,
                             pos_embed="none", fc_norm=False)
    levels = int(math.log2(largest // smallest)) + 1
    if size_embedding:
        peer.patch_embed.size_embed = torch.nn.Parameter(torch.randn(levels, width) * 0.3)
    common.scramble(peer)
    image = rough_images(sides, np.random.default_rng(5))
    label = torch.tensor([1, 4])
    inputs = {"image": image, "label": label}
    if pixel_range is not None:
        inputs["pixel_range"] = pixel_range

    pixels, centres, sizes, edges = [], [], [], []
    for sample, one in enumerate(image.double().numpy()):
        leaves = divide(scorer(one, smallest, sample), sides, smallest, largest, count)
        values, places = tokens_of(one, leaves, smallest)
        pixels.append(values), centres.append(places)
        edges.append([edge for edge, _, _ in leaves])
        sizes.append([int(math.log2(edge // smallest)) for edge, _, _ in leaves])
        assert len(leaves) == count and sum(edge**2 for edge in edges[-1]) == sides[0] * sides[1]
    weight = peer.patch_embed.proj.weight.flatten(1)
    x = torch.stack(pixels).float() @ weight.T + peer.patch_embed.proj.bias
    x = x + positions(torch.stack(centres), width).float()
    if size_embedding:
        x = x + peer.patch_embed.size_embed[torch.tensor(sizes)]
    embed, output = forward_of(peer, x)
    loss = torch.nn.functional.cross_entropy(output, label)
    image.requires_grad_(True)
    expected = common.with_gradients({"tap/embed": embed, "output": output}, loss + 0 * image.sum(),
                                     peer.named_parameters(), image)
    mixed = f"{{num_tokens: {count}, max_patch: {largest}, size_embedding: {str(size_embedding).lower()}, {extra}}}"
    model = {"kind": "vit", "embed_dim": width, "depth": 2, "num_heads": 3, "image_size": list(sides), "patch_size": smallest,
             "num_classes": 5, "pos_embed": "sincos", "mixed_resolution": mixed}
    mine = common.forward(common.folder(), model, peer.state_dict(), inputs, name_from="vitrail", taps=("embed",))
    # Leaves are no function with a gradient.
    assert mine.pop("grad/image", torch.zeros(1)).abs().max() == 0
    expected.pop("grad/image")
    counts = {edge: sum(row.count(edge) for row in edges) for edge in sorted(set(sum(edges, [])))}
    common.compare(f"{title}, leaves {counts}", mine, expected)


def frozen_network(where):
    """With random running statistics, so that norms in training mode would differ."""
    net = shufflenet_v2_x0_5().eval()
    common.scramble(net)
    generator = torch.Generator().manual_seed(3)
    for name, values in net.named_buffers():
        if name.endswith("running_mean"):
            values.copy_(torch.randn(values.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    path = os.path.join(where, "shufflenet.safetensors")
    save_file(net.state_dict(), path)
    return net, path


def check_features(net, weights, where):
    for sides in [(64, 64), (96, 160), (70, 41)]:
        files = [os.path.join(where, name) for name in ("image.safetensors", "features.safetensors")]
        image = torch.randn(2, 3, *sides)
        save_file({"image": image}, files[0])
        subprocess.run([FEATURES_PROGRAM, weights, *files], check=True)
        with torch.no_grad():
            peer = features_of(net, image)
        common.compare(f"ShuffleNetV2 x0.5, {sides}", load_file(files[1]), {"features": peer})


def check_refused():
    """Rules of the sizes, each named."""
    good = {"image_size": "[64, 64]", "patch_size": 8, "mixed_resolution": "{num_tokens: 13, max_patch: 32}"}
    bad = {
        "num_tokens must be 4 + 3 n": {"mixed_resolution": "{num_tokens: 14, max_patch: 32}"},
        "at most 64": {"mixed_resolution": "{num_tokens: 67, max_patch: 32}"},
        "must divide every side": {"image_size": "[64, 72]"},
        "power of two": {"mixed_resolution": "{num_tokens: 13, max_patch: 24}"},
        "must equal model.patch_size": {"mixed_resolution": "{num_tokens: 13, max_patch: 32, min_patch: 4}"},
        "scorer_weights must name": {"mixed_resolution": "{num_tokens: 13, max_patch: 32, scorer: feature_based}"},
        "rope": {"rope": "axial"},
    }
    model = {"kind": "vit", "embed_dim": 48, "depth": 1, "num_heads": 3, "num_classes": 5}
    common.run("check", common.recipe(common.folder(), {**model, **good}))
    for words, change in bad.items():
        text = common.run("check", common.recipe(common.folder(), {**model, **good, **change}), expect=2)
        assert words in text, f"'{words}' is not in: {text}"
    print(f"rules: {len(bad)} recipes refused")


network_folder = common.folder()
network, network_file = frozen_network(network_folder)
check_features(network, network_file, network_folder)
case("pixel_blur", pixel_blur, (64, 64), 4, 16, 76, "scorer: pixel_blur")
case("pixel_blur, size embedding", pixel_blur, (96, 160), 8, 32, 90, "scorer: pixel_blur", size_embedding=True)
case("given", given(2), (64, 96), 4, 32, 99, "scorer: given, scorer_channel: 2")
case("random", chance(32), (64, 96), 8, 32, 48, "scorer: random")
source_range = torch.stack([-torch.rand(2, 3) - 1, torch.rand(2, 3) + 1], -1)
case("feature_based", feature_based(network, source_range), (128, 256), 16, 64, 65,
     f"scorer: feature_based, scorer_weights: {network_file}", pixel_range=source_range)
check_refused()
