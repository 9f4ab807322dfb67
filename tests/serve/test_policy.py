"""WS /v1/policy: the robot's own client and loop against the running service."""

import numpy as np
import pytest
from websockets.sync.client import connect

from robot import wire
from robot.client import RemotePolicy
from robot.contract import load_contract
from robot.errors import ConnectionFailed
from robot.rate import MonotonicClock
from robot.records import Joints, LoopState, Observation, PolicyInput
from robot.safety import DeadMan
from robot.session import Session, load_limits
from robot.sim import SimConfig, SimRobot
from tests.serve.test_hostile import closed_with

PICK = load_contract("pick101_v19")


def given():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (3, 2, 84, 84)).astype(np.float32)
    low_dim = rng.normal(size=(3, 18)).astype(np.float32)
    return PolicyInput(image, low_dim, Observation(Joints(np.zeros(6), np.zeros(6), 1), None))


def test_the_robots_client_gets_actions(service):
    policy = RemotePolicy(f"{service.ws}/v1/policy", PICK, 2.0)
    offer = policy.offer()
    assert offer.name == "stand_still" and offer.contract_sha256 == PICK.sha256
    for _ in range(20):
        assert policy.decide_chunk(given()).tolist() == [[0, 0, 0, 0]]
    policy.close()


def test_another_contract_is_refused_at_hello(service):
    with pytest.raises(ConnectionFailed, match="contract_hash"):
        RemotePolicy(f"{service.ws}/v1/policy", load_contract("handoff074"), 2.0).offer()
    with connect(f"{service.ws}/v1/policy", compression=None) as socket:
        socket.send(wire.pack({"type": "hello", "protocol": wire.PROTOCOL, "contract_sha256": "0" * 64}))
        assert closed_with(socket) == 4409


@pytest.mark.parametrize(
    "image, low_dim, reason",
    [
        (None, np.full((3, 18), np.nan, np.float32), "NaN"),
        (np.full((3, 2, 84, 84), np.inf, np.float32), None, "infinity"),
        (np.zeros((6, 84, 84), np.uint8), None, "the contract wants"),
        (np.zeros((3, 2, 84, 84), np.int64), None, "int64"),
        ("a string", None, "str"),
    ],
)
def test_a_bad_observation_is_refused_and_the_next_one_answered(service, image, low_dim, reason):
    with connect(f"{service.ws}/v1/policy", compression=None) as socket:
        socket.send(wire.pack({"type": "hello", "protocol": wire.PROTOCOL, "contract_sha256": PICK.sha256}))
        assert wire.unpack(socket.recv(timeout=10))["type"] == "offer"
        socket.send(wire.pack({"type": "decide", "id": 1, "image": image, "low_dim": low_dim}))
        told = wire.unpack(socket.recv(timeout=10))
        assert told["type"] == "error" and told["id"] == 1 and reason in told["reason"]
        socket.send(wire.pack({"type": "decide", "id": 2, "image": None, "low_dim": np.zeros((3, 18), np.float32)}))
        assert wire.unpack(socket.recv(timeout=10))["id"] == 2


def test_the_simulated_arm_runs_on_the_service(service):
    contract = PICK
    clock, limits = MonotonicClock(), load_limits("sim")
    dead_man = DeadMan(limits.dead_man_ms)
    policy = RemotePolicy(f"{service.ws}/v1/policy", contract, 0.5, lambda: dead_man.beat(clock.now_ns()))
    session = Session(SimRobot(SimConfig(camera=False), clock), policy, contract, limits, clock, dead_man=dead_man)
    session.open()
    try:
        records = []
        session.loop.sinks = [records.append]
        for _ in range(100):
            session.loop.step(session.loop.schedule.next())
    finally:
        session.close()
    assert any(record.decision is not None for record in records)
    assert any(record.command.state is LoopState.MOVE for record in records)
