"""The comparison as one HTML page: a bar chart and a table per condition.

In: results of compare.py. Out: HTML text. Called by __main__.py. Knows nothing of tracking.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from data_jobs.nuscenes.compare import METRICS, REFERENCE, Result, half_width, spread

# Where bars begin and how long the longest may be, in units of the drawing.
LEFT, LONGEST = 330.0, 420.0


def page(results: Sequence[Result], about: str) -> str:
    """The whole page."""
    text = resources.files("data_jobs.nuscenes").joinpath("compare.html.jinja").read_text(encoding="utf-8")
    names = list(dict.fromkeys(r.condition for r in results))
    blocks = [_block(name, [r for r in results if r.condition == name]) for name in names]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    return template.render(about=about, suites=len(results[0].scores) if results else 0, blocks=blocks)


def _block(name: str, results: Sequence[Result]) -> dict[str, Any]:
    means = [float(r.values("HOTA").mean()) for r in results]
    # Bars start near the lowest value, said below them: differences are what the chart is for.
    start = 5 * np.floor(max(0.0, min(means) - 5) / 5)
    scale = LONGEST / max(1e-9, max(means) - start)
    base = next((r for r in results if r.entry == REFERENCE), None)
    return {
        "name": name,
        "start": f"{start:.0f}",
        "bars": [_bar(r, mean, start, scale) for r, mean in zip(results, means, strict=True)],
        "rows": [_row(r, base) for r in results],
    }


def _kind(name: str) -> str:
    return "reference" if name == REFERENCE else "learned" if name.startswith("TrackSSM") else ""


def _bar(result: Result, mean: float, start: float, scale: float) -> dict[str, Any]:
    end, half = LEFT + (mean - start) * scale, half_width(result.values("HOTA"))
    known = not np.isnan(half)
    return {
        "name": result.entry,
        "kind": _kind(result.entry),
        "width": round(end - LEFT, 1),
        "low": round(end - half * scale, 1) if known else None,
        "high": round(end + half * scale, 1) if known else None,
        "text_at": round(end + (half * scale if known else 0) + 8, 1),
        "text": spread(result.values("HOTA")),
    }


def _row(result: Result, base: Result | None) -> dict[str, Any]:
    cells = [spread(result.values(m), 0 if m == "IDSW" else 1) for m in METRICS]
    against = "–"
    if base is not None and result is not base:
        against = spread(result.values("HOTA") - base.values("HOTA"), 2)
    return {"name": result.entry, "kind": _kind(result.entry), "cells": [*cells, against]}
