"""A small film with a known object, and real (embedded) models that are loaded once."""

from __future__ import annotations

import numpy as np
import pytest

from actors.tracker.banks import make_bank
from actors.tracker.mesh import View
from models.embedding.embedder import Embedder
from models.proposals import Profile
from tests.one_thread import one_thread  # noqa: F401

HEIGHT, WIDTH = 120, 160
# Sparse enough for a test, dense enough that a point falls on the toy.
SPARSE = Profile(points_per_side=5, points_per_batch=25)


@pytest.fixture(scope="session")
def embedder(weights):
    weights("mobilenet_v2")
    embedder = Embedder()
    embedder.load()
    return embedder


def toy(x0: int, y0: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A checkered ball on a speckled table, and where it is."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-12, 12, (HEIGHT, WIDTH, 1))
    image = np.clip(np.array([150, 140, 125]) + noise, 0, 255).astype(np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ball = (x - x0) ** 2 + (y - y0) ** 2 < 24**2
    checks = ((x - x0) // 8 + (y - y0) // 8) % 2 == 0
    image[ball & checks] = (200, 30, 30)
    image[ball & ~checks] = (250, 220, 40)
    return image, ball


@pytest.fixture(scope="session")
def toy_bank(embedder):
    return make_bank("toy", [View(*toy(x, 60), None) for x in (60, 80, 100)], embedder)
