"""Voices by name: those that come with the model, and recordings that clients have stored.

A stored voice is one FLAC file in the server's folder of voices, whose title is its name.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import soundfile
from fastapi import APIRouter, File, Form, Request, UploadFile
from torch import Tensor

from uniaudio2.api.model import UniAudio2
from uniaudio2.api.speak import voice_prompt
from uniaudio2.audio import SAMPLE_RATE, AudioError, read_audio
from uniaudio2.files import replacing
from uniaudio2.server.audio_in import from_base64, read_recording
from uniaudio2.server.audio_out import pcm16
from uniaudio2.server.errors import APIError
from uniaudio2.server.state import Server, The

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/audio/voices", tags=["voices"])

HOUSE = "default"
OPENAI_NAMES = frozenset(
    "alloy ash ballad cedar coral echo fable juniper marin nova onyx sage shimmer verse".split()  # noqa: SIM905
)
"""Names that clients send without being asked; they all mean the house voice."""
MOST_SAMPLE_S = 30.0
MOST_VOICES = 1000
_NAME = re.compile(r"[^\W_][\w .-]{0,63}")


@dataclass(frozen=True)
class StoredVoice:
    """A recording that a client has given a name."""

    id: str
    name: str
    created_at: int
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's object."""
        what = {"id": self.id, "object": "audio.voice", "name": self.name, "created_at": self.created_at}
        return {**what, "type": "audio_sample"}


class Voices:
    """All voices of a server.

    Args:
        folder: Of the stored ones; None: none can be stored.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._stored: dict[str, StoredVoice] = {}
        self._prompts: dict[str, Tensor] = {}
        self._lock = threading.Lock()
        for path in sorted(folder.glob("voice_*.flac")) if folder is not None and folder.is_dir() else ():
            try:
                with soundfile.SoundFile(path) as file:
                    name = file.title or path.stem
            except soundfile.LibsndfileError as error:
                logger.warning("voice passed over: %s", error)
                continue
            self._stored[path.stem] = StoredVoice(path.stem, name, int(path.stat().st_mtime), path)

    def stored(self) -> list[StoredVoice]:
        """The stored ones, oldest first."""
        with self._lock:
            return sorted(self._stored.values(), key=lambda voice: (voice.created_at, voice.name))

    def find(self, name: str) -> StoredVoice | None:
        """A stored voice by id or name."""
        with self._lock:
            return self._stored.get(name) or next((one for one in self._stored.values() if one.name == name), None)

    def add(self, model: UniAudio2, name: str, audio: Tensor) -> StoredVoice:
        """Store a waveform (1, N) under a name.

        Raises:
            APIError: If there is no folder, the name is taken or none, or there are too many.
            OSError: If it cannot be written.
        """
        if self.folder is None:
            message = "this server keeps no voices: start it with --voices DIR, or send ref_audio with each request"
            raise APIError(403, message, code="voices_not_kept")
        if not _NAME.fullmatch(name):
            message = "name: give 1 to 64 letters, digits, spaces, '.', '-' or '_', beginning with a letter or digit"
            raise APIError(400, message, param="name", code="invalid_value")
        message = f"name: there is a voice {name!r} already: delete it first, or take another name"
        taken = APIError(409, message, param="name", code="voice_exists")
        if name == HOUSE or name in OPENAI_NAMES or name in model.voices or self.find(name) is not None:
            raise taken
        prompt = voice_prompt(model, audio)
        identity = "voice_" + hashlib.sha256(name.encode()).hexdigest()[:16]
        path = self.folder / f"{identity}.flac"
        with self._lock:
            if identity in self._stored:  # by another request, meanwhile
                raise taken
            if len(self._stored) >= MOST_VOICES:
                raise APIError(409, f"there are {MOST_VOICES} voices already: delete one first", code="too_many_voices")
            with replacing(path) as file:
                file.write(_flac(audio, name))
            voice = self._stored[identity] = StoredVoice(identity, name, int(path.stat().st_mtime), path)
            self._prompts[str(path)] = prompt
        return voice

    def delete(self, name: str) -> StoredVoice:
        """Forget a stored voice, by id or name, and remove its file.

        Raises:
            APIError: If there is none.
        """
        voice = self.find(name)
        if voice is None:
            message = f"there is no stored voice {name!r}: GET /v1/audio/voices lists them"
            raise APIError(404, message, code="voice_not_found")
        with self._lock:
            voice.path.unlink(missing_ok=True)  # first: where this fails, the voice stays
            self._stored.pop(voice.id, None)
            self._prompts.pop(str(voice.path), None)
        return voice

    def prompt(self, model: UniAudio2, name: str) -> Tensor | None:
        """Codes (K, T) of a voice; None for the house voice. Each recording is encoded once.

        Raises:
            APIError: If there is no such voice.
        """
        path = self.path(model, name)
        if path is None:
            return None
        key = str(path)
        prompt = self._prompts.get(key)
        if prompt is None:
            try:
                audio = read_audio(path)
            except AudioError as error:
                raise OSError(str(error)) from error  # the server's business, not the client's
            prompt = self._prompts[key] = voice_prompt(model, audio)
        return prompt

    def path(self, model: UniAudio2, name: str) -> Path | None:
        """The recording of a voice; None for the house voice.

        Raises:
            APIError: If there is no such voice.
        """
        stored = self.find(name)
        if stored is not None or name in model.voices:
            return stored.path if stored is not None else model.voices[name].recording
        if name == HOUSE or name in OPENAI_NAMES:
            return None
        known = ", ".join([HOUSE, *model.voices, *(one.name for one in self.stored())])
        message = f"voice: there is no voice {name[:80]!r}; there are: {known}"
        raise APIError(400, message, param="voice", code="voice_not_found")


def _flac(audio: Tensor, title: str) -> bytes:
    """A waveform (1, N) as a file; in memory first, since libsndfile cannot hear of a full disk."""
    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        file.title = title
        file.buffer_write(pcm16(audio), "int16")
    return data.getvalue()


def prompt_of(data: bytes | str, model: UniAudio2, *, name: str) -> Tensor:
    """Codes (K, T) of the voice in a recording that came with a request, as bytes or base64."""
    data = from_base64(data, name=name) if isinstance(data, str) else data
    return voice_prompt(model, read_recording(data, MOST_SAMPLE_S, name=name).read())


@router.get("")
async def list_voices(server: The) -> dict[str, Any]:
    """All voices: the house voice, those of the model, and the stored ones, in ``data``; in ``voices`` their names."""
    given = [{"id": HOUSE, "name": HOUSE, "about": "the house voice of the language"}]
    given += [
        {"id": one.name, "name": one.name, "language": one.language, "gender": one.gender, "about": one.about}
        for one in server.model.voices.values()
    ]
    made = [{**one, "object": "audio.voice", "created_at": server.started, "type": "built_in"} for one in given]
    data = [*made, *(one.to_dict() for one in server.voices.stored())]
    return {"object": "list", "data": data, "voices": [one["name"] for one in data]}


@router.post("")
async def create_voice(
    request: Request,
    server: The,
    name: Annotated[str, Form()],
    audio_sample: Annotated[UploadFile | None, File(description="About 3 s of the voice, at most 30 s.")] = None,
    consent: Annotated[str | None, Form(description="Passed over: nobody checks it here.")] = None,
    type: Annotated[Literal["audio_sample", "prompt"], Form()] = "audio_sample",
) -> dict[str, Any]:
    """Keep a recording as a voice, to be asked for by its name or id."""
    if type == "prompt" or audio_sample is None:
        message = "audio_sample: send a recording of the voice; voices are not made from descriptions"
        raise APIError(400, message, param="audio_sample", code="missing_required_parameter")
    data = await audio_sample.read()

    def work() -> StoredVoice:
        audio = read_recording(data, MOST_SAMPLE_S, name="audio_sample").read()
        return server.voices.add(server.model, name, audio)

    return (await server.jobs.run(request, work)).to_dict()


@router.delete("/{voice_id}")
async def delete_voice(voice_id: str, server: The) -> dict[str, Any]:
    """Forget a stored voice."""
    voice = server.voices.delete(voice_id)
    return {"id": voice.id, "object": "audio.voice.deleted", "deleted": True}


def prompt_for(server: Server, voice: str | None, sample: str | None) -> Tensor | None:
    """Codes (K, T) of the voice that a request asks for: a recording that came with it, or a name."""
    if sample is not None:
        return prompt_of(sample, server.model, name="ref_audio")
    return server.voices.prompt(server.model, voice or HOUSE)
