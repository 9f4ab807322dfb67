"""The replica of a session is killed: the same connection goes on elsewhere, with the same targets, at once."""

import os
import signal
import time

from robot.errors import TrackingError
from robot.tracking_client import TrackClient
from tests.serve import scene
from tests.serve.test_tracking import client_of

# On a machine that runs a whole test suite beside it; benchmarks/serve_failover.py measures.
PATIENCE_S = 5.0


def test_a_killed_replica_costs_one_resumed_message_and_a_few_frames(service, disc):
    with client_of(service, disc, deadline_s=PATIENCE_S) as client:
        for index in range(23):
            before = client.track(scene.frame(index), index)
        killed = client.conversation.replica_pid
        os.kill(killed, signal.SIGKILL)
        began_s = time.monotonic()
        after = client.track(scene.frame(23), 23)
        took_s = time.monotonic() - began_s
        assert took_s < PATIENCE_S
        assert client.conversation.resumptions == 1 and after.resumed
        assert client.conversation.replica_pid != killed
        told = after.objects[0]
        # The state of frame 20 was the last one saved: the tracker knows its target, and has lost three frames.
        assert told["phase"] == "track" and told["name"] == before.objects[0]["name"]
        assert told["frame_index"] == 20 and told["frames_in_phase"] == before.objects[0]["frames_in_phase"] - 2
        more = [client.track(scene.frame(index), index) for index in range(24, 40)]
        assert client.conversation.resumptions == 1 and not any(answer.resumed for answer in more)
        assert all(answer.objects[0]["phase"] == "track" for answer in more)


def test_both_replicas_killed_the_client_waits_and_goes_on(service, disc):
    """Nobody is there for some seconds; the state is, in the store."""
    others = [client_of(service, disc, deadline_s=PATIENCE_S) for _ in range(4)]
    client = others[0]
    for index in range(20):
        for each in others:
            answer = each.track(scene.frame(index), index)
    pids = {each.conversation.replica_pid for each in others}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 120
    after, index = None, 20
    while after is None and time.monotonic() < deadline_s:
        try:
            after = client.track(scene.frame(index), index)
        except TrackingError:
            index += 1
    assert after is not None and after.objects[0]["phase"] == "track" and after.objects[0]["frame_index"] >= 20
    assert client.conversation.resumptions >= 1 and answer.objects[0]["name"] == after.objects[0]["name"]
    for each in others:
        each.close()


def test_a_saved_session_is_found_by_its_own_id_only(service, disc):
    with client_of(service, disc) as client:
        for index in range(10):
            client.track(scene.frame(index), index)
        stranger = TrackClient(f"{service.ws}/v1/track", [disc], 5.0)
        stranger.conversation.session = client.conversation.session[:-1] + "_"
        answer = stranger.track(scene.frame(0), 0)
        assert answer.objects[0]["frame_index"] == 0 and not answer.resumed
        stranger.close()
