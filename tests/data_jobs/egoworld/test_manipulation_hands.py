"""`hamer:manipulation` and `foundationpose:manipulation`: the same bytes whatever the window, rows where hands are,
none where there are none.
"""

import numpy as np
import pytest

from data_jobs.egoworld.operators.manipulation_hands import ManipulationHands, ManipulationParams
from data_jobs.egoworld.operators.manipulation_objects import ManipulationObjectParams, ManipulationObjects
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.schemas import schema_of
from tests.data_jobs.egoworld.film import clip_of, even, write_film


@pytest.fixture(scope="module", autouse=True)
def _catalogued(weights):
    for name in ("palm_detection_full", "hand_landmark_full"):
        weights(name)


def loaded(**params):
    operator = ManipulationHands(ManipulationParams(**params))
    operator.load()
    return operator


def test_hands_of_a_real_clip_lie_in_the_picture_and_do_not_depend_on_the_window(shared_dir):
    clip = clip_of(probe(str(shared_dir / "data" / "videos" / "cups.mp4"), "cups.mp4"), 120, 123)
    operator = loaded(temporal=True)
    found = operator.run(clip, {}, 2)
    assert found.schema == schema_of("hand_pose") and len(found) >= 3
    assert found.equals(operator.run(clip, {}, 3))
    single = loaded().run(clip, {}, 3)
    told = ["pose", "landmarks_px", "box"]
    assert single.drop_columns(told).equals(found.drop_columns(told)) and not single["pose"].equals(found["pose"])
    poses = np.stack(found["pose"].to_numpy(zero_copy_only=False)).reshape(-1, 21, 3)
    assert np.abs(poses.mean(axis=1)).max() < 1e-4 and np.abs(poses).max() < 0.3
    assert found["score"].to_numpy().min() >= 0 and found["score"].to_numpy().max() <= 1


def test_objects_of_a_real_clip_are_told_beside_its_hands(shared_dir):
    clip = clip_of(probe(str(shared_dir / "data" / "videos" / "cups.mp4"), "cups.mp4"), 120, 123)
    operator = ManipulationObjects(ManipulationObjectParams())
    operator.load()
    found = operator.run(clip, {}, 2)
    assert found.schema == schema_of("object_pose") and found.equals(operator.run(clip, {}, 3))
    operator.close()
    assert len(found) and set(found["object"].to_pylist()) <= {"box", "cylinder", "ball"}
    assert all(row["score"] >= 0.5 and row["flags"] == 2 for row in found.to_pylist())
    quaternions = np.array(found["pose"].to_pylist()).reshape(-1, 7)[:, 3:]
    assert np.allclose(np.linalg.norm(quaternions, axis=1), 1, atol=1e-5)


def test_a_film_without_hands_has_no_rows(tmp_path):
    write_film(tmp_path / "a.mp4", list(even(4)))
    clip = clip_of(probe(str(tmp_path / "a.mp4"), "a.mp4"), 0, 4)
    objects = ManipulationObjects(ManipulationObjectParams())
    objects.load()
    assert len(loaded().run(clip, {}, 2)) == 0 == len(objects.run(clip, {}, 2))
