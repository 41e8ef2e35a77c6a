"""A generator for a toy model, as the tests of both engines load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.models import ModelSource
from jobs.generation import Generator, load_generator
from tests.jobs import toy

EngineName = Literal["ctranslate2", "transformers"]
ENGINES: tuple[EngineName, ...] = ("ctranslate2", "transformers")
both_engines = pytest.mark.parametrize("engine", ENGINES)


def load(
    folder: Path,
    engine: EngineName = "ctranslate2",
    *,
    blocklist: Sequence[str] = (),
    max_length: int = 48,
    batch_size: int = 32,
    compute_type: Any = "auto",
    **decoding: Any,
) -> Generator:
    return load_generator(
        ModelSource(name=str(folder)),
        prefix=toy.PREFIX,
        max_length=max_length,
        decoding=Decoding(**({"max_new_tokens": 32} | decoding)),
        safety=Safety(blocklist=tuple(blocklist)),
        engine=Engine(name=engine, batch_size=batch_size, compute_type=compute_type),
        num_threads=1,
    )
