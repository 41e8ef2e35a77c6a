"""Datasets: where pairs come from, how they are split, and how text is given to the model."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.schema.base import Model, NonNegativeInt, PositiveInt

SAMPLE = "sample"
"""The dataset name that means: the synthetic corpus that distox writes itself (``jobs.sample``)."""

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Split(Model):
    """Train and test shares, drawn by distinct source text, or the column that already says it.

    Several rewrites of one comment never straddle the split.
    """

    train: Annotated[float, Field(gt=0, lt=1)] = 0.9
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: NonNegativeInt = 42
    column: str | None = None
    """A column whose values are ``train``, ``validation`` and ``test``: a ready split, taken as it is."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.train + self.test > 1 + 1e-9:
            raise ValueError(f"train + test is {self.train + self.test:g}; make the shares sum to at most 1")
        return self


class Dataset(Model):
    """Pairs of a toxic source and its neutral target.

    ``name`` is a hub name (``ScaDSAI/ParaDeHate``), a local CSV, TSV, JSONL or Parquet file, a folder that a
    ``prepare`` run wrote, ``sample``, or a reference such as ``${steps.data.dataset}``.
    """

    name: Annotated[str, Field(min_length=1)]
    source_column: Annotated[str, Field(min_length=1)] = "Original Text"
    target_column: str | tuple[str, ...] = "Converted Text"
    """One column, or several when a comment has several rewrites; empty cells are skipped."""
    split: Split = Split()
    validation: Fraction = 0.05
    """Share of train that is taken out of it for early stopping, thresholds and gates; 0 for none."""
    prefix: str = "detoxify: "
    """Put before every source, in training and in use alike."""
    max_length: Annotated[int, Field(ge=8, le=4096)] = 96
    """Longest source or target in tokens, the end token included."""
    limit: PositiveInt | None = None
    """Use only this many distinct sources, drawn with the split's seed; all when left out."""


class SampleSize(Model):
    """How much of the synthetic corpus ``prepare`` writes."""

    num_pairs: Annotated[int, Field(ge=100)] = 6000
    num_dump_rows: Annotated[int, Field(ge=1)] = 2000
    seed: NonNegativeInt = 42


class TokenizerTraining(Model):
    """A byte-pair tokenizer with byte fallback, trained on both sides of the train split."""

    vocab_size: Annotated[int, Field(ge=200, le=128_000)] = 8000
    """Pieces, the special tokens included."""


class JudgeTraining(Model):
    """The judges that need no hub, fitted on the train split only."""

    fluency_steps: Annotated[int, Field(ge=1)] = 300
    """Optimizer steps of the small GPT-2 that scores fluency."""
    fluency_hidden_size: Annotated[int, Field(ge=32)] = 128
    fluency_layers: Annotated[int, Field(ge=1)] = 2
