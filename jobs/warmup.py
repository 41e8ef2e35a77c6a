"""The copy warm-up: batches that teach a model made on the spot to attend and copy before it sees a pair.

Two batches of random token sequences to one of real targets with their prefix, each to be copied. Random tokens force
attention instead of word statistics: without this a small T5 writes fluent noise for thousands of steps
(measurements in the commit that added it). Deterministic in the seed and the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jobs.collation import TokenRow

NUM_RANDOM_OF_THREE = 2
"""Of three copy batches, so many are random tokens."""


class CopyTask:
    """Makes the rows of any copy step.

    Args:
        sentences: target rows of the train split, end token included.
        prefix_ids: tokens of the prefix, put before every source, as in use.
        token_ids: ids that random sequences are drawn from: no special tokens.
        end_id: the end token.
    """

    def __init__(
        self, sentences: Sequence[Sequence[int]], *, prefix_ids: Sequence[int], token_ids: Sequence[int], end_id: int
    ) -> None:
        assert sentences, "the caller has refused an empty split"
        assert len(token_ids) > 0, "a tokenizer has tokens besides the special ones"
        self._sentences = sentences
        self._prefix = tuple(prefix_ids)
        self._tokens = np.asarray(token_ids)
        self._end = end_id
        self._lengths = np.asarray([len(sentence) - 1 for sentence in sentences])

    def rows(self, step: int, num_rows: int, *, seed: int) -> list[TokenRow]:
        """``num_rows`` rows of copy step ``step`` (from 0), shortest first."""
        random = np.random.default_rng([seed, step, 1])
        chosen = random.integers(len(self._sentences), size=num_rows)
        if step % 3 < NUM_RANDOM_OF_THREE:
            bodies = [tuple(random.choice(self._tokens, size=max(1, self._lengths[row])).tolist()) for row in chosen]
            targets = [(*body, self._end) for body in bodies]
        else:
            targets = [tuple(self._sentences[row]) for row in chosen]
        targets.sort(key=len)
        return [TokenRow((*self._prefix, *target), target) for target in targets]
