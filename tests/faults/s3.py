"""A local S3 server as its own process, for tests of the object store: real HTTP, real requests, no cloud.

moto checks `If-None-Match` and then stores, in two steps. S3 does both as one; so the server answers one request at a
time, which gives the same promise.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

SERVER = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
"""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment variables that lead every S3 client to the server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stderr=subprocess.DEVNULL, env=os.environ | CREDENTIALS
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _await(endpoint, process)
        yield CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}
    finally:
        process.kill()
        process.wait()


def _await(endpoint: str, process: subprocess.Popen, patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        assert process.poll() is None, "the S3 server does not start"
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).read()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the S3 server does not answer within {patience_s} s")
