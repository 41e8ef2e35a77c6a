"""What can be said of outputs without a judge: chrF against the reference, copies, and length. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from jobs.data import Pair
from jobs.metrics import Values
from jobs.text import is_same_text


@dataclass(frozen=True)
class Wording:
    """The per-row values of one system, each of shape (rows,)."""

    chrf: Values
    """Against the reference, the highest over the row's references (against the source where there is none); 0 to 100,
    as sacrebleu gives it: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015, n ≤ 6,
    β = 2. 0 for a blank output."""
    copy: Values
    """1 where the output is the source (``jobs.text.is_same_text``), else 0."""
    length_ratio: Values
    """Characters of the output over those of the source, whitespace around them left out."""

    @property
    def means(self) -> dict[str, Values]:
        """Metric → the values whose mean is reported."""
        return {"chrf": self.chrf, "copy_rate": self.copy, "length_ratio": self.length_ratio}


def compare_wording(test: Sequence[Pair], outputs: Sequence[str]) -> Wording:
    """Compare each output with its row's source and references."""
    chrf = CHRF()
    scores, copies, ratios = [], [], []
    for pair, text in zip(test, outputs, strict=True):
        others = pair.targets or (pair.source,)
        scores.append(chrf.sentence_score(text, list(others)).score if text.strip() else 0.0)
        copies.append(float(is_same_text(text, pair.source)))
        ratios.append(len(text.strip()) / max(1, len(pair.source.strip())))
    return Wording(np.array(scores), np.array(copies), np.array(ratios))
