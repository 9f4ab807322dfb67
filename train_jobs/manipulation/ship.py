"""What leaves a training: weights for models/pretrained, and the table of the report made again from any weights.

In: a folder of stages 1 and 2, or a weights file. Out: weights with large matrices in half precision; a report; its
table. Called by __main__.py. Pictures are made from their numbers: the same weights give the same table anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.manipulation import checkpoint
from train_jobs.errors import CannotStart
from train_jobs.manipulation import evaluate
from train_jobs.manipulation.samples import Samples, together
from train_jobs.manipulation.synthetic import VERSION, Split, generate

CHUNK = 250
COLUMNS = {"absolute": "absolute", "root": "from the wrist", "procrustes": "aligned"}


def ship(output: Path, folder: Path) -> list[Path]:
    """Write both stages' weights into `folder`, halved. Raises CannotStart without them, UnexpectedModel."""
    single, temporal = output / "manipulation.safetensors", output / "temporal.safetensors"
    for path in (single, temporal):
        if not path.is_file():
            raise CannotStart(f"there is no {path}: run stage1 and stage2 with this --output first")
    network, note = checkpoint.load(single)
    fusion = checkpoint.load_temporal(temporal, network.size)
    targets = [folder / path.name for path in (checkpoint.MANIPULATION, checkpoint.TEMPORAL)]
    checkpoint.save(network, targets[0], note, halved=True)
    checkpoint.save_temporal(fusion, targets[1], {"size": network.size.name})
    return targets


def report(
    weights: Path, pictures: int, bank: int, landmarks: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """The table of stage 1 for these weights: `bank` training pictures for the baselines, `pictures` test pictures."""
    network, note = checkpoint.load(weights)
    train = _made("train", bank, network.size.image_px, say)
    test = _made("test", pictures, network.size.image_px, say)
    found = evaluate.report(network, train, test, landmarks)
    facts = {"weights": weights.name, "steps": note.get("steps"), "pictures": pictures, "bank": bank}
    return {**facts, "data": f"synthetic hands, version {VERSION}; not comparable with DexYCB", **found}


def _made(split: Split, count: int, size_px: int, say: Callable[[str], None]) -> Samples:
    parts = []
    for first in range(0, count, CHUNK):
        parts.append(generate(split, first, min(CHUNK, count - first), size_px))
        say(f"{split}: {min(first + CHUNK, count)} of {count} pictures made")
    return together(parts)


def table(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"Synthetic, not comparable with DexYCB: {found['pictures']} test pictures, mean joint error in millimetres "
        "with its 95 % interval.",
        "",
        f"| | {' | '.join(COLUMNS.values())} | AUC aligned |",
        "|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    for name, row in found["hands"].items():
        cells = [_cell(row.get(kind)) for kind in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['procrustes']['auc']:.3f} |")
    things, touch, there = found["objects"], found["contacts"], found["presence"]
    lines += [
        "",
        f"Of {things['held']} held objects {100 * things['told']:.0f} % are told, "
        f"{100 * things['add_s_below_0.1d']:.1f} % with ADD-S below a tenth of the diameter (area to 10 cm: "
        f"{things['auc_add_s_0.1m']:.3f}). Contacts: F1 {touch['f1']:.3f}, average precision "
        f"{touch['average_precision']:.3f}; always yes has F1 {touch['f1_of_always']:.3f}. Is there a hand: F1 "
        f"{there['f1']:.3f}, mean confidence with one {there['mean_with_hand']:.2f}, without "
        f"{there['mean_without']:.2f}.",
    ]
    return "\n".join(lines)


def _cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return "–"
    low, high = score["interval_mm"]
    return f"{score['mpjpe_mm']:.1f} ({low:.1f}–{high:.1f})"


def write_report(path: Path, found: dict[str, Any]) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
