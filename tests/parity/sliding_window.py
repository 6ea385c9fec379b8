"""`vitrail predict` of a SAP model against MONAI's sliding_window_inference(mode="gaussian") over the same network written
in PyTorch: masks of images and volumes larger than a window, pixel for pixel wherever the two best classes are apart."""
import os

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from PIL import Image
from safetensors.torch import save_file

import common
import nibabel
from torch import nn
from vit_encoder import Encoder

CLASSES, WIDTH, HEADS, HIDDEN, NECK = 3, 48, 4, 96, 32
# Below this distance of the two best probabilities rounding decides (fp32 against fp64: 1e-6); it must be rare.
MARGIN, RARE = 1e-4, 0.01


class Net(Encoder):
    def __init__(self, sides, patch, channels):
        super().__init__(sides, patch, channels, WIDTH, 3, HEADS, HIDDEN)
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if len(sides) == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        self.neck, self.head = up(WIDTH, NECK, patch, patch, bias=False), conv(NECK, CLASSES, 1)

    def forward(self, image):
        return self.head(self.neck(self.as_map(self.encode(image)[0])))


def written(where, model, source, weights):
    path = os.path.join(where, "recipe.yaml")
    lines = ["run: {name: parity, device: cpu}", "model:"] + [f"  {key}: {value}" for key, value in model.items()]
    lines += [f"data: {{sources: [{{{source}}}]}}", "train: {steps: 1}"]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, os.path.join(where, "w.safetensors"))
    return path


def predicted(where, recipe, image, output):
    common.run("predict", recipe, "--weights", os.path.join(where, "w.safetensors"), "--input", image, "--output", output)
    return os.path.join(output, sorted(os.listdir(output))[0])


def compare(title, mine, probabilities):
    """mine: classes [sides...]; probabilities: [classes, sides...]."""
    best = probabilities.topk(2, 0).values
    clear = best[0] - best[1] > MARGIN
    wrong = (torch.from_numpy(mine.astype(np.int64)) != probabilities.argmax(0)) & clear
    counts = torch.bincount(probabilities.argmax(0).flatten(), minlength=CLASSES).tolist()
    print(f"{title}: {clear.numel()} pixels in classes {counts}, {(~clear).sum().item()} within {MARGIN:.0e}, {wrong.sum().item()} differ")
    assert sum(count > 0 for count in counts) > 1, "a mask of one class tests nothing"
    assert (~clear).float().mean() < RARE and not wrong.any()


def check(sides, patch, image_sides, overlap):
    channels = 3 if len(sides) == 2 else 1
    peer = Net(sides, patch, channels)
    common.scramble(peer)
    with torch.no_grad():  # many classes in one picture
        peer.head.weight.mul_(20)
    weights = {name: value.clone() for name, value in peer.state_dict().items()}
    peer.double()
    where = common.folder()
    values = np.random.default_rng(3).integers(0, 256, (*image_sides, channels) if len(sides) == 2 else image_sides, np.uint8)
    if len(sides) == 2:
        file, reader = os.path.join(where, "image.png"), "images"
        Image.fromarray(values).save(file)
        image = torch.from_numpy(values).movedim(-1, 0)
    else:
        file, reader = os.path.join(where, "scan.nii.gz"), "nifti"
        affine = np.array([[-1.5, 0, 0, 10], [0, 2, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
        nibabel.save(nibabel.Nifti1Image(values.transpose(), affine), file)
        image = torch.from_numpy(values)[None] / 255
    model = {"kind": "sap", "image_size": list(sides), "patch_size": patch, "in_channels": channels, "num_classes": CLASSES,
             "embed_dim": WIDTH, "depth": 3, "num_heads": HEADS, "mlp_ratio": HIDDEN / WIDTH, "class_token": "false",
             "decoder_embed_dim": NECK, "loss": "dice_ce"}
    source = f"reader: {reader}, root: {file}, labels: {file}, tile: {list(sides)}, overlap: {[overlap] * len(sides)}"
    if reader == "nifti":
        source += ", normalize: minmax"
    output = predicted(where, written(where, model, source, weights), file, os.path.join(where, "masks"))
    scaled = (image.double() / (255 if len(sides) == 2 else 1) - 0.5) / 0.5
    with torch.no_grad():
        probabilities = sliding_window_inference(scaled[None], sides, 4, lambda x: peer(x).softmax(1), overlap=overlap,
                                                 mode="gaussian")[0]
    if len(sides) == 2:
        mine = np.asarray(Image.open(output))
    else:
        mask = nibabel.load(output)
        assert np.allclose(mask.affine, affine), "the mask must lie where the volume does"
        mine = np.asarray(mask.dataobj).transpose()
    compare(f"{len(sides)}-D, windows {list(sides)} over {list(image_sides)}, overlap {overlap}", mine, probabilities)


check((16, 16), 4, (41, 29), 0.5)
check((16, 24), 4, (40, 100), 0.25)
check((16, 16), 4, (16, 16), 0.5)
check((8, 8, 16), 4, (13, 21, 30), 0.5)
