"""Resident memory of this process, from Linux's /proc; None elsewhere."""

import re
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def current_memory():
    """Bytes of physical memory that the process occupies."""
    return _read("VmRSS")


def peak_memory():
    """Largest number of bytes since the process began, or since ``reset_peak``.

    Unlike getrusage's, it does not begin with what the parent process occupied.
    """
    return _read("VmHWM")


def reset_peak():
    """Begin the peak anew, so that imports and conversions before the fit do not count."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def _read(name):
    if not STATUS.exists():
        return None
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1])
