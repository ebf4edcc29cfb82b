"""The one trainer of all stages: accumulate, clip, step, average, evaluate, save, resume exactly.

It knows a stage only through the ``Stage`` protocol. Resume is exact because nothing random is carried between
steps: a batch is a function of its index, and the random state of the model is set from (seed, step, micro-step).
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.data.prefetch import Prefetcher
from uniaudio2.devices import choose_device
from uniaudio2.errors import CheckpointError
from uniaudio2.train.config import TrainConfig, TrainingError, TrainResult
from uniaudio2.train.distributed import ProcessGroup
from uniaudio2.train.identity import differences, flat_config
from uniaudio2.train.optim import EMA, clip_gradients, learning_rate_factor, make_optimizer, set_learning_rate
from uniaudio2.train.report import Reporter, Window, to_stderr
from uniaudio2.train.stage import Stage, place, to_device
from uniaudio2.train.state import (
    amend_checkpoint,
    checkpoint_folders,
    identity_of,
    load_optimizer,
    optimizer_tensors,
    read_state,
    read_tensors,
    save_checkpoint,
    state_keys,
)


def _reseed(*key: int) -> None:
    """Set the process's random state from integers alone."""
    state = np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(2, np.uint32)
    torch.manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002 (for stages that use libraries drawing from the global state)


class _StopSignals:
    """Notes SIGTERM and Ctrl-C; a second Ctrl-C interrupts at once. Does nothing outside the main thread."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._kept: dict[int, Any] = {}

    def _note(self, number: int, _frame: object) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> _StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._kept[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)


class Trainer:
    """Runs one stage, once.

    Args:
        config: Length, optimiser, logging.
        stage: What trains.
        log: Where log lines go when standard error is no terminal; standard error by default.

    Raises:
        TrainingError: If the device is not there, or the micro-batches cannot be dealt out to the processes.
    """

    def __init__(self, config: TrainConfig, stage: Stage, *, log: Callable[[str], None] | None = None) -> None:
        self.config = config
        self.stage = stage
        self.out_dir = Path(config.out_dir)
        self.group = ProcessGroup.from_environment()
        self.device = choose_device(config.device)
        if self.device.type == "cuda" and self.group.size > 1:
            self.device = torch.device("cuda", self.group.local_rank)
        if config.accumulate % self.group.size:
            raise TrainingError(
                f"train.accumulate={config.accumulate} cannot be dealt out to {self.group.size} processes; "
                f"make it a multiple of {self.group.size}"
            )
        self._log = (log or to_stderr) if self.group.leads else lambda line: None
        self.step = 0
        self.total_steps = config.steps
        self._window = Window()
        self._elapsed_s = 0.0
        self._decay_planned = False
        self._evaluated_at = 0
        self._last_eval: dict[str, float] = {}

    @property
    def checkpoint_dir(self) -> Path:
        """Folder of the checkpoints."""
        return self.out_dir / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line: ``step`` and training or ``eval/…`` figures."""
        return self.out_dir / "metrics.jsonl"

    def identity(self) -> dict[str, Any]:
        """Settings and data that must be the same when the run goes on, by name."""
        return {**flat_config(self.config, "train."), **getattr(self.stage, "identity", dict)()}

    # ---------------------------------------------------------------- checkpoints

    def _save(self) -> None:
        """Write a checkpoint of the current step."""
        state_tensors, state_numbers = optimizer_tensors(self.optimizer, self._names)
        tensors = {"model": self.stage.model.state_dict(), "optimizer": state_tensors}
        if self.ema:
            tensors["ema"] = self.ema.average
        state = {
            "format": 2,
            "stage": self.stage.name,
            "step": self.step,
            "total_steps": self.total_steps if self._decay_planned else None,
            "elapsed_s": self._elapsed_s,
            "window": self._window.sums,
            "evaluation": self._last_eval,
            "evaluated_at": self._evaluated_at,
            "optimizer_numbers": state_numbers,
            "trained": state_keys(self.optimizer, self._names),
            "identity": self.identity(),
        }
        save_checkpoint(
            self.checkpoint_dir, step=self.step, tensors=tensors, state=state, keep=self.config.keep_checkpoints
        )

    def _find_checkpoint(self, resume: bool) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint with its state, checked against this run; None where there is none.

        Raises:
            TrainingError: If there is one, and the run was to start anew.
            CheckpointError: If it belongs to another stage, or to a run with other settings or data.
        """
        folders = checkpoint_folders(self.checkpoint_dir)
        if not folders:
            return None
        if not resume or self.config.resume == "never":
            raise TrainingError(f"{self.checkpoint_dir} holds checkpoints; resume, remove them or use another out_dir")
        path, state = folders[-1], read_state(folders[-1])
        if state["stage"] != self.stage.name:
            raise CheckpointError(
                f"{path} belongs to stage {state['stage']!r}, not {self.stage.name!r}; use another out_dir"
            )
        differing = differences(identity_of(state), self.identity())
        if differing and self.config.resume != "force":
            raise CheckpointError(
                f"{path} was made with {'; '.join(differing)}. Set it back, use another out_dir, "
                "or go on all the same with train.resume=force"
            )
        for line in differing:
            self._log(f"{self.stage.name}: goes on with another setting: {line}")
        return path, state

    def _take_numbers(self, state: Mapping[str, Any]) -> None:
        """Go on at the step, time and figures of a checkpoint."""
        self.step = int(state["step"])
        self._elapsed_s = float(state["elapsed_s"])
        self._window.sums = {key: (float(total), int(count)) for key, (total, count) in state["window"].items()}
        self._last_eval = dict(state["evaluation"])
        self._evaluated_at = int(state.get("evaluated_at", self.step))
        if state["total_steps"] is not None and self.config.budget_minutes > 0:
            self.total_steps, self._decay_planned = int(state["total_steps"]), True

    def _restore(self, path: Path, state: Mapping[str, Any]) -> None:
        """Load the weights and the optimiser's state of a checkpoint.

        Raises:
            CheckpointError: If they do not fit the stage.
        """
        before = identity_of(state)
        averaged = self.ema is not None and before.get("train.ema_decay", 0) > 0
        tensors = read_tensors(path, ("model", "optimizer", *(("ema",) if averaged else ())))
        try:
            self.stage.model.load_state_dict(tensors["model"], strict=True)
        except RuntimeError as error:
            first = str(error).strip().splitlines()
            raise CheckpointError(f"{path} does not fit the model of this stage: {' '.join(first[:2])}") from None
        if before.get("train.optimizer", "adamw") == self.config.optimizer:
            load_optimizer(
                self.optimizer, self.parameters, tensors["optimizer"], state["optimizer_numbers"], state.get("trained")
            )
        if self.ema and averaged:
            self.ema.load(tensors["ema"])
        elif self.ema:  # averaging starts here, by force
            self.ema = EMA(self.parameters, self.config.ema_decay)

    # ---------------------------------------------------------------- one step

    def _train_step(self, batches: Iterator[Any]) -> dict[str, float]:
        config = self.config
        factor = learning_rate_factor(
            self.step,
            steps=self.total_steps,
            warmup_steps=config.warmup_steps,
            decay_fraction=config.decay_fraction,
            min_lr_ratio=config.min_lr_ratio,
        )
        set_learning_rate(self.optimizer, config.lr * factor)
        totals, loss_sum = Window(), 0.0
        for micro in self.group.micro_steps(config.accumulate):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            metrics = self._micro_step(batch, micro)
            loss_sum += metrics.pop("loss")
            totals.add({**metrics, "wait_s": waited})
        figures = totals.means()
        loss_sum, units = self.group.sum([loss_sum, figures.get("units", 0.0)], self.device)
        if not math.isfinite(loss_sum):  # in all processes at once: none is left waiting for the others
            raise self._diverged(f"loss is {loss_sum}")
        self.group.sum_gradients(self.parameters.values())
        norm = float(clip_gradients(self.optimizer, config.grad_clip))
        if not math.isfinite(norm):
            raise self._diverged(f"gradient norm is {norm}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.step)
        figures |= {"units": units} if units else {}
        return {"loss": loss_sum / config.accumulate, **figures, "grad_norm": norm, "lr": config.lr * factor}

    def _micro_step(self, batch: Any, micro: int) -> dict[str, float]:
        """Leave the gradients of one micro-batch on the parameters; its loss and metrics."""
        batch = to_device(batch, self.device)
        _reseed(self.config.seed, self.step, micro)
        with self._autocast():
            loss, metrics = self.stage.loss(batch, self.step)
        (loss / self.config.accumulate).backward()
        figures: Mapping[str, Any] = {**metrics, "loss": loss}
        return {k: float(v.detach()) if isinstance(v, Tensor) else float(v) for k, v in figures.items()}

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _diverged(self, what: str) -> TrainingError:
        folders = checkpoint_folders(self.checkpoint_dir)
        where = f"{folders[-1]} is the last good checkpoint" if folders else "no checkpoint was written yet"
        return TrainingError(
            f"stage {self.stage.name!r} step {self.step}: {what}; nothing was saved, {where}. "
            "Lower train.lr or train.grad_clip and start again"
        )

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self.ema.swapped() if self.ema else contextlib.nullcontext()

    @torch.no_grad()
    def _evaluate(self, report: Reporter) -> None:
        """Held-out figures with averaged weights; independent of the random state of training."""
        modes = {module: module.training for module in self.stage.model.modules()}
        self.stage.model.eval()
        _reseed(self.config.seed, 0x0E7A1)
        try:
            with self._averaged(), self._autocast():
                figures = self.stage.evaluate(self.step)
        finally:
            for module, training in modes.items():
                module.training = training
        self._last_eval = {key: float(value) for key, value in figures.items()}
        self._evaluated_at = self.step
        report.evaluation(self._last_eval)
        amend_checkpoint(self.checkpoint_dir, self.step, evaluation=self._last_eval, evaluated_at=self.step)
        report.plot()

    def _export(self) -> None:
        """Let the stage write its result with averaged weights to ``out_dir/export``."""
        target = self.out_dir / "export"
        target.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), self._averaged():
            self.stage.export(target)

    # ---------------------------------------------------------------- the run

    def run(self, *, resume: bool = True) -> TrainResult:
        """Train to the last step, or until SIGTERM or Ctrl-C, which save and return.

        Args:
            resume: Go on from the newest checkpoint in ``out_dir``, if there is one.

        Returns:
            How it ended.

        Raises:
            TrainingError: On a loss that is not finite, a missing package, or when ``resume`` is off and ``out_dir``
                holds checkpoints.
            CheckpointError: If the checkpoint does not fit, or belongs to a run with other settings or data.
        """
        self._check_packages()
        self.out_dir.mkdir(parents=True, exist_ok=True)
        found = self._find_checkpoint(resume)
        if found:
            self._take_numbers(found[1])
        batches = self._start_workers()
        try:
            self._set_up()
            if found:
                self._restore(*found)
                self._log(f"{self.stage.name}: resumed at step {self.step}")
            with (
                _StopSignals() as stop,
                Reporter(
                    *(self.config, self.stage.name),
                    step=self.step,
                    total=self.total_steps,
                    log=self._log,
                    active=self.group.leads,
                ) as report,
            ):
                report.cut(self.step, evaluated=self._evaluated_at == self.step)
                self.stage.model.train()
                return self._loop(batches, stop, report)
        finally:
            batches.close()
            self.group.leave()

    def _check_packages(self) -> None:
        """See that everything that is imported later is there before the first step."""
        wanted = {"wandb": "wandb"} if self.config.wandb else {}
        wanted |= dict.fromkeys(getattr(self.stage, "packages", ()), "eval")
        for name, extra in wanted.items():
            if importlib.util.find_spec(name) is None:
                raise TrainingError(
                    f"stage {self.stage.name!r} needs the package {name}: pip install 'uniaudio2[{extra}]'"
                )

    def _start_workers(self) -> Prefetcher:
        """Start making batches.

        Processes are forked here, before the accelerator is touched and before anything starts threads of its own.
        """
        config, own = self.config, self.group.micro_steps(self.config.accumulate)
        return Prefetcher(
            lambda n: self.stage.batch(n // len(own) * config.accumulate + own[n % len(own)], config.seed),
            self.step * len(own),
            mode=config.prefetch if self.step < self.total_steps else "none",
            workers=config.workers,
            depth=config.prefetch_batches,
        )

    def _set_up(self) -> None:
        """Meet the other processes, move the stage to the device, make optimiser and averages."""
        config, stage = self.config, self.stage
        self.group.join(self.device, config.timeout_minutes)
        if config.threads:
            torch.set_num_threads(config.threads)
        place(stage, self.device)
        self.optimizer = make_optimizer(
            stage.parameters_to_train(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            muon_lr=config.muon_lr if config.optimizer == "muon" else None,
        )
        names = {id(p): name for name, p in stage.model.named_parameters()}
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        if any(id(p) not in names for p in trained):
            raise TrainingError(f"stage {stage.name!r} trains a parameter that is not part of its model")
        self._names = {id(p): names[id(p)] for p in trained}
        self.parameters = {names[id(p)]: p for p in trained}
        self.ema = EMA(self.parameters, config.ema_decay) if config.ema_decay else None

    def _loop(self, batches: Iterator[Any], stop: _StopSignals, report: Reporter) -> TrainResult:
        config, stopping = self.config, False
        if self._is_due(config.eval_every) and self._evaluated_at != self.step:  # stopped before it was done
            self._lead(lambda: self._evaluate(report))
        clock = time.perf_counter()
        while self.step < self.total_steps and not stopping:
            metrics = self._train_step(batches)
            self.step += 1
            now = time.perf_counter()  # evaluation and saving count for the time budget
            self._elapsed_s += now - clock
            clock = now
            self._window.add(metrics)
            self._plan_decay()
            stopping = self._agree(stop.received is not None)
            report.advance(self.step, self.total_steps, metrics["loss"])
            if self.step % config.log_every == 0 or self.step >= self.total_steps:
                report.training({"loss_now": metrics["loss"], **self._window.means()})
                self._window = Window()
            evaluating = self._is_due(config.eval_every) and not stopping
            if self._is_due(config.save_every) or evaluating or stopping:
                self._lead(self._save)
            if evaluating:
                self._lead(lambda: self._evaluate(report))
        if self.step < self.total_steps:
            self._log(f"{self.stage.name}: stopped at step {self.step}, saved; the same command goes on from there")
            return TrainResult(self.step, False, self._last_eval, None)
        self._lead(self._export)
        return TrainResult(self.step, True, self._last_eval, self.out_dir / "export" if self.group.leads else None)

    def _is_due(self, every: int) -> bool:
        """Whether something that is done every so many steps, and at the end, is to be done now."""
        return self.step > 0 and (self.step >= self.total_steps or bool(every and self.step % every == 0))

    def _lead(self, action: Callable[[], None]) -> None:
        """Let the leading process do something while the others wait; where it fails, all end."""
        failure: Exception | None = None
        if self.group.leads:
            try:
                action()
            except Exception as error:
                failure = error
        (failed,) = self.group.largest([float(failure is not None)], self.device)
        if failure is not None:
            raise failure
        if failed:
            raise TrainingError(f"stage {self.stage.name!r}: the leading process failed; its message says why")

    def _agree(self, stop: bool) -> bool:
        """Whether any process was told to stop; takes over the length that the leading process planned."""
        plan = [float(self.total_steps), float(self._decay_planned)] if self.group.leads else [0.0, 0.0]
        stopping, total, planned = self.group.largest([float(stop), *plan], self.device)
        self.total_steps, self._decay_planned = int(total), bool(planned)
        return bool(stopping)

    def _plan_decay(self) -> None:
        """With a time budget: fix the length of the run when only the decay's share of the time is left."""
        budget_s = self.config.budget_minutes * 60
        if budget_s <= 0 or self._decay_planned:
            return
        share = self.config.decay_fraction
        if self._elapsed_s >= budget_s * (1 - share) and self.step < self.config.steps * (1 - share):
            self.total_steps = min(self.config.steps, max(self.step + 1, math.ceil(self.step / max(1 - share, 1e-6))))
            self._decay_planned = True
            self._log(f"{self.stage.name}: time budget, the run will end at step {self.total_steps}")
