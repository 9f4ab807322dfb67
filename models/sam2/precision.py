"""bfloat16 throughout where asked, scaled-dot-product attention only, and a word about xformers.

Called by stream.py, automatic.py and models/embedding. Knows nothing of what the networks compute.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
from contextlib import AbstractContextManager
from typing import Any

import torch

_log = logging.getLogger(__name__)


def computing(network: Any) -> AbstractContextManager:
    """Around every pass: nothing for float32 weights; autocast for bfloat16 ones, so that activations are too.

    Casting weights alone is not enough: the networks make float32 constants (coordinates, sigmoids) on the way,
    and one of them would turn what follows into float32.
    """
    parameter = next(network.parameters())
    if parameter.dtype == torch.bfloat16:
        return torch.autocast(parameter.device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def xformers_fault() -> str | None:
    """Why an installed xformers cannot work here, in one sentence; None when it is absent or imports.

    Nothing here uses it: attention is torch's own `scaled_dot_product_attention`. But a wheel built for another Python
    or torch breaks other DINOv2 programs in the same environment, with a message about a missing C++ backend.
    """
    if importlib.util.find_spec("xformers") is None:
        return None
    try:
        importlib.import_module("xformers.ops")
        return None
    except Exception as error:  # noqa: BLE001  a broken binary wheel fails in every way there is
        version = importlib.metadata.version("xformers")
        return (
            f"xformers {version} is installed but does not work with torch {torch.__version__} ({error}); it is not "
            "needed here (attention is torch's own): `pip uninstall xformers`"
        )


def warn_of_xformers() -> None:
    """Log the fault once per call; called when networks are loaded."""
    if fault := xformers_fault():
        _log.warning(fault)
