"""Command line of the tracker: `python -m actors.tracker templates | calibrate | run | chart`.

In: options. Out: a bank file, or a film with the states beside it; exit code 0, or 2 with one sentence when something
cannot be done. Headless: works over SSH.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from actors.tracker.banks import Bank, make_bank, read_bank, write_bank
from actors.tracker.cutting import cut_view
from actors.tracker.errors import BankUnusable, TrackerError
from actors.tracker.film import Film
from actors.tracker.flow import FlowBackend
from actors.tracker.folders import read_folder, write_folder
from actors.tracker.machine import mermaid
from actors.tracker.mesh import View, read_mesh, render_views
from actors.tracker.records import TrackState
from actors.tracker.search import Searcher
from actors.tracker.sources import Frames, open_source
from actors.tracker.tracker import Tracker
from actors.tracker.video import Sam2Backend
from actors.tracker.work import Desk
from models.embedding.embedder import EMBEDDED, Embedder
from models.errors import ModelError
from models.proposals import PROFILES

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Zero-shot tracker.")

EmbedderOption = Annotated[str, typer.Option(help=f"{EMBEDDED} (embedded), or DINOv2: a folder or a hub name")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")]
HalfOption = Annotated[bool, typer.Option(help="bfloat16 weights and activations")]


class ProfileName(StrEnum):
    """Of automatic masks; see models.proposals.PROFILES."""

    edge = "edge"
    gpu = "gpu"


class Unit(StrEnum):
    """Of a mesh file."""

    auto = "auto"
    mm = "mm"
    m = "m"


class Mode(StrEnum):
    """Of SAM 2's memory."""

    exact = "exact"
    robust = "robust"


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Whatever the user can mend is told in a sentence, without a traceback."""
    try:
        yield
    except (TrackerError, ModelError, ValueError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def templates(
    output: Annotated[Path, typer.Option(help="the bank file to write, e.g. out/duck.npz")],
    mesh: Annotated[Path | None, typer.Option(help="render views of a PLY, OBJ, STL or GLB file")] = None,
    folder: Annotated[Path | None, typer.Option(help="import rgb_i.png and mask_i.png (SAM-6D's form)")] = None,
    picture: Annotated[Path | None, typer.Option(help="cut the object out of a photo, with --box")] = None,
    box: Annotated[str, typer.Option(help="x0,y0,x1,y1 in pixels of --picture")] = "",
    name: Annotated[str, typer.Option(help="of the object; the file's own unless given")] = "",
    views: Annotated[int, typer.Option(help="42 or 162")] = 42,
    untextured: Annotated[bool, typer.Option(help="ignore the mesh's colours")] = False,
    unit: Annotated[Unit, typer.Option(help="of the mesh; auto takes more than 5 m for millimetres")] = Unit.auto,
    keep: Annotated[Path | None, typer.Option(help="also write the views as a folder, to look at")] = None,
    embedder: EmbedderOption = EMBEDDED,
) -> None:
    """Make a template bank from a mesh, a folder of templates, or a photo."""
    with _one_sentence():
        if sum(each is not None for each in (mesh, folder, picture)) != 1:
            raise BankUnusable("give exactly one of --mesh, --folder and --picture")
        source = mesh or folder or picture
        assert source is not None
        if mesh is not None:
            shape = read_mesh(mesh, unit.value)
            _say(f"{mesh.name}: {shape.diameter_m * 1000:.0f} mm across, {len(shape.faces)} faces; {views} views …")
            seen = list(render_views(shape, views, coloured=not untextured))
        elif folder is not None:
            seen = read_folder(folder)
        else:
            seen = [cut_view(source, box)]
        network = Embedder(embedder)
        network.load()
        bank = make_bank(name or source.stem, seen, network)
        write_bank(bank, output)
        if keep is not None:
            write_folder(seen, keep)
        _tell_bank(bank, seen, output)


def _tell_bank(bank: Bank, seen: list[View], output: Path) -> None:
    _say(f"{output}: {len(seen)} view{'s' * (len(seen) != 1)} of {bank.name!r}, compared with {bank.embedder}")
    if len(seen) == 1:
        _say("one view only: the object will be found from about that side")
    _say(f"threshold {bank.threshold:.3f} is a guess; `calibrate` it on pictures without the object")


@app.command()
def calibrate(
    bank: Annotated[Path, typer.Option(help="the bank file; its threshold is set")],
    negatives: Annotated[str, typer.Option(help="a folder or film in which the object does NOT appear")],
    frames: Annotated[int, typer.Option(help="how many pictures of it to use, evenly spread", min=1)] = 20,
    profile: Annotated[ProfileName, typer.Option(help="as in `run`")] = ProfileName.edge,
    embedder: EmbedderOption = EMBEDDED,
) -> None:
    """Set the threshold just above what pictures without the object reach."""
    with _one_sentence():
        held = read_bank(bank)
        network = Embedder(embedder)
        network.load()
        held.require(network)
        backend = FlowBackend(Desk(background=False))
        backend.load()
        searcher = Searcher(backend.decoder, network, PROFILES[profile.value])
        best = []
        for image in _spread(partial(open_source, negatives, 10.0), frames):
            scores = held.likeness(searcher.objects(image)[1])
            best.append(float(scores.max(initial=0.0)))
            _say(f"picture {len(best)}: the most similar thing reaches {best[-1]:.3f}")
        after = held.calibrated(best)
        write_bank(after, bank)
        _say(f"{bank}: threshold {held.threshold:.3f} → {after.threshold:.3f}, from {after.negatives} pictures")


def _spread(opened: Callable[[], Frames], count: int) -> Iterator[np.ndarray]:
    """`count` frames evenly over a source, or all if it has fewer."""
    total = sum(1 for _ in opened())
    wanted = {round(place) for place in np.linspace(0, total - 1, min(count, total))}
    yield from (image for number, (image, _) in enumerate(opened()) if number in wanted)


@app.command()
def run(
    templates: Annotated[list[Path], typer.Option(help="a bank file; give it again for more objects")],
    source: Annotated[str, typer.Option(help="a film, a folder of pictures, a camera's number or /dev/video0")],
    output: Annotated[Path, typer.Option(help="the film to write; the states go beside it as .jsonl")] = Path(
        "tracking_output.mp4"
    ),
    distractor: Annotated[list[Path] | None, typer.Option(help="a bank of a look-alike to be kept apart")] = None,
    profile: Annotated[ProfileName, typer.Option(help="edge: 256 points in 16s")] = ProfileName.edge,
    sam2: Annotated[
        Path | None, typer.Option(help="a SAM 2 checkpoint; MobileSAM and optical flow unless given")
    ] = None,
    architecture: Annotated[str, typer.Option(help="of the checkpoint")] = "sam2.1_hiera_tiny",
    mode: Annotated[Mode, typer.Option(help="of SAM 2's memory")] = Mode.exact,
    side: Annotated[int, typer.Option(help="SAM 2's input side in pixels")] = 1024,
    device: DeviceOption = "cpu",
    bf16: HalfOption = False,
    compiled: Annotated[bool, typer.Option("--compile", help="SAM 2's encoder: slow to start, then faster")] = False,
    embedder: EmbedderOption = EMBEDDED,
    rate: Annotated[float, typer.Option(help="Hz, for a folder, whose pictures carry no time", min=0.01)] = 10.0,
    most_frames: Annotated[int | None, typer.Option(help="stop after so many frames", min=1)] = None,
    threads: Annotated[int, typer.Option(help="of the processor, for the networks", min=1)] = 2,
) -> None:
    """Lock on to objects and follow them; Ctrl-C ends the run with whole files."""
    with _one_sentence():
        torch.set_num_threads(threads)
        banks = [read_bank(path) for path in templates]
        frames = open_source(source, rate)
        dtype = torch.bfloat16 if bf16 else torch.float32
        make_backend: Callable[[Desk], Any] = partial(FlowBackend, device=device)
        if sam2 is not None:
            where: dict[str, Any] = {"side_px": side, "device": device, "dtype": dtype, "compiled": compiled}
            backend = Sam2Backend(sam2, architecture, mode=mode.value, **where)
            make_backend = lambda _: backend  # noqa: E731
        tracker = Tracker(
            background=frames.live,
            make_backend=make_backend,
            embedder=Embedder(embedder, device=device, dtype=dtype),
            profile=PROFILES[profile.value],
            distractors=[read_bank(path) for path in distractor or ()],
        )
        tracker.load()
        for bank in banks:
            tracker.add_target(bank)
        _follow(tracker, frames, output, most_frames)


def _follow(tracker: Tracker, frames: Frames, output: Path, most_frames: int | None) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    why, count, before = "", 0, ()
    try:
        with Film(output) as film:
            try:
                for image, time_ns in islice(frames, most_frames):
                    states = tracker.step(image, time_ns)
                    film.add(image, states, time_ns)
                    count += 1
                    before = _tell_changes(before, states)
            except KeyboardInterrupt:
                why = "stopped by Ctrl-C"
    finally:
        tracker.close()
    _say(f"{output}: {count} frames; {why or frames.why_ended or 'as many frames as asked for'}")
    if not count:
        raise TrackerError(f"no frame came from the source: {frames.why_ended}")


def _tell_changes(before: tuple, states: tuple[TrackState, ...]) -> tuple:
    now = tuple((state.target, state.phase) for state in states)
    for state, last in zip(states, before or (None,) * len(states), strict=True):
        if last != (state.target, state.phase):
            _say(f"{state.time_ns / 1e9:8.2f} s  {state.target}: {state.phase.value} ({state.reason.value})")
    return now


@app.command()
def chart() -> None:
    """Print the state chart as Mermaid, from the code's own table."""
    print(mermaid())  # noqa: T201


if __name__ == "__main__":
    app()
