"""Command line of the control loop: `python -m robot --robot sim|so101|replay`.

In: options. Out: a run with a live panel, a recording when asked for, an exit code (0 fine, 1 replay differed,
2 refused, 3 ran but not recorded). The one file of this folder that may import `actors` and `models`: it is the
composition root, where networks from outside meet the loop (networks.py).
"""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from models.errors import ModelError
from models.shipped import SO101_POLICY, SO101_SEGMENTER
from robot import faults
from robot.arm import Arm
from robot.client import RemotePolicy
from robot.contract import PolicyContract, load_contract
from robot.errors import RecordingLost, RobotError
from robot.loop import LoopReport, Sink
from robot.networks import NetworkPerception, NetworkPolicy
from robot.panel import TerminalPanel
from robot.policies import Policy, ScriptedPick, StandStill, refuse_real_arm
from robot.priority import prefer_this_thread
from robot.rate import Clock, MonotonicClock, VirtualClock
from robot.recorder import Recorder, require_new
from robot.replay import load_episode, verify
from robot.robots import Robot
from robot.safety import DeadMan
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot
from robot.so101 import So101Config, So101Robot

console = Console()
app = typer.Typer(add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False)

# Contract and segmenter of a policy, where none are given: those that it was trained with.
DEFAULT_TERMS = {"pretrained": ("so101_lift", str(SO101_SEGMENTER))}
PRETRAINED = ("pretrained", SO101_POLICY.name)  # as a user and as a recording name it


class RobotKind(StrEnum):
    """Which arm."""

    sim = "sim"
    so101 = "so101"
    replay = "replay"


@app.callback()
def run(
    context: typer.Context,
    robot: Annotated[RobotKind, typer.Option(help="sim needs no hardware")] = RobotKind.sim,
    policy: Annotated[str, typer.Option(help="scripted, stand_still, pretrained, or a *_snapshot.pt")] = "",
    contract: Annotated[
        str, typer.Option(help="configs/contracts/NAME or a .yaml; the policy's own unless given")
    ] = "",
    server: Annotated[str, typer.Option(help="ws://HOST:PORT/PATH of a policy server, instead of --policy")] = "",
    segmenter: Annotated[str, typer.Option(help="sensor or a best.ckpt; the policy's own unless given")] = "",
    depth: Annotated[str, typer.Option(help="sensor, or depth_anything (from the model hub)")] = "sensor",
    rate: Annotated[float | None, typer.Option(help="Hz; the contract's own unless given")] = None,
    seconds: Annotated[float | None, typer.Option(help="how long; until Ctrl-C unless given")] = None,
    record: Annotated[Path | None, typer.Option(help="new folder for a LeRobotDataset v3 episode")] = None,
    dry_run: Annotated[bool, typer.Option(help="check and compute everything, command nothing")] = False,
    limits: Annotated[str, typer.Option(help="configs/robot/NAME, or a .yaml file; the robot's own unless given")] = "",
    fast: Annotated[bool, typer.Option(help="sim only: as fast as possible, deterministic")] = False,
    seed: Annotated[int, typer.Option(help="sim only: where the cube lies")] = 0,
    fault: Annotated[str, typer.Option(help=f"sim only: break after 2 s: {', '.join(faults.EXPECTED_REASON)}")] = "",
    port: Annotated[str, typer.Option(help="so101 only: serial port, see lerobot-find-port")] = "",
    calibration: Annotated[Path | None, typer.Option(help="so101 only: JSON of lerobot-calibrate")] = None,
    camera: Annotated[str, typer.Option(help="so101 only: OpenCV index or path of the wrist camera")] = "",
    use_degrees: Annotated[bool, typer.Option(help="so101 only: LeRobot's unit on the bus")] = True,
    episode: Annotated[Path | None, typer.Option(help="replay only: a folder made with --record")] = None,
) -> None:
    """Run a policy on an SO-101, simulated or real, inside safety limits."""
    if context.invoked_subcommand is not None:
        return
    options = _with_terms(dict(context.params))
    threading.excepthook = _tell_thread
    try:
        terms = load_contract(options["contract"])
        code = _replay(options) if robot is RobotKind.replay else _control(options, terms)
    except RecordingLost as error:
        console.print(f"[bold red]not recorded:[/] {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(3) from error
    except RobotError as error:
        console.print(f"[bold red]refused:[/] {error}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    raise typer.Exit(code)


def _with_terms(options: dict[str, Any]) -> dict[str, Any]:
    contract, segmenter = DEFAULT_TERMS.get(_policy_name(options), ("pick101_v19", "sensor"))
    return {**options, "contract": options["contract"] or contract, "segmenter": options["segmenter"] or segmenter}


def _tell_thread(ended: threading.ExceptHookArgs) -> None:
    """A driver's thread that fails (a camera unplugged) is one line beside the panel; the loop holds and says why."""
    name = ended.thread.name if ended.thread else "?"
    console.print(f"thread {name} ended: {ended.exc_value}", style="yellow", soft_wrap=True, highlight=False)


@app.command()
def rendering(
    install: Annotated[bool, typer.Option(help="as root, with apt, where nothing is found")] = False,
) -> None:
    """Say which OpenGL platform the simulator would render with, or what to install."""
    from robot.rendering import detect, detect_or_install

    try:
        console.print(f"the simulator renders with {detect_or_install() if install else detect()}")
    except RobotError as error:
        console.print(str(error), soft_wrap=True)
        raise typer.Exit(1) from error


def _refuse_by_arm(options: dict[str, Any]) -> None:
    """What the simulator alone may do must not reach servos: a virtual clock would send them commands without pause."""
    if options["fault"] and options["fault"] not in faults.EXPECTED_REASON:
        raise RobotError(f"unknown --fault {options['fault']!r}; choose one of {', '.join(faults.EXPECTED_REASON)}")
    if options["robot"] is RobotKind.sim:
        return
    for name in ("fast", "fault"):
        if options[name]:
            raise RobotError(f"--{name} is for the simulated arm only (--robot sim)")
    if not options["dry_run"] and not options["server"]:
        refuse_real_arm(PRETRAINED[0] if options["policy"] in PRETRAINED else options["policy"])


def _control(options: dict[str, Any], contract: PolicyContract) -> int:
    _refuse_by_arm(options)
    clock: Clock = VirtualClock() if options["fast"] else MonotonicClock()
    if options["fault"] in faults.CLOCK_FAULTS:
        clock = faults.FaultyClock(clock, options["fault"], clock.now_ns() + FAULT_AFTER_NS)
    if options["record"] is not None:
        require_new(options["record"])
    limits = load_limits(options["limits"] or options["robot"].value)
    dead_man = DeadMan(limits.dead_man_ms) if options["server"] else None
    policy = _policy(options, contract, clock, dead_man)
    session = Session(
        robot=_robot(options, clock),
        policy=policy,
        contract=contract,
        limits=limits,
        clock=clock,
        perception=_perception(options, contract),
        rate_hz=options["rate"],
        dry_run=options["dry_run"],
        dead_man=dead_man,
    )
    priority = prefer_this_thread()
    session.open()
    console.print(f"contract {contract.name} holds · policy {session.offer.name} · loop thread priority {priority}")
    try:
        _loop(session, options)
    finally:
        session.close()
    return 0


FAULT_AFTER_NS = 2_000_000_000


def _loop(session: Session, options: dict[str, Any]) -> None:
    stop = threading.Event()
    _end_on_signals(stop, session)
    recorder = _recorder(session, options, stop)
    arm = Arm()
    title = f"{options['robot'].value} · {session.contract.name} · {session.offer.name}"
    panel = TerminalPanel(console, title, session.loop.report, arm.lower_rad, arm.upper_rad)
    sinks: list[Sink] = [panel] if recorder is None else [panel, recorder]
    try:
        with panel if console.is_terminal else nullcontext():
            report = session.run(options["seconds"], stop, sinks)
        _tell(report, session)
    finally:
        if recorder is not None:
            console.print(f"saving the episode to {options['record']}", soft_wrap=True, highlight=False)
            recorder.close()


def _end_on_signals(stop: threading.Event, session: Session) -> None:
    """The first signal ends the run at rest; a second one latches the emergency stop where the arm is."""

    def end(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            session.governor.estop.press(f"second {signal.Signals(number).name}")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _robot(options: dict[str, Any], clock: Clock) -> Robot:
    if options["robot"] is RobotKind.so101:
        if not options["port"] or options["calibration"] is None:
            raise RobotError(
                "a real arm needs --port (see lerobot-find-port) and --calibration (see lerobot-calibrate)"
            )
        source = options["camera"]
        return So101Robot(
            So101Config(
                port=options["port"],
                calibration=options["calibration"],
                use_degrees=options["use_degrees"],
                camera=None if not source else int(source) if source.isdigit() else Path(source),
            ),
            clock,
        )
    looks = not _needs_no_pictures(options)
    robot: Robot = SimRobot(
        SimConfig(seed=options["seed"], camera=looks or options["record"] is not None, planes=looks), clock
    )
    if options["fault"] in faults.ROBOT_FAULTS:
        robot = faults.FaultyRobot(robot, options["fault"], clock.now_ns() + FAULT_AFTER_NS, clock)
    return robot


def _needs_no_pictures(options: dict[str, Any]) -> bool:
    return not options["server"] and _policy_name(options) in ("scripted", "stand_still")


def _policy_name(options: dict[str, Any]) -> str:
    sim_alone = options["robot"] is RobotKind.sim and not options["server"]
    return options["policy"] or ("pretrained" if sim_alone else "")


def _policy(options: dict[str, Any], contract: PolicyContract, clock: Clock, dead_man: DeadMan | None) -> Policy:
    name = _policy_name(options)
    policy: Policy
    if options["server"]:
        limits = load_limits(options["limits"] or options["robot"].value)
        heard = (lambda: dead_man.beat(clock.now_ns())) if dead_man else (lambda: None)
        policy = RemotePolicy(options["server"], contract, limits.max_action_age_ms / 1e3, heard)
    elif name in ("scripted", "stand_still"):
        policy = ScriptedPick(contract) if name == "scripted" else StandStill(contract)
    elif not name:
        raise RobotError("a real arm has no default policy; give --policy CHECKPOINT or --server URL")
    else:
        policy = NetworkPolicy(_load(PolicyLoader, SO101_POLICY if name in PRETRAINED else Path(name)))
    if options["fault"] in faults.POLICY_FAULTS:
        policy = faults.FaultyPolicy(policy, options["fault"], clock.now_ns() + FAULT_AFTER_NS, clock)
    return policy


def PolicyLoader(path: Path) -> Any:
    """The actor that owns a policy checkpoint."""
    from actors.so101_policy import So101Policy

    return So101Policy(path)


def SegmenterLoader(path: Path) -> Any:
    """The actor that owns a segmentation checkpoint."""
    from actors.so101_segmenter import So101Segmenter

    return So101Segmenter(path)


def _load(make: Any, path: Path) -> Any:
    """Make and load an actor; its own complaints become ours."""
    actor = make(path)
    try:
        actor.load()
    except (OSError, ModelError) as error:
        raise RobotError(str(error)) from error
    return actor


def _perception(options: dict[str, Any], contract: PolicyContract) -> NetworkPerception:
    segmenter = depth = None
    if options["segmenter"] != "sensor":
        segmenter = _load(SegmenterLoader, Path(options["segmenter"]))
    if options["depth"] == "depth_anything":
        from actors.depth import DepthAnything

        depth = _load(lambda _: DepthAnything(), Path())
    elif options["depth"] != "sensor":
        raise RobotError(f"unknown depth source {options['depth']!r}; choose sensor or depth_anything")
    return NetworkPerception(segmenter, depth, contract.image.disparity.depth_epsilon_m)


def _recorder(session: Session, options: dict[str, Any], stop: threading.Event) -> Recorder | None:
    if options["record"] is None:
        return None
    camera = session.robot.camera_offer()
    about = {
        "rest_rad": session.rest_rad.tolist(),
        "object_known": options["robot"] is RobotKind.sim,
        "rate_hz": options["rate"] or session.contract.rate_hz,
        "policy": session.offer.name,
        "limits": options["limits"] or options["robot"].value,
        "seed": options["seed"],
    }
    return Recorder(
        options["record"],
        session.contract,
        about["rate_hz"],
        image_shape=None if camera is None else (camera.height_px, camera.width_px, 3),
        planes=session.offer.image_channels is not None,
        task="pick up the red cube",
        about=about,
        on_failure=stop.set,
    )


def _replay(options: dict[str, Any]) -> int:
    if options["episode"] is None:
        raise RobotError("replay needs --episode FOLDER, made by an earlier run with --record")
    episode = load_episode(options["episode"])
    name = options["policy"] or episode.about["policy"]
    policy = _policy({**options, "policy": name, "server": ""}, episode.contract, VirtualClock(), None)
    verdict = verify(episode, policy, load_limits(episode.about["limits"]))
    console.print(
        f"{verdict.decisions_equal} of {verdict.decisions} decisions and {verdict.commands_equal} of "
        f"{verdict.commands} commands are the same, bit for bit"
    )
    if not verdict.same:
        console.print(verdict.first_difference, soft_wrap=True)
    return 0 if verdict.same else 1


def _tell(report: LoopReport, session: Session) -> None:
    lateness = report.lateness
    console.print(
        f"{lateness.ticks} ticks, {lateness.missed} missed, {100 * lateness.on_time():.2f} % on time · "
        f"late p50 {lateness.percentile_ms(50):.2f}, p99 {lateness.percentile_ms(99):.2f}, "
        f"worst {lateness.worst_ns / 1e6:.2f} ms · {report.decisions} decisions"
    )
    console.print(f"ticks by state {report.states}" + (f", held because {report.reasons}" if report.reasons else ""))
    if isinstance(session.robot, SimRobot):
        place_m, highest_m = session.robot.cube_position_m().round(3).tolist(), session.robot.cube_highest_m
        console.print(f"cube at {place_m} m, was {highest_m:.3f} m high", soft_wrap=True)
    if not session.at_rest:
        console.print("[bold yellow]the arm is not at rest: torque was left on, support it before cutting power[/]")


if __name__ == "__main__":
    app()
