"""A task that is added in one place is drawn, trained, scored, and run from the command line and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE, load_codec, save_parts
from uniaudio2.cli import execute
from uniaudio2.config import load_config, preset_path
from uniaudio2.data.dataset import LMDataset
from uniaudio2.data.mixture import MixtureConfig
from uniaudio2.data.store import CodeStore
from uniaudio2.lm import LMConfig
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import TASKS, Audio, HeldOut, Part, Task, Text, Training, audio_parts, get_form
from uniaudio2.train.lm import load_tokenizer
from uniaudio2.train.stages import assemble

# The one place: what the sequence looks like, which examples fit, how they are scored. The values of `clean_up` are
# named as the audios of the corpus are; those of `ask` are filled from others.
CLEAN_UP = Task(
    name="clean_up",
    short="clean up",
    prompts=("Remove the noise.", "Clean up the speech.", "Keep the voice alone."),
    inputs=audio_parts("noisy"),
    outputs=audio_parts("clean"),
    training=Training(score="nats", kinds=("speech",)),
)
ASK = Task(
    name="ask",
    short="ask",
    prompts=("Answer the question.", "Reply to the question.", "Say what is asked."),
    inputs=(Part("text", "question"), *audio_parts("audio")),
    outputs=(Part("text", "reply", tag="answer"),),
    training=Training(
        score="exact",
        values={"audio": Audio("noisy", says="text"), "reply": Text("answer")},
        held_out=(HeldOut("ask_en", language="en"),),
    ),
)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in (CLEAN_UP, ASK):
        monkeypatch.setitem(TASKS, task.name, task)


@pytest.fixture
def codes(tmp_path: Path, tasks: None) -> Path:
    """A corpus of pairs of audios, by the command line."""
    corpus, rng, lines = tmp_path / "corpus", np.random.default_rng(0), []
    corpus.mkdir()
    for number in range(8):
        clean = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * np.arange(24000 + 2400 * number) / 24000)
        names = {"noisy": clean + 0.05 * rng.standard_normal(len(clean)), "clean": clean}
        for name, wave in names.items():
            soundfile.write(corpus / f"{name}{number}.wav", wave, 24000)
        audios = {name: {"path": f"{name}{number}.wav", "duration": len(wave) / 24000} for name, wave in names.items()}
        line = {"id": f"e{number}", "audios": audios, "split": "train" if number < 5 else "dev", "language": "en"}
        lines.append({**line, "text": "la la", "texts": {"question": "which", "answer": f"number {number}"}})
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = make_tiny_model(tmp_path / "tiny")
    assert execute(["data", "validate", str(corpus)]) == 0
    prepare = ["prepare", str(corpus), "-o", str(tmp_path / "codes"), "--model", str(model), "--device", "cpu"]
    assert execute(prepare) == 0
    return tmp_path / "codes"


def test_a_task_in_one_place_is_trained_and_run(codes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train = ["train", "lm_3", "lm=tiny", f"data.codes=[{codes}]", f"train.out_dir={run}", "init_from=null"]
    train += [
        "train.steps=10",
        "train.log_every=1",
        "mixture.weights={clean_up: 0.7, ask: 0.3}",
        "mixture.positions=256",
    ]
    train += ["train.prefetch=none", "train.tensorboard=false", "train.precision=float32", "train.ema_decay=0"]
    train += ["train.optimizer=adamw", "train.lr=5e-3", "train.warmup_steps=1", "data.texts={}", "data.joined=0"]
    train += ["losses.ctc=0", "losses.reading=0", "losses.foresight=0", "losses.guided_layer=1"]
    assert execute(train) == 0, capfd.readouterr().err
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["reasoning"] for line in logged if "reasoning" in line]
    assert losses[-1] < losses[0] - 0.2
    assert {"eval/clean_up/nats", "eval/clean_up/gap_reasoning", "eval/ask_en/nats"} <= logged[-1].keys()

    folder, noisy, out = tmp_path / "model", tmp_path / "corpus" / "noisy7.wav", tmp_path / "out.wav"
    save_parts(folder, codec=load_codec(tmp_path / "tiny"), tokenizer=DEFAULT_FOLDER / TOKENIZER_FILE)
    assemble(folder, language_models=[run / "export"], dtype="float32")
    about = yaml.safe_load((folder / "config.yaml").read_text())["trained_tasks"]
    assert set(about) == {"clean_up", "ask"} and about["clean_up"][0]["set"] == "held-out clean_up"
    place = ["--model", str(folder), "--device", "cpu"]
    assert execute(["run", "clean_up", f"noisy={noisy}", "-o", str(out), *place]) == 0, capfd.readouterr().err
    assert 0 < soundfile.info(out).duration < 1.5 * 1.7 + 2
    assert execute(["run", "ask", f"audio={noisy}", "question=which", *place]) == 0, capfd.readouterr().err
    assert execute(["run", "asr", f"audio={noisy}", *place]) != 0
    assert "was not trained for task 'asr', only for" in capfd.readouterr().err
    answers = UniAudio2.from_pretrained(folder, device="cpu").run("clean_up", {"noisy": noisy})
    assert list(answers) == ["clean"]


def test_values_come_from_the_audios_and_texts_of_their_names(codes: Path) -> None:
    config = load_config(LMConfig, preset_path("lm", "tiny"))
    builder = SequenceBuilder(load_tokenizer(None, config), config.audio, text=config.text, prompt_style="short")
    mixture = MixtureConfig(weights={"clean_up": 1.0, "ask": 1.0}, positions=256)
    store = CodeStore([codes], splits=("train", "dev"))
    dataset = LMDataset(store, builder, mixture, seed=0)
    batch = dataset.held_out(get_form("clean_up"), [0], shuffled=False)
    frames = {name: store.frames(0, name) for name in ("noisy", "clean")}
    targets = int(batch.loss_mask[0, :, 0].sum())
    assert targets == sum(frames["clean"].values()) + 4  # begin and end of both streams
    first = len(builder.prompt_ids(CLEAN_UP, language="en")) + 1
    wanted = store.codes(0, "noisy").reasoning[0].T
    assert torch.equal(batch.tokens[0, first : first + len(wanted), :-1], wanted)

    batch = dataset.held_out(get_form("ask"), [0], shuffled=False)
    assert builder.tokenizer is not None
    said = builder.tokenizer.decode(batch.tokens[0, :, -1][batch.loss_mask[0, :, -1]].tolist())
    assert store.clips[0].texts["answer"] in said
    wrong = dataset.held_out(get_form("ask"), [0, 1], shuffled=True)
    targets = [b.tokens[0, :, -1][b.loss_mask[0, :, -1]] for b in (batch, wrong)]
    assert torch.equal(*targets) and not torch.equal(wrong.tokens[0, : len(batch.tokens[0])], batch.tokens[0])
