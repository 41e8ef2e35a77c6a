"""The table of Redis keys of one run; nothing else in distox names a key.

``meta`` is the run's: it says which generation is the current one. All others are a generation's own,
``distox:{run}:g{generation}:…``; the braces are the hash tag that keeps a run's keys on one node of a Redis cluster.

| key | type | holds |
|---|---|---|
| ``meta`` | hash | ``generation`` and ``server``, which every script compares first; limits; ``halt``; ``checked`` |
| ``stream`` | stream, group ``workers`` | one entry for each task that isn't committed: its message |
| ``tasks`` | hash | entry → ``[delivery, crashes, errors, owner, suspect]`` of every task that was claimed once |
| ``leases`` | sorted set | entry → when its lease ends; the tasks in flight |
| ``delayed`` | sorted set | entry → when it may be claimed again; failed or given back |
| ``held`` | hash | worker → entry that it holds |
| ``counters`` | hash | rows ``queued`` (pending, delayed, in flight) and ``done``; ``fed``; events; rows by status |
| ``done`` | hash | first row of a committed part → ``last row:delivery`` |
| ``workers`` | hash | worker → its latest heartbeat |

Times are Redis's own, in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "workers"
"""The only consumer group; the scripts name it too."""

NAMES = ("stream", "tasks", "leases", "delayed", "held", "counters", "done", "workers")

SCRIPTS: dict[str, tuple[str, ...]] = {
    "open": ("meta", *NAMES),
    "put": ("meta", "stream", "counters"),
    "claim": ("meta", "stream", "tasks", "leases", "delayed", "held"),
    "renew": ("meta", "stream", "tasks", "leases", "workers"),
    "commit": ("meta", "stream", "tasks", "leases", "held", "counters", "done"),
    "fail": ("meta", "tasks", "leases", "delayed", "held", "counters"),
    "release": ("meta", "tasks", "leases", "delayed", "held"),
    "bisect": ("meta", "stream", "tasks", "leases", "held", "counters"),
    "expire": ("meta", "tasks", "leases", "held", "workers"),
    "halt": ("meta",),
    "watch": ("meta", *NAMES),
    "close": ("meta", *NAMES),
}
"""Which keys a script takes, in this order. ``open`` takes those of the generation before it too."""


@dataclass(frozen=True)
class Keys:
    """The keys of one run and generation."""

    run: str
    generation: int

    def key(self, name: str) -> str:
        """The full name of one key of the table."""
        if name == "meta":
            return f"distox:{{{self.run}}}:meta"
        return f"distox:{{{self.run}}}:g{self.generation}:{name}"

    def of_script(self, script: str) -> list[str]:
        """What a script is given as KEYS."""
        return [self.key(name) for name in SCRIPTS[script]]

    def of_generation(self) -> list[str]:
        """Every key but ``meta``."""
        return [self.key(name) for name in NAMES]
