"""A policy behind a websocket: the same action as here, and a hold whatever the server does."""

import dataclasses
import socket
import threading
import time

import numpy as np
import pytest
from websockets.sync.server import serve

from robot import wire
from robot.client import RemotePolicy
from robot.contract import PolicyOffer
from robot.errors import ConnectionFailed, PolicyError
from robot.policies import ScriptedPick
from robot.rate import MonotonicClock
from robot.records import Joints, LoopState, Observation, PolicyInput
from robot.safety import DeadMan
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot
from tests.robot.test_faults import _After

DEADLINE_S = 0.08


class Server:
    """A policy server in a thread: answers `decide` with what `answer` makes of it."""

    def __init__(self, contract, answer=None):
        self.offer = dataclasses.asdict(PolicyOffer("remote", "cartesian_delta", 4, "mujoco_base", 18))
        self.contract, self.answer = contract, answer or self.echo
        self.stall_s = 0.0
        self.received = []
        self.server = serve(self._serve, "127.0.0.1", 0, compression=None)
        self.port = self.server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/policy"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def echo(message):
        return {"type": "actions", "id": message["id"], "actions": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)}

    def _serve(self, connection):
        for data in connection:
            message = wire.unpack(data)
            self.received.append(message)
            if message["type"] == "hello":
                good = message["contract_sha256"] == self.contract.sha256
                reply = (
                    {"type": "offer", "offer": self.offer} if good else {"type": "error", "reason": "other contract"}
                )
                connection.send(wire.pack(reply))
            elif message["type"] == "decide":
                time.sleep(self.stall_s)
                connection.send(wire.pack(self.answer(message)))

    def close(self):
        self.server.shutdown()


@pytest.fixture
def server(pick101):
    made = Server(pick101)
    yield made
    made.close()


@pytest.fixture
def given():
    joints = Joints(np.zeros(6), np.zeros(6), 1)
    image = np.random.default_rng(0).integers(0, 255, (3, 2, 84, 84)).astype(np.float32)
    return PolicyInput(
        image, np.random.default_rng(1).normal(size=(3, 18)).astype(np.float32), Observation(joints, None)
    )


def test_arrays_arrive_as_they_were_sent(server, pick101, given):
    policy = RemotePolicy(server.url, pick101, DEADLINE_S)
    assert policy.offer() == PolicyOffer(**server.offer)
    policy.reset()
    assert policy.decide(given) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    asked = server.received[-1]
    assert np.array_equal(asked["image"], given.image) and asked["image"].dtype == np.uint8
    assert np.array_equal(asked["low_dim"], given.low_dim)
    assert server.received[-2]["type"] == "reset"
    policy.close()


def test_a_server_with_another_contract_is_refused(server, handoff):
    with pytest.raises(ConnectionFailed, match="other contract"):
        RemotePolicy(server.url, handoff, DEADLINE_S).offer()


def test_no_server_is_told(pick101):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        RemotePolicy(f"ws://127.0.0.1:{port}", pick101, DEADLINE_S).offer()


def test_a_late_answer_is_thrown_away_with_its_connection(server, pick101, given):
    policy = RemotePolicy(server.url, pick101, DEADLINE_S)
    policy.offer()
    server.stall_s = 0.3
    with pytest.raises(PolicyError, match="80 ms"):
        policy.decide(given)
    server.stall_s = 0.0
    server.answer = lambda m: {"type": "actions", "id": m["id"], "actions": np.full((1, 4), 0.5, np.float32)}
    time.sleep(0.6)  # the wait before the next try, and the old answer arriving nowhere
    assert policy.decide(given) == pytest.approx([0.5] * 4)
    policy.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda m: {"type": "actions", "id": m["id"] - 1, "actions": np.zeros((1, 4), np.float32)},
        lambda m: {"type": "actions", "id": m["id"], "actions": np.zeros((0, 4), np.float32)},
        lambda m: {"type": "actions", "id": m["id"], "actions": np.zeros(4, np.float32)},
        lambda m: {"type": "actions", "id": m["id"], "actions": [0, 0, 0, 0]},
        lambda m: {"type": "error", "id": m["id"], "reason": "out of memory"},
        lambda m: {"id": m["id"]},
    ],
)
def test_a_wrong_answer_is_an_error(server, pick101, given, answer):
    policy = RemotePolicy(server.url, pick101, DEADLINE_S)
    policy.offer()
    server.answer = answer
    with pytest.raises(PolicyError):
        policy.decide(given)


def test_a_chunk_comes_whole_and_the_loop_takes_what_is_meant_for_now(server, pick101, given):
    chunk = np.arange(12, dtype=np.float32).reshape(3, 4)
    server.answer = lambda m: {"type": "actions", "id": m["id"], "actions": chunk}
    policy = RemotePolicy(server.url, pick101, DEADLINE_S)
    policy.offer()
    assert np.array_equal(policy.decide_chunk(given), chunk)
    assert np.array_equal(policy.decide(given), chunk[0])
    policy.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        "text",
        wire.msgpack.packb([1]),
        wire.msgpack.packb({"type": "actions", "actions": {"nd": ["|O", [1], b"x"]}}),
    ],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(PolicyError):
        wire.unpack(data)


def test_pickles_do_not_travel():
    with pytest.raises(TypeError, match="plain values"):
        wire.pack({"type": "x", "object": object()})


def run_against(server_url, contract, disturb, seconds=1.6):
    contract = contract.model_copy(update={"rate_hz": 30.0})
    clock, limits = MonotonicClock(), load_limits("so101")
    dead_man = DeadMan(limits.dead_man_ms)
    policy = RemotePolicy(server_url, contract, DEADLINE_S, lambda: dead_man.beat(clock.now_ns()))
    session = Session(SimRobot(SimConfig(camera=False), clock), policy, contract, limits, clock, dead_man=dead_man)
    session.open()
    records, times, broken_ns = [], [], []
    session.loop.sinks = [records.append, lambda _: times.append(clock.now_ns())]

    def break_now():
        broken_ns.append(clock.now_ns())
        disturb()

    timer = threading.Timer(0.6, break_now)
    timer.start()
    try:
        session.loop.run(None, _After(clock, seconds))
    finally:
        timer.cancel()
        session.close()
    return records, times, broken_ns[0]


def moved_before_and_held_after(records, times, at_ns):
    assert any(r.command.state is LoopState.MOVE for r, t in zip(records, times, strict=True) if t < at_ns)
    after = [(r, t) for r, t in zip(records, times, strict=True) if t >= at_ns]
    holds = [t for r, t in after if r.command.state is LoopState.HOLD]
    return (holds[0] - at_ns) / 1e6, {r.command.reason for r, _ in after if r.command.state is LoopState.HOLD}


def kill(server):
    server.server.socket.close()
    server.answer = lambda m: (_ for _ in ()).throw(ConnectionResetError("killed"))


def test_a_killed_server_is_a_hold(pick101):
    contract = pick101.model_copy(update={"rate_hz": 30.0})
    server = Server(contract)
    hold_ms, reasons = moved_before_and_held_after(*run_against(server.url, pick101, lambda: kill(server)))
    assert hold_ms <= 100 and reasons & {"policy_failed", "dead_man", "decision_late"}


def test_a_half_open_socket_is_a_hold_and_repeats_nothing(pick101):
    contract = pick101.model_copy(update={"rate_hz": 30.0})
    server = Server(contract)
    relay = HalfOpen(server.port)
    records, times, at_ns = run_against(f"ws://127.0.0.1:{relay.port}", pick101, relay.swallow.set)
    hold_ms, reasons = moved_before_and_held_after(records, times, at_ns)
    assert hold_ms <= 100 and reasons & {"policy_failed", "dead_man", "decision_late"}
    ticks = [r.decision.tick for r in records if r.decision is not None]
    assert len(ticks) == len(set(ticks))


class HalfOpen:
    """A relay that, once told, swallows everything and closes nothing: a cable pulled behind the next switch."""

    def __init__(self, target_port):
        self.swallow = threading.Event()
        self.target_port = target_port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            target = socket.create_connection(("127.0.0.1", self.target_port))
            for one, other in ((client, target), (target, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one, other):
        while data := one.recv(65536):
            if not self.swallow.is_set():
                other.sendall(data)


def test_scripted_needs_no_server(pick101):
    assert ScriptedPick(pick101).offer().action_size == 4
