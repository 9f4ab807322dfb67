"""A person's way through the page, in headless Chromium against the running service: drop, watch, lock, start, stop."""

import av
import numpy as np
import pytest

from tests.serve import scene
from tests.serve.browser import Page

# Every text that the joints have shown: on a slow machine the first one seen may be the last of the motion.
SEEN_JOINTS = """
const box = document.querySelector("#joints");
window.shown = new Set();
new MutationObserver(() => window.shown.add(box.innerText)).observe(
  box, { subtree: true, childList: true });
"""
BALL = (345, 408, 458, 520)  # x0, y0, x1, y1 of the yellow ball in the first frame of cups.mp4


@pytest.fixture
def page():
    made = Page()
    yield made
    made.close()


def first_frame(clip):
    with av.open(str(clip)) as film:
        return next(film.decode(video=0)).to_ndarray(format="rgb24")


def ball_template(clip):
    image = first_frame(clip)
    x0, y0, x1, y1 = BALL
    rgb = image[y0:y1, x0:x1].copy()
    rows, columns = np.mgrid[: y1 - y0, : x1 - x0]
    mask = (rows - (y1 - y0) / 2) ** 2 + (columns - (x1 - x0) / 2) ** 2 < 34**2
    return scene.zipped({"rgb_0.png": scene.png(rgb), "mask_0.png": scene.png(mask.astype(np.uint8) * 255)})


def test_a_person_locks_onto_a_target_and_drives_the_arm(service, page, shared_dir, tmp_path):
    clip = shared_dir / "data" / "videos" / "cups.mp4"
    page.open(service.http)
    page.wait("document.querySelector('#health').textContent === 'healthy'")
    # The page asks before it releases an emergency stop, which a test before this one may have left behind.
    page.driver.execute_script("window.confirm = () => true")

    page.drop("#drop", "yellow ball.zip", ball_template(clip))
    page.wait("document.querySelector('[data-state=ready] input:checked')")
    page.find("#file").send_keys(str(clip))
    page.wait("!document.querySelector('#track').disabled")
    page.driver.execute_script("document.querySelector('#video').playbackRate = 0.25")
    page.click("#track")
    page.wait("document.querySelector('.object[data-phase=track]')")
    page.wait("document.querySelectorAll('#numbers dd').length === 4")

    page.shoot(tmp_path / "tracking.png")
    # Two cores cannot always show a film, track it and render the arm's camera: the arm would hold, "camera stale".
    page.click("#track")
    page.wait("document.querySelector('#session').textContent === 'no session'")
    page.driver.execute_script("document.querySelector('#video').pause()")

    page.driver.execute_script(SEEN_JOINTS)
    page.click("#start")
    page.wait("document.querySelector('#arm').dataset.phase === 'running'")
    page.wait("+document.querySelector('#arm').dataset.ticks > 100")
    page.wait("document.querySelector('#wrist').naturalWidth > 0")
    page.wait("window.shown.size > 5")
    page.shoot(tmp_path / "moving.png")
    page.click("#stop")
    page.wait("document.querySelector('#arm').dataset.phase === 'idle'")

    page.click("#start")
    page.wait("document.querySelector('#arm').dataset.phase === 'running'")
    page.click("#estop")
    page.wait("document.querySelector('#arm').textContent === 'e-stop latched'")
    page.shoot(tmp_path / "estop.png")
    page.click("#stop")
    page.wait("document.querySelector('#arm').dataset.phase === 'idle'")
    page.click("#start")
    page.wait("document.querySelector('#arm').dataset.phase === 'running'")
    page.click("#stop")
    page.wait("document.querySelector('#arm').dataset.phase === 'idle'")

    assert page.errors() == []


def test_the_webcam_serves_too(service, disc, page):
    page.open(service.http)
    page.wait(f"document.querySelector('#target-{disc}')")
    page.click(f"#target-{disc}")
    page.click("#webcam")
    page.wait("!document.querySelector('#track').disabled")
    page.click("#track")
    page.wait("document.querySelectorAll('#numbers dd').length === 4")
    page.wait("document.querySelector('.object')")


def test_a_refused_upload_says_why_on_the_page(service, page):
    page.open(service.http)
    page.wait("document.querySelector('#health').textContent === 'healthy'")
    page.drop("#drop", "evil.zip", scene.zipped({"../../x": b"1"}))
    page.wait("document.querySelector('#refused').textContent.includes('leaves its folder')")
