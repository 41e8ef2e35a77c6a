"""What is written down about a stack: how to reach it, and how to find its processes.

``stack.json`` in the home is written, whole or not at all, before the stack's first process exists.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

Progress = Callable[[str], None]
"""Told one line when a part is up."""

STATE_FILE = "stack.json"


class StackError(RuntimeError):
    """The stack can't be started or used; the message says what to do."""


@dataclass(frozen=True)
class Stack:
    """What ``stack.json`` holds: how to reach a stack, and how to find its processes."""

    stack_id: str
    owner_pid: int | None
    """A process without which the stack is abandoned: the one that starts it, and ``distox quickstart`` to the end;
    None once ``distox up`` is done."""
    owner_created: float | None
    """The owner's start time, since pids come again."""
    ray_address: str
    redis_url: str
    store_url: str
    store_id: str
    storage_url: str
    api_url: str
    ray_token_path: str | None

    def environment(self, home: Path) -> dict[str, str]:
        """What a shell or a job needs to use this stack: absolute, without the mark of its processes."""
        values = {
            "DISTOX_HOME": str(home),
            "DISTOX_STORE_URL": self.store_url,
            "DISTOX_STORE_ID": self.store_id,
            "DISTOX_STORAGE_URL": self.storage_url,
            "DISTOX_REDIS_URL": self.redis_url,
            "DISTOX_API_URL": self.api_url,
            "RAY_ADDRESS": self.ray_address,
        }
        if self.ray_token_path:
            values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.ray_token_path}
        return {key: value for key, value in values.items() if value}


def read_stack(home: Path) -> Stack | None:
    """The stack of a home, running or not; None when none was started or it was ended."""
    try:
        return Stack(**json.loads((home / STATE_FILE).read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (TypeError, ValueError, OSError) as error:
        raise StackError(
            f"{home / STATE_FILE} can't be read ({error}); remove it when no stack of this home runs"
        ) from error


def write_stack(home: Path, stack: Stack) -> None:
    """Replace ``stack.json``."""
    temporary = home / f"{STATE_FILE}.tmp"
    temporary.write_text(json.dumps(asdict(stack), indent=2), "utf-8")
    temporary.replace(home / STATE_FILE)


def forget_stack(home: Path) -> None:
    """Remove ``stack.json``; nothing happens when there is none."""
    (home / STATE_FILE).unlink(missing_ok=True)
