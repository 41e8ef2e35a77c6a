"""What travels through the queue: references to row ranges, as JSON with a version. Never text, never pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

VERSION = 1
"""Of the message; a worker of another version refuses it instead of guessing."""


class MessageError(ValueError):
    """A message that this version can't read."""


@dataclass(frozen=True)
class Task:
    """A range of rows: ``length`` bytes of ``file`` from ``offset`` on hold rows ``first_row`` to ``last_row``.

    Rows count from 0, the first one after the header.
    """

    file: str
    first_row: int
    last_row: int
    """Inclusive."""
    offset: int
    length: int
    flaw: str | None = None
    """Why the only row of the range can't be read (an unclosed quote); it is quarantined as it is."""

    @property
    def num_rows(self) -> int:
        """Rows in the range, at least 1."""
        return self.last_row - self.first_row + 1

    @property
    def id(self) -> str:
        """Names the range within its run, for logs."""
        return f"{self.first_row}-{self.last_row}"

    def to_json(self) -> str:
        """The message."""
        return json.dumps({"v": VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read a message.

        Raises:
            MessageError: it is of another version.
        """
        data = json.loads(text)
        version = data.pop("v", None)
        if version != VERSION:
            raise MessageError(
                f"a message of version {version!r}, this worker reads {VERSION}; end the workers of the other version"
            )
        return cls(**data)
