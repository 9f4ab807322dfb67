"""The table: a network beside those who have not learned, on pictures that none of them has seen.

In: a network, training samples (for the baselines), test samples. Out: a report by name. Called by stage1.py and the
command line. Baselines: the mean pose; the pose of the most similar training picture; MediaPipe's landmark network as
published, on the same pictures, its region laid by the true joints (the most favourable one).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.hands.landmarks import LandmarkModel
from models.hands.regions import region_of_landmarks
from models.manipulation.geometry import project
from models.manipulation.network import ManipulationTransformer
from train_jobs.manipulation import hand_metrics, object_metrics
from train_jobs.manipulation.hand_metrics import FloatArray
from train_jobs.manipulation.samples import Samples
from train_jobs.manipulation.solids import surface_points
from train_jobs.manipulation.trainer import mean_pose, predict

BATCH = 64
THUMBNAIL_PX = 16
# An object counts as told when its query is at least so sure.
SURE = 0.5


def report(
    network: ManipulationTransformer, bank: Samples, test: Samples, landmark_weights: Path | None = None
) -> dict[str, Any]:
    """Hands of the network and of the baselines; objects, contacts and presence of the network."""
    told = predict(network, test, BATCH)
    rows = {
        "network": told["joints_m"],
        "mean pose": mean_answer(bank, len(test)),
        "nearest picture": nearest(bank, test),
    }
    if landmark_weights is not None:
        rows["MediaPipe zero-shot"] = mediapipe(test, landmark_weights)
    hands = {name: hand_rows(joints, test, absolute=name == "network") for name, joints in rows.items()}
    return {"hands": hands, "objects": objects(told, test), "contacts": contacts(told, test),
            "presence": presence(told, test)}  # fmt: skip


def hand_rows(joints_m: Tensor, test: Samples, absolute: bool) -> dict[str, Any]:
    """Scores by alignment; absolute ones only of who says where the hand is."""
    arrays = joints_m.double().numpy(), test.joints_m.double().numpy(), test.joints_labelled.numpy()
    kinds = hand_metrics.ALIGNMENTS if absolute else hand_metrics.ALIGNMENTS[1:]
    return {kind: asdict(hand_metrics.score(*arrays, kind)) for kind in kinds}


def mean_answer(bank: Samples, count: int) -> Tensor:
    """The same pose for every picture: the floor that any learning must leave."""
    return mean_pose(bank).expand(count, -1, -1)


def thumbnails(samples: Samples) -> Tensor:
    """(N, 256) grey 16 × 16 pictures without their brightness and contrast."""
    parts = [samples.pictures[at : at + 256].float().mean(1, keepdim=True) for at in range(0, len(samples), 256)]
    small = torch.cat([functional.adaptive_avg_pool2d(part, THUMBNAIL_PX) for part in parts]).flatten(1)
    return functional.normalize(small - small.mean(1, keepdim=True), dim=1)


def nearest(bank: Samples, test: Samples) -> Tensor:
    """Joints of the hand in the training picture that looks most alike."""
    hands = bank[torch.nonzero(bank.joints_labelled.all(1))[:, 0]]
    return hands.joints_m[(thumbnails(test) @ thumbnails(hands).mT).argmax(1)]


def mediapipe(test: Samples, weights: Path) -> Tensor:
    """MediaPipe's joints in metres, seen from the hand's centre."""
    model = LandmarkModel(weights)
    found = torch.zeros_like(test.joints_m)
    pixels = project(test.joints_m.clamp(min=-9), test.intrinsics)
    for k in torch.nonzero(test.joints_labelled.all(1))[:, 0].tolist():
        image = np.ascontiguousarray(test.pictures[k].permute(1, 2, 0).numpy())
        found[k] = torch.from_numpy(model(image, region_of_landmarks(pixels[k].numpy() + 0.5)).world_m)
    return found


def objects(told: dict[str, Tensor], test: Samples) -> dict[str, float]:
    """ADD-S of the sure query nearest to each held object; an object that no sure query is near counts as missed.

    Held is what a hand touches: things that only lie beside a hand are not asked for.
    """
    errors, diameters = [], []
    held = (test.object_kinds[:, 0] >= 0) & test.has_hand & test.touching.any(1)
    for row in torch.nonzero(held)[:, 0].tolist():
        points = surface_points(int(test.object_kinds[row, 0]), test.object_halves_m[row, 0]).numpy()
        diameters.append(object_metrics.diameter_m(points))
        true = test.object_poses[row, 0].double().numpy()
        sure = told["object_confidence"][row] >= SURE
        apart = (told["object_positions_m"][row] - test.object_poses[row, 0, :3, 3]).norm(dim=-1)
        query = int(torch.where(sure, apart, torch.inf).argmin())
        guess = _pose(told["object_rotations"][row, query], told["object_positions_m"][row, query])
        errors.append(object_metrics.add_s_m(guess, true, points) if sure.any() else np.inf)
    if not errors:
        return {"held": 0}
    off, size = np.array(errors), np.array(diameters)
    found = np.isfinite(off)
    return {
        "held": len(off),
        "told": float(found.mean()),
        **({"add_s_mm_of_told": 1000 * float(off[found].mean())} if found.any() else {}),
        "add_s_below_0.1d": object_metrics.right_share(off, size),
        "auc_add_s_0.1d": object_metrics.area_below(off, 0.1 * size),
        "auc_add_s_0.1m": object_metrics.area_below(off, 0.1),
    }


def _pose(rotation: Tensor, place: Tensor) -> FloatArray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.double().numpy(), place.double().numpy()
    return pose


def contacts(told: dict[str, Tensor], test: Samples) -> dict[str, float]:
    """F1 and average precision over regions of hands, beside always saying yes."""
    kept = test.contacts_labelled.numpy()
    scores, true = told["touching"].double().numpy()[kept], test.touching.numpy()[kept]
    return {
        "share_touching": float(true.mean()) if len(true) else float("nan"),
        "f1": object_metrics.f1(scores, true),
        "average_precision": object_metrics.average_precision(scores, true),
        "f1_of_always": object_metrics.f1(np.ones(len(true)), true),
    }


def presence(told: dict[str, Tensor], test: Samples) -> dict[str, float]:
    """How sure the network is of a hand where there is one, and where there is none."""
    sure, there = told["confidence"].mean(1), test.has_hand
    return {
        "mean_with_hand": float(sure[there].mean()) if there.any() else float("nan"),
        "mean_without": float(sure[~there].mean()) if (~there).any() else float("nan"),
        "f1": object_metrics.f1(sure.double().numpy(), there.numpy()),
    }
