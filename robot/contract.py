"""The policy contract: what a policy was trained on, checked against everything around it before torque-on.

In: a YAML file from configs/contracts/, and what the policy, the segmenter, the camera and the arm say of themselves
(the offers below). Out: a list of named mismatches; `require` raises when there is any. Called by __main__.py.
Each name stands for an error that was really made with the public policy (docs/robot.md lists them).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robot.cartesian import CartesianController
from robot.errors import ContractError, complaint
from robot.records import N_JOINTS

CONTRACTS = Path(__file__).resolve().parent.parent / "configs" / "contracts"

SEGMENTER_CLASSES = ("unlabeled", "background", "table", "cube", "static_finger", "moving_finger")

ProprioceptionField = Literal["joint_position_rad", "joint_velocity_rad_s", "tool_position_m", "tool_rpy_rad"]
FIELD_SIZES: dict[ProprioceptionField, int] = {
    "joint_position_rad": N_JOINTS,
    "joint_velocity_rad_s": N_JOINTS,
    "tool_position_m": 3,
    "tool_rpy_rad": 3,
}
Layout = Literal["time_planes", "flat_channels"]
ActionSpace = Literal["cartesian_delta", "joint_delta"]
Interpolation = Literal["area", "linear"]
Order = Literal["normalise_then_crop", "crop_then_normalise"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CameraTerms(_Part):
    """The picture the policy was trained on."""

    width_px: int = Field(gt=0)
    height_px: int = Field(gt=0)
    colour: Literal["rgb", "bgr"] = Field(description="order of the channels that the camera driver hands over")
    vertical_fov_deg: float = Field(gt=0, lt=180)


class ClassTerms(_Part):
    """Segmenter ids to policy ids."""

    segmenter: tuple[str, ...] = Field(description="names of the segmenter's ids, in order")
    policy_ids: tuple[int, ...] = Field(description="for every segmenter id, the id that the policy was trained on")
    run: str = Field(description="training run that the segmentation weights must come from")
    sha256: str | None = Field(default=None, description="pins the segmentation checkpoint")


class DisparityTerms(_Part):
    """From depth or disparity to the second plane."""

    order: Order
    interpolation: Interpolation
    depth_epsilon_m: float = Field(ge=0, description="disparity = 1 / (depth + this)")
    range_epsilon: float = Field(ge=0, description="added to max - min; 0 makes a flat picture all near")


class ImageTerms(_Part):
    """The visual half of the observation."""

    size_px: int = Field(gt=0)
    stack: int = Field(gt=0)
    layout: Layout
    normalised_by: Literal["policy", "pipeline"] = Field(description="who maps 0..255 to the network's range")
    classes: ClassTerms
    disparity: DisparityTerms


class ActionTerms(_Part):
    """What the policy's numbers mean."""

    space: ActionSpace
    size: int = Field(gt=0)
    scale: float = Field(gt=0, description="metres (cartesian_delta) or radians (joint_delta) at an action of 1")
    frame: Literal["mujoco_base", "genesis_base", "joint"]
    controller: CartesianController | None = None


class PolicyContract(_Part):
    """Everything that has to fit before an arm may move."""

    name: str
    rate_hz: float = Field(gt=0, le=200)
    camera: CameraTerms
    image: ImageTerms
    proprioception: tuple[ProprioceptionField, ...]
    action: ActionTerms
    checkpoint_sha256: str | None = Field(default=None, description="pins the policy checkpoint")

    @property
    def low_dim_size(self) -> int:
        """Numbers of proprioception per frame."""
        return sum(FIELD_SIZES[name] for name in self.proprioception)

    @property
    def sha256(self) -> str:
        """Identity of the contract's content; a server and its client compare it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PolicyOffer:
    """What a policy says of itself, read from its checkpoint. None = it does not care."""

    name: str
    action_space: ActionSpace
    action_size: int
    action_frame: str
    low_dim_size: int
    stack: int | None = None
    image_channels: int | None = None
    layout: Layout | None = None
    normalises_input: bool | None = None
    class_count: int | None = None
    order: Order | None = None
    interpolation: Interpolation | None = None
    checkpoint_sha256: str | None = None
    contract_sha256: str | None = None  # of a server: the contract it was started with


@dataclass(frozen=True, slots=True)
class SegmenterOffer:
    """What the source of class ids says of itself."""

    classes: tuple[str, ...]
    run: str  # "sensor" where a simulator gives the truth
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class CameraOffer:
    """What the connected camera really delivers."""

    width_px: int
    height_px: int
    colour: str
    vertical_fov_deg: float | None = None  # None = unknown, a real camera does not say
    has_depth: bool = False
    noisy: bool = True  # a real sensor never gives two equal pictures: equal ones mean it is frozen


@dataclass(frozen=True, slots=True)
class ArmOffer:
    """What the connected arm says of itself."""

    name: str
    joints: tuple[str, ...]
    frame: str
    calibrated: bool


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that does not fit, by name."""

    name: str
    wanted: object
    found: object

    def __str__(self) -> str:
        return f"{self.name}: the contract wants {self.wanted}, found {self.found}"


def load_contract(name_or_path: str) -> PolicyContract:
    """A contract by name (configs/contracts/NAME.yaml) or path. Raises ContractError naming choices or field."""
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else CONTRACTS / f"{name_or_path}.yaml"
    if not path.is_file():
        choices = ", ".join(sorted(p.stem for p in CONTRACTS.glob("*.yaml")))
        raise ContractError(f"there is no contract {name_or_path!r}; choose one of {choices}, or give a .yaml file")
    try:
        return PolicyContract.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContractError(f"contract {path.name} is not valid: {complaint(error)}") from error


def _differences(pairs: list[tuple[str, object, object]]) -> list[Mismatch]:
    return [Mismatch(name, wanted, found) for name, wanted, found in pairs if found is not None and wanted != found]


def policy_mismatches(contract: PolicyContract, policy: PolicyOffer) -> list[Mismatch]:
    """Names: action_space, action_frame, proprioception, class_ids, double_normalisation, no_normalisation,
    stack_layout, image_channels, disparity_order, disparity_interpolation, checkpoint, contract_hash."""
    image, action = contract.image, contract.action
    found = _differences(
        [
            ("action_space", (action.space, action.size), (policy.action_space, policy.action_size)),
            ("action_frame", action.frame, policy.action_frame),
            ("proprioception", contract.low_dim_size, policy.low_dim_size),
            ("class_ids", len(set(image.classes.policy_ids)), policy.class_count),
            ("stack_layout", (image.layout, image.stack), policy.layout and (policy.layout, policy.stack)),
            ("image_channels", 2 * image.stack, policy.image_channels),
            ("disparity_order", image.disparity.order, policy.order),
            ("disparity_interpolation", image.disparity.interpolation, policy.interpolation),
            ("contract_hash", contract.sha256, policy.contract_sha256),
        ]
    )
    if contract.checkpoint_sha256 and contract.checkpoint_sha256 != policy.checkpoint_sha256:
        found.append(Mismatch("checkpoint", contract.checkpoint_sha256, policy.checkpoint_sha256))
    if policy.normalises_input is True and image.normalised_by == "pipeline":
        found.append(
            Mismatch("double_normalisation", "input that the pipeline normalised", "a policy that does it too")
        )
    if policy.normalises_input is False and image.normalised_by == "policy":
        found.append(Mismatch("no_normalisation", "a policy that normalises 0..255 itself", "one that does not"))
    return found


def segmenter_mismatches(contract: PolicyContract, segmenter: SegmenterOffer) -> list[Mismatch]:
    """Names: segmenter_classes, segmenter_weights, segmenter_checkpoint."""
    terms = contract.image.classes
    found = _differences([("segmenter_classes", terms.segmenter, segmenter.classes)])
    if segmenter.run not in ("sensor", terms.run):
        found.append(Mismatch("segmenter_weights", terms.run, segmenter.run))
    if terms.sha256 and segmenter.run != "sensor" and terms.sha256 != segmenter.sha256:
        found.append(Mismatch("segmenter_checkpoint", terms.sha256, segmenter.sha256))
    return found


# A lens is measured to about a degree; the deployed one was matched to 70.5 by hand.
FOV_TOLERANCE_DEG = 2.0


def camera_mismatches(contract: PolicyContract, camera: CameraOffer) -> list[Mismatch]:
    """Names: camera_size, colour_order, field_of_view."""
    terms = contract.camera
    wanted, have = (terms.width_px, terms.height_px), (camera.width_px, camera.height_px)
    found = _differences([("camera_size", wanted, have), ("colour_order", terms.colour, camera.colour)])
    fov = camera.vertical_fov_deg
    if fov is not None and abs(fov - terms.vertical_fov_deg) > FOV_TOLERANCE_DEG:
        found.append(Mismatch("field_of_view", terms.vertical_fov_deg, fov))
    return found


def arm_mismatches(contract: PolicyContract, arm: ArmOffer, joints: tuple[str, ...]) -> list[Mismatch]:
    """Names: joints, arm_frame, calibration."""
    found = _differences([("joints", joints, arm.joints), ("calibration", True, arm.calibrated)])
    if contract.action.space == "cartesian_delta" and contract.action.frame != arm.frame:
        found.append(Mismatch("arm_frame", contract.action.frame, arm.frame))
    return found


def require(contract: PolicyContract, mismatches: list[Mismatch]) -> None:
    """Raise ContractError that names every mismatch; nothing may move after it."""
    if mismatches:
        listing = "; ".join(str(mismatch) for mismatch in mismatches)
        raise ContractError(f"contract {contract.name} does not hold, torque stays off: {listing}")
