"""The queue against a real redis-server, of the newest and of the oldest version that is supported."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.workers.conftest import RUN, SETTINGS, contents
from workers.broker import Answer, Broker, Halted, Lease, Mode, Watched, attach, is_there
from workers.connection import Connection
from workers.keys import NAMES, Keys
from workers.messages import MessageError, Task

ROWS = 10


def task(number: int, rows: int = ROWS) -> Task:
    return Task("in.csv", number * rows, (number + 1) * rows - 1, number * 100, 100)


def claimed(broker: Broker, worker: str = "w1") -> Lease:
    lease = broker.claim(worker)
    assert isinstance(lease, Lease), lease
    return lease


def crash(broker: Broker, lease: Lease) -> None:
    """As when the worker's process died and the pool saw it."""
    assert broker.expire(lease.worker) is Answer.EXPIRED


def watched(broker: Broker) -> Watched:
    answer = broker.watch()
    assert isinstance(answer, Watched)
    return answer


def test_a_task_comes_back_as_it_was_put(broker: Broker) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    assert lease.task == task(0)
    assert (lease.generation, lease.delivery, lease.mode) == (1, 1, Mode.RUN)
    assert broker.claim("w2") is Answer.EMPTY


def test_a_commit_counts_its_rows_once_and_leaves_nothing_of_the_task(broker: Broker, any_redis: RedisServer) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    assert broker.commit(lease, {"rewritten": 9, "quarantined": 1}) is Answer.COMMITTED
    state = watched(broker)
    assert (state.rows_done, state.rows_queued, state.rows_of("quarantined")) == (ROWS, 0, 1)
    assert broker.committed() == {(0, 9): 1}
    keys = Keys(RUN, 1)
    with any_redis.client() as client:
        assert client.xlen(keys.key("stream")) == 0
        assert client.xpending(keys.key("stream"), "workers")["pending"] == 0
        assert [name for name in ("tasks", "leases", "delayed", "held") if client.exists(keys.key(name))] == []


def test_a_commit_whose_answer_was_lost_may_be_repeated(broker: Broker) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    broker.commit(lease, {"rewritten": ROWS})
    assert broker.commit(lease, {"rewritten": ROWS}) is Answer.COMMITTED
    assert watched(broker).rows_done == ROWS


def test_a_claim_whose_answer_was_lost_is_answered_again_without_a_new_delivery(broker: Broker) -> None:
    broker.put([task(0), task(1)])
    assert claimed(broker) == claimed(broker)
    assert claimed(broker).crashes == 0


@pytest.mark.parametrize("change", ["commit", "fail", "release", "bisect", "renew"])
def test_a_stale_fence_changes_nothing(broker: Broker, any_redis: RedisServer, change: str) -> None:
    broker.put([task(0)])
    old = claimed(broker, "w1")
    crash(broker, old)
    new = claimed(broker, "w2")
    assert (new.delivery, new.crashes) == (2, 1)
    before = contents(any_redis)
    changes: dict[str, Callable[[], object]] = {
        "commit": lambda: broker.commit(old, {"rewritten": ROWS}),
        "fail": lambda: broker.fail(old, delay_seconds=0),
        "release": lambda: broker.release(old),
        "bisect": lambda: broker.bisect(old, task(0, 5), task(1, 5)),
        "renew": lambda: broker.renew("w1", "{}", old),
    }
    assert changes[change]() is Answer.STALE
    if change != "renew":  # which notes the heartbeat all the same
        assert contents(any_redis) == before
    assert broker.commit(new, {"rewritten": ROWS}) is Answer.COMMITTED
    assert broker.commit(old, {"rewritten": ROWS}) is Answer.STALE, "also when the task is done"


@pytest.mark.parametrize("change", ["put", "claim", "commit", "fail", "release", "bisect", "renew", "expire", "halt"])
def test_a_queue_that_redis_lost_answers_lost_and_stays_lost(
    broker: Broker, connection: Connection, any_redis: RedisServer, change: str
) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    changes: dict[str, Callable[[], object]] = {
        "put": lambda: broker.put([task(1)]),
        "claim": lambda: broker.claim("w2"),
        "commit": lambda: broker.commit(lease, {"rewritten": ROWS}),
        "fail": lambda: broker.fail(lease, delay_seconds=0),
        "release": lambda: broker.release(lease),
        "bisect": lambda: broker.bisect(lease, task(0, 5), task(1, 5)),
        "renew": lambda: broker.renew("w1", "{}", lease),
        "expire": lambda: broker.expire("w1"),
        "halt": lambda: broker.halt("{}"),
    }
    with any_redis.client() as client:
        client.flushall()
    assert changes[change]() is Answer.LOST
    assert broker.watch() is Answer.LOST
    assert any_redis.all_keys() == [], "no script makes a key of a queue that isn't there"
    after = Broker(connection, RUN, 2)
    after.open(SETTINGS)
    after.put([task(0)])
    claimed(after)
    before = contents(any_redis)
    assert changes[change]() is Answer.LOST, "of another generation"
    assert contents(any_redis) == before
    after.close()


def test_the_bound_counts_rows_pending_delayed_and_in_flight(broker: Broker) -> None:
    tasks = [task(number) for number in range(6)]
    assert broker.put(tasks) == 4, "of 40 rows"
    lease = claimed(broker)
    assert broker.put(tasks[4:]) == 0, "in flight"
    broker.fail(lease, delay_seconds=60)
    assert broker.put(tasks[4:]) == 0, "delayed"
    broker.commit(claimed(broker), {"rewritten": ROWS})
    assert broker.put(tasks[4:]) == 1
    assert watched(broker).rows_queued == 40


def test_a_put_whose_answer_was_lost_may_be_repeated(broker: Broker, any_redis: RedisServer) -> None:
    assert broker.put([task(0), task(1)]) == 2
    assert broker.put([task(0), task(1), task(2)]) == 3
    assert watched(broker).rows_queued == 30
    with any_redis.client() as client:
        assert client.xlen(Keys(RUN, 1).key("stream")) == 3


def test_a_task_above_the_bound_is_let_in_alone(broker: Broker) -> None:
    assert broker.put([task(0, 100), task(1, 100)]) == 1
    assert broker.put([task(1, 100)]) == 0


def test_expired_leases_come_before_due_retries_before_new_tasks(broker: Broker) -> None:
    broker.put([task(number) for number in range(4)])
    expired, retried, given_back = claimed(broker, "a"), claimed(broker, "b"), claimed(broker, "c")
    broker.release(given_back)
    broker.fail(retried, delay_seconds=0)
    crash(broker, expired)
    order = [claimed(broker, worker).task for worker in ("d", "e", "f", "g")]
    assert order == [expired.task, given_back.task, retried.task, task(3)]


def test_a_lease_that_isnt_renewed_expires_and_a_renewed_one_does_not(connection: Connection) -> None:
    broker = Broker(connection, RUN, 1)
    broker.open(SETTINGS.model_copy(update={"lease_seconds": 0.2}))
    broker.put([task(0), task(1)])
    kept, lost = claimed(broker, "kept"), claimed(broker, "lost")
    found: list[Lease] = []

    def look() -> bool:
        assert broker.renew("kept", "{}", kept) is Answer.RENEWED
        found.extend(lease for lease in [broker.claim("other")] if isinstance(lease, Lease))
        return bool(found)

    wait_until(look, 10, "the lease expires")
    assert (found[0].task, found[0].crashes) == (lost.task, 1)
    assert broker.commit(kept, {"rewritten": ROWS}) is Answer.COMMITTED
    broker.close()


def test_a_renewal_counts_no_delivery(broker: Broker, any_redis: RedisServer) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    for _ in range(3):
        broker.renew("w1", "{}", lease)
    with any_redis.client() as client:
        (pending,) = client.xpending_range(Keys(RUN, 1).key("stream"), "workers", "-", "+", 10)
    assert (pending["consumer"], pending["times_delivered"]) == ("w1", 1)


def test_a_failed_task_waits_for_its_delay_and_counts_its_errors(broker: Broker) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    assert broker.fail(lease, delay_seconds=0.15) is Answer.FAILED
    assert broker.fail(lease, delay_seconds=0) is Answer.STALE, "repeated, it counts once"
    assert broker.claim("w2") is Answer.EMPTY
    found: list[Lease] = []

    def look() -> bool:
        found.extend(item for item in [broker.claim("w2")] if isinstance(item, Lease))
        return bool(found)

    wait_until(look, 5, "the delay is over")
    assert (found[0].errors, found[0].crashes, found[0].delivery, found[0].mode) == (1, 0, 2, Mode.RUN)


def test_a_task_whose_errors_are_used_up_is_isolated(broker: Broker) -> None:
    broker.put([task(0)])
    modes = []
    for _ in range(3):
        lease = claimed(broker)
        modes.append(lease.mode)
        broker.fail(lease, delay_seconds=0)
    assert modes == [Mode.RUN, Mode.RUN, Mode.ISOLATE]


def test_a_task_given_back_counts_neither_as_error_nor_as_crash(broker: Broker) -> None:
    broker.put([task(0)])
    for _ in range(5):
        lease = claimed(broker)
        assert (lease.errors, lease.crashes, lease.mode) == (0, 0, Mode.RUN)
        assert broker.release(lease) is Answer.RELEASED
        assert broker.release(lease) is Answer.STALE, "only once"


def test_crashes_and_errors_have_budgets_of_their_own(broker: Broker) -> None:
    broker.put([task(0)])
    crash(broker, claimed(broker, "a"))
    broker.fail(claimed(broker, "b"), delay_seconds=0)
    lease = claimed(broker, "c")
    assert (lease.crashes, lease.errors, lease.mode) == (1, 1, Mode.RUN)


def test_a_task_that_kills_its_workers_is_bisected_to_the_row_which_is_quarantined(broker: Broker) -> None:
    broker.put([task(0, 8)])
    poison, done, deaths = 5, set[int](), 0
    deliveries = [0]
    while len(done) < 8:
        lease = claimed(broker, f"w{deaths}")
        rows = range(lease.task.first_row, lease.task.last_row + 1)
        assert lease.delivery > 0
        if lease.mode is Mode.BISECT:
            middle = (rows[0] + rows[-1]) // 2
            left, right = Task("in.csv", rows[0], middle, 0, 1), Task("in.csv", middle + 1, rows[-1], 1, 1)
            assert broker.bisect(lease, left, right) is Answer.BISECTED
            assert broker.bisect(lease, left, right) is Answer.STALE, "only once"
            assert watched(broker).rows_queued == 8 - len(done), "the bound counts the halves as it did the whole"
        elif lease.mode is Mode.QUARANTINE:
            assert list(rows) == [poison]
            assert broker.commit(lease, {"quarantined": 1}) is Answer.COMMITTED
            done.update(rows)
        elif poison in rows:
            deaths += 1
            deliveries.append(lease.delivery)
            crash(broker, lease)
        else:
            assert broker.commit(lease, {"rewritten": len(rows)}) is Answer.COMMITTED
            done.update(rows)
    assert deaths == 2 + 1 + 1 + 2, "the whole twice, each half once, the single row twice: in doubt for the row"
    assert deliveries == sorted(set(deliveries)), "halves go on with the fence of their whole"
    assert watched(broker).counters["queued"] == 0


def test_halting_lets_nobody_claim_and_keeps_the_first_reason(broker: Broker) -> None:
    broker.put([task(0), task(1)])
    lease = claimed(broker)
    assert broker.halt("first") is Answer.HALTED
    broker.halt("second")
    assert broker.claim("w2") == Halted("first")
    assert broker.commit(lease, {"rewritten": ROWS}) is Answer.COMMITTED, "what runs may finish"
    assert watched(broker).halted == "first"


def test_a_later_generation_takes_over_and_deletes_the_one_before(
    broker: Broker, connection: Connection, any_redis: RedisServer
) -> None:
    broker.put([task(0)])
    old = claimed(broker)
    broker.renew("w1", "{}", old)
    after = Broker(connection, RUN, 2)
    assert after.open(SETTINGS) is Answer.OPENED
    assert after.open(SETTINGS) is Answer.OPENED, "repeated, it is the same"
    assert [key for key in any_redis.all_keys() if ":g1:" in key] == []
    assert broker.commit(old, {"rewritten": ROWS}) is Answer.LOST
    assert broker.open(SETTINGS) is Answer.STALE
    assert broker.close() is Answer.LOST, "the later one stays"
    assert is_there(connection, RUN)
    assert after.close() is Answer.CLOSED


def test_closing_deletes_every_key(broker: Broker, connection: Connection, any_redis: RedisServer) -> None:
    broker.put([task(0), task(1), task(2)])
    lease = claimed(broker, "a")
    broker.renew("a", "{}", lease)
    broker.commit(lease, {"rewritten": ROWS})
    broker.fail(claimed(broker, "b"), delay_seconds=60)
    claimed(broker, "c")
    keys = Keys(RUN, 1)
    assert set(any_redis.all_keys()) == {keys.key(name) for name in ("meta", *NAMES)}, "the table of keys is complete"
    assert broker.close() is Answer.CLOSED
    assert broker.close() is Answer.LOST, "repeated, there is nothing"
    assert not is_there(connection, RUN)


def test_keys_expire_when_no_driver_looks_at_them(broker: Broker, any_redis: RedisServer) -> None:
    broker.put([task(0)])
    lease = claimed(broker)
    broker.renew("w1", "{}", lease)
    broker.watch(extend=True)
    with any_redis.client() as client:
        assert all(client.ttl(key) > 3600 for key in any_redis.all_keys())


def test_a_worker_attaches_to_the_current_generation_only(broker: Broker, connection: Connection) -> None:
    found = attach(connection, RUN)
    assert found is not None
    assert (found.generation, found.lease_seconds) == (1, 30.0)
    broker.close()
    assert attach(connection, RUN) is None


def test_heartbeats_have_an_age_by_the_clock_of_redis(broker: Broker) -> None:
    broker.renew("w1", '{"a": 1}', None)
    (beat,) = watched(broker).heartbeats
    assert (beat.worker, beat.beat) == ("w1", '{"a": 1}')
    assert 0 <= beat.age_seconds < 5
    crash(broker, Lease("w1", "", task(0), 1, 1, Mode.RUN, 0, 0))
    assert watched(broker).heartbeats == []


def test_messages_hold_references_and_are_refused_in_another_version() -> None:
    message = task(3).to_json()
    assert Task.from_json(message) == task(3)
    with pytest.raises(MessageError, match="version 9"):
        Task.from_json(message.replace('"v":1', '"v":9'))


def test_every_key_carries_the_runs_hash_tag() -> None:
    keys = Keys("r-1", 7)
    assert keys.key("stream") == "distox:{r-1}:g7:stream"
    assert all(key.startswith("distox:{r-1}:") for key in keys.of_script("watch"))
