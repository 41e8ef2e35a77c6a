"""``distill``: the student comes nearer to its teacher, and only a teacher that fits is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5ForConditionalGeneration

from configs.schema.kinds import Distill
from configs.schema.models import ModelSource, StudentSource
from jobs import distill, finetune
from jobs.collation import VocabularyMismatch
from jobs.models import ModelError
from tests.jobs.test_finetune import make_spec as finetune_spec
from tests.jobs.tiny import (
    Recorder,
    make_model_folder,
    make_tokenizer,
    tiny_dataset,
    tiny_shape,
    tiny_source,
    write_pairs,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.csv", 80)


@pytest.fixture(scope="module")
def teacher(pairs: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher")
    spec = finetune_spec(pairs, tiny_source(tokenizer, hidden_size=24), max_steps=40, dropout=0.0)
    finetune.run(spec, Recorder().context(output))
    return output / "model"


def make_spec(pairs: Path, teacher: Path, student: ModelSource, *, kd_weight: float = 0.7, **training: Any) -> Distill:
    values = {
        "batch_size": 8,
        "grad_accumulation": 1,
        "max_steps": 4,
        "learning_rate": 5e-3,
        "dropout": 0.0,
        **training,
    }
    return Distill.model_validate(
        {
            "dataset": tiny_dataset(pairs),
            "teacher_model": ModelSource(name=str(teacher)),
            "student_model": StudentSource(**dict(student)),
            "loss": {"temperature": 2.0, "kd_weight": kd_weight},
            "training": values,
        }
    )


def run(spec: Distill, output: Path, recorder: Recorder | None = None) -> dict[str, float]:
    result = distill.run(spec, (recorder or Recorder()).context(output))
    assert result.artifacts == {"model": "model"}
    return {item.metric: item.value for item in result.summaries}


def test_the_student_comes_nearer_to_its_teacher(pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    figures = run(make_spec(pairs, teacher, tiny_source(tokenizer), max_steps=100), tmp_path, recorder)
    assert recorder.values("kd")[-1] < 0.7 * recorder.values("kd")[0]
    assert recorder.values("teacher_agreement")[-1] > recorder.values("teacher_agreement")[0]
    assert figures["validation_kd"] > 0
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_the_teacher_is_left_as_it_was(pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path) -> None:
    before = (teacher / "model.safetensors").read_bytes()
    run(make_spec(pairs, teacher, tiny_source(tokenizer)), tmp_path)
    assert (teacher / "model.safetensors").read_bytes() == before


def test_without_weight_it_is_plain_finetuning(pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path) -> None:
    run(make_spec(pairs, teacher, tiny_source(tokenizer), kd_weight=0.0), tmp_path / "distilled")
    spec = finetune_spec(pairs, tiny_source(tokenizer), dropout=0.0)
    finetune.run(spec, Recorder().context(tmp_path / "tuned"))
    distilled, tuned = (
        T5ForConditionalGeneration.from_pretrained(tmp_path / name / "model").shared.weight
        for name in ("distilled", "tuned")
    )
    assert torch.equal(distilled, tuned)


def test_padding_to_the_maximum_changes_nothing_but_the_work(
    pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path
) -> None:
    found = {}
    for pad_to in ("longest", "max_length"):
        recorder = Recorder()
        spec = make_spec(pairs, teacher, tiny_source(tokenizer), log_steps=1, pad_to=pad_to)
        run(spec, tmp_path / pad_to, recorder)
        found[pad_to] = recorder.values("loss")
    assert found["longest"] == pytest.approx(found["max_length"], rel=1e-5)


def test_two_vocabularies_are_refused_by_the_token(pairs: Path, teacher: Path, tmp_path: Path) -> None:
    other = make_tokenizer(tmp_path / "other", extra_words=("zeppelin",))
    student = ModelSource(init=tiny_shape(), tokenizer=str(other))
    with pytest.raises(VocabularyMismatch, match="'▁zeppelin' is unknown for the teacher"):
        run(make_spec(pairs, teacher, student), tmp_path)


def test_embeddings_of_two_sizes_are_refused(pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path) -> None:
    student = ModelSource(init=tiny_shape(vocab_size=100), tokenizer=str(tokenizer))
    with pytest.raises(VocabularyMismatch, match=r"and the student 100; set student_model\.init\.vocab_size to \d"):
        run(make_spec(pairs, teacher, student), tmp_path)


def test_a_teacher_that_is_no_model_is_refused(pairs: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        run(make_spec(pairs, make_tokenizer(tmp_path / "t"), tiny_source(tokenizer)), tmp_path)


def test_a_student_is_made_from_a_saved_model_too(pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "start", tokenizer)
    assert run(make_spec(pairs, teacher, ModelSource(name=str(folder))), tmp_path)["parameters"] > 0


def test_an_evaluation_asks_the_teacher_about_its_own_rows(
    pairs: Path, teacher: Path, tokenizer: Path, tmp_path: Path
) -> None:
    often, once = (
        run(make_spec(pairs, teacher, tiny_source(tokenizer), max_steps=12, eval_steps=steps), tmp_path / str(steps))
        for steps in (1, None)
    )
    assert often["validation_kd"] == pytest.approx(once["validation_kd"], rel=1e-5)
