"""The best evaluation is what a training makes, and no better one for a while is its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configs.load import SpecError, validate_spec
from jobs import distill
from jobs.context import JobStopped
from jobs.data import DataError
from jobs.selection import Selection
from tests.jobs.test_distill import make_spec
from tests.jobs.tiny import Recorder, make_model_folder, make_tokenizer, tiny_source, write_pairs

LOSSES = {10: {"validation_loss": 3.0}, 20: {"validation_loss": 2.0}, 30: {"validation_loss": 1.95}}
HARSH: dict[str, Any] = {
    "precision": "fp32",
    "batch_size": 8,
    "learning_rate": 0.3,
    "schedule": "constant",
    "max_steps": 20,
    "eval_steps": 2,
    "best_metric": "validation_loss",
    "checkpoint_steps": None,
}
"""A learning rate so high that the last model is not the best."""


def test_the_best_is_the_lowest_loss_or_the_highest_accuracy() -> None:
    assert Selection("validation_loss").best_step(LOSSES) == 30
    accuracies = {step: {"validation_token_accuracy": -figures["validation_loss"]} for step, figures in LOSSES.items()}
    assert Selection("validation_token_accuracy").best_step(accuracies) == 30
    assert Selection("validation_loss").best_step({}) is None


def test_a_gain_within_the_margin_is_none() -> None:
    assert Selection("validation_loss", min_delta=0.1).best_step(LOSSES) == 20


def test_patience_counts_the_evaluations_after_the_best() -> None:
    selection = Selection("validation_loss", patience=2)
    worse = {**LOSSES, 40: {"validation_loss": 5.0}}
    assert not selection.is_over(worse)
    assert selection.is_over({**worse, 50: {"validation_loss": 1.96}})
    assert not Selection("validation_loss").is_over({**worse, 50: {"validation_loss": 1.96}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    make_model_folder(folder / "teacher", make_tokenizer(folder / "tokenizer"), hidden_size=24)
    write_pairs(folder / "pairs.csv", 60)
    return folder


def run(folder: Path, output: Path, **options: Any) -> tuple[Recorder, dict[str, float], dict[str, torch.Tensor]]:
    checkpoints = options.pop("checkpoints", None)
    recorder = Recorder()
    spec = make_spec(folder / "pairs.csv", folder / "teacher", tiny_source(folder / "tokenizer"), **options)
    result = distill.run(spec, recorder.context(output, checkpoints=checkpoints))
    figures = {item.metric: item.value for item in result.summaries}
    return recorder, figures, load_file(output / "model" / "model.safetensors")


def test_the_best_model_is_saved_though_the_training_went_on(folder: Path, tmp_path: Path) -> None:
    recorder, figures, weights = run(folder, tmp_path / "out", **HARSH)
    losses = dict(zip(recorder.steps("validation_loss"), recorder.values("validation_loss"), strict=True))
    best = min(losses, key=losses.__getitem__)
    assert best < 20, "the material makes the last one worse"
    assert (figures["best_step"], figures["validation_loss"]) == (best, losses[best])
    _, _, expected = run(folder, tmp_path / "short", **{**HARSH, "max_steps": best, "best_metric": None})
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["model"]


def test_a_training_that_gets_no_better_ends_early(folder: Path, tmp_path: Path) -> None:
    recorder, figures, _ = run(folder, tmp_path / "out", **HARSH, early_stopping={"patience": 2})
    losses = recorder.values("validation_loss")
    best = losses.index(min(losses))
    assert len(losses) == best + 3, "two evaluations after the best one, then none"
    assert figures["validation_loss"] == losses[best]


def test_the_best_is_kept_through_an_interruption(folder: Path, tmp_path: Path) -> None:
    _, _, expected = run(folder, tmp_path / "whole", **HARSH)
    kept = tmp_path / "checkpoints"
    options = {**HARSH, "checkpoint_steps": 3, "keep_checkpoints": 1, "log_steps": 1}
    source = tiny_source(folder / "tokenizer")
    spec = make_spec(folder / "pairs.csv", folder / "teacher", source, **options)
    with pytest.raises(JobStopped):
        distill.run(spec, Recorder(stop_after=24).context(tmp_path / "a1", checkpoints=kept))
    _, _, weights = run(folder, tmp_path / "a2", **options, checkpoints=kept)
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())


def test_what_cannot_be_told_is_refused(folder: Path, tmp_path: Path) -> None:
    teacher = {"name": "t"}
    spec = {"kind": "distill", "dataset": {"name": "x"}, "teacher_model": teacher, "student_model": teacher}
    with pytest.raises(SpecError, match="best_metric is looked at there"):
        validate_spec({**spec, "training": {"best_metric": "validation_loss"}})
    with pytest.raises(SpecError, match="early_stopping goes by it"):
        validate_spec({**spec, "training": {"early_stopping": {}, "eval_steps": 5}})
    agreement = {"best_metric": "validation_teacher_agreement", "eval_steps": 5}
    with pytest.raises(SpecError, match="needs a teacher"):
        validate_spec({"kind": "finetune", "dataset": {"name": "x"}, "model": teacher, "training": agreement})
    changed = make_spec(folder / "pairs.csv", folder / "teacher", tiny_source(folder / "tokenizer"), **HARSH)
    dataset = changed.dataset.model_copy(update={"validation": 0.0})
    with pytest.raises(DataError, match="no validation split"):
        distill.run(changed.model_copy(update={"dataset": dataset}), Recorder().context(tmp_path))
