"""WS /v1/track against a running service: lock, masks, newest frame, deadlines, coming back."""

import asyncio
import time

import numpy as np
import pytest
from websockets.sync.client import connect

from robot import wire
from robot.errors import TrackingError
from robot.tracking_client import AsyncTrackClient, TrackClient
from tests.serve import scene


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def client_of(service, target, **options):
    return TrackClient(f"{service.ws}/v1/track", [target], **{"deadline_s": 5.0, **options})


def test_it_locks_on_and_the_mask_lies_on_the_target(service, disc):
    with client_of(service, disc) as client:
        answers = [client.track(scene.frame(i), i) for i in range(12)]
    assert [a.objects[0]["phase"] for a in answers][-1] == "track"
    assert iou(scene.mask_of(answers[-1].objects[0]["rle"]), scene.truth(11)) > 0.85
    assert [a.captured_ns for a in answers] == list(range(12)) and answers[-1].dropped == answers[-1].missed == 0


def test_jpeg_and_raw_give_the_same_target(service, disc):
    with client_of(service, disc, masks="contours") as client:
        raw = client.track(scene.frame(0), 1).objects[0]
        jpeg = client.track(scene.jpeg(scene.frame(0)), 2).objects[0]
    centres = [np.array(told["box_px"]).reshape(2, 2).mean(axis=0) for told in (raw, jpeg)]
    assert np.abs(centres[0] - centres[1]).max() <= 2  # compression changes the colours of the disc's rim
    assert raw["contours"][0].shape[1] == 2


def test_it_loses_the_target_and_says_why(service, disc):
    with client_of(service, disc) as client:
        for i in range(8):
            client.track(scene.frame(i), i)
        gone = client.track(scene.frame(8, visible=False), 8).objects[0]
        assert gone["phase"] == "lost" and gone["reason"] == "all_rejected" and gone["box_px"] is None
        assert client.track(scene.frame(9), 9).objects[0]["phase"] == "verify"


def test_the_async_client_does_the_same(service, disc):
    async def run():
        async with AsyncTrackClient(f"{service.ws}/v1/track", [disc], deadline_s=5.0) as client:
            return [await client.track(scene.frame(i), i) for i in range(8)]

    assert asyncio.run(run())[-1].objects[0]["phase"] == "track"


def test_a_session_goes_on_after_the_connection_is_lost(service, disc):
    client = client_of(service, disc)
    for i in range(8):
        client.track(scene.frame(i), i)
    session = client.conversation.session
    client._socket.socket.close()
    deadline_s = time.monotonic() + 10
    answer = None
    while answer is None and time.monotonic() < deadline_s:
        try:
            answer = client.track(scene.frame(8), 8)
        except TrackingError:
            continue
    assert answer.resumed and client.conversation.session == session and client.conversation.resumptions == 1
    assert answer.objects[0]["phase"] == "track" and answer.objects[0]["frame_index"] == 8
    client.close()


def test_newest_frame_wins_and_the_others_are_counted(service, disc):
    with open_session(service, disc) as socket:
        for number in range(30):
            socket.send(frame(number, scene.jpeg(scene.frame(number))))
        answers = until(socket, lambda message: message.get("id") == 29)
    states = [a for a in answers if a["type"] == "state"]
    ids = [a["id"] for a in states]
    assert ids == sorted(ids) and ids[-1] == 29
    assert states[-1]["dropped"] == 30 - len(states)


def test_a_frame_past_its_deadline_gets_no_answer(service, disc):
    with open_session(service, disc, deadline_ms=0.01) as socket:
        socket.send(frame(0, scene.jpeg(scene.frame(0))))
        message = wire.unpack(socket.recv(timeout=5))
        assert message["type"] == "late" and message["id"] == 0
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.5)


# --- plain sockets ---------------------------------------------------------------------------------------------------


def hello(target, **more):
    return wire.pack({"type": "hello", "protocol": 1, "targets": [target], **more})


def frame(number, jpeg, seen=None, **more):
    return wire.pack(
        {
            "type": "frame",
            "id": number,
            "captured_ns": number,
            "seen": number if seen is None else seen,
            "jpeg": jpeg,
            **more,
        }
    )


def open_session(service, target, **more):
    socket = connect(f"{service.ws}/v1/track", compression=None).__enter__()
    socket.send(hello(target, **more))
    assert wire.unpack(socket.recv(timeout=10))["type"] == "welcome"
    return socket


def until(socket, done):
    found = []
    while not found or not done(found[-1]):
        found.append(wire.unpack(socket.recv(timeout=10), 1 << 24))
    return found
