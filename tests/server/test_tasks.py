"""Rows of the task table, codes, and voices, over HTTP."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx2 as httpx
import pytest
import soundfile
import torch

from tests.server.conftest import Running, clip
from uniaudio2 import AudioCodes, UniAudio2
from uniaudio2.api.speak import voice_prompt
from uniaudio2.server.audio_in import memory_file
from uniaudio2.tasks import TASKS, required


@pytest.fixture
def http(running: Running):
    with httpx.Client(base_url=running.url, timeout=120) as client:
        yield client


@pytest.mark.parametrize("name", list(TASKS))
def test_every_row_is_served(http, name: str):
    row = TASKS[name]
    kinds = {part.value: part.kind for part in row.inputs}
    names = required(row.inputs)
    files = {one: ("a.wav", clip(1.0), "audio/wav") for one in names if kinds[one] != "text"}
    data = {one: "a dog" for one in names if kinds[one] == "text"} | {"max_duration_s": "0.8"}
    answer = http.post(f"/v1/tasks/{name}", files=files or {"seed": (None, "0")}, data=data)
    assert answer.status_code == 200, answer.text
    made = {part.value for part in row.outputs}
    if answer.headers["content-type"] == "audio/wav":
        assert soundfile.info(io.BytesIO(answer.content)).samplerate == 24000 and len(made) == 1
    else:
        assert set(answer.json()["outputs"]) == made


def test_a_row_answers_as_the_model_does(http, model: UniAudio2):
    files = {"source": ("a.wav", clip(1.0))}
    answer = http.post("/v1/tasks/speech-denoise", files=files, data={"seed": "3", "response_format": "json"})
    with memory_file(clip(1.0)) as path:
        wanted = model.run("speech_denoise", {"source": path}, seed=3)["target"].audio  # type: ignore[union-attr]
    given, _ = soundfile.read(
        io.BytesIO(base64.b64decode(answer.json()["outputs"]["target"]["audio"])), dtype="float32"
    )
    assert torch.allclose(torch.from_numpy(given), wanted[0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "data", "status", "message"),
    [
        ("asr_", {}, 404, "no task 'asr_'"),
        ("tta", {}, 400, "needs it"),
        ("tta", {"caption": "a dog", "wet": "1"}, 400, "no such input or option"),
        ("tta", {"caption": "a dog", "top_p": "0"}, 400, "greater than 0"),
        ("asr", {"audio": "/etc/passwd"}, 400, "must be a recording, sent as a file"),
        ("tts", {"transcription": "a", "voice": "nobody"}, 400, "no voice 'nobody'"),
    ],
)
def test_bad_requests_for_a_row_are_explained(http, name: str, data: dict[str, str], status: int, message: str):
    answer = http.post(f"/v1/tasks/{name}", data=data)
    assert answer.status_code == status and message in answer.json()["error"]["message"]


def test_codes_go_out_and_come_back(http, model: UniAudio2):
    files = {"file": ("a.wav", clip(1.0))}
    as_json = http.post("/v1/codec/encode", files=files).json()
    stored = http.post("/v1/codec/encode", files=files, data={"response_format": "safetensors"}).content
    with memory_file(stored) as path, memory_file(clip(1.0)) as recording:
        codes = AudioCodes.load(path)
        assert codes == model.encode(recording)
    assert [each["codes"] for each in as_json["streams"]] == [each[0].tolist() for each in codes.streams.values()]
    wave = (model.decode(codes, seed=2)[0] * 32767).round().short()
    for data in (stored, json.dumps(as_json).encode()):
        answer = http.post(
            "/v1/codec/decode", files={"file": ("a", data)}, data={"response_format": "pcm", "seed": "2"}
        )
        given = torch.frombuffer(bytearray(answer.content), dtype=torch.int16)
        assert given.shape == wave.shape and (given.int() - wave.int()).abs().max() < 40


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", b'{"streams": [{"name": "reasoning", "codes": [[-1]]}]}', b"x" * 99]
)
def test_damaged_codes_are_refused(http, data: bytes):
    answer = http.post("/v1/codec/decode", files={"file": ("a", data)})
    assert answer.status_code == 400 and "not the codes" in answer.json()["error"]["message"]


def test_voices_are_kept_used_and_deleted(http, running: Running, model: UniAudio2):
    def speak(**fields) -> bytes:
        body = {"input": "Yes.", "response_format": "pcm", **fields}
        answer = http.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
        return answer.content

    sample = clip(2.0, seed=9)
    made = http.post(
        "/v1/audio/voices", files={"audio_sample": ("v.wav", sample)}, data={"name": "Ann", "consent": "c"}
    )
    assert made.status_code == 200, made.text
    voice = made.json()
    assert voice["object"] == "audio.voice" and voice["name"] == "Ann"
    again = http.post("/v1/audio/voices", files={"audio_sample": ("v.wav", sample)}, data={"name": "Ann"})
    assert again.status_code == 409
    assert "Ann" in http.get("/v1/audio/voices").json()["voices"]
    from uniaudio2.server.voices import Voices

    assert Voices(running.server.settings.voices).find("Ann").id == voice["id"]  # type: ignore[union-attr]
    named = speak(voice="Ann")
    assert named == speak(voice={"id": voice["id"]}) == speak(ref_audio=base64.b64encode(sample).decode())
    assert named != speak()
    assert http.delete(f"/v1/audio/voices/{voice['id']}").json()["deleted"]
    assert http.post("/v1/audio/speech", json={"input": "Yes.", "voice": "Ann"}).status_code == 400
    assert http.delete("/v1/audio/voices/Ann").status_code == 404


def test_voices_that_cannot_be_kept_are_refused(http):
    for name, data, message in (
        ("../x", clip(), "name: give"),
        ("alloy", clip(), "already"),
        ("Bob", b"", "0 bytes"),
        ("Bob", clip(31.0), "longer than the 30 s"),
    ):
        answer = http.post("/v1/audio/voices", files={"audio_sample": ("v.wav", data)}, data={"name": name})
        assert answer.status_code >= 400 and message in answer.json()["error"]["message"]
    assert "ref_audio" in http.post("/v1/audio/speech", json={"input": "a", "ref_audio": "http://x/y.wav"}).text


def test_of_two_voices_of_one_name_one_is_kept(http, running: Running, monkeypatch: pytest.MonkeyPatch):
    meet = Barrier(2, timeout=60)  # both have found the name free
    monkeypatch.setattr("uniaudio2.server.voices.voice_prompt", lambda *given: (voice_prompt(*given), meet.wait())[0])

    def store(seed: int) -> int:
        files = {"audio_sample": ("v.wav", clip(1.0, seed=seed))}
        return http.post("/v1/audio/voices", files=files, data={"name": "Twin"}).status_code

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(store, range(2))) == [200, 409]
    assert http.delete("/v1/audio/voices/Twin").status_code == 200


def test_a_voice_whose_file_cannot_be_removed_stays(http, monkeypatch: pytest.MonkeyPatch):
    files = {"audio_sample": ("v.wav", clip(1.0))}
    assert http.post("/v1/audio/voices", files=files, data={"name": "Stays"}).status_code == 200

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        assert http.delete("/v1/audio/voices/Stays").json()["error"]["code"] == "storage"
    assert http.delete("/v1/audio/voices/Stays").status_code == 200
