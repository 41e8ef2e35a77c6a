"""How long a run waits before it is tried again: exponential with full jitter.

Pure: chance is an argument. Full jitter spreads runs that failed together (a node went away, a disk was full) over the
whole interval, so that they don't come back together either.
"""

from __future__ import annotations

from collections.abc import Callable

BASE_SECONDS = 2.0
"""The longest wait after the first failure; it doubles with each one."""
MAX_SECONDS = 300.0
"""The longest wait after any number of failures."""

_MAX_DOUBLINGS = 32
"""Far above what reaches ``MAX_SECONDS``, far below what overflows a float."""


def retry_seconds(num_failures: int, chance: Callable[[], float]) -> float:
    """The wait after so many failed or lost attempts, drawn evenly from 0 to ``min(MAX, BASE * 2^(n - 1))`` seconds.

    Args:
        num_failures: at least 1.
        chance: gives a number from 0 up to 1, another one at each call.
    """
    assert num_failures >= 1, "nothing has failed"
    longest = BASE_SECONDS * 2.0 ** min(num_failures - 1, _MAX_DOUBLINGS)
    return chance() * min(MAX_SECONDS, longest)
