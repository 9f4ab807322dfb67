"""`make demo` as a stranger types it first: two videos, every clip accounted for, a report to open."""

import subprocess

import pyarrow.parquet as pq
import pytest

from tests.e2e.egoworld import ROOT, call


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_demo_leaves_hands_masks_and_a_report(tmp_path):
    if not (ROOT / ".venv" / "installed").exists():
        pytest.skip("make demo uses .venv, which `make setup` makes; this environment is another one")
    done = subprocess.run(["make", "demo", f"DEMO={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = tmp_path / "run_id=demo"
    code, text = call("verify", "--run", run)
    assert code == 0, text
    assert len(list(run.glob("video_id=*"))) == 2
    for table in ("hand_pose", "masks"):
        assert sum(pq.read_metadata(path).num_rows for path in run.glob(f"video_id=*/clip_id=*/{table}.parquet"))
    page = (run / "report" / "report.html").read_text()
    films = [path.name for path in (run / "report" / "overlay").glob("*.mp4")]
    assert films and all(name in page for name in films)
