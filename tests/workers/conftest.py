"""Queues and dumps for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.schema.inference import QueueSettings
from tests.redis_server import RedisServer, find_binaries
from workers.broker import Answer, Broker
from workers.connection import Connection

RUN = "r-test"
SETTINGS = QueueSettings(max_rows_queued=40, lease_seconds=30.0, max_errors=2, max_crashes=2)


@pytest.fixture(scope="session", params=range(2), ids=["newest", "oldest"])
def any_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Each redis-server of this machine in turn: what PATH has, and the oldest that distox supports."""
    binaries = find_binaries()
    if request.param >= len(binaries):
        pytest.skip("no second redis-server here")
    with RedisServer(binaries[request.param]) as server:
        yield server


@pytest.fixture
def connection(any_redis: RedisServer) -> Iterator[Connection]:
    """A connection to a Redis that must be empty at the end of the test."""
    made = Connection(any_redis.url, outage_seconds=5.0)
    yield made
    made.close()
    left = any_redis.all_keys()
    with any_redis.client() as client:
        client.flushall()
    assert left == [], "keys are left in Redis"


@pytest.fixture
def broker(connection: Connection) -> Iterator[Broker]:
    """The open queue of generation 1."""
    made = Broker(connection, RUN, 1)
    assert made.open(SETTINGS) is Answer.OPENED
    yield made
    made.close()


def contents(server: RedisServer) -> dict[str, Any]:
    """All that Redis holds, to be compared."""
    with server.client() as client:
        keys = sorted(str(key) for key in client.scan_iter())
        return {key: client.dump(key) if not key.endswith(":stream") else client.xrange(key) for key in keys}


def write_csv(file: Path, texts: Sequence[str]) -> Path:
    """A dump with the columns id and comment."""
    import csv

    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "comment"])
        writer.writerows([str(number), text] for number, text in enumerate(texts))
    return file


def read_csv(file: Path) -> list[tuple[str, str, str, str]]:
    """Rows of a merged file: id, comment, detoxified, status."""
    import csv

    with file.open(encoding="utf-8", newline="") as stream:
        return [(row["id"], row["comment"], row["detoxified"], row["distox_status"]) for row in csv.DictReader(stream)]
