"""All side-by-side measurements in one run: `python -m benchmarks [NAME …]`, or `make bench`.

In: names of SUITE, all of them when none is given. Out: benchmarks/results/NAME.json and the table in docs/measured.md.
Each is measured in a process of its own; one that fails leaves its old result, and the exit code says so.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.paired import HEADER, machine, row

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
PAGE = ROOT / "docs" / "measured.md"
BEGIN, END = "<!-- measured by `make bench` -->", "<!-- end of what was measured -->"

# Name → module with `comparisons()`. The order of the table.
SUITE = {
    "clip_reader": "benchmarks.clip_reader",
    "mobile_sam": "benchmarks.mobile_sam_speed",
    "serve": "benchmarks.serve_latency",
    "robot": "benchmarks.robot_loop",
}


def alone(name: str) -> None:
    """Measure here and write the result."""
    before = machine()
    told = [each.as_json() for each in importlib.import_module(SUITE[name]).comparisons()]
    result = {"machine": before, "load_after": machine()["load"], "comparisons": told}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def table() -> str:
    """Every result there is, in the order of the suite."""
    lines = []
    for name in SUITE:
        path = RESULTS / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            told = result["machine"]
            when = f"{told['date']}, {told['cores']} cores, load {told['load']} before and {result['load_after']} after"
            lines += [f"**{name}** ({when})", "", HEADER, *map(row, result["comparisons"]), ""]
    return "\n".join(lines)


def page() -> str:
    """docs/measured.md with the present table in it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{rest.partition(END)[2]}"


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(SUITE)}")] = None,
    only: Annotated[str, typer.Option("--alone", hidden=True)] = "",
) -> None:
    """Run them."""
    if only:
        alone(only)
        return
    console, failed = Console(), []
    if unknown := sorted(set(names or []) - set(SUITE)):
        raise typer.BadParameter(f"there is no {', '.join(unknown)}; choose from {', '.join(SUITE)}")
    for name in names or SUITE:
        console.print(f"== {name}")
        if subprocess.run([sys.executable, "-m", "benchmarks", "--alone", name], cwd=ROOT, check=False).returncode:
            failed.append(name)
    PAGE.write_text(page(), encoding="utf-8")
    console.print(table(), markup=False, soft_wrap=True)
    if failed:
        console.print(f"failed: {', '.join(failed)}; their older results stand")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
