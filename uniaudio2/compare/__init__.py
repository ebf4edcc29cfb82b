"""Several systems on the same clips, by the same scorer, in one report."""

from uniaudio2.compare.run import Comparison, compare
from uniaudio2.compare.tasks import TASKS

__all__ = ["TASKS", "Comparison", "compare"]
