"""Behaviour cloning of the expert into the public policy's own network: encoder and actor of DrQ-v2.

In: a Pool and PolicySettings. Out: losses, state, a network in the public layout. Called by so101/job.py.

The contract feeds class ids as pixel values: 0..4 of 255, a hundredth of what disparity spans. The network is therefore
trained on ids stretched to the full range, and the stretch is folded into the first convolution afterwards (`folded`),
so that what ships takes the contract's picture as it is. A second head tells where the cube is, from the simulator; it
shapes the features and is thrown away.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.drqv2 import HIDDEN, DrQv2
from robot.contract import PolicyContract
from train_jobs.place import Place
from train_jobs.settings import Settings
from train_jobs.so101.average import Average
from train_jobs.so101.rate import rate_share
from train_jobs.so101_policy.expert import TOP
from train_jobs.so101_policy.pool import Pool

# Ids 0..4 become -0.5..0.5, like disparity's 0..255.
STRETCH = 255.0 / 4.0
BESIDE_SCALE_M = 0.1
KEPT_BACK = 0.03  # share of samples, the last ones, that are measured only


class PolicySettings(Settings):
    """configs/so101_policy.yaml."""

    steps: tuple[int, ...] = Field(min_length=1, description="optimiser steps of every round; round 0 clones")
    episodes: tuple[int, ...] = Field(min_length=1, description="collected before every round")
    predicted: tuple[float, ...] = Field(
        min_length=1, description="share of them seen through the segmentation network"
    )
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    cooldown_steps: tuple[int, ...] = Field(min_length=1, description="at a round's end, with a rate that falls")
    averaging: float = Field(ge=0, lt=1, description="share of the old in the running average of the weights")
    cube_weight: float = Field(ge=0, description="of the head that tells where the cube is")
    joint_noise_rad: float = Field(ge=0)
    speed_noise: float = Field(ge=0, description="share of the joint speeds")
    measure_every: int = Field(ge=1)
    seed: int = Field(ge=0, default=0)


class Learner(nn.Module):
    """The policy on stretched ids, and the head that tells where the cube is."""

    def __init__(self, contract: PolicyContract) -> None:
        super().__init__()
        image, action = contract.image, contract.action
        self.policy = DrQv2(
            frames=image.stack, planes=2, low_dim=contract.low_dim_size, actions=action.size, critics=False
        )
        self.cube = nn.Linear(HIDDEN, 3)

    def forward(self, image_BTPHW: Tensor, low_dim_BTN: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 planes and proprioception to actions (B, A) and the cube from the tool (B, 3) in BESIDE_SCALE_M."""
        scale = image_BTPHW.new_tensor([STRETCH, 1.0], dtype=torch.float32).view(1, 1, 2, 1, 1)
        stretched = (image_BTPHW.float() * scale).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        trunk = self.policy.actor_model
        with torch.autocast(stretched.device.type, dtype=torch.bfloat16):
            features = self.policy.encoder(stretched)
            view = trunk.input_preprocess_modules["fused_view_feats"](features)
        low = trunk.input_preprocess_modules["low_dim_obs"](low_dim_BTN.flatten(1))
        hidden = trunk.main_mlp(torch.cat([view.float(), low], 1))
        return torch.tanh(trunk.out_mlp(hidden)), self.cube(hidden)

    def folded(self) -> dict[str, Tensor]:
        """The policy's tensors for pictures whose ids are not stretched: the same function."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.policy.state_dict().items()}
        weight, bias = (tensors[f"encoder.convs_per_cam.0.0.{part}"] for part in ("weight", "bias"))
        ids = slice(0, None, 2)  # planes alternate: ids, disparity
        # stretched/255 - 0.5 = STRETCH·(x/255 - 0.5) + (STRETCH - 1)/2
        bias += weight[:, ids].sum((1, 2, 3)) * (STRETCH - 1) / 2
        weight[:, ids] *= STRETCH
        return tensors


class PolicyTrainer:
    """The Trainer protocol of so101/job.py, for one round."""

    def __init__(
        self, settings: PolicySettings, contract: PolicyContract, number: int, pool: Pool, place: Place
    ) -> None:
        torch.manual_seed(settings.seed + number)
        self.settings, self._pool, self._place, self._round = settings, pool, place, number
        self.steps, self.measure_every, self.steps_done = settings.steps[number], settings.measure_every, 0
        values = settings.fingerprint(but={"steps", "cooldown_steps", "episodes", "predicted"})
        self.fingerprint = f"{values} round {number} of {len(pool)} samples"
        self.learner = Learner(contract).to(place.device)
        self.learner.policy.encoder.to(memory_format=torch.channels_last)
        self._forward: nn.Module = place.wrap(self.learner)
        self._optimiser = torch.optim.AdamW(
            self.learner.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.average = Average(self.learner, settings.averaging)
        self._kept = max(1, int(len(pool) * KEPT_BACK))
        self._frames = contract.image.stack

    def start_from(self, learner_state: dict[str, Tensor]) -> None:
        """Take over the network of an earlier round."""
        self.learner.load_state_dict(learner_state)
        self.average.network.load_state_dict(learner_state)

    def step(self) -> dict[str, float]:
        """One batch."""
        settings, place = self.settings, self._place
        for group in self._optimiser.param_groups:
            group["lr"] = settings.learning_rate * self._share()
        rng = np.random.default_rng([settings.seed, self._round, self.steps_done])
        chosen = rng.integers(0, len(self._pool) - self._kept, settings.batch_size)[place.rank :: place.workers]
        self.learner.train()
        parts = self._losses(self._forward, chosen, rng)
        loss = parts["xyz"] + parts["jaw"] + settings.cube_weight * parts["cube"]
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self._optimiser.step()
        self.steps_done += 1
        self.average.update(self.learner, self.steps_done)
        return {name: float(value.detach()) for name, value in parts.items()}

    def measure(self) -> dict[str, float]:
        """The same losses on the samples kept back, without noise."""
        self.average.network.eval()
        total = len(self._pool)
        sums: dict[str, float] = {}
        chosen = np.arange(total - self._kept, total)
        for part in np.array_split(chosen, math.ceil(len(chosen) / 64)):
            with torch.inference_mode():
                for name, value in self._losses(self.average.network, part, None).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(part)
        return {f"held_{name}": value / len(chosen) for name, value in sums.items()}

    def state(self) -> dict[str, Any]:
        """Network, optimiser, step."""
        return {
            "learner": self.learner.state_dict(),
            "average": self.average.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps_done": self.steps_done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.learner.load_state_dict(state["learner"])
        self.average.network.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps_done = state["steps_done"]

    def _share(self) -> float:
        """Of the peak rate."""
        settings = self.settings
        return rate_share(self.steps_done, self.steps, settings.warmup_steps, settings.cooldown_steps[self._round])

    def _losses(self, network: nn.Module, chosen: np.ndarray, noise: np.random.Generator | None) -> dict[str, Tensor]:
        image, low_dim = self._pool.stack(chosen, self._frames)
        if noise is not None:
            low_dim = self._noisy(low_dim, noise)
        device = self._place.device
        action, cube = network(torch.from_numpy(image).to(device), torch.from_numpy(low_dim).to(device))
        teach = torch.from_numpy(self._pool.teach[chosen]).to(device)
        beside = torch.from_numpy(self._pool.beside[chosen]).to(device) / BESIDE_SCALE_M
        seen = torch.from_numpy(self._pool.seen[chosen]).to(device)[:, None].float()
        return {
            "xyz": F.smooth_l1_loss(action[:, :3] / TOP, teach[:, :3] / TOP, beta=0.2),
            "jaw": F.smooth_l1_loss(action[:, 3], teach[:, 3], beta=0.2),
            "cube": (F.smooth_l1_loss(cube, beside, beta=0.1, reduction="none") * seen).mean(),
        }

    def _noisy(self, low_dim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noisy = low_dim.copy()
        noisy[..., :6] += rng.normal(0, self.settings.joint_noise_rad, (*low_dim.shape[:-1], 6))
        noisy[..., 6:12] *= 1 + rng.normal(0, self.settings.speed_noise, (*low_dim.shape[:-1], 6))
        return noisy
