"""How long a run waits before it is tried again."""

from __future__ import annotations

import random

import pytest

from cluster.backoff import BASE_SECONDS, MAX_SECONDS, retry_seconds


@pytest.mark.parametrize(
    ("num_failures", "longest"),
    [(1, BASE_SECONDS), (2, 2 * BASE_SECONDS), (3, 4 * BASE_SECONDS), (8, 128 * BASE_SECONDS), (9, MAX_SECONDS)],
)
def test_the_longest_wait_doubles_with_each_failure_up_to_a_bound(num_failures: int, longest: float) -> None:
    assert retry_seconds(num_failures, lambda: 1.0) == longest
    assert retry_seconds(num_failures, lambda: 0.25) == longest / 4


def test_a_wait_is_drawn_evenly_from_zero_on() -> None:
    chance = random.Random(0).random
    drawn = [retry_seconds(4, chance) for _ in range(4_000)]
    longest = 8 * BASE_SECONDS
    assert 0 <= min(drawn) < 0.01 * longest
    assert 0.99 * longest < max(drawn) < longest
    quarters = [sum(longest * part / 4 <= wait < longest * (part + 1) / 4 for wait in drawn) for part in range(4)]
    assert all(900 < count < 1_100 for count in quarters)


def test_no_number_of_failures_is_too_much() -> None:
    assert retry_seconds(10**6, lambda: 1.0) == MAX_SECONDS
