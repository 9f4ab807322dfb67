"""An answer and the truth → every loss of stage 1 by name. Objects are matched first, ten queries to a few of them.

In: Answer, Samples. Out: {name: scalar}; weighting.py adds them up. Called by trainer.py. A loss without labels in the
batch is 0 and moves nothing: types and forces of contacts have none in any data here, so they are not even computed.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from models.manipulation.geometry import project
from models.manipulation.network import Answer
from models.manipulation.things import ObjectOutput
from train_jobs.manipulation import contact_losses as contact
from train_jobs.manipulation import pose_losses as pose
from train_jobs.manipulation.samples import Samples

# In the cost of a match: a metre, and a class or presence told wrongly.
PER_M, PER_NAT = 5.0, 0.2
# One query in about eight has an object: what is there weighs more, or saying no always would cost little.
RARE_OBJECTS = 3.0


class Stage1Objective(nn.Module):
    """Holds what the losses themselves learn: the weights of joints."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.refined = pose.AdaptiveMpjpe(), pose.AdaptiveMpjpe()

    def forward(self, answer: Answer, truth: Samples) -> dict[str, Tensor]:
        """Every loss by name."""
        return {**self._hand(answer, truth), **_objects(answer.objects, truth), **_contacts(answer, truth)}

    def _hand(self, answer: Answer, truth: Samples) -> dict[str, Tensor]:
        hand, labelled = answer.hand, truth.joints_labelled
        # Seen from the wrist where the wrist is known: the place is another loss's business.
        rooted = labelled & labelled[:, :1]
        root = truth.joints_m[:, :1]
        pixels = project(truth.joints_m, truth.intrinsics)
        size = truth.pictures.shape[-1]
        confidence = contact.confidence_loss(
            hand.confidence_logits, truth.has_hand[:, None].expand_as(labelled), torch.ones_like(labelled)
        )
        return {
            "hand_pointing": pose.pointing_loss(hand.pointing, pixels, labelled, size),
            "hand_coarse": self.coarse(hand.coarse_m - hand.coarse_m[:, :1], truth.joints_m - root, rooted),
            "hand_refined": self.refined(hand.joints_m - hand.joints_m[:, :1], truth.joints_m - root, rooted),
            "hand_absolute": pose.position_loss(hand.joints_m, truth.joints_m, labelled),
            "hand_confidence": confidence,
            "reprojection": pose.reprojection_loss(hand.joints_m, truth.intrinsics, pixels, labelled, size),
            "joint_limits": pose.joint_limit_loss(hand.joints_m, truth.has_hand),
        }


def _objects(told: ObjectOutput, truth: Samples) -> dict[str, Tensor]:
    rows, queries, things = match(told, truth)
    found = torch.zeros_like(told.confidence_logits)
    found[rows, queries] = 1
    poses, kinds = truth.object_poses[rows, things], truth.object_kinds[rows, things]
    classes = truth.object_classes[rows, things]
    every = torch.ones_like(kinds, dtype=torch.bool)
    nats = nn.functional.cross_entropy(told.class_logits[rows, queries], classes.clamp(min=0), reduction="none")
    return {
        "object_pointing": pose.pointing_loss(
            told.pointing[rows, queries][:, None],
            project(poses[:, None, :3, 3], truth.intrinsics[rows]),
            every[:, None],
            truth.pictures.shape[-1],
        ),
        "object_confidence": contact.confidence_loss(
            told.confidence_logits, found, torch.ones_like(found).bool(), RARE_OBJECTS
        ),
        "object_position": pose.position_loss(told.positions_m[rows, queries], poses[:, :3, 3], every),
        "object_rotation": pose.rotation_loss(told.rotations()[rows, queries], poses[:, :3, :3], kinds, every),
        "object_class": pose.masked_mean(nats, classes >= 0),
    }


def _contacts(answer: Answer, truth: Samples) -> dict[str, Tensor]:
    told, kinds = answer.contacts, truth.object_kinds[:, 0]
    # Signed distance needs a shape that is known: not every object's is.
    solid = kinds >= 0
    held = truth.object_poses[:, 0], kinds, truth.object_halves_m[:, 0]
    surface, bones = (contact.distance_to(points, *held) for points in (told.points_m, answer.hand.joints_m))
    surface = torch.where(solid[:, None], surface, 0.0)
    labelled = truth.contacts_labelled
    return {
        "contact_confidence": contact.confidence_loss(told.confidence_logits, truth.touching, labelled),
        "contact_points": contact.contact_point_loss(
            told.points_m, truth.contact_points_m, surface, truth.touching & labelled
        ),
        "penetration": contact.penetration_loss(bones, solid & truth.has_hand),
    }


@torch.no_grad()
def match(told: ObjectOutput, truth: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, queries and objects that belong together: least cost in all (Hungarian), each object one query."""
    off = torch.cdist(told.positions_m.float(), truth.object_poses[..., :3, 3])
    surprise = -told.class_logits.float().log_softmax(-1)
    classes = truth.object_classes.clamp(min=0)[:, None].expand(-1, told.queries.shape[1], -1)
    known = (truth.object_classes >= 0)[:, None]
    nats = torch.where(known, surprise.gather(2, classes), 0.0) - told.confidence_logits.float()[..., None].sigmoid()
    cost = (PER_M * off + PER_NAT * nats).cpu().numpy()
    present = truth.present.cpu().numpy()
    found: list[tuple[int, int, int]] = []
    for row, (costs, here) in enumerate(zip(cost, present, strict=True)):
        things = np.flatnonzero(here)
        queries, chosen = linear_sum_assignment(costs[:, things])
        found += [(row, int(query), int(things[k])) for query, k in zip(queries, chosen, strict=True)]
    table = torch.tensor(found, dtype=torch.long, device=told.positions_m.device).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
