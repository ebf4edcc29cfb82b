"""The official client against a running server: what it sends is understood, and what it gets it understands."""

from __future__ import annotations

import base64
import io
import json

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
import torch

from tests.server.conftest import Running, clip
from uniaudio2 import UniAudio2
from uniaudio2.api.results import Segment
from uniaudio2.engine import Cancelled
from uniaudio2.errors import UserError

openai = pytest.importorskip("openai", reason="the contract tests need the package openai")


@pytest.fixture
def client(running: Running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def speak(client, **options):
    return client.audio.speech.create(model="tts-1", voice="alloy", input="Yes.", **options)


def samples(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / 32767


def test_models_are_listed(client, model: UniAudio2):
    (card,) = client.models.list().data
    assert card.id == model.name and client.models.retrieve(card.id).owned_by == "uniaudio2"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav"])
def test_every_format_holds_the_speech(client, form: str):
    if form == "aac":
        av = pytest.importorskip("av")
    pcm = samples(speak(client, response_format="pcm").content)
    data = speak(client, response_format=form).content
    if form == "aac":
        with av.open(io.BytesIO(data)) as file:
            heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    else:
        heard, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        assert rate == 24000
    assert abs(len(heard) - len(pcm)) < 3000  # lossy formats begin with their own delay
    assert np.std(heard) == pytest.approx(np.std(pcm), rel=0.2)
    if form in ("flac", "wav"):
        assert np.allclose(heard[: len(pcm)], pcm, atol=1e-4) and len(heard) == len(pcm)


def test_speech_is_that_of_the_model(client, model: UniAudio2):
    given = samples(speak(client, response_format="pcm", extra_body={"seed": 5}).content)
    made = torch.cat(list(model.stream("Yes.", seed=5, best_of=1)), dim=1)[0].numpy()
    assert np.allclose(given, made, atol=1e-3)


def test_what_other_servers_call_so_is_understood(running: Running):
    body = {"input": "Yes.", "speaker": "alloy", "stream": True, "response_format": "pcm", "task_type": "CustomVoice"}
    answer = httpx.post(f"{running.url}/v1/audio/speech", json=body | {"instructions": "whisper"}, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-sample-rate"] == "24000" and answer.headers["x-uniaudio2-ignored"] == "instructions"


def test_faster_speech_is_shorter(client):
    usual, fast = (len(speak(client, response_format="pcm", speed=speed).content) for speed in (1.0, 2.0))
    assert 0.4 * usual < fast < 0.6 * usual + 2400


def test_speech_comes_in_events(client):
    whole = speak(client, response_format="pcm").content
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Yes.", response_format="pcm", stream_format="sse"
    ) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [each["type"] for each in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    assert b"".join(base64.b64decode(each["audio"]) for each in events[:-1]) == whole
    assert events[-1]["type"] == "speech.audio.done"
    used = events[-1]["usage"]
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"] > 2


def test_transcripts_come_in_every_form(client, model: UniAudio2):
    data = clip(1.5)
    wanted = model.transcribe(np.frombuffer(data[44:], "<i2").astype(np.float32) / 32768)

    def ask(**options):
        return client.audio.transcriptions.create(model="whisper-1", file=("a.wav", data), **options)

    assert ask().text == wanted.text
    assert ask(response_format="text").strip() == wanted.text
    assert "00:00:00,000 --> " in ask(response_format="srt")
    assert ask(response_format="vtt").startswith("WEBVTT")
    full = ask(response_format="verbose_json", timestamp_granularities=["segment"])
    assert full.duration == pytest.approx(1.5) and full.segments[0].text == wanted.segments[0].text
    assert full.segments[0].avg_logprob == pytest.approx(wanted.segments[0].mean_log_probability, abs=1e-3)


def test_words_have_times(client):
    full = client.audio.transcriptions.create(
        model="whisper-1",
        file=("a.wav", clip(1.5)),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert full.words and all(0 <= word.start <= word.end <= 1.6 for word in full.words)


def test_transcripts_come_in_events(client):
    data = clip(1.5)
    plain = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", data))
    events = list(client.audio.transcriptions.create(model="whisper-1", file=("a.wav", data), stream=True))
    assert "".join(each.delta for each in events if each.type == "transcript.text.delta") == plain.text
    assert events[-1].type == "transcript.text.done" and events[-1].text == plain.text


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (Cancelled("deadline"), {"type": "server_error", "code": "deadline_exceeded"}),
        (RuntimeError("secret"), {"type": "server_error", "code": "bug"}),
        (UserError("too odd"), {"type": "invalid_request_error", "code": "invalid_value"}),
    ],
)
def test_an_error_in_the_middle_of_a_transcript_is_an_event(client, running: Running, monkeypatch, error, body):
    def broken(server, data, options, progress):
        progress(0, Segment(0.0, 1.0, "so far"))
        raise error

    monkeypatch.setattr("uniaudio2.server.transcriptions.transcribed", broken)
    stream = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", clip()), stream=True)
    assert next(stream).delta == "so far"
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert caught.value.body == {"message": caught.value.message, "param": None, **body}
    assert caught.value.message and "secret" not in caught.value.message
    files = {"file": ("a.wav", clip())}
    text = httpx.post(f"{running.url}/v1/audio/transcriptions", files=files, data={"stream": "true"}, timeout=60).text
    first, last = (json.loads(line.removeprefix("data: ")) for line in text.strip().split("\n\n"))
    assert first["type"] == "transcript.text.delta" and last == {"type": "error", "error": caught.value.body}


def test_an_error_before_the_first_delta_is_an_answer(client):
    with pytest.raises(openai.BadRequestError, match="not readable as audio"):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"no audio" * 9), stream=True)


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.BadRequestError, match="response_format") as caught:
        speak(client, response_format="ogg")
    assert caught.value.param == "response_format" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match=r"0 bytes"):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b""))
    with pytest.raises(openai.BadRequestError, match="unknown language 'fr'"):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", clip()), language="fr")
    with pytest.raises(openai.BadRequestError, match="not readable as audio"):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"no audio at all" * 9))
    with pytest.raises(openai.BadRequestError, match="needs a model that tells speakers apart"):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", clip()), response_format="diarized_json")
