"""Rewrites comments: what the workers of a ``detoxify`` run call for the rows of one task.

Every text gets exactly one ``Rewrite``, in order: rewritten, unchanged, passed, flagged, or quarantined with a reason.
Where candidates are to be kept or dropped, the best that is kept is the rewrite, the others stand beside it; a text of
which none is kept is flagged and has no rewrite.
No text is cut, none that comes out holds a blocked phrase which the
whole comment doesn't hold, and neither reasons nor logs hold any text. Knows nothing of
files, tasks or queues.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import torch

from configs.schema.kinds import Detoxify
from jobs.blocklist import Blocklist
from jobs.generation import CENSORED, Generated, Generator, load_generator
from jobs.model_record import input_form
from jobs.text import Segment, is_same_text, join, segment

if TYPE_CHECKING:
    from jobs.keeping import CandidateFilter, Selection

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
    """None when quarantined, and when flagged because no candidate was kept."""
    status: Status
    reason: str | None = None
    """Why it was flagged or quarantined; holds no text of the comment."""
    others: tuple[str, ...] = ()
    """Further candidates that were kept, the better first."""
    dropped: tuple[str, ...] = ()
    """Why, for each candidate that wasn't (``jobs.keeping.REASONS``)."""


@dataclass(frozen=True)
class _Plan:
    """What is to be written for one comment."""

    segments: Sequence[Segment]
    blocklist: Blocklist
    """The phrases that the comment doesn't hold."""

    @property
    def texts(self) -> list[str]:
        return [item.text for item in self.segments if item.is_rewritten]


_Wanted = tuple[str, Blocklist]
"""What is decoded once: a segment, and what its output may not hold."""


class Detoxifier:
    """A loaded model with the rules around it. Not for use by several threads at once."""

    def __init__(
        self,
        generator: Generator,
        blocklist: Blocklist,
        *,
        by_sentence: bool = False,
        num_candidates: int = 1,
        keeping: CandidateFilter | None = None,
    ) -> None:
        """Wrap a loaded generator.

        Args:
            generator: writes the candidates.
            blocklist: what must not come out.
            by_sentence: rewrite each sentence by itself.
            num_candidates: how many are asked for; of a text in several segments the n-th is made of their n-th ones.
            keeping: chooses among them. Without it the one candidate is the outcome, flaws and all.

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
        self._num_candidates = num_candidates
        self._keeping = keeping

    @classmethod
    def load(cls, spec: Detoxify, *, num_threads: int) -> Self:
        """Load the model of ``spec``, and the judges of its ``keep``. Sets torch's thread count for the process.

        Raises:
            ModelError, EngineError, ConversionError, WindowError: as ``load_generator`` and the constructor say.
            RecordError: what the model remembers can't be read.
            JudgeError: a judge can't be used.
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
        return cls(
            generator,
            Blocklist(spec.safety.blocklist),
            by_sentence=spec.segments == "sentence",
            num_candidates=spec.samples,
            keeping=_load_filter(spec, num_threads),
        )

    def rewrite(self, texts: Sequence[str]) -> list[Rewrite]:
        """One outcome for each text, in order. The same text or segment is decoded once, however often it comes."""
        planned = [self._plan(text) for text in texts]
        outputs = self._decode(planned)
        outcomes = [plan if isinstance(plan, Rewrite) else None for plan in planned]
        asked = [row for row, outcome in enumerate(outcomes) if outcome is None]
        candidates = [self._assemble(plan, outputs) for plan in planned if not isinstance(plan, Rewrite)]
        for row, outcome in zip(asked, self._choose([texts[row] for row in asked], candidates), strict=True):
            outcomes[row] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _plan(self, text: object) -> Rewrite | _Plan:
        """What the model is to write, or its outcome where the model needn't be asked."""
        if not isinstance(text, str):
            return Rewrite(None, Status.QUARANTINED, f"not text but {type(text).__name__}")
        if len(text) > MAX_CHARACTERS:
            return Rewrite(None, Status.QUARANTINED, f"longer than {MAX_CHARACTERS} characters")
        if not _is_unicode(text):
            return Rewrite(None, Status.QUARANTINED, "not valid Unicode: half of a surrogate pair")
        if not text.strip():
            return Rewrite(text, Status.PASSED)
        segments = segment(text, fits=self._generator.fits, by_sentence=self._by_sentence)
        return _Plan(segments, self._blocklist.not_in(text))

    def _decode(self, planned: Sequence[Rewrite | _Plan]) -> Mapping[_Wanted, tuple[Generated, ...]]:
        plans = [plan for plan in planned if not isinstance(plan, Rewrite)]
        wanted = list(dict.fromkeys((text, plan.blocklist) for plan in plans for text in plan.texts))
        texts, blocklists = [text for text, _ in wanted], [blocklist for _, blocklist in wanted]
        if self._num_candidates == 1:
            outputs = self._generator.decode(texts, blocklists=blocklists)
            return {key: (output,) for key, output in zip(wanted, outputs, strict=True)}
        candidates = self._generator.candidates(texts, self._num_candidates, blocklists=blocklists)
        return dict(zip(wanted, candidates, strict=True))

    def _assemble(self, plan: _Plan, outputs: Mapping[_Wanted, tuple[Generated, ...]]) -> tuple[Generated, ...]:
        """The candidates for a whole text."""
        parts = {part: outputs[part, plan.blocklist] for part in plan.texts}
        return tuple(
            self._join(plan, {text: written[min(number, len(written) - 1)] for text, written in parts.items()})
            for number in range(max(map(len, parts.values())))
        )

    def _join(self, plan: _Plan, parts: Mapping[str, Generated]) -> Generated:
        """One candidate; without text when a part has none."""
        if not all(part.text.strip() for part in parts.values()):
            return Generated("")
        flaws = [part.flaw for part in parts.values() if part.flaw is not None]
        joined = join(plan.segments, {key: part.text for key, part in parts.items()})
        # Two segments may each be free of a phrase that stands across their border.
        if plan.blocklist.is_in(joined):
            joined = plan.blocklist.remove(joined)
            flaws.append(CENSORED)
        return Generated(joined, flaws[0] if flaws else None)

    def _choose(self, texts: Sequence[str], candidates: Sequence[tuple[Generated, ...]]) -> list[Rewrite]:
        if self._keeping is None:
            return [_outcome(text, written[0]) for text, written in zip(texts, candidates, strict=True)]
        selections = self._keeping.select(texts, candidates)
        return [_chosen(text, selection) for text, selection in zip(texts, selections, strict=True)]


def _load_filter(spec: Detoxify, num_threads: int) -> CandidateFilter | None:
    if spec.samples == 1 and spec.keep is None:
        return None
    # A worker that keeps what the model writes needs no judges, whose packages take a second to load.
    from jobs.keeping import CandidateFilter

    torch.set_num_threads(num_threads)
    return CandidateFilter.load(spec.keep)


def _outcome(text: str, output: Generated) -> Rewrite:
    if not output.text.strip():
        return Rewrite(None, Status.QUARANTINED, EMPTY_OUTPUT)
    if output.flaw is not None:
        return Rewrite(output.text, Status.FLAGGED, output.flaw)
    if is_same_text(output.text, text):
        return Rewrite(text, Status.UNCHANGED)
    return Rewrite(output.text, Status.REWRITTEN)


def _chosen(text: str, selection: Selection) -> Rewrite:
    """The outcome of a selection; the text itself where the best candidate is a copy of it."""
    if not selection.kept:
        reasons = ", ".join(f"{reason} {number}" for reason, number in Counter(selection.dropped).most_common())
        return Rewrite(None, Status.FLAGGED, f"no candidate kept ({reasons})", dropped=selection.dropped)
    best, *others = selection.kept
    is_copy = is_same_text(best, text)
    return Rewrite(
        text if is_copy else best,
        Status.UNCHANGED if is_copy else Status.REWRITTEN,
        others=tuple(others),
        dropped=selection.dropped,
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
