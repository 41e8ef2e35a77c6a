"""What a spec may say of decoding and of blocked phrases."""

from __future__ import annotations

import pytest

from configs.load import SpecError, dump_spec, parse_spec, validate_spec
from configs.schema.kinds import Detoxify

DETOXIFY = "kind: detoxify\nmodel: {name: owner/model}\ninput: {path: dump.csv}\n"


def test_beams_are_searched_unless_sampling_is_asked_for() -> None:
    plain = parse_spec(DETOXIFY)
    sampled = parse_spec(DETOXIFY + "decoding: {sampling: {}, min_new_tokens: 3}")
    assert isinstance(plain, Detoxify)
    assert isinstance(sampled, Detoxify)
    assert plain.decoding.sampling is None
    assert sampled.decoding.sampling is not None
    assert (sampled.decoding.sampling.temperature, sampled.decoding.sampling.top_k) == (1.0, 0)
    assert validate_spec(dump_spec(sampled)) == sampled


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        ("decoding: {sampling: {temperature: 0}}", "decoding.sampling.temperature", "greater than 0"),
        ("decoding: {sampling: {top_k: -1}}", "decoding.sampling.top_k", "0"),
        ("decoding: {sampling: {top_p: 0}}", "decoding.sampling.top_p", "greater than 0"),
        ("decoding: {sampling: {top_p: 1.5}}", "decoding.sampling.top_p", "1"),
        ("decoding: {sampling: {seed: 4294967296}}", "decoding.sampling.seed", "4294967296"),
        ("decoding: {sampling: {topk: 5}}", "decoding.sampling.topk", "did you mean top_k"),
        ("decoding: {min_new_tokens: 96}", "decoding.min_new_tokens", "less than max_new_tokens, which is 96"),
        ("decoding: {min_new_tokens: -1}", "decoding.min_new_tokens", "0"),
        ("decoding: {patience: 0.5}", "decoding.patience", "1"),
        ("safety: {blocklist: ['Visit', ' ']}", "safety.blocklist.1", "remove it"),
    ],
)
def test_a_wrong_value_is_refused_with_the_remedy(text: str, field: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(DETOXIFY + text)
    assert [fault.field for fault in caught.value.faults] == [field]
    assert remedy in str(caught.value)
