"""A PostgreSQL server for tests: its own data folder, a Unix socket, no network, ended afterwards.

``initdb`` refuses root, so under root the server runs as an unprivileged user of the machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
START_SECONDS = 30.0
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}
"""A small server whose data need not survive a power cut."""


def find_binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: that of PATH, else Debian's newest; None when there is none."""
    found = shutil.which("initdb")
    if found is not None and (Path(found).resolve().parent / "postgres").exists():
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda file: float(file.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def run_server(binaries: Path) -> Iterator[str]:
    """Run a server; gives the SQLAlchemy URL of its database ``postgres``."""
    user = _user()
    # Under /tmp: a socket's path has at most 107 bytes, and pytest's folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="dxpg-", dir="/tmp"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        _initialise(binaries, folder, user)
        with _started(binaries, folder, user):
            yield f"postgresql+psycopg://distox@/postgres?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(binaries: Path, folder: Path, user: str | None) -> None:
    command = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "distox", "-A", "trust"]
    command += ["-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, user=user, cwd="/", env=_environment())


@contextmanager
def _started(binaries: Path, folder: Path, user: str | None) -> Iterator[None]:
    command = [str(binaries / "postgres"), "-D", str(folder / "data"), "-k", str(folder)]
    for key, value in SETTINGS.items():
        command += ["-c", f"{key}={value}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd="/", env=_environment())
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([str(binaries / "pg_isready"), "-q", "-h", str(folder)], check=False).returncode != 0:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL didn't start"
        yield
    finally:
        # SIGINT is its fast shutdown: clients are cut off.
        server.send_signal(2)
        server.wait(timeout=30)


def _user() -> str | None:
    """Who runs the server: None for this user, an unprivileged one under root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
