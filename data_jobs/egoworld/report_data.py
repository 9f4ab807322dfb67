"""What a run folder holds, counted: clips with their hands and masks, dead letters by cause, the run's own record.

In: a run folder, finished or not. Out: RunSummary. Called by report.py. Reads identities and times only, no pictures
and no mask pixels, so ten thousand clips take seconds. Fields that a run did not record are left out, not guessed.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_jobs.egoworld.clip_tables import NOTHING_FOUND
from data_jobs.egoworld.manifest import clip_from_row
from data_jobs.egoworld.manifest_files import read_clip_table
from data_jobs.egoworld.records import Clip
from data_jobs.runs.errors import RunError
from data_jobs.runs.guard import PUBLISH
from data_jobs.runs.outcome import DeadLetter
from data_jobs.runs.proof import published_ids

# Opening a small Parquet file is mostly waiting for the disk.
READ_THREADS = 4


@dataclass(frozen=True, slots=True)
class ClipSummary:
    """What was found in one done clip."""

    clip: Clip
    folder: Path
    hand_rows: int
    mask_rows: int  # objects, without the rows that say "nothing found"

    @property
    def found(self) -> int:
        """Hands and masks together: how much there is to see."""
        return self.hand_rows + self.mask_rows


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters that failed in the same way."""

    cause: str
    example: DeadLetter
    count: int


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage took in the run's last start."""

    stage: str
    attempts: int
    failed: int
    seconds: float  # of all workers together


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Everything the page says in numbers."""

    folder: Path
    record: dict[str, Any]  # run_manifest.json, {} when absent
    planned_clips: int
    clips: tuple[ClipSummary, ...]  # done ones, in the manifest's order
    dead_groups: tuple[DeadGroup, ...]  # the largest first
    dead_count: int
    videos: int

    @property
    def run_id(self) -> str:
        """As recorded, else as the folder is named."""
        return str(self.record.get("run_id", self.folder.name.removeprefix("run_id=")))

    @property
    def stage_costs(self) -> tuple[StageCost, ...]:
        """By name, publication last; empty when the run recorded none."""
        stages = self.record.get("stage_costs") or {}
        measured = {name: cost for name, cost in stages.items() if "seconds" in cost}
        return tuple(
            StageCost(name, cost.get("attempts", 0), cost.get("failed", 0), cost["seconds"])
            for name, cost in sorted(measured.items(), key=lambda item: (item[0] == PUBLISH, item[0]))
        )

    @property
    def frames(self) -> int:
        """Frames in all done clips."""
        return sum(summary.clip.frame_count for summary in self.clips)

    @property
    def hand_rows(self) -> int:
        """Hands over all frames of all done clips."""
        return sum(summary.hand_rows for summary in self.clips)

    @property
    def mask_rows(self) -> int:
        """Masks over all prompted frames of all done clips."""
        return sum(summary.mask_rows for summary in self.clips)


def summarise(run_folder: Path) -> RunSummary:
    """Count a run folder; RunError if it is none, or a dead letter or table in it cannot be read."""
    if not run_folder.is_dir():
        raise RunError(f"there is no run folder {run_folder}; give the path of a folder named run_id=…")
    record = _record(run_folder)
    table = read_clip_table(run_folder / "manifests")
    letters = [_letter(path) for path in sorted((run_folder / "dead_letter").glob("*.json"))]
    return RunSummary(
        folder=run_folder,
        record=record,
        planned_clips=len(table),
        clips=_done_clips(run_folder, table),
        dead_groups=_groups(letters, run_folder),
        dead_count=len(letters),
        videos=len(pc.unique(table["video_id"])),
    )


def _record(run_folder: Path) -> dict[str, Any]:
    path = run_folder / "run_manifest.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}") from error


def _letter(path: Path) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise RunError(f"{path} is no dead letter: {' '.join(str(error).split())}") from error


def _groups(letters: Iterable[DeadLetter], run_folder: Path) -> tuple[DeadGroup, ...]:
    """Equal cause, stage, error and call path is one failure; the run folder is written into its command."""
    groups: defaultdict[tuple[str, ...], list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        groups[letter.cause, letter.stage, letter.error_type, letter.traceback_sha256].append(letter)
    ranked = sorted(groups.values(), key=lambda group: (-len(group), group[0].cause, group[0].stage))
    return tuple(DeadGroup(group[0].cause, _runnable(group[0], run_folder), len(group)) for group in ranked)


def _runnable(letter: DeadLetter, run_folder: Path) -> DeadLetter:
    command = letter.repro.replace("RUN_FOLDER", shlex.quote(str(run_folder)))
    return letter.model_copy(update={"repro": command})


def _done_clips(run_folder: Path, table: pa.Table) -> tuple[ClipSummary, ...]:
    done = set(published_ids(run_folder)[0])
    rows = table.filter(pc.is_in(table["clip_id"], value_set=pa.array(sorted(done), pa.string()))).to_pylist()
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return tuple(pool.map(lambda row: _summary(clip_from_row(row), run_folder), rows))


def _summary(clip: Clip, run_folder: Path) -> ClipSummary:
    folder = run_folder / f"video_id={clip.video_id}" / f"clip_id={clip.clip_id}"
    hands, masks = folder / "hand_pose.parquet", folder / "masks.parquet"
    try:
        hand_rows = pq.read_metadata(hands).num_rows if hands.exists() else 0
        mask_rows = int(np.count_nonzero(_object_ids(masks) != NOTHING_FOUND)) if masks.exists() else 0
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"a table of clip {clip.clip_id} cannot be read: {error}") from error
    return ClipSummary(clip, folder, hand_rows, mask_rows)


def _object_ids(path: Path) -> np.ndarray:
    return pq.ParquetFile(path).read(columns=["object_id"], use_threads=False)["object_id"].to_numpy()
