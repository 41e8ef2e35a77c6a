"""Datasets: where pairs come from, how they are split, and how text is given to the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
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


class ExtraPairs(Model):
    """More pairs to train on, as what a teacher wrote for comments that nobody has rewritten by hand.

    They join the train split alone, and whole: ``limit`` doesn't count them. Comments that stand in validation or test
    are left out, compared without casing, spacing and punctuation; of a comment that comes several times the first row
    counts. How many rows that were is told among the figures of the run that trains.
    """

    name: Annotated[NameOrPath, Field(examples=["${steps.augment.rows}", "./more.csv"])]
    """The rows of a ``detoxify`` run (``${steps.augment.rows}``), a file, a prepared folder (of which train is taken),
    or a hub name."""
    source_column: Annotated[ColumnName | None, Field(examples=["comment"])] = None
    """The column of the comments; when left out the one that ``detoxify`` rewrote, or in another file the dataset's."""
    target_column: Annotated[
        ColumnName | Annotated[Texts, Field(min_length=1)] | None, Field(examples=["detoxified", ["first", "second"]])
    ] = None
    """One column, or several; when left out all that ``detoxify`` added, or in another file the dataset's. Rows that
    ``detoxify`` flagged or quarantined are left out."""
    known_sources: Literal["skip", "add", "replace"] = "skip"
    """For a comment that train has too. skip: it keeps its own targets; add: it gets these as well; replace: it has
    these instead."""


def _long_form(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


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
    """Use only this many distinct sources, drawn with the split's seed; all when left out. It is drawn before a file
    without a split column is split: train and evaluate such a file with the same limit."""
    extra: Annotated[
        ExtraPairs | None,
        BeforeValidator(_long_form, json_schema_input_type=ExtraPairs | str | None),
        Field(examples=["${steps.augment.rows}", {"name": "./more.csv", "source_column": "toxic"}]),
    ] = None
    """More pairs for the train split: the name alone, or with its columns."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """Nothing is added to itself."""
        if self.extra is not None and self.extra.name == self.name:
            yield broken("extra.name", self.name, "is the dataset itself", "name other pairs, or remove extra")


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
