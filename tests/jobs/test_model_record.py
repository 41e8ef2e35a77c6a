"""What a model remembers of its training, and what later uses make of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from configs.schema.inference import Decoding, RowInput
from configs.schema.kinds import Detoxify, Distill, Export
from configs.schema.models import ModelSource
from jobs import detoxify, distill, export, finetune, model_record, systems
from jobs.data import Pair, PairSplits, load_pairs
from jobs.digests import sha256_of
from jobs.model_record import (
    RECIPE,
    RECORD,
    InputForm,
    ModelRecord,
    RecordError,
    input_form,
    own_input_form,
    read_record,
    split_sha256,
    write_record,
)
from tests.jobs import test_distill, test_finetune, tiny


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.csv", 60)


@pytest.fixture(scope="module")
def teacher(pairs: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher")
    finetune.run(test_finetune.make_spec(pairs, tiny.tiny_source(tokenizer)), tiny.Recorder().context(output))
    return output / "model"


@pytest.fixture(scope="module")
def student(pairs: Path, tokenizer: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("student")
    spec = test_distill.make_spec(pairs, teacher, tiny.tiny_source(tokenizer))
    distill.run(spec, tiny.Recorder().context(output))
    return output / "model"


def remembered(folder: Path, **values: Any) -> ModelSource:
    """A folder that holds a record and nothing else."""
    write_record(folder, ModelRecord(kind="finetune", **values))
    return ModelSource(name=str(folder))


def test_a_trained_model_remembers_how_text_was_given_to_it_and_on_what_it_was_trained(
    teacher: Path, pairs: Path
) -> None:
    record = read_record(teacher)
    splits = load_pairs(tiny.tiny_dataset(pairs))
    assert record is not None
    assert (record.kind, record.prefix, record.max_length) == ("finetune", "detoxify: ", 16)
    assert record.weights_sha256 == sha256_of([teacher / "model.safetensors"])
    assert record.data is not None
    assert (record.data.name, record.data.split_seed) == (str(pairs), 42)
    assert (record.data.num_train, record.data.num_validation, record.data.num_test) == tuple(
        len(part) for part in (splits.train, splits.validation, splits.test)
    )
    assert record.data.split_sha256 == split_sha256(splits)
    assert record.data.test_sha256 == split_sha256(PairSplits((), (), splits.test))
    assert record.parent is None, "it was made on the spot"
    assert record.training is not None
    assert record.training["max_steps"] == 4
    assert record.figures["validation_loss"] > 0
    assert record.figures["parameters"] == record.parameters
    assert set(record.versions) == {"torch", "transformers", "tokenizers", "ctranslate2"}


def test_a_student_remembers_its_teacher_and_its_loss(student: Path, teacher: Path) -> None:
    record, taught = read_record(student), read_record(teacher)
    assert record is not None
    assert taught is not None
    assert record.kind == "distill"
    assert record.teacher is not None
    assert (record.teacher.name, record.teacher.sha256) == (str(teacher), taught.weights_sha256)
    assert record.teacher.parameters == taught.parameters
    assert record.loss is not None
    assert (record.loss["temperature"], record.loss["kd_weight"]) == (2.0, 0.7)


def test_a_student_of_the_teachers_layers_comes_from_the_teacher(pairs: Path, teacher: Path, tmp_path: Path) -> None:
    spec = Distill.model_validate(
        {
            "dataset": tiny.tiny_dataset(pairs),
            "teacher_model": {"name": str(teacher)},
            "student_model": {"from_teacher": {"encoder_layers": 1, "decoder_layers": 1}},
            "training": {"max_steps": 1},
        }
    )
    distill.run(spec, tiny.Recorder().context(tmp_path))
    record = read_record(tmp_path / "model")
    assert record is not None
    assert record.parent is not None
    assert record.parent == record.teacher


def test_a_model_trained_further_names_the_weights_it_began_with(pairs: Path, teacher: Path, tmp_path: Path) -> None:
    spec = test_finetune.make_spec(pairs, ModelSource(name=str(teacher)), max_steps=1)
    finetune.run(spec, tiny.Recorder().context(tmp_path))
    record = read_record(tmp_path / "model")
    assert record is not None
    assert record.parent is not None
    assert record.parent.sha256 == sha256_of([teacher / "model.safetensors"])
    assert record.weights_sha256 != record.parent.sha256


def test_an_export_remembers_all_that_its_model_does_and_where_it_came_from(student: Path, tmp_path: Path) -> None:
    export.run(Export(model=ModelSource(name=str(student))), tiny.Recorder().context(tmp_path))
    ours, trained = read_record(tmp_path / "model"), read_record(student)
    assert ours is not None
    assert trained is not None
    public = model_record.without_paths(trained)
    for name in (
        "kind",
        "prefix",
        "max_length",
        "parameters",
        "data",
        "parent",
        "teacher",
        "loss",
        "training",
        "figures",
    ):
        assert getattr(ours, name) == getattr(public, name)
    assert ours.exported_from is not None
    assert ours.exported_from.sha256 == trained.weights_sha256
    assert ours.weights_sha256 == sha256_of([tmp_path / "model" / "model.bin"])


def test_the_data_of_a_prepared_folder_are_named_after_what_they_were_prepared_from(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"origin": "owner/pairs"}), encoding="utf-8")
    dataset = tiny.tiny_dataset(tmp_path)
    assert model_record.data_of(dataset, PairSplits((), (), ())).name == "owner/pairs"


def test_the_split_digest_changes_with_a_text_and_with_the_split_it_is_in() -> None:
    one, two = Pair("a", ("b",)), Pair("c", ("d",))
    digests = [
        split_sha256(splits)
        for splits in (
            PairSplits((one,), (), (two,)),
            PairSplits((one, two), (), ()),
            PairSplits((one,), (two,), ()),
            PairSplits((Pair("a", ("b", "x")),), (), (two,)),
        )
    ]
    assert len(set(digests)) == 4
    assert digests[0] == split_sha256(PairSplits((one,), (), (two,)))


def test_what_a_spec_leaves_out_comes_from_the_model(tmp_path: Path) -> None:
    model = remembered(tmp_path, prefix="mild: ", max_length=48)
    assert input_form(model) == InputForm("mild: ", 48)
    assert input_form(model, max_length=32) == InputForm("mild: ", 32)


@pytest.mark.parametrize("values", [None, {}])
def test_a_model_that_remembers_nothing_is_used_as_in_the_recipe(tmp_path: Path, values: dict[str, Any] | None) -> None:
    model = ModelSource(name=str(tmp_path)) if values is None else remembered(tmp_path, **values)
    assert input_form(model) == RECIPE
    assert (RECIPE.prefix, RECIPE.max_length) == ("detoxify: ", 96)
    assert input_form(model, prefix="") == InputForm("", 96)


def test_a_model_made_on_the_spot_remembers_nothing(tokenizer: Path) -> None:
    assert model_record.record_of(tiny.tiny_source(tokenizer)) is None


def test_a_contradiction_is_done_and_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = remembered(tmp_path, prefix="mild: ", max_length=48)
    with caplog.at_level(logging.WARNING):
        assert input_form(model, prefix="", max_length=64) == InputForm("", 64)
    assert "trained with prefix 'mild: ' and is given ''" in caplog.messages[0]
    assert "at most 48 tokens and is given up to 64" in caplog.messages[1]


def test_what_agrees_with_the_model_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = remembered(tmp_path, prefix="mild: ", max_length=48)
    with caplog.at_level(logging.WARNING):
        input_form(model)
        input_form(model, prefix="mild: ", max_length=40)
        own_input_form(model, InputForm("mild: ", 96))
    assert caplog.messages == []


def test_an_evaluated_model_is_given_its_own_prefix_rather_than_the_datasets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = remembered(tmp_path, prefix="mild: ", max_length=48)
    with caplog.at_level(logging.WARNING):
        assert own_input_form(model, InputForm("other: ", 96)) == InputForm("mild: ", 48)
    assert "own prefix 'mild: ', not 'other: '" in caplog.messages[0]
    (tmp_path / RECORD).unlink()
    assert own_input_form(model, InputForm("other: ", 96)) == InputForm("other: ", 96)


def test_a_teacher_that_knows_another_prefix_is_told_in_the_log(
    pairs: Path, tokenizer: Path, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = test_distill.make_spec(pairs, teacher, tiny.tiny_source(tokenizer), max_steps=1)
    other = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"prefix": "likes "})})
    with caplog.at_level(logging.WARNING):
        distill.run(other, tiny.Recorder().context(tmp_path))
    assert any("trained with prefix 'detoxify: ' and is given 'likes '" in message for message in caplog.messages)


def loaded_with(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[dict[str, Any]]:
    """What ``load_generator`` is called with; the real one loads."""
    seen: list[dict[str, Any]] = []
    real = module.load_generator

    def load(model: ModelSource, **settings: Any) -> Any:
        seen.append(settings)
        return real(model, **settings)

    monkeypatch.setattr(module, "load_generator", load)
    return seen


def test_detoxify_gives_text_as_the_model_was_trained(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = loaded_with(monkeypatch, detoxify)
    spec = Detoxify(
        model=ModelSource(name=str(teacher)), input=RowInput(path="unused.csv"), decoding=Decoding(max_new_tokens=12)
    )
    assert (spec.prefix, spec.max_length) == (None, None)
    detoxify.Detoxifier.load(spec, num_threads=1)
    assert (seen[0]["prefix"], seen[0]["max_length"]) == ("detoxify: ", 16)


def test_detoxify_writes_the_same_with_the_prefix_left_out_and_named(teacher: Path) -> None:
    texts = [pair.source for pair in (Pair("he likes a damn plan", ()), Pair("they see the stupid cat", ()))]
    spec = Detoxify(
        model=ModelSource(name=str(teacher)), input=RowInput(path="unused.csv"), decoding=Decoding(max_new_tokens=12)
    )
    named = spec.model_copy(update={"prefix": "detoxify: ", "max_length": 16})
    one, other = (detoxify.Detoxifier.load(item, num_threads=1).rewrite(texts) for item in (spec, named))
    assert one == other


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"version": 2}',
        '{"version": 1}',
        '{"version": 1, "kind": "distill", "data": {"what": 1}}',
        '{"version": 1, "kind": "distill", "prefix": 7}',
        '{"version": 1, "kind": "distill", "max_length": "long"}',
    ],
)
def test_a_record_that_is_broken_or_of_another_version_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content, encoding="utf-8")
    with pytest.raises(RecordError, match=r"distox\.json.* again"):
        read_record(tmp_path)


def test_what_a_later_version_adds_to_a_record_is_ignored(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"version": 1, "kind": "distill", "prefix": "x", "more": 1}', encoding="utf-8")
    record = read_record(tmp_path)
    assert record is not None
    assert record.prefix == "x"


def test_the_cost_of_a_model_reads_the_record_of_its_folder(student: Path, tmp_path: Path) -> None:
    export.run(Export(model=ModelSource(name=str(student))), tiny.Recorder().context(tmp_path))
    record = read_record(student)
    assert record is not None
    assert systems.cost_of(ModelSource(name=str(tmp_path / "model")))[0] == record.parameters


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("t5-small", "t5-small"),
        ("google-t5/t5-small", "google-t5/t5-small"),
        ("/home/ada/models/student", "student"),
        ("/srv/storage/runs/r-1k10dp4r1s/a2/model", "r-1k10dp4r1s/a2/model"),
    ],
)
def test_others_read_a_folder_by_its_name_or_by_its_run(name: str, public: str) -> None:
    record = ModelRecord(kind="distill", teacher=model_record.Origin(name), parent=model_record.Origin(name))
    assert model_record.without_paths(record).teacher == model_record.Origin(public)
    assert model_record.without_paths(record).parent == model_record.Origin(public)
