"""The real commands: `serve run` with Ray's dashboard, the real tracker and its weights, and a shared clip.

The screenshots go to REAFFERENCE_FIGURES where that is set; docs/figures was made so (DROID, CC BY 4.0).
"""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.messages import Prompt
from actors.segmenter import PromptSegmenter
from tests.serve import scene
from tests.serve.browser import Page
from tests.serve.running import Service
from tests.serve.test_viewer import first_frame

POT = (316, 318, 402, 442)  # x0, y0, x1, y1 of the pot on the stove in the first frame


def pot_template(clip):
    """The pot as MobileSAM cuts it out of the first frame."""
    segmenter = PromptSegmenter()
    segmenter.load()
    image = first_frame(clip)
    found = segmenter.segment(segmenter.embed(image), [Prompt(box_px=np.array(POT, np.float32))])[0]
    x0, y0, x1, y1 = (edge + margin for edge, margin in zip(POT, (-10, -10, 10, 10), strict=True))
    rgb, mask = image[y0:y1, x0:x1], found.mask[y0:y1, x0:x1]
    return scene.zipped({"rgb_0.png": scene.png(rgb), "mask_0.png": scene.png(mask.astype(np.uint8) * 255)})


def see_the_actors_in_the_dashboard(page, service, names):
    """Ray's own page, opened as its owner opens it: with the cluster's token."""
    at = re.search(r"dashboard at.*?(127\.0\.0\.1:\d+)", service.log.read_text())
    assert at, service.tail()
    page.open(f"http://{at[1]}")
    token = Path("~/.ray/auth_token").expanduser().read_text().strip()
    page.driver.add_cookie({"name": "ray-authentication-token", "value": token})
    page.open(f"http://{at[1]}/#/actors")
    page.driver.refresh()
    told = json.dumps(sorted(names))
    page.wait(f"{told}.every((name) => document.body.innerText.includes(name))", 60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_serve_run_locks_onto_a_target_with_the_embedded_weights(shared_dir, weights, tmp_path):
    weights("mobile_sam"), weights("mobilenet_v2")
    clip = shared_dir / "data" / "videos" / "cooking_droid_speed.mp4"
    figures = Path(os.environ.get("REAFFERENCE_FIGURES", tmp_path))
    command = [Path(sys.executable).parent / "serve", "run"]
    service = Service(tmp_path, {"targets_dir": str(tmp_path / "targets")}, command=command)
    try:
        service.wait(answer_within_s=0.3)  # whoever asks impatiently must not keep it from starting
        status = service.get("/v1/status")[1]
        assert set(status["models"]) == {"targets", "sessions", "policy", "segmenter", "embedder"}, json.dumps(status)
        page = Page()
        try:
            page.open(service.http)
            page.wait("document.querySelector('#health').textContent === 'healthy'")
            page.drop("#drop", "pot.zip", pot_template(clip))
            page.wait("document.querySelector('[data-state=ready] input:checked')", 120)
            page.find("#file").send_keys(str(clip))
            page.wait("!document.querySelector('#track').disabled")
            # One view of the pot, from the first frame: the film stands there until the search is done.
            page.driver.execute_script(
                "const film = document.querySelector('#video'); film.pause(); film.currentTime = 0"
            )
            page.click("#track")
            page.wait("document.querySelector('.object[data-phase=track]')", 300)
            page.driver.execute_script(
                "const film = document.querySelector('#video'); film.playbackRate = 0.2; film.play()"
            )
            page.wait("document.querySelector('#video').currentTime > 2", 120)
            page.driver.execute_script("document.querySelector('#video').pause()")
            page.wait("document.querySelector('.object[data-phase=track]')", 5)
            page.click("#start")
            page.wait("+document.querySelector('#arm').dataset.ticks > 60")
            page.wait("document.querySelector('#wrist').naturalWidth > 0")
            page.shoot(figures / "serve_tracking.png")
            page.click("#estop")
            page.wait("document.querySelector('#arm').textContent === 'e-stop latched'")
            page.shoot(figures / "serve_estop.png")
            page.click("#stop")
            page.wait("document.querySelector('#arm').dataset.phase === 'idle'")
            see_the_actors_in_the_dashboard(page, service, set(status["models"]))
            page.shoot(figures / "dashboard_actors.png")
        finally:
            page.close()
    finally:
        service.stop()
