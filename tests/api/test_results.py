"""What methods return."""

import soundfile

from uniaudio2.api.results import join_texts
from uniaudio2.audio import read_audio


def test_texts_are_joined_by_script():
    assert join_texts(["one two", "three"]) == "one two three"
    assert join_texts(["你好", "世界", "ok"]) == "你好世界 ok"
    assert join_texts([]) == ""


def test_results_are_written_as_heard(model, tmp_path):
    speech = model.speak("hello")
    speech.save(tmp_path / "hello.wav")
    assert soundfile.info(tmp_path / "hello.wav").subtype == "PCM_16"
    assert read_audio(tmp_path / "hello.wav").shape == speech.audio.shape
    assert speech.to_dict()["language"] == "en"
