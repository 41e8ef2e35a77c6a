"""The queue: tasks of one run and generation in Redis, each change one Lua script.

Guarantee: a commit with a stale fence changes nothing, and a queue that Redis has lost answers ``LOST`` to everything.
It knows neither rows nor files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import redis

from workers.keys import GROUP, Keys
from workers.messages import Task

SOCKET_SECONDS = 10.0
_SCRIPTS = Path(__file__).parent / "lua"


class Answer(StrEnum):
    """What a script says."""

    OK = "OK"
    EMPTY = "EMPTY"
    FULL = "FULL"
    STALE = "STALE"
    LOST = "LOST"


class QueueError(RuntimeError):
    """Redis can't be used; the message says what to do."""


@dataclass(frozen=True)
class Claim:
    """A task under a lease; (generation, delivery) is its fence."""

    message_id: str
    task: Task
    delivery: int


class Broker:
    """One run's queue in one generation."""

    def __init__(self, url: str, run: str, generation: int) -> None:
        self._redis = connect(url)
        self._generation = generation
        self._keys = Keys(run, generation).all
        self._scripts = {
            file.stem: self._redis.register_script(file.read_text("utf-8")) for file in sorted(_SCRIPTS.glob("*.lua"))
        }

    def open(self) -> None:
        """Make the queue; nothing happens when it is there."""
        meta, tasks = self._keys[:2]
        self._redis.hset(meta, "generation", str(self._generation))
        try:
            self._redis.xgroup_create(tasks, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def put(self, task: Task, *, max_rows: int) -> Answer:
        """Add a task, or say that the queue is FULL."""
        return Answer(self._call("put", task.to_json(), task.num_rows, max_rows))

    def claim(self, consumer: str, *, lease_seconds: float) -> Claim | Answer:
        """A task under a lease, or EMPTY or LOST."""
        reply = self._call("claim", consumer, int(lease_seconds * 1000))
        if reply[0] != Answer.OK:
            return Answer(reply[0])
        return Claim(reply[1], Task.from_json(reply[2]), int(reply[3]))

    def renew(self, claim: Claim, *, lease_seconds: float) -> Answer:
        """Lengthen the lease: OK, STALE or LOST."""
        return Answer(self._call("renew", claim.message_id, claim.delivery, int(lease_seconds * 1000)))

    def commit(self, claim: Claim, counts: Mapping[str, int]) -> Answer:
        """End the task: OK, STALE or LOST."""
        flat = [item for pair in counts.items() for item in pair]
        return Answer(self._call("commit", claim.message_id, claim.delivery, claim.task.num_rows, *flat))

    def release(self, claim: Claim) -> Answer:
        """Give the task back at once."""
        return Answer(self._call("release", claim.message_id, claim.delivery))

    def counters(self) -> dict[str, int]:
        """Rows queued and done, and rows by status."""
        return {str(name): int(value) for name, value in self._redis.hgetall(self._keys[5]).items()}

    def is_lost(self) -> bool:
        """Whether Redis no longer knows this generation."""
        return bool(self._redis.hget(self._keys[0], "generation") != str(self._generation))

    def delete(self) -> None:
        """Remove every key of this generation."""
        self._redis.delete(*self._keys)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._scripts[name](keys=self._keys, args=[self._generation, *arguments])


def connect(url: str) -> Any:
    """A client that answers within seconds.

    Raises:
        QueueError: Redis isn't there.
    """
    client: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=SOCKET_SECONDS)
    try:
        client.ping()
    except redis.RedisError as error:
        raise QueueError(
            f"Redis at {url.rpartition('@')[2]} doesn't answer ({error}); check DISTOX_REDIS_URL"
        ) from error
    return client
