"""A film of the policy at work: the table from outside, the wrist camera, and the classes that the policy is given.

In: a Trial and episode numbers. Out: an animated GIF. Called by __main__.py. The episodes are shown as they come,
failures included, at the speed of the simulated clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from robot.rendering import WristCamera
from train_jobs.so101.look import AUDIENCE
from train_jobs.so101_policy.evaluate import Trial, parts, world_of
from train_jobs.so101_policy.rollout import Eyes, play
from train_jobs.so101_policy.world import Sight, World

PANEL_PX = (200, 150)
# One picture per so many decisions; at 25 decisions a second that is 12.5 pictures a second.
EVERY, COLOURS = 2, 40
LAST_PICTURE_MS = 800
# RGB of SEGMENTER_CLASSES.
PALETTE = np.array([[0, 0, 0], [60, 60, 70], [190, 180, 165], [215, 40, 40], [50, 110, 200], [240, 180, 40]], np.uint8)


def film(trial: Trial, episodes: Sequence[int], to: Path) -> list[bool]:
    """Write the film; whether each episode succeeded. Raises OSError where it cannot be written."""
    eyes, drive = parts(trial)
    assert eyes is not None, "a policy that looks"
    world = world_of(trial)
    audience = WristCamera(world.model, AUDIENCE, *PANEL_PX, np.zeros(world.model.nbody, np.uint8))
    watching = _Watching(eyes, world, audience)
    pictures: list[Image.Image] = []
    times_ms: list[int] = []
    outcomes = []
    try:
        for number in episodes:
            watching.strips.clear()
            played = next(iter(play([world], [number], trial.terms, watching, drive)))
            outcomes.append(played.success)
            shown = watching.strips[::EVERY]
            step_ms = round(1000 * EVERY * trial.conditions.every / trial.terms.rate_hz)
            pictures += [Image.fromarray(strip).quantize(COLOURS, dither=Image.Dither.NONE) for strip in shown]
            times_ms += [step_ms] * (len(shown) - 1) + [LAST_PICTURE_MS]
    finally:
        audience.close()
        world.close()
    to.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(to, save_all=True, append_images=pictures[1:], duration=times_ms, loop=0, optimize=True)
    return outcomes


class _Watching:
    """Eyes that keep a strip of three panels for every look."""

    def __init__(self, eyes: Eyes, world: World, audience: WristCamera) -> None:
        self._eyes, self._world, self._audience = eyes, world, audience
        self.strips: list[np.ndarray] = []

    def see(self, sights: Sequence[Sight]) -> list[np.ndarray]:
        """What the other eyes see."""
        ids = self._eyes.see(sights)
        if not self.strips:
            self._audience.refresh_texture("table")
        self._audience.look(self._world.data)
        panels = [self._audience.colour(), sights[0].rgb, PALETTE[ids[0]]]
        self.strips.append(np.hstack([cv2.resize(p, PANEL_PX, interpolation=cv2.INTER_NEAREST) for p in panels]))
        return ids
