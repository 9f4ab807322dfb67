"""`python -m tests.serve.up CONFIG.yaml`: what `serve run CONFIG.yaml` does, on a cluster without a dashboard.

The dashboard's many processes take most of the start on a small machine; test_run.py starts the real command.
"""

import signal
import sys
import threading
from pathlib import Path

import ray
import yaml
from ray import serve as ray_serve

import serve
from tests.serve.running import start_ray


def main():
    config = yaml.safe_load(Path(sys.argv[1]).read_text())
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    start_ray()
    ray_serve.start(http_options=config["http_options"])
    application = config["applications"][0]
    ray_serve.run(serve.app(application["args"]), name=application["name"], route_prefix="/")
    over.wait()
    ray_serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
