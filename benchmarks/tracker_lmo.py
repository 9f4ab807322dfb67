"""How well CAD templates find real objects: recall, top-1, AP on Linemod-Occluded, and the price of no false locks.

Run: `python -m benchmarks.tracker_lmo [--reuse out/lmo]`. Reads ../shared/data (skips without it). Every step is a row
of the same run, from a plain cosine of whole-object vectors (the peer) to what the tracker does.

Banks are rendered from the eight CAD models (42 views). A picture without an object is an LM-O picture less whatever
proposals touch that object: the same clutter, the other seven objects included. Each picture is judged with thresholds
calibrated on all the others. Frames of five other clips then tell whether such thresholds hold elsewhere.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from rich.console import Console

from actors.tracker.banks import CALIBRATION_GUARD, UNCALIBRATED_THRESHOLD, Bank, cut_off, make_bank
from actors.tracker.flow import FlowBackend
from actors.tracker.mesh import read_mesh, render_views
from actors.tracker.search import Searcher, whole_of
from actors.tracker.work import Desk
from models.embedding.colours import colours
from models.embedding.embedder import EMBEDDED, Descriptors, Embedder
from models.proposals import PROFILES
from train_jobs.so101.spread import wilson

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLIPS = ("cups.mp4", "blocks.mp4", "robotarm.mp4", "cooking_droid_speed.mp4", "vtest_head.avi")
VIEW_PX = 160
LEAST_VISIBLE_PX = 400
HIT_IOU = 0.5
MOST_TOUCHED = 0.05  # share of the object, or of the proposal, that is still no touch
AP_IOUS = np.arange(0.5, 0.96, 0.05)


def pictures(most: int) -> list[tuple[str, np.ndarray, dict[int, np.ndarray]]]:
    """(name, RGB, object id → true visible mask)."""
    found = []
    for path in sorted((DATA / "lmo/rgb").glob("*.jpg"))[:most]:
        ids = cv2.imread(str(DATA / "lmo/mask_rendered" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        assert ids is not None
        truth = {int(i): ids == i for i in np.unique(ids) if i and np.count_nonzero(ids == i) >= LEAST_VISIBLE_PX}
        found.append((path.stem, _rgb(path), truth))
    return found


def negatives(per_clip: int) -> list[tuple[str, np.ndarray]]:
    """Frames of real clips at about the size of the LM-O pictures; none of the objects is in them."""
    found = []
    for clip in CLIPS:
        with av.open(str(DATA / "videos" / clip)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for place in np.linspace(0, len(frames) - 1, per_clip).round().astype(int):
            frame = frames[place]
            scale = 640 / frame.shape[1]
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found.append((f"{clip}-{place}", small))
    return found


def _rgb(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[:, :, ::-1])


def say(line: str) -> None:
    """To the terminal, as it is."""
    Console().print(line, markup=False, highlight=False, soft_wrap=True)


class Bench:
    """Everything slow, kept in a folder when asked for."""

    def __init__(self, reuse: Path | None, embedder: str) -> None:
        self.embedder = Embedder(embedder)
        self.embedder.load()
        backend = FlowBackend(Desk(background=False))
        backend.load()
        self.searcher = Searcher(backend.decoder, self.embedder, PROFILES["edge"])
        self.reuse = reuse

    def kept(self, name: str, make: Any) -> Any:
        """`make()`, or what an earlier run kept of it."""
        path = None if self.reuse is None else self.reuse / f"{name}-{self.embedder.fingerprint}.pkl"
        if path is not None and path.is_file():
            return pickle.loads(path.read_bytes())
        made = make()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(made))
        return made

    def bank(self, number: int, name: str) -> Bank:
        """42 views of one CAD model."""
        mesh = read_mesh(DATA / f"lmo/models/obj_{number:06d}.ply")
        return self.kept(
            f"bank-{number}", lambda: make_bank(name, list(render_views(mesh, 42, VIEW_PX)), self.embedder)
        )

    def objects(self, name: str, image: np.ndarray) -> tuple[np.ndarray, Descriptors]:
        """Masks and descriptors of everything that the embedded segmenter cuts out."""

        def look() -> tuple[np.ndarray, Descriptors]:
            proposals, found = self.searcher.objects(image)
            return proposals.masks[found.index], found

        return self.kept(f"objects-{name}", look)


def whole(bank: Bank, found: Descriptors) -> np.ndarray:
    """The peer's score: mean of the five best cosines of whole-object vectors (CNOS)."""
    similar = np.sort(found.vectors @ bank.vectors.T, axis=1)
    return similar[:, -5:].mean(axis=1)


def uncoloured(bank: Bank, found: Descriptors) -> np.ndarray:
    """Ours without the colours: as if the views were grey."""
    grey = colours(np.full((1, 3, 1, 1), 0.5, np.float32), np.ones((1, 1, 1), np.float32))
    return replace(bank, colours=np.repeat(grey, len(bank.vectors), axis=0)).likeness(found)


def above_the_best(negatives: list[float]) -> float:
    """What calibration was before: 1 in n + 1 may pass."""
    return max(negatives) + CALIBRATION_GUARD


def guess(_: list[float]) -> float:
    """Without calibration."""
    return UNCALIBRATED_THRESHOLD


@dataclass(frozen=True, slots=True)
class Way:
    """One way to choose among proposals."""

    label: str
    score: Callable[[Bank, Descriptors], np.ndarray]
    prefers_wholes: bool


WAYS = (
    Way("whole-object vectors (peer)", whole, False),
    Way("+ patches", uncoloured, False),
    Way("+ colours", Bank.likeness, False),
    Way("+ wholes over parts (ours)", Bank.likeness, True),
)
RULES = {"above the best": above_the_best, "1 % rule": cut_off, "the guess, whatever the best": guess}


@dataclass(frozen=True, slots=True)
class Case:
    """One object and one picture, under one way."""

    scores: np.ndarray  # (K,)
    shared: np.ndarray  # (K, K) pixels that two proposals have in common
    overlap: np.ndarray  # (K,) IoU with the object; 0 where it is not in the picture
    elsewhere: np.ndarray  # (K,) bool: touches no pixel to speak of
    present: bool
    prefers_wholes: bool

    def best(self, kept: np.ndarray | None = None, threshold: float = 0.0) -> tuple[float, float]:
        """(score, IoU with the object) of what would be chosen among the kept proposals; (0, 0) of none."""
        rows = np.arange(len(self.scores)) if kept is None else np.flatnonzero(kept)
        if not len(rows):
            return 0.0, 0.0
        scores, shared = self.scores[rows], self.shared[np.ix_(rows, rows)]
        chosen = int(scores.argmax())
        if self.prefers_wholes:
            chosen = whole_of(chosen, scores, shared.diagonal(), shared[chosen], threshold)
        return float(scores[chosen]), float(self.overlap[rows[chosen]])


@dataclass(frozen=True, slots=True)
class Picture:
    """What was cut out of one picture, measured against each other and against the truth."""

    found: Descriptors
    shared: np.ndarray  # (K, K) pixels that two proposals have in common
    touched: dict[int, np.ndarray]  # object id → (K,) pixels in common with it
    sizes: dict[int, int]  # object id → its pixels

    @classmethod
    def of(cls, masks: np.ndarray, found: Descriptors, truth: dict[int, np.ndarray]) -> Picture:
        """The first two as Bench.objects gives them."""
        flat = masks.reshape(len(masks), -1).astype(np.float32)  # sums of ones are exact up to 16 million
        touched = {number: flat @ true.ravel().astype(np.float32) for number, true in truth.items()}
        return cls(found, flat @ flat.T, touched, {n: np.count_nonzero(true) for n, true in truth.items()})

    def case(self, number: int, scores: np.ndarray, way: Way) -> Case:
        """One object in this picture."""
        areas, size = self.shared.diagonal(), self.sizes.get(number, 0)
        touched = self.touched.get(number, np.zeros(len(areas)))
        overlap, elsewhere = touched / (areas + size - touched), touched < MOST_TOUCHED * np.minimum(areas, size or 1)
        return Case(scores, self.shared, overlap, elsewhere, number in self.sizes, way.prefers_wholes)


def average_precision(hits: list[tuple[float, float]], positives: int) -> float:
    """Mean over AP_IOUS of the area under precision-recall, 101 points (COCO); `hits` are (score, IoU with truth)."""
    ordered = sorted(hits, reverse=True)
    areas = []
    for least in AP_IOUS:
        right = np.array([iou >= least for _, iou in ordered], float)
        recall = np.cumsum(right) / max(positives, 1)
        precision = np.cumsum(right) / (np.arange(len(right)) + 1)
        best = [precision[recall >= level].max(initial=0.0) for level in np.linspace(0, 1, 101)]
        areas.append(np.mean(best))
    return float(np.mean(areas))


def detection(cases: dict[int, list[Case]]) -> str:
    """Recall, top-1 (the proposal chosen for each present object overlaps it) and AP over all objects."""
    present = [each for some in cases.values() for each in some if each.present]
    recall = np.mean([each.overlap.max(initial=0) >= HIT_IOU for each in present])
    top1 = np.mean([each.best()[1] >= HIT_IOU for each in present])
    # At most one of each object is in a picture: what is chosen is the one detection.
    aps = [
        average_precision([each.best() for each in some], sum(each.present for each in some)) for some in cases.values()
    ]
    return f"recall {recall:.3f}, top-1 {top1:.3f}, AP {np.mean(aps):.3f}"


def locks(cases: dict[int, list[Case]], rule: Callable[[list[float]], float]) -> str:
    """Each picture with the thresholds that all others ask for: false, right and wrong locks."""
    false = trials = right = wrong = present = 0
    for some in cases.values():
        negatives = [each.best(each.elsewhere)[0] for each in some]
        for place, each in enumerate(some):
            threshold = rule(negatives[:place] + negatives[place + 1 :])
            false, trials = false + (each.best(each.elsewhere, threshold)[0] >= threshold), trials + 1
            score, overlap = each.best(threshold=threshold)
            locked = each.present and score >= threshold
            present += each.present
            right, wrong = right + (locked and overlap >= HIT_IOU), wrong + (locked and overlap < HIT_IOU)
    low, high = wilson(false, trials)
    return (
        f"false {false} of {trials} ({false / trials:.1%}, 95 % interval {low:.1%} to {high:.1%}), "
        f"right {right} and on a part or elsewhere {wrong} of {present}"
    )


def main() -> None:
    """Print the figures of docs/tracker.md."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--reuse", type=Path, help="keep slow parts here, and use what is there")
    arguments.add_argument("--embedder", default=EMBEDDED)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--pictures", type=int, default=16, help="of the 16 of LM-O")
    arguments.add_argument("--negatives", type=int, default=2, help="frames of each of the five clips")
    given = arguments.parse_args()
    if not DATA.is_dir():
        say(f"skipped: no folder {DATA}")
        return
    torch.set_num_threads(given.threads)
    bench = Bench(given.reuse, given.embedder)
    info = json.loads((DATA / "lmo/models/models_info.json").read_text())
    banks = {int(number): bench.bank(int(number), each["name"]) for number, each in info.items()}
    looked_at = pictures(given.pictures)
    seen = [Picture.of(*bench.objects(name, image), truth) for name, image, truth in looked_at]
    objects = sum(len(truth) for *_, truth in looked_at)
    say(f"{len(seen)} pictures, {objects} objects, {np.mean([len(each.shared) for each in seen]):.0f} proposals each")
    ours = _tell_ways(banks, seen)
    _tell_true_masks(bench, banks, looked_at)
    if given.negatives:
        _tell_elsewhere(bench, banks, ours, negatives(given.negatives))


def _tell_ways(banks: dict[int, Bank], seen: list[Picture]) -> dict[int, list[Case]]:
    """A row per way; the cases of the last one."""
    known: dict[Any, dict[int, list[np.ndarray]]] = {}
    for way in WAYS:
        score = way.score
        if score not in known:
            known[score] = {number: [score(bank, each.found) for each in seen] for number, bank in banks.items()}
        cases = {
            number: [each.case(number, scores, way) for each, scores in zip(seen, known[score][number], strict=True)]
            for number, bank in banks.items()
        }
        say(f"\n{way.label}: {detection(cases)}")
        for rule, cut in RULES.items():
            say(f"    thresholds by {rule} of {len(seen) - 1} pictures: {locks(cases, cut)}")
    return cases


def _tell_true_masks(bench: Bench, banks: dict[int, Bank], looked_at: list) -> None:
    for label, score in (("whole-object vectors", whole), ("ours", Bank.likeness)):
        right = []
        for name, image, truth in looked_at:
            found = bench.kept(f"truth-{name}", lambda i=image, t=truth: bench.embedder.embed(i, list(t.values())))
            scores = np.stack([score(bank, found) for bank in banks.values()])
            right += [list(banks)[best] == number for best, number in zip(scores.argmax(axis=0), truth, strict=True)]
        say(f"\ntold apart with the true masks by {label}: {np.mean(right):.3f}")


def _tell_elsewhere(bench: Bench, banks: dict[int, Bank], ours: dict[int, list[Case]], without: list) -> None:
    found = [bench.objects(name, image)[1] for name, image in without]
    for rule, cut in RULES.items():
        passed = trials = 0
        for number, bank in banks.items():
            threshold = cut([each.best(each.elsewhere)[0] for each in ours[number]])
            passed += sum(float(bank.likeness(each).max(initial=0)) >= threshold for each in found)
            trials += len(found)
        low, high = wilson(passed, trials)
        say(
            f"\nthresholds by {rule} of LM-O's pictures, {len(found)} frames of other scenes: "
            f"false {passed} of {trials} ({passed / trials:.1%}, 95 % interval {low:.1%} to {high:.1%})"
        )


if __name__ == "__main__":
    main()
