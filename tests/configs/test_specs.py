"""Specs: what is accepted, what is refused with a remedy, and that neither needs torch or Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.load import SpecError, dump_spec, load_spec, parse_spec, validate_spec
from configs.paths import resolve_paths
from configs.schema.kinds import Detoxify, Distill, Pipeline

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
DISTILL = "kind: distill\ndataset: {name: a}\nteacher_model: {name: t}\nstudent_model: {name: s}\n"
EXPORT = "kind: export\nmodel: {name: a}\n"


def test_the_defaults_are_those_of_the_recipe() -> None:
    spec = parse_spec(DISTILL)
    assert isinstance(spec, Distill)
    assert (spec.dataset.prefix, spec.dataset.max_length) == ("detoxify: ", 96)
    assert (spec.dataset.split.train, spec.dataset.split.test, spec.dataset.split.seed) == (0.9, 0.1, 42)
    assert (spec.loss.temperature, spec.loss.kd_weight) == (2.0, 0.7)
    training = spec.training
    assert (training.batch_size, training.grad_accumulation, training.learning_rate, training.epochs) == (4, 2, 2e-4, 3)
    detoxify = parse_spec("kind: detoxify\nmodel: {name: m}\ninput: {path: a.csv}")
    assert isinstance(detoxify, Detoxify)
    assert (detoxify.decoding.num_beams, detoxify.decoding.no_repeat_ngram_size) == (4, 3)
    assert detoxify.decoding.length_penalty == 0.8
    assert detoxify.safety.blocklist == ("Click here", "Read more", "Visit")


def test_the_quickstart_loads_and_survives_being_written_out() -> None:
    spec = load_spec(QUICKSTART)
    assert isinstance(spec, Pipeline)
    assert validate_spec(dump_spec(spec)) == spec
    assert spec.order()[0] == "data"


EVALUATE = "kind: evaluate\ndataset: {name: a}\nsystems: {copy: {control: copy}}\njudges: {trained: j, %s}\n"


def test_the_embedded_gate_and_the_embedded_style_judge_are_two_models_but_one_named_model_is_refused() -> None:
    parse_spec(EVALUATE % "gate: embedded")
    parse_spec(EVALUATE % "gate: unitary/toxic-bert")
    same = "style: unitary/toxic-bert, gate: unitary/toxic-bert"
    with pytest.raises(SpecError, match=r"judges\.gate = .*is also the style judge .*allow_same_judge: true"):
        parse_spec(EVALUATE % same)
    parse_spec(EVALUATE % f"{same}, allow_same_judge: true")


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        (DISTILL + "los: {}", "los", "did you mean loss"),
        (DISTILL + "loss: {temperature: -1}", "loss.temperature", "greater than 0"),
        (DISTILL + "training: {epochs: three}", "training.epochs", "number"),
        (DISTILL + "training: {fp16: true}", "training", "bf16"),
        (DISTILL + "training: {precision: fp16}", "training.precision", "allow_fp16: true"),
        (DISTILL + "training: {precision: fp16, allow_fp16: true, deepspeed: zero2}", "training.precision", "remove"),
        (DISTILL + "training: {allow_fp16: 1}", "training.allow_fp16", "true or false"),
        (DISTILL + "teacher_cache: {dtype: fp32}", "teacher_cache.dtype", "fp16"),
        (DISTILL + "teacher_cache: {file: a}", "teacher_cache.file", "did you mean folder"),
        (DISTILL + "teacher_cache: bf16", "teacher_cache", "write true or false, or keys"),
        ("kind: prepare\ndataset: {name: a, split: {train: 0.9, test: 0.2}}", "dataset.split", "at most 1"),
        (EXPORT + "card: {license: CC BY 4.0}", "card.license", "write it like apache-2.0 or cc-by-4.0"),
        (EXPORT + "card: {language: English}", "card.language", "write it like en"),
        ("", "spec", "kind"),
        ("kind: distil", "kind", "did you mean distill"),
        ("kind: export\nkind: export", "line 2", "twice"),
        (
            "kind: pipeline\nsteps: {a: {kind: export, model: {name: '${steps.b.model}'}}}",
            "steps.a.model.name",
            "names no step",
        ),
    ],
)
def test_a_fault_names_field_and_remedy(text: str, field: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert any(fault.field.startswith(field) and remedy in str(fault) for fault in caught.value.faults), caught.value


def test_a_broken_reference_that_stands_for_keys_is_told_once() -> None:
    step = "kind: distill, dataset: {name: a, extra: '${steps.gone.rows}'}, teacher_model: {name: b}"
    with pytest.raises(SpecError) as caught:
        parse_spec(f"kind: pipeline\nsteps: {{a: {{{step}, student_model: {{name: c}}}}}}")
    assert [fault.field for fault in caught.value.faults] == ["steps.a.dataset.extra.name"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        load_spec(tmp_path / "gone.yaml")


def test_numbers_may_be_written_with_an_exponent() -> None:
    spec = parse_spec(DISTILL + "training: {learning_rate: 2e-4}")
    assert isinstance(spec, Distill)
    assert spec.training.learning_rate == 2e-4


def test_only_what_exists_becomes_an_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "dump.csv").touch()
    spec = parse_spec("kind: detoxify\nname: dump.csv\nmodel: {name: owner/model}\ninput: {path: dump.csv}")
    resolved = resolve_paths(spec, tmp_path)
    assert isinstance(resolved, Detoxify)
    assert resolved.input.path == str(tmp_path / "dump.csv")
    assert (resolved.name, resolved.model.name) == ("dump.csv", "owner/model")


def test_a_wrong_spec_is_answered_without_torch_or_ray() -> None:
    code = (
        "import sys\nfrom configs.load import SpecError, parse_spec\n"
        "try:\n    parse_spec('kind: x')\nexcept SpecError:\n    pass\n"
        "sys.exit(bool({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
