"""Decides which candidates for a comment are good enough to be learned from, and which of them is the best.

Style by the gate judge, content by BERTScore against the comment; nothing that the decoder found a flaw in, nothing
twice. Filtered sampling of a teacher is what makes pseudo-targets worth having (Calderon et al., ACL 2023). Knows no
model that writes, and its reasons hold no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from configs.schema.keeping import Keep
from jobs.generation import Generated
from jobs.judges.content import ContentJudge, has_published_baseline, load_content
from jobs.judges.gate import FOLDER, TERMS_FILE, GateJudge
from jobs.judges.loading import EMBEDDED, JudgeError
from jobs.judges.style import ClassifierStyle
from jobs.metrics import Values
from jobs.text import is_same_text, words_of

EMPTY, FLAW, COPY, DUPLICATE, STYLE, CONTENT = REASONS = ("empty", "flaw", "copy", "duplicate", "style", "content")
"""Why a candidate is dropped: the first of these that is true of it."""


class Gate(Protocol):
    """Gives P(toxic) of each text."""

    def toxicity(self, texts: Sequence[str]) -> Values:
        """P(toxic) of each text, shape (texts,)."""


@dataclass(frozen=True)
class Selection:
    """What is left of one comment's candidates."""

    kept: tuple[str, ...]
    """The best first; no two are the same text."""
    dropped: tuple[str, ...]
    """Why, for each of the others; from ``REASONS``."""


@dataclass(frozen=True)
class _Candidate:
    row: int
    text: str


class CandidateFilter:
    """What a spec's ``keep`` means."""

    def __init__(
        self,
        *,
        gate: Gate | None = None,
        style: float = 0.0,
        judge: ContentJudge | None = None,
        content: float = 0.0,
        not_copy: bool = False,
    ) -> None:
        """Keep what reaches ``style`` under the gate and ``content`` under the judge; a judge that is None isn't asked.

        Without any the order of the candidates stays.
        """
        self._gate, self._style = gate, style
        self._judge, self._content = judge, content
        self._not_copy = not_copy

    @classmethod
    def load(cls, keep: Keep | None) -> CandidateFilter:
        """Load the judges that ``keep`` names; without it only flaws, empty texts and duplicates are dropped.

        Raises:
            JudgeError: one can't be used.
        """
        if keep is None:
            return cls()
        return cls(
            gate=None if keep.style is None or keep.gate is None else load_gate(keep.gate),
            style=keep.style or 0.0,
            judge=None if keep.content is None else _load_content(keep.content_judge),
            content=keep.content or 0.0,
            not_copy=keep.not_copy,
        )

    def select(self, sources: Sequence[str], candidates: Sequence[Sequence[Generated]]) -> list[Selection]:
        """One selection for each source, in order."""
        dropped: list[list[str]] = [[] for _ in sources]
        left = self._plain(sources, candidates, dropped)
        scores = np.ones(len(left))
        if self._gate is not None and left:
            style = 1 - self._gate.toxicity([item.text for item in left])
            left, scores = _drop_below(left, scores, style, self._style, STYLE, dropped)
        if self._judge is not None and left:
            content = self._judge.score([item.text for item in left], [sources[item.row] for item in left])
            left, scores = _drop_below(left, scores, content, self._content, CONTENT, dropped)
        kept: list[list[str]] = [[] for _ in sources]
        for place in np.argsort(-scores, kind="stable"):
            kept[left[place].row].append(left[place].text)
        return [Selection(tuple(texts), tuple(reasons)) for texts, reasons in zip(kept, dropped, strict=True)]

    def _plain(
        self, sources: Sequence[str], candidates: Sequence[Sequence[Generated]], dropped: Sequence[list[str]]
    ) -> list[_Candidate]:
        """The candidates of all rows that need a judge."""
        left = []
        for row, (source, written) in enumerate(zip(sources, candidates, strict=True)):
            seen: set[tuple[str, ...]] = set()
            for item in written:
                reason = self._flaw_of(item, source, seen)
                if reason is None:
                    seen.add(words_of(item.text))
                    left.append(_Candidate(row, item.text))
                else:
                    dropped[row].append(reason)
        return left

    def _flaw_of(self, item: Generated, source: str, seen: set[tuple[str, ...]]) -> str | None:
        if not item.text.strip():
            return EMPTY
        if item.flaw is not None:
            return FLAW
        if self._not_copy and is_same_text(item.text, source):
            return COPY
        return DUPLICATE if words_of(item.text) in seen else None


def _drop_below(
    left: Sequence[_Candidate],
    scores: Values,
    values: Values,
    least: float,
    reason: str,
    dropped: Sequence[list[str]],
) -> tuple[list[_Candidate], Values]:
    """Those whose value is high enough, with their scores times it."""
    enough = values >= least
    for item in (item for item, is_enough in zip(left, enough, strict=True) if not is_enough):
        dropped[item.row].append(reason)
    return [item for item, is_enough in zip(left, enough, strict=True) if is_enough], (scores * values)[enough]


def load_gate(name: str) -> Gate:
    """The judges that ``prepare`` trained (or their gate alone), or a sequence classifier.

    Raises:
        JudgeError: it can't be used.
    """
    path = Path(name).expanduser()
    for folder in (path / FOLDER, path):
        if (folder / TERMS_FILE).is_file():
            return GateJudge.load(folder)
    try:
        return ClassifierStyle(name)
    except JudgeError as error:
        raise JudgeError(
            f"keep.gate = {name!r} holds no gate that prepare trained, and as a classifier: {error}"
        ) from error


def _load_content(name: str) -> ContentJudge:
    if not has_published_baseline(name):
        raise JudgeError(
            f"keep.content_judge = {name!r} has no published baseline, so a threshold means nothing under it; name one "
            f"that bert-score knows, as roberta-large, or {EMBEDDED}"
        )
    try:
        return load_content(name, ())
    except JudgeError as error:
        raise JudgeError(f"keep.content_judge = {name!r}: {error}") from error
