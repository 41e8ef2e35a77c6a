"""The job ``evaluate``: every system judged on the same test rows, with intervals and paired comparisons.

Aggregates are computed once, in row order, from per-row values that are kept beside them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from configs.schema.kinds import Evaluate
from jobs.context import JobContext, JobResult
from jobs.data import DataError, load_pairs
from jobs.judges.panel import judge, load_panel
from jobs.score_files import write_files
from jobs.score_summaries import Evaluation, summarize
from jobs.speed import ModelSpeed, measure_speed
from jobs.systems import check_systems, collect, detoxify_spec
from jobs.wording import compare_wording

SCORES = "scores"
"""The artifact's name, and its folder in the output."""

logger = logging.getLogger(__name__)


def run(spec: Evaluate, context: JobContext) -> JobResult:
    """Judge every system of the spec on the first ``limit`` rows of the test split.

    Raises:
        ValueError: a dataset, judge or system that can't be used.
        JobStopped: ``should_stop`` said so.
    """
    torch.set_num_threads(context.num_threads)
    splits = load_pairs(spec.dataset)
    test = splits.test[: spec.limit]
    if not test:
        raise DataError(f"dataset.name = {spec.dataset.name}: its test split is empty; give split.test a share")
    check_systems(spec, test)
    panel = load_panel(spec.judges, splits.train)
    progress = _Progress(spec, len(test), context)
    outputs = collect(
        spec,
        splits,
        test,
        num_threads=context.num_threads,
        should_stop=context.should_stop,
        done=progress.systems_done,
    )
    speed = _measure(spec, [pair.source for pair in test], context, progress.rounds_done)
    torch.set_num_threads(context.num_threads)
    texts = {name: item.texts for name, item in outputs.items()}
    scores = judge(panel, test, texts, should_stop=context.should_stop, done=progress.rows_scored)
    wording = {name: compare_wording(test, written) for name, written in texts.items()}
    evaluation = Evaluation(spec, panel, test, outputs, scores, wording, speed)
    summaries = summarize(evaluation)
    write_files(evaluation, summaries, context.output / SCORES)
    logger.info("%d systems judged on %d rows", len(spec.systems), len(test))
    return JobResult({SCORES: SCORES}, summaries)


def _measure(
    spec: Evaluate, sources: Sequence[str], context: JobContext, done: Callable[[int], None]
) -> dict[str, ModelSpeed]:
    """Of every model; nothing where the spec leaves it out."""
    if spec.speed is None or not spec.models:
        return {}
    with tempfile.TemporaryDirectory(prefix="distox-speed-") as folder:
        return measure_speed(
            {name: detoxify_spec(spec, model) for name, model in spec.models.items()},
            sources[: spec.speed.rows],
            rounds=spec.speed.rounds,
            num_threads=context.num_threads,
            folder=Path(folder),
            should_stop=context.should_stop,
            done=done,
        )


class _Progress:
    """Reports how far the three parts are: systems written, rounds timed, rows judged."""

    def __init__(self, spec: Evaluate, num_rows: int, context: JobContext) -> None:
        self._context = context
        rounds = spec.speed.rounds if spec.speed is not None and spec.models else 0
        self._totals = {"systems_done": len(spec.systems), "speed_rounds_done": rounds, "rows_scored": num_rows}
        self._reached: dict[str, float] = {}

    def systems_done(self, number: int) -> None:
        """That so many systems have their outputs."""
        self._report("systems_done", number)

    def rounds_done(self, number: int) -> None:
        """That every model had so many turns."""
        self._report("speed_rounds_done", number)

    def rows_scored(self, number: int) -> None:
        """That so many rows were judged."""
        self._report("rows_scored", number)

    def _report(self, part: str, number: int) -> None:
        self._reached[part] = number
        parts = {name: total for name, total in self._totals.items() if total}
        share = sum(self._reached.get(name, 0) / total for name, total in parts.items()) / len(parts)
        step = sum(int(reached) for reached in self._reached.values())
        self._context.report({**self._reached, "share_done": share}, step)
