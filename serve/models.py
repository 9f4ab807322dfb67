"""The named actors: one process per model, started once, shared by every deployment, restarted when they die.

In: the `models` of the settings. Out: actors under their own names in the Ray dashboard, each loaded and warm. Owned
by one deployment (app.py), so that they end with the service; found by name through named.py.
"""

from __future__ import annotations

import importlib
import resource
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from actors.spawn import Remote, spawn
from serve.errors import first_line
from serve.named import Named
from serve.settings import ModelSettings

# A name stays taken until Ray has buried the actor of the last owner.
NAME_FREE_AFTER_S = 30.0
# How often an actor is asked how it is.
PULSE_S = 0.5
# An actor answers between two calls; the longest call is a search in a large picture.
SILENT_S = 60.0


def imported(path: str) -> Any:
    """What `module:name` of the settings stands for. Raises ValueError that says which half is wrong."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(f"the settings name {path}: there is no module {module} ({error})") from error
    except AttributeError as error:
        raise ValueError(f"the settings name {path}: {module} has no {name}") from error


def resident_bytes() -> int:
    """Memory of this process now, in bytes; the peak where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file, read every second
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gpu_bytes() -> int:
    """GPU memory held by this process; 0 without torch or without a GPU."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.memory_reserved()) if torch is not None and torch.cuda.is_available() else 0


def hosted(cls: type) -> type:
    """`cls` as an actor: loaded and warm when it is made (also after a restart), able to tell how it is."""

    class Hosted(cls):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._made_s = time.monotonic()
            for verb in ("load", "warm_up"):
                getattr(super(), verb, lambda: None)()

        def told(self, attribute: str) -> Any:
            """A public attribute: an actor has methods only."""
            if attribute.startswith("_"):
                raise AttributeError(attribute)
            return getattr(self, attribute)

        def health(self) -> dict[str, Any]:
            """Age and memory."""
            return {
                "up_s": round(time.monotonic() - self._made_s, 1),
                "memory_bytes": resident_bytes(),
                "gpu_memory_bytes": _gpu_bytes(),
            }

    Hosted.__name__ = Hosted.__qualname__ = cls.__name__
    return Hosted


@dataclass(frozen=True, slots=True)
class Store:
    """An actor of the service's own."""

    factory: str
    args: tuple[Any, ...]
    num_cpus: float = 0.0
    num_gpus: float = 0.0


class Pulse:
    """Asks one actor how it is, again and again, in a thread of its own.

    Not in the request that wants to know: when a client gives up, Ray cancels what its request asked of others, and a
    question that is cancelled before an actor has started leaves a gap in the actor's queue, at which everybody waits.
    Whoever polls /healthz with a short time-out would so keep the service from starting.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._told: dict[str, Any] = {"up": False, "why": "starting"}
        self._heard_s = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._ask, name=f"pulse-{name}", daemon=True).start()

    def told(self) -> dict[str, Any]:
        """The last answer, unless it is too long ago."""
        silent_s = time.monotonic() - self._heard_s
        if self._told["up"] and silent_s > SILENT_S:
            return {"up": False, "why": f"no answer for {silent_s:.0f} s"}
        return dict(self._told)

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()

    def _ask(self) -> None:
        actor = Named(self._name, patience_s=0.0)
        while not self._over.is_set():
            try:
                self._told = {"up": True, **actor.call("health")}
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the next look may find it well
                self._told = {"up": False, "why": first_line(error)[:200]}
            self._heard_s = time.monotonic()
            self._over.wait(PULSE_S)


class ModelKeeper:
    """Starts the actors and knows how they are. The body of the `Models` deployment."""

    def __init__(self, models: dict[str, ModelSettings], stores: dict[str, Store]) -> None:
        """`stores` are the service's own actors, by name."""
        self._remotes: dict[str, Remote] = {}
        for name, store in stores.items():
            made = hosted(imported(store.factory))
            self._remotes[name] = _spawn(made, name, store.args, {}, store.num_cpus, store.num_gpus)
        for name, model in models.items():
            made = imported(model.factory)
            self._remotes[name] = _spawn(hosted(made), name, (), model.arguments, model.num_cpus, model.num_gpus)
        self._pulses = {name: Pulse(name) for name in self._remotes}

    async def health(self) -> dict[str, dict[str, Any]]:
        """How every actor is; `{"up": False}` for one that is starting, being restarted or silent."""
        return {name: pulse.told() for name, pulse in self._pulses.items()}

    def close(self) -> None:
        """End them all."""
        for pulse in self._pulses.values():
            pulse.stop()
        for remote in self._remotes.values():
            remote.kill()


def _spawn(
    cls: type, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], num_cpus: float, num_gpus: float
) -> Remote:
    deadline_s = time.monotonic() + NAME_FREE_AFTER_S
    while True:
        try:
            return spawn(_with(cls, kwargs), name, *args, num_cpus=num_cpus, num_gpus=num_gpus)
        except ValueError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)


def _with(cls: type, kwargs: dict[str, Any]) -> type:
    """`cls` with keyword arguments filled in: actors are spawned with positional ones."""
    if not kwargs:
        return cls

    class Filled(cls):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, **kwargs)

    Filled.__name__ = Filled.__qualname__ = cls.__name__
    return Filled
