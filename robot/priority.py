"""Who runs first on a machine with few cores: the control loop before cameras, models and recorders.

Called by the loop's owner for its own thread and by helper threads for theirs. Linux only; elsewhere nothing changes.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Literal

# Above ordinary threads, below the kernel's own helpers.
REAL_TIME_PRIORITY = 10
# Helper threads give way: with equal priority the scheduler lets a renderer finish its slice (3 to 5 ms) first.
HELPER_NICENESS = 10
# The interpreter offers the GIL to waiting threads this often; its default of 5 ms is the lateness we fight.
SWITCH_INTERVAL_S = 0.0005


def prefer_this_thread() -> Literal["real-time", "normal"]:
    """Ask for SCHED_FIFO, which root and users with an rtprio limit get; says what it got."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if not hasattr(os, "sched_setscheduler"):
        return "normal"
    try:
        # RESET_ON_FORK: threads and processes started from here must not inherit it.
        policy = os.SCHED_FIFO | getattr(os, "SCHED_RESET_ON_FORK", 0)
        os.sched_setscheduler(0, policy, os.sched_param(REAL_TIME_PRIORITY))
    except PermissionError:
        return "normal"
    return "real-time"


def give_way() -> None:
    """Lower the calling thread's priority, unless the main thread is real-time and needs no such courtesy."""
    if sys.platform == "linux" and os.sched_getscheduler(os.getpid()) == os.SCHED_OTHER:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HELPER_NICENESS)
