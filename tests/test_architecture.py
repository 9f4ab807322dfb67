"""The house rules that a machine can check: imports, Ray and torch at the edge, cycles, sizes, headers."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("models", "actors", "data_jobs", "robot", "serve", "train_jobs")

# Folder → the folders of ours that it may import.
MAY_IMPORT = {
    "models": set(),
    "robot": set(),
    "actors": {"models"},
    "train_jobs": {"actors", "models", "robot"},
    "data_jobs": {"actors", "models"},
    "serve": {"actors", "robot"},
}

# The robot's composition root: the command line, where networks made by actors meet a loop that knows none.
COMPOSITION_ROOT = {"robot/__main__.py": {"actors", "models"}}

# Files outside serve/ and train_jobs/ that may know Ray.
MAY_KNOW_RAY = {
    "actors/spawn.py",
    "data_jobs/runs/cluster.py",
    "data_jobs/runs/engine.py",
    "data_jobs/runs/metered.py",
}
MAY_KNOW_TORCH = ("models", "actors", "train_jobs")

MOST_LINES_PER_FILE = 400
MOST_LINES_PER_FUNCTION = 60


def sources(folder: str) -> Iterator[Path]:
    yield from sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in the file, except for type checking only."""
    found = set()
    for node in ast.walk(_without_type_checking(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)} imports relatively; name the module in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return tree


def every_file() -> list[Path]:
    return [path for folder in FOLDERS for path in sources(folder)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_what_they_may(folder):
    allowed = MAY_IMPORT[folder] | {folder}
    wrong = [
        f"{name(path)} imports {module}"
        for path in sources(folder)
        for module in imports(path)
        if module.split(".")[0] in set(FOLDERS) - allowed - COMPOSITION_ROOT.get(name(path), set())
    ]
    assert not wrong


def test_jobs_do_not_know_each_other():
    jobs = sorted(
        p.name for p in (ROOT / "data_jobs").iterdir() if p.is_dir() and p.name not in ("runs", "__pycache__")
    )
    wrong = [
        f"{name(path)} imports {module}"
        for job in [*jobs, "runs"]
        for path in sources(f"data_jobs/{job}")
        for module in imports(path)
        if any(module.startswith(f"data_jobs.{other}") for other in jobs if other != job)
    ]
    assert not wrong


def test_ray_stays_at_the_edge():
    wrong = [
        name(path)
        for path in every_file()
        if any(module.split(".")[0] == "ray" for module in imports(path))
        and not name(path).startswith(("serve/", "train_jobs/"))
        and name(path) not in MAY_KNOW_RAY
    ]
    assert not wrong


def test_torch_stays_with_the_models():
    wrong = [
        name(path)
        for path in every_file()
        if any(module.split(".")[0] in ("torch", "torchvision") for module in imports(path))
        and not name(path).startswith(MAY_KNOW_TORCH)
    ]
    assert not wrong


def test_no_cycles_between_files():
    modules = {
        name(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in every_file()
    }
    graph = {
        module: {_owner(found, modules) for found in imports(path)} - {None, module} for module, path in modules.items()
    }
    assert not find_cycle(graph)


def _owner(imported: str, modules: dict[str, Path]) -> str | None:
    """The file that an imported dotted name lives in."""
    while imported:
        if imported in modules:
            return imported
        imported = imported.rpartition(".")[0]
    return None


def find_cycle(graph: dict[str, set]) -> list[str]:
    state: dict[str, int] = defaultdict(int)  # 1: on the path, 2: cleared

    def visit(node: str, path: list[str]) -> list[str]:
        state[node] = 1
        for neighbour in sorted(graph.get(node, ())):
            if state[neighbour] == 1:
                return [*path, node, neighbour]
            if state[neighbour] == 0 and (cycle := visit(neighbour, [*path, node])):
                return cycle
        state[node] = 2
        return []

    return next((cycle for node in sorted(graph) if state[node] == 0 and (cycle := visit(node, []))), [])


def test_the_cycle_finder_finds_cycles():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize("path", every_file(), ids=name)
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a file opens by placing itself"
    assert len(text.splitlines()) <= MOST_LINES_PER_FILE
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MOST_LINES_PER_FUNCTION
    ]
    assert not long


def test_importing_does_nothing_but_define():
    """No call at module level that could touch files, processes or devices."""
    harmless = {
        "frozenset",
        "set",
        "dict",
        "tuple",
        "TypeVar",
        "Path",
        "Fraction",
        "Literal",
        "namedtuple",
        "NamedTuple",
    }
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in every_file()
        if path.name != "__main__.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) not in harmless
    ]
    assert not wrong


def test_every_package_is_listed_for_installation():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"])
    code = {name(path.parent).replace("/", ".") for path in every_file()}
    data = {name(path.parent).replace("/", ".") for path in (ROOT / "configs").rglob("*.yaml")}
    assert listed == code | data
