"""The model card, and the Transformers folder that a card is mostly written for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.kinds import Export
from configs.schema.models import ModelSource
from jobs import distill, export, finetune
from jobs.context import JobResult
from jobs.generation import load_generator
from jobs.model_card import CardError
from jobs.model_record import Data, ModelRecord, Origin, read_record, write_record
from jobs.models import load_model
from tests.jobs import test_distill, test_finetune, tiny, toy

METRICS = ("style", "content_source", "content_reference", "fluency", "joint")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Distilled in a few steps, with a record."""
    folder = tmp_path_factory.mktemp("student")
    tokenizer = tiny.make_tokenizer(folder / "tokenizer")
    pairs = tiny.write_pairs(folder / "pairs.csv", 60)
    source = tiny.tiny_source(tokenizer)
    finetune.run(test_finetune.make_spec(pairs, source), tiny.Recorder().context(folder / "teacher"))
    spec = test_distill.make_spec(pairs, folder / "teacher" / "model", source)
    distill.run(spec, tiny.Recorder().context(folder / "student"))
    return folder / "student" / "model"


def scores_folder(folder: Path, **changes: Any) -> Path:
    """What an evaluation of the controls and a student leaves."""
    summaries = [
        {"system": system, "metric": metric, "value": value, "low": value - 0.01, "high": value + 0.01, "count": 40}
        for system, value in (("copy", 0.2), ("student", 0.61))
        for metric in METRICS
    ]
    judges = {"style": {"name": "a style judge"}, "content": {"name": "an encoder"}, "fluency": {"name": "a GPT"}}
    data = {"num_rows": 40, "judges": judges, "summaries": summaries, "gate_is_style_judge": False, **changes}
    folder.mkdir(exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def run(model: Path, output: Path, **changes: Any) -> JobResult:
    spec = Export.model_validate({"model": {"name": str(model)}, **changes})
    return export.run(spec, tiny.Recorder().context(output))


def card(output: Path) -> Any:
    return ModelCard.load(output / "model" / "README.md")


def test_a_card_says_data_teacher_loss_limits_and_how_to_use_both_engines(student: Path, tmp_path: Path) -> None:
    run(student, tmp_path)
    text, record = card(tmp_path).text, read_record(student)
    assert record is not None
    assert record.teacher is not None
    assert record.data is not None
    assert f"pairs.csv; {record.data.num_train} sources to train on" in text
    assert f"Teacher: a model trained before ({record.teacher.parameters:,} parameters, SHA-256" in text
    assert f"Validation kd: {record.figures['validation_kd']:.4f}" in text
    assert "cross-entropy + 0.7 · T² · forward_kl between teacher and student, T = 2.0" in text
    assert "at most 16 tokens" in text
    assert "turn it into its opposite" in text
    assert "ctranslate2.Translator" in text
    assert "AutoModelForSeq2SeqLM" in text
    assert "'detoxify: ' + comment" in text
    assert "Not evaluated on a test split" in text


def test_a_student_made_of_its_teacher_says_so(student: Path, tmp_path: Path) -> None:
    record = read_record(student)
    assert record is not None
    copied = tmp_path / "copied"
    shutil.copytree(student, copied)
    write_record(copied, replace(record, parent=record.teacher))
    run(copied, tmp_path / "out")
    assert "Began with: the teacher's weights" in card(tmp_path / "out").text
    run(student, tmp_path / "other")
    assert "Began with: random weights" in card(tmp_path / "other").text


def test_a_card_and_the_published_record_hold_no_path_of_the_machine(student: Path, tmp_path: Path) -> None:
    run(student, tmp_path, card={"results": str(scores_folder(tmp_path / "scores"))})
    published = (tmp_path / "model" / "distox.json").read_text(encoding="utf-8")
    assert str(student.parents[2]) in (student / "distox.json").read_text(encoding="utf-8")
    assert str(student.parents[2]) not in card(tmp_path).content
    assert str(student.parents[2]) not in published
    assert '"name": "pairs.csv"' in published


def test_the_results_of_an_evaluation_stand_in_text_and_metadata_with_intervals_and_judges(
    student: Path, tmp_path: Path
) -> None:
    results = {"results": str(scores_folder(tmp_path / "scores")), "system": "student", "title": "A student"}
    run(student, tmp_path, card=results)
    made = card(tmp_path)
    assert "| **student** (this model) | 0.610 [0.600, 0.620] |" in made.text
    assert "| copy | 0.200 [0.190, 0.210] |" in made.text
    assert "style: a style judge, content: an encoder, fluency: a GPT" in made.text
    assert made.text.startswith("\n# A student")
    found = {item.metric_type: item for item in getattr(made.data, "eval_results", [])}
    assert set(found) == set(METRICS)
    assert found["joint"].metric_value == 0.61
    assert found["joint"].metric_args == {"low": 0.6, "high": 0.62, "rows": 40}


def test_results_without_a_row_for_the_model_stay_out_of_the_metadata(student: Path, tmp_path: Path) -> None:
    run(student, tmp_path, card={"results": str(scores_folder(tmp_path / "scores"))})
    assert "model-index" not in card(tmp_path).data.to_dict()
    assert "| student |" in card(tmp_path).text


def test_a_judge_in_both_roles_is_said_in_the_card(student: Path, tmp_path: Path) -> None:
    folder = scores_folder(tmp_path / "scores", gate_is_style_judge=True)
    run(student, tmp_path, card={"results": str(folder)})
    assert "style is flattered" in card(tmp_path).text


def test_the_license_is_unknown_unless_it_is_given(student: Path, tmp_path: Path) -> None:
    run(student, tmp_path / "none")
    assert card(tmp_path / "none").data.to_dict()["license"] == "unknown"
    assert "may bind users" in card(tmp_path / "none").text
    run(student, tmp_path / "given", card={"license": "apache-2.0", "language": "de"})
    assert card(tmp_path / "given").data.to_dict()["license"] == "apache-2.0"
    assert card(tmp_path / "given").data.to_dict()["language"] == "de"
    assert "apache-2.0, as stated" in card(tmp_path / "given").text


def test_hub_names_of_base_model_and_data_are_in_the_metadata(student: Path, tmp_path: Path) -> None:
    model = tmp_path / "model-of-hub-origin"
    model.mkdir()
    for file in student.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    data = Data("ScaDSAI/ParaDeHate", 42, "0" * 64, "1" * 64, 10, 2, 3)
    write_record(
        model,
        ModelRecord(kind="distill", prefix="x: ", max_length=32, data=data, parent=Origin("google-t5/t5-small")),
    )
    run(model, tmp_path)
    made = card(tmp_path)
    assert made.data.to_dict()["base_model"] == "google-t5/t5-small"
    assert made.data.to_dict()["datasets"] == ["ScaDSAI/ParaDeHate"]
    assert "Began with: google-t5/t5-small" in made.text


def test_a_model_without_a_record_has_a_card_that_says_what_is_unknown(copying_model: Path, tmp_path: Path) -> None:
    run(copying_model, tmp_path, prefix="mild: ", max_length=20)
    text = card(tmp_path).text
    assert "Data: unknown" in text
    assert "training isn't recorded" in text
    assert "`mild: ` and has at most 20 tokens" in text
    record = read_record(tmp_path / "model")
    assert record is not None
    assert (record.prefix, record.max_length) == ("mild: ", 20)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"summaries": []}', '{"summaries": [], "judges": {}}'])
def test_results_that_are_none_are_refused_before_anything_is_converted(
    student: Path, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "output").mkdir()
    if content is not None:
        (tmp_path / "scores" / "scores.json").write_text(content, encoding="utf-8")
    with pytest.raises(CardError, match=r"card\.results = .*give"):
        run(student, tmp_path / "output", card={"results": str(tmp_path / "scores")})
    assert list((tmp_path / "output").iterdir()) == []


def test_a_row_that_is_not_in_the_results_is_refused_with_those_that_are(student: Path, tmp_path: Path) -> None:
    results = {"results": str(scores_folder(tmp_path / "scores")), "system": "teacher"}
    with pytest.raises(CardError, match=r"card\.system = 'teacher': not in the results; they have copy, student"):
        run(student, tmp_path, card=results)


def test_a_transformers_folder_holds_the_same_weights_and_decodes_by_itself_as_distox_does(
    copying_model: Path, tmp_path: Path
) -> None:
    run(copying_model, tmp_path, format="transformers", max_length=48, decoding={"max_new_tokens": 16, "patience": 1})
    folder = tmp_path / "model"
    assert {file.name for file in folder.iterdir()} >= {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md", "distox.json")
    }
    ours, theirs = load_file(folder / "model.safetensors"), load_file(copying_model / "model.safetensors")
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    generator = load_generator(
        ModelSource(name=str(folder)),
        prefix=toy.PREFIX,
        max_length=48,
        decoding=Decoding(max_new_tokens=16, patience=1),
        safety=Safety(blocklist=()),
        engine=Engine(),
        num_threads=1,
    )
    texts = toy.sentences(20)
    outputs = [model.generate(**tokenizer(toy.PREFIX + text, return_tensors="pt"))[0] for text in texts]
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in outputs] == generator.generate(texts)


def test_a_bfloat16_folder_takes_half_the_bytes_and_can_be_trained_further_and_exported(
    copying_model: Path, tmp_path: Path
) -> None:
    run(copying_model, tmp_path / "half", format="transformers", quantization="bfloat16")
    half = tmp_path / "half" / "model"
    size = (half / "model.safetensors").stat().st_size
    assert size < 0.6 * (copying_model / "model.safetensors").stat().st_size
    assert load_model(ModelSource(name=str(half))).model.dtype == torch.float32
    run(half, tmp_path / "int8")
    assert (tmp_path / "int8" / "model" / "model.bin").is_file()
