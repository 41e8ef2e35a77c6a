"""A text becomes plain data: what it means, what is refused and where, and that no text takes long."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from configs.faults import SpecError
from configs.parsing import MAX_ALIASES, MAX_DEPTH, MAX_KEYS, MAX_SPEC_BYTES, MAX_VALUES, parse_text, unusable_values

ROOT = Path(__file__).parents[2]

MEANT: dict[str, Any] = {
    "a: 2e-4\nb: 1_000\nc: 0x1F\nd: 0o17\ne: 010": {"a": 2e-4, "b": 1000, "c": 31, "d": 15, "e": 10},
    "a: no\nb: on\nc: 2030-01-31\nd: 12:30\ne: ~\nf: true": {
        **{"a": "no", "b": "on", "c": "2030-01-31", "d": "12:30"},
        **{"e": None, "f": True},
    },
    "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\ne: *x": {
        "a": {"b": 1, "c": 2},
        "d": {"b": 3, "c": 2},
        "e": {"b": 1, "c": 2},
    },
    "a: !!str 5\nb: |\n  two\n  lines\nc: 'quoted: text'": {"a": "5", "b": "two\nlines\n", "c": "quoted: text"},
    "ü: größe 😀": {"ü": "größe 😀"},
    '{"a": "\\ud83d\\ude00", "b": [1, 2.5, null]}': {"a": "😀", "b": [1, 2.5, None]},
    "{a: [1, 2], b: {c: d}} # flow": {"a": [1, 2], "b": {"c": "d"}},
    "": None,
    "# nothing\n": None,
}

REFUSED = {
    "a: 1\nb: 2\na: 3": ("line 3, column 1", 'the key "a" stands twice'),
    "a:\n  - {b: 1, b: 2}": ("line 2, column 12", 'the key "b" stands twice'),
    "x: &x {a: 1, a: 2}\ny: *x": ("line 1, column 14", 'the key "a" stands twice'),
    "a: 1\n[b]: 2": ("line 2, column 1", "a key that is no word"),
    "a: 1\nb: [1, 2": ("line", "not YAML"),
    "a: 1\n\tb: 2": ("line 2, column 1", "not YAML"),
    "a: !!python/object:os.system x": ("line 1, column 4", "a tag that no spec has"),
    "a: *nowhere": ("line 1, column 4", "not YAML"),
    "a: 1\n---\nb: 2": ("line 2, column 1", "a second document begins"),
    "a: \x07": ("", "not YAML"),
    "a: " + "9" * 10_000: ("spec", "a value that can't be read"),
    '{"a": 1, "a": 2}': ("spec", 'the key "a" stands twice'),
}


@pytest.mark.parametrize("text", MEANT)
def test_a_text_means_what_yaml_1_2_says(text: str) -> None:
    assert parse_text(text, source="spec") == MEANT[text]


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_a_text_that_is_wrong_is_refused_with_its_place(text: str) -> None:
    place, message = REFUSED[text]
    with pytest.raises(SpecError) as caught:
        parse_text(text, source="spec")
    (fault,) = caught.value.faults
    assert fault.field.startswith(place)
    assert message in fault.message
    assert fault.remedy


def outcome(text: str) -> Any:
    """What a text means, or why it is refused; where a syntax fault is seen differs by a token between the parsers."""
    try:
        return parse_text(text, source="spec")
    except SpecError as error:
        return ["not YAML" if "not YAML" in fault.message else [fault.field, fault.message] for fault in error.faults]


def test_without_libyaml_texts_mean_the_same_and_are_refused_at_the_same_place() -> None:
    code = (
        "import json, sys, yaml\nyaml.__with_libyaml__ = False\n"
        "from configs import parsing\nassert not issubclass(parsing._Loader, yaml.CSafeLoader)\n"
        "from tests.configs.test_parsing import outcome\n"
        "print(json.dumps([outcome(text) for text in json.load(sys.stdin)]))"
    )
    texts = [*MEANT, *REFUSED]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(texts), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [outcome(text) for text in texts]


MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 50))
BOUNDED = {
    "keys": ("".join(f"key{number}: v\n" for number in range(MAX_KEYS + 1)), f"more than {MAX_KEYS} keys"),
    "aliases": ("a: &a x\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]", f"more than {MAX_ALIASES} aliases"),
    "merges": (MERGES, "more than"),
    "flow": ("[" * 40_000, f"more than {MAX_DEPTH} levels"),
    "blocks": ("- " * 40_000, f"more than {MAX_DEPTH} levels"),
    "questions": ("? " * 40_000, f"more than {MAX_DEPTH} levels"),
    "json": ('{"a":' * 15_000, "nested too deeply"),
    "bytes": ("# " + "x" * MAX_SPEC_BYTES, f"is larger than {MAX_SPEC_BYTES:,} bytes"),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_what_would_take_long_or_overrun_the_stack_is_refused_with_the_bound(name: str) -> None:
    text, message = BOUNDED[name]
    before = time.process_time()
    with pytest.raises(SpecError, match=message):
        parse_text(text, source="spec")
    assert time.process_time() - before < 2


WIDE = {
    "words": "[" + "a," * 49_000 + "]",
    "numbers": "[" + "1," * 49_000 + "]",
    "lines": "- a\n" * 24_000,
}


@pytest.mark.parametrize("name", WIDE)
def test_the_largest_spec_is_read_in_a_second_or_so(name: str) -> None:
    before = time.process_time()
    assert len(parse_text(WIDE[name], source="spec")) >= 24_000
    # 0.6 s on one core; PyYAML without libyaml takes 4 s.
    assert time.process_time() - before < 3


def test_aliases_that_mean_too_many_values_are_refused_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (fault,) = unusable_values(parse_text("\n".join(lines), source="spec"), source="spec")
    assert f"more than {MAX_VALUES:,} values" in fault.message


def test_an_alias_that_holds_itself_is_refused() -> None:
    (fault,) = unusable_values(parse_text("a: &a [*a]", source="spec"), source="spec")
    assert "nested too deeply" in fault.message
