"""Batches of similar length, and batches on several threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.judges.loading import length_batches, map_batches


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 100))
def test_batches_hold_every_row_once_within_the_bound(lengths: list[int], bound: int) -> None:
    batches = list(length_batches(lengths, bound))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= bound
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_results_come_in_the_order_of_the_batches_from_threads_of_one_torch_thread(two_threads: None) -> None:
    def square(number: int) -> tuple[int, int]:
        return number * number, torch.get_num_threads()

    assert map_batches(square, range(20)) == [(number * number, 1) for number in range(20)]
    assert torch.get_num_threads() == 2


def test_an_error_in_a_batch_comes_out_and_the_threads_are_given_back(two_threads: None) -> None:
    def fail(number: int) -> int:
        raise RuntimeError(f"batch {number}")

    with pytest.raises(RuntimeError, match="batch 0"):
        map_batches(fail, range(3))
    assert torch.get_num_threads() == 2
