"""MobileSAM on the CPU: milliseconds per picture and per prompt, against timm's and transformers' classes as
they come.

    python -m benchmarks.mobile_sam_speed [--threads 1] [--rounds 5]

Same weights, same 1280×720 picture, same process, rounds interleaved so that a busy machine is busy for both;
the best round of each counts. Prints the ratio, and how far the two embeddings are apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

from models import weights
from models.mobile_sam.geometry import prepare
from models.mobile_sam.network import MobileSam, load_mobile_sam


def best_ms(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The fastest of `rounds` interleaved runs of each, after one untimed run."""
    times_s: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn:
                times_s[name].append(time.perf_counter() - start)
    return {name: 1e3 * min(values) for name, values in times_s.items()}


def plain_decoder(model: MobileSam) -> SamMaskDecoder:
    """transformers' mask decoder in its own default settings, with the same weights."""
    decoder = SamMaskDecoder(SamMaskDecoderConfig(layer_norm_eps=1e-5)).eval()
    decoder.load_state_dict(model.masks.state_dict())
    return decoder


def main(threads: int = 1, rounds: int = 5) -> None:
    """Measure and print."""
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

        encode = best_ms(
            {
                "plain": lambda: model.encoder(square),
                "ours": lambda: model.encode(square, fit.resized_height),
            },
            rounds,
        )
        prompt = best_ms(
            {"plain": plain_prompt, "ours": lambda: model.decode(embedding, box=box, several=False)}, 4 * rounds
        )
    resize = best_ms({"ours": lambda: prepare(picture)}, 4 * rounds)["ours"]
    table = Table("step", "plain, ms", "ours, ms", "ratio", title=f"MobileSAM, 1280×720, {threads} thread(s)")
    for name, ms in (("encode", encode), ("prompt", prompt)):
        table.add_row(name, f"{ms['plain']:.0f}", f"{ms['ours']:.0f}", f"{ms['plain'] / ms['ours']:.2f}")
    table.add_row("prepare", "", f"{resize:.0f}", "")
    console = Console()
    console.print(table)
    console.print(f"embeddings differ by at most {apart:.1e}")


if __name__ == "__main__":
    typer.run(main)
