"""Waiting for a condition with a deadline, in the place of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.005


def wait_until(condition: Callable[[], bool], seconds: float, what: str = "the condition") -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: it didn't in time.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        pause.wait(POLL_SECONDS)
