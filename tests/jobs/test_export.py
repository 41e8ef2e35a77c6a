"""The export job on tiny models: what it writes, records and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ctranslate2.converters.transformers import T5Loader
from transformers import T5Tokenizer

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.kinds import Export
from configs.schema.models import ModelSource
from jobs import conversion, export
from jobs.context import JobContext, JobStopped
from jobs.conversion import ConversionError, convert
from jobs.digests import sha256_of
from jobs.generation import EngineError, Generator, load_generator
from jobs.model_record import RecordError, read_record
from jobs.models import LoadedModel, ModelError, load_model
from tests.jobs import toy

QUANTIZATIONS = ("int8", "int8_bfloat16", "bfloat16", "float16", "float32")


@pytest.fixture(scope="module")
def tokenizer() -> T5Tokenizer:
    return toy.make_tokenizer()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tokenizer: T5Tokenizer) -> Path:
    torch.set_num_threads(1)
    model = toy.make_model(tokenizer)
    toy.train(model, tokenizer, toy.copy_pair, steps=120)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("trained"))


def context(output: Path, *, stop: bool = False) -> JobContext:
    return JobContext(output=output, report=lambda *_: None, should_stop=lambda: stop)


def spec(folder: Path | str, quantization: Any = "float32") -> Export:
    return Export(model=ModelSource(name=str(folder)), quantization=quantization)


def generator(folder: Path, engine: Any = "ctranslate2") -> Generator:
    return load_generator(
        ModelSource(name=str(folder)),
        prefix=toy.PREFIX,
        max_length=48,
        decoding=Decoding(max_new_tokens=16),
        safety=Safety(),
        engine=Engine(name=engine),
        num_threads=1,
    )


def test_a_float32_export_writes_what_the_trained_model_writes(trained: Path, tmp_path: Path) -> None:
    export.run(spec(trained), context(tmp_path))
    texts = toy.sentences(30)
    assert generator(tmp_path / "model").generate(texts) == generator(trained, "transformers").generate(texts)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_quantization_loads_and_decodes(trained: Path, tmp_path: Path, quantization: str) -> None:
    result = export.run(spec(trained, quantization), context(tmp_path))
    assert result.artifacts == {"model": "model"}
    assert len(generator(tmp_path / "model").generate(["you are", "now"])) == 2


def test_int8_is_smaller_and_the_figures_say_so(trained: Path, tmp_path: Path) -> None:
    sizes = {}
    for quantization in ("int8", "float32"):
        output = tmp_path / quantization
        output.mkdir()
        result = export.run(spec(trained, quantization), context(output))
        figures = {item.metric: item.value for item in result.summaries}
        files = [path for path in (output / "model").iterdir() if path.is_file()]
        assert figures["bytes_on_disk"] == sum(path.stat().st_size for path in files)
        assert figures["parameters"] == sum(
            p.numel() for p in load_model(ModelSource(name=str(trained))).model.parameters()
        )
        sizes[quantization] = (output / "model" / "model.bin").stat().st_size
    assert sizes["int8"] < 0.4 * sizes["float32"]


def test_the_record_names_source_weights_precision_and_versions(trained: Path, tmp_path: Path) -> None:
    export.run(spec(trained, "int8"), context(tmp_path))
    record = read_record(tmp_path / "model")
    assert record is not None
    assert record.export is not None
    assert record.exported_from is not None
    assert record.export["quantization"] == "int8"
    assert record.exported_from.name == trained.name
    assert record.exported_from.sha256 == sha256_of([trained / "model.safetensors"])
    assert record.weights_sha256 == sha256_of([tmp_path / "model" / "model.bin"])
    assert set(record.versions) == {"ctranslate2", "transformers", "tokenizers", "torch"}
    assert 0 < record.export["score_difference"] < 0.2


def test_the_same_model_is_exported_to_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        (tmp_path / attempt).mkdir()
        export.run(spec(trained, "int8"), context(tmp_path / attempt))
        digests.add(sha256_of([tmp_path / attempt / "model" / "model.bin"]))
    assert len(digests) == 1


def test_weights_that_changed_after_the_export_are_refused(trained: Path, tmp_path: Path) -> None:
    export.run(spec(trained), context(tmp_path))
    path = tmp_path / "model" / "model.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(EngineError, match="export the model again"):
        generator(tmp_path / "model")


def test_an_unreadable_record_is_refused(trained: Path, tmp_path: Path) -> None:
    export.run(spec(trained), context(tmp_path))
    (tmp_path / "model" / "distox.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match=r"distox\.json can't be read"):
        generator(tmp_path / "model")


def test_an_exported_model_is_not_exported_again(trained: Path, tmp_path: Path) -> None:
    export.run(spec(trained), context(tmp_path))
    with pytest.raises(ConversionError, match="name the trained model"):
        export.run(spec(tmp_path / "model"), context(tmp_path))


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_path_that_is_no_model_is_refused_and_leaves_nothing(tmp_path: Path, content: str | None) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    output.mkdir()
    if content is not None:
        (source / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="source"):
        export.run(spec(source), context(output))
    assert list(output.iterdir()) == []


def test_an_activation_that_ctranslate2_lacks_is_refused(tmp_path: Path, tokenizer: T5Tokenizer) -> None:
    model = toy.make_model(tokenizer, feed_forward_proj="tanh")
    folder = toy.save(model, tokenizer, tmp_path / "source")
    with pytest.raises(ConversionError, match="'tanh'"):
        export.run(spec(folder), context(tmp_path))


def test_a_tokenizer_whose_ids_have_holes_is_refused(tokenizer: T5Tokenizer) -> None:
    class Holed:
        def get_vocab(self) -> dict[str, int]:
            return {piece: index + (index > 5) for piece, index in tokenizer.get_vocab().items()}

        def __len__(self) -> int:
            return len(tokenizer)

    loaded = LoadedModel(toy.make_model(tokenizer), Holed())  # type: ignore[arg-type]
    with pytest.raises(ConversionError, match="holes"):
        convert(loaded, Path("unused"), "float32")


@pytest.mark.parametrize(
    "wrong",
    [{"tie_word_embeddings": False, "initializer_factor": 0.5}, {"layer_norm_epsilon": 0.1, "initializer_factor": 0.3}],
)
def test_the_upstream_loader_gets_these_models_wrong_and_the_comparison_sees_it(
    tmp_path: Path, tokenizer: T5Tokenizer, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded() -> LoadedModel:
        return LoadedModel(toy.make_model(tokenizer, **wrong), tokenizer)

    assert convert(loaded(), tmp_path / "ours", "float32") < 1e-5
    monkeypatch.setattr(conversion, "_T5Loader", T5Loader)
    with pytest.raises(ConversionError, match="scores a sentence differently"):
        convert(loaded(), tmp_path / "upstream", "float32")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, tokenizer: T5Tokenizer) -> None:
    model: Any = toy.make_model(tokenizer)
    with torch.no_grad():
        model.encoder.block[0].layer[1].DenseReluDense.wo.weight.fill_(float("nan"))
    with pytest.raises(ConversionError, match="scores a sentence differently"):
        convert(LoadedModel(model, tokenizer), tmp_path / "model", "float32")


def test_a_model_with_more_rows_than_tokens_is_exported(tmp_path: Path, tokenizer: T5Tokenizer) -> None:
    """Published T5 checkpoints have 32,128 rows for 32,100 tokens."""
    model = toy.make_model(tokenizer, vocab_size=len(tokenizer) + 28, initializer_factor=0.3)
    folder = toy.save(model, tokenizer, tmp_path / "source")
    export.run(spec(folder), context(tmp_path))
    texts = toy.sentences(10)
    assert generator(tmp_path / "model").generate(texts) == generator(folder, "transformers").generate(texts)


def test_a_job_that_is_asked_to_stop_writes_nothing(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(JobStopped):
        export.run(spec(trained), context(tmp_path, stop=True))
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_json_that_others_can_read(trained: Path, tmp_path: Path) -> None:
    export.run(spec(trained), context(tmp_path))
    record = json.loads((tmp_path / "model" / "distox.json").read_text(encoding="utf-8"))
    assert record["version"] == 1
