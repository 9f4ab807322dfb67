"""SAM 2 frame by frame: `see` a frame, `prompt` objects on it, `propagate` all of them, in memory that does not grow.

In: RGB frames, prompts in their pixels. Out: mask logits and presence. Called by actors/tracker/video.py and
actors/video_segmenter.py. Knows nothing of templates or of when an object counts as lost.

Two modes. `exact`: bit for bit the masks of the package's own video predictor (which keeps every frame), as long as
no more frames are prompted than `most_conditioning`. `robust`: frames without the object, or that the caller does not
trust, are not remembered; the last remembered ones count instead of the last ones, and a few prompted frames are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from models.sam2.memory import Bank, Memory, output_dict, restore_bank, save_bank, to_array, to_tensor
from models.sam2.picture import prepare
from models.sam2.precision import computing

_log = logging.getLogger(__name__)

Mode = Literal["exact", "robust"]

# The package scales the pointers' temporal encoding by min(frames of the video, 16); a stream has no such number,
# and any constant from 16 up gives what a long video gives.
FRAMES_OF_A_STREAM = 1 << 30
# Of the bfloat16 spatial memory a prompted frame costs 512 KiB for ever: a stated cap, passed with an event.
MOST_CONDITIONING = {"exact": 64, "robust": 4}
# Range that the package clamps a mask to before it is given back with new points.
PREVIOUS_LOGITS_CLAMP = 32.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame through the backbone; what automatic masks and tracking both start from."""

    features: list[torch.Tensor]  # 3 maps, (h·w, 1, C), the finest first, as the package flattens them
    positions: list[torch.Tensor]
    sizes: list[tuple[int, int]]  # h, w of each map
    height: int  # of the picture, pixels
    width: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One object in the present frame."""

    logits: torch.Tensor  # (1, 1, side/4, side/4) float32, on the network's device
    presence: float  # object score logit: above 0, the object is in the picture
    dropped_conditioning: int | None = None  # the prompted frame that had to be forgotten for this prompt


@dataclass(slots=True)
class _Object:
    bank: Bank
    pending: dict[str, Any] | None = None  # a prompt's output that is not yet encoded into memory
    pending_is_conditioning: bool = True
    tracked: bool = False  # whether the present frame was propagated already
    logits: torch.Tensor | None = None  # (1, 1, h, w) of the present frame, for corrections
    presence: float = 0.0  # of the present frame


class StreamingSam2:
    """Follows any number of objects. Call from one thread at a time.

    `share_passes` sends objects with equal memory layouts through the network together. That is exact in real
    arithmetic but may change the last bits of floats, so it is off in `exact` mode unless asked for.
    """

    def __init__(
        self,
        network: Any,
        mode: Mode = "exact",
        most_conditioning: int | None = None,
        share_passes: bool | None = None,
    ) -> None:
        if mode not in MOST_CONDITIONING:
            raise ValueError(f"mode must be one of {', '.join(MOST_CONDITIONING)}, not {mode!r}")
        self.network, self.mode = network, mode
        self.most_conditioning = MOST_CONDITIONING[mode] if most_conditioning is None else most_conditioning
        if self.most_conditioning < 1:
            raise ValueError(f"at least 1 prompted frame must be kept, not {self.most_conditioning}")
        self.share_passes = mode == "robust" if share_passes is None else share_passes
        self._features = network.num_maskmem - 1
        self._pointers = network.max_obj_ptrs_in_encoder - 1
        self._objects: dict[str, _Object] = {}
        self._positions: list[torch.Tensor] | None = None
        self._seen: Seen | None = None
        self.frame = -1  # index of the present frame

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of what is followed, in the order in which it was added."""
        return tuple(self._objects)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Seen:
        """The backbone's pass; changes nothing. Raises ValueError unless `image` is (H, W, 3) uint8 RGB."""
        network, dtype = self.network, self._dtype
        square = prepare(image, network.image_size, network.device, dtype)
        with computing(network):
            out = network.forward_image(square)
            _, features, positions, sizes = network._prepare_backbone_features(out)
        # Autocast leaves sums in float32; what is kept and attended to is in the network's own precision.
        features, positions = ([each.to(dtype) for each in maps] for maps in (features, positions))
        return Seen(features, positions, sizes, image.shape[0], image.shape[1])

    @torch.inference_mode()
    def see(self, image: np.ndarray | Seen) -> Seen:
        """Move on to the next frame, or to one that was encoded before (by acquisition, say)."""
        with computing(self.network):
            self._settle()
        self._seen = image if isinstance(image, Seen) else self.encode(image)
        self.frame += 1
        for each in self._objects.values():
            each.tracked, each.logits = False, None
            if self.mode == "exact":
                each.bank.forget_before(self.frame, self._features, self._pointers)
            else:
                each.bank.keep_newest(self._features, self._pointers)
        return self._seen

    @torch.inference_mode()
    def prompt(
        self,
        name: str,
        *,
        mask: np.ndarray | None = None,
        box_px: np.ndarray | None = None,
        points_px: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> Segment:
        """Say where an object is in the present frame, a new one or one that is followed.

        `mask` is (H, W) bool; `box_px` (4,) xyxy; `points_px` (N, 2) with `labels` (N,) 1 on it, 0 off it. A mask is
        taken as it is; box and points go through the decoder. Before `propagate` a prompt starts the object anew on
        this frame, after it the prompt corrects what was tracked. Raises ValueError for a prompt that says nothing.
        """
        seen = self._present()
        if (mask is None) == (box_px is None and points_px is None):
            raise ValueError("a prompt is either a mask, or a box and/or points")
        points, mask_input = None, None
        if mask is not None:
            mask_input = self._mask_input(mask, seen)
        else:
            points = self._point_inputs(box_px, points_px, labels, seen)
        each = self._objects.setdefault(name, _Object(Bank()))
        first = not each.tracked
        before = each.pending["pred_masks"] if each.pending is not None else each.logits
        if before is not None:
            before = before.clamp(-PREVIOUS_LOGITS_CLAMP, PREVIOUS_LOGITS_CLAMP) if points is not None else None
        with computing(self.network):
            out = self._step([self._view(name)], first, points, mask_input, before, memorise=False)
        each.pending, each.pending_is_conditioning = out, first or self.network.add_all_frames_to_correct_as_cond
        each.logits, each.presence = out["pred_masks"], float(out["object_score_logits"])
        dropped = None
        if each.pending_is_conditioning and self.frame not in each.bank.conditioning:
            dropped = each.bank.make_room(self.most_conditioning)
            if dropped is not None and self.mode == "exact":
                _log.warning(
                    "%s has more than %d prompted frames: frame %d is forgotten, and masks may now differ from the "
                    "official predictor's",
                    name,
                    self.most_conditioning,
                    dropped,
                )
        return Segment(each.logits, each.presence, dropped)

    @torch.inference_mode()
    def propagate(self, learn: Mapping[str, bool] | None = None) -> dict[str, Segment]:
        """Every object in the present frame; those prompted on it keep their prompt's mask.

        `learn[name]` False leaves this frame out of that object's memory (robust mode only).
        """
        if learn and self.mode == "exact":
            raise ValueError("exact mode remembers every frame; use mode='robust' to leave frames out")
        self._present()
        with computing(self.network):
            prompted = {name for name, each in self._objects.items() if each.pending is not None}
            self._settle()
            for names in self._groups([name for name in self._objects if name not in prompted]):
                self._track(names, learn or {})
        for each in self._objects.values():
            each.tracked = True
        return {name: self._segment(each) for name, each in self._objects.items()}

    def forget(self, name: str) -> None:
        """Stop following an object. Raises KeyError for an unknown one."""
        del self._objects[name]

    def save(self) -> dict[str, Any]:
        """Plain containers and numpy arrays; call after `propagate`, the present frame itself is not kept."""
        with torch.inference_mode(), computing(self.network):
            self._settle()
        return {
            "mode": self.mode,
            "side_px": self.network.image_size,
            "frame": self.frame,
            "positions": [to_array(each) for each in self._positions or []],
            "objects": [[name, save_bank(each.bank)] for name, each in self._objects.items()],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over what `save` gave. Raises ValueError when it was saved in another mode or input size."""
        mine = {"mode": self.mode, "side_px": self.network.image_size}
        theirs = {key: saved[key] for key in mine}
        if mine != theirs:
            raise ValueError(f"a state saved with {theirs} cannot go on with {mine}")
        device = self.network.device
        self.frame, self._seen = saved["frame"], None
        self._positions = [to_tensor(each, device) for each in saved["positions"]] or None
        self._objects = {name: _Object(restore_bank(bank, device)) for name, bank in saved["objects"]}

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _present(self) -> Seen:
        if self._seen is None:
            raise RuntimeError("see() a frame first")
        return self._seen

    def _segment(self, each: _Object) -> Segment:
        assert each.logits is not None, "every object was prompted or tracked in this frame"
        return Segment(each.logits, each.presence)

    def _groups(self, names: list[str]) -> list[list[str]]:
        if not self.share_passes:
            return [[name] for name in names]
        groups: dict[tuple, list[str]] = {}
        for name in names:
            groups.setdefault(self._view(name).layout(), []).append(name)
        return list(groups.values())

    def _view(self, name: str) -> Bank:
        bank = self._objects[name].bank
        return bank.before(self.frame) if self.mode == "exact" else bank.by_rank(self.frame)

    def _track(self, names: list[str], learn: Mapping[str, bool]) -> None:
        out = self._step([self._view(name) for name in names], False, None, None, None, memorise=True)
        for row, name in enumerate(names):
            each, one = self._objects[name], slice(row, row + 1)
            each.logits, each.presence = out["pred_masks"][one].clone(), float(out["object_score_logits"][row])
            if self.mode == "exact" or (learn.get(name, True) and each.presence > 0):
                each.bank.recent[self.frame] = self._memory(out, one)

    def _settle(self) -> None:
        """Encode prompts into memory, as the package does before it propagates."""
        for each in self._objects.values():
            if (out := each.pending) is None:
                continue
            side = self.network.image_size
            high = F.interpolate(out["pred_masks"], (side, side), mode="bilinear", align_corners=False)
            seen = self._present()
            out["maskmem_features"], out["maskmem_pos_enc"] = self.network._encode_new_memory(
                seen.features, seen.sizes, high, out["object_score_logits"], is_mask_from_pts=True
            )
            self._keep_positions(out)
            if each.pending_is_conditioning:
                each.bank.conditioning[self.frame] = self._memory(out, slice(0, 1))
                each.bank.recent.pop(self.frame, None)
            else:
                each.bank.recent[self.frame] = self._memory(out, slice(0, 1))
            each.pending = None

    def _step(
        self,
        banks: list[Bank],
        first: bool,
        points: dict[str, torch.Tensor] | None,
        mask_input: torch.Tensor | None,
        before: torch.Tensor | None,
        *,
        memorise: bool,
    ) -> dict[str, Any]:
        """The package's own step for objects of one layout, a row of the batch each."""
        seen, rows = self._present(), len(banks)
        out = self.network.track_step(
            frame_idx=self.frame,
            is_init_cond_frame=first,
            current_vision_feats=[each.expand(-1, rows, -1) for each in seen.features],
            current_vision_pos_embeds=[each.expand(-1, rows, -1) for each in seen.positions],
            feat_sizes=seen.sizes,
            point_inputs=points,
            mask_inputs=mask_input,
            output_dict=output_dict(banks, self._positions or []),
            num_frames=FRAMES_OF_A_STREAM,
            run_mem_encoder=memorise,
            prev_sam_mask_logits=before,
        )
        if memorise:
            self._keep_positions(out)
        return out

    def _keep_positions(self, out: Mapping[str, Any]) -> None:
        if self._positions is None:
            self._positions = [each[:1].clone() for each in out["maskmem_pos_enc"]]

    def _mask_input(self, mask: np.ndarray, seen: Seen) -> torch.Tensor:
        """(1, 1, side, side) 0/1 float32, resized as the package does."""
        if mask.shape != (seen.height, seen.width):
            raise ValueError(f"a mask must have the frame's size {seen.height}×{seen.width}, this one is {mask.shape}")
        if not mask.any():
            raise ValueError("an empty mask says nothing about where the object is")
        side = self.network.image_size
        tensor = torch.tensor(mask, device=self.network.device)[None, None].float()
        if mask.shape == (side, side):
            return tensor
        resized = F.interpolate(tensor, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return (resized >= 0.5).float()

    def _point_inputs(
        self, box_px: np.ndarray | None, points_px: np.ndarray | None, labels: np.ndarray | None, seen: Seen
    ) -> dict[str, torch.Tensor]:
        """Points in pixels of the square; a box is two points labelled 2 and 3, and stands first."""
        points = np.zeros((0, 2), np.float32) if points_px is None else np.asarray(points_px, np.float32)
        kinds = np.ones(len(points), np.int32) if labels is None else np.asarray(labels, np.int32)
        if points.shape != (len(kinds), 2):
            raise ValueError(f"points must be (N, 2) with N labels, not {points.shape} with {len(kinds)}")
        if box_px is not None:
            points = np.concatenate([np.asarray(box_px, np.float32).reshape(2, 2), points])
            kinds = np.concatenate([np.array([2, 3], np.int32), kinds])
        size = torch.tensor([seen.width, seen.height])
        coords = torch.tensor(points)[None] / size * self.network.image_size
        device = self.network.device
        return {"point_coords": coords.to(device), "point_labels": torch.tensor(kinds)[None].to(device)}

    def _memory(self, out: Mapping[str, Any], rows: slice) -> Memory:
        # Copies: a row of a batch would keep the whole batch alive.
        return Memory(
            out["maskmem_features"][rows].to(torch.bfloat16, copy=True),
            out["obj_ptr"][rows].to(self._dtype, copy=True),
            out["object_score_logits"][rows].clone(),
        )
