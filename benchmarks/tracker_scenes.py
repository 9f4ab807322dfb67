"""Rendered scenes with known truth: the object leaves and returns, a look-alike enters, an occluder crosses.

Run: `python -m benchmarks.tracker_scenes [--output out/scenes] [--points 12]`. Needs ../shared/data (skips without). An
LM-O CAD model is drawn over a frame of a real clip; the bank is rendered from the same model, which flatters the match
but leaves the tracker's judgement to be measured. The peer is the same tracker without comparisons after the lock (as
seed trackers do: detect once, then follow).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from rich.console import Console

from actors.tracker.backend import mask_iou
from actors.tracker.banks import UNCALIBRATED_THRESHOLD, make_bank
from actors.tracker.film import Film
from actors.tracker.mesh import Mesh, look_at, read_mesh, render, render_views
from actors.tracker.records import Phase
from actors.tracker.target import Patience
from actors.tracker.tracker import Tracker
from models.embedding.embedder import Embedder
from models.proposals import PROFILES

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WIDTH, HEIGHT, RATE_HZ, FRAMES = 480, 360, 15, 56
SPRITE_PX = 150
RIGHT_IOU, WRONG_IOU = 0.5, 0.1
NEVER = 10**6


@dataclass(frozen=True, slots=True)
class Sprite:
    """A drawn object to lay over a picture."""

    image: np.ndarray
    mask: np.ndarray


def sprite(mesh: Mesh, azimuth_rad: float) -> Sprite:
    """The mesh from the side, a little from above."""
    centre = (mesh.vertices_m.max(axis=0) + mesh.vertices_m.min(axis=0)) / 2
    direction = np.array([np.cos(azimuth_rad), np.sin(azimuth_rad), 0.5])
    radius = mesh.diameter_m / 2
    pose = look_at(direction / np.linalg.norm(direction), 6 * radius, centre)
    image, depth = render(mesh, pose, SPRITE_PX, SPRITE_PX * 3)
    return Sprite(image, depth > 0)


def paste(picture: np.ndarray, what: Sprite, x: float, y: float) -> np.ndarray:
    """Lay the sprite with its middle at x, y; returns what of it is inside the picture, (H, W) bool."""
    shift = np.array([[1, 0, x - SPRITE_PX / 2], [0, 1, y - SPRITE_PX / 2]])
    size = (picture.shape[1], picture.shape[0])
    mask = cv2.warpAffine(what.mask.astype(np.uint8), shift, size, flags=cv2.INTER_NEAREST) > 0
    picture[mask] = cv2.warpAffine(what.image, shift, size, flags=cv2.INTER_LINEAR)[mask]
    return mask


Scene = Callable[[int, np.ndarray], np.ndarray]


def scenes(thing: Sprite, double: Sprite) -> dict[str, Scene]:
    """Name → a function that draws frame t in place and returns the object's visible mask."""

    def leaves_and_returns(t: int, picture: np.ndarray) -> np.ndarray:
        if t < 22:
            return paste(picture, thing, 150 + 20 * max(0, t - 6), 200)
        return paste(picture, thing, min(240, -70 + 20 * (t - 30)), 190)

    def look_alike_enters(t: int, picture: np.ndarray) -> np.ndarray:
        if t > 24:
            paste(picture, double, min(340, 560 - 18 * (t - 24)), 200)
        if t < 20:
            return paste(picture, thing, 150 - 18 * max(0, t - 6), 200)
        return paste(picture, thing, min(120, -70 + 15 * (t - 38)), 190)

    def occluder_crosses(t: int, picture: np.ndarray) -> np.ndarray:
        mask = paste(picture, thing, 240, 200)
        left = -220 + 18 * t
        x0, x1 = np.clip([left, left + 200], 0, WIDTH)
        picture[:, x0:x1] = (90, 70, 50)
        picture[::8, x0:x1] = (120, 95, 70)
        mask[:, x0:x1] = False
        return mask

    return {"leaves_and_returns": leaves_and_returns, "look_alike": look_alike_enters, "occluder": occluder_crosses}


def background() -> np.ndarray:
    """A real kitchen, at the scenes' size."""
    with av.open(str(DATA / "videos/cooking_droid_speed.mp4")) as container:
        frame = next(iter(container.decode(video=0))).to_ndarray(format="rgb24")
    return cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def frames(scene: Scene, behind: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(picture, visible mask of the object), with the camera's noise."""
    rng = np.random.default_rng(0)
    for t in range(FRAMES):
        picture = behind.copy()
        mask = scene(t, picture)
        noise = rng.normal(0, 3, picture.shape)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8), mask


@dataclass(slots=True)
class Tally:
    """Counts of one run."""

    visible: int = 0
    right: int = 0  # visible, and its mask on it in TRACK
    false: int = 0  # TRACK on something else
    gone_at: int = -1
    back_at: int = -1
    relocked_at: int = -1

    def add(self, t: int, phase: Phase, mask: np.ndarray | None, truth: np.ndarray, whole: int) -> None:
        """One frame; the object counts as visible with half of its pixels, as gone with none."""
        seen = np.count_nonzero(truth) > whole / 2
        iou = 0.0 if mask is None else mask_iou(mask, truth)
        tracked = phase is Phase.TRACK and mask is not None
        self.visible += seen
        self.right += seen and tracked and iou >= RIGHT_IOU
        self.false += tracked and iou < WRONG_IOU
        if not truth.any():
            self.gone_at = t
        if self.gone_at >= 0 and self.back_at < 0 and seen and t > self.gone_at:
            self.back_at = t
        if self.back_at >= 0 and self.relocked_at < 0 and tracked and iou >= RIGHT_IOU:
            self.relocked_at = t


def main() -> None:
    """Print one line per scene and side."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--output", type=Path, help="write the overlays here, to look at")
    arguments.add_argument("--points", type=int, default=12, help="per side")
    arguments.add_argument("--only", default="", help="runs whose line begins with this")
    arguments.add_argument("--object", type=int, default=9, help="of LM-O")
    arguments.add_argument("--threshold", type=float, default=UNCALIBRATED_THRESHOLD)
    given = arguments.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    if not DATA.is_dir():
        console.print(f"skipped: no folder {DATA}")
        return
    torch.set_num_threads(1)
    mesh = read_mesh(DATA / f"lmo/models/obj_{given.object:06d}.ply")
    assert mesh.rgb is not None
    embedder = Embedder()
    embedder.load()
    bank = make_bank("object", list(render_views(mesh, 42, SPRITE_PX)), embedder)
    bank = replace(bank, threshold=given.threshold)
    # The same shape in other colours.
    other = Mesh(mesh.vertices_m, mesh.faces, mesh.rgb[:, ::-1])
    double = sprite(other, 0.6)
    known = make_bank("look-alike", list(render_views(other, 42, SPRITE_PX)), embedder)
    thing, behind = sprite(mesh, 0.6), background()
    profile = replace(PROFILES["edge"], points_per_side=given.points)
    sides = {
        "ours": (Patience(), ()),
        "look-alike's bank given": (Patience(), (known,)),
        "never compared again": (Patience(track_every=NEVER, suspect_every=NEVER), ()),
    }
    for name, scene in scenes(thing, double).items():
        for side, (patience, distractors) in sides.items():
            if given.only and not f"{name}, {side}".startswith(given.only):
                continue
            tracker = Tracker(
                background=False, embedder=embedder, profile=profile, patience=patience, distractors=distractors
            )
            tracker.load()
            tracker.add_target(bank)
            film = Film(given.output / f"{name}-{side.split()[0]}.mp4") if given.output else None
            tally = Tally()
            for t, (picture, truth) in enumerate(frames(scene, behind)):
                (state,) = tracker.step(picture, round(t * 1e9 / RATE_HZ))
                tally.add(t, state.phase, state.mask, truth, int(np.count_nonzero(thing.mask)))
                if film:
                    film.add(picture, [state], state.time_ns)
            if film:
                film.close()
            back = "never" if tally.relocked_at < 0 else f"{tally.relocked_at - tally.back_at} frames"
            console.print(
                f"{name}, {side}: right in {tally.right} of {tally.visible} frames, false in {tally.false}; "
                f"locked again after {back}"
            )


if __name__ == "__main__":
    main()
