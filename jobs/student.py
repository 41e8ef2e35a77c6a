"""The trained module: a T5's body, the gathering of labelled positions, the projection and the loss in one ``forward``.

All of it is inside one ``forward`` because a ZeRO-3 weight is whole only while its module runs. Knows the teacher only
by its states.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from jobs.losses import CROSS_ENTROPY, IGNORED_LABEL, Distillation, LossSums, Projection, sum_losses
from jobs.packing import last_states


class Student(torch.nn.Module):
    """A T5 that returns its loss sums.

    Args:
        model: trained in place.
        distillation: the teacher's term of the loss; plain fine-tuning when left out.
    """

    def __init__(self, model: T5ForConditionalGeneration, *, distillation: Distillation = CROSS_ENTROPY) -> None:
        super().__init__()
        self.model = model
        self.head = _LossHead(model, distillation)

    @property
    def config(self) -> Any:
        """The T5's config: DeepSpeed's ``auto`` values are read from it."""
        return self.model.config

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        teacher: Projection | None = None,
    ) -> LossSums:
        """Sums over this micro-batch's labelled positions; the teacher's states are those of the same positions."""
        hidden_ND = last_states(self.model, input_ids, attention_mask, labels)
        sums: LossSums = self.head(hidden_ND, labels[labels != IGNORED_LABEL], teacher)
        return sums


class _LossHead(torch.nn.Module):
    """Holds the output weight as its own, so that ZeRO-3 gathers it for exactly this ``forward``."""

    def __init__(self, model: T5ForConditionalGeneration, distillation: Distillation) -> None:
        super().__init__()
        self.weight = model.lm_head.weight
        self.scale = output_scale(model)
        self.distillation = distillation

    def forward(self, hidden_ND: torch.Tensor, labels_N: torch.Tensor, teacher: Projection | None) -> LossSums:
        own = Projection(hidden_ND, self.weight, self.scale)
        return sum_losses(own, labels_N, teacher=teacher, distillation=self.distillation)


def output_scale(model: T5ForConditionalGeneration) -> float:
    """``d_model ** -0.5`` where the model scales its decoder's outputs (the original T5), 1 where not (T5 1.1)."""
    return float(model.config.d_model**-0.5) if model.config.scale_decoder_outputs else 1.0
