"""Captions, answers, sounds, voices and delays: what each comparison counts, and what one plan of several writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.cli import execute
from uniaudio2.compare.data import clips_of
from uniaudio2.compare.plan import load_plan
from uniaudio2.compare.scorer import file_name
from uniaudio2.compare.tasks import is_right
from uniaudio2.config import ConfigError, list_presets
from uniaudio2.data.synth.sentences import Sentence, load_sentences
from uniaudio2.data.synth.speech import Speech, plan_speech
from uniaudio2.errors import UserError
from uniaudio2.eval import judges
from uniaudio2.systems import load_system, parse_systems

TOY = str(Path(__file__).with_name("toy_voice.py"))
CAPTIONS = ("a dog barks", "rain falls on a roof", "a clock ticks loudly")
QUESTION = "What is it?\n(A) a dog\n(B) rain"
LABELS = ("dog_bark", "rain", "clock_tick")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniaudio2.eval.text_metrics.RESAMPLES", 50)
    monkeypatch.setattr("uniaudio2.eval.frechet.DRAWS", 20)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = []
    for number, (caption, label) in enumerate(zip(CAPTIONS, LABELS, strict=True)):
        wave = 0.2 * np.sin(np.arange(24000) * 0.05 * (1 + number / 10))
        soundfile.write(folder / f"c{number}.wav", wave, 24000)
        lines.append({
            "id": f"c{number}", "path": f"c{number}.wav", "duration": 1.0, "split": "test", "kind": "sound",
            "caption": caption, "captions": [caption + " nearby"], "label": label, "language": "en", "text": "a dog",
            "speaker": f"s{number}",
            "audios": {"prompt": {"path": "c0.wav", "duration": 0.5}},
            "texts": {"question": QUESTION, "answer": "a dog"} if number else {"reply": "a reply"},
        })  # fmt: skip
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(task: str, corpus: Path, out: Path, *more: str, systems: str = f"{TOY}@label=toy") -> dict:
    words = ["compare", task, "--systems", systems, "--data", str(corpus), "-o", str(out), "--device", "cpu", *more]
    assert execute(words) == 0
    report = json.loads((out / "report.json").read_text())
    return {(figure["name"], figure["group"]): figure["value"] for figure in report["figures"]}


def test_captions_by_cider_and_by_the_class_they_name(corpus: Path, tmp_path: Path) -> None:
    right = ",".join(f"{TOY}@says={caption}@label=l{n}" for n, caption in enumerate(CAPTIONS))
    found = run("caption", corpus, tmp_path / "out", systems=right)
    assert found["class named", "sound: l0"] == pytest.approx(1 / 3)
    assert found["CIDEr-D", "sound: l0"] > 2 and ("class named, difference to l0", "sound: l1") in found
    assert "a dog barks | a dog barks nearby" in (tmp_path / "out" / "report.json").read_text()


def test_answers_and_replies(corpus: Path, tmp_path: Path) -> None:
    found = run("answer", corpus, tmp_path / "out", systems=f"{TOY}@says=(A)@label=a,{TOY}@says=rain@label=b")
    assert found["right", "sound: a"] == 1 and found["right", "sound: b"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("found", "right"),
    [("A dog.", True), ("(A)", True), ("A) a dog", True), ("It is a dog", True), ("(B) a dog", False), ("rain", False),
     ("a dog or rain", False), ("A", True), ("", False), ("a cat", False)],
)  # fmt: skip
def test_a_choice_is_named_by_its_letter_or_its_words_alone(found: str, right: bool) -> None:
    assert is_right(QUESTION, "a dog", found) is right


def test_a_longer_choice_that_holds_a_shorter_one() -> None:
    question = "Which?\n(A) a dog\n(B) a dog and rain"
    assert is_right(question, "a dog and rain", "I hear a dog and rain") and not is_right(
        question, "a dog", "a dog and rain"
    )


def test_sounds_by_a_distance_of_all_clips(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spectra(wave: torch.Tensor) -> np.ndarray:
        frames = torch.stft(wave[0], 64, 32, window=torch.hann_window(64), return_complex=True).abs().log1p().T
        return frames.double().numpy()

    monkeypatch.setattr(judges, "whisper_frames", lambda: spectra)
    systems = f"{TOY}@pitch=0.075@label=near,{TOY}@pitch=1.2@label=far"
    found = run("tta", corpus, tmp_path / "out", systems=systems)
    near, far = (found["FD, Whisper layer 2", f"sound: {name}"] for name in ("near", "far"))
    assert 0 <= near < far
    difference = found["FD, Whisper layer 2, difference to near", "sound: far"]
    assert difference == pytest.approx(far - near, abs=1e-6)
    assert "not FAD by VGGish" in (tmp_path / "out" / "report.md").read_text()
    # Sentences have no recordings to be like.
    found = run("tts", corpus, tmp_path / "tts", "--judges", "fad")
    assert not any("FD" in name for name, _ in found)
    assert "No figures by fad: tts has no recordings" in (tmp_path / "tts" / "report.md").read_text()
    run("caption", corpus, tmp_path / "caption", "--judges", "fad")
    assert "No figures by fad: caption makes no audio." in (tmp_path / "caption" / "report.md").read_text()


def test_delays_of_systems_that_stream(corpus: Path, tmp_path: Path) -> None:
    systems = f"{TOY}@label=streams,{TOY}@streams=false@label=waits"
    found = run("tts", corpus, tmp_path / "tts", "--judges", "", systems=systems)
    assert 0.02 <= found["first audio", "en: streams"] < 1 and ("first audio", "en: waits") not in found
    found = run("asr", corpus, tmp_path / "asr", "--normaliser", "simple", systems=systems)
    assert 0.5 <= found["first text", "en: streams"] < 1  # the second block of a quarter of a second
    assert ("first text", "en: waits") not in found


def test_a_voice_is_given_and_compared_with(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def like(_normaliser: str) -> judges.Judge:
        def score(wave, clip, prompt):
            asked.append((wave.shape, prompt.shape))
            return {"similarity": float(torch.allclose(wave, prompt, atol=0.02))}

        return judges.Judge("a stand-in", score, (judges.Metric("similarity", "speaker similarity", "", "higher"),))

    monkeypatch.setitem(judges.JUDGES, "similarity", like)
    found = run("clone", corpus, tmp_path / "out", "--judges", "similarity")
    assert found["speaker similarity", "en: toy"] == 1 and asked[0] == ((1, 12000), (1, 12000))


def test_a_codec_does_not_speak(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "tta", "--systems", f"{Path(__file__).with_name('toy_system.py')}@label=codec", "--judges", ""]
    assert execute([*words, "--data", str(corpus), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert "toy is a codec: it neither listens nor speaks" in capfd.readouterr().out
    words = ["compare", "answer", "--systems", f"{TOY}@label=x", "--data", "nothing.jsonl", "-o", str(tmp_path / "o")]
    assert execute([*words, "--device", "cpu"]) == 1


# ------------------------------------------------------------------------------------------ several in one table


def test_several_comparisons_in_one_table(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.yaml"
    part = f"    systems: [{TOY}@label=toy, %s]\n    data: {corpus}\n    limit: 2\n"
    plan.write_text(
        "title: Toys\nparts:\n  say:\n    task: tts\n    judges: []\n" + part % f"{TOY}@pitch=0.2@label=high"
        + "  hear:\n    task: asr\n    normaliser: simple\n" + part % f"{TOY}@says=a dog@label=good"
    )  # fmt: skip
    out = tmp_path / "out"
    words = ["compare", "all", "--config", str(plan), "-o", str(out), "--device", "cpu"]
    assert execute(words) == 0
    text = (out / "report.md").read_text()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert table[0] == ["Figure", "toy", "high", "good"]
    rows = {row[0]: row[1:] for row in table[2:]}
    assert next(iter(rows)) == "say: RTF ↓" and rows["say: first audio, s ↓"][2] == "–"
    toy, high, good = rows["hear: WER, % ↓"]
    assert toy.startswith("50.0") and high == "–" and good.startswith("0.0")
    assert "hear: 2 clips" in text and (out / "say" / "report.md").is_file() and (out / "hear" / "index.html").is_file()
    capfd.readouterr()
    assert execute([*words, "--json"]) == 0  # finished clips are kept
    told = capfd.readouterr()
    assert "toy: 0 of 2 clips to do" in told.err
    assert {row["part"] for row in json.loads(told.out)["parts"]} == {"say", "hear"}
    assert execute([*words, "--systems", "mimi"]) == 1
    assert "not from --systems" in capfd.readouterr().err


def test_plans_that_cannot_be_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.yaml"
    for text, message in [
        ("parts: {}", "no parts to compare"),
        ("parts: {a: {task: singing, systems: [ours], data: x}}", "no comparison of 'singing'"),
        ("parts: {a: {task: asr, systems: [nosuch], data: x}}", "unknown system 'nosuch'"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_plan(str(file))
    with pytest.raises(ConfigError, match="no compare preset 'voice'"):
        load_plan("voice")
    assert execute(["compare", "all", "-o", str(tmp_path)]) == 1
    assert "compare all needs --config" in capfd.readouterr().err


@pytest.mark.parametrize("name", list_presets("compare"))
def test_shipped_plans_name_what_there_is(name: str) -> None:
    assert load_plan(name).parts


def test_data_together_and_speakers_apart(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    line = json.loads((corpus / "manifest.jsonl").read_text().splitlines()[0])
    lines = [{**line, "id": "d0", "speaker": "known"}, {**line, "id": "d1", "speaker": "known", "split": "train"}]
    lines += [{**line, "id": "d2", "speaker": "new"}, {**line, "id": "d3", "speaker": None}]
    (other / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    both = f"{corpus}+{other}"
    assert [clip.example.id for clip in clips_of(both)] == ["c0", "c1", "c2", "d0", "d2", "d3"]
    assert [clip.example.id for clip in clips_of(both, unseen_speakers=True)] == ["c0", "c1", "c2", "d2"]
    with pytest.raises(UserError, match="two clips have the id 'c0'"):
        clips_of(f"{corpus}+{corpus}")
    odd = other.rename(tmp_path / "a+b=c")
    assert [clip.example.id for clip in clips_of(str(odd))] == ["d0", "d2", "d3"]


def test_long_names_stay_apart() -> None:
    assert file_name("a/b c.wav") == "a_b_c.wav"
    first, second = (file_name("x" * 130 + end) for end in "ab")
    assert first != second and len(first) == len(second) == 120


def test_stored_outputs_by_a_pattern_that_cannot_be_filled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"only \{id\}, \{name\} and \{kind\} are filled in"):
        load_system(parse_systems(f"files@path={tmp_path}/{{speaker}}")[0])


def test_sentences_that_no_training_text_holds(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    lines = [f"The {a} saw {b} of them, and left." for a in ("cat", "dog", "fox") for b in ("two", "three")]
    (tmp_path / "text" / "en_common_voice.txt").write_text("\n".join(lines))
    first, again = (clips_of("sentences=en", tmp_path, limit=4, seed=0) for _ in range(2))
    assert [c.example.text for c in first] == [c.example.text for c in again] and len(
        {c.example.id for c in first}
    ) == 4

    def lists(language: str) -> list[Sentence]:
        return load_sentences(tmp_path / "text", language) if language == "en" else []

    held = {task.sentence.spoken for task in plan_speech(Speech({}), lists, 0)["dev_en"]}
    assert {str(clip.example.text) for clip in first} <= held and "," in str(first[0].example.text)
    with pytest.raises(UserError, match="a sentence has no recording"):
        first[0].load()
    with pytest.raises(UserError, match="no sentences in 'de'"):
        clips_of("sentences=de", tmp_path)
