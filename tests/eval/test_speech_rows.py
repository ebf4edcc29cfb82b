"""Evaluations of speech that is made or changed: full marks for the truth, none for what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.speech_corpus import make_corpus
from uniaudio2.data.manifest import Example, read_manifest
from uniaudio2.data.synth.vocoder import world
from uniaudio2.data.synth.voices import SynthesiserMissing
from uniaudio2.errors import UserError
from uniaudio2.eval import held_out, repaired
from uniaudio2.eval.benchmark import evaluate
from uniaudio2.eval.context import EvaluationError

OUTPUTS = {
    "instruct_tts": {"audio": "styled"},
    "prompt_instruct_tts": {"audio": "styled"},
    "speech_edit": {"target": "styled"},
    "voice_conversion": {"target": "converted"},
    "speech_with_sound": {"audio": "scene"},
    "speech_denoise": {"target": "clean"},
    "speech_ss": {"first": "first", "second": "second"},
}
GIVEN = {"speech_edit": "plain", "instruct_tts": "plain", "prompt_instruct_tts": "plain", "voice_conversion": "spoken",
         "speech_denoise": "noisy", "speech_ss": "mixture", "speech_with_sound": "scene"}  # fmt: skip


class Model:
    """Answers with what was to be learned, or with what was given, or (None) not at all."""

    def __init__(self, examples: list[Example], *, truthful: bool | None) -> None:
        self.examples, self.truthful, self.seeds = examples, truthful, []
        self.shown: list[tuple[Example, Any]] = []

    def run(self, task: str, values: dict[str, Any], **options: Any) -> dict[str, Any]:
        example = next(e for e in self.examples if self._is(e, values))
        self.seeds.append(options["seed"])
        self.shown.append((example, options.get("shots")))
        if self.truthful is None:
            raise UserError("it cannot")
        if task == "d_asr":
            return {"transcription": example.text if self.truthful else "nothing"}
        names = OUTPUTS[task]
        return {out: example.audio(name=name if self.truthful else GIVEN[task]) for out, name in names.items()}

    @staticmethod
    def _is(example: Example, values: dict[str, Any]) -> bool:
        said = [value for value in values.values() if isinstance(value, str)]
        heard = [value for value in values.values() if isinstance(value, torch.Tensor)]
        texts = {example.text, example.caption, *example.texts.values()}
        audios = [example.audio(name=name) for name in example.recordings]
        return set(said) <= texts and all(any(torch.equal(a, b) for b in audios) for a in heard)


class Subject:
    """The model under test."""

    name = "double"

    def __init__(self, model: Model) -> None:
        self.model = model

    def transcribe(self, clips: list[torch.Tensor], **_: Any) -> list[str]:
        return ["la"] * len(clips)

    def encode(self, clips: list[torch.Tensor]) -> list[torch.Tensor]:
        return clips

    def decode(self, codes: torch.Tensor, **_: Any) -> torch.Tensor:
        return codes

    caption = speak = generate_sound = transcribe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        world()
    except SynthesiserMissing as error:
        pytest.skip(str(error))
    return make_corpus(tmp_path_factory.mktemp("corpus"), dev_styles=13)


def figures(corpus: Path, task: str, *, truthful: bool | None) -> dict[str, float]:
    model = Model(read_manifest(corpus, split="dev"), truthful=truthful)
    limit = 4 if task == "prompt_instruct_tts" else None  # timbre takes its time
    report = evaluate(task, data=str(corpus), model=Subject(model), limit=limit)
    assert model.seeds == list(range(len(model.seeds))) and model.seeds
    assert len(report.items) >= len(model.seeds) and report.judge
    return {
        f"{figure.name}, {figure.group}" if figure.group else figure.name: figure.value for figure in report.figures
    }


@pytest.fixture(autouse=True)
def _no_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (held_out, repaired):
        monkeypatch.setattr(module, "has_whisper", lambda: False)


@pytest.mark.parametrize("task", ["instruct_tts", "prompt_instruct_tts", "speech_edit"])
def test_styles_are_followed_or_not(corpus: Path, task: str) -> None:
    right, wrong = (figures(corpus, task, truthful=truthful) for truthful in (True, False))
    name = "attribute as asked, made by the model"
    assert right[name] > 0.85 and wrong[name] == 0.0
    assert right["attribute as asked, what was to be learned"] == pytest.approx(right[name], abs=0.08)


def test_a_converted_voice_is_nearer_to_its_target(corpus: Path) -> None:
    name = "voice nearer to the target, made by the model"
    assert figures(corpus, "voice_conversion", truthful=True)[name] == 1.0
    assert figures(corpus, "voice_conversion", truthful=False)[name] == 0.0


@pytest.mark.parametrize(("task", "group"), [("speech_denoise", "clean"), ("speech_ss", "first")])
def test_repaired_speech_is_better_than_what_was_given(corpus: Path, task: str, group: str) -> None:
    pytest.importorskip("pystoi")
    right, wrong = (figures(corpus, task, truthful=truthful) for truthful in (True, False))
    assert right[f"STOI better than given, {group}"] == 1.0 and wrong[f"STOI better than given, {group}"] == 0.0
    if task == "speech_ss":
        assert right["nearer to the right speaker (chance 50 %)"] == 1.0


def test_words_of_impaired_speech_and_of_scenes(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert figures(corpus, "d_asr", truthful=True)["WER"] == 0.0
    wrong = figures(corpus, "d_asr", truthful=False)
    assert wrong["WER"] == pytest.approx(1.0) and wrong["WER beside that of the clear"] == pytest.approx(1.0, abs=0.2)
    monkeypatch.setattr(held_out, "has_whisper", lambda: True)
    monkeypatch.setattr(held_out, "whisper_name", lambda: "a double")
    monkeypatch.setattr(held_out, "hear", lambda wave, language: "")
    found = figures(corpus, "speech_with_sound", truthful=True)
    assert found["WER by Whisper, en, made by the model"] == 1.0


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("speech_edit", "attribute as asked, made by the model"),
        ("voice_conversion", "pitch nearer to the target's, made by the model"),
        ("speech_ss", "STOI better than given, second"),
        ("speech_denoise", "STOI better than given, both through the codec, clean"),
    ],
)
def test_no_answer_gets_no_marks(corpus: Path, task: str, name: str) -> None:
    assert figures(corpus, task, truthful=None)[name] == 0.0


def test_a_manifest_without_such_examples_says_what_is_missing(tmp_path: Path, corpus: Path) -> None:
    lines = [line for line in (corpus / "manifest.jsonl").read_text().splitlines() if "noisy" in line]
    own = corpus / "noisy.jsonl"
    own.write_text("\n".join(lines) + "\n")
    with pytest.raises(EvaluationError, match="no held-out example with instruction, plain, styled, which speech_edit"):
        evaluate("speech_edit", data=str(own), model=Subject(Model([], truthful=True)))


def test_examples_of_the_train_part_stand_in_front(corpus: Path) -> None:
    model = Model(read_manifest(corpus, split="dev"), truthful=True)
    report = evaluate("speech_edit", data=str(corpus), model=Subject(model), limit=4, shots=1)
    assert "--shots 1" in report.command and any("1 of the train part" in note for note in report.notes)
    train = read_manifest(corpus, split="train")
    labels = [one.label for one in train if "instruction" in one.texts]
    assert model.shown
    for asked, shots in model.shown:
        assert len(shots) == 1
        for inputs, outputs in shots:
            assert inputs.keys() == {"source", "instruction"} and outputs.keys() == {"target"}
            (shown,) = (one for one in train if "styled" in one.recordings
                        and torch.equal(one.audio(name="styled"), outputs["target"]))  # fmt: skip
            assert torch.equal(shown.audio(name="plain"), inputs["source"])
            assert shown.label == asked.label or asked.label not in labels
    with pytest.raises(EvaluationError, match="fewer than 8 train examples"):
        evaluate("voice_conversion", data=str(corpus), model=Subject(model), shots=8)
    with pytest.raises(EvaluationError, match="no examples can stand in front of asr"):
        evaluate("asr", data=str(corpus), model=Subject(model), shots=1)
