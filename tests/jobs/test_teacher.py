"""The teacher stays frozen beside the student; states that are kept are those of a fresh run, in and out of a job."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5ForConditionalGeneration

from configs.schema.kinds import Distill
from jobs import distill, teacher_cache
from jobs.collation import TokenRow, collate
from jobs.context import JobStopped
from jobs.data import load_pairs
from jobs.losses import Distillation
from jobs.student import Student
from jobs.teacher import NotFinite, Recording, Teacher, fingerprint, keep_states
from jobs.teacher_cache import SUFFIX, StateCache
from tests.jobs.test_distill import make_spec
from tests.jobs.test_student import PAIRS, ROWS, forward, make_t5
from tests.jobs.tiny import Recorder, make_model_folder, make_tokenizer, tiny_source, write_pairs

NUMBERED = dict(enumerate(ROWS))
FP16 = Recording("detoxify: ", 96, torch.float16)


def keep(
    teacher: Teacher, folder: Path, *, recording: Recording = FP16, recorder: Recorder | None = None, **rows: Any
) -> Recorder:
    told = recorder or Recorder()
    numbered = rows.get("rows", NUMBERED)
    keep_states(teacher, numbered, StateCache(folder), recording, report=told.report, should_stop=told.should_stop)
    return told


def test_the_teacher_has_no_dropout_and_no_gradient_when_the_student_trains() -> None:
    frozen = make_t5(1, d_model=24)
    teacher = Teacher(frozen)
    student = Student(make_t5(), distillation=Distillation(2.0, 1.0))
    student.train()
    batch = collate(range(4), PAIRS)
    first, second = teacher.project(batch), teacher.project(batch)
    assert torch.equal(first.hidden, second.hidden)
    torch.autograd.backward(forward(student, batch, first))
    assert not frozen.training
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert not any(parameter is weight for parameter in student.parameters() for weight in frozen.parameters())


@pytest.mark.parametrize("kept_as", [torch.float16, torch.bfloat16])
def test_kept_states_are_those_of_a_fresh_run_in_any_mixture_of_rows(kept_as: torch.dtype, tmp_path: Path) -> None:
    keeping = Teacher(make_t5(1))
    keep(keeping, tmp_path, recording=Recording("", 96, kept_as))
    for rows in ([3, 0, 2, 1], [2], []):
        batch = collate(rows, PAIRS)
        kept, fresh = keeping.project(batch), Teacher(make_t5(1)).project(batch)
        assert kept.hidden.dtype == torch.float32
        torch.testing.assert_close(kept.hidden, fresh.hidden, rtol=torch.finfo(kept_as).eps, atol=1e-6)
        assert torch.equal(kept.weight, fresh.weight)


def test_the_body_is_let_go_when_all_states_are_kept(tmp_path: Path) -> None:
    teacher = Teacher(make_t5(1))
    keep(teacher, tmp_path)
    assert not any(isinstance(value, torch.nn.Module) for value in vars(teacher).values())
    with pytest.raises(AssertionError, match="the body was let go"):
        teacher.run(collate([0], PAIRS))


def test_rows_that_are_there_are_not_made_again_and_new_ones_are_added(tmp_path: Path) -> None:
    first = keep(Teacher(make_t5(1)), tmp_path, rows={0: ROWS[0], 1: ROWS[1]})
    second = keep(Teacher(make_t5(1)), tmp_path)
    assert first.values("teacher_cache_rows") == [0, 2]
    assert second.values("teacher_cache_rows") == [2, 4]
    files = set(tmp_path.iterdir())
    assert keep(Teacher(make_t5(1)), tmp_path, rows={9: ROWS[1]}).values("teacher_cache_rows") == [1]
    assert set(tmp_path.iterdir()) == files, "a row's number doesn't matter"


@pytest.mark.parametrize(
    "other",
    [
        Recording("rewrite: ", 96, torch.float16),
        Recording("detoxify: ", 64, torch.float16),
        Recording("detoxify: ", 96, torch.bfloat16),
    ],
    ids=["prefix", "max_length", "dtype"],
)
def test_what_a_state_depends_on_is_in_its_rows_hash(other: Recording) -> None:
    mine = FP16.hash_rows(NUMBERED, torch.float32)
    assert len(set(mine.values())) == 4
    assert mine == FP16.hash_rows(NUMBERED, torch.float32)
    assert not set(mine.values()) & set(other.hash_rows(NUMBERED, torch.float32).values())
    assert not set(mine.values()) & set(FP16.hash_rows(NUMBERED, torch.bfloat16).values())


def test_the_border_between_source_and_target_and_the_version_of_transformers_are_in_the_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = TokenRow((5, 1), (6, 1)), TokenRow((5,), (1, 6, 1))
    rows = FP16.hash_rows({0: one, 1: other}, torch.float32)
    assert rows[0] != rows[1]
    monkeypatch.setattr("transformers.__version__", "0")
    assert rows[0] != FP16.hash_rows({0: one}, torch.float32)[0]


def test_a_teacher_is_known_by_its_weights_and_config_and_by_nothing_else(tmp_path: Path) -> None:
    model = make_t5(1)
    model.save_pretrained(tmp_path)
    moved: Any = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert fingerprint(moved) == fingerprint(model)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        next(changed.encoder.parameters())[7, 3] += 1e-6
    assert fingerprint(changed) != fingerprint(model)
    changed = copy.deepcopy(model)
    changed.config.scale_decoder_outputs = False
    assert fingerprint(changed) != fingerprint(model)


@pytest.mark.parametrize(
    ("value", "message"), [(1e6, r"too large for float16; use dtype: bf16"), (float("nan"), "bro")]
)
def test_a_state_that_fp16_cannot_hold_is_refused_with_the_way_out(value: float, message: str, tmp_path: Path) -> None:
    def make() -> Teacher:
        model = make_t5(1)
        with torch.no_grad():
            model.decoder.final_layer_norm.weight.mul_(value)
        return Teacher(model)

    with pytest.raises(NotFinite, match=message):
        keep(make(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    if value == 1e6:
        keep(make(), tmp_path, recording=Recording("", 96, torch.bfloat16))
        assert len(list(tmp_path.iterdir())) == 1


def test_a_stop_keeps_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.teacher.BATCH_TOKENS", 1)
    with pytest.raises(JobStopped, match="states of 2 of 4 rows"):
        keep(Teacher(make_t5(1)), tmp_path, recorder=Recorder(stop_after=3))
    assert keep(Teacher(make_t5(1)), tmp_path).values("teacher_cache_rows") == [2, 3, 4]


def test_many_states_become_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.teacher.BATCH_TOKENS", 1)
    monkeypatch.setattr("jobs.teacher.FILE_BYTES", 1)
    teacher = Teacher(make_t5(1))
    keep(teacher, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    fresh = Teacher(make_t5(1)).project(collate([2, 3], PAIRS)).hidden
    torch.testing.assert_close(teacher.project(collate([2, 3], PAIRS)).hidden, fresh, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    tokenizer = make_tokenizer(folder / "tokenizer")
    for seed in (1, 2):
        make_model_folder(folder / f"teacher{seed}", tokenizer, hidden_size=24, seed=seed)
    write_pairs(folder / "pairs.csv", 40)
    return folder


def spec(folder: Path, cache: object, *, teacher: str = "teacher1", **training: Any) -> Distill:
    plain = make_spec(folder / "pairs.csv", folder / teacher, tiny_source(folder / "tokenizer"), **training)
    return Distill.model_validate({**dict(plain), "teacher_cache": cache})


def run(spec: Distill, output: Path, cache: Path | None = None) -> Recorder:
    recorder = Recorder()
    distill.run(spec, recorder.context(output, cache=cache))
    return recorder


@pytest.mark.parametrize("form", [True, {"dtype": "bf16"}], ids=["fp16", "bf16"])
def test_a_distillation_from_kept_states_has_the_divergence_of_a_live_one(
    form: object, folder: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_steps": 6, "log_steps": 1}
    live = run(spec(folder, False, **settings), tmp_path / "live")
    kept = run(spec(folder, form, **settings), tmp_path / "kept", tmp_path / "cache")
    assert live.values("teacher_cache_rows") == []
    assert kept.values("kd") == pytest.approx(live.values("kd"), rel=1e-3)
    assert kept.values("kd") != live.values("kd")
    assert kept.values("validation_kd") == pytest.approx(live.values("validation_kd"), rel=1e-3)


def test_a_second_run_with_the_same_teacher_runs_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"epochs": 2.0, "max_steps": None}
    first = run(spec(folder, True, seed=1, **settings), tmp_path / "1", tmp_path / "cache")
    monkeypatch.setattr(Teacher, "run", None)
    second = run(spec(folder, True, seed=2, **settings), tmp_path / "2", tmp_path / "cache")
    assert first.values("teacher_cache_rows")[0] == 0
    assert second.values("teacher_cache_rows") == first.values("teacher_cache_rows")[-1:]


def test_a_run_tells_in_the_end_for_how_many_rows_its_teacher_worked(folder: Path, tmp_path: Path) -> None:
    made: list[float | None] = []
    for seed, cached in ((1, True), (2, True), (1, False)):
        context = Recorder().context(tmp_path / f"{seed}{cached}", cache=tmp_path / "cache")
        result = distill.run(spec(folder, cached, seed=seed, epochs=1.0, max_steps=None), context)
        figures = {summary.metric: summary.value for summary in result.summaries}
        made.append(figures.get("teacher_rows_made"))
    pairs = load_pairs(spec(folder, True).dataset)
    assert made == [len(pairs.train) + len(pairs.validation), 0, None]


def test_another_teacher_takes_nothing_of_the_first(folder: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        found = run(spec(folder, True, teacher=f"teacher{number}"), tmp_path / str(number), tmp_path / "cache")
        assert found.values("teacher_cache_rows")[0] == 0
    assert len(list((tmp_path / "cache" / "teacher-cache").iterdir())) == 2


def test_only_rows_that_the_training_sees_are_made(folder: Path, tmp_path: Path) -> None:
    settings = spec(folder, True, max_steps=2, batch_size=3)
    splits = load_pairs(settings.dataset)
    found = run(settings, tmp_path / "out", tmp_path / "cache")
    assert found.values("teacher_cache_rows")[-1] == 6 + len(splits.validation) < len(splits.train)


def test_without_a_place_that_outlives_the_run_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    run(spec(folder, True), tmp_path / "out")
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["model"]


def test_a_folder_of_ones_own_is_used(folder: Path, tmp_path: Path) -> None:
    run(spec(folder, {"folder": str(tmp_path / "mine")}), tmp_path / "out", tmp_path / "cache")
    assert len(list((tmp_path / "mine").rglob(f"*{SUFFIX}"))) == 1
    assert not (tmp_path / "cache").exists()


def test_two_runs_that_fill_the_cache_at_once_are_both_right(folder: Path, tmp_path: Path) -> None:
    racing, cache = spec(folder, True), tmp_path / "cache"
    real_find = teacher_cache.StateCache.find
    others: list[Recorder] = []
    looks: list[int] = []

    def find(self: StateCache, wanted: Any) -> list[str]:
        names = real_find(self, wanted)
        looks.append(len(names))
        if len(looks) == 1:
            # The other run comes between this one's look and its writing.
            others.append(run(racing, tmp_path / "other", cache))
        return names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_cache.StateCache, "find", find)
        mine = run(racing, tmp_path / "mine", cache)
    assert mine.values("loss") == others[0].values("loss")
    assert mine.values("teacher_cache_rows")[0] == others[0].values("teacher_cache_rows")[0] == 0
