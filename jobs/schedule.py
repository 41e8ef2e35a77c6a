"""The learning rate at every optimizer step: first the copy warm-up, if any, then the pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

COPY_PREFIX = "copy_"
"""Before the names of the copy warm-up's figures."""


@dataclass(frozen=True)
class Phases:
    """Two phases, one optimizer.

    The copy warm-up runs at a constant rate; the pairs rise linearly over ``warmup_steps`` to the full rate, then
    follow ``schedule`` down to 0 at the last step.
    """

    copy_steps: int
    copy_learning_rate: float
    pair_steps: int
    learning_rate: float
    warmup_steps: int
    schedule: Literal["linear", "cosine", "constant"]

    @property
    def num_steps(self) -> int:
        """Optimizer steps of both phases."""
        return self.copy_steps + self.pair_steps

    def locate(self, step: int) -> tuple[str, int]:
        """The phase's prefix for the names of figures, and the step (from 1) within the phase."""
        return (COPY_PREFIX, step) if step <= self.copy_steps else ("", step - self.copy_steps)

    def factor(self, step: int) -> float:
        """What ``learning_rate`` is multiplied by when ``step`` steps have been made."""
        if step < self.copy_steps:
            return self.copy_learning_rate / self.learning_rate
        done = step - self.copy_steps
        if done < self.warmup_steps:
            return (done + 1) / (self.warmup_steps + 1)
        share = (done - self.warmup_steps) / max(1, self.pair_steps - self.warmup_steps)
        match self.schedule:
            case "constant":
                return 1.0
            case "linear":
                return max(0.0, 1.0 - share)
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
