"""A small honest tracker for the service's tests: finds and follows a target by its colours, in milliseconds.

It really looks: a hue-saturation histogram of the templates is back-projected into the frame, the largest likely blob
is the target. It keeps actors.tracker.records.TrackerLike, so that the service cannot tell it from the real one.
"""

import threading
import time

import cv2
import numpy as np

from actors.tracker.errors import BankUnusable, UnknownTarget
from actors.tracker.records import Phase, Reason, TrackState
from robot import wire

BINS = (30, 32)
LIKELY = 60
CONFIRM_FRAMES = 3
MIN_AREA_PX = 40


def histogram(rgb, mask):
    hsv = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1], mask.astype(np.uint8), BINS, [0, 180, 0, 256])
    return cv2.normalize(counts, None, 0, 255, cv2.NORM_MINMAX)


class ColourTracker:
    def __init__(self, work_ms=0.0):
        self._targets = {}
        self._frames = 0
        self._work_ms = work_ms

    def load(self):
        pass

    warm_up = close = load

    def add_target(self, bank, name=None):
        name = name or bank["name"]
        if name in self._targets:
            raise ValueError(f"{name} is taken")
        self._targets[name] = {
            "histogram": bank["histogram"],
            "phase": "acquire",
            "frames": 0,
            "serial": time.time_ns(),
        }
        return name

    def remove_target(self, name):
        if name not in self._targets:
            raise UnknownTarget(name)
        del self._targets[name]

    @property
    def targets(self):
        return tuple(self._targets)

    def step(self, image, time_ns):
        if image.ndim != 3 or image.dtype != np.uint8:
            raise ValueError("not a picture")
        time.sleep(self._work_ms / 1e3)
        hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
        states = tuple(self._one(name, target, hsv, time_ns) for name, target in self._targets.items())
        self._frames += 1
        return states

    def _one(self, name, target, hsv, time_ns):
        likely = cv2.calcBackProject([hsv], [0, 1], target["histogram"], [0, 180, 0, 256], 1)
        likely[hsv[..., 1] < 80] = 0
        blob = cv2.morphologyEx((likely > LIKELY).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(blob)
        best = int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) + 1 if count > 1 else 0
        seen = bool(best) and stats[best, cv2.CC_STAT_AREA] >= MIN_AREA_PX
        before = target["phase"]
        if not seen:
            phase, reason = ("acquire" if before == "acquire" else "lost"), Reason.ALL_REJECTED
        elif before in ("acquire", "lost"):
            phase, reason = "verify", Reason.CANDIDATE
        elif before == "verify" and target["frames"] >= CONFIRM_FRAMES:
            phase, reason = "track", Reason.CONFIRMED
        else:
            phase, reason = before, Reason.CONFIRMED if before == "track" else Reason.CANDIDATE
        target["frames"] = target["frames"] + 1 if phase == before else 1
        target["phase"] = phase
        mask = box = None
        if seen:
            x, y, w, h = stats[best, :4]
            mask, box = labels == best, np.array([x, y, x + w, y + h], np.float32)
        score = float(likely[mask].mean() / 255) if seen else None
        presence = 1.0 if seen else 0.0
        return TrackState(
            name, self._frames, time_ns, Phase(phase), reason, target["frames"], mask, box, score, 0.25, presence
        )

    def save(self):
        return {"frames": self._frames, "targets": self._targets}

    def restore(self, state):
        self._frames = int(state["frames"])
        self._targets = {name: dict(target) for name, target in state["targets"].items()}


class ColourBackend:
    def __init__(self, work_ms=0.0, view_ms=0.0):
        self._work_ms, self._view_ms = work_ms, view_ms
        self._lock = threading.Lock()

    def tracker(self):
        return ColourTracker(self._work_ms)

    def bank_from_views(self, name, views, progress):
        total = np.zeros(BINS, np.float32)
        for index, view in enumerate(views):
            total += histogram(view.rgb, view.mask)
            time.sleep(self._view_ms / 1e3)
            progress(index + 1, len(views))
        if not total.any():
            raise BankUnusable("the templates have no colour")
        counts = cv2.normalize(total, None, 0, 255, cv2.NORM_MINMAX)
        return wire.pack({"type": "bank", "name": name, "histogram": counts})

    def bank_from_mesh(self, name, mesh, kind, progress):
        raise BankUnusable("a colour tracker learns nothing from a mesh")

    def slim(self, state):
        return {**state, "targets": {name: {**t, "histogram": None} for name, t in state["targets"].items()}}

    def whole(self, state, banks):
        targets = {name: {**t, "histogram": banks[name]["histogram"]} for name, t in state["targets"].items()}
        return {**state, "targets": targets}

    def bank(self, data):
        bank = wire.unpack(data, len(data))
        return {**bank, "histogram": bank["histogram"].copy()}


def backend(**arguments):
    return ColourBackend(**arguments)
