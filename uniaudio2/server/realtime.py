"""``WS /v1/realtime``: spoken dialogue by OpenAI's events (GA names)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from uniaudio2.audio import SAMPLE_RATE, AudioError
from uniaudio2.server.audio_in import from_base64
from uniaudio2.server.errors import APIError, as_api_error
from uniaudio2.server.realtime_config import Settings, first_problem, new_id
from uniaudio2.server.realtime_items import Conversation, Item
from uniaudio2.server.realtime_reply import Response
from uniaudio2.server.sockets import serve_session
from uniaudio2.server.state import Server
from uniaudio2.server.strict_json import read_json, write_json
from uniaudio2.server.turns import TurnDetector

logger = logging.getLogger("uniaudio2.server")
router = APIRouter()
MOST_BUFFER_S = 300.0  # of audio that waits to be committed
BYTES_PER_MS = 2 * SAMPLE_RATE // 1000


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """One session."""
    await serve_session(socket, lambda server: Session(socket, server, server.model.name).run)


class Session:
    """The state of a connection, and what its events do.

    Args:
        socket: Accepted when it runs.
        server: Whose model answers.
        model: Its name.
    """

    def __init__(self, socket: WebSocket, server: Server, model: str) -> None:
        self.server, self.settings, self.conversation = server, Settings(model), Conversation()
        self._socket, self._sending = socket, asyncio.Lock()
        self._audio, self._before_ms = bytearray(), 0  # not committed yet, and how much came before it
        self._turns: TurnDetector | None = None
        self._turns_from_ms = 0  # where the detector's time begins
        self._next_item = new_id("item")
        self._response: Response | None = None
        self._event_id: str | None = None  # of the client's event that is worked on
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit_asked,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.truncate": self._truncate_item,
            "response.create": self._respond,
            "response.cancel": self._cancel,
        }

    async def run(self) -> None:
        """Until the client goes, or takes nothing any more."""
        code = 1000
        try:
            await self.send("session.created", session=self.settings.to_dict())
            while (message := await self._socket.receive())["type"] == "websocket.receive":
                await self._event(message.get("text"))
        except (WebSocketDisconnect, TimeoutError):
            pass  # it is gone, or does not read
        except Exception as error:
            logger.error("bug", exc_info=error)
            code = 1011
        finally:
            self.conversation.close()
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                if self._response is not None:
                    await self._response.stop("cancelled", "client_cancelled")
                await asyncio.wait_for(self._socket.close(code), 1)

    async def send(self, type: str, **fields: Any) -> None:
        """One event to the client.

        Raises:
            TimeoutError: If it does not read.
        """
        line = write_json({"type": type, "event_id": new_id("event"), **fields})
        async with self._sending:
            await asyncio.wait_for(self._socket.send_text(line), self.server.settings.idle_s)

    async def _event(self, text: str | None) -> None:
        """One event of the client; what is wrong with it leaves the session open."""
        self._event_id = None
        try:
            try:
                event = read_json(text or "")
            except ValueError:
                raise APIError(400, "an event must be a JSON object", code="invalid_json") from None
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                raise APIError(400, "an event must be a JSON object with a type", param="type", code="invalid_event")
            self._event_id = event.get("event_id") if isinstance(event.get("event_id"), str) else None
            handler = self._handlers.get(event["type"])
            if handler is None:
                known = ", ".join(self._handlers)
                message = f"unknown event {event['type'][:80]!r}: known are {known}"
                raise APIError(400, message, param="type", code="unknown_event")
            await handler(event)
        except ValidationError as error:
            where, what = first_problem(error)
            await self.error(APIError(400, f"{where}: {what}", param=where, code="invalid_value"))
        except (APIError, AudioError) as error:
            await self.error(as_api_error(error))

    async def error(self, error: APIError) -> None:
        """An error as an event."""
        await self.send("error", error={**error.body, "event_id": self._event_id})

    # -- session ----------------------------------------------------------------------------------------------------

    async def _update(self, event: dict[str, Any]) -> None:
        changes = event.get("session")
        if not isinstance(changes, dict):
            raise APIError(400, "session: must be an object", param="session", code="invalid_value")
        before = self.settings.config
        self.settings.update(changes)
        try:
            self.server.voices.path(self.server.model, self.voice)
        except APIError:
            self.settings.config = before
            raise
        if before.audio.input.turn_detection != self.settings.config.audio.input.turn_detection:
            self._turns = None
        await self.send("session.updated", session=self.settings.to_dict())

    @property
    def voice(self) -> str:
        """The voice that answers."""
        voice = self.settings.config.audio.output.voice
        return voice if isinstance(voice, str) else voice.id

    # -- what is heard ----------------------------------------------------------------------------------------------

    async def _append(self, event: dict[str, Any]) -> None:
        given = event.get("audio")
        if not isinstance(given, str):
            raise APIError(400, "audio: must be base64", param="audio", code="invalid_value")
        data = from_base64(given, name="audio")
        if len(data) % 2:
            raise APIError(
                400, "audio: 16-bit samples have an even number of bytes", param="audio", code="invalid_value"
            )
        most_s = min(MOST_BUFFER_S, self.server.settings.max_audio_s)
        most = int(most_s * 1000) * BYTES_PER_MS
        if len(self._audio) + len(data) > most:
            message = f"audio: more than {most_s:g} s wait: commit or clear them first"
            raise APIError(400, message, param="audio", code="input_audio_buffer_full")
        self._audio += data
        detection = self.settings.config.audio.input.turn_detection
        if detection is None:
            return
        if self._turns is None:
            self._turns = await asyncio.to_thread(detection.detector)
            self._turns_from_ms = self._before_ms + (len(self._audio) - len(data)) // BYTES_PER_MS
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        for started, at_ms in await asyncio.to_thread(self._turns.push, samples):
            await self._turn(started, at_ms + self._turns_from_ms)
        if not self._turns.speaking:
            self._forget(keep_ms=self._turns.prefix_ms + 1000)

    def _forget(self, keep_ms: int) -> None:
        """Drop silence that no turn can begin in any more, so that a session may listen for hours."""
        extra = (len(self._audio) // BYTES_PER_MS - keep_ms) * BYTES_PER_MS
        if extra > 0:
            del self._audio[:extra]
            self._before_ms += extra // BYTES_PER_MS

    async def _turn(self, started: bool, at_ms: int) -> None:
        """Somebody has begun or stopped to speak."""
        detection = self.settings.config.audio.input.turn_detection
        assert detection is not None
        if started:
            silence = max(0, at_ms - self._before_ms) * BYTES_PER_MS
            del self._audio[:silence]
            self._before_ms += silence // BYTES_PER_MS
            await self.send("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=self._next_item)
            if detection.interrupt_response and self._response is not None:
                await self._response.stop("cancelled", "turn_detected")
            return
        await self.send("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=self._next_item)
        await self._commit()
        if detection.create_response and self.settings.config.type == "realtime":
            await self._start_response({})

    async def _commit_asked(self, event: dict[str, Any]) -> None:
        if len(self._audio) < 100 * BYTES_PER_MS:
            message = f"{len(self._audio) // BYTES_PER_MS} ms of audio wait, at least 100 ms are needed: append more"
            raise APIError(400, message, code="input_audio_buffer_commit_empty")
        await self._commit()

    async def _commit(self) -> None:
        """Make an item of what was heard, and have it written down."""
        audio, previous = bytes(self._audio), self.conversation.last
        self._before_ms += len(audio) // BYTES_PER_MS
        self._audio.clear()
        item = Item.of_audio(self._next_item, audio)
        self._next_item = new_id("item")
        await self.send("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        await self.add(item)
        wanted = self.settings.config.audio.input.transcription
        item.transcribe(self, report=wanted is not None or self.settings.config.type == "transcription")

    async def _clear(self, event: dict[str, Any]) -> None:
        self._before_ms += len(self._audio) // BYTES_PER_MS
        self._audio.clear()
        await self.send("input_audio_buffer.cleared")

    # -- conversation -----------------------------------------------------------------------------------------------

    async def add(self, item: Item, after: str | None = None) -> None:
        """Put a finished item into the conversation."""
        previous = self.conversation.add(item, after)
        for name in ("conversation.item.added", "conversation.item.created", "conversation.item.done"):
            await self.send(name, previous_item_id=previous, item=item.to_dict())

    async def _create_item(self, event: dict[str, Any]) -> None:
        item = Item.of_client(event.get("item"), self.server.settings)
        if item.id in self.conversation.items:
            raise APIError(400, f"item.id: there is an item {item.id!r} already", param="item.id", code="invalid_value")
        after = event.get("previous_item_id")
        if not isinstance(after, str | None):
            raise APIError(400, "previous_item_id: must be an id", param="previous_item_id", code="invalid_value")
        await self.add(item, after)
        if item.audio is not None:
            item.transcribe(self, report=self.settings.config.audio.input.transcription is not None)

    def _item(self, event: dict[str, Any]) -> Item:
        item = self.conversation.items.get(str(event.get("item_id")))
        if item is None:
            message = f"item_id: there is no item {str(event.get('item_id'))[:80]!r}"
            raise APIError(400, message, param="item_id", code="item_not_found")
        return item

    async def _retrieve_item(self, event: dict[str, Any]) -> None:
        await self.send("conversation.item.retrieved", item=self._item(event).to_dict())

    async def _delete_item(self, event: dict[str, Any]) -> None:
        item = self._item(event)
        self.conversation.remove(item)
        await self.send("conversation.item.deleted", item_id=item.id)

    async def _truncate_item(self, event: dict[str, Any]) -> None:
        item, end_ms = self._item(event), event.get("audio_end_ms")
        if type(end_ms) is not int or end_ms < 0:
            raise APIError(400, "audio_end_ms: must be a number of ms", param="audio_end_ms", code="invalid_value")
        await self.send("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=end_ms)

    # -- responses --------------------------------------------------------------------------------------------------

    async def _respond(self, event: dict[str, Any]) -> None:
        wanted = event.get("response") or {}
        if not isinstance(wanted, dict):
            raise APIError(400, "response: must be an object", param="response", code="invalid_value")
        if self.settings.config.type == "transcription":
            raise APIError(400, "a session of type transcription gives no responses", code="invalid_event")
        await self._start_response(wanted)

    async def _start_response(self, wanted: dict[str, Any]) -> None:
        if self._response is not None and self._response.active:
            message = "a response is under way: wait for response.done, or send response.cancel"
            raise APIError(400, message, code="conversation_already_has_active_response")
        self._response = Response(self, wanted)
        self._response.begin()

    async def _cancel(self, event: dict[str, Any]) -> None:
        wanted = event.get("response_id")
        response = self._response
        if response is None or not response.active or wanted not in (None, response.id):
            raise APIError(400, "there is no such response under way", code="response_cancel_not_active")
        await response.stop("cancelled", "client_cancelled")
