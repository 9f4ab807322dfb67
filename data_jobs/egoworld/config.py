"""The values of one run, as read from YAML or JSON. Accepts the seed project's config as it stands.

Read by __main__.py, turned into a plan by plan.py. Every key is checked; what a key means stands beside it.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field

from data_jobs.egoworld.operators.registry import KEYS
from data_jobs.egoworld.splitters import FixedStride, HandSpeed, SceneDetect
from data_jobs.runs.strict import Strict


class OperatorConfig(Strict):
    """One operator: whether its table is published, which backend makes it, and with which parameters."""

    enabled: bool = True
    backend: str | None = Field(None, description="default: the key's first backend")
    params: dict[str, Any] = Field(default_factory=dict, description="checked against the backend's own model")


class OperatorsConfig(Strict):
    """The five operators under the seed's names."""

    sam2: OperatorConfig = OperatorConfig()
    hamer: OperatorConfig = OperatorConfig()
    foundationpose: OperatorConfig = OperatorConfig(enabled=False)
    dex_retarget: OperatorConfig = OperatorConfig(enabled=False)
    fast3r: OperatorConfig = OperatorConfig(enabled=False)

    def by_key(self) -> dict[str, OperatorConfig]:
        """Key → config, in the order of the data."""
        return {key: getattr(self, key) for key in KEYS}


class ParquetConfig(Strict):
    """How tables are written."""

    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd"
    row_group_size: int = Field(268_435_456, gt=0, description="rows per row group (pyarrow counts rows, not bytes)")
    data_page_size: int = Field(8_388_608, gt=0, description="bytes per data page")
    partition: tuple[Literal["run_id"], Literal["video_id"], Literal["clip_id"]] = ("run_id", "video_id", "clip_id")


class RetryConfig(Strict):
    """How often and how patiently a clip's stage is tried."""

    max_retries: int = Field(3, ge=1, le=20, description="attempts in all")
    base_delay_s: float = Field(0.5, ge=0)
    backoff: float = Field(3.0, ge=1)


class BackpressureConfig(Strict):
    """How many clips are worked on at a time."""

    max_in_flight_cpu: int | None = Field(None, ge=1, description="workers; default: one per core")
    max_in_flight_gpu: int | None = Field(None, ge=1, description="workers at most where `num_gpus` is set")
    max_in_flight_write: int | None = Field(None, ge=1, description="recorded; each worker publishes its own clips")


class CoordinatesConfig(Strict):
    """The conventions of the tables. Only what is true of them is accepted."""

    spec_version: Literal["v1"] = "v1"
    time_base: Literal["seconds"] = "seconds"
    mask_encoding: Literal["rle"] = "rle"
    length_unit: Literal["meters"] = "meters"
    handedness: Literal["right"] = "right"
    quat_order: Literal["wxyz"] = "wxyz"
    frame_index_base: Literal[0] = 0
    axis_order: Literal["x,y,z"] = "x,y,z"
    coord_frame: Literal["camera"] = "camera"


class MetricsConfig(Strict):
    """The seed's `metrics` block. A run that passes a `_max` ends with its own exit code and names clips."""

    gpu_util_min: float = Field(0.60, ge=0, le=1, description="recorded; Ray's own dashboard shows it")
    gpu_util_window_s: float = Field(600, gt=0, description="recorded")
    failure_rate_max: float = Field(0.01, ge=0, le=1, description="dead letters, of clips and refused files")
    empty_mask_rate_max: float = Field(0.20, ge=0, le=1, description="segmented frames without an object")


class PathsConfig(Strict):
    """Where things are when the command line does not say."""

    data_root: str | None = Field(None, description="used when --input is not given")
    output_root: str | None = Field(None, description="used when --output is not given")
    manifest_path: str | None = None
    state_db_path: str | None = None
    runlog_path: str | None = None


class GuardConfig(Strict):
    """When a worker is ended from outside, and how much it decodes at a time."""

    timeout_s: float = Field(300.0, gt=0, description="least time allowed for one stage of one clip")
    timeout_s_per_frame: float = Field(2.0, ge=0, description="more time for longer clips: the larger of both counts")
    memory_gib: float = Field(4.0, gt=0, description="resident memory of one worker process")
    window_frames: int = Field(
        16, ge=1, le=4096, description="decoded frames held at a time; halved when memory runs out"
    )


class SpeedOfLightConfig(Strict):
    """The measurement at the end of a run: the same operators in a bare loop."""

    sample_frames: int = Field(120, ge=0, description="frames per worker to measure on; 0: do not measure")


class EgoworldConfig(Strict):
    """Everything that decides a run."""

    splitter: FixedStride | SceneDetect | HandSpeed | None = Field(
        None, discriminator="method", description="default: fixed_stride, or the scenedetect block if that is given"
    )
    operators: OperatorsConfig = OperatorsConfig()
    allow_licence: tuple[str, ...] = Field(
        (),
        description="licences beyond the permissive ones that this run may use, word for word as the operator has it",
    )
    guard: GuardConfig = GuardConfig()
    speed_of_light: SpeedOfLightConfig = SpeedOfLightConfig()
    parquet: ParquetConfig = ParquetConfig()
    retry: RetryConfig = RetryConfig()
    backpressure: BackpressureConfig = BackpressureConfig()
    scenedetect: SceneDetect | None = Field(None, description="the seed's block: choosing it chooses the splitter")
    coordinates: CoordinatesConfig = CoordinatesConfig()
    metrics: MetricsConfig = MetricsConfig()
    paths: PathsConfig = PathsConfig()
    num_gpus: float = Field(0, ge=0, description="GPUs that the workers share; none: each sees them all")
    run_id: str | None = None
    model_versions: dict[str, Any] = Field(default_factory=dict)
    dataset_hash: str | None = None
    code_git_hash: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict, description="carried into run_manifest.json, never read")

    def chosen_splitter(self) -> FixedStride | SceneDetect | HandSpeed:
        """The splitter, by the rule in `splitter`."""
        return self.splitter or self.scenedetect or FixedStride()

    def workers(self) -> int:
        """Worker processes."""
        workers = self.backpressure.max_in_flight_cpu or len(os.sched_getaffinity(0))
        return min(workers, (self.num_gpus and self.backpressure.max_in_flight_gpu) or workers)
