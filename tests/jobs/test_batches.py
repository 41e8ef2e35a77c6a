"""Which rows a step sees: all of them once an epoch, the same however the step is cut."""

from __future__ import annotations

import random

import pytest

from jobs.batches import Cut, cut_evenly, plan_epoch, plan_steps, steps_per_epoch


def lengths(count: int) -> list[int]:
    chosen = random.Random(0)
    return [chosen.randint(4, 40) for _ in range(count)]


def rows_of_step(step: list[int], *, batch_size: int, accumulation: int, world: int) -> list[list[int]]:
    """The rows of every rank's micro-batches."""
    cuts = [Cut(batch_size, accumulation, world, rank) for rank in range(world)]
    return [micro for cut in cuts for micro in cut.micro_batches(step)]


def test_an_epoch_sees_every_row_once() -> None:
    steps = plan_epoch(lengths(103), 8, seed=1, epoch=0)
    assert sorted(row for step in steps for row in step) == list(range(103))
    assert len(steps) == steps_per_epoch(103, 8)


def test_another_epoch_or_seed_has_another_order_and_the_same_one_the_same() -> None:
    first = plan_epoch(lengths(64), 8, seed=1, epoch=0)
    assert first == plan_epoch(lengths(64), 8, seed=1, epoch=0)
    assert first != plan_epoch(lengths(64), 8, seed=1, epoch=1)
    assert first != plan_epoch(lengths(64), 8, seed=2, epoch=0)


def test_rows_of_a_step_are_of_similar_length() -> None:
    sizes = lengths(400)
    steps = plan_epoch(sizes, 8, seed=1, epoch=0)
    padded = sum(max(sizes[row] for row in step) * len(step) for step in steps)
    assert padded < 1.1 * sum(sizes)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "world"), [(8, 1, 1), (4, 2, 1), (2, 4, 1), (4, 1, 2), (1, 2, 4)]
)
def test_a_step_has_the_same_rows_however_it_is_cut(batch_size: int, accumulation: int, world: int) -> None:
    for step in plan_steps(lengths(30), 8, 7, seed=3):
        micro = rows_of_step(step, batch_size=batch_size, accumulation=accumulation, world=world)
        assert sorted(row for rows in micro for row in rows) == sorted(step)
        assert len(micro) == accumulation * world
        assert max(len(rows) for rows in micro) <= batch_size


def test_a_small_last_step_leaves_some_ranks_without_rows_but_with_their_micro_batches() -> None:
    micro = rows_of_step([5], batch_size=2, accumulation=2, world=2)
    assert micro == [[5], [], [], []]


def test_steps_go_on_into_the_next_epoch() -> None:
    steps = plan_steps(lengths(10), 4, 8, seed=1)
    assert [len(step) for step in steps].count(2) >= 2
    assert len(steps) == 8


def test_an_evaluation_sees_every_row_once_and_ranks_keep_step() -> None:
    ranks = [cut_evenly(list(range(11)), Cut(2, 1, 3, rank)) for rank in range(3)]
    assert sorted(row for batches in ranks for rows in batches for row in rows) == list(range(11))
    assert len({len(batches) for batches in ranks}) == 1
    assert cut_evenly([], Cut(2, 1)) == []
