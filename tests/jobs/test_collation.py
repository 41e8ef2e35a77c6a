"""Token rows, padding, and the check that teacher and student speak one vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from jobs.collation import (
    EncodedPairs,
    TokenRow,
    VocabularyMismatch,
    check_vocabularies,
    collate,
    encode_pairs,
    pad,
)
from jobs.data import Pair
from jobs.losses import IGNORED_LABEL
from jobs.models import load_tokenizer
from tests.jobs.tiny import PREFIX, make_tokenizer

PAIRS = (
    Pair("he likes a stupid plan", ("he likes a plan",)),
    Pair("she sees the damn road", ("she sees the road", "she sees a road")),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(make_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def test_the_source_carries_the_prefix_and_both_sides_the_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = encode_pairs(PAIRS[:1], tokenizer, prefix=PREFIX, max_length=16).student
    assert tokenizer.decode(list(rows[0].input_ids)) == "detoxify: he likes a stupid plan</s>"
    assert tokenizer.decode(list(rows[0].labels)) == "he likes a plan</s>"


def test_a_source_with_two_targets_makes_two_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = encode_pairs(PAIRS, tokenizer, prefix=PREFIX, max_length=16).student
    assert len(rows) == 3
    assert rows[1].input_ids == rows[2].input_ids
    assert rows[1].labels != rows[2].labels


def test_a_long_text_is_cut_and_still_closed(tokenizer: PreTrainedTokenizerBase) -> None:
    long = Pair("he " * 50, ("she " * 50,))
    row = encode_pairs([long], tokenizer, prefix=PREFIX, max_length=8).student[0]
    assert (len(row.input_ids), len(row.labels)) == (8, 8)
    assert row.input_ids[-1] == row.labels[-1] == tokenizer.eos_token_id


def test_no_pairs_make_no_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(encode_pairs((), tokenizer, prefix=PREFIX, max_length=8)) == 0


def test_a_batch_is_padded_to_its_longest_row_and_a_multiple_of_eight() -> None:
    rows = (TokenRow((5, 6, 1), (7, 1)), TokenRow(tuple(range(2, 11)), (1,)))
    batch = pad(rows, suffix="_s")
    assert batch["input_ids_s"].shape == (2, 16)
    assert batch["labels_s"].shape == (2, 8)
    assert batch["attention_mask_s"].sum(dim=1).tolist() == [3, 9]
    assert batch["input_ids_s"][0].tolist() == [5, 6, 1] + [0] * 13
    assert batch["labels_s"][0].tolist() == [7, 1] + [IGNORED_LABEL] * 6


def test_a_batch_is_padded_to_the_maximum_where_that_was_asked_for() -> None:
    rows = (TokenRow((5, 1), (7, 1)),)
    batch = collate([0], EncodedPairs(rows, rows, padded_to=96))
    assert batch["input_ids_s"].shape == batch["labels_t"].shape == (1, 96)


def test_a_batch_holds_both_sides_and_the_rows_numbers() -> None:
    rows = (TokenRow((5, 1), (7, 1)), TokenRow((6, 1), (8, 1)))
    batch = collate([1], EncodedPairs(rows, rows))
    assert set(batch) == {
        *("input_ids_s", "attention_mask_s", "labels_s", "input_ids_t", "attention_mask_t", "labels_t"),
        "rows",
    }
    assert torch.equal(batch["input_ids_s"], batch["input_ids_t"])
    assert batch["rows"].tolist() == [1]
    assert collate([1], EncodedPairs(rows, rows, first_number=7))["rows"].tolist() == [8]
    assert "input_ids_t" not in collate([1], EncodedPairs(rows))


def test_no_rows_make_a_batch_that_counts_nowhere() -> None:
    batch = collate([], EncodedPairs((TokenRow((5, 1), (7, 1)),)))
    assert batch["input_ids_s"].shape == (1, 8)
    assert (batch["labels_s"] == IGNORED_LABEL).all()
    assert batch["rows"].tolist() == []


def test_a_teacher_that_knows_another_token_is_refused_by_its_name(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    other = load_tokenizer(str(make_tokenizer(tmp_path, extra_words=("zeppelin",))))
    with pytest.raises(
        VocabularyMismatch, match=r"token '▁zeppelin' is id \d+ for the teacher and unknown for the stu"
    ):
        encode_pairs(PAIRS, tokenizer, prefix=PREFIX, max_length=16, teacher_tokenizer=other)
    with pytest.raises(VocabularyMismatch, match=r"is unknown for the teacher and id \d+ for the student"):
        check_vocabularies(other, tokenizer)


def test_an_equal_teacher_gives_equal_labels(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    other = load_tokenizer(str(make_tokenizer(tmp_path)))
    encoded = encode_pairs(PAIRS, tokenizer, prefix=PREFIX, max_length=16, teacher_tokenizer=other)
    assert encoded.student == encoded.teacher
