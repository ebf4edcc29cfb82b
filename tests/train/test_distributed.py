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


def run_rank(rank: int, size: int, port: int, folder: str, steps: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    Trainer(
        config(Path(folder), steps=steps, accumulate=4, ema_decay=0.5, decay_fraction=0.0),
        Line(),
        log=lambda line: None,
    ).run()


def run_group(folder: Path, steps: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=run_rank, args=(rank, 2, port, str(folder), steps)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0


def losses(folder: Path) -> list[float]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    Trainer(
        config(tmp_path / "one", steps=30, accumulate=4, ema_decay=0.5, decay_fraction=0.0),
        Line(),
        log=lambda line: None,
    ).run()
    run_group(tmp_path / "two", steps=20)
    run_group(tmp_path / "two", steps=30)  # goes on from the checkpoint that the first process wrote
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    weights = [torch.load(tmp_path / name / "run/export/line.pt", weights_only=True) for name in ("one", "two")]
    assert torch.allclose(weights[0]["weight"], weights[1]["weight"], atol=1e-6)


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
