"""The items of a realtime conversation: what was said and written by either side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.server.audio_in import from_base64
from uniaudio2.server.errors import APIError, as_api_error
from uniaudio2.server.realtime_config import new_id
from uniaudio2.server.settings import ServerSettings

if TYPE_CHECKING:
    from uniaudio2.server.realtime import Session

MOST_ITEMS = 1000  # older ones are forgotten
MOST_PARTS = 100  # of an item
MOST_AUDIO_ITEMS = 8  # of which the sound is kept


@dataclass
class Item:
    """One message."""

    id: str
    role: str
    content: list[dict[str, Any]]
    status: str = "completed"
    audio: torch.Tensor | None = None  # (1, N), 24 kHz
    transcript: asyncio.Task[str] | None = field(default=None, repr=False)

    @classmethod
    def of_audio(cls, id: str, pcm: bytes) -> Item:
        """What a user said, as 16-bit samples."""
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        content = [{"type": "input_audio", "transcript": None}]
        return cls(id, "user", content, audio=torch.from_numpy(samples)[None])

    @classmethod
    def of_client(cls, given: Any, settings: ServerSettings) -> Item:
        """What ``conversation.item.create`` brings.

        Raises:
            APIError: If it is no message of text or audio.
        """
        if not isinstance(given, dict) or given.get("type") != "message":
            raise APIError(400, "item: must be of type message", param="item", code="invalid_value")
        content = given.get("content")
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            raise APIError(400, "item.content: must be a list of parts", param="item.content", code="invalid_value")
        role = given.get("role", "user")
        if role not in ("user", "assistant", "system"):
            message = "item.role: must be user, assistant or system"
            raise APIError(400, message, param="item.role", code="invalid_value")
        identity = given.get("id")
        identity = identity if isinstance(identity, str) and 0 < len(identity) <= 64 else new_id("item")
        for part in content:
            if part.get("type") == "input_audio":
                pcm = from_base64(str(part.get("audio", "")), name="item.content.audio")
                if not 0 < len(pcm) <= 2 * SAMPLE_RATE * settings.max_audio_s or len(pcm) % 2:
                    message = f"item.content.audio: must be 16-bit samples, at most {settings.max_audio_s:g} s"
                    raise APIError(400, message, param="item.content", code="invalid_value")
                item = cls.of_audio(identity, pcm)
                item.role = role
                return item
        if len(content) > MOST_PARTS:
            message = f"item.content: more than the {MOST_PARTS} parts that are taken: send several items"
            raise APIError(400, message, param="item.content", code="invalid_value")
        kept = [{"type": str(part.get("type"))[:64], "text": str(part.get("text") or "")} for part in content]
        if sum(len(part["text"]) for part in kept) > settings.max_characters:
            message = f"item.content: more than the {settings.max_characters} characters that are taken: send parts"
            raise APIError(400, message, param="item.content", code="string_above_max_length")
        return cls(identity, role, kept)

    @property
    def text(self) -> str:
        """What is written in it."""
        return " ".join(part["text"] for part in self.content if part.get("text")).strip()

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's object."""
        what = {"id": self.id, "object": "realtime.item", "type": "message", "status": self.status}
        return {**what, "role": self.role, "content": self.content}

    def transcribe(self, session: Session, *, report: bool) -> None:
        """Have it written down in the background; with ``report`` the client is told."""
        self.transcript = asyncio.create_task(self._transcribe(session, report=report))

    async def _transcribe(self, session: Session, *, report: bool) -> str:
        name = "conversation.item.input_audio_transcription"
        wanted = session.settings.config.audio.input.transcription
        language, server, audio = wanted.language if wanted else None, session.server, self.audio
        assert audio is not None
        where = {"item_id": self.id, "content_index": 0}
        try:
            server.metrics.audio_in.inc(audio.shape[-1] / SAMPLE_RATE)
            job = server.jobs.start(lambda: [server.model.transcribe(audio, language=language or None)])
            try:
                found = await anext(job)
            finally:
                job.close()
        except Exception as error:
            if report:
                await session.send(f"{name}.failed", **where, error=as_api_error(error).body)
            return ""
        self.content[0]["transcript"] = found.text
        if report:
            if found.text:
                await session.send(f"{name}.delta", **where, delta=found.text)
            usage = {"type": "duration", "seconds": round(found.duration_s, 3)}
            await session.send(f"{name}.completed", **where, transcript=found.text, usage=usage)
        return found.text


class Conversation:
    """Items in order."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    @property
    def last(self) -> str | None:
        """Id of the last item."""
        return next(reversed(self.items), None)

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Put an item behind another, or at the end; returns the id of the one before it."""
        ids = list(self.items)
        place = ids.index(after) + 1 if after in self.items else 0 if after == "root" else len(ids)
        ids.insert(place, item.id)
        self.items[item.id] = item
        self.items = {each: self.items[each] for each in ids}
        for old in ids[: max(0, len(ids) - MOST_ITEMS)]:
            self.remove(self.items[old])
        sounding = [each for each in self.items.values() if each.audio is not None]
        for each in sounding[: max(0, len(sounding) - MOST_AUDIO_ITEMS)]:
            each.audio = None
        return ids[place - 1] if place else None

    def remove(self, item: Item) -> None:
        """Forget an item."""
        self.items.pop(item.id, None)
        if item.transcript is not None:
            item.transcript.cancel()

    def close(self) -> None:
        """Stop what is still being written down."""
        for item in list(self.items.values()):
            self.remove(item)
