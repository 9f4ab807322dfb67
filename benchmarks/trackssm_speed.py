"""Time of one prediction for 1, 20 and 100 tracks on one core: our networks beside a literal loop over the steps.

    python -m benchmarks.trackssm_speed

The peer has the same weights and computes what the papers write: every block on every token, the scan's whole
(tokens × width × state) tables first and then a loop over the steps, as the reference code of mamba-ssm does without
its CUDA kernels. Both run in this process on one thread and take turns; medians of processor time, which a busy machine
distorts less than the clock. Outputs are compared before timing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.paired import Comparison, in_turns
from models.trackssm.mamba import CONV_TAPS, Mixer
from models.trackssm.network import D2MP, INPUTS
from models.trackssm.size import SIZES

TURNS = 30


def literal_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor) -> Tensor:
    """The recurrence with its tables written out, step by step."""
    forget = torch.exp(torch.einsum("bld,dn->bldn", delta, a))
    drive = torch.einsum("bld,bln,bld->bldn", delta, b, u)
    h, outputs = torch.zeros(len(u), *a.shape), []
    for t in range(u.shape[1]):
        h = forget[:, t] * h + drive[:, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
    return torch.stack(outputs, 1) + u * skip


def literal_mixer(m: Mixer, x: Tensor) -> Tensor:
    """A block's mixer on every token, its convolution as a convolution."""
    u, gate = m.in_proj(x).chunk(2, -1)
    u = F.silu(F.conv1d(u.mT, m.conv1d.weight, m.conv1d.bias, padding=CONV_TAPS - 1, groups=m.inner)[..., : x.shape[1]])
    u = u.mT
    delta, b, c = m.x_proj(u).split([m.rank, m.state, m.state], -1)
    y = literal_scan(u, F.softplus(m.dt_proj(delta)), -torch.exp(m.A_log), b, c, m.D)
    return m.out_proj(y * F.silu(gate))


def literal(network: D2MP, condition: Tensor) -> Tensor:
    """The next box by the literal loop."""
    net = network.encoder.mamba_net
    x = condition @ net.embedding.weight
    for block in net.layers:
        x = x + literal_mixer(block.mixer, block.norm(x))
    return network.ssm_decoder(condition[:, -1, :4], net.norm_f(x)[:, -1])[0][-1]


def one_by_one(network: D2MP, condition: Tensor) -> Tensor:
    """The same, a track at a time."""
    return torch.cat([literal(network, row[None]) for row in condition])


def timed(run: Callable[[], Tensor], turns: int) -> float:
    """Median milliseconds."""
    times = []
    for _ in range(turns):
        start = time.thread_time()
        run()
        times.append(1000 * (time.thread_time() - start))
    return statistics.median(times)


def comparisons() -> Iterator[Comparison]:
    """What the tracker uses, with as many tracks as a street has."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, tracks = D2MP(SIZES["small"], sigmoid=False).eval(), 20
    condition = torch.rand(tracks, 5, INPUTS)
    with torch.inference_mode():
        torch.testing.assert_close(network(condition), literal(network, condition), atol=1e-5, rtol=1e-5)
        samples = in_turns(
            lambda: timed(lambda: network(condition), 9), lambda: timed(lambda: literal(network, condition), 9)
        )
    what, command = f"TrackSSM `small`, {tracks} tracks, processor time", "python -m benchmarks trackssm"
    yield Comparison(what, "literal loop over the steps", "ms", "less", *samples, command)


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    say = sys.stdout.write
    say("| size | tracks | ours ms | literal loop, one batch ms | ratio | literal loop, track by track ms | ratio |\n")
    say("|---|---|---|---|---|---|---|\n")
    for name, size in SIZES.items():
        network = D2MP(size, sigmoid=False).eval()
        for tracks in (1, 20, 100):
            condition = torch.rand(tracks, 5, INPUTS)
            torch.testing.assert_close(network(condition), literal(network, condition), atol=1e-5, rtol=1e-5)
            rounds = [
                (
                    timed(lambda n=network, c=condition: n(c), 3),
                    timed(lambda n=network, c=condition: literal(n, c), 3),
                    timed(lambda n=network, c=condition: one_by_one(n, c), 1),
                )
                for _ in range(TURNS // 3)
            ]
            ours, batch, single = (statistics.median(column) for column in zip(*rounds, strict=True))
            say(f"| {name} | {tracks} | {ours:.1f} | {batch:.1f} | {batch / ours:.1f} | {single:.1f} ")
            say(f"| {single / ours:.1f} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
