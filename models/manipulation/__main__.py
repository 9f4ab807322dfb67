"""`python -m models.manipulation --describe tiny`: what a size is made of, without making it."""

from __future__ import annotations

import argparse
import sys

from models.errors import ModelError
from models.manipulation.network import counts, empty
from models.manipulation.size import SIZES, size_named


def describe(name: str) -> str:
    """Parameters by part, one line each."""
    size = size_named(name)
    rows = [f"{part:<9} {total:>12,} {trained:>12,}" for part, (total, trained) in counts(empty(size)).items()]
    title = f"{size.name}: pictures of {size.image_px} px, 16 × 16 patches, {size.backbone_layers} layers"
    return "\n".join([title, f"{'part':<9} {'parameters':>12} {'trained':>12}", *rows])


def main() -> int:
    """Print and return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.manipulation", description=__doc__)
    parser.add_argument("--describe", metavar="SIZE", required=True, help=f"one of {', '.join(SIZES)}")
    try:
        sys.stdout.write(describe(parser.parse_args().describe) + "\n")
    except ModelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
