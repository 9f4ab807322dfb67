"""Ctrl-C while a session is open and the arm moves: everybody is told, the arm is at rest, nothing is torn away."""

import signal
import time

import pytest

from robot import wire
from robot.tracking_client import add_target
from tests.serve import scene
from tests.serve.conftest import QUICK
from tests.serve.running import Service
from tests.serve.test_hostile import closed_with
from tests.serve.test_tracking import frame, open_session


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_end_is_orderly(tmp_path):
    service = Service(tmp_path, {"targets_dir": str(tmp_path / "targets"), "models": {}, "tracking": QUICK})
    try:
        service.wait()
        target = add_target(service.http, "disc", scene.archive())
        with open_session(service, target) as socket:
            socket.send(frame(0, scene.jpeg(scene.frame(0))))
            assert wire.unpack(socket.recv(timeout=10), 1 << 24)["type"] == "state"
            service.post("/v1/control/start", {"policy": "scripted"})
            time.sleep(3)
            service.process.send_signal(signal.SIGINT)
            assert closed_with(socket, 30) in (1012, None)  # None: the proxy went before the gateway could say it
        service.process.wait(90)
    finally:
        service.stop()
    told = service.tail()
    assert "the arm returns to rest" in service.log.read_text(errors="replace"), told
