"""Frames of the wrist camera per second of processor: the published meshes against the thinned ones training renders.

`python -m benchmarks.robot_rendering`. Both scenes in the same pose, one after the other, in pairs; a frame is colour
and one pass of depth with class ids. Processor time, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import time

import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from robot import scene
from robot.arm import Arm
from robot.rendering import WristCamera
from robot.sim import start_pose
from train_jobs.so101.look import furnish

TOOL_M = (0.25, -0.015, 0.12)
SIZES_PX = ((640, 480), (320, 240), (160, 120))


def frame_ms(model: mujoco.MjModel, body_class: np.ndarray, size_px: tuple[int, int], frames: int) -> float:
    """Processor milliseconds of a frame, of all threads of this process."""
    data = mujoco.MjData(model)
    qpos, _, _ = scene.joint_addresses(model)
    data.qpos[qpos] = start_pose(Arm(), np.array(TOOL_M))
    mujoco.mj_forward(model, data)
    camera = WristCamera(model, scene.CAMERA, *size_px, body_class)
    try:
        started = 0.0
        for number in range(-3, frames):  # three to warm up
            if number == 0:
                started = time.process_time()
            camera.look(data)
            camera.colour()
            camera.depth_and_classes()
        return 1e3 * (time.process_time() - started) / frames
    finally:
        camera.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    published, thinned = scene.build(), scene.build(furnish)
    table = Table("size", "published meshes, ms", "thinned, ms", "ratio, median of pairs")
    for size_px in SIZES_PX:
        pairs = [
            (frame_ms(*published, size_px, arguments.frames), frame_ms(*thinned, size_px, arguments.frames))
            for _ in range(arguments.pairs)
        ]
        whole, thin = np.median(pairs, axis=0)
        ratio = np.median([first / second for first, second in pairs])
        table.add_row(f"{size_px[0]} × {size_px[1]}", f"{whole:.1f}", f"{thin:.1f}", f"{ratio:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
