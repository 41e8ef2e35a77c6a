"""The specs that come with distox: each loads, survives being written out, and says what the published recipe says."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.load import dump_spec, load_spec, validate_spec
from configs.schema.inference import Decoding, Safety
from configs.schema.kinds import Detoxify, Distill, Evaluate, Finetune, Pipeline, Prepare
from configs.schema.models import Layers, Shape

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*.yaml"))
BASE = Shape(
    hidden_size=768, layers=Layers(encoder=12, decoder=12), ffn_size=3072, attention_heads=12, vocab_size=32_128
)
SMALL = Shape(hidden_size=512, layers=Layers(encoder=6, decoder=6), ffn_size=2048, attention_heads=8, vocab_size=32_128)


@pytest.mark.parametrize("room", ["paradehate", "paradetox"])
def test_each_data_set_has_a_spec_of_each_kind(room: str) -> None:
    kinds = {name: load_spec(FOLDER / room / f"{name}.yaml").kind for name in (*SINGLE, *PIPELINES)}
    assert kinds == {**dict(zip(SINGLE, SINGLE, strict=True)), **dict.fromkeys(PIPELINES, "pipeline")}


PIPELINES = ("kd", "sequence_kd")
SINGLE = ("prepare", "finetune", "distill", "detoxify", "evaluate")


@pytest.mark.parametrize("file", FILES)
def test_a_packaged_spec_survives_being_written_out(file: str) -> None:
    spec = load_spec(FOLDER / file)
    assert validate_spec(dump_spec(spec)) == spec


@pytest.mark.parametrize("file", FILES)
def test_a_packaged_spec_says_at_its_top_how_it_is_run(file: str) -> None:
    lines = (FOLDER / file).read_text("utf-8").splitlines()
    header = "\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))])
    assert f"configs/{file}" in header
    # Those at the top need nothing but distox.
    assert "/" not in file or "Needs" in header


def test_the_teacher_is_t5_base_of_the_published_shape() -> None:
    spec = load_spec(FOLDER / "paradehate" / "finetune.yaml")
    assert isinstance(spec, Finetune)
    assert (spec.model.name, spec.model.shape) == ("t5-base", BASE)


def test_the_student_is_t5_small_of_the_published_shape() -> None:
    spec = load_spec(FOLDER / "paradehate" / "distill.yaml")
    assert isinstance(spec, Distill)
    assert (spec.student_model.name, spec.student_model.shape) == ("t5-small", SMALL)
    assert spec.teacher_model.shape == BASE
    assert (spec.loss.temperature, spec.loss.kd_weight) == (2.0, 0.7)


def test_the_pipeline_trains_and_scores_what_the_single_specs_do() -> None:
    pipeline = load_spec(FOLDER / "paradehate" / "kd.yaml")
    assert isinstance(pipeline, Pipeline)
    teacher, student, control = (pipeline.steps[name] for name in ("teacher", "student", "student_without_kd"))
    scores = pipeline.steps["scores"]
    alone = {name: load_spec(FOLDER / "paradehate" / f"{name}.yaml") for name in SINGLE}
    assert isinstance(teacher, Finetune)
    assert isinstance(alone["finetune"], Finetune)
    assert (teacher.model, teacher.training) == (alone["finetune"].model, alone["finetune"].training)
    assert isinstance(student, Distill)
    assert isinstance(alone["distill"], Distill)
    assert student.student_model == alone["distill"].student_model
    assert (student.loss, student.training) == (alone["distill"].loss, alone["distill"].training)
    assert isinstance(control, Finetune)
    student_model = student.student_model.model_dump(exclude={"from_teacher"})
    assert (control.model.model_dump(), control.training) == (student_model, student.training)
    assert isinstance(scores, Evaluate)
    assert isinstance(alone["evaluate"], Evaluate)
    assert (scores.judges.style, scores.judges.content, scores.judges.fluency) == (
        "unitary/toxic-bert",
        "roberta-large",
        "gpt2",
    )
    assert (scores.decoding, scores.safety) == (alone["evaluate"].decoding, alone["evaluate"].safety)
    assert {item.control for item in scores.systems.values() if item.control} == {"copy", "delete", "reference"}


@pytest.mark.parametrize("room", ["paradehate", "paradetox"])
def test_the_two_students_of_sequence_level_distillation_differ_in_nothing_but_what_joins(room: str) -> None:
    pipeline = load_spec(FOLDER / room / "sequence_kd.yaml")
    alone = load_spec(FOLDER / room / "kd.yaml")
    assert isinstance(pipeline, Pipeline)
    assert isinstance(alone, Pipeline)
    student, control, augment = (pipeline.steps[name] for name in ("student", "student_without_extra", "augment"))
    assert isinstance(student, Distill)
    assert isinstance(augment, Detoxify)
    assert student.dataset.extra is not None
    assert student.dataset.extra.name == "${steps.augment.rows}"
    without = student.dataset.model_copy(update={"extra": None})
    assert student.model_copy(update={"dataset": without}) == control
    assert augment.keep is not None
    assert augment.keep.gate == "${steps.data.judges}"
    for step in ("data", "teacher", "student"):
        assert training_of(pipeline.steps[step]) == training_of(alone.steps[step])


def training_of(step: object) -> object:
    return step.training if isinstance(step, (Finetune, Distill)) else step


@pytest.mark.parametrize("name", ["prepare", "finetune", "distill", "evaluate"])
def test_every_spec_of_the_recipe_splits_the_same_data_alike(name: str) -> None:
    spec = load_spec(FOLDER / "paradehate" / f"{name}.yaml")
    assert isinstance(spec, (Prepare, Finetune, Distill, Evaluate))
    dataset = spec.dataset
    assert (dataset.name, dataset.source_column, dataset.target_column) == (
        "ScaDSAI/ParaDeHate",
        "Original Text",
        "Converted Text",
    )
    assert (dataset.split.train, dataset.split.test, dataset.split.seed) == (0.9, 0.1, 42)
    assert (dataset.prefix, dataset.max_length) == ("detoxify: ", 96)


def test_what_the_recipe_writes_out_is_also_the_default() -> None:
    spec = load_spec(FOLDER / "paradehate" / "detoxify.yaml")
    assert isinstance(spec, Detoxify)
    assert (spec.decoding, spec.safety) == (Decoding(), Safety())
