"""Speech while it is made, and calls from several threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import uniaudio2
from tests.api.support import noise
from uniaudio2 import ReasoningCodec
from uniaudio2.api import speak
from uniaudio2.api.speak import FIRST_CODES, spoken
from uniaudio2.audio import read_audio
from uniaudio2.codec.windows import WindowConfig
from uniaudio2.codes import AudioCodes
from uniaudio2.eval import audio_metrics
from uniaudio2.speech_text import plan_speech


def test_the_beginning_of_a_sentence_is_heard_before_its_end_is_made(model, monkeypatch):
    windows = WindowConfig(decode_codes=6, overlap_codes=2, context_latents=4)  # as short as the first ones
    monkeypatch.setattr(model.codec, "config", replace(model.codec.config, windows=windows))
    text = "This is a sentence that has several windows of sound. Then one."
    spoken = model.speak(text, batch_size=1, seed=5, best_of=1)
    made = []
    step = model.engine._session.step
    monkeypatch.setattr(model.engine._session, "step", lambda: made.append(1) or step())
    pieces, steps = [], []
    for piece in model.stream(text, seed=5):
        pieces.append(piece)
        steps.append(len(made))
    assert len(pieces) > 3 and steps[0] < steps[1] and steps[0] < 0.7 * steps[-1]
    assert torch.equal(torch.cat(pieces, -1), spoken.audio)
    stopped = model.stream(text, seed=5)
    next(stopped)
    assert model.engine._session.active
    stopped.close()
    model.caption(noise(0.5))
    assert not model.engine._session.active


def test_few_first_words_are_heard_sooner(model, monkeypatch):
    text = "The door is open and the old man walks into the garden."
    made = []
    step = model.engine._session.step
    monkeypatch.setattr(model.engine._session, "step", lambda: made.append(1) or step())

    def first(**options) -> int:
        made.clear()
        next(pieces := model.stream(text, seed=5, **options))
        steps = len(made)
        pieces.close()
        return steps

    assert first(first_words=4) < 0.6 * first()
    parts = ["The door is open", "and the old man walks into the garden."]
    asked: list[str] = []
    monkeypatch.setattr(
        speak, "spoken", lambda core, words, language: asked.append(words) or spoken(core, words, language)
    )
    assert list(model.stream(text, seed=5, first_words=4)) and asked == parts
    asked.clear()
    assert model.speak(text, seed=5, best_of=1).sentences == tuple(plan_speech(text)) and asked == [text]
    with pytest.raises(ValueError, match="first_words"):
        model.stream(text, first_words=0)


def test_speech_in_short_windows_is_nearly_that_of_the_whole():
    """What the documentation promises of the shipped model: log-mel distance at most .1, STOI at least .9."""
    pytest.importorskip("pystoi")
    codec = ReasoningCodec.from_pretrained()
    recording = Path(uniaudio2.__file__).parent / "demo_assets/sentence_printing.opus"
    codes = codec.encode(read_audio(recording)[None, :, : 24_000 * 5])
    whole = codec.decode(codes, generator=torch.Generator().manual_seed(1))[0]
    session = codec.decoder_session(first_codes=FIRST_CODES, generator=torch.Generator().manual_seed(1))
    frames = codes.reconstruction.split(1, dim=2)
    pieces = [session.push(AudioCodes.of({"reconstruction": frame}, codes.hops)) for frame in frames]
    assert next(number for number, piece in enumerate(pieces, 1) if piece.shape[-1]) == FIRST_CODES
    streamed = torch.cat([*pieces, session.finish()], dim=-1)[0, :, : whole.shape[-1]]
    assert 0.001 < audio_metrics.log_mel_distance(whole, streamed) < 0.1
    assert audio_metrics.stoi(whole, streamed) > 0.9


def test_threads_and_calls_of_every_kind_share_the_engine(model):
    clips = [noise(0.4 + 0.2 * index, seed=index) for index in range(4)]
    calls = [
        lambda: [str(text) for text in model.transcribe(clips, beams=2)],
        lambda: [str(text) for text in model.transcribe(clips, beams=1, temperature=0.7, seed=3)],
        lambda: [str(text) for text in model.caption(clips)],
        lambda: model.speak("One two. Three.", seed=2, best_of=2).audio.tolist(),
        lambda: model.generate_sound("rain", duration_s=0.6, seed=1).audio.tolist(),
        lambda: torch.cat(list(model.stream("One two. Three.", seed=3, best_of=1)), -1).tolist(),
    ]
    alone, found = [call() for call in calls], {}
    threads = [
        threading.Thread(target=lambda i=index: found.setdefault(i, calls[i % 6]())) for index in range(2 * len(calls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert [found[index] for index in range(12)] == 2 * alone
