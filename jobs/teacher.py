"""The frozen teacher: its last decoder states at the labelled positions of a batch, run or taken from its cache.

It stays outside the trained module: ``train()`` on the student would turn the teacher's dropout on, and ZeRO would
shard it. States depend on the row alone, so they may be made once (``keep_states``); the body is then let go, and later
epochs, and later runs with this teacher, run none. Knows nothing about the student or the loss.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import T5ForConditionalGeneration

from jobs.collation import Batch, TokenRow, pad
from jobs.context import JobStopped, Report
from jobs.losses import IGNORED_LABEL, Projection
from jobs.packing import last_states
from jobs.ranks import from_rank_0, rank, sum_over_ranks, wait_for_ranks, world_size
from jobs.student import output_scale
from jobs.teacher_cache import RowHash, StateCache

logger = logging.getLogger(__name__)

VERSION = 1
"""Of what a state is; part of every row's hash."""
BATCH_TOKENS = 8192
"""Source and target tokens, padded, that the body is run on at once when states are kept."""
FILE_BYTES = 2**26
"""States that a rank writes as one file: what a kill costs at most."""


class NotFinite(ValueError):  # noqa: N818 (named for what is wrong, as ValueErrors here are)
    """A state of the teacher can't be kept: too large for fp16, or no number at all."""


class Teacher:
    """A frozen T5, always in evaluation mode and without gradients."""

    def __init__(self, model: T5ForConditionalGeneration) -> None:
        model.requires_grad_(False)
        model.train(False)
        self._model: T5ForConditionalGeneration | None = model
        self._weight = model.lm_head.weight
        self._scale = output_scale(model)
        self._cache: StateCache | None = None
        self._hashes: Mapping[int, RowHash] = {}
        self.num_rows_made: int | None = None
        """Rows that the body was run on, by all ranks, before it was let go; None while it is there."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        dtype: torch.dtype = self._weight.dtype
        return dtype

    def to(self, device: torch.device, dtype: torch.dtype) -> Teacher:
        """Move the weights; call it before the first batch."""
        assert self._model is not None, "the body is still there"
        torch.nn.Module.to(self._model, device=device, dtype=dtype)
        self._weight = self._model.lm_head.weight
        return self

    def project(self, batch: Batch) -> Projection:
        """The teacher's side of the loss for a batch with the keys ``_t`` and ``rows``."""
        return Projection(self._taken(batch) if self._model is None else self.run(batch), self._weight, self._scale)

    @torch.no_grad()
    def run(self, batch: Batch) -> torch.Tensor:
        """The body's states at the labelled positions of a batch with the keys ``_t``: (N, D)."""
        assert self._model is not None, "the body was let go: all rows are kept"
        # The student's mixed precision is not the teacher's: its states must not depend on who asks for them.
        with torch.autocast(self.device.type, enabled=False):
            return last_states(self._model, batch["input_ids_t"], batch["attention_mask_t"], batch["labels_t"])

    def take_from(self, cache: StateCache, hashes: Mapping[int, RowHash], *, num_rows_made: int) -> None:
        """Let the body go: from now on states are those of ``cache``, which holds all that will be asked for."""
        self._cache, self._hashes, self._model = cache, hashes, None
        self.num_rows_made = num_rows_made

    def _taken(self, batch: Batch) -> torch.Tensor:
        assert self._cache is not None, "take_from gave it"
        rows = [self._cache[self._hashes[number]] for number in batch["rows"].tolist()]
        # Without rows there is one row of padding, which has no state.
        hidden_ND = torch.cat(rows) if rows else self._weight.new_empty(0, self._weight.shape[1])
        return hidden_ND.to(self.device, self.dtype)


def fingerprint(model: T5ForConditionalGeneration) -> str:
    """SHA-256 over config and weights, in hexadecimal: another one for any change of either, wherever it lies."""
    passing = ("transformers_version", "dtype")
    config = {key: value for key, value in model.config.to_dict().items() if key[0] != "_" and key not in passing}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"\n{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Recording:
    """How states are kept, and what they depend on besides the teacher and the row's tokens."""

    prefix: str
    max_length: int | None
    kept_as: torch.dtype
    """fp16 or bf16."""

    def hash_rows(self, rows: Mapping[int, TokenRow], computed_as: torch.dtype) -> dict[int, RowHash]:
        """The hash of each row, by its number."""
        about: list[Any] = [VERSION, self.prefix, self.max_length, str(self.kept_as), str(computed_as)]
        common = hashlib.sha256(json.dumps([*about, transformers.__version__]).encode())
        hashes = {}
        for number, row in rows.items():
            digest = common.copy()
            digest.update(array("q", (len(row.input_ids), *row.input_ids, *row.labels)).tobytes())
            hashes[number] = digest.digest()
        return hashes


def keep_states(
    teacher: Teacher,
    rows: Mapping[int, TokenRow],
    cache: StateCache,
    recording: Recording,
    *,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Make the states of all rows that ``cache`` doesn't hold, and take them from it from now on; a collective.

    The ranks share the work. What was made stays when the job ends early.

    Args:
        teacher: moved to where it computes.
        rows: by number; no other number is asked for afterwards.
        cache: of this teacher.
        recording: part of each row's key.
        report: called on rank 0 with ``teacher_cache_rows``, the rows whose states are there.
        should_stop: asked at every batch, on every rank; one that says yes stops all.

    Raises:
        NotFinite: a state doesn't fit into fp16, or is no number.
        JobStopped: one rank was told to stop.
    """
    hashes = recording.hash_rows(rows, teacher.dtype)
    _open_all(cache, hashes)
    missing = {row_hash: rows[number] for number, row_hash in hashes.items() if row_hash not in cache}
    total = len(set(hashes.values()))
    num_kept = total - len(missing)
    if rank() == 0:
        logger.info("teacher cache: %d rows are there, %d are made", num_kept, len(missing))
        report({"teacher_cache_rows": float(num_kept)}, num_kept)
    share = _Share(cache, recording.kept_as)
    for batches in _rounds(missing):
        mine = batches[rank()] if rank() < len(batches) else []
        if _is_told_to_stop(should_stop, teacher.device):
            share.write()
            raise JobStopped(f"stopped with the teacher's states of {num_kept} of {total} rows")
        if mine:
            padded = pad([missing[row_hash] for row_hash in mine], suffix="_t")
            batch = {key: value.to(teacher.device) for key, value in padded.items()}
            share.add(mine, teacher.run(batch), batch["labels_t"])
        num_kept += sum(len(part) for part in batches)
        if rank() == 0:
            report({"teacher_cache_rows": float(num_kept)}, num_kept)
    share.write()
    wait_for_ranks()
    _open_all(cache, hashes)
    teacher.take_from(cache, hashes, num_rows_made=len(missing))


def _open_all(cache: StateCache, hashes: Mapping[int, RowHash]) -> None:
    """Rank 0 looks and checks; a collective."""
    names = json.dumps(cache.find(set(hashes.values()))) if rank() == 0 else None
    found = from_rank_0(names)
    assert found is not None, "rank 0 gives a list"
    cache.open(json.loads(found))


def _rounds(missing: Mapping[RowHash, TokenRow]) -> list[list[list[RowHash]]]:
    """Batches of rows of similar length, a round being one for each rank; the same on all ranks."""
    order = sorted(missing, key=lambda row_hash: (missing[row_hash].length, row_hash))
    batches: list[list[RowHash]] = []
    while order:
        size = max(1, BATCH_TOKENS // missing[order[-1]].length)
        batches.append(order[-size:])
        del order[-size:]
    return [batches[start : start + world_size()] for start in range(0, len(batches), world_size())]


def _is_told_to_stop(should_stop: Callable[[], bool], device: torch.device) -> bool:
    return bool(sum_over_ranks(torch.tensor(float(should_stop()), device=device)) > 0)


class _Share:
    """What this rank has made and not written yet."""

    def __init__(self, cache: StateCache, kept_as: torch.dtype) -> None:
        self._cache = cache
        self._kept_as = kept_as
        self._states: dict[RowHash, torch.Tensor] = {}
        self._num_bytes = 0

    def add(self, hashes: Sequence[RowHash], hidden_ND: torch.Tensor, labels_BL: torch.Tensor) -> None:
        """Take a batch's states in, and write when there are enough for a file."""
        kept_ND = hidden_ND.to(self._kept_as)
        if not torch.isfinite(kept_ND).all():
            raise NotFinite(_why_not(hidden_ND, self._kept_as))
        counts = (labels_BL != IGNORED_LABEL).sum(dim=1).tolist()
        self._states.update(zip(hashes, torch.split(kept_ND.cpu(), counts), strict=True))
        self._num_bytes += kept_ND.numel() * kept_ND.element_size()
        if self._num_bytes >= FILE_BYTES:
            self.write()

    def write(self) -> None:
        """Write what there is."""
        self._cache.add(self._states)
        self._states, self._num_bytes = {}, 0


def _why_not(hidden_ND: torch.Tensor, kept_as: torch.dtype) -> str:
    largest = float(hidden_ND.abs().max())
    if not math.isfinite(largest):
        return f"teacher_model: a state of it is {largest}; its weights are broken, name another model"
    name = str(kept_as).removeprefix("torch.")
    return f"teacher_cache: a state of the teacher is {largest:.3g}, too large for {name}; use dtype: bf16"
