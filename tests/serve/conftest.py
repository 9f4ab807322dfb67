"""One real service for the whole folder, with the colour tracker; a target that is ready."""

import pytest

from robot.tracking_client import add_target
from tests.serve import scene
from tests.serve.running import Service

QUICK = {"backend": "tests.serve.colour:backend", "checkpoint_every": 5}


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    limits = {"hello_timeout_s": 2.0, "idle_timeout_s": 5.0, "max_connections": 32, "max_unread_answers": 16}
    made = Service(folder, {"targets_dir": str(folder / "targets"), "models": {}, "tracking": QUICK, "limits": limits})
    try:
        yield made.wait()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def disc(service):
    return add_target(service.http, "orange disc", scene.archive())
