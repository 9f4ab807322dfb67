"""What a trainer gets of a run: a dataset that LeRobot loads, with the rows and pictures of the clips."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_jobs.egoworld.decode import Decoder
from data_jobs.egoworld.export import ABOUT, frames_at_rate
from data_jobs.egoworld.probe import probe
from tests.e2e.egoworld import call, command, stub_config
from tests.faults.videos import write_video

pytestmark = pytest.mark.timeout(300)
RATE, SIZE, FRAMES = 10, 64, 25


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run over one video of 25 frames in clips of 10, 10 and 5; its hands are made up and left."""
    place = tmp_path_factory.mktemp("run")
    write_video(place / "videos" / "a.mp4", FRAMES, size=SIZE, rate=RATE)
    code, text = call(*command(place / "videos", stub_config(place), place / "out"))
    assert code == 0, text
    return place / "out" / "run_id=r"


@pytest.fixture(scope="module")
def dataset(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "hands"
    code, text = call("export", "--run", run, "--output", folder, "--task", "wave")
    assert code == 0, text
    assert "3 episodes, 25 frames" in text
    return folder


def opened(folder):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/hands", root=folder, video_backend="pyav")


def test_rows_and_pictures_are_those_of_the_clips(run, dataset):
    loaded = opened(dataset)
    assert (loaded.num_episodes, len(loaded), loaded.fps) == (3, FRAMES, RATE)
    first = loaded[0]
    video = run.parents[1] / "videos" / "a.mp4"
    times = probe(str(video), video.name)
    with Decoder(str(video), video.name) as decoder:
        pictures = [frame.to_ndarray(format="rgb24") for _, frame in decoder.frames_from(times.pts[0])]
    assert first["task"] == "wave"
    assert first["observation.images.ego"].shape == (3, SIZE, SIZE)
    for number in (0, 9, 10, 24):
        row = loaded[number]
        clip = next(run.glob(f"video_id=*/clip_id={row['source.clip_id']}"))
        hands = pq.ParquetFile(clip / "hand_pose.parquet").read().to_pylist()
        [hand] = [hand for hand in hands if hand["frame_index"] == int(row["source.frame_index"])]
        assert int(row["source.frame_index"]) == number
        assert row["observation.hands.present"].tolist() == [1, 0]
        np.testing.assert_array_equal(row["observation.state"][:63].numpy(), np.float32(hand["pose"]))
        assert not row["observation.state"][63:].any()
        assert int(row["source.pts"]) == times.pts[number]
        shown = row["observation.images.ego"].numpy().transpose(1, 2, 0) * 255
        # Pictures are noise and encoded once more: the right one is near, any other is 85 off.
        assert np.abs(shown - pictures[number]).mean() < 30


def test_an_action_is_the_next_state_within_the_episode(dataset):
    loaded = opened(dataset)
    rows = [loaded[number] for number in range(10)]
    for row, after in zip(rows, rows[1:] + rows[-1:], strict=True):
        assert row["action"].equal(after["observation.state"])


def test_a_policy_takes_one_step_on_a_batch(dataset):
    import torch

    batch = next(iter(torch.utils.data.DataLoader(opened(dataset), batch_size=8, shuffle=True)))
    policy = torch.nn.Linear(126, 126)
    optimizer = torch.optim.SGD(policy.parameters(), 0.1)
    losses = []
    for _ in range(2):
        loss = (policy(batch["observation.state"]) - batch["action"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]


def test_provenance_names_video_weights_and_licence(run, dataset):
    told = json.loads((dataset / ABOUT).read_text())
    assert told["tree_sha256"] == json.loads((run / "run_manifest.json").read_text())["tree_sha256"]
    assert [episode["frames"] for episode in told["episodes"]] == [[0, 10], [10, 20], [20, 25]]
    assert {len(episode["video_sha256"]) for episode in told["episodes"]} == {64}
    assert told["episodes"][0]["tables"]["hand_pose"]["licence"] == "Apache-2.0"


def test_another_size_and_rate(run, tmp_path):
    code, text = call("export", "--run", run, "--output", tmp_path / "d", "--fps", 5, "--size", "32x16")
    assert (code, "3 episodes, 13 frames" in text) == (0, True), text
    row = opened(tmp_path / "d")[1]
    assert row["observation.images.ego"].shape == (3, 16, 32)
    assert int(row["source.frame_index"]) == 2


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("data_jobs.egoworld.export.about", broken)
    with pytest.raises(OSError, match="disk full"):
        call("export", "--run", run, "--output", tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format", "rlds"), "choose lerobot"),
        (("--size", "31x20"), "even numbers of pixels"),
        (("--size", "big"), "even numbers of pixels"),
        (("--output", "."), "exists already"),
    ],
)
def test_bad_words(run, tmp_path, words, sentence):
    words = words if "--output" in words else (*words, "--output", tmp_path / "d")
    code, text = call("export", "--run", run, *words)
    assert code == 1
    assert sentence in text


def test_a_folder_that_is_no_run(tmp_path):
    code, text = call("export", "--run", tmp_path, "--output", tmp_path / "d")
    assert code == 1
    assert text.startswith("error: ")


def test_clips_of_two_sizes_need_a_choice(tmp_path):
    write_video(tmp_path / "videos" / "a.mp4", 10, size=32)
    write_video(tmp_path / "videos" / "b.mp4", 10, size=64, seed=1)
    call(*command(tmp_path / "videos", stub_config(tmp_path), tmp_path / "out"))
    code, text = call("export", "--run", tmp_path / "out" / "run_id=r", "--output", tmp_path / "d")
    assert code == 1
    assert "the clips are 32x32, 64x64, a dataset has one size: choose it with --size" in text


@given(st.integers(1, 60), st.integers(1, 200), st.floats(0, 1e4))
def test_a_clip_at_the_datasets_rate_gives_each_frame_once(fps, frames, start_s):
    times_s = start_s + np.arange(frames) / fps
    assert frames_at_rate(times_s, fps) == list(range(frames))


@given(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=50), st.integers(1, 60))
def test_every_tick_shows_the_last_frame_at_or_before_it(gaps_s, fps):
    times_s = np.cumsum([0.0, *gaps_s])
    places = frames_at_rate(times_s, fps)
    ticks_s = np.arange(len(places)) / fps + 0.25 / fps
    assert places == sorted(places)
    for place, tick_s in zip(places, ticks_s, strict=True):
        assert times_s[place] <= tick_s
        assert place == len(times_s) - 1 or times_s[place + 1] > tick_s
