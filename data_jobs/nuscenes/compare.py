"""`compare`: motion models side by side, same detections, same association, at several rates and with gaps.

In: suites of sequences (synthetic by seed, a converted folder with detections, or a MOT folder), weights files. Out:
rows of scores, one table as text, JSON and HTML. Called by __main__.py. What differs between rows is the motion model
and nothing else, except where a row's name says so: `own gate` has other gates, a library's tracker its own rules.

Intervals: mean ± standard error times Student's factor (95 %) over the suites' seeds; the difference to the reference
is taken suite by suite first, so that what makes one suite harder for all does not hide it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from data_jobs.nuscenes import suite
from data_jobs.nuscenes.association import TUNED_THRESHOLDS, Unsure
from data_jobs.nuscenes.mot_folder import is_mot_folder
from data_jobs.nuscenes.motion import LEARNED, motion_maker
from data_jobs.nuscenes.peers import PEERS, library
from data_jobs.nuscenes.perfect import perfect
from data_jobs.nuscenes.suite import Part, Track, ours
from data_jobs.runs.errors import RunError

REFERENCE = "Kalman, tuned, ego-turned"
BOUND = "perfect motion (told the truth)"
METRICS = ("HOTA", "AssA", "IDF1", "IDSW")
GAP_SEED = 7
# Standard deviations by which a network's boxes grow in the rows that say `own gate`. Not tuned.
SPREAD_GROWTH = 2.0


@dataclass(frozen=True, slots=True)
class Condition:
    """How the recordings are changed before they are tracked."""

    name: str
    every: int = 1  # keep every n-th frame
    gap: int = 0  # frames in a row that each object goes undetected


GAPS = (Condition("gaps of 5 frames", gap=5), Condition("gaps of 10 frames", gap=10))
# Of the synthetic suites, whose rate is known, and of recordings, whose is not.
CONDITIONS = (Condition("12 Hz"), Condition("2 Hz", every=6), *GAPS)
AS_RECORDED = (Condition("as recorded"), Condition("every 6th frame", every=6), *GAPS)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table."""

    name: str
    track: Track


@dataclass(frozen=True, slots=True)
class Result:
    """One row under one condition: a score per suite."""

    entry: str
    condition: str
    scores: tuple[dict[str, float], ...]

    def values(self, metric: str) -> np.ndarray:
        """(suites,), percent but for counts."""
        return np.array([s[metric] * (1 if metric == "IDSW" else 100) for s in self.scores])


def entries(weights: Sequence[Path], peers: bool = False) -> list[Entry]:
    """The rows: baselines, the library's trackers, each network, a residual one also with its own spread as gate, and
    perfect motion.

    Raises ModelError for weights that do not fit, RunError for peers that are not installed.
    """
    plain = [
        ("last box", "last_box"),
        ("constant velocity", "constant_velocity"),
        ("Kalman, ByteTrack's noise", "kalman"),
        ("Kalman, tuned", "kalman_tuned"),
        (REFERENCE, "kalman_ego"),
    ]
    rows = [Entry(f"{name} of `trackers`, its defaults", library(name)) for name in PEERS] if peers else []
    rows += [Entry(name, ours(motion_maker(motion), TUNED_THRESHOLDS)) for name, motion in plain]
    own = replace(TUNED_THRESHOLDS, spread_growth=SPREAD_GROWTH)
    for path in weights:
        make, name = motion_maker(LEARNED, path), f"TrackSSM, {path.stem}"
        rows.append(Entry(name, ours(make, TUNED_THRESHOLDS)))
        if isinstance(make(), Unsure):
            rows.append(Entry(f"{name}, own gate", ours(make, own)))
    return [*rows, Entry(BOUND, partial(perfect, thresholds=TUNED_THRESHOLDS))]


def changed(parts: Sequence[Part], condition: Condition) -> list[Part]:
    """Every sequence under a condition; gaps lie at the same places for all trackers."""
    rng = np.random.default_rng(GAP_SEED)
    out = [suite.with_gaps(part, condition.gap, rng) if condition.gap else part for part in parts]
    return [suite.thinned(part, condition.every) for part in out]


def compare(
    suites: Sequence[Sequence[Part]], rows: Sequence[Entry], conditions: Sequence[Condition], say: Callable[[str], None]
) -> list[Result]:
    """Score every row under every condition on every suite."""
    results = []
    for condition in conditions:
        made = [changed(parts, condition) for parts in suites]
        for row in rows:
            scores = tuple(suite.score(parts, row.track) for parts in made)
            results.append(Result(row.name, condition.name, scores))
            say(f"{condition.name}, {row.name}: HOTA {spread(results[-1].values('HOTA'))}")
    return results


def synthetic_suites(seeds: Sequence[int], scenes: int, split: str) -> list[list[Part]]:
    """One suite per seed."""
    made = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as work:
            made.append(suite.synthetic_suite(Path(work), split, seed, scenes))
    return made


def recorded_suite(folder: Path, detections: Path | None, split: str) -> list[Part]:
    """A MOT folder's sequences, or a conversion's with detections. Raises RunError for bad or missing ones."""
    if is_mot_folder(folder):
        if detections is not None:
            raise RunError("a MOT folder has its own detections in det/det.txt: leave --detections out")
        return suite.mot_suite(folder)
    if detections is None:
        raise RunError("which detections? give --detections; only MOT folders bring their own in det/det.txt")
    return suite.read_suite(folder, detections, split)


def half_width(values: np.ndarray) -> float:
    """Half the 95 % interval of the mean; NaN for a single value."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def spread(values: np.ndarray, digits: int = 1) -> str:
    """`mean ± half width`, or the value alone."""
    half = half_width(values)
    return f"{values.mean():.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def table(results: Sequence[Result]) -> str:
    """Markdown: a row per motion model and condition; differences to the reference with their own intervals."""
    lines = ["| | motion | HOTA | AssA | IDF1 | IDSW | HOTA − reference |", "|---|---|---|---|---|---|---|"]
    reference = {r.condition: r for r in results if r.entry == REFERENCE}
    for r in results:
        numbers = [spread(r.values(m), 0 if m == "IDSW" else 1) for m in METRICS]
        base = reference.get(r.condition)
        against = spread(r.values("HOTA") - base.values("HOTA"), 2) if base and r is not base else "–"
        lines.append(f"| {r.condition} | {r.entry} | {' | '.join(numbers)} | {against} |")
    return "\n".join(lines)


def as_json(results: Sequence[Result], about: dict[str, Any]) -> str:
    """All scores of all suites."""
    rows = [{"motion": r.entry, "condition": r.condition, "scores": list(r.scores)} for r in results]
    return json.dumps({**about, "results": rows}, indent=1, sort_keys=True) + "\n"
