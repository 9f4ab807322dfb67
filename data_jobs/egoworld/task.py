"""The work on one clip: run an operator, or publish what the operators made. Happens inside a worker's sandbox.

In: a StageCall naming a clip row and a stage. Out: artifacts and published folders in the Store, never pixels or tables
through a queue. Called by runs/guard.py through runs/sandbox.py; knows nothing of Ray or the ledger.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_jobs.egoworld.manifest import clip_from_row
from data_jobs.egoworld.operators.base import Operator
from data_jobs.egoworld.plan import Plan, Stage
from data_jobs.egoworld.qc import clip_qc
from data_jobs.egoworld.records import Clip
from data_jobs.egoworld.schemas import field_specs, schema_of
from data_jobs.runs.committer import Committer
from data_jobs.runs.engine import Host
from data_jobs.runs.guard import PUBLISH, Row, StageCall
from data_jobs.runs.keys import pretty_json
from data_jobs.runs.outcome import DeadLetter, Failure
from data_jobs.runs.places import Run, Where, below, open_store


@dataclass(frozen=True, slots=True)
class EgoworldJob:
    """What the guard must know of clips (runs.guard.Job). Picklable; lives in driver and workers alike."""

    plan: Plan
    output: Where
    run_id: str

    @property
    def store(self) -> Committer:
        """What publishes into the output folder or bucket."""
        return open_store(self.output)

    @property
    def run(self) -> Run:
        """This run within the store."""
        return Run(self.store, f"run_id={self.run_id}")

    @property
    def run_folder(self) -> Where:
        """`OUTPUT/run_id=ID`, a path or a URL as OUTPUT is."""
        return below(self.output, self.run.name)

    def clip_folder(self, row: Row) -> str:
        """Where in the store the clip's tables are published."""
        return self.run.at(f"video_id={row['video_id']}/clip_id={row['clip_id']}")

    def letter_name(self, row: Row) -> str:
        """Where in the store the clip's dead letter would lie."""
        return self.run.at(f"dead_letter/{row['clip_id']}.json")

    def unit_id(self, row: Row) -> str:
        """The clip's id."""
        return str(row["clip_id"])

    def frames(self, row: Row) -> int:
        """Frames in the clip."""
        return int(row["frame_end"]) - int(row["frame_start"])

    def timeout_s(self, row: Row) -> float:
        """Time allowed for one stage of this clip."""
        guard = self.plan.config.guard
        return max(guard.timeout_s, guard.timeout_s_per_frame * self.frames(row))

    def is_settled(self, row: Row) -> bool:
        """Done or dead already."""
        return self.store.exists(self.clip_folder(row)) or self.store.exists(self.letter_name(row))

    def has_stage(self, row: Row, stage: str) -> bool:
        """Whether the stage's table lies in the store."""
        return self.store.has_artifact(self.artifact_key(row, stage))

    def artifact_key(self, row: Row, stage: str) -> str:
        """Content key of the stage's table."""
        return self.plan.artifact_key(self.unit_id(row), stage)

    def bury(self, row: Row, stage: str, failure: Failure, attempts: int) -> None:
        """Publish the clip's dead letter."""
        letter = DeadLetter(
            video_path=str(row["path"]),
            video_id=str(row["video_id"]),
            clip_id=self.unit_id(row),
            stage=stage,
            cause=failure.cause,
            error_type=failure.error_type,
            message=failure.message,
            attempts=attempts,
            traceback_sha256=failure.traceback_sha256,
            repro=f"python -m data_jobs.egoworld retry --run RUN_FOLDER --clip {self.unit_id(row)} --engine local",
        )
        self.store.publish_file(self.letter_name(row), letter.to_bytes())


class EgoworldTask:
    """Owns the loaded operators of one worker (runs.sandbox.Task)."""

    def __init__(self, job: EgoworldJob) -> None:
        self.job = job
        self._operators: dict[str, Operator] = {}

    def load(self) -> None:
        """Load every operator of the plan."""
        for stage in self.job.plan.stages:
            operator = stage.operator(stage.params)
            operator.load()
            self._operators[stage.spec.key] = operator

    def __call__(self, call: StageCall) -> str:
        """Do one stage of one clip; returns the content key or the folder's name."""
        if call.stage == PUBLISH:
            return self._publish(call.row)
        stage = self.job.plan.stage(call.stage)
        table = self.run_operator(stage, clip_from_row(call.row), call)
        key = self.job.artifact_key(call.row, call.stage)
        self.job.store.publish_artifact(key, self._to_bytes(table, stage))
        return key

    def run_operator(self, stage: Stage, clip: Clip, call: StageCall) -> pa.Table:
        """The operator's table, checked against its schema."""
        window = max(1, self.job.plan.config.guard.window_frames >> call.halvings)
        upstream = {key: self._upstream(call.row, key) for key in stage.spec.upstream}
        table = self._operators[stage.spec.key].run(clip, upstream, window)
        check_table(table, stage.spec.table, clip)
        return table

    def _upstream(self, row: Row, stage: str) -> pa.Table:
        return pq.read_table(self.job.store.artifact(self.job.artifact_key(row, stage)))

    def _to_bytes(self, table: pa.Table, stage: Stage) -> bytes:
        parquet, sink = self.job.plan.config.parquet, io.BytesIO()
        # Facts of the table, not of the run: equal content must give equal bytes.
        table = table.replace_schema_metadata({"operator": stage.spec.name, "version": str(stage.spec.version)})
        pq.write_table(
            table,
            sink,
            # Most columns never repeat a value: dictionaries made the files half as large again, and the writing of ten
            # minutes of hands took 60 MB more.
            use_dictionary=False,
            compression=parquet.compression,
            row_group_size=parquet.row_group_size,
            data_page_size=parquet.data_page_size,
        )
        return sink.getvalue()

    def _publish(self, row: Row) -> str:
        published = [stage for stage in self.job.plan.stages if stage.published]
        store, keys = self.job.store, {s.spec.table: self.job.artifact_key(row, s.spec.key) for s in published}
        rows = {table: pq.read_metadata(store.artifact(key)).num_rows for table, key in keys.items()}

        def read(table: str, columns: list[str]) -> pa.Table:
            return pq.read_table(store.artifact(keys[table]), columns=columns)

        quality = clip_qc(read, list(keys), self.job.frames(row))
        files = {"meta.json": meta_of(row, self.job.plan, rows, quality)}
        folder = self.job.clip_folder(row)
        store.publish_folder(folder, files, {f"{table}.parquet": key for table, key in keys.items()})
        return folder

    def close(self) -> None:
        """Free the operators' models."""
        for operator in self._operators.values():
            operator.close()
        self._operators.clear()


class MalformedTable(Exception):
    """An operator returned a table that breaks its schema or speaks of frames outside the clip."""


def check_table(table: pa.Table, name: str, clip: Clip) -> None:
    """Raise MalformedTable unless columns, types and frame range are what `name` promises."""
    wanted = schema_of(name)
    if not table.schema.equals(wanted):
        raise MalformedTable(f"{name}: columns {table.schema.names} do not match the schema {wanted.names}")
    frames = table.column("frame_index").to_numpy()
    if len(frames) and not (clip.frame_start <= frames.min() and frames.max() < clip.frame_end):
        range_ = f"{clip.frame_start}–{clip.frame_end - 1}"
        raise MalformedTable(f"{name}: frames {frames.min()}–{frames.max()} lie outside the clip's {range_}")


def meta_of(row: Row, plan: Plan, rows: Mapping[str, int], quality: Mapping[str, Any]) -> bytes:
    """meta.json of a clip: what it is, what its tables hold, and where they come from. Deterministic."""
    clip = clip_from_row(row)
    coordinates = plan.config.coordinates
    published = [stage for stage in plan.stages if stage.published]
    meta: dict[str, Any] = {
        "clip": {
            "clip_id": clip.clip_id,
            "video_id": clip.video_id,
            "video_path": clip.name,
            "content_sha256": clip.content_sha256,
            "start_s": clip.start_s,
            "end_s": clip.end_s,
            "frame_start": clip.frame_start,
            "frame_end": clip.frame_end,
            "start_pts": clip.start_pts,
            "end_pts": clip.end_pts,
            "time_base": [clip.time_base.numerator, clip.time_base.denominator],
            "width": clip.width,
            "height": clip.height,
            "splitter": clip.splitter,
            "scenedetect_failed": clip.scenedetect_failed,
            "retry_count": 0,
        },
        "tables": {stage.spec.table: _table_meta(stage, rows[stage.spec.table]) for stage in published},
        "qc": dict(quality),
        "field_specs": {stage.spec.table: field_specs(stage.spec.table) for stage in published},
        "mask_encoding": coordinates.mask_encoding,
        "time_base": coordinates.time_base,
        "coordinates": coordinates.model_dump(),
    }
    return pretty_json(meta)


def _table_meta(stage: Stage, rows: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "operator": stage.spec.name,
        "version": stage.spec.version,
        "licence": stage.spec.licence,
        "weights_sha256": stage.weights,
        "params": stage.key_params,
    }


def host_of(job: EgoworldJob) -> Host:
    """What the engines need to know of the job."""
    plan, config = job.plan, job.plan.config
    memory_bytes = int(config.guard.memory_gib * 2**30)
    build = partial(EgoworldTask, job)
    retry, preload = plan.retry_policy(), plan.preload()
    return Host(job, build, plan.stage_names, retry, memory_bytes, preload, config.workers(), config.num_gpus)
