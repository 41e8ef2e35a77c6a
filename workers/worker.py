"""A worker: claims a task, reads its rows, has them rewritten, writes the part, commits.

Guarantee: the part and its sidecar are durable before the commit; a lease is renewed only while it is held. A task that
fails again and again is quarantined whole, with its rows in the output.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import redis

from configs.schema.inference import QueueSettings
from jobs.detoxify import Rewrite, Status
from workers.broker import Answer, Broker, Claim
from workers.sink import Sink
from workers.source import Source

log = logging.getLogger(__name__)

Handler = Callable[[Sequence[str]], list[Rewrite]]
POLL_SECONDS = (0.005, 0.2)
"""An idle worker polls at first this often, then slower up to this."""
RECONNECT_SECONDS = 60.0
"""How long Redis may be away before the worker gives up."""


class Worker:
    """One process's loop; ``run`` returns when ``should_stop`` says so or the queue is lost."""

    def __init__(
        self, broker: Broker, source: Source, sink: Sink, handler: Handler, *, generation: int, queue: QueueSettings
    ) -> None:
        self._broker, self._source, self._sink, self._handler = broker, source, sink, handler
        self._generation, self._queue = generation, queue

    def run(self, name: str, should_stop: Callable[[], bool]) -> Answer:
        """Work until told to stop (OK) or until the queue is gone (LOST).

        Raises:
            redis.RedisError: Redis was away for longer than ``RECONNECT_SECONDS``.
        """
        pause, last_answer = POLL_SECONDS[0], time.monotonic()
        while not should_stop():
            try:
                claim = self._broker.claim(name, lease_seconds=self._queue.lease_seconds)
                last_answer = time.monotonic()
                if isinstance(claim, Claim):
                    pause = POLL_SECONDS[0]
                    self.work(claim)
                    continue
                if claim is Answer.LOST:
                    return claim
            except redis.RedisError:
                if time.monotonic() - last_answer > RECONNECT_SECONDS:
                    raise
                log.warning("Redis is away; trying again")
            time.sleep(pause)
            pause = min(pause * 2, POLL_SECONDS[1])
        return Answer.OK

    def work(self, claim: Claim) -> Answer:
        """Do one task: OK, STALE (another holder has it) or LOST; an error gives it back.

        Raises:
            OSError: the output can't be written; the task is given back.
        """
        rows = self._source.read(claim.task)
        texts = [row.get(self._source.text_column) for row in rows]
        with self._renewed(claim):
            try:
                rewrites = self._rewrite(claim, [text if isinstance(text, str) else "" for text in texts])
            except Exception:  # whatever the handler does: the task is tried again, then quarantined
                log.exception("rows %s failed at delivery %s", claim.task.id, claim.delivery)
                return self._broker.release(claim)
            try:
                part = self._sink.write_part(
                    claim.task, rows, rewrites, generation=self._generation, delivery=claim.delivery
                )
            except OSError:
                self._broker.release(claim)
                raise
        return self._broker.commit(claim, part.counts)

    def _rewrite(self, claim: Claim, texts: list[str]) -> list[Rewrite]:
        limit = self._queue.max_errors + self._queue.max_crashes
        if claim.delivery > limit:
            log.error("rows %s failed %s times: quarantined", claim.task.id, limit)
            return [Rewrite(None, Status.QUARANTINED, f"failed {limit} times") for _ in texts]
        return self._handler(texts)

    @contextmanager
    def _renewed(self, claim: Claim) -> Iterator[None]:
        """Renew the lease from a thread until the block ends or the lease is another's."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(self._queue.lease_seconds / 3):
                try:
                    if self._broker.renew(claim, lease_seconds=self._queue.lease_seconds) is not Answer.OK:
                        return
                except redis.RedisError:
                    log.warning("the lease of rows %s could not be renewed", claim.task.id)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
