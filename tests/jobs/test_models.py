"""Models by name and by shape, and every way in which a name can be wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from configs.schema.models import Layers, ModelSource, Shape
from jobs.models import ModelError, count_parameters, load_model, load_tokenizer, make_model
from tests.jobs.tiny import make_model_folder, make_tokenizer, tiny_shape, tiny_source


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def folder(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model"), tokenizer)


def test_a_model_made_on_the_spot_has_its_shape_and_the_tokenizers_vocabulary(tokenizer: Path) -> None:
    loaded = load_model(tiny_source(tokenizer))
    config = loaded.model.config
    assert (config.d_model, config.d_kv, config.d_ff, config.num_heads) == (16, 8, 32, 2)
    assert (config.num_layers, config.num_decoder_layers) == (1, 1)
    assert config.vocab_size == len(loaded.tokenizer)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 1, 0)
    assert not loaded.model.training


def test_the_output_projection_is_the_embedding_and_counts_once(tokenizer: Path) -> None:
    model = load_model(tiny_source(tokenizer)).model
    assert model.lm_head.weight is model.shared.weight
    by_name = {name: tensor for name, tensor in model.state_dict().items() if "embed_tokens" not in name}
    del by_name["lm_head.weight"]
    assert count_parameters(model) == sum(tensor.numel() for tensor in by_name.values())


def test_more_rows_than_tokens_are_allowed_and_fewer_are_not(tokenizer: Path) -> None:
    loaded = load_tokenizer(str(tokenizer))
    assert make_model(tiny_shape(vocab_size=128), loaded).config.vocab_size == 128
    many = load_tokenizer(str(make_tokenizer(tokenizer / "many", extra_words=tuple(f"w{n}" for n in range(200)))))
    with pytest.raises(ModelError, match=r"128 embedding rows but its tokenizer 2\d\d tokens; raise vocab_size"):
        make_model(tiny_shape(vocab_size=128), many)


def test_the_same_seed_makes_the_same_model(tokenizer: Path) -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(5)
        return load_model(tiny_source(tokenizer)).model.shared.weight

    assert torch.equal(weights(), weights())


def test_one_head_of_a_model_made_on_the_spot_looks_at_the_token_before(tokenizer: Path) -> None:
    model = load_model(tiny_source(tokenizer)).model
    for stack in (model.encoder, model.decoder):
        attention = stack.get_submodule("block.0.layer.0.SelfAttention")
        bias = attention.compute_bias(6, 6)[0, 0].detach()  # type: ignore[operator]
        looked_at = bias[2:].argmax(dim=-1)
        assert looked_at.tolist() == [1, 2, 3, 4]


def test_a_saved_model_is_loaded_in_fp32_with_its_own_tokenizer(folder: Path) -> None:
    loaded = load_model(ModelSource(name=str(folder)))
    assert loaded.model.dtype == torch.float32
    assert loaded.tokenizer("he likes a plan")["input_ids"][-1] == loaded.tokenizer.eos_token_id


def test_a_t5_of_the_later_kind_keeps_its_unscaled_outputs(tokenizer: Path, tmp_path: Path) -> None:
    untied: dict[str, Any] = {"tie_word_embeddings": False}
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=60, **untied)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    loaded = load_model(ModelSource(name=str(tmp_path), tokenizer=str(tokenizer)))
    assert loaded.model.config.scale_decoder_outputs is False


def test_the_right_shape_passes_and_a_wrong_one_names_what_differs(folder: Path) -> None:
    load_model(ModelSource(name=str(folder), shape=tiny_shape()))
    wrong = Shape(hidden_size=32, layers=Layers(encoder=1, decoder=2), ffn_size=32, attention_heads=2)
    with pytest.raises(ModelError, match=r"hidden_size is 16, shape says 32; layers.decoder is 1, shape says 2"):
        load_model(ModelSource(name=str(folder), shape=wrong))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no model: it has no config\.json; name the folder of a trained model"):
        load_model(ModelSource(name=str(tmp_path)))


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="doesn't exist; name an existing folder or a hub name"):
        load_model(ModelSource(name=str(tmp_path / "nothing")))


def test_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file; name the folder that holds it"):
        load_model(ModelSource(name=str(folder / "config.json")))


def test_another_architecture_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ModelError, match=r"is no T5 .*'gpt2'.*; name a T5"):
        load_model(ModelSource(name=str(tmp_path)))


def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json can't be read"):
        load_model(ModelSource(name=str(tmp_path)))


def test_a_folder_without_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"can't be loaded .*; name a trained T5"):
        load_model(ModelSource(name=str(tmp_path)))


def test_truncated_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(ModelError, match=r"can't be loaded .*; name a trained T5"):
        load_model(ModelSource(name=str(tmp_path)))


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    other = make_tokenizer(tmp_path, extra_words=("another",))
    with pytest.raises(ModelError, match="embedding rows but its tokenizer"):
        load_model(ModelSource(name=str(folder), tokenizer=str(other)))


def test_an_unreachable_hub_is_said_within_seconds_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ModelError, match="hub can't be reached; connect to a network, or give init and tokenizer"):
        load_model(ModelSource(name="nobody/no-such-model"))
    assert time.monotonic() - began < 20


def test_an_ill_formed_hub_name_is_refused() -> None:
    with pytest.raises(ModelError, match="correct the name"):
        load_model(ModelSource(name="a model with spaces"))
