"""How much one caller may ask of the API: sizes and rates.

Rates are counted in the memory of one API process: several processes allow as many times as much.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_CALLERS = 10_000
"""Callers that are remembered; the one seen longest ago is forgotten first."""


@dataclass(frozen=True)
class Limits:
    """The defaults suit a person, a dashboard and a few programs on one key."""

    body_bytes: int = 1_000_000
    """Of a request; the largest spec."""
    requests_per_minute: int = 3000
    """For each key."""
    failures_per_minute: int = 60
    """Requests without a valid key, for each address."""


class RateLimiter:
    """A token bucket for each caller, which holds a minute's worth. Safe for threads."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str) -> float:
        """Take one; 0 when there was one, else the seconds until there is."""
        now, per_second = self._clock(), self.per_minute / 60
        with self._lock:
            left, at = self._buckets.pop(who, (float(self.per_minute), now))
            left = min(float(self.per_minute), left + (now - at) * per_second)
            is_granted = left >= 1
            self._buckets[who] = (left - 1 if is_granted else left, now)
            if len(self._buckets) > MAX_CALLERS:
                self._buckets.popitem(last=False)
        return 0.0 if is_granted else (1 - left) / per_second
