"""The gate: what it learns, and that it comes back from disk unchanged and without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.data import Pair
from jobs.judges.gate import TERMS_FILE, WEIGHTS_FILE, GateJudge
from jobs.judges.loading import JudgeError

OBJECTS = ("plan", "road", "song", "idea", "house", "soup", "game", "book")
PAIRS = tuple(
    Pair(f"your {thing} is {rude} f*ck", (f"your {thing} could be better", f"i don't like your {thing}"))
    for thing in OBJECTS
    for rude in ("stupid", "idiotic", "pathetic")
)


@pytest.fixture(scope="module")
def gate() -> GateJudge:
    return GateJudge.fit(PAIRS)


def test_it_tells_rude_from_plain_on_words_it_never_saw_together(gate: GateJudge) -> None:
    rude, plain = gate.toxicity(["my stupid car", "my car could be better"])
    assert rude > 0.8
    assert plain < 0.2


def test_what_is_loaded_scores_exactly_as_what_was_saved(gate: GateJudge, tmp_path: Path) -> None:
    texts = ["my stupid car", "the road is fine", "f*ck", "", "zebra 😀"]
    gate.save(tmp_path)
    loaded = GateJudge.load(tmp_path)
    np.testing.assert_array_equal(loaded.toxicity(texts), gate.toxicity(texts))
    assert loaded.identity.startswith("sha256:")


def test_nothing_on_disk_is_pickled(gate: GateJudge, tmp_path: Path) -> None:
    gate.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted((TERMS_FILE, WEIGHTS_FILE))
    with np.load(tmp_path / WEIGHTS_FILE, allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.kind for name in arrays.files} == {"idf": "f", "weights": "f", "bias": "f"}


def test_the_same_pairs_in_another_order_give_the_same_gate(gate: GateJudge) -> None:
    texts = ["my stupid car", "your plan"]
    np.testing.assert_allclose(GateJudge.fit(PAIRS[::-1]).toxicity(texts), gate.toxicity(texts), rtol=1e-12)


def test_a_text_on_both_sides_teaches_nothing(gate: GateJudge) -> None:
    same = (*PAIRS, Pair("hello there", ("hello there",)))
    np.testing.assert_allclose(GateJudge.fit(same).toxicity(["hello there", "stupid"]), gate.toxicity(["x", "stupid"]))


def test_a_blank_text_offends_nobody(gate: GateJudge) -> None:
    assert gate.toxicity(["", "  "]).tolist() == [0, 0]
    assert gate.toxicity([]).shape == (0,)


def test_an_extreme_text_is_no_overflow() -> None:
    gate = GateJudge.fit(PAIRS)
    gate._weights = gate._weights * 1e6
    scores = gate.toxicity(["stupid", "could be better"])
    assert scores.tolist() == [1, 0]


def test_pairs_that_are_all_copies_are_refused() -> None:
    with pytest.raises(JudgeError, match="nothing to tell apart"):
        GateJudge.fit((Pair("a b", ("a b",)),))


def test_pairs_without_words_are_refused() -> None:
    with pytest.raises(JudgeError, match="no words"):
        GateJudge.fit((Pair("!!", ("??",)),))


@pytest.mark.parametrize("damage", ["missing", "torn", "no archive", "other version"])
def test_a_damaged_gate_is_refused(damage: str, gate: GateJudge, tmp_path: Path) -> None:
    gate.save(tmp_path)
    if damage == "missing":
        (tmp_path / WEIGHTS_FILE).unlink()
    elif damage == "torn":
        (tmp_path / TERMS_FILE).write_text('{"version": 1, "terms": [')
    elif damage == "no archive":
        (tmp_path / WEIGHTS_FILE).write_bytes(b"PK\x03\x04 no archive")
    else:
        (tmp_path / TERMS_FILE).write_text('{"version": 2, "terms": []}')
    with pytest.raises(JudgeError, match="prepare the judges again"):
        GateJudge.load(tmp_path)
