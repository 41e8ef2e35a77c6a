"""The figures of an evaluation: means with intervals, comparisons of systems, and what models cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from configs.schema.kinds import Evaluate
from jobs.context import Summary
from jobs.judges.panel import Panel, Scores
from jobs.metrics import Bootstrap, Values
from jobs.pairs import Pair
from jobs.speed import ModelSpeed
from jobs.systems import Outputs
from jobs.wording import Wording

REFERENCE_POINTS = ("copy", "delete")
"""Controls that every model is compared with."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out."""

    spec: Evaluate
    panel: Panel
    test: Sequence[Pair]
    outputs: Mapping[str, Outputs]
    scores: Mapping[str, Scores]
    wording: Mapping[str, Wording]
    speed: Mapping[str, ModelSpeed] = field(default_factory=dict)
    """Of the models, unless the spec leaves it out."""

    @cached_property
    def means(self) -> dict[str, dict[str, Values]]:
        """System → metric → the per-row values whose mean is reported."""
        return {name: scores.means | self.wording[name].means for name, scores in self.scores.items()}

    @property
    def bootstrap(self) -> Bootstrap:
        """The same resamples for every system and metric."""
        settings = self.spec.bootstrap
        return Bootstrap(len(self.test), num_resamples=settings.num_resamples, seed=settings.seed)

    @property
    def baseline(self) -> str | None:
        """The system that speed and memory of the others are relative to; None where nothing was measured."""
        asked = self.spec.speed.baseline if self.spec.speed else None
        return asked or next(iter(self.speed), None)


def summarize(evaluation: Evaluation) -> tuple[Summary, ...]:
    """Every figure of every system, in the order of the spec."""
    columns = {(name, metric): column for name, means in evaluation.means.items() for metric, column in means.items()}
    estimates = dict(zip(columns, evaluation.bootstrap.estimate(list(columns.values())), strict=True))
    gains = _gains(evaluation)
    summaries: list[Summary] = []
    for name, scores in evaluation.scores.items():
        for metric in evaluation.means[name]:
            item = estimates[name, metric]
            summaries.append(Summary(metric, item.value, name, item.low, item.high, item.count))
        summaries += _perplexities(name, scores)
        summaries += gains.get(name, [])
        summaries += _costs(name, evaluation)
    return tuple(summaries)


def compare_all(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Each pair of systems on each mean: difference (first minus second), interval and p-value."""
    means = evaluation.means
    keys = [(one, other, metric) for one, other in combinations(means, 2) for metric in means[one]]
    results = evaluation.bootstrap.compare([(means[one][metric], means[other][metric]) for one, other, metric in keys])
    return [
        {"metric": metric, "system": one, "minus": other, **asdict(result)}
        for (one, other, metric), result in zip(keys, results, strict=True)
    ]


def compared_systems(spec: Evaluate) -> list[tuple[str, str, str]]:
    """Who is compared with whom in summaries and table: ``(system, other, word for the other)``.

    What is no control is compared with the controls of ``REFERENCE_POINTS``, by their own words, and with everything
    before it in the table that is no control either, by its name.
    """
    controls = {system.control: name for name, system in spec.systems.items() if system.control in REFERENCE_POINTS}
    found: list[tuple[str, str, str]] = []
    own = [name for name, system in spec.systems.items() if system.control is None]
    for place, name in enumerate(own):
        found += [(name, controls[point], point) for point in REFERENCE_POINTS if point in controls]
        found += [(name, other, other) for other in own[:place]]
    return found


def _gains(evaluation: Evaluation) -> dict[str, list[Summary]]:
    """System → how much higher its joint is than that of each it is compared with."""
    compared = compared_systems(evaluation.spec)
    scores = evaluation.scores
    results = evaluation.bootstrap.compare([(scores[name].joint, scores[other].joint) for name, other, _ in compared])
    found: dict[str, list[Summary]] = {}
    for (name, _, word), result in zip(compared, results, strict=True):
        gain = result.difference
        found.setdefault(name, []).extend(
            (
                Summary(f"joint_minus_{word}", gain.value, name, gain.low, gain.high, gain.count),
                Summary(f"joint_minus_{word}_p_value", result.p_value, name, count=gain.count),
            )
        )
    return found


def _perplexities(name: str, scores: Scores) -> Iterator[Summary]:
    """Of the outputs that have tokens; nothing where none has."""
    filled = scores.num_tokens > 0
    if filled.any():
        likelihood = scores.likelihood
        count = int(filled.sum())
        yield Summary("perplexity_median", float(np.median(likelihood.perplexity[filled])), name, count=count)
        yield Summary("perplexity_corpus", likelihood.corpus_perplexity, name, count=count)


def _costs(name: str, evaluation: Evaluation) -> Iterator[Summary]:
    """Size, and speed and memory where they were measured; ratios to the baseline for the others."""
    outputs = evaluation.outputs[name]
    for metric, size in (("parameters", outputs.parameters), ("bytes_on_disk", outputs.bytes_on_disk)):
        if size is not None:
            yield Summary(metric, float(size), name)
    speed = evaluation.speed.get(name)
    if speed is None:
        return
    rows = len(speed.latencies[0])
    yield Summary("rows_per_second", speed.rows_per_second, name, count=rows)
    yield Summary("latency_p50_seconds", speed.latency(0.5), name, count=rows)
    yield Summary("latency_p95_seconds", speed.latency(0.95), name, count=rows)
    yield Summary("peak_memory_bytes", float(speed.peak_bytes), name)
    yield Summary("model_memory_bytes", float(speed.model_bytes), name)
    if evaluation.baseline is not None and name != evaluation.baseline:
        baseline = evaluation.speed[evaluation.baseline]
        yield Summary("speedup", speed.times_faster(baseline), name, count=rows)
        yield Summary("latency_speedup", speed.times_sooner(baseline), name, count=rows)
        yield Summary("memory_ratio", speed.memory_ratio(baseline), name)
