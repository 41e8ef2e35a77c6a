"""Cheap handlers in the place of a model: each does to a text what its name says."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until
from workers.worker import Handler, HandlerFactory

GATE_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """As ``jobs.detoxify.Rewrite``, without its imports."""

    text: str | None
    status: str = "rewritten"
    reason: str | None = None
    others: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def upper(texts: Sequence[str]) -> list[Outcome]:
    """Upper case, which tells a row that was handled from one that was copied."""
    return [Outcome(text.upper()) for text in texts]


def make_handler(kind: str, folder: Path) -> Handler:
    """Load a handler, as a worker's process does it. ``folder`` is where it leaves traces."""
    if kind == "unloadable":
        raise ValueError("model.name = nowhere: no such model; give the path of one")
    if kind == "crashing load":
        raise RuntimeError("the GPU is gone")
    handlers = {"upper": upper, "poison": _poison, "failing": _failing, "hanging": _hanging, "broken": _broken}
    if kind in handlers:
        return handlers[kind]
    assert kind == "gated", kind
    return functools.partial(_gated, folder)


def factory(kind: str, folder: Path) -> HandlerFactory:
    """What is given to a worker; it can be pickled."""
    return functools.partial(make_handler, kind, folder)


def _poison(texts: Sequence[str]) -> list[Outcome]:
    if any("POISON" in text for text in texts):
        os.kill(os.getpid(), signal.SIGKILL)
    return upper(texts)


def _failing(texts: Sequence[str]) -> list[Outcome]:
    if any("BAD" in text for text in texts):
        raise RuntimeError(f"can't do {texts}")
    return upper(texts)


def _hanging(texts: Sequence[str]) -> list[Outcome]:
    if any("HANG" in text for text in texts):
        time.sleep(600)
    return upper(texts)


def _broken(texts: Sequence[str]) -> list[Outcome]:
    raise RuntimeError("CUDA error")


def _gated(folder: Path, texts: Sequence[str]) -> list[Outcome]:
    """Say that a task has begun, then wait until the test lets it go on."""
    (folder / f"entered-{os.getpid()}").touch()
    wait_until((folder / "go").exists, GATE_SECONDS, "the gate opens")
    return upper(texts)
