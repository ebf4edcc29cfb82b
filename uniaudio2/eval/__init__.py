"""Evaluation: metrics, independent judges, and one function that runs a task on data and reports the figures."""

from uniaudio2.eval.benchmark import EVALUATIONS, ON_DATA, Evaluation, evaluate, find_evaluation
from uniaudio2.eval.context import EvaluationError
from uniaudio2.eval.report import Figure, Report
from uniaudio2.eval.subject import Effort

__all__ = [
    "EVALUATIONS",
    "ON_DATA",
    "Effort",
    "Evaluation",
    "EvaluationError",
    "Figure",
    "Report",
    "evaluate",
    "find_evaluation",
]
