"""What a newcomer's first run reaches of the speed of light: `make demo`, in a folder of its own.

Run: `python -m benchmarks demo`. Every `run` of egoworld times the same operators on a sample of the same clips in a
bare loop; the ratio of the two rates is read from the demo's own summary.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.paired import Fact

ROOT = Path(__file__).resolve().parents[1]


def comparisons() -> Iterator[Fact]:
    """Raises CalledProcessError if the demo fails."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["make", "demo", f"DEMO={folder}"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((Path(folder) / "run_id=demo" / "run_manifest.json").read_text(encoding="utf-8"))
    speed = summary["speed_of_light"]
    found = f"{speed['ratio']:.2f} ({speed['sample_clips']} clips, {speed['sample_frames']} frames in the loop)"
    yield Fact("whole run of the demo against a bare loop over the same models", found, "make demo")
