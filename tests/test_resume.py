"""A run that is killed at any step and resumed gives the same numbers, to the last digit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
import torch
from torch import nn
from uniaudio2.train import TrainConfig, Trainer, batch_rng

class Noisy:
    '''Shuffled rows, noise as augmentation, dropout and condition dropping in the model, a buffer that moves.'''
    name = "noisy"

    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Dropout(0.3), nn.Linear(32, 3))
        self.data = torch.randn(64, 8)

    def parameters_to_train(self):
        return [{"params": self.model.parameters(), "hidden": [self.model[0].weight]}]

    def batch(self, step, seed):
        rng = batch_rng(seed, step)
        rows = torch.from_numpy(rng.permutation(64)[:16])
        noise = torch.from_numpy(rng.standard_normal((16, 8)).astype("float32"))
        return {"x": self.data[rows] + 0.1 * noise, "y": rows % 3}

    def loss(self, batch, step):
        time.sleep(float(sys.argv[2]))
        keep = (torch.rand(16, 1) > 0.2).float()
        logits = self.model(batch["x"] * keep)
        loss = nn.functional.cross_entropy(logits, batch["y"])
        return loss, {"accuracy": (logits.argmax(1) == batch["y"]).float().mean(), "units": 16}

    def evaluate(self, step):
        return {"loss": float(nn.functional.cross_entropy(self.model(self.data), torch.arange(64) % 3))}

    def export(self, out_dir):
        torch.save(self.model.state_dict(), out_dir / "model.pt")

config = TrainConfig(out_dir=sys.argv[1], steps=200, lr=1e-2, warmup_steps=20, accumulate=2, ema_decay=0.99,
                     log_every=1, eval_every=40, save_every=17, seed=7, threads=1, workers=2, tensorboard=False,
                     optimizer=sys.argv[3])
result = Trainer(config, Noisy(), log=print).run()
sys.exit(0 if result.finished else 3)
"""

CLOCK = {"steps_per_s", "units_per_s", "wait_s"}


def _run(script: Path, out: Path, sleep_s: float, optimizer: str = "adamw") -> subprocess.Popen[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(out), str(sleep_s), optimizer]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)


def _rows(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run did not reach {count} lines (exit code {process.poll()})")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "run.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module", params=["adamw", "muon"])
def reference(script: Path, request: pytest.FixtureRequest) -> tuple[str, list[dict[str, float]], bytes]:
    out = script.parent / request.param
    assert _run(script, out, 0.0, request.param).wait(timeout=300) == 0
    return request.param, _rows(out), (out / "export/model.pt").read_bytes()


@pytest.mark.parametrize(("kill", "at_lines"), [(signal.SIGKILL, 113), (signal.SIGTERM, 60)])
def test_killed_run_resumes_to_the_last_digit(
    script: Path, reference: tuple[str, list[dict[str, float]], bytes], tmp_path: Path, kill: int, at_lines: int
) -> None:
    optimizer, rows, weights = reference
    out = tmp_path / "killed"
    process = _run(script, out, 0.005, optimizer)
    _wait_for_lines(out / "metrics.jsonl", at_lines, process)
    if kill == signal.SIGTERM:  # a scheduler's, which goes to the workers too
        os.killpg(process.pid, kill)
    else:
        process.send_signal(kill)
    assert process.wait(timeout=60) == (3 if kill == signal.SIGTERM else -signal.SIGKILL)
    assert len((out / "metrics.jsonl").read_text().splitlines()) < len(rows)
    assert _run(script, out, 0.0, optimizer).wait(timeout=300) == 0
    assert _rows(out) == rows
    assert (out / "export/model.pt").read_bytes() == weights
    assert [p.name for p in sorted((out / "checkpoints").iterdir())] == ["step-00000187", "step-00000200"]


def test_workers_end_with_a_killed_trainer(script: Path, tmp_path: Path) -> None:
    process = _run(script, tmp_path / "orphans", 0.01)
    _wait_for_lines(tmp_path / "orphans/metrics.jsonl", 5, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs Linux's /proc")
    pids = [int(pid) for pid in children.read_text().split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    deadline = time.time() + 20
    while time.time() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    alive = [p for p in pids if Path(f"/proc/{p}/stat").exists() and " Z " not in Path(f"/proc/{p}/stat").read_text()]
    assert not alive
