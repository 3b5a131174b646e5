"""The wall clock, which people and servers set, and the clock that counts since the machine was started."""

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what names this start of the machine; "" where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def wall_offset_s() -> float:
    """Return wall clock minus boot clock, seconds: constant but for slewing until somebody sets the wall clock.

    The boot clock goes on while the machine sleeps (CLOCK_BOOTTIME).
    """
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
