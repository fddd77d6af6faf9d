"""What the C library does with freed memory, which decides how fast long sequences are on a CPU."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
NEVER, HEADROOM = -1, 64 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed instead of returning it to the system; tell whether that was possible.

    By default every tensor of more than 32 MB is mapped anew and its pages are cleared at the first touch, which is
    half of the time of a linear attention at 4096 tokens. Other allocators (jemalloc, tcmalloc) keep it as well. From
    here on, for the whole process.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, HEADROOM))
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in settings)
