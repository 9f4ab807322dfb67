"""TrackEval's own numbers for test_metrics.py. Runs in an environment of its own, never in ours:

    uv venv /tmp/oracle && uv pip install --python /tmp/oracle/bin/python trackeval==1.3.0
    /tmp/oracle/bin/python tests/data_jobs/nuscenes/trackeval_oracle.py ../shared/data/mot \
        tests/data_jobs/nuscenes/expected_trackeval.json

With `--time` it prints the seconds that reading and scoring took instead (benchmarks/nuscenes_evaluation.py).
"""

import importlib.util
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPEC = importlib.util.spec_from_file_location("mot_noise", Path(__file__).with_name("mot_noise.py"))
mot_noise = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mot_noise)


def lay_out(mot_folder: Path, work: Path) -> None:
    for seed, (bench, sequence) in enumerate(mot_noise.sequences(mot_folder)):
        target = work / "gt" / f"{bench}-train" / sequence.name
        shutil.copytree(sequence, target, copy_function=shutil.copyfile)
        truth = np.loadtxt(sequence / "gt/gt.txt", delimiter=",")
        rows = mot_noise.noisy_tracks(truth, seed)
        mot_noise.write_tracks(work / "trackers" / f"{bench}-train" / "noisy" / "data" / f"{sequence.name}.txt", rows)


def evaluate(work: Path, bench: str) -> dict:
    import trackeval

    names = {p.name: None for p in (work / "gt" / f"{bench}-train").iterdir()}
    config = {
        "GT_FOLDER": str(work / "gt"), "TRACKERS_FOLDER": str(work / "trackers"), "BENCHMARK": bench,
        "SPLIT_TO_EVAL": "train", "SEQ_INFO": names, "TRACKERS_TO_EVAL": ["noisy"], "PRINT_CONFIG": False,
    }  # fmt: skip
    quiet = dict.fromkeys(
        ("PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES",
         "DISPLAY_LESS_PROGRESS", "OUTPUT_EMPTY_CLASSES"), False,
    )  # fmt: skip
    dataset = trackeval.datasets.MotChallenge2DBox(config)
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR({"PRINT_CONFIG": False}),
               trackeval.metrics.Identity({"PRINT_CONFIG": False})]  # fmt: skip
    evaluator = trackeval.Evaluator({**quiet, "USE_PARALLEL": False, "BREAK_ON_ERROR": True})
    result, _ = evaluator.evaluate([dataset], metrics)
    return {name: flat(values["pedestrian"]) for name, values in result["MotChallenge2DBox"]["noisy"].items()}


def flat(metrics: dict) -> dict:
    out = {}
    for fields in metrics.values():
        for name, value in fields.items():
            out[name] = float(np.mean(value))
    return out


def main() -> None:
    mot_folder, target = Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as work:
        lay_out(mot_folder, Path(work))
        import trackeval  # noqa: F401 - not part of what is timed

        start = time.perf_counter()
        result = {bench: evaluate(Path(work), bench) for bench in ("MOT15", "MOT17")}
        seconds = time.perf_counter() - start
    if target == "--time":
        sys.stdout.write(f"\nseconds {seconds}\n")
    else:
        Path(target).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
