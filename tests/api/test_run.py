"""Any row of the task table, from Python."""

import pytest
import torch

from tests.api.support import noise, tune
from uniaudio2.api.results import AudioResult
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.errors import UserError
from uniaudio2.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_row_of_the_task_table_runs(model, name):
    task = TASKS[name]
    values = {part.value: "a dog" if part.kind == "text" else noise(0.6) for part in task.inputs}
    shots = [(noise(0.6), "a dog"), (noise(0.7), "rain")] if task.needs_examples else []
    results = model.run(name, values, shots=shots, max_duration_s=0.8, seed=1)
    assert set(results) == {part.value for part in task.outputs}
    for part in task.outputs:
        if part.kind == "text":
            assert isinstance(results[part.value], str)
        elif part.kind == "reconstruction":
            result = results[part.value]
            assert isinstance(result, AudioResult)
            assert 0 < result.duration_s <= 1.2


def test_run_names_what_is_wrong(model):
    with pytest.raises(ValueError, match="unknown task 'asrr'; did you mean 'asr'"):
        model.run("asrr", {})
    with pytest.raises(ValueError, match="needs audio"):
        model.run("asr", {})
    with pytest.raises(ValueError, match="has no input 'text'; it takes voice, transcription"):
        model.run("tts", {"text": "x"})


def test_two_ways_to_one_task_give_one_answer(model, monkeypatch):
    tune(monkeypatch, model, beams=2, shifts=2, max_chunk_s=1.0)
    long = torch.cat([noise(1.6), torch.zeros(1, 2 * SAMPLE_RATE), noise(1.2, 1)], 1)
    assert model.run("asr", {"audio": long})["transcription"] == model.transcribe(long).text
    assert model.run("asr", {"audio": long}, temperature=0.7, seed=2)["transcription"] == (
        model.transcribe(long, temperature=0.7, seed=2).text
    )
    assert model.run("yue_asr", {"audio": long})["transcription"] == model.transcribe(long, language="yue").text
    assert model.run("audio_caption", {"audio": long})["caption"] == model.caption(long).text
    quiet = torch.zeros(1, SAMPLE_RATE)
    assert model.run("audio_caption", {"audio": quiet})["caption"] == model.caption(quiet).text == "silence"
    assert model.run("asr", {"audio": quiet})["transcription"] == ""
    assert isinstance(model.run("asr", {"audio": model.encode(noise(1.0))})["transcription"], str)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_duration_s": float("inf")}, "max_duration_s must be a finite number"),
        ({"max_duration_s": 0}, "max_duration_s must be above 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
    ],
)
def test_numbers_out_of_range_are_named(model, options, message):
    with pytest.raises(UserError, match=message):
        model.run("tts", {"transcription": "hi"}, **options)
