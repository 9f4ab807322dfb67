"""Where plain classes become long-lived named Ray actors. The only file in this folder that imports Ray.

In: a plain class and its arguments. Out: a Remote whose methods are the class's own. The name is what the Ray
dashboard shows.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# Actors that carry state for a whole run come back as often as they die; their callers repeat the call that was cut
# off, so every method must be safe to repeat.
FOR_EVER = -1


class Remote:
    """Calls the methods of a named actor as if it were here: `remote.count(1)` waits for the answer.

    `remote.tell("count", 1)` does not wait. Picklable; on another machine it finds the actor again by name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    def _actor(self) -> Any:
        if self._handle is None:
            self._handle = ray.get_actor(self._name)
        return self._handle

    def __getattr__(self, method: str) -> Any:
        """A function that calls the actor's method and waits."""
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: ray.get(getattr(self._actor(), method).remote(*args))

    def tell(self, method: str, *args: Any) -> None:
        """Call without waiting; calls from one caller still arrive in order."""
        getattr(self._actor(), method).remote(*args)

    def __getstate__(self) -> dict[str, Any]:
        """Only the name travels."""
        return {"_name": self._name, "_handle": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the name back."""
        self.__dict__.update(state)

    def kill(self) -> None:
        """End the actor and its name."""
        ray.kill(self._actor())


def spawn(
    cls: type, name: str, *args: Any, num_cpus: float = 0, num_gpus: float = 0, on_this_node: bool = False
) -> Remote:
    """Start `cls(*args)` as an actor called `name`. It lives as long as the returned Remote (not its copies).

    `on_this_node`: on the caller's machine and no other, for what works on local files.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    handle = (
        ray.remote(cls)
        .options(
            name=name,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=FOR_EVER,
            max_task_retries=FOR_EVER,
            scheduling_strategy=here if on_this_node else "DEFAULT",
        )
        .remote(*args)
    )
    remote = Remote(name)
    remote._handle = handle
    return remote
