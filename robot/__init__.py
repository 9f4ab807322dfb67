"""SO-101 in a closed loop: observe, decide before a deadline, limit, act, record.

Start it with `python -m robot`. Nothing here imports torch or Ray; policies that need them are handed in by
`__main__.py`, the one file of this folder that may look outside it.
"""

import os

# mujoco loads the OpenGL that this variable names as soon as it is imported, and fails where that is not installed,
# also in runs that never render. rendering.py honours the choice when a picture is wanted.
REQUESTED_GL = os.environ.pop("MUJOCO_GL", "").lower()
