"""HandFollower: a picture of a hand → joint angles of an Allegro, and of an arm where the camera's place is known.

In: a picture (JPEG or RGB) with its instant, and the state that the answer before came with. Out: a HandCommand and the
next state. Called by serve (`WS /v1/hands`) through a named actor. It remembers nothing between calls: a client's
state travels with its call, so an actor that is restarted loses nobody, and a repeated call does no harm.

One picture does not tell metres. MediaPipe's landmarks are those of a hand of ordinary size; with the camera's
intrinsics the wrist's place follows from their size in the picture, as far as the person's hand is ordinary.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
import torch

from actors.hand_finder import HandFinder, Variant
from actors.hand_records import SIDES, HandCommand, HandRig, HandState
from actors.messages import Hand
from models.hands.regions import Region
from models.kinematics.ur import ARMS
from models.retarget.arm import READY_RAD, ArmRetargeter
from models.retarget.hand import HandRetargeter
from models.retarget.keypoints import WRIST, from_wrist
from models.retarget.steady import Memory, nothing_seen, seen_from_wrist, steady_step

LARGEST_PIXELS = 4096 * 2304
# A longer gap between two pictures counts as this long: the joints do not leap after it.
LONGEST_STEP_S = 0.2
LEAST_STEP_S = 1e-3


class HandFollower:
    """Four verbs: load, warm_up, follow, close."""

    def __init__(self, variant: Variant = "lite", objective: str = "pinch", threads: int = 2) -> None:
        self._finder = HandFinder(variant, 2, threads)
        self._objective = objective
        self._hands: dict[str, HandRetargeter] = {}
        self._arms: dict[str, ArmRetargeter] = {}

    def load(self) -> None:
        """Read the networks, build both hands. Raises MissingWeight with the command to run."""
        self._finder.load()
        self._hands = {side: HandRetargeter(side, self._objective) for side in SIDES}
        self._arms = {arm: ArmRetargeter(arm) for arm in ARMS}

    def warm_up(self) -> None:
        """One picture without a hand, and one solve."""
        self._finder.warm_up()
        for hand in self._hands.values():
            hand.follow(np.full((21, 3), np.nan), hand.side, 0.03, hand.middle_rad)

    def joints(self, rig: HandRig) -> tuple[str, ...]:
        """Names of the 16 joints, in order. Raises ValueError for an arm that is not known."""
        if rig.arm is not None and rig.arm not in ARMS:
            raise ValueError(f"there is no arm {rig.arm!r}; choose one of {', '.join(ARMS)}")
        return self._hands[rig.side].hand.tree.joints

    def follow(
        self, picture: bytes | np.ndarray, captured_ns: int, rig: HandRig, state: HandState | None = None
    ) -> tuple[HandCommand, HandState]:
        """The next command. Raises ValueError for a picture that is none, or that is older than the one before."""
        if not self._hands:
            raise RuntimeError("the hand follower is not loaded; call load() first")
        begun = time.perf_counter()
        image, step_s = _decoded(picture), _step_s(captured_ns, state)
        decoded = time.perf_counter()
        last = [Region(*numbers) for numbers in state.regions] if state and state.shape == image.shape else []
        found, regions = self._finder.follow(image, last)
        looked = time.perf_counter()
        mine = max((one for one in found if one.side == rig.side), key=lambda one: one.presence_score, default=None)
        hand_rad, memory, flags = self._hand(mine, rig, step_s, state)
        arm_rad, arm_flags = self._arm(mine, rig, step_s, state)
        done = time.perf_counter()
        spent = {"decode": decoded - begun, "find": looked - decoded, "retarget": done - looked}
        ms = {stage: round(1e3 * seconds, 3) for stage, seconds in spent.items()}
        where = tuple((one.centre_x_px, one.centre_y_px, one.side_px, one.rotation_rad) for one in regions)
        after = HandState(where, image.shape, captured_ns, memory.points_m, memory.speed_m_s, hand_rad, arm_rad)
        return HandCommand(hand_rad, arm_rad, flags | arm_flags, mine is not None, ms), after

    def _hand(
        self, seen: Hand | None, rig: HandRig, step_s: float, state: HandState | None
    ) -> tuple[np.ndarray, Memory, int]:
        robot = self._hands[rig.side]
        before = robot.middle_rad if state is None else state.hand_rad
        memory = nothing_seen() if state is None else Memory(state.points_m, state.speed_m_s)
        raw = np.full((21, 3), np.nan) if seen is None else seen.world_landmarks_m.astype(np.float64)
        points, memory = steady_step(seen_from_wrist(raw, rig.side), step_s, memory)
        motion = robot.follow(points, rig.side, step_s, before)
        return motion.angles_rad[0], memory, int(motion.flags[0])

    def _arm(
        self, seen: Hand | None, rig: HandRig, step_s: float, state: HandState | None
    ) -> tuple[np.ndarray | None, int]:
        if rig.arm is None or rig.base_from_camera is None:
            return None, 0
        before = READY_RAD if state is None or state.arm_rad is None else state.arm_rad
        pose = np.full((4, 4), np.nan) if seen is None else _camera_from_wrist(seen, rig)
        base_from_wrist = np.array(rig.base_from_camera).reshape(4, 4) @ pose
        motion = self._arms[rig.arm].follow(base_from_wrist, step_s, before)
        return motion.angles_rad[0], int(motion.flags[0])

    def close(self) -> None:
        """Free the networks."""
        self._finder.close()
        self._hands, self._arms = {}, {}


def _decoded(picture: bytes | np.ndarray) -> np.ndarray:
    if isinstance(picture, np.ndarray):
        return picture
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None or image.shape[0] * image.shape[1] > LARGEST_PIXELS:
        raise ValueError(f"jpeg is no picture of at most {LARGEST_PIXELS} pixels")
    return image


def _step_s(captured_ns: int, state: HandState | None) -> float:
    if state is None:
        return LONGEST_STEP_S
    step_s = (captured_ns - state.captured_ns) / 1e9
    if step_s < LEAST_STEP_S:
        raise ValueError(f"captured_ns rises by at least {LEAST_STEP_S * 1e3:g} ms from picture to picture")
    return min(step_s, LONGEST_STEP_S)


def _camera_from_wrist(seen: Hand, rig: HandRig) -> np.ndarray:
    """The wrist's pose (4, 4) in the camera, where the metric landmarks fall on the picture's; NaN if nowhere."""
    assert rig.intrinsics is not None, "checked by HandRig"
    fx, fy, cx, cy = rig.intrinsics
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    metric = seen.world_landmarks_m.astype(np.float64)
    pixels = seen.landmarks_px[:, :2].astype(np.float64)
    view = from_wrist(torch.as_tensor(metric), rig.side)
    fits, turn, place = cv2.solvePnP(metric, pixels, matrix, None, flags=cv2.SOLVEPNP_SQPNP)
    if not fits or not bool(view.usable) or place[2, 0] <= 0:
        return np.full((4, 4), np.nan)
    rotation = cv2.Rodrigues(turn)[0]
    pose = np.eye(4)
    pose[:3, :3] = rotation @ view.rotation.numpy()
    pose[:3, 3] = rotation @ metric[WRIST] + place[:, 0]
    return pose
