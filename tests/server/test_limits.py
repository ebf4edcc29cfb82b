"""Limits: sizes, lengths, the queue, the deadline, clients that go away or are slow, the key, the figures."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlparse

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
import torch
from websockets import Origin
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.server.conftest import Running, clip, serving
from uniaudio2 import UniAudio2
from uniaudio2.server.audio_out import wav_header
from uniaudio2.server.settings import LOOPBACK

LONG = ("One, two, three, four, five, six, seven. " * 40).strip()


def post(url: str, body: dict, **options) -> httpx.Response:
    return httpx.post(f"{url}/v1/audio/speech", json=body, timeout=60, **options)


def transcribe(url: str, data: bytes) -> httpx.Response:
    return httpx.post(f"{url}/v1/audio/transcriptions", files={"file": ("a", data)}, timeout=60)


@contextmanager
def waiting(url: str) -> Iterator[socket.socket]:
    """A connection on which a long text is to be spoken."""
    body = json.dumps({"input": LONG, "response_format": "pcm"}).encode()
    host = urlparse(url)
    with socket.create_connection((host.hostname, host.port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = ("POST /v1/audio/speech HTTP/1.1", "Host: x", "Content-Type: application/json")
        connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        yield connection


@contextmanager
def speaking(url: str) -> Iterator[socket.socket]:
    """The same, once its answer has begun."""
    with waiting(url) as connection:
        assert connection.recv(12) == b"HTTP/1.1 200"
        yield connection


def idle(running: Running, within_s: float) -> bool:
    """Whether nothing runs any more before so many seconds are over."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if running.server.jobs.unfinished == 0:
            return True
        time.sleep(0.02)
    return False


def test_what_is_too_large_or_too_long_is_refused(running: Running):
    url = running.url
    assert transcribe(url, bytes(3 * 1024 * 1024)).status_code == 413
    assert post(url, {"input": "a" * 5000}).json()["error"]["code"] == "string_above_max_length"

    def stream():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(64 * 1024)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{url}/v1/audio/transcriptions", content=stream(), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert running.server.jobs.unfinished == 0


def bombs() -> dict[str, bytes]:
    """Small files that say, or hold, hours of audio."""
    silence = io.BytesIO()
    with soundfile.SoundFile(silence, "w", 8000, 1, format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros(8000 * 60, np.int16))
    hours = wav_header(2 * 24000 * 36000) + bytes(48000)
    slow = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 80036, b"WAVE", b"fmt ", 16, 1, 1, 1, 1, 1, 8, b"data", 80000)
    return {"an hour of silence": silence.getvalue(), "a header of 10 hours": hours, "1 Hz": slow + bytes(80000)}


@pytest.mark.parametrize("name", list(bombs()))
def test_small_files_of_many_hours_cost_little(running: Running, name: str):
    answer = transcribe(running.url, bombs()[name])
    assert answer.status_code in (200, 400, 413), answer.text
    assert name != "an hour of silence" or answer.json()["error"]["code"] == "audio_too_long"


NO_AUDIO = [b"", b"RIFF", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"OggS" * 99, b"ID3" + bytes(99), b"fLaC" + bytes(40)]
NO_AUDIO += [b"\x1aE\xdf\xa3" * 20, bytes(4) + b"ftypisom" + bytes(64)]


@pytest.mark.parametrize("data", NO_AUDIO)
def test_what_is_no_audio_is_refused(running: Running, data: bytes):
    answer = transcribe(running.url, data)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_audio", answer.text
    assert "/proc/" not in answer.text


def test_who_comes_when_the_queue_is_full_is_told_to_come_back(model: UniAudio2):
    with serving(lambda: model, running=1, waiting=1) as running, speaking(running.url), waiting(running.url):
        while running.server.jobs.unfinished < 2:
            time.sleep(0.01)
        refused = post(running.url, {"input": "Yes."})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_request_ends_at_its_deadline(model: UniAudio2):
    with serving(lambda: model, deadline_s=0.05) as running:
        answer = transcribe(running.url, clip(20.0))
        assert answer.status_code in (408, 504)  # while its body comes, or later
        assert idle(running, 60)


def test_a_deadline_after_the_first_event_is_an_event(model: UniAudio2):
    with serving(lambda: model, deadline_s=2.0) as running:
        answer = post(running.url, {"input": LONG * 2, "stream_format": "sse", "response_format": "pcm"})
        first, *_, last = (json.loads(line[6:]) for line in answer.text.strip().split("\n\n"))
        assert first["type"] == "speech.audio.delta" and last["type"] == "speech.audio.error"
        assert last["error"]["code"] == "deadline_exceeded"
        assert idle(running, 60)


def test_a_client_that_goes_away_frees_its_slot_within_two_frames(running: Running, monkeypatch: pytest.MonkeyPatch):
    frames: list[float] = []
    step = running.server.model.engine._session.step.__func__  # type: ignore[attr-defined]

    def counted(self):
        frames.append(time.monotonic())
        return step(self)

    monkeypatch.setattr(type(running.server.model.engine._session), "step", counted)
    gone: list[float] = []
    from uniaudio2.engine.cancel import Cancellation

    cancel = Cancellation.cancel
    monkeypatch.setattr(
        Cancellation, "cancel", lambda self, reason="": (gone.append(time.monotonic()), cancel(self, reason))[1]
    )
    with speaking(running.url):
        pass
    assert idle(running, 10)
    assert gone and sum(at > gone[0] for at in frames) <= 2
    assert not running.server.model.engine._session.active


def test_a_client_that_does_not_read_is_cut_off(model: UniAudio2):
    with serving(lambda: model, idle_s=0.5) as running, speaking(running.url):
        assert idle(running, 60)
        assert not running.server.model.engine._session.active


def test_a_body_that_comes_too_slowly_is_cut_off(model: UniAudio2):
    with serving(lambda: model, idle_s=0.3) as running:
        host = urlparse(running.url)
        with socket.create_connection((host.hostname, host.port), timeout=20) as connection:
            connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
            assert connection.recv(12) == b"HTTP/1.1 408"


def test_headers_that_come_too_slowly_or_are_huge_are_cut_off(model: UniAudio2):
    with serving(lambda: model, idle_s=0.3) as running:
        host = urlparse(running.url)
        with socket.create_connection((host.hostname, host.port), timeout=20) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
            assert connection.recv(64) == b""
        with socket.create_connection((host.hostname, host.port), timeout=20) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 431"


def test_a_damaged_voice_does_not_keep_the_server_from_its_start(model: UniAudio2, tmp_path):
    (tmp_path / "voice_1.flac").write_bytes(b"no audio")
    with serving(lambda: model, voices=tmp_path) as running:
        assert httpx.get(f"{running.url}/ready").status_code == 200 and not running.server.voices.stored()


def test_the_key_is_asked_for(model: UniAudio2):
    with serving(lambda: model, api_key="secret") as running:
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answer = httpx.get(f"{running.url}/v1/models", headers=header)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{running.url}/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200
        assert httpx.get(f"{running.url}/health").status_code == 200
        assert httpx.get(f"{running.url}/metrics").status_code == 401


def test_other_pages_may_ask_only_where_that_is_wanted(running: Running, model: UniAudio2):
    header = {"origin": "http://other"}
    assert "access-control-allow-origin" not in httpx.get(f"{running.url}/health", headers=header).headers
    refused = post(running.url, {"input": "Yes."}, headers=header)
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "origin_not_allowed"
    socket = running.url.replace("http", "ws") + "/v1/realtime"
    with pytest.raises(InvalidStatus, match="403"), connect(socket, origin=Origin("http://other")):
        pass
    with connect(socket, origin=Origin(running.url)) as own:
        assert "session.created" in own.recv()
    with serving(lambda: model, cors_origins=("http://other",)) as other:
        assert post(other.url, {"input": "Yes."}, headers=header).status_code == 200
        assert httpx.get(f"{other.url}/health", headers=header).headers["access-control-allow-origin"] == "http://other"


def test_only_the_names_of_this_machine_are_answered_to(model: UniAudio2):
    with serving(lambda: model, hosts=LOOPBACK) as running:
        assert httpx.get(f"{running.url}/v1/models").status_code == 200
        refused = httpx.get(f"{running.url}/v1/audio/voices", headers={"host": "evil.example"})
        assert refused.status_code == 403 and refused.json()["error"]["code"] == "host_not_allowed"
        socket = running.url.replace("http", "ws").replace("127.0.0.1", "localhost")
        with connect(f"{socket}/v1/realtime") as own:
            assert "session.created" in own.recv()


def test_a_model_that_cannot_be_loaded_is_said():
    def load() -> UniAudio2:
        raise ValueError("broken")

    with serving(load) as running:
        assert httpx.get(f"{running.url}/health").status_code == 200
        answer = httpx.get(f"{running.url}/ready")
        assert answer.status_code == 503 and "could not be loaded" in answer.json()["error"]["message"]
        assert post(running.url, {"input": "Yes."}).status_code == 503


def test_ids_and_figures(running: Running):
    answer = httpx.get(f"{running.url}/v1/models", headers={"x-request-id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert len(httpx.get(f"{running.url}/nowhere", headers={"x-request-id": "a b"}).headers["x-request-id"]) == 32
    page = httpx.get(f"{running.url}/metrics").text
    assert 'uniaudio2_requests_total{route="/v1/models",status="200"}' in page and "uniaudio2_running 0.0" in page


def test_requests_of_all_kinds_at_once_are_not_mixed_up(running: Running):
    texts = ["Yes.", "No, not today.", "Seven and nine."]
    asks = [lambda text=text: post(running.url, {"input": text, "response_format": "pcm"}).content for text in texts]
    asks += [lambda seed=seed: transcribe(running.url, clip(1.0, seed=seed)).json()["text"] for seed in range(3)]
    alone = [ask() for ask in asks]
    with ThreadPoolExecutor(len(asks)) as threads:
        together = list(threads.map(lambda ask: ask(), asks))
    for one, other in zip(alone, together, strict=True):
        if isinstance(one, bytes) and isinstance(other, bytes):
            first, second = (torch.frombuffer(bytearray(each), dtype=torch.int16).float() for each in (one, other))
            assert first.shape == second.shape and (first - second).abs().max() < 400  # rounding, in a batch
        else:
            assert one == other


def test_a_full_disk_is_said_and_nothing_is_kept(running: Running, monkeypatch: pytest.MonkeyPatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uniaudio2.server.voices.replacing", full)
    files = {"audio_sample": ("v.wav", clip(1.0))}
    answer = httpx.post(f"{running.url}/v1/audio/voices", files=files, data={"name": "Full"}, timeout=60)
    assert answer.status_code == 507 and answer.json()["error"]["code"] == "disk_full"
    assert running.server.voices.find("Full") is None


def test_the_end_lets_what_runs_finish(model: UniAudio2):
    with ThreadPoolExecutor(1) as threads:
        with serving(lambda: model) as running:
            asked = threads.submit(post, running.url, {"input": "One. Two. Three.", "response_format": "pcm"})
            while not running.server.jobs.unfinished:
                time.sleep(0.01)
        answer = asked.result()
    samples = sum(piece.shape[-1] for piece in model.stream("One. Two. Three.", best_of=1))
    assert answer.status_code == 200 and len(answer.content) == 2 * samples
