"""Training: one trainer, and the stages it runs."""

from uniaudio2.data.prefetch import batch_rng
from uniaudio2.train.config import TrainConfig, TrainingError, TrainResult
from uniaudio2.train.stage import Stage
from uniaudio2.train.trainer import Trainer

__all__ = ["Stage", "TrainConfig", "TrainResult", "Trainer", "TrainingError", "batch_rng"]
