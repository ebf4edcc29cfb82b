"""Realtime sessions through the official client: turns, transcripts, replies, cancelling, errors that leave it open."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.conftest import Running, serving
from uniaudio2 import UniAudio2
from uniaudio2.audio import read_audio

openai = pytest.importorskip("openai", reason="the contract tests need the package openai")
websockets = pytest.importorskip("websockets")
SPEECH = Path(__file__).parents[2] / "uniaudio2" / "demo_assets" / "keyword_computer.opus"

MESSAGE = '{"type": "conversation.item.create", "item": {"type": "message", "content": [%s]}'


@contextmanager
def session(running: Running, **audio_input: Any) -> Iterator[Any]:
    """A connection, its first event read, set as given."""
    with (
        openai.OpenAI(
            base_url=f"{running.url}/v1", api_key="none", websocket_base_url=running.url.replace("http", "ws") + "/v1"
        ) as client,
        client.realtime.connect(model="nano") as connection,
    ):
        assert receive(connection).type == "session.created"
        connection.session.update(session={"type": "realtime", "audio": {"input": audio_input}})
        assert receive(connection).type == "session.updated"
        yield connection


def receive(connection: Any) -> Any:
    """The next event, which must not be long in coming."""
    return connection.parse_event(connection._connection.recv(timeout=60))


def until(connection: Any, kind: str) -> list[Any]:
    """Events up to the first of a kind."""
    events = []
    while not events or events[-1].type != kind:
        events.append(receive(connection))
        assert events[-1].type != "error" or kind == "error", events[-1]
    return events


def pcm(audio: np.ndarray) -> str:
    return base64.b64encode((audio * 32767).astype("<i2").tobytes()).decode()


def test_what_was_committed_is_written_down_and_answered(running: Running):
    noise = 0.1 * np.random.default_rng(0).standard_normal(24000)
    with session(running, turn_detection=None, transcription={"model": "nano"}) as connection:
        for piece in np.split(noise, 4):
            connection.input_audio_buffer.append(audio=pcm(piece))
        connection.input_audio_buffer.commit()
        events = until(connection, "conversation.item.input_audio_transcription.completed")
        names = [each.type for each in events]
        assert names[0] == "input_audio_buffer.committed" and "conversation.item.added" in names
        heard = events[-1].transcript
        wanted = running.server.model.transcribe((noise * 32767).astype("<i2").astype(np.float32) / 32768).text
        assert heard == wanted
        connection.response.create()
        events = until(connection, "response.done")
        names = [each.type for each in events]
        for one, other in (
            ("response.created", "response.output_item.added"),
            ("response.output_item.added", "response.content_part.added"),
            ("response.content_part.added", "response.output_audio_transcript.delta"),
            ("response.output_audio_transcript.delta", "response.output_audio.delta"),
            ("response.output_audio.delta", "response.output_audio.done"),
            ("response.output_audio.done", "response.output_item.done"),
        ):
            assert names.index(one) < names.index(other)
        done = events[-1].response
        assert done.status == "completed" and done.metadata == {"reply": "echo"}
        assert done.output[0].content[0].transcript == heard
        sound = b"".join(base64.b64decode(each.delta) for each in events if each.type == "response.output_audio.delta")
        assert len(sound) > 2400 and np.frombuffer(sound, "<i2").std() > 0


def test_written_messages_are_answered_in_writing(running: Running):
    with session(running, turn_detection=None) as connection:
        content = [{"type": "input_text", "text": "Good morning."}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        connection.response.create(response={"output_modalities": ["text"]})
        events = until(connection, "response.done")
        assert next(each for each in events if each.type == "response.output_text.done").text == "Good morning."
        assert not any(each.type.startswith("response.output_audio") for each in events)


def test_turns_are_found_and_answered(running: Running):
    speech = read_audio(SPEECH)[0].numpy()
    audio = np.concatenate([np.zeros(12000, np.float32), speech, np.zeros(36000, np.float32)])
    with session(running, turn_detection={"type": "server_vad"}) as connection:
        for first in range(0, len(audio), 2400):
            connection.input_audio_buffer.append(audio=pcm(audio[first : first + 2400]))
        events = {each.type: each for each in until(connection, "response.created")}
        started, stopped = (events[f"input_audio_buffer.speech_{what}"] for what in ("started", "stopped"))
        assert 0 <= started.audio_start_ms < 900
        assert abs(stopped.audio_end_ms - (500 + len(speech) / 24 + 500)) < 600
        assert started.item_id == stopped.item_id == events["input_audio_buffer.committed"].item_id
        until(connection, "response.done")


def test_a_response_is_cancelled(running: Running):
    with session(running, turn_detection=None) as connection:
        content = [{"type": "input_text", "text": "One. Two. Three. Four. Five. Six. Seven. Eight. Nine. Ten."}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        connection.response.create()
        until(connection, "response.created")
        connection.response.create()
        refused = next(each for each in iter(lambda: receive(connection), None) if each.type == "error")
        assert refused.error.code == "conversation_already_has_active_response"
        connection.response.cancel()
        done = until(connection, "response.done")[-1].response
        assert done.status == "cancelled" and done.status_details.reason == "client_cancelled"
        connection.response.create()
        assert until(connection, "response.done")[-1].response.status == "completed"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_event"),
        ('{"type": "no.such"}', "unknown_event"),
        ('{"type": "no.such", "event_id": "\\ud800"}', "invalid_json"),
        ('{"type": "session.update", "session": {"x": NaN}}', "invalid_json"),
        ('{"type": "session.update", "session": {"x": %s}}' % ("[" * 900 + "]" * 900), "invalid_json"),
        ('{"type": "session.update", "session": {"x": "%s"}}' % ("x" * 300_000), "invalid_value"),
        (MESSAGE % "{}" + ', "previous_item_id": [1]}', "invalid_value"),
        (MESSAGE % ", ".join(["{}"] * 101) + "}", "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": "###"}', "invalid_base64"),
        ('{"type": "input_audio_buffer.append", "audio": "AA=="}', None),
        ('{"type": "input_audio_buffer.append", "audio": "file:///etc/passwd"}', "invalid_base64"),
        ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty"),
        ('{"type": "conversation.item.delete", "item_id": "x"}', "item_not_found"),
        ('{"type": "response.cancel"}', "response_cancel_not_active"),
        ('{"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}}', "voice_not_found"),
        ('{"type": "session.update", "session": {"audio": {"input": {"format": {"rate": 8}}}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"output_modalities": ["audio", "text"]}}', "invalid_value"),
    ],
)
def test_mistakes_leave_the_session_open(running: Running, event: str, code: str | None):
    with session(running, turn_detection=None) as connection:
        connection._connection.send(event)
        error = receive(connection)
        assert error.type == "error" and error.error.message
        assert code is None or error.error.code == code
        connection.input_audio_buffer.clear()
        assert receive(connection).type == "input_audio_buffer.cleared"


def test_a_session_needs_the_key(model: UniAudio2):
    with serving(lambda: model, api_key="secret") as running:
        url = running.url.replace("http", "ws") + "/v1/realtime"
        from websockets.sync.client import connect

        with pytest.raises(websockets.exceptions.InvalidStatus, match="401"), connect(url):
            pass
        with connect(url, subprotocols=["realtime", "openai-insecure-api-key.secret"]) as socket:
            assert "session.created" in socket.recv()
            assert socket.subprotocol == "realtime"
