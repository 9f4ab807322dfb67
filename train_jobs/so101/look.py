"""The simulated table in ever new looks: light, shadows, textures, colours, clutter, a camera that sits askew.

In: a random generator and LookRanges. Out: changes to a compiled model, undone by the next dressing. Used by studio.py
of the segmentation and world.py of the policy. Clutter is seen and not felt: nothing collides with it.
"""

from __future__ import annotations

import colorsys

import mujoco
import numpy as np

from robot import scene
from robot.arm import assets_folder
from robot.rendering import WristCamera
from train_jobs.so101.light_meshes import lighten
from train_jobs.so101.patterns import table_pattern
from train_jobs.so101.ranges import LookRanges, Range

MOST_CLUTTER = 8
AUDIENCE = "audience"
AUDIENCE_AT_M, AUDIENCE_FOV_DEG = (0.62, -0.36, 0.34), 40.0
AUDIENCE_LOOKS_AT_M = (0.15, 0.0, 0.11)
HIDDEN_M = (0.0, 0.0, -1.0)  # under the table
SHADOW_MAP_PX = 1024
# Kept free around the cube, so that clutter which cannot be felt never stands in it.
CLEARANCE_M = 0.05
KINDS = (
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
)

# Everything of a model that a dressing changes.
CHANGED = (
    "light_diffuse", "light_pos", "light_dir", "light_castshadow", "geom_rgba", "geom_size", "mat_rgba", "tex_data",
    "mat_texrepeat", "cam_pos", "cam_quat", "cam_fovy",
)  # fmt: skip


def furnish(spec: mujoco.MjSpec) -> None:
    """For scene.build: meshes that render quickly, and bodies that `dress` moves about."""
    lighten(spec, assets_folder() / "assets")
    spec.visual.quality.shadowsize = SHADOW_MAP_PX
    spec.worldbody.add_camera(
        name=AUDIENCE, pos=AUDIENCE_AT_M, fovy=AUDIENCE_FOV_DEG, quat=_towards(AUDIENCE_AT_M, AUDIENCE_LOOKS_AT_M)
    )
    for index in range(MOST_CLUTTER):
        body = spec.worldbody.add_body(name=f"clutter_{index}", pos=HIDDEN_M, mocap=True)
        body.add_geom(
            name=f"clutter_{index}", type=KINDS[index % len(KINDS)], size=(0.02, 0.02, 0.02), contype=0, conaffinity=0
        )


def _towards(from_m: tuple[float, float, float], to_m: tuple[float, float, float]) -> np.ndarray:
    """(4,) quaternion of a camera that stands upright: it looks along its own -z, x is right."""
    back = np.subtract(from_m, to_m)
    right = np.cross((0.0, 0.0, 1.0), back)
    columns = np.stack([axis / np.linalg.norm(axis) for axis in (right, np.cross(back, right), back)], 1)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, columns.ravel())
    return quaternion


class Wardrobe:
    """Changes the look of one model. `dress` leaves physics as it is."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._camera = model.camera(scene.CAMERA).id
        self._position = model.cam_pos[self._camera].copy()
        self._quaternion = model.cam_quat[self._camera].copy()
        self._table = model.geom("table").id
        self._cube = model.geom("cube").id
        self._texture = model.texture("table").id
        self._printed = [i for i in range(model.nmat) if i != model.material("table").id]
        self._lamp = model.nlight - 1
        self._as_built = {name: getattr(model, name).copy() for name in CHANGED}
        headlight = model.vis.headlight
        self._headlight = headlight.diffuse.copy(), headlight.ambient.copy()

    def dress(
        self, data: mujoco.MjData, camera: WristCamera | None, ranges: LookRanges, rng: np.random.Generator
    ) -> float:
        """Draw a new look; the cube must be at its place in `data`. Returns how bright the light is."""
        bright = self._light(ranges, rng)
        self._paint(ranges, rng)
        self._lay_clutter(data, ranges, rng)
        self._jolt(ranges, rng)
        if camera is not None:
            camera.refresh_texture("table")
        return bright

    def undress(self, data: mujoco.MjData, camera: WristCamera | None) -> None:
        """The look that the scene was built with."""
        for name, values in self._as_built.items():
            getattr(self._model, name)[:] = values
        self._model.vis.headlight.diffuse[:], self._model.vis.headlight.ambient[:] = self._headlight
        data.mocap_pos[:] = HIDDEN_M
        if camera is not None:
            camera.refresh_texture("table")

    def _light(self, ranges: LookRanges, rng: np.random.Generator) -> float:
        model, lamp = self._model, self._lamp
        bright, ambient = rng.uniform(*ranges.brightness), rng.uniform(*ranges.ambient)
        model.light_diffuse[lamp] = bright * rng.uniform(0.9, 1.0, 3)
        place = np.append(rng.uniform(*ranges.lamp_xy_m, 2), rng.uniform(*ranges.lamp_height_m))
        model.light_pos[lamp] = place
        aim = np.array([0.25, 0.0, 0.0]) - place
        model.light_dir[lamp] = aim / np.linalg.norm(aim)
        model.light_castshadow[lamp] = rng.random() < ranges.shadows
        model.vis.headlight.diffuse[:] = ambient
        model.vis.headlight.ambient[:] = ambient * rng.uniform(0.5, 1.0)
        return float(bright + 2 * ambient)

    def _paint(self, ranges: LookRanges, rng: np.random.Generator) -> None:
        model = self._model
        hue = rng.uniform(*ranges.red_hue) % 1.0
        red = colorsys.hsv_to_rgb(hue, rng.uniform(*ranges.red_saturation), rng.uniform(*ranges.red_value))
        model.geom_rgba[self._cube, :3] = red
        printed = _colour(ranges.arm_hue, rng)
        for material in self._printed:
            own = rng.random()
            dark = (rng.uniform(0.02, 0.2),) * 3
            model.mat_rgba[material, :3] = printed if own < 0.6 else dark if own < 0.8 else _colour(ranges.arm_hue, rng)
        start = model.tex_adr[self._texture]
        height, width = model.tex_height[self._texture], model.tex_width[self._texture]
        pixels = table_pattern(str(rng.choice(ranges.patterns)), int(height), int(width), ranges, rng)
        model.tex_data[start : start + pixels.size] = pixels.ravel()
        model.mat_texrepeat[model.material("table").id] = rng.uniform(2.0, 16.0)

    def _lay_clutter(self, data: mujoco.MjData, ranges: LookRanges, rng: np.random.Generator) -> None:
        model = self._model
        cube = data.qpos[model.joint("cube").qposadr[0] :][:2]
        count = rng.integers(ranges.clutter[0], ranges.clutter[1] + 1)
        for order, index in enumerate(rng.permutation(MOST_CLUTTER)):
            geom, mocap = model.geom(f"clutter_{index}").id, model.body(f"clutter_{index}").mocapid[0]
            size = rng.uniform(0.008, 0.03, 3)
            place = np.append(cube + rng.uniform(-0.22, 0.22, 2), size[2] * rng.uniform(0.3, 1.0))
            hidden = order >= count or np.linalg.norm(place[:2] - cube) < CLEARANCE_M + size.max()
            data.mocap_pos[mocap] = HIDDEN_M if hidden else place
            turn = rng.uniform(0, np.pi)
            data.mocap_quat[mocap] = (np.cos(turn), 0, 0, np.sin(turn))
            model.geom_size[geom] = size
            model.geom_rgba[geom, :3] = _colour(ranges.clutter_hue, rng)

    def _jolt(self, ranges: LookRanges, rng: np.random.Generator) -> None:
        model = self._model
        shift, turn = ranges.camera_shift_m, ranges.camera_turn_rad
        model.cam_pos[self._camera] = self._position + rng.uniform(-shift, shift, 3)
        delta = np.zeros(4)
        mujoco.mju_axisAngle2Quat(delta, _unit(rng), rng.uniform(-turn, turn))
        mujoco.mju_mulQuat(model.cam_quat[self._camera], self._quaternion, delta)
        change = rng.uniform(-ranges.camera_fov_deg, ranges.camera_fov_deg)
        model.cam_fovy[self._camera] = scene.CAMERA_FOV_DEG + change


def _unit(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return axis / np.linalg.norm(axis)


def _colour(hue: Range, rng: np.random.Generator) -> tuple[float, float, float]:
    """Of any brightness, often nearly grey."""
    saturation = rng.uniform(0.0, 1.0) if rng.random() < 0.6 else rng.uniform(0.0, 0.15)
    return colorsys.hsv_to_rgb(rng.uniform(*hue), saturation, rng.uniform(0.1, 1.0))
