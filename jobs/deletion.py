"""The *delete* control: removes the words that speak for toxicity, as a blocklist would. Fitted, not hand-written.

A model that doesn't beat it has learned which words are rude, and nothing about rewriting.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from jobs.data import Pair

SMOOTHING = 0.5
"""Added to every count, so that a word of one side only has finite log-odds."""
_WORD = re.compile(r"\w[\w'’*@$-]*")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,.!?;:])")


@dataclass(frozen=True)
class DeleteControl:
    """Deletes the words whose toxic log-odds reach the threshold."""

    log_odds: dict[str, float]
    """Lower-case word → ``log(share of it in the sources / share of it in the rewrites)``, in nats."""
    threshold: float

    @classmethod
    def fit(cls, train: Sequence[Pair], validation: Sequence[Pair] = ()) -> Self:
        """Log-odds from train; the threshold whose deletions are best on validation, or on train where there is none.

        A deletion is right when no rewrite of the comment has the word, else wrong; best is the greatest number of
        right ones less wrong ones. Of equal thresholds the highest is taken; infinity where every deletion hurts.
        """
        toxic = Counter(word for pair in train for word in words(pair.source))
        neutral = Counter(word for pair in train for target in pair.targets for word in words(target))
        known = sorted(toxic.keys() | neutral.keys())
        totals = [counts.total() + SMOOTHING * len(known) for counts in (toxic, neutral)]
        log_odds = {
            word: math.log((toxic[word] + SMOOTHING) / totals[0] * totals[1] / (neutral[word] + SMOOTHING))
            for word in known
        }
        return cls(log_odds, _best_threshold(log_odds, validation or train))

    def delete(self, text: str) -> str:
        """The text without those words, its spaces mended; may be empty."""
        kept = _WORD.sub(lambda match: "" if self._is_toxic(match[0]) else match[0], text)
        return _SPACE_BEFORE_MARK.sub(r"\1", " ".join(kept.split()))

    def _is_toxic(self, word: str) -> bool:
        return self.log_odds.get(word.lower(), -math.inf) >= self.threshold


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def _best_threshold(log_odds: dict[str, float], pairs: Iterable[Pair]) -> float:
    """Go down the words from the most toxic, and count what deleting all words down to each would win."""
    gain: Counter[str] = Counter()
    for pair in pairs:
        kept = {word for target in pair.targets for word in words(target)}
        for word in words(pair.source):
            gain[word] += -1 if word in kept else 1
    order = sorted((word for word in gain if word in log_odds), key=lambda word: -log_odds[word])
    if not order:
        return math.inf
    odds = np.array([log_odds[word] for word in order])
    gains = np.cumsum([gain[word] for word in order])
    # Words of equal log-odds are deleted together: only the last of them is a threshold.
    gains[np.append(odds[1:] == odds[:-1], False)] = 0
    best = int(np.argmax(gains))
    return float(odds[best]) if gains[best] > 0 else math.inf
