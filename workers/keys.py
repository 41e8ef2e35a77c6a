"""The table of Redis keys of one run and generation; nothing else in distox names a key.

| key | type | holds |
|---|---|---|
| ``meta`` | hash | ``generation``: every script reads it first and changes nothing without it |
| ``tasks`` | stream, group ``workers`` | one message a task: a reference to a row range |
| ``deliveries`` | hash | task id → how often it was claimed; the second half of the fence |
| ``leases`` | sorted set | message id → when its lease ends, in Redis's own milliseconds |
| ``bodies`` | hash | message id → message, so that an expired lease can be given again |
| ``counters`` | hash | rows ``queued`` (pending and in flight), ``done``, and rows by status |
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "workers"


@dataclass(frozen=True)
class Keys:
    """The keys of one run and generation; one hash tag, so that a Redis cluster keeps them together."""

    run: str
    generation: int

    def _key(self, name: str) -> str:
        return f"distox:{{{self.run}}}:g{self.generation}:{name}"

    @property
    def all(self) -> list[str]:
        """Every key, in the order in which the scripts take them."""
        return [self._key(name) for name in ("meta", "tasks", "deliveries", "leases", "bodies", "counters")]
