"""The service's tracker: actors/tracker, with its networks in the named actors `segmenter` and `embedder`.

In: the `arguments` of settings.tracking. Out: backend.Backend. Named by `tracking.backend`; made in every Tracker
replica and in the target store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.tracker.banks import Bank, restore_bank
from actors.tracker.errors import BankUnusable
from actors.tracker.far import FarEmbedder, Maker, views_of_mesh, with_banks, without_banks
from actors.tracker.mesh import View as TrackerView
from actors.tracker.records import TrackerLike
from robot import wire
from robot.errors import PolicyError
from serve.backend import Progress
from serve.named import Named
from serve.uploads import View

# Loading the two networks on a busy small machine.
PATIENCE_S = 120.0


class ZeroShot:
    """See backend.Backend."""

    def __init__(self, segmenter: str, embedder: str, profile: str, views: int, device: str) -> None:
        far = Named(embedder, PATIENCE_S)
        self._embedder = FarEmbedder(far, far.call("told", "name"), far.call("told", "fingerprint"))
        self._maker = Maker(Named(segmenter, PATIENCE_S), self._embedder, profile, device)
        self._views = views

    def tracker(self) -> TrackerLike:
        """See Backend."""
        return self._maker.tracker()

    def bank_from_views(self, name: str, views: Sequence[View], progress: Progress) -> bytes:
        """See Backend."""
        return self._made(name, [TrackerView(view.rgb, view.mask, None) for view in views], progress)

    def bank_from_mesh(self, name: str, mesh: bytes, kind: str, progress: Progress) -> bytes:
        """See Backend."""
        progress(0, self._views)
        with tempfile.TemporaryDirectory(prefix="reafference-") as folder:
            path = Path(folder) / f"mesh.{kind}"
            path.write_bytes(mesh)
            try:
                views = views_of_mesh(path, self._views)
            except BankUnusable as error:
                raise BankUnusable(str(error).replace(str(path), "the upload")) from error
        return self._made(name, views, progress)

    def bank(self, data: bytes) -> Bank:
        """See Backend."""
        try:
            saved = wire.unpack(data, len(data))
        except PolicyError as error:
            raise BankUnusable(f"the stored bank is damaged: {error}") from error
        del saved["type"]
        return restore_bank(saved)

    def slim(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """See Backend."""
        return without_banks(state)

    def whole(self, state: Mapping[str, Any], banks: Mapping[str, Bank]) -> dict[str, Any]:
        """See Backend."""
        return with_banks(state, banks)

    def _made(self, name: str, views: Sequence[TrackerView], progress: Progress) -> bytes:
        def done(count: int) -> None:
            progress(count, len(views))

        bank = self._maker.bank(name, views, done)
        return wire.pack({"type": "bank", **_plain(bank.save())})


def _plain(saved: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's scalars as Python's, which is what travels."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in saved.items()}


def backend(
    segmenter: str = "segmenter",
    embedder: str = "embedder",
    profile: str = "edge",
    views: int = 42,
    device: str = "cpu",
) -> ZeroShot:
    """Names of the two actors; `edge` or `gpu` proposals; views per rendered mesh, 42 or 162; the decoder's device."""
    return ZeroShot(segmenter, embedder, profile, views, device)
