"""How large a TrackSSM network is. Used by network.py, residual.py, decoder.py and checkpoint.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """How large a network is."""

    width: int
    layers: int
    heads: int
    hidden: int
    state: int


# full: the published size, 5.13 M parameters. small: 0.2 M, for one CPU core; half the state, because the scan's
# exponentials are what a narrow network spends most of its time on.
SIZES = {"full": Size(256, 6, 6, 512, 16), "small": Size(64, 3, 3, 128, 8)}
