"""Parts of the server on their own: encoders, time stretching, turns, the key, cancellation, settings, Ray."""

from __future__ import annotations

import io
import json
import logging
import math
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.datastructures import Headers

from uniaudio2 import UniAudio2
from uniaudio2.audio import read_audio
from uniaudio2.audio.tempo import stretched
from uniaudio2.cli import execute
from uniaudio2.engine import Cancellation, Cancelled, cancellable
from uniaudio2.errors import MissingPackageError
from uniaudio2.server.audio_in import read_recording
from uniaudio2.server.audio_out import encoder, wav_header
from uniaudio2.server.errors import APIError, as_api_error
from uniaudio2.server.limits import check_host, check_key, check_origin
from uniaudio2.server.realtime_config import Settings
from uniaudio2.server.run import JSONLines
from uniaudio2.server.settings import ServerSettings
from uniaudio2.server.turns import TurnDetector

SPEECH = Path(__file__).parents[2] / "uniaudio2" / "demo_assets" / "keyword_computer.opus"


@pytest.mark.parametrize("form", ["mp3", "opus", "flac", "wav", "pcm"])
def test_pieces_encode_to_what_the_whole_does(form: str):
    wave = 0.3 * torch.sin(torch.arange(48000) * 0.1)[None]
    whole, parts = encoder(form), encoder(form)
    one = whole.write(wave) + whole.finish()
    other = b"".join(parts.write(piece) for piece in wave.split(1000, 1)) + parts.finish()
    if form == "opus":  # pages carry a serial number of their own
        assert len(one) == pytest.approx(len(other), rel=0.02)
    else:
        assert one == other


@pytest.mark.parametrize("speed", [0.25, 0.7, 1.0, 1.6, 4.0])
def test_speech_is_stretched_at_its_own_pitch(speed: float):
    wave = 0.5 * torch.sin(torch.arange(48000) * (2 * math.pi * 200 / 24000))[None]
    made = torch.cat(list(stretched(wave.split(1777, 1), speed)), dim=1)
    assert made.shape[1] == pytest.approx(48000 / speed, abs=1000)
    loudest = torch.fft.rfft(made[0]).abs().argmax().item() * 24000 / made.shape[1]
    assert loudest == pytest.approx(200, abs=2)
    assert made[0, 1000 : -round(1500 / min(1.0, speed))].unfold(0, 240, 240).std(1).min() > 0.3  # no holes


def test_stretching_a_word_needs_no_more_than_its_pieces():
    wave = read_audio(SPEECH)
    whole = torch.cat(list(stretched([wave], 1.4)), dim=1)
    assert torch.allclose(whole, torch.cat(list(stretched(wave.split(999, 1), 1.4)), dim=1), atol=1e-5)
    assert list(stretched([], 2.0)) == []


def test_turns_do_not_depend_on_how_audio_is_cut():
    speech = read_audio(SPEECH)[0].numpy()
    wave = np.concatenate([np.zeros(24000, np.float32), speech, np.zeros(24000, np.float32), speech, np.zeros(24000)])
    wave = wave.astype(np.float32)
    found = []
    for size in (480, 2400, len(wave)):
        detector = TurnDetector()
        found.append(
            [turn for first in range(0, len(wave), size) for turn in detector.push(wave[first : first + size])]
        )
    assert found[0] == found[1] == found[2]
    assert [turn.started for turn in found[0]] == [True, False, True, False]


def test_work_is_stopped_from_another_thread(model: UniAudio2):
    switch, ended = Cancellation(), threading.Event()

    def work() -> None:
        with cancellable(switch), pytest.raises(Cancelled, match="enough"):
            model.speak("One. Two. Three. " * 200, best_of=1)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not model.engine._session.active:
        time.sleep(0.01)
    switch.cancel("enough")
    assert ended.wait(60)
    thread.join()
    model.speak("Yes.", best_of=1)  # the engine goes on
    assert not model.engine._session.active
    with pytest.raises(Cancelled), cancellable(switch):
        model.transcribe(torch.randn(1, 24000), beams=2, shifts=1)


def test_the_key_protects_what_is_behind_it():
    check_key("k", "/health", "")
    check_key("k", "/v1/models", "Bearer k")
    check_key(None, "/v1/models", "")
    check_key("schlüssel", "/v1/models", "Bearer schlüssel".encode().decode("latin-1"))  # as headers come
    for given in ("", "k", "Bearer", "Bearer kk", "Basic k"):
        with pytest.raises(APIError, match="asks for a key"):
            check_key("k", "/v1/models", given)


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({"origin": "http://me:1", "host": "me:1"}, True),
        ({"origin": "https://me", "host": "inner:8000", "sec-fetch-site": "same-origin"}, True),  # behind a proxy
        ({"origin": "https://me", "host": "me", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://other", "host": "me:1"}, False),
        ({"origin": "null", "host": "me:1"}, False),
        ({"origin": "http://friend", "host": "me:1", "sec-fetch-site": "cross-site"}, True),
        ({"host": "me:1"}, True),
    ],
)
def test_pages_of_other_addresses_are_told_apart(headers: dict[str, str], served: bool):
    with nullcontext() if served else pytest.raises(APIError, match="cors-origin"):
        check_origin(["http://friend"], Headers(headers))


@pytest.mark.parametrize(
    ("given", "host", "served"),
    [
        ({}, "localhost:8000", True),
        ({}, "127.0.0.1", True),
        ({}, "[::1]:8000", True),
        ({}, "evil.example:8000", False),  # a name that its owner lets lead to 127.0.0.1
        ({}, "", False),
        ({}, "[", False),
        ({"allow_hosts": ["me.example"]}, "me.example", True),
        ({"api_key": "k"}, "me.example", True),
        ({"host": "0.0.0.0"}, "me.example", True),
        ({"host": "0.0.0.0", "allow_hosts": ["me.example"]}, "other.example", False),
    ],
)
def test_other_names_that_lead_to_this_machine_are_told_apart(given: dict, host: str, served: bool):
    hosts = ServerSettings.listening_at(**{"host": "127.0.0.1", **given}).hosts
    with nullcontext() if served else pytest.raises(APIError, match="allow-host"):
        check_host(hosts, Headers({"host": host}))


def test_an_upload_is_only_what_it_may_be():
    av = pytest.importorskip("av")
    stream = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n"
    with pytest.raises(APIError, match="cannot be decoded"):  # would else be listened to at port 5004
        read_recording(b"\x0bw\r\n" + stream.encode(), 10.0)
    for form, codec in (("mp4", "aac"), ("webm", "libopus"), ("adts", "aac"), ("ac3", "ac3"), ("flv", "aac")):
        file = io.BytesIO()
        with av.open(file, "w", format=form) as container:
            track = container.add_stream(codec, rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48000
            resampler = av.AudioResampler(track.format, "mono", 48000, track.frame_size or 960)
            container.mux([packet for each in resampler.resample(frame) for packet in track.encode(each)])
            container.mux(track.encode(None))
        assert read_recording(file.getvalue(), 10.0).duration_s == pytest.approx(1.0, abs=0.1), form


def test_every_error_is_an_answer():
    for error, status in (
        (ValueError("x"), 500),
        (OSError(28, "No space left on device"), 507),
        (MissingPackageError("x"), 501),
        (MemoryError(), 503),
        (Cancelled("deadline"), 504),
        (FileNotFoundError(2, "no", "/secret"), 503),
    ):
        answer = as_api_error(error)
        assert answer.status == status and "secret" not in answer.message


def test_a_session_is_set_as_a_whole_or_not_at_all():
    settings = Settings("nano")
    settings.update({"audio": {"input": {"turn_detection": None}, "output": {"voice": "Ann"}}})
    assert settings.config.audio.input.turn_detection is None and settings.config.audio.output.voice == "Ann"
    assert settings.config.audio.input.format.rate == 24000
    settings.update({"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}})
    detection = settings.config.audio.input.turn_detection
    assert detection is not None and detection.detector().silence_ms == 1000
    before = settings.to_dict()
    with pytest.raises(ValueError, match="speed"):
        settings.update({"instructions": "x", "audio": {"output": {"speed": 9}}})
    assert settings.to_dict() == before


def test_the_log_is_json():
    record = logging.LogRecord("uniaudio2", logging.INFO, "", 0, "request", None, None)
    record.fields = {"status": 200}
    line = json.loads(JSONLines().format(record))
    assert line["message"] == "request" and line["status"] == 200 and line["level"] == "info"


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert execute(["serve", "--api-key-env", "NO_SUCH_KEY"]) == 1
    assert "not set, or is empty" in capsys.readouterr().err
    assert execute(["serve", "--model", "no/such/folder"]) == 1
    assert execute(["serve", "--running", "0"]) == 2


def test_a_wav_header_tells_the_length():
    assert wav_header(100)[40:44] == (100).to_bytes(4, "little") and len(wav_header()) == 44


def test_several_copies_are_an_application_of_ray():
    pytest.importorskip("ray.serve", reason="needs the extra 'ray'")
    from uniaudio2.server.ray_app import build

    assert build({"replicas": 2})._bound_deployment.num_replicas == 2
