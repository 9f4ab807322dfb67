"""`view`: a recording per clip with everything on one time line, or a plain sentence."""

import numpy as np
import pytest

from tests.e2e.egoworld import call, command, stub_config
from tests.faults.videos import write_video


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("view")
    write_video(place / "videos" / "a.mp4", 20)
    code, text = call(*command(place / "videos", stub_config(place), place))
    assert code == 0, text
    return place / "run_id=r"


def test_recordings_hold_pictures_and_hands(run, tmp_path):
    pytest.importorskip("rerun", reason="view needs the optional package rerun-sdk")
    code, text = call("view", "--run", run, "--output", tmp_path / "rrd")
    assert code == 0 and "recordings: 2" in text
    paths = sorted((tmp_path / "rrd").iterdir())
    assert [path.suffix for path in paths] == [".rrd", ".rrd"] and all(path.stat().st_size > 2000 for path in paths)
    assert paths[0].read_bytes()[:4] == b"RRF2"
    for name in (b"picture", b"left_hand", b"video"):
        assert name in paths[0].read_bytes(), name
    code, text = call("view", "--run", run, "--output", tmp_path / "rrd")
    assert code == 1 and "not an empty folder" in text


def test_poses_are_turned_the_way_the_table_says():
    rerun = pytest.importorskip("rerun", reason="view needs the optional package rerun-sdk")
    from data_jobs.egoworld.viewer import _transform

    pose = [1.0, 2.0, 3.0, np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]
    made = _transform(rerun, pose, from_parent=True)
    assert np.allclose(made.quaternion.as_arrow_array().to_pylist()[0], [0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    assert made.relation.as_arrow_array().to_pylist() == [rerun.TransformRelation.ChildFromParent.value]


def test_an_unknown_clip(run, tmp_path):
    pytest.importorskip("rerun", reason="view needs the optional package rerun-sdk")
    code, text = call("view", "--run", run, "--output", tmp_path / "rrd", "--clip", "nobody")
    assert code == 1 and "nobody is no done clip" in text
