"""Means with intervals, paired comparisons, and the joint score. Pure numpy: knows no model and no text.

Procedure: Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004 (paired bootstrap),
with percentile intervals and a two-sided p-value. Everything is computed from per-row values in row order, so it does
not depend on how the rows were cut into tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]
"""One value a row, shape (rows,)."""

_ENTRIES_IN_CHUNK = 1 << 22
"""Counts drawn at a time: 32 MB."""


@dataclass(frozen=True)
class Estimate:
    """A mean over rows, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two systems on the same rows."""

    difference: Estimate
    p_value: float
    """Two-sided: how often a resample falls on the other side of 0, twice; 1 for equal values, never 0."""


class Bootstrap:
    """Resamples of the rows, drawn with replacement; all values are resampled alike, so differences are paired."""

    def __init__(self, num_rows: int, *, num_resamples: int, seed: int) -> None:
        """Fix the rows and the draw.

        Raises:
            ValueError: there are no rows.
        """
        if num_rows < 1:
            raise ValueError("no rows to draw from")
        self._num_rows, self._num_resamples, self._seed = num_rows, num_resamples, seed

    def means(self, columns: Sequence[Values]) -> Values:
        """The mean of each column in each resample, shape (resamples, columns)."""
        table = np.stack(columns, axis=1)
        if table.shape[0] != self._num_rows:
            raise ValueError(f"{table.shape[0]} values for {self._num_rows} rows")
        chance = np.random.default_rng(self._seed)
        means = np.empty((self._num_resamples, table.shape[1]))
        shares = np.full(self._num_rows, 1 / self._num_rows)
        size = max(1, _ENTRIES_IN_CHUNK // self._num_rows)
        for first in range(0, self._num_resamples, size):
            last = min(first + size, self._num_resamples)
            # How often each row is drawn is all that a mean needs.
            counts = chance.multinomial(self._num_rows, shares, size=last - first)
            means[first:last] = counts @ table / self._num_rows
        return means

    def estimate(self, columns: Sequence[Values]) -> list[Estimate]:
        """The mean of each column with its interval."""
        return [self._estimate(column, means) for column, means in zip(columns, self.means(columns).T, strict=True)]

    def compare(self, pairs: Sequence[tuple[Values, Values]]) -> list[Comparison]:
        """How much higher the first of each pair is than the second, on the same rows."""
        differences = [ours - theirs for ours, theirs in pairs]
        if not differences:
            return []
        return [
            Comparison(self._estimate(difference, means), _p_value(means))
            for difference, means in zip(differences, self.means(differences).T, strict=True)
        ]

    def _estimate(self, column: Values, means: Values) -> Estimate:
        low, high = np.quantile(means, [0.025, 0.975])
        return Estimate(float(column.mean()), float(low), float(high), self._num_rows)


def joint(style: Values, content: Values, fluency: Values) -> Values:
    """Each row's ``style × clip(content, 0, 1) × fluency``; a system's joint is the mean of it, no product of means.

    As the J of ParaDetox (Logacheva et al., ACL 2022), with other judges: its fluency is a classifier's.

    Args:
        style: 1 − P(toxic) of the output, within [0, 1].
        content: similarity to the reference, any range.
        fluency: within [0, 1].
    """
    return style * np.clip(content, 0.0, 1.0) * fluency


def relative_fluency(source_perplexity: Values, output_perplexity: Values) -> Values:
    """``f = min(1, PPL(source) / PPL(output))``: 1 where the output reads no worse than the comment did.

    0 for an output without tokens, whose perplexity is infinite, whatever the source is; 1 for a source without tokens
    and an output that has some.
    """
    with np.errstate(invalid="ignore"):
        ratio = np.minimum(1.0, source_perplexity / output_perplexity)
    return np.where(np.isinf(output_perplexity), 0.0, ratio)


def _p_value(means: Values) -> float:
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(means) + 1))
