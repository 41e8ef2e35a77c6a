"""Students copied from their teacher: which layers, and that they are the teacher's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.load import SpecError, validate_spec
from configs.schema.kinds import Distill
from configs.schema.models import FromTeacher, Layers, ModelSource, Shape, StudentSource
from jobs import distill
from jobs.losses import IGNORED_LABEL
from jobs.models import LoadedModel, ModelError, load_model, load_tokenizer, make_model
from jobs.shrinking import shrink, spread
from tests.jobs.test_distill import make_spec
from tests.jobs.tiny import Recorder, make_model_folder, make_tokenizer, tiny_source, write_pairs

DEEP = Shape(hidden_size=16, layers=Layers(encoder=5, decoder=4), ffn_size=32, attention_heads=2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def teacher(tokenizer: Path) -> LoadedModel:
    torch.manual_seed(1)
    loaded = load_tokenizer(str(tokenizer))
    return LoadedModel(make_model(DEEP, loaded), loaded)


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [(6, 12, [0, 2, 4, 7, 9, 11]), (3, 12, [0, 6, 11]), (1, 12, [0]), (2, 2, [0, 1]), (4, 4, [0, 1, 2, 3])],
)
def test_layers_are_spread_evenly_with_both_ends(count: int, total: int, expected: list[int]) -> None:
    assert spread(count, total) == expected


def logits(model: LoadedModel, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = model.model.config.vocab_size
    source, target = (torch.randint(3, size, (2, 7), generator=generator) for _ in range(2))
    with torch.no_grad():
        found: torch.Tensor = model.model(input_ids=source, labels=target.clamp(min=IGNORED_LABEL)).logits
    return found


def test_all_layers_make_the_teacher_again(teacher: LoadedModel) -> None:
    same = shrink(teacher, FromTeacher(encoder_layers=5, decoder_layers=4))
    assert torch.equal(logits(same), logits(teacher))


def test_a_student_has_the_chosen_layers_and_everything_else_of_its_teacher(teacher: LoadedModel) -> None:
    student = shrink(teacher, FromTeacher(encoder_layers=3, decoder_layers=2))
    ours, theirs = student.model.state_dict(), teacher.model.state_dict()
    for new, old in ((0, 0), (1, 2), (2, 4)):
        for name in ("layer.0.SelfAttention.q.weight", "layer.1.DenseReluDense.wi.weight"):
            assert torch.equal(ours[f"encoder.block.{new}.{name}"], theirs[f"encoder.block.{old}.{name}"])
    assert torch.equal(
        ours["decoder.block.1.layer.2.layer_norm.weight"], theirs["decoder.block.3.layer.2.layer_norm.weight"]
    )
    assert torch.equal(ours["shared.weight"], theirs["shared.weight"])
    assert student.model.lm_head.weight is student.model.shared.weight, "still tied"
    assert student.tokenizer is teacher.tokenizer
    assert torch.isfinite(logits(student)).all()


def test_the_teacher_is_not_trained_with_its_student(teacher: LoadedModel) -> None:
    before = teacher.model.shared.weight.clone()
    student = shrink(teacher, FromTeacher(encoder_layers=1, decoder_layers=1))
    with torch.no_grad():
        student.model.shared.weight.add_(1.0)
    assert torch.equal(teacher.model.shared.weight, before)


def test_more_layers_than_the_teacher_has_are_refused(teacher: LoadedModel) -> None:
    with pytest.raises(ModelError, match="decoder_layers is 5, and the teacher has 4; give at most 4"):
        shrink(teacher, FromTeacher(encoder_layers=1, decoder_layers=5))


def test_distill_makes_and_trains_such_a_student(tokenizer: Path, tmp_path: Path) -> None:
    make_model_folder(tmp_path / "teacher", tokenizer)
    pairs = write_pairs(tmp_path / "pairs.csv", 40)
    plain = make_spec(pairs, tmp_path / "teacher", tiny_source(tokenizer), max_steps=2)
    source = StudentSource(from_teacher=FromTeacher(encoder_layers=1, decoder_layers=1))
    distill.run(plain.model_copy(update={"student_model": source}), Recorder().context(tmp_path / "out"))
    student = load_model(ModelSource(name=str(tmp_path / "out" / "model")))
    assert (student.model.config.num_layers, student.model.config.num_decoder_layers) == (1, 1)


def test_from_teacher_stands_alone_and_only_at_a_student() -> None:
    layers = {"encoder_layers": 2, "decoder_layers": 1}
    spec = {"kind": "distill", "dataset": {"name": "x"}, "teacher_model": {"name": "t"}}
    checked = validate_spec({**spec, "student_model": {"from_teacher": layers}})
    assert isinstance(checked, Distill)
    with pytest.raises(SpecError, match="beside from_teacher"):
        validate_spec({**spec, "student_model": {"from_teacher": layers, "name": "t5-small"}})
    with pytest.raises(SpecError, match="from_teacher"):
        validate_spec({"kind": "finetune", "dataset": {"name": "x"}, "model": {"from_teacher": layers}})
