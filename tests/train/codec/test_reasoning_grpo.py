"""GRPO of the reasoning branch: rewards rise, frozen codes stay, what cannot be trained is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.codec.toy import config
from uniaudio2.tensors import load_tensors, save_tensors
from uniaudio2.train.codec import build_stage
from uniaudio2.train.config import TrainingError
from uniaudio2.train.stages import run_stage


@pytest.fixture(scope="module")
def supervised(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a few supervised steps export."""
    out = tmp_path_factory.mktemp("supervised")
    run_stage(config("reasoning", corpus, out, train={"steps": 80, "lr": 3e-3}), log=lambda line: None)
    return out / "reasoning" / "export"


def grpo(corpus: Path, out: Path, start: Path, **more: Any) -> Any:
    text, part = (str(start / name) for name in ("text_decoder.safetensors", "reasoning.safetensors"))
    return config("reasoning_grpo", corpus, out, text_decoder=text, parts=(part,), **more)


def test_what_is_rewarded_becomes_likelier(corpus: Path, tmp_path: Path, supervised: Path) -> None:
    settings = grpo(corpus, tmp_path, supervised, supervised=0.0, kl=0.0, answers=16, freeze_codes=True)
    stage: Any = build_stage(settings)
    optimizer = torch.optim.Adam([p for p in stage.parameters_to_train() if p.requires_grad], 2e-4)
    rewards = []
    for step in range(16):
        stage.model.train()
        torch.manual_seed(step)  # as the trainer does
        loss, logs = stage.loss(stage.batch(step, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(float(logs["reward"]))
        assert step or float(logs["kl"]) == pytest.approx(0, abs=1e-6)  # it has not moved yet
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.2, rewards


def test_frozen_codes_stay(corpus: Path, tmp_path: Path, supervised: Path) -> None:
    for frozen in (True, False):
        out = tmp_path / str(frozen)
        run_stage(grpo(corpus, out, supervised, freeze_codes=frozen), log=lambda line: None)
        export = out / "reasoning_grpo" / "export"
        before = load_tensors(supervised / "reasoning.safetensors")
        after = load_tensors(export / "reasoning_grpo.safetensors")
        assert all(torch.equal(before[key], after[key]) for key in before) == frozen
        old, new = (load_tensors(each / "text_decoder.safetensors") for each in (supervised, export))
        assert not torch.equal(old["norm.weight"], new["norm.weight"])


def test_a_decoder_without_its_training_head_goes_on_without_it(corpus: Path, tmp_path: Path, supervised: Path) -> None:
    """The text decoder of a model folder; and without a policy loss nothing is drawn."""
    slim = tmp_path / "text_decoder.safetensors"
    tensors = load_tensors(supervised / "text_decoder.safetensors")
    save_tensors(slim, {name: value for name, value in tensors.items() if not name.startswith("ctc_head.")})
    settings = config("reasoning_grpo", corpus, tmp_path, text_decoder=str(slim), policy=0.0, freeze_codes=True)
    stage: Any = build_stage(settings)
    loss, logs = stage.loss(stage.batch(0, 0), 0)
    wanted = 0.3 * (float(logs["text"]) + 0.5 * float(logs["commitment"]))
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    assert "reward" not in logs


@pytest.mark.parametrize(
    ("values", "message"),
    [({"answers": 1}, "at least 2"), ({"temperature": 0.0}, "above 0"), ({"text_decoder": None}, "set text_decoder")],
)
def test_settings_that_teach_nothing_are_refused(
    corpus: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        config("reasoning_grpo", corpus, tmp_path, **{"text_decoder": "x", **values})


def test_draws_follow_their_temperature_and_seed(corpus: Path, tmp_path: Path, supervised: Path) -> None:
    stage: Any = build_stage(grpo(corpus, tmp_path, supervised))
    text = stage.model["text"].eval()
    vectors = torch.randn(4, 3, stage.codec.config.reasoning.dim)

    def drawn(temperature: float, seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return text.generate(vectors, temperature=temperature, max_tokens=6, generator=generator)

    assert drawn(1.0, 0) == drawn(1.0, 0) != drawn(1.0, 1)
    assert drawn(0.01, 0) == text.generate(vectors, max_tokens=6)
    assert all(len(row) <= 6 for row in drawn(2.0, 0))
