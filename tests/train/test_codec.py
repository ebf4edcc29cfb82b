"""Codec stages: batches are functions of the step, each stage learns, and the exports together are a codec."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.checkpoint import load_codec, load_lm, load_text_decoder, save_parts
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.tensors import load_tensors
from uniaudio2.train.codec.stages import (
    ClipConfig,
    ClipSampler,
    CodecTrainConfig,
    SpeechExpertStage,
    build_stage,
    load_parts,
    pitch_and_level,
)
from uniaudio2.train.loop import TrainConfig
from uniaudio2.train.stages import CODEC_STAGES, assemble, average, run_stage, stage_config
from uniaudio2.train.state import save_tensors


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty tones and twenty noises with labels, in one shard."""
    folder = tmp_path_factory.mktemp("corpus")
    rng, pieces, lines, position = np.random.default_rng(0), [], [], 0
    for i in range(40):
        size = int(rng.integers(9600, 24000))
        tone = i % 2 == 0
        wave = 0.3 * np.sin(np.arange(size) * (0.05 + 0.001 * i)) if tone else 0.1 * rng.standard_normal(size)
        pieces.append(wave)
        item: dict[str, Any] = {"id": f"c{i}", "path": "a.wav", "start": position / 24000, "duration": size / 24000}
        item |= {"split": "dev" if i >= 32 else "train"}
        if tone:
            item |= {"kind": "speech", "text": "la la", "phonemes": "l a l a", "language": "en", "engine": "tone"}
        else:
            item |= {"kind": "sound", "label": "noise", "caption": "a noise", "source": "esc10"}
        lines.append(json.dumps(item))
        position += size
    soundfile.write(folder / "a.wav", np.concatenate(pieces), 24000, subtype="PCM_16")
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def config(stage: str, corpus: Path, out: Path, **more: Any) -> CodecTrainConfig:
    train = TrainConfig(
        out_dir=str(out / stage), steps=2, lr=1e-3, log_every=1, eval_every=0, prefetch="none", tensorboard=False
    )
    clips = ClipConfig(
        corpus=str(corpus), batch_seconds=4, crop_s=None if stage in ("speech_expert", "reasoning") else 0.8
    )
    return CodecTrainConfig(stage=stage, train=train, clips=clips, codec="tiny", **more)  # pyright: ignore


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_batch_depends_on_seed_and_step_alone(corpus: Path, tmp_path: Path) -> None:
    stage = build_stage(config("reasoning", corpus, tmp_path))
    first = stage.batch(3, 0)  # pyright: ignore
    stage.batch(4, 0)  # pyright: ignore
    assert same(first, stage.batch(3, 0))  # pyright: ignore
    assert not torch.equal(first["audio"][0, 0, :100], stage.batch(5, 0)["audio"][0, 0, :100])  # pyright: ignore


def test_clips_of_a_whole_batch_share_a_padded_length(corpus: Path, tmp_path: Path) -> None:
    batch = build_stage(config("speech_expert", corpus, tmp_path)).batch(0, 0)  # pyright: ignore
    assert batch["audio"].shape[-1] % 9600 == 0
    assert batch["target"].shape[0] == batch["audio"].shape[0]


@pytest.mark.slow
def test_the_stages_in_order_make_a_codec(corpus: Path, tmp_path: Path) -> None:
    parts: list[str] = []
    for stage in CODEC_STAGES:
        result = run_stage(config(stage, corpus, tmp_path, parts=tuple(parts)), log=lambda line: None)
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


def test_frozen_parts_do_not_move(corpus: Path, tmp_path: Path) -> None:
    stage = build_stage(config("reconstruction", corpus, tmp_path))
    before = {k: v.clone() for k, v in stage.codec.reasoning.state_dict().items()}  # pyright: ignore
    stage.model.train()
    loss, _ = stage.loss(stage.batch(0, 0), 0)  # pyright: ignore
    loss.backward()
    assert all(p.grad is None for p in stage.codec.reasoning.parameters())  # pyright: ignore
    assert same(before, stage.codec.reasoning.state_dict())  # pyright: ignore


def test_the_flow_decoder_can_learn_on_while_the_codes_stay(corpus: Path, tmp_path: Path) -> None:
    parts = []
    for name, more in (("first", {}), ("second", {"freeze_codes": True})):
        run_stage(config("reconstruction", corpus, tmp_path / name, parts=tuple(parts), **more), log=lambda line: None)
        parts = [str(tmp_path / name / "reconstruction" / "export" / "reconstruction.safetensors")]
    first, second = (
        load_tensors(tmp_path / name / "reconstruction" / "export" / "reconstruction.safetensors")
        for name in ("first", "second")
    )
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])}
    assert moved == {"decoder"}


def test_the_reasoning_encoder_can_learn_on_while_the_codebooks_stay(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("reasoning", corpus, tmp_path / "first"), log=lambda line: None)
    first = tmp_path / "first" / "reasoning" / "export" / "reasoning.safetensors"
    more: dict[str, Any] = {"parts": (str(first),), "freeze_codebooks": True}
    run_stage(config("reasoning", corpus, tmp_path / "second", **more), log=lambda line: None)
    before, after = (
        load_tensors(tmp_path / name / "reasoning" / "export" / "reasoning.safetensors") for name in ("first", "second")
    )
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and not any("quantizer" in key for key in moved)


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
    assert not frozen.encoders[name].training


def test_an_anchored_expert_stays_near_what_it_was(corpus: Path, tmp_path: Path) -> None:
    drift = {}
    for anchor in (0.0, 30.0):
        codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny")))
        codec.load_state_dict(load_start(tmp_path, codec))
        expert: Any = codec.encoders["speech_expert"].unfreeze()  # pyright: ignore
        clips = config("speech_expert", corpus, tmp_path).clips
        stage = SpeechExpertStage(clips, expert, anchor=anchor, anchor_engines=("tone",))
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
        save_tensors(codec.state_dict(), file)
    return load_tensors(file)


def test_a_phone_head_goes_on(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("speech_expert", corpus, tmp_path), log=lambda line: None)
    export = tmp_path / "speech_expert" / "export"
    stage: Any = build_stage(config("speech_expert", corpus, tmp_path, head_from=str(export)))
    assert same(load_tensors(export / "speech_head.safetensors"), stage.model["head"].state_dict())
    with pytest.raises(ValueError, match=r"holds no speech_head\.safetensors"):
        build_stage(config("speech_expert", corpus, tmp_path, head_from=str(tmp_path)))


def test_phones_keep_their_order_when_the_corpus_grows(corpus: Path, tmp_path: Path) -> None:
    run_stage(config("reasoning", corpus, tmp_path), log=lambda line: None)
    export = tmp_path / "reasoning" / "export"
    phones = ["<blank>", "a", "b", "l"]
    assert json.loads((export / "phones.json").read_text()) == ["<blank>", "a", "l"]
    (export / "phones.json").write_text(json.dumps(phones))
    stage: Any = build_stage(
        config("reasoning", corpus, tmp_path, text_decoder=str(export / "text_decoder.safetensors"))
    )
    assert stage.phone_ids == {"<blank>": 0, "a": 1, "b": 2, "l": 3}


def test_an_empty_choice_of_clips_says_so(corpus: Path, tmp_path: Path) -> None:
    stage = build_stage(config("speech_expert", corpus, tmp_path))
    with pytest.raises(ValueError, match="no clip"):
        ClipSampler(stage.train_corpus, [], stage.clips)


def test_missing_and_foreign_parts_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the earlier stage"):
        load_parts(torch.nn.Linear(2, 2), [tmp_path / "no.safetensors"])


def test_pitch_of_a_tone_and_of_noise() -> None:
    t = torch.arange(24000) / 24000
    low, _ = pitch_and_level(0.3 * torch.sin(2 * torch.pi * 100 * t)[None, None])
    high, level = pitch_and_level(0.3 * torch.sin(2 * torch.pi * 400 * t)[None, None])
    noise, quiet = pitch_and_level(0.001 * torch.randn(1, 1, 24000))
    assert 0 < int(low[0, 10]) < int(high[0, 10])
    assert float((noise == 0).float().mean()) > 0.8
    assert float(level.mean()) > float(quiet.mean())


def test_every_stage_has_a_preset_that_loads(corpus: Path) -> None:
    for name in CODEC_STAGES:
        loaded = stage_config(name, None, [f"clips.corpus={corpus}", "train.steps=5"])
        assert replace(loaded.train, steps=5) == loaded.train
