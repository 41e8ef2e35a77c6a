"""One worker in a thread of the test, against a real Redis: what becomes of tasks, whatever happens to them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.schema.inference import QueueSettings, RowInput
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.workers.conftest import RUN, contents, read_csv, write_csv
from tests.workers.handlers import Outcome, factory, upper
from workers import worker as worker_module
from workers.broker import Answer, Broker, Lease, Watched
from workers.connection import Connection, QueueUnreachable
from workers.manifest import choose, save_plan
from workers.sink import FOLDER, read_parts
from workers.source import Plan, make_plan, open_source
from workers.worker import Ending, Handler, HandlerBroken, Stop, Worker, WorkerSettings, backoff_seconds

SETTINGS = QueueSettings(max_rows_queued=1000, lease_seconds=30.0, max_errors=2, max_crashes=2)


class Bench:
    """A run with a plan and a queue, at which workers work in threads."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.folder, self.url = folder, redis_url
        self.output = folder / "out"
        self.output.mkdir()
        self.connection = Connection(redis_url)
        self.broker = Broker(self.connection, RUN, 1)
        self.plan: Plan
        self.endings: list[Ending | BaseException] = []
        self.ended_processes: list[str] = []
        self._threads: list[threading.Thread] = []

    def begin(self, texts: Sequence[str], rows_per_task: int = 4) -> None:
        dump = write_csv(self.folder / "dump.csv", texts)
        self.plan = make_plan(open_source(RowInput(path=str(dump), text_column="comment")), rows_per_task)
        save_plan(self.output, self.plan)
        self.open(1)

    def open(self, generation: int) -> None:
        self.broker = Broker(self.connection, RUN, generation)
        assert self.broker.open(SETTINGS) is Answer.OPENED
        self.broker.put(list(self.plan.tasks()))

    def start(self, handler: Handler | str, name: str = "w1", **settings: Any) -> Worker:
        make = factory(handler, self.folder) if isinstance(handler, str) else lambda: handler
        worker = Worker(
            WorkerSettings(RUN, name, self.url, self.output, "input", **{"task_seconds": 60.0, **settings}),
            make,
            chance=random.Random(1),
            end_process=lambda: self.ended_processes.append(name),
        )
        thread = threading.Thread(target=self._run, args=(worker,))
        thread.start()
        self._threads.append(thread)
        return worker

    def watched(self) -> Watched:
        answer = self.broker.watch()
        assert isinstance(answer, Watched)
        return answer

    def wait_done(self) -> None:
        wait_until(lambda: self.watched().rows_done == self.plan.num_rows, 20, "every row is committed")

    def rows(self) -> list[tuple[str, str, str, str]]:
        parts = choose(self.plan, read_parts(self.output / FOLDER))
        return [row for part in parts for row in read_csv(self.output / FOLDER / part.file)]

    def reasons(self) -> list[tuple[int, str]]:
        parts = choose(self.plan, read_parts(self.output / FOLDER))
        return [(row, reason) for part in parts for row, _, reason in part.reasons]

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=20)
            assert not thread.is_alive()

    def end(self) -> None:
        self.broker.halt(Stop("over", is_fault=False).to_json())
        self.join()
        self.broker.close()
        self.connection.close()

    def _run(self, worker: Worker) -> None:
        try:
            self.endings.append(worker.run())
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            self.endings.append(error)


@pytest.fixture
def bench(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", (0.001, 0.002))
    made = Bench(redis_url, tmp_path)
    yield made
    made.end()


def expected(texts: Sequence[str], quarantined: Sequence[int] = ()) -> list[tuple[str, str, str, str]]:
    return [
        (str(n), text, "", "quarantined") if n in quarantined else (str(n), text, text.upper(), "rewritten")
        for n, text in enumerate(texts)
    ]


def test_a_worker_does_every_task_and_ends_when_the_queue_is_halted(bench: Bench) -> None:
    texts = [f"comment {number}" for number in range(30)]
    bench.begin(texts)
    bench.start("upper")
    bench.wait_done()
    assert bench.rows() == expected(texts)
    bench.broker.halt(Stop("over").to_json())
    bench.join()
    (ending,) = bench.endings
    assert ending == Ending(Stop("over").to_json(), 8)


def test_two_workers_share_the_tasks_and_do_none_twice(bench: Bench) -> None:
    texts = [f"comment {number}" for number in range(100)]
    seen: list[str] = []

    def remember(batch: Sequence[str]) -> list[Outcome]:
        seen.extend(batch)
        return upper(batch)

    bench.begin(texts)
    bench.start(remember, "w1")
    bench.start(remember, "w2")
    bench.wait_done()
    assert sorted(seen) == sorted(texts)
    assert bench.watched().counters["commits"] == 25


def test_a_row_that_always_fails_is_quarantined_and_its_neighbours_are_done(bench: Bench) -> None:
    texts = ["a", "b", "BAD", "d", "e"]
    bench.begin(texts)
    bench.start("failing")
    bench.wait_done()
    assert bench.rows() == expected(texts, [2])
    assert bench.reasons() == [(2, "failed with RuntimeError")]
    assert bench.watched().counters["failures"] == SETTINGS.max_errors


def test_a_handler_that_forgets_a_row_counts_as_failing(bench: Bench) -> None:
    bench.begin(["a", "b", "c"])
    bench.start(lambda texts: upper(texts)[: max(1, len(texts) - 1)])
    bench.wait_done()
    assert bench.rows() == expected(["a", "b", "c"]), "row by row it forgets none"


def test_a_worker_whose_handler_fails_whatever_it_gets_ends_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Retries come after all the others: else a task that is due again at once is isolated before five have failed.
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", (600.0, 600.0))
    bench.begin([f"comment {number}" for number in range(40)])
    bench.start("broken")
    bench.join()
    (ending,) = bench.endings
    assert isinstance(ending, HandlerBroken)
    assert "5 tasks in a row" in str(ending)
    assert bench.watched().rows_of("quarantined") == 0


def test_rows_that_cant_be_read_never_reach_the_handler(bench: Bench) -> None:
    bench.begin(["a", "b", "c", "d"], rows_per_task=10)
    dump = bench.folder / "broken.csv"
    dump.write_text('id,comment\n0,a\n1\n2,c\n3,"open\n4,e\n')
    bench.plan = make_plan(open_source(RowInput(path=str(dump), text_column="comment")), 10)
    save_plan(bench.output, bench.plan)
    bench.open(2)
    seen: list[str] = []

    def remember(batch: Sequence[str]) -> list[Outcome]:
        seen.extend(batch)
        return upper(batch)

    bench.start(remember)
    bench.wait_done()
    assert seen == ["a", "c", "e"]
    assert [row[3] for row in bench.rows()] == ["rewritten", "quarantined", "rewritten", "quarantined", "rewritten"]
    assert bench.reasons() == [(1, "1 cells where the header has 2"), (3, "unclosed quote")]


class Killed(BaseException):
    """As if the process had died: nothing in the product catches it."""


def die_of_poison(texts: Sequence[str]) -> list[Outcome]:
    if any("POISON" in text for text in texts):
        raise Killed
    return upper(texts)


def test_a_task_that_ends_its_workers_is_bisected_and_its_row_quarantined_unseen(bench: Bench) -> None:
    texts = ["a", "b", "c", "POISON", "e", "f", "g", "POISON too"]
    bench.begin(texts, rows_per_task=8)
    deaths = 0
    while bench.watched().rows_done < len(texts):
        bench.start(die_of_poison, f"w{deaths}")
        wait_until(lambda: bool(bench.endings) or bench.watched().rows_done == len(texts), 20)
        if bench.endings:
            assert isinstance(bench.endings.pop(), Killed)
            bench.broker.expire(f"w{deaths}")
            deaths += 1
    assert bench.rows() == expected(texts, [3, 7])
    assert bench.reasons() == [(3, "ended 2 workers"), (7, "ended 2 workers")]
    # The whole twice; then, for each poison row, the half and the pair around it once and the row itself twice.
    assert deaths == 2 + 2 * (1 + 1 + 2)


def test_drain_finishes_the_running_task_and_claims_no_other(bench: Bench) -> None:
    texts = [f"comment {number}" for number in range(40)]
    bench.begin(texts)
    worker = bench.start("gated")
    wait_until(lambda: bool(list(bench.folder.glob("entered-*"))), 10)
    worker.drain()
    (bench.folder / "go").touch()
    bench.join()
    assert bench.endings == [Ending("drained", 1)]
    assert bench.watched().rows_done == 4
    lease = bench.broker.claim("other")
    assert isinstance(lease, Lease)
    assert (lease.task.first_row, lease.delivery) == (4, 1)


def test_a_task_that_outlasts_the_grace_period_goes_back_at_once_and_uncounted(bench: Bench) -> None:
    bench.begin([f"comment {number}" for number in range(4)])
    worker = bench.start("gated", grace_seconds=0.05)
    wait_until(lambda: bool(list(bench.folder.glob("entered-*"))), 10)
    worker.drain()
    wait_until(lambda: bool(bench.ended_processes), 10, "the process would end")
    lease = bench.broker.claim("other")
    assert isinstance(lease, Lease)
    assert (lease.crashes, lease.errors, lease.delivery) == (0, 0, 2)
    (bench.folder / "go").touch()
    bench.join()
    assert bench.watched().rows_done == 0, "whoever gave it back commits nothing"


def test_a_lost_queue_is_left_for_its_successor(bench: Bench, redis_server: RedisServer) -> None:
    texts = [f"comment {number}" for number in range(20)]
    bench.begin(texts)
    bench.start("gated")
    wait_until(lambda: bool(list(bench.folder.glob("entered-*"))), 10)
    with redis_server.client() as client:
        client.flushall()
    bench.open(2)
    (bench.folder / "go").touch()
    bench.wait_done()
    assert bench.rows() == expected(texts)
    assert {part.generation for part in choose(bench.plan, read_parts(bench.output / FOLDER))} == {2}


def test_a_superseded_worker_writes_no_part_once_it_knows(bench: Bench) -> None:
    bench.begin(["a", "b"])
    bench.start("gated")
    wait_until(lambda: bool(list(bench.folder.glob("entered-*"))), 10)
    bench.broker.expire("w1")
    other = bench.broker.claim("other")
    assert isinstance(other, Lease)
    claimed_at = time.monotonic()

    def has_renewed_since() -> bool:
        return any(beat.age_seconds < time.monotonic() - claimed_at for beat in bench.watched().heartbeats)

    # Its keeper renews at least every two seconds, and finds another owner.
    wait_until(has_renewed_since, 10, "it has renewed since")
    (bench.folder / "go").touch()
    bench.broker.release(other)
    bench.wait_done()
    assert len(list((bench.output / FOLDER).glob("*-d1.csv"))) == 0
    assert bench.rows() == expected(["a", "b"])


def test_an_input_that_changes_halts_the_run_with_the_reason(bench: Bench) -> None:
    bench.begin(["a", "b", "c"], rows_per_task=1)
    (bench.folder / "dump.csv").write_text("id,comment\n0,other\n")
    bench.start("upper")
    bench.join()
    halted = bench.watched().halted
    assert halted is not None
    stop = Stop.from_json(halted)
    assert stop.is_input
    assert "changed since it was planned" in stop.message
    assert bench.watched().rows_done == 0


def test_a_full_disk_halts_the_run_and_gives_the_task_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    bench.begin(["a", "b", "c"])
    with monkeypatch.context() as patched:
        patched.setattr("workers.durable.os.fsync", full)
        bench.start("upper")
        bench.join()
    stop = Stop.from_json(bench.watched().halted or "")
    assert not stop.is_input
    assert "full" in stop.message
    assert bench.watched().rows_queued == 3
    assert list((bench.output / FOLDER).iterdir()) == []


def test_neither_logs_nor_redis_hold_a_comments_text(
    bench: Bench, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["sesame", "BAD sesame", "sesame", "sesame"]
    bench.begin(texts, rows_per_task=2)
    with caplog.at_level(logging.DEBUG):
        bench.start("failing")
        bench.wait_done()
        bench.broker.halt(Stop("over").to_json())
        bench.join()
    assert "failed at delivery" in caplog.text
    assert "sesame" not in caplog.text
    assert "sesame" not in str(contents(redis_server))
    sidecars = [file.read_text() for file in (bench.output / FOLDER).glob("*.json")]
    assert "sesame" not in "".join(sidecars)


def test_a_worker_without_a_queue_gives_up(redis_url: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "JOIN_SECONDS", 0.1)
    bench.start("upper")
    bench.join()
    (ending,) = bench.endings
    assert isinstance(ending, QueueUnreachable)
    assert "its driver is gone" in str(ending)


def test_the_backoff_is_spread_over_a_doubling_range_with_a_ceiling() -> None:
    chance = random.Random(3)
    for errors, ceiling in [(1, 0.5), (2, 1.0), (4, 4.0), (30, 60.0), (3000, 60.0)]:
        delays = [backoff_seconds(errors, chance) for _ in range(2000)]
        assert 0 <= min(delays) < 0.05 * ceiling
        assert 0.95 * ceiling < max(delays) <= ceiling
