"""Content keys: what a stage's output depends on, hashed. Used by plans, artifacts and clip ids.

A key changes exactly when an input of the computation changes, so equal keys mean interchangeable files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, NaN refused (raises ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Any) -> bytes:
    """Indented JSON for human readers, keys in the order given, NaN refused (raises ValueError)."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def digest(value: Any) -> str:
    """Hex sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def artifact_key(
    unit_id: str,
    operator: str,
    version: int,
    weights_sha256: Sequence[str],
    params: Mapping[str, Any],
    upstream_keys: Sequence[str],
) -> str:
    """The key of one stage's output for one unit of work (64 hex digits).

    `params` holds only what can change the output's bytes; where and how fast it ran does not belong in it.
    """
    return digest(
        {
            "unit": unit_id,
            "operator": operator,
            "version": version,
            "weights": list(weights_sha256),
            "params": dict(params),
            "upstream": list(upstream_keys),
        }
    )
