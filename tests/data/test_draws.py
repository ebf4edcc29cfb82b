"""Which sequences a seed draws, kept as they were: a change of the data code must not change a run that goes on."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.spelled import LETTERS, Spelled, Speller
from uniaudio2.config import load_config, preset_path
from uniaudio2.data.collate import LMBatch
from uniaudio2.data.dataset import LMDataset
from uniaudio2.data.mixture import MixtureConfig
from uniaudio2.data.prepare import PrepareConfig, prepare
from uniaudio2.data.store import CodeStore
from uniaudio2.lm import LMConfig
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.train import Trainer
from uniaudio2.train.lm import LMStage, LMTrainConfig, load_tokenizer

WEIGHTS = dict(asr=1.0, tts=0.8, tts_voice=0.6, audio_caption=0.5, tta=0.5, text_only=0.4, audio_only=0.3)
PLAIN = MixtureConfig(weights=WEIGHTS, positions=512, epoch_sequences=64, min_voice_prompt_s=0.2, bpe_dropout=0.1)
SENTENCES = replace(
    PLAIN,
    positions=1024,
    sentences=0.6,
    sentence_positions=400,
    house_voices=("voice0",),
    guidance_dropout=0.3,
    source_repeats={"recorded": 2.5, "zh": 0.5},
    curriculum_start_s=1.0,
    curriculum_batches=20,
)
HELD_OUT = {
    "asr_en": [10, 12], "asr_en_recorded": [1, 5, 7], "asr_zh": [0, 6], "asr_yue": [4, 8], "tts_en": [1, 5, 7],
    "tts_zh": [0, 6], "tts_voice": [10, 0, 1, 6], "caption": [9, 3, 11, 2], "tta": [9, 3, 11, 2],
}  # fmt: skip
FIGURES = {
    "asr_en/nats": 7.643371, "asr_en/ctc_error": 3.217391, "asr_en/gap": 0.002232, "asr_en_recorded/nats": 7.644630,
    "asr_zh/nats": 7.621723, "asr_yue/gap": -0.005140, "tts_en/nats": 4.097500, "tts_en/reasoning": 4.090856,
    "tts_en/book0": 4.081601, "tts_en/books2+": 4.100112, "tts_en/gap_book0": -0.000151, "tts_voice/nats": 4.096981,
    "tts_voice/gap": 0.000002, "caption/nats": 7.606045, "tta/nats": 4.070737, "tta/reasoning": 4.085013,
}  # fmt: skip


def corpus() -> Spelled:
    """Three languages, recordings and engines, sounds with several captions."""
    rng = np.random.default_rng(7)
    texts = ["".join(rng.choice(list(LETTERS[:-1]), size)) for size in rng.integers(6, 20, 45)]
    source = Spelled(texts, sounds=8)
    for number, example in enumerate(source.examples):
        if example.kind == "speech":
            source.examples[number] = replace(example, language=("en", "en", "zh", "yue")[number % 4])
    return source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PrepareConfig(augmented_copies=1, voice_copies=0.5, shard_clips=20)
    out = tmp_path_factory.mktemp("draws") / "codes"
    return prepare(Speller(), corpus(), out, config, augment=lambda w, _: w, change_speed=lambda w, _: w)


@pytest.fixture(scope="module")
def builder() -> SequenceBuilder:
    config = load_config(LMConfig, preset_path("lm", "tiny"))
    return SequenceBuilder(load_tokenizer(None, config), config.audio, text=config.text, prompt_style="short")


def digest(batches: list[LMBatch]) -> str:
    """A short hash of everything in some batches but the names of their entries."""
    found = hashlib.sha256()
    for batch in batches:
        for item in fields(batch):
            value: Any = getattr(batch, item.name)
            if isinstance(value, torch.Tensor):
                found.update(f"{item.name} {tuple(value.shape)}".encode())
                found.update(value.to(torch.int64).numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(
    ("config", "seed", "joined", "wanted"),
    [(PLAIN, 0, 0.0, "f3bdde98c3d91fcd"), (PLAIN, 5, 0.5, "53e3793c35b11dd0"), (SENTENCES, 1, 0.3, "d895cde8e96c181d")],
    ids=["plain", "joined", "sentences"],
)
def test_batches_of_a_seed_stay(
    folder: Path, builder: SequenceBuilder, config: MixtureConfig, seed: int, joined: float, wanted: str
) -> None:
    store = CodeStore([folder])
    phones = {phone: i + 1 for i, phone in enumerate(store.phones(256))}
    if joined:
        store.join(joined, 6.0, seed)
    dataset = LMDataset(store, builder, config, seed=seed, texts=["one more", "and another"], phones=phones)
    assert digest([dataset.batch(index) for index in range(40)]) == wanted


def test_held_out_clips_and_losses_of_a_stage_stay(folder: Path, tmp_path: Path) -> None:
    overrides = [
        "lm=tiny", f"data.codes=[{folder}]", f"train.out_dir={tmp_path / 'run'}", "init_from=null", "train.steps=3",
        "mixture.house_voices=[voice0]", "mixture.positions=512", "mixture.sentence_positions=300",
        "mixture.min_voice_prompt_s=0.2", "train.prefetch=none", "train.tensorboard=false", "train.precision=float32",
        "losses.guided_layer=1", "data.dev_clips=4", "train.eval_every=0",
    ]  # fmt: skip
    stage = LMStage(load_config(LMTrainConfig, preset_path("train", "lm_4"), overrides))
    assert digest([stage.dataset.batch(index) for index in range(60)]) == "08d6560356daad9a"
    assert {name: list(items) for name, (_, items) in stage.groups.items()} == HELD_OUT
    held_out = [
        stage.dev.held_out(entry, items, shuffled=shuffled)
        for entry, items in stage.groups.values()
        for shuffled in (False, True)
    ]
    assert digest(held_out) == "7e23a569f5ee7767"
    Trainer(stage.config.train, stage, log=lambda line: None).run()
    stage.model.eval()
    with torch.no_grad():
        figures = stage.evaluate(3)
    assert {name: figures[name] for name in FIGURES} == pytest.approx(FIGURES, rel=1e-4, abs=1e-5)
