"""How much memory this process has resident, now and at most. Imports nothing that would add to it."""

from __future__ import annotations

import contextlib
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Memory:
    """Resident bytes of this process."""

    now: int
    peak: int


def read_memory() -> Memory:
    """Of this process.

    Linux is asked for the peak of this program: ``getrusage`` would give that of the process that started it, where
    that was larger. Elsewhere the peak stands for both.
    """
    if not _STATUS.is_file():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Memory(peak, peak)
    lines = (line.partition(":") for line in _STATUS.read_text(encoding="ascii").splitlines())
    values = {key: value for key, _, value in lines}
    return Memory(*(int(values[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM")))


def forget_peak() -> None:
    """Let the peak begin anew from what is resident now, where the kernel permits it."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")
