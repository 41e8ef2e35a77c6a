"""The learning rate through the copy warm-up and the pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.schedule import Phases

PHASES = Phases(
    copy_steps=3, copy_learning_rate=1e-3, pair_steps=10, learning_rate=5e-4, warmup_steps=4, schedule="linear"
)


def rates(phases: Phases) -> list[float]:
    return [phases.learning_rate * phases.factor(step) for step in range(phases.num_steps + 1)]


def test_copying_has_its_own_constant_rate() -> None:
    assert rates(PHASES)[:3] == pytest.approx([1e-3] * 3)


def test_pairs_warm_up_to_the_full_rate_and_end_at_zero() -> None:
    pairs = rates(PHASES)[3:]
    assert pairs[:5] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 5e-4])
    assert pairs[4:] == sorted(pairs[4:], reverse=True)
    assert pairs[-1] == 0


def test_linear_is_straight_and_cosine_is_half_way_in_the_middle() -> None:
    middle = 3 + 4 + 3
    assert PHASES.factor(middle) == pytest.approx(0.5)
    assert replace(PHASES, schedule="cosine").factor(middle) == pytest.approx(0.5)
    assert replace(PHASES, schedule="cosine").factor(PHASES.num_steps) == pytest.approx(0)
    assert replace(PHASES, schedule="constant").factor(PHASES.num_steps) == 1


def test_steps_are_counted_within_their_phase() -> None:
    assert PHASES.locate(3) == ("copy_", 3)
    assert PHASES.locate(4) == ("", 1)
    assert PHASES.locate(13) == ("", 10)


def test_without_copying_every_step_is_a_pair_step() -> None:
    phases = replace(PHASES, copy_steps=0, warmup_steps=0)
    assert phases.locate(1) == ("", 1)
    assert phases.factor(0) == 1
