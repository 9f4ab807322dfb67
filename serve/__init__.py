"""The live service: tracker, policy and control behind one port, with a page to watch it.

Start it with `serve run serve.app` from the repository root. Reading order: app.py (the wiring), gateway.py (the
routes), tracking.py, policy.py, control.py. Ray's own module is imported as `from ray import serve as ray_serve`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`serve.app` is the application's builder, as `serve run serve.app` wants it; loaded when it is asked for.

    Actors that need one module of this folder would otherwise import Ray Serve and everything else: seconds each.
    """
    if name == "app":
        from serve.app import app

        globals()["app"] = app  # the import has just bound the submodule to this name
        return app
    raise AttributeError(f"module 'serve' has no attribute {name!r}")
