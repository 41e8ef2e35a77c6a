"""Where a phrase stands and where it doesn't, and what is left when it is cut out."""

from __future__ import annotations

import pytest

from jobs.blocklist import Blocklist, decode_tokens
from tests.jobs import toy

PHRASES = Blocklist(("Click here", "Visit"))


@pytest.mark.parametrize(
    "text",
    [
        "visit",
        "VISIT us",
        "please vIsIt!",
        "re-visit",
        "_Visit_",
        "'visit's",
        "Click  here",
        "click\n\there.",
        "(CLICK\u00a0HERE)",
        "Ｖｉｓｉｔ",
        "𝐕𝐢𝐬𝐢𝐭",
        "Ⓥisit",
        "Vi\u200bsit",
        "Vi\u00adsit",
        "V\ufe0fisit",
        "\u2067visit\u2069",
        "Visit™",
        "Visit²",
        "vısıt",
        "VİSİT",
        "Visi\u1d57",
        "请visit这里",
        "😀visit😀",
    ],
)
def test_a_phrase_is_found_as_whole_words(text: str) -> None:
    assert PHRASES.is_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Visitor",
        "revisit",
        "visits",
        "visite",
        "visité",
        "Visit\u0301",
        "visit2",
        "Clickhere",
        "click, here",
        "click hereby",
        "doubleclick here",
        "vizit",
        "v i s i t",
        "Vіsit",  # a Cyrillic letter
    ],
)
def test_what_only_holds_its_letters_is_no_phrase(text: str) -> None:
    assert not PHRASES.is_in(text)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("点击这里", "请点击这里查看"),
        ("[edit]", "word[edit]word"),
        ("C++", "c++11"),
        ("हिन्दी", "यह हिन्दी है"),
        ("straße", "STRASSE"),
    ],
)
def test_borders_of_words_follow_the_script(phrase: str, text: str) -> None:
    assert Blocklist([phrase]).is_in(text)


def test_a_vowel_sign_makes_a_longer_word() -> None:
    assert not Blocklist(["हिन्द"]).is_in("हिन्दी")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("nothing", "nothing"),
        ("Visit", ""),
        ("go Visit us", "go us"),
        ("one\nVisit two", "one\ntwo"),
        ("Ｃｌｉｃｋ ｈｅｒｅ now", "now"),
        ("Click visit here", ""),
        ("visitor, vi\u200bsit", "visitor,"),
    ],
)
def test_what_is_cut_out_leaves_no_phrase_behind(text: str, left: str) -> None:
    assert PHRASES.remove(text) == left


def test_a_phrase_that_the_source_holds_is_no_longer_blocked() -> None:
    left = PHRASES.not_in("they VISIT\u00a0us, visitors click")
    assert left == Blocklist(["Click here"])
    assert not left.is_in("visit")
    assert PHRASES.not_in("a visitor") == PHRASES


def test_the_run_of_tokens_is_the_one_that_writes_the_phrase_and_not_its_letters_before() -> None:
    tokenizer = toy.make_tokenizer()
    ids = tokenizer("revisitor visit you", add_special_tokens=False).input_ids
    windows = PHRASES.windows(ids, lambda ids: decode_tokens(tokenizer, ids))
    assert windows == {(tokenizer.get_vocab()["▁visit"],)}
    assert PHRASES.windows(ids[:3], lambda ids: decode_tokens(tokenizer, ids)) == frozenset()


def test_the_likely_tokens_of_a_phrase_write_it() -> None:
    tokenizer = toy.make_tokenizer()
    forms = PHRASES.token_forms(tokenizer)
    written = {phrase: {decode_tokens(tokenizer, ids).strip() for ids in found} for phrase, found in forms.items()}
    assert written["Visit"] == {"Visit", "visit", "VISIT"}
    assert written["Click here"] >= {"Click here", "click here", "CLICK HERE", "Click Here"}


@pytest.mark.parametrize("phrase", [" ", "\u200b", "\u00a0\n"])
def test_a_phrase_of_nothing_is_refused(phrase: str) -> None:
    with pytest.raises(ValueError, match=r"safety\.blocklist"):
        Blocklist([phrase])
