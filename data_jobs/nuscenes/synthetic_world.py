"""A street that moves by known laws: an ego car with six cameras and a lidar, and objects whose pose is known
always.

In: a seed and a WorldSpec. Out: SyntheticScene, poses at any time, image times. Called by synthetic.py.
Knows nothing of tables or files. Everything is a function of (spec, seed, scene number): same numbers, same
scene.

What makes it worth testing on: cameras fire when the spinning lidar sweeps past them (so they differ from the
annotation time by up to 50 ms), the gaps between images are irregular (nuScenes has 100, 100, 50, 100, 100
ms), images drop out, the ego turns, objects turn and change speed, and boxes leave through image corners and
the camera plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_jobs.nuscenes.geometry import FloatArray, yaw_quaternions
from data_jobs.nuscenes.schema import CAMERAS

# Time zero of the first scene, microseconds since 1970: any instant in nuScenes' recording season.
EPOCH_US = 1_535_000_000_000_000

LIDAR_PERIOD_S = 0.05
KEYFRAME_PERIOD_S = 0.5
STEP_S = 0.01  # integration step of the motion laws; poses between steps are interpolated linearly
IMAGE_WH = (1600, 900)

# nuScenes' own layout, rounded: yaw in degrees, focal length in pixels, position in the ego frame in metres.
RIG = {
    "CAM_FRONT": (0.0, 1266.0, (1.7, 0.0, 1.5)),
    "CAM_FRONT_LEFT": (55.0, 1266.0, (1.5, 0.5, 1.5)),
    "CAM_FRONT_RIGHT": (-55.0, 1266.0, (1.5, -0.5, 1.5)),
    "CAM_BACK": (180.0, 809.0, (0.0, 0.0, 1.5)),
    "CAM_BACK_LEFT": (110.0, 1256.0, (1.0, 0.5, 1.5)),
    "CAM_BACK_RIGHT": (-110.0, 1256.0, (1.0, -0.5, 1.5)),
}

# category: share of all objects, typical width, length, height (m), typical speed (m/s), typical yaw rate
# (rad/s)
POPULATION = {
    "vehicle.car": (0.45, (1.9, 4.6, 1.7), 8.0, 0.12),
    "vehicle.truck": (0.08, (2.5, 7.5, 3.0), 7.0, 0.08),
    "vehicle.bus.rigid": (0.03, (2.9, 11.0, 3.4), 6.0, 0.08),
    "vehicle.trailer": (0.03, (2.6, 10.0, 3.6), 6.0, 0.06),
    "human.pedestrian.adult": (0.27, (0.7, 0.7, 1.75), 1.3, 0.3),
    "vehicle.motorcycle": (0.04, (0.8, 2.1, 1.5), 7.0, 0.15),
    "vehicle.bicycle": (0.05, (0.6, 1.7, 1.3), 4.0, 0.2),
    "human.pedestrian.stroller": (0.02, (0.6, 0.9, 1.1), 1.0, 0.2),
    "movable_object.barrier": (0.03, (2.2, 0.6, 1.0), 0.0, 0.0),
}


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """What kind of street. Defaults are the turning suite of the label-quality table."""

    seconds: float = 20.0
    objects: int = 60
    ego_speed_m_s: float = 8.0
    ego_yaw_rate_rad_s: float = 0.436  # 25 degrees per second at the peak of a turn; 0 drives straight
    still_share: float = 0.4  # objects that do not move
    range_m: float = 60.0  # objects farther from the ego are not annotated
    drop_share: float = 0.02  # images lost between keyframes


@dataclass(frozen=True, slots=True)
class Motion:
    """Poses of N bodies on a fine time grid: `yaw` (N, T) rad, `position` (N, T, 2) m, step STEP_S from time
    0."""

    yaw: FloatArray
    position: FloatArray

    def at(self, time_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(position (N, Q, 2), yaw (N, Q)) at Q times in seconds."""
        where = np.clip(np.asarray(time_s) / STEP_S, 0, self.yaw.shape[1] - 1.001)
        low = where.astype(np.int64)
        weight = where - low
        yaw = (1 - weight) * self.yaw[:, low] + weight * self.yaw[:, low + 1]
        mix = weight[None, :, None]
        return (1 - mix) * self.position[:, low] + mix * self.position[:, low + 1], yaw


@dataclass(frozen=True, slots=True)
class SyntheticScene:
    """One scene of the world. Times are seconds from the scene's start."""

    number: int
    ego: Motion  # one body
    objects: Motion
    category: tuple[str, ...]  # (N,)
    size_m: FloatArray  # (N, 3) width, length, height
    keyframe_s: FloatArray  # (K,) lidar times of the samples
    image_s: dict[str, FloatArray]  # camera → times of its images
    image_keyframe: dict[str, np.ndarray]  # camera → index of the sample the image is the keyframe of, or −1


def make_scene(spec: WorldSpec, seed: int, number: int, keyframes: int | None = None) -> SyntheticScene:
    """Scene `number` of the world with this seed. `keyframes` overrides the count that follows from
    `seconds`."""
    rng = np.random.default_rng([seed, number])
    count = keyframes or round(spec.seconds / KEYFRAME_PERIOD_S)
    span_s = (count + 1) * KEYFRAME_PERIOD_S * 1.1
    ego = _moving(rng, np.array([spec.ego_speed_m_s]), np.array([spec.ego_yaw_rate_rad_s]), span_s, np.zeros((1, 2)))
    category, size, speed, turn = _population(rng, spec)
    middle = ego.position[0, :: max(1, ego.position.shape[1] // 20)]
    start = middle[rng.integers(0, len(middle), spec.objects)] + _ring(rng, spec)
    objects = _moving(rng, speed, turn, span_s, start)
    first_s = KEYFRAME_PERIOD_S / 2
    # Keyframes are whole lidar sweeps, 0.45 to 0.55 s apart.
    steps = rng.choice([9, 10, 10, 10, 11], count - 1) * LIDAR_PERIOD_S
    keyframe_s = first_s + np.concatenate([[0.0], np.cumsum(steps)])
    image_s, image_keyframe = {}, {}
    for camera in CAMERAS:
        image_s[camera], image_keyframe[camera] = _images(rng, spec, camera, keyframe_s)
    return SyntheticScene(number, ego, objects, category, size, keyframe_s, image_s, image_keyframe)


def _moving(rng: np.random.Generator, speed: FloatArray, turn: FloatArray, span_s: float, start: FloatArray) -> Motion:
    """Bodies whose yaw rate and speed swing as slow sines around their typical values."""
    n, time = len(speed), np.arange(0, span_s + 1, STEP_S)
    period, phase = rng.uniform(6, 14, (n, 1)), rng.uniform(0, 2 * np.pi, (n, 1))
    rate = turn[:, None] * np.sin(2 * np.pi * time / period + phase)
    pace = speed[:, None] * (1 + 0.25 * np.sin(2 * np.pi * time / rng.uniform(5, 12, (n, 1)) + phase))
    yaw = rng.uniform(-np.pi, np.pi, (n, 1)) + np.cumsum(rate, axis=1) * STEP_S
    velocity = pace[..., None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    return Motion(yaw, start[:, None] + np.cumsum(velocity, axis=1) * STEP_S)


def _population(
    rng: np.random.Generator, spec: WorldSpec
) -> tuple[tuple[str, ...], FloatArray, FloatArray, FloatArray]:
    names = tuple(POPULATION)
    share = np.array([POPULATION[name][0] for name in names])
    kind = rng.choice(len(names), spec.objects, p=share / share.sum())
    size = np.array([POPULATION[names[k]][1] for k in kind]) * rng.normal(1, 0.08, (spec.objects, 3)).clip(0.7, 1.3)
    moves = rng.random(spec.objects) >= spec.still_share
    speed = np.array([POPULATION[names[k]][2] for k in kind]) * rng.uniform(0.5, 1.5, spec.objects) * moves
    turn = np.array([POPULATION[names[k]][3] for k in kind]) * rng.uniform(0.3, 1.5, spec.objects) * moves
    return tuple(names[k] for k in kind), size, speed, turn


def _ring(rng: np.random.Generator, spec: WorldSpec) -> FloatArray:
    """Offsets (N, 2) from the ego's path: 3 m at least, denser near."""
    radius = 3 + (spec.range_m - 3) * rng.random(spec.objects) ** 1.3
    angle = rng.uniform(-np.pi, np.pi, spec.objects)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _images(
    rng: np.random.Generator, spec: WorldSpec, camera: str, keyframe_s: FloatArray
) -> tuple[FloatArray, np.ndarray]:
    """Times of one camera's images: one per keyframe, fired by the lidar, and five or four irregular ones
    between."""
    # The lidar turns clockwise and ends its sweep behind; the camera fires when the beam passes its axis.
    offset = -LIDAR_PERIOD_S * (((-RIG[camera][0] + 180) % 360) / 360)
    times, keyframes = [], []
    for k, at in enumerate(keyframe_s):
        times.append(at + offset + rng.normal(0, 2e-4))
        keyframes.append(k)
        if k + 1 < len(keyframe_s):
            gaps = rng.permutation([2, 2, 1, 2, 2, 1]) if rng.random() < 0.7 else np.array([2, 2, 2, 2, 2])
            inner = at + offset + (keyframe_s[k + 1] - at) * np.cumsum(gaps)[:-1] / gaps.sum()
            kept = inner[rng.random(len(inner)) >= spec.drop_share]
            times += list(kept + rng.normal(0, 2e-4, len(kept)))
            keyframes += [-1] * len(kept)
    return np.array(times), np.array(keyframes)


def camera_rotation(camera: str) -> FloatArray:
    """Quaternion `ego_from_camera` (4,): the optical axis at the rig's yaw, level with the ground."""
    w, _, _, z = yaw_quaternions(np.radians(RIG[camera][0]))
    # Product of the yaw with the turn that lays camera axes (right, down, forward) onto ego axes.
    return 0.5 * np.array([w + z, -w - z, w - z, z - w])


def camera_intrinsics(camera: str) -> FloatArray:
    """(3, 3) pinhole matrix, principal point in the middle."""
    focal = RIG[camera][1]
    return np.array([[focal, 0, IMAGE_WH[0] / 2], [0, focal, IMAGE_WH[1] / 2], [0, 0, 1.0]])
