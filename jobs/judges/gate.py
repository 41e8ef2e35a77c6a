"""The gate judge: a linear model of words and word pairs that decides, during a rewrite, what is still rude.

It is fitted on the train split and never scores an evaluation (unless a spec allows it by name). Stored as JSON and
plain arrays: loading it executes nothing.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from jobs.data import Pair
from jobs.judges.loading import JudgeError, identity_of
from jobs.metrics import Values

FOLDER = "gate"
"""Where it lies in the folder of judges."""
TERMS_FILE, WEIGHTS_FILE = "gate.json", "gate.npz"
VERSION = 1
REGULARIZATION = 10.0
"""Inverse strength. TF-IDF rows have length 1, so weights must grow to tell anything."""
WORD = r"(?u)\b\w[\w'*@$]*"
"""Words of one letter too, and those that hide letters behind signs."""


class GateJudge:
    """TF-IDF and logistic regression; gives P(toxic)."""

    name = "TF-IDF and logistic regression, fitted on the train split"

    def __init__(self, vectorizer: Any, weights: Values, bias: float, *, identity: str = "") -> None:
        """Wrap a fitted vectorizer and the weights of its terms."""
        self._vectorizer, self._weights, self._bias = vectorizer, weights, bias
        self.identity = identity

    @classmethod
    def fit(cls, pairs: Sequence[Pair]) -> Self:
        """Fit on sources (toxic) and rewrites (not); a text that stands on both sides says nothing and is left out.

        Raises:
            JudgeError: no text, or no word, is left.
        """
        from sklearn.linear_model import LogisticRegression

        sources = {pair.source for pair in pairs}
        rewrites = {target for pair in pairs for target in pair.targets}
        toxic, neutral = sorted(sources - rewrites), sorted(rewrites - sources)
        if not toxic or not neutral:
            raise JudgeError("judges: every rewrite in train is a source too, so there is nothing to tell apart")
        vectorizer = _make_vectorizer()
        try:
            features = vectorizer.fit_transform([*toxic, *neutral])
        except ValueError as error:
            raise JudgeError("judges: the train split holds no words; check the dataset's columns") from error
        model = LogisticRegression(C=REGULARIZATION, class_weight="balanced", max_iter=1000)
        model.fit(features, [1] * len(toxic) + [0] * len(neutral))
        return cls(vectorizer, np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0]))

    def save(self, folder: Path) -> None:
        """Write the terms and the arrays."""
        folder.mkdir(parents=True, exist_ok=True)
        terms = sorted(self._vectorizer.vocabulary_, key=self._vectorizer.vocabulary_.__getitem__)
        text = json.dumps({"version": VERSION, "terms": terms}, ensure_ascii=False)
        (folder / TERMS_FILE).write_text(text + "\n", encoding="utf-8")
        np.savez(folder / WEIGHTS_FILE, idf=self._vectorizer.idf_, weights=self._weights, bias=np.float64(self._bias))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            JudgeError: it isn't there, or is broken.
        """
        try:
            data = json.loads((folder / TERMS_FILE).read_text(encoding="utf-8"))
            terms: list[str] = data["terms"]
            with (folder / WEIGHTS_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                idf, weights, bias = arrays["idf"], arrays["weights"], float(arrays["bias"])
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise JudgeError(f"gate judge {str(folder)!r} can't be read; prepare the judges again") from error
        if data.get("version") != VERSION or not len(terms) == len(idf) == len(weights):
            raise JudgeError(f"gate judge {str(folder)!r} is of another format; prepare the judges again")
        vectorizer = _make_vectorizer({term: index for index, term in enumerate(terms)})
        vectorizer.idf_ = idf
        return cls(vectorizer, weights, bias, identity=identity_of(str(folder)))

    def toxicity(self, texts: Sequence[str]) -> Values:
        """P(toxic) of each text, shape (texts,); 0 for a blank one."""
        if not texts:
            return np.zeros(0)
        logits = self._vectorizer.transform(texts) @ self._weights + self._bias
        blank = np.array([not text.strip() for text in texts])
        return np.where(blank, 0.0, 0.5 * (1 + np.tanh(logits / 2)))


def _make_vectorizer(vocabulary: dict[str, int] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD, vocabulary=vocabulary)
