"""Template banks: how one object looks from all around, as descriptors, with what counts as alike.

In: views (rendered from a mesh, or a folder of pictures) and an Embedder. Out: a Bank, and one file that holds it.
Called by search.py (`likeness`), by tracker.py and by the command line. Knows nothing of frames.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from actors.messages import frozen
from actors.tracker.errors import BankMismatch, BankUnusable
from actors.tracker.mesh import View
from models.embedding.colours import COLOURS, alike, without_colour
from models.embedding.embedder import Descriptors, Embedder

# CNOS and SAM-6D: the mean of the five most similar views.
BEST_VIEWS = 5
# Measured on LM-O's proposals (benchmarks/tracker_lmo.py tells what each adds).
COVERAGE_WEIGHT = 0.5
COLOUR_WEIGHT = 0.15
# Without negatives nobody knows where to cut. This one is high, rather no lock than a false one: what about 1 % of the
# searches without the object reach on LM-O (benchmarks/tracker_lmo.py).
UNCALIBRATED_THRESHOLD = 0.73
# By how much a proposal must be more like this object than like any other object that is followed.
MARGIN = 0.01
# Above the best of the negatives by this much.
CALIBRATION_GUARD = 0.01
# Of further pictures without the object, how many may pass a calibrated threshold.
FALSE_LOCK_RATE = 0.01
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Bank:
    """T views of one object."""

    name: str
    embedder: str  # name of the network
    fingerprint: str  # of network, weights and preprocessing: Embedder.fingerprint
    vectors: np.ndarray  # (T, D) float32, length 1
    patches: np.ndarray  # (T, G², P) float16, length 1
    on_object: np.ndarray  # (T, G²) bool
    colours: np.ndarray  # (T, COLOURS) float32, shares that sum to 1
    camera_from_object: np.ndarray  # (T, 4, 4) float64, metres; NaN where unknown
    threshold: float = UNCALIBRATED_THRESHOLD
    margin: float = MARGIN
    negatives: int = 0  # pictures that the threshold was calibrated on; 0: it was not

    def __post_init__(self) -> None:
        """Check shapes once and make the arrays read-only."""
        set_, views = object.__setattr__, len(self.vectors)
        set_(self, "vectors", frozen(self.vectors, np.float32, (None, None), "vectors"))
        set_(self, "patches", frozen(self.patches, np.float16, (views, None, None), "patches"))
        set_(self, "on_object", frozen(self.on_object, np.bool_, (views, None), "on_object"))
        set_(self, "colours", frozen(self.colours, np.float32, (views, COLOURS), "colours"))
        poses = frozen(self.camera_from_object, np.float64, (views, 4, 4), "camera_from_object")
        set_(self, "camera_from_object", poses)

    def require(self, embedder: Embedder) -> None:
        """Raise BankMismatch unless it was made with this very embedder, weights and preprocessing."""
        if self.fingerprint != embedder.fingerprint:
            raise BankMismatch(
                f"the bank {self.name!r} was made with {self.embedder} ({self.fingerprint}), but the tracker compares "
                f"with {embedder.name} ({embedder.fingerprint}); make the bank anew with `templates`"
            )

    def likeness(self, found: Descriptors) -> np.ndarray:
        """(K,) float64, about 0..1: how much each object is like this one.

        The mean cosine of the five most similar views (CNOS); with half its weight, how much of the best of those views
        is found again in the object, patch by patch (a fragment of an object looks like it, but lacks the rest); with
        less, how much of its colours it has, unless the views show none.
        """
        if not len(found.vectors):
            return np.zeros(0)
        similar = found.vectors @ self.vectors.T
        views = np.argsort(-similar, axis=1)[:, :BEST_VIEWS]
        semantic = np.take_along_axis(similar, views, axis=1).mean(axis=1)
        covered = [
            max(self._covered(patches[on_object].astype(np.float32), view) for view in best)
            for patches, on_object, best in zip(found.patches, found.on_object, views, strict=True)
        ]
        shape = semantic + COVERAGE_WEIGHT * np.array(covered)
        if without_colour(self.colours):
            return shape / (1 + COVERAGE_WEIGHT)
        coloured = alike(found.colours[:, None], self.colours[views]).max(axis=1)
        return (shape + COLOUR_WEIGHT * coloured) / (1 + COVERAGE_WEIGHT + COLOUR_WEIGHT)

    def _covered(self, patches: np.ndarray, view: int) -> float:
        """Mean over the view's patches of the cosine with the nearest patch of the object."""
        own = self.patches[view][self.on_object[view]].astype(np.float32)
        return float((own @ patches.T).max(axis=1).mean())

    def calibrated(self, best_per_negative: Sequence[float]) -> Bank:
        """With the threshold that pictures without the object ask for, one best likeness per picture; see `cut_off`."""
        if not len(best_per_negative):
            raise BankUnusable("calibration needs at least one picture without the object")
        return replace(self, threshold=cut_off(best_per_negative), negatives=len(best_per_negative))

    def save(self) -> dict[str, Any]:
        """Plain values and numpy arrays."""
        return {"format": FORMAT, **{name: getattr(self, name) for name in self.__dataclass_fields__}}


def cut_off(best_per_negative: Sequence[float], rate: float = FALSE_LOCK_RATE) -> float:
    """Above every one of n pictures without the object, and so that a further one passes with probability `rate`.

    Passing the best of n happens to a further picture in 1 of n + 1 cases, whatever the distribution: for 1 % that
    would take 99 pictures. For fewer, the tail is guessed: the one-sided prediction bound for one further draw from a
    normal distribution of unknown mean and deviation (Student's t, n − 1 degrees of freedom).
    """
    best = np.asarray(best_per_negative, np.float64)
    threshold, count = float(best.max()) + CALIBRATION_GUARD, len(best)
    if count > 1:
        quantile = float(student_t.ppf(1 - rate, count - 1))
        threshold = max(threshold, float(best.mean() + quantile * best.std(ddof=1) * np.sqrt(1 + 1 / count)))
    return threshold


def restore_bank(saved: Mapping[str, Any]) -> Bank:
    """The inverse of `Bank.save`. Raises BankUnusable for another format."""
    values = dict(saved)
    if values.pop("format", None) != FORMAT or values.keys() != Bank.__dataclass_fields__.keys():
        raise BankUnusable(f"this is no template bank of format {FORMAT}; make it anew with `templates`")
    return Bank(**values)


def make_bank(name: str, views: Sequence[View], embedder: Embedder) -> Bank:
    """Embed views with the very steps that proposals go through. Raises BankUnusable for no or empty views."""
    if not views:
        raise BankUnusable("a bank needs at least one view of the object")
    parts = []
    for number, view in enumerate(views):
        found = embedder.embed(view.image, [view.mask])
        if not len(found.index):
            raise BankUnusable(f"view {number} of {name!r} has an empty mask: nothing of the object is in it")
        parts.append(found)
    unknown = np.full((4, 4), np.nan)
    return Bank(
        name=name,
        embedder=embedder.name,
        fingerprint=embedder.fingerprint,
        vectors=np.concatenate([part.vectors for part in parts]),
        patches=np.concatenate([part.patches for part in parts]),
        on_object=np.concatenate([part.on_object for part in parts]),
        colours=np.concatenate([part.colours for part in parts]),
        camera_from_object=np.stack(
            [unknown if view.camera_from_object is None else view.camera_from_object for view in views]
        ),
    )


def write_bank(bank: Bank, path: Path) -> None:
    """One file, whole or not at all."""
    held = bank.save()
    arrays: dict[str, Any] = {name: value for name, value in held.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in held.items() if name not in arrays}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(plain)), **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_bank(path: Path) -> Bank:
    """Raises BankUnusable, with what is wrong, unless `path` is a bank that this version wrote."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        plain = json.loads(str(held.pop("header")))
    except FileNotFoundError as error:
        raise BankUnusable(f"there is no bank {path}; make one with `python -m actors.tracker templates`") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise BankUnusable(f"{path} is not a template bank: {error}") from error
    try:
        return restore_bank({**plain, **held})
    except (TypeError, ValueError) as error:
        raise BankUnusable(f"{path} is a damaged template bank: {error}") from error
