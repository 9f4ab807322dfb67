"""tables.py: JSON to typed Arrow, once, with errors that name table, token and field."""

import json

import numpy as np
import pyarrow as pa
import pytest

from data_jobs.nuscenes import tables
from data_jobs.nuscenes.scene_index import open_index
from data_jobs.nuscenes.schema import SCHEMAS
from data_jobs.nuscenes.tables import TableError, json_pieces, open_tables

VERSION = "v1.0-synthetic"


def test_all_thirteen_tables_keep_every_row_and_value(database, tmp_path):
    store = open_tables(database, VERSION, tmp_path)
    assert len(SCHEMAS) == 13
    for table, schema in SCHEMAS.items():
        source = json.loads((database / VERSION / f"{table}.json").read_text())
        got = store.read(table)
        assert got.schema.names == list(schema) and len(got) == len(source)
        assert got.slice(0, 50).to_pylist() == [{name: row[name] for name in schema} for row in source[:50]]


def test_the_cache_is_keyed_by_content(damaged, tmp_path):
    first = open_tables(damaged.root, VERSION, tmp_path / "cache")
    stamp = (first.folder / "sample.parquet").stat().st_mtime_ns
    again = open_tables(damaged.root, VERSION, tmp_path / "cache")
    assert again == first and (again.folder / "sample.parquet").stat().st_mtime_ns == stamp
    damaged.edit("category", lambda rows: rows[0].update(description="changed"))
    assert open_tables(damaged.root, VERSION, tmp_path / "cache").folder != first.folder


@pytest.mark.parametrize("piece", [64, 300, 5000])
def test_pieces_give_the_same_records_wherever_they_are_cut(tmp_path, monkeypatch, piece):
    rows = [{"token": f"{k:04x}", "name": 'tricky "}, {" text \\', "value": [k, {"deep": [k]}]} for k in range(50)]
    path = tmp_path / "category.json"
    for text in (json.dumps(rows), json.dumps(rows, indent=0), "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n"):
        path.write_text(text)
        monkeypatch.setattr(tables, "PIECE_BYTES", piece)
        assert [row for part in json_pieces(path, "category") for row in part] == rows


@pytest.mark.parametrize("text", ["{}", '[{"a": 1}', '[{"a": 1} {"a": 2}]', "[1, 2", ""])
def test_broken_json_is_refused_with_the_tables_name(tmp_path, text):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(TableError, match="table log"):
        list(json_pieces(path, "log"))


def test_a_missing_table_is_named(damaged, tmp_path):
    (damaged.root / VERSION / "ego_pose.json").unlink()
    with pytest.raises(TableError, match=r"missing ego_pose\.json"):
        open_tables(damaged.root, VERSION, tmp_path / "cache")


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("sample", "timestamp", "late"),
        ("sample", "timestamp", 1.5),
        ("sample_annotation", "size", [1.0, 2.0]),
        ("sample_annotation", "translation", [1.0, float("nan"), 2.0]),
        ("sample_data", "is_key_frame", None),
        ("ego_pose", "rotation", [1.0, 0.0, None, 0.0]),
    ],
)
def test_a_bad_value_is_named_by_table_token_and_field(damaged, tmp_path, table, field, value):
    token = []

    def change(rows):
        rows[3][field] = value
        token.append(rows[3]["token"])

    damaged.edit(table, change)
    with pytest.raises(TableError) as caught:
        open_tables(damaged.root, VERSION, tmp_path / "cache")
    assert all(part in str(caught.value) for part in (f"table {table}", token[0], f"field {field}"))


def test_a_missing_field_and_a_double_token_are_named(damaged, tmp_path):
    damaged.edit("scene", lambda rows: rows[1].pop("name"))
    with pytest.raises(TableError, match=r"table scene, token .* field name is missing"):
        open_tables(damaged.root, VERSION, tmp_path / "cache")
    damaged.edit("scene", lambda rows: rows[1].update(name="x", token=rows[0]["token"]))
    with pytest.raises(TableError, match="stands there twice"):
        open_tables(damaged.root, VERSION, tmp_path / "cache")


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("sample_annotation", "sample_token"),
        ("sample_annotation", "instance_token"),
        ("sample_annotation", "visibility_token"),
        ("sample_data", "ego_pose_token"),
        ("sample_data", "calibrated_sensor_token"),
        ("sample_data", "sample_token"),
        ("instance", "category_token"),
        ("calibrated_sensor", "sensor_token"),
        ("sample", "scene_token"),
        ("sample", "next"),
    ],
)
def test_a_dangling_token_is_named_by_table_token_and_field(damaged, tmp_path, table, field):
    damaged.edit(table, lambda rows: rows[0].update({field: "nowhere"}))
    with pytest.raises(TableError, match=f"table {table}, token [0-9a-f]+: field {field} points at 'nowhere'"):
        open_index(open_tables(damaged.root, VERSION, tmp_path / "cache"))


def test_rows_of_joins_every_row():
    target = pa.chunked_array([["a", "b"], ["c"]])
    got = tables.rows_of(pa.chunked_array([["c", "a"], ["a", "b"]]), target, target, "x.y → z")
    np.testing.assert_array_equal(got, [2, 0, 0, 1])
