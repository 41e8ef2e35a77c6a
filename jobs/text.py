"""Cuts a comment into segments that a model can take in one piece, and puts the rewritten comment together again.

Segments in order, joined, are the comment, character for character: nothing is ever cut away. Line breaks always
separate segments, so they survive a model that has no token for them. Knows no model: it is told what fits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Fits = Callable[[str], bool]

_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?…。！？])([\"'”’»)\]]*)(\s+)")
_SPACES = re.compile(r"(\s+)")

_FIRST_GUESS_CHARACTERS = 32
"""Where the search for the longest prefix of an endless word begins."""


@dataclass(frozen=True)
class Segment:
    """A run of characters that is rewritten, or one that goes through as it is (whitespace)."""

    text: str
    is_rewritten: bool


def segment(text: str, *, fits: Fits, by_sentence: bool = False) -> list[Segment]:
    """Cut ``text`` so that everything that is rewritten fits.

    At line breaks always, and between all sentences if ``by_sentence``; where a line doesn't fit, between sentences,
    else between words, else inside a word. Otherwise as much goes into one segment as fits. A single character that
    doesn't fit is a segment all the same.
    """
    pieces = _line_by_sentence if by_sentence else _line_by_window
    segments: list[Segment] = []
    start = 0
    for space in _SPACES.finditer(text):
        if _LINE_BREAK.search(space[0]):
            segments += [*_line(text[start : space.start()], fits, pieces), Segment(space[0], is_rewritten=False)]
            start = space.end()
    segments += _line(text[start:], fits, pieces)
    return [item for item in segments if item.text]


def join(segments: Sequence[Segment], outputs: Mapping[str, str]) -> str:
    """The comment with each rewritten segment replaced by its output, whitespace around it cut off.

    A segment whose output is the same text (``is_same_text``) stays as it is.
    """
    return "".join(_rewritten(item.text, outputs) if item.is_rewritten else item.text for item in segments)


def is_same_text(one: str, other: str) -> bool:
    """Whether two texts differ at most in whitespace and in Unicode's compatibility forms (NFKC).

    T5's tokenizers normalise to NFKC, so a model that copies "…" writes "...".
    """
    return words_of(one) == words_of(other)


def words_of(text: str) -> tuple[str, ...]:
    """What is the same in texts that ``is_same_text``."""
    return tuple(unicodedata.normalize("NFKC", text).split())


def _rewritten(text: str, outputs: Mapping[str, str]) -> str:
    output = outputs[text].strip()
    return text if is_same_text(text, output) else output


def _line(line: str, fits: Fits, pieces: Callable[[str, Fits], Iterator[Segment]]) -> Iterator[Segment]:
    core = line.strip()
    if not core:
        yield Segment(line, is_rewritten=False)
        return
    start = line.index(core)
    yield Segment(line[:start], is_rewritten=False)
    yield from pieces(core, fits)
    yield Segment(line[start + len(core) :], is_rewritten=False)


def _line_by_window(core: str, fits: Fits) -> Iterator[Segment]:
    if fits(core):
        yield Segment(core, is_rewritten=True)
    else:
        yield from _pack(_sentences(core), fits, _by_words)


def _line_by_sentence(core: str, fits: Fits) -> Iterator[Segment]:
    for index, part in enumerate(_sentences(core)):
        if index % 2:
            yield Segment(part, is_rewritten=False)
        else:
            yield from _fitting(part, fits, _by_words)


def _by_words(sentence: str, fits: Fits) -> Iterator[Segment]:
    return _pack(_SPACES.split(sentence), fits, _by_characters)


def _pack(parts: Sequence[str], fits: Fits, cut_smaller: Callable[[str, Fits], Iterator[Segment]]) -> Iterator[Segment]:
    """Units (even places) and the spaces between them (odd places), as many in a segment as fit."""
    current = parts[0]
    for space, unit in zip(parts[1::2], parts[2::2], strict=True):
        longer = current + space + unit
        if fits(longer):
            current = longer
            continue
        yield from _fitting(current, fits, cut_smaller)
        yield Segment(space, is_rewritten=False)
        current = unit
    yield from _fitting(current, fits, cut_smaller)


def _fitting(unit: str, fits: Fits, cut_smaller: Callable[[str, Fits], Iterator[Segment]]) -> Iterator[Segment]:
    if fits(unit):
        yield Segment(unit, is_rewritten=True)
    else:
        yield from cut_smaller(unit, fits)


def _sentences(line: str) -> list[str]:
    """Sentences and the spaces between them, in turn; closing quotes and brackets belong to the sentence they end."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_ENDS.finditer(line):
        parts += [line[start : match.end(1)], match[2]]
        start = match.end()
    return [*parts, line[start:]]


def _by_characters(word: str, fits: Fits) -> Iterator[Segment]:
    start = 0
    while start < len(word):
        length = _longest_prefix(word, start, fits)
        yield Segment(word[start : start + length], is_rewritten=True)
        start += length


def _longest_prefix(word: str, start: int, fits: Fits) -> int:
    """About the longest number of characters from ``start`` that fits, at least 1.

    The search doubles, then halves, so that no text far beyond the result is ever tokenized: a word of 100,000
    characters takes time in proportion to its length.
    """
    left = len(word) - start
    low, high = 1, min(_FIRST_GUESS_CHARACTERS, left)
    while fits(word[start : start + high]):
        low = high
        if high == left:
            return left
        high = min(2 * high, left)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(word[start : start + middle]):
            low = middle
        else:
            high = middle
    return low
