"""Every command of the README and of docs/, typed as it stands there, in one folder, page after page.

In: the code blocks. A command that would take hours is asked for less of the same (LESS); what needs a machine that is
not here is named with the test that runs it instead (ELSEWHERE). A command in neither list is run as it stands, so a
new one is run, or fails.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
import yaml

from models.weights import fetch
from robot.rendering import RenderingUnavailable, detect

ROOT = Path(__file__).resolve().parents[2]
# Pages whose commands build on one another, in the order of a reader.
PAGES = ("README", "egoworld", "operations", "gpu", "nuscenes", "trackssm", "robot", "tracker")
PAGES += ("manipulation", "skills")
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/|make |python |ray |serve run ).*")

LESS = {
    "videos/": "videos",
    "/data/nuscenes --version v1.0-trainval": "data/synthetic --version v1.0-synthetic",
    "/data/nuscenes": "data/synthetic",
    "--output data/synthetic --scenes 8": "--output data/more --scenes 1 --samples 4",
    "detections.parquet": "data/synthetic/detections.parquet",
    "--weights FILE": f"--weights {ROOT}/models/pretrained/trackssm_small.safetensors",
    "[--init FILE]": "",
    "--output out/trackssm": "--output out/trackssm --epochs 1",
    "--data data/syn/out": "--data out/nus",
    "--output out/full": "--output out/full --epochs 1",
    "--dataroot data/syn --version": "--dataroot data/synthetic --version",
    "--split train --rate 12": "--rate 12",  # the page does both splits one after the other
    "--output out/published": "--output out/published --epochs 1",
    "--output out/compare": "--output out/compare --seed 202 --scenes 1",
    "--output hands --task": "--output hands --fps 10 --task",  # the demo's two have two rates
    "--seconds 20": "--seconds 4",
    "--source 0": "--source videos/kitchen.mp4 --most-frames 4",
    "--negatives pictures_without_it/": "--negatives pictures_without_it --frames 2",
    "stage1 --output out/manipulation": "stage1 --output out/manipulation --config less.yaml --test-pictures 20",
    "stage2 --output out/manipulation": "stage2 --output out/manipulation --clips 4 --steps 2 --test-clips 2",
    "--count 8000": "--count 24",
    "[--start models/pretrained/so101_seg.safetensors]": "",
    "--output out/seg": "--output out/seg --config less_seg.yaml",
    "--frames 2000": "--frames 4",
    "--output out/policy": "--output out/policy --config less_policy.yaml",
    "--round 3": "--round 0",
    "--episodes 1000": "--episodes 2 --workers 0",
    "--episodes 200": "--episodes 2 --workers 0 --only latency",
}
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo.py",
    "make test": ".ci/run",
    "make setup": ".ci/run",
    "make serve": "tests/serve/test_run.py",
    "serve run": "tests/serve/test_run.py",
    "s3://": "tests/e2e/test_egoworld_s3.py",
    "ray start": "tests/e2e/test_egoworld_nodes.py",
    "RAY_ADDRESS=auto": "tests/e2e/test_egoworld_nodes.py",
    "--clip CLIP": "tests/e2e/test_egoworld_machinery.py",
    "compare --scenes 1 --trackers": "tests/data_jobs/nuscenes/test_compare.py",
    "benchmarks.trackssm_table": "tests/test_docs.py",
    "--robot so101": "tests/robot/test_main.py",
}
# Nothing dead to retry is said with an exit code of its own.
MAY_REFUSE = {"retry": "no dead letter"}


def page_path(page: str) -> Path:
    return ROOT / "README.md" if page == "README" else ROOT / "docs" / f"{page}.md"


def commands(page: str) -> list[str]:
    """Lines of the page's code blocks that are typed into a shell, without comments."""
    blocks = re.findall(r"```\w*\n(.*?)```", page_path(page).read_text(), re.S)
    lines = [line.partition(" # ")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if COMMAND.match(line)]


def elsewhere(line: str) -> str | None:
    return next((test for words, test in ELSEWHERE.items() if words in line), None)


def asked_for_less(line: str) -> list[str]:
    for words, fewer in LESS.items():
        line = line.replace(words, fewer, 1)
    return shlex.split(line)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what a reader has at hand: videos, a mesh, pictures, a database."""
    try:
        detect()
    except RenderingUnavailable as error:
        pytest.skip(str(error))
    fetch()
    folder = tmp_path_factory.mktemp("desk")
    run(folder, [sys.executable, "-m", "data_jobs.egoworld.demo", "--output", "videos"])
    next((folder / "videos").glob("*.mp4")).rename(folder / "videos" / "kitchen.mp4")
    (folder / "configs").symlink_to(ROOT / "configs")  # pages speak from the repository's root
    trimesh.creation.box((0.06, 0.04, 0.1)).export(folder / "duck.ply")
    (folder / "pictures_without_it").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "pictures_without_it" / f"{number}.png"), picture)
    words = "-m data_jobs.nuscenes synthesize --output data/synthetic --scenes 10 --samples 60"
    run(folder, [sys.executable, *words.split()])
    less(folder, "manipulation_stage1.yaml", "less.yaml", pictures=64, validation_pictures=20, epochs=1)
    of_rounds = {"steps": [4], "episodes": [2], "predicted": [0.0], "cooldown_steps": [0], "batch_size": 4}
    less(folder, "so101_policy.yaml", "less_policy.yaml", **of_rounds)
    few = {"steps": 4, "batch_size": 2, "kept_back": 4, "measure_every": 2, "warmup_steps": 1, "cooldown_steps": 2}
    less(folder, "so101_seg.yaml", "less_seg.yaml", **few)
    return folder


def less(folder: Path, name: str, to: str, **values: object) -> None:
    settings = yaml.safe_load((ROOT / "configs" / name).read_text())
    (folder / to).write_text(yaml.safe_dump({**settings, **values}))


def run(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False)


def test_what_runs_elsewhere_is_there_and_still_in_the_docs():
    every = [line for page in PAGES for line in commands(page)] + commands("serve")
    assert len(every) > 40
    assert not [test for test in ELSEWHERE.values() if not (ROOT / test).is_file()]
    assert not [words for words in [*ELSEWHERE, *LESS] if not any(words in line for line in every)]
    with_commands = {path.stem for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")] if commands(path.stem)}
    assert with_commands == {*PAGES, "serve"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_does_what_it_says(page, desk):
    for line in commands(page):
        if elsewhere(line):
            continue
        words = asked_for_less(line)
        words[0] = sys.executable  # python, or .venv/bin/python
        done = run(desk, words)
        refusal = next((words for verb, words in MAY_REFUSE.items() if verb in line.split()), None)
        accepted = done.returncode == 0 or (refusal and refusal in done.stdout + done.stderr)
        assert accepted, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
