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
    if row.needs_examples:
        files |= {one: ("a.wav", clip(1.0), "audio/wav") for one in ("dog", "rain")}
        data["shots"] = json.dumps([{"input": {"audio": one}, "output": {"label": one}} for one in ("dog", "rain")])
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


def caption(http, shots: object, **parts: bytes | str) -> httpx.Response:
    """`audio_caption` after examples."""
    files = {name: ("a.wav", data) for name, data in parts.items() if isinstance(data, bytes)}
    data = {name: text for name, text in parts.items() if isinstance(text, str)}
    text = shots if isinstance(shots, str) else json.dumps(shots)
    return http.post("/v1/tasks/audio_caption", files=files, data={**data, "shots": text})


def test_examples_come_first_as_in_python(http, model: UniAudio2):
    rain, dog, query = (clip(0.6, seed=seed) for seed in range(3))
    with memory_file(rain) as one, memory_file(dog) as other, memory_file(query) as asked:
        pairs = [({"audio": one}, {"caption": "weather"}), (other, "an animal")]
        wanted = model.run("audio_caption", {"audio": asked}, shots=pairs)["caption"]
        without = model.run("audio_caption", {"audio": asked})["caption"]
    shots = [{"input": {"audio": "rain"}, "output": {"caption": "weather"}}, {"input": "dog", "output": "an animal"}]
    answer = caption(http, shots, audio=query, rain=rain, dog=dog)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"]["caption"]["text"] == wanted != without


def test_one_example_of_audio_to_audio(http, model: UniAudio2):
    noisy, clean, query = (clip(0.6, seed=seed) for seed in range(3))
    with memory_file(noisy) as given, memory_file(clean) as made, memory_file(query) as asked:
        result = model.run("speech_denoise", {"source": asked}, shots=[(given, made)], max_duration_s=0.5)
    files = {name: ("a.wav", data) for name, data in {"source": query, "n": noisy, "c": clean}.items()}
    data = {"shots": json.dumps([{"input": "n", "output": "c"}]), "max_duration_s": "0.5", "response_format": "pcm"}
    answer = http.post("/v1/tasks/speech_denoise", files=files, data=data)
    assert answer.status_code == 200, answer.text
    wanted = (result["target"].audio[0] * 32767).round().short()  # type: ignore[union-attr]
    given_back = torch.frombuffer(bytearray(answer.content), dtype=torch.int16)
    assert given_back.shape == wanted.shape and (given_back.int() - wanted.int()).abs().max() < 40


@pytest.mark.parametrize(
    ("shots", "param", "message"),
    [
        ("{", "shots", "must be a JSON list"),
        ("[1e999]", "shots", "out of range"),
        ("{}", "shots", "valid list"),
        ([["a", "b"]], "shots.0", "Shot"),
        ([{"input": "one"}], "shots.0.output", "required"),
        ([{"input": 3, "output": "x"}], "shots.0.input.str", "string"),
        ([{"input": "one", "output": "x"}] * 33, "shots", "at most 32"),
        ([{"input": "nowhere", "output": "x"}], "shots.0.input.audio", "the form has no file 'nowhere'"),
        ([{"input": "/etc/passwd", "output": "x"}], "shots.0.input.audio", "must be a recording, sent as a file"),
        ([{"input": {"sound": "one"}, "output": "x"}], "shots.0.input", "has no input 'sound'"),
        ([{"output": "x"}], "shots.0.input", "needs audio"),
        ([{"input": "bad", "output": "x"}], "bad", "not readable as audio"),
        ([{"input": "one", "output": "x" * 5000}], "shots.0.output.caption", "at most 4096"),
        ([{"input": "one", "output": ""}], None, "shot 1: the text for 'caption' is empty"),
        ([{"input": "one", "output": "x"}], "more", "no such input or option"),
    ],
)
def test_odd_examples_are_explained(http, shots: object, param: str | None, message: str):
    parts = {"one": clip(0.5), "bad": b"no audio" * 20, "audio": clip(0.5)}
    parts = {name: data for name, data in parts.items() if name == "audio" or f'"{name}"' in json.dumps(shots)}
    answer = caption(http, shots, **parts, **({"more": clip(0.5)} if param == "more" else {}))
    error = answer.json()["error"]
    assert answer.status_code == 400 and message in error["message"] and error["param"] == param, error


def test_recordings_of_a_form_are_no_longer_together_than_one_may_be(http):
    shots = [{"input": "one", "output": "x"}]
    answer = caption(http, shots, audio=clip(35.0, "MP3"), one=clip(35.0, "MP3"))
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "audio_too_long"


def test_examples_that_do_not_fit_are_refused(http):
    shots = [{"input": "one", "output": "a dog barks"}] * 30
    answer = caption(http, shots, audio=clip(1.0), one=clip(20.0, "MP3"))
    assert answer.status_code == 400 and "shorter shots" in answer.json()["error"]["message"]
