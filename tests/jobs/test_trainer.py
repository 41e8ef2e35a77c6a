"""One optimizer step is the same however its rows are cut; the loop reports, evaluates and stops as told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema.models import ModelSource
from configs.schema.training import DistillationLoss, Training
from jobs.arguments import PrecisionError, check_precision
from jobs.collation import encode_pairs
from jobs.context import JobStopped
from jobs.data import Pair
from jobs.material import Material
from jobs.models import load_model
from jobs.student import Student
from jobs.trainer import PairTrainer, TrainingDiverged
from jobs.training import make_trainer
from tests.jobs.tiny import PREFIX, Recorder, make_model_folder, make_tokenizer, tiny_source

CUTS = [(8, 1), (4, 2), (2, 4)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def teacher(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("teacher"), tokenizer, hidden_size=24)


def make_material(tokenizer: Path, teacher: Path | None, *, rows: int = 20) -> Material:
    pairs = [
        Pair(f"he {verb} {article} stupid {noun}" + " damn" * (index % 4), (f"he {verb} {article} {noun}",))
        for index, (verb, article, noun) in enumerate(
            (verb, article, noun)
            for verb in ("likes", "takes", "sees", "forgets")
            for article in ("a", "the", "my")
            for noun in ("plan", "house", "road")
        )
    ]
    torch.manual_seed(3)
    student = load_model(tiny_source(tokenizer))
    loaded = None if teacher is None else load_model(ModelSource(name=str(teacher)))
    encoded = [
        encode_pairs(
            part,
            student.tokenizer,
            prefix=PREFIX,
            max_length=16,
            teacher_tokenizer=None if loaded is None else loaded.tokenizer,
        )
        for part in (pairs[:rows], pairs[rows : rows + 5])
    ]
    return Material(student, loaded, encoded[0], encoded[1], PREFIX)


def student_of(trainer: PairTrainer) -> Student:
    assert isinstance(trainer.model, Student)
    return trainer.model


def make(
    tmp_path: Path, tokenizer: Path, teacher: Path | None = None, *, recorder: Recorder | None = None, **changes: Any
) -> PairTrainer:
    values = {"batch_size": 8, "grad_accumulation": 1, "max_steps": 3, "dropout": 0.0, "learning_rate": 1e-2, **changes}
    training = Training.model_validate(values)
    context = (recorder or Recorder()).context(tmp_path)
    return make_trainer(make_material(tokenizer, teacher), training, context, loss=DistillationLoss())


@pytest.mark.parametrize("has_teacher", [False, True], ids=["finetune", "distill"])
def test_weights_and_figures_do_not_depend_on_how_a_step_is_cut(
    has_teacher: bool, tokenizer: Path, teacher: Path, tmp_path: Path
) -> None:
    outcomes = []
    for batch_size, accumulation in CUTS:
        recorder = Recorder()
        trainer = make(
            tmp_path,
            tokenizer,
            teacher if has_teacher else None,
            recorder=recorder,
            batch_size=batch_size,
            grad_accumulation=accumulation,
            log_steps=1,
        )
        trainer.train()
        weights = torch.cat([parameter.flatten() for parameter in student_of(trainer).parameters()])
        outcomes.append((weights, [recorder.values(name) for name in ("loss", "ce", "kd", "grad_norm")]))
    for weights, figures in outcomes[1:]:
        torch.testing.assert_close(weights, outcomes[0][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(figures, outcomes[0][1], rtol=1e-4, atol=1e-6)
    assert any(value > 0 for value in outcomes[0][1][2]) == has_teacher


def test_the_reported_loss_is_the_mean_over_the_steps_positions(tokenizer: Path, teacher: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = make(tmp_path, tokenizer, teacher, recorder=recorder, max_steps=1, batch_size=20)
    batch = trainer._prepare_inputs(trainer._batches[0])
    with torch.no_grad():
        expected = trainer._forward(student_of(trainer), batch)
    trainer.train()
    assert recorder.values("loss")[0] == pytest.approx(float(expected.loss / expected.num_positions), rel=1e-4)
    assert recorder.values("loss")[0] == pytest.approx(recorder.values("ce")[0] + 0.7 * recorder.values("kd")[0])


def test_figures_are_reported_every_log_steps_and_at_the_last_one(tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    make(tmp_path, tokenizer, recorder=recorder, max_steps=7, log_steps=3).train()
    assert recorder.steps("loss") == [1, 3, 6, 7]
    names = {"loss", "ce", "kd", "lr", "grad_norm", "tokens_per_second", "token_accuracy", "teacher_agreement"}
    assert set(recorder.points[0][1]) == names
    assert all(value > 0 for value in recorder.values("tokens_per_second"))


def test_the_learning_rate_warms_up_and_falls(tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    make(tmp_path, tokenizer, recorder=recorder, max_steps=4, warmup_steps=1, log_steps=1).train()
    assert recorder.values("lr") == pytest.approx([5e-3, 1e-2, 1e-2 * 2 / 3, 1e-2 / 3])


def test_the_validation_split_is_evaluated_at_eval_steps(tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = make(tmp_path, tokenizer, recorder=recorder, max_steps=5, eval_steps=2)
    trainer.train()
    assert recorder.steps("validation_loss") == [2, 4]
    assert set(trainer.evaluations) == {2, 4}
    assert 0 <= recorder.values("validation_token_accuracy")[0] <= 1


def test_copying_comes_first_with_figures_of_its_own_and_without_the_teacher(
    tokenizer: Path, teacher: Path, tmp_path: Path
) -> None:
    recorder = Recorder()
    warmup = {"steps": 4, "batch_size": 6, "learning_rate": 3e-3}
    make(tmp_path, tokenizer, teacher, recorder=recorder, copy_warmup=warmup, grad_accumulation=2, log_steps=2).train()
    assert recorder.steps("copy_loss") == [1, 2, 4]
    assert recorder.steps("loss") == [1, 2, 3]
    assert recorder.values("copy_kd") == [0.0, 0.0, 0.0]
    assert recorder.values("copy_lr") == pytest.approx([3e-3] * 3)


def test_a_stop_ends_the_training_at_the_next_step(tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder(stop_after=2)
    with pytest.raises(JobStopped, match="before step 3 of 100"):
        make(tmp_path, tokenizer, recorder=recorder, max_steps=100, log_steps=1).train()
    assert recorder.steps("loss") == [1, 2]


def test_a_loss_that_is_not_finite_ends_the_training_with_the_step_and_a_remedy(
    tokenizer: Path, tmp_path: Path
) -> None:
    trainer = make(tmp_path, tokenizer, max_steps=5)
    with torch.no_grad():
        student_of(trainer).head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 1 of 5 .*; lower training\.learning_rate"):
        trainer.train()


def test_training_on_few_pairs_learns_them(tokenizer: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    make(tmp_path, tokenizer, recorder=recorder, max_steps=60, learning_rate=2e-2).train()
    assert recorder.values("loss")[-1] < 0.5 * recorder.values("loss")[0]


def test_fp16_is_refused_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    training = Training(precision="fp16", allow_fp16=True)
    with pytest.raises(PrecisionError, match=r"there is no GPU here; use precision: auto, or .*resources: \{gpus: 1\}"):
        check_precision(training)
