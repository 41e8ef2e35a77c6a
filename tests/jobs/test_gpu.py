"""The CUDA path, where there is a GPU: ``make test-gpu``. The same code as on a CPU, so a handful is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.models import ModelSource
from jobs import distill, finetune
from jobs.generation import load_generator
from jobs.trainer import TrainingDiverged
from tests.jobs.test_distill import make_spec as distill_spec
from tests.jobs.test_finetune import make_spec as finetune_spec
from tests.jobs.tiny import Recorder, make_model_folder, make_tokenizer, tiny_source, write_pairs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    make_model_folder(folder / "teacher", make_tokenizer(folder / "tokenizer"), hidden_size=24)
    write_pairs(folder / "pairs.csv", 60)
    return folder


def losses(folder: Path, output: Path, **training: Any) -> list[float]:
    recorder = Recorder()
    spec = finetune_spec(folder / "pairs.csv", tiny_source(folder / "tokenizer"), dropout=0.0, log_steps=1, **training)
    finetune.run(spec, recorder.context(output))
    return recorder.values("loss")


def test_fp32_on_the_gpu_has_the_losses_of_the_cpu(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = losses(folder, tmp_path / "gpu", precision="fp32")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        on_cpu = losses(folder, tmp_path / "cpu", precision="fp32")
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"precision": "fp16", "allow_fp16": True}], ids=str)
def test_half_precision_learns_as_fp32_does(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    exact = losses(folder, tmp_path / "exact", precision="fp32", max_steps=30)
    found = losses(folder, tmp_path / "half", max_steps=30, **settings)
    assert found[0] == pytest.approx(exact[0], rel=2e-2)
    assert found[-1] < 0.9 * found[0]


def test_fp16_that_overflows_ends_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"set training\.precision: fp32"):
        losses(folder, tmp_path, precision="fp16", allow_fp16=True, learning_rate=1e30, max_grad_norm=1e9, max_steps=20)


def test_a_teacher_is_distilled_live_and_from_its_kept_states(folder: Path, tmp_path: Path) -> None:
    found = []
    for cache in (False, True):
        spec = distill_spec(folder / "pairs.csv", folder / "teacher", tiny_source(folder / "tokenizer"), log_steps=1)
        recorder = Recorder()
        distill.run(spec.model_copy(update={"teacher_cache": cache}), recorder.context(tmp_path / str(cache)))
        found.append(recorder.values("kd"))
    assert found[1] == pytest.approx(found[0], rel=2e-2)


def test_both_engines_write_the_same_on_the_gpu(folder: Path) -> None:
    engines = (Engine(name="ctranslate2", compute_type="float32"), Engine(name="transformers", compute_type="float32"))
    torch.cuda.reset_peak_memory_stats()
    written = [
        load_generator(
            ModelSource(name=str(folder / "teacher")),
            prefix="detoxify: ",
            max_length=16,
            decoding=Decoding(),
            safety=Safety(),
            engine=engine,
            num_threads=1,
        ).generate(["he likes a stupid plan", "they see the road"])
        for engine in engines
    ]
    assert written[0] == written[1]
    assert torch.cuda.max_memory_allocated() > 0
