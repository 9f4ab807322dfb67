"""The run's manifest, settled: built or taken over, written beside the results, refused files put into dead letters.

In: inputs and a splitter. Out: Listing, the set of things the run must account for. Called by run.py and the command
line. Everything after this step works on clip rows only.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_jobs.egoworld.manifest import Manifest, Rejected, build_manifest
from data_jobs.egoworld.manifest_files import read_manifest, write_manifest
from data_jobs.egoworld.progress import Progress
from data_jobs.egoworld.splitters import Splitter
from data_jobs.egoworld.task import EgoworldJob
from data_jobs.runs.errors import RunError
from data_jobs.runs.outcome import DeadLetter
from data_jobs.runs.places import Run, Where, open_run

MANIFESTS = "manifests"


@dataclass(frozen=True, slots=True)
class Listing:
    """What must end as done or dead."""

    manifest: Manifest

    @property
    def clips(self) -> pa.Table:
        """The clip table."""
        return self.manifest.clip_table

    @property
    def unit_ids(self) -> list[str]:
        """Ids of all clips and of all refused files."""
        return [*self.clips["clip_id"].to_pylist(), *(letter_id(file) for file in self.manifest.rejected)]

    def totals(self) -> dict[str, int]:
        """Counts for people and run_manifest.json."""
        return {
            "videos": len(self.manifest.videos),
            "clips": len(self.clips),
            "frames": sum(video.frame_count for video in self.manifest.videos),
            "files_refused": len(self.manifest.rejected),
            "files_with_equal_content": len(self.manifest.duplicates),
        }


def make_listing(inputs: Sequence[Path], splitter: Splitter, job: EgoworldJob, progress: Progress) -> Listing:
    """Build the manifest, or extend the one this run started with; publish dead letters of refused files.

    Raises RunError if clips of the earlier start are not among the inputs any more: their results would be strays.
    """
    known = _read(job.run) if job.store.exists(job.run.at(MANIFESTS)) else None
    progress.phase("files", 1)
    manifest = build_manifest(
        inputs, splitter, known=known, progress=lambda done, total, name: progress.update(done, name, total)
    )
    if known is not None and manifest is not known:
        refuse_lost_clips(known, manifest, job)
    if manifest is not known:
        put_manifest(manifest, job)
    forget_mended(manifest, job)
    for file in manifest.rejected:
        job.store.publish_file(job.run.at(f"dead_letter/{letter_id(file)}.json"), refusal(file).to_bytes())
    return Listing(manifest)


def open_listing(where: Where) -> Listing:
    """The listing that a run wrote; RunError if there is none."""
    return Listing(_read(open_run(where)))


def _read(run: Run) -> Manifest:
    with run.store.local_folder(run.at(MANIFESTS)) as folder:
        return read_manifest(folder)


def put_manifest(manifest: Manifest, job: EgoworldJob) -> None:
    """Write the manifest folder whole; an older one makes room. A kill in between costs a new listing, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(manifest, Path(folder))
        job.store.replace_folder(job.run.at(MANIFESTS), Path(folder))


def refuse_lost_clips(known: Manifest, manifest: Manifest, job: EgoworldJob) -> None:
    """RunError when a clip that this run has promised cannot be found in the inputs any more."""
    still = set(manifest.clip_table["clip_id"].to_pylist())
    gone = [
        row["name"] for row in known.clip_table.select(["clip_id", "name"]).to_pylist() if row["clip_id"] not in still
    ]
    if gone:
        raise RunError(
            f"run {job.run_id} has listed {gone[0]}, which has changed or is gone ({len(gone)} clips); "
            "put it back or choose another --run-id: clips that did not change are not computed again"
        )


def forget_mended(manifest: Manifest, job: EgoworldJob) -> None:
    """Take back the dead letters of files that were refused at an earlier start and are not refused now."""
    refused = {letter_id(file) for file in manifest.rejected}
    for name in job.run.letters():
        if name.startswith("file-") and name.removesuffix(".json") not in refused:
            job.store.remove(job.run.at(f"dead_letter/{name}"))


def letter_id(file: Rejected) -> str:
    """The unit id of a whole file that was refused."""
    return f"file-{hashlib.sha256(file.name.encode(errors='surrogateescape')).hexdigest()[:16]}"


def refusal(file: Rejected) -> DeadLetter:
    """The dead letter of a refused file."""
    return DeadLetter(
        video_path=file.path,
        video_id=None,
        clip_id=None,
        stage="manifest",
        cause="input",
        error_type="InputError",
        message=file.message,
        attempts=1,
        traceback_sha256="",
        repro="python -m data_jobs.egoworld manifest --output FOLDER --input " + shlex.quote(file.path),
    )
