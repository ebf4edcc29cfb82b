"""The task table: every published row, and what a row must have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uniaudio2.errors import UserError
from uniaudio2.tasks import TASKS, Text, Training, get_form, get_task, trained_forms

PUBLISHED = [
    "asr",
    "yue_asr",
    "d_asr",
    "lyric_recognition",
    "audio_caption",
    "music_caption",
    "audio_understanding",
    "speech_s2t",
    "speech_s2s",
    "tts",
    "yue_tts",
    "instruct_tts",
    "prompt_instruct_tts",
    "tta",
    "ttm",
    "lts",
    "speech_edit",
    "speech_denoise",
    "speech_ss",
    "music_ss",
    "reason_to_semantic",
    "semantic_to_reason",
    "semantic_copy",
    "reason_copy",
    "audio_only",
    "text_only",
]


def test_every_published_task_and_our_own_are_there() -> None:
    assert set(TASKS) == {
        *PUBLISHED,
        "prompted_song",
        "speech_with_sound",
        "voice_conversion",
        "diarization",
        "classify",
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_rows_are_sound(task) -> None:
    assert task.name == task.name.lower() and task.outputs
    assert len(task.prompts) >= 3 or task.name in ("audio_only", "text_only")
    assert len(set(task.prompts)) == len(task.prompts)
    assert bool(task.prompts) == bool(task.short)
    assert len({part.kind == "text" for part in task.outputs}) == 1
    assert not any(part.optional for part in task.outputs)


def test_names_are_forgiving_and_errors_help() -> None:
    assert get_task("TTS") is TASKS["tts"]
    assert get_task("speech-edit") is TASKS["speech_edit"]
    with pytest.raises(ValueError, match="did you mean 'audio_caption'"):
        get_task("audio_captoin")
    with pytest.raises(ValueError, match="unknown task 'zzz'; known tasks: asr, "):
        get_task("zzz")


def test_forms_are_rows_with_their_optional_values() -> None:
    names = [form.name for form in trained_forms()]
    with_training = [row.name for row in TASKS.values() if row.training is not None]
    assert sorted(names) == sorted([*with_training, "tts+voice"])
    # Listening before speaking, speech before sounds, what has no input last.
    known = [name for name in names if name in ("asr", "tts", "tts+voice", "audio_caption", "tta", "audio_only")]
    assert known == ["asr", "tts", "tts+voice", "audio_caption", "tta", "audio_only"]
    assert get_form("tts_voice") == get_form("tts+voice") and get_form("tts+voice").values[0] == "voice"
    assert [part.value for part in get_form("tts").inputs] == ["transcription"]
    with pytest.raises(UserError, match="'semantic_copy' has no training in the task table; those that can be"):
        get_form("semantic_copy")
    with pytest.raises(UserError, match="no value 'sound' to train"):
        replace(TASKS["asr"], training=Training(score="wer", values={"sound": Text("text")}))


def test_rows_of_one_language_read_like_those_of_any() -> None:
    assert [row.name for row in TASKS.values() if row.reads_like(TASKS["tts"])] == ["tts", "yue_tts"]
    assert not TASKS["text_only"].reads_like(TASKS["text_only"])
