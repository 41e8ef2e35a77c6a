"""Phrases that may never be written, found in text and turned into token sequences that decoding suppresses.

A phrase is found wherever its characters stand, in any casing, with any whitespace between its words, also inside a
longer word ("Visit" is found in "revisited"). It makes no difference that the source holds the phrase. Knows no engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

TokenSequence = tuple[int, ...]

_CONTEXTS = ("", "(")
"""What stands before a phrase when it is tokenized: nothing gives the pieces that begin with a space, a bracket those
that don't."""


class Blocklist:
    """The phrases of one spec.

    Raises:
        ValueError: a phrase is only whitespace.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self._phrases = tuple(phrases)
        for phrase in self._phrases:
            if not phrase.strip():
                raise ValueError(f"safety.blocklist: {phrase!r} is only whitespace; remove it")
        patterns = (r"\s+".join(map(re.escape, phrase.split())) for phrase in self._phrases)
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if self._phrases else None

    def is_in(self, text: str) -> bool:
        """Whether ``text`` holds one of the phrases."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def remove(self, text: str) -> str:
        """``text`` without the phrases and without the words that they are part of; as it is when it holds none.

        What a removal brings together is looked at again, so the result never holds a phrase. It may be empty.
        """
        if not self.is_in(text):
            return text
        while self._pattern is not None and (match := self._pattern.search(text)) is not None:
            start, end = _whole_words(text, match.start(), match.end())
            text = f"{text[:start].rstrip(' ')} {text[end:].lstrip(' ')}"
        return text.strip(" ")

    def sequences(self, tokenizer: Any) -> frozenset[TokenSequence]:
        """Token sequences that write a phrase.

        As given, lower, UPPER, Title and Sentence case, each with and without a space before it, and every single
        piece of the vocabulary that holds a whole phrase.
        """
        if self._pattern is None:
            return frozenset()

        def decode(ids: Sequence[int]) -> str:
            return decode_tokens(tokenizer, ids)

        found: set[TokenSequence] = set()
        for written in self._spellings():
            ids = tokenizer(written, add_special_tokens=False).input_ids
            if (window := self.window(ids, decode)) is not None:
                found.add(window)
        special = set(tokenizer.all_special_ids)
        for piece, index in tokenizer.get_vocab().items():
            if index not in special and self.is_in(piece.replace("▁", " ")):
                found.add((index,))
        return frozenset(found)

    def window(self, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> TokenSequence | None:
        """The shortest run of ``ids`` that ends where the first phrase ends and writes it; None when there is none."""
        if not self.is_in(decode(ids)):
            return None
        end = next(end for end in range(1, len(ids) + 1) if self.is_in(decode(ids[:end])))
        start = next(start for start in range(end - 1, -1, -1) if self.is_in(decode(ids[start:end])))
        return tuple(ids[start:end])

    def _spellings(self) -> Iterator[str]:
        for phrase in self._phrases:
            words = " ".join(phrase.split())
            for case in (words, words.lower(), words.upper(), words.title(), words.capitalize()):
                for context in _CONTEXTS:
                    yield context + case


def decode_tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text that ``ids`` write, special tokens left out and nothing tidied."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The span widened to the ends of the words it cuts."""
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
        end += 1
    return start, end
