from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uniaudio2.errors import CheckpointError
from uniaudio2.train import TrainConfig, Trainer, TrainingError, batch_rng
from uniaudio2.train import stage as stage_module
from uniaudio2.train.report import Reporter


class Line:
    """Fits y = 2x + 1; counts what the trainer asks of it."""

    name = "line"

    def __init__(self, rows: int = 8) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.rows = rows
        self.poison_from: int | None = None

    def parameters_to_train(self) -> Any:
        return self.model.parameters()

    def batch(self, step: int, seed: int) -> dict[str, Tensor]:
        x = torch.from_numpy(batch_rng(seed, step).standard_normal((self.rows, 1)).astype("float32"))
        return {"x": x, "y": 2 * x + 1}

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        error = (self.model(batch["x"]) - batch["y"]).square().mean()
        if self.poison_from is not None and step >= self.poison_from:
            error = error * float("nan")
        return error, {"units": len(batch["x"]), "autocast": float(torch.is_autocast_enabled("cpu"))}

    def evaluate(self, step: int) -> dict[str, float]:
        assert not self.model.training
        return {"weight": float(self.model.weight)}

    def export(self, out_dir: Path) -> None:
        torch.save(self.model.state_dict(), out_dir / "line.pt")


def config(tmp_path: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = dict(
        out_dir=str(tmp_path / "run"), steps=60, lr=0.1, warmup_steps=0, log_every=10, eval_every=20, save_every=20
    )
    return TrainConfig(**(values | {"prefetch": "none", "tensorboard": False, "weight_decay": 0.0} | changes))


def rows(trainer: Trainer) -> list[dict[str, float]]:
    return [json.loads(line) for line in trainer.metrics_path.read_text().splitlines()]


def test_it_learns_logs_draws_saves_and_exports(tmp_path: Path) -> None:
    stage = Line()
    trainer = Trainer(config(tmp_path, ema_decay=0.5), stage, log=lambda line: None)
    result = trainer.run()
    assert result.finished and result.step == 60
    assert result.metrics["weight"] == pytest.approx(2.0, abs=0.3)
    logged = rows(trainer)
    assert [row["step"] for row in logged if "loss" in row] == [10, 20, 30, 40, 50, 60]
    assert [row["step"] for row in logged if "eval/weight" in row] == [20, 40, 60]
    assert logged[0]["loss"] > 10 * [row for row in logged if "loss" in row][-1]["loss"]
    assert (trainer.out_dir / "metrics.png").read_bytes().startswith(b"\x89PNG")
    saved = load_file(trainer.checkpoint_dir / "step-00000060" / "ema.safetensors")
    exported = torch.load(trainer.out_dir / "export/line.pt", weights_only=True)
    assert torch.equal(saved["weight"], exported["weight"])  # the averaged weights are what is exported
    assert not torch.equal(exported["weight"], stage.model.weight)
    assert len(list(trainer.checkpoint_dir.iterdir())) == 2


def test_accumulation_equals_a_batch_of_all_micro_batches(tmp_path: Path) -> None:
    whole, parts = Line(rows=8), Line(rows=4)
    inputs = {step: whole.batch(step, 0) for step in range(10)}
    whole.batch = lambda step, seed: inputs[step]  # type: ignore[method-assign]
    parts.batch = (
        lambda index, seed: {  # type: ignore[method-assign]
            key: value[index % 2 * 4 : index % 2 * 4 + 4] for key, value in inputs[index // 2].items()
        }
    )
    for name, stage, accumulate in (("whole", whole, 1), ("parts", parts, 2)):
        Trainer(config(tmp_path / name, steps=10, accumulate=accumulate), stage, log=lambda line: None).run()
    assert torch.allclose(whole.model.weight, parts.model.weight, atol=1e-6)


@pytest.mark.parametrize("mode", ["process", "thread", "none"])
def test_batches_come_in_order_from_every_kind_of_worker(tmp_path: Path, mode: str) -> None:
    stage = Line()
    seen: list[float] = []
    inner = stage.loss

    def spy(batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        seen.append(float(batch["x"][0]))
        return inner(batch, step)

    stage.loss = spy  # type: ignore[method-assign]
    settings = config(tmp_path, steps=7, prefetch=mode, workers=2, seed=3)
    Trainer(settings, stage, log=lambda line: None).run()
    assert seen == [float(stage.batch(step, 3)["x"][0]) for step in range(7)]


def test_a_failing_worker_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    stage = Line()

    def broken(step: int, seed: int) -> Any:
        raise KeyError("no such clip")

    stage.batch = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no such clip"):
        Trainer(config(tmp_path, prefetch="process"), stage, log=lambda line: None).run()


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    stage = Line()
    stage.poison_from = 33
    trainer = Trainer(config(tmp_path), stage, log=lambda line: None)
    with pytest.raises(TrainingError, match=r"step 33: loss is nan.*step-00000020 is the last good"):
        trainer.run()
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-00000020"]


def test_a_run_can_be_shortened_when_it_is_resumed(tmp_path: Path) -> None:
    first = Line()
    first.poison_from = 45
    with pytest.raises(TrainingError):
        Trainer(config(tmp_path, steps=1000), first, log=lambda line: None).run()
    trainer = Trainer(config(tmp_path, steps=50), Line(), log=lambda line: None)
    assert trainer.run().step == 50
    assert [row["step"] for row in rows(trainer) if "loss" in row] == [10, 20, 30, 40, 50]


def test_changes_that_would_break_a_resumed_run_are_refused(tmp_path: Path) -> None:
    Trainer(config(tmp_path), Line(), log=lambda line: None).run()
    with pytest.raises(CheckpointError, match=r"train\.seed=0, now 1\. Set it back"):
        Trainer(config(tmp_path, seed=1, steps=80), Line(), log=lambda line: None).run()
    other = Line()
    other.model = nn.Linear(1, 1, bias=False)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        Trainer(config(tmp_path, steps=80), other, log=lambda line: None).run()
    with pytest.raises(TrainingError, match="holds checkpoints"):
        Trainer(config(tmp_path), Line(), log=lambda line: None).run(resume=False)


class Labelled(Line):
    """With settings and data of its own."""

    def __init__(self, **about: Any) -> None:
        super().__init__()
        self.about = about

    def identity(self) -> dict[str, Any]:
        return self.about


def test_a_run_goes_on_with_the_same_settings_and_data_alone(tmp_path: Path) -> None:
    def go_on(**changes: Any) -> Trainer:
        about = {"data": changes.pop("data", "abc"), "clips.shares": {"fsdd": 2.0}, "clips.corpus": str(tmp_path)}
        trainer = Trainer(config(tmp_path, **changes), Labelled(**about), log=said.append)
        trainer.run()
        return trainer

    said: list[str] = []
    go_on(steps=20)
    with pytest.raises(
        CheckpointError, match=r"data=abc, now xyz; train\.lr=0\.1, now 0\.2\. Set .*train\.resume=force"
    ):
        go_on(steps=40, lr=0.2, data="xyz")
    with pytest.raises(TrainingError, match="holds checkpoints"):
        go_on(steps=40, resume="never")
    free = {"log_every": 5, "eval_every": 0, "threads": 1, "prefetch": "thread", "workers": 3, "keep_checkpoints": 1}
    assert go_on(steps=30, **free).step == 30
    said.clear()
    forced = go_on(steps=40, lr=0.2, data="xyz", resume="force", ema_decay=0.5)
    assert forced.step == 40 and rows(forced)[-2]["lr"] < 0.2
    assert "line: goes on with another setting: train.lr=0.1, now 0.2" in said
    assert (
        go_on(steps=50, lr=0.2, data="xyz", ema_decay=0.5).step == 50
    )  # these are the settings of the run from now on
    assert go_on(steps=60, lr=0.2, data="xyz", resume="force", optimizer="adamw").step == 60


def test_optimiser_state_that_is_missing_is_noticed(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, steps=20), Line(), log=lambda line: None)
    trainer.run()
    file = trainer.checkpoint_dir / "step-00000020" / "optimizer.safetensors"
    tensors = load_file(file)
    del tensors["exp_avg/bias"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="lacks the optimiser's 'exp_avg' of 'bias'"):
        Trainer(config(tmp_path), Line(), log=lambda line: None).run()
    file.unlink()
    with pytest.raises(CheckpointError, match="step-00000020 cannot be read"):
        Trainer(config(tmp_path), Line(), log=lambda line: None).run()


def test_other_trained_parameters_are_noticed(tmp_path: Path) -> None:
    Trainer(config(tmp_path, steps=20), Line(), log=lambda line: None).run()
    stage = Line()
    stage.parameters_to_train = lambda: [stage.model.weight]  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="trained 'bias', this stage does not"):
        Trainer(config(tmp_path), stage, log=lambda line: None).run()


def test_an_evaluation_that_fails_costs_no_step_and_is_made_up_for(tmp_path: Path) -> None:
    Trainer(config(tmp_path / "whole"), Line(), log=lambda line: None).run()

    def fail(step: int) -> dict[str, float]:
        raise OSError("disk gone")

    stage = Line()
    stage.evaluate = fail  # type: ignore[method-assign]
    trainer = Trainer(config(tmp_path, save_every=0), stage, log=lambda line: None)
    with pytest.raises(OSError, match="disk gone"):
        trainer.run()
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-00000020"]
    result = Trainer(config(tmp_path, save_every=0), Line(), log=lambda line: None).run()
    clock = {"steps_per_s", "units_per_s", "wait_s"}
    found, wanted = (
        [{k: v for k, v in json.loads(line).items() if k not in clock} for line in path.read_text().splitlines()]
        for path in (tmp_path / "run/metrics.jsonl", tmp_path / "whole/run/metrics.jsonl")
    )
    assert found == wanted
    assert Trainer(config(tmp_path), Line(), log=lambda line: None).run().metrics == result.metrics


def test_packages_are_looked_for_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage: Any = Line()
    stage.packages = ("no_such_package",)
    with pytest.raises(TrainingError, match=r"needs the package no_such_package: pip install 'uniaudio2\[eval\]'"):
        Trainer(config(tmp_path), stage, log=lambda line: None).run()
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match=r"uniaudio2\[wandb\]"):
        Trainer(config(tmp_path, wandb=True), Line(), log=lambda line: None).run()


def test_figures_go_to_weights_and_biases_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, set[str]]] = []
    run = SimpleNamespace(log=lambda figures, step: logged.append((step, set(figures))), finish=lambda: None)
    package = ModuleType("wandb")
    package.__spec__ = ModuleSpec("wandb", None)
    package.init = lambda **about: run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    Trainer(config(tmp_path, steps=20, wandb=True), Line(), log=lambda line: None).run()
    assert [step for step, _ in logged] == [10, 20, 20]
    assert "loss" in logged[0][1] and logged[-1][1] == {"eval/weight"}


def test_workers_start_before_the_model_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    start, move = Trainer._start_workers, stage_module.place
    monkeypatch.setattr(Trainer, "_start_workers", lambda self: (order.append("workers"), start(self))[1])
    monkeypatch.setattr("uniaudio2.train.trainer.place", lambda *args: (order.append("place"), move(*args)))
    Trainer(config(tmp_path, steps=2, prefetch="process"), Line(), log=lambda line: None).run()
    assert order == ["workers", "place"]


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path), Line(), log=lambda line: None)
    trainer.run()
    (trainer.checkpoint_dir / "step-00000060" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="step-00000060 cannot be read.*remove that folder"):
        Trainer(config(tmp_path, steps=80), Line(), log=lambda line: None).run()


def test_bf16_runs_under_autocast(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, steps=10, precision="bf16"), Line(), log=lambda line: None)
    trainer.run()
    assert next(row for row in rows(trainer) if "loss" in row)["autocast"] == 1.0


def test_a_time_budget_ends_the_run_with_its_decay(tmp_path: Path) -> None:
    lines: list[str] = []
    trainer = Trainer(
        config(tmp_path, steps=10**6, budget_minutes=0.02, log_every=1, save_every=0, eval_every=0),
        Line(),
        log=lines.append,
    )
    result = trainer.run()
    assert result.finished and result.step < 10**6
    assert rows(trainer)[-2]["lr"] < 0.02  # the last rows: training, then evaluation
    assert f"/{result.step} loss" in [line for line in lines if "steps/s" in line][-1]


def test_the_length_of_a_run_with_a_time_budget_is_not_guessed(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = config(tmp_path, steps=10**6, budget_minutes=5)
    tmp_path.joinpath("run").mkdir(exist_ok=True)
    with Reporter(settings, "line", step=0, total=10**6, log=lines.append, active=True) as report:
        for step, total in ((1, 10**6), (2, 40)):
            report.advance(step, total, 0.5)
            report.training({"loss": 0.5, "lr": 0.1})
    assert lines[0].startswith("line 1 loss") and lines[0].endswith("at most 5 min")
    assert lines[1].startswith("line 2/40 loss") and lines[1].endswith("left")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "train.steps"), ({"ema_decay": 1.0}, "ema_decay"), ({"decay_fraction": 2.0}, "decay_fraction")],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        config(tmp_path, **changes)
