"""Which operators exist: the config's key → backend → class. The only list to extend when adding one."""

from __future__ import annotations

import importlib
from typing import Any

from data_jobs.egoworld.operators.base import Operator
from data_jobs.egoworld.operators.batched_retarget import BatchedRetarget
from data_jobs.egoworld.operators.colmap_pose import ColmapPose
from data_jobs.egoworld.operators.external import EXTERNALS
from data_jobs.egoworld.operators.library_retarget import LibraryRetarget
from data_jobs.egoworld.operators.manipulation_hands import ManipulationHands
from data_jobs.egoworld.operators.manipulation_objects import ManipulationObjects
from data_jobs.egoworld.operators.mediapipe_hands import MediapipeHands
from data_jobs.egoworld.operators.mobile_sam import MobileSamMasks
from data_jobs.egoworld.operators.sam2_video import Sam2VideoMasks
from data_jobs.egoworld.operators.template_pose import TemplatePose
from data_jobs.runs.errors import RunError

# In the order of the data: an operator comes after those whose tables it reads.
OPERATORS: tuple[type[Operator], ...] = (
    MediapipeHands,
    ManipulationHands,
    MobileSamMasks,
    Sam2VideoMasks,
    TemplatePose,
    ManipulationObjects,
    BatchedRetarget,
    LibraryRetarget,
    ColmapPose,
    *EXTERNALS,
)

# The seed's names, all accepted in a config; the first backend of each key is its default.
KEYS = ("hamer", "sam2", "foundationpose", "dex_retarget", "fast3r")


def operator_class(key: str, backend: str | None) -> type[Operator]:
    """The class for a key and backend; RunError lists what exists.

    A backend `package.module:Class` is an operator of the user's own: importable, and written for this key.
    """
    if backend is not None and ":" in backend:
        return _imported(key, backend)
    of_key = [operator for operator in OPERATORS if operator.spec.key == key]
    for operator in of_key:
        if backend in (None, operator.spec.backend):
            return operator
    raise RunError(f"operators.{key}.backend: unknown backend {backend!r}; available: {_choices(of_key)}")


def _imported(key: str, backend: str) -> type[Operator]:
    module, _, name = backend.partition(":")
    try:
        operator: type[Operator] = getattr(importlib.import_module(module), name)
        fits = operator.spec.key == key
    except (ImportError, AttributeError) as error:
        raise RunError(f"operators.{key}.backend: {backend} is not an importable operator class ({error})") from error
    if not fits:
        raise RunError(f"operators.{key}.backend: {backend} is an operator for {operator.spec.key}, not for {key}")
    return operator


def _choices(operators: Any) -> str:
    return ", ".join(operator.spec.name for operator in operators)
