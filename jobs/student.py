"""The trained module: a T5's body, the gathering of labelled positions, the projection and the loss in one ``forward``.

All of it is inside one ``forward`` because a ZeRO-3 weight is whole only while its module runs. The teacher stays
outside the trained module: ``train()`` on the student would turn the teacher's dropout on, and ZeRO would shard it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from jobs.collation import Batch
from jobs.losses import CROSS_ENTROPY, IGNORED_LABEL, Distillation, LossSums, Projection, gather_labelled, sum_losses

CACHE_BYTES = 2 * 10**9
"""Teacher states kept in memory at most; rows beyond it are computed anew in every epoch."""


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


class Teacher:
    """A frozen T5 that gives its last states at the labelled positions of a batch.

    Always in evaluation mode and without gradients. States are kept by row number, so that from the second epoch on the
    body isn't run any more: they depend on the row alone.
    """

    def __init__(self, model: T5ForConditionalGeneration, *, cache_bytes: int = CACHE_BYTES) -> None:
        model.requires_grad_(False)
        model.train(False)
        self._model = model
        self._scale = output_scale(model)
        self._kept: dict[int, torch.Tensor] = {}
        self._room = cache_bytes

    def to(self, device: torch.device, dtype: torch.dtype) -> Teacher:
        """Move the weights; call it before the first batch."""
        assert not self._kept, "kept states would stay where they were made"
        torch.nn.Module.to(self._model, device=device, dtype=dtype)
        return self

    @torch.no_grad()
    def project(self, batch: Batch) -> Projection:
        """The teacher's side of the loss for a batch with the keys ``_t`` and ``rows``."""
        numbers = batch["rows"].tolist()
        kept = [self._kept[number] for number in numbers if number in self._kept]
        if numbers and len(kept) == len(numbers):
            return Projection(torch.cat(kept), self._model.lm_head.weight, self._scale)
        labels_BL = batch["labels_t"]
        hidden_ND = last_states(self._model, batch["input_ids_t"], batch["attention_mask_t"], labels_BL)
        self._keep(numbers, hidden_ND, labels_BL)
        return Projection(hidden_ND, self._model.lm_head.weight, self._scale)

    def _keep(self, numbers: list[int], hidden_ND: torch.Tensor, labels_BL: torch.Tensor) -> None:
        size = hidden_ND.numel() * hidden_ND.element_size()
        if size > self._room:
            return
        self._room -= size
        counts = (labels_BL != IGNORED_LABEL).sum(dim=1).tolist()
        # Without rows there is one row of padding, which has no number.
        parts = torch.split(hidden_ND, counts)[: len(numbers)]
        self._kept.update(zip(numbers, parts, strict=True))


def last_states(
    model: T5ForConditionalGeneration, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The decoder's states at the labelled positions, after the final norm, before scale and projection: (N, D)."""
    encoded = model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    decoded = model.decoder(
        input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        encoder_hidden_states=encoded,
        encoder_attention_mask=attention_mask,
        use_cache=False,
    ).last_hidden_state
    return gather_labelled(decoded, labels)


def output_scale(model: T5ForConditionalGeneration) -> float:
    """``d_model ** -0.5`` where the model scales its decoder's outputs (the original T5), 1 where not (T5 1.1)."""
    return float(model.config.d_model**-0.5) if model.config.scale_decoder_outputs else 1.0
