"""Reads old `torch.save` files whose pickles name classes that must not be run.

In: a zip checkpoint. Out: its content, tensors on the CPU, with every class outside a short list turned into an inert
record. Used by drqv2.py. Nothing is imported by name from the file and no constructor of the file's choice is called.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import UnexpectedModel

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# A snapshot holds about 100 tensors and a configuration of a few kB; a pickle beyond this is not one.
MAX_PICKLE_BYTES = 16 * 1024 * 1024


class Inert:
    """Stands for an object of a class that is not run. Keeps what was pickled: its class name and state."""

    def __init__(self, name: str) -> None:
        self.class_name = name
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"Inert({self.class_name})"

    def plain(self) -> Any:
        """OmegaConf nodes as plain dicts, lists and values; anything else as itself."""
        state = self.state if isinstance(self.state, dict) else {}
        if "_val" in state:
            return state["_val"]
        content = state.get("_content")
        if isinstance(content, dict):
            return {k: v.plain() if isinstance(v, Inert) else v for k, v in content.items()}
        if isinstance(content, list):
            return [v.plain() if isinstance(v, Inert) else v for v in content]
        return self


# Named in the pickle and needed to rebuild tensors or plain containers; everything else must be in INERT_MODULES.
PLAIN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "int"): int,
    ("__builtin__", "dict"): dict,
    ("__builtin__", "list"): list,
    ("__builtin__", "long"): int,
}
INERT_MODULES = ("omegaconf", "typing")


def _inert_class(name: str) -> type:
    # A fresh subclass per name: pickle makes objects with cls.__new__ and calls no __init__.
    return type(name.rsplit(".", 1)[-1], (Inert,), {"class_name": name, "state": None})


def _rebuild_tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    # as_strided checks nothing against the storage's end on views: check it here.
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if size else offset
    if offset < 0 or any(n < 0 for n in size) or any(s < 0 for s in stride) or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of size {size} does not fit its storage of {len(storage)}")
    return storage.as_strided(size, stride, offset)


class _PlainDtype:
    """A dtype whose pickled state (byte order, all little-endian here) is ignored."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        """Ignore it."""


def _scalar(dtype: _PlainDtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype, count=1)[0]


def _dtype(name: str, *_: Any) -> _PlainDtype:
    # Only plain numbers: object and void types have no business here.
    result = np.dtype(name)
    if result.kind not in "fiub":
        raise pickle.UnpicklingError(f"numpy type {name} is not a number")
    return _PlainDtype(result)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not used by pickled numpy scalars")
    return text.encode("latin1")


class _Sealed:
    """A function handed to a pickle, which may call it and nothing else: pickles can also set attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it tries to change a function of the reader")


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file, encoding="utf-8")
        self._archive, self._folder = archive, folder
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Sealed(_rebuild_tensor)
        if module == "torch" and name in DTYPES:
            return name
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _Sealed(_scalar)
        if (module, name) == ("numpy", "dtype"):
            return _Sealed(_dtype)
        if (module, name) == ("_codecs", "encode"):
            return _Sealed(_encode)
        if module.split(".")[0] in INERT_MODULES:
            return _inert_class(f"{module}.{name}")
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a policy snapshot does not need")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        kind, storage_type, key, _location, count = pid
        if kind != "storage" or storage_type not in DTYPES or not str(key).isalnum():
            raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}/data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=DTYPES[storage_type])
        if len(self._storages[key]) < count:
            raise pickle.UnpicklingError(f"storage {key} holds {len(self._storages[key])} of {count} numbers")
        return self._storages[key]


def load(path: Path) -> Any:
    """The content of a zip checkpoint. Raises UnexpectedModel saying what it is not, OSError when it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
                raise UnexpectedModel(f"{path} is not a torch checkpoint: it has {len(pickles)} usable data.pkl")
            folder = pickles[0].filename.removesuffix("/data.pkl")
            return _Reader(io.BytesIO(archive.read(pickles[0])), archive, folder).load()
    except zipfile.BadZipFile as error:
        raise UnexpectedModel(f"{path} is not a torch checkpoint (no zip archive)") from error
    except (pickle.UnpicklingError, KeyError, IndexError, TypeError, AttributeError, EOFError) as error:
        raise UnexpectedModel(f"{path} is refused: {error}") from error
