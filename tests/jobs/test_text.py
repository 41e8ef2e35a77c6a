"""Segments: nothing is lost, everything fits, borders are where people would put them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.text import Segment, is_same_text, join, segment


def within(length: int) -> Callable[[str], bool]:
    return lambda text: len(text) <= length


def rewritten(segments: list[Segment]) -> list[str]:
    return [item.text for item in segments if item.is_rewritten]


def test_a_text_that_fits_is_one_segment() -> None:
    assert segment("You are silly. Go home!", fits=within(100)) == [Segment("You are silly. Go home!", True)]


def test_surrounding_whitespace_goes_through() -> None:
    assert segment("  you \t", fits=within(10)) == [Segment("  ", False), Segment("you", True), Segment(" \t", False)]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n\n  ", "\u2028", "\x0b"])
def test_line_breaks_separate_and_survive(line_break: str) -> None:
    segments = segment(f"one{line_break}two", fits=within(100))
    assert segments == [Segment("one", True), Segment(line_break, False), Segment("two", True)]


def test_a_long_line_is_cut_between_sentences_and_as_much_as_fits_stays_together() -> None:
    line = 'Ab cd. Ef gh! "Ij kl." Mn op? Qr st'
    assert rewritten(segment(line, fits=within(14))) == ["Ab cd. Ef gh!", '"Ij kl."', "Mn op? Qr st"]


def test_sentence_by_sentence_each_is_a_segment_and_the_spaces_between_go_through() -> None:
    segments = segment('Ab cd.  Ef gh! "Ij kl." mn', fits=within(100), by_sentence=True)
    assert rewritten(segments) == ["Ab cd.", "Ef gh!", '"Ij kl."', "mn"]
    assert [item.text for item in segments if not item.is_rewritten] == ["  ", " ", " "]


def test_sentence_by_sentence_a_sentence_that_does_not_fit_is_cut_between_words() -> None:
    assert rewritten(segment("Ab. cd ef gh", fits=within(5), by_sentence=True)) == ["Ab.", "cd ef", "gh"]


def test_a_long_sentence_is_cut_between_words() -> None:
    assert rewritten(segment("one two three four. Five", fits=within(8))) == ["one two", "three", "four.", "Five"]


def test_a_long_word_is_cut_inside() -> None:
    assert rewritten(segment("ab cdefghijkl m", fits=within(4))) == ["ab", "cdef", "ghij", "kl", "m"]


def test_what_never_fits_is_cut_into_characters_and_not_lost() -> None:
    assert rewritten(segment("ab c", fits=lambda _: False)) == ["a", "b", "c"]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='ab .!?\n\t)"é😀\u2028', max_size=80), st.integers(1, 20), st.booleans())
def test_the_segments_joined_are_the_text_and_all_of_them_fit(text: str, length: int, by_sentence: bool) -> None:
    segments = segment(text, fits=within(length), by_sentence=by_sentence)
    assert "".join(item.text for item in segments) == text
    for item in segments:
        assert item.text
        if item.is_rewritten:
            assert len(item.text) <= length
            assert item.text == item.text.strip()
            assert len(item.text.splitlines()) == 1
        else:
            assert item.text.isspace()


def test_rewritten_segments_come_back_with_the_separators_of_the_source() -> None:
    segments = segment("one  two\n\n three.", fits=within(4))
    outputs = {"one": " 1 ", "two": "2", "thre": "3", "e.": "e."}
    assert join(segments, outputs) == "1  2\n\n 3e."


def test_a_segment_that_differs_only_in_whitespace_keeps_its_own() -> None:
    segments = segment("you  are\tsilly\nnow", fits=within(100))
    assert join(segments, {"you  are\tsilly": "you are silly", "now": "later"}) == "you  are\tsilly\nlater"


@pytest.mark.parametrize(
    ("other", "same"), [("a  b", True), (" a\nb ", True), ("ａ b", True), ("ab", False), ("A b", False)]
)
def test_texts_are_the_same_when_only_whitespace_or_compatibility_forms_differ(other: str, same: bool) -> None:
    assert is_same_text("a b", other) is same


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "ab " * 33_000, "a" + " " * 99_998 + "b", ".)" * 50_000, "a.\n" * 33_000]
)
def test_the_longest_text_is_cut_in_time_in_proportion_to_its_length(text: str) -> None:
    asked = 0

    def fits(piece: str) -> bool:
        nonlocal asked
        asked += len(piece)
        return len(piece) <= 90

    started = time.monotonic()
    segment(text, fits=fits)
    assert time.monotonic() - started < 5
    assert asked < 100 * len(text), "characters that were tokenized"
