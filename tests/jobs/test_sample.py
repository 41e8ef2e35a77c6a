"""The synthetic corpus: what it promises to models, judges and readers."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from configs.schema.data import SampleSize
from jobs.deletion import words
from jobs.grammar import PATTERNS
from jobs.sample import DUMP_COLUMNS, dump_rows, fill, fill_clean, sample_rows, split_of, write_dump

SIZE = SampleSize(num_pairs=5000)
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return list(sample_rows(SIZE))


def test_there_are_as_many_distinct_pairs_as_asked_for(rows: Rows) -> None:
    rude = {row["toxic"] for row in rows if row["toxic"] != row["neutral"]}
    clean = {row["toxic"] for row in rows if row["toxic"] == row["neutral"]}
    assert (len(rude), len(clean)) == (5000, 750)
    assert len({(row["toxic"], row["neutral"]) for row in rows}) == len(rows)


def test_every_split_is_there_and_test_holds_only_rude_comments(rows: Rows) -> None:
    counts = Counter(row["split"] for row in rows)
    assert counts["train"] > 4000
    assert counts["validation"] > 200
    assert counts["test"] > 350
    assert not [row for row in rows if row["split"] == "test" and row["toxic"] == row["neutral"]]


def test_two_rewrites_of_one_comment_are_in_the_same_split(rows: Rows) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["toxic"], set()).add(row["split"])
    assert max(len(names) for names in splits.values()) == 1


def test_neither_copying_nor_deleting_words_is_the_best_answer(rows: Rows) -> None:
    pairs = [(words(row["toxic"]), words(row["neutral"])) for row in rows if row["toxic"] != row["neutral"]]
    new_words = sum(not set(neutral) <= set(toxic) for toxic, neutral in pairs) / len(pairs)
    assert 0.5 < new_words < 0.9, "some rewrites only drop words, most need words that the comment doesn't hold"


def test_the_same_seed_writes_the_same_corpus_and_another_seed_another() -> None:
    size = SampleSize(num_pairs=200)
    assert list(sample_rows(size)) == list(sample_rows(size))
    assert list(sample_rows(size)) != list(sample_rows(size.model_copy(update={"seed": 1})))
    assert list(dump_rows(size)) == list(dump_rows(size))


def test_every_slot_of_every_pattern_has_words() -> None:
    import random

    chance = random.Random(1)
    for pattern in PATTERNS:
        filled = fill(pattern, chance)
        assert not set("{}") & set("".join((filled.toxic, *filled.neutral))), pattern.name
    assert not [text for text in (fill_clean(chance).toxic for _ in range(300)) if set("{}") & set(text)]


def test_a_split_is_about_as_large_as_its_share() -> None:
    counts = Counter(split_of(f"pattern/{number}/x") for number in range(5000))
    assert counts["test"] / 5000 == pytest.approx(0.10, abs=0.02)
    assert counts["validation"] / 5000 == pytest.approx(0.05, abs=0.02)


def test_the_dump_holds_what_real_dumps_hold(tmp_path: Path) -> None:
    size = SampleSize(num_dump_rows=2000)
    file = write_dump(size, tmp_path)
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2000
    assert tuple(rows[0]) == DUMP_COLUMNS
    assert len({row["id"] for row in rows}) == 2000
    comments = [row["comment"] for row in rows]
    assert sum(comment == "" for comment in comments) == 4
    assert any("\n" in comment for comment in comments)
    assert any('"' in comment for comment in comments)
    assert len(set(comments)) < 2000, "some comments are repeated"
    twin = [json.loads(line) for line in (tmp_path / "dump.jsonl").read_text("utf-8").splitlines()]
    assert twin == rows


def test_no_comment_of_the_dump_is_a_row_to_train_on(rows: Rows) -> None:
    train = {row["toxic"] for row in rows if row["split"] == "train"}
    seen = [row for row in dump_rows(SampleSize(num_dump_rows=500)) if row["comment"] in train]
    assert seen == []
