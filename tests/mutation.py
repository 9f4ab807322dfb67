"""Would the tests notice? Changes the core one place at a time and counts how many changes some test refuses.

    python -m tests.mutation [--per-file 25] [--seed 0] [--all] [--write] [FILE …]

In: the files of CORE and the tests that stand for them. Out: a table of killed and surviving mutants, and where the
survivors are; `--write` puts its rows into CONTRIBUTING.md. Each mutant lives in a copy of the tree; the working tree
is never mutated. The same tree and seed give the same mutants and the same examples. Not part of `make test`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
# What must not be wrong → the tests that say so (arguments of pytest), the quickest first.
CORE = {
    "data_jobs/runs/ledger.py": [
        *(f"tests/data_jobs/runs/test_ledger{what}.py" for what in ("_file", "_times", "")),
        "tests/data_jobs/runs/test_guard.py",
    ],
    "data_jobs/runs/store.py": [
        "tests/data_jobs/runs/test_store.py",
        "tests/data_jobs/runs/test_committer.py",
        *("-k", "test_store or posix"),  # a bucket is another file's business
    ],
    "robot/safety.py": [
        "tests/robot/test_safety_exact.py",
        "tests/robot/test_safety.py",
        *("-k", "not fuzzed_action"),  # ten seconds for every survivor; the rest must do
    ],
    "robot/cartesian.py": ["tests/robot/test_cartesian.py"],
    "data_jobs/nuscenes/geometry.py": ["tests/data_jobs/nuscenes/test_geometry.py"],
}
# End what loops or waits for ever. On a busy machine the clock runs on alone, and slowness must not look like a kill.
MAX_CPU_S = 300
TIMEOUT_S = 1800
# What nearly all of these tests import from elsewhere.
LOADED = (
    "hypothesis.stateful",
    "hypothesis.extra.numpy",
    "mujoco",
    "pyarrow.parquet",
    "pydantic",
    "sqlite_utils",
    "yaml",
)
COPIED = ("models", "actors", "data_jobs", "robot", "serve", "train_jobs", "configs", "tests", "pyproject.toml")

COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
# The ledger's decisions are SQL: what to look for, and what stands there instead. `=` only where it compares.
SQL = (
    (r"\bAND\b", "OR"), (r"<>", "="), (r"(?<=WHERE )(\w+)=", r"\1<>"), (r"(?<=AND )(\w+)=", r"\1<>"), (r" - ", " + "),
    (r"\bMIN\(", "MAX("), (r"\bMAX\(", "MIN("), (r"\bSUM\(", "MAX("), (r"'\w+'", "'other'"), (r"\bIGNORE\b", "REPLACE"),
    (r" ORDER BY \w+", ""), (r"\bJOIN\b", "LEFT JOIN"),
)  # fmt: skip
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
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "without USub", lambda: setattr(node, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without Not", lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "condition → its opposite", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} → {node.value + 1}", lambda: setattr(node, "value", node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "returns None", lambda: setattr(node, "value", ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"{ast.unparse(node.value.func)}() left out", lambda: setattr(node, "value", ast.Constant(None))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        for text, description in _queries(node.value):
            yield description, lambda text=text: setattr(node, "value", text)


def _queries(text: str) -> Iterator[tuple[str, str]]:
    """The SQL in `text` with one thing wrong, and what; nothing where it is no SQL."""
    if not text.startswith(("SELECT", "UPDATE", "INSERT", "DELETE")):
        return
    for pattern, other in SQL:
        for found in re.finditer(pattern, text):
            wrong = found.expand(other)
            yield text[: found.start()] + wrong + text[found.end() :], f"SQL {found[0].strip()} → {wrong.strip()}"


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
    assert ast.dump(changed) != ast.dump(tree)
    return ast.unparse(ast.fix_missing_locations(changed)), f"line {getattr(node, 'lineno', '?')}: {description}"


def refusal(folder: Path, tests: list[str]) -> str:
    """What refuses this copy of the tree: the test that fails; empty where every test passes."""
    # Forked with pytest and its like loaded: to start Python and import them anew takes longer than most tests.
    tester = multiprocessing.get_context("fork").Process(target=_test, args=(folder, tests))
    tester.start()
    tester.join()
    if tester.exitcode == 0:
        return ""
    told = re.findall(r"^(?:FAILED|ERROR) .*", (folder.parent / "told").read_text(errors="replace"), re.M)
    return told[0] if told else f"pytest ended with {tester.exitcode}"


def _test(folder: Path, tests: list[str]) -> None:
    """Run pytest in `folder` as if this process had been started there; what it says goes to a file."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in COPIED]:
        del sys.modules[name]
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(folder.parent / "compiled")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    told = os.open(folder.parent / "told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(told, stream)
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
    limits = [f"--timeout={TIMEOUT_S}", "--hypothesis-profile=mutation"]
    marks = ["-m", "not slow and not gpu and not hub and not hardware"]
    sys.exit(pytest.main(["-x", "-q", "-rfE", *plugins, *limits, *marks, *tests]))


def tree_below(above: Path) -> Path:
    """A copy of what the tests need, with their material beside it as in a checkout."""
    place = above / "tree"
    place.mkdir()
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place / name)
    (above / "shared").symlink_to(ROOT.parent / "shared")
    return place


def check(console: Console, file: str, options: argparse.Namespace) -> tuple[int, int]:
    """Killed and made mutants of one file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    every = places(tree)
    chosen = random.Random(options.seed).sample(every, min(options.per_file, len(every)))
    killed = 0
    with tempfile.TemporaryDirectory() as above:
        place = tree_below(Path(above))
        without = refusal(place, CORE[file])
        assert not without, f"the tests of {file} fail without any change: {without}"
        for number, where in enumerate(chosen, start=1):
            source, description = mutant(tree, where)
            (place / file).write_text(source, encoding="utf-8")
            # Python would take a mutant of the same second and size for the last one, which it has compiled.
            os.utime(place / file, (number, number))
            refused = refusal(place, CORE[file])
            killed += bool(refused)
            if options.all or not refused:
                console.print(f"{refused or 'survived'}: {file} {description}", markup=False)
    return killed, len(chosen)


def write_down(file: str, row: str) -> None:
    """Replace the row of `file` in CONTRIBUTING.md."""
    page = ROOT / "CONTRIBUTING.md"
    text, found = re.subn(rf"^\| {re.escape(file)} \|.*$", row, page.read_text(encoding="utf-8"), flags=re.M)
    assert found == 1, f"{page.name} has no row for {file}"
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", choices=[*CORE, []], default=[])
    parser.add_argument("--per-file", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the figures into CONTRIBUTING.md")
    parser.add_argument("--all", action="store_true", help="name the killed ones too, and the test that did it")
    arguments = parser.parse_args()
    for name in LOADED:
        importlib.import_module(name)
    console = Console(soft_wrap=True)
    console.print("| file | mutants | killed |\n|---|---|---|")
    for file in arguments.files or CORE:
        killed, made = check(console, file, arguments)
        row = f"| {file} | {made} | {killed} ({100 * killed / made:.0f} %) |"
        console.print(row, markup=False)
        if arguments.write:
            write_down(file, row)


if __name__ == "__main__":
    main()
