"""Cadence of our control loop beside LeRobot's own record loop: same simulated arm, same picture, same rate, same run.

    python -m benchmarks.robot_loop [--seconds 20] [--rate 30] [--snapshot 1_snapshot.pt --segmenter best.ckpt]

The policy is a stub (a constant command) on both sides, so that the loops are compared and not the policies. Each
cycle's start is stamped at the same place: right after the observation. One after the other, printed as a table. With
checkpoints a last row shows our loop with both networks at work in its second thread.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from actors.so101_policy import So101Policy
from actors.so101_segmenter import So101Segmenter
from benchmarks.paired import REPEATS, Comparison
from robot.contract import PolicyContract, load_contract
from robot.loop import LoopReport, TickRecord
from robot.networks import NetworkPerception, NetworkPolicy
from robot.policies import Policy, StandStill
from robot.priority import prefer_this_thread
from robot.rate import MonotonicClock
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot

Stamps = list[tuple[float, float]]  # (when a cycle had its observation, how long the cycle worked), seconds


def ours(rate_hz: float, seconds: float, networks: tuple[Path, Path] | None = None) -> tuple[Stamps, LoopReport]:
    """Our loop over the simulated arm, with the stub or with a policy and a segmenter from their checkpoints."""
    contract = load_contract("pick101_v19").model_copy(update={"rate_hz": rate_hz})
    clock = MonotonicClock()
    robot = SimRobot(SimConfig(planes=networks is not None, camera_fps=rate_hz), clock)
    policy, eyes = (StandStill(contract), None) if networks is None else load_networks(contract, *networks)
    if eyes is not None:  # whichever training run the checkpoint names: its time is measured, not what it sees
        classes = contract.image.classes.model_copy(update={"run": eyes.segmenter.run})
        contract = contract.model_copy(update={"image": contract.image.model_copy(update={"classes": classes})})
    session = Session(robot, policy, contract, load_limits("sim"), clock, eyes)
    stamps: Stamps = []

    def note(record: TickRecord) -> None:
        if record.command.state.value != "return":
            stamps.append((record.now_ns / 1e9, record.work_ns / 1e9))

    session.open()
    try:
        report = session.run(seconds, threading.Event(), [note])
    finally:
        session.close()
    return stamps, report


def load_networks(contract: PolicyContract, snapshot: Path, segmenter: Path) -> tuple[Policy, NetworkPerception]:
    """Both actors, warm."""
    policy, eyes = So101Policy(snapshot), So101Segmenter(segmenter)
    policy.load()
    eyes.load()
    eyes.warm_up()
    return NetworkPolicy(policy), NetworkPerception(eyes, None, contract.image.disparity.depth_epsilon_m)


def lerobots(rate_hz: float, seconds: float) -> Stamps:
    """LeRobot's record_loop over the same arm through its plug-in, without a dataset."""
    from lerobot.processor import make_default_processors
    from lerobot.scripts.lerobot_record import record_loop
    from lerobot.teleoperators.config import TeleoperatorConfig
    from lerobot.teleoperators.teleoperator import Teleoperator

    from robot.lerobot_sim import ReafferenceSim, ReafferenceSimConfig

    stamps: Stamps = []

    class Constant(Teleoperator):
        """Commands the first pose, and stamps every cycle."""

        config_class, name = TeleoperatorConfig, "constant"
        action_features: ClassVar[dict] = {}
        feedback_features: ClassVar[dict] = {}
        is_connected = is_calibrated = True

        def get_action(self) -> dict[str, Any]:
            stamps.append((time.monotonic(), 0.0))
            return dict(first)

        def connect(self, calibrate: bool = True) -> None: ...
        def calibrate(self) -> None: ...
        def configure(self) -> None: ...
        def send_feedback(self, feedback: dict[str, Any]) -> None: ...
        def disconnect(self) -> None: ...

    with tempfile.TemporaryDirectory() as folder:
        arm = ReafferenceSim(ReafferenceSimConfig(id="bench", calibration_dir=Path(folder), fps=round(rate_hz)))
        arm.connect()
        seen = arm.get_observation()
        first = {name: seen[name] for name in arm.action_features}
        teleop = Constant(TeleoperatorConfig(id="bench", calibration_dir=Path(folder)))
        steps = make_default_processors()
        events = {"exit_early": False}
        logging.getLogger().setLevel(logging.ERROR)
        record_loop(arm, events, round(rate_hz), *steps, teleop=teleop, control_time_s=seconds)
        arm.disconnect()
    return stamps


def figures(stamps: Stamps, rate_hz: float) -> dict[str, float]:
    """Cadence of one run; the first second, in which caches fill, is left out."""
    starts = np.array([start for start, _ in stamps])
    starts = starts[starts > starts[0] + 1.0]
    period = 1 / rate_hz
    interval_ms = np.diff(starts) * 1e3
    # Against the best-fitting absolute schedule of the wanted rate: what a camera or a policy at that rate sees.
    behind = starts - starts[0] - np.arange(len(starts)) * period
    return {
        "rate": (len(starts) - 1) / (starts[-1] - starts[0]),
        "within": float((interval_ms <= period * 1e3 + 2.0).mean() * 100),
        "jitter_p99": float(np.percentile(np.abs(interval_ms - period * 1e3), 99)),
        "worst": float(interval_ms.max()),
        "drift": float(behind[-1] * 1e3),
    }


def schedule_kept(report: LoopReport) -> str:
    """Our own figures: how late ticks were against the absolute schedule."""
    late = report.lateness
    return (
        f"{100 * late.on_time():.2f} % of {late.ticks + late.missed} ticks within their period, late p50 "
        f"{late.percentile_ms(50):.2f}, p99 {late.percentile_ms(99):.2f}, worst {late.worst_ns / 1e6:.1f} ms"
    )


def comparisons() -> Iterator[Comparison]:
    """Jitter of the cadence, both loops at our thread's priority."""
    prefer_this_thread()
    jitter = [(figures(ours(30.0, 7.0)[0], 30.0), figures(lerobots(30.0, 7.0), 30.0)) for _ in range(REPEATS)]
    mine, theirs = zip(*((a["jitter_p99"], b["jitter_p99"]) for a, b in jitter), strict=True)
    command = "python -m benchmarks robot"
    yield Comparison("control loop at 30 Hz, p99 jitter", "LeRobot's record_loop", "ms", "less", mine, theirs, command)


def main(
    seconds: Annotated[float, typer.Option(help="of each run")] = 20.0,
    rate: Annotated[float, typer.Option(help="Hz")] = 30.0,
    snapshot: Annotated[Path | None, typer.Option(help="*_snapshot.pt, with --segmenter")] = None,
    segmenter: Annotated[Path | None, typer.Option(help="best.ckpt, with --snapshot")] = None,
) -> None:
    """Run both, print the table."""
    console = Console()
    theirs = figures(lerobots(rate, seconds), rate)
    priority = prefer_this_thread()
    stamps, report = ours(rate, seconds)
    mine = figures(stamps, rate)
    kept = {"ours": schedule_kept(report)}
    level = figures(lerobots(rate, seconds), rate)  # with the priority that our loop asks for
    table = Table(title=f"{rate:g} Hz, {seconds:g} s each, simulated arm with camera, our thread {priority}")
    for column in ("loop", "rate Hz", "intervals ≤ period + 2 ms", "p99 |jitter| ms", "worst interval ms", "drift ms"):
        table.add_column(column)
    rows = {"ours": mine, "LeRobot record_loop": theirs, f"the same, thread {priority}": level}
    if snapshot is not None and segmenter is not None:
        stamps, report = ours(rate, seconds, (snapshot, segmenter))
        rows["ours with networks"] = figures(stamps, rate)
        made = "no decision came in time, the arm held"
        if report.compute_ms:
            made = f"{report.decisions} decisions of {np.median(report.compute_ms):.0f} ms (median)"
        kept["ours with networks"] = f"{schedule_kept(report)} · {made}"
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['rate']:.2f}",
            f"{row['within']:.2f} %",
            f"{row['jitter_p99']:.2f}",
            f"{row['worst']:.1f}",
            f"{row['drift']:.1f}",
        )
    console.print(table)
    for name, sentence in kept.items():
        console.print(f"{name}: {sentence}", soft_wrap=True)
    ratios = [f"{other['jitter_p99'] / mine['jitter_p99']:.1f}" for other in (theirs, level)]
    console.print(f"p99 jitter: LeRobot's is {ratios[0]} times ours, {ratios[1]} times with our thread priority")


if __name__ == "__main__":
    typer.run(main)
