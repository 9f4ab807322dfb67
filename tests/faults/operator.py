"""An operator that costs 10 ms, needs no model, and fails on request: the fault injection of the run machinery.

Which clip fails and how is decided by the clip id and the seed alone, so that every run of the same clips meets the
same faults. Healthy clips give bytes that depend on nothing but the clip id. Chosen in a config as
`operators: {hamer: {backend: "tests.faults.operator:FaultyHands"}}`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.errors import InputError, TransientError
from data_jobs.runs.strict import Strict

FAULTS = ("segfault", "sigkill", "hang", "input", "transient", "bug", "bomb", "corrupt", "slow")

# What the dead letter must say of each fault; None: the clip is done all the same.
CAUSE_OF = {
    "segfault": "worker_crash",
    "sigkill": "worker_crash",
    "hang": "timeout",
    "input": "input",
    "transient": "transient",
    "bug": "bug",
    "bomb": "resource",
    "corrupt": "bug",
    "slow": None,
}


class Params(Strict):
    """How often what happens. `share_of`: fault name → share of clips that it hits."""

    share_of: dict[str, float] = Field(default_factory=dict)
    seed: int = 0
    healthy_ms: float = 10.0
    slow_ms: float = 200.0
    calls_folder: str | None = None  # every call leaves a line here, for counting what was run again
    label: str = ""  # changes the output, to stand for any parameter that does


class FaultyHands:
    """Writes one row per frame into hand_pose, or misbehaves."""

    Params = Params
    FOREIGN = ("calls_folder",)
    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="hamer",
        backend="faulty",
        version=1,
        table="hand_pose",
        licence="Apache-2.0",
        upstream=(),
        preload=("tests.faults.operator",),
    )

    def __init__(self, params: Params) -> None:
        self.params = params

    @staticmethod
    def weights(params: Params) -> tuple[str, ...]:
        return ()

    def load(self) -> None:
        pass

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        if self.params.calls_folder:
            with (Path(self.params.calls_folder) / f"{self.spec.key}-{os.getpid()}").open("a") as file:
                file.write(f"{clip.clip_id}\n")
        fault = fault_of(clip.clip_id, self.params)
        time.sleep(self.params.healthy_ms / 1e3)
        if fault is not None:
            corrupt = getattr(self, f"_{fault}")(clip)
            if corrupt is not None:
                return corrupt
        return pa.Table.from_pylist(list(rows(clip, self.params.label)), schema=schema_of("hand_pose"))

    def close(self) -> None:
        pass

    def _segfault(self, clip: Clip) -> None:
        ctypes.string_at(0)

    def _sigkill(self, clip: Clip) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, clip: Clip) -> None:
        # Holds the interpreter lock all the while: only another process can end this.
        ctypes.PyDLL(None).sleep(3600)

    def _input(self, clip: Clip) -> None:
        raise InputError(f"{clip.name}: broken picture")

    def _transient(self, clip: Clip) -> None:
        raise TransientError("the model server is busy")

    def _bug(self, clip: Clip) -> None:
        raise ZeroDivisionError("division by zero")

    def _bomb(self, clip: Clip) -> None:
        hoard = []
        while True:
            hoard.append(np.ones(20_000_000))

    def _corrupt(self, clip: Clip) -> pa.Table:
        return pa.table({"frame_index": [clip.frame_start]})

    def _slow(self, clip: Clip) -> None:
        time.sleep(self.params.slow_ms / 1e3)


class OutOfMemoryHands(FaultyHands):
    """Needs a window of at most `label` frames, and says so with torch's own error."""

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        if window_frames > int(self.params.label):
            import torch

            raise torch.OutOfMemoryError(f"window of {window_frames} frames does not fit")
        return super().run(clip, upstream, window_frames)


class FaultyMasks(FaultyHands):
    """A second stage: reads the hands' table and writes one empty mask row per hand row's frame."""

    spec: ClassVar[OperatorSpec] = OperatorSpec(
        key="sam2",
        backend="faulty",
        version=1,
        table="masks",
        licence="Apache-2.0",
        upstream=("hamer",),
        preload=("tests.faults.operator",),
    )

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        if self.params.calls_folder:
            with (Path(self.params.calls_folder) / f"{self.spec.key}-{os.getpid()}").open("a") as file:
                file.write(f"{clip.clip_id}\n")
        frames = upstream["hamer"]["frame_index"].to_pylist()
        schema = schema_of("masks")
        found = [{"frame_index": frame, "timestamp_s": float(frame)} for frame in frames]
        return pa.Table.from_pylist(found, schema=schema)


class HalfEmptyMasks(FaultyMasks):
    """An object on every even frame, none on the odd ones."""

    def run(self, clip: Clip, upstream: Mapping[str, pa.Table], window_frames: int) -> pa.Table:
        table = super().run(clip, upstream, window_frames)
        ids = [-1 if frame % 2 else 0 for frame in table["frame_index"].to_pylist()]
        return table.set_column(table.column_names.index("object_id"), "object_id", pa.array(ids, pa.int64()))


def fault_of(clip_id: str, params: Params) -> str | None:
    """The fault that hits this clip, if any."""
    number = int.from_bytes(hashlib.sha256(f"{params.seed}/{clip_id}".encode()).digest()[:8]) / 2**64
    for fault in FAULTS:
        number -= params.share_of.get(fault, 0.0)
        if number < 0:
            return fault
    return None


def rows(clip: Clip, label: str) -> list[dict[str, Any]]:
    """One row per frame, every value a function of the clip id and frame."""
    found = []
    for frame in range(clip.frame_start, clip.frame_end):
        noise = np.random.default_rng(list(f"{clip.clip_id}/{frame}/{label}".encode())).random(63, np.float32)
        found.append(
            {
                "frame_index": frame,
                "timestamp_s": float(frame),
                "pose": noise,
                "pts": frame,
                "hand_id": 0,
                "handedness": "left",
                "handedness_score": 1.0,
                "score": 1.0,
                "landmarks_px": noise,
                "box": noise[:4],
            }
        )
    return found
