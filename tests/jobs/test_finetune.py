"""``finetune`` from a file of pairs to a folder that Transformers loads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration

from configs.schema.data import Dataset
from configs.schema.kinds import Finetune
from configs.schema.models import ModelSource
from jobs import finetune
from jobs.context import JobContext, JobStopped
from jobs.data import DataError, load_pairs
from jobs.models import ModelError
from jobs.trainer import TrainingDiverged
from tests.jobs.tiny import Recorder, make_model_folder, make_tokenizer, tiny_dataset, tiny_source, write_pairs


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.csv", 80)


def make_spec(pairs: Path, model: ModelSource, **training: Any) -> Finetune:
    values = {"batch_size": 8, "grad_accumulation": 1, "max_steps": 4, "learning_rate": 5e-3, **training}
    return Finetune.model_validate({"dataset": tiny_dataset(pairs), "model": model, "training": values})


def run(spec: Finetune, output: Path, recorder: Recorder | None = None) -> dict[str, float]:
    """Run it and return the summaries by name."""
    result = finetune.run(spec, (recorder or Recorder()).context(output))
    assert result.artifacts == {"model": "model"}
    return {item.metric: item.value for item in result.summaries}


def test_the_artifact_is_a_folder_that_transformers_loads(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    figures = run(make_spec(pairs, tiny_source(tokenizer)), tmp_path)
    folder = tmp_path / "model"
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    model: Any = T5ForConditionalGeneration.from_pretrained(folder)
    assert figures["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    ids = AutoTokenizer.from_pretrained(folder)("detoxify: he likes a plan", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4).shape[0] == 1
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_the_validation_loss_is_a_summary_and_falls_with_training(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    short = run(make_spec(pairs, tiny_source(tokenizer), max_steps=1), tmp_path / "short")
    long = run(make_spec(pairs, tiny_source(tokenizer), max_steps=60, dropout=0.0), tmp_path / "long")
    assert long["validation_loss"] < 0.7 * short["validation_loss"]
    assert long["validation_token_accuracy"] > short["validation_token_accuracy"]
    assert long["training_seconds"] > 0


def test_epochs_decide_the_steps_when_max_steps_does_not(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    spec = make_spec(pairs, tiny_source(tokenizer), max_steps=None, epochs=1.5, batch_size=16, log_steps=1)
    run(spec, tmp_path, recorder)
    num_rows = len(load_pairs(spec.dataset).train)
    assert recorder.steps("loss")[-1] == round(1.5 * math.ceil(num_rows / 16))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    pairs: Path, tokenizer: Path, tmp_path: Path
) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        run(make_spec(pairs, tiny_source(tokenizer), seed=seed, max_steps=2), tmp_path / name)
        return T5ForConditionalGeneration.from_pretrained(tmp_path / name / "model").shared.weight

    first = weights("first", 1)
    assert torch.equal(first, weights("again", 1))
    assert not torch.equal(first, weights("other", 2))


def test_a_trained_model_is_trained_further(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "start", tokenizer)
    run(make_spec(pairs, ModelSource(name=str(folder)), max_steps=1, learning_rate=1e-4), tmp_path / "out")
    before = T5ForConditionalGeneration.from_pretrained(folder).shared.weight
    after = T5ForConditionalGeneration.from_pretrained(tmp_path / "out" / "model").shared.weight
    assert 0 < (after - before).abs().max() < 1e-3


def test_dropout_replaces_the_models_own_and_is_saved(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    run(make_spec(pairs, tiny_source(tokenizer), dropout=0.25, max_steps=1), tmp_path)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dropout_rate"] == 0.25


def test_bf16_trains_on_a_cpu_that_was_asked_for_it(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    figures = run(make_spec(pairs, tiny_source(tokenizer), precision="bf16", max_steps=2), tmp_path)
    assert figures["validation_loss"] > 0
    assert T5ForConditionalGeneration.from_pretrained(tmp_path / "model").dtype == torch.float32


def test_threads_are_those_of_the_context(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    context = Recorder().context(tmp_path)
    try:
        finetune.run(
            make_spec(pairs, tiny_source(tokenizer), max_steps=1),
            JobContext(context.output, context.report, context.should_stop, num_threads=2),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_stopped_job_leaves_no_model(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(JobStopped):
        run(make_spec(pairs, tiny_source(tokenizer)), tmp_path, Recorder(stop_after=1))
    assert not (tmp_path / "model").exists()


def test_a_rate_that_blows_the_model_up_is_an_error_and_leaves_no_model(
    pairs: Path, tokenizer: Path, tmp_path: Path
) -> None:
    spec = make_spec(pairs, tiny_source(tokenizer), learning_rate=1e30, max_steps=20, max_grad_norm=1e9)
    with pytest.raises(TrainingDiverged, match=r"lower training\.learning_rate"):
        run(spec, tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_model_that_is_none_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="doesn't exist"):
        run(make_spec(pairs, ModelSource(name=str(tmp_path / "nothing"))), tmp_path)


def test_a_dataset_that_is_none_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run(make_spec(tmp_path / "nothing.csv", tiny_source(tokenizer)), tmp_path)


def test_the_rows_that_joined_are_trained_on_and_told(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    plain = make_spec(pairs, tiny_source(tokenizer), max_steps=1)
    more = tmp_path / "more.csv"
    test_row = load_pairs(plain.dataset).test[0].source
    more.write_text(f"toxic,neutral\nthey sees damn road,they sees road\n{test_row},leak\n", "utf-8")
    spec = make_spec(pairs, tiny_source(tokenizer), max_steps=1)
    extra = {**spec.dataset.model_dump(mode="json"), "extra": str(more)}
    figures = run(spec.model_copy(update={"dataset": Dataset.model_validate(extra)}), tmp_path / "extra")
    assert figures["train_rows"] == run(plain, tmp_path / "plain")["train_rows"] + 1
    assert (figures["extra_targets"], figures["extra_in_test"]) == (1, 1)
