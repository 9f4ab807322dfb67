"""`foundationpose:templates` on pictures drawn from a known mesh in known poses."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.transform import Rotation

from actors.object_pose import ObjectPoser
from actors.tracker.errors import BankUnusable
from actors.tracker.mesh import Mesh, render
from data_jobs.egoworld.operators.geometry import encode_rle
from data_jobs.egoworld.operators.template_pose import TemplateParams, TemplatePose
from data_jobs.egoworld.plan import _file_sha256
from data_jobs.egoworld.probe import probe
from data_jobs.egoworld.schemas import schema_of
from data_jobs.runs.errors import RunError
from tests.data_jobs.egoworld.film import clip_of, write_pictures

SIDE, FOCAL = 240, 400.0
CAMERA = (FOCAL, FOCAL, SIDE / 2, SIDE / 2)


@pytest.fixture(scope="module")
def mesh():
    """A block of 12 × 8 × 5 cm with a knob at one corner; every face has a colour of its own."""
    import trimesh

    block = trimesh.creation.box((0.12, 0.08, 0.05))
    knob = trimesh.creation.box((0.03, 0.03, 0.06), trimesh.transformations.translation_matrix((0.04, 0.02, 0.05)))
    vertices, faces, colours = [], [], []
    for part, shade in ((block, 1.0), (knob, 0.5)):
        for triangle, normal in zip(part.triangles, part.face_normals, strict=True):
            faces.append(np.arange(3) + len(vertices))
            vertices.extend(triangle)
            colours.extend([(0.5 + 0.4 * normal) * shade] * 3)
    return Mesh(np.array(vertices), np.array(faces), np.array(colours))


@pytest.fixture(scope="module")
def poser(mesh):
    return ObjectPoser(mesh)


def posed(turn, place):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix(), place
    return pose


@pytest.mark.parametrize(
    ("turn", "place"),
    [((20, 30, 40), (0.0, 0.0, 0.5)), ((-60, 15, 120), (0.06, -0.04, 0.7)), ((200, -35, 5), (-0.1, 0.05, 0.6))],
)
def test_the_pose_comes_back(mesh, poser, turn, place):
    true = posed(turn, place)
    image, depth = render(mesh, true, SIDE, FOCAL)
    found = poser.estimate(image, depth > 0, CAMERA)
    off = Rotation.from_matrix(found.camera_from_object[:3, :3] @ true[:3, :3].T).magnitude()
    assert np.degrees(off) < 12
    assert np.linalg.norm(found.camera_from_object[:3, 3] - true[:3, 3]) < 0.04 * place[2]
    assert found.overlap > 0.85
    nearest = poser.estimate(image, depth > 0, CAMERA, refine=False)
    assert found.score >= nearest.score
    again = poser.estimate(image, depth > 0, CAMERA)
    assert np.array_equal(again.camera_from_object, found.camera_from_object)


def test_an_empty_mask_has_no_pose(poser):
    assert poser.estimate(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), bool), CAMERA) is None


def write_ply(path, mesh):
    import trimesh

    colours = (mesh.rgb * 255).astype(np.uint8)
    trimesh.Trimesh(mesh.vertices_m, mesh.faces, vertex_colors=colours, process=False).export(path)


def test_rows_name_the_mask_that_is_the_object(tmp_path, mesh):
    write_ply(tmp_path / "block.ply", mesh)
    image, depth = render(mesh, posed((20, 30, 40), (0, 0, 0.5)), SIDE, FOCAL)
    film = write_pictures(tmp_path / "f.mkv", (image, np.zeros_like(image), image))
    clip = clip_of(probe(str(film), "f.mkv"))
    stick = np.zeros((SIDE, SIDE), bool)
    stick[10:14, 10:200] = True

    def mask(frame, object_id, label, pixels):
        return {"frame_index": frame, "object_id": object_id, "class": label, "mask_rle": encode_rle(pixels)}

    rows = [mask(0, 3, "fork", stick), mask(0, 5, "box", depth > 0), mask(0, 6, "left_hand", depth > 0)]
    rows += [mask(1, -1, "", np.zeros_like(stick))]
    masks = pa.Table.from_pylist(rows, schema=schema_of("masks"))
    operator = TemplatePose(TemplateParams(objects={"block": str(tmp_path / "block.ply")}, unit="m", focal_px=FOCAL))
    operator.load()
    table = operator.run(clip, {"sam2": masks}, 2)
    assert table.schema == schema_of("object_pose")
    found, lost = table.to_pylist()
    assert (found["object"], found["object_id"], found["flags"]) == ("block", 5, 1)
    assert np.allclose(found["pose"][:3], (0, 0, 0.5), atol=0.03) and np.linalg.norm(
        found["pose"][3:]
    ) == pytest.approx(1)
    assert lost["object_id"] == -1 and np.isnan(lost["pose"]).all()
    assert operator.run(clip, {"sam2": masks}, 9)["object_id"].equals(table["object_id"])
    guessed = TemplatePose(TemplateParams(objects={"block": str(tmp_path / "block.ply")}, unit="m"))
    guessed.load()
    assert guessed.run(clip, {"sam2": masks.slice(1, 1)}, 2)["flags"].to_pylist() == [3]


def test_meshes_that_cannot_be_used(tmp_path):
    (tmp_path / "points.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n"
    )
    operator = TemplatePose(TemplateParams(objects={"dots": str(tmp_path / "points.ply")}))
    with pytest.raises(BankUnusable, match=r"points\.ply"):
        operator.load()
    with pytest.raises(RunError, match=r"absent\.ply, which the config names, cannot be read"):
        _file_sha256(tmp_path / "absent.ply")
