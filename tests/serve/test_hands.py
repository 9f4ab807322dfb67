"""WS /v1/hands with the real follower behind the real routes, in one process; and the config that starts it."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from actors.hand_follower import HandFollower
from robot import wire
from serve.gateway import Services, build_api
from serve.metrics import Metrics
from serve.settings import Settings, settings_of

HELLO = {"type": "hello", "protocol": 1, "side": "right"}
ROOT = Path(__file__).resolve().parents[2]


async def nobody(method, *args):
    raise AssertionError(f"{method} is not asked here")


def client(settings, hands):
    return TestClient(build_api(Services(settings, None, nobody, nobody, hands, nobody, nobody, Metrics())))


@pytest.fixture(scope="module")
def settings():
    config = yaml.safe_load((ROOT / "configs" / "serve_hands.yaml").read_text())
    return settings_of(config["applications"][0]["args"])


@pytest.fixture(scope="module")
def api(settings, weights):
    for name in ("palm_detection_lite", "hand_landmark_lite"):
        weights(name)
    follower = HandFollower(**settings.models["hands"].arguments)
    follower.load()

    async def ask(method, *args):
        return getattr(follower, method)(*args)

    yield client(settings, ask)
    follower.close()


@pytest.fixture(scope="module")
def picture(shared_dir):
    return sorted((shared_dir / "data" / "hands" / "frames").glob("*.jpg"))[0].read_bytes()


@contextmanager
def talking(api, hello=HELLO):
    with api.websocket_connect("/v1/hands") as socket:
        socket.send_bytes(wire.pack(hello))
        yield socket


def heard(socket):
    return wire.unpack(socket.receive_bytes())


def frame(number, jpeg, **more):
    return wire.pack(
        {"type": "frame", "id": number, "captured_ns": number * 33_000_000, "seen": -1, "jpeg": jpeg} | more
    )


def test_pictures_are_answered_with_joints_in_order(api, picture):
    with talking(api) as socket:
        welcome = heard(socket)
        assert welcome["type"] == "welcome" and len(welcome["joints"]) == 16
        for number in range(1, 4):
            socket.send_bytes(frame(number, picture))
            told = heard(socket)
            assert (told["type"], told["id"]) == ("joints", number) and told["arm_rad"] is None
            assert told["hand_rad"].shape == (16,) and np.isfinite(told["hand_rad"]).all()
            assert set(told["ms"]) == {"decode", "find", "retarget", "total"}
        socket.send_bytes(wire.pack({"type": "bye"}))
        with pytest.raises(WebSocketDisconnect):
            socket.receive_bytes()


def test_a_bad_frame_is_refused_and_the_next_one_answered(api, picture):
    with talking(api) as socket:
        heard(socket)
        socket.send_bytes(frame(1, b"no jpeg"))
        told = heard(socket)
        assert told["type"] == "error" and told["id"] == 1 and "no picture" in told["reason"]
        socket.send_bytes(frame(2, picture))
        assert heard(socket)["type"] == "joints"
        socket.send_bytes(frame(2, picture))
        assert "captured_ns rises" in heard(socket)["reason"]


@pytest.mark.parametrize(
    "hello, reason",
    [
        (HELLO | {"protocol": 9}, "protocol"),
        (HELLO | {"side": "both"}, "side is left or right"),
        (HELLO | {"arm": "ur5e"}, "an arm needs intrinsics"),
        (
            HELLO | {"arm": "kuka", "intrinsics": [1.0, 1.0, 0.0, 0.0], "base_from_camera": np.eye(4).ravel().tolist()},
            "kuka",
        ),
        (HELLO | {"what": 1}, "what"),
    ],
)
def test_a_bad_hello_is_refused_with_one_sentence(api, hello, reason):
    with talking(api, hello) as socket:
        told = heard(socket)
        assert told["type"] == "error" and reason in told["reason"]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_bytes()
        assert closed.value.code == 4400


def test_a_service_without_a_follower_says_how_to_get_one():
    with talking(client(Settings(), nobody)) as socket:
        assert "configs/serve_hands.yaml" in heard(socket)["reason"]
