"""What of this machine this process may use."""

import os


def usable_cores() -> int:
    """How many cores this process is bound to, all of the machine's where the system knows no such bound."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
