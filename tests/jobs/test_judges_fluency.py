"""Perplexity: against a slow reference; nothing about the batch, the padding or a blank text may leak into it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.judges import fluency
from jobs.judges.fluency import FluencyJudge, Likelihood, load_fluency, negative_log_likelihood
from jobs.judges.loading import JudgeError
from tests.jobs.judging import TEXTS, language_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model_folder(tmp_path_factory.mktemp("judge") / "gpt2")


@pytest.fixture(scope="module")
def judge(folder: Path) -> FluencyJudge:
    return FluencyJudge(str(folder))


def slow_nll(folder: Path, text: str) -> list[float]:
    """Token by token, each from the prefix before it, the begin token first."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.bos_token_id, *tokenizer(text).input_ids]
    values = []
    for place in range(1, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:place]])).logits[0, -1]
        values.append(-float(torch.log_softmax(logits, dim=-1)[ids[place]]))
    return values


def test_perplexity_is_exp_of_the_mean_over_the_tokens(folder: Path, judge: FluencyJudge) -> None:
    expected = [slow_nll(folder, text) for text in TEXTS]
    result = judge.likelihood(TEXTS)
    np.testing.assert_allclose(result.total, [sum(values) for values in expected], rtol=1e-4)
    np.testing.assert_array_equal(result.num_tokens, [len(values) for values in expected])
    np.testing.assert_allclose(result.perplexity, [math.exp(np.mean(values)) for values in expected], rtol=1e-4)
    assert np.std(result.perplexity) > 1


def test_corpus_perplexity_weighs_tokens_and_not_texts(folder: Path, judge: FluencyJudge) -> None:
    every = [value for text in TEXTS for value in slow_nll(folder, text)]
    assert judge.likelihood(TEXTS).corpus_perplexity == pytest.approx(math.exp(np.mean(every)), rel=1e-4)


def test_a_text_scores_the_same_beside_longer_ones(judge: FluencyJudge) -> None:
    alone = [judge.likelihood([text]).total[0] for text in TEXTS]
    np.testing.assert_allclose(judge.likelihood(TEXTS).total, alone, rtol=1e-4)


def test_small_batches_change_nothing(judge: FluencyJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge.likelihood(TEXTS).total
    monkeypatch.setattr(fluency, "_TOKENS_IN_BATCH", 1)
    np.testing.assert_allclose(judge.likelihood(TEXTS).total, whole, rtol=1e-4)


def test_one_token_has_a_perplexity(judge: FluencyJudge) -> None:
    result = judge.likelihood(["!"])
    assert result.num_tokens.tolist() == [1]
    assert math.isfinite(result.perplexity[0])


def test_a_blank_text_has_no_tokens_and_infinite_perplexity(judge: FluencyJudge) -> None:
    result = judge.likelihood(["", "go home", " \n"])
    assert result.num_tokens.tolist()[::2] == [0, 0]
    assert np.isinf(result.perplexity).tolist() == [True, False, True]
    assert result.corpus_perplexity == pytest.approx(judge.likelihood(["go home"]).corpus_perplexity)
    assert math.isnan(judge.likelihood([""]).corpus_perplexity)
    assert judge.likelihood([]).total.shape == (0,)


def test_a_text_longer_than_the_model_takes_is_judged_by_its_beginning(judge: FluencyJudge) -> None:
    result = judge.likelihood(["go home " * 100])
    assert result.num_tokens.tolist() == [47]
    assert math.isfinite(result.perplexity[0])


def test_the_name_of_a_special_token_in_a_comment_is_text(judge: FluencyJudge) -> None:
    assert judge.likelihood(["<|endoftext|>"]).num_tokens[0] > 1


def test_padding_is_not_scored_whatever_stands_in_it() -> None:
    class Uniform:
        device = torch.device("cpu")

        def __call__(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            assert attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
            assert input_ids[:, 0].tolist() == [9, 9]

            class Answer:
                logits = torch.zeros(*input_ids.shape, 10)

            return Answer()

    nll, mask = negative_log_likelihood(Uniform(), [[1, 2, 3], [4]], 9)
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    np.testing.assert_allclose((nll * mask).sum(dim=1), [3 * math.log(10), math.log(10)], rtol=1e-6)


def test_taking_rows_keeps_their_order() -> None:
    likelihood = Likelihood(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    assert likelihood.take([2, 0]).total.tolist() == [3, 1]


def test_the_embedded_judge_needs_the_folder_that_prepare_trained(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"judges\.trained = .*: no fluency judge in it"):
        load_fluency("embedded", str(tmp_path))
    with pytest.raises(JudgeError, match="judges of a prepare run"):
        load_fluency("embedded", None)


def test_the_embedded_judge_is_named_embedded(tmp_path: Path) -> None:
    language_model_folder(tmp_path / "fluency")
    assert "embedded" in load_fluency("embedded", str(tmp_path)).name


def test_a_model_without_a_begin_token_is_refused(tmp_path: Path) -> None:
    folder = language_model_folder(tmp_path / "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(JudgeError, match="neither a begin nor an end token"):
        load_fluency(str(folder), None)


def test_a_hub_name_without_a_network_names_the_embedded_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.judges.loading.is_hub_reachable", lambda: False)
    with pytest.raises(JudgeError, match=r"judges\.fluency = 'gpt2' .*embedded"):
        load_fluency("gpt2", None)
