"""What a job says reaches the store, and the store's wish to stop reaches the job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cluster.pulse import Pulse
from cluster.runs import Cause, State
from cluster.store import Point, Store, StoreError
from tests.cluster import specs

BEAT = 0.01


def running(store: Store) -> tuple[str, int]:
    run = store.enqueue(store.submit(specs.prepare(), owner="local").id)
    epoch = store.begin_attempt(run.id)
    store.start(run.id, epoch)
    return run.id, epoch


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


@pytest.mark.parametrize("is_driver", [True, False])
def test_reports_become_points_and_progress_and_the_last_ones_are_not_lost(
    sqlite_store: Store, is_driver: bool
) -> None:
    run_id, epoch = running(sqlite_store)
    with Pulse(sqlite_store, run_id, epoch, is_driver=is_driver, beat_seconds=30) as pulse:
        for step in range(5):
            pulse.report({"loss": 5.0 - step}, step)
        pulse.report({"validation_loss": 1.5}, 4)
    assert sqlite_store.points(run_id, "loss") == [Point("loss", step, 5.0 - step) for step in range(5)]
    assert sqlite_store.get(run_id).progress == {"loss": 1.0, "validation_loss": 1.5, "step": 4}


def test_only_the_drivers_pulse_is_the_runs_heartbeat(sqlite_store: Store) -> None:
    run_id, epoch = running(sqlite_store)
    before = sqlite_store.get(run_id).heartbeat_at
    Pulse(sqlite_store, run_id, epoch, is_driver=False).beat()
    assert sqlite_store.get(run_id).heartbeat_at == before
    Pulse(sqlite_store, run_id, epoch, is_driver=True).beat()
    assert sqlite_store.get(run_id).heartbeat_at != before


@pytest.mark.parametrize("is_driver", [True, False])
def test_a_cancel_reaches_the_job(sqlite_store: Store, is_driver: bool) -> None:
    run_id, epoch = running(sqlite_store)
    with Pulse(sqlite_store, run_id, epoch, is_driver=is_driver, beat_seconds=BEAT) as pulse:
        assert not pulse.should_stop()
        sqlite_store.request_cancel(run_id)
        until(pulse.should_stop)
        assert not pulse.is_fenced


@pytest.mark.parametrize("is_driver", [True, False])
def test_a_superseded_process_is_told_to_stop_and_ended_when_it_does_not(
    sqlite_store: Store, is_driver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.pulse.FENCED_SECONDS", 0.05)
    run_id, epoch = running(sqlite_store)
    ended = threading.Event()
    pulse = Pulse(sqlite_store, run_id, epoch, is_driver=is_driver, beat_seconds=BEAT, on_fenced=ended.set)
    with pulse:
        sqlite_store.end_attempt(run_id, epoch, Cause.LOST, "gone")
        until(pulse.should_stop)
        assert pulse.is_fenced
        assert ended.wait(10)
    assert sqlite_store.get(run_id).state is State.QUEUED


def test_what_can_not_be_written_waits_and_is_written_later(sqlite_store: Store) -> None:
    run_id, epoch = running(sqlite_store)

    class Away:
        """A store that answers only when it is back."""

        is_back = False

        def __getattr__(self, name: str) -> object:
            if not self.is_back:
                raise StoreError("away")
            return getattr(sqlite_store, name)

    store = Away()
    pulse = Pulse(store, run_id, epoch, is_driver=True)  # type: ignore[arg-type]
    pulse.report({"loss": 2.0}, 1)
    pulse.beat()
    pulse.report({"loss": 1.0}, 2)
    pulse.beat()
    assert not pulse.should_stop()
    assert sqlite_store.points(run_id) == []
    store.is_back = True
    pulse.beat()
    assert sqlite_store.points(run_id) == [Point("loss", 1, 2.0), Point("loss", 2, 1.0)]
    assert sqlite_store.get(run_id).progress == {"loss": 1.0, "step": 2}


def test_points_are_bounded_while_the_store_is_away(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.pulse.MAX_POINTS", 3)
    run_id, epoch = running(sqlite_store)
    pulse = Pulse(sqlite_store, run_id, epoch, is_driver=False)
    for step in range(10):
        pulse.report({"loss": float(step)}, step)
    pulse.beat()
    assert [point.step for point in sqlite_store.points(run_id)] == [7, 8, 9]


def test_being_asked_to_end_makes_the_job_stop(sqlite_store: Store) -> None:
    run_id, epoch = running(sqlite_store)
    pulse = Pulse(sqlite_store, run_id, epoch, is_driver=True)
    pulse.request_stop()
    assert pulse.should_stop()
