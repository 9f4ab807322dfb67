"""A few rendered frames, a contract, and a skip where nothing can render."""

import pytest

from robot.contract import load_contract
from train_jobs.so101_seg.frames import Plan, read, render


@pytest.fixture(scope="session", autouse=True)
def everything_here_renders(rendering):
    return rendering


@pytest.fixture(scope="session")
def contract():
    return load_contract("pick101_v19")


@pytest.fixture(scope="session")
def frames_folder(rendering, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    render(folder, Plan(count=12, seed=3, width_px=64, height_px=48))
    return folder


@pytest.fixture(scope="session")
def frames(frames_folder):
    return read(frames_folder)
