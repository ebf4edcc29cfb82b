"""Words while somebody speaks: they only grow, and in the end are those of the whole recording."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.server.conftest import Running, clip, serving
from uniaudio2 import UniAudio2
from uniaudio2.api.results import LiveResult
from uniaudio2.server.live import _guess

END = '{"type": "end"}'


@contextmanager
def session(running: Running, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    url = running.url.replace("http", "ws") + "/v1/audio/transcriptions"
    with connect(f"{url}?{query}", **options) as socket:
        yield socket


def events(socket: ClientConnection) -> Iterator[dict[str, Any]]:
    """What the server sends until it closes."""
    try:
        while True:
            yield json.loads(socket.recv(timeout=60))
    except ConnectionClosed:
        return


def samples(data: bytes) -> bytes:
    """Those of a WAV file."""
    return soundfile.read(io.BytesIO(data), dtype="int16")[0].tobytes()


def idle(running: Running) -> None:
    """Wait until no session is open any more."""
    until = time.monotonic() + 30
    while running.server.sessions:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("size", [4096, 30_000, 10**6])
def test_words_grow_to_those_of_the_whole(running: Running, size: int):
    data = clip(12.0)  # of which a piece is finished before the end
    files = {"file": ("a.wav", data)}
    plain = httpx.post(f"{running.url}/v1/audio/transcriptions", files=files, timeout=60).json()
    audio = samples(data)
    with session(running, "language=&every_s=1") as socket:
        for first in range(0, len(audio), size):
            socket.send(audio[first : first + size])
        socket.send(END)
        found = list(events(socket))
    assert found[-1]["type"] == "transcript.text.done" and not any(each["type"] == "error" for each in found)
    assert found[-1]["text"] == plain["text"] and found[-1]["usage"] == plain["usage"]
    deltas = [each["delta"] for each in found if each["type"] == "transcript.text.delta"]
    assert deltas and plain["text"].startswith("".join(deltas))
    guesses = [each for each in found if each["type"] == "transcript.text.guess"]
    assert any(each["agreed"] + each["guess"] for each in guesses)
    idle(running)


def test_a_guess_follows_the_text():
    found = LiveResult("今天", 1.0, agreed="天气", guess="is nice")
    assert _guess(found) == {"agreed": "天气", "guess": " is nice"}
    assert _guess(LiveResult("A door.", 1.0, agreed="It", guess="is")) == {"agreed": " It", "guess": " is"}
    assert _guess(LiveResult("", 1.0, guess="is")) == {"agreed": "", "guess": "is"}
    assert _guess(LiveResult("A.", 1.0)) == {"agreed": "", "guess": ""}


def test_other_rates_are_understood(running: Running, model: UniAudio2):
    wave = (np.random.default_rng(0).standard_normal(48000 * 2) * 3000).astype("<i2")
    with session(running, "rate=48000&beams=1&shifts=1") as socket:
        socket.send(wave.tobytes())
        socket.send(END)
        done = list(events(socket))[-1]
    wanted = list(model.listen([wave.astype(np.float32) / 32768], sample_rate=48000, beams=1, shifts=1))[-1]
    assert done["text"] == wanted.text


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"odd", "even number of bytes"),
        ("{", "binary messages"),
        ('{"type": "stop"}', "binary messages"),
        (END, "no audio came"),
        (bytes(2 * 24000 * 61), "more than the 60 s"),
        (bytes(2 * 24000 * 4), "faster than it is heard"),
    ],
)
def test_mistakes_end_the_session_with_an_error(
    running: Running, message: bytes | str, status: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("uniaudio2.server.live.MOST_WAITING_S", 3.0)
    with session(running) as socket:
        socket.send(message)
        last = list(events(socket))[-1]
    assert last["type"] == "error" and status in last["error"]["message"]
    assert {"message", "type", "param", "code"} == set(last["error"])
    idle(running)


@pytest.mark.parametrize("query", ["rate=1", "rate=x", "every_s=nan", "beams=99", "wet=1"])
def test_a_wrong_query_is_refused(running: Running, query: str):
    with pytest.raises(InvalidStatus) as caught, session(running, query):
        pass
    answer = caught.value.response
    assert answer.status_code == 400 and json.loads(answer.body)["error"]["param"] == query.partition("=")[0]


def test_an_unknown_language_is_an_error(running: Running):
    with session(running, "language=fr") as socket:
        assert "unknown language 'fr'" in next(events(socket))["error"]["message"]


def test_who_sends_nothing_is_cut_off_and_who_goes_frees_his_place(model: UniAudio2):
    with serving(lambda: model, idle_s=0.5, sessions=1) as running:
        with session(running) as socket:
            with pytest.raises(InvalidStatus, match="429"), session(running):
                pass
            assert next(events(socket))["error"]["code"] == "audio_too_slow"
        idle(running)
        page, route = httpx.get(f"{running.url}/metrics").text, 'route="/v1/audio/transcriptions"'
        assert f'uniaudio2_requests_total{{{route},status="101"}} 1.0' in page
        assert f'uniaudio2_requests_total{{{route},status="429"}} 1.0' in page
        assert f"uniaudio2_sessions{{{route}}} 0.0" in page
        assert f"uniaudio2_session_seconds_count{{{route}}} 1.0" in page
        with session(running) as socket:
            socket.send(bytes(4800))
        idle(running)
        with session(running) as socket:  # whose thread is free again
            socket.send(bytes(4800))
            socket.send(END)
            assert list(events(socket))[-1]["type"] == "transcript.text.done"


def test_it_needs_the_key_and_a_page_of_its_own(model: UniAudio2):
    with serving(lambda: model, api_key="secret") as running:
        with pytest.raises(InvalidStatus, match="401"), session(running):
            pass
        with session(running, subprotocols=["realtime", "openai-insecure-api-key.secret"]) as socket:
            assert socket.subprotocol == "realtime"
        with (
            pytest.raises(InvalidStatus, match="403"),
            session(running, origin="http://other", additional_headers={"authorization": "Bearer secret"}),
        ):
            pass


def test_the_end_of_the_server_ends_a_session(model: UniAudio2):
    with ExitStack() as opened:
        with serving(lambda: model) as running:
            socket = opened.enter_context(session(running))
            socket.send(bytes(4800))
            began = time.monotonic()
        assert time.monotonic() - began < 30
        assert list(events(socket)) == []
