"""Small recordings on the spot: a converted synthetic database for training and validation, MOT and label folders."""

import numpy as np
import pytest

from data_jobs.nuscenes.convert import ConvertRequest, convert
from data_jobs.nuscenes.splits import split_table
from data_jobs.nuscenes.synthetic import write_database
from data_jobs.nuscenes.synthetic_world import WorldSpec

VERSION = "v1.0-synthetic"


@pytest.fixture(scope="session")
def conversion(tmp_path_factory):
    """Two training scenes and one held out, 5 s, converted. Read only."""
    folder = tmp_path_factory.mktemp("conversion")
    table = split_table(VERSION)
    names = [sorted(name for name, split in table.items() if split == part) for part in ("train", "held_out")]
    write_database(folder, VERSION, WorldSpec(seconds=5, objects=30), 5, [*names[0][:2], names[1][0]], None, False)
    out = folder / "out"
    assert convert(
        ConvertRequest(folder, VERSION, out, folder / "cache", None, "native", "native", "local", 1)
    ).proof.holds
    return out


def walker(frames, speed, start):
    """One box that walks: rows left, top, width, height."""
    at = np.asarray(frames)[:, None]
    return np.concatenate([start + at * speed, np.full((len(at), 2), (40.0, 90.0))], axis=1)


def write_mot(folder, tracks, rate=30, length=60):
    """A MOT sequence of {id: frames (from 1)}."""
    (folder / "gt").mkdir(parents=True)
    rows = []
    for identity, frames in tracks.items():
        for f, (x, y, w, h) in zip(frames, walker(frames, (3.0, 1.0), (100.0 * identity, 50.0)), strict=True):
            rows.append(f"{f},{identity},{x:.2f},{y:.2f},{w},{h},1,1,1.0")
    (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    info = f"[Sequence]\nname={folder.name}\nframeRate={rate}\nseqLength={length}\nimWidth=1000\nimHeight=500\n"
    (folder / "seqinfo.ini").write_text(info)


@pytest.fixture
def mot(tmp_path):
    """Two MOT sequences of 60 frames; track 2 has a gap of ten frames."""
    gapped = [*range(1, 25), *range(35, 61)]
    for name in ("A", "B"):
        write_mot(tmp_path / "mot" / name, {1: range(1, 61), 2: gapped, 3: range(50, 54)})
    return tmp_path / "mot"
