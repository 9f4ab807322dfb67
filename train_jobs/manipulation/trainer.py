"""Stage 1 step by step, and everything that a step depends on, so that it can go on where it stopped.

In: a network, samples, a StageConfig, a place among workers. Out: losses per step, the averaged network. Called by
stage1.py, which reads and writes; the tests run it alone. Which samples and which changes: a generator seeded with
(seed, step) decides, so the step's number is the sampler's whole position.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.manipulation.backbone import DinoBackbone, TinyBackbone
from models.manipulation.network import ManipulationTransformer
from train_jobs.manipulation import memory
from train_jobs.manipulation.augment import Strength, augment
from train_jobs.manipulation.config import StageConfig
from train_jobs.manipulation.monitors import CollapseDetector, attention_entropy, finite, spread_m
from train_jobs.manipulation.objective import Stage1Objective
from train_jobs.manipulation.samples import Samples
from train_jobs.place import Place

# A training may go on for longer or shorter than it was begun for: the rate then ends where it ends.
HOW_LONG = frozenset({"epochs"})


def parameter_groups(
    network: ManipulationTransformer, objective: nn.Module, config: StageConfig
) -> list[dict[str, Any]]:
    """Three rates without overlap: a pretrained backbone, what feeds the heads, the heads. Frozen ones are left out."""
    pretrained = isinstance(network.backbone, DinoBackbone)
    old = list(network.backbone.dino.parameters()) if pretrained else []
    new = [p for part in (network.backbone, network.memory, network.whole) for p in part.parameters()]
    heads = [p for part in (network.hand, network.objects, network.contacts, objective) for p in part.parameters()]
    taken: set[int] = set()
    groups = []
    for parameters, share in ((old, config.lr_backbone), (new, config.lr_new if pretrained else 1.0), (heads, 1.0)):
        own = [p for p in parameters if p.requires_grad and id(p) not in taken]
        taken |= {id(p) for p in own}
        # Norms, biases and queries are not pulled to 0.
        for decays in (True, False):
            some = [p for p in own if (p.ndim >= 2) == decays]
            if some:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": some, "peak": config.lr * share, "weight_decay": decay})
    return groups


@dataclass(slots=True)
class Trainer:
    """Trains `network` on `samples`, which stay where they are."""

    network: ManipulationTransformer
    config: StageConfig
    samples: Samples
    place: Place = field(default_factory=Place)
    step_number: int = 0
    objective: Stage1Objective = field(default_factory=Stage1Objective)
    detector: CollapseDetector = field(default_factory=CollapseDetector)
    average: ManipulationTransformer = field(init=False)
    optimiser: torch.optim.Optimizer = field(init=False)
    learner: nn.Module = field(init=False)
    at_once: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin at the mean pose of the samples, and average the weights from there."""
        device = self.samples.pictures.device
        self.network.hand.mean_depths_m.copy_(mean_pose(self.samples)[:, 2])
        self.network.backbone.save_memory(self.config.checkpointing)
        self.network.to(device)
        self.objective.to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        groups = parameter_groups(self.network, self.objective, self.config)
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, fused=True)
        learner = Learner(self.network, self.objective, self.config.bf16)
        own = -(-self.config.batch_size // self.place.workers)
        target = self.config.memory_target_gib
        some = self.samples[slice(0, max(memory.TRIALS))]
        self.at_once = own if target is None else memory.at_once(
            learner, lambda n: learner(_repeated(some, n)), own, target
        )  # fmt: skip
        self.learner = self.place.wrap(learner)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches."""
        return max(1, len(self.samples) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """In all."""
        return self.config.epochs * self.steps_per_epoch

    def share(self) -> float:
        """Of the peak rate: linear warm-up, then one half of a cosine that ends at 0 with the last step."""
        at, warm = self.step_number + 1, self.config.warmup_steps
        if at <= warm:
            return at / warm
        return 0.5 * (1 + math.cos(math.pi * (at - warm) / max(1, self.steps - warm)))

    def batch(self) -> Samples:
        """What this worker makes the next step on."""
        epoch, place = divmod(self.step_number, self.steps_per_epoch)
        order = torch.Generator().manual_seed(1_000_003 * self.config.seed + epoch)
        size = self.config.batch_size
        rows = torch.randperm(len(self.samples), generator=order)[place * size : (place + 1) * size]
        rows = rows[self.place.rank :: self.place.workers]
        batch = self.samples[rows.to(self.samples.pictures.device)]
        if not self.config.augment:
            return batch
        own = 15_485_863 * self.place.rank
        rng = torch.Generator().manual_seed(7_919 * self.config.seed + 31 * self.step_number + 1 + own)
        return augment(batch, Strength(), rng)

    def step(self) -> dict[str, float]:
        """One optimiser step; every loss, their sum, the rate, and what is only watched. Raises Collapsed."""
        self.network.train()
        batch, epoch = self.batch(), self.step_number / self.steps_per_epoch
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self.share()
        self.optimiser.zero_grad(set_to_none=True)
        numbers, joints = self._gradients(batch, epoch)
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, self.config.gradient_clip)
        self.optimiser.step()
        self.step_number += 1
        self._follow()
        seen = batch.has_hand
        spread = spread_m(joints[seen]) if seen.any() else 0.0
        return {**numbers, "lr": self.share() * self.config.lr, "spread_m": spread}

    def _gradients(self, batch: Samples, epoch: float) -> tuple[dict[str, float], Tensor]:
        """Gradients of the batch, `at_once` pictures at a time; the losses, and the joints that were told."""
        numbers: dict[str, float] = {}
        joints: list[Tensor] = []
        starts = range(0, len(batch), self.at_once)
        for at in starts:
            piece = batch[slice(at, at + self.at_once)]
            # Workers exchange gradients once per step, with the last piece.
            waits = getattr(self.learner, "no_sync", nullcontext) if at != starts[-1] else nullcontext
            with waits():
                parts, told = self.learner(piece)
                finite(parts)
                total = self.config.weighting().total(parts, epoch)
                share = len(piece) / len(batch)
                (share * total).backward()
            joints.append(told.detach().float())
            for name, value in {"loss": total, **parts}.items():
                numbers[name] = numbers.get(name, 0.0) + share * float(value.detach())
        return numbers, torch.cat(joints)

    @torch.no_grad()
    def _follow(self) -> None:
        # A young average forgets its random start sooner.
        keep = min(self.config.ema, self.step_number / (self.step_number + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - keep)
        for kept, new in zip(self.average.buffers(), self.network.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - keep)
            else:
                kept.copy_(new)

    @torch.no_grad()
    def look(self, held_out: Samples) -> dict[str, float]:
        """Errors of the averaged network on held-out samples, in millimetres. Raises Collapsed."""
        told = predict(self.average, held_out, self.config.batch_size)
        seen = held_out.joints_labelled.all(1)
        joints, true = told["joints_m"][seen], held_out.joints_m[seen].cpu()
        share = self.detector.look(joints, true)
        off = (joints - joints[:, :1] - true + true[:, :1]).norm(dim=-1)
        away = (joints - true).norm(dim=-1)
        entropy = {}
        if isinstance(self.average.backbone, TinyBackbone):
            few = self.average.backbone.last_attention(held_out.pictures[:4] / 255)
            entropy = {"attention_entropy": attention_entropy(few)}
        return {
            "root_mm": 1000 * float(off.mean()),
            "absolute_mm": 1000 * float(away.mean()),
            "spread": share,
            **entropy,
        }

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on, but for the data."""
        return {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "objective": self.objective.state_dict(), "optimiser": self.optimiser.state_dict(),
            "step": self.step_number, "looks": [self.detector.looks, self.detector.flat],
            "fingerprint": self.config.fingerprint(but=HOW_LONG),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step_number = state["step"]
        self.detector.looks, self.detector.flat = state["looks"]


class Learner(nn.Module):
    """Network and losses in one module: what workers join their gradients of."""

    def __init__(self, network: ManipulationTransformer, objective: Stage1Objective, bf16: bool) -> None:
        super().__init__()
        self.network, self.objective, self.bf16 = network, objective, bf16

    def forward(self, batch: Samples) -> tuple[dict[str, Tensor], Tensor]:
        """Every loss by name, and joints (B, 21, 3)."""
        with torch.autocast(batch.pictures.device.type, torch.bfloat16, enabled=self.bf16):
            answer = self.network(batch.pictures, batch.intrinsics)
        return self.objective(answer, batch), answer.hand.joints_m


def _repeated(samples: Samples, count: int) -> Samples:
    return samples[torch.arange(count, device=samples.pictures.device) % len(samples)]


def mean_pose(samples: Samples) -> Tensor:
    """(21, 3) mean over fully labelled hands of the joints seen from the wrist."""
    whole = samples.joints_m[samples.joints_labelled.all(1)]
    return (whole - whole[:, :1]).mean(0) if len(whole) else torch.zeros_like(samples.joints_m[0])


@torch.no_grad()
def predict(network: ManipulationTransformer, samples: Samples, batch_size: int) -> dict[str, Tensor]:
    """What the network says of all samples, on the CPU: joints, confidences, objects, contacts."""
    network.eval()
    parts: dict[str, list[Tensor]] = {}
    for at in range(0, len(samples), batch_size):
        some = samples[slice(at, at + batch_size)]
        answer = network(some.pictures, some.intrinsics)
        row = {
            "joints_m": answer.hand.joints_m,
            "confidence": answer.hand.confidence_logits.sigmoid(),
            "object_positions_m": answer.objects.positions_m,
            "object_rotations": answer.objects.rotations(),
            "object_confidence": answer.objects.confidence_logits.sigmoid(),
            "touching": answer.contacts.confidence_logits.sigmoid(),
            "contact_points_m": answer.contacts.points_m,
        }
        for name, value in row.items():
            parts.setdefault(name, []).append(value.float().cpu())
    return {name: torch.cat(values) for name, values in parts.items()}
