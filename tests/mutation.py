"""Would the tests notice? Changes the core one place at a time and counts how many changes some test refuses.

    python -m tests.mutation [--per-file 20] [--seed 0] [FILE …]

In: the files of CORE and the tests that stand for them. Out: a table of killed and surviving mutants, and where the
survivors are. Each mutant lives in a copy of the tree; the working tree is never touched. Not part of `make test`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
# What must not be wrong → the tests that say so, the quickest first.
CORE = {
    "data_jobs/runs/ledger.py": ["tests/data_jobs/runs/test_ledger.py", "tests/data_jobs/runs/test_guard.py"],
    "data_jobs/runs/store.py": ["tests/data_jobs/runs/test_committer.py", "tests/e2e/test_egoworld_machinery.py"],
    "robot/safety.py": ["tests/robot/test_safety.py"],
    "robot/cartesian.py": ["tests/robot/test_cartesian.py"],
    "data_jobs/nuscenes/geometry.py": ["tests/data_jobs/nuscenes/test_geometry.py"],
}
TIMEOUT_S = 300.0
COPIED = ("models", "actors", "data_jobs", "robot", "serve", "train_jobs", "configs", "tests", "pyproject.toml")

COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """What could be wrong at this node: a description, and the change."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = COMPARE[type(operator)]
            yield f"{type(operator).__name__} → {other.__name__}", lambda i=i, o=other: node.ops.__setitem__(i, o())
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        other = ARITHMETIC[type(node.op)]
        yield f"{type(node.op).__name__} → {other.__name__}", lambda: setattr(node, "op", other())
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} → {other.__name__}", lambda: setattr(node, "op", other())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"without {type(node.op).__name__}", lambda: setattr(node, "op", ast.UAdd())
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "condition → its opposite", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} → {node.value + 1}", lambda: setattr(node, "value", node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "returns None", lambda: setattr(node, "value", ast.Constant(None))


def places(tree: ast.Module) -> list[tuple[int, int]]:
    """Every possible change: (number of the node in a walk, number of the change there), annotations left alone."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if part := getattr(node, field, None):
                skipped |= {id(inner) for inner in ast.walk(part)}
    nodes = enumerate(ast.walk(tree))
    return [(n, i) for n, node in nodes if id(node) not in skipped for i, _ in enumerate(_changes(node))]


def mutant(tree: ast.Module, place: tuple[int, int]) -> tuple[str, str]:
    """Source with one change, and what was changed where."""
    changed = copy.deepcopy(tree)
    node = list(ast.walk(changed))[place[0]]
    description, apply = list(_changes(node))[place[1]]
    apply()
    return ast.unparse(ast.fix_missing_locations(changed)), f"line {getattr(node, 'lineno', '?')}: {description}"


def survives(folder: Path, tests: list[str]) -> bool:
    """Whether every test passes in this copy of the tree."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not gpu",
        *tests,
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def check(console: Console, file: str, per_file: int, dice: random.Random) -> tuple[int, int]:
    """Killed and made mutants of one file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    every = places(tree)
    chosen = dice.sample(every, min(per_file, len(every)))
    killed = 0
    with tempfile.TemporaryDirectory() as above:
        place = Path(above) / "tree"
        place.mkdir()
        for name in COPIED:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place / name)
        (Path(above) / "shared").symlink_to(ROOT.parent / "shared")  # tests whose material lies beside the tree
        assert survives(place, CORE[file]), f"the tests of {file} fail without any change"
        for where in chosen:
            source, description = mutant(tree, where)
            (place / file).write_text(source, encoding="utf-8")
            alive = survives(place, CORE[file])
            killed += not alive
            if alive:
                console.print(f"survived: {file} {description}", markup=False)
    return killed, len(chosen)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", choices=[*CORE, []], default=[])
    parser.add_argument("--per-file", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    console.print("| file | mutants | killed |\n|---|---|---|")
    for file in arguments.files or CORE:
        killed, made = check(console, file, arguments.per_file, random.Random(arguments.seed))
        console.print(f"| {file} | {made} | {killed} ({100 * killed / made:.0f} %) |", markup=False)


if __name__ == "__main__":
    main()
