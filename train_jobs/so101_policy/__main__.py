"""The command line: train, export, evaluate, sweep, video. `python -m train_jobs.so101_policy --help`.

Exit codes: 0 done; 1 refused, one sentence on standard error; 2 wrong usage. The same command again resumes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from models.shipped import SO101_POLICY, SO101_SEGMENTER
from train_jobs.command import plainly
from train_jobs.settings import CONFIGS

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Policy = Annotated[Path, typer.Option(help="weights of the policy")]
Contract = Annotated[str, typer.Option(help="configs/contracts/NAME")]
Episodes = Annotated[int, typer.Option(min=1)]
Workers = Annotated[int | None, typer.Option(min=0, help="0: in this process; default: all cores, through Ray")]
Segmenter = Annotated[Path, typer.Option(help="weights of the segmentation network")]


@app.callback()
def main() -> None:
    """Lift policy of the SO-101, cloned from an expert that sees the truth."""


@app.command()
def train(
    output: Annotated[Path, typer.Option(help="the same folder resumes")],
    segmenter: Segmenter = SO101_SEGMENTER,
    config: Annotated[Path, typer.Option()] = CONFIGS / "so101_policy.yaml",
    contract: Annotated[str, typer.Option()] = "so101_lift",
    workers: Annotated[int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process")] = 0,
    gpu: Annotated[bool, typer.Option("--gpu", help="one GPU per worker")] = False,
) -> None:
    """Collect and train, round after round."""

    def work() -> dict[str, Any]:
        from train_jobs.settings import read_settings
        from train_jobs.so101_policy.dagger import train
        from train_jobs.so101_policy.trainer import PolicySettings

        return train(read_settings(config, PolicySettings, {}), contract, segmenter, output, workers=workers, gpu=gpu)

    typer.echo(", ".join(f"{name} {value:.4g}" for name, value in plainly(work).items()))


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="an --output of `train`")],
    number: Annotated[int, typer.Option("--round", min=0, help="the last trained one, not the best scoring")],
    to: Annotated[Path, typer.Option(help="a .safetensors file")],
    contract: Annotated[str, typer.Option()] = "so101_lift",
) -> None:
    """Write the policy as it is shipped."""

    def work() -> None:
        from train_jobs.so101_policy.dagger import export as write

        write(contract, output, number, to)

    plainly(work)


@app.command()
def evaluate(
    policy: Policy = SO101_POLICY,
    segmenter: Segmenter = SO101_SEGMENTER,
    contract: Contract = "so101_lift",
    episodes: Episodes = 1000,
    workers: Workers = None,
    only: Annotated[str, typer.Option(help="one contender: policy, policy on true classes, expert or random")] = "",
) -> None:
    """Success with its interval, time, by distance and light; rivals on the same episodes."""

    from train_jobs.so101_policy.evaluate import CONTENDERS, Trial, groups, judge, seconds, share

    def work() -> None:
        for contender in CONTENDERS:
            if only in ("", contender):
                results = judge(Trial(contender, contract, policy, segmenter), episodes, workers)
                typer.echo(f"| {contender} | {share(results)} | {seconds(results)} |")
                if contender == "policy":
                    for name, part in groups(results).items():
                        typer.echo(f"| · {name} | {share(part)} | {seconds(part)} |")

    if only and only not in CONTENDERS:
        raise typer.BadParameter(f"{only!r} is none of {', '.join(CONTENDERS)}")
    plainly(work)


@app.command()
def sweep(
    policy: Policy = SO101_POLICY,
    segmenter: Segmenter = SO101_SEGMENTER,
    contract: Contract = "so101_lift",
    episodes: Episodes = 200,
    workers: Workers = None,
    only: Annotated[str, typer.Option(help="conditions whose name holds these words")] = "",
) -> None:
    """Success under latency, other rates, a shaking camera, noisy depth, other looks, and a wrong class map."""

    def work() -> None:
        from train_jobs.so101_policy.evaluate import Trial, judge, seconds, share, sweeps

        for name, trial in sweeps(Trial("policy", contract, policy, segmenter)).items():
            if only in name:
                results = judge(trial, episodes, workers)
                typer.echo(f"| {name} | {share(results)} | {seconds(results)} |")

    plainly(work)


@app.command()
def video(
    policy: Policy = SO101_POLICY,
    segmenter: Segmenter = SO101_SEGMENTER,
    contract: Contract = "so101_lift",
    first: Annotated[int, typer.Option(min=0, help="number of the first episode; they are not chosen")] = 0,
    episodes: Episodes = 4,
    to: Annotated[Path, typer.Option()] = Path("docs/figures/so101_lift.gif"),
) -> None:
    """A film of the first episodes that are judged, as they come."""

    def work() -> list[bool]:
        from train_jobs.so101_policy.evaluate import Trial
        from train_jobs.so101_policy.film import film

        return film(Trial("policy", contract, policy, segmenter), range(first, first + episodes), to)

    outcomes = plainly(work)
    typer.echo(f"{sum(outcomes)} of {len(outcomes)} lifted · {to}")


if __name__ == "__main__":
    sys.exit(app())
