"""Which candidates are kept, in which order, and why the others aren't; by hand-written judges and by real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.load import SpecError, dump_spec, parse_spec, validate_spec
from configs.schema.keeping import Keep
from configs.schema.kinds import Detoxify
from jobs.data import Pair
from jobs.generation import CENSORED, Generated
from jobs.judges.gate import GateJudge
from jobs.judges.loading import JudgeError
from jobs.keeping import REASONS, CandidateFilter, Selection, load_gate
from tests.jobs.judging import WordContent, WordStyle, classifier_folder, encoder_folder

SOURCE = "you rude rude goose"
"""Half of its words are rude; a candidate's content is the share of words in common."""


def select(keeping: CandidateFilter, *texts: str | Generated, source: str = SOURCE) -> Selection:
    written = [item if isinstance(item, Generated) else Generated(item) for item in texts]
    return keeping.select([source], [written])[0]


def judged(**changes: float | bool) -> CandidateFilter:
    options = {"style": 0.5, "content": 0.5, "not_copy": True, **changes}
    return CandidateFilter(gate=WordStyle("rude"), judge=WordContent(), **options)  # type: ignore[arg-type]


def test_without_judges_all_that_differ_are_kept_in_their_order() -> None:
    selection = select(CandidateFilter(), "you goose", "a goose", "you  goose", SOURCE)
    assert selection == Selection(("you goose", "a goose", SOURCE), ("duplicate",))


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (Generated("you goose", CENSORED), "flaw"),
        ("you  rude rude\ngoose", "copy"),
        ("you rude rude rude goose", "style"),
        ("go home", "content"),
    ],
)
def test_a_candidate_is_dropped_for_the_first_reason_that_is_true_of_it(
    candidate: str | Generated, reason: str
) -> None:
    assert select(judged(style=0.45), candidate) == Selection((), (reason,))
    assert reason in REASONS


def test_a_threshold_is_the_least_that_is_kept() -> None:
    assert select(judged(style=0.5, not_copy=False), SOURCE) == Selection((SOURCE,), ())
    assert select(judged(style=0.51, not_copy=False), SOURCE) == Selection((), ("style",))


def test_the_highest_style_times_content_comes_first() -> None:
    # style × content: 1 × 2/3, 2/3 × 1, 1 × 1/2; the first two are equal and stay in their order.
    texts = ("a you goose", "you goose", "goose rude you")
    scores = [(1 - WordStyle("rude").toxicity([text])[0]) * WordContent().score([text], [SOURCE])[0] for text in texts]
    expected = tuple(texts[place] for place in np.argsort(-np.array(scores), kind="stable"))
    assert select(judged(style=0.1, content=0.1), *texts).kept == expected != texts


def test_rows_are_selected_each_by_itself_and_a_judge_is_asked_once_for_all() -> None:
    gate, judge = WordStyle("rude"), WordContent()
    keeping = CandidateFilter(gate=gate, judge=judge, style=0.5, content=0.5)
    candidates = [[Generated("you goose"), Generated("rude")], [], [Generated("you goose")]]
    selections = keeping.select([SOURCE, "empty", "you goose"], candidates)
    assert selections == [Selection(("you goose",), ("style",)), Selection((), ()), Selection(("you goose",), ())]
    assert gate.asked == ["you goose", "rude", "you goose"]
    assert judge.asked == [("you goose", SOURCE), ("you goose", "you goose")], "what has no style is not embedded"


# -- real judges


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``prepare`` writes, as far as the gate goes."""
    things = ("plan", "road", "song", "idea", "house", "soup", "game", "book")
    pairs = [
        Pair(f"your {thing} is {rude} crap", (f"your {thing} is not so good",))
        for thing in things
        for rude in ("stupid", "idiotic")
    ]
    folder = tmp_path_factory.mktemp("judges")
    GateJudge.fit(pairs).save(folder / "gate")
    return folder


def test_a_spec_loads_the_gate_of_prepare_and_the_embedded_content_judge(judges: Path) -> None:
    keeping = CandidateFilter.load(Keep(gate=str(judges)))
    source = "your song is stupid crap, honestly"
    selection = select(
        keeping,
        "your song is not so good, honestly",
        "my weather report was not so good in March",
        "your song is stupid",
        source=source,
    )
    assert selection == Selection(("your song is not so good, honestly",), ("style", "content"))


def test_what_is_null_is_not_asked(judges: Path) -> None:
    only_style = CandidateFilter.load(Keep(gate=str(judges), content=None))
    assert select(only_style, "my weather was not so good", "your stupid crap").dropped == ("style",)
    only_content = CandidateFilter.load(Keep(style=None))
    assert select(only_content, "your stupid crap", "my weather was not so good", source="stupid crap").dropped == (
        "content",
    )


def test_the_gates_own_folder_and_a_classifier_serve_as_well(judges: Path, tmp_path: Path) -> None:
    texts = ["your song is not so good", "your stupid crap"]
    np.testing.assert_array_equal(
        load_gate(str(judges)).toxicity(texts), load_gate(str(judges / "gate")).toxicity(texts)
    )
    classifier = load_gate(str(classifier_folder(tmp_path / "classifier", ("toxic", "insult"))))
    assert classifier.toxicity(texts).shape == (2,)


def test_a_judge_that_cannot_be_used_is_refused_by_the_name_of_its_field(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"keep\.gate = .*holds no gate that prepare trained"):
        CandidateFilter.load(Keep(gate=str(tmp_path)))
    with pytest.raises(JudgeError, match=r"keep\.content_judge = "):
        CandidateFilter.load(Keep(style=None, content_judge=str(tmp_path / "gone")))
    unpublished = encoder_folder(tmp_path / "encoder")
    with pytest.raises(JudgeError, match=r"keep\.content_judge = .*has no published baseline"):
        CandidateFilter.load(Keep(style=None, content_judge=str(unpublished)))


# -- in a spec

DETOXIFY = "kind: detoxify\nmodel: {name: m}\ninput: {path: a.csv}\n"


def test_the_defaults_are_those_of_the_documentation_and_survive_being_written_out() -> None:
    spec = parse_spec(DETOXIFY + "samples: 4\nkeep: {gate: './judges'}")
    assert isinstance(spec, Detoxify)
    assert spec.keep is not None
    assert (spec.samples, spec.keep.style, spec.keep.content, spec.keep.not_copy) == (4, 0.5, 0.6, True)
    assert validate_spec(dump_spec(spec)) == spec


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("samples: 5", r"samples = 5: is more than the 4 hypotheses of the beam; set decoding\.num_beams to 5, or"),
        ("samples: 0", r"samples = 0: is too small"),
        ("samples: 65", r"samples = 65: is too large"),
        ("keep: {}", r"keep\.gate: is missing; it judges the style; name .*steps\.data\.judges.*style: null"),
        ("keep: {gate: embedded}", r"keep\.gate = .embedded.: is not there: a gate is fitted on a train split"),
        ("keep: {gate: g, style: null}", r"keep\.gate = .g.: is never asked"),
        ("keep: {gate: g, style: 1.5}", r"keep\.style = 1\.5: is too large"),
        ("keep: {gate: g, content: -1}", r"keep\.content = -1: is too small"),
        ("keep: {gate: g, not_copy: 1}", r"keep\.not_copy = 1: is neither true nor false"),
        ("keep: {gate: g, fluency: 1}", r"keep\.fluency = 1: is no key"),
    ],
)
def test_a_wrong_value_is_refused_with_a_remedy(options: str, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        parse_spec(DETOXIFY + options)


def test_more_samples_than_beams_are_drawn_when_sampling() -> None:
    spec = parse_spec(DETOXIFY + "samples: 16\ndecoding: {num_beams: 1, sampling: {}}")
    assert isinstance(spec, Detoxify)
    assert spec.samples == 16


PIPELINE = """
kind: pipeline
steps:
  augment:
    kind: detoxify
    model: {name: m}
    input: {path: a.csv}
    keep: {gate: %s}
  scores:
    kind: evaluate
    dataset: {name: a}
    systems: {copy: {control: copy}}
    judges: {trained: j, style: unitary/toxic-bert, %s}
"""


def test_the_judge_that_scores_is_no_gate_unless_every_table_says_so() -> None:
    parse_spec(PIPELINE % ("./judges", "content: embedded"))
    parse_spec(PIPELINE % ("unitary/toxic-bert", "gate: unitary/toxic-bert, allow_same_judge: true"))
    fault = r"steps\.scores\.judges\.style = .*is also the gate judge of the step augment; name another"
    with pytest.raises(SpecError, match=fault):
        parse_spec(PIPELINE % ("unitary/toxic-bert", "content: embedded"))
    with pytest.raises(SpecError, match=fault):  # a table can only say what it knows
        parse_spec(PIPELINE % ("unitary/toxic-bert", "allow_same_judge: true"))
