"""The command line: convert, check, track, evaluate, compare, synthesize. `python -m data_jobs.nuscenes --help`.

Exit codes: see data_jobs/runs/command.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from data_jobs.runs.command import NOT_ACCOUNTED, NOTHING_DONE, err, out, plainly
from data_jobs.runs.errors import RunError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

DEFAULT_CACHE = Path("~/.cache/reafference/nuscenes")

CacheFolder = Annotated[Path, typer.Option("--cache", help="where the typed tables are kept between calls")]
Version = Annotated[str, typer.Option("--version", help="folder of the tables, e.g. v1.0-trainval")]
Converted = Annotated[Path, typer.Option("--gt", help="output folder of `convert`")]
OneSplit = Annotated[str | None, typer.Option("--split", help="this split only; default all that were converted")]


def choice(value: str, choices: tuple[str, ...], option: str) -> Any:
    """The value, if it is one of the choices; RunError that lists them otherwise."""
    if value not in choices:
        raise RunError(f"{option} {value!r} is unknown; choose {', '.join(choices)}")
    return value


@app.command()
@plainly
def convert(
    dataroot: Annotated[Path, typer.Option(help="nuScenes root, the folder that holds the version folder")],
    version: Version,
    output: Annotated[Path, typer.Option(help="folder for the sequences; the same folder resumes")],
    split: Annotated[str | None, typer.Option(help="train, held_out or val; default all")] = None,
    rate: Annotated[str, typer.Option(help="native: every image at its own time; 12: nominal grid")] = "native",
    interpolation: Annotated[
        str, typer.Option(help="native: 3-D at image time; linear2d, seed: 2-D blends, for comparison")
    ] = "native",
    engine: Annotated[str, typer.Option(help="ray (actors, isolated) or local (this process)")] = "ray",
    workers: Annotated[int, typer.Option(help="parallel scenes; 0 = one per core")] = 0,
    cache: CacheFolder = DEFAULT_CACHE,
) -> None:
    """Turn a nuScenes database into six-camera tracking sequences."""
    from data_jobs.nuscenes import convert as job

    request = job.ConvertRequest(
        dataroot, version, output, cache.expanduser(), split,
        choice(rate, ("native", "12"), "--rate"),
        choice(interpolation, ("native", "linear2d", "seed"), "--interpolation"),
        choice(engine, ("ray", "local"), "--engine"),
        workers or len(os.sched_getaffinity(0)),
    )  # fmt: skip
    result = job.convert(request)
    print_stats(result.stats)
    for letter in result.letters:
        err.print(f"dead: {letter.clip_id}: {letter.message}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"{result.proof.sentence()} in {result.seconds:.1f} s: {output}", highlight=False, soft_wrap=True)
    if not result.proof.holds:
        raise typer.Exit(NOT_ACCOUNTED)
    if result.proof.dead and not result.proof.done:
        raise typer.Exit(NOTHING_DONE)


@app.command()
@plainly
def check(
    gt: Converted,
    dataroot: Annotated[Path | None, typer.Option(help="draw on its images where they exist")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML file; default OUT/check.html")] = None,
    scenes: Annotated[int, typer.Option(help="scenes to draw")] = 3,
) -> None:
    """Look at the labels: pictures, bird's-eye plots, smoothness and visible-share statistics in one HTML
    report."""
    from data_jobs.nuscenes.check import write_report

    target = report or gt / "check.html"
    summary = write_report(gt, dataroot, target, scenes)
    for line in summary:
        out.print(line, highlight=False, soft_wrap=True)
    out.print(f"report: {target}", highlight=False, soft_wrap=True)


@app.command()
@plainly
def track(
    gt: Annotated[Path, typer.Option("--gt", help="output folder of `convert`, or a plain MOT folder")],
    detections: Annotated[
        Path | None,
        typer.Option(help="Parquet by image token, or MOT text files; a MOT folder has its own"),
    ] = None,
    motion: Annotated[
        str, typer.Option(help="last_box, constant_velocity, kalman, kalman_tuned, kalman_ego or trackssm")
    ] = "kalman_ego",
    weights: Annotated[Path | None, typer.Option(help="of trackssm; default the shipped small ones")] = None,
    output: Annotated[Path | None, typer.Option(help="folder for the tracks; default OUT/tracks/MOTION")] = None,
    across_cameras: Annotated[bool, typer.Option(help="give an object one id in all six cameras")] = True,
    split: OneSplit = None,
) -> None:
    """Turn detections into tracks, per camera and across cameras."""
    from data_jobs.nuscenes.association import TUNED_THRESHOLDS
    from data_jobs.nuscenes.mot_folder import is_mot_folder, run_mot
    from data_jobs.nuscenes.track import run_track

    target = output or gt / "tracks" / motion
    if is_mot_folder(gt):
        counts = run_mot(gt, motion, target, weights)
        out.print(", ".join(f"{value} {name}" for name, value in counts.items()) + f": {target}", soft_wrap=True)
        return
    if detections is None:
        raise RunError("which detections? give --detections; only MOT folders bring their own in det/det.txt")
    counts = run_track(gt, detections, motion, target, TUNED_THRESHOLDS, across_cameras, split, weights)
    out.print(", ".join(f"{value} {name}" for name, value in counts.items()) + f": {target}", soft_wrap=True)


@app.command()
@plainly
def evaluate(
    gt: Converted,
    tracks: Annotated[list[Path], typer.Option(help="folder of tracks; repeat it to compare trackers")],
    output: Annotated[Path | None, typer.Option(help="JSON file with every number")] = None,
    split: OneSplit = None,
) -> None:
    """Score tracks: HOTA, CLEAR, Identity, per class, averaged, per camera and for the whole rig."""
    from data_jobs.nuscenes.evaluate import check_comparable
    from data_jobs.nuscenes.evaluate import evaluate as score

    check_comparable(tracks)
    reports = [score(gt, folder, split).numbers() for folder in tracks]
    for report in reports:
        print_scores(report)
    if len(reports) > 1:
        print_comparison(reports)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(reports, indent=1, sort_keys=True) + "\n")


@app.command()
@plainly
def compare(
    output: Annotated[Path, typer.Option(help="folder for compare.html, compare.json and compare.md")],
    weights: Annotated[list[Path] | None, typer.Option(help="of trackssm; repeat it; default the shipped")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="of a synthetic suite; repeat it; default three")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="synthetic scenes per seed")] = 5,
    gt: Annotated[
        Path | None, typer.Option(help="compare on this conversion, with --detections, or on this MOT folder")
    ] = None,
    detections: Annotated[Path | None, typer.Option(help="Parquet by image token, or MOT text files")] = None,
    split: Annotated[str, typer.Option(help="of the synthetic scenes' names, or of --gt")] = "val",
    trackers: Annotated[bool, typer.Option("--trackers", help="also SORT and ByteTrack of the package `trackers`")] = (
        False
    ),
) -> None:
    """Compare motion models: same detections, same association, 12 and 2 Hz, gaps of 5 and 10 frames."""
    from data_jobs.nuscenes import compare as job
    from data_jobs.nuscenes.compare_page import page
    from models.trackssm.pretrained import PRETRAINED

    if gt is None and detections is not None:
        raise RunError("--detections belong to recordings: give their folder with --gt")
    files = weights or [PRETRAINED]
    rows = job.entries(files, trackers)
    if gt is None:
        seeds = seed or [202, 203, 204]
        suites = job.synthetic_suites(seeds, scenes, split)
        what = f"Synthetic, scenes per seed: {scenes}, seeds: {', '.join(map(str, seeds))}."
    else:
        suites, what = [job.recorded_suite(gt, detections, split)], f"{gt.name}, as recorded and changed."
    conditions = job.CONDITIONS if gt is None else job.AS_RECORDED
    results = job.compare(suites, rows, conditions, lambda line: out.print(line, highlight=False, soft_wrap=True))
    output.mkdir(parents=True, exist_ok=True)
    about = {"suites": what, "weights": [path.name for path in files]}
    for name, text in (("html", page(results, what)), ("json", job.as_json(results, about)),
                       ("md", job.table(results) + "\n")):  # fmt: skip
        (output / f"compare.{name}").write_text(text, encoding="utf-8")
    out.print(job.table(results), highlight=False, soft_wrap=True)


@app.command()
@plainly
def synthesize(
    output: Annotated[Path, typer.Option(help="folder for the database, truth and detections")],
    version: Version = "v1.0-synthetic",
    scenes: Annotated[int, typer.Option(help="number of scenes, under official names")] = 4,
    split: Annotated[str | None, typer.Option(help="take names from this split only")] = None,
    seed: Annotated[int, typer.Option(help="same seed, same world")] = 0,
    objects: Annotated[int, typer.Option(help="objects per scene")] = 60,
    samples: Annotated[int | None, typer.Option(help="keyframes over all scenes; default 40 per scene")] = None,
    straight: Annotated[bool, typer.Option(help="the ego drives straight instead of turning")] = False,
    truth: Annotated[bool, typer.Option(help="also write truth.parquet and detections.parquet")] = True,
) -> None:
    """Make a nuScenes database whose truth is known."""
    from data_jobs.nuscenes.synthetic import scene_pool, write_database
    from data_jobs.nuscenes.synthetic_world import WorldSpec

    spec = WorldSpec(objects=objects, ego_yaw_rate_rad_s=0.0) if straight else WorldSpec(objects=objects)
    write_database(output, version, spec, seed, scene_pool(scenes, split), samples, truth)
    out.print(f"{scenes} scenes: {output / version}", highlight=False, soft_wrap=True)


# --- tables on the screen
# -----------------------------------------------------------------------------------------


def print_stats(stats: dict[str, Any]) -> None:
    """Sums per split."""
    names = ("scenes", "frames", "boxes", "void_boxes", "camera_tracks", "keyframe_share_of_frames")
    titles = (name.replace("keyframe_share_of_frames", "keyframes").replace("_", " ") for name in names)
    table = Table("split", *titles, box=None)
    for split, total in stats["splits"].items():
        table.add_row(split, *(str(total[name]) for name in names))
    out.print(table)


METRICS = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "CLR_TP", "CLR_FN", "CLR_FP")


def print_scores(report: dict[str, Any]) -> None:
    """Per class, averaged, per camera and joint."""
    table = Table(report["tracker"], *METRICS, box=None)
    for name, ratios in report["cameras"]["per_class"].items():
        table.add_row(name, *cells(ratios))
    for kind in ("class_averaged", "detection_averaged"):
        table.add_row(kind.replace("_", " "), *cells(report["cameras"][kind]))
    for camera, block in report["per_camera"].items():
        table.add_row(f"{camera} (class averaged)", *cells(block["class_averaged"]))
    table.add_row("joint, six cameras (class averaged)", *cells(report["joint"]["class_averaged"]))
    table.add_row("joint, six cameras (detection averaged)", *cells(report["joint"]["detection_averaged"]))
    out.print(table)


def print_comparison(reports: list[dict[str, Any]]) -> None:
    """One line per tracker, class averaged."""
    table = Table("class averaged", *METRICS, box=None)
    for report in reports:
        table.add_row(report["tracker"], *cells(report["cameras"]["class_averaged"]))
        table.add_row(f"{report['tracker']}, joint", *cells(report["joint"]["class_averaged"]))
    out.print(table)


def cells(ratios: dict[str, float]) -> list[str]:
    """Percent with one decimal, counts as they are, a dash where there is nothing to score."""
    return [
        "–" if name not in ratios else f"{100 * ratios[name]:.1f}" if name in METRICS[:5] else str(int(ratios[name]))
        for name in METRICS
    ]


if __name__ == "__main__":
    sys.exit(app())
