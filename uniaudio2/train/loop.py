"""The one trainer of all stages: accumulate, clip, step, average, log, evaluate, save, resume exactly.

It knows a stage only through the ``Stage`` protocol. Resume is exact because nothing random is carried between
steps: a batch is a function of its index, and the random state of the model is set from (seed, step, micro-step).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from uniaudio2.data.prefetch import Prefetcher
from uniaudio2.devices import choose_device
from uniaudio2.errors import UserError
from uniaudio2.files import replacing, write_text
from uniaudio2.train.distributed import join_group
from uniaudio2.train.optim import EMA, clip_gradients, learning_rate_factor, make_optimizer, set_learning_rate
from uniaudio2.train.replicas import Replicas
from uniaudio2.train.state import (
    CheckpointError,
    checkpoint_folders,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")
Parameters = Iterable[nn.Parameter] | Iterable[Mapping[str, Any]]


class TrainingError(UserError):
    """Training cannot start or go on for a reason that the user can mend."""


class Stage(Protocol):
    """What trains. Written once per stage; the trainer does the rest.

    Attributes:
        name: Short name for logs.
    """

    name: str

    @property
    def model(self) -> nn.Module:
        """Everything that is checkpointed (auxiliary heads included); strict on resume."""
        ...

    def parameters_to_train(self) -> Parameters:
        """Parameters of ``model`` with ``requires_grad``, or groups as ``optim.parameter_groups`` takes them."""
        ...

    def batch(self, step: int, seed: int) -> Any:
        """Batch number ``step`` (micro-batches counted: optimiser step × accumulate + micro-step).

        Must be a pure function of its arguments (use ``batch_rng``); runs in a worker process; no tensor work on
        many threads, no accelerator. Any nesting of dict, list, tuple, dataclass, tensor and plain values.
        """
        ...

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Scalar loss of one micro-batch at optimiser step ``step``, and numbers to log (averaged over steps).

        The metric ``units`` (tokens, seconds of audio) is summed and shown per second instead.
        """
        ...

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out figures; called without gradients, in eval mode, with averaged weights if there are any."""
        ...

    def export(self, out_dir: Path) -> None:
        """Write the stage's result to ``out_dir``; called with averaged weights if there are any."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train; the same for every stage."""

    out_dir: str  # folder of the run: checkpoints/, metrics.jsonl, metrics.png, tensorboard/, export/
    steps: int  # optimiser steps
    lr: float  # peak learning rate
    min_lr_ratio: float = 0.05  # learning rate at the last step, as a share of lr
    warmup_steps: int = 100  # steps of linear rise
    decay_fraction: float = 0.3  # share of the steps at the end with falling learning rate
    budget_minutes: float = 0.0  # > 0: end after this time, decay included; the decay starts when its share is left
    weight_decay: float = 0.05  # of matrices
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW
    # muon: Muon for the matrices that a stage names hidden (the language model's layers), AdamW for the rest.
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_lr: float = 2.0  # Muon's learning rate as a multiple of lr
    grad_clip: float = 1.0  # largest gradient norm; 0 = no clipping
    accumulate: int = 1  # micro-batches per optimiser step
    # Further processes that share the micro-batches of a step (CPU only); with accumulate = replicas + 1 each does one.
    # Not for stages whose model learns other than by gradients, such as codebooks.
    replicas: int = 0
    ema_decay: float = 0.0  # weight of the past in averaged weights; 0 = no averaging
    precision: Literal["float32", "bf16"] = "float32"  # bf16 = autocast; weights stay float32
    device: str = "cpu"  # cpu, cuda, mps or auto
    log_every: int = 50  # steps
    eval_every: int = 500  # steps; 0 = only at the end
    save_every: int = 500  # steps; 0 = only at the end
    keep_checkpoints: int = 2  # newest ones kept
    seed: int = 0  # batches and model randomness
    threads: int = 0  # intra-op threads; 0 = torch's choice
    prefetch: Literal["process", "thread", "none"] = "process"  # who makes batches
    workers: int = 1  # worker processes
    prefetch_batches: int = 2  # finished batches held per worker
    tensorboard: bool = True  # write TensorBoard events

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            TrainingError: Naming the field and what it allows.
        """
        for name in (
            "steps",
            "lr",
            "muon_lr",
            "accumulate",
            "log_every",
            "keep_checkpoints",
            "workers",
            "prefetch_batches",
        ):
            if not getattr(self, name) > 0:
                raise TrainingError(f"train.{name} must be above 0, got {getattr(self, name)}")
        for name in (
            "warmup_steps",
            "weight_decay",
            "grad_clip",
            "eval_every",
            "save_every",
            "threads",
            "seed",
            "replicas",
        ):
            if getattr(self, name) < 0:
                raise TrainingError(f"train.{name} must not be negative, got {getattr(self, name)}")
        for name in ("min_lr_ratio", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"train.{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.replicas >= self.accumulate and self.replicas:
            raise TrainingError(
                f"train.accumulate must be above train.replicas ({self.replicas}), got {self.accumulate}"
            )
        if not 0 <= self.ema_decay < 1:
            raise TrainingError(f"train.ema_decay must be in [0, 1), got {self.ema_decay}")


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int  # optimiser steps done
    finished: bool  # False when stopped by a signal
    metrics: dict[str, float]  # last evaluation
    export_dir: Path | None  # None when not finished


def to_device(batch: T, device: torch.device) -> T:
    """Move every tensor in nested dicts, lists, tuples and dataclasses."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)  # type: ignore[return-value]
    if isinstance(batch, dict):
        return type(batch)((k, to_device(v, device)) for k, v in batch.items())  # type: ignore[return-value]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(v, device) for v in batch))  # type: ignore[return-value]
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(v, device) for v in batch)  # type: ignore[return-value]
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {f.name: to_device(getattr(batch, f.name), device) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **fields)  # type: ignore[return-value]
    return batch


def _reseed(*key: int) -> None:
    """Set the process's random state from integers alone."""
    state = np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(2, np.uint32)
    torch.manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002 (for stages that use libraries drawing from the global state)


class _Window:
    """Sums of metrics since the last log line; part of a checkpoint, so that resumed logs are the same."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Count one more step's figures."""
        for key, value in metrics.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = (total + value, count + 1)

    def means(self) -> dict[str, float]:
        """Means of what was added; units are summed."""
        return {key: total if key == "units" else total / count for key, (total, count) in self.sums.items()}


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
    """Runs one stage.

    Args:
        config: Length, optimiser, logging.
        stage: What trains.
        log: Where log lines go when standard error is no terminal; standard error by default.
    """

    def __init__(self, config: TrainConfig, stage: Stage, *, log: Callable[[str], None] | None = None) -> None:
        self.config = config
        self.stage = stage
        self.out_dir = Path(config.out_dir)
        self.device = choose_device(config.device)
        self.group = join_group(self.device.type)
        if self.group.size > 1:
            width = self.group.size * (1 + config.replicas)
            if config.accumulate % width:
                raise TrainingError(
                    f"train.accumulate={config.accumulate} cannot be dealt out to {self.group.size} processes with "
                    f"{config.replicas} replicas each; make it a multiple of {width}"
                )
            if self.device.type == "cuda":
                self.device = torch.device("cuda", self.group.local_rank)
        self._log = log or _to_stderr
        if config.threads:
            torch.set_num_threads(config.threads)
        stage.model.to(self.device)
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
        self.step = 0
        self.total_steps = config.steps
        self._window = _Window()
        self._elapsed_s = 0.0
        self._decay_planned = False
        self._last_eval: dict[str, float] = {}
        self._replicas: Replicas | None = None
        if config.replicas and self.device.type != "cpu":
            raise TrainingError(f"train.replicas share the cores of a CPU, not {self.device.type}; set it to 0")

    @property
    def checkpoint_dir(self) -> Path:
        """Folder of the checkpoints."""
        return self.out_dir / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line: ``step`` and training or ``eval/…`` figures."""
        return self.out_dir / "metrics.jsonl"

    # ---------------------------------------------------------------- checkpoints

    def save(self) -> Path:
        """Write a checkpoint of the current step."""
        state_tensors, state_numbers = optimizer_tensors(self.optimizer, self._names)
        tensors = {"model": self.stage.model.state_dict(), "optimizer": state_tensors}
        if self.ema:
            tensors["ema"] = self.ema.average
        state = {
            "format": 1,
            "stage": self.stage.name,
            "step": self.step,
            "total_steps": self.total_steps if self._decay_planned else None,
            "elapsed_s": self._elapsed_s,
            "window": self._window.sums,
            "evaluation": self._last_eval,
            "optimizer_numbers": state_numbers,
            "config": dataclasses.asdict(self.config),
        }
        return save_checkpoint(
            self.checkpoint_dir, step=self.step, tensors=tensors, state=state, keep=self.config.keep_checkpoints
        )

    def resume(self) -> bool:
        """Load the newest checkpoint, if there is one.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: If it does not fit the stage, or the run's seed or accumulation was changed.
        """
        folders = checkpoint_folders(self.checkpoint_dir)
        if not folders:
            return False
        path = folders[-1]
        tensors, state = load_checkpoint(path)
        if state["stage"] != self.stage.name:
            raise CheckpointError(
                f"{path} belongs to stage {state['stage']!r}, not {self.stage.name!r}; use another out_dir"
            )
        for name in ("seed", "accumulate", "optimizer", "ema_decay"):
            old, new = state["config"].get(name, getattr(TrainConfig, name)), getattr(self.config, name)
            if (bool(old) != bool(new)) if name == "ema_decay" else (old != new):
                raise CheckpointError(
                    f"{path} was made with train.{name}={old}, now it is {new}; set it back or use another out_dir"
                )
        try:
            self.stage.model.load_state_dict(tensors["model"], strict=True)
        except (RuntimeError, KeyError) as error:
            first = str(error).strip().splitlines()
            raise CheckpointError(f"{path} does not fit the model of this stage: {' '.join(first[:2])}") from None
        load_optimizer(self.optimizer, self.parameters, tensors["optimizer"], state["optimizer_numbers"])
        if self.ema:
            self.ema.load(tensors["ema"])
        self.step = int(state["step"])
        self._elapsed_s = float(state["elapsed_s"])
        self._window.sums = {key: (float(total), int(count)) for key, (total, count) in state["window"].items()}
        self._last_eval = dict(state["evaluation"])
        if state["total_steps"] is not None and self.config.budget_minutes > 0:
            self.total_steps, self._decay_planned = int(state["total_steps"]), True
        if self.group.leads:
            self._cut_metrics()
        return True

    def _cut_metrics(self) -> None:
        """Drop metric lines written after the checkpoint that is resumed."""
        if not self.metrics_path.exists():
            return
        kept = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line)
            except (ValueError, KeyError):
                continue  # a line cut off when the process was killed
        write_text(self.metrics_path, "".join(line + "\n" for line in kept))

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
        totals = _Window()
        loss_sum = 0.0
        for first in self._own_micro_steps():
            others = range(first + 1, min(first + 1 + config.replicas, config.accumulate))
            if self._replicas:
                self._replicas.start(self.step, others)
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            found = [{**self._micro_step(batch, self.step, first), "wait_s": waited}]
            if self._replicas:
                found += self._replicas.collect(len(others))
            for metrics in found:
                loss_sum += metrics.pop("loss")
                totals.add(metrics)
        self.group.sum_gradients(self.parameters.values())
        (loss_sum,) = self.group.sum([loss_sum], self.device)
        norm = float(clip_gradients(self.optimizer, config.grad_clip))
        if not math.isfinite(norm):
            raise self._diverged(f"gradient norm is {norm}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.step)
        return {"loss": loss_sum / config.accumulate, **totals.means(), "grad_norm": norm, "lr": config.lr * factor}

    def _own_micro_steps(self) -> range:
        """Micro-steps that this process does itself; each of its replicas does one of those that follow."""
        return self.group.micro_steps(self.config.accumulate, 1 + self.config.replicas)

    def _micro_step(self, batch: Any, step: int, micro: int) -> dict[str, float]:
        """Leave the gradients of one micro-batch on the parameters; its loss and metrics."""
        batch = to_device(batch, self.device)
        _reseed(self.config.seed, step, micro)
        with self._autocast():
            loss, metrics = self.stage.loss(batch, step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"loss is {value}")
        (loss / self.config.accumulate).backward()
        return {
            "loss": value,
            **{k: float(v.detach()) if isinstance(v, Tensor) else float(v) for k, v in metrics.items()},
        }

    def _start_replicas(self) -> Replicas | None:
        """Fork the further processes; each makes its own micro-batches."""
        config = self.config
        if not config.replicas:
            return None

        def micro_step(step: int, micro: int) -> dict[str, float]:
            """Gradients of one micro-batch."""
            return self._micro_step(self.stage.batch(step * config.accumulate + micro, config.seed), step, micro)

        self.stage.model.train()
        return Replicas(list(self.parameters.values()), micro_step, config.replicas)

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
    def evaluate(self) -> dict[str, float]:
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
        return self._last_eval

    def export(self, out_dir: Path | None = None) -> Path:
        """Let the stage write its result with averaged weights.

        Returns:
            The folder, ``out_dir/export`` by default.
        """
        target = out_dir or self.out_dir / "export"
        target.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), self._averaged():
            self.stage.export(target)
        return target

    # ---------------------------------------------------------------- the run

    def run(self, *, resume: bool = True) -> TrainResult:
        """Train to the last step, or until SIGTERM or Ctrl-C, which save and return.

        Args:
            resume: Go on from the newest checkpoint in ``out_dir``, if there is one.

        Returns:
            How it ended.

        Raises:
            TrainingError: On a loss that is not finite, or when ``resume`` is off and ``out_dir`` holds checkpoints.
            CheckpointError: If the checkpoint does not fit.
        """
        self.out_dir.mkdir(parents=True, exist_ok=True)
        if resume:
            if self.resume():
                self._log(f"{self.stage.name}: resumed at step {self.step}")
        elif checkpoint_folders(self.checkpoint_dir):
            raise TrainingError(f"{self.checkpoint_dir} holds checkpoints; resume, remove them or use another out_dir")
        if self.step == 0 and self.group.leads:
            self.metrics_path.unlink(missing_ok=True)
        if self.step >= self.total_steps:
            return TrainResult(self.step, True, self._last_eval, self.export())
        config = self.config
        own = self._own_micro_steps()
        # Workers are forked before anything starts threads of its own.
        self._replicas = self._start_replicas()
        batches = Prefetcher(
            lambda n: self.stage.batch(n // len(own) * config.accumulate + own[n % len(own)], config.seed),
            self.step * len(own),
            mode=self.config.prefetch,
            workers=self.config.workers,
            depth=self.config.prefetch_batches,
        )
        try:
            with _StopSignals() as stop, _Reporter(self) if self.group.leads else _Silence() as report:
                self.stage.model.train()
                return self._loop(batches, stop, report)
        finally:
            batches.close()
            if self._replicas:
                self._replicas.close()

    def _loop(self, batches: Iterator[Any], stop: _StopSignals, report: _Reporter | _Silence) -> TrainResult:
        config = self.config
        saved_at = self.step if checkpoint_folders(self.checkpoint_dir) else -1
        clock = time.perf_counter()
        while self.step < self.total_steps:
            metrics = self._train_step(batches)
            self.step += 1
            now = time.perf_counter()  # evaluation and saving count for the time budget
            self._elapsed_s += now - clock
            clock = now
            self._window.add(metrics)
            report.step(metrics)
            self._plan_decay()
            stopping = self._agree(stop.received is not None)
            last = self.step >= self.total_steps
            if self.step % config.log_every == 0 or last:
                report.training({"loss_now": metrics["loss"], **self._window.means()})
                self._window = _Window()
            if not stopping and ((config.eval_every and self.step % config.eval_every == 0) or last):
                if self.group.leads:
                    report.evaluation(self.evaluate())
                self.group.wait()
            if (config.save_every and self.step % config.save_every == 0) or last or stopping:
                if self.group.leads:
                    self.save()
                    report.plot()
                self.group.wait()
                saved_at = self.step
            if stopping and not last:
                self._log(f"{self.stage.name}: stopped at step {saved_at}, saved; the same command goes on from there")
                return TrainResult(self.step, False, self._last_eval, None)
        exported = self.export() if self.group.leads else None
        self.group.wait()
        return TrainResult(self.step, True, self._last_eval, exported)

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


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


class _Reporter:
    """Progress bar or log lines, metrics.jsonl, TensorBoard and the curve picture."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._clock = time.perf_counter()
        self._clock_step = trainer.step
        self._writer: Any = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Reporter:
        if self.trainer.config.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(
                    str(self.trainer.out_dir / "tensorboard"), purge_step=self.trainer.step + 1
                )
            except ImportError:
                logger.warning("tensorboard is not installed; only metrics.jsonl is written")
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            name, total, done = self.trainer.stage.name, self.trainer.total_steps, self.trainer.step
            self._task = self._bar.add_task(name, total=total, completed=done, note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        if self._writer:
            self._writer.close()

    def step(self, metrics: Mapping[str, float]) -> None:
        """Move the progress bar."""
        if self._bar:
            note = f"loss {metrics['loss']:.4f}"
            self._bar.update(self._task, completed=self.trainer.step, total=self.trainer.total_steps, note=note)

    def _write(self, figures: Mapping[str, float]) -> None:
        line = {"step": self.trainer.step, **figures}
        with open(self.trainer.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer:
            for key, value in figures.items():
                self._writer.add_scalar(key if "/" in key else f"train/{key}", value, self.trainer.step)

    def _say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, highlight=False)
        else:
            self.trainer._log(text)

    def training(self, figures: dict[str, float]) -> None:
        """Log training figures with the speed since the last time."""
        now = time.perf_counter()
        done, spent = self.trainer.step - self._clock_step, now - self._clock
        self._clock, self._clock_step = now, self.trainer.step
        rate = done / spent if spent > 0 else 0.0
        units = figures.pop("units", None)
        figures["steps_per_s"] = rate
        if units is not None and spent > 0:
            figures["units_per_s"] = units / spent
        self._write(figures)
        left = (self.trainer.total_steps - self.trainer.step) / rate if rate > 0 else 0.0
        hidden = ("loss", "loss_now", "steps_per_s", "units_per_s", "lr")
        detail = " ".join(f"{key} {value:.4g}" for key, value in figures.items() if key not in hidden)
        speed = f"{rate:.2f} steps/s" + (f" {figures['units_per_s']:.0f} units/s" if "units_per_s" in figures else "")
        self._say(
            f"{self.trainer.stage.name} {self.trainer.step}/{self.trainer.total_steps} loss {figures['loss']:.4f} "
            f"lr {figures['lr']:.2e} {detail} | {speed}, {_duration(left)} left"
        )

    def evaluation(self, figures: Mapping[str, float]) -> None:
        """Log held-out figures."""
        self._write({f"eval/{key}": value for key, value in figures.items()})
        detail = " ".join(f"{key} {value:.4g}" for key, value in figures.items())
        if detail:
            self._say(f"{self.trainer.stage.name} {self.trainer.step} evaluation: {detail}")

    def plot(self) -> None:
        """Redraw ``metrics.png`` from ``metrics.jsonl``."""
        with contextlib.suppress(ImportError):
            plot_metrics(self.trainer.metrics_path, self.trainer.out_dir / "metrics.png", title=self.trainer.stage.name)


class _Silence:
    """The reporter of a process that does not lead."""

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def training(self, figures: dict[str, float]) -> None:
        """Nothing."""

    def evaluation(self, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def plot(self) -> None:
        """Nothing."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def plot_metrics(metrics_path: Path, out_path: Path, *, title: str) -> None:
    """Draw training and held-out losses of a run.

    Args:
        metrics_path: A run's ``metrics.jsonl``.
        out_path: PNG to write.
        title: Heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[int, float]]] = {}
    for line in metrics_path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for key, value in row.items():
            if key != "step":
                series.setdefault(key, []).append((row["step"], value))
    skip = {"lr", "grad_norm", "steps_per_s", "units_per_s", "wait_s", "loss_now"}
    training = {key: values for key, values in series.items() if not key.startswith("eval/") and key not in skip}
    held_out = {key[5:]: values for key, values in series.items() if key.startswith("eval/")}
    panels = [(name, group) for name, group in (("training", training), ("held out", held_out)) if group]
    figure = Figure(figsize=(6 * max(1, len(panels)), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for position, (name, group) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        for key, values in group.items():
            axes.plot(*zip(*values, strict=True), label=key, marker="." if len(values) < 30 else None, linewidth=1)
        axes.set_title(f"{title}: {name}")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        many = len(group) > 12  # many series go beside the picture instead of over it
        place = {"loc": "upper left", "bbox_to_anchor": (1, 1), "ncols": -(-len(group) // 30)} if many else {}
        axes.legend(fontsize=5 if many else 7, **place)
    with replacing(out_path) as file:
        figure.savefig(file, dpi=110, format="png")
