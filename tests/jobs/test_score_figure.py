"""The figure's labels: near one another they are moved apart, in order, and no further than needed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from jobs.context import Summary
from jobs.score_figure import COLOURS, SHAPES, _draw_lines, spread


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.01, 0.1))
def test_labels_are_a_gap_apart_in_the_order_of_their_places(places: list[float], gap: float) -> None:
    moved = spread(places, gap)
    order = sorted(range(len(places)), key=lambda index: places[index])
    assert all(moved[two] - moved[one] >= gap - 1e-9 for one, two in pairwise(order))


def test_labels_that_are_far_apart_stay_where_they_are() -> None:
    assert spread([0.9, 0.1, 0.5], 0.05) == pytest.approx([0.9, 0.1, 0.5])


def test_near_labels_share_the_way() -> None:
    assert spread([0.5, 0.51, 0.0], 0.05) == pytest.approx([0.48, 0.53, 0.0])


def test_every_model_of_eight_has_a_colour_and_a_shape_of_its_own() -> None:
    assert len(set(zip(COLOURS, SHAPES, strict=True))) == len(set(COLOURS)) == len(set(SHAPES)) == 8


def test_what_is_near_0_is_seen_whole() -> None:
    axes = Figure().add_subplot()
    axes.set_ylim(0.0, 0.02)
    _draw_lines(axes, ["copy"], {("copy", "joint"): Summary("joint", 1.0)})
    bottom, top = axes.get_ylim()
    assert bottom < -0.03 * (top - bottom)
    assert top > 1
