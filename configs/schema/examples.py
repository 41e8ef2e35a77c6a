"""One small spec of each kind, for readers of the JSON Schema; each is valid as it stands."""

from __future__ import annotations

from typing import Any

_PAIRS = {"name": "ScaDSAI/ParaDeHate", "source_column": "Original Text", "target_column": "Converted Text"}

EXAMPLES: dict[str, dict[str, Any]] = {
    "prepare": {
        "kind": "prepare",
        "dataset": {"name": "./pairs.csv", "source_column": "toxic", "target_column": ["neutral1", "neutral2"]},
        "tokenizer": {"vocab_size": 8000},
        "judges": {},
    },
    "finetune": {
        "kind": "finetune",
        "name": "teacher",
        "model": {"name": "t5-base"},
        "dataset": _PAIRS,
        "training": {"batch_size": 4, "grad_accumulation": 2, "learning_rate": 2e-4, "epochs": 3},
    },
    "distill": {
        "kind": "distill",
        "teacher_model": {"name": "./models/teacher"},
        "student_model": {"name": "t5-small"},
        "dataset": _PAIRS,
        "loss": {"temperature": 2.0, "kd_weight": 0.7},
    },
    "export": {"kind": "export", "model": {"name": "./models/student"}, "quantization": "int8"},
    "detoxify": {
        "kind": "detoxify",
        "model": {"name": "./models/student-int8"},
        "input": {"path": "./comments.csv", "text_column": "comment"},
        "resources": {"num_workers": 2},
    },
    "evaluate": {
        "kind": "evaluate",
        "dataset": _PAIRS,
        "systems": {"copy": {"control": "copy"}, "student": {"model": {"name": "./models/student-int8"}}},
        "judges": {"style": "unitary/toxic-bert", "content": "roberta-large", "fluency": "gpt2"},
    },
    "pipeline": {
        "kind": "pipeline",
        "steps": {
            "teacher": {"kind": "finetune", "model": {"name": "t5-base"}, "dataset": _PAIRS},
            "student": {
                "kind": "distill",
                "teacher_model": {"name": "${steps.teacher.model}"},
                "student_model": {"name": "t5-small"},
                "dataset": _PAIRS,
            },
        },
    },
}
