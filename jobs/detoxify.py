"""Rewrites comments: what the workers of a ``detoxify`` run call for the rows of one task.

Every text gets exactly one ``Rewrite``, in order: rewritten, unchanged, passed, flagged, or quarantined with a reason.
No text is cut, none that comes out holds a blocked phrase, and neither reasons nor logs hold any text. Knows nothing of
files, tasks or queues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from configs.schema.kinds import Detoxify
from jobs.blocklist import Blocklist
from jobs.generation import CENSORED, Generated, Generator, load_generator
from jobs.model_record import input_form
from jobs.text import Segment, is_same_text, join, segment

MAX_CHARACTERS = 100_000
"""Longer texts are quarantined: no comment is that long, and one would hold up a whole task."""

EMPTY_OUTPUT = "empty output"


class WindowError(ValueError):
    """The prefix leaves no room for text; the message says what to change."""


class Status(StrEnum):
    """What became of a row."""

    REWRITTEN = "rewritten"
    UNCHANGED = "unchanged"
    """The model wrote the source again (``jobs.text.is_same_text``); the text is the source as it was."""
    PASSED = "passed"
    """The model wasn't asked: there is nothing to rewrite in the text."""
    FLAGGED = "flagged"
    """Rewritten, but a person should look at it; the reason says why."""
    QUARANTINED = "quarantined"
    """No output; the reason says why."""


@dataclass(frozen=True)
class Rewrite:
    """The outcome for one text."""

    text: str | None
    """None only when quarantined."""
    status: Status
    reason: str | None = None
    """Why it was flagged or quarantined; holds no text of the comment."""


class Detoxifier:
    """A loaded model with the rules around it. Not for use by several threads at once."""

    def __init__(self, generator: Generator, blocklist: Blocklist, *, by_sentence: bool = False) -> None:
        """Wrap a loaded generator; ``by_sentence`` rewrites each sentence by itself.

        Raises:
            WindowError: with the prefix, not even one character fits.
        """
        if not generator.fits("a"):
            raise WindowError(
                f"max_length leaves no room for text: prefix and end token alone take {generator.count_tokens('')} "
                "tokens; raise max_length (and decoding.max_new_tokens), or shorten prefix"
            )
        self._generator = generator
        self._blocklist = blocklist
        self._by_sentence = by_sentence

    @classmethod
    def load(cls, spec: Detoxify, *, num_threads: int) -> Self:
        """Load the model of ``spec``.

        Raises:
            ModelError, EngineError, ConversionError, WindowError: as ``load_generator`` and the constructor say.
            RecordError: what the model remembers can't be read.
        """
        form = input_form(spec.model, prefix=spec.prefix, max_length=spec.max_length)
        generator = load_generator(
            spec.model,
            prefix=form.prefix,
            max_length=form.max_length,
            decoding=spec.decoding,
            safety=spec.safety,
            engine=spec.engine,
            num_threads=num_threads,
        )
        return cls(generator, Blocklist(spec.safety.blocklist), by_sentence=spec.segments == "sentence")

    def rewrite(self, texts: Sequence[str]) -> list[Rewrite]:
        """One outcome for each text, in order. The same text or segment is decoded once, however often it comes."""
        planned = [self._plan(text) for text in texts]
        outputs = self._decode(planned)
        return [
            plan if isinstance(plan, Rewrite) else self._assemble(text, plan, outputs)
            for text, plan in zip(texts, planned, strict=True)
        ]

    def _plan(self, text: object) -> Rewrite | list[Segment]:
        """The segments of a text, or its outcome where the model needn't be asked."""
        if not isinstance(text, str):
            return Rewrite(None, Status.QUARANTINED, f"not text but {type(text).__name__}")
        if len(text) > MAX_CHARACTERS:
            return Rewrite(None, Status.QUARANTINED, f"longer than {MAX_CHARACTERS} characters")
        if not _is_unicode(text):
            return Rewrite(None, Status.QUARANTINED, "not valid Unicode: half of a surrogate pair")
        if not text.strip():
            return Rewrite(text, Status.PASSED)
        return segment(text, fits=self._generator.fits, by_sentence=self._by_sentence)

    def _decode(self, planned: Sequence[Rewrite | list[Segment]]) -> Mapping[str, Generated]:
        segments = [item for plan in planned if not isinstance(plan, Rewrite) for item in plan]
        wanted = list(dict.fromkeys(item.text for item in segments if item.is_rewritten))
        return dict(zip(wanted, self._generator.decode(wanted), strict=True))

    def _assemble(self, text: str, segments: Sequence[Segment], outputs: Mapping[str, Generated]) -> Rewrite:
        parts = {item.text: outputs[item.text] for item in segments if item.is_rewritten}
        if not all(part.text.strip() for part in parts.values()):
            return Rewrite(None, Status.QUARANTINED, EMPTY_OUTPUT)
        flaws = [part.flaw for part in parts.values() if part.flaw is not None]
        joined = join(segments, {key: part.text for key, part in parts.items()})
        # Two segments may each be free of a phrase that stands across their border.
        if self._blocklist.is_in(joined):
            joined = self._blocklist.remove(joined)
            flaws.append(CENSORED)
        if not joined.strip():
            return Rewrite(None, Status.QUARANTINED, EMPTY_OUTPUT)
        if flaws:
            return Rewrite(joined, Status.FLAGGED, flaws[0])
        if is_same_text(joined, text):
            return Rewrite(text, Status.UNCHANGED)
        return Rewrite(joined, Status.REWRITTEN)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
