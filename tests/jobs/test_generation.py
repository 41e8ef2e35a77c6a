"""Both engines against one another, and the blocklist against models that want to break it."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5ForConditionalGeneration, T5Tokenizer

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.models import ModelSource
from jobs.blocklist import Blocklist
from jobs.conversion import convert
from jobs.generation import CENSORED, CUT_OFF, EngineError, Generated, load_generator
from jobs.models import ModelError, load_model
from tests.jobs import toy
from tests.jobs.generating import ENGINES, EngineName, both_engines, load


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> T5Tokenizer:
    return toy.make_tokenizer()


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory, tokenizer: T5Tokenizer) -> Path:
    """A T5 that has learned to copy most short sentences of toy words."""
    model = toy.make_model(tokenizer)
    toy.train(model, tokenizer, toy.copy_pair, steps=250)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("copier"))


def spam_pair(phrases: Sequence[str]) -> Callable[[random.Random], tuple[str, str]]:
    """Pairs whose target ends with one of the phrases."""

    def draw(generator: random.Random) -> tuple[str, str]:
        words = toy.draw_words(generator, most=3)
        return " ".join(words), " ".join([words[0], generator.choice(phrases)])

    return draw


BLOCKED = ("Click here", "Read more", "Visit")
PHRASES = re.compile(r"(?<![a-z0-9])(click\s+here|read\s+more|visit)(?![a-z0-9])", re.IGNORECASE)


@pytest.fixture(scope="module")
def spammer(tmp_path_factory: pytest.TempPathFactory, tokenizer: T5Tokenizer) -> Path:
    """A T5 that ends every output with a blocked phrase, in some casing, with or without a space before it."""
    model = toy.make_model(tokenizer, seed=2)
    phrases = ("Click here", "Visit", "(Visit", "click here", "VISIT", "cLiCk hERE", "a-viSiting", "READ more")
    toy.train(model, tokenizer, spam_pair(phrases), steps=200)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("spammer"))


@pytest.mark.parametrize(
    "decoding",
    [
        {},
        {"num_beams": 1},
        {"patience": 1},
        {"num_beams": 3, "length_penalty": 1.5, "no_repeat_ngram_size": 0, "patience": 1},
        {"num_beams": 2, "length_penalty": -0.5, "no_repeat_ngram_size": 2, "patience": 1},
    ],
)
def test_both_engines_write_the_same_in_float32(copier: Path, decoding: dict[str, Any]) -> None:
    texts = toy.sentences(150)
    blocked = ("goose", "very silly")
    one = load(copier, "ctranslate2", blocklist=blocked, **decoding).generate(texts)
    other = load(copier, "transformers", blocklist=blocked, **decoding).generate(texts)
    assert sum(left == right for left, right in zip(one, other, strict=True)) >= 0.99 * len(texts)
    assert len(set(one)) > 50, "the outputs depend on the inputs"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feed_forward_proj": "gated-gelu"},
        {"tie_word_embeddings": False, "initializer_factor": 0.2},
        {"layer_norm_epsilon": 0.1},
        {"d_kv": 8},
        {"num_decoder_layers": 1},
        {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16},
    ],
)
def test_every_shape_of_t5_writes_the_same_in_both_engines(
    tmp_path: Path, tokenizer: T5Tokenizer, changes: dict[str, Any]
) -> None:
    model = toy.make_model(tokenizer, seed=3, **({"initializer_factor": 0.3} | changes))
    folder = toy.save(model, tokenizer, tmp_path / "model")
    texts = toy.sentences(12)
    outputs = [load(folder, engine, max_new_tokens=12).generate(texts) for engine in ENGINES]
    assert outputs[0] == outputs[1]
    assert all(outputs[0])


@both_engines
def test_an_output_does_not_depend_on_its_neighbours(copier: Path, engine: EngineName) -> None:
    texts = toy.sentences(20)
    together = load(copier, engine, batch_size=7).generate(texts)
    generator = load(copier, engine, batch_size=3)
    assert [generator.generate([text])[0] for text in texts] == together


@both_engines
def test_the_same_texts_give_the_same_outputs_again(copier: Path, engine: EngineName) -> None:
    texts = toy.sentences(20)
    generator = load(copier, engine)
    assert generator.generate(texts) == generator.generate(texts)


@both_engines
def test_no_texts_give_no_outputs(copier: Path, engine: EngineName) -> None:
    assert load(copier, engine).generate([]) == []


@both_engines
def test_a_blocked_phrase_never_comes_out_in_any_casing_or_place(spammer: Path, engine: EngineName) -> None:
    texts = toy.sentences(40)
    free = load(spammer, engine, num_beams=2).generate(texts)
    assert sum(bool(PHRASES.search(text)) for text in free) > 25, "the model must want to write them"
    outputs = load(spammer, engine, num_beams=2, blocklist=BLOCKED).generate(texts)
    assert not [text for text in outputs if PHRASES.search(text)]
    assert [new for new, old in zip(outputs, free, strict=True) if not PHRASES.search(old)] == [
        text for text in free if not PHRASES.search(text)
    ], "an output that never held a phrase is what it was"


@both_engines
def test_a_phrase_that_the_source_holds_may_come_out(copier: Path, engine: EngineName) -> None:
    generator = load(copier, engine, blocklist=("VERY  silly", "go"))
    assert generator.generate(["you are very silly"]) == ["you are very silly"]


@both_engines
def test_what_an_output_may_not_hold_can_be_said_for_each_text(copier: Path, engine: EngineName) -> None:
    blocklists = [Blocklist(("very silly",)), Blocklist(()), Blocklist(("very",))]
    outputs = load(copier, engine).decode(["you are very silly"] * 3, blocklists=blocklists)
    texts = [output.text for output in outputs]
    assert "very silly" not in texts[0]
    assert texts[1] == "you are very silly"
    assert "very" not in texts[2]


@both_engines
def test_an_output_cut_off_at_the_limit_is_marked(copier: Path, engine: EngineName) -> None:
    outputs = load(copier, engine, max_new_tokens=3).decode(["you are very silly", "now"])
    assert [item.flaw for item in outputs] == [CUT_OFF, None]


def test_a_phrase_that_no_suppression_stops_is_cut_out_and_marked(
    spammer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.generation.MAX_RETRIES", 0)
    outputs = load(spammer, num_beams=1, blocklist=BLOCKED).decode(toy.sentences(20))
    assert not [item for item in outputs if PHRASES.search(item.text)]
    assert {item.flaw for item in outputs} >= {CENSORED}


@both_engines
def test_the_candidates_of_a_beam_are_its_best_and_the_first_is_the_output(copier: Path, engine: EngineName) -> None:
    texts = toy.sentences(10)
    generator = load(copier, engine, num_beams=4)
    candidates = generator.candidates(texts, 3)
    assert [outputs[0] for outputs in candidates] == generator.decode(texts)
    assert {len(outputs) for outputs in candidates} == {3}
    assert [len({output.text for output in outputs}) for outputs in candidates] == [3] * len(texts)
    assert generator.candidates([], 3) == []


def test_more_candidates_than_beams_are_refused_with_the_remedy(copier: Path) -> None:
    with pytest.raises(ValueError, match=r"5 outputs .* beam of 4 .*decoding\.num_beams: 5"):
        load(copier).candidates(["you"], 5)


@both_engines
def test_samples_come_again_from_the_same_seed_and_not_from_another(copier: Path, engine: EngineName) -> None:
    texts = toy.sentences(8)

    def draw(seed: int) -> list[tuple[Generated, ...]]:
        return load(copier, engine, sampling={"temperature": 2.0, "seed": seed}).candidates(texts, 4)

    first = draw(1)
    assert draw(1) == first
    assert draw(2) != first
    assert len({output.text for output in first[0]}) == 4


@both_engines
@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_sampling_only_the_likeliest_token_is_greedy(
    copier: Path, engine: EngineName, sampling: dict[str, Any]
) -> None:
    texts = toy.sentences(10)
    greedy = load(copier, engine, num_beams=1).generate(texts)
    assert load(copier, engine, sampling=sampling).generate(texts) == greedy


@both_engines
def test_samples_follow_the_distribution_of_the_model(
    tmp_path: Path, tokenizer: T5Tokenizer, engine: EngineName
) -> None:
    model: Any = toy.make_model(tokenizer, seed=6, initializer_factor=0.3)
    folder = toy.save(model, tokenizer, tmp_path / "model")
    batch = tokenizer([toy.PREFIX + "you"], return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=torch.tensor([[0]])).logits[0, 0] / 0.7
    logits[0] = -torch.inf  # the pad token is never written
    kept = logits.topk(5).indices.tolist()
    expected = logits[kept].softmax(-1).tolist()
    count = 1000
    sampling = {"temperature": 0.7, "top_k": 5}
    # One token each: the letters and words that an output can begin with differ from one another.
    drawn = load(folder, engine, max_new_tokens=1, sampling=sampling).candidates(["you"], count)[0]
    for index, share in zip(kept, expected, strict=True):
        text = tokenizer.decode([index], skip_special_tokens=True)
        seen = sum(output.text == text for output in drawn) / count
        assert abs(seen - share) < 5 * (share * (1 - share) / count) ** 0.5 + 1e-9


def test_a_sample_does_not_depend_on_its_neighbours_on_transformers(copier: Path) -> None:
    texts = toy.sentences(6)
    generator = load(copier, "transformers", sampling={"temperature": 2.0}, batch_size=3)
    together = generator.candidates(texts, 2)
    assert [generator.candidates([text], 3)[0][:2] for text in texts] == together


@both_engines
@pytest.mark.parametrize("decoding", [{}, {"num_beams": 1}, {"sampling": {}}])
def test_an_output_has_at_least_min_new_tokens(copier: Path, engine: EngineName, decoding: dict[str, Any]) -> None:
    outputs = load(copier, engine, min_new_tokens=6, **decoding).generate(["you", "you are"])
    vocab = toy.make_tokenizer()
    free = load(copier, engine, num_beams=1).generate(["you", "you are"])
    assert free == ["you", "you are"]
    assert min(len(vocab(text, add_special_tokens=False).input_ids) for text in outputs) >= 5, "▁ may be one token"


def test_both_engines_mean_the_same_by_min_new_tokens(copier: Path) -> None:
    texts = toy.sentences(20)
    outputs = [load(copier, engine, min_new_tokens=5).generate(texts) for engine in ENGINES]
    assert outputs[0] == outputs[1]


@both_engines
def test_candidates_hold_no_blocked_phrase_either(spammer: Path, engine: EngineName) -> None:
    for decoding in ({"num_beams": 4}, {"sampling": {"temperature": 1.5}}):
        generator = load(spammer, engine, blocklist=BLOCKED, **decoding)
        candidates = generator.candidates(toy.sentences(10), 4)
        assert [len(outputs) for outputs in candidates] == [4] * 10
        assert not [output for outputs in candidates for output in outputs if PHRASES.search(output.text)]


def test_an_exported_folder_is_loaded_as_it_is(copier: Path, tmp_path: Path) -> None:
    convert(load_model(ModelSource(name=str(copier))), tmp_path / "model", "int8")
    texts = toy.sentences(30)
    outputs = load(tmp_path / "model").generate(texts)
    reference = load(copier).generate(texts)
    assert sum(left == right for left, right in zip(outputs, reference, strict=True)) >= 24


def test_the_temporary_conversion_is_gone_after_loading(
    copier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    generator = load(copier)
    assert list(tmp_path.iterdir()) == []
    assert generator.generate(["you are now"]) == ["you are now"]


def test_tokens_are_counted_with_prefix_and_end(copier: Path) -> None:
    generator = load(copier, max_length=8)
    assert generator.count_tokens("you are") == 4
    assert generator.fits("you are a very silly goose")
    assert not generator.fits("you are a very silly goose now")


@pytest.mark.parametrize("special", ["</s>", "<pad>", "<unk>"])
def test_a_special_token_in_a_comment_is_only_text(copier: Path, special: str) -> None:
    """``</s>`` is an HTML tag in comments and the end token of the model."""
    generator = load(copier)
    spelled = f"you {special[0]} {special[1:]} now"
    assert generator.count_tokens(f"you {special} now") == generator.count_tokens(spelled) > 6
    assert generator.generate([f"you {special} now"]) == generator.generate([spelled])


def test_a_text_whose_copy_would_be_cut_does_not_fit(copier: Path) -> None:
    generator = load(copier, max_new_tokens=3)
    assert generator.fits("you are")
    assert not generator.fits("you are now")


def test_a_long_input_is_decoded_whole(copier: Path, tmp_path: Path) -> None:
    """CTranslate2 by itself cuts inputs at 1,024 tokens: the last word then changes nothing."""
    generator = load(copier, num_beams=1, max_new_tokens=4)
    start = " ".join(["you"] * 1100)
    outputs = {generator.generate([f"{word} {start} {word} {word} {word}"])[0] for word in ("goose", "plan", "bad")}
    reference = load(copier, "transformers", num_beams=1, max_new_tokens=4)
    assert outputs == {
        reference.generate([f"{word} {start} {word} {word} {word}"])[0] for word in ("goose", "plan", "bad")
    }


def test_a_path_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load(tmp_path)


def test_transformers_refuses_an_exported_model_and_names_the_engine(copier: Path, tmp_path: Path) -> None:
    convert(load_model(ModelSource(name=str(copier))), tmp_path / "model", "float32")
    with pytest.raises(EngineError, match=r"engine\.name: ctranslate2"):
        load(tmp_path / "model", "transformers")


def test_a_damaged_export_is_refused(copier: Path, tmp_path: Path) -> None:
    convert(load_model(ModelSource(name=str(copier))), tmp_path / "model", "float32")
    (tmp_path / "model" / "model.bin").write_bytes(b"\0" * 64)
    with pytest.raises(EngineError, match="export it again"):
        load(tmp_path / "model")


def test_a_precision_that_transformers_lacks_is_refused(copier: Path) -> None:
    with pytest.raises(EngineError, match=r"engine\.compute_type is 'int8'"):
        load(copier, "transformers", compute_type="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes float16")
def test_a_precision_that_the_machine_lacks_is_refused_with_those_it_has(copier: Path) -> None:
    with pytest.raises(EngineError, match=r"engine\.compute_type is 'float16'.*float32"):
        load(copier, compute_type="float16")


def test_a_model_made_on_the_spot_runs(tokenizer: T5Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    shape: dict[str, Any] = {
        "hidden_size": 16, "layers": {"encoder": 1, "decoder": 1}, "ffn_size": 16, "attention_heads": 2
    }  # fmt: skip
    source = ModelSource.model_validate({"init": shape, "tokenizer": str(tmp_path)})
    generator = load_generator(
        source, prefix="", max_length=8, decoding=Decoding(max_new_tokens=2), safety=Safety(), engine=Engine(),
        num_threads=1,
    )  # fmt: skip
    assert len(generator.generate(["you"])) == 1


def test_the_folders_own_generation_settings_do_not_seep_in(copier: Path, tmp_path: Path) -> None:
    model: Any = T5ForConditionalGeneration.from_pretrained(copier)
    model.generation_config.update(min_new_tokens=20, num_beams=1, repetition_penalty=5.0)
    folder = toy.save(model, toy.make_tokenizer(), tmp_path / "model")
    assert load(folder, "transformers").generate(["you are"]) == load(copier, "transformers").generate(["you are"])
