"""A realtime response: what is said in reply, sent as it is made.

By ``speech_s2s`` where the model was trained for it. Else what was said is written down, ``speech_s2t`` finds the words
of a reply where the model was trained for that, and they are spoken. A model that has learned neither repeats what it
has heard or read: an echo, and ``response.metadata.reply`` says so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocketDisconnect
from torch import Tensor

from uniaudio2.api.model import UniAudio2
from uniaudio2.api.results import AudioResult
from uniaudio2.server.audio_out import pcm16
from uniaudio2.server.errors import APIError, as_api_error
from uniaudio2.server.realtime_config import new_id
from uniaudio2.server.realtime_items import Item
from uniaudio2.server.speech import SpeechRequest, spoken

if TYPE_CHECKING:
    from uniaudio2.server.realtime import Session


def reply_way(model: UniAudio2, *, heard: bool) -> str:
    """How a model replies: "speech_s2s", "speech_s2t" or "echo"."""
    trained = model.facts.trained_tasks or {}
    return next((row for row in ("speech_s2s", "speech_s2t") if heard and row in trained), "echo")


class Response:
    """One response.

    Args:
        session: Whose.
        wanted: The object that ``response.create`` brings; ``output_modalities`` and ``metadata`` count.
    """

    def __init__(self, session: Session, wanted: dict[str, Any]) -> None:
        modalities = wanted.get("output_modalities", session.settings.config.output_modalities)
        if modalities not in (["audio"], ["text"]):
            message = "output_modalities: must be ['audio'] or ['text']"
            raise APIError(400, message, param="response.output_modalities", code="invalid_value")
        self.id, self._session, self._modality = new_id("resp"), session, modalities[0]
        metadata = wanted.get("metadata")
        self._metadata: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        self._status, self._details = "in_progress", None
        self._item: Item | None = None
        self._samples, self._task = 0, None

    @property
    def active(self) -> bool:
        """Whether it is under way."""
        return self._status == "in_progress"

    def begin(self) -> None:
        """Make it, in the background."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, status: str, reason: str) -> None:
        """End it early."""
        if self._task is not None and self.active:
            self._status, self._details = status, {"type": status, "reason": reason}
            self._task.cancel()
            await asyncio.wait([self._task])

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's object."""
        output = [] if self._item is None else [self._item.to_dict()]
        made = {} if self.active else {"usage": self._usage()}
        what = {"id": self.id, "object": "realtime.response", "status": self._status, "status_details": self._details}
        return {**what, "output": output, "output_modalities": [self._modality], "metadata": self._metadata, **made}

    def _usage(self) -> dict[str, int]:
        frames = sum(stream.num_frames(self._samples) for stream in self._session.server.model.codec.streams)
        return {"input_tokens": 0, "output_tokens": frames, "total_tokens": frames}

    async def _run(self) -> None:
        """All of it; ``response.done`` always comes, unless the client is gone."""
        session = self._session
        try:
            await self._make()
            self._status = "completed"
        except asyncio.CancelledError:
            if self.active:  # not by `stop`
                self._status, self._details = "cancelled", {"type": "cancelled", "reason": "client_cancelled"}
        except Exception as error:
            self._status, self._details = "failed", {"type": "failed", "error": as_api_error(error).body}
        if self._item is not None:
            self._item.status = "completed" if self._status == "completed" else "incomplete"
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            await session.send("response.done", response=self.to_dict())

    async def _make(self) -> None:
        session = self._session
        said = next((each for each in reversed(session.conversation.items.values()) if each.role == "user"), None)
        way = reply_way(session.server.model, heard=said is not None and said.audio is not None)
        self._metadata = {**self._metadata, "reply": way}
        await session.send("response.created", response=self.to_dict())
        if said is None:
            return
        text = said.text if said.transcript is None else await asyncio.shield(said.transcript)
        if not text and way == "echo":
            return
        self._item = item = Item(new_id("item"), "assistant", [], "in_progress")
        previous = session.conversation.add(item)
        await session.send("response.output_item.added", response_id=self.id, output_index=0, item=item.to_dict())
        await session.send("conversation.item.added", previous_item_id=previous, item=item.to_dict())
        kind = "output_text" if self._modality == "text" else "output_audio"
        words = "text" if self._modality == "text" else "transcript"
        await self._part("response.content_part.added", part={"type": kind.removeprefix("output_"), words: ""})
        job = session.server.jobs.start(lambda: self._pieces(way, text, said))
        try:
            text = await self._send_pieces(job, text)
        finally:
            job.close()
        item.content, item.status = [{"type": kind, words: text}], "completed"
        await self._part("response.content_part.done", part={"type": kind.removeprefix("output_"), words: text})
        await session.send("response.output_item.done", response_id=self.id, output_index=0, item=item.to_dict())
        await session.send("conversation.item.done", previous_item_id=previous, item=item.to_dict())

    async def _send_pieces(self, job: Any, text: str) -> str:
        """Words, then sound; returns the words."""
        async for piece in job:
            if isinstance(piece, str):
                text = piece
                name = "response.output_text" if self._modality == "text" else "response.output_audio_transcript"
                await self._part(f"{name}.delta", delta=text)
            else:
                self._samples += piece.shape[-1]
                await self._part("response.output_audio.delta", delta=base64.b64encode(pcm16(piece)).decode())
        if self._modality == "text":
            await self._part("response.output_text.done", text=text)
        else:
            await self._part("response.output_audio.done")
            await self._part("response.output_audio_transcript.done", transcript=text)
        return text

    async def _part(self, type: str, **fields: Any) -> None:
        """An event about the one part of the one item."""
        assert self._item is not None
        where = {"response_id": self.id, "item_id": self._item.id, "output_index": 0, "content_index": 0}
        await self._session.send(type, **where, **fields)

    def _pieces(self, way: str, text: str, said: Item) -> Iterator[str | Tensor]:
        """Words and waveforms (1, n) of the reply; runs in a thread."""
        session, model = self._session, self._session.server.model
        if way == "speech_s2s" and self._modality == "audio":
            assert said.audio is not None
            made = model.run("speech_s2s", {"source": said.audio})["target"]
            assert isinstance(made, AudioResult)
            session.server.metrics.audio_out.inc(made.duration_s)
            yield made.audio
            return
        if way == "speech_s2t":
            assert said.audio is not None
            text = str(model.run("speech_s2t", {"audio": said.audio})["answer"])
        yield text
        if self._modality == "audio":
            speed = session.settings.config.audio.output.speed
            yield from spoken(session.server, SpeechRequest(input=text, voice=session.voice, speed=speed))
