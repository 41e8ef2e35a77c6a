"""The ranks of a training: who am I, how many are we, and sums over all of us.

Ray Train has initialised ``torch.distributed`` before a job runs; without it there is one rank and every function here
is free.
"""

from __future__ import annotations

import torch
from torch import distributed


def rank() -> int:
    """This process's rank; 0 writes files and reports."""
    return distributed.get_rank() if _is_distributed() else 0


def world_size() -> int:
    """Ranks that train together."""
    return distributed.get_world_size() if _is_distributed() else 1


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The element-wise sum, the same on every rank; a collective, so every rank must call it."""
    if world_size() > 1:
        distributed.all_reduce(values)
    return values


def wait_for_ranks() -> None:
    """Return when every rank has come here."""
    if world_size() > 1:
        distributed.barrier()


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def from_rank_0(value: str | None) -> str | None:
    """What rank 0 gave, on every rank; a collective."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]
