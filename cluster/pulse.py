"""Carries what a job reports to the store, and the store's wish to stop back to the job, once a second.

Guarantee: ``report`` never waits for the store and never fails; what could not be written is kept and written later. A
process that is not the run's current attempt any more (``StaleEpoch``) is told to stop at once and ends itself when it
doesn't within the grace period. The driver's pulse is the run's heartbeat; a worker's pulse only reports.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from cluster.runs import Directive
from cluster.store import Point, StaleEpoch, Store, StoreError

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
FENCED_SECONDS = 10.0
"""How long a superseded process may take to unwind before it ends itself."""
MAX_POINTS = 100_000
"""Points kept while the store is unreachable; the oldest are dropped beyond it."""


class Pulse:
    """A thread that beats for one process of an attempt; a context manager."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        epoch: int,
        *,
        is_driver: bool,
        beat_seconds: float = BEAT_SECONDS,
        on_fenced: Callable[[], None] | None = None,
    ) -> None:
        self._store, self._run_id, self._epoch, self._is_driver = store, run_id, epoch, is_driver
        self._beat_seconds = beat_seconds
        self._on_fenced = on_fenced or _end_this_process
        self._lock = threading.Lock()
        self._points: list[Point] = []
        self._progress: dict[str, Any] = {}
        self._progress_changed = False
        self._stop = threading.Event()
        self._closed = threading.Event()
        self._fenced_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"pulse {run_id}", daemon=True)

    def __enter__(self) -> Self:
        """Begin to beat."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Beat once more, so that the last points are kept, and end."""
        self._closed.set()
        self._thread.join(timeout=30)

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Take live figures; the latest of each is the run's progress."""
        values = {name: float(value) for name, value in metrics.items()}
        with self._lock:
            self._points += [Point(name, step, value) for name, value in values.items()]
            del self._points[:-MAX_POINTS]
            self._progress |= {**values, "step": step}
            self._progress_changed = True

    def should_stop(self) -> bool:
        """Whether the run is to be cancelled, was superseded, or this process was asked to end."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Make ``should_stop`` true."""
        self._stop.set()

    @property
    def is_fenced(self) -> bool:
        """Whether another attempt has taken over, or the run has ended."""
        return self._fenced_at is not None

    def beat(self) -> None:
        """Write what there is, once."""
        with self._lock:
            points, self._points = self._points, []
            progress = dict(self._progress) if self._progress_changed else None
            self._progress_changed = False
        try:
            directive = self._write(points, progress)
        except StaleEpoch as error:
            log.warning("%s", error)
            self._fenced_at = self._fenced_at or time.monotonic()
            self._stop.set()
        except StoreError as error:
            log.warning("the store is not reached, %s points wait: %s", len(points), error)
            with self._lock:
                self._points[:0] = points
                self._progress_changed = self._progress_changed or progress is not None
        else:
            if directive is Directive.STOP:
                self._stop.set()

    def _write(self, points: list[Point], progress: Mapping[str, Any] | None) -> Directive:
        # A worker asks too when it has nothing to say: the answer is the wish to stop.
        if not self._is_driver:
            return self._store.add_points(self._run_id, self._epoch, points, progress)
        # The sign of life first: points that the store can't take must not keep it back.
        directive = self._store.heartbeat(self._run_id, self._epoch, progress)
        if points:
            self._store.add_points(self._run_id, self._epoch, points)
        return directive

    def _run(self) -> None:
        while not self._closed.wait(self._beat_seconds):
            self.beat()
            if self._fenced_at is not None and time.monotonic() - self._fenced_at > FENCED_SECONDS:
                self._on_fenced()
                return
        if not self.is_fenced:
            self.beat()


def _end_this_process() -> None:
    log.error("superseded and still working: this process ends itself")
    os._exit(70)
