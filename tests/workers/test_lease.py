"""Heartbeats and renewal from a worker's own thread, and what makes a worker count as hung."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from configs.schema.inference import QueueSettings
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.workers.conftest import RUN
from workers.broker import Answer, Broker, Lease, Watched
from workers.connection import Connection
from workers.lease import Beat, Keeper, why_hung
from workers.messages import Task

SETTINGS = QueueSettings(lease_seconds=0.4)


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    connection = Connection(redis_url)
    made = Broker(connection, RUN, 1)
    made.open(SETTINGS)
    made.put([Task("in.csv", 0, 9, 0, 100)])
    yield made
    Broker(connection, RUN, made.generation).close()
    connection.close()


def claimed(broker: Broker) -> Lease:
    lease = broker.claim("w1")
    assert isinstance(lease, Lease)
    return lease


def beats(broker: Broker) -> list[Beat]:
    watched = broker.watch()
    assert isinstance(watched, Watched)
    return [Beat.from_json(heartbeat.beat) for heartbeat in watched.heartbeats]


def test_a_lease_is_kept_for_as_long_as_it_is_held(redis_url: str, broker: Broker) -> None:
    lease = claimed(broker)
    with Keeper(redis_url, RUN, "w1", task_seconds=60) as keeper:
        keeper.follow(1, 0.4)
        keeper.hold(lease)
        wait_until(lambda: any((beat.task_seconds or 0) > 1.0 for beat in beats(broker)), 10, "three leases' time")
        assert broker.claim("w2") is Answer.EMPTY
        assert not keeper.is_lost
        keeper.drop()
        wait_until(lambda: isinstance(broker.claim("w2"), Lease), 10, "what isn't kept runs out")


def test_a_lease_is_not_kept_beyond_the_time_limit_of_a_task(redis_url: str, broker: Broker) -> None:
    lease = claimed(broker)
    with Keeper(redis_url, RUN, "w1", task_seconds=0.2) as keeper:
        keeper.follow(1, 0.4)
        keeper.hold(lease)
        wait_until(lambda: isinstance(broker.claim("w2"), Lease), 10, "it runs out although its holder lives")
        assert broker.commit(lease, {"rewritten": 10}) is Answer.STALE


def test_a_keeper_notices_that_its_lease_is_anothers(redis_url: str, broker: Broker) -> None:
    lease = claimed(broker)
    with Keeper(redis_url, RUN, "w1", task_seconds=60) as keeper:
        keeper.follow(1, 0.4)
        broker.expire("w1")
        assert isinstance(broker.claim("w2"), Lease)
        keeper.hold(lease)
        wait_until(lambda: keeper.is_lost, 10)


def test_a_keeper_beats_on_the_queue_that_was_rebuilt_while_its_worker_is_at_an_old_task(
    redis_url: str, broker: Broker, redis_server: RedisServer
) -> None:
    lease = claimed(broker)
    with Keeper(redis_url, RUN, "w1", task_seconds=60) as keeper:
        keeper.follow(1, 0.4)
        keeper.hold(lease)
        with redis_server.client() as client:
            client.flushall()
        broker.generation = 2
        after = Broker(Connection(redis_url), RUN, 2)
        after.open(SETTINGS)
        wait_until(lambda: bool(beats(after)), 10, "it beats on the new queue")
        assert keeper.is_lost
        assert beats(after)[0].task_seconds is not None
    after.close()


def test_a_drain_while_redis_is_away_still_ends_the_process(redis_url: str, broker: Broker) -> None:
    ended = threading.Event()
    lease = claimed(broker)
    with Keeper("unix:///tmp/no-such-redis", RUN, "w1", task_seconds=60, end_process=ended.set) as keeper:
        keeper.follow(1, 0.4)
        keeper.hold(lease)
        keeper.drain(0.1)
        assert ended.wait(10)


@pytest.mark.parametrize(
    ("task_seconds", "silent_seconds", "age_seconds", "reason"),
    [
        (None, 0.0, 5.0, ""),
        (None, 0.0, 31.0, "no heartbeat for 31 s"),
        (None, 25.0, 10.0, "no poll for 35 s"),
        (50.0, 50.0, 5.0, ""),
        (99.0, 99.0, 5.0, "at one task for 104 s"),
        (1.0, 1.0, 31.0, "no heartbeat for 31 s"),
    ],
)
def test_a_worker_is_hung_when_its_heartbeat_its_poll_or_its_task_is_too_old(
    task_seconds: float | None, silent_seconds: float, age_seconds: float, reason: str
) -> None:
    beat = Beat(1, "here", task_seconds, silent_seconds)
    assert why_hung(Beat.from_json(beat.to_json()), age_seconds, lease_seconds=30, task_seconds=100) == reason
