"""Published clips as one LeRobotDataset v3: one clip is one episode. `python -m data_jobs.egoworld export`.

In: a finished run's folder. Out: a new dataset folder that `lerobot` trains on, made beside its place and renamed at
the end, so that a kill leaves nothing half-made. Called by __main__.py; written through LeRobot's own API.

Where hands were not found, their numbers are zero and `observation.hands.present` says so. `action` is the state of the
next frame (the last frame repeats itself), the usual reading of a person's video as demonstration.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.listing import MANIFESTS
from data_jobs.egoworld.manifest import clip_from_row
from data_jobs.egoworld.manifest_files import read_clip_table
from data_jobs.egoworld.records import Clip
from data_jobs.runs.errors import RunError
from data_jobs.runs.keys import pretty_json

ABOUT = "reafference.json"  # provenance, beside LeRobot's own files
PARTIAL = ".partial-"  # in the name of a folder that is being made

SIDES = ("left", "right")
LANDMARKS = 21
# H.264 that every reader of LeRobot decodes; visually lossless.
VIDEO = {"vcodec": "h264", "preset": "veryfast", "crf": 18}
WINDOW_FRAMES = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """What all episodes of a dataset share."""

    fps: int
    width: int
    height: int

    def features(self) -> dict[str, dict[str, Any]]:
        """LeRobot's description of a row."""
        names = [f"{side}.{point}.{axis}" for side in SIDES for point in range(LANDMARKS) for axis in "xyz"]
        pixels = [f"{side}.{point}.{axis}" for side in SIDES for point in range(LANDMARKS) for axis in "xy"]
        state = {"dtype": "float32", "shape": (len(names),), "names": names}
        picture = {"dtype": "video", "shape": (self.height, self.width, 3), "names": ["height", "width", "channels"]}
        text = {"dtype": "string", "shape": (1,), "names": None}
        return {
            "observation.images.ego": picture,
            "observation.state": state,  # metres, origin at each hand's centre
            "action": dict(state),
            "observation.hands.landmarks_px": {"dtype": "float32", "shape": (len(pixels),), "names": pixels},
            "observation.hands.present": {"dtype": "int64", "shape": (2,), "names": list(SIDES)},
            "source.timestamp_s": {"dtype": "float64", "shape": (1,), "names": None},
            "source.pts": {"dtype": "int64", "shape": (1,), "names": None},
            "source.frame_index": {"dtype": "int64", "shape": (1,), "names": None},
            "source.clip_id": text,
        }


def export(run: Path, output: Path, task: str, fps: int | None, size: tuple[int, int] | None) -> tuple[int, int]:
    """Write the dataset; (episodes, frames). RunError says in one sentence what stands in the way.

    `fps` None takes the clips' common rate; `size` (width, height) None takes their common size.
    """
    if output.exists():
        raise RunError(f"{output} exists already; choose a new folder for the dataset")
    for left in output.absolute().parent.glob(f"{output.name}{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)  # of an export that was killed
    episodes = list(published_clips(run))
    if not episodes:
        raise RunError(f"{run} has no published clip with hands to export")
    shape = common_shape([clip for clip, _ in episodes], fps, size)
    partial = output.absolute().with_name(f"{output.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
    try:
        frames = write_episodes(partial, episodes, shape, task)
        (partial / ABOUT).write_bytes(pretty_json(about(run, episodes, shape)))
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(episodes), frames


def published_clips(run: Path) -> Iterator[tuple[Clip, Path]]:
    """Clips whose hand table is published, in the order of their ids, each with its folder."""
    for row in sorted(read_clip_table(run / MANIFESTS).to_pylist(), key=lambda row: str(row["clip_id"])):
        folder = run / f"video_id={row['video_id']}" / f"clip_id={row['clip_id']}"
        if (folder / "hand_pose.parquet").is_file():
            yield clip_from_row(row), folder


def common_shape(clips: list[Clip], fps: int | None, size: tuple[int, int] | None) -> Shape:
    """One rate and size for all episodes; RunError lists them where they differ and nothing was chosen."""
    rates = {max(1, round(rate_of(clip))) for clip in clips}
    sizes = {(clip.width, clip.height) for clip in clips}
    if fps is None and len(rates) > 1:
        raise RunError(f"the clips have {sorted(rates)} frames/s, a dataset has one rate: choose it with --fps")
    if size is None and len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise RunError(f"the clips are {shown}, a dataset has one size: choose it with --size WIDTHxHEIGHT")
    width, height = size or sizes.pop()
    return Shape(fps or rates.pop(), width, height)


def rate_of(clip: Clip) -> float:
    """Average frames per second between the first and the last frame; 1 for a single frame."""
    span_s = clip.end_s - clip.start_s
    return (clip.frame_count - 1) / span_s if span_s > 0 else 1.0


def write_episodes(folder: Path, episodes: list[tuple[Clip, Path]], shape: Shape, task: str) -> int:
    """Everything LeRobot keeps of the clips; how many frames."""
    import av
    import datasets
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    av.logging.set_libav_level(av.logging.ERROR)  # else the encoder tells its statistics for every clip
    logging.getLogger("lerobot.datasets").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    dataset = LeRobotDataset.create(
        repo_id=f"local/{folder.name.partition(PARTIAL)[0]}",
        root=folder,
        fps=shape.fps,
        features=shape.features(),
        robot_type="human",
        video_backend="pyav",  # the other one needs FFmpeg libraries of the system
        rgb_encoder=RGBEncoderConfig(**VIDEO),
    )
    frames = 0
    try:
        for clip, place in episodes:
            for frame in episode(clip, place, shape):
                dataset.add_frame(frame | {"task": task})
                frames += 1
            dataset.save_episode()
    finally:
        dataset.finalize()
    return frames


def episode(clip: Clip, folder: Path, shape: Shape) -> Iterator[dict[str, Any]]:
    """The clip's frames at the dataset's rate: for each tick the frame shown at that time."""
    hands = hands_by_frame(folder / "hand_pose.parquet")
    chosen = frames_at_rate(ClipReader(clip, WINDOW_FRAMES).times_s(), shape.fps)
    rows = [_row(hands.get(clip.frame_start + place, {}), clip, shape) for place in chosen]
    following = [after for _, after in pairwise(rows)] + rows[-1:]
    ticks = iter(zip(chosen, rows, following, strict=True))
    tick = next(ticks, None)
    for window in ClipReader(clip, WINDOW_FRAMES).windows():
        for image, pts, index, time_s in zip(
            window.images, window.pts, window.frame_index, window.timestamp_s, strict=True
        ):
            while tick is not None and tick[0] == index - clip.frame_start:
                yield {
                    "observation.images.ego": _sized(image, shape),
                    **tick[1],
                    "action": tick[2]["observation.state"],
                    "source.timestamp_s": np.array([time_s]),
                    "source.pts": np.array([pts]),
                    "source.frame_index": np.array([index]),
                    "source.clip_id": clip.clip_id,
                }
                tick = next(ticks, None)


def frames_at_rate(times_s: np.ndarray, fps: int) -> list[int]:
    """Places in the clip of the frame on show at 0, 1/fps, 2/fps … seconds after its first.

    A quarter of a tick is forgiven, so that a clip at this very rate gives each of its frames once, rounded or not.
    """
    span_s = float(times_s[-1] - times_s[0])
    ticks_s = times_s[0] + np.arange(int(span_s * fps + 0.25) + 1) / fps
    return (np.searchsorted(times_s, ticks_s + 0.25 / fps, side="right") - 1).tolist()


def hands_by_frame(path: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """Frame index → side → its row, the more certain one where a side was found twice."""
    columns = ["frame_index", "handedness", "score", "pose", "landmarks_px"]
    found: dict[int, dict[str, dict[str, Any]]] = {}
    # partitioning=None: pyarrow would take run_id=…/video_id=… of the path for columns.
    for row in pq.read_table(path, columns=columns, partitioning=None).to_pylist():
        sides = found.setdefault(row["frame_index"], {})
        if row["handedness"] not in sides or row["score"] > sides[row["handedness"]]["score"]:
            sides[row["handedness"]] = row
    return found


def _row(sides: Mapping[str, Mapping[str, Any]], clip: Clip, shape: Shape) -> dict[str, Any]:
    """State, pixels and presence of both hands in one frame."""
    state = np.zeros((2, LANDMARKS, 3), np.float32)
    pixels = np.zeros((2, LANDMARKS, 2), np.float32)
    for place, side in enumerate(SIDES):
        if side in sides:
            state[place] = np.reshape(sides[side]["pose"], (LANDMARKS, 3))
            pixels[place] = np.reshape(sides[side]["landmarks_px"], (LANDMARKS, 3))[:, :2]
    pixels *= np.array([shape.width / clip.width, shape.height / clip.height], np.float32)
    return {
        "observation.state": state.reshape(-1),
        "observation.hands.landmarks_px": pixels.reshape(-1),
        "observation.hands.present": np.array([side in sides for side in SIDES], np.int64),
    }


def _sized(image: np.ndarray, shape: Shape) -> np.ndarray:
    if image.shape[:2] == (shape.height, shape.width):
        return image
    return np.asarray(cv2.resize(image, (shape.width, shape.height), interpolation=cv2.INTER_AREA))


def about(run: Path, episodes: list[tuple[Clip, Path]], shape: Shape) -> dict[str, Any]:
    """Where every episode comes from: video, frames, operators with weights and licences, the run's tree hash."""
    record = json.loads((run / "run_manifest.json").read_text())
    return {
        "run_id": record["run_id"],
        "tree_sha256": record.get("tree_sha256"),
        "code_git_hash": record.get("code_git_hash"),
        "fps": shape.fps,
        "episodes": [
            {
                "clip_id": clip.clip_id,
                "video": clip.name,
                "video_sha256": clip.content_sha256,
                "frames": [clip.frame_start, clip.frame_end],
                "tables": json.loads((folder / "meta.json").read_text()).get("tables"),
            }
            for clip, folder in episodes
        ],
    }
