"""Trains one T5 on pairs: what ``finetune`` and ``distill`` share.

Runs on every rank; rank 0 writes the folder ``model`` (config, whole fp32 weights, tokenizer) and reports. The order of
the steps matters: what can fail fast comes first, and models are loaded before ``TrainingArguments`` exist, because a
ZeRO-3 setting that is alive shards every model loaded after it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import T5ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from configs.schema.data import Dataset
from configs.schema.models import ModelSource
from configs.schema.training import DistillationLoss, TeacherCache, Training
from jobs.arguments import check_precision, make_arguments
from jobs.batches import Cut, MicroBatches, cut_evenly, plan_steps, steps_per_epoch
from jobs.collation import Batch, EncodedPairs, collate, pad
from jobs.context import JobContext, JobResult, Summary
from jobs.data import DataError
from jobs.divergences import Divergence, forward_kl, jensen_shannon, reverse_kl
from jobs.kernel_build import build_kernel
from jobs.losses import CROSS_ENTROPY, Distillation
from jobs.material import Material, load_material
from jobs.model_record import ModelRecord, training_record, write_record
from jobs.models import LoadedModel, count_parameters
from jobs.ranks import from_rank_0, rank, wait_for_ranks, world_size
from jobs.resumption import Checkpointer, plan_of, take_up
from jobs.schedule import Phases
from jobs.selection import Selection
from jobs.sharding import check_deepspeed, gather_weights, join_alone, load_deepspeed_config
from jobs.student import Student
from jobs.teacher import Recording, Teacher, fingerprint, keep_states
from jobs.teacher_cache import StateCache
from jobs.trainer import PairTrainer, Rhythm, TrainingDiverged
from jobs.warmup import CopyTask

logger = logging.getLogger(__name__)

MODEL = "model"
"""The artifact's name, and its folder in the output."""
TEACHER_CACHE = "teacher-cache"
"""The folder of teachers' states: one folder for each teacher in it."""
CACHE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def train_on_pairs(
    dataset: Dataset,
    source: ModelSource,
    training: Training,
    context: JobContext,
    *,
    teacher_source: ModelSource | None = None,
    loss: DistillationLoss | None = None,
    teacher_cache: TeacherCache | None = None,
) -> JobResult:
    """Train, evaluate, save. With a teacher the loss is ``loss``, without one it is cross-entropy.

    With ``teacher_cache`` the teacher's states are kept, and the teacher is gone before the first step; the figure
    ``teacher_rows_made`` tells of how many rows this attempt had to make them, 0 when all were there.

    Raises:
        ValueError: a dataset, a model, or a setting that can't be used here; named in the message.
        TrainingDiverged: the loss is not finite.
        JobStopped: ``context.should_stop`` said so.
    """
    began = time.monotonic()
    check_precision(training)
    deepspeed = _start_deepspeed(training.deepspeed)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(context.num_threads)
    material = load_material(dataset, source, training, teacher_source=teacher_source)
    # Counted here: ZeRO-3 leaves every rank with shards.
    num_parameters = count_parameters(material.student.model)
    record = _record(material, dataset, source, training, teacher_source, loss) if rank() == 0 else None
    trainer = make_trainer(material, training, context, deepspeed=deepspeed, loss=loss, teacher_cache=teacher_cache)
    # A teacher whose states are kept was let go by its trainer; nobody else holds it from here on.
    material = replace(material, teacher=None)
    if rank() == 0:
        logger.info("training starts: %d rows, %d steps", len(material.train), trainer.phases.num_steps)
    trainer.train()
    _, last_step = trainer.phases.locate(trainer.num_steps_done)
    figures = trainer.evaluations.get(last_step) or trainer.evaluate()
    best = trainer.best_weights()
    if best is not None and trainer.best_step is not None:
        logger.info("the model of step %d is the best", trainer.best_step)
        figures = {**trainer.evaluations[trainer.best_step], "best_step": float(trainer.best_step)}
    save_model(material.student, context.output / MODEL, weights=best, sharded=deepspeed is not None)
    wait_for_ranks()
    if rank() == 0:
        _remove_own(context)
    final = {
        **figures,
        "parameters": float(num_parameters),
        "train_rows": float(len(material.train)),
        **{name: float(count) for name, count in material.splits.extra.items()},
        "training_seconds": time.monotonic() - began,
    }
    if trainer.teacher is not None and trainer.teacher.num_rows_made is not None:
        final["teacher_rows_made"] = float(trainer.teacher.num_rows_made)
    if record is not None:
        write_record(context.output / MODEL, replace(record, figures=final))
    return JobResult({MODEL: MODEL}, tuple(Summary(name, value) for name, value in final.items()))


def _record(
    material: Material,
    dataset: Dataset,
    source: ModelSource,
    training: Training,
    teacher_source: ModelSource | None,
    loss: DistillationLoss | None,
) -> ModelRecord:
    return training_record(
        dataset,
        material.splits,
        training,
        source=source,
        student=material.student,
        teacher_source=teacher_source,
        teacher=material.teacher,
        loss=loss,
    )


def make_trainer(
    material: Material,
    training: Training,
    context: JobContext,
    *,
    deepspeed: dict[str, Any] | None = None,
    loss: DistillationLoss | None = None,
    teacher_cache: TeacherCache | None = None,
) -> PairTrainer:
    """The trainer of this rank, ready to ``train()``."""
    arguments = make_arguments(training, context.output, deepspeed)
    cut = Cut(training.batch_size, training.grad_accumulation, world_size(), rank())
    phases = make_phases(training, num_rows=len(material.train), rows_per_step=cut.rows_per_step)
    teacher = None
    if material.teacher is not None:
        key = _name_teacher(material.teacher) if teacher_cache is not None else ""
        dtype = torch.bfloat16 if arguments.bf16 else torch.float32
        teacher = Teacher(material.teacher.model).to(arguments.device, dtype)
        if teacher_cache is not None:
            steps = _plan_rows(material, training, phases, cut)
            _record_states(teacher, key, teacher_cache, material, steps, context)
    if training.dropout is not None:
        _set_dropout(material.student.model, training.dropout)
    selection = _selection(training, material)
    root = context.checkpoints or (_own_checkpoints(context) if selection is not None else None)
    resumption = take_up(root, phases=phases, rows_per_step=cut.rows_per_step)
    if resumption is not None:
        resumption.load_weights(material.student.model)
        logger.info("taken up after %d of %d steps", resumption.first_step, phases.num_steps)
    student = Student(material.student.model, distillation=_distillation(loss, teacher))
    return PairTrainer(
        student,
        arguments,
        _plan_training(material, training, phases, cut, first_step=0 if resumption is None else resumption.first_step),
        validation=_plan_validation(material.validation, cut),
        phases=phases,
        teacher=teacher,
        report=context.report,
        should_stop=context.should_stop,
        rhythm=Rhythm(training.log_steps, training.eval_steps, training.checkpoint_steps),
        checkpointer=None
        if root is None
        else Checkpointer(
            root,
            epoch=context.epoch,
            keep=training.keep_checkpoints,
            sharded=deepspeed is not None,
            plan=plan_of(phases, cut.rows_per_step),
        ),
        selection=selection,
        resumption=resumption,
    )


def _name_teacher(teacher: LoadedModel) -> str:
    name = from_rank_0(fingerprint(teacher.model) if rank() == 0 else None)
    assert name is not None, "rank 0 gives a name"
    return name


def _record_states(
    teacher: Teacher,
    key: str,
    settings: TeacherCache,
    material: Material,
    steps: Sequence[Sequence[int]],
    context: JobContext,
) -> None:
    """Keep the states of all rows that this training will see."""
    root = Path(settings.folder).expanduser() if settings.folder is not None else context.cache
    train, validation = material.train, material.validation
    rows = {train.first_number + row: train.teacher[row] for step in steps for row in step}
    rows |= {validation.first_number + number: row for number, row in enumerate(validation.teacher)}
    keep_states(
        teacher,
        rows,
        StateCache((_own_cache(context) if root is None else root / TEACHER_CACHE) / key),
        Recording(material.prefix, material.max_length, CACHE_DTYPES[settings.dtype]),
        report=context.report,
        should_stop=context.should_stop,
    )


def _own_cache(context: JobContext) -> Path:
    """Where teacher states are when nothing outlives the run; gone at the end."""
    return context.output / TEACHER_CACHE


def _own_checkpoints(context: JobContext) -> Path:
    """Where those of the best model are when nobody gave a folder for them; gone at the end."""
    return context.output / "checkpoints"


def _remove_own(context: JobContext) -> None:
    if context.checkpoints is None:
        shutil.rmtree(_own_checkpoints(context), ignore_errors=True)
    if context.cache is None:
        shutil.rmtree(_own_cache(context), ignore_errors=True)


def _selection(training: Training, material: Material) -> Selection | None:
    if training.best_metric is None:
        return None
    if not material.validation.student:
        raise DataError(
            f"training.best_metric is {training.best_metric}, but the dataset has no validation split; set "
            "dataset.validation, or leave best_metric out"
        )
    stopping = training.early_stopping
    if stopping is None:
        return Selection(training.best_metric)
    return Selection(training.best_metric, stopping.patience, stopping.min_delta)


def _distillation(loss: DistillationLoss | None, teacher: Teacher | None) -> Distillation:
    if loss is None or teacher is None:
        return CROSS_ENTROPY
    divergences: dict[str, Divergence] = {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "jensen_shannon": partial(jensen_shannon, beta=loss.beta),
    }
    return Distillation(loss.temperature, loss.kd_weight, divergences[loss.divergence])


def make_phases(training: Training, *, num_rows: int, rows_per_step: int) -> Phases:
    """How many steps each phase has: ``max_steps``, or else ``epochs`` of all rows, rounded up."""
    per_epoch = steps_per_epoch(num_rows, rows_per_step)
    pair_steps = training.max_steps or max(1, round(training.epochs * per_epoch))
    warmup = training.copy_warmup
    return Phases(
        copy_steps=0 if warmup is None else warmup.steps,
        copy_learning_rate=training.learning_rate if warmup is None else warmup.learning_rate,
        pair_steps=pair_steps,
        learning_rate=training.learning_rate,
        warmup_steps=min(training.warmup_steps, pair_steps),
        schedule=training.schedule,
    )


def save_model(
    loaded: LoadedModel, folder: Path, *, sharded: bool, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write config, whole weights (one ``model.safetensors``) and tokenizer; a collective, rank 0 writes.

    The weights are those given, else those that the model has now.

    Raises:
        TrainingDiverged: a weight is not finite; nothing is written.
    """
    if weights is None:
        weights = gather_weights(loaded.model, sharded=sharded)
    broken = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
    if broken:
        raise TrainingDiverged(f"the weight {broken[0]} is not finite after training; lower training.learning_rate")
    if rank() == 0:
        loaded.model.config.dtype = "float32"
        loaded.model.save_pretrained(folder, state_dict=weights, max_shard_size="1TB")
        loaded.tokenizer.save_pretrained(folder)


def _start_deepspeed(name: str | None) -> dict[str, Any] | None:
    if name is None:
        return None
    check_deepspeed()
    config = load_deepspeed_config(name)
    build_kernel()
    join_alone()
    return config


def _plan_training(
    material: Material, training: Training, phases: Phases, cut: Cut, *, first_step: int
) -> MicroBatches:
    """This rank's micro-batches of all steps but the first ones, which an earlier attempt has made."""
    makers = []
    if training.copy_warmup is not None:
        copy_cut = Cut(training.copy_warmup.batch_size, cut.accumulation, cut.world, cut.rank)
        task = make_copy_task(material)
        for step in range(phases.copy_steps):
            makers += [
                partial(_copy_batch, task, step, index, copy_cut, training.seed) for index in range(cut.accumulation)
            ]
    for rows in _plan_rows(material, training, phases, cut):
        makers += [partial(collate, part, material.train) for part in cut.micro_batches(rows)]
    return MicroBatches(makers[first_step * cut.accumulation :])


def _plan_rows(material: Material, training: Training, phases: Phases, cut: Cut) -> list[list[int]]:
    """The rows of each step on pairs."""
    lengths = [row.length for row in material.train.student]
    return plan_steps(lengths, cut.rows_per_step, phases.pair_steps, seed=training.seed)


def _copy_batch(task: CopyTask, step: int, index: int, cut: Cut, seed: int) -> Batch:
    rows = task.rows(step, cut.rows_per_step, seed=seed)
    return pad([rows[number] for number in cut.micro_batches(range(len(rows)))[index]], suffix="_s")


def _plan_validation(pairs: EncodedPairs, cut: Cut) -> MicroBatches:
    order = sorted(range(len(pairs)), key=lambda row: pairs.student[row].length)
    return MicroBatches([partial(collate, part, pairs) for part in cut_evenly(order, cut)])


def make_copy_task(material: Material) -> CopyTask:
    """Copying for this tokenizer, with the targets of the train split as its real sentences."""
    tokenizer = material.student.tokenizer
    prefix_ids = tokenizer(material.prefix, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    return CopyTask(
        [row.labels for row in material.train.student],
        prefix_ids=prefix_ids,
        token_ids=[number for number in range(len(tokenizer)) if number not in special],
        end_id=tokenizer.eos_token_id,
    )


def _set_dropout(model: T5ForConditionalGeneration, rate: float) -> None:
    """Replace every dropout rate of a T5; attention keeps its own copy of it as a number."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "dropout", None), float):
            setattr(module, "dropout", rate)  # noqa: B010 (torch types every attribute as a module)
    model.config.dropout_rate = rate
