"""MobileSAM on the CPU: milliseconds per picture and per prompt, against timm's and transformers' classes as
they come.

    python -m benchmarks.mobile_sam_speed [--threads 1] [--rounds 5]

Same weights, same 1280×720 picture, same process, rounds interleaved so that a busy machine is busy for both;
the median of each counts. Prints the ratio, and how far the two embeddings are apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

from benchmarks.paired import REPEATS, Comparison, in_turns, seconds
from models import weights
from models.mobile_sam.geometry import prepare
from models.mobile_sam.network import MobileSam, load_mobile_sam

Pairs = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of paired runs."""

    encode_ms: Pairs  # ours, plain
    prompt_ms: Pairs
    prepare_ms: float
    apart: float  # largest difference of the two embeddings


def pairs_ms(ours: Callable[[], object], plain: Callable[[], object], rounds: int) -> Pairs:
    """Milliseconds of both, in turns."""
    return in_turns(lambda: 1e3 * seconds(ours), lambda: 1e3 * seconds(plain), rounds)


def plain_decoder(model: MobileSam) -> SamMaskDecoder:
    """transformers' mask decoder in its own default settings, with the same weights."""
    decoder = SamMaskDecoder(SamMaskDecoderConfig(layer_norm_eps=1e-5)).eval()
    decoder.load_state_dict(model.masks.state_dict())
    return decoder


def measure(threads: int, rounds: int) -> Times:
    """Both encoders and both decoders on one picture."""
    torch.set_num_threads(threads)
    model = load_mobile_sam(weights.path_of("mobile_sam"))
    picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    square, fit = prepare(picture)
    box = torch.tensor([300.0, 200.0, 500.0, 400.0])
    decoder = plain_decoder(model)
    with torch.inference_mode():
        apart = float((model.encoder(square) - model.encode(square, fit.resized_height)).abs().max())
        embedding = model.encode(square, fit.resized_height)

        def plain_prompt() -> object:
            sparse, dense = model.prompts(None, None, box[None, None], None)
            return decoder(embedding, model.positions, sparse, dense, False)

        encode = pairs_ms(lambda: model.encode(square, fit.resized_height), lambda: model.encoder(square), rounds)
        prompt = pairs_ms(lambda: model.decode(embedding, box=box, several=False), plain_prompt, 4 * rounds)
    return Times(encode, prompt, median(1e3 * seconds(lambda: prepare(picture)) for _ in range(4 * rounds)), apart)


def comparisons() -> Iterator[Comparison]:
    """On one thread."""
    times = measure(threads=1, rounds=REPEATS)
    told = ("ms", "less")
    command = "python -m benchmarks mobile_sam"
    yield Comparison("MobileSAM encoder, one thread", "timm + transformers", *told, *times.encode_ms, command)
    yield Comparison("MobileSAM prompt, one thread", "transformers", *told, *times.prompt_ms, command)


def main(threads: int = 1, rounds: int = 5) -> None:
    """Measure and print."""
    times = measure(threads, rounds)
    table = Table("step", "plain, ms", "ours, ms", "ratio", title=f"MobileSAM, 1280×720, {threads} thread(s)")
    for name, (ours, plain) in (("encode", times.encode_ms), ("prompt", times.prompt_ms)):
        table.add_row(name, f"{median(plain):.0f}", f"{median(ours):.0f}", f"{median(plain) / median(ours):.2f}")
    table.add_row("prepare", "", f"{times.prepare_ms:.0f}", "")
    console = Console()
    console.print(table)
    console.print(f"embeddings differ by at most {times.apart:.1e}")


if __name__ == "__main__":
    typer.run(main)
