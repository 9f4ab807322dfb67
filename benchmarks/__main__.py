"""All side-by-side measurements in one run: `python -m benchmarks [NAME …]`, or `make bench`.

In: names of SUITE, all of them when none is given. Out: benchmarks/results/NAME.json, and made of these the table in
docs/measured.md and the short one in the README. Each is measured in a process of its own; one that fails leaves its
old result, and the exit code says so.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.paired import HEADER, Comparison, Fact, brief, machine, row

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
PAGE, README = ROOT / "docs" / "measured.md", ROOT / "README.md"
BEGIN, END = "<!-- measured by `make bench` -->", "<!-- end of what was measured -->"

# Name → module with `comparisons()`, which yields Comparisons and Facts. The order of the table.
SUITE = {
    "demo": "benchmarks.demo_speed",
    "hands": "benchmarks.hands_parity",
    "bounds": "benchmarks.egoworld_bounds",
    "clip_reader": "benchmarks.clip_reader",
    "mobile_sam": "benchmarks.mobile_sam_speed",
    "proposals": "benchmarks.tracker_proposals",
    "following": "benchmarks.tracker_memory",
    "trackssm": "benchmarks.trackssm_speed",
    "manipulation_speed": "benchmarks.manipulation_speed",
    "retargeting": "benchmarks.retargeting",
    "serve": "benchmarks.serve_latency",
    "robot": "benchmarks.robot_loop",
}
# What the README shows: the first finding of each.
BRIEF = ("demo", "hands", "bounds", "clip_reader", "mobile_sam", "proposals", "retargeting")


def keep(
    path: Path, measure: Callable[[], Iterable[Comparison | Fact]], about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Measure here and write the result, with what else is known `about` the machine."""
    before = machine() | dict(about or {})
    told = [each.as_json() for each in measure()]
    result = {"machine": before, "load_after": machine()["load"], "comparisons": told}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def read(path: Path) -> dict[str, Any]:
    """A result, empty when there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def results() -> dict[str, dict[str, Any]]:
    """Every result there is, in the order of the suite."""
    found = {name: read(RESULTS / f"{name}.json") for name in SUITE}
    return {name: result for name, result in found.items() if result.get("comparisons")}


def section(name: str, result: dict[str, Any]) -> list[str]:
    """Lines of one result's table."""
    told = result["machine"]
    when = f"{told['date']}, {told['cores']} cores, load {told['load']} before and {result['load_after']} after"
    return [f"**{name}** ({when})", "", HEADER, *map(row, result["comparisons"]), ""]


def table() -> str:
    """The page's table: every finding."""
    return "\n".join(line for name, result in results().items() for line in section(name, result))


def brief_table() -> str:
    """The README's table."""
    found = {name: result for name, result in results().items() if name in BRIEF}
    dates = sorted({result["machine"]["date"] for result in found.values()})
    cores = max((result["machine"]["cores"] for result in found.values()), default=0)
    header = f"| measured on {cores} CPU cores, {' to '.join(dates[:: max(1, len(dates) - 1)])} | | by |\n|---|---|---|"
    return "\n".join([header, *(brief(result["comparisons"][0]) for result in found.values()), ""])


def with_table(path: Path, table: str, begin: str = BEGIN) -> str:
    """The file's text with this table between the marks. Raises ValueError where they are missing."""
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    if not found or END not in rest:
        raise ValueError(f"{path} has no `{begin}` with its end")
    return f"{before}{begin}\n\n{table}\n{END}{rest.partition(END)[2]}"


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(SUITE)}")] = None,
    only: Annotated[str, typer.Option("--alone", hidden=True)] = "",
) -> None:
    """Run them."""
    if only:
        keep(RESULTS / f"{only}.json", importlib.import_module(SUITE[only]).comparisons)
        return
    console, failed = Console(), []
    if unknown := sorted(set(names or []) - set(SUITE)):
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; choose from {', '.join(SUITE)}")
    for name in names or SUITE:
        console.print(f"== {name}")
        if subprocess.run([sys.executable, "-m", "benchmarks", "--alone", name], cwd=ROOT, check=False).returncode:
            failed.append(name)
    PAGE.write_text(with_table(PAGE, table()), encoding="utf-8")
    README.write_text(with_table(README, brief_table()), encoding="utf-8")
    console.print(table(), markup=False, soft_wrap=True)
    if failed:
        console.print(f"failed: {', '.join(failed)}; their older results stand")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
