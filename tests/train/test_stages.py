"""Stages by name: their configs, and their exports joined into one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.codec.toy import config, make_corpus
from uniaudio2.checkpoint import load_codec, load_lm, load_text_decoder, save_parts
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import ConfigError, load_config, preset_path
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.train.codec import CODEC_STAGES, load_parts
from uniaudio2.train.config import TrainingError
from uniaudio2.train.stages import STAGES, assemble, average, run_stage, stage_config


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.slow
def test_the_stages_in_order_make_a_codec(corpus: Path, tmp_path: Path) -> None:
    finished = save_parts(
        tmp_path / "finished", codec=ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
    )
    parts = [str(finished / "codec-whisper.safetensors")]
    for stage in CODEC_STAGES:
        text = str(tmp_path / "reasoning" / "export" / "text_decoder.safetensors")
        more: dict[str, Any] = {"text_decoder": text} if stage == "reasoning_grpo" else {}
        result = run_stage(config(stage, corpus, tmp_path, parts=tuple(parts), **more), log=lambda line: None)
        assert result.finished
        parts.append(str(tmp_path / stage / "export" / f"{stage}.safetensors"))
    with pytest.raises(ValueError, match="no part holds"):
        assemble(tmp_path / "model", preset="tiny", parts=parts[:-1])
    assemble(
        tmp_path / "model", preset="tiny", parts=parts, text_decoder=tmp_path / "reasoning" / "export", dtype="float32"
    )
    codec = load_codec(tmp_path / "model")
    codes = codec.encode(torch.randn(1, 1, 30000) * 0.1)
    assert codec.decode(codes, generator=torch.Generator().manual_seed(0)).shape == (1, 1, 30000)
    texts = load_text_decoder(tmp_path / "model").generate(codec.reasoning.decode(codes.reasoning))
    assert len(texts) == 1


def test_language_models_of_several_runs_are_averaged(tmp_path: Path) -> None:
    config = load_config(LMConfig, preset_path("lm", "tiny"))
    models = [AudioLM(config).initialise(torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    for number, model in enumerate(models):
        save_parts(tmp_path / str(number), lm=model, dtype="float32")
    wanted = {k: (v + models[1].state_dict()[k]) / 2 for k, v in models[0].state_dict().items()}
    assemble(tmp_path / "mean", language_models=[tmp_path / "0", tmp_path / "1"], dtype="float32")
    mean = load_lm(tmp_path / "mean").state_dict()
    assert all(torch.allclose(mean[k], v) for k, v in wanted.items())
    assert not all(torch.allclose(mean[k], v) for k, v in models[0].state_dict().items())
    with pytest.raises(ValueError, match="different presets"):
        average([models[0], AudioLM(replace(config, dropout=0.3))])


def test_missing_and_foreign_parts_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the earlier stage"):
        load_parts(torch.nn.Linear(2, 2), [tmp_path / "no.safetensors"])


def test_every_stage_has_a_preset_that_loads(corpus: Path) -> None:
    for name in CODEC_STAGES:
        loaded = stage_config(name, None, [f"clips.corpus={corpus}", "train.steps=5"])
        assert replace(loaded.train, steps=5) == loaded.train


def test_a_field_that_a_stage_does_not_have_is_refused() -> None:
    for stage, change, message in (
        ("speech_expert", "freeze_codes=true", "unknown key 'freeze_codes'; allowed: .*anchor"),
        ("autoencoder", "freeze_encoders=true", "did you mean 'freeze_encoder'"),
        ("reconstruction", "quantize_after=3", "unknown key 'quantize_after'"),
        ("lm_1", "codec=nano", "unknown key 'codec'"),
        ("reasoning", "train.replicas=1", r"unknown key 'train\.replicas'"),
        ("reasoning", "stage=autoencoder", "'stage' is 'autoencoder'; allowed: reasoning"),
    ):
        with pytest.raises(ConfigError, match=message):
            stage_config(stage, None, [change])
    with pytest.raises(TrainingError, match="unknown stage 'speech': choose one of speech_expert"):
        stage_config("speech")


def test_every_preset_says_its_own_stage() -> None:
    for name in STAGES:
        assert stage_config(name).stage == name  # pyright: ignore[reportAttributeAccessIssue]
