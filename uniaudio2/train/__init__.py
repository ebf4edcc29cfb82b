"""Training: one trainer, and the stages it runs."""

from uniaudio2.data.prefetch import batch_rng
from uniaudio2.train.loop import Stage, TrainConfig, Trainer, TrainingError, TrainResult

__all__ = ["Stage", "TrainConfig", "TrainResult", "Trainer", "TrainingError", "batch_rng"]
