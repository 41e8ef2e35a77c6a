"""Style judges: the embedded one on plain cases, the classifier's label and its sigmoid."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.judges.loading import JudgeError
from jobs.judges.style import ClassifierStyle, EmbeddedStyle, load_style
from tests.jobs.judging import TEXTS, classifier_folder

LABELS = ("severe_toxic", "Toxic", "insult")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(
        tmp_path_factory.mktemp("judge") / "style", LABELS, problem_type="multi_label_classification"
    )


def test_the_embedded_judge_tells_insults_from_plain_talk() -> None:
    judge = load_style("embedded")
    rude = judge.toxicity(["you are a stupid idiot", "what a load of shit", "shut the fuck up"])
    plain = judge.toxicity(["the weather is nice today", "please close the door", "i don't agree with you"])
    assert rude.min() > 0.9
    assert plain.max() < 0.3


def test_the_embedded_judge_scores_as_it_was_published() -> None:
    scores = EmbeddedStyle().toxicity(["you are a stupid idiot", "the weather is nice"])
    np.testing.assert_allclose(scores, [0.99999999, 0.02400181], atol=1e-6)


def test_the_embedded_judge_is_named_embedded() -> None:
    judge = load_style("embedded")
    assert "embedded" in judge.name
    assert judge.identity.startswith("alt-profanity-check==")


def test_the_score_is_the_sigmoid_of_the_toxic_logit_whatever_its_place_and_case(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        expected.append(float(torch.sigmoid(logits[1])))
    np.testing.assert_allclose(ClassifierStyle(str(folder)).toxicity(TEXTS), expected, atol=1e-6)
    assert np.std(expected) > 0.01


def test_a_text_scores_the_same_beside_longer_ones(folder: Path) -> None:
    judge = load_style(str(folder))
    alone = np.array([judge.toxicity([text])[0] for text in TEXTS])
    np.testing.assert_allclose(judge.toxicity(TEXTS), alone, atol=1e-6)


def test_a_text_longer_than_the_model_takes_is_judged_by_its_beginning(folder: Path) -> None:
    judge = load_style(str(folder))
    long = "go home now " * 40
    assert judge.toxicity([long])[0] == pytest.approx(judge.toxicity([long[:360]])[0])


@pytest.mark.parametrize("kind", ["embedded", "classifier"])
def test_a_blank_text_offends_nobody(kind: str, folder: Path) -> None:
    judge = load_style("embedded" if kind == "embedded" else str(folder))
    assert judge.toxicity(["", " \n"]).tolist() == [0, 0]
    assert judge.toxicity([]).shape == (0,)


def test_a_classifier_without_the_label_is_refused_with_the_labels_it_has(tmp_path: Path) -> None:
    other = classifier_folder(tmp_path / "judge", ("hate", "offensive"), problem_type="multi_label_classification")
    with pytest.raises(JudgeError, match=r"no label 'toxic'; its labels are hate, offensive"):
        load_style(str(other))


def test_a_classifier_whose_labels_exclude_one_another_is_refused(tmp_path: Path) -> None:
    other = classifier_folder(tmp_path / "judge", ("neutral", "toxic"), problem_type="single_label_classification")
    with pytest.raises(JudgeError, match="single-label"):
        load_style(str(other))


def test_a_classifier_that_does_not_say_what_it_is_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = classifier_folder(tmp_path / "judge", ("neutral", "toxic"))
    with caplog.at_level(logging.WARNING, "jobs.judges.style"):
        load_style(str(other))
    assert "multi-label" in caplog.text


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"judges\.style = .* has no config\.json"):
        load_style(str(tmp_path))


def test_a_path_that_is_not_there_is_refused_without_asking_the_hub(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="no folder"):
        load_style(str(tmp_path / "nowhere"))


def test_a_hub_name_without_a_network_names_the_embedded_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.judges.loading.is_hub_reachable", lambda: False)
    with pytest.raises(JudgeError, match=r"hub can't be reached; .*embedded"):
        load_style("unitary/toxic-bert")


def test_broken_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    other = classifier_folder(tmp_path / "judge", LABELS)
    (other / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(JudgeError, match="can't be loaded") as caught:
        load_style(str(other))
    assert "\n" not in str(caught.value)


def test_the_identity_of_a_folder_is_that_of_its_weights(folder: Path, tmp_path: Path) -> None:
    same = classifier_folder(tmp_path / "copy", LABELS, problem_type="multi_label_classification")
    assert load_style(str(same)).identity == load_style(str(folder)).identity
    (same / "model.safetensors").write_bytes(
        (classifier_folder(tmp_path / "other", ("toxic",)) / "model.safetensors").read_bytes()
    )
    (same / "config.json").write_bytes((tmp_path / "other" / "config.json").read_bytes())
    assert load_style(str(same)).identity != load_style(str(folder)).identity
