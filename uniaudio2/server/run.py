"""The server as a process: uvicorn around the application, the log as JSON lines, an end that lets requests finish."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import uvicorn

from uniaudio2.api.model import UniAudio2
from uniaudio2.server.app import create_app
from uniaudio2.server.settings import ServerSettings


class JSONLines(logging.Formatter):
    """Every record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


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
    uvicorn.run(
        create_app(load, settings),
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # the application writes its own
        server_header=False,
        timeout_graceful_shutdown=grace_s,
        h11_max_incomplete_event_size=32 * 1024,
        ws_max_size=16 * 1024 * 1024,  # OpenAI's limit for one message of audio is 15 MiB
        timeout_keep_alive=30,
    )
