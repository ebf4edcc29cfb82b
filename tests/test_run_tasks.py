"""``uniaudio2 run`` for every row of the task table, and few-shot examples, from the command line and from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.api.request import Heard
from uniaudio2.api.results import AudioResult
from uniaudio2.api.run import read_shot
from uniaudio2.checkpoint import DEFAULT_FOLDER
from uniaudio2.cli import execute
from uniaudio2.codes import AudioCodes
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import TASKS, Part, Task, required

RATE = 24000
WORDS = "a dog"
UNLEARNED_TEXT = set(TASKS) - {"asr", "audio_caption"}  # texts that nano did not learn to end would run to their limit


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> UniAudio2:
    return UniAudio2.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def nano(tiny: UniAudio2) -> UniAudio2:
    shipped = (DEFAULT_FOLDER / "config.yaml").is_file()
    return UniAudio2.from_pretrained(device="cpu") if shipped else tiny


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes 0.6 s of noise, other noise for every name."""
    folder = tmp_path_factory.mktemp("sounds")

    def write(name: str) -> Path:
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        path = folder / f"{name}.wav"
        soundfile.write(path, (0.1 * torch.randn(RATE * 6 // 10, generator=generator)).numpy(), RATE)
        return path

    return write


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run ``uniaudio2 run`` on a model that is loaded already: exit code, standard output, standard error."""

    def call(model: UniAudio2, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(UniAudio2, "from_pretrained", lambda *args, **options: model)
        code = execute(["run", *map(str, words), "--device", "cpu", "--model", str(model.folder)])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


def one_error(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    return lines[0]


def given(parts: tuple[Part, ...], sound: Callable[[str], Path], *, optional: bool = True) -> dict[str, str]:
    """Some value for every one of these parts."""
    wanted = [part for part in parts if optional or not part.optional]
    return {part.value: WORDS if part.kind == "text" else str(sound(part.value)) for part in wanted}


# -- every row --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_row_gives_the_right_kind_of_output(
    run: Callable[..., Any], nano: UniAudio2, tiny: UniAudio2, sound: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    task = TASKS[name]
    values = [f"{key}={value}" for key, value in given(task.inputs, sound).items()]
    made = {part.value: [p.kind for p in task.outputs if p.value == part.value] for part in task.outputs}
    only_meaning = all(kinds == ["reasoning"] for kinds in made.values())
    where: list[object] = []
    if task.makes_audio:
        file = tmp_path / ("out.safetensors" if only_meaning else "out.wav")
        where = ["-o", tmp_path / "parts" if len(made) > 1 else file, "--max-seconds", 0.8, "--steps", 1]
    model = nano if task.makes_audio or name not in UNLEARNED_TEXT else tiny
    shots = ["--shot", sound("one"), WORDS, "--shot", sound("two"), "rain"] if task.needs_examples else []
    code, out, err = run(model, name, *values, *shots, *where, "--json", "--seed", 3, "--untrained")
    assert code == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["value"] for record in records] == list(made)
    for record in records:
        assert record["task"] == name
        if made[record["value"]] == ["text"]:
            assert isinstance(record["text"], str) and "path" not in record
        elif only_meaning:
            codes = AudioCodes.load(record["path"])
            assert codes.reasoning.shape[:2] == (1, 8) and 1 <= codes.reasoning.shape[-1] <= 4
            assert codes.reconstruction.shape[-1] == 0
        else:
            info = soundfile.info(record["path"])
            assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
            assert 0 < info.duration <= 0.8 + 0.2
            assert abs(info.duration - record["duration_s"]) < 1e-3


def test_audio_is_written_as_codes_where_the_name_says_so(
    run: Callable[..., Any], tiny: UniAudio2, tmp_path: Path
) -> None:
    for file in ("a.safetensors", "a_reason.pt"):
        code, _, err = run(tiny, "tta", "caption=rain", "-o", tmp_path / file, "--max-seconds", 0.8, "--seed", 1)
        assert code == 0, err
    one, two = AudioCodes.load(tmp_path / "a.safetensors"), AudioCodes.load(tmp_path / "a_semantic.pt")
    assert torch.equal(one.reconstruction, two.reconstruction) and torch.equal(one.reasoning, two.reasoning)
    # and files of codes are inputs as good as recordings
    outputs = {run(tiny, "asr", f"audio={tmp_path / file}")[1] for file in ("a.safetensors", "a_reason.pt")}
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tts", "transcription=hi"], "name a wav file with -o"),
        (["asr", "audio={wav}", "-o", "x.txt"], "is printed: leave -o out"),
        (["semantic_to_reason", "audio={wav}", "-o", "x.wav"], "use .safetensors"),
        (["tts", "transcription=hi", "-o", "x.aac"], "unknown ending '.aac'"),
        (["asr", "audio={wav}", "audio={wav}"], "audio: is given twice"),
        (["audio_understanding", "question=what", "audio="], "audio: is empty, name a file"),
        (["speech_edit", "instruction=", "source={wav}", "-o", "x.wav"], "instruction: the text is empty"),
        (["asr", "audio=-", "--shot", "-", "zero"], "read only once"),
        (["asr", "audio={wav}", "--shot", "{wav}"], "--shot 1: give an input and an output"),
        (["asr", "audio={wav}", "--shot"], "--shot 1: give an input and an output"),
        (["asr", "audio={wav}", "--shot", "{wav}", "zero", "--shot", "gone.wav", "one"], "--shot 2: gone.wav: no such"),
        (["asr", "audio={wav}", "--shot", "{wav}", " "], "--shot 1: transcription: the text is empty"),
        (["asr", "audio={wav}", "--shot", "sound={wav}", "zero"], "--shot 1: sound={wav}: no such file"),
        (["speech_edit", "instruction=a", "source={wav}", "-o", "x.wav", "--shot", "{wav}", "{wav}"],
         "--shot 1: write it as 'instruction=… source=…'"),
        (["speech_edit", "instruction=a", "source={wav}", "-o", "x.wav", "--shot", "instruction=b", "{wav}"],
         "--shot 1: task 'speech_edit' needs source=…"),
        (["speech_ss", "mixture={wav}", "-o", "x", "--shot", "{wav}", "first={wav}"], "'speech_ss' needs second=…"),
        (["audio_only", "-o", "x.wav", "--shot", "word", "{wav}"], "--shot 1: task 'audio_only' takes no input"),
        (["asr", "audio={wav}", *["--shot", "{wav}", "zero " * 400] * 6], "fewer or shorter shots"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    run: Callable[..., Any],
    tiny: UniAudio2,
    sound: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    wav = str(sound("input"))
    code, out, err = run(tiny, *(word.replace("{wav}", wav) for word in words))
    assert (code, out) == (1, "")
    assert message.replace("{wav}", wav) in one_error(err)
    assert not list(tmp_path.iterdir())


# -- shots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_row_takes_shots(
    tiny: UniAudio2, sound: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The sequence is the prompt, then every example's inputs and outputs in order, then the inputs."""
    task, prompts, lm = TASKS[name], [], tiny.lm
    builder = SequenceBuilder(tiny.tokenizer, lm.config.audio, text=lm.config.text, prompt_style=lm.config.prompt_style)

    def note(core: UniAudio2, asks: Any, sampling: Any) -> Any:
        (ask,) = asks
        prompts.append(builder.prompt(ask.task, ask.values, shots=ask.shots, language=ask.language).tokens)
        return [{"text": Heard("")}]

    for place in ("listen", "run"):
        monkeypatch.setattr(f"uniaudio2.api.{place}.generate", note)
    values = given(task.inputs, sound)
    outputs = {part.value: WORDS if part.kind == "text" else str(sound(f"made {part.value}")) for part in task.outputs}
    fewest = int(task.needs_examples)
    for count in range(fewest, fewest + 3):
        tiny.run(name, values, shots=[(values, outputs)] * count)
    none, one, two = prompts
    head, shot = len(builder.prompt_ids(task, language=task.language)), len(one) - len(none)
    assert shot > 0 and len(two) == len(none) + 2 * shot
    assert torch.equal(two[:head], none[:head]) and torch.equal(two[head + 2 * shot :], none[head:])
    assert torch.equal(two[head : head + shot], two[head + shot : head + 2 * shot])
    example = builder.example(task, {**read_shot(tiny, task, 1, (values, outputs), task.language, RATE)})
    assert torch.equal(one[head : head + shot], example.tokens[head:])


def test_a_row_that_learns_its_classes_asks_for_examples(
    run: Callable[..., Any], tiny: UniAudio2, sound: Callable[[str], Path]
) -> None:
    code, out, err = run(tiny, "classify", f"audio={sound('question')}", "--untrained")
    assert code == 1 and not out and "--shot" in one_error(err)


def test_shots_by_name_and_alone_are_the_same_and_matter(tiny: UniAudio2, sound: Callable[[str], Path]) -> None:
    audio, example = sound("question"), sound("example")
    alone = tiny.run("asr", {"audio": audio}, shots=[(example, "rain falls")])
    named = tiny.run("asr", {"audio": audio}, shots=[({"audio": example}, {"transcription": "rain falls"})])
    codes = tiny.run("asr", {"audio": audio}, shots=[(tiny.encode(example), "rain falls")])
    assert alone == named == codes
    others = [
        tiny.run("asr", {"audio": audio}),
        tiny.run("asr", {"audio": audio}, shots=[(example, "a dog barks")]),
        tiny.run("asr", {"audio": audio}, shots=[(sound("another"), "rain falls")]),
        tiny.run("asr", {"audio": audio}, shots=[(example, "rain falls"), (audio, "a dog barks")]),
    ]
    assert all(other != alone for other in others)


def test_both_streams_of_one_recording_may_come_from_two_sides(tiny: UniAudio2, sound: Callable[[str], Path]) -> None:
    first, second = tiny.encode(sound("one")), tiny.encode(sound("two"))
    for name in ("reason_to_semantic", "semantic_to_reason"):
        shot = read_shot(tiny, TASKS[name], 1, (first, second), None, RATE)
        meaning, detail = (first, second) if name == "reason_to_semantic" else (second, first)
        assert torch.equal(shot["audio"][0], meaning.reasoning[0])
        assert torch.equal(shot["audio"][1], detail.reconstruction[0])


def test_the_command_line_takes_shots_as_python_does(
    run: Callable[..., Any], tiny: UniAudio2, sound: Callable[[str], Path], tmp_path: Path
) -> None:
    audio, example = sound("question"), sound("example")
    expected = tiny.run("asr", {"audio": audio}, shots=[(example, "rain falls"), (audio, "two = 2 words")])
    words = ["--shot", example, "rain falls", "--shot", f"audio={audio}", "transcription=two = 2 words"]
    assert run(tiny, "asr", f"audio={audio}", *words)[1].strip() == expected["transcription"]
    expected = tiny.run(
        "audio_understanding",
        {"question": "what is it", "audio": audio},
        shots=[({"question": "is it audio", "audio": example}, "yes")],
    )
    shot = [f"question=is it audio  audio={example}", "yes"]
    code, out, err = run(tiny, "audio_understanding", "question=what is it", f"audio={audio}", "--shot", *shot)
    assert code == 0, err
    assert out.strip() == expected["answer"]
    wav = tmp_path / "x.wav"
    shot = [f"voice={example} transcription=hello", audio]
    assert run(tiny, "tts", "transcription=hi", "-o", wav, "--shot", *shot, "--max-seconds", 0.4)[0] == 0
    shot = [f"{example}", f"first={audio} second={example}"]
    code, _, err = run(tiny, "speech_ss", f"mixture={audio}", "-o", tmp_path, "--shot", *shot, "--max-seconds", 0.4)
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"x.wav", "first.wav", "second.wav"}


@pytest.mark.parametrize(
    ("shot", "message"),
    [
        ("ab", "shot 1 must be a pair"),
        ((1, 2, 3), "shot 1 must be a pair"),
        (("gone.wav", "word"), "shot 1: gone.wav"),
        ((torch.zeros(24000), 5), "shot 1: 'transcription' of task 'asr' must be text, got int"),
        (({"sound": torch.zeros(24000)}, "word"), "shot 1: task 'asr' has no input 'sound'; it takes audio"),
        ((torch.zeros(24000), {"text": "word"}), "shot 1: task 'asr' has no output 'text'; it takes transcription"),
        ((None, "word"), "shot 1: audio must be a path or samples, got NoneType"),
        ((AudioCodes(torch.full((1, 8, 2), 99), torch.zeros(1, 8, 5).long()), "word"), "from another codec"),
    ],
)
def test_bad_shots_say_which_and_why(tiny: UniAudio2, shot: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        tiny.run("asr", {"audio": torch.zeros(1, 12000)}, shots=[shot])
    assert "\n" not in str(caught.value)


# -- a row of one's own -----------------------------------------------------------------------------------------------


def test_a_row_of_ones_own_runs_without_being_in_the_table(tiny: UniAudio2, sound: Callable[[str], Path]) -> None:
    row = Task(
        name="count_words",
        short="count",
        prompts=("How many words are said?",),
        inputs=(Part("reasoning", "audio"), Part("reconstruction", "audio")),
        outputs=(Part("text", "count"),),
    )
    assert row.name not in TASKS and required(row.inputs) == ("audio",)
    results = tiny.run(row, {"audio": sound("a")}, shots=[(sound("b"), "two")])
    assert isinstance(results["count"], str)
    spoken = Task("say_twice", "twice", ("Say it twice.",), (Part("text", "text"),), TASKS["tts"].outputs)
    assert isinstance(tiny.run(spoken, {"text": "hi"}, max_duration_s=0.4)["audio"], AudioResult)
