"""``distill``: trains a student on the pairs and on the frozen teacher's distribution over every target position."""

from __future__ import annotations

from configs.schema.kinds import Distill
from jobs.context import JobContext, JobResult
from jobs.training import train_on_pairs


def run(spec: Distill, context: JobContext) -> JobResult:
    """Train ``spec.student_model``; called on every rank. The artifact ``model`` is the student's folder.

    Raises:
        ValueError: see ``train_on_pairs``; also two vocabularies that differ.
        JobStopped: ``context.should_stop`` said so.
    """
    return train_on_pairs(
        spec.dataset,
        spec.student_model,
        spec.training,
        context,
        teacher_source=spec.teacher_model,
        loss=spec.loss,
        teacher_cache=spec.cache_of_teacher,
    )
