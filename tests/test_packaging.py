"""The wheel and the source archive hold everything that is needed to run, built from a copy of the working tree."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from robot.rendering import APT_INSTALL

ROOT = Path(__file__).resolve().parents[1]
BUILD = (
    "from setuptools import build_meta; print(build_meta.build_wheel('dist')); print(build_meta.build_sdist('dist'))"
)
NOT_PART = {"out", "build", "dist", "__pycache__"}
HIDDEN_PARTS = {".ci", ".dockerignore", ".gitignore", ".pre-commit-config.yaml"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and source archive of this tree, and the names of its files."""
    place = tmp_path_factory.mktemp("build") / "tree"
    shutil.copytree(
        ROOT,
        place,
        ignore=lambda _, names: [n for n in names if n in NOT_PART or (n[0] == "." and n not in HIDDEN_PARTS)],
    )
    files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    (place / "dist").mkdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=place, check=True, capture_output=True, timeout=120)
    wheel, archive = (next((place / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return wheel, archive, files


def test_the_source_archive_is_the_repository(built):
    _, archive, files = built
    with tarfile.open(archive) as tar:
        held = {member.name.partition("/")[2] for member in tar if member.isfile()}
    assert not {name for name in files - held if not name.endswith(".pyc")}


def test_what_runs_finds_its_files_in_an_installed_wheel(built, tmp_path):
    """Unpacked beside nothing else: contracts, configs, weights' catalogue, hand models, page and report."""
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(tmp_path)
    code = (
        "from pathlib import Path; import robot.contract, models.weights; from robot.session import load_limits;"
        "assert Path(robot.contract.__file__).is_relative_to(Path.cwd()), robot.contract.__file__;"
        "robot.contract.load_contract('pick101_v19'); load_limits('sim'); models.weights.entry('mobile_sam')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    packed = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    parts = ("serve/viewer/index.html", "data_jobs/egoworld/report.html.jinja", "configs/serve_cpu.yaml")
    assert set(parts) <= packed and not any(name.startswith("tests/") for name in packed)


def test_the_image_holds_what_setup_installs_and_copies_only_what_is_there():
    words = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").split("\n")
    installed = next(line for line in words if line.startswith("RUN apt-get"))
    assert set(APT_INSTALL[4:]) <= set(installed.split())
    sources = [word for line in words if line.startswith("COPY") for word in line.split()[1:-1] if word[0] != "-"]
    configs = [word for line in words if line.startswith("CMD") for word in json.loads(line[4:])]
    assert sources and configs
    assert all((ROOT / source).exists() for source in [*sources, *configs])


# Whatever would leave this machine: a name to resolve, an address to connect to. Unix sockets have paths, not hosts.
WATCH = """
import importlib, sys
asked, here = [], ("127.0.0.1", "::1", "localhost", "", None)
def watch(event, told):
    if event in ("socket.getaddrinfo", "socket.gethostbyname") and told[0] not in here:
        asked.append((event, told))
    if event == "socket.connect" and isinstance(told[1], tuple) and told[1][0] not in here:
        asked.append((event, told))
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not asked, asked
"""


@pytest.mark.slow  # a minute of importing
@pytest.mark.timeout(1800)
def test_importing_anything_of_ours_opens_no_connection():
    folders = ("models", "actors", "data_jobs", "robot", "serve", "train_jobs")
    files = [path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    names = [path.with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__") for path in files]
    assert len(names) > 200
    subprocess.run([sys.executable, "-c", WATCH, *names], cwd=ROOT, check=True, timeout=1500)
