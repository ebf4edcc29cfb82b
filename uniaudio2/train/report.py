"""What a run shows and keeps of its figures: progress bar or log lines, metrics.jsonl, TensorBoard, a picture."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uniaudio2.files import replacing, write_text
from uniaudio2.train.config import TrainConfig

logger = logging.getLogger(__name__)


def to_stderr(line: str) -> None:
    """Write a log line with the time."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


class Window:
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


class Reporter:
    """Writes the figures of a run; one that is not active (a process that does not lead) writes nothing.

    Args:
        config: Where, and with what.
        name: The stage's name.
        step: Steps done when the run starts.
        total: Steps of the whole run.
        log: Where log lines go when standard error is no terminal.
        active: Whether anything is written.
    """

    def __init__(
        self, config: TrainConfig, name: str, *, step: int, total: int, log: Callable[[str], None], active: bool = True
    ) -> None:
        self.config, self.name, self.log, self.active = config, name, log, active
        self.step, self.total = step, total
        self.out_dir = Path(config.out_dir)
        self._clock, self._clock_step = time.perf_counter(), step
        self._sinks: list[Callable[[Mapping[str, float]], None]] = []
        self._open = contextlib.ExitStack()
        self._bar: Any = None
        self._task: Any = None

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line: ``step`` and training or ``eval/…`` figures."""
        return self.out_dir / "metrics.jsonl"

    def __enter__(self) -> Reporter:
        if not self.active:
            return self
        if self.config.tensorboard:
            self._start_tensorboard()
        if self.config.wandb:
            self._start_wandb()
        if sys.stderr.isatty():
            self._start_bar()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start_tensorboard(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning("tensorboard is not installed; only metrics.jsonl is written")
            return
        writer = SummaryWriter(str(self.out_dir / "tensorboard"), purge_step=self.step + 1)
        self._open.callback(writer.close)

        def write(figures: Mapping[str, float]) -> None:
            """Add every figure as a scalar."""
            for key, value in figures.items():
                writer.add_scalar(key if "/" in key else f"train/{key}", value, self.step)

        self._sinks.append(write)

    def _start_wandb(self) -> None:
        import wandb

        run = wandb.init(
            project="uniaudio2", name=self.out_dir.name, dir=str(self.out_dir), config=dataclasses.asdict(self.config)
        )
        self._open.callback(run.finish)
        self._sinks.append(lambda figures: run.log(dict(figures), step=self.step))

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        note = TextColumn("{task.fields[note]}")
        self._bar = self._open.enter_context(Progress(*columns, note, console=Console(stderr=True)))
        self._task = self._bar.add_task(self.name, total=self.total, completed=self.step, note="")

    def advance(self, step: int, total: int, loss: float) -> None:
        """Note that a step is done; move the progress bar."""
        self.step, self.total = step, total
        if self._bar:
            self._bar.update(self._task, completed=step, total=total, note=f"loss {loss:.4f}")

    def cut(self, step: int, *, evaluated: bool) -> None:
        """Drop metric lines written after the checkpoint of ``step``: its evaluation too, unless it is in there."""
        if not self.active or not self.metrics_path.exists():
            return
        kept = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):  # a line cut off when the process was killed
                row = json.loads(line)
                if row["step"] < step or (row["step"] == step and (evaluated or "loss" in row)):
                    kept.append(line + "\n")
        write_text(self.metrics_path, "".join(kept))

    def _write(self, figures: Mapping[str, float]) -> None:
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, **figures}) + "\n")
        for sink in self._sinks:
            sink(figures)

    def say(self, text: str) -> None:
        """A line for the reader."""
        if self._bar:
            self._bar.console.print(text, highlight=False)
        else:
            self.log(text)

    def training(self, figures: dict[str, float]) -> None:
        """Log training figures with the speed since the last time."""
        if not self.active:
            return
        now = time.perf_counter()
        done, spent = self.step - self._clock_step, now - self._clock
        self._clock, self._clock_step = now, self.step
        rate = done / spent if spent > 0 else 0.0
        units = figures.pop("units", None)
        figures["steps_per_s"] = rate
        if units is not None and spent > 0:
            figures["units_per_s"] = units / spent
        self._write(figures)
        left = (self.total - self.step) / rate if rate > 0 else 0.0
        place, end = f"{self.step}/{self.total}", f"{_duration(left)} left"
        if self.config.budget_minutes > 0 and self.total == self.config.steps:  # its length is not planned yet
            place, end = str(self.step), f"at most {self.config.budget_minutes:g} min"
        hidden = ("loss", "loss_now", "steps_per_s", "units_per_s", "lr")
        detail = " ".join(f"{key} {value:.4g}" for key, value in figures.items() if key not in hidden)
        speed = f"{rate:.2f} steps/s" + (f" {figures['units_per_s']:.0f} units/s" if "units_per_s" in figures else "")
        self.say(f"{self.name} {place} loss {figures['loss']:.4f} lr {figures['lr']:.2e} {detail} | {speed}, {end}")

    def evaluation(self, figures: Mapping[str, float]) -> None:
        """Log held-out figures."""
        self._write({f"eval/{key}": value for key, value in figures.items()})
        detail = " ".join(f"{key} {value:.4g}" for key, value in figures.items())
        if detail:
            self.say(f"{self.name} {self.step} evaluation: {detail}")

    def plot(self) -> None:
        """Redraw ``metrics.png`` from ``metrics.jsonl``."""
        if self.metrics_path.exists():
            plot_metrics(self.metrics_path, self.out_dir / "metrics.png", title=self.name)


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
