"""The tokenizer made on the spot: T5's ids, nothing lost, nothing unknown, and both engines take it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from configs.schema.data import SampleSize
from jobs.sample import SOURCE_COLUMN, TARGET_COLUMN, dump_rows, sample_rows
from jobs.tokenization import MIN_VOCAB_SIZE, train_tokenizer

PREFIX = "detoxify: "
SIZE = SampleSize(num_pairs=1500, num_dump_rows=300)
VOCAB_SIZE = 1000
WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
"""As Unicode has it; ``str.split`` has four control characters more."""
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
"""Not those without a meaning in this Python's Unicode: a newer one may normalise them."""


def sample_texts() -> list[str]:
    return [text for row in sample_rows(SIZE) for text in (PREFIX + row[SOURCE_COLUMN], row[TARGET_COLUMN])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "tokenizer"
    train_tokenizer(sample_texts(), vocab_size=VOCAB_SIZE, folder=folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def round_trip(tokenizer: Any, text: str) -> str:
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[:-1], "an end inside the text"
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def normalized(text: str) -> str:
    """What is left of a text: compatibility forms are unified, white space is one space."""
    return WHITE_SPACE.sub(" ", unicodedata.normalize("NFKC", text).replace("\u2581", " ")).strip(" ")


def test_the_special_pieces_have_the_ids_of_t5(tokenizer: Any) -> None:
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == ("<pad>", "</s>", "<unk>")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)


def test_every_text_of_the_sample_comes_back_as_it_was(tokenizer: Any) -> None:
    texts = [text.removeprefix(PREFIX) for text in sample_texts()]
    texts += [normalized(row["comment"]) for row in dump_rows(SIZE)]
    assert [text for text in texts if round_trip(tokenizer, text) != text] == []


def test_the_words_of_the_sample_need_few_pieces(tokenizer: Any) -> None:
    texts = sample_texts()
    pieces = sum(len(tokenizer.tokenize(text)) for text in texts)
    assert pieces / sum(len(text.split()) for text in texts) < 1.5


@settings(max_examples=300, deadline=None)
@given(st.text(CHARACTERS, max_size=40))
def test_any_text_at_all_comes_back_but_for_its_white_space(tokenizer: Any, text: str) -> None:
    assert round_trip(tokenizer, text) == normalized(text)


@pytest.mark.parametrize(
    "text",
    [
        'it\'s 3.50$, "ok"?',
        "日本 ☂ und ß",
        "see https://example.org/a?b=c&d=1",
        "a </s> b <pad> <unk>",
        "<0x41> is no byte",
        "CASE Case case",
        "...!!?? -- (a) [b] {c}",
    ],
)
def test_signs_case_other_scripts_and_the_names_of_special_pieces_are_text(tokenizer: Any, text: str) -> None:
    assert round_trip(tokenizer, text) == text


def test_white_space_of_any_kind_is_one_space(tokenizer: Any) -> None:
    assert round_trip(tokenizer, "  a \t b\n\nc ") == "a b c"


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text_is_its_end_alone(tokenizer: Any, text: str) -> None:
    assert tokenizer(text).input_ids == [1]


def test_the_vocabulary_is_as_large_as_asked_and_its_size_is_returned(tmp_path: Path) -> None:
    texts = sample_texts()
    assert train_tokenizer(texts, vocab_size=500, folder=tmp_path / "small") == 500
    assert len(AutoTokenizer.from_pretrained(tmp_path / "small")) == 500


def test_a_few_texts_give_fewer_pieces_than_asked(tmp_path: Path) -> None:
    number = train_tokenizer(["a b", "a c"], vocab_size=5000, folder=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert number == len(tokenizer) < MIN_VOCAB_SIZE
    assert round_trip(tokenizer, "something else") == "something else"


def test_no_texts_give_a_tokenizer_of_bytes(tmp_path: Path) -> None:
    train_tokenizer([], vocab_size=1000, folder=tmp_path)
    assert round_trip(AutoTokenizer.from_pretrained(tmp_path), "any word") == "any word"


def test_the_same_texts_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(iter(sample_texts()), vocab_size=VOCAB_SIZE, folder=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_a_vocabulary_without_room_beside_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size = 355: use at least 356"):
        train_tokenizer(["a"], vocab_size=MIN_VOCAB_SIZE - 1, folder=tmp_path)
    assert train_tokenizer(["a"], vocab_size=MIN_VOCAB_SIZE, folder=tmp_path) <= MIN_VOCAB_SIZE


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 with random weights and the tokenizer beside it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    shape = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    # Weights above the usual size: with those, a model says one piece whatever it is given.
    settings: dict[str, Any] = {**shape, "initializer_factor": 2.0, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(**settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def translate(folder: Path, tokens: Sequence[str]) -> list[str]:
    translator = ctranslate2.Translator(str(folder), device="cpu", intra_threads=1)
    result = translator.translate_batch([tokens], beam_size=1, max_decoding_length=10)
    pieces: list[str] = result[0].hypotheses[0]
    return pieces


def test_ctranslate2_converts_a_t5_with_it_and_writes_the_same_pieces(model: Path, tmp_path: Path) -> None:
    ctranslate2.converters.TransformersConverter(str(model)).convert(str(tmp_path / "exported"))
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    reference: Any = T5ForConditionalGeneration.from_pretrained(model)
    written = set()
    for text in ("this idiot forgot ☂", "shut up about the car, you moron", "It is 9!"):
        ids = tokenizer(PREFIX + text).input_ids
        pieces = translate(tmp_path / "exported", tokenizer.convert_ids_to_tokens(ids))
        generated = reference.generate(torch.tensor([ids]), max_new_tokens=10, num_beams=1, do_sample=False)[0]
        expected = [piece for piece in generated.tolist() if piece not in (0, 1)]
        assert tokenizer.convert_tokens_to_ids(pieces) == expected
        written.add(tuple(expected))
    assert len(written) > 1, "a model that says the same to everything shows nothing"
