"""``finetune``: trains a T5 on the pairs with cross-entropy. The same code as ``distill``, without a teacher."""

from __future__ import annotations

from configs.schema.kinds import Finetune
from jobs.context import JobContext, JobResult
from jobs.training import train_on_pairs


def run(spec: Finetune, context: JobContext) -> JobResult:
    """Train ``spec.model``; called on every rank. The artifact ``model`` is a folder with config, weights, tokenizer.

    Raises:
        ValueError: see ``train_on_pairs``.
        JobStopped: ``context.should_stop`` said so.
    """
    return train_on_pairs(spec.dataset, spec.model, spec.training, context)
