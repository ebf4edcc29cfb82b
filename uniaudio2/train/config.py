"""Settings of a training run that are the same for every stage, and how a run ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uniaudio2.errors import UserError

POSITIVE = ("steps", "lr", "muon_lr", "accumulate", "log_every", "keep_checkpoints", "workers", "prefetch_batches")
POSITIVE = (*POSITIVE, "timeout_minutes")
NOT_NEGATIVE = ("warmup_steps", "weight_decay", "grad_clip", "eval_every", "save_every", "threads", "seed")


class TrainingError(UserError):
    """Training cannot start or go on for a reason that the user can mend."""


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
    accumulate: int = 1  # micro-batches per optimiser step, dealt out to the processes that train together
    ema_decay: float = 0.0  # weight of the past in averaged weights; 0 = no averaging
    precision: Literal["float32", "bf16"] = "float32"  # bf16 = autocast; weights stay float32
    device: str = "cpu"  # cpu, cuda, mps or auto
    log_every: int = 50  # steps
    eval_every: int = 500  # steps; 0 = only at the end
    save_every: int = 500  # steps; 0 = before every evaluation
    keep_checkpoints: int = 2  # newest ones kept
    # auto: go on from the newest checkpoint if its settings and data are these; force: whatever they are; never: refuse
    resume: Literal["auto", "force", "never"] = "auto"
    seed: int = 0  # batches and model randomness
    threads: int = 0  # intra-op threads; 0 = torch's choice
    prefetch: Literal["process", "thread", "none"] = "process"  # who makes batches
    workers: int = 1  # worker processes
    prefetch_batches: int = 2  # finished batches held per worker
    timeout_minutes: float = 60.0  # longest time that processes wait for one another, evaluation included
    tensorboard: bool = True  # write TensorBoard events
    wandb: bool = False  # log to Weights & Biases as well (extra wandb)

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            TrainingError: Naming the field and what it allows.
        """
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise TrainingError(f"train.{name} must be above 0, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise TrainingError(f"train.{name} must not be negative, got {getattr(self, name)}")
        for name in ("min_lr_ratio", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"train.{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise TrainingError(f"train.ema_decay must be in [0, 1), got {self.ema_decay}")


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int  # optimiser steps done
    finished: bool  # False when stopped by a signal
    metrics: dict[str, float]  # last evaluation
    export_dir: Path | None  # None when not finished, and in processes that do not lead
