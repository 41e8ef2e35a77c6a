"""Which evaluation was the best, and whether a training should go on: by one figure of the validation split.

Pure, and made from all evaluations each time: a training that was taken up decides as an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOWER_IS_BETTER = frozenset({"validation_loss"})


@dataclass(frozen=True)
class Selection:
    """What is best."""

    metric: str
    """A name among the figures of an evaluation."""
    patience: int | None = None
    """Evaluations in a row without a better one after which the training ends; None: it never does."""
    min_delta: float = 0.0
    """Better means: by more than this."""

    def best_step(self, evaluations: Mapping[int, Mapping[str, float]]) -> int | None:
        """The step of the best evaluation, the first of equal ones; None where there is none."""
        sign = 1.0 if self.metric in LOWER_IS_BETTER else -1.0
        best: int | None = None
        for step in sorted(evaluations):
            value = sign * evaluations[step][self.metric]
            if best is None or value < sign * evaluations[best][self.metric] - self.min_delta:
                best = step
        return best

    def is_over(self, evaluations: Mapping[int, Mapping[str, float]]) -> bool:
        """Whether as many evaluations as ``patience`` says came after the best one."""
        best = self.best_step(evaluations)
        return (
            self.patience is not None and best is not None and sum(step > best for step in evaluations) >= self.patience
        )
