"""Models that several test files use, each trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.jobs import toy


@pytest.fixture(scope="session")
def copying_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy T5 that has learnt to copy most sentences of a few words; it has no record."""
    torch.set_num_threads(1)
    tokenizer = toy.make_tokenizer()
    model = toy.make_model(tokenizer)
    toy.train(model, tokenizer, toy.copy_pair, steps=300)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("copying"))
