"""DeepSpeed: refused early where it can't build, its config by name, and ZeRO trainings that save whole weights."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.schema.training import ZERO_STAGES
from jobs import finetune
from jobs.sharding import CONFIG_FOLDER, ShardingError, check_deepspeed, gather_weights, load_deepspeed_config
from tests.jobs.test_finetune import make_spec
from tests.jobs.tiny import Recorder, make_tokenizer, tiny_source, write_pairs


def test_without_a_compiler_nothing_starts_and_the_way_out_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = make_spec(tmp_path / "no.csv", tiny_source(tmp_path / "no"), deepspeed="zero2")
    with pytest.raises(
        ShardingError, match=r"C\+\+ compiler \(g\+\+.*install g\+\+ and ninja, or remove training\.dee"
    ):
        finetune.run(spec, Recorder().context(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_with_a_compiler_and_ninja_the_check_passes_and_without_ninja_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_deepspeed()
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda command: None if command == "ninja" else found(command))
    with pytest.raises(ShardingError, match="needs ninja"):
        check_deepspeed()


@pytest.mark.parametrize("name", ZERO_STAGES)
def test_a_stage_is_found_by_its_name(name: str) -> None:
    config = load_deepspeed_config(name)
    zero = config["zero_optimization"]
    assert zero["stage"] == int(name.removesuffix("_offload")[-1])
    assert ("offload_optimizer" in zero) == name.endswith("_offload")
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert not {"optimizer", "scheduler"} & set(config)


def test_a_file_of_ones_own_is_taken_without_what_the_spec_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.json"
    mine = {"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lamb"}, "zero_force_ds_cpu_optimizer": True}
    path.write_text(json.dumps(mine))
    with caplog.at_level(logging.WARNING):
        config = load_deepspeed_config(str(path))
    assert config == {"zero_optimization": {"stage": 2}, "zero_force_ds_cpu_optimizer": False}
    assert "optimizer in" in caplog.text
    assert "AdamW is torch's wherever it steps" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file or directory.*use one of zero1"), ("{", "not JSON"), ("[]", "no JSON obj")],
)
def test_a_config_that_is_none_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ShardingError, match=message):
        load_deepspeed_config(str(path))


def test_whole_weights_are_fp32_copies() -> None:
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    weights = gather_weights(model, sharded=False)
    assert set(weights) == {"weight", "bias"}
    assert all(weight.dtype == torch.float32 for weight in weights.values())


TRAIN = """
import sys
from pathlib import Path
from configs.schema.training import ZERO_STAGES
from jobs import finetune
from tests.jobs.test_finetune import make_spec
from tests.jobs.tiny import Recorder, tiny_source
tokenizer, pairs, output, stage = sys.argv[1:]
deepspeed = None if stage == "none" else stage
spec = make_spec(Path(pairs), tiny_source(Path(tokenizer)), deepspeed=deepspeed, precision="fp32", dropout=0.0,
                 grad_accumulation=2, batch_size=4, max_steps=6)
finetune.run(spec, Recorder().context(Path(output)))
"""


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3"])
def test_a_stage_trains_to_the_weights_of_a_plain_run_and_saves_them_whole(stage: str, tmp_path: Path) -> None:
    tokenizer, pairs = make_tokenizer(tmp_path / "tokenizer"), write_pairs(tmp_path / "pairs.csv", 60)
    weights = []
    for name in ("none", stage):
        # A process of its own: DeepSpeed and its process group stay alive in the one that used them.
        command = [sys.executable, "-c", TRAIN, str(tokenizer), str(pairs), str(tmp_path / name), name]
        subprocess.run(command, check=True, timeout=500, cwd=CONFIG_FOLDER.parent.parent)
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    assert set(weights[0]) == set(weights[1])
    for key, plain in weights[0].items():
        torch.testing.assert_close(weights[1][key], plain, rtol=1e-3, atol=1e-4, msg=key)
