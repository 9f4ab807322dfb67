"""GroundingDINO: boxes for the things that a text names. The network of `transformers`, weights from a model hub.

In: RGB pictures and a text of names, each ended by a full stop. Out: boxes with score and name. Called by
actors/text_detector.py. Knows nothing of video.

Boxes leave the network as (centre x, centre y, width, height) in 0..1, always; nothing is guessed from their values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import MissingWeight, UnexpectedModel

HUB_NAME = "IDEA-Research/grounding-dino-tiny"  # Apache-2.0; Swin-T, the seed's SwinT_OGC
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class NamedBox:
    """One thing that the text names."""

    label: str
    score: float  # 0..1
    box_px: np.ndarray  # (4,) float32 xyxy, may reach past the picture


class GroundingDino:
    """A network and its text processor. The same picture and text give the same boxes."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Read a folder as `save_pretrained` writes it. Raises UnexpectedModel when it holds something else."""
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        try:
            self.processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
            network: Any = GroundingDinoForObjectDetection.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise UnexpectedModel(f"{folder} does not hold GroundingDINO in transformers' format: {error}") from error
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, text: str, box_threshold: float, text_threshold: float) -> list[NamedBox]:
        """Boxes above `box_threshold`, best first; a box is named by the words above `text_threshold`.

        `image` is (H, W, 3) uint8 RGB. A box that no word stands out for is left out.
        """
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.device)
        outputs = self.network(**inputs)
        [found] = self.processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=box_threshold,
            text_threshold=text_threshold,
            target_sizes=[image.shape[:2]],
        )
        boxes = [
            NamedBox(name, float(score), box.float().cpu().numpy())
            for label, score, box in zip(found["text_labels"], found["scores"], found["boxes"], strict=True)
            if (name := self._words(label))
        ]
        return sorted(boxes, key=lambda one: (-one.score, *one.box_px.tolist()))

    def _words(self, label: str) -> str:
        """The label without marks that are no words: the text's end may stand out for a box too."""
        for mark in (*self.processor.tokenizer.all_special_tokens, "."):
            label = label.replace(mark, " ")
        return " ".join(label.split())


def as_prompt(text: str) -> str:
    """The text as the network was trained to read it: lower case, every name ended by a full stop."""
    names = [" ".join(name.split()) for name in text.lower().split(".")]
    return " ".join(f"{name}." for name in names if name)


def folder_of(name: str) -> Path:
    """Where the model lies: `name` is a folder, or a hub name that was downloaded before. Nothing is downloaded.

    Raises MissingWeight with the command to run.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise MissingWeight(
            f"GroundingDINO {name!r} is neither a folder nor in the hub's cache; get it with `hf download {HUB_NAME}`"
        ) from error
    if not (folder / MODEL_FILE).is_file():
        raise MissingWeight(f"{folder} lacks {MODEL_FILE}; get it with `hf download {HUB_NAME}`")
    return folder
