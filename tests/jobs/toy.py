"""A T5 small enough to be trained inside a test, on words that it learns to copy or to reverse."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

WORDS = ("you", "are", "a", "very", "silly", "goose", "and", "this", "plan", "is", "rather", "bad", "go", "home", "now")
PREFIX = "detoxify: "
PHRASE_PIECES = ("▁Click", "▁here", "▁click", "▁Visit", "Visit", "▁visit", "▁Read", "▁more")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?()'-/\"▁"


def make_tokenizer() -> T5Tokenizer:
    """Every toy word and some parts of blocked phrases are one piece; all else is spelled in letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁" + word, -3.0) for word in ("detoxify:", *WORDS) if word != "a"] + [("▁a", -3.0)]
    pieces += [(piece, -4.0) for piece in PHRASE_PIECES]
    pieces += [(letter, -8.0) for letter in LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def make_model(tokenizer: Any, *, seed: int = 0, **changes: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": 48,
        "d_kv": 12,
        "d_ff": 96,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }
    model: Any = T5ForConditionalGeneration(T5Config(**(settings | changes)))
    return cast(T5ForConditionalGeneration, model.eval())


def train(
    model: Any,
    tokenizer: Any,
    pairs: Callable[[random.Random], tuple[str, str]],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 5e-3,
) -> float:
    """Fit ``model`` to pairs drawn on the fly; returns the last loss."""
    generator = random.Random(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    model.train()
    loss = torch.tensor(0.0)
    for _ in range(steps):
        drawn = [pairs(generator) for _ in range(batch_size)]
        batch = tokenizer([PREFIX + source for source, _ in drawn], padding=True, return_tensors="pt")
        labels = tokenizer([target for _, target in drawn], padding=True, return_tensors="pt").input_ids
        loss = model(**batch, labels=labels.masked_fill(labels == 0, -100)).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    return float(loss.detach())


def draw_words(generator: random.Random, *, most: int = 6) -> list[str]:
    return generator.choices(WORDS, k=generator.randint(1, most))


def copy_pair(generator: random.Random) -> tuple[str, str]:
    text = " ".join(draw_words(generator))
    return text, text


def save(model: T5ForConditionalGeneration, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentences(count: int, *, seed: int = 7) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(draw_words(generator)) for _ in range(count)]
