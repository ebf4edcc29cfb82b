"""JSON without NaN and Infinity, both ways: what every reader of it understands."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2 as httpx
import pytest
from websockets.sync.client import connect

from tests.server.conftest import Running, clip
from uniaudio2.api.results import Segment, TextResult
from uniaudio2.server.speech import event
from uniaudio2.server.strict_json import JSONAnswer, read_json, write_json
from uniaudio2.server.transcriptions import verbose

ODD = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"]


def strictly(text: str | bytes) -> Any:
    """What a strict reader makes of it."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("text", [*ODD, '{"a": [1, {"b": 1e400}]}', '"\\ud800"', "[" * 900 + "]" * 900, "", b"\xff"])
def test_what_cannot_be_written_again_is_not_read(text: str | bytes):
    with pytest.raises(ValueError):
        read_json(text)


def test_numbers_that_are_not_finite_are_written_as_null():
    value = {"a": [1.5, math.nan, (math.inf, "Infinity")], "b": -math.inf}
    wanted = {"a": [1.5, None, [None, "Infinity"]], "b": None}
    assert strictly(write_json(value)) == strictly(JSONAnswer(value).body) == wanted
    assert strictly(event(**value)[6:]) == wanted
    result = TextResult("a", (Segment(0.0, 1.0, "a", mean_log_probability=-math.inf),), 1.0)
    assert strictly(JSONAnswer(verbose(result, 0.0)).body)["segments"][0]["avg_logprob"] is None


@pytest.mark.parametrize("number", ODD)
@pytest.mark.parametrize("field", ["speed", "seed", "temperature", "unknown"])
def test_the_body_of_a_request_is_read_strictly(running: Running, field: str, number: str):
    headers, body = {"content-type": "application/json"}, f'{{"input": "Yes.", "{field}": {number}}}'
    answer = httpx.post(f"{running.url}/v1/audio/speech", content=body, headers=headers, timeout=60)
    assert answer.status_code == 400 and strictly(answer.content)["error"]["code"] == "invalid_json"
    assert "body must be JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_the_fields_of_a_form_are_finite(running: Running, number: str):
    file = {"file": ("a", clip(0.5)), "source": ("a", clip(0.5))}
    for path, field in (
        ("audio/transcriptions", "temperature"),
        ("codec/decode", "seed"),
        ("tasks/speech_denoise", "max_duration_s"),
        ("tasks/speech_denoise", "guidance"),
    ):
        files = {"source" if "tasks" in path else "file": file["file"]}
        answer = httpx.post(f"{running.url}/v1/{path}", files=files, data={field: number}, timeout=60)
        assert answer.status_code == 400 and strictly(answer.content)["error"]["param"] == field


@pytest.mark.parametrize("codes", ["[[1e999]]", "[[NaN]]", "[[1.5]]", "[[true]]"])
def test_codes_are_whole_numbers(running: Running, codes: str):
    data = f'{{"streams": [{{"name": "reasoning", "codes": {codes}}}], "num_samples": 4800}}'
    answer = httpx.post(f"{running.url}/v1/codec/decode", files={"file": ("a", data.encode())}, timeout=60)
    assert answer.status_code == 400 and strictly(answer.content)["error"]["code"] == "invalid_codes"


@pytest.mark.parametrize("number", ODD)
def test_a_session_keeps_no_odd_number(running: Running, number: str):
    with connect(running.url.replace("http", "ws") + "/v1/realtime") as socket:
        assert strictly(socket.recv())["type"] == "session.created"
        socket.send('{"type": "session.update", "session": {"mine": {"x": [NUMBER]}}}'.replace("NUMBER", number))
        assert strictly(socket.recv())["error"]["code"] == "invalid_json"
        socket.send('{"type": "session.update", "session": {"mine": {"x": [1e3]}}}')
        assert strictly(socket.recv())["session"]["mine"] == {"x": [1000.0]}
