"""Writes the detoxified text with a loaded model (``jobs.engines``).

No output holds a blocked phrase that its source doesn't hold: outputs that do are replaced by the next best of the
beam, else decoded again with the tokens suppressed that write the phrase, else the phrase is cut out and the output
marked. An output that never held one is what it would have been without a blocklist, and takes no longer. Inputs are
never cut: callers see to it that a text fits (``fits``). Text is never logged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.models import ModelSource
from jobs.blocklist import Blocklist, TokenSequence, decode_tokens
from jobs.conversion import is_exported
from jobs.engines import Backend, EngineError, Input, load_backend, needs_ctranslate2
from jobs.models import check_model, load_tokenizer

__all__ = [
    "BROKEN",
    "CENSORED",
    "CUT_OFF",
    "EngineError",
    "Generated",
    "Generator",
    "check_generator",
    "load_generator",
]

MAX_RETRIES = 5
"""How often a row that wrote a blocked phrase is decoded again before the phrase is cut out of its text: once with the
likely tokens suppressed, and again for each way of writing it that nobody foresaw."""

CUT_OFF = "output reached decoding.max_new_tokens"
CENSORED = "blocked phrase removed after decoding"
BROKEN = "output holds bytes that make no character"


@dataclass(frozen=True)
class Generated:
    """One output and what is wrong with it."""

    text: str
    flaw: str | None = None
    """``CUT_OFF``, ``CENSORED``, ``BROKEN`` or None."""


class Generator(Protocol):
    """Rewrites texts, in order. The prefix is added inside.

    ``blocklists`` says for each text what its outputs may not hold; when left out, the phrases of the spec that the
    text itself doesn't hold.
    """

    def generate(self, texts: Sequence[str]) -> list[str]:
        """The best output for each text; none for no texts."""

    def decode(self, texts: Sequence[str], *, blocklists: Sequence[Blocklist] | None = None) -> list[Generated]:
        """The best output for each text with its flaw; when sampling, one sample."""

    def candidates(
        self, texts: Sequence[str], count: int, *, blocklists: Sequence[Blocklist] | None = None
    ) -> list[tuple[Generated, ...]]:
        """``count`` outputs for each text: independent samples when sampling, else the beam's best, best first.

        Samples may be equal. Those in which a phrase had to be cut out come last.

        Raises:
            ValueError: there are not so many beams.
        """

    def count_tokens(self, text: str) -> int:
        """Tokens of the model's input for ``text``: prefix and end token included."""

    def fits(self, text: str) -> bool:
        """Whether ``text`` is within ``max_length``, and a copy of it within ``max_new_tokens``."""


def load_generator(
    model: ModelSource,
    *,
    prefix: str,
    max_length: int,
    decoding: Decoding,
    safety: Safety,
    engine: Engine,
    num_threads: int,
) -> Generator:
    """Load ``model`` for inference, on a GPU where there is one.

    CTranslate2 takes an exported folder, or any trained T5, which it converts into a temporary folder that is gone
    before this returns. Transformers takes a trained T5 and sets torch's thread count for the process.

    Raises:
        ModelError: there is no such model.
        EngineError: the engine can't run it as asked.
        ConversionError: CTranslate2 would run it wrongly.
        ValueError: a blocked phrase holds nothing that can be seen.
    """
    blocklist = Blocklist(safety.blocklist)
    backend = load_backend(model, decoding, engine, num_threads=num_threads)
    return _TextGenerator(backend, blocklist, decoding, prefix=prefix, max_length=max_length)


def check_generator(model: ModelSource, engine: Engine) -> None:
    """See, without reading weights, that there is such a model and that this engine takes its kind.

    Raises:
        ModelError: there is no such model.
        EngineError: it is exported for the other engine.
    """
    folder = Path(model.name).expanduser() if model.name is not None else None
    if folder is None or not is_exported(folder):
        check_model(model)
        return
    if engine.name == "transformers":
        raise needs_ctranslate2(model)
    load_tokenizer(model.tokenizer or str(folder))


@dataclass
class _Row:
    """What was decoded for one text so far."""

    ids: Sequence[int]
    blocklist: Blocklist
    suppressed: frozenset[TokenSequence] = frozenset()
    clean: list[list[int]] = field(default_factory=list)
    """Outputs that can be given."""
    drawn_again: Sequence[int] | None = None
    """The numbers of the samples that hold a phrase; None before the first time. The others are clean already."""
    blocked: list[list[int]] = field(default_factory=list)
    """Outputs of the last time that hold a phrase."""
    blank: list[list[int]] = field(default_factory=list)
    """Outputs of the last time that hold nothing and would only stand in for one that holds a phrase."""


class _TextGenerator:
    """Tokenizes, decodes, and sees to it that no blocked phrase comes out."""

    def __init__(
        self, backend: Backend, blocklist: Blocklist, decoding: Decoding, *, prefix: str, max_length: int
    ) -> None:
        self._backend = backend
        self._tokenizer = backend.tokenizer
        self._blocklist = blocklist
        self._decoding = decoding
        self._prefix = prefix
        self._max_length = max_length
        self._max_new_tokens = decoding.max_new_tokens
        self._special = re.compile("|".join(map(re.escape, self._tokenizer.all_special_tokens)))
        self._forms = blocklist.token_forms(self._tokenizer)

    def generate(self, texts: Sequence[str]) -> list[str]:
        return [item.text for item in self.decode(texts)]

    def decode(self, texts: Sequence[str], *, blocklists: Sequence[Blocklist] | None = None) -> list[Generated]:
        return [outputs[0] for outputs in self.candidates(texts, 1, blocklists=blocklists)]

    def candidates(
        self, texts: Sequence[str], count: int, *, blocklists: Sequence[Blocklist] | None = None
    ) -> list[tuple[Generated, ...]]:
        if self._decoding.sampling is None and count > self._decoding.num_beams:
            remedy = f"use decoding.num_beams: {count} or more, or decoding.sampling"
            raise ValueError(f"{count} outputs for a text: a beam of {self._decoding.num_beams} has fewer; {remedy}")
        if not texts:
            return []
        if blocklists is None:
            blocklists = [self._blocklist.not_in(text) for text in texts]
        inputs = self._encode([self._prefix + text for text in texts])
        rows = [_Row(ids, blocklist) for ids, blocklist in zip(inputs, blocklists, strict=True)]
        self._run(rows, count)
        for _ in range(MAX_RETRIES):
            lacking = [row for row in rows if len(row.clean) < count and self._suppress_more(row)]
            self._run(lacking, count)
        return [self._finish(row, count) for row in rows]

    def count_tokens(self, text: str) -> int:
        return len(self._encode([self._prefix + text])[0])

    def fits(self, text: str) -> bool:
        return self.count_tokens(text) <= self._max_length and len(self._encode([text])[0]) <= self._max_new_tokens

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the end token; a special token that stands in a text as text is broken by a space.

        Otherwise the HTML tag ``</s>`` in a comment would end it for the model.
        """
        broken = [self._special.sub(_break, text) for text in texts]
        ids: list[list[int]] = self._tokenizer(broken, truncation=False, verbose=False).input_ids
        return ids

    def _text(self, ids: Sequence[int]) -> str:
        return decode_tokens(self._tokenizer, ids)

    def _run(self, rows: Sequence[_Row], count: int) -> None:
        if not rows:
            return
        is_beam = self._decoding.sampling is None
        num_outputs = self._decoding.num_beams if is_beam and self._blocklist.phrases else count
        found = self._backend.run([Input(row.ids, row.suppressed) for row in rows], num_outputs)
        for row, outputs in zip(rows, found, strict=True):
            if is_beam:
                self._sort_beam(row, outputs, count)
            else:
                self._sort_samples(row, outputs)

    def _sort_beam(self, row: _Row, outputs: Sequence[list[int]], count: int) -> None:
        row.clean, row.blocked, row.blank = [], [], []  # the same hypotheses come again
        for output in outputs:
            if len(row.clean) == count:
                return
            text = self._text(output)
            if row.blocklist.is_in(text):
                row.blocked.append(output)
            elif row.blocked and not text.strip():
                row.blank.append(output)
            else:
                row.clean.append(output)

    def _sort_samples(self, row: _Row, outputs: Sequence[list[int]]) -> None:
        """Take those that are still wanted: a sample that was clean would come a second time with the same seed."""
        wanted = range(len(outputs)) if row.drawn_again is None else row.drawn_again
        is_blocked = {number: row.blocklist.is_in(self._text(outputs[number])) for number in wanted}
        row.clean += [outputs[number] for number in wanted if not is_blocked[number]]
        row.drawn_again = [number for number in wanted if is_blocked[number]]
        row.blocked = [outputs[number] for number in row.drawn_again]

    def _suppress_more(self, row: _Row) -> bool:
        """Add what writes the phrases that this row wrote; False where there is nothing to add.

        The likely tokens first: rows that suppress the same can share a batch.
        """
        before = row.suppressed
        for output in row.blocked:
            for phrase in row.blocklist.written_in(self._text(output)):
                row.suppressed |= self._forms.get(phrase, frozenset())
        if row.suppressed == before:
            row.suppressed |= {window for output in row.blocked for window in row.blocklist.windows(output, self._text)}
        return row.suppressed != before

    def _finish(self, row: _Row, count: int) -> tuple[Generated, ...]:
        return tuple(self._generated(row, output) for output in [*row.clean, *row.blocked, *row.blank][:count])

    def _generated(self, row: _Row, output: Sequence[int]) -> Generated:
        text = self._text(output)
        if row.blocklist.is_in(text):
            return Generated(row.blocklist.remove(text), CENSORED)
        if self._tokenizer.eos_token_id not in output:
            return Generated(text, CUT_OFF)
        # Pieces of single bytes can be combined into no character, which decodes to U+FFFD.
        return Generated(text, BROKEN if "\ufffd" in text else None)


def _break(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"
