"""One TensorFlow Lite model, run by LiteRT on the CPU with a fixed number of threads.

In: one array. Out: its output tensors by name. Called by the networks in models/ that come as .tflite
files. Knows nothing of what the tensors mean. The same input gives the same bits, whatever else the machine
runs, because the number of threads (and with it the order of summation) is fixed and no call shares a
buffer with another.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import UnexpectedModel

Shape = tuple[int, ...]


class LiteRtModel:
    """A model with one input. Calls are serialised: an interpreter must not run in two threads at once."""

    def __init__(self, path: Path, input_shape: Shape, outputs: Mapping[str, Shape], threads: int = 1) -> None:
        """Load the file; `outputs` names its output tensors, in the file's order, with the shape of each.

        Raises UnexpectedModel when the file holds something else.
        """
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UnexpectedModel(f"{path} cannot be read as a TensorFlow Lite model: {error}") from error
        source, *more = self._interpreter.get_input_details()
        targets = self._interpreter.get_output_details()
        found = [tuple(map(int, detail["shape"])) for detail in (source, *more, *targets)]
        if found != [input_shape, *outputs.values()]:
            raise UnexpectedModel(f"{path} has tensors {found}, expected {[input_shape, *outputs.values()]}")
        self.input_shape = input_shape
        self.input_dtype: npt.DTypeLike = source["dtype"]
        self._input_index = source["index"]
        self._output_index = {name: detail["index"] for name, detail in zip(outputs, targets, strict=True)}
        self._lock = threading.Lock()

    def __call__(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Run once on an array of `input_shape` and `input_dtype`; outputs are the caller's own copies."""
        with self._lock:
            self._interpreter.set_tensor(self._input_index, array)
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._output_index.items()}
