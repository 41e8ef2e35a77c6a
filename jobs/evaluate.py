"""The job ``evaluate``: every system judged on the same test rows, with intervals and paired comparisons.

Aggregates are computed once, in row order, from per-row values that are kept beside them.
"""

from __future__ import annotations

import logging

import torch

from configs.schema.kinds import Evaluate
from jobs.context import JobContext, JobResult
from jobs.data import DataError, load_pairs
from jobs.judges.panel import judge, load_panel
from jobs.score_files import Evaluation, summarize, write_files
from jobs.systems import check_systems, collect

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
    num_systems = len(spec.systems)

    def systems_done(number: int) -> None:
        context.report({"systems_done": number, "share_done": number / num_systems / 2}, number)

    def rows_scored(number: int) -> None:
        figures = {"systems_done": num_systems, "rows_scored": number, "share_done": (1 + number / len(test)) / 2}
        context.report(figures, num_systems + number)

    outputs = collect(
        spec,
        splits,
        test,
        num_threads=context.num_threads,
        should_stop=context.should_stop,
        done=systems_done,
    )
    torch.set_num_threads(context.num_threads)
    texts = {name: item.texts for name, item in outputs.items()}
    scores = judge(panel, test, texts, should_stop=context.should_stop, done=rows_scored)
    evaluation = Evaluation(spec, panel, test, outputs, scores)
    summaries = summarize(evaluation)
    write_files(evaluation, summaries, context.output / SCORES)
    logger.info("%d systems judged on %d rows", num_systems, len(test))
    return JobResult({SCORES: SCORES}, summaries)
