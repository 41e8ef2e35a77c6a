"""What travels through the queue: references to row ranges, as JSON with a version. Never text, never pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

VERSION = 1


@dataclass(frozen=True)
class Task:
    """A range of rows of the input: ``length`` bytes from ``offset`` on hold the rows ``first_row`` to ``last_row``."""

    first_row: int
    last_row: int
    """Inclusive."""
    offset: int
    length: int

    @property
    def num_rows(self) -> int:
        """Rows in the range."""
        return self.last_row - self.first_row + 1

    @property
    def id(self) -> str:
        """Names the range within its run."""
        return f"{self.first_row}-{self.last_row}"

    def to_json(self) -> str:
        """The message."""
        return json.dumps({"v": VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Task:
        """Read a message.

        Raises:
            ValueError: it is of another version.
        """
        data = json.loads(text)
        if data.pop("v", None) != VERSION:
            raise ValueError("a message of another version; end the workers of the other version first")
        return cls(**data)
