"""The licence gate: what a run may use without being told, and what it must be told.

In: an operator's licence, as an SPDX expression. Out: nothing, or RunError. Called by plan.py, before any file is read.
The licence of each table is carried into meta.json and into exported datasets.
"""

from __future__ import annotations

from collections.abc import Collection

from data_jobs.egoworld.operators.base import OperatorSpec
from data_jobs.runs.errors import RunError

# Whoever has the result may use it for anything: no field of use, no share-alike, no account with the author.
PERMISSIVE = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC-BY-4.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "Unlicense",
        "Zlib",
    }
)


def refuse_unpermitted(spec: OperatorSpec, allowed: Collection[str]) -> None:
    """RunError unless every licence joined by AND is permissive or allowed word for word."""
    missing = [part for part in spec.licence.split(" AND ") if part not in PERMISSIVE and part not in allowed]
    if missing and spec.licence not in allowed:
        raise RunError(
            f"{spec.name} comes under {spec.licence!r}, which restricts the use of its table; if that is what you "
            f"want, write allow_licence: [{', '.join(repr(part) for part in missing)}] in the config"
        )
