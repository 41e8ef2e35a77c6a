"""The process in which one model's speed and memory are measured: ``python -m jobs.speed_process``.

The first line of its stdin is a JSON object (spec of a detoxification, threads, texts); each further line is a word:
``latency`` is answered with the seconds of each text rewritten by itself, ``rate`` with the seconds of all texts
together, ``memory`` with bytes. Answers are lines of JSON on stdout. It ends with its stdin. It loads nothing that a
worker which decodes wouldn't load.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from configs.schema.kinds import Detoxify
from jobs.detoxify import Detoxifier
from jobs.memory import forget_peak, read_memory

WARMUP_ROWS = 8
"""Rewritten one by one and together before any clock starts: the first calls pay for allocations."""
READY = "ready"


def time_each(detoxifier: Detoxifier, texts: Sequence[str]) -> list[float]:
    """Seconds of each text, rewritten by itself."""
    times = []
    for text in texts:
        began = time.perf_counter()
        detoxifier.rewrite([text])
        times.append(time.perf_counter() - began)
    return times


def time_all(detoxifier: Detoxifier, texts: Sequence[str]) -> float:
    """Seconds of all texts, given to the engine at once."""
    began = time.perf_counter()
    detoxifier.rewrite(texts)
    return time.perf_counter() - began


def serve(requests: TextIO, answers: TextIO) -> None:
    """Load the model, say so, and answer until the requests end."""
    asked: dict[str, Any] = json.loads(requests.readline())
    texts: list[str] = asked["texts"]
    forget_peak()
    before = read_memory().now
    detoxifier = Detoxifier.load(Detoxify.model_validate_json(asked["spec"]), num_threads=asked["num_threads"])
    time_each(detoxifier, texts[:WARMUP_ROWS])
    time_all(detoxifier, texts[:WARMUP_ROWS])
    kinds: dict[str, Callable[[], Any]] = {
        "latency": lambda: time_each(detoxifier, texts),
        "rate": lambda: time_all(detoxifier, texts),
        "memory": lambda: {"peak": (peak := read_memory().peak), "added": max(0, peak - before)},
    }
    _answer(answers, READY)
    for line in requests:
        _answer(answers, kinds[line.strip()]())


def _answer(answers: TextIO, value: Any) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def main() -> None:
    """Answers go where stdout was; whatever a library prints goes to stderr."""
    # Whoever asked may be gone: then there is nobody to answer, and nothing went wrong here.
    with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
