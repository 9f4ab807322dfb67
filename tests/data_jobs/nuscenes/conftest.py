"""Fixtures of the nuScenes tests: small synthetic databases made on the spot, whole and damaged."""

import json
import shutil
from pathlib import Path

import pytest

from data_jobs.nuscenes.convert import ConvertRequest, convert
from data_jobs.nuscenes.scene_index import open_index
from data_jobs.nuscenes.synthetic import write_database
from data_jobs.nuscenes.synthetic_world import WorldSpec
from data_jobs.nuscenes.tables import open_tables

VERSION = "v1.0-synthetic"
SCENES = ["scene-0001", "scene-0003"]  # one of train, one of val


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """Two scenes of 6 s with truth and detections. Read only."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_database(folder, VERSION, WorldSpec(seconds=6, objects=40), 3, SCENES)
    return folder


@pytest.fixture(scope="session")
def index(database, tmp_path_factory):
    return open_index(open_tables(database, VERSION, tmp_path_factory.mktemp("cache")))


def request_for(database: Path, output: Path, **changes) -> ConvertRequest:
    values = {
        "dataroot": database, "version": VERSION, "output": output, "cache": output.parent / "cache", "split": None,
        "rate": "native", "interpolation": "native", "engine": "local", "workers": 1,
    }  # fmt: skip
    return ConvertRequest(**values | changes)


@pytest.fixture(scope="session")
def requests():
    return request_for


@pytest.fixture(scope="session")
def converted(database, tmp_path_factory) -> Path:
    """The database, converted natively. Read only."""
    output = tmp_path_factory.mktemp("converted") / "out"
    assert convert(request_for(database, output)).proof.holds
    return output


class Damaged:
    """A private copy of the database whose tables can be edited."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def edit(self, table: str, change) -> None:
        path = self.root / VERSION / f"{table}.json"
        rows = json.loads(path.read_text())
        change(rows)
        path.write_text(json.dumps(rows))


@pytest.fixture
def damaged(database, tmp_path) -> Damaged:
    shutil.copytree(database / VERSION, tmp_path / "data" / VERSION)
    return Damaged(tmp_path / "data")
