"""Trains one T5 on pairs: what ``finetune`` and ``distill`` share.

Runs on every rank; rank 0 writes the folder ``model`` (config, whole fp32 weights, tokenizer) and reports. The order of
the steps matters: what can fail fast comes first, and models are loaded before ``TrainingArguments`` exist, because a
ZeRO-3 setting that is alive shards every model loaded after it.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, T5ForConditionalGeneration, set_seed
from transformers.utils import logging as transformers_logging

from configs.schema.data import Dataset
from configs.schema.models import ModelSource, StudentSource
from configs.schema.training import DistillationLoss, Training
from jobs.batches import Cut, MicroBatches, cut_evenly, plan_steps, steps_per_epoch
from jobs.collation import Batch, EncodedPairs, VocabularyMismatch, check_vocabularies, collate, encode_pairs, pad
from jobs.context import JobContext, JobResult, Summary
from jobs.data import DataError, PairSplits, load_pairs
from jobs.divergences import Divergence, forward_kl, jensen_shannon, reverse_kl
from jobs.kernel_build import build_kernel
from jobs.losses import CROSS_ENTROPY, Distillation
from jobs.model_record import ModelRecord, training_record, write_record
from jobs.models import LoadedModel, count_parameters, load_model
from jobs.ranks import rank, wait_for_ranks, world_size
from jobs.resumption import Checkpointer, plan_of, take_up
from jobs.schedule import Phases
from jobs.selection import Selection
from jobs.sharding import check_deepspeed, gather_weights, join_alone, load_deepspeed_config
from jobs.shrinking import shrink
from jobs.student import Student
from jobs.teacher import Teacher
from jobs.trainer import PairTrainer, Rhythm, TrainingDiverged
from jobs.warmup import CopyTask

logger = logging.getLogger(__name__)

MODEL = "model"
"""The artifact's name, and its folder in the output."""


@dataclass(frozen=True)
class Material:
    """Everything a training is made of, loaded and checked."""

    student: LoadedModel
    teacher: LoadedModel | None
    train: EncodedPairs
    validation: EncodedPairs
    prefix: str
    splits: PairSplits = field(default_factory=partial(PairSplits, (), (), ()))


def train_on_pairs(
    dataset: Dataset,
    source: ModelSource,
    training: Training,
    context: JobContext,
    *,
    teacher_source: ModelSource | None = None,
    loss: DistillationLoss | None = None,
) -> JobResult:
    """Train, evaluate, save. With a teacher the loss is ``loss``, without one it is cross-entropy.

    Raises:
        ValueError: a dataset, a model, or a setting that can't be used here; named in the message.
        TrainingDiverged: the loss is not finite.
        JobStopped: ``context.should_stop`` said so.
    """
    began = time.monotonic()
    deepspeed = _start_deepspeed(training.deepspeed)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(context.num_threads)
    material = load_material(dataset, source, training, teacher_source=teacher_source)
    # Counted here: ZeRO-3 leaves every rank with shards.
    num_parameters = count_parameters(material.student.model)
    record = _record(material, dataset, source, training, teacher_source, loss) if rank() == 0 else None
    trainer = make_trainer(material, training, context, deepspeed=deepspeed, loss=loss)
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
    if rank() == 0 and context.checkpoints is None:
        shutil.rmtree(_own_checkpoints(context), ignore_errors=True)
    final = {
        **figures,
        "parameters": float(num_parameters),
        "train_rows": float(len(material.train)),
        **{name: float(count) for name, count in material.splits.extra.items()},
        "training_seconds": time.monotonic() - began,
    }
    if record is not None:
        write_record(context.output / MODEL, replace(record, figures=final))
    return JobResult({MODEL: MODEL}, tuple(Summary(name, value) for name, value in final.items()))


def load_material(
    dataset: Dataset, source: ModelSource, training: Training, *, teacher_source: ModelSource | None = None
) -> Material:
    """Load and tokenize, the teacher whole and before the student. Sets all seeds.

    Raises:
        ValueError: nothing to train on, a model that can't be had, or two vocabularies.
    """
    splits = load_pairs(dataset)
    if not splits.train:
        raise DataError(f"dataset {dataset.name!r} has no row to train on; lower split.test or validation")
    teacher = None if teacher_source is None else load_model(teacher_source)
    set_seed(training.seed)
    student = _load_student(source, teacher)
    if teacher is not None:
        _check_fit(student, teacher)
    encode = partial(
        encode_pairs,
        tokenizer=student.tokenizer,
        prefix=dataset.prefix,
        max_length=dataset.max_length,
        teacher_tokenizer=None if teacher is None else teacher.tokenizer,
    )
    train = encode(splits.train)
    validation = encode(splits.validation, first_number=len(train))
    if training.pad_to == "max_length":
        train, validation = (replace(rows, padded_to=dataset.max_length) for rows in (train, validation))
    return Material(student, teacher, train, validation, dataset.prefix, splits)


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


def _load_student(source: ModelSource, teacher: LoadedModel | None) -> LoadedModel:
    if isinstance(source, StudentSource) and source.from_teacher is not None:
        assert teacher is not None, "only distill has a student"
        return shrink(teacher, source.from_teacher)
    return load_model(source)


def _check_fit(student: LoadedModel, teacher: LoadedModel) -> None:
    check_vocabularies(student.tokenizer, teacher.tokenizer)
    ours, theirs = student.model.config.vocab_size, teacher.model.config.vocab_size
    if ours != theirs:
        raise VocabularyMismatch(
            f"the teacher has {theirs} embedding rows and the student {ours}; set student_model.init.vocab_size to "
            f"{theirs}, or name a student of that size"
        )


def make_trainer(
    material: Material,
    training: Training,
    context: JobContext,
    *,
    deepspeed: dict[str, Any] | None = None,
    loss: DistillationLoss | None = None,
) -> PairTrainer:
    """The trainer of this rank, ready to ``train()``."""
    arguments = _make_arguments(training, context.output, deepspeed)
    cut = Cut(training.batch_size, training.grad_accumulation, world_size(), rank())
    phases = make_phases(training, num_rows=len(material.train), rows_per_step=cut.rows_per_step)
    teacher = None
    if material.teacher is not None:
        dtype = torch.bfloat16 if arguments.bf16 else torch.float32
        teacher = Teacher(material.teacher.model).to(arguments.device, dtype)
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


def _own_checkpoints(context: JobContext) -> Path:
    """Where those of the best model are when nobody gave a folder for them; gone at the end."""
    return context.output / "checkpoints"


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


def _make_arguments(training: Training, output: Path, deepspeed: dict[str, Any] | None) -> Seq2SeqTrainingArguments:
    has_gpu = torch.cuda.is_available()
    has_bf16 = training.precision == "bf16" or (
        training.precision == "auto" and has_gpu and torch.cuda.is_bf16_supported()
    )
    return Seq2SeqTrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.grad_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        num_train_epochs=1,
        optim="adamw_torch_fused",
        bf16=has_bf16,
        use_cpu=not has_gpu,
        ddp_backend=("nccl" if has_gpu else "gloo") if world_size() > 1 else None,
        seed=training.seed,
        deepspeed=deepspeed,
        disable_tqdm=True,
        report_to="none",
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=has_gpu,
        remove_unused_columns=False,
        log_level="warning",
    )


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
    lengths = [row.length for row in material.train.student]
    for rows in plan_steps(lengths, cut.rows_per_step, phases.pair_steps, seed=training.seed):
        makers += [partial(collate, part, material.train) for part in cut.micro_batches(rows)]
    return MicroBatches(makers[first_step * cut.accumulation :])


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
