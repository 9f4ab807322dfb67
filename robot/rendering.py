"""Headless pictures of a MuJoCo scene: colour, depth and body ids of the wrist camera, without a window.

In: a model and a state. Out: arrays. Used by sim.py only. Finds a software or GPU OpenGL platform by itself (EGL, then
OSMesa); run `python -m robot rendering` to see which. Not thread-safe: made, used and closed in one thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import mujoco
import numpy as np

from robot import REQUESTED_GL
from robot.errors import RenderingUnavailable

PLATFORMS = ("egl", "osmesa")
# Debian's names; software rendering needs no GPU and no display.
APT_INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "libegl1", "libegl-mesa0", "libgl1-mesa-dri")
WHAT_TO_INSTALL = (
    f"no OpenGL platform for headless rendering was found, which only the simulator's camera needs; as root run "
    f"`{' '.join(APT_INSTALL)}` (EGL), or install OSMesa (libosmesa6)"
)


def _context_class(platform: str) -> Any:
    # Each module sets PYOPENGL_PLATFORM itself and refuses when another one is loaded.
    if platform == "egl":
        from mujoco.egl import GLContext
    else:
        from mujoco.osmesa import GLContext
    return GLContext


def _forget_opengl() -> None:
    """PyOpenGL binds itself to the first platform that is imported, working or not; the next one needs it new."""
    os.environ.pop("PYOPENGL_PLATFORM", None)
    for name in [n for n in sys.modules if n.split(".")[0] == "OpenGL" or n in ("mujoco.egl", "mujoco.osmesa")]:
        del sys.modules[name]


def open_context(width_px: int, height_px: int) -> tuple[str, Any]:
    """The first platform that works and its current context. Raises RenderingUnavailable with what to install.

    MUJOCO_GL, where it names one of PLATFORMS, limits the choice to it.
    """
    failures = []
    for platform in (REQUESTED_GL,) if REQUESTED_GL in PLATFORMS else PLATFORMS:
        try:
            context = _context_class(platform)(width_px, height_px)
            context.make_current()
        except Exception as error:  # noqa: BLE001 - drivers fail in every way there is; the reason is told below
            failures.append(f"{platform}: {error}")
            _forget_opengl()
            continue
        return platform, context
    raise RenderingUnavailable(f"{WHAT_TO_INSTALL} ({'; '.join(failures)})")


def detect() -> str:
    """Name of the platform that rendering would use. Raises RenderingUnavailable with what to install."""
    platform, context = open_context(16, 16)
    context.free()
    return platform


def detect_or_install() -> str:
    """`detect`; where it finds nothing and we are root with apt, install EGL's software rendering and look again.

    A new process looks: this one has OpenGL's loader in the state of its first failure. Raises RenderingUnavailable.
    """
    try:
        return detect()
    except RenderingUnavailable:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "MUJOCO_GL": REQUESTED_GL}
    failures = []
    for command in (("apt-get", "update"), APT_INSTALL):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        failures += [] if done.returncode == 0 else [f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}"]
    look = [sys.executable, "-c", "from robot.rendering import detect; print(detect())"]
    seen = subprocess.run(look, capture_output=True, text=True, env=environment, check=False)
    if seen.returncode:
        raise RenderingUnavailable("; ".join([WHAT_TO_INSTALL, *failures]))
    return seen.stdout.strip()


class WristCamera:
    """Renders one fixed camera of a model."""

    def __init__(
        self, model: mujoco.MjModel, camera: str, width_px: int, height_px: int, body_class: np.ndarray
    ) -> None:
        """`body_class` (nbody,) uint8 gives the class id that each body's pixels get."""
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, width_px, height_px)
        self._shape = (height_px, width_px)
        self._geom_class = body_class[model.geom_bodyid]
        self._scene = mujoco.MjvScene(model=model, maxgeom=model.ngeom + 8)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(camera).id
        self.platform, self._gl = open_context(width_px, height_px)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR

    def look(self, data: mujoco.MjData) -> None:
        """Take over the state that `colour` and `depth_and_classes` will show."""
        self._gl.make_current()  # another camera of this thread may have drawn meanwhile
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )

    def refresh_texture(self, name: str) -> None:
        """Take over the model's present pixels of a texture."""
        self._gl.make_current()
        mujoco.mjr_uploadTexture(self._model, self._context, self._model.texture(name).id)

    def colour(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        pixels = np.empty((*self._shape, 3), np.uint8)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._context)
        return np.ascontiguousarray(pixels[::-1])

    def depth_and_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) float32 metres along the optical axis and (H, W) uint8 class ids, from one pass."""
        pixels = np.empty((*self._shape, 3), np.uint8)
        depth = np.empty(self._shape, np.float32)
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        mujoco.mjr_render(self._rect, self._scene, self._context)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        mujoco.mjr_readPixels(pixels, depth, self._rect, self._context)
        classes = self._classes_by_colour()[pixels[::-1, :, 0]]
        return self._metric(depth[::-1]), classes

    def _classes_by_colour(self) -> np.ndarray:
        """(256,) uint8: the red byte of an id colour is segment id + 1, and the scene has fewer than 255 geoms."""
        table = np.ones(256, np.uint8)  # 1 = background; the sky has colour 0
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                table[geom.segid + 1] = self._geom_class[geom.objid]
        return table

    def _metric(self, depth: np.ndarray) -> np.ndarray:
        """Reversed z-buffer (1 near, 0 far) to metres: inverse of the perspective projection."""
        extent = self._model.stat.extent
        near, far = self._model.vis.map.znear * extent, self._model.vis.map.zfar * extent
        return np.float32(far * near / (far - near)) / (depth + np.float32(near / (far - near)))

    def close(self) -> None:
        """Free the context. Safe to call twice."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = None
