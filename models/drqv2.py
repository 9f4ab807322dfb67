"""DrQ-v2 encoder and actor (and critics, for checks) of the SO-101 seg+depth policy, and the reader of its snapshots.

In: (B, T, 2, 84, 84) pictures 0..255 and (B, T, N) proprioception. Out: actions in [-1, 1]. Used by
actors/so101_policy.py. Names and order are those of robobase-org/robobase@411b7c7 (DrQV2 with the configuration of
ggand0/pick-101@55fe119), so that `*_snapshot.pt` loads; what reading them must never do is run their pickle
(inert_pickle.py).
"""

# B batch, T frames oldest first, P planes, C = T·P channels, H W pixels, N proprioception, D features

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import inert_pickle, shipped
from models.errors import UnexpectedModel
from models.layout import require_same_layout

ENCODER_SIDE = 35  # 84 → 41 → 39 → 37 → 35 with strides 2, 1, 1, 1 and no padding
ENCODER_CHANNELS = 32
BOTTLENECK = 50
HIDDEN = 256


class Encoder(nn.Module):
    """Four 3×3 convolutions; maps 0..255 to -0.5..0.5 itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(4):
            inputs, stride = (channels, 2) if index == 0 else (ENCODER_CHANNELS, 1)
            layers += [nn.Conv2d(inputs, ENCODER_CHANNELS, 3, stride=stride), nn.ReLU()]
        # Indices 0, 3, 6, 9 hold the convolutions: the original has an identity after each ReLU.
        padded = [item for pair in zip(layers[::2], layers[1::2], strict=True) for item in (*pair, nn.Identity())]
        self.convs_per_cam = nn.ModuleList([nn.Sequential(*padded)])

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, C, 84, 84) float 0..255 to (B, D) features, D = 32·35·35 in the order channel, row, column."""
        return self.convs_per_cam[0](image_BCHW / 255.0 - 0.5).flatten(1)


class Trunk(nn.Module):
    """Two bottlenecks, concatenated view first, then an MLP; a critic appends the action last."""

    def __init__(self, low_dim: int, extra: int, outputs: int) -> None:
        super().__init__()
        features = ENCODER_CHANNELS * ENCODER_SIDE**2
        self.input_preprocess_modules = nn.ModuleDict(
            {
                "fused_view_feats": self._bottleneck(features),
                "low_dim_obs": self._bottleneck(low_dim),
            }
        )
        self.main_mlp = nn.Sequential(
            nn.Linear(2 * BOTTLENECK + extra, HIDDEN),
            nn.Identity(),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.Identity(),
            nn.ReLU(),
        )
        self.out_mlp = nn.Sequential(nn.Linear(HIDDEN, outputs))

    @staticmethod
    def _bottleneck(inputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, BOTTLENECK), nn.LayerNorm(BOTTLENECK), nn.Tanh())

    def forward(
        self, features_BD: torch.Tensor, low_dim_BN: torch.Tensor, action_BA: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, outputs), raw."""
        view = self.input_preprocess_modules["fused_view_feats"](features_BD)
        low = self.input_preprocess_modules["low_dim_obs"](low_dim_BN)
        parts = [view, low] if action_BA is None else [view, low, action_BA]
        return self.out_mlp(self.main_mlp(torch.cat(parts, dim=1)))


class DrQv2(nn.Module):
    """Encoder, actor, two critics and their targets."""

    def __init__(self, *, frames: int, planes: int, low_dim: int, actions: int, critics: bool = True) -> None:
        """Without `critics` only what acts: a policy that was cloned has none."""
        super().__init__()
        self.frames, self.planes, self.low_dim, self.actions = frames, planes, low_dim, actions
        stacked = frames * low_dim
        self.encoder = Encoder(frames * planes)
        self.actor_model = Trunk(stacked, 0, actions)
        if critics:
            self.critic = _twins(stacked, actions)
            self.critic_target = _twins(stacked, actions)

    def features(self, image_BTPHW: torch.Tensor) -> torch.Tensor:
        """(B, T, P, 84, 84) float 0..255 to (B, D); flattens time first: frame t-2's planes, then t-1's, then t's."""
        return self.encoder(image_BTPHW.flatten(1, 2))

    def act(self, image_BTPHW: torch.Tensor, low_dim_BTN: torch.Tensor) -> torch.Tensor:
        """(B, A) evaluation action in [-1, 1]: the mean of the policy."""
        return torch.tanh(self.actor_model(self.features(image_BTPHW), low_dim_BTN.flatten(1)))

    def q(self, features_BD: torch.Tensor, low_dim_BTN: torch.Tensor, action_BA: torch.Tensor) -> torch.Tensor:
        """(B, 2): both critics' values of an action."""
        return _values(self.critic, features_BD, low_dim_BTN, action_BA)

    def q_target(self, features_BD: torch.Tensor, low_dim_BTN: torch.Tensor, action_BA: torch.Tensor) -> torch.Tensor:
        """(B, 2): both target critics' values."""
        return _values(self.critic_target, features_BD, low_dim_BTN, action_BA)


def _twins(low_dim: int, actions: int) -> nn.ModuleDict:
    return nn.ModuleDict({"qs": nn.ModuleList([Trunk(low_dim, actions, 1), Trunk(low_dim, actions, 1)])})


def _values(critic: nn.ModuleDict, features: torch.Tensor, low_dim: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    return torch.cat([trunk(features, low_dim.flatten(1), action) for trunk in critic["qs"]], dim=1)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A loaded policy and what its file says of it."""

    network: DrQv2
    config: dict[str, Any]  # the training configuration as plain values
    iterations: int
    sha256: str


def load_snapshot(path: Path) -> Snapshot:
    """Read a `*_snapshot.pt`, or a policy that we ship (.safetensors), on the CPU.

    Raises UnexpectedModel naming what differs, OSError without a file.
    """
    if path.suffix == shipped.SUFFIX:
        return _load_shipped(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    content = inert_pickle.load(path)
    if not isinstance(content, dict) or "agent" not in content or "cfg" not in content:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UnexpectedModel(f"{path} is not a policy snapshot: it has {found}, expected `agent` and `cfg`")
    config = content["cfg"].plain() if isinstance(content["cfg"], inert_pickle.Inert) else content["cfg"]
    weights = _own_weights(content["agent"])
    network = _network_for(path, weights, int(config.get("frame_stack", 3)))
    require_same_layout(path, network.state_dict(), weights)
    network.load_state_dict(weights, strict=True)
    return Snapshot(network.eval(), config, int(content.get("_main_loop_iterations", 0)), sha256)


def _load_shipped(path: Path) -> Snapshot:
    """Encoder and actor alone, and the note that was stored with them."""
    weights, note, sha256 = shipped.read(path)
    network = _network_for(path, weights, int(note.get("frame_stack", 3)), critics=False)
    require_same_layout(path, network.state_dict(), weights)
    network.load_state_dict(weights, strict=True)
    return Snapshot(network.eval(), note, int(note.get("steps", 0)), sha256)


def _own_weights(agent: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the unused recurrent states, and the actor once: it is stored under two names."""
    return {
        key: value
        for key, value in agent.items()
        if not key.endswith(".hidden_state") and not key.startswith("actor.actor_model.")
    }


def _network_for(path: Path, weights: dict[str, torch.Tensor], frames: int, *, critics: bool = True) -> DrQv2:
    try:
        channels = weights["encoder.convs_per_cam.0.0.weight"].shape[1]
        low_dim = weights["actor_model.input_preprocess_modules.low_dim_obs.0.weight"].shape[1]
        actions = weights["actor_model.out_mlp.0.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise UnexpectedModel(f"{path} is of another layout: {error} is missing") from error
    if channels % frames or low_dim % frames:
        raise UnexpectedModel(f"{path}: {channels} channels and {low_dim} numbers do not divide into {frames} frames")
    sizes = {"planes": channels // frames, "low_dim": low_dim // frames, "actions": actions}
    return DrQv2(frames=frames, **sizes, critics=critics)
