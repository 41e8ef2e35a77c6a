"""One thread's connection to Redis: the only place that talks to redis-py.

Guarantee: any Redis error that can pass (restart, time-out, LOADING, MISCONF, OOM, READONLY, NOREPLICAS …) is waited
out, up to a deadline. ``server`` names the server process of the connection that a script is sent on, so that a queue
which went through a restart, and may have lost its last second, is told apart. It knows neither tasks nor rows.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

OUTAGE_SECONDS = 120.0
"""How long Redis may be away before a run is given up: longer than a restart that loads a large file."""
CONNECT_SECONDS = 5.0
SOCKET_SECONDS = 10.0
"""Longer than any script takes; a server that is stopped or cut off is noticed after it."""
START_SECONDS = 3.0
"""At the start of a run Redis must answer by then: somebody is waiting for the message."""
PAUSE_SECONDS = (0.05, 1.0)
MINIMUM_VERSION = (6, 2)
_LUA = Path(__file__).parent / "lua"
_PASSING_ERRORS = (
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
"""redis-py takes the first word off the message of those that it knows."""
_PASSING = re.compile(
    r"LOADING|MISCONF|READONLY|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY |UNKILLABLE|OOM|max number of clients"
)


class QueueUnreachable(RuntimeError):  # noqa: N818 (a condition of the surroundings)
    """Redis didn't answer for too long, or refuses this client; the message says what to do."""


class _ServerChangedError(redis.ConnectionError):
    """The new connection reaches another server process than the one before."""


class Connection:
    """A client for one thread. Calls wait for Redis while it is away."""

    def __init__(
        self, url: str, *, outage_seconds: float = OUTAGE_SECONDS, on_wait: Callable[[], None] | None = None
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``.
            outage_seconds: how long a call waits for Redis.
            on_wait: called at every try while Redis is away; what it raises ends the waiting.
        """
        self._url = url
        self._outage_seconds = outage_seconds
        self._on_wait = on_wait or _nothing
        self._server = ""
        self._scripts: dict[str, tuple[str, str]] = {}
        self._healthy_since = time.monotonic()
        try:
            self._client: Any = redis.Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=SOCKET_SECONDS,
                socket_connect_timeout=CONNECT_SECONDS,
                # Retrying is done here, where a change of server is seen between two tries.
                retry=Retry(NoBackoff(), 0),
                redis_connect_func=self._greet,
            )
        except ValueError as error:
            raise QueueUnreachable(
                f"DISTOX_REDIS_URL = {hide_password(url)}: {error}; use redis://host:port/0 or unix:///path"
            ) from error

    @property
    def healthy_seconds(self) -> float:
        """How long Redis has answered without a break."""
        return time.monotonic() - self._healthy_since

    def run(self, script: str, keys: Sequence[str], generation: int, *arguments: str | int) -> Any:
        """Run a Lua script; it gets generation and server before the arguments. It runs again when an answer was lost.

        Raises:
            QueueUnreachable: Redis was away for longer than ``outage_seconds``, or refuses.
        """
        return self._waiting(lambda: self._run(script, keys, (generation, self._known_server(), *arguments)))

    def fields(self, key: str, *names: str) -> list[str | None]:
        """Fields of a hash, None for those that aren't there; waits like ``run``."""
        return list(self._waiting(lambda: self._client.hmget(key, names)))

    def whole(self, key: str) -> dict[str, str]:
        """All of a hash; waits like ``run``."""
        return dict(self._waiting(lambda: self._client.hgetall(key)))

    def server(self) -> str:
        """The server process that answers now; waits like ``run``."""
        return str(self._waiting(self._known_server))

    def check(self) -> None:
        """See whether Redis is there and new enough, at once; warns of an eviction policy that could lose tasks.

        Raises:
            QueueUnreachable: it isn't; the message names the remedy.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                found = self._client.info()
                break
            except redis.RedisError as error:
                if time.monotonic() > deadline or not _may_pass(error):
                    raise QueueUnreachable(self._remedy(error)) from error
                time.sleep(PAUSE_SECONDS[0])
        version = str(found.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
            raise QueueUnreachable(
                f"Redis at {hide_password(self._url)} is {version}; use {'.'.join(map(str, MINIMUM_VERSION))} or newer"
            )
        policy = found.get("maxmemory_policy", "noeviction")
        if found.get("maxmemory") and policy != "noeviction":
            log.warning("Redis evicts keys (maxmemory-policy %s): tasks may be lost and redone; use noeviction", policy)

    def close(self) -> None:
        """Drop the socket."""
        self._client.close()

    def _known_server(self) -> str:
        if not self._server:
            self._client.ping()
        return self._server

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        if script not in self._scripts:
            text = (_LUA / f"{script}.lua").read_text("utf-8")
            self._scripts[script] = (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
        text, digest = self._scripts[script]
        try:
            return self._client.evalsha(digest, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return self._client.eval(text, len(keys), *keys, *arguments)

    def _greet(self, connection: Any) -> None:
        """Follow every new socket's login with the question which server process this is."""
        connection.on_connect()
        connection.send_command("INFO", "server")
        found = re.search(r"run_id:(\w+)", _text(connection.read_response()))
        server = found.group(1) if found else ""
        before, self._server = self._server, server
        if before and before != server:
            # The command that wanted this socket names the old server; it must not be sent.
            raise _ServerChangedError("Redis was restarted")

    def _waiting(self, call: Callable[[], Any]) -> Any:
        pause, away_since = PAUSE_SECONDS[0], None
        while True:
            try:
                answer = call()
            except _ServerChangedError:
                continue
            except redis.RedisError as error:
                away_since = away_since or time.monotonic()
                if not _may_pass(error) or time.monotonic() - away_since > self._outage_seconds:
                    raise QueueUnreachable(self._remedy(error)) from error
                if pause == PAUSE_SECONDS[0]:
                    log.warning("Redis is away (%s); waiting", type(error).__name__)
                self._on_wait()
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, PAUSE_SECONDS[1])
            else:
                if away_since is not None:
                    self._healthy_since = time.monotonic()
                return answer

    def _remedy(self, error: Exception) -> str:
        reason = " ".join(str(error).split())
        return (
            f"Redis at {hide_password(self._url)} can't be used ({type(error).__name__}: {reason}); "
            "start the stack with distox up, or check DISTOX_REDIS_URL and the server's log"
        )


def hide_password(url: str) -> str:
    """The URL for messages."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


def _may_pass(error: redis.RedisError) -> bool:
    """Whether waiting could help: not for a wrong password, a missing right, or a fault in a script of ours."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return False
    if isinstance(error, redis.ResponseError):
        return isinstance(error, _PASSING_ERRORS) or _PASSING.search(str(error)) is not None
    return True


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _nothing() -> None:
    return None
