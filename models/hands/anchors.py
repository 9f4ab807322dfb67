"""The grid of reference points that the palm detector's outputs are offsets from.

In: nothing. Out: one centre per detector row. Called by palm.py. Knows nothing of images.
"""

from __future__ import annotations

import numpy as np

INPUT_SIZE_PX = 192
# (stride in input pixels, anchors per cell): MediaPipe's four layers of strides 8, 16, 16, 16 with two
# anchors each; layers of one stride share their cells (palm_detection_cpu.pbtxt,
# ssd_anchors_calculator.cc).
LAYERS = ((8, 2), (16, 6))
ANCHOR_COUNT = sum((INPUT_SIZE_PX // stride) ** 2 * per_cell for stride, per_cell in LAYERS)  # 2016


def anchor_centres() -> np.ndarray:
    """Centres of all anchors: (2016, 2) float32, x and y as shares of the input's side, layer by layer.

    Every anchor has size 1 (`fixed_anchor_size`), so centres are all there is.
    """
    layers = []
    for stride, per_cell in LAYERS:
        cells = INPUT_SIZE_PX // stride
        middle = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(middle, middle, indexing="ij")
        layers.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), per_cell, axis=0))
    return np.concatenate(layers)
