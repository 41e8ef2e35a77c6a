"""Phrases that may not be written unless the source holds them, found in text and turned into token sequences.

A phrase is found where it stands as whole words, however it is cased, in full-width or other compatibility forms, with
any whitespace between its words and any invisible characters: "Visit" is found in "visit" and "re-VISIT!", not in
"Visitor" or "revisit". Letters of another alphabet that look alike are other letters. Knows no engine.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

TokenSequence = tuple[int, ...]

_CONTEXTS = ("", "(")
"""What stands before a phrase when it is tokenized: nothing gives the pieces that begin with a space, a bracket those
that don't."""

_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3040", "\u30ff"),  # Japanese syllables
    ("\u3400", "\u9fff"),  # Chinese characters
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)
"""Scripts that put no spaces between words: a phrase in them ends wherever it ends."""

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164") | {chr(code) for code in range(0xFE00, 0xFE10)}
"""Characters that show nothing though Unicode files them under letters and marks."""

_DOTTED_I = str.maketrans({"\u0131": "i", "\u0307": None})
"""Turkish lower-cases I to a dotless i, and upper-cases i to an I with a dot, which falls apart when it is folded."""


class Blocklist:
    """Some phrases. Equal ones hold the same phrases in the same order.

    Raises:
        ValueError: a phrase holds nothing that can be seen.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self.phrases = tuple(phrases)
        self._folded = {phrase: _fold(phrase).text.strip(" ") for phrase in self.phrases}
        for phrase, folded in self._folded.items():
            if not folded:
                raise ValueError(f"safety.blocklist: {phrase!r} is only whitespace; remove it")
        self._first_words = {folded.split(" ")[0] for folded in self._folded.values()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocklist) and other.phrases == self.phrases

    def __hash__(self) -> int:
        return hash(self.phrases)

    def not_in(self, source: str) -> Self:
        """The phrases that ``source`` doesn't hold: what may not be written when it is rewritten."""
        held = self.written_in(source)
        return type(self)([phrase for phrase in self.phrases if phrase not in held]) if held else self

    def is_in(self, text: str) -> bool:
        """Whether ``text`` holds one of the phrases."""
        return bool(self.written_in(text))

    def written_in(self, text: str) -> frozenset[str]:
        """The phrases that ``text`` holds."""
        if not self._may_be_in(text):
            return frozenset()
        line = _fold(text)
        return frozenset(phrase for phrase, folded in self._folded.items() if next(line.find(folded), None))

    def remove(self, text: str) -> str:
        """``text`` without the phrases; as it is when it holds none.

        What a removal brings together is looked at again, so the result never holds a phrase. It may be empty.
        """
        if not self.is_in(text):
            return text
        while spans := self._spans(text):
            span = spans[0]
            before, after = text[: span[0]].rstrip(" "), text[span[1] :].lstrip(" ")
            is_spaced = before[-1:].isspace() or after[:1].isspace()
            text = before + after if is_spaced else f"{before} {after}"
        return text.strip(" ")

    def token_forms(self, tokenizer: Any) -> Mapping[str, frozenset[TokenSequence]]:
        """Phrase → token sequences that are likely to write it.

        As given, lower, UPPER, Title and Sentence case, each with and without a space before it, and every single
        piece of the vocabulary that holds the whole phrase. Some may also begin or end a longer word.
        """

        def decode(ids: Sequence[int]) -> str:
            return decode_tokens(tokenizer, ids)

        forms: dict[str, set[TokenSequence]] = {phrase: set() for phrase in self.phrases}
        for phrase, found in forms.items():
            alone = Blocklist([phrase])
            for written in _spellings(phrase):
                found |= alone.windows(tokenizer(written, add_special_tokens=False).input_ids, decode)
        special = set(tokenizer.all_special_ids)
        for piece, index in tokenizer.get_vocab().items():
            text = piece.replace("▁", " ")
            # A quick look first: a multilingual vocabulary has 250,000 pieces.
            if any(word in _fold_case(text) for word in self._first_words) and index not in special:
                for phrase in self.written_in(text):
                    forms[phrase].add((index,))
        return {phrase: frozenset(found) for phrase, found in forms.items()}

    def windows(self, ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> frozenset[TokenSequence]:
        """The shortest runs of ``ids`` that write the phrases which the text of all ``ids`` holds."""
        text = decode(ids)
        spans = self._spans(text)
        if not spans:
            return frozenset()
        # The number of characters that the first tokens write; pieces of single bytes write a character together.
        prefixes = {len(ids): len(text), 0: 0}
        for end in range(1, len(ids)):
            if text.startswith(prefix := decode(ids[:end])):
                prefixes[end] = len(prefix)
        return frozenset(
            tuple(ids[_last_before(prefixes, start) : _first_after(prefixes, end)]) for start, end in spans
        )

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where phrases stand in ``text``."""
        if not self._may_be_in(text):
            return []
        line = _fold(text)
        return sorted(span for folded in self._folded.values() for span in line.find(folded))

    def _may_be_in(self, text: str) -> bool:
        """A quick look that only plain text passes."""
        if not text.isascii():
            return bool(self.phrases)
        lower = text.lower()
        return any(word in lower for word in self._first_words)


def decode_tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text that ``ids`` write, special tokens left out and nothing tidied."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


@dataclass(frozen=True)
class _Line:
    """A text in the form in which phrases are looked for, and where each of its characters comes from."""

    text: str
    """Casing, compatibility forms, invisible characters and the size of spaces taken away."""
    spans: Sequence[tuple[int, int]]
    """For each character of ``text``, start and end of what it was in the original."""
    is_joining: Sequence[bool]
    """For each character, whether it can be part of a longer word."""

    def find(self, phrase: str) -> Iterator[tuple[int, int]]:
        """Start and end in the original of each place where ``phrase`` stands as whole words."""
        start = self.text.find(phrase)
        while start >= 0:
            end = start + len(phrase)
            if self._is_border(start) and self._is_border(end):
                yield self.spans[start][0], self.spans[end - 1][1]
            start = self.text.find(phrase, start + 1)

    def _is_border(self, place: int) -> bool:
        """Whether a word can begin or end before the character at ``place``."""
        if place in (0, len(self.text)):
            return True
        if self.spans[place - 1] == self.spans[place]:  # within what one character was folded to
            return False
        return not (self.is_joining[place - 1] and self.is_joining[place])


def _fold(text: str) -> _Line:
    folded: list[str] = []
    spans: list[tuple[int, int]] = []
    is_joining: list[bool] = []
    for start, end in _clusters(text):
        cluster = text[start:end]
        visible = "".join(char for char in cluster if not _is_invisible(char))
        if cluster.isspace():
            if folded and folded[-1] == " ":
                spans[-1] = (spans[-1][0], end)
                continue
            visible = " "
        written = _fold_case(visible)
        folded += written
        spans += [(start, end)] * len(written)
        is_joining += [_is_joining(cluster[0])] * len(written)
    return _Line("".join(folded), spans, is_joining)


def _fold_case(text: str) -> str:
    if text.isascii():
        return text.lower()
    once = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", once).translate(_DOTTED_I)


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each character with the marks and Korean letters that join it."""
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or not _is_attached(text[place]):
            yield start, place
            start = place


def _is_attached(char: str) -> bool:
    return char > "\u02ff" and (unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff")


def _is_invisible(char: str) -> bool:
    return char in _INVISIBLE or (char > "\x7f" and unicodedata.category(char) == "Cf")


def _is_joining(char: str) -> bool:
    """Letters, marks and digits, but for scripts without spaces; "²" and "™" are no letters."""
    if char.isascii():
        return char.isalnum()
    if any(first <= char <= last for first, last in _UNSPACED):
        return False
    category = unicodedata.category(char)
    return category[0] in "LM" or category in ("Nd", "Nl")


def _spellings(phrase: str) -> Iterator[str]:
    words = " ".join(phrase.split())
    for case in (words, words.lower(), words.upper(), words.title(), words.capitalize()):
        for context in _CONTEXTS:
            yield context + case


def _last_before(prefixes: Mapping[int, int], place: int) -> int:
    return max(number for number, length in prefixes.items() if length <= place)


def _first_after(prefixes: Mapping[int, int], place: int) -> int:
    return min(number for number, length in prefixes.items() if length >= place)
