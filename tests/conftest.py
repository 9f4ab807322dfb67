"""Fixtures for every test: the shared reference data, and catalogued weights. Both skip with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from models import weights as catalogue
from models.errors import ModelError

# No deadline: an example that waits for a busy machine is not a failure, and pytest-timeout ends what hangs.
settings.register_profile("reafference", deadline=None)
# For tests.mutation: the same examples every time, and none made smaller, since all that counts is whether one fails.
settings.register_profile(
    "mutation", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("reafference")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the repository, with reference pictures, videos and outputs."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"reference data is not here: no folder {path}")
    return path


@pytest.fixture(scope="session")
def rendering() -> str:
    """The OpenGL platform that the simulator renders with; skips where there is none."""
    from robot.rendering import RenderingUnavailable, detect

    try:
        return detect()
    except RenderingUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def weights() -> Callable[[str], Path]:
    """Name → path of a catalogued file, fetched when not in the cache; skips when no source gives it."""

    def get(name: str) -> Path:
        try:
            return catalogue.fetch([name])[name]
        except ModelError as error:
            pytest.skip(str(error))

    return get
