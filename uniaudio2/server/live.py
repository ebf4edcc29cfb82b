"""``WS /v1/audio/transcriptions``: what is said while it is said.

In: binary messages of samples, 16-bit little-endian, mono; then ``{"type": "end"}``. Out: ``transcript.text.delta`` for
every piece that is finished, ``transcript.text.guess`` of the one that is being spoken, and ``transcript.text.done``.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect

from uniaudio2.api.results import LiveResult, join_texts
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.engine import check_cancelled
from uniaudio2.server.errors import GONE, APIError
from uniaudio2.server.jobs import Job, described
from uniaudio2.server.realtime_config import first_problem
from uniaudio2.server.sockets import serve_session
from uniaudio2.server.state import Server
from uniaudio2.server.strict_json import read_json, write_json
from uniaudio2.server.transcriptions import usage

router = APIRouter(prefix="/v1/audio")
MOST_WAITING_S = 120.0  # of audio that is not heard yet


class LiveOptions(BaseModel):
    """The query; as the arguments of `UniAudio2.listen`."""

    model_config = ConfigDict(extra="forbid")

    model: str = "nano"
    language: str | None = None
    rate: Annotated[int, Field(ge=8000, le=48000)] = SAMPLE_RATE  # of the samples, Hz
    every_s: Annotated[float, Field(ge=0.2, le=60.0)] = 1.0
    beams: Annotated[int | None, Field(ge=1, le=64)] = None
    shifts: Annotated[int | None, Field(ge=1, le=16)] = None


@router.websocket("/transcriptions")
async def live_transcription(socket: WebSocket) -> None:
    """One session."""
    await serve_session(socket, lambda server: _Live(socket, server).run)


class _Live:
    """Audio on its way to the model, and words on theirs to the client.

    Args:
        socket: Not yet accepted.
        server: Whose model listens.

    Raises:
        APIError: If the query is wrong, or the model is not there.
    """

    def __init__(self, socket: WebSocket, server: Server) -> None:
        self._socket, self._server, self._model = socket, server, server.model
        try:
            self._options = LiveOptions.model_validate({k: v for k, v in socket.query_params.items() if v})
        except ValidationError as error:
            where, what = first_problem(error)
            raise APIError(400, f"{where}: {what}", param=where, code="invalid_value") from None
        self._audio: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._given = self._taken = 0  # bytes: by the client, and by the model

    async def run(self) -> None:
        """Until all is said, the client goes, or something goes wrong."""
        job = self._server.jobs.session(self._events)
        receiving = asyncio.create_task(self._receive(job))
        try:
            async for line in job:
                await self._send(line)
        except (WebSocketDisconnect, TimeoutError):
            pass  # it is gone, or does not read
        except Exception as error:
            if job.switch.reason != GONE:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                    await self._send(write_json({"type": "error", "error": described(error)}))
        finally:
            receiving.cancel()
            job.close()
            self._audio.put(None)  # who waits for more need not
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                await asyncio.wait_for(self._socket.close(), 1)

    async def _send(self, line: str) -> None:
        await asyncio.wait_for(self._socket.send_text(line), self._server.settings.idle_s)

    async def _receive(self, job: Job[str]) -> None:
        """Take what the client sends; whatever is wrong with it ends the job."""
        settings, ended = self._server.settings, False
        try:
            while True:
                message = await asyncio.wait_for(self._socket.receive(), None if ended else settings.idle_s)
                if message["type"] == "websocket.disconnect":
                    return job.stop(GONE)
                if message.get("bytes") is not None and not ended:
                    self._take(message["bytes"])
                else:
                    _check_end(message.get("text"))
                    ended = True
                    self._audio.put(None)
                    job.allow(settings.deadline_s)
        except TimeoutError:
            message = f"no audio came for {settings.idle_s:g} s: send silence too, or end"
            job.stop("idle", APIError(408, message, code="audio_too_slow"))
        except Exception as error:
            job.stop("refused", error)

    def _take(self, data: bytes) -> None:
        if len(data) % 2:
            raise APIError(400, "16-bit samples have an even number of bytes", code="invalid_audio")
        settings, second = self._server.settings, 2 * self._options.rate
        self._given += len(data)
        if self._given > settings.max_audio_s * second:
            message = f"more than the {settings.max_audio_s:g} s that this server takes: end, and begin a new session"
            raise APIError(413, message, code="audio_too_long")
        if self._given - self._taken > MOST_WAITING_S * second:
            message = "the audio comes faster than it is heard: send it as it is spoken, or a recording by POST"
            raise APIError(429, message, code="audio_too_fast")
        self._server.metrics.audio_in.inc(len(data) / second)
        self._audio.put(data)

    def _events(self) -> Iterator[str]:
        """The server's events; in a thread."""
        options = self._options.model_dump(exclude={"model", "rate"})
        said = ""
        for found in self._model.listen(self._chunks(), sample_rate=self._options.rate, **options):
            if found.result is not None:
                done = {"text": found.text, "usage": usage(self._server, found.result)}
                yield write_json({"type": "transcript.text.done", **done})
                return
            if found.text != said:
                yield write_json({"type": "transcript.text.delta", "delta": found.text[len(said) :]})
                said = found.text
            yield write_json({"type": "transcript.text.guess", **_guess(found)})

    def _chunks(self) -> Iterator[np.ndarray]:
        """What has come, until there is nothing more."""
        while (data := self._audio.get()) is not None:
            check_cancelled()
            self._taken += len(data)
            yield np.frombuffer(data, "<i2").astype(np.float32) / 32768
        check_cancelled()


def _guess(found: LiveResult) -> dict[str, str]:
    """The piece that is being spoken, as it follows the text: what two hearings agreed on, and what the last added."""
    known = [part for part in (found.text, found.agreed) if part]
    agreed = join_texts(known)
    whole = join_texts([*known, found.guess]) if found.guess else agreed
    return {"agreed": agreed[len(found.text) :], "guess": whole[len(agreed) :]}


def _check_end(text: str | None) -> None:
    """The only message that is no audio."""
    with contextlib.suppress(ValueError):
        if read_json(text or "") == {"type": "end"}:
            return
    raise APIError(400, 'send samples as binary messages, and then {"type": "end"}', code="invalid_event")
