"""Which rows every optimizer step sees, and how each rank cuts them into micro-batches.

The rows of a step depend on the seed and on the step's size alone: 8 x 1, 4 x 2 and 2 x 4 (batch x accumulation), on
one rank or on several, see the same rows at the same step. Rows of similar length go together. Every rank has the same
number of micro-batches; one may be empty at the end of an epoch. A micro-batch is a function of its index, so that a
training can be taken up at any step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jobs.collation import Batch

POOL_STEPS = 50
"""Rows of this many steps are drawn at random and then grouped by length: short enough to stay random, long enough to
leave little padding."""


@dataclass(frozen=True)
class Cut:
    """How one optimizer step is spread: ``accumulation`` micro-batches of ``batch_size`` rows on every rank."""

    batch_size: int
    accumulation: int
    world: int = 1
    rank: int = 0

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step, over all ranks."""
        return self.batch_size * self.accumulation * self.world

    def micro_batches(self, rows: Sequence[int]) -> list[list[int]]:
        """This rank's ``accumulation`` micro-batches of one step's rows; every row lands in exactly one rank's."""
        mine = list(rows[self.rank :: self.world])
        size = math.ceil(len(mine) / self.accumulation)
        return [mine[index * size : (index + 1) * size] for index in range(self.accumulation)]


def steps_per_epoch(num_rows: int, rows_per_step: int) -> int:
    """Optimizer steps that see every row once; the last may be smaller."""
    return math.ceil(num_rows / rows_per_step)


def plan_epoch(lengths: Sequence[int], rows_per_step: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The rows of each step of one epoch: a permutation of all rows, grouped by length, in random order of steps."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    steps: list[list[int]] = []
    pool = rows_per_step * POOL_STEPS
    for start in range(0, len(order), pool):
        rows = sorted(order[start : start + pool].tolist(), key=lambda row: lengths[row])
        groups = [rows[index : index + rows_per_step] for index in range(0, len(rows), rows_per_step)]
        steps += [groups[index] for index in random.permutation(len(groups))]
    return steps


def plan_steps(lengths: Sequence[int], rows_per_step: int, num_steps: int, *, seed: int) -> list[list[int]]:
    """The rows of each of ``num_steps`` steps, through as many epochs as it takes."""
    assert lengths, "the caller has refused an empty split"
    steps: list[list[int]] = []
    epoch = 0
    while len(steps) < num_steps:
        steps += plan_epoch(lengths, rows_per_step, seed=seed, epoch=epoch)
        epoch += 1
    return steps[:num_steps]


def cut_evenly(rows: Sequence[int], cut: Cut) -> list[list[int]]:
    """This rank's batches of an evaluation over all ``rows``; every rank has the same number, some may be empty."""
    mine = list(rows[cut.rank :: cut.world])
    count = math.ceil(math.ceil(len(rows) / cut.world) / cut.batch_size)
    return [mine[index * cut.batch_size : (index + 1) * cut.batch_size] for index in range(count)]


class MicroBatches(torch.utils.data.Dataset[Batch]):
    """This rank's micro-batches of a whole training, in order; each is made when it is asked for."""

    def __init__(self, makers: Sequence[Callable[[], Batch]]) -> None:
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    def __getitem__(self, index: int) -> Batch:
        return self._makers[index]()
