"""Style judges of an evaluation: P(toxic) of each text, from an embedded model or from a sequence classifier.

They only score. The gate, which decides what is kept while comments are rewritten, is ``jobs.judges.gate``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from jobs.judges.loading import EMBEDDED, JudgeError, length_batches, load_pretrained, map_batches, package_identity
from jobs.metrics import Values

TOXIC_LABEL = "toxic"
FIELD = "judges.style"
_TOKENS_IN_BATCH = 2048

logger = logging.getLogger(__name__)


class StyleJudge(Protocol):
    """Gives P(toxic); 0 for a blank text, which offends nobody."""

    name: str
    identity: str

    def toxicity(self, texts: Sequence[str]) -> Values:
        """P(toxic) of each text, shape (texts,)."""


def load_style(name: str) -> StyleJudge:
    """The judge that a spec names.

    Raises:
        JudgeError: it can't be used.
    """
    return EmbeddedStyle() if name == EMBEDDED else ClassifierStyle(name)


class EmbeddedStyle:
    """P(offensive) of alt-profanity-check: a linear model on TF-IDF of words, in its package."""

    name = f"alt-profanity-check ({EMBEDDED})"

    def __init__(self) -> None:
        """Load the package's model.

        Raises:
            JudgeError: the package is not installed.
        """
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                from profanity_check import predict_prob
        except ImportError as error:
            raise JudgeError(
                f"{FIELD} = {EMBEDDED}: alt-profanity-check is not installed; install distox[embedded], or name a "
                "hub model as unitary/toxic-bert"
            ) from error
        # scikit-learn warns when the model was written by another version of itself; its scores are pinned by a test.
        for warning in caught:
            logger.warning("style judge: %s", str(warning.message).partition("\n")[0])
        self._predict = predict_prob
        self.identity = package_identity("alt-profanity-check")

    def toxicity(self, texts: Sequence[str]) -> Values:
        """P(offensive) of each text, shape (texts,)."""
        scores = np.zeros(len(texts))
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            scores[rows] = self._predict([texts[row] for row in rows])
        return scores


class ClassifierStyle:
    """The sigmoid of the logit labelled ``toxic`` of a sequence classifier, as unitary/toxic-bert.

    Such classifiers are multi-label: the labels don't exclude one another, and a softmax over them nearly inverts the
    score (a very toxic text is shared out among its labels, a clean one is spread evenly).
    """

    def __init__(self, name: str) -> None:
        """Load the classifier.

        Raises:
            JudgeError: it can't be loaded, has no such label, or its labels exclude one another.
        """
        loaded = load_pretrained(FIELD, name, AutoModelForSequenceClassification)
        self.name, self.identity = name, loaded.identity
        self._loaded = loaded
        config = loaded.model.config
        labels = {str(label): int(index) for index, label in config.id2label.items()}
        found = [index for label, index in labels.items() if label.lower() == TOXIC_LABEL]
        if not found:
            raise JudgeError(
                f"{FIELD} = {name!r} has no label {TOXIC_LABEL!r}; its labels are {', '.join(labels)}; name a "
                "classifier that has it, as unitary/toxic-bert"
            )
        if config.problem_type == "single_label_classification":
            raise JudgeError(
                f"{FIELD} = {name!r} is a single-label classifier, whose {TOXIC_LABEL!r} logit means nothing by "
                "itself; name a multi-label one, as unitary/toxic-bert"
            )
        if config.problem_type is None and len(labels) > 1:
            logger.warning("style judge %s doesn't say that it is multi-label; its sigmoid may be uncalibrated", name)
        self._index = found[0]

    def toxicity(self, texts: Sequence[str]) -> Values:
        """P(toxic) of each text, shape (texts,); a text longer than the model takes is judged by its beginning."""
        scores = np.zeros(len(texts))
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if not rows:
            return scores
        encoded = self._loaded.tokenizer(
            [texts[row] for row in rows], truncation=True, max_length=self._loaded.max_tokens
        )

        def probabilities(batch: list[int]) -> Values:
            columns = {key: [values[item] for item in batch] for key, values in encoded.items()}
            padded = self._loaded.tokenizer.pad(columns, return_tensors="pt").to(self._loaded.model.device)
            with torch.inference_mode():
                logits_BL = self._loaded.model(**padded).logits
                return np.asarray(torch.sigmoid(logits_BL[:, self._index].double()).cpu())

        batches = list(length_batches([len(ids) for ids in encoded.input_ids], _TOKENS_IN_BATCH))
        for batch, values in zip(batches, map_batches(probabilities, batches), strict=True):
            scores[[rows[item] for item in batch]] = values
        return scores
