"""The real commands: `serve run` with the dashboard, the real tracker and its weights, and a shared clip."""

import json
import sys
from pathlib import Path

import pytest

from tests.serve.browser import Page
from tests.serve.running import Service
from tests.serve.test_viewer import ball_template, shoot


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_serve_run_locks_onto_a_target_with_the_embedded_weights(shared_dir, weights, tmp_path):
    weights("mobile_sam"), weights("mobilenet_v2")
    command = [Path(sys.executable).parent / "serve", "run"]
    service = Service(tmp_path, {"targets_dir": str(tmp_path / "targets")}, command=command)
    try:
        service.wait()
        status = service.get("/v1/status")[1]
        assert set(status["models"]) == {"targets", "sessions", "policy", "segmenter", "embedder"}, json.dumps(status)
        page = Page()
        try:
            page.open(service.http)
            page.wait("document.querySelector('#health').textContent === 'healthy'")
            page.drop("#drop", "yellow ball.zip", ball_template(shared_dir / "data" / "videos" / "cups.mp4"))
            page.wait("document.querySelector('[data-state=ready] input:checked')", 120)
            page.find("#file").send_keys(str(shared_dir / "data" / "videos" / "cups.mp4"))
            page.wait("!document.querySelector('#track').disabled")
            page.driver.execute_script("document.querySelector('#video').playbackRate = 0.0625")
            page.click("#track")
            page.wait("document.querySelector('.object[data-phase=track]')", 300)
            page.click("#start")
            page.wait("+document.querySelector('#arm').dataset.ticks > 60")
            shoot(page, tmp_path, "serve_zero_shot")
            page.click("#stop")
            page.wait("document.querySelector('#arm').dataset.phase === 'idle'")
        finally:
            page.close()
    finally:
        service.stop()
