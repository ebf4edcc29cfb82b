"""Systems that speak and listen: a server by its address, programs of their own, engines, stored outputs."""

from __future__ import annotations

import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.errors import UserError
from uniaudio2.systems import load_system, parse_systems

TONE = 0.3 * torch.sin(torch.arange(24000) * 0.05)[None]


class Stub(BaseHTTPRequestHandler):
    """Answers as a server with OpenAI's interface does, and remembers what it was asked."""

    asked: list = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked.append((self.path, self.headers, body))
        if self.path == "/v1/audio/transcriptions":
            self.reply(json.dumps({"text": " hello there "}).encode())
        elif self.path == "/v1/audio/speech" and b"pcm" in body:
            self.reply(np.arange(-2, 3, dtype="<i2").tobytes())
        elif self.path == "/v1/audio/speech":
            sink = io.BytesIO()
            soundfile.write(sink, np.full(4800, 0.25), 48000, format="WAV")
            self.reply(sink.getvalue())
        elif b'"model": "broken"' in body or b'"model":"broken"' in body:
            self.reply(b"no such model", 404)
        else:
            self.reply(json.dumps({"choices": [{"message": {"content": "a tone"}}]}).encode())

    def reply(self, data, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *values):
        pass


@pytest.fixture
def server():
    Stub.asked = []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()
    running.server_close()


def load(word):
    return load_system(parse_systems(word)[0])


def test_a_server_by_its_address(server, monkeypatch):
    pytest.importorskip("httpx2")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    system = load(f"openai@url={server}@model=m@voice=v")
    assert system.transcribe(TONE, language="en", seed=0) == "hello there"
    wave = system.speak("hello", language="en", voice=None, seed=0)
    assert (
        wave.shape == (1, 4800) and system.sample_rate == 48000 and float(wave.mean()) == pytest.approx(0.25, abs=1e-3)
    )
    system.sample_rate = 24000
    assert system.caption(TONE, seed=0) == "a tone"
    (_, headers, first), (_, _, second), (_, _, third) = Stub.asked
    assert headers["Authorization"] == "Bearer secret" and "secret" not in system.version
    assert b'name="language"' in first and b"RIFF" in first
    assert json.loads(second) == {"model": "m", "input": "hello", "voice": "v", "response_format": "wav"}
    content = json.loads(third)["messages"][0]["content"]
    assert content[0]["type"] == "input_audio" and content[1]["text"].startswith("Describe")
    pieces = torch.cat(list(system.stream_speech("hello", language="en", voice=None, seed=0)), 1)
    assert torch.equal(32768 * pieces, torch.arange(-2.0, 3)[None])
    assert json.loads(Stub.asked[-1][2])["response_format"] == "pcm"
    with pytest.raises(UserError, match="not a recording"):
        system.speak("hello", language="en", voice=TONE, seed=0)
    with pytest.raises(UserError, match="chat/completions: status 404, no such model"):
        load(f"openai@url={server}@model=broken").caption(TONE, seed=0)
    with pytest.raises(UserError, match="no answer"):
        load("openai@url=http://127.0.0.1:9/v1").transcribe(TONE, language="en", seed=0)
    with pytest.raises(UserError, match="is no address"):
        load("openai@url=localhost")


SERVERS = Path(__file__).parents[2] / "uniaudio2" / "systems" / "servers"
PROGRAM = f"""
import sys
sys.path.insert(0, {str(SERVERS)!r})
import shutil, wave
from json_lines import serve

def load():
    print("libraries print what they like")
    def hear(request):
        with wave.open(request["audio"]) as file:
            return {{"text": f"{{file.getnframes()}} samples, {{request['language']}}"}}
    def fail(request):
        raise ValueError("no idea")
    def speak(request):
        with wave.open(request["output"], "wb") as file:
            file.setnchannels(1); file.setsampwidth(2); file.setframerate(24000)
            file.writeframes(bytes(2 * 100 * len(request["text"])))
        return {{"audio": request["output"]}}
    return {{"version": "toy 1", "sample_rate": 24000}}, {{"asr": hear, "caption": fail, "tts": speak, "tta": speak}}

serve(load)
"""


def test_a_program_of_its_own(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    system = load(f"process@command={sys.executable} {tmp_path}/program.py")
    try:
        assert system.version == "toy 1"
        assert system.transcribe(TONE, language="en", seed=0) == "24000 samples, en"
        assert system.speak("abc", language="en", voice=TONE, seed=0).shape == (1, 300)
        assert system.generate_sound("rain", seed=0).shape == (1, 400)
        with pytest.raises(UserError, match="ValueError: no idea"):
            system.caption(TONE, seed=0)
        with pytest.raises(UserError, match="there is no task answer, only asr, caption, tts, tta"):
            system.answer(TONE, "what?", seed=0)
        assert system.transcribe(TONE, language=None, seed=0) == "24000 samples, None"
    finally:
        system.close()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit(3)", r"its program ended \(status 3\)"),
        ("print('hello')", "printed 'hello' in place of a JSON object"),
        ('print(\'{"ready": false, "error": "no weights"}\')', "did not load \\(no weights\\)"),
    ],
)
def test_programs_that_do_not_load(tmp_path, program, message):
    (tmp_path / "program.py").write_text(program)
    with pytest.raises(UserError, match=message):
        load(f"process@command={sys.executable} {tmp_path}/program.py")


def test_mimo_audio_by_its_program(tmp_path):
    """The program against a stand-in for the class of MiMo-Audio's repository."""
    source = tmp_path / "checkout" / "src" / "mimo_audio"
    source.mkdir(parents=True)
    (source / "mimo_audio.py").write_text(
        "import shutil\n"
        "class MimoAudio:\n"
        "    def __init__(self, model, tokenizer): self.name = model + tokenizer\n"
        "    def asr_sft(self, audio): return 'heard'\n"
        "    def audio_understanding_sft(self, audio, question): return 'answer to ' + question\n"
        "    def tts_sft(self, text, output, instruct=None, prompt_speech=None): shutil.copy(prompt_speech, output)\n"
    )
    for name in ("model", "tokenizer"):
        (tmp_path / name).mkdir()
    words = (
        f"python={sys.executable}@checkout={tmp_path}/checkout@weights={tmp_path}/model@tokenizer={tmp_path}/tokenizer"
    )
    system = load(f"mimo_audio@{words}")
    try:
        assert system.version == "model" and system.tasks() == ("asr", "tts", "caption", "answer")
        assert system.transcribe(TONE, language="en", seed=0) == "heard"
        assert system.answer(TONE, "what?", seed=0) == "answer to what?"
        torch.testing.assert_close(system.speak("x", language="en", voice=TONE, seed=0), TONE, atol=1e-3, rtol=0)
    finally:
        system.close()
    with pytest.raises(UserError, match="nowhere: no such folder; how to set up MiMo-Audio"):
        load("mimo_audio@python=python@checkout=nowhere@weights=w@tokenizer=t")


def test_an_engine_speaks_its_languages_only():
    pytest.importorskip("espeakng_loader")
    system = load("espeak")
    wave = system.speak("Good morning.", language="en", voice=None, seed=0)
    assert wave.shape[1] / system.sample_rate > 0.4 and system.tasks() == ("tts",)
    with pytest.raises(UserError, match="cannot take its voice from a recording"):
        system.speak("Good morning.", language="en", voice=TONE, seed=0)
    with pytest.raises(UserError, match="speaks en, zh, yue, not de"):
        system.speak("Guten Morgen.", language="de", voice=None, seed=0)
    with pytest.raises(UserError, match="espeak-ng has no task asr; it has tts"):
        system.transcribe(TONE, language="en", seed=0)


def test_ours_is_a_system_like_any_other():
    system = load("ours")
    codes = system.encode([TONE])
    assert system.decode(codes)[0].shape == TONE.shape and system.bit_rate > 0
    assert system.tasks() == ("asr", "tts", "caption", "answer", "tta")
    pieces = system.stream_speech("good morning", language="en", voice=None, seed=0)
    assert next(pieces).shape[1] > 0
    pieces.close()
    heard = list(system.stream_text(iter(TONE.split(6000, 1)), language="en", seed=0))
    assert heard[-1] == system.transcribe(TONE, language="en", seed=0)
    assert system.answer(TONE, "is there speech", seed=0) == "no"  # a tone
