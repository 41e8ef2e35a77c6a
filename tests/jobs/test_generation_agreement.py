"""Whether the two engines write the same in float32, with a trained model on 500 real comments it never saw.

Where ParaDetox isn't, the comments are those of the project's own sample.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from configs.schema.data import SampleSize
from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.models import ModelSource
from jobs.generation import load_generator
from jobs.models import load_tokenizer
from jobs.sample import sample_rows
from jobs.tokenization import train_tokenizer
from tests.jobs import toy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PARADETOX = Path(__file__).parents[3] / "shared" / "data" / "paradetox.tsv"
NUM_SOURCES = 500
STEPS = 300


def read_pairs() -> list[tuple[str, str]]:
    if not PARADETOX.is_file():
        return [(row["toxic"], row["neutral"]) for row in sample_rows(SampleSize(num_pairs=4000))]
    with PARADETOX.open(encoding="utf-8", newline="") as stream:
        return [(row["toxic"], row["neutral1"]) for row in csv.DictReader(stream, delimiter="\t")]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    """Those of the first 500 are for asking, the others for training."""
    found = list({source: (source, target) for source, target in read_pairs() if source and target}.values())
    random.Random(11).shuffle(found)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> Path:
    """Trained for a short time, half on copies; it writes words of the source and common words."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    lessons = pairs[NUM_SOURCES:]
    texts = [toy.PREFIX + text for pair in lessons[:3000] for text in pair]
    train_tokenizer(texts, vocab_size=1000, folder=folder / "tokenizer")
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    made = toy.make_model(tokenizer, seed=1, d_model=96, d_kv=24, d_ff=192)

    def draw(generator: random.Random) -> tuple[str, str]:
        source, target = generator.choice(lessons)
        return source, source if generator.random() < 0.5 else target

    toy.train(made, tokenizer, draw, steps=STEPS, batch_size=24, learning_rate=3e-3)
    return toy.save(made, tokenizer, folder / "model")


def write(
    model: Path, engine: Literal["ctranslate2", "transformers"], texts: Sequence[str], **decoding: Any
) -> list[str]:
    generator = load_generator(
        ModelSource(name=str(model)),
        prefix=toy.PREFIX,
        max_length=96,
        decoding=Decoding(**({"max_new_tokens": 32} | decoding)),
        safety=Safety(),
        engine=Engine(name=engine),
        num_threads=1,
    )
    return generator.generate(texts)


@pytest.mark.parametrize("patience", [1.0, 2.0])
def test_both_engines_write_the_same_for_real_comments(
    model: Path, pairs: list[tuple[str, str]], patience: float
) -> None:
    sources = [source for source, _ in pairs[:NUM_SOURCES]]
    one = write(model, "ctranslate2", sources, patience=patience)
    other = write(model, "transformers", sources, patience=patience)
    same = sum(left == right for left, right in zip(one, other, strict=True))
    print(f"patience {patience}: {same} of {len(sources)} outputs are the same in both engines")
    assert len(sources) == NUM_SOURCES
    assert len(set(one)) > 0.5 * NUM_SOURCES, "the outputs depend on the inputs"
    assert same >= 0.99 * NUM_SOURCES
