"""Small specs for the tests of this room."""

from __future__ import annotations

from typing import Any

from configs.load import validate_spec
from configs.schema.kinds import AnySpec, Pipeline

SHAPE = {"hidden_size": 16, "layers": {"encoder": 1, "decoder": 1}, "ffn_size": 32, "attention_heads": 2}


def prepare(**values: Any) -> AnySpec:
    return validate_spec({"kind": "prepare", "dataset": {"name": "sample"}, **values})


def finetune(**values: Any) -> AnySpec:
    model = {"init": SHAPE, "tokenizer": "/data/tokenizer"}
    return validate_spec({"kind": "finetune", "dataset": {"name": "/data/pairs.tsv"}, "model": model, **values})


def pipeline(**values: Any) -> Pipeline:
    """``data`` → ``teacher`` → ``student``, and ``other`` beside the teacher."""
    pairs = {"name": "${steps.data.dataset}"}
    model = {"init": SHAPE, "tokenizer": "${steps.data.tokenizer}"}
    steps = {
        "data": {"kind": "prepare", "dataset": {"name": "sample"}, "tokenizer": {}},
        "teacher": {"kind": "finetune", "dataset": pairs, "model": model},
        "student": {
            "kind": "distill",
            "dataset": pairs,
            "teacher_model": {"name": "${steps.teacher.model}"},
            "student_model": model,
        },
        "other": {"kind": "finetune", "dataset": pairs, "model": model},
    }
    spec = validate_spec({"kind": "pipeline", "name": "road", "steps": steps, **values})
    assert isinstance(spec, Pipeline)
    return spec


def detoxify(**values: Any) -> AnySpec:
    return validate_spec(
        {"kind": "detoxify", "model": {"name": "/data/model"}, "input": {"path": "/data/dump.csv"}, **values}
    )
