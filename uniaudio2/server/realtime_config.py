"""What a realtime session is set to: OpenAI's ``session`` object, changed by ``session.update``."""

from __future__ import annotations

import copy
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.server.errors import APIError
from uniaudio2.server.turns import TurnDetector

MOST_BYTES = 256 * 1024  # of a session's object
_SILENCE_MS = {"low": 1000, "medium": 500, "high": 300, "auto": 500}  # a semantic detector's eagerness, in ours


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow")  # what else a client sends is given back, and has no effect


class AudioFormat(_Model):
    """Samples: 16-bit little-endian, mono."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = SAMPLE_RATE


class TurnDetection(_Model):
    """When a turn ends."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int | None, Field(ge=32, le=60000)] = None
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    def detector(self) -> TurnDetector:
        """A detector that works so."""
        silence_ms = self.silence_duration_ms or _SILENCE_MS[self.eagerness]
        return TurnDetector(self.threshold, self.prefix_padding_ms, silence_ms)


class Transcription(_Model):
    """That transcripts of what is said are wanted."""

    model: str | None = None
    language: str | None = None


class AudioInput(_Model):
    """What is heard."""

    format: AudioFormat = AudioFormat()
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = TurnDetection()


class VoiceId(_Model):
    """A voice by its id."""

    id: str


class AudioOutput(_Model):
    """What is said."""

    format: AudioFormat = AudioFormat()
    voice: str | VoiceId = "default"
    speed: Annotated[float, Field(ge=0.25, le=1.5)] = 1.0


class Audio(_Model):
    """Both ways."""

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class SessionConfig(_Model):
    """The session."""

    type: Literal["realtime", "transcription"] = "realtime"
    output_modalities: Annotated[list[Literal["audio", "text"]], Field(min_length=1, max_length=1)] = ["audio"]
    instructions: str = ""
    audio: Audio = Audio()


class Settings:
    """A session's id and config.

    Args:
        model: Name of the model.
    """

    def __init__(self, model: str) -> None:
        self.id, self.model = new_id("sess"), model
        self.config = SessionConfig()

    def update(self, changes: dict[str, Any]) -> None:
        """Change what is named; all or nothing.

        Raises:
            APIError: If it would be too large: fields that are only given back are kept too.
            ValidationError: If something cannot be so.
        """
        before = self.config.model_dump()
        if changes.get("type", "realtime") == "transcription":
            before["type"] = "transcription"
        config = SessionConfig.model_validate(_merged(before, changes))
        if len(config.model_dump_json()) > MOST_BYTES:
            message = f"session: more than the {MOST_BYTES} bytes that are kept: shorten what it says"
            raise APIError(400, message, param="session", code="invalid_value")
        self.config = config

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's object."""
        return {"id": self.id, "object": "realtime.session", **self.config.model_dump(), "model": self.model}


def _merged(old: Any, new: Any) -> Any:
    """Objects merged key by key; anything else is replaced."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return copy.deepcopy(new)
    return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}


def new_id(kind: str) -> str:
    """A fresh id, such as ``item_1f0c…``."""
    return f"{kind}_{secrets.token_hex(10)}"


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Where and what the first mistake is."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]
