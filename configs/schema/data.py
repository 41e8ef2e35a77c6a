"""Datasets: where pairs come from, how they are split, and how text is given to the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from pydantic_core import InitErrorDetails

from configs.schema.base import Model, NameOrPath, NonNegativeInt, PositiveInt, Share, Texts, broken

SAMPLE = "sample"
"""The dataset name that means: the synthetic corpus that distox writes itself (``jobs.sample``)."""

RECIPE_PREFIX = "detoxify: "
RECIPE_MAX_LENGTH = 96
"""How the recipe gives text to a model."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
ColumnName = Annotated[str, Field(min_length=1)]


class Split(Model):
    """Train and test shares, drawn by distinct source text, or the column that already says it.

    Several rewrites of one comment never straddle the split.
    """

    train: Share = 0.9
    """Share of the distinct sources to train on."""
    test: Share = 0.1
    """Share of the distinct sources to test on; what neither share takes is left out."""
    seed: NonNegativeInt = 42
    """Decides, with the texts, which source goes where."""
    column: Annotated[ColumnName | None, Field(examples=["split"])] = None
    """A column whose values are ``train``, ``validation`` and ``test``: a ready split, taken as it is."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """The shares fit into the whole."""
        total = self.train + self.test
        if total > 1 + 1e-9:
            yield broken(
                "train",
                self.train,
                f"with test {self.test:g} it is {total:g} of the data",
                "make them sum to at most 1",
            )


class Dataset(Model):
    """Pairs of a toxic source and its neutral target."""

    name: Annotated[
        NameOrPath, Field(examples=["ScaDSAI/ParaDeHate", "./pairs.csv", "sample", "${steps.data.dataset}"])
    ]
    """A hub name (``ScaDSAI/ParaDeHate``), a CSV, TSV, JSONL or Parquet file, a prepared folder, ``sample``, or a
    reference such as ``${steps.data.dataset}``."""
    source_column: Annotated[ColumnName, Field(examples=["toxic"])] = "Original Text"
    """The column of the comments; a prepared folder needs none."""
    target_column: Annotated[
        ColumnName | Annotated[Texts, Field(min_length=1)], Field(examples=["neutral", ["neutral1", "neutral2"]])
    ] = "Converted Text"
    """One column, or several when a comment has several rewrites; empty cells are skipped."""
    split: Split = Split()
    """What is trained and what is tested on; a prepared folder is split already."""
    validation: Fraction = 0.05
    """Share of train that is taken out of it for early stopping, thresholds and gates; 0 for none."""
    prefix: Annotated[str, Field(examples=["detoxify: ", ""])] = RECIPE_PREFIX
    """Put before every source, in training and in use alike."""
    max_length: Annotated[int, Field(ge=8, le=4096)] = RECIPE_MAX_LENGTH
    """Longest source or target in tokens, the end token included."""
    limit: PositiveInt | None = None
    """Use only this many distinct sources, drawn with the split's seed; all when left out."""


class SampleSize(Model):
    """How much of the synthetic corpus ``prepare`` writes."""

    num_pairs: Annotated[int, Field(ge=100, le=200_000)] = 6000
    """Distinct pairs, train and test together."""
    clean_share: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Comments beside them that are not rude and stay as they are, as a share of ``num_pairs``; none in test."""
    num_dump_rows: Annotated[int, Field(ge=1)] = 2000
    """Rows of the comment dump."""
    seed: NonNegativeInt = 42
    """The same seed writes the same corpus."""


class TokenizerTraining(Model):
    """A byte-pair tokenizer with byte fallback, trained on both sides of the train split."""

    vocab_size: Annotated[int, Field(ge=356, le=128_000)] = 8000
    """Pieces at most, the special tokens and the 256 bytes included."""


class JudgeTraining(Model):
    """The judges that need no hub, fitted on the train split only."""

    fluency_steps: Annotated[int, Field(ge=1)] = 300
    """Optimizer steps of the small GPT-2 that scores fluency."""
    fluency_hidden_size: Annotated[int, Field(ge=32)] = 128
    """Its width."""
    fluency_layers: Annotated[int, Field(ge=1)] = 2
    """Its blocks."""
