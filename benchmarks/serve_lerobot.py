"""LeRobot's PolicyServer with a policy that costs nothing, as a peer: as many bytes there, as many actions back.

In: nothing. Out: a call that sends one observation and returns when its action is here. The server is LeRobot's own,
in a process of its own; only the policy is put in by hand, because loading one needs a checkpoint from a hub. Its
artificial `inference_latency` (33 ms unless told) is set to 0. Used by serve_latency.py.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle  # nosec: it is what the peer speaks, between two processes of this benchmark
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

# Two pictures of 84 x 84 x 3 are the bytes of the contract's 3 x 2 x 84 x 84 planes; 54 numbers are its 3 x 18.
CAMERAS, SIDE_PX, NUMBERS, ACTIONS = ("left", "right"), 84, 54, 4


class NoPolicy:
    """What PolicyServer asks of a policy."""

    def __init__(self) -> None:
        from lerobot.configs.types import FeatureType, PolicyFeature

        shape = (3, SIDE_PX, SIDE_PX)
        features = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, shape) for name in CAMERAS}
        self.config = SimpleNamespace(image_features=features)

    def predict_action_chunk(self, observation: dict[str, Any]) -> Any:
        """(1, 1, 4) zeros."""
        import torch

        return torch.zeros(1, 1, ACTIONS)


def _serve(ports: Any) -> None:
    from concurrent import futures

    import grpc
    from lerobot.async_inference.configs import PolicyServerConfig
    from lerobot.transport import services_pb2_grpc

    os.chdir(tempfile.mkdtemp())  # importing the server makes a folder `logs` where it stands
    from lerobot.async_inference.policy_server import PolicyServer

    logging.disable(logging.INFO)
    handler = PolicyServer(PolicyServerConfig(port=8080, inference_latency=0.0))
    names = [f"n{i}" for i in range(NUMBERS)]
    handler.lerobot_features = {"observation.state": {"dtype": "float32", "shape": (NUMBERS,), "names": names}}
    for name in CAMERAS:
        feature = {"dtype": "image", "shape": (SIDE_PX, SIDE_PX, 3), "names": ["height", "width", "channels"]}
        handler.lerobot_features[f"observation.images.{name}"] = feature
    handler.policy, handler.actions_per_chunk = NoPolicy(), 1
    handler.preprocessor = handler.postprocessor = lambda value: value
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(handler, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ports.put(port)
    server.wait_for_termination()


@contextmanager
def policy_server() -> Iterator[Callable[[int], np.ndarray]]:
    """A call: number of the observation in, its first action (4,) out."""
    import grpc
    from lerobot.transport import services_pb2, services_pb2_grpc
    from lerobot.transport.utils import send_bytes_in_chunks

    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=_serve, args=(ports,), daemon=True)
    process.start()
    observed: dict[str, Any] = {f"n{i}": 0.0 for i in range(NUMBERS)}
    observed |= {name: np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8) for name in CAMERAS}
    with grpc.insecure_channel(f"127.0.0.1:{ports.get(timeout=180)}") as channel:
        stub = services_pb2_grpc.AsyncInferenceStub(channel)
        stub.Ready(services_pb2.Empty())

        def ask(number: int) -> np.ndarray:
            data = pickle.dumps(_timed(number, observed))
            stub.SendObservations(send_bytes_in_chunks(data, services_pb2.Observation))
            answer = stub.GetActions(services_pb2.Empty()).data
            if not answer:
                raise RuntimeError(f"LeRobot's server gave no action for observation {number}")
            return np.asarray(pickle.loads(answer)[0].get_action())

        yield ask
    process.terminate()


def _timed(number: int, observed: dict[str, Any]) -> Any:
    from lerobot.async_inference.helpers import TimedObservation

    # must_go: the server otherwise drops observations that look like the last one.
    return TimedObservation(timestamp=time.time(), timestep=number, observation=observed, must_go=True)
