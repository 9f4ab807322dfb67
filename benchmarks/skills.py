"""Both networks of the SO-101 that ship, judged whole: `python -m benchmarks.skills`.

In: the shipped weights. Out: benchmarks/results/skills.json, and made of it the tables of docs/skills.md. Segmentation
on held-out frames, the lift with its rivals, the lift under what a real arm meets, and the time from a frame to an
action. Every part is written when it is done; `--missing` measures only what is not on record for these weights and
counts, `--only` only parts whose name holds these words. Success is counted, never return.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.__main__ import RESULTS, ROOT, with_table
from benchmarks.paired import machine
from benchmarks.robot_decide import loaded, milliseconds, road, scenes
from models.shipped import SO101_POLICY, SO101_SEGMENTER
from robot.contract import load_contract
from train_jobs.so101_policy import evaluate as lift
from train_jobs.so101_seg import evaluate as seg

FILE, PAGE = RESULTS / "skills.json", ROOT / "docs" / "skills.md"
BEGIN = "<!-- measured by `python -m benchmarks.skills` -->"
CONTRACT = "so101_lift"
TRIAL = lift.Trial("policy", CONTRACT, SO101_POLICY, SO101_SEGMENTER)
SEGMENTATION, LIFT, SWEEP, STEP = "segmentation", "lift: ", "sweep: ", "step"
STEP_SIZES_PX = ((640, 480), (160, 120))


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement of so many frames or episodes with these weights."""

    count: int
    weights: tuple[Path, ...]
    measure: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is measured."""

    frames: int
    episodes: int
    rivals: int
    swept: int
    steps: int


def parts(counts: Counts, workers: int | None) -> dict[str, Part]:
    """Everything that is measured, by name."""
    seen, both = (SO101_SEGMENTER,), (SO101_SEGMENTER, SO101_POLICY)
    found = {
        SEGMENTATION: Part(counts.frames, seen, lambda: seg.evaluate(SO101_SEGMENTER, counts.frames, workers=workers)),
        LIFT + "policy": _lifting(TRIAL, counts.episodes, both, workers),
        LIFT + "policy on true classes": _lifting(
            replace(TRIAL, contender="policy on true classes"), counts.rivals, (SO101_POLICY,), workers
        ),
        LIFT + "expert": _lifting(replace(TRIAL, contender="expert"), counts.rivals, (), workers),
        LIFT + "random": _lifting(replace(TRIAL, contender="random"), counts.rivals, (), workers),
    }
    for name, trial in lift.sweeps(TRIAL).items():
        if trial != TRIAL:
            found[SWEEP + name] = _lifting(trial, counts.swept, both, workers)
    return found | {STEP: Part(counts.steps, both, lambda: step_ms(counts.steps))}


def _lifting(trial: lift.Trial, episodes: int, weights: tuple[Path, ...], workers: int | None) -> Part:
    return Part(episodes, weights, lambda: _played(trial, episodes, workers))


def _played(trial: lift.Trial, episodes: int, workers: int | None) -> list[dict[str, Any]]:
    return rows(lift.judge(trial, episodes, workers), grouped=trial == TRIAL)


def rows(results: list[lift.Result], *, grouped: bool) -> list[dict[str, Any]]:
    """One row, and if `grouped` one more per start distance and light."""
    groups = {"": results} | (lift.groups(results) if grouped else {})
    return [
        {"who": who, "won": sum(r.success for r in some), "of": len(some), "seconds": lift.times_to_success(some)}
        for who, some in groups.items()
    ]


def step_ms(frames: int) -> dict[str, dict[str, float]]:
    """Milliseconds from a frame to an action by size of the camera's picture; depth comes with the frame."""
    policy, network = loaded(SO101_POLICY, SO101_SEGMENTER)
    work, told = road(load_contract(CONTRACT), network, policy), {}
    for width_px, height_px in STEP_SIZES_PX:
        times = milliseconds(work, scenes(8, (height_px, width_px)), frames)
        p50, p99 = np.percentile(times[:, 0], (50, 99))
        told[f"{width_px} × {height_px}"] = {"p50": p50, "p99": p99, "processor p50": float(np.median(times[:, 1]))}
    return told


def fingerprints(weights: tuple[Path, ...]) -> dict[str, str]:
    """sha256 by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}


def recorded() -> dict[str, Any]:
    """What was measured so far, by part."""
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.is_file() else {}


def tables(told: dict[str, Any]) -> str:
    """The page's tables."""
    return "\n".join([*_segmentation(told), "", *_lift(told), "", *_sweep(told), "", *_step(told), ""])


def _segmentation(told: dict[str, Any]) -> list[str]:
    found = told[SEGMENTATION]["found"]
    names = {"640x480": "at 640 × 480", "84x84": "at 84 × 84"}
    names["84x84 most frequent class per pixel"] = "baseline at 84 × 84"
    classes = [name for name in found["640x480"] if name != "mIoU"]
    heads = " | ".join(name.replace("_", " ") for name in classes)
    return [
        f"| IoU, {told[SEGMENTATION]['count']} frames | mean | {heads} |",
        "|---|" + "---|" * (len(classes) + 1),
        *(f"| {names[at]} | " + " | ".join(f"{found[at][c]:.3f}" for c in ("mIoU", *classes)) + " |" for at in names),
    ]


def _lift(told: dict[str, Any]) -> list[str]:
    lines = ["| who | success | time to success |", "|---|---|---|"]
    for contender in lift.CONTENDERS:
        for row in told[LIFT + contender]["found"]:
            lines.append(_line(f"· {row['who']}" if row["who"] else contender, row))
    return lines


def _sweep(told: dict[str, Any]) -> list[str]:
    lines = ["| the policy under | success | time to success |", "|---|---|---|"]
    return lines + [_line(name.removeprefix(SWEEP), told[name]["found"][0]) for name in told if name.startswith(SWEEP)]


def _line(who: str, row: dict[str, Any]) -> str:
    times = "{:.1f} s, 90 % within {:.1f} s".format(*row["seconds"]) if row["seconds"] else "none succeeded"
    return f"| {who} | {lift.share_of(row['won'], row['of'])} | {times} |"


def _step(told: dict[str, Any]) -> list[str]:
    on, found = told[STEP]["machine"], told[STEP]["found"]
    where = f"{on['cores']} cores, one torch thread, load {on['load']}"
    head = f"| frame to action, {where} | p50 ms | p99 ms | processor p50 ms |"
    rows = (
        f"| camera {size} | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |"
        for size, row in found.items()
    )
    return [head, "|---|---|---|---|", *rows]


def main(
    frames: Annotated[int, typer.Option(min=1, help="held-out ones")] = 2000,
    episodes: Annotated[int, typer.Option(min=1, help="of the policy")] = 1000,
    rivals: Annotated[int, typer.Option(min=1, help="the first of these, of each rival")] = 300,
    swept: Annotated[int, typer.Option(min=1, help="the first of these, of each condition")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="frames that are timed")] = 300,
    only: Annotated[str, typer.Option(help="parts whose name holds these words")] = "",
    missing: Annotated[bool, typer.Option("--missing", help="only what is not on record for these weights")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="0: in this process; default: all cores")] = None,
) -> None:
    """Judge the shipped weights and write what was found."""
    wanted = parts(Counts(frames, episodes, rivals, swept, steps), workers)
    for name, part in wanted.items():
        about = {"count": part.count, "weights": fingerprints(part.weights)}
        known = recorded().get(name, {})
        if only not in name or (missing and about.items() <= known.items()):
            continue
        on = machine()
        told = recorded() | {name: {**about, "machine": on, "found": part.measure()}}
        FILE.write_text(json.dumps({n: told[n] for n in wanted if n in told}, indent=1) + "\n", encoding="utf-8")
        typer.echo(f"{name}: {json.dumps(told[name]['found'])}")
    if recorded().keys() >= wanted.keys():
        PAGE.write_text(with_table(PAGE, tables(recorded()), BEGIN), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
