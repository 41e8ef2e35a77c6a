"""The panel: every row's values against the judges asked one by one, and who may sit on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.schema.inference import Judges
from jobs.context import JobStopped
from jobs.data import Pair
from jobs.judges import panel as panel_module
from jobs.judges.fluency import FluencyJudge
from jobs.judges.loading import JudgeError
from jobs.judges.panel import Panel, is_gate_also_judge, judge, load_panel
from tests.jobs.judging import WordContent, WordStyle, classifier_folder, language_model_folder

TEST = (
    Pair("you are a silly goose", ("you are not clever", "you are not very clever")),
    Pair("go home", ("please go home",)),
    Pair("this plan is bad", ("the plan could be better",)),
)
OUTPUTS = {
    "copy": [pair.source for pair in TEST],
    "model": ["you are not clever", "", "this plan is bad"],
    "other": ["you are not very clever", "please go home", "the plan"],
}


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges")
    language_model_folder(folder / "fluency")
    return folder


@pytest.fixture
def seats(language_model: Path) -> Panel:
    return Panel(WordStyle("silly", "bad"), WordContent(), FluencyJudge(str(language_model / "fluency")))


def never() -> bool:
    return False


def ignore(number: int) -> None:
    pass


def test_every_value_is_what_the_judges_say_of_that_row_alone(seats: Panel) -> None:
    scores = judge(seats, TEST, OUTPUTS, should_stop=never, done=ignore)
    assert list(scores) == list(OUTPUTS)
    for name, texts in OUTPUTS.items():
        for row, (text, pair) in enumerate(zip(texts, TEST, strict=True)):
            got = {metric: column[row] for metric, column in scores[name].means.items()}
            style = 1 - seats.style.toxicity([text])[0]
            content = max(seats.content.score([text] * len(pair.targets), pair.targets))
            ours, theirs = (seats.fluency.likelihood([one]).perplexity[0] for one in (text, pair.source))
            fluency = min(1.0, theirs / ours) if text else 0.0
            expected = {
                "style": style,
                "style_share": float(style > 0.5),
                "content_source": seats.content.score([text], [pair.source])[0],
                "content_reference": content,
                "fluency": fluency,
                "inverse_perplexity": 1 / ours,
                "joint": style * content * fluency,
            }
            assert got == pytest.approx(expected, rel=1e-4), (name, row)


def test_a_blank_output_has_neither_content_nor_fluency_and_no_joint(seats: Panel) -> None:
    model = judge(seats, TEST, OUTPUTS, should_stop=never, done=ignore)["model"]
    row = {metric: column[1] for metric, column in model.means.items()}
    assert row["style"] == 1
    assert row["content_source"] == row["content_reference"] == row["fluency"] == row["joint"] == 0
    assert row["inverse_perplexity"] == 0


def test_without_a_reference_content_is_measured_against_the_source(seats: Panel) -> None:
    bare = (Pair("go home", ()), TEST[0])
    scores = judge(seats, bare, {"one": ["home", TEST[0].source]}, should_stop=never, done=ignore)["one"]
    assert scores.content_reference.tolist() == [0.5, max(seats.content.score([TEST[0].source] * 2, TEST[0].targets))]
    assert scores.content_source.tolist() == [0.5, 1]


def test_a_copy_has_full_content_and_fluency_against_its_source(seats: Panel) -> None:
    copy = judge(seats, TEST, OUTPUTS, should_stop=never, done=ignore)["copy"].means
    assert copy["content_source"].tolist() == [1, 1, 1]
    assert copy["fluency"].tolist() == [1, 1, 1]


def test_a_text_that_systems_share_is_judged_once(seats: Panel) -> None:
    judge(seats, TEST, {**OUTPUTS, "again": OUTPUTS["model"]}, should_stop=never, done=ignore)
    assert isinstance(seats.style, WordStyle)
    assert max(Counter(seats.style.asked).values()) == 1


def test_blocks_of_rows_change_nothing(seats: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge(seats, TEST, OUTPUTS, should_stop=never, done=ignore)
    monkeypatch.setattr(panel_module, "ROWS_IN_BLOCK", 2)
    seen: list[int] = []
    parts = judge(seats, TEST, OUTPUTS, should_stop=never, done=seen.append)
    assert seen == [2, 3]
    for name in OUTPUTS:
        for metric, column in whole[name].means.items():
            np.testing.assert_allclose(parts[name].means[metric], column, rtol=1e-5)


def test_it_stops_between_blocks(seats: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel_module, "ROWS_IN_BLOCK", 1)
    seen: list[int] = []
    with pytest.raises(JobStopped):
        judge(seats, TEST, OUTPUTS, should_stop=lambda: len(seen) == 2, done=seen.append)
    assert seen == [1, 2]


def test_the_embedded_panel_is_named_embedded(language_model: Path) -> None:
    seats = load_panel(Judges(trained=str(language_model)), TEST)
    assert all("embedded" in seat.name for seat in (seats.style, seats.content, seats.fluency))


def test_a_gate_that_is_the_style_judge_under_another_path_is_refused(language_model: Path, tmp_path: Path) -> None:
    style = classifier_folder(tmp_path / "style", ("toxic",), problem_type="multi_label_classification")
    copy = classifier_folder(tmp_path / "copy", ("toxic",), problem_type="multi_label_classification")
    given = {"style": str(style), "gate": str(copy), "trained": str(language_model)}
    with pytest.raises(JudgeError, match="allow_same_judge: true"):
        load_panel(Judges.model_validate(given), TEST)
    allowed = Judges.model_validate({**given, "allow_same_judge": True})
    assert is_gate_also_judge(allowed)
    load_panel(allowed, TEST)


def test_another_gate_is_no_style_judge(language_model: Path, tmp_path: Path) -> None:
    style = classifier_folder(tmp_path / "style", ("toxic",))
    other = classifier_folder(tmp_path / "other", ("toxic", "insult"))
    for gate in (None, "unitary/toxic-bert", str(other)):
        judges = Judges.model_validate({"style": str(style), "gate": gate, "trained": str(language_model)})
        assert not is_gate_also_judge(judges)


def test_the_embedded_gate_and_the_embedded_style_judge_are_two_models(language_model: Path) -> None:
    judges = Judges.model_validate({"style": "embedded", "gate": "embedded", "trained": str(language_model)})
    assert not is_gate_also_judge(judges)
    assert "embedded" in load_panel(judges, TEST).style.name
