from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.train.test_trainer import Line, config
from uniaudio2.train import Trainer, TrainingError
from uniaudio2.train.distributed import ProcessGroup


class Watched(Line):
    """Notes which process exports, and gets into trouble when asked to."""

    def __init__(self, rank: int, trouble: str) -> None:
        super().__init__()
        self.rank, self.trouble = rank, trouble
        self.poison_from = 5 if trouble == "diverge" and rank == 1 else None

    def evaluate(self, step: int) -> dict[str, float]:
        if self.trouble == "evaluate":
            raise OSError("no held-out clips")
        return super().evaluate(step)

    def export(self, out_dir: Path) -> None:
        super().export(out_dir)
        (out_dir / f"rank{self.rank}").touch()


def run_rank(rank: int, size: int, port: int, folder: str, steps: int, trouble: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    settings = config(Path(folder), steps=steps, accumulate=4, ema_decay=0.5, decay_fraction=0.0)
    try:
        trainer = Trainer(settings, Watched(rank, trouble), log=lambda line: None)
        try:
            trainer.run()
        finally:
            assert not torch.distributed.is_initialized()  # what outlives the run may abort the process at its end
    except Exception as error:
        Path(folder, f"error{rank}").write_text(str(error))
        raise SystemExit(3) from None


def run_group(folder: Path, steps: int, trouble: str = "") -> list[int | None]:
    """Exit codes of two processes that train together."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=run_rank, args=(rank, 2, port, str(folder), steps, trouble)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def losses(folder: Path) -> list[float]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def units(folder: Path) -> list[float]:
    """Units of each step, by the two rates of its line."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [row["units_per_s"] / row["steps_per_s"] for row in map(json.loads, lines) if "units_per_s" in row]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    Trainer(
        config(tmp_path / "one", steps=30, accumulate=4, ema_decay=0.5, decay_fraction=0.0),
        Line(),
        log=lambda line: None,
    ).run()
    assert run_group(tmp_path / "two", steps=20) == [0, 0]
    assert run_group(tmp_path / "two", steps=30) == [0, 0]  # goes on from the checkpoint that the first process wrote
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert units(tmp_path / "two") == pytest.approx(units(tmp_path / "one"))  # of both, not of the leader alone
    assert run_group(tmp_path / "two", steps=30) == [0, 0]  # was finished: exported again, by the leader alone
    assert {path.name for path in (tmp_path / "two/run/export").iterdir()} == {"line.pt", "rank0"}
    weights = [torch.load(tmp_path / name / "run/export/line.pt", weights_only=True) for name in ("one", "two")]
    assert torch.allclose(weights[0]["weight"], weights[1]["weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("trouble", "messages"),
    [
        ("diverge", ("step 5: loss is nan", "step 5: loss is nan")),
        ("evaluate", ("no held-out clips", "the leading process failed")),
    ],
)
def test_trouble_in_one_process_ends_all(tmp_path: Path, trouble: str, messages: tuple[str, str]) -> None:
    assert run_group(tmp_path, steps=10, trouble=trouble) == [3, 3]
    for rank, message in enumerate(messages):
        assert message in (tmp_path / f"error{rank}").read_text()


def test_micro_steps_are_dealt_out_without_rest() -> None:
    dealt = [list(ProcessGroup(rank, 2).micro_steps(6)) for rank in range(2)]
    assert dealt == [[0, 2, 4], [1, 3, 5]]
    assert list(ProcessGroup().micro_steps(3)) == [0, 1, 2]


def test_accumulation_that_cannot_be_dealt_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="multiple of 2"):
        Trainer(config(tmp_path, accumulate=3), Line())


def test_alone_nothing_changes() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.grad.clone()  # type: ignore[union-attr]
    ProcessGroup().sum_gradients(model.parameters())
    assert torch.equal(model.weight.grad, before)  # type: ignore[arg-type]
    assert ProcessGroup().largest([1.0, 0.0], torch.device("cpu")) == [1.0, 0.0]
