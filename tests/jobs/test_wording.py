"""chrF, copies and length of outputs, on known values."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from jobs.data import Pair
from jobs.wording import Wording, compare_wording

TEST = (
    Pair("you are a silly goose", ("you are not clever", "you are not very clever")),
    Pair("go home…", ("please go home",)),
)


def compare(*outputs: str) -> Wording:
    return compare_wording(TEST, outputs)


def slow_chrf(candidate: str, reference: str) -> float:
    """Mean precision and recall of character n-grams up to 6, whitespace left out; F with β = 2."""
    one, other = ("".join(text.split()) for text in (candidate, reference))
    precisions, recalls = [], []
    for size in range(1, 7):
        ours, theirs = (
            Counter(text[start : start + size] for start in range(len(text) - size + 1)) for text in (one, other)
        )
        if ours and theirs:
            shared = (ours & theirs).total()
            precisions.append(shared / ours.total())
            recalls.append(shared / theirs.total())
    precision, recall = math.fsum(precisions) / len(precisions), math.fsum(recalls) / len(recalls)
    return 100 * 5 * precision * recall / (4 * precision + recall)


def test_chrf_equals_a_slow_reference() -> None:
    text = "please, all go home"
    assert compare("", text).chrf[1] == pytest.approx(slow_chrf(text, "please go home"))
    assert 0 < compare("", text).chrf[1] < 100


def test_the_best_reference_counts() -> None:
    assert compare("you are not very clever", "please go home").chrf.tolist() == [100, 100]
    assert slow_chrf("you are not very clever", "you are not clever") < 99


def test_without_a_reference_the_source_counts() -> None:
    assert compare_wording([Pair("go home", ())], ["go home"]).chrf.tolist() == [100]


def test_a_copy_is_the_source_but_for_white_space_and_compatibility_forms() -> None:
    assert compare("you  are a silly goose ", "go home...").copy.tolist() == [1, 1]
    assert compare("You are a silly goose", "go home").copy.tolist() == [0, 0]


def test_length_is_counted_in_characters_of_the_source() -> None:
    assert compare("you are a silly goose", " go ").length_ratio.tolist() == [1, 2 / 8]


def test_a_blank_output_is_no_copy_and_has_neither_chrf_nor_length() -> None:
    means = compare("", " \n").means
    assert {metric: values.tolist() for metric, values in means.items()} == {
        "chrf": [0, 0],
        "copy_rate": [0, 0],
        "length_ratio": [0, 0],
    }
