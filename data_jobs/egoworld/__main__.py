"""The command line: manifest, run, status, verify, retry, rebuild, report, export, view.

`python -m data_jobs.egoworld --help` lists the options.

Exit codes: see data_jobs/runs/command.py.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from data_jobs.runs.command import BEYOND_THRESHOLDS, NOT_ACCOUNTED, NOTHING_DONE, err, out, plainly
from data_jobs.runs.errors import RunError
from data_jobs.runs.places import Where, open_run, where_of

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Inputs = Annotated[list[Path] | None, typer.Option("--input", help="folder of videos, or video files; repeatable")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML or JSON; every key is checked")]
RunFolder = Annotated[str, typer.Option("--run", help="OUTPUT/run_id=ID, a folder or s3:// URL")]
EngineName = Annotated[str, typer.Option("--engine", help="ray (actors, isolated) or local (this process)")]


@app.command()
@plainly
def manifest(
    output: Annotated[Path, typer.Option(help="folder for video_manifest and clip_manifest, .parquet and .jsonl")],
    input: Inputs = None,
    config: Config = None,
) -> None:
    """List videos and clips without working on them."""
    from data_jobs.egoworld.manifest import build_manifest
    from data_jobs.egoworld.manifest_files import write_manifest

    settings = read_config(config)
    built = build_manifest(inputs_of(input, settings), settings.chosen_splitter())
    write_manifest(built, output)
    for file in built.rejected:
        err.print(f"refused: {file.message}", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"{len(built.videos)} videos, {len(built.clip_table)} clips, {len(built.rejected)} files refused, "
        f"{len(built.duplicates)} with equal content: {output}"
    )


@app.command()
@plainly
def run(
    input: Inputs = None,
    config: Config = None,
    output: Annotated[str | None, typer.Option(help="folder or s3:// URL that holds runs; default ./output")] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", help="name of the run; the same name resumes it")] = None,
    engine: EngineName = "ray",
) -> None:
    """Work on every clip; run it again with the same --output and --run-id to resume."""
    from data_jobs.egoworld.progress import Progress
    from data_jobs.egoworld.run import RunRequest, execute

    settings = read_config(config)
    request = RunRequest(
        inputs=tuple(inputs_of(input, settings)),
        job=job_of(settings, output, run_id),
        engine=engine_of(engine),
        config_path=str(config) if config else None,
    )
    out.print(f"run {request.job.run_id} → {request.job.run_folder}", highlight=False, soft_wrap=True)
    with Progress(err) as progress:
        result = execute(request, progress)
    print_result(result, request.job.run_folder)
    raise typer.Exit(exit_code(result))


@app.command()
@plainly
def status(run: RunFolder) -> None:
    """Counts by state, and dead letters by cause, from the published tree (works while the run is going)."""
    from data_jobs.egoworld.letters import read_letters
    from data_jobs.egoworld.listing import open_listing
    from data_jobs.egoworld.run import run_manifest
    from data_jobs.runs.proof import published_ids

    where = where_of(run)
    record, listing = run_manifest(where), open_listing(where)
    done, dead = published_ids(where)
    table = Table("state", "units", box=None)
    for name, count in {
        "planned": len(listing.unit_ids),
        "done": len(done),
        "dead": len(dead),
        "left": len(listing.unit_ids) - len(done) - len(dead),
    }.items():
        table.add_row(name, str(count))
    out.print(f"run {record['run_id']}: {record['state']}", highlight=False)
    out.print(table)
    print_letters(read_letters(where))


@app.command()
@plainly
def verify(run: RunFolder) -> None:
    """Check every published clip against its meta.json and the manifest, and print the tree hash."""
    from data_jobs.egoworld.listing import open_listing
    from data_jobs.egoworld.verify import faults
    from data_jobs.runs.proof import prove

    where = where_of(run)
    proof = prove(open_listing(where).unit_ids, where)
    out.print(proof.sentence(), highlight=False, soft_wrap=True)
    wrong = list(faults(where))
    for fault in wrong:
        out.print(f"fault: {fault}", markup=False, highlight=False, soft_wrap=True)
    if orphans := open_run(where).store.orphans():
        out.print(f"{len(orphans)} stored objects belong to no clip: harmless leftovers of killed writers")
    out.print(f"tree sha256 {proof.tree_sha256}", highlight=False)
    if wrong or not proof.holds:
        raise typer.Exit(NOT_ACCOUNTED)


@app.command()
@plainly
def retry(
    run: RunFolder,
    cause: Annotated[list[str] | None, typer.Option(help="only dead letters of this cause; repeatable")] = None,
    clip: Annotated[list[str] | None, typer.Option(help="only this clip or refused file; repeatable")] = None,
    engine: EngineName = "ray",
) -> None:
    """Take dead letters back and try them again, with the run's own config."""
    from data_jobs.egoworld.letters import take_back
    from data_jobs.egoworld.progress import Progress
    from data_jobs.egoworld.run import execute, reopen

    request = reopen(where_of(run), engine_of(engine))
    taken = take_back(request.job, cause or [], clip or [])
    out.print(f"{taken} dead letters taken back", highlight=False)
    if not taken:
        return
    with Progress(err) as progress:
        result = execute(request, progress)
    print_result(result, request.job.run_folder)
    raise typer.Exit(exit_code(result))


@app.command()
@plainly
def rebuild(run: RunFolder) -> None:
    """Make the ledger anew from the published tree."""
    from data_jobs.egoworld.run import rebuild_ledger

    counts = rebuild_ledger(where_of(run))
    out.print(
        ", ".join(f"{units} {state}" for state, (units, _) in sorted(counts.items())) or "no clips", highlight=False
    )


@app.command()
@plainly
def report(run: RunFolder) -> None:
    """Write report/report.html and one overlay video per clip."""
    from data_jobs.egoworld.report import write_report

    where = where_of(run)
    if not isinstance(where, Path):
        raise RunError(f"a report is made from a local run only; {run} lies in an object store")
    out.print(f"report: {write_report(where)}", highlight=False, soft_wrap=True)


@app.command()
@plainly
def export(
    run: RunFolder,
    output: Annotated[Path, typer.Option(help="new folder for the dataset")],
    format: Annotated[str, typer.Option(help="lerobot: LeRobotDataset v3, one episode per clip")] = "lerobot",
    task: Annotated[str, typer.Option(help="what the person does, in words; LeRobot keeps it with every frame")] = "",
    fps: Annotated[int | None, typer.Option(help="frames per second; the clips' own unless given", min=1)] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; the clips' own unless given")] = None,
) -> None:
    """Turn published clips with hands into a dataset that trains a robot."""
    from data_jobs.egoworld.export import export as write_dataset

    where = where_of(run)
    if format != "lerobot":
        raise RunError(f"--format {format!r} is unknown; choose lerobot")
    if not isinstance(where, Path):
        raise RunError(f"a dataset is made from a local run only; {run} lies in an object store")
    episodes, frames = write_dataset(where, output, task, fps, size_of(size))
    out.print(f"dataset: {output}, {episodes} episodes, {frames} frames", highlight=False, soft_wrap=True)


@app.command()
@plainly
def view(
    run: RunFolder,
    output: Annotated[Path, typer.Option(help="new folder for one .rrd file per clip")],
    clip: Annotated[list[str] | None, typer.Option(help="only this clip; repeatable")] = None,
) -> None:
    """Write clips as recordings for the Rerun viewer (`rerun FILE.rrd`)."""
    from data_jobs.egoworld.viewer import write_recordings

    where = where_of(run)
    if not isinstance(where, Path):
        raise RunError(f"recordings are made from a local run only; {run} lies in an object store")
    written = write_recordings(where, output, clip or [])
    out.print(f"recordings: {len(written)} in {output}", highlight=False, soft_wrap=True)


# --- shared by the commands ---------------------------------------------------------------------------------------


def read_config(path: Path | None) -> Any:
    """The config file, or the embedded defaults."""
    from data_jobs.egoworld.config import EgoworldConfig
    from data_jobs.runs.strict import load_config

    return load_config(EgoworldConfig, path) if path else EgoworldConfig()


def inputs_of(given: list[Path] | None, settings: Any) -> list[Path]:
    """--input, else the config's paths.data_root."""
    if given:
        return given
    if settings.paths.data_root:
        return [Path(settings.paths.data_root)]
    raise RunError("nothing to work on: give --input DIR or FILE, or set paths.data_root in the config")


def job_of(settings: Any, output: str | None, run_id: str | None) -> Any:
    """The job: plan, output folder and run id, with notices about values that have no effect."""
    from data_jobs.egoworld.plan import make_plan
    from data_jobs.egoworld.task import EgoworldJob
    from models import weights

    def present_sha256(name: str) -> str:
        weights.path_of(name)
        return weights.sha256_of(name)

    plan, notices = make_plan(settings, present_sha256)
    for notice in notices:
        err.print(f"note: {notice}", markup=False, highlight=False, soft_wrap=True)
    name = run_id or settings.run_id or datetime.now().strftime("%Y%m%d_%H%M%S")
    if not name or "/" in name or name.startswith("."):
        raise RunError(f"run id {name!r} cannot name a folder; use letters, digits, '-' and '_'")
    where = where_of(output or settings.paths.output_root or "output")
    return EgoworldJob(plan, where.absolute() if isinstance(where, Path) else where, name)


def size_of(text: str | None) -> tuple[int, int] | None:
    """WIDTHxHEIGHT as numbers; RunError if it is something else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    # Most encoders take even sides only.
    if not found or any(int(side) < 2 or int(side) % 2 for side in found.groups()):
        raise RunError(f"--size {text!r} is not a size; give even numbers of pixels as WIDTHxHEIGHT, e.g. 640x480")
    return int(found[1]), int(found[2])


def engine_of(name: str) -> Any:
    """The engine's name, checked."""
    if name not in ("ray", "local"):
        raise RunError(f"unknown engine {name!r}; choose ray or local")
    return name


def exit_code(result: Any) -> int:
    """How the process tells what happened; see the head of this file."""
    if not result.proof.holds:
        return NOT_ACCOUNTED
    if result.proof.dead and not result.proof.done:
        return NOTHING_DONE
    return 0 if result.verdict.within else BEYOND_THRESHOLDS


def print_result(result: Any, run_folder: Where) -> None:
    """The final table: what was done, how fast, what was not."""
    from data_jobs.egoworld.letters import read_letters

    table = Table("stage", "attempts", "failed", "seconds", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, (attempts, failed, seconds) in result.stages.items():
        table.add_row(name, str(attempts), str(failed), f"{seconds:.1f}")
    if result.stages:
        out.print(table)
    if result.speed:
        speed = result.speed
        out.print(
            f"{speed.frames_per_s:.1f} frames/s; a bare loop over the same models: {speed.bare_frames_per_s:.1f}; "
            f"speed of light {speed.ratio:.2f} (sample: {speed.sample_clips} clips, {speed.sample_frames} frames)",
            highlight=False,
        )
    print_letters(read_letters(run_folder))
    for fault in result.verdict.faults:
        out.print(f"quality: {fault}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"{result.proof.sentence()} in {result.seconds:.1f} s", highlight=False, soft_wrap=True)
    out.print(f"tree sha256 {result.proof.tree_sha256}", highlight=False)


def print_letters(letters: list[Any]) -> None:
    """Dead letters by cause, with one example each."""
    if not letters:
        return
    table = Table("dead letters", "cause", "for example", box=None)
    for cause, count in Counter(letter.cause for letter in letters).most_common():
        table.add_row(str(count), cause, next(letter.message for letter in letters if letter.cause == cause))
    out.print(table)


if __name__ == "__main__":
    sys.exit(app())
