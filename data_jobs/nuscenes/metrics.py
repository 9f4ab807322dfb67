"""HOTA, CLEAR and Identity for one sequence, and how sequences and classes combine. NumPy, no loop over
thresholds' frames.

In: true and track Boxes. Out: a Score. Called by evaluate.py. Knows nothing of classes' names, files or
cameras.
Definitions: HOTA, DetA, AssA: Luiten et al. 2021; CLEAR: Bernardin and Stiefelhagen 2008; Identity: Ristani
et al. 2016. Equal to TrackEval 1.3 (tests/data_jobs/nuscenes/test_metrics.py holds its numbers): where the
definitions leave a choice (zero denominators, what an empty frame does to identity switches), TrackEval's is
taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_jobs.nuscenes.matching import (
    EPS,
    Boxes,
    FloatArray,
    IntArray,
    Pairs,
    best_pairs,
    overlapping,
    solve,
)

# The 19 localisation thresholds over which HOTA is averaged.
ALPHAS: FloatArray = np.arange(0.05, 0.99, 0.05, dtype=np.float64)

# A true box and a track box can be the same object for CLEAR and Identity from this IoU on.
IOU_THRESHOLD = 0.5

# Outweighs any IoU: a track that was this object in the frame before stays it while it overlaps enough
# (CLEAR).
KEEP_BONUS = 1000.0


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one sequence, or of several together. Ratios derive from them; arrays are over the 19
    thresholds."""

    hota_tp: FloatArray
    hota_fn: FloatArray
    hota_fp: FloatArray
    loc_sum: FloatArray  # Σ IoU of the true positives
    ass_a_sum: FloatArray  # Σ over true positives of the association accuracy
    ass_re_sum: FloatArray
    ass_pr_sum: FloatArray
    clr_tp: int
    clr_fn: int
    clr_fp: int
    idsw: int
    mt: int
    pt: int
    ml: int
    frag: int
    motp_sum: float
    idtp: int
    idfn: int
    idfp: int
    truths: int  # true boxes
    tracks: int  # track boxes

    def ratios(self) -> dict[str, float]:
        """The numbers people quote, 0..1 (MOTA may be negative), and the counts behind them."""
        tp, fn, fp = self.hota_tp, self.hota_fn, self.hota_fp
        det_a, ass_a = tp / np.maximum(1, tp + fn + fp), self.ass_a_sum / np.maximum(1, tp)
        hota = np.sqrt(det_a * ass_a)
        clear = max(1.0, self.clr_tp + self.clr_fn)
        identity = max(1.0, self.idtp + 0.5 * self.idfp + 0.5 * self.idfn)
        return {
            "HOTA": float(hota.mean()),
            "DetA": float(det_a.mean()),
            "AssA": float(ass_a.mean()),
            "DetRe": float((tp / np.maximum(1, tp + fn)).mean()),
            "DetPr": float((tp / np.maximum(1, tp + fp)).mean()),
            "AssRe": float((self.ass_re_sum / np.maximum(1, tp)).mean()),
            "AssPr": float((self.ass_pr_sum / np.maximum(1, tp)).mean()),
            "LocA": float((np.maximum(1e-10, self.loc_sum) / np.maximum(1e-10, tp)).mean()),
            "MOTA": (self.clr_tp - self.clr_fp - self.idsw) / clear,
            "MOTP": self.motp_sum / max(1.0, self.clr_tp),
            "CLR_Re": self.clr_tp / clear,
            "CLR_Pr": self.clr_tp / max(1.0, self.clr_tp + self.clr_fp),
            "IDF1": self.idtp / identity,
            "IDR": self.idtp / max(1.0, self.idtp + self.idfn),
            "IDP": self.idtp / max(1.0, self.idtp + self.idfp),
            "CLR_TP": self.clr_tp,
            "CLR_FN": self.clr_fn,
            "CLR_FP": self.clr_fp,
            "IDSW": self.idsw,
            "MT": self.mt,
            "PT": self.pt,
            "ML": self.ml,
            "Frag": self.frag,
            "IDTP": self.idtp,
            "IDFN": self.idfn,
            "IDFP": self.idfp,
        }

    @property
    def is_empty(self) -> bool:
        """Whether there was neither a true box nor a track box."""
        return self.truths == 0 and self.tracks == 0


COUNTS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "IDTP", "IDFN", "IDFP")


def combined(scores: Sequence[Score]) -> Score:
    """Several sequences or classes as one: all counts add up (association is weighted by true positives)."""
    return Score(*(sum(getattr(score, name) for score in scores) for name in Score.__slots__))


def class_averaged(scores: Sequence[Score]) -> dict[str, float]:
    """Mean of each ratio over the classes that have any box at all; counts add up. Empty input gives no
    numbers."""
    rows = [score.ratios() for score in scores if not score.is_empty]
    if not rows:
        return {}
    return {
        name: sum(r[name] for r in rows) if name in COUNTS else float(np.mean([r[name] for r in rows]))
        for name in rows[0]
    }


def score_sequence(truth: Boxes, track: Boxes) -> Score:
    """Score of one class in one sequence. Ids must be unique within each frame (evaluate.py checks)."""
    truth, track = _dense(truth), _dense(track)
    pairs = overlapping(truth, track)
    parts: list[Any] = [*_hota(truth, track, pairs), *_clear(truth, track, pairs), *_identity(truth, track, pairs)]
    return Score(*[*parts, len(truth.id), len(track.id)])


def _dense(boxes: Boxes) -> Boxes:
    return Boxes(boxes.frame, np.unique(boxes.id, return_inverse=True)[1].astype(np.int64), boxes.xywh_px)


def _counts(boxes: Boxes) -> IntArray:
    return np.bincount(boxes.id)


def _hota(truth: Boxes, track: Boxes, pairs: Pairs) -> tuple[FloatArray, ...]:
    """tp, fn, fp, Σ IoU, Σ association accuracy, recall, precision, each over the 19 thresholds."""
    frame, (pair, truth_id, track_id) = truth.frame[pairs.truth], _id_pairs(truth, track, pairs)
    truth_count, track_count = _counts(truth), _counts(track)
    # How well two identities agree over the whole sequence decides who is matched within a frame.
    row = np.bincount(pairs.truth, pairs.iou, len(truth.id))
    column = np.bincount(pairs.track, pairs.iou, len(track.id))
    share = pairs.iou / (column[pairs.track] + row[pairs.truth] - pairs.iou)
    agreed = np.bincount(pair, share, len(truth_id))
    affinity = agreed / (truth_count[truth_id] + track_count[track_id] - agreed)
    matched = best_pairs(pairs, affinity[pair] * pairs.iou, frame)
    iou, pair = pairs.iou[matched], pair[matched]
    # Pairs sorted by IoU: those at or above a threshold are a tail, and its counts are differences of running
    # counts.
    passed = iou[None] >= ALPHAS[:, None] - EPS
    tp = passed.sum(axis=1).astype(np.float64)
    hits = np.stack([np.bincount(pair[p], minlength=len(truth_id)) for p in passed]).astype(np.float64)
    spread = truth_count[truth_id] + track_count[track_id] - hits
    return (
        tp, len(truth.id) - tp, len(track.id) - tp, passed @ iou,
        (hits * hits / np.maximum(1, spread)).sum(axis=1),
        (hits * hits / np.maximum(1, truth_count[truth_id])).sum(axis=1),
        (hits * hits / np.maximum(1, track_count[track_id])).sum(axis=1),
    )  # fmt: skip


def _id_pairs(truth: Boxes, track: Boxes, pairs: Pairs) -> tuple[IntArray, IntArray, IntArray]:
    """Identity pair of each box pair (P,), and the true and track id of each identity pair (U,)."""
    width = int(track.id.max(initial=-1)) + 1
    unique, index = np.unique(truth.id[pairs.truth] * width + track.id[pairs.track], return_inverse=True)
    return index, unique // max(width, 1), unique % max(width, 1)


def _clear(truth: Boxes, track: Boxes, pairs: Pairs) -> tuple[float, ...]:
    """tp, fn, fp, id switches, mostly and partly tracked, mostly lost, fragmentations, Σ IoU."""
    close = pairs.chosen(pairs.iou >= IOU_THRESHOLD - EPS)
    both = np.intersect1d(truth.frame, track.frame)  # frames with boxes on both sides: the steps of this metric
    step = np.searchsorted(both, truth.frame[close.truth])
    matched = _keep_matching(truth, track, close, step)
    tp = len(matched.truth)
    who, what = truth.id[matched.truth], track.id[matched.track]
    when = np.searchsorted(both, truth.frame[matched.truth])
    order = np.lexsort((when, who))
    who, what, when = who[order], what[order], when[order]
    again = np.diff(who) == 0
    switches = int((again & (np.diff(what) != 0)).sum())
    fragments = int((again & (np.diff(when) != 1)).sum())
    if not len(track.id):
        return 0, len(truth.id), 0, 0, 0, 0, len(_counts(truth)), 0, 0.0
    ratio = np.bincount(who, minlength=len(_counts(truth))) / _counts(truth)
    mostly, partly = int((ratio > 0.8).sum()), int((ratio >= 0.2).sum())
    lost = len(ratio) - partly
    return (
        tp, len(truth.id) - tp, len(track.id) - tp, switches, mostly, partly - mostly, lost, fragments,
        float(matched.iou.sum()),
    )  # fmt: skip


def _keep_matching(truth: Boxes, track: Boxes, close: Pairs, step: IntArray) -> Pairs:
    """Matches of each step: what was matched one step before stays matched, then the largest total IoU.

    Steps without rivalry do not depend on the past, so only steps with rivals are solved, in order.
    """
    rivals = np.bincount(close.truth)[close.truth] > 1 if len(close.truth) else np.zeros(0, bool)
    if len(close.track):
        rivals |= np.bincount(close.track)[close.track] > 1
    matched = ~rivals
    starts = np.searchsorted(step, np.arange(int(step.max(initial=-1)) + 2))
    contested = np.flatnonzero(rivals)
    for at in np.unique(step[contested]):
        rows = np.arange(starts[at], starts[at + 1])
        before = np.arange(starts[at - 1], starts[at]) if at else rows[:0]
        before = before[matched[before]]
        kept = dict(zip(truth.id[close.truth[before]].tolist(), track.id[close.track[before]].tolist(), strict=True))
        rows = rows[rivals[rows]]
        pairs = close.chosen(rows)
        stays = [
            kept.get(a) == b
            for a, b in zip(truth.id[pairs.truth].tolist(), track.id[pairs.track].tolist(), strict=True)
        ]
        score = pairs.iou + KEEP_BONUS * np.array(stays)
        matched[rows[solve(pairs.truth, pairs.track, score)]] = True
    return close.chosen(matched)


def _identity(truth: Boxes, track: Boxes, pairs: Pairs) -> tuple[int, int, int]:
    """idtp, idfn, idfp: one track per object over the whole sequence, chosen for the most boxes in common."""
    close = pairs.chosen(pairs.iou >= IOU_THRESHOLD)
    if not len(close.truth):
        return 0, len(truth.id), len(track.id)
    common = np.zeros((len(_counts(truth)), len(_counts(track))), dtype=np.int64)
    np.add.at(common, (truth.id[close.truth], track.id[close.track]), 1)
    idtp = int(common[linear_sum_assignment(common, maximize=True)].sum())
    return idtp, len(truth.id) - idtp, len(track.id) - idtp
