"""Every stage trains, evaluates, saves, goes on and exports on a device that is not the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fake_device import DEVICE, MixedDevicesError, fake_device
from tests.train.codec.toy import config, make_corpus
from tests.train.test_lm import codes as codes  # a fixture
from tests.train.test_lm import config as lm_config
from uniaudio2.codec.text_decoder import TextDecoder
from uniaudio2.train.codec import CODEC_STAGES
from uniaudio2.train.stages import StageConfig, run_stage

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
CLOCK = {"steps_per_s", "units_per_s", "wait_s"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def figures(settings: StageConfig) -> list[dict[str, float]]:
    """What a run logs."""
    run_stage(settings, log=lambda line: None)
    path = Path(settings.train.out_dir) / "metrics.jsonl"
    return [{k: v for k, v in json.loads(row).items() if k not in CLOCK} for row in path.read_text().splitlines()]


def assert_device_makes_no_difference(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make(name, steps)`` is the config of a run; it is stopped and goes on."""
    wanted = figures(make("cpu", 3))
    monkeypatch.setattr("uniaudio2.train.trainer.choose_device", lambda name: DEVICE)
    # The library's inference mode and the fake device do not go together.
    monkeypatch.setattr(TextDecoder, "generate", torch.no_grad()(TextDecoder.generate.__wrapped__))  # type: ignore[attr-defined]
    with fake_device():
        figures(make("device", 2))
        found = figures(make("device", 3))
    found = [row for row in found if row["step"] != 2 or "loss" in row]  # the first part's last evaluation
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        # Rounding moves a vector now and then to another entry of the last codebooks.
        shares = {name for name in row if name.startswith("perplexity/")}
        plain, wanted_plain = ({name: one[name] for name in one if name not in shares} for one in (row, other))
        assert plain == pytest.approx(wanted_plain, rel=2e-3, abs=1e-5)
        assert [row[name] for name in shares] == pytest.approx([other[name] for name in shares], rel=0.1)


@pytest.mark.parametrize("stage", CODEC_STAGES)
def test_codec_stages_train_on_any_device(
    stage: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"anchor": 0.5, "anchor_engines": ("tone",)} if stage == "speech_expert" else {}
    if stage == "reasoning_grpo":
        run_stage(config("reasoning", corpus, tmp_path), log=lambda line: None)
        more["text_decoder"] = str(tmp_path / "reasoning" / "export" / "text_decoder.safetensors")

    def make(name: str, steps: int) -> StageConfig:
        """On a device of that name."""
        return config(stage, corpus, tmp_path / name, train={"steps": steps, "ema_decay": 0.9}, **more)

    assert_device_makes_no_difference(make, monkeypatch)


def test_language_model_stages_train_on_any_device(
    codes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(name: str, steps: int) -> StageConfig:
        """On a device of that name."""
        changes = (f"train.steps={steps}", "data.dev_clips=2", "train.log_every=1", "train.optimizer=adamw")
        return lm_config("lm_3", codes, tmp_path / name, *changes)

    assert_device_makes_no_difference(make, monkeypatch)


def test_the_device_of_these_tests_refuses_what_is_left_on_the_cpu() -> None:
    with fake_device() as device:
        there = torch.ones(3).to(device)
        assert there.device == device and (there + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(MixedDevicesError, match="add.Tensor"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="float64"):
            there.double()
