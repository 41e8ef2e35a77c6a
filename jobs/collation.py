"""Turns pairs into token rows once, and token rows into padded batches.

The source is tokenized with the prefix, by the student's and by the teacher's tokenizer independently; the two
vocabularies must be equal. A batch is padded to its longest row, rounded up to a multiple of 8; to the maximum only
when asked to, as the published recipe does. Labels are -100 where padded.

A batch is a dictionary: ``input_ids_s, attention_mask_s, labels_s``, the same three with ``_t`` where there is a
teacher, and ``rows``, the rows' numbers (by which a teacher's states can be kept). Never logs text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from jobs.data import Pair
from jobs.losses import IGNORED_LABEL

PAD_MULTIPLE = 8
"""Lengths are rounded up to this: the tile width of matrix units, and few distinct shapes."""

Batch = dict[str, torch.Tensor]


class VocabularyMismatch(ValueError):  # noqa: N818 (named for what is wrong, as ValueErrors here are)
    """Teacher and student don't share one vocabulary, so that their distributions can't be compared."""


@dataclass(frozen=True)
class TokenRow:
    """One source and one of its targets; the end token closes both, padding is not in them."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def length(self) -> int:
        """What rows are grouped by: source plus target."""
        return len(self.input_ids) + len(self.labels)


@dataclass(frozen=True)
class EncodedPairs:
    """Every (source, target) of a split as token rows; ``teacher`` lies beside ``student``, or is empty."""

    student: tuple[TokenRow, ...]
    teacher: tuple[TokenRow, ...] = ()
    first_number: int = 0
    """The number of the first row: a teacher keeps states by number, so two splits must not share any."""
    padded_to: int | None = None
    """The length of every batch in tokens; that of its longest row when None."""

    def __len__(self) -> int:
        return len(self.student)


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    prefix: str,
    max_length: int,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    first_number: int = 0,
) -> EncodedPairs:
    """Tokenize pairs; a source with k targets becomes k rows. Longer texts are cut at ``max_length`` tokens.

    Raises:
        VocabularyMismatch: the tokenizers differ in vocabulary, or cut a target differently.
    """
    if teacher_tokenizer is None:
        return EncodedPairs(_encode(pairs, tokenizer, prefix, max_length), first_number=first_number)
    check_vocabularies(tokenizer, teacher_tokenizer)
    student = _encode(pairs, tokenizer, prefix, max_length)
    teacher = _encode(pairs, teacher_tokenizer, prefix, max_length)
    for number, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        if ours.labels != theirs.labels:
            raise VocabularyMismatch(
                f"row {number}: teacher and student tokenizer share a vocabulary but cut the target into different "
                "tokens; give the student the teacher's tokenizer (student_model.tokenizer)"
            )
    return EncodedPairs(student, teacher, first_number)


def check_vocabularies(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Raise unless both map the same tokens to the same ids.

    Raises:
        VocabularyMismatch: names the first token, by id, in which they differ.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return
    different = (set(ours.items()) ^ set(theirs.items())) or set()
    token = min(different, key=lambda item: (item[1], item[0]))[0]
    raise VocabularyMismatch(
        f"teacher and student have different vocabularies: token {token!r} is {_named(theirs.get(token))} for the "
        f"teacher and {_named(ours.get(token))} for the student; give the student the teacher's tokenizer "
        "(student_model.tokenizer)"
    )


def _named(number: int | None) -> str:
    return "unknown" if number is None else f"id {number}"


def collate(rows: Sequence[int], pairs: EncodedPairs) -> Batch:
    """Pad the numbered rows into one batch. No rows give one row of padding that counts nowhere."""
    batch = pad([pairs.student[row] for row in rows], suffix="_s", length=pairs.padded_to)
    if pairs.teacher:
        batch |= pad([pairs.teacher[row] for row in rows], suffix="_t", length=pairs.padded_to)
    batch["rows"] = torch.tensor([pairs.first_number + row for row in rows], dtype=torch.long)
    return batch


def pad(rows: Sequence[TokenRow], *, suffix: str, length: int | None = None) -> Batch:
    """The three tensors of one side, of the longest row's length, or of ``length``; pad id is 0, as in every T5.

    No rows still give a batch, so that a rank with nothing to do takes part in every collective.
    """
    count = max(1, len(rows))
    length_S = length or _round_up(max((len(row.input_ids) for row in rows), default=1))
    length_L = length or _round_up(max((len(row.labels) for row in rows), default=1))
    input_ids = torch.zeros(count, length_S, dtype=torch.long)
    attention_mask = torch.zeros(count, length_S, dtype=torch.long)
    labels = torch.full((count, length_L), IGNORED_LABEL, dtype=torch.long)
    if not rows:
        attention_mask[0, 0] = 1
    for index, row in enumerate(rows):
        input_ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
        attention_mask[index, : len(row.input_ids)] = 1
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
    return {f"input_ids{suffix}": input_ids, f"attention_mask{suffix}": attention_mask, f"labels{suffix}": labels}


def _encode(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, prefix: str, max_length: int
) -> tuple[TokenRow, ...]:
    if not pairs:
        return ()
    sources = tokenizer([prefix + pair.source for pair in pairs], truncation=True, max_length=max_length)
    targets = tokenizer([target for pair in pairs for target in pair.targets], truncation=True, max_length=max_length)
    ids = iter(targets["input_ids"])
    return tuple(
        TokenRow(tuple(source), tuple(next(ids)))
        for source, pair in zip(sources["input_ids"], pairs, strict=True)
        for _ in pair.targets
    )


def _round_up(length: int) -> int:
    return -(-length // PAD_MULTIPLE) * PAD_MULTIPLE
