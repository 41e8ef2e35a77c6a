"""The blocklist against models that write a blocked phrase in every row, each in another spelling and tokenization."""

from __future__ import annotations

import itertools
import random
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import T5Tokenizer

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.kinds import Export
from configs.schema.models import ModelSource
from jobs import export
from jobs.bundle.build import try_bundle
from jobs.context import JobContext
from jobs.generation import CENSORED, Generator, load_generator
from tests.jobs import toy

PHRASES = ("Click here", "Read more", "Visit")
HARMLESS = ("Visitor", "revisit", "Visitors", "Clickhere", "click hereby", "read moreover", "bread more", "visited")
"""They hold the letters of a phrase, and not the phrase."""
FRAGMENTS = ("Vi", "sit", "▁Vi", "▁vis", "it", "▁Cl", "ick", "▁cli", "ck", "▁he", "re", "▁Re", "ad", "▁mo", "or", "ors")
WIDE = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
LETTERS = string.ascii_uppercase + string.ascii_lowercase
SCRIPT = {char: chr(0x1D400 + index) for index, char in enumerate(LETTERS)}
EngineName = Literal["ctranslate2", "transformers"]
engines = pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])


def spellings(phrase: str) -> Iterator[str]:
    """The phrase as one would write it so that a plain search doesn't find it."""
    words = phrase.split()
    yield from (phrase, phrase.lower(), phrase.upper(), phrase.title(), phrase.swapcase())
    yield "".join(char.upper() if place % 2 else char.lower() for place, char in enumerate(phrase))
    yield "".join(WIDE.get(char, char) for char in phrase)
    yield "".join(SCRIPT.get(char, char) for char in phrase)
    yield "  ".join(words) + "!"
    yield "\u00a0".join(words) + "."
    yield "\u3000".join(words)
    yield "(" + phrase + ")"
    yield phrase[:2] + "\u200b" + phrase[2:]
    yield phrase[:3] + "\u00ad" + phrase[3:]
    yield "pre-" + phrase + "/"
    yield phrase.replace("i", "\u0131").replace("k", "\u212a").replace("R", "\uff32")


SPELLINGS = tuple(dict.fromkeys(text for phrase in PHRASES for text in spellings(phrase)))


def holds_a_phrase(text: str, phrases: Sequence[str] = PHRASES) -> bool:
    """Slow and plain: visible characters of the compatibility form, word by word."""
    visible = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    lower = visible.casefold().replace("\u0131", "i")
    words = "".join(char if char.isalnum() else " " if char.isspace() else f" {char} " for char in lower).split()
    wanted = [phrase.lower().split() for phrase in phrases]
    return any(words[start : start + len(phrase)] == phrase for phrase in wanted for start in range(len(words)))


@pytest.fixture(scope="module")
def tokenizer() -> T5Tokenizer:
    """Pieces for the toy words, for whole phrases and parts of them, and for every single character."""
    vocab = dict(toy.make_tokenizer().get_vocab())
    pieces = [(piece, 0.0) for piece in sorted(vocab, key=vocab.__getitem__)[:3]]
    characters = {char for text in [*SPELLINGS, *HARMLESS] for char in text if char != " "}
    others = {piece for piece in vocab if piece not in ("<pad>", "</s>", "<unk>")} | {*FRAGMENTS} | characters
    return T5Tokenizer(vocab=pieces + [(piece, -4.0) for piece in sorted(others)], extra_ids=0)


def odd_tokens(text: str, vocab: Mapping[str, int], generator: random.Random) -> list[int]:
    """Tokens that write ``text``, cut at random."""
    rest, ids = "▁" + text.replace(" ", "▁"), []
    while rest:
        length = generator.choice([size for size in range(1, 9) if rest[:size] in vocab and len(rest) >= size])
        ids.append(vocab[rest[:length]])
        rest = rest[length:]
    return ids


@dataclass(frozen=True)
class Spammer:
    """A T5 that answers with a text of its own to each pair of words, whatever word follows."""

    folder: Path
    keys: Mapping[str, list[str]]
    """Text → the pairs of words that ask for it."""

    def sources(self, texts: Sequence[str], endings: Sequence[str]) -> list[str]:
        return [f"{key} {ending}" for text in texts for key in self.keys[text] for ending in endings]


@pytest.fixture(scope="module")
def spammer(tmp_path_factory: pytest.TempPathFactory, tokenizer: T5Tokenizer) -> Spammer:
    torch.set_num_threads(1)
    generator = random.Random(3)
    free_keys = [f"{one} {other}" for one, other in itertools.product(toy.WORDS, repeat=2)]
    generator.shuffle(free_keys)
    vocab = tokenizer.get_vocab()
    keys: dict[str, list[str]] = {}
    lessons: list[tuple[str, list[int]]] = []
    for text in [*SPELLINGS, *SPELLINGS, *HARMLESS * 2]:
        key = free_keys.pop()
        keys.setdefault(text, []).append(key)
        lessons.append((key, [*odd_tokens(text, vocab, generator), 1]))
    model = toy.make_model(tokenizer, seed=5)
    train(model, tokenizer, lessons, generator)
    return Spammer(toy.save(model, tokenizer, tmp_path_factory.mktemp("spammer")), keys)


def train(model: Any, tokenizer: T5Tokenizer, lessons: Sequence[tuple[str, list[int]]], draw: random.Random) -> None:
    steps = 220
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        drawn = draw.choices(lessons, k=32)
        sources = [f"{toy.PREFIX}{key} {draw.choice([*toy.WORDS, *PHRASES])}" for key, _ in drawn]
        targets = [torch.tensor(ids) for _, ids in drawn]
        labels = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
        model(**tokenizer(sources, padding=True, return_tensors="pt"), labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def load(spammer: Spammer, engine: EngineName, blocklist: Sequence[str] = PHRASES, **decoding: Any) -> Generator:
    return load_generator(
        ModelSource(name=str(spammer.folder)),
        prefix=toy.PREFIX,
        max_length=48,
        decoding=Decoding(**({"max_new_tokens": 32, "no_repeat_ngram_size": 0} | decoding)),
        safety=Safety(blocklist=tuple(blocklist)),
        engine=Engine(name=engine),
        num_threads=1,
    )


@pytest.mark.parametrize(
    ("engine", "decoding"),
    [
        ("ctranslate2", {}),
        ("ctranslate2", {"num_beams": 1}),
        ("ctranslate2", {"sampling": {"temperature": 0.5}}),
        ("transformers", {"num_beams": 2}),
        ("transformers", {"sampling": {"temperature": 0.5}}),
    ],
)
def test_no_spelling_of_a_phrase_gets_through(spammer: Spammer, engine: EngineName, decoding: dict[str, Any]) -> None:
    sources = spammer.sources(SPELLINGS, toy.WORDS[:3])
    free = load(spammer, engine, (), **decoding).generate(sources)
    assert len(sources) > 250
    assert sum(map(holds_a_phrase, free)) > 150, "the model must want to write them"
    outputs = load(spammer, engine, **decoding).decode(sources)
    assert [output.text for output in outputs if holds_a_phrase(output.text)] == []
    is_cut_out = [output.flaw == CENSORED for output in outputs]
    assert sum(is_cut_out) < 0.1 * len(outputs), "most find other words"


@engines
def test_a_longer_word_that_holds_the_letters_of_a_phrase_is_never_blocked(
    spammer: Spammer, engine: EngineName
) -> None:
    sources = spammer.sources(HARMLESS, toy.WORDS[:3])
    free = load(spammer, engine, ()).decode(sources)
    outputs = load(spammer, engine).decode(sources)
    harmless = [(old, new) for old, new in zip(free, outputs, strict=True) if old.text in HARMLESS]
    assert len({old.text for old, _ in harmless}) >= 5, "the model must write them"
    assert [new for _, new in harmless] == [old for old, _ in harmless]


@engines
def test_what_the_source_holds_may_come_out_and_nothing_else(spammer: Spammer, engine: EngineName) -> None:
    texts = ["Visit", "VISIT", "Click here", "Read more"]
    sources = spammer.sources(texts, ["visit"])
    free = load(spammer, engine, ()).generate(sources)
    outputs = load(spammer, engine).generate(sources)
    others = PHRASES[:2]
    assert not [text for text in outputs if holds_a_phrase(text, others)]
    kept = [(old, new) for old, new in zip(free, outputs, strict=True) if not holds_a_phrase(old, others)]
    assert [new for _, new in kept] == [old for old, _ in kept]
    assert sum(holds_a_phrase(text) for text in outputs) >= 4


def test_a_bundle_finds_the_same_other_words(spammer: Spammer, tmp_path: Path) -> None:
    decoding = {"max_new_tokens": 32, "no_repeat_ngram_size": 0}
    given = {"model": {"name": str(spammer.folder)}, "prefix": toy.PREFIX, "max_length": 48, "decoding": decoding}
    spec = Export.model_validate({**given, "quantization": "float32", "bundle": True})
    export.run(spec, JobContext(tmp_path, lambda *_: None, lambda: False))
    sources = spammer.sources(SPELLINGS, toy.WORDS[:1])
    lines, _ = try_bundle(tmp_path / "bundle", sources, num_threads=1)
    assert lines == load(spammer, "ctranslate2").generate(sources)
    assert len(set(lines)) > 20


@engines
def test_of_several_samples_only_those_that_held_a_phrase_are_drawn_again(spammer: Spammer, engine: EngineName) -> None:
    sources = spammer.sources(SPELLINGS, toy.WORDS[:1])[:24]
    sampling = {"temperature": 1.0}
    freely = load(spammer, engine, (), sampling=sampling).candidates(sources, 6)
    outputs = load(spammer, engine, sampling=sampling).candidates(sources, 6)
    assert [item for row in outputs for item in row if holds_a_phrase(item.text)] == []
    if engine == "transformers":  # where a sample depends on nothing but seed, input and number
        clean = [[item for item in row if not holds_a_phrase(item.text)] for row in freely]
        assert sum(0 < len(row) < 6 for row in clean) > 12, "most rows have samples of both kinds"
        assert [list(row[: len(kept)]) for row, kept in zip(outputs, clean, strict=True)] == clean
        again = [row[len(kept) :] for row, kept in zip(outputs, clean, strict=True)]
        copies = [item in kept for row, kept in zip(again, clean, strict=True) for item in row]
        assert sum(copies) < 0.2 * len(copies)
