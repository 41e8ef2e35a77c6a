"""Fluency judge: the perplexity of each text under a causal language model.

``PPL = exp(mean negative log-likelihood of the text's tokens)``, a begin token prepended so that the first word counts,
padding masked, no end token scored. The end decides nothing about the number of tokens, so an empty text has none and
an infinite perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from jobs.judges.loading import EMBEDDED, JudgeError, length_batches, load_pretrained, map_batches
from jobs.metrics import Values

FIELD = "judges.fluency"
FOLDER = "fluency"
"""Where the trained judge lies in the folder of judges."""
_TOKENS_IN_BATCH = 4096
_LOGITS_IN_BATCH = 1 << 26
"""256 MB in float32."""


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihoods in nats, one entry a text."""

    total: Values
    """Summed over a text's tokens."""
    num_tokens: Values
    """0 for a text that has none, as a blank one."""

    @property
    def perplexity(self) -> Values:
        """Of each text; infinite where there is no token."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(self.num_tokens > 0, np.exp(self.total / self.num_tokens), np.inf)

    @property
    def corpus_perplexity(self) -> float:
        """Exp of the mean over all tokens of all texts; NaN where there is none."""
        tokens = float(self.num_tokens.sum())
        return math.exp(float(self.total.sum()) / tokens) if tokens else math.nan

    def take(self, rows: Sequence[int]) -> Likelihood:
        """The entries of these rows."""
        return Likelihood(self.total[list(rows)], self.num_tokens[list(rows)])


class FluencyJudge:
    """A causal language model with its tokenizer."""

    def __init__(self, path: str, *, name: str | None = None) -> None:
        """Load it from a folder or a hub.

        Raises:
            JudgeError: it can't be loaded, or has no token to begin with.
        """
        loaded = load_pretrained(FIELD, path, AutoModelForCausalLM)
        self.name, self.identity = name or path, loaded.identity
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._max_tokens = loaded.max_tokens - 1  # the begin token takes one
        begin = self._tokenizer.bos_token_id
        begin = self._tokenizer.eos_token_id if begin is None else begin
        if begin is None:
            raise JudgeError(f"{FIELD} = {path!r} has neither a begin nor an end token; name another, as gpt2")
        self._begin = int(begin)

    def likelihood(self, texts: Sequence[str]) -> Likelihood:
        """Score each text; of one longer than the model takes, the beginning."""
        total, num_tokens = np.zeros(len(texts)), np.zeros(len(texts))
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if not rows:
            return Likelihood(total, num_tokens)
        # A special token that stands in a comment as text is text.
        encoded = self._tokenizer(
            [texts[row] for row in rows], add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        cut = [ids[: self._max_tokens] for ids in encoded]
        most = min(_TOKENS_IN_BATCH, _LOGITS_IN_BATCH // self._model.config.vocab_size)

        def sums(batch: list[int]) -> Values:
            with torch.inference_mode():
                nll_BT, mask_BT = negative_log_likelihood(self._model, [cut[item] for item in batch], self._begin)
                return np.asarray((nll_BT.double() * mask_BT).sum(dim=1).cpu())

        num_tokens[rows] = [len(ids) for ids in cut]
        batches = list(length_batches([len(ids) + 1 for ids in cut], most))
        for batch, values in zip(batches, map_batches(sums, batches), strict=True):
            total[[rows[item] for item in batch]] = values
        return Likelihood(total, num_tokens)


def load_fluency(name: str, trained: str | None) -> FluencyJudge:
    """The judge that a spec names; ``trained`` is the folder of judges that ``prepare`` wrote.

    Raises:
        JudgeError: it can't be used.
    """
    if name != EMBEDDED:
        return FluencyJudge(name)
    folder = Path(trained or "").expanduser() / FOLDER
    if trained is None or not (folder / "config.json").is_file():
        raise JudgeError(
            f"judges.trained = {trained}: no {FOLDER} judge in it; give the folder judges of a prepare run, or name a "
            "hub model in judges.fluency, as gpt2"
        )
    return FluencyJudge(str(folder), name=f"GPT-2 trained on the train split ({EMBEDDED})")


def negative_log_likelihood(model: Any, ids: Sequence[Sequence[int]], begin: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token, with ``begin`` prepended to every row.

    Args:
        model: gives logits for ``input_ids`` and ``attention_mask``.
        ids: rows of token ids, at least one row; an empty row has no tokens.
        begin: the id of the begin token.

    Returns:
        ``(nll_BT, mask_BT)``, T the longest row: nats, and 1 where there is a token, 0 where there is padding.
    """
    device = model.device
    lengths_B = torch.tensor([len(row) for row in ids], device=device)
    tokens_BT = torch.full((len(ids), int(lengths_B.max()) + 1), begin, device=device)
    for row, values in enumerate(ids):
        tokens_BT[row, 1 : len(values) + 1] = torch.tensor(values, dtype=torch.long)
    mask_BT = (torch.arange(tokens_BT.shape[1], device=device) <= lengths_B[:, None]).long()
    logits_BTV = model(input_ids=tokens_BT, attention_mask=mask_BT).logits[:, :-1]
    targets_BT = tokens_BT[:, 1:]
    # Flat: over a vocabulary in the middle dimension cross_entropy takes several times as long.
    nll_N = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    return nll_N.view(targets_BT.shape), mask_BT[:, 1:]
