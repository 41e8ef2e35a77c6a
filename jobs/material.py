"""What a training is made of: models, loaded and checked against one another, and rows of tokens.

The teacher is loaded whole and before the student. Knows nothing about steps or ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from transformers import set_seed

from configs.schema.data import Dataset
from configs.schema.models import ModelSource, StudentSource
from configs.schema.training import Training
from jobs.collation import EncodedPairs, VocabularyMismatch, check_vocabularies, encode_pairs
from jobs.data import DataError, PairSplits, load_pairs
from jobs.models import LoadedModel, load_model
from jobs.shrinking import shrink


@dataclass(frozen=True)
class Material:
    """Everything a training is made of, loaded and checked."""

    student: LoadedModel
    teacher: LoadedModel | None
    train: EncodedPairs
    validation: EncodedPairs
    prefix: str
    splits: PairSplits = field(default_factory=partial(PairSplits, (), (), ()))
    max_length: int | None = None
    """At which texts were cut."""


def load_material(
    dataset: Dataset, source: ModelSource, training: Training, *, teacher_source: ModelSource | None = None
) -> Material:
    """Load and tokenize, the teacher whole and before the student. Sets all seeds.

    Raises:
        ValueError: nothing to train on, a model that can't be had, or two vocabularies.
    """
    splits = load_pairs(dataset)
    if not splits.train:
        raise DataError(f"dataset {dataset.name!r} has no row to train on; lower split.test or validation")
    teacher = None if teacher_source is None else load_model(teacher_source)
    set_seed(training.seed)
    student = _load_student(source, teacher)
    if teacher is not None:
        _check_fit(student, teacher)
    encode = partial(
        encode_pairs,
        tokenizer=student.tokenizer,
        prefix=dataset.prefix,
        max_length=dataset.max_length,
        teacher_tokenizer=None if teacher is None else teacher.tokenizer,
    )
    train = encode(splits.train)
    validation = encode(splits.validation, first_number=len(train))
    if training.pad_to == "max_length":
        train, validation = (replace(rows, padded_to=dataset.max_length) for rows in (train, validation))
    return Material(student, teacher, train, validation, dataset.prefix, splits, dataset.max_length)


def _load_student(source: ModelSource, teacher: LoadedModel | None) -> LoadedModel:
    if isinstance(source, StudentSource) and source.from_teacher is not None:
        assert teacher is not None, "only distill has a student"
        return shrink(teacher, source.from_teacher)
    return load_model(source)


def _check_fit(student: LoadedModel, teacher: LoadedModel) -> None:
    check_vocabularies(student.tokenizer, teacher.tokenizer)
    ours, theirs = student.model.config.vocab_size, teacher.model.config.vocab_size
    if ours != theirs:
        raise VocabularyMismatch(
            f"the teacher has {theirs} embedding rows and the student {ours}; set student_model.init.vocab_size to "
            f"{theirs}, or name a student of that size"
        )
