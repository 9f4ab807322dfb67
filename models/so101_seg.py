"""EfficientViT-B0 with a small feature pyramid: wrist picture to six classes, and the reader of its checkpoints.

In: RGB pictures as float tensors. Out: logits per class. Used by actors/so101_segmenter.py and training.
Parameter names are those of the public training script (ggand0/pick-101@55fe119 train_efficientvit_seg.py), so that its
Lightning `best.ckpt` loads strictly. No weights are downloaded here, and no pickle code is run.
"""

# B batch, C channels, K classes, H W pixels

from __future__ import annotations

import hashlib
import itertools
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models import shipped
from models.errors import UnexpectedModel
from models.layout import require_same_layout

BACKBONE = "efficientvit_b0"
BACKBONE_CHANNELS = (16, 32, 64, 128)  # at strides 4, 8, 16, 32
PYRAMID_CHANNELS = 64
# timm's values for ImageNet, with which the backbone was pre-trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Metric buffers that some training versions stored beside the weights.
METRIC_PREFIXES = ("train_iou.", "val_iou.")


class So101Seg(nn.Module):
    """Segmentation network. 846,838 parameters with six classes."""

    def __init__(self, num_classes: int = 6) -> None:
        super().__init__()
        self.backbone = timm.create_model(BACKBONE, pretrained=False, features_only=True, out_indices=(0, 1, 2, 3))
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, PYRAMID_CHANNELS, 1) for c in BACKBONE_CHANNELS)
        # Only the first is ever used; the others are kept because checkpoints hold them.
        self.output_convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1),
                nn.BatchNorm2d(PYRAMID_CHANNELS),
                nn.ReLU(inplace=True),
            )
            for _ in BACKBONE_CHANNELS
        )
        self.seg_head = nn.Conv2d(PYRAMID_CHANNELS, num_classes, 1)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised RGB to (B, K, H, W) logits at the same size."""
        # The 1×1 head commutes with the interpolation (both are linear, and its weights of every output pixel sum to
        # one), so six planes are enlarged instead of 64: a tenth of the memory traffic for the same logits.
        coarse = self.coarse(image_BCHW)
        return F.interpolate(coarse, size=image_BCHW.shape[-2:], mode="bilinear", align_corners=False)

    def coarse(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised RGB to (B, K, H/4, W/4) logits, before they are enlarged."""
        laterals = [conv(f) for conv, f in zip(self.lateral_convs, self.backbone(image_BCHW), strict=True)]
        merged = laterals[-1]
        for lateral in laterals[-2::-1]:
            size = lateral.shape[-2:]
            merged = lateral + F.interpolate(merged, size=size, mode="bilinear", align_corners=False)
        return self.seg_head(self.output_convs[0](merged))


@dataclass(frozen=True, slots=True)
class SegCheckpoint:
    """A loaded network and what its file says of it."""

    network: So101Seg
    height_px: int  # the network's input size
    width_px: int
    classes: int
    run: str  # folder name of the training run that wrote it, empty where the file does not say
    sha256: str


def normalise(rgb_BCHW: torch.Tensor) -> torch.Tensor:
    """uint8 RGB to the backbone's range: /255, then ImageNet mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN, device=rgb_BCHW.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=rgb_BCHW.device).view(1, 3, 1, 1)
    return (rgb_BCHW.float() / 255.0 - mean) / std


def for_inference(network: So101Seg) -> So101Seg:
    """A copy with every batch norm folded into its convolution, in the memory order that CPUs and GPUs are quickest in.

    The same function up to rounding (4e-5 on logits of ±19); cannot be trained or saved.
    """
    copy = deepcopy(network).eval()
    for parent in list(copy.modules()):
        children = list(parent.named_children())
        for (name, first), (next_name, second) in itertools.pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, next_name, nn.Identity())
    return copy.to(memory_format=torch.channels_last)


def load_checkpoint(path: Path) -> SegCheckpoint:
    """Read a Lightning checkpoint, or weights that we ship (.safetensors), on the CPU, strictly.

    Raises UnexpectedModel naming what differs, or OSError.
    """
    if path.suffix == shipped.SUFFIX:
        weights, note, sha256 = shipped.read(path)
        return _filled(path, weights, note, str(note.get("run", "")), sha256)
    data = path.read_bytes()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's own text is a page, and advises to run the code
        reason = f"it asks for {asked[1]}" if asked else str(error).split("\n")[0][:200]
        raise UnexpectedModel(f"{path} is not a checkpoint that loads without running code: {reason}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise UnexpectedModel(f"{path} is not a Lightning checkpoint: it has {found}, expected a `state_dict`")
    weights = {k: v for k, v in content["state_dict"].items() if not k.startswith(METRIC_PREFIXES)}
    hyper = content.get("hyper_parameters", {})
    return _filled(path, weights, hyper, _run_of(content), hashlib.sha256(data).hexdigest())


def _filled(
    path: Path, weights: dict[str, torch.Tensor], hyper: dict[str, Any], run: str, sha256: str
) -> SegCheckpoint:
    classes = int(hyper.get("num_classes", 6))
    network = So101Seg(classes)
    require_same_layout(path, network.state_dict(), weights)
    network.load_state_dict(weights, strict=True)
    old_size = hyper.get("img_size")
    size = (old_size, old_size) if old_size else (hyper.get("img_height", 480), hyper.get("img_width", 640))
    return SegCheckpoint(network.eval(), *size, classes, run, sha256)


def _run_of(content: dict[str, Any]) -> str:
    for state in content.get("callbacks", {}).values():
        if isinstance(state, dict) and state.get("dirpath"):
            return Path(state["dirpath"]).name
    return ""
