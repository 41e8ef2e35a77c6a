"""The synthetic corpus: pairs of a rude comment and its neutral rewrites, and a comment dump, deterministic in a seed.

Guarantee: the same size and seed give the same bytes on every machine; sources are distinct; a combination of pattern,
insult and topic is in train or in test, never in both. Some sources are not rude and stay as they are, in train and
validation only: without them a model never learns to leave a comment alone. Needs no model and no network.
"""

from __future__ import annotations

import csv
import json
import random
import string
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from configs.schema.data import SampleSize
from jobs.grammar import CLEAN, INSULT_SLOTS, OPENERS, PATTERNS, SLOTS, TAILS, TOPIC_SLOTS, Pattern

SOURCE_COLUMN, TARGET_COLUMN, SPLIT_COLUMN = "toxic", "neutral", "split"
DUMP_COLUMNS = ("id", "author", "timestamp", "comment")
TEST_HUNDREDTHS, VALIDATION_HUNDREDTHS = 10, 5
"""Share of the combinations that only test, and only validation, has."""
TWO_REWRITES_SHARE = 0.5
"""Of the patterns that have a second rewrite, how many sources carry both."""
CLEAN_SHARE = 0.5
"""Of the dump's sentences, how many are not rude."""


@dataclass(frozen=True)
class Filled:
    """One pattern with its slots filled."""

    combination: str
    toxic: str
    neutral: tuple[str, ...]


def sample_rows(size: SampleSize | None = None) -> Iterator[dict[str, str]]:
    """The pairs as rows of ``toxic``, ``neutral`` and ``split``; a source with two rewrites makes two rows."""
    size = size or SampleSize()
    chance = random.Random(size.seed)  # noqa: S311 (made-up text, no secret)
    seen: set[str] = set()
    while len(seen) < size.num_pairs:
        filled = fill(chance.choice(PATTERNS), chance)
        if filled.toxic in seen:
            continue
        seen.add(filled.toxic)
        both = chance.random() < TWO_REWRITES_SHARE
        for neutral in filled.neutral if both else filled.neutral[:1]:
            yield {SOURCE_COLUMN: filled.toxic, TARGET_COLUMN: neutral, SPLIT_COLUMN: split_of(filled.combination)}
    while len(seen) < size.num_pairs + round(size.num_pairs * size.clean_share):
        clean = fill_clean(chance)
        if clean.toxic in seen or split_of(clean.combination) == "test":
            continue
        seen.add(clean.toxic)
        yield {SOURCE_COLUMN: clean.toxic, TARGET_COLUMN: clean.toxic, SPLIT_COLUMN: split_of(clean.combination)}


def fill(pattern: Pattern, chance: random.Random) -> Filled:
    """Fill the slots, the same on both sides, and put the same opener, tail and casing around both."""
    slots = {name: chance.choice(words) for name, words in SLOTS.items()}
    opener, tail = chance.choice(OPENERS), chance.choice(TAILS).format(**slots)
    capital, stop = chance.random() < 0.5, chance.choice((".", "!", "", ""))
    sides = [
        _finish(opener + side.format(**slots), tail, capital=capital, stop=stop)
        for side in (pattern.toxic, *pattern.neutral)
    ]
    insult = next((slots[name] for name in INSULT_SLOTS if name in _slots_of(pattern)), "")
    topic = next((slots[name] for name in TOPIC_SLOTS if name in _slots_of(pattern)), "")
    return Filled(f"{pattern.name}/{insult}/{topic}", sides[0], tuple(sides[1:]))


def fill_clean(chance: random.Random) -> Filled:
    """A comment that is not rude: both sides are the same."""
    pattern = chance.choice(CLEAN)
    slots = {name: chance.choice(words) for name, words in SLOTS.items()}
    topic = next(slots[name] for name in TOPIC_SLOTS if f"{{{name}}}" in pattern)
    text = _finish(pattern.format(**slots), "", capital=chance.random() < 0.5, stop=chance.choice((".", "")))
    return Filled(f"{pattern}/{topic}", text, (text,))


def split_of(combination: str) -> str:
    """The split that a combination belongs to, by a checksum that is the same on every machine."""
    bucket = zlib.crc32(combination.encode()) % 100
    if bucket < TEST_HUNDREDTHS:
        return "test"
    return "validation" if bucket < TEST_HUNDREDTHS + VALIDATION_HUNDREDTHS else "train"


def dump_rows(size: SampleSize) -> Iterator[dict[str, str]]:
    """A comment dump: half rude, half not, all from combinations that train never saw, some of several sentences.

    A few comments hold commas, quotes and line breaks, a few repeat another, and one in 500 is empty.
    """
    chance = random.Random(size.seed + 1)  # noqa: S311
    moment = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
    comments: list[str] = []
    for number in range(size.num_dump_rows):
        moment += timedelta(seconds=chance.randint(5, 900))
        repeated = bool(comments) and chance.random() < 0.02
        comment = chance.choice(comments) if repeated else _dump_comment(number, chance)
        comments.append(comment)
        author = f"user{chance.randint(1, max(2, size.num_dump_rows // 4))}"
        yield dict(zip(DUMP_COLUMNS, (str(100_000 + number), author, moment.isoformat(), comment), strict=True))


def write_dump(size: SampleSize, folder: Path) -> Path:
    """Write ``dump.csv`` and its twin ``dump.jsonl`` with the same rows, and return the CSV file."""
    file = folder / "dump.csv"
    rows = list(dump_rows(size))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, DUMP_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with (folder / "dump.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return file


def _dump_comment(number: int, chance: random.Random) -> str:
    if number % 500 == 499:
        return ""
    sentences = [_sentence(chance) for _ in range(chance.choice((1, 1, 1, 1, 2, 3)))]
    if len(sentences) > 1:
        sentences = [text if text[-1] in ".!?" else f"{text}." for text in sentences]
    joint = "\n" if chance.random() < 0.15 else " "
    text = joint.join(sentences)
    return f'"{text}"' if chance.random() < 0.02 else text


def _sentence(chance: random.Random) -> str:
    is_clean = chance.random() < CLEAN_SHARE
    while True:
        filled = fill_clean(chance) if is_clean else fill(chance.choice(PATTERNS), chance)
        if split_of(filled.combination) != "train":
            return filled.toxic


def _finish(text: str, tail: str, *, capital: bool, stop: str) -> str:
    """Add the tail and the closing mark (a question keeps its own), and the capital."""
    is_question = text.endswith("?")
    text = text.rstrip("?") + tail + ("?" if is_question else stop)
    return text[0].upper() + text[1:] if capital else text


def _slots_of(pattern: Pattern) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(pattern.toxic) if name}
