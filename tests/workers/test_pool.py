"""The pool on a real local Ray."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.load import validate_spec
from configs.schema.kinds import Detoxify
from jobs.context import JobStopped
from tests.local_ray import local_ray
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.workers.conftest import read_csv, write_csv
from tests.workers.handlers import factory
from workers.bulk import BulkResult, PoolError


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    with local_ray() as ray:
        yield ray


class Pool:
    """Runs pools over one dump, each in an attempt of its own."""

    def __init__(self, redis_url: str, folder: Path, texts: list[str], queue: Mapping[str, Any]) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.output.mkdir()
        self.reports: list[dict[str, float]] = []
        self._redis_url = redis_url
        dump = write_csv(folder / "dump.csv", texts)
        spec = validate_spec(
            {
                "kind": "detoxify",
                "model": {"name": "unused"},
                "input": {"path": str(dump), "text_column": "comment"},
                "queue": {"rows_per_task": 10, "lease_seconds": 2.0, **queue},
                "resources": {"num_workers": 2},
            }
        )
        assert isinstance(spec, Detoxify)
        self._spec = spec
        self._generations, self._epochs = itertools.count(1), itertools.count(1)

    def run(self, handler: str, should_stop: Callable[[], bool] = lambda: False) -> BulkResult:
        from workers.pool import run_pool

        return run_pool(
            self._spec,
            run="r-pool",
            epoch=next(self._epochs),
            next_generation=lambda: next(self._generations),
            redis_url=self._redis_url,
            output=self.output,
            report=lambda figures, step: self.reports.append(dict(figures)),
            should_stop=should_stop,
            make_handler=factory(handler, self.folder),
        )


@pytest.fixture
def make_pool(ray_cluster: Any, redis_url: str, tmp_path: Path) -> Callable[..., Pool]:
    def make(texts: list[str], **queue: Any) -> Pool:
        return Pool(redis_url, tmp_path, texts, queue)

    return make


def actors() -> list[psutil.Process]:
    """The processes of this test's pool actors."""
    return [process for process in psutil.Process().children(recursive=True) if _is_actor(process)]


def _is_actor(process: psutil.Process) -> bool:
    try:
        return "PoolWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it is gone


def test_every_row_comes_out_once_in_order_and_no_actor_is_left(make_pool: Callable[..., Pool]) -> None:
    texts = [f"comment {number}" for number in range(95)]
    pool = make_pool(texts)
    result = pool.run("upper")
    assert result.merged is not None
    assert read_csv(result.merged) == [(str(n), text, text.upper(), "rewritten") for n, text in enumerate(texts)]
    assert (result.rows, dict(result.counts)) == (95, {"rewritten": 95})
    assert pool.reports[-1]["rows_done"] == 95
    assert pool.reports[-1]["share_done"] == 1.0
    wait_until(lambda: not actors(), 10, "the actors' processes end")


def test_a_row_that_kills_its_actor_is_quarantined_and_its_neighbours_are_done(make_pool: Callable[..., Pool]) -> None:
    texts = [f"comment {number}" for number in range(40)]
    texts[13] = "POISON"
    result = make_pool(texts).run("poison")
    assert result.merged is not None
    expected = [(str(n), text, text.upper(), "rewritten") for n, text in enumerate(texts)]
    expected[13] = ("13", "POISON", "", "quarantined")
    assert read_csv(result.merged) == expected


def test_a_stopped_actor_is_ended_by_its_pid_and_its_task_done_by_another(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool([f"comment {number}" for number in range(40)])
    stopped: list[psutil.Process] = []

    def stop_the_first() -> bool:
        if not stopped and list(pool.folder.glob("entered-*")):
            pid = int(next(pool.folder.glob("entered-*")).name.partition("-")[2])
            stopped.append(psutil.Process(pid))
            os.kill(pid, signal.SIGSTOP)
            (pool.folder / "go").touch()
        return False

    result = pool.run("gated", stop_the_first)
    assert result.rows == 40
    assert stopped
    wait_until(lambda: not stopped[0].is_running() or stopped[0].status() == psutil.STATUS_ZOMBIE, 10, "it is ended")


def test_a_stop_keeps_what_is_committed_and_the_next_attempt_goes_on_from_it(
    make_pool: Callable[..., Pool], redis_server: RedisServer
) -> None:
    texts = [f"comment {number}" for number in range(40)]
    pool = make_pool(texts)

    def stop() -> bool:
        return bool(list(pool.folder.glob("entered-*")))

    with pytest.raises(JobStopped):
        pool.run("gated", stop)
    assert redis_server.all_keys() == []
    wait_until(lambda: not actors(), 10, "the actors' processes end")
    assert pool.run("upper").rows == 40


def test_a_handler_that_the_spec_makes_unloadable_ends_the_run_at_once(make_pool: Callable[..., Pool]) -> None:
    with pytest.raises(ValueError, match="give the path of one"):
        make_pool(["a"]).run("unloadable")


def test_a_handler_that_fails_to_load_again_and_again_ends_the_run(make_pool: Callable[..., Pool]) -> None:
    with pytest.raises(PoolError, match="the GPU is gone"):
        make_pool(["a"]).run("crashing load")
