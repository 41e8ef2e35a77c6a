"""The ``Seq2SeqTrainer`` whose loss is a mean over the labelled positions of a whole optimizer step.

However a step's rows are cut into micro-batches and ranks, the gradient is the same: positions are counted over the
accumulation window and all ranks, and every micro-batch's sum is divided by that count. The Trainer's own scaling is
switched off: it takes T5's keyword arguments for a promise to divide, and would count nothing under our keys.

Reports live figures, evaluates, saves its state, and stops at the border of a step when it is told to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from jobs.batches import MicroBatches
from jobs.collation import Batch
from jobs.context import JobStopped, Report
from jobs.losses import IGNORED_LABEL, LossSums
from jobs.ranks import rank, sum_over_ranks, world_size
from jobs.resumption import Checkpointer, Resumption, seed_step
from jobs.schedule import Phases
from jobs.selection import Selection
from jobs.student import Student
from jobs.teacher import Teacher


class TrainingDiverged(ValueError):  # noqa: N818 (named for what happened)
    """The loss became infinite or not a number; the message says at which step and what to change."""


class PairTrainer(Seq2SeqTrainer):
    """Trains a ``Student``, with a ``Teacher`` or without.

    Args:
        student: trained in place.
        arguments: no logging, evaluation or saving strategy in them; all of it is decided here.
        batches: this rank's micro-batches, in order.
        validation: this rank's micro-batches of the validation split; the same number on every rank.
        phases: the copy warm-up's steps, the pairs' steps and their learning rates.
        teacher: asked for batches that carry its keys.
        report: called on rank 0.
        should_stop: asked at every step, on every rank; one that says yes stops all.
        rhythm: when to report, to evaluate and to save.
        checkpointer: saves; None where nothing is saved.
        selection: says which evaluation was the best; its state is saved too. None where the last one counts.
        resumption: what an earlier attempt had done; ``batches`` begin after it.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        student: Student,
        arguments: Seq2SeqTrainingArguments,
        batches: MicroBatches,
        *,
        validation: MicroBatches,
        phases: Phases,
        teacher: Teacher | None,
        report: Report,
        should_stop: Callable[[], bool],
        rhythm: Rhythm,
        checkpointer: Checkpointer | None = None,
        selection: Selection | None = None,
        resumption: Resumption | None = None,
    ) -> None:
        self.teacher = teacher
        self.phases = phases
        self._report = report
        self._should_stop = should_stop
        self._batches = batches
        self._validation = validation
        self._progress = _Progress(arguments.device)
        self._checkpointer = checkpointer
        self._selection = selection
        self._resumption = resumption
        self._first_step = 0 if resumption is None else resumption.first_step
        self.evaluations: dict[int, dict[str, float]] = {} if resumption is None else dict(resumption.evaluations)
        """Step on pairs → the figures of the evaluation made there."""
        self.save_is_due = False
        super().__init__(model=student, args=arguments, train_dataset=batches, callbacks=[_Steps(self, rhythm)])
        self.remove_callback(PrinterCallback)

    @property
    def num_steps_done(self) -> int:
        """Optimizer steps of the whole training, those of earlier attempts included."""
        return self._first_step + self.state.global_step

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """The micro-batches as they are: they are padded, in order and this rank's own already."""
        return DataLoader(self._batches, batch_size=None, shuffle=False)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The two phases' learning rates as one schedule."""
        if self.lr_scheduler is None:
            assert self._first_step + num_training_steps == self.phases.num_steps, "the batches are those of the phases"
            chosen: Any = self.optimizer if optimizer is None else optimizer
            first = self._first_step
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, lambda step: self.phases.factor(first + step))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor]:
        """This rank's micro-batches of the next step, and the labelled positions of the step over all ranks.

        Raises:
            JobStopped: one rank was told to stop; raised on all of them at the same step.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        positions = sum(int((batch["labels_s"] != IGNORED_LABEL).sum()) for batch in batches)
        sources = sum(int(batch["attention_mask_s"].sum()) for batch in batches)
        mine = [positions, positions + sources, int(self._should_stop())]
        totals = sum_over_ranks(torch.tensor(mine, dtype=torch.float64, device=device)).tolist()
        if totals[2]:
            raise JobStopped(f"stopped before step {self.num_steps_done + 1} of {self.phases.num_steps}")
        self._progress.tokens += totals[1]
        seed_step(self.args.seed, self.num_steps_done)
        return batches, torch.tensor(max(totals[0], 1.0), dtype=torch.float32, device=device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's part of the step's mean loss, times the ranks that will be averaged over."""
        assert num_items_in_batch is not None, "get_batch_samples counts them"
        sums = self._forward(model, inputs)
        self._progress.sums += stack(sums)
        loss = sums.loss / num_items_in_batch * world_size()
        return (loss, sums) if return_outputs else loss

    def training_step(self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch, forward and backward.

        Raises:
            TrainingDiverged: its loss is not finite.
        """
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the loss is {loss.item()} at step {self.num_steps_done + 1} of {self.phases.num_steps} "
                f"(learning rate {self._get_learning_rate():.3g}); lower training.learning_rate, raise "
                "training.warmup_steps, or set training.precision: fp32"
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report a step's figures; the Trainer's own summary at the end is not passed on."""
        if "loss" not in logs:
            return
        figures = self._progress.take()
        figures["lr"] = logs["learning_rate"]
        figures["grad_norm"] = float(logs.get("grad_norm", 0.0))
        prefix, step = self.phases.locate(self.num_steps_done)
        if rank() == 0:
            self._report({f"{prefix}{key}": value for key, value in figures.items()}, step)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and token accuracy on the validation split; a collective. Empty where there is no validation split."""
        if not len(self._validation):
            return {}
        model = self.model_wrapped
        model.eval()
        totals = torch.zeros(len(LossSums._fields), dtype=torch.float64, device=self.args.device)
        for index in range(len(self._validation)):
            totals += stack(self._forward(model, self._prepare_inputs(self._validation[index])))
        figures = {f"validation_{key}": value for key, value in means(sum_over_ranks(totals)).items()}
        _, step = self.phases.locate(self.num_steps_done)
        self.evaluations[step] = figures
        if rank() == 0:
            self._report(figures, step)
        if self._selection is not None:
            # Every rank decides alike: the figures are sums over all of them.
            self.save_is_due |= self.best_step == step and self.num_steps_done < self.phases.num_steps
            if self._selection.is_over(self.evaluations):
                self.control.should_training_stop = True
        self._progress.restart_clock()
        return figures

    @property
    def best_step(self) -> int | None:
        """The step on pairs of the best evaluation; None where the last one counts, or there was none."""
        return None if self._selection is None else self._selection.best_step(self.evaluations)

    def best_weights(self) -> dict[str, torch.Tensor] | None:
        """The weights of the best evaluation by name; None where they are those that the model has now."""
        best = self.best_step
        if best is None or best == self.num_steps_done - self.phases.copy_steps or self._checkpointer is None:
            return None
        return self._checkpointer.weights_of(self.phases.copy_steps + best, self._student)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Report and evaluate as the Trainer does, then save: a checkpoint holds the evaluation of its own step."""
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self.save_is_due:
            self.save_is_due = False
            self.save_state()

    def take_up(self) -> None:
        """Give the optimizer, which exists now, what an earlier attempt's had."""
        if self._resumption is not None:
            assert self._checkpointer is not None, "who takes up also saves"
            self._checkpointer.restore(self._student, self.optimizer, self._resumption)
            self._resumption = None

    def save_state(self) -> None:
        """Write a checkpoint of what was done until now; a collective, nothing where nothing is saved."""
        if self._checkpointer is not None:
            best = self.best_step
            self._checkpointer.save(
                self._student,
                self.optimizer,
                step=self.num_steps_done,
                evaluations=self.evaluations,
                best=None if best is None else self.phases.copy_steps + best,
            )
            self._progress.restart_clock()

    @property
    def _student(self) -> torch.nn.Module:
        """The T5 itself, whatever has wrapped it: its parameters' names are those of its files."""
        student: Any = self.model
        t5: torch.nn.Module = student.model
        return t5

    def _forward(self, model: torch.nn.Module, batch: Batch) -> LossSums:
        has_teacher = self.teacher is not None and "input_ids_t" in batch
        teacher = self.teacher.project(batch) if self.teacher is not None and has_teacher else None
        sums: LossSums = model(
            input_ids=batch["input_ids_s"],
            attention_mask=batch["attention_mask_s"],
            labels=batch["labels_s"],
            teacher=teacher,
        )
        return sums


def stack(sums: LossSums) -> torch.Tensor:
    """The sums as one vector, without their gradient, exact for counts."""
    return torch.stack([value.detach() for value in sums]).double()


def means(totals: torch.Tensor) -> dict[str, float]:
    """Figures per labelled position from stacked sums; zeros where there was no position."""
    sums: dict[str, float] = dict(zip(LossSums._fields, totals.tolist(), strict=True))
    count = max(sums.pop("num_positions"), 1.0)
    names = {"num_correct": "token_accuracy", "num_agreed": "teacher_agreement"}
    return {names.get(key, key): value / count for key, value in sums.items()}


class _Progress:
    """What happened since the last report."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(LossSums._fields), dtype=torch.float64, device=device)
        self.tokens = 0.0
        self._since = time.monotonic()

    def take(self) -> dict[str, float]:
        """Means over all ranks since the last time; a collective."""
        figures = means(sum_over_ranks(self.sums.clone()))
        now = time.monotonic()
        figures["tokens_per_second"] = self.tokens / max(now - self._since, 1e-9)
        self.sums.zero_()
        self.tokens = 0.0
        self._since = now
        return figures

    def restart_clock(self) -> None:
        """Leave the time since the last report out: it wasn't training."""
        self._since = time.monotonic()


@dataclass(frozen=True)
class Rhythm:
    """Steps between two reports, evaluations and checkpoints, counted within each phase; None for none."""

    log_steps: int
    eval_steps: int | None = None
    checkpoint_steps: int | None = None


class _Steps(TrainerCallback):
    """Does at the border of a step what is due there. The last step of a phase always reports."""

    def __init__(self, trainer: PairTrainer, rhythm: Rhythm) -> None:
        self._trainer = trainer
        self._rhythm = rhythm

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self._trainer.take_up()
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        # The Trainer looks at them again here, and the last step has done what they say.
        control.should_log = control.should_evaluate = False
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        phases, done, rhythm = self._trainer.phases, self._trainer.num_steps_done, self._rhythm
        name, step = phases.locate(done)
        is_last = done in (phases.copy_steps, phases.num_steps)
        control.should_log = step == 1 or step % rhythm.log_steps == 0 or is_last
        control.should_evaluate = not name and _is_due(step, rhythm.eval_steps)
        self._trainer.save_is_due = _is_due(done, rhythm.checkpoint_steps) and done < phases.num_steps
        return control


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
