"""The tables of docs/trackssm.md, from what `compare` measured.

    python -m data_jobs.nuscenes compare --output out/compare …
    python -m benchmarks.trackssm_table synthetic out/compare/compare.json    # keeps the scores, writes the page
    python -m benchmarks.trackssm_table                                       # writes the page from the scores kept

In: compare.json. Out: benchmarks/results/trackssm_NAME.json, only the scores that the table shows, and the page with
each table between its marks. tests/test_docs.py holds the page to the scores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from data_jobs.nuscenes.compare import METRICS, Result, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "trackssm.md"
RESULTS = Path(__file__).with_name("results")
# A table's name → the recordings it is of.
TABLES = ("synthetic", "people")
DIGITS = 6


def kept(name: str) -> Path:
    """Where the scores of a table lie."""
    return RESULTS / f"trackssm_{name}.json"


def keep(name: str, measured: Path) -> None:
    """Keep of a compare.json what the table shows."""
    whole = json.loads(measured.read_text(encoding="utf-8"))

    def short(row: dict[str, Any]) -> dict[str, Any]:
        scores = [{metric: round(score[metric], DIGITS) for metric in METRICS} for score in row["scores"]]
        return {**row, "scores": scores}

    text = json.dumps({**whole, "results": [short(row) for row in whole["results"]]}, indent=1) + "\n"
    kept(name).write_text(text, encoding="utf-8")


def made(name: str) -> str:
    """A table as Markdown."""
    rows = json.loads(kept(name).read_text(encoding="utf-8"))["results"]
    return table([Result(row["motion"], row["condition"], tuple(row["scores"])) for row in rows])


def renewed() -> str:
    """The page's text with every table made anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        begin, end = f"<!-- compared: {name} -->", f"<!-- end of what was compared: {name} -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"{PAGE} has no `{begin}` with its end")
        text = f"{before}{begin}\n\n{made(name)}\n\n{end}{rest.partition(end)[2]}"
    return text


def main(
    name: Annotated[str | None, typer.Argument(help=f"of {', '.join(TABLES)}")] = None,
    measured: Annotated[Path | None, typer.Argument(help="compare.json of that table")] = None,
) -> None:
    """Keep scores and write the page."""
    if name is not None:
        if name not in TABLES or measured is None:
            raise typer.BadParameter(f"give one of {', '.join(TABLES)} and its compare.json")
        keep(name, measured)
    PAGE.write_text(renewed(), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
