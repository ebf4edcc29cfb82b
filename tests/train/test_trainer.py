from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uniaudio2.errors import CheckpointError
from uniaudio2.train import TrainConfig, Trainer, TrainingError, batch_rng


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
    trainer = Trainer(
        config(tmp_path, steps=10**6, budget_minutes=0.005, log_every=1, save_every=0, eval_every=0),
        Line(),
        log=lambda line: None,
    )
    result = trainer.run()
    assert result.finished and result.step < 10**6
    assert rows(trainer)[-2]["lr"] < 0.02  # the last rows: training, then evaluation


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "train.steps"), ({"ema_decay": 1.0}, "ema_decay"), ({"decay_fraction": 2.0}, "decay_fraction")],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        config(tmp_path, **changes)
