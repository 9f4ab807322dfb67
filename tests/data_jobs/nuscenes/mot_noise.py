"""Deterministic tracker output made from true boxes, and the MOT files on disk. NumPy only: the oracle
imports it too.

Misses, box noise, identity swaps, false positives and late starts, so that every branch of the metrics is
met.
"""

from pathlib import Path

import numpy as np


def sequences(mot_folder: Path):
    """(benchmark, sequence folder) of all sequences, in name order."""
    return [(bench, seq) for bench in ("MOT15", "MOT17") for seq in sorted((mot_folder / f"{bench}-train").iterdir())]


def noisy_tracks(truth: np.ndarray, seed: int) -> np.ndarray:
    """(N, 10) track rows from (M, ≥7) gt rows."""
    rng = np.random.default_rng(seed)
    rows = truth[rng.random(len(truth)) > 0.15][:, :7].copy()
    rows[:, 2:6] += rng.normal(0, 0.06, (len(rows), 4)) * rows[:, [4, 5, 4, 5]]
    rows[:, 4:6] = np.maximum(rows[:, 4:6], 2)
    ids = np.unique(rows[:, 1])
    for _ in range(len(ids)):  # from some frame on, two tracks have changed places
        a, b = rng.choice(ids, 2)
        late = rows[:, 0] > rng.integers(1, rows[:, 0].max() + 1)
        first, second = late & (rows[:, 1] == a), late & (rows[:, 1] == b)
        if a != b:
            rows[first, 1], rows[second, 1] = b, a
    n = len(rows) // 20
    when, who = rng.integers(1, rows[:, 0].max() + 1, n), ids.max() + 1 + np.arange(n)
    where, size = rng.uniform(0, 900, (2, n)), rng.uniform(20, 200, (2, n))
    false = np.stack([when, who, *where, *size, rng.uniform(0, 1, n)], axis=1)
    rows = np.concatenate([rows, false])
    rows[:, 6] = 0.9
    rows[:, 2:6] = np.round(rows[:, 2:6], 2)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    return np.concatenate([rows, np.full((len(rows), 3), -1.0)], axis=1)


def write_tracks(path: Path, rows: np.ndarray) -> None:
    lines = [f"{int(r[0])},{int(r[1])},{r[2]:.2f},{r[3]:.2f},{r[4]:.2f},{r[5]:.2f},{r[6]},-1,-1,-1\n" for r in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
