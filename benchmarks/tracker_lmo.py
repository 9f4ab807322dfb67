"""How well CAD templates find real objects: proposal recall, top-1, AP on Linemod-Occluded, and false locks.

Run: `python -m benchmarks.tracker_lmo [--reuse out/lmo]`. Reads ../shared/data (skips without it). The peer in the same
run is a plain cosine of whole-object vectors, without the patches; the ceiling is the true masks with our scores.

Banks are rendered from the eight CAD models (42 views). Pictures without the objects come from the real clips; half of
them calibrate the thresholds, the other half is tested.
"""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from rich.console import Console

from actors.tracker.backend import mask_iou
from actors.tracker.banks import Bank, make_bank
from actors.tracker.flow import FlowBackend
from actors.tracker.mesh import read_mesh, render_views
from actors.tracker.search import Searcher
from actors.tracker.work import Desk
from models.embedding.embedder import EMBEDDED, Descriptors, Embedder
from models.proposals import PROFILES

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLIPS = ("cups.mp4", "blocks.mp4", "robotarm.mp4", "cooking_droid_speed.mp4", "vtest_head.avi")
VIEW_PX = 160
LEAST_VISIBLE_PX = 400
HIT_IOU = 0.5
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


def detection(seen: list, banks: dict[int, Bank], score: Any) -> tuple[float, float]:
    """Top-1 (the best proposal of each present object overlaps it) and AP over all objects."""
    right, present = 0, 0
    hits: dict[int, list[tuple[float, float]]] = {number: [] for number in banks}
    positives = dict.fromkeys(banks, 0)
    for masks, found, truth in seen:
        scores = np.stack([score(bank, found) for bank in banks.values()])
        for row, number in enumerate(banks):
            best = int(scores[row].argmax())
            iou = mask_iou(masks[best], truth[number]) if number in truth else 0.0
            positives[number] += number in truth
            present += number in truth
            right += iou >= HIT_IOU
            # At most one of each object is in a picture: its best proposal is the one detection.
            hits[number].append((float(scores[row, best]), iou))
    ap = np.mean([average_precision(hits[number], positives[number]) for number in banks])
    return right / present, float(ap)


def main() -> None:
    """Print the table of docs/tracker.md."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--reuse", type=Path, help="keep slow parts here, and use what is there")
    arguments.add_argument("--embedder", default=EMBEDDED)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--pictures", type=int, default=16, help="of the 16 of LM-O")
    arguments.add_argument("--negatives", type=int, default=6, help="frames of each of the five clips")
    given = arguments.parse_args()
    if not DATA.is_dir():
        say(f"skipped: no folder {DATA}")
        return
    torch.set_num_threads(given.threads)
    bench = Bench(given.reuse, given.embedder)
    info = json.loads((DATA / "lmo/models/models_info.json").read_text())
    banks = {int(number): bench.bank(int(number), each["name"]) for number, each in info.items()}
    looked_at = pictures(given.pictures)
    seen = [(*bench.objects(name, image), truth) for name, image, truth in looked_at]
    _tell_detection(bench, banks, looked_at, seen)
    _tell_false_locks(bench, banks, seen, negatives(given.negatives))


def _tell_detection(bench: Bench, banks: dict[int, Bank], looked_at: list, seen: list) -> None:
    reached = [max(mask_iou(mask, true) for mask in masks) for masks, _, truth in seen for true in truth.values()]
    say(f"\n{len(seen)} pictures, {len(reached)} objects, {np.mean([len(m) for m, *_ in seen]):.0f} proposals each")
    say(f"proposal recall at IoU 0.5: {np.mean(np.array(reached) >= HIT_IOU):.3f}, mean IoU {np.mean(reached):.3f}")
    exact = []
    for name, image, truth in looked_at:
        found = bench.kept(f"truth-{name}", lambda i=image, t=truth: bench.embedder.embed(i, list(t.values())))
        exact.append((list(truth), found))
    for label, score in (("whole vectors (peer)", whole), ("whole + patches (ours)", Bank.likeness)):
        top1, ap = detection(seen, banks, score)
        right = []
        for numbers, found in exact:
            scores = np.stack([score(bank, found) for bank in banks.values()])
            right += [list(banks)[best] == number for best, number in zip(scores.argmax(axis=0), numbers, strict=True)]
        say(f"{label}: top-1 {top1:.3f}, AP {ap:.3f}; told apart with the true masks {np.mean(right):.3f}")


def _tell_false_locks(bench: Bench, banks: dict[int, Bank], seen: list, without: list) -> None:
    found = [bench.objects(name, image)[1] for name, image in without]
    best = {number: [float(bank.likeness(each).max(initial=0)) for each in found] for number, bank in banks.items()}
    false_locks, trials, locks, present = 0, 0, 0, 0
    for number, bank in banks.items():
        after = bank.calibrated(best[number][::2])
        tested = best[number][1::2]
        false_locks, trials = false_locks + sum(score >= after.threshold for score in tested), trials + len(tested)
        right = 0
        for masks, each, truth in seen:
            if number not in truth:
                continue
            scores = after.likeness(each)
            present += 1
            right += scores.max() >= after.threshold and mask_iou(masks[scores.argmax()], truth[number]) >= HIT_IOU
        locks += right
        say(f"{bank.name:12s} threshold {after.threshold:.3f}: right locks {right}, negatives' best {max(tested):.3f}")
    say(f"false locks: {false_locks} of {trials} ({false_locks / trials:.3%}); right locks: {locks} of {present}")


if __name__ == "__main__":
    main()
