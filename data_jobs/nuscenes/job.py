"""The work on one scene, as the guard sees it: two artifacts (frames, labels), then the published folders.

In: a StageCall naming a scene row and a stage. Out: artifacts and folders in the Store. Called by
runs/guard.py through runs/sandbox.py; built by convert.py. Knows nothing of Ray or the ledger.

Published per scene: `OUT/<split>/scene-XXXX_CAM_NAME/` for each camera, then
`OUT/joint/split=<split>/scene=<scene>/{labels,frames,identities}.parquet, meta.json`, whose presence says
that the scene is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.nuscenes.label import FRAMES_PER_INTERVAL, Interpolation, Rate
from data_jobs.nuscenes.scene_index import SceneIndex
from data_jobs.nuscenes.scenes import Scene
from data_jobs.nuscenes.schema import CAMERAS, CLASSES
from data_jobs.nuscenes.sequences import frame_table, identity_table, label_table, parquet_bytes, sequence_files
from data_jobs.nuscenes.splits import split_of
from data_jobs.runs.errors import InputError
from data_jobs.runs.guard import PUBLISH, Row, StageCall
from data_jobs.runs.keys import artifact_key, pretty_json
from data_jobs.runs.outcome import DeadLetter, Failure
from data_jobs.runs.places import Run
from data_jobs.runs.store import Store

# The folder of a scene's joint tables below the output, and the name of the published tree in the store.
JOINT = "joint"

STAGES = ("frames", "labels", PUBLISH)

# Raise when the meaning of the bytes changes, so that older artifacts are not taken over.
STAGE_VERSIONS = {"frames": 1, "labels": 1}

# A scene takes about a second; a minute per stage means that something hangs.
TIMEOUT_S = 120.0


class KeyframeShareError(Exception):
    """A sequence does not have the keyframes that its scene has: the frames would be misnumbered."""


@dataclass(frozen=True, slots=True)
class ConvertJob:
    """What the guard must know of scenes (runs.guard.Job). Picklable; lives in driver and workers alike."""

    index: SceneIndex
    version: str
    rate: Rate
    interpolation: Interpolation
    output: Path
    source: str  # dataroot/version, for the dead letters

    @property
    def store(self) -> Store:
        """The output folder's store."""
        return Store(self.output)

    @property
    def run(self) -> Run:
        """The scenes' joint tables and the dead letters: the published tree that the proof reads."""
        return Run(self.store, JOINT)

    @property
    def joint(self) -> Path:
        """`OUTPUT/joint`."""
        return self.output / JOINT

    def scene_folder(self, row: Row) -> str:
        """Where in the store the scene's joint tables are published."""
        return self.run.at(f"split={row['split']}/scene={row['scene']}")

    def letter_name(self, row: Row) -> str:
        """Where in the store the scene's dead letter would lie."""
        return self.run.at(f"dead_letter/{row['scene']}.json")

    def unit_id(self, row: Row) -> str:
        """The scene's name."""
        return str(row["scene"])

    def frames(self, row: Row) -> int:
        """Camera images of the scene."""
        return int(row["images"])

    def timeout_s(self, row: Row) -> float:
        """Time allowed for one stage of this scene."""
        return TIMEOUT_S

    def is_settled(self, row: Row) -> bool:
        """Done or dead already."""
        return self.store.exists(self.scene_folder(row)) or self.store.exists(self.letter_name(row))

    def has_stage(self, row: Row, stage: str) -> bool:
        """Whether the stage's table lies in the store."""
        return self.store.has_artifact(self.key(row, stage))

    def key(self, row: Row, stage: str) -> str:
        """Content key of a stage: the tables' bytes, the scene, and what shapes the result."""
        unit = f"{self.index.content_sha256}/{row['scene']}"
        params: dict[str, Any] = {"rate": self.rate}
        upstream: list[str] = []
        if stage == "labels":
            params["interpolation"], upstream = self.interpolation, [self.key(row, "frames")]
        return artifact_key(unit, f"nuscenes.{stage}", STAGE_VERSIONS[stage], [], params, upstream)

    def bury(self, row: Row, stage: str, failure: Failure, attempts: int) -> None:
        """Publish the scene's dead letter."""
        letter = DeadLetter(
            video_path=self.source,
            video_id=None,
            clip_id=self.unit_id(row),
            stage=stage,
            cause=failure.cause,
            error_type=failure.error_type,
            message=failure.message,
            attempts=attempts,
            traceback_sha256=failure.traceback_sha256,
            repro=f"delete {row['scene']}.json, then repeat convert with --engine local",
        )
        self.store.publish_file(self.letter_name(row), letter.to_bytes())


class ConvertTask:
    """Does one stage of one scene (runs.sandbox.Task)."""

    def __init__(self, job: ConvertJob) -> None:
        self.job = job

    def load(self) -> None:
        """Nothing to load: scenes are read one by one."""

    def close(self) -> None:
        """Nothing to free."""

    def __call__(self, call: StageCall) -> str:
        """Do the stage; returns the content key or the folder's name. InputError if the scene's records are
        bad."""
        if call.stage == PUBLISH:
            return self._publish(call.row)
        if not call.row["split"]:
            split_of(str(call.row["scene"]), self.job.version)  # raises: says why it is in no split
            raise InputError(f"scene {call.row['scene']} has no split")
        scene = self.job.index.load(int(call.row["row"]))
        if call.stage == "frames":
            table = frame_table(scene, self.job.rate)
        else:
            table = label_table(scene, self.job.rate, self.job.interpolation)
        key = self.job.key(call.row, call.stage)
        self.job.store.publish_artifact(key, parquet_bytes(table))
        return key

    def _publish(self, row: Row) -> str:
        job, store = self.job, self.job.store
        scene = job.index.load(int(row["row"]))
        frames, labels = (pq.read_table(store.artifact(job.key(row, stage))) for stage in ("frames", "labels"))
        check_keyframes(scene, frames, job.rate)
        for camera, name in enumerate(CAMERAS):
            folder = f"{scene.name}_{name}"
            # gt.txt comes last: a sequence that has it is whole.
            for file, data in sequence_files(folder, camera, frames, labels, job.rate).items():
                store.publish_file(f"{row['split']}/{folder}/{file}", data)
        identities = identity_table(scene)
        files = {
            "identities.parquet": parquet_bytes(identities),
            "meta.json": pretty_json(counts(scene, frames, labels)),
        }
        links = {f"{stage}.parquet": job.key(row, stage) for stage in ("frames", "labels")}
        store.publish_folder(job.scene_folder(row), files, links)
        return scene.name


def check_keyframes(scene: Scene, frames: pa.Table, rate: Rate) -> None:
    """Raise KeyframeShareError unless each camera has each of its keyframes once, and on the nominal grid
    every sixth."""
    for camera, name in enumerate(CAMERAS):
        key = frames.filter(pc.equal(frames["camera"], camera))["is_key_frame"].to_numpy(zero_copy_only=False)
        images = scene.camera(camera).keyframe
        wanted = len(np.unique(images[images >= 0]))
        if rate == "12" and len(images) > 1:
            wanted = len(scene.keyframe_us)
            if len(key) != FRAMES_PER_INTERVAL * (wanted - 1) + 1 or not key[::FRAMES_PER_INTERVAL].all():
                raise KeyframeShareError(
                    f"{scene.name} {name}: {len(key)} frames do not fit {wanted} keyframes at 12 Hz"
                )
        if int(key.sum()) != wanted:
            raise KeyframeShareError(f"{scene.name} {name}: {int(key.sum())} keyframes, the scene has {wanted}")


def counts(scene: Scene, frames: pa.Table, labels: pa.Table) -> dict[str, Any]:
    """What a scene holds: the numbers that dataset_stats.json adds up."""
    scored = labels.filter(pc.invert(labels["void"]))
    per_class = np.bincount(scored["class_id"].to_numpy(), minlength=len(CLASSES))
    tracks = pc.count_distinct(scored["id"]).as_py() if len(scored) else 0
    return {
        "sequences": len(CAMERAS),
        "frames": len(frames),
        "keyframes": int(pc.sum(frames["is_key_frame"]).as_py() or 0),
        "boxes": len(scored),
        "keyframe_boxes": int(pc.sum(scored["is_key_frame"]).as_py() or 0),
        "void_boxes": len(labels) - len(scored),
        # Every annotation is looked for in every camera: what share is seen says whether the projection is
        # sound.
        "keyframe_projections": len(scene.annotation_keyframe) * len(CAMERAS),
        "keyframe_projections_seen": int(pc.sum(labels["is_key_frame"]).as_py() or 0),
        "objects": int(tracks),
        "camera_tracks": len(scored.group_by(["camera", "id"]).aggregate([])),
        "boxes_per_class": dict(zip(CLASSES, per_class.tolist(), strict=True)),
    }
