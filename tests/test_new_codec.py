"""A codec in one file makes codes, teaches a language model, and is heard and spoken through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tests.toy_codec import MeansCodec, MeansConfig
from uniaudio2 import UniAudio2
from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE, CheckpointError, load_codec, save_parts
from uniaudio2.cli import execute
from uniaudio2.codes import AudioCodes
from uniaudio2.config import ConfigError, preset_path, to_plain
from uniaudio2.tokenizer import AudioVocabulary
from uniaudio2.train.stages import assemble


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    return save_parts(folder, codec=MeansCodec(MeansConfig()), tokenizer=DEFAULT_FOLDER / TOKENIZER_FILE)


def make_corpus(folder: Path) -> Path:
    folder.mkdir()
    lines = []
    for number in range(8):
        wave = 0.3 * np.sin(2 * np.pi * (3 + number) * np.arange(24000 + 2400 * number) / 24000)
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        line = {"id": f"e{number}", "path": f"{number}.wav", "duration": len(wave) / 24000, "kind": "speech"}
        lines.append({**line, "split": "train" if number < 5 else "dev", "language": "en", "text": "la la"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_codec_in_one_file_serves_the_whole_path(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus, codes, run = make_corpus(tmp_path / "corpus"), tmp_path / "codes", tmp_path / "run"
    place = ["--model", str(model), "--device", "cpu"]
    assert execute(["prepare", str(corpus), "-o", str(codes), *place]) == 0, capfd.readouterr().err

    vocabulary = AudioVocabulary.of(MeansCodec(MeansConfig()).streams)
    preset = tmp_path / "lm.yaml"
    preset.write_text(yaml.safe_dump({"base": str(preset_path("lm", "tiny")), "audio": to_plain(vocabulary)}))
    train = ["train", "lm_3", f"lm={preset}", f"data.codes=[{codes}]", f"train.out_dir={run}", "init_from=null"]
    train += ["train.steps=10", "train.log_every=1", "mixture.weights={asr: 0.5, tts: 0.5}", "mixture.positions=256"]
    train += ["mixture.source_repeats={}", "mixture.house_voices=[]", "train.eval_every=0"]
    train += ["train.prefetch=none", "train.tensorboard=false", "train.precision=float32", "train.ema_decay=0"]
    train += ["train.optimizer=adamw", "train.lr=5e-3", "train.warmup_steps=1", "data.texts={}", "data.joined=0"]
    train += ["losses.ctc=0", "losses.reading=0", "losses.foresight=0", "losses.guided_layer=1"]
    assert execute(train) == 0, capfd.readouterr().err
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["book0"] for line in logged if "book0" in line]
    assert losses[-1] < losses[0] - 0.1

    assemble(model, language_models=[run / "export"], dtype="float32")
    heard, spoken = corpus / "7.wav", tmp_path / "out.wav"
    assert execute(["transcribe", str(heard), "--language", "en", *place]) == 0, capfd.readouterr().err
    assert execute(["run", "tts", "transcription=la la", "-o", str(spoken), *place]) == 0, capfd.readouterr().err
    assert soundfile.info(spoken).duration > 0
    loaded = UniAudio2.from_pretrained(model, device="cpu")
    found = loaded.encode(str(heard))
    assert list(found.streams) == ["acoustic"] and found.num_samples == soundfile.info(heard).frames
    assert isinstance(loaded.transcribe(str(heard), language="en").text, str)


def test_codes_and_files_through_the_command_line(model: Path, tmp_path: Path) -> None:
    wave, codes, back = tmp_path / "a.wav", tmp_path / "a.safetensors", tmp_path / "b.wav"
    soundfile.write(wave, 0.2 * np.sin(2 * np.pi * 5 * np.arange(30_001) / 24000), 24000)
    place = ["--model", str(model), "--device", "cpu"]
    assert execute(["encode", str(wave), "-o", str(codes), *place]) == 0
    assert AudioCodes.load(codes)["acoustic"].shape == (1, 8, 16)
    assert execute(["decode", str(codes), "-o", str(back), *place]) == 0
    given, found = soundfile.read(wave)[0], soundfile.read(back)[0]
    assert found.shape == given.shape and float(np.abs(found - given)[:-1].max()) < 0.05


def test_what_every_codec_gets(model: Path) -> None:
    codec = load_codec(model)
    assert type(codec) is MeansCodec and codec.unit == 1920 and codec.bit_rate == 12.5 * 8 * 5
    clips = [torch.rand(1, n, generator=torch.Generator().manual_seed(n)) - 0.5 for n in (1920, 5000, 9)]
    for clip, codes in zip(clips, codec.encode_clips(clips), strict=True):
        assert codes == codec.encode(clip[None])
    codes = codec.encode(clips[1][None])
    session = codec.decoder_session()
    pieces = [session.push(codes.slice_units(0, 2)), session.push(codes.slice_units(2)), session.finish()]
    assert torch.equal(torch.cat(pieces, dim=2), codec.decode(codes))
    with pytest.raises(ValueError, match="acoustic codes must lie in"):
        codec.decode(AudioCodes.of({"acoustic": codes["acoustic"] + 32}, codec.streams))


def test_unknown_codecs_and_other_language_models_are_refused(model: Path) -> None:
    save_parts(model, lm=UniAudio2.from_pretrained(device="cpu").lm)
    with pytest.raises(ValueError, match="trained with another codec"):
        UniAudio2.from_pretrained(model, device="cpu")
    file = model / "config.yaml"
    file.write_text(file.read_text().replace("name: means", "name: medians"))
    with pytest.raises((CheckpointError, ConfigError), match="unknown codec 'medians'"):
        load_codec(model)
