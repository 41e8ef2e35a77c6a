"""Fits the judges that need no hub, on the train split alone: the gate and the fluency judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from configs.schema.data import JudgeTraining
from jobs.context import Report
from jobs.data import PairSplits
from jobs.judges import fluency, gate
from jobs.judges.language_model import train_language_model
from jobs.judges.loading import JudgeError


def fit_judges(
    splits: PairSplits,
    training: JudgeTraining,
    folder: Path,
    *,
    seed: int,
    num_threads: int,
    report: Report,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write ``folder/gate`` and ``folder/fluency``; leaves torch with ``num_threads`` threads.

    Raises:
        JudgeError: the train split is empty, or its two sides are the same.
        JobStopped: ``should_stop`` said so.
    """
    if not splits.train:
        raise JudgeError("judges: the train split is empty; lower split.test or dataset.validation")
    gate.GateJudge.fit(splits.train).save(folder / gate.FOLDER)
    texts = list(dict.fromkeys(text for pair in splits.train for text in (pair.source, *pair.targets)))
    torch.set_num_threads(1)  # the language model's module says why
    try:
        train_language_model(
            texts, training, folder / fluency.FOLDER, seed=seed, report=report, should_stop=should_stop
        )
    finally:
        torch.set_num_threads(num_threads)
