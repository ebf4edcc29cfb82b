"""Any server with OpenAI's interface for audio, by its address: vLLM, LocalAI, ours, OpenAI's own."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import soundfile
import torch
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.systems.contract import Card, SpeechSystem
from uniaudio2.systems.hub import missing
from uniaudio2.systems.registry import SYSTEMS

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key, sent only if it is set; it is never written down."""


@dataclass(frozen=True)
class OpenAIConfig:
    """Settings of a server."""

    url: str  # such as http://localhost:8000/v1
    model: str = "default"  # as the server calls it
    voice: str = "alloy"
    timeout_s: float = 120.0
    caption_prompt: str = "Describe this audio in one sentence."


@SYSTEMS.register("openai", OpenAIConfig)
class OpenAIServer(SpeechSystem):
    """``/audio/transcriptions``, ``/audio/speech`` and, for captions and answers, ``/chat/completions``.

    Its speed is that of a request, the network included; its memory is not ours to see.
    """

    card = Card(
        title="OpenAI-compatible server",
        licence="of its model",
        needs="httpx",
        traps="what one server ignores another refuses: name its model and voice",
    )

    def __init__(self, config: OpenAIConfig, *, device: str = "cpu", download: bool = False) -> None:
        if not config.url.startswith(("http://", "https://")):
            raise UserError(f"url {config.url!r} is no address; it is such as http://localhost:8000/v1")
        self._http, self._config = _client(), config
        self._url = config.url.rstrip("/")
        key = os.environ.get(KEY_VARIABLE)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.version = f"{config.model} at {self._url}"

    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """See `SpeechSystem.transcribe`."""
        fields = {
            "model": self._config.model,
            "response_format": "json",
            **({"language": language} if language else {}),
        }
        files = {"file": ("audio.wav", _wav(audio, self.sample_rate), "audio/wav")}
        return str(self._json(self._post("audio/transcriptions", data=fields, files=files), "text")).strip()

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """See `SpeechSystem.speak`; the interface takes no recording as a voice."""
        if voice is not None:
            raise UserError(f"{self.card.title}: the interface takes the name of a voice, not a recording")
        wanted = {"model": self._config.model, "input": text, "voice": self._config.voice, "response_format": "wav"}
        reply = self._post("audio/speech", json=wanted)
        try:
            samples, self.sample_rate = soundfile.read(io.BytesIO(reply.content), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self._url}/audio/speech gave no WAV file ({error})") from error
        return torch.from_numpy(samples.mean(axis=1))[None]

    def stream_speech(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Iterator[Tensor]:
        """See `SpeechSystem.stream_speech`; as raw samples, which the interface gives at 24 kHz."""
        wanted = {"model": self._config.model, "input": text, "voice": self._config.voice, "response_format": "pcm"}
        where, rest = f"{self._url}/audio/speech", b""
        try:
            with self._http.stream(
                "POST", where, headers=self._headers, timeout=self._config.timeout_s, json=wanted
            ) as reply:
                if reply.status_code != 200:
                    raise UserError(f"{where}: status {reply.status_code}")
                for data in reply.iter_bytes():
                    whole = len(rest + data) // 2 * 2
                    piece, rest = (rest + data)[:whole], (rest + data)[whole:]
                    if piece:
                        yield torch.frombuffer(bytearray(piece), dtype=torch.int16)[None].float() / 32768
        except self._http.HTTPError as error:
            raise UserError(f"{where}: no answer ({type(error).__name__}: {error})") from error

    def caption(self, audio: Tensor, *, seed: int) -> str:
        """See `SpeechSystem.caption`."""
        return self.answer(audio, self._config.caption_prompt, seed=seed)

    def answer(self, audio: Tensor, question: str, *, seed: int) -> str:
        """See `SpeechSystem.answer`."""
        data = base64.b64encode(_wav(audio, self.sample_rate)).decode("ascii")
        content: list[dict[str, Any]] = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]
        content += [{"type": "text", "text": question}] if question else []
        wanted = {"model": self._config.model, "messages": [{"role": "user", "content": content}], "seed": seed}
        reply = self._post("chat/completions", json={**wanted, "temperature": 0})
        return str(self._json(reply, "choices", 0, "message", "content")).strip()

    def _post(self, path: str, **content: Any) -> Any:
        where = f"{self._url}/{path}"
        try:
            reply = self._http.post(where, headers=self._headers, timeout=self._config.timeout_s, **content)
        except self._http.HTTPError as error:
            raise UserError(f"{where}: no answer ({type(error).__name__}: {error})") from error
        if reply.status_code != 200:
            raise UserError(f"{where}: status {reply.status_code}, {' '.join(reply.text.split())[:200]}")
        return reply

    def _json(self, reply: Any, *keys: str | int) -> Any:
        """A value inside of a reply."""
        try:
            value = reply.json()
            for key in keys:
                value = value[key]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(f"{reply.url}: the answer has no {'.'.join(map(str, keys))}") from error
        return value


def _client() -> Any:
    """httpx, under the name that it has here."""
    for name in ("httpx", "httpx2"):  # httpx2 is its successor, with the same interface
        try:
            return __import__(name)
        except ImportError:
            continue
    raise missing(OpenAIServer.card.title, "httpx")


def _wav(audio: Tensor, rate: int) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, audio[0].numpy(), rate, format="WAV", subtype="PCM_16")
    return sink.getvalue()
