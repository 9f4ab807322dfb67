"""The two networks together, against MediaPipe's own results on the same pictures and streams.

Pictures: the reference outputs in the shared data. Streams: mediapipe_streams.json, made with mediapipe==0.10.21,
`solutions.hands.Hands(static_image_mode=False, max_num_hands=2)`, on frames scaled to 640×360 by area, from the
clip's first frame on; x and y are shares of width and height. Free-running streams part ways after some frames (a
region that moves by 1/32 px changes the crop's rounding, and the result feeds the next region), so each step is
given MediaPipe's last landmarks and must find MediaPipe's next ones.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.hands.regions import Region, region_of_landmarks
from models.hands.tracker import HandTracker

STREAMS = json.loads(Path(__file__).with_name("mediapipe_streams.json").read_text())
WIDTH, HEIGHT = 640, 360


@pytest.fixture(scope="module")
def trackers(weights):
    return {
        variant: HandTracker(weights(f"palm_detection_{variant}"), weights(f"hand_landmark_{variant}"))
        for variant in ("full", "lite")
    }


def distance_percent(points_px: np.ndarray, expected_px: np.ndarray) -> float:
    """Mean landmark distance as a percentage of the diagonal of the expected hand's box."""
    diagonal = np.linalg.norm(np.ptp(expected_px, axis=0))
    return float(np.linalg.norm(points_px[:, :2] - expected_px, axis=1).mean() / diagonal * 100)


@pytest.mark.parametrize("variant", ["full", "lite"])
def test_pictures_give_mediapipes_hands(shared_dir, trackers, variant):
    reference = json.loads((shared_dir / "data" / "hands" / f"mediapipe_{variant}.json").read_text())
    distances = []
    for name, expected in reference.items():
        image = cv2.imread(str(shared_dir / "data" / "hands" / "frames" / name))[:, :, ::-1].copy()
        size = np.array([expected["width"], expected["height"]])
        hands = trackers[variant](image, [])
        assert len(hands) == len(expected["hands"]), name
        for hand, other in zip(hands, expected["hands"], strict=True):
            found = hand.landmarks
            assert (found.left_if_mirrored > 0.5) == (other["handedness"] == "Left"), name
            assert max(found.left_if_mirrored, 1 - found.left_if_mirrored) == pytest.approx(other["score"], abs=0.01)
            distances.append(distance_percent(found.points_px, np.array(other["landmarks"])[:, :2] * size))
            np.testing.assert_allclose(found.world_m, other["world_landmarks"], atol=0.001)
    assert len(distances) == 26
    assert np.mean(distances) < 0.05 and np.max(distances) < 0.5


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: f"{stream['clip']}-{stream['first_frame']}")
def test_streams_follow_as_mediapipe_does(shared_dir, trackers, stream):
    tracker, last_seen, distances = trackers[stream["variant"]], None, []
    for image, hands in zip(frames(shared_dir, stream), stream["frames"], strict=True):
        points = [np.array(hand["landmarks"]) * (WIDTH, HEIGHT) for hand in hands]
        if last_seen is not None:
            found = [one.landmarks for one in tracker(image, last_seen)]
            # MediaPipe sometimes gives more hands than the two it was asked for; ours never does.
            assert len(found) == min(len(hands), 2)
            for one in found:
                each = [distance_percent(one.points_px, other) for other in points]
                distances.append(min(each))
                same = hands[int(np.argmin(each))]
                assert one.left_if_mirrored == pytest.approx(same["left_if_mirrored"], abs=0.03)
        last_seen = [region_of_landmarks(other) for other in points]
    assert len(distances) >= 15
    assert np.mean(distances) < 0.2 and np.max(distances) < 1


def frames(shared_dir: Path, stream: dict):
    video = cv2.VideoCapture(str(shared_dir / "data" / "videos" / f"{stream['clip']}.mp4"))
    for index in range(stream["first_frame"] + len(stream["frames"])):
        image = video.read()[1]
        if index >= stream["first_frame"]:
            yield cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[:, :, ::-1].copy()


def test_one_hand_at_most_when_one_is_asked_for(shared_dir, trackers, weights):
    path = shared_dir / "data" / "hands" / "frames"
    pictures = [cv2.imread(str(file))[:, :, ::-1].copy() for file in sorted(path.glob("cups_*.jpg"))]
    one = HandTracker(weights("palm_detection_lite"), weights("hand_landmark_lite"), max_hands=1)
    assert max(len(trackers["lite"](picture, [])) for picture in pictures) == 2
    assert max(len(one(picture, [])) for picture in pictures) == 1


def test_palms_are_not_searched_while_enough_hands_are_followed(trackers, monkeypatch):
    tracker, calls = trackers["lite"], []
    monkeypatch.setattr(tracker, "_palms", lambda image: calls.append(1) or [])
    image = np.zeros((100, 100, 3), np.uint8)
    region = Region(30.0, 30.0, 30.0, 0.0)
    tracker(image, [region, Region(70.0, 70.0, 30.0, 0.0)])
    assert not calls
    tracker(image, [region])
    assert len(calls) == 1
