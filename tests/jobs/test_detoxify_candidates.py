"""Several candidates for a comment: what becomes of the row, by a scripted generator and by a real tiny model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema.inference import EMBEDDED, Decoding, RowInput, Sampling
from configs.schema.keeping import Keep
from configs.schema.kinds import Detoxify
from configs.schema.models import ModelSource
from jobs.blocklist import Blocklist
from jobs.data import Pair
from jobs.detoxify import Detoxifier, Rewrite, Status
from jobs.generation import Generated
from jobs.judges.content import load_content
from jobs.judges.gate import GateJudge
from jobs.keeping import CandidateFilter
from tests.jobs import toy
from tests.jobs.judging import WordStyle


class Writer:
    """Writes for each text the candidates that it was told; a token is a word."""

    def __init__(self, answers: Mapping[str, Sequence[str]]) -> None:
        self.asked: list[tuple[str, int]] = []
        self._answers = answers

    def generate(self, texts: Sequence[str]) -> list[str]:
        return [item.text for item in self.decode(texts)]

    def decode(self, texts: Sequence[str], *, blocklists: Sequence[Blocklist] | None = None) -> list[Generated]:
        return [written[0] for written in self.candidates(texts, 1)]

    def candidates(
        self, texts: Sequence[str], count: int, *, blocklists: Sequence[Blocklist] | None = None
    ) -> list[tuple[Generated, ...]]:
        self.asked += [(text, count) for text in texts]
        return [tuple(Generated(item) for item in self._answers[text][:count]) for text in texts]

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 1

    def fits(self, text: str) -> bool:
        return self.count_tokens(text) <= 6


def detoxifier(answers: Mapping[str, Sequence[str]], **keep: Any) -> tuple[Detoxifier, Writer]:
    writer = Writer(answers)
    keeping = CandidateFilter(gate=WordStyle("rude"), style=0.9, **keep)
    return Detoxifier(writer, Blocklist(("Click here",)), num_candidates=3, keeping=keeping), writer


def test_the_best_that_is_kept_is_the_rewrite_and_the_others_stand_beside_it() -> None:
    tool, writer = detoxifier({"you rude": ["you rude one", "you fine", "you good"]})
    expected = Rewrite("you fine", Status.REWRITTEN, others=("you good",), dropped=("style",))
    assert tool.rewrite(["you rude"]) == [expected]
    assert writer.asked == [("you rude", 3)]


def test_a_row_without_any_kept_candidate_is_flagged_and_has_no_text() -> None:
    tool, _ = detoxifier({"you rude": ["you rude", "so rude", "rude"]}, not_copy=True)
    (outcome,) = tool.rewrite(["you rude"])
    assert outcome == Rewrite(
        None, Status.FLAGGED, "no candidate kept (style 2, copy 1)", dropped=("copy", "style", "style")
    )


def test_the_source_again_is_unchanged_where_copies_may_stay_and_keeps_its_whitespace() -> None:
    tool, _ = detoxifier({"you  fine": ["you fine", "you good", "you good"]})
    expected = Rewrite("you  fine", Status.UNCHANGED, others=("you good",), dropped=("duplicate",))
    assert tool.rewrite(["you  fine"]) == [expected]


def test_the_nth_candidate_of_a_long_comment_is_made_of_the_nth_of_its_segments() -> None:
    tool, _ = detoxifier({"one": ["a", "b", "c"], "two": ["x", "y", "z"]})
    (outcome,) = tool.rewrite(["one\ntwo"])
    assert (outcome.text, outcome.others) == ("a\nx", ("b\ny", "c\nz"))


def test_a_candidate_that_lacks_a_segment_or_holds_a_blocked_phrase_is_dropped() -> None:
    tool, _ = detoxifier({"one": ["a", "just click", "b"], "two": ["", "here now", "y"]})
    (outcome,) = tool.rewrite(["one\ntwo"])
    assert outcome == Rewrite("b\ny", Status.REWRITTEN, dropped=("empty", "flaw"))


def test_rows_that_are_not_asked_for_come_out_as_ever_and_the_order_stays() -> None:
    tool, _ = detoxifier({"you": ["a", "b", "c"], "me": ["d", "e", "f"]})
    outcomes = tool.rewrite(["you", " ", "me", "x\ud800"])
    assert [outcome.text for outcome in outcomes] == ["a", " ", "d", None]
    assert [outcome.status for outcome in outcomes] == [
        Status.REWRITTEN,
        Status.PASSED,
        Status.REWRITTEN,
        Status.QUARANTINED,
    ]


# -- a real model


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that copies, not too surely."""
    torch.set_num_threads(1)
    tokenizer = toy.make_tokenizer()
    model = toy.make_model(tokenizer)
    toy.train(model, tokenizer, toy.copy_pair, steps=120)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges")
    pairs = [Pair(f"{word} silly bad", (f"{word} rather",)) for word in toy.WORDS if word not in ("silly", "bad")]
    GateJudge.fit(pairs).save(folder / "gate")
    return folder


def load(writer: Path, **changes: Any) -> Detoxifier:
    settings: dict[str, Any] = {
        "model": ModelSource(name=str(writer)),
        "input": RowInput(path="unused.csv"),
        "max_length": 48,
        "decoding": Decoding(max_new_tokens=16, no_repeat_ngram_size=0),
        **changes,
    }
    return Detoxifier.load(Detoxify(**settings), num_threads=1)


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.5)], ids=["beam", "samples"])
def test_kept_candidates_of_a_real_model_reach_what_was_asked(
    writer: Path, judges: Path, sampling: Sampling | None
) -> None:
    decoding = Decoding(max_new_tokens=16, no_repeat_ngram_size=0, sampling=sampling)
    keep = Keep(gate=str(judges), style=0.5, content=0.3)
    texts = list(dict.fromkeys(toy.sentences(40)))
    outcomes = load(writer, decoding=decoding, samples=4, keep=keep).rewrite(texts)
    gate, content = GateJudge.load(judges / "gate"), load_content(EMBEDDED, ())
    kept = [
        (source, text)
        for source, outcome in zip(texts, outcomes, strict=True)
        for text in (outcome.text, *outcome.others)
        if text is not None
    ]
    assert len(kept) > 20
    assert (gate.toxicity([text for _, text in kept]) <= 0.5).all()
    assert (content.score([text for _, text in kept], [source for source, _ in kept]) >= 0.3).all()
    assert not [source for source, text in kept if source.split() == text.split()]
    assert len(set(kept)) == len(kept)
    num_dropped = sum(len(outcome.dropped) for outcome in outcomes)
    assert len(kept) + num_dropped == 4 * len(texts), "every candidate is accounted for"
    assert {outcome.status for outcome in outcomes} <= {Status.REWRITTEN, Status.FLAGGED}
    assert Counter(reason for outcome in outcomes for reason in outcome.dropped)["copy"] > 0


def test_without_keep_the_beams_best_come_as_they_are_and_the_first_is_that_of_one_output(writer: Path) -> None:
    texts = toy.sentences(10)
    several = load(writer, samples=4).rewrite(texts)
    alone = load(writer).rewrite(texts)
    assert [outcome.text for outcome in several] == [outcome.text for outcome in alone]
    assert sum(len(outcome.others) for outcome in several) > 10
