"""Memory allocation of processes of our own: what a block frees, the next block gets back at once."""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the options in glibc's ``malloc.h``."""


def tune_allocator() -> bool:
    """Have glibc keep freed memory instead of handing it back to the system.

    With its defaults a copy of a small model costs hundreds of page faults, and half of its time. It changes
    the whole process: it is for the command line, workers and scripts, never for a library call.

    Returns:
        Whether it took effect; where there is no glibc nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(MMAP_THRESHOLD, 2**30), mallopt(TRIM_THRESHOLD, 2**31 - 1)])
    return False
