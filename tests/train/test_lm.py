from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.spelled import LETTERS, Spelled, Speller
from uniaudio2.checkpoint import load_lm
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import ConfigError, list_presets, load_config, preset_path
from uniaudio2.data.prepare import prepare
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.train import Trainer, TrainingError
from uniaudio2.train.auxiliary import attention_prior_loss
from uniaudio2.train.lm import LMStage, LMTrainConfig
from uniaudio2.train.lm_start import start_from_codebooks

STAGES = ["lm_1", "lm_2", "lm_3", "lm_4"]


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list(LETTERS[:-1]), size)) for size in rng.integers(6, 14, 15)]
    return prepare(Speller(), Spelled(texts), tmp_path_factory.mktemp("lm") / "codes")


def config(preset: str, codes: Path, out: Path, *more: str) -> LMTrainConfig:
    small = (
        "lm=tiny",
        f"data.codes=[{codes}]",
        f"train.out_dir={out}",
        "init_from=null",
        "mixture.house_voices=[]",
        "mixture.positions=512",
        "mixture.min_voice_prompt_s=0.2",
        "train.prefetch=none",
        "train.tensorboard=false",
        "train.precision=float32",
        "losses.guided_layer=1",
    )
    return load_config(LMTrainConfig, preset_path("train", preset), [*small, *more])


def test_joined_clips_are_drawn_and_must_fit_the_mixture(codes: Path, tmp_path: Path) -> None:
    stage = LMStage(config("lm_3", codes, tmp_path / "run", "data.joined=0.5"))
    joined = {i for i, clip in enumerate(stage.dataset.store.clips) if clip.parts}
    assert joined & set(stage.dataset.planner.pools["asr"].items.tolist())
    assert not any(clip.parts for clip in stage.dev.store.clips)
    with pytest.raises(ConfigError, match="raise that or lower this"):
        config("lm_3", codes, tmp_path / "run", "mixture.max_duration_s=8")


def test_a_stage_starts_from_the_mean_of_several_runs(codes: Path, tmp_path: Path) -> None:
    folders = []
    for seed in (0, 1):
        stage = LMStage(config("lm_3", codes, tmp_path / str(seed), "train.steps=1", f"train.seed={seed}"))
        result = Trainer(stage.config.train, stage, log=lambda line: None).run()
        folders.append(result.export_dir)
    one, other, mean = (
        LMStage(config("lm_3", codes, tmp_path / "next", f"init_from={start}")).model.state_dict()
        for start in (*folders, f"{folders[0]}, {folders[1]}")
    )
    assert any(name.startswith("heads.") for name in mean)
    assert all(torch.allclose(mean[k], (one[k] + other[k]) / 2, atol=1e-6) for k in mean)
    assert not any(torch.equal(one[k], other[k]) for k in one if k.endswith("embedding.weight"))
    assert folders[1] is not None
    (folders[1] / "phones.json").write_text('["x"]')
    with pytest.raises(TrainingError, match="init_from: .*missing: no such folder; give the export"):
        LMStage(config("lm_3", codes, tmp_path / "next", f"init_from={tmp_path / 'missing'}"))
    with pytest.raises(TrainingError, match="different phones"):
        LMStage(config("lm_3", codes, tmp_path / "next", f"init_from={folders[0]},{folders[1]}"))


@pytest.mark.parametrize("preset", STAGES)
def test_every_stage_trains_what_it_says_and_hands_on(preset: str, codes: Path, tmp_path: Path) -> None:
    stage = LMStage(config(preset, codes, tmp_path / "run", "train.steps=2", "data.dev_clips=3"))
    before = {name: p.detach().clone() for name, p in stage.model.lm.named_parameters()}
    result = Trainer(stage.config.train, stage, log=lambda line: None).run()
    moved = {n.split(".")[0] for n, p in stage.model.lm.named_parameters() if not torch.equal(p, before[n])}
    frozen = {name for name, share in stage.config.part_lr.items() if share == 0}
    assert moved == {name for name, _ in stage.model.lm.named_children()} - frozen
    assert {"asr_en/nats", "asr_en/gap", "asr_en/ctc_error"} <= result.metrics.keys()
    if preset != "lm_1":
        assert {"tts_en/gap", "tts_voice/book0", "tta/reasoning"} <= result.metrics.keys()
    assert result.export_dir is not None
    assert "ctc" not in " ".join(load_lm(result.export_dir).state_dict())
    following = LMStage(config("lm_3", codes, tmp_path / "next", f"init_from={result.export_dir}"))
    for name, value in load_lm(result.export_dir).state_dict().items():
        assert torch.equal(following.model.lm.state_dict()[name], value)
    assert following.model.heads is not None and stage.model.heads is not None
    with stage_weights(stage, result.export_dir) as head:
        assert torch.equal(following.model.heads.hearing.linear.weight, head)


class stage_weights:  # noqa: N801
    """The exported hearing head's weight."""

    def __init__(self, stage: LMStage, folder: Path) -> None:
        from safetensors.torch import load_file

        self.head = load_file(folder / "auxiliary.safetensors")["hearing.linear.weight"]

    def __enter__(self) -> torch.Tensor:
        return self.head

    def __exit__(self, *_: Any) -> None:
        return None


def test_it_learns_to_listen_and_to_speak_on_a_few_clips(codes: Path, tmp_path: Path) -> None:
    settings = config(
        "lm_3",
        codes,
        tmp_path / "run",
        "mixture.weights={asr: 1.0, tts: 1.0}",
        "mixture.guidance_dropout=0",
        "mixture.bpe_dropout=0",
        "train.steps=220",
        "train.lr=4e-3",  # by Muon, as the stage says
        "train.warmup_steps=20",
        "train.ema_decay=0",
        "train.eval_every=0",
        "losses.frame_fraction=1.0",
        "losses.ctc=1.0",
    )
    stage = LMStage(settings)
    trainer = Trainer(settings.train, stage, log=lambda line: None)
    before = figures_on_train(stage)
    trainer.run()
    after = figures_on_train(stage)
    assert before["asr_en/nats"] > 7
    assert after["asr_en/nats"] < 0.5
    assert after["asr_en/gap"] > 1.0  # the text comes from the audio, not from the text before it
    assert after["asr_en/ctc_error"] < 0.1
    assert after["tts_en/nats"] < 1.0
    # What the text is worth is small here, since a memorised clip also follows from its beginning; without attention
    # to the text it is zero.
    assert after["tts_en/gap_reasoning"] + after["tts_en/gap_book0"] > 0.01


def figures_on_train(stage: LMStage) -> dict[str, float]:
    """The stage's own evaluation, on the clips that it learns."""
    stage.dev = stage.dataset
    stage.groups = stage._groups()
    stage.model.eval()
    with torch.no_grad():
        figures = stage.evaluate(0)
    stage.model.train()
    return figures


def test_the_attention_prior_rewards_the_diagonal() -> None:
    aligned = torch.tensor([[0, 6, 11, 1, 6, 0]])
    diagonal, flipped, elsewhere = (torch.zeros(1, 1, 12, 12) for _ in range(3))
    for step in range(5):
        diagonal[0, 0, 5 + step, 1 + step] = 1
        flipped[0, 0, 5 + step, 5 - step] = 1
        elsewhere[0, 0, 5 + step, 0] = 1
    none, kinds = aligned[:0], (diagonal, flipped, elsewhere)
    losses = [float(attention_prior_loss(a, aligned, none, 0.15)) for a in kinds]
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert losses[0] < losses[1] < losses[2] == 1.0
    assert [float(attention_prior_loss(a, none, aligned, 0.15)) for a in kinds] == [0.0, 0.0, 1.0]


def test_wrong_settings_are_named(codes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="unknown part 'experts'"):
        LMStage(config("lm_3", codes, tmp_path, "part_lr={experts: 1}")).parameters_to_train()
    with pytest.raises(ValueError, match=r"frame_fraction must be in"):
        config("lm_3", codes, tmp_path, "losses.frame_fraction=0")


def test_presets_of_the_stages_load() -> None:
    assert set(STAGES) <= set(list_presets("train"))
    for name in STAGES:
        assert load_config(LMTrainConfig, preset_path("train", name)).stage == name


def test_embeddings_start_from_the_codebooks_of_a_codec_that_fits() -> None:
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "nano")))
    lm = AudioLM(load_config(LMConfig, preset_path("lm", "nano"))).initialise(torch.Generator().manual_seed(0))
    audio = lm.config.audio
    before = lm.audio_embedding.weight.detach().clone().view(audio.num_codebooks, audio.size, -1)
    start_from_codebooks(lm, codec)
    after = lm.audio_embedding.weight.detach().view(audio.num_codebooks, audio.size, -1)
    vectors = codec.codebook_vectors("reasoning")
    for k in range(audio.num_codebooks):
        differences = after[k, 1:256] - after[k, :255]  # one common factor, whatever the mean that is taken off
        ours = vectors[k, 1:] - vectors[k, :-1]
        factor = differences.norm() / ours.norm()
        torch.testing.assert_close(differences, factor * ours, atol=1e-4, rtol=1e-3)
    assert torch.equal(after[:, audio.streams[0].bos], before[:, audio.streams[0].bos])  # special ids stay
    tiny = AudioLM(load_config(LMConfig, preset_path("lm", "tiny"))).initialise(torch.Generator().manual_seed(0))
    with pytest.raises(TrainingError, match="leave embeddings_from out"):
        start_from_codebooks(tiny, codec)
