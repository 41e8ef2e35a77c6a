"""A step's gradient doesn't depend on how its rows are cut, over ranks and ZeRO stages, with targets of many lengths.

The gradient is compared by what it does: the norm (AdamW, and clipping, would hide a wrong scale) and the weights after
three steps (which a wrong direction would move elsewhere).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.jobs.step_script import FIGURES, train
from tests.jobs.test_ranks import run_ranks
from tests.jobs.tiny import make_model_folder, make_tokenizer, words

KINDS = ("finetune", "distill")
RELATIVE, ABSOLUTE = 1e-3, 2e-5
"""Sums in another order; AdamW divides by the root of small second moments in its first steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets of 1 to 12 words, so that micro-batches and ranks differ in labelled positions."""
    folder = tmp_path_factory.mktemp("material")
    make_model_folder(folder / "teacher", make_tokenizer(folder / "tokenizer"), hidden_size=24)
    vocabulary = words()
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["toxic", "neutral"])
        for number in range(32):
            chosen = [vocabulary[(7 * number + 3 * place) % len(vocabulary)] for place in range(12)]
            writer.writerow([" ".join(chosen), " ".join(chosen[: 1 + (5 * number) % 12])])
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Path]:
    """Each kind with the eight rows of a step in one batch."""
    return {kind: train(folder, folder / f"{kind}-8x1", kind, batch_size=8, accumulation=1) for kind in KINDS}


def differences(found: Path, expected: Path) -> list[str]:
    """Figures and weights in which two trainings differ."""
    figures = [json.loads((output / "figures.json").read_text()) for output in (found, expected)]
    assert len(figures[1]["loss"]) == 3
    weights = [load_file(output / "model" / "model.safetensors") for output in (found, expected)]
    assert weights[0].keys() == weights[1].keys()
    wrong = [name for name in FIGURES if figures[0][name] != pytest.approx(figures[1][name], rel=1e-4, abs=1e-6)]
    for key, value in weights[1].items():
        if not torch.allclose(weights[0][key], value, rtol=RELATIVE, atol=ABSOLUTE):
            wrong.append(key)
    return wrong


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (2, 4)])
def test_accumulated_micro_batches_make_the_step_of_one_batch(
    batch_size: int, accumulation: int, kind: str, folder: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    found = train(folder, tmp_path, kind, batch_size=batch_size, accumulation=accumulation)
    assert differences(found, whole[kind]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_make_the_step_of_one_batch(kind: str, folder: Path, whole: dict[str, Path]) -> None:
    run_ranks(folder, kind, "ddp", script="step_script")
    assert differences(folder / f"{kind}-ddp", whole[kind]) == []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3"])
def test_two_sharded_ranks_make_the_step_of_one_batch(
    stage: str, kind: str, folder: Path, whole: dict[str, Path]
) -> None:
    run_ranks(folder, kind, stage, script="step_script", timeout=500)
    assert differences(folder / f"{kind}-{stage}", whole[kind]) == []


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["zero2_offload", "zero3_offload"])
def test_two_ranks_that_step_on_the_cpu_make_the_step_of_one_batch(
    stage: str, folder: Path, whole: dict[str, Path]
) -> None:
    run_ranks(folder, "distill", stage, script="step_script", timeout=500)
    assert differences(folder / f"distill-{stage}", whole["distill"]) == []
