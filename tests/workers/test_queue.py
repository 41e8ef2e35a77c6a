"""The queue against a real redis-server: fences, leases, the bound, and a queue that Redis has lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.broker import Answer, Broker, Claim, QueueError, connect
from workers.messages import Task

TASKS = [Task(0, 9, 0, 100), Task(10, 19, 100, 100)]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    from cluster.stack_parts import find_redis_server

    folder = Path(tempfile.mkdtemp(prefix="dxt"))
    socket = folder / "r.sock"
    command = [find_redis_server(), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"unix://{socket}"
    deadline = time.monotonic() + 20
    while not answers(url) and time.monotonic() < deadline:
        os.sched_yield()
    yield url
    child.terminate()
    child.wait(10)
    shutil.rmtree(folder)


def answers(url: str) -> bool:
    try:
        connect(url)
    except QueueError:
        return False
    return True


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    made = Broker(redis_url, "r-test", 1)
    made.open()
    yield made
    made.delete()
    assert connect(redis_url).keys("*") == [], "a run leaves no key"


def claimed(broker: Broker, *, lease_seconds: float = 30) -> Claim:
    claim = broker.claim("w", lease_seconds=lease_seconds)
    assert isinstance(claim, Claim)
    return claim


def claimed_again(broker: Broker) -> Claim:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if isinstance(claim := broker.claim("w2", lease_seconds=30), Claim):
            return claim
    raise AssertionError("the expired lease was not given again")


def test_a_task_is_given_once_and_ends_with_its_counters(broker: Broker) -> None:
    assert broker.put(TASKS[0], max_rows=100) is Answer.OK
    claim = claimed(broker)
    assert claim.task == TASKS[0]
    assert broker.claim("w2", lease_seconds=30) is Answer.EMPTY
    assert broker.commit(claim, {"rewritten": 7, "unchanged": 3}) is Answer.OK
    assert broker.counters() == {"queued": 0, "done": 10, "rewritten": 7, "unchanged": 3}


def test_a_commit_with_a_stale_fence_changes_nothing(broker: Broker) -> None:
    broker.put(TASKS[0], max_rows=100)
    paused = claimed(broker, lease_seconds=0.01)
    successor = claimed_again(broker)
    assert successor.delivery == paused.delivery + 1
    assert broker.renew(paused, lease_seconds=30) is Answer.STALE
    assert broker.commit(paused, {"rewritten": 10}) is Answer.STALE
    assert broker.counters() == {"queued": 10}
    assert broker.commit(successor, {"rewritten": 10}) is Answer.OK
    assert broker.commit(successor, {"rewritten": 10}) is Answer.STALE
    assert broker.counters()["done"] == 10


def test_the_queue_is_bounded_in_rows(broker: Broker) -> None:
    assert broker.put(TASKS[0], max_rows=15) is Answer.OK
    assert broker.put(TASKS[1], max_rows=15) is Answer.FULL
    claim = claimed(broker)
    assert broker.put(TASKS[1], max_rows=15) is Answer.FULL, "what is in flight counts"
    broker.commit(claim, {})
    assert broker.put(TASKS[1], max_rows=15) is Answer.OK


def test_a_released_task_is_given_again_at_once(broker: Broker) -> None:
    broker.put(TASKS[0], max_rows=100)
    assert broker.release(claimed(broker)) is Answer.OK
    assert claimed(broker).delivery == 2


def test_a_queue_that_redis_lost_answers_lost_and_changes_nothing(redis_url: str, broker: Broker) -> None:
    broker.put(TASKS[0], max_rows=100)
    claim = claimed(broker)
    connect(redis_url).flushall()
    assert broker.commit(claim, {"rewritten": 10}) is Answer.LOST
    assert broker.put(TASKS[1], max_rows=100) is Answer.LOST
    assert broker.claim("w", lease_seconds=30) is Answer.LOST
    assert broker.is_lost()
    assert connect(redis_url).keys("*") == []


def test_an_unreachable_redis_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="DISTOX_REDIS_URL"):
        connect(f"unix://{tmp_path / 'nobody.sock'}")
