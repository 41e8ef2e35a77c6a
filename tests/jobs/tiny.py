"""Tiny real material for tests: a tokenizer of whole words, models of a few thousand weights, and pairs."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import T5Tokenizer

from configs.schema.data import Dataset
from configs.schema.models import Layers, ModelSource, Shape
from jobs.context import JobContext
from jobs.models import load_tokenizer, make_model

SUBJECTS = ("he", "she", "they", "the cat", "my neighbour", "this driver")
INSULTS = ("stupid", "damn", "ugly", "idiotic")
OBJECTS = ("a plan", "the house", "that idea", "an answer", "my lunch", "the road")
VERBS = ("likes", "takes", "forgets", "sees")
PREFIX = "detoxify: "


def words() -> list[str]:
    """Every word that the pairs hold, in a fixed order."""
    text = " ".join((*SUBJECTS, *INSULTS, *OBJECTS, *VERBS, PREFIX))
    return sorted(set(text.split()))


def make_tokenizer(folder: Path, *, extra_words: tuple[str, ...] = ()) -> Path:
    """Save a T5 tokenizer that knows exactly the words of the pairs, one token each."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -5.0)]
    pieces = [(f"▁{word}", -2.0) for word in (*words(), *extra_words)]
    T5Tokenizer(vocab=special + pieces, extra_ids=0).save_pretrained(folder)
    return folder


def tiny_shape(*, hidden_size: int = 16, vocab_size: int | None = None) -> Shape:
    return Shape(
        hidden_size=hidden_size,
        layers=Layers(encoder=1, decoder=1),
        ffn_size=2 * hidden_size,
        attention_heads=2,
        vocab_size=vocab_size,
    )


def make_model_folder(folder: Path, tokenizer: Path, *, seed: int = 1, hidden_size: int = 16) -> Path:
    """Save a tiny T5 with random weights, its tokenizer beside it."""
    torch.manual_seed(seed)
    loaded = load_tokenizer(str(tokenizer))
    make_model(tiny_shape(hidden_size=hidden_size), loaded).save_pretrained(folder)
    loaded.save_pretrained(folder)
    return folder


def tiny_source(tokenizer: Path, *, hidden_size: int = 16) -> ModelSource:
    """A model to be made on the spot."""
    return ModelSource(init=tiny_shape(hidden_size=hidden_size), tokenizer=str(tokenizer))


def write_pairs(path: Path, count: int, *, seed: int = 0) -> Path:
    """Write ``count`` distinct pairs as CSV with the columns ``toxic`` and ``neutral``; the insult is what differs."""
    chosen = random.Random(seed)
    every = [(s, i, v, o) for s in SUBJECTS for i in INSULTS for v in VERBS for o in OBJECTS]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["toxic", "neutral"])
        for subject, insult, verb, thing in chosen.sample(every, count):
            article, noun = thing.split()
            writer.writerow([f"{subject} {verb} {article} {insult} {noun}", f"{subject} {verb} {thing}"])
    return path


def tiny_dataset(path: Path, **changes: object) -> Dataset:
    values: dict[str, object] = {
        "name": str(path),
        "source_column": "toxic",
        "target_column": "neutral",
        "max_length": 16,
        **changes,
    }
    return Dataset.model_validate(values)


@dataclass
class Recorder:
    """Takes the reports of a job and can tell it to stop after some of them."""

    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    stop_after: int | None = None

    def report(self, figures: Mapping[str, float], step: int) -> None:
        self.points.append((step, dict(figures)))

    def should_stop(self) -> bool:
        return self.stop_after is not None and len(self.points) >= self.stop_after

    def steps(self, name: str) -> list[int]:
        """The steps at which a figure was reported."""
        return [step for step, figures in self.points if name in figures]

    def values(self, name: str) -> list[float]:
        """A figure's values, in the order of the reports."""
        return [figures[name] for _, figures in self.points if name in figures]

    def context(
        self, output: Path, *, checkpoints: Path | None = None, cache: Path | None = None, epoch: int = 1
    ) -> JobContext:
        output.mkdir(parents=True, exist_ok=True)
        return JobContext(output, self.report, self.should_stop, checkpoints=checkpoints, cache=cache, epoch=epoch)
