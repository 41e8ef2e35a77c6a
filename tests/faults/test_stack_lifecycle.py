"""Stacks as their users keep them: up, status, env, down, two side by side, and parts that live elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.processes import MARK
from cluster.runs import State
from cluster.store import Store
from tests.postgres_server import find_binaries, run_server
from tests.redis_server import RedisServer
from tests.stack_home import TINY_SPEC, StackHome, stack_home

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]

LONG = "/".join(["a-folder-with-a-long-name-as-deep-projects-have-them"] * 4)
"""Longer than a socket's path may be."""


@pytest.fixture
def postgres_url() -> Iterator[str]:
    binaries = find_binaries()
    if binaries is None:
        message = "no PostgreSQL here (apt install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with run_server(binaries) as url:
        yield url


def up(home: StackHome) -> None:
    done = home.distox("up", "--num-cpus", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def run_tiny(home: StackHome) -> None:
    """Submit the tiny spec through the home's API, and see it succeed."""
    home.write("tiny.yaml", TINY_SPEC)
    done = home.distox("submit", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def listeners(home: StackHome) -> set[str]:
    """The addresses on which processes of the home serve."""
    stack = home.stack()
    assert stack is not None
    found = set()
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or connection.pid is None or not connection.laddr:
            continue
        if psutil.Process(connection.pid).environ().get(MARK) == stack.stack_id:
            found.add(connection.laddr.ip)
    return found


def test_two_stacks_live_side_by_side_and_the_end_of_one_is_nothing_to_the_other(tmp_path: Path) -> None:
    store_url = f"sqlite:///{tmp_path / 'deep' / 'results.sqlite'}"
    with stack_home(home=LONG) as first, stack_home(DISTOX_STORE_URL=store_url) as second:
        assert len(str(first.home)) > 200
        up(first)
        again = first.distox("up")
        assert (again.returncode, "`distox down` ends it" in again.stderr) == (1, True), again.stderr
        status = first.distox("status")
        assert status.returncode == 0
        assert str(first.home) in status.stdout
        # Every process of it is known by its mark, and nobody outside this machine reaches one.
        assert first.num_marked() == len(first.processes()) > 10
        assert listeners(first) <= {"127.0.0.1", "::ffff:127.0.0.1"}

        up(second)
        run_tiny(first)
        run_tiny(second)
        down = first.distox("down")
        assert (down.returncode, down.stdout[:6]) == (0, "ended ")
        assert (first.processes(), first.stack()) == ([], None)
        assert first.distox("status").returncode == 3

        assert second.distox("status").returncode == 0
        run_tiny(second)
        assert second.distox("down").returncode == 0
        assert second.processes() == []
        assert not list(second.folder.rglob("*.sqlite"))
        assert states(store_url) == {State.SUCCEEDED}


def test_parts_that_are_configured_elsewhere_are_used_and_left(postgres_url: str, redis_server: RedisServer) -> None:
    elsewhere = {"DISTOX_REDIS_URL": redis_server.url, "DISTOX_STORE_URL": postgres_url}
    with stack_home(**elsewhere) as first:
        up(first)
        assert not any("redis-server" in line for line in first.processes())
        assert not list(first.folder.rglob("store.sqlite"))
        run_tiny(first)
        assert states(postgres_url) == {State.SUCCEEDED}
        stack = first.stack()
        assert stack is not None

        # A second home uses the first one's cluster and store, and starts nothing but an API.
        cluster = {"RAY_ADDRESS": stack.ray_address, "RAY_AUTH_TOKEN_PATH": str(stack.ray_token_path)}
        with stack_home(**elsewhere, **cluster, RAY_AUTH_MODE="token") as second:
            up(second)
            [only] = second.processes()
            assert "-m api" in only
            run_tiny(second)
            assert second.distox("down").returncode == 0
            assert second.processes() == []
        assert first.distox("status").returncode == 0

        # With a store of its own it would wait for ever: the cluster works for the other.
        with stack_home(**cluster, RAY_AUTH_MODE="token", DISTOX_REDIS_URL=redis_server.url) as third:
            done = third.distox("up")
            assert done.returncode == 1, done.stdout
            assert f"works for the store {stack.store_id}" in done.stderr
            assert (third.processes(), third.stack()) == ([], None)
        assert first.distox("down").returncode == 0
        assert first.processes() == []
    assert redis_server.all_keys() == []
    assert states(postgres_url) == {State.SUCCEEDED}


def states(url: str) -> set[State]:
    store = Store.open(url)
    try:
        return {run.state for run in store.list()}
    finally:
        store.close()
