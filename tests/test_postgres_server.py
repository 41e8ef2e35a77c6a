"""The PostgreSQL of the tests: run by nobody who matters, reachable by its socket alone, gone afterwards."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests.postgres_server import find_binaries, run_server


def test_the_server_runs_unprivileged_listens_on_no_port_and_leaves_nothing() -> None:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here (apt install postgresql)")
    with run_server(binaries) as url:
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            backend = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            server = backend.parent()
            assert server is not None
            assert server.uids().real != 0
            assert connection.execute(text("SHOW listen_addresses")).scalar_one() == ""
        engine.dispose()
        folder = Path(str(make_url(url).query["host"]))
        assert folder.exists()
    assert not server.is_running()
    assert not folder.exists()
