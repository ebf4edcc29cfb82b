"""The speech expert learns phones, keeps its head, stays near what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.codec.toy import config, same
from uniaudio2.checkpoint import load_codec, save_parts
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import load_config, preset_path
from uniaudio2.tensors import load_tensors, save_tensors
from uniaudio2.train.codec import build_stage
from uniaudio2.train.codec.base import load_finished, trainable_encoder
from uniaudio2.train.codec.speech_expert import SpeechExpertStage
from uniaudio2.train.config import TrainingError
from uniaudio2.train.stages import run_stage


@pytest.mark.parametrize("name", ["speech_expert", "sound_expert"])
def test_an_expert_trains_in_training_mode(corpus: Path, tmp_path: Path, name: str) -> None:
    """Dropout, blanked stripes and other vocal tracts act while it learns, and the codec freezes it again."""
    stage: Any = build_stage(config(name, corpus, tmp_path))
    stage.model.train()
    assert stage.model["part"].training and stage.model["part"].blocks[0].dropout.training
    batch = stage.batch(0, 0)
    losses = {float(stage.loss(batch, 0)[0]) for _ in range(3)}
    assert len(losses) == 3
    frozen = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny"))).train()
    assert not any(encoder.training for encoder in frozen.encoders.values())


def test_an_anchored_expert_stays_near_what_it_was(corpus: Path, tmp_path: Path) -> None:
    drift = {}
    for anchor in (0.0, 30.0):
        codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
        codec.load_state_dict(load_start(tmp_path, codec))
        settings: Any = config("speech_expert", corpus, tmp_path, anchor=anchor, anchor_engines=("tone",))
        stage = SpeechExpertStage(settings, codec)
        expert: Any = stage.model["part"]
        probe = stage.batch(99, 0)["audio"]
        before = expert.eval()(probe)["speech"].detach().clone()
        optimiser = torch.optim.Adam(expert.parameters(), lr=3e-3)
        torch.manual_seed(0)
        anchored = 0
        for step in range(12):
            stage.model.train()
            loss, logs = stage.loss(stage.batch(step, 0), step)
            anchored += "anchor" in logs
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert (anchored > 6) == (anchor > 0)
        drift[anchor] = float((expert.eval()(probe)["speech"] - before).detach().square().mean())
    assert 0 < drift[30.0] < 0.5 * drift[0.0]


def load_start(folder: Path, codec: ReasoningCodec) -> dict[str, torch.Tensor]:
    """The same first weights for every codec of a test."""
    file = folder / "start.safetensors"
    if not file.is_file():
        save_tensors(file, codec.state_dict())
    return load_tensors(file)


def test_a_phone_head_goes_on(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("speech_expert", corpus, tmp_path), log=lambda line: None)
    export = tmp_path / "speech_expert" / "export"
    stage: Any = build_stage(config("speech_expert", corpus, tmp_path, head_from=str(export)))
    assert same(load_tensors(export / "speech_head.safetensors"), stage.model["head"].state_dict())
    with pytest.raises(ValueError, match=r"holds no speech_head\.safetensors"):
        build_stage(config("speech_expert", corpus, tmp_path, head_from=str(tmp_path)))


def test_an_inventory_that_covers_nothing_is_refused_with_the_remedy(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"inventory of 0: lower min_count=1000, or add labelled speech"):
        build_stage(config("speech_expert", corpus, tmp_path, min_count=1000))
    (tmp_path / "phones.json").write_text('["<blank>", "q"]')
    save_tensors(tmp_path / "speech_head.safetensors", {})
    with pytest.raises(TrainingError, match=r"inventory of 1: leave head_from out"):
        build_stage(config("speech_expert", corpus, tmp_path, head_from=str(tmp_path)))


def test_the_stage_trains_the_encoder_that_gives_phones(corpus: Path, tmp_path: Path) -> None:
    """Its name is the preset's business."""
    settings: Any = config("speech_expert", corpus, tmp_path)
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
    codec.encoders = torch.nn.ModuleDict({"listener": codec.encoders["whisper_expert"]})
    codec.roles = {"phone": ("listener", "phone")}
    stage = SpeechExpertStage(settings, codec)
    stage.export(tmp_path)
    assert all(name.startswith("encoders.listener.") for name in load_tensors(tmp_path / "speech_expert.safetensors"))
    with pytest.raises(TrainingError, match="no encoder of the codec preset gives 'semantic'"):
        trainable_encoder(codec, "semantic")
    codec.encoders["finished"] = torch.nn.Identity()
    codec.roles = {"phone": ("finished", "phone")}
    with pytest.raises(TrainingError, match="'finished', which gives 'phone', is a finished one"):
        trainable_encoder(codec, "phone")


def test_an_expert_takes_over_from_another_codecs(corpus: Path, tmp_path: Path) -> None:
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
    folder = save_parts(tmp_path / "model", codec=codec, dtype="int8")
    settings: Any = config(
        "speech_expert", corpus, tmp_path, anchor=0.5, anchor_model=str(folder), anchor_engines=("tone",)
    )
    stage: Any = build_stage(settings)
    stage.model.train()
    first = [float(logs["anchor"]) for step in range(8) if "anchor" in (logs := stage.loss(stage.batch(step, 0), 0)[1])]
    assert min(first) > 0.1  # fresh weights are not the other expert's
    assert not any(parameter.requires_grad for parameter in stage.before.parameters())
    wide = load_config(CodecConfig, preset_path("codec", "tiny"), ["encoders.whisper_expert.width=32"])
    save_parts(tmp_path / "wide", codec=ReasoningCodec(wide))
    settings = config("speech_expert", corpus, tmp_path, anchor=0.5, anchor_model=str(tmp_path / "wide"))
    with pytest.raises(TrainingError, match="gives other features"):
        build_stage(settings)


def test_parts_of_8_bits_are_read_and_finished_encoders_stay_out_of_exports(corpus: Path, tmp_path: Path) -> None:
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
    whisper = save_parts(tmp_path / "model", codec=codec, dtype="int8") / "codec-whisper.safetensors"
    stage: Any = build_stage(config("speech_expert", corpus, tmp_path, parts=(str(whisper),)))
    name = "encoder.layers.0.fc1.weight"
    ours, theirs = stage.model["part"].whisper.state_dict()[name], codec.encoders["whisper_expert"].whisper.state_dict()
    assert float((ours - theirs[name]).abs().max()) < 0.01 * float(theirs[name].abs().max())
    stage.export(tmp_path / "out")
    exported = load_tensors(tmp_path / "out" / "speech_expert.safetensors")
    assert exported and not any(".whisper." in key for key in exported)


def test_a_finished_encoder_comes_from_the_package(caplog: pytest.LogCaptureFixture) -> None:
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "nano")))
    filled = load_finished(codec, set())
    assert filled and all(".whisper." in name for name in filled) and not caplog.text
    shipped = load_codec().state_dict()
    assert all(torch.equal(codec.state_dict()[name], shipped[name]) for name in filled)
    assert load_finished(codec, set(codec.state_dict())) == set(codec.state_dict())
    tiny = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
    assert load_finished(tiny, set()) == set() and "'whisper' has random weights" in caplog.text
