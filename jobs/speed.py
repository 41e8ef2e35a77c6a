"""How fast the models of an evaluation are and what memory they take: each in a process of its own, in turns.

In each round every model rewrites the same rows, one by one and in batches, one model after the other; only one of them
works at a time. So other work on the machine slows all alike, and a ratio of two models is taken within a round. The
memory of a process is its own: no other model, judge or conversion is in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import numpy as np

from configs.schema.kinds import Detoxify
from configs.schema.models import ModelSource
from jobs.context import JobStopped
from jobs.conversion import convert, is_exported
from jobs.models import load_model
from jobs.speed_process import READY

SECONDS_TO_END = 10.0
"""A process whose requests have ended needs less; then it is killed."""
_ROOT = Path(__file__).parents[1]


class SpeedError(RuntimeError):
    """The process of a model ended; the message says with what."""


@dataclass(frozen=True)
class ModelSpeed:
    """What was measured of one model."""

    latencies: tuple[tuple[float, ...], ...]
    """Seconds of each row rewritten by itself, by round."""
    rates: tuple[float, ...]
    """Rows per second in batches, by round."""
    peak_bytes: int
    """Most that the process had resident, its libraries included."""
    model_bytes: int
    """What loading the model and decoding with it added to a process that had its libraries."""

    @property
    def rows_per_second(self) -> float:
        """The median round."""
        return median(self.rates)

    def latency(self, share: float) -> float:
        """The quantile ``share`` over the rows of all rounds, in seconds."""
        return float(np.quantile(np.array(self.latencies), share))

    def times_faster(self, baseline: ModelSpeed) -> float:
        """In rows per second; the median over the rounds of the ratio within a round."""
        return median(one / other for one, other in zip(self.rates, baseline.rates, strict=True))

    def times_sooner(self, baseline: ModelSpeed) -> float:
        """In latency: the median over the rounds of the ratio of the medians within a round."""
        pairs = zip(baseline.latencies, self.latencies, strict=True)
        return median(median(other) / median(one) for other, one in pairs)

    def memory_ratio(self, baseline: ModelSpeed) -> float:
        """Of what the models added, at least a byte each."""
        return max(1, self.model_bytes) / max(1, baseline.model_bytes)


def measure_speed(
    specs: Mapping[str, Detoxify],
    texts: Sequence[str],
    *,
    rounds: int,
    num_threads: int,
    folder: Path,
    should_stop: Callable[[], bool],
    done: Callable[[int], None],
) -> dict[str, ModelSpeed]:
    """Measure each system; nothing where there is none.

    Args:
        specs: system → how its model rewrites.
        texts: what is rewritten in each round, at least one.
        rounds: how often, at least once.
        num_threads: CPU threads for each model.
        folder: an empty one, for models that have to be converted first.
        should_stop: is asked between the turns.
        done: is told the number of rounds that are through.

    Raises:
        SpeedError: a process ended.
        JobStopped: ``should_stop`` said so.
    """
    ready = {name: _converted(spec, folder / str(number)) for number, (name, spec) in enumerate(specs.items())}
    latencies: dict[str, list[tuple[float, ...]]] = {name: [] for name in specs}
    rates: dict[str, list[float]] = {name: [] for name in specs}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(_Process(name)) for name in specs}
        for name, process in processes.items():
            process.begin(ready[name], texts, num_threads)
        for process in processes.values():
            process.wait_until_ready()
        for number in range(rounds):
            # There and back, so that a machine that gets slower (or faster) favours none.
            for name in list(specs)[:: -1 if number % 2 else 1]:
                if should_stop():
                    raise JobStopped
                latencies[name].append(tuple(processes[name].ask("latency")))
                rates[name].append(len(texts) / processes[name].ask("rate"))
            done(number + 1)
        memory = {name: process.ask("memory") for name, process in processes.items()}
    return {
        name: ModelSpeed(tuple(latencies[name]), tuple(rates[name]), memory[name]["peak"], memory[name]["added"])
        for name in specs
    }


class _Process:
    """A ``jobs.speed_process``; killed when the block is left by an error."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Its own place first: the code that measures is the code that asks.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "jobs.speed_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=_ROOT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *rest: object) -> None:
        if error is not None:
            self._child.kill()
        try:
            self._child.communicate(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()

    def begin(self, spec: Detoxify, texts: Sequence[str], num_threads: int) -> None:
        """Have the model loaded; doesn't wait for it."""
        self._send(json.dumps({"spec": spec.model_dump_json(), "texts": list(texts), "num_threads": num_threads}))

    def wait_until_ready(self) -> None:
        """Until the model is loaded and warm."""
        found = self._receive()
        assert found == READY, "the first answer says that it is ready"

    def ask(self, word: str) -> Any:
        """The answer to one request."""
        self._send(word)
        return self._receive()

    def _send(self, line: str) -> None:
        assert self._child.stdin is not None, "stdin is a pipe"
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _receive(self) -> Any:
        assert self._child.stdout is not None, "stdout is a pipe"
        line = self._child.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> SpeedError:
        return SpeedError(
            f"systems.{self._name}: the process that measures its speed ended with {self._child.wait()}; its own "
            "message is in the log; give it more memory, or leave it out with speed: null"
        )


def _converted(spec: Detoxify, folder: Path) -> Detoxify:
    """The same with a model that needs no conversion, which would leave its memory in the process that is measured."""
    is_ready = spec.model.name is not None and is_exported(Path(spec.model.name).expanduser())
    if spec.engine.name != "ctranslate2" or is_ready:
        return spec
    convert(load_model(spec.model), folder, "float32")
    return spec.model_copy(update={"model": ModelSource(name=str(folder))})
