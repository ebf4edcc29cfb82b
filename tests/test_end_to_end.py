"""The whole road on a CPU in miniature: a corpus → codes → two training steps → a model folder → text and speech."""

import json

import pytest
import soundfile
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.audio import read_audio
from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE, load_codec, load_lm, save_parts
from uniaudio2.cli import execute


@pytest.fixture
def corpus(tmp_path, tone):
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = []
    for number in range(8):
        name = f"clip{number}.wav"
        soundfile.write(folder / name, tone(0.8 + number / 20, 200 + 40 * number)[0].numpy(), 24000)
        line = {"id": f"c{number}", "path": name, "duration": 0.8 + number / 20, "licence": "CC0-1.0", "source": "test"}
        line["split"] = "train" if number < 6 else "dev"
        if number % 2:
            line |= {"kind": "sound", "label": "beep", "caption": "a beep"}
        else:
            line |= {"kind": "speech", "text": "One, two!", "language": "en", "speaker": "s"}
        lines.append(json.dumps(line))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_from_a_corpus_to_speech(corpus, tmp_path, capfd):
    start = make_tiny_model(tmp_path / "start")
    assert execute(["data", "validate", str(corpus)]) == 0
    codes = tmp_path / "codes"
    prepare = ["prepare", str(corpus), "-o", str(codes), "--model", str(start), "--device", "cpu"]
    assert execute(prepare) == 0
    assert (codes / "codes.json").is_file()
    labels = [json.loads(line) for file in codes.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert {label.get("text") for label in labels} == {"one two", None}  # as the model learned texts

    run = tmp_path / "run"
    train = ["train", "lm_3", "lm=tiny", f"data.codes=[{codes}]", f"train.out_dir={run}", "init_from=null"]
    train += ["train.steps=2", "mixture.house_voices=[]", "mixture.positions=512", "mixture.min_voice_prompt_s=0.2"]
    train += ["train.prefetch=none", "train.tensorboard=false", "train.precision=float32", "train.ema_decay=0"]
    train += ["losses.guided_layer=1", "data.dev_clips=2", "data.texts={}"]
    train += ["losses.ctc=0", "losses.reading=0", "losses.foresight=0"]  # no clip has phones
    train += ["mixture.weights={asr: 0.4, tts: 0.3, audio_caption: 0.15, tta: 0.15}"]
    assert execute(train) == 0, capfd.readouterr().err
    assert len((run / "metrics.jsonl").read_text().splitlines()) >= 1

    trained = load_lm(run / "export")
    fresh = load_lm(start)
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), fresh.parameters(), strict=True))
    folder = tmp_path / "model"
    save_parts(folder, codec=load_codec(start), lm=trained, tokenizer=DEFAULT_FOLDER / TOKENIZER_FILE)

    target = tmp_path / "out.wav"
    assert execute(["speak", "one two", "-o", str(target), "--model", str(folder), "--device", "cpu"]) == 0
    model = UniAudio2.from_pretrained(folder, device="cpu")
    assert torch.isfinite(read_audio(target)).all()
    assert isinstance(model.transcribe(target).text, str)
    assert isinstance(model.caption(target).text, str)
    codes = model.encode(target)
    assert model.decode(codes).shape == read_audio(target).shape
