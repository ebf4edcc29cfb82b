"""The server as a process: uvicorn around the application, the log as JSON lines, an end that lets requests finish."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from uniaudio2.api.model import UniAudio2
from uniaudio2.server.app import create_app
from uniaudio2.server.limits import MOST_HEADERS
from uniaudio2.server.settings import ServerSettings
from uniaudio2.server.strict_json import write_json

MORE_CONNECTIONS = 256
"""Beside those that the queue and the sessions allow; further ones get 503."""
MOST_MESSAGE = 20 * 1024 * 1024
"""Of a realtime session; OpenAI takes 15 MiB of audio in one, which is a third more in base64."""


class JSONLines(logging.Formatter):
    """Every record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return write_json(fields)


def serve(load: Callable[[], UniAudio2], settings: ServerSettings, host: str, port: int, *, grace_s: int = 60) -> None:
    """Serve until the process is told to end; then nothing new is taken, and what runs is finished.

    Args:
        load: Gives the model.
        settings: Limits and places.
        host: Address to listen at.
        port: And port.
        grace_s: Longest that the end waits for what runs.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    for name in ("uniaudio2", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    uvicorn.Server(configured(create_app(load, settings), host=host, port=port, grace_s=grace_s)).run()


def configured(app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, grace_s: int = 60) -> uvicorn.Config:
    """How uvicorn runs the application."""
    settings: ServerSettings = app.state.server.settings
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol(settings.idle_s),
        log_config=None,
        access_log=False,  # the application writes its own
        server_header=False,
        timeout_graceful_shutdown=grace_s,
        h11_max_incomplete_event_size=MOST_HEADERS,
        ws_max_size=MOST_MESSAGE,
        timeout_keep_alive=30,
        limit_concurrency=settings.running + settings.waiting + settings.sessions + MORE_CONNECTIONS,
    )


def protocol(idle_s: float) -> type[H11Protocol]:
    """HTTP that hangs up on clients who take longer for the head of a request ("slow loris"), or for what they get."""

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None  # when the head of a request must be there
        _body: asyncio.TimerHandle | None = None  # when what waits to be sent must have been taken

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._head = self.loop.call_later(idle_s, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE or self.transport.get_protocol() is not self:
                self._head = _stopped(self._head)
            elif self._head is None:
                self._head = self.loop.call_later(idle_s, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._body = _stopped(self._body)
            self._body = self.loop.call_later(idle_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._body = _stopped(self._body)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head, self._body = _stopped(self._head), _stopped(self._body)
            super().connection_lost(exc)

    return Protocol


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
