"""`foundationpose:templates`: pose of objects with a CAD model, from the masks of `sam2`. Writes object_pose.

In every frame that has masks each object takes the mask that it explains best (actors/object_pose.py). A video does not
tell its camera's focal length: give `focal_px`, else one is assumed and said so in `flags`. Run by task.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco
from pydantic import BaseModel, Field

from data_jobs.egoworld.clip import ClipReader
from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.operators.identity import HAND_LABELS
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.strict import Strict

if TYPE_CHECKING:
    from actors.object_pose import ObjectPoser

REFINED, GUESSED_CAMERA = 1, 2
# Horizontal field of view of an ordinary wide camera; what is assumed where nothing is said.
ASSUMED_VIEW_RAD = np.radians(70)


class TemplateParams(Strict):
    """Parameters of `foundationpose:templates`."""

    objects: dict[str, str] = Field(default_factory=dict, description="name → mesh (PLY, OBJ, STL, GLB)")
    unit: Literal["auto", "mm", "m"] = Field("auto", description="of the meshes")
    views: Literal[42, 162] = Field(42, description="viewpoints around an object")
    focal_px: float | None = Field(
        None, gt=0, description="of the camera, at the video's size; default: 70° are assumed"
    )
    min_score: float = Field(0.6, ge=0, le=1, description="a mask that the object explains less well is not it")
    model_path: str | None = Field(None, description="accepted from the seed's config")


class TemplatePose:
    """Owns one ObjectPoser per object."""

    Params: ClassVar[type[BaseModel]] = TemplateParams
    FOREIGN: ClassVar[tuple[str, ...]] = ("model_path",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="foundationpose",
        backend="templates",
        version=1,
        table="object_pose",
        licence="Apache-2.0",
        upstream=("sam2",),
        preload=("actors.object_pose", "data_jobs.egoworld.clip"),
    )

    def __init__(self, params: TemplateParams) -> None:
        self._params = params
        self._posers: dict[str, ObjectPoser] | None = None

    @staticmethod
    def weights(params: TemplateParams) -> tuple[str, ...]:
        """None: shape and colour decide."""
        return ()

    @staticmethod
    def files(params: TemplateParams) -> dict[str, tuple[Path, str | None]]:
        """The meshes: another file gives other poses."""
        return {f"mesh {name}": (Path(path), None) for name, path in sorted(params.objects.items())}

    def load(self) -> None:
        """Read and draw the meshes. Raises BankUnusable for one without faces or of no sensible size."""
        from actors.object_pose import ObjectPoser
        from actors.tracker.mesh import read_mesh

        self._posers = {
            name: ObjectPoser(read_mesh(Path(path), self._params.unit), self._params.views)
            for name, path in sorted(self._params.objects.items())
        }

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        """One row per object and frame with masks; NaN where no mask is the object."""
        if self._posers is None:
            raise RuntimeError("foundationpose:templates is not loaded; call load() first")
        masks = upstream["sam2"]
        frames = pc.unique(masks["frame_index"]).to_pylist() if self._posers else []
        rows: list[dict[str, Any]] = []
        for window in ClipReader(clip, window_frames).frames_at(frames):
            index = int(window.frame_index[0])
            found = masks.filter(pc.equal(masks["frame_index"], index)).to_pylist()
            things = [row for row in found if row["object_id"] >= 0 and row["class"] not in HAND_LABELS]
            frame = {"frame_index": index, "timestamp_s": float(window.timestamp_s[0]), "pts": int(window.pts[0])}
            rows += [frame | self._row(name, poser, window.images[0], things) for name, poser in self._posers.items()]
        return pa.Table.from_pylist(rows, schema=schema_of("object_pose"))

    def _row(self, name: str, poser: ObjectPoser, image: np.ndarray, things: list[dict[str, Any]]) -> dict[str, Any]:
        height, width = image.shape[:2]
        guessed = 0 if self._params.focal_px else GUESSED_CAMERA
        focal = self._params.focal_px or width / 2 / np.tan(ASSUMED_VIEW_RAD / 2)
        camera = (focal, focal, width / 2, height / 2)
        best: tuple[float, Any, int] = (self._params.min_score, None, -1)
        for thing in things:
            pose = poser.estimate(image, coco.decode(json.loads(thing["mask_rle"])).astype(bool), camera)
            if pose is not None and pose.score >= best[0]:
                best = (pose.score, pose, thing["object_id"])
        score, found, object_id = best
        if found is None:
            nothing = {"pose": np.full(7, np.nan, np.float32), "score": 0.0, "flags": guessed}
            return {"object": name, "object_id": -1} | nothing
        placed = pose_7(found.camera_from_object)
        return {"object": name, "object_id": object_id, "pose": placed, "score": score, "flags": REFINED | guessed}

    def close(self) -> None:
        """Drop the drawn views."""
        self._posers = None


def pose_7(pose: np.ndarray) -> np.ndarray:
    """(4, 4) → x, y, z, then the quaternion w, x, y, z with w ≥ 0."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)
    return np.array([*pose[:3, 3], w, x, y, z], np.float32)
