"""Intervals, paired comparisons and the joint score, against slow references and known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.metrics import Bootstrap, Values, joint, relative_fluency


def draw(rows: int, seed: int = 0) -> Values:
    return np.random.default_rng(seed).random(rows)


def slow_means(values: Values, *, num_resamples: int, seed: int) -> list[float]:
    """Row by row, in Python."""
    chance = np.random.default_rng(seed)
    return [float(np.mean([values[chance.integers(len(values))] for _ in values])) for _ in range(num_resamples)]


def test_resampled_means_are_means_of_rows_drawn_with_replacement() -> None:
    values = draw(40)
    fast = Bootstrap(40, num_resamples=4000, seed=1).means([values])[:, 0]
    slow = slow_means(values, num_resamples=4000, seed=2)
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.003)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.06)
    assert np.quantile(fast, [0.025, 0.975]) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.012)


def test_the_interval_is_that_of_theory_for_a_proportion() -> None:
    values = np.repeat([1.0, 0.0], [900, 100])
    result = Bootstrap(1000, num_resamples=4000, seed=3).estimate([values])[0]
    error = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert (result.value, result.count) == (0.9, 1000)
    assert (result.low, result.high) == pytest.approx((0.9 - error, 0.9 + error), abs=0.002)


def test_an_interval_covers_the_true_mean_about_nineteen_times_of_twenty() -> None:
    covered = 0
    for number in range(200):
        result = Bootstrap(100, num_resamples=300, seed=number).estimate([draw(100, number)])[0]
        covered += result.low <= 0.5 <= result.high
    assert 178 <= covered <= 199


def test_the_same_seed_gives_the_same_interval_whatever_else_is_asked() -> None:
    one, other = draw(30), draw(30, 1)
    alone = Bootstrap(30, num_resamples=200, seed=4).estimate([one])[0]
    together = Bootstrap(30, num_resamples=200, seed=4).estimate([other, one])[1]
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert Bootstrap(30, num_resamples=200, seed=5).estimate([one])[0] != alone


def test_resamples_in_chunks_equal_resamples_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = draw(30)
    at_once = Bootstrap(30, num_resamples=100, seed=6).means([values])
    monkeypatch.setattr("jobs.metrics._ENTRIES_IN_CHUNK", 70)
    np.testing.assert_allclose(Bootstrap(30, num_resamples=100, seed=6).means([values]), at_once, rtol=0, atol=1e-15)


def test_a_difference_that_every_row_shares_has_no_width() -> None:
    values = draw(50)
    result = Bootstrap(50, num_resamples=500, seed=7).compare([(values + 0.1, values)])[0]
    assert result.difference.value == pytest.approx(0.1)
    assert result.difference.high - result.difference.low == pytest.approx(0, abs=1e-12)
    assert result.p_value == pytest.approx(2 / 501)


def test_pairing_finds_a_difference_that_two_separate_intervals_hide() -> None:
    values = draw(200)
    better = values + np.random.default_rng(8).normal(0.02, 0.02, 200)
    bootstrap = Bootstrap(200, num_resamples=1000, seed=9)
    one, other = bootstrap.estimate([better, values])
    assert one.low < other.high
    assert bootstrap.compare([(better, values)])[0].difference.low > 0


def test_equal_systems_differ_by_nothing() -> None:
    values = draw(20)
    result = Bootstrap(20, num_resamples=100, seed=10).compare([(values, values)])[0]
    assert (result.difference.value, result.difference.low, result.difference.high) == (0, 0, 0)
    assert result.p_value == 1


def test_the_p_value_is_uniform_when_there_is_no_difference() -> None:
    p_values = []
    for number in range(200):
        noise = np.random.default_rng(number).normal(size=80)
        p_values.append(Bootstrap(80, num_resamples=300, seed=number).compare([(noise, np.zeros(80))])[0].p_value)
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.11
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def test_swapping_the_systems_turns_the_difference_around() -> None:
    one, other = draw(40), draw(40, 1)
    bootstrap = Bootstrap(40, num_resamples=300, seed=11)
    there, back = bootstrap.compare([(one, other), (other, one)])
    assert back.difference.value == pytest.approx(-there.difference.value)
    assert back.difference.low == pytest.approx(-there.difference.high)
    assert back.p_value == there.p_value


def test_nothing_to_compare_gives_nothing() -> None:
    assert Bootstrap(5, num_resamples=100, seed=0).compare([]) == []


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Bootstrap(0, num_resamples=100, seed=0)


def test_values_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values for 4 rows"):
        Bootstrap(4, num_resamples=100, seed=0).means([draw(3)])


def test_joint_is_a_mean_of_products_and_no_product_of_means() -> None:
    style, content, fluency = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0])
    assert joint(style, content, fluency).mean() == 0
    assert style.mean() * content.mean() * fluency.mean() == 0.25


def test_joint_clips_content_only() -> None:
    values = joint(np.array([0.5, 0.5, 0.5]), np.array([-0.3, 1.2, 0.5]), np.array([1.0, 1.0, 0.5]))
    np.testing.assert_allclose(values, [0, 0.5, 0.125])


@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_relative_fluency_is_the_ratio_up_to_one(source: float, output: float) -> None:
    value = relative_fluency(np.array([source]), np.array([output]))[0]
    assert value == pytest.approx(source / output if output > source else 1.0)


def test_an_output_without_tokens_has_no_fluency_even_where_the_source_has_none() -> None:
    infinite = np.inf
    values = relative_fluency(np.array([20.0, infinite, infinite]), np.array([infinite, infinite, 20.0]))
    np.testing.assert_array_equal(values, [0, 0, 1])
