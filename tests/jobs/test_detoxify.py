"""The outcome of every kind of text, with a scripted generator and with real tiny models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema.inference import Decoding, RowInput, Safety
from configs.schema.kinds import Detoxify
from configs.schema.models import ModelSource
from jobs.blocklist import Blocklist
from jobs.detoxify import MAX_CHARACTERS, Detoxifier, Rewrite, Status, WindowError
from jobs.generation import CENSORED, CUT_OFF, Generated
from tests.jobs import toy

BLOCKED = ("Click here", "Read more", "Visit")


class ScriptedGenerator:
    """Answers with a function; a token is a word."""

    def __init__(self, answer: Callable[[str], str | Generated], *, max_length: int = 6) -> None:
        self.asked: list[str] = []
        self.blocked: list[tuple[str, tuple[str, ...]]] = []
        self._answer = answer
        self._max_length = max_length

    def generate(self, texts: Sequence[str]) -> list[str]:
        return [item.text for item in self.decode(texts)]

    def decode(self, texts: Sequence[str], *, blocklists: Sequence[Blocklist] | None = None) -> list[Generated]:
        self.asked += texts
        self.blocked += [
            (text, blocklist.phrases) for text, blocklist in zip(texts, blocklists or (), strict=blocklists is not None)
        ]
        answers = [self._answer(text) for text in texts]
        return [answer if isinstance(answer, Generated) else Generated(answer) for answer in answers]

    def candidates(
        self, texts: Sequence[str], count: int, *, blocklists: Sequence[Blocklist] | None = None
    ) -> list[tuple[Generated, ...]]:
        return [(output,) * count for output in self.decode(texts, blocklists=blocklists)]

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 1

    def fits(self, text: str) -> bool:
        return self.count_tokens(text) <= self._max_length


def scripted(answer: Callable[[str], str | Generated], **options: int) -> tuple[Detoxifier, ScriptedGenerator]:
    generator = ScriptedGenerator(answer, **options)
    return Detoxifier(generator, Blocklist(BLOCKED)), generator


def shout(text: str) -> str:
    return text.upper()


def test_a_changed_text_is_rewritten() -> None:
    assert scripted(shout)[0].rewrite(["you are"]) == [Rewrite("YOU ARE", Status.REWRITTEN)]


def test_the_same_text_is_unchanged_and_keeps_its_whitespace() -> None:
    detoxifier, _ = scripted(lambda text: " ".join(text.split()) + " ")
    assert detoxifier.rewrite(["  you\t are \n now"]) == [Rewrite("  you\t are \n now", Status.UNCHANGED)]


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0", "\r\n"])
def test_a_blank_text_passes_without_asking_the_model(text: str) -> None:
    detoxifier, generator = scripted(shout)
    assert detoxifier.rewrite([text]) == [Rewrite(text, Status.PASSED)]
    assert generator.asked == []


@pytest.mark.parametrize("output", ["", "  "])
def test_an_empty_output_is_quarantined(output: str) -> None:
    expected = [Rewrite(None, Status.QUARANTINED, "empty output")]
    assert scripted(lambda _: output)[0].rewrite(["you"]) == expected


def test_a_part_without_output_quarantines_the_whole_text() -> None:
    detoxifier, _ = scripted(lambda text: "" if text == "two" else text)
    assert detoxifier.rewrite(["one\ntwo"])[0].status is Status.QUARANTINED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "not text but NoneType"),
        (3.5, "not text but float"),
        (b"you", "not text but bytes"),
        ("x" * (MAX_CHARACTERS + 1), "longer than 100000 characters"),
        ("you \ud800 are", "not valid Unicode: half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_quarantined_and_its_neighbours_are_done(text: Any, reason: str) -> None:
    outcomes = scripted(shout)[0].rewrite(["a", text, "b"])
    assert outcomes == [
        Rewrite("A", Status.REWRITTEN),
        Rewrite(None, Status.QUARANTINED, reason),
        Rewrite("B", Status.REWRITTEN),
    ]


def test_no_texts_give_no_outcomes() -> None:
    assert scripted(shout)[0].rewrite([]) == []


def test_equal_texts_and_segments_are_decoded_once() -> None:
    detoxifier, generator = scripted(shout)
    outcomes = detoxifier.rewrite(["you are", "now", "you are", "now\nyou are"])
    assert generator.asked == ["you are", "now"]
    assert [outcome.text for outcome in outcomes] == ["YOU ARE", "NOW", "YOU ARE", "NOW\nYOU ARE"]


def test_a_long_comment_is_rewritten_whole_with_its_line_breaks() -> None:
    comment = "\n\n".join(" ".join(f"w{line}x{word}" for word in range(23)) for line in range(3)) + "\n"
    assert scripted(shout)[0].rewrite([comment]) == [Rewrite(comment.upper(), Status.REWRITTEN)]


def test_a_phrase_across_the_border_of_two_segments_is_removed_and_the_row_flagged() -> None:
    detoxifier, _ = scripted(lambda text: "just click" if text == "one" else "here now")
    assert detoxifier.rewrite(["one\ntwo"]) == [Rewrite("just now", Status.FLAGGED, CENSORED)]


def test_a_text_of_nothing_but_a_blocked_phrase_is_quarantined() -> None:
    detoxifier, _ = scripted(lambda text: "Click" if text == "one" else "here")
    assert detoxifier.rewrite(["one\ntwo"]) == [Rewrite(None, Status.QUARANTINED, "empty output")]


def test_an_output_with_a_flaw_is_flagged_with_it() -> None:
    detoxifier, _ = scripted(lambda text: Generated(text, CUT_OFF if text == "two" else None))
    outcomes = detoxifier.rewrite(["one", "one\ntwo"])
    assert outcomes == [Rewrite("one", Status.UNCHANGED), Rewrite("one\ntwo", Status.FLAGGED, CUT_OFF)]


def test_a_prefix_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(WindowError, match="raise max_length"):
        scripted(shout, max_length=1)


def test_neither_reasons_nor_logs_hold_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    detoxifier, _ = scripted(lambda text: "" if "secret" in text else "click")
    outcomes = detoxifier.rewrite(["secret one", "secret" * MAX_CHARACTERS, "secret \ud800"])
    assert not [item for item in outcomes if "secret" in (item.reason or "")]
    assert "secret" not in caplog.text


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    tokenizer = toy.make_tokenizer()
    model = toy.make_model(tokenizer)
    toy.train(model, tokenizer, toy.copy_pair, steps=250)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("copier"))


def load(copier: Path, **changes: Any) -> Detoxifier:
    settings: dict[str, Any] = {
        "model": ModelSource(name=str(copier)),
        "input": RowInput(path="unused.csv"),
        "max_length": 8,
        "decoding": Decoding(max_new_tokens=16),
    }
    return Detoxifier.load(Detoxify(**(settings | changes)), num_threads=1)


def test_a_real_model_rewrites_a_comment_longer_than_its_window(copier: Path) -> None:
    comment = "you are a very silly goose and this plan is rather bad\n\ngo home now"
    outcome = load(copier).rewrite([comment])[0]
    assert outcome.text is not None
    words = outcome.text.split()
    assert len(words) >= 13, "nothing is cut away"
    assert "\n\n" in outcome.text
    assert words[-3:] == ["go", "home", "now"]


def test_an_endless_word_is_rewritten_in_pieces(copier: Path) -> None:
    outcome = load(copier).rewrite(["x" * 300])[0]
    assert outcome.status in {Status.REWRITTEN, Status.FLAGGED, Status.UNCHANGED}


def test_a_phrase_may_come_out_of_a_comment_that_holds_it(copier: Path) -> None:
    safety = Safety(blocklist=("very silly", "plan"))
    texts = ["this plan is bad", "you are very\nsilly now"]
    outcomes = load(copier, max_length=48, safety=safety).rewrite(texts)
    assert [outcome.text for outcome in outcomes] == texts


def test_what_a_comment_holds_in_one_segment_may_come_out_in_another() -> None:
    detoxifier, _ = scripted(lambda text: "visit us" if text == "two" else text)
    outcomes = detoxifier.rewrite(["Visit\ntwo", "one\ntwo"])
    assert [outcome.text for outcome in outcomes] == ["Visit\nvisit us", "one\nus"]
    assert [outcome.reason for outcome in outcomes] == [None, CENSORED]


def test_a_segment_is_decoded_once_for_each_set_of_phrases_that_its_comments_lack() -> None:
    detoxifier, generator = scripted(shout)
    detoxifier.rewrite(["two", "one\ntwo", "visit\ntwo", "visit now\ntwo"])
    without_visit = BLOCKED[:2]
    assert generator.blocked == [
        ("two", BLOCKED),
        ("one", BLOCKED),
        ("visit", without_visit),
        ("two", without_visit),
        ("visit now", without_visit),
    ]


def test_a_spec_can_ask_for_samples_of_a_least_length(copier: Path) -> None:
    decoding = {"sampling": {"temperature": 3.0}, "min_new_tokens": 8, "max_new_tokens": 16, "no_repeat_ngram_size": 0}
    outcome = load(copier, decoding=Decoding.model_validate(decoding)).rewrite(["you are"])[0]
    assert outcome.text != load(copier).rewrite(["you are"])[0].text
    assert len(toy.make_tokenizer()(outcome.text).input_ids) >= 8
