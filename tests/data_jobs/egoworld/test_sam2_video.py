"""`sam2:sam2`: every frame has its rows, identities last, memory stays flat; the seed's mistakes stay mended.

Where it is about the loop, objects are followed by a stream that knows them by colour, so the right answer is known.
Where it is about the network, SAM 2 has seeded RANDOM weights and GroundingDINO is TINY and RANDOM: real code, no
meaning.
"""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pycocotools import mask as coco

from actors.messages import Detection, Prompt
from actors.text_detector import TextDetector
from actors.video_segmenter import Followed
from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.config import EgoworldConfig
from data_jobs.egoworld.operators.prompts import Ask, detector_asks
from data_jobs.egoworld.operators.propagate import Propagation
from data_jobs.egoworld.operators.sam2_video import Sam2VideoMasks, VideoMasksParams, _table
from data_jobs.egoworld.plan import make_plan
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.errors import RunError
from data_jobs.runs.strict import parse
from models.errors import MissingWeight, UnexpectedModel
from models.grounding_dino import GroundingDino, as_prompt
from models.sam2.files import architecture_of
from tests.data_jobs.egoworld.film import clip_of, even, write_film, write_pictures
from tests.models.sam2.conftest import random_network

HEIGHT, WIDTH = 96, 128
HAND, CUP, KNIFE = (250, 20, 20), (20, 250, 20), (20, 20, 250)


# --- the loop, with objects known by colour -----------------------------------------------------------------------


def scene(number):
    """A hand that crosses the picture within a second; a cup from frame 10 on; a knife that is away for a while."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    x = 4 + 3 * number
    image[60:80, x : x + 20] = HAND
    if number >= 10:
        image[10:30, 90:110] = CUP
    if not 8 <= number < 22:
        image[34:50, 30 + number : 46 + number] = KNIFE
    return image


class ColourStream:
    """Follows objects by their colour, as FrameStream would if it were perfect."""

    def __init__(self):
        self.colours, self.image = {}, None

    def see(self, image):
        self.image = image
        return {name: self._now(name) for name in self.colours}

    def box(self, name, box_px):
        x0, y0, x1, y1 = (int(v) for v in box_px)
        return self.mask(name, np.pad(np.ones((y1 - y0, x1 - x0), bool), ((y0, HEIGHT - y1), (x0, WIDTH - x1))))

    def mask(self, name, mask):
        self.colours[name] = int(np.argmax(np.median(self.image[mask], axis=0)))
        return self._now(name)

    def forget(self, name):
        del self.colours[name]

    def appearance(self, mask):
        return np.eye(3)[int(np.argmax(np.median(self.image[mask], axis=0)))]

    def _now(self, name):
        rest = np.delete(self.image.astype(int), self.colours[name], axis=2)
        return Followed((self.image[:, :, self.colours[name]] > 200) & (rest < 60).all(axis=2), 1.0, 1.0)


def seen_by_colour(image, index):
    """What a detector would say."""
    asks = []
    for channel, label in enumerate(("hand", "cup", "knife")):
        stream = ColourStream()
        stream.image, stream.colours = image, {"it": channel}
        ys, xs = np.nonzero(stream._now("it").mask)
        if len(xs):
            box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
            asks.append(Ask(Prompt(box_px=box), label, 0.9, "text_box", None))
    return asks


def clip_of_scene(tmp_path, frames=30):
    path = write_pictures(tmp_path / "scene.mkv", map(scene, range(frames)), rate=30)
    return clip_of(probe(str(path), "scene.mkv"))


def propagate(clip, prompted, window, ask=seen_by_colour):
    work = Propagation(ColourStream, ask, prompted, window)
    return _table(work, work.run(ClipReader(clip, window)), clip)


def same(a, b):
    """Equal but for the column that is NaN throughout, which nothing equals."""
    return a.drop_columns("predicted_iou").equals(b.drop_columns("predicted_iou"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clip_of_scene(tmp_path_factory.mktemp("scene"))


def test_masks_equal_the_scene_in_every_frame_with_one_identity_each(clip):
    table = propagate(clip, [0, 15, 25], 4)
    by_label = {}
    for row in table.to_pylist():
        mask = coco.decode(json.loads(row["mask_rle"])).astype(bool)
        assert mask.shape == (HEIGHT, WIDTH)  # (1, H, W) once broke every clip that had a detection
        colour = {"hand": HAND, "cup": CUP, "knife": KNIFE}[row["class"]]
        assert np.array_equal(mask, (scene(row["frame_index"]) == colour).all(axis=2))
        assert row["pts"] == round(row["frame_index"] * 1000 / 30)  # Matroska counts milliseconds
        assert row["timestamp_s"] == pytest.approx(row["frame_index"] / 30, abs=5e-4)
        by_label.setdefault(row["class"], {}).setdefault(row["object_id"], []).append(row["frame_index"])
    assert by_label["hand"] == {0: list(range(30))}  # crosses the picture: boxes two seconds apart do not overlap
    [(cup, frames)] = by_label["cup"].items()
    assert frames == list(range(10, 30))  # first asked for at 15, carried back to where it appeared
    [(knife, frames)] = by_label["knife"].items()
    assert frames == [*range(8), *range(22, 30)]  # away and back: recognised, and carried back too
    assert len({0, cup, knife}) == 3
    prompts = {(row["frame_index"], row["object_id"]): row["prompt"] for row in table.to_pylist()}
    assert (prompts[0, 0], prompts[1, 0], prompts[12, cup], prompts[15, cup]) == (
        "text_box", "forward", "backward", "text_box",
    )  # fmt: skip


@pytest.mark.parametrize("window", [1, 3, 64])
def test_the_window_changes_nothing(clip, window):
    assert same(propagate(clip, [0, 15, 25], window), propagate(clip, [0, 15, 25], 4))


def test_without_any_detection_every_frame_says_so(clip):
    table = propagate(clip, [0, 15], 8, ask=lambda image, index: [])
    assert table["frame_index"].to_pylist() == list(range(30))
    assert set(table["object_id"].to_pylist()) == {-1}
    assert all(coco.decode(json.loads(text)).sum() == 0 for text in table["mask_rle"].to_pylist())


def test_a_label_that_flickers_does_not_split_an_object(clip):
    def ask(image, index):
        asks = seen_by_colour(image, index)
        return [Ask(a.prompt, "glove", 0.4, a.source, None) if a.label == "hand" and index == 15 else a for a in asks]

    table = propagate(clip, [0, 15, 25], 4, ask)
    assert {row["class"] for row in table.to_pylist() if row["object_id"] == 0} == {"hand"}


@pytest.mark.parametrize(
    ("times", "options"),
    [
        ([0, 700, 1500, 4000, 4100, 9000, 9900, 10_000, 12_000, 15_000, 15_100, 15_200], {"bf": "3"}),  # VFR, B-frames
        (even(12), {"g": "250", "keyint_min": "250", "bf": "2"}),  # one keyframe only
    ],
)
def test_rows_belong_to_the_pictures_they_name(tmp_path, times, options):
    """Each mask covers as many pixels as the number drawn into its picture says: off by one frame is off by one."""
    from tests.data_jobs.egoworld.film import number_of

    class Counting(ColourStream):
        def _now(self, name):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask.ravel()[: 1 + number_of(self.image)] = True
            return Followed(mask, 1.0, 1.0)

        def mask(self, name, mask):
            self.colours[name] = 0
            return self._now(name)

        def appearance(self, mask):
            return np.ones(1)

    film = clip_of(probe(str(write_film(tmp_path / "f.mp4", times, options=options)), "f.mp4"), 2, 11)
    work = Propagation(Counting, seen_by_colour_once(6), [2, 6, 9], 3)
    table = _table(work, work.run(ClipReader(film, 3)), film)
    assert table["frame_index"].to_pylist() == list(range(2, 11))
    for row in table.to_pylist():
        assert coco.area(json.loads(row["mask_rle"])) == 1 + row["frame_index"]
        assert row["pts"] == list(times)[row["frame_index"]]


def seen_by_colour_once(at):
    """A detector that finds something in one prompted frame only."""
    box = Prompt(box_px=np.array([0, 0, 9, 9], np.float32))
    return lambda image, index: [Ask(box, "cup", 0.9, "text_box", None)] if index == at else []


def test_boxes_are_suppressed_by_score_not_by_area():
    small = Detection("cup", 0.9, np.array([10, 10, 50, 50], np.float32))
    large = Detection("bowl", 0.4, np.array([8, 8, 56, 56], np.float32))
    [kept] = detector_asks([large, small], 6, 0, 0.5, WIDTH, HEIGHT)
    assert kept.label == "cup"


# --- the networks -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_checkpoint(tmp_path_factory):
    """SAM 2.1 tiny with seeded RANDOM weights, in the official file's form."""
    path = tmp_path_factory.mktemp("sam2") / "random_sam2.1_hiera_tiny.pt"
    torch.save({"model": random_network().state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def random_dino(tmp_path_factory):
    """GroundingDINO, TINY and RANDOM, as `save_pretrained` writes it."""
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )  # fmt: skip

    folder = tmp_path_factory.mktemp("dino")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "hand", "cup", "knife"]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    image = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(image, tokenizer).save_pretrained(folder)
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    bert = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 12, "encoder_ffn_dim": 16}
    sizes |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    torch.manual_seed(0)
    config = GroundingDinoConfig(backbone_config=swin, text_config=bert, **sizes)
    network = GroundingDinoForObjectDetection(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    network.save_pretrained(folder)
    return folder


def test_boxes_of_groundingdino_are_centre_and_size_always(random_dino):
    """Also where width exceeds the centre's x, which a guess from the values takes for corners."""
    model = GroundingDino(random_dino)
    image = scene(20)
    found = model(image, "hand. cup. knife.", 0.0, 0.0)
    inputs = model.processor(images=image, text="hand. cup. knife.", return_tensors="pt")
    with torch.inference_mode():
        out = model.network(**inputs)
    cx, cy, w, h = out.pred_boxes[0].numpy().T
    truth = np.column_stack([(cx - w / 2) * WIDTH, (cy - h / 2) * HEIGHT, (cx + w / 2) * WIDTH, (cy + h / 2) * HEIGHT])
    scores = out.logits[0].sigmoid().max(dim=1)[0].numpy()
    assert len(found) == len(truth) and (w > cx).any()
    order = np.argsort(-scores, kind="stable")
    assert np.allclose([one.box_px for one in found], truth[order], atol=1e-3)
    assert [one.score for one in found] == pytest.approx(scores[order].tolist())
    assert {word for one in found for word in one.label.replace(".", " ").split()} <= {"hand", "cup", "knife"}


def test_the_text_is_written_as_the_network_learnt_it():
    assert as_prompt("Left hand . KNIFE.  cutting   board") == "left hand. knife. cutting board."
    with pytest.raises(ValueError, match="names nothing"):
        TextDetector("x", " . ", 0.3, 0.2)


def params_of(checkpoint, dino=None, **more):
    prompting = more.pop("prompting", {})
    prompting |= (
        {"gd_checkpoint": str(dino), "box_threshold": 0.0, "text_threshold": 0.0} if dino else {"source": "hands"}
    )
    values = {"checkpoint": str(checkpoint), "config": "sam2.1_hiera_tiny", "image_size": 64, "prompting": prompting}
    return VideoMasksParams.model_validate(values | more)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "gray", "yuv420p10le"])
def test_real_networks_with_random_weights_fill_every_frame(tmp_path, random_checkpoint, random_dino, pixel_format):
    film = write_film(tmp_path / "f.mkv", even(8), codec="ffv1", pixel_format=pixel_format)
    clip = clip_of(probe(str(film), "f.mkv"))
    interval = {"prompt_interval_s": 0.1, "max_boxes_per_frame": 2}
    operator = Sam2VideoMasks(params_of(random_checkpoint, random_dino, prompting=interval))
    operator.load()
    table = operator.run(clip, {}, 3)
    assert table.schema == schema_of("masks")
    assert set(table["frame_index"].to_pylist()) == set(range(8))
    if pixel_format == "yuv420p":
        assert same(operator.run(clip, {}, 8), table)
    operator.close()


def test_hands_prompt_where_the_hand_table_says(tmp_path, random_checkpoint):
    clip = clip_of(probe(str(write_film(tmp_path / "f.mkv", even(5), codec="ffv1")), "f.mkv"))
    operator = Sam2VideoMasks(params_of(random_checkpoint))
    operator.load()
    landmarks = np.random.default_rng(0).uniform(20, 60, 63).astype(np.float32)
    hand = {
        "frame_index": 0, "timestamp_s": 0.0, "pts": 0, "pose": landmarks, "hand_id": 0, "handedness": "left",
        "score": 0.9, "handedness_score": 1.0, "landmarks_px": landmarks, "box": np.array([20, 20, 60, 60], np.float32),
    }  # fmt: skip
    hands = pa.Table.from_pylist([hand], schema=schema_of("hand_pose"))
    table = operator.run(clip, {"hamer": hands}, 2)
    assert set(table["class"].to_pylist()) <= {"left_hand", ""} and len(set(table["frame_index"].to_pylist())) == 5
    nobody = operator.run(clip, {"hamer": hands.slice(0, 0)}, 2)
    assert set(nobody["object_id"].to_pylist()) == {-1} and len(nobody) == 5
    operator.close()


def test_more_prompts_than_allowed_are_spread_over_the_clip(tmp_path, random_checkpoint, monkeypatch):
    clip = clip_of(probe(str(write_film(tmp_path / "f.mkv", even(40), codec="ffv1")), "f.mkv"))
    asked = []
    operator = Sam2VideoMasks(
        params_of(random_checkpoint, prompting={"prompt_interval_s": 0.1, "max_prompts_per_clip": 4})
    )
    operator.load()
    monkeypatch.setattr(operator, "_ask", lambda hands, image, index: asked.append(index) or [])
    operator.run(clip, {"hamer": schema_of("hand_pose").empty_table()}, 16)
    assert asked == [0, 10, 20, 30]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["./models/sam2/sam2.1_hiera_s.yaml", "configs/sam2.1/sam2.1_hiera_s.yaml"])
def test_a_path_to_sam2s_yaml_means_its_architecture(text):
    assert architecture_of(text) == "sam2.1_hiera_small"


def plan_of(**params):
    values = {"operators": {"sam2": {"backend": "sam2", "params": params}, "hamer": {"enabled": False}}}
    return make_plan(parse(EgoworldConfig, values, "config"), lambda name: "0" * 64)[0]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"prompting": {"source": "detectron"}}, "prompting.source"),
        ({"prompting": {"prompt_text": " . "}}, "names nothing"),
        ({"config": "sam3.yaml"}, "choose from sam2_hiera_tiny"),
        ({"image_size": 1000}, "image_size"),
    ],
)
def test_mistakes_in_the_config(params, words):
    with pytest.raises(RunError, match=words):
        plan_of(**params)


def test_missing_or_wrong_weights(tmp_path, random_checkpoint, random_dino, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeight, match=r"hf download facebook/sam2\.1-hiera-small sam2\.1_hiera_small\.pt"):
        plan_of(checkpoint=str(tmp_path / "absent.pt"))
    with pytest.raises(MissingWeight, match="hf download IDEA-Research"):
        plan_of(checkpoint=str(random_checkpoint), prompting={"gd_checkpoint": "./groundingdino_swint_ogc.pth"})
    with pytest.raises(RunError, match=r"has sha256 .*, the config says 00"):
        plan_of(checkpoint=str(random_checkpoint), checkpoint_sha256="00", prompting={"source": "hands"})
    right = plan_of(checkpoint=str(random_checkpoint), prompting={"gd_checkpoint": str(random_dino)})
    assert set(right.stage("sam2").weights) == {random_checkpoint.name, str(random_dino)}
    assert right.stage("sam2").spec.upstream == ()
    assert plan_of(checkpoint=str(random_checkpoint), prompting={"source": "hands"}).stage_names[0] == "hamer"


def test_image_only_weights_cannot_follow(shared_dir):
    path = shared_dir / "weights" / "sam2_hiera_tiny_image_fp16.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    operator = Sam2VideoMasks(params_of(path, config="sam2_hiera_tiny"))
    with pytest.raises(UnexpectedModel, match="image mode only, which cannot follow objects"):
        operator.load()
