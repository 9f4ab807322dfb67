"""Calls to named actors that outlive the actors: found by name, found again after a restart.

In: a name, a method, arguments. Out: the answer, or NotReady within a bounded time. Used by every deployment.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from serve.errors import NotReady

# How long a caller waits for an actor that is starting or was restarted elsewhere.
PATIENCE_S = 10.0
RETRY_S = 0.1
AWAY = (ActorDiedError, ActorUnavailableError, ValueError)


class Named:
    """One named actor. Methods are called by name; every method called this way must be safe to repeat."""

    def __init__(self, name: str, patience_s: float = PATIENCE_S) -> None:
        self.name = name
        self._patience_s = patience_s
        self._handle: Any = None

    async def ask(self, method: str, *args: Any) -> Any:
        """The answer, in an event loop."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                return await getattr(self._actor(), method).remote(*args)
            except AWAY as error:
                self._forget_or_raise(error, deadline_s)
            await asyncio.sleep(RETRY_S)

    def call(self, method: str, *args: Any) -> Any:
        """The answer, in a thread."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                return ray.get(getattr(self._actor(), method).remote(*args))
            except AWAY as error:
                self._forget_or_raise(error, deadline_s)
            time.sleep(RETRY_S)

    def tell(self, method: str, *args: Any) -> None:
        """Do not wait; nothing happens where the actor is away."""
        try:
            getattr(self._actor(), method).remote(*args)
        except AWAY:
            self._handle = None

    def __getattr__(self, method: str) -> Any:
        """A function that calls the actor's method and waits, so that a Named passes for the object itself."""
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: self.call(method, *args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Only the name travels."""
        return (Named, (self.name, self._patience_s))

    def _actor(self) -> Any:
        if self._handle is None:
            self._handle = ray.get_actor(self.name)
        return self._handle

    def _forget_or_raise(self, error: Exception, deadline_s: float) -> None:
        # A ValueError that the method itself raised comes as a RayTaskError that is a ValueError too: not ours.
        if isinstance(error, ray.exceptions.RayTaskError):
            raise error
        self._handle = None
        if time.monotonic() > deadline_s:
            raise NotReady(f"the {self.name} is not there (yet); see /v1/status") from error
