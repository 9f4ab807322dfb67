"""Where the shipped weights lie; the card beside them tells of their making. Used by data_jobs/nuscenes/learned.py."""

from __future__ import annotations

from pathlib import Path

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained" / "trackssm_small.safetensors"
