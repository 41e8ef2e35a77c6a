"""A student made of its teacher's own layers: fewer of them, spread evenly.

After Shleifer and Rush 2020, *Pre-trained Summarization Distillation* (arXiv 2010.13002): "shrink and fine-tune". Such
a student begins near its teacher, where one with random weights needs a copy warm-up first. Embeddings, norms and width
are the teacher's; only the stacks are shorter.
"""

from __future__ import annotations

import copy
import re

from transformers import T5ForConditionalGeneration

from configs.schema.models import FromTeacher
from jobs.models import LoadedModel, ModelError

_BLOCK = re.compile(r"(encoder|decoder)\.block\.(\d+)\.(.+)")


def shrink(teacher: LoadedModel, layers: FromTeacher) -> LoadedModel:
    """Copy the teacher with fewer blocks, in evaluation mode; the teacher stays as it is.

    Raises:
        ModelError: it has fewer blocks than asked for.
    """
    config = copy.deepcopy(teacher.model.config)
    kept = {
        "encoder": spread(layers.encoder_layers, config.num_layers, "encoder_layers"),
        "decoder": spread(layers.decoder_layers, config.num_decoder_layers or config.num_layers, "decoder_layers"),
    }
    config.num_layers, config.num_decoder_layers = layers.encoder_layers, layers.decoder_layers
    student = T5ForConditionalGeneration(config)
    weights = {}
    for name, weight in teacher.model.state_dict().items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            weights[name] = weight
        elif (number := int(match[2])) in kept[match[1]]:
            weights[f"{match[1]}.block.{kept[match[1]].index(number)}.{match[3]}"] = weight
    student.load_state_dict(weights)
    student.train(False)
    return LoadedModel(student, teacher.tokenizer)


def spread(count: int, total: int, field: str = "layers") -> list[int]:
    """``count`` of the numbers 0 to ``total - 1``, evenly spread, both ends among them (only the first for one).

    The first block is always kept: in a T5 it holds the position biases of all.

    Raises:
        ModelError: there are fewer.
    """
    if count > total:
        raise ModelError(
            f"student_model.from_teacher.{field} is {count}, and the teacher has {total}; give at most {total}"
        )
    if count == 1:
        return [0]
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]
