"""The delete control: what it deletes, and how its threshold is found."""

from __future__ import annotations

import math

import pytest

from jobs.data import Pair
from jobs.deletion import SMOOTHING, DeleteControl, words

TRAIN = (
    Pair("this stupid plan is bad", ("this plan is bad", "the plan is bad")),
    Pair("you stupid goose, go home", ("go home",)),
    Pair("a stupid, damn song!", ("a song!",)),
    Pair("the road is long", ("the road is long",)),
)


def test_rude_words_go_and_the_others_stay() -> None:
    assert DeleteControl.fit(TRAIN).delete("my Stupid road is damn long") == "my road is long"


def test_spaces_and_marks_are_mended() -> None:
    control = DeleteControl({"damn": 1.0}, 0.5)
    assert control.delete("  well,  this damn, damn road is long damn !") == "well, this, road is long!"


def test_a_text_of_rude_words_becomes_empty() -> None:
    assert DeleteControl({"damn": 1.0}, 0.5).delete("Damn damn") == ""


def test_words_that_train_never_had_stay() -> None:
    assert DeleteControl.fit(TRAIN).delete("zebra") == "zebra"


def test_log_odds_are_those_of_smoothed_shares() -> None:
    control = DeleteControl.fit((Pair("a a b", ("a",)),))
    toxic = (1 + SMOOTHING) / (3 + 2 * SMOOTHING)
    neutral = SMOOTHING / (1 + 2 * SMOOTHING)
    assert control.log_odds["b"] == pytest.approx(math.log(toxic / neutral))


def test_the_threshold_wins_most_right_deletions_less_wrong_ones() -> None:
    control = DeleteControl.fit(TRAIN)

    def gain(threshold: float) -> int:
        total = 0
        for pair in TRAIN:
            kept = {word for target in pair.targets for word in words(target)}
            for word in words(pair.source):
                if control.log_odds[word] >= threshold:
                    total += -1 if word in kept else 1
        return total

    best = max(gain(value) for value in (*control.log_odds.values(), math.inf))
    assert best > 0
    assert gain(control.threshold) == best


def test_the_threshold_is_fitted_on_validation_where_there_is_one() -> None:
    validation = (Pair("this stupid plan", ("this stupid plan",)),)
    control = DeleteControl.fit(TRAIN, validation)
    assert control.threshold == math.inf
    assert control.delete("stupid") == "stupid"


def test_where_nothing_should_go_nothing_goes() -> None:
    assert DeleteControl.fit((Pair("go home", ("go home",)),)).delete("go home") == "go home"


def test_words_of_equal_log_odds_are_judged_together() -> None:
    train = (Pair("damn so go", ("go",)),)
    control = DeleteControl.fit(train, (Pair("damn so", ("so",)),))
    assert control.log_odds["damn"] == control.log_odds["so"]
    assert control.threshold == math.inf
