"""Fixtures of the nuScenes tests: the shared data folder, and small synthetic tables made on the spot."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    folder = Path(__file__).resolve().parents[3].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the shared test data at {folder}")
    return folder
