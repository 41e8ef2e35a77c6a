"""The frozen teacher: its last decoder states at the labelled positions of a batch, run or kept.

It stays outside the trained module: ``train()`` on the student would turn the teacher's dropout on, and ZeRO would
shard it. Knows nothing about the student or the loss.
"""

from __future__ import annotations

import torch
from transformers import T5ForConditionalGeneration

from jobs.collation import Batch
from jobs.losses import IGNORED_LABEL, Projection
from jobs.student import last_states, output_scale

CACHE_BYTES = 2 * 10**9
"""Teacher states kept in memory at most; rows beyond it are computed anew in every epoch."""


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
