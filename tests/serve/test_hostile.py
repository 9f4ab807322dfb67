"""Bad peers against the running service: each gets a clear code, and the one who behaves notices nothing."""

import contextlib
import json
import socket as sockets
import threading
import time
from functools import partial

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from robot import wire
from tests.serve import scene
from tests.serve.test_tracking import client_of, frame, hello, open_session


@contextlib.contextmanager
def bystander(service, target):
    """A client that behaves, all the while; at the end none of its frames was refused."""
    over, answers, errors = threading.Event(), [], []

    def run():
        with client_of(service, target, deadline_s=10.0) as client:
            while not over.is_set():
                try:
                    answers.append(client.track(scene.frame(len(answers))))
                except Exception as error:  # noqa: BLE001 - whatever it was, it should not have been
                    errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
        seen, patience_s = len(answers), time.monotonic() + 10
        while len(answers) <= seen + 2 and time.monotonic() < patience_s:
            time.sleep(0.05)
    finally:
        over.set()
        thread.join()
    assert not errors and len(answers) > seen + 2


def closed_with(socket, timeout_s=10):
    """The close code, after whatever was still said."""
    while True:
        try:
            socket.recv(timeout=timeout_s)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


def raw(array):
    return {"nd": [array.dtype.newbyteorder("<").str, list(array.shape), array.tobytes()]}


def picture(image):
    return msgpack.packb({"type": "frame", "id": 0, "captured_ns": 0, "seen": -1, "image": image})


BAD_FIRST = {
    "text": "hello",
    "empty": b"",
    "not msgpack": b"\xc1\xc1",
    "not a map": msgpack.packb([1, 2]),
    "no type": msgpack.packb({"protocol": 1}),
    "deep": b"\x91" * 5000,
    "other protocol": wire.pack({"type": "hello", "protocol": 99, "targets": ["x"]}),
    "no targets": wire.pack({"type": "hello", "protocol": 1, "targets": []}),
    "many targets": wire.pack({"type": "hello", "protocol": 1, "targets": [str(i) for i in range(40)]}),
    "unknown field": wire.pack({"type": "hello", "protocol": 1, "targets": ["x"], "path": "/etc/passwd"}),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
}
GOOD = scene.frame(0)
BAD_FRAME = {
    "malformed": (b"\xc1", 4400),
    "float pixels": (picture(raw(GOOD.astype(np.float32))), 4400),
    "grey": (picture(raw(GOOD[..., 0].copy())), 4400),
    "no pixels": (picture(raw(np.zeros((0, 4, 3), np.uint8))), 4400),
    "pickled": (picture({"nd": ["|O", [1], b"12345678"]}), 4400),
    "lying shape": (picture({"nd": ["|u1", [10_000, 10_000, 3], b"123"]}), 4400),
    "negative shape": (picture({"nd": ["|u1", [-1, -3], b"123"]}), 4400),
    "both": (frame(0, b"x", image=GOOD), 4400),
    "neither": (frame(0, None), 4400),
    "negative id": (frame(-1, b"x"), 4400),
    "unknown": (wire.pack({"type": "shutdown"}), 4400),
    "too large": (b"\xc4" + b"\0" * (13 * 1024 * 1024), 4400),
    "100 MB": (b"\0" * 100_000_000, 1009),
}


@pytest.mark.parametrize("name", BAD_FIRST)
def test_a_bad_hello_is_closed_with_its_reason(service, name):
    with connect(f"{service.ws}/v1/track", compression=None) as socket:
        socket.send(BAD_FIRST[name])
        assert closed_with(socket) == 4400


def test_hostile_peers_leave_the_others_alone(service, disc):
    with bystander(service, disc):
        for name, (data, code) in BAD_FRAME.items():
            with open_session(service, disc) as socket:
                with contextlib.suppress(ConnectionClosed):  # closed while the 100 MB were still on their way
                    socket.send(data)
                assert closed_with(socket) in (code, None if code == 1009 else code), name


def test_an_unknown_target_names_those_there_are(service, disc):
    with connect(f"{service.ws}/v1/track", compression=None) as socket:
        socket.send(hello("0123456789abcdef"))
        told = wire.unpack(socket.recv(timeout=10))
        assert told["type"] == "error" and disc in told["reason"]
        assert closed_with(socket) == 4404


def test_a_damaged_picture_costs_one_frame_not_the_session(service, disc):
    with open_session(service, disc) as socket:
        for number, data in enumerate([b"\xff\xd8 not really", scene.jpeg(GOOD)[:200], scene.png(GOOD)]):
            socket.send(frame(number, data))
            told = wire.unpack(socket.recv(timeout=10))
            assert told["type"] == "error" and told["id"] == number, told
        socket.send(frame(9, scene.jpeg(GOOD)))
        assert wire.unpack(socket.recv(timeout=10))["type"] == "state"


def test_a_silent_peer_is_closed(service, disc):
    with connect(f"{service.ws}/v1/track", compression=None) as socket:
        assert closed_with(socket) == 4408  # never said hello
    with open_session(service, disc) as socket:
        assert closed_with(socket, 15) == 4408  # hello, and then nothing


def test_a_half_open_socket_holds_nothing_for_long(service, disc):
    with bystander(service, disc):
        halves = []
        for _ in range(5):
            half = open_session(service, disc)
            half.send(frame(0, scene.jpeg(GOOD)))
            halves.append(half)
        before = service.get("/v1/status")[1]["connections"]
        assert before >= 5
        deadline_s = time.monotonic() + 20  # idle_timeout_s is 5 here
        while service.get("/v1/status")[1]["connections"] > before - 5 and time.monotonic() < deadline_s:
            time.sleep(0.5)
        assert service.get("/v1/status")[1]["connections"] <= before - 5
        for half in halves:
            half.socket.close()


def test_who_sends_without_reading_is_cut_off(service, disc):
    jpeg = scene.jpeg(GOOD)
    with bystander(service, disc), open_session(service, disc) as socket:
        for number in range(40):  # max_unread_answers is 16 here
            socket.send(frame(number, jpeg, seen=-1))
            time.sleep(0.03)
        assert closed_with(socket) == 4408


def test_a_client_that_vanishes_in_the_middle_of_a_frame(service, disc):
    with bystander(service, disc):
        for _ in range(5):
            socket = open_session(service, disc)
            data = frame(0, scene.jpeg(GOOD))
            socket.socket.sendall(b"\x82\xfe" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + data[: len(data) // 2])
            socket.socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            socket.socket.close()


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_crowd_of_connections_is_answered_and_the_first_one_goes_on(service, disc, count):
    with bystander(service, disc):
        held, refused = [], 0
        for _ in range(count):
            socket = connect(f"{service.ws}/v1/track", compression=None, open_timeout=30).__enter__()
            held.append(socket)
            if len(held) > 60:  # keep the machine's own limit of open files out of it
                oldest = held.pop(0)
                try:
                    oldest.recv(timeout=0.2)
                    refused += 1
                except (TimeoutError, ConnectionClosed) as error:
                    refused += isinstance(error, ConnectionClosed) and error.rcvd is not None
                oldest.socket.close()
        for socket in held:
            socket.socket.close()
        assert refused > count / 4


def test_a_page_of_another_site_cannot_open_a_socket(service):
    for path in ("/v1/track", "/v1/policy", "/v1/control/stream"):
        page = partial(connect, f"{service.ws}{path}", origin="http://evil.example", compression=None)
        with pytest.raises(InvalidStatus) as found, page():
            pass
        assert found.value.response.status_code == 403
    assert service.post("/v1/control/estop", headers={"Origin": "http://evil.example"})[0] == 401


KEYS = ["type", "id", "nd", "image", "jpeg", "seen", "captured_ns", "targets", "protocol", "session", "masks"]
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    PLAIN | st.binary(max_size=20) | st.sampled_from(["hello", "frame", "bye", "decide", "reset"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300) | VALUES.map(msgpack.packb))
@pytest.mark.parametrize("path", ["/v1/track", "/v1/policy"])
def test_fuzzed_messages_end_in_a_close_code(service, path, data):
    with connect(f"{service.ws}{path}", compression=None) as socket:
        socket.send(data)
        code = closed_with(socket)
    assert 4400 <= code < 4500 and code != 4429


def test_the_service_is_healthy_after_all_of_it(service):
    status, told = service.get("/v1/status")
    assert status == 200 and all(model["up"] for model in told["models"].values()), json.dumps(told)
