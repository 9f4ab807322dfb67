"""Values of one service, from the `args` of a Serve config or `serve run serve.app key=value`.

In: a mapping. Out: frozen settings that every part is given. Only the operator writes these: they may name paths and
classes, which nothing that comes over the network can.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MIB = 1024 * 1024


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Part):
    """One long-lived named actor that owns a model."""

    factory: str = Field(pattern=r"^[\w.]+:\w+$", description="module:class with load, warm_up, its work and close")
    arguments: dict[str, Any] = {}
    num_cpus: float = Field(default=0.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0, description="share of a GPU; a promise to the scheduler, not a wall")


# What runs on a laptop's processor with weights that anybody can fetch.
EMBEDDED = {
    "segmenter": ModelSettings(factory="actors.segmenter:PromptSegmenter", arguments={"threads": 2}),
    "embedder": ModelSettings(factory="models.embedding.embedder:Embedder"),
}


class TrackingSettings(_Part):
    """Sessions and their replicas."""

    backend: str = Field(default="serve.zero_shot:backend", pattern=r"^[\w.]+:\w+$", description="module:function")
    arguments: dict[str, Any] = {}
    replicas: int = Field(default=2, ge=1, description="two, so that a session has somewhere to go at once")
    num_gpus: float = Field(default=0.0, ge=0)
    threads: int = Field(default=4, ge=1, description="frames worked on at once, per replica")
    checkpoint_every: int = Field(default=5, ge=1, description="frames between two saved states of a session")
    session_ttl_s: float = Field(default=60.0, gt=0, description="how long a session outlives its connection")
    deadline_ms: float = Field(default=1000.0, gt=0, description="for a client that asks for none")


class PolicySettings(_Part):
    """What WS /v1/policy serves."""

    contract: str = Field(default="pick101_v19", description="configs/contracts/NAME or a .yaml file")
    kind: str = Field(default="stand_still", description="stand_still, or the path of a *_snapshot.pt")
    device: str = "cpu"
    num_cpus: float = Field(default=0.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)


class ControlSettings(_Part):
    """The arm of this service."""

    robot: Literal["sim", "so101"] = "sim"
    contract: str = "pick101_v19"
    limits: str = Field(default="", description="configs/robot/NAME or a .yaml file; the robot's own unless given")
    camera_fps: float = Field(default=10.0, gt=0)
    port: str = Field(default="", description="so101: serial port")
    calibration: Path | None = Field(default=None, description="so101: JSON of lerobot-calibrate")
    camera: str = Field(default="", description="so101: OpenCV index or path of the wrist camera")


class Limits(_Part):
    """What one peer may ask for."""

    max_connections: int = Field(default=64, ge=1, description="open websockets of all kinds, per gateway")
    max_message_bytes: int = Field(default=12 * MIB, gt=0, description="a raw 1080p frame is 6 MiB")
    max_frame_pixels: int = Field(default=4096 * 2304, gt=0)
    max_targets_per_session: int = Field(default=8, ge=1)
    max_targets: int = Field(default=200, ge=1)
    max_upload_bytes: int = Field(default=64 * MIB, gt=0)
    max_unpacked_bytes: int = Field(default=512 * MIB, gt=0)
    max_views: int = Field(default=1000, ge=1)
    max_template_pixels: int = Field(default=2048 * 2048, gt=0)
    max_triangles: int = Field(default=500_000, ge=1)
    hello_timeout_s: float = Field(default=5.0, gt=0)
    idle_timeout_s: float = Field(default=30.0, gt=0, description="a silent peer is taken for a half-open socket")
    max_unread_answers: int = Field(default=64, ge=1, description="answers that a client may be behind with reading")


class Settings(_Part):
    """The whole service."""

    models: dict[str, ModelSettings] = Field(default=EMBEDDED, description="name of the actor → what it owns")
    tracking: TrackingSettings = TrackingSettings()
    policy: PolicySettings = PolicySettings()
    control: ControlSettings = ControlSettings()
    limits: Limits = Limits()
    targets_dir: Path = Path("~/.cache/reafference/targets")
    token_variable: str = Field(default="REAFFERENCE_TOKEN", description="environment variable of the bearer token")
    allowed_hosts: tuple[str, ...] = Field(default=(), description="names this service is reached by, beside loopback")
    gateways: int = Field(default=1, ge=1)


def settings_of(args: dict[str, Any]) -> Settings:
    """Checked settings. Raises ValueError with one sentence per mistake."""
    try:
        return Settings.model_validate(args)
    except ValidationError as error:
        told = (f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise ValueError(f"the service's settings are not valid: {'; '.join(told)}") from error
