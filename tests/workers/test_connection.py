"""What happens while Redis is away, refuses, or comes back as another process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.redis_server import RedisServer, find_binaries
from tests.waiting import wait_until
from tests.workers.conftest import RUN, SETTINGS
from workers.broker import Answer, Broker, Lease, Watched
from workers.connection import Connection, QueueUnreachable, hide_password
from workers.messages import Task

TASK = Task("in.csv", 0, 9, 0, 100)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of the test's own, durable as the embedded one."""
    binaries = find_binaries()
    if not binaries:
        pytest.skip("no redis-server here")
    with RedisServer(binaries[0], "--appendonly", "yes", "--appendfsync", "everysec") as made:
        yield made


@pytest.fixture
def connection(server: RedisServer) -> Iterator[Connection]:
    made = Connection(server.url, outage_seconds=20.0)
    yield made
    made.close()


@pytest.fixture
def broker(connection: Connection) -> Broker:
    made = Broker(connection, RUN, 1)
    made.open(SETTINGS)
    made.put([TASK])
    return made


def test_redis_that_isnt_there_is_said_in_seconds_with_the_remedy() -> None:
    began = time.monotonic()
    with pytest.raises(QueueUnreachable, match=r"distox up.*DISTOX_REDIS_URL"):
        Connection("unix:///tmp/no-such-folder/redis.sock").check()
    assert time.monotonic() - began < 8


def test_a_url_that_is_none_is_said_at_once() -> None:
    with pytest.raises(QueueUnreachable, match=r"use redis://host:port/0"):
        Connection("localhost:6379")


def test_a_wrong_password_is_said_at_once_and_is_not_shown(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("requirepass", "right")
    wrong = server.url.replace("unix://", "unix://:wr0ng@")
    began = time.monotonic()
    with pytest.raises(QueueUnreachable) as caught:
        Connection(wrong).check()
    assert time.monotonic() - began < 2
    assert "wr0ng" not in str(caught.value)
    assert hide_password("rediss://me:secret@host:6380/0") == "rediss://me:***@host:6380/0"


def test_an_eviction_policy_that_could_lose_tasks_is_warned_of(
    server: RedisServer, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    with caplog.at_level(logging.WARNING):
        connection.check()
    assert "noeviction" in caplog.text


def test_a_queue_that_went_through_a_restart_is_lost_although_its_keys_are_there(
    server: RedisServer, broker: Broker, connection: Connection
) -> None:
    """The last second before the restart may be missing: another worker could get the same fence again."""
    lease = broker.claim("w1")
    assert isinstance(lease, Lease)
    server.restart()
    assert any(":g1:" in key for key in server.all_keys()), "the append-only file brought them back"
    assert broker.claim("w2") is Answer.LOST
    assert broker.commit(lease, {"rewritten": 10}) is Answer.LOST
    after = Broker(connection, RUN, 2)
    assert after.open(SETTINGS) is Answer.OPENED
    assert [key for key in server.all_keys() if ":g1:" in key] == []
    assert after.close() is Answer.CLOSED
    assert server.all_keys() == []


def test_keys_can_be_deleted_after_a_restart(server: RedisServer, broker: Broker) -> None:
    server.restart()
    assert broker.close() is Answer.CLOSED
    assert server.all_keys() == []


def test_a_call_waits_for_redis_to_come_back(server: RedisServer, broker: Broker) -> None:
    server.kill()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(broker.claim("w1")))
    thread.start()
    assert answers == []
    server.start()
    thread.join(timeout=20)
    assert answers == [Answer.LOST]


def test_a_call_gives_up_at_its_deadline_with_the_remedy(server: RedisServer, broker: Broker) -> None:
    impatient = Broker(Connection(server.url, outage_seconds=0.3), RUN, 1)
    server.kill()
    with pytest.raises(QueueUnreachable, match="DISTOX_REDIS_URL"):
        impatient.claim("w1")
    server.start()


def test_waiting_ends_when_the_caller_says_so(server: RedisServer, broker: Broker) -> None:
    class Over(Exception):  # noqa: N818
        pass

    def stop() -> None:
        raise Over

    waiting = Broker(Connection(server.url, on_wait=stop), RUN, 1)
    server.kill()
    with pytest.raises(Over):
        waiting.claim("w1")
    server.start()


def make_trouble(server: RedisServer, client: Any, trouble: str) -> None:
    if trouble == "READONLY":
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    elif trouble == "OOM":
        client.config_set("maxmemory", "1")
    elif trouble == "NOREPLICAS":
        client.config_set("min-replicas-to-write", "1")
    else:
        # A snapshot that can't be written, its name being a folder's, stops all writing.
        (server.folder / "dump.rdb").mkdir()
        client.config_set("save", "3600 1")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "the snapshot fails")


def end_trouble(client: Any, trouble: str) -> None:
    if trouble == "READONLY":
        client.execute_command("REPLICAOF", "NO", "ONE")
    elif trouble == "OOM":
        client.config_set("maxmemory", "0")
    elif trouble == "NOREPLICAS":
        client.config_set("min-replicas-to-write", "0")
    else:
        client.config_set("stop-writes-on-bgsave-error", "no")


@pytest.mark.parametrize("trouble", ["MISCONF", "OOM", "READONLY", "NOREPLICAS"])
def test_a_refusal_that_can_pass_is_waited_out(server: RedisServer, broker: Broker, trouble: str) -> None:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(broker.claim("w1")))
    with server.client() as client:
        make_trouble(server, client, trouble)
        with pytest.raises(redis.ResponseError):
            client.set("probe", "1")
        thread.start()
        thread.join(timeout=0.2)
        assert answers == [], "it waits"
        end_trouble(client, trouble)
    thread.join(timeout=20)
    assert isinstance(answers[0], Lease)


def test_a_server_that_answers_nothing_is_noticed(
    server: RedisServer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.connection.SOCKET_SECONDS", 0.3)
    stuck = Broker(Connection(server.url, outage_seconds=20.0), RUN, 1)
    assert isinstance(stuck.watch(), Watched)
    server.stop()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(stuck.watch()))
    thread.start()
    thread.join(timeout=0.8)
    assert answers == []
    server.resume()
    thread.join(timeout=20)
    assert isinstance(answers[0], Watched)


def test_health_counts_from_the_end_of_an_outage(server: RedisServer, broker: Broker, connection: Connection) -> None:
    began = time.monotonic()
    server.kill()
    thread = threading.Thread(target=broker.watch)
    thread.start()
    thread.join(timeout=0.2)
    back = time.monotonic()
    server.start()
    thread.join(timeout=20)
    assert connection.healthy_seconds < time.monotonic() - back < time.monotonic() - began
