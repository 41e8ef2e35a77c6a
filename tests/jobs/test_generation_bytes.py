"""Tokenizers with pieces for single bytes, on both engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.generation import BROKEN, CUT_OFF, Generated
from jobs.models import load_tokenizer
from jobs.tokenization import train_tokenizer
from tests.jobs import toy
from tests.jobs.generating import EngineName, both_engines, load


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@both_engines
def test_a_tokenizer_with_byte_pieces_blocks_counts_and_decodes(tmp_path: Path, engine: EngineName) -> None:
    lines = [toy.PREFIX + text for text in toy.sentences(200)] + ["Click here to Visit us"] * 5
    train_tokenizer(lines, vocab_size=400, folder=tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    model = toy.make_model(tokenizer, seed=4)
    targets = ("you 😀 are", "Click here 😀", "now Visit")
    toy.train(model, tokenizer, lambda generator: ("you", generator.choice(targets)), steps=60, batch_size=16)
    folder = toy.save(model, tokenizer, tmp_path / "model")
    options: dict[str, Any] = {"num_beams": 2, "no_repeat_ngram_size": 0}
    assert load(folder, engine, **options).generate(["you"])[0] in targets
    output = load(folder, engine, blocklist=("click here", "visit", "you 😀"), **options).decode(["you"])[0]
    assert not re.search(r"click\s+here|visit|you\s+😀", output.text.lower())
    assert load(folder, engine, **options).count_tokens("😀") >= 5


@both_engines
def test_bytes_that_make_no_character_are_marked(tmp_path: Path, engine: EngineName) -> None:
    train_tokenizer([toy.PREFIX + text for text in toy.sentences(200)], vocab_size=400, folder=tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    model = toy.make_model(tokenizer, seed=4)
    toy.train(model, tokenizer, lambda _: ("you", "😀😀"), steps=40, batch_size=8)
    folder = toy.save(model, tokenizer, tmp_path / "model")
    assert load(folder, engine, no_repeat_ngram_size=0).decode(["you"]) == [Generated("😀😀")]
    # The second emoji would repeat three bytes of the first: what is written instead is whole, or marked.
    output = load(folder, engine, no_repeat_ngram_size=3).decode(["you"])[0]
    assert output.flaw in {BROKEN, CUT_OFF} or output.text == "😀"
