"""A real service in a process group of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import ray
import yaml

ROOT = Path(__file__).resolve().parents[2]
UP_WITHIN_S = 240.0
# Ray gives its workers a low priority, and its own start 30 s: on a busy machine the next try often succeeds.
PATIENT = {"RAY_worker_niceness": "0"}
TRIES = 4


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Service:
    def __init__(self, folder, settings, host="127.0.0.1", token=None, command=None):
        self.folder, self.port = Path(folder), free_port()
        self.token = token
        self.log = self.folder / "serve.log"
        config = {
            "http_options": {"host": host, "port": self.port},
            "applications": [
                {"name": "reafference", "route_prefix": "/", "import_path": "serve.app", "args": settings}
            ],
        }
        path = self.folder / "service.yaml"
        path.write_text(yaml.safe_dump(config))
        # A cluster of its own, whatever else runs on this machine.
        env = {**os.environ, **PATIENT, "RAY_ADDRESS": "local", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        if token:
            env["REAFFERENCE_TOKEN"] = token
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*(command or [sys.executable, "-m", "tests.serve.up"]), str(path)],
                cwd=ROOT,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def http(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self):
        return f"ws://127.0.0.1:{self.port}"

    def wait(self, answer_within_s=60):
        """Until it is healthy. A short `answer_within_s` asks as impatient monitors do, which give up and ask again."""
        deadline_s = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None, f"the service ended: {self.tail()}"
            with contextlib.suppress(OSError, ValueError):
                if self.get("/healthz", within_s=answer_within_s)[1] == {"ok": True}:
                    return self
            time.sleep(0.5)
        raise AssertionError(f"not up within {UP_WITHIN_S} s: {self.tail()}")

    def tail(self):
        return self.log.read_text(errors="replace")[-3000:]

    def ask(self, method, path, body=None, headers=None, within_s=60):
        """(status, JSON or bytes)."""
        headers = dict(headers or {})
        if self.token and "Authorization" not in headers:
            headers["Authorization"] = f"Bearer {self.token}"
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(self.http + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=within_s) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def get(self, path, **more):
        return self.ask("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.ask("POST", path, {} if body is None else body, **more)

    def processes(self):
        """Name and private memory in bytes of every process below this one, by pid."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        found = {}
        for pid in parents:
            above = pid
            while above in parents and above != self.process.pid:
                above = parents[above]
            with contextlib.suppress(OSError):
                if above == self.process.pid:
                    found[pid] = (
                        Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(),
                        private_bytes(pid),
                    )
        return found

    def stop(self):
        """End it the way a user does, with Ctrl-C; what does not go is killed with its own group."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        shutil.rmtree(self.folder / "targets", ignore_errors=True)


def start_ray():
    """A cluster of our own, without the dashboard."""
    os.environ.update(PATIENT)
    for left in reversed(range(TRIES)):
        try:
            return ray.init(address="local", namespace="serve", include_dashboard=False, num_cpus=4)
        except Exception:  # Ray raises nothing narrower
            ray.shutdown()
            if not left:
                raise
    return None


def private_bytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _parsed(data):
    try:
        return json.loads(data)
    except ValueError:
        return data
