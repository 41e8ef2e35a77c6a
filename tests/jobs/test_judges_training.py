"""fit_judges: what it writes, that it learns, and that the same seed gives the same judges."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema.data import JudgeTraining
from jobs.context import JobStopped
from jobs.data import Pair, PairSplits
from jobs.judge_training import fit_judges
from jobs.judges.fluency import load_fluency
from jobs.judges.gate import GateJudge
from jobs.judges.language_model import _rate
from jobs.judges.loading import JudgeError
from tests.jobs.tiny import INSULTS, OBJECTS, SUBJECTS, VERBS, Recorder

SMALL = JudgeTraining(fluency_steps=60, fluency_hidden_size=48, fluency_layers=1)
PAIRS = [
    Pair(f"{who} {does} a {how} {what.split()[1]}", (f"{who} {does} {what}",))
    for who in SUBJECTS
    for does in VERBS
    for how in INSULTS
    for what in OBJECTS
]
random.Random(0).shuffle(PAIRS)


def fit(folder: Path, *, steps: int | None = None, seed: int = 1) -> Recorder:
    recorder = Recorder()
    training = SMALL if steps is None else SMALL.model_copy(update={"fluency_steps": steps})
    fit_judges(
        PairSplits(tuple(PAIRS[:400]), (), ()), training, folder, seed=seed, num_threads=1, report=recorder.report
    )
    return recorder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("judges")
    return folder, fit(folder)


def test_the_language_model_learns(trained: tuple[Path, Recorder]) -> None:
    losses = trained[1].values("fluency_loss")
    assert losses[-1] < 0.5 * losses[0]
    assert trained[1].steps("fluency_loss")[-1] == 60
    assert trained[1].values("share_done")[-1] == 1


def test_a_sentence_reads_better_than_its_words_in_disorder(trained: tuple[Path, Recorder]) -> None:
    judge = load_fluency("embedded", str(trained[0]))
    chance = random.Random(3)
    for side in ([pair.source for pair in PAIRS[400:]], [pair.targets[0] for pair in PAIRS[400:]]):
        shuffled = [" ".join(chance.sample(text.split(), len(text.split()))) for text in side]
        kept = [(one, other) for one, other in zip(side, shuffled, strict=True) if one != other]
        good = judge.likelihood([one for one, _ in kept]).perplexity
        bad = judge.likelihood([other for _, other in kept]).perplexity
        assert (good < bad).mean() > 0.95
        assert np.median(good) * 3 < np.median(bad)


def test_the_gate_is_written_beside_it(trained: tuple[Path, Recorder]) -> None:
    gate = GateJudge.load(trained[0] / "gate")
    sources = gate.toxicity([pair.source for pair in PAIRS[400:]])
    targets = gate.toxicity([pair.targets[0] for pair in PAIRS[400:]])
    assert ((sources > 0.5).mean() + (targets < 0.5).mean()) / 2 > 0.95


def test_weights_are_safetensors_and_nothing_is_pickled(trained: tuple[Path, Recorder]) -> None:
    names = {file.name for file in trained[0].rglob("*") if file.is_file()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "gate.json", "gate.npz"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".joblib", ".pt"))]


def test_the_same_seed_gives_the_same_judge_and_leaves_the_global_seed_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.manual_seed(5)
        expected = torch.rand(1).item()
        torch.manual_seed(5)
        fit(tmp_path / name, steps=3)
        assert torch.rand(1).item() == expected
    fit(tmp_path / "three", steps=3, seed=2)
    one, two, three = [load_fluency("embedded", str(tmp_path / name)).identity for name in ("one", "two", "three")]
    assert one == two != three


def test_every_hidden_size_that_the_schema_takes_can_be_trained(tmp_path: Path) -> None:
    for size in (33, 100, 128):
        training = JudgeTraining(fluency_steps=1, fluency_hidden_size=size, fluency_layers=1)
        splits = PairSplits(tuple(PAIRS[:10]), (), ())
        fit_judges(splits, training, tmp_path / str(size), seed=1, num_threads=1, report=lambda figures, step: None)
        assert load_fluency("embedded", str(tmp_path / str(size))).identity


def test_the_rate_rises_falls_and_ends_just_above_0() -> None:
    rates = [_rate(step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == 1
    assert 0 < rates[-1] < 0.02
    assert _rate(0, 1) == 1


def test_an_empty_train_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="train split is empty"):
        fit_judges(
            PairSplits((), (), tuple(PAIRS)), SMALL, tmp_path, seed=1, num_threads=1, report=lambda figures, step: None
        )


def test_it_stops_when_told(tmp_path: Path) -> None:
    recorder = Recorder(stop_after=1)
    with pytest.raises(JobStopped):
        fit_judges(
            PairSplits(tuple(PAIRS), (), ()),
            SMALL,
            tmp_path,
            seed=1,
            num_threads=1,
            report=recorder.report,
            should_stop=recorder.should_stop,
        )
    assert recorder.steps("fluency_loss") == [10]
