"""What the routes of one server share: the model, once it is loaded, and the jobs, voices and figures around it."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from uniaudio2.api.model import UniAudio2
from uniaudio2.errors import describe
from uniaudio2.server.errors import APIError
from uniaudio2.server.jobs import Jobs
from uniaudio2.server.metrics import Metrics
from uniaudio2.server.settings import ServerSettings
from uniaudio2.voice_activity import load_detector

if TYPE_CHECKING:
    from uniaudio2.server.voices import Voices

logger = logging.getLogger(__name__)


class Server:
    """One model and what is needed to serve it.

    Args:
        load: Gives the model; called in a thread when the server starts.
        settings: Limits and places.
        voices: That clients have stored.
    """

    def __init__(self, load: Callable[[], UniAudio2], settings: ServerSettings, voices: Voices) -> None:
        self.settings, self.metrics, self.voices = settings, Metrics(), voices
        self.jobs = Jobs(settings, self.metrics)
        self.started = int(time.time())
        self.sessions = 0  # realtime ones that are open
        self.problem: str | None = None  # why the model could not be loaded
        self._load, self._model = load, None

    @property
    def model(self) -> UniAudio2:
        """The model.

        Raises:
            APIError: If it is not loaded yet, or cannot be.
        """
        if self._model is None:
            message = self.problem or "the model is being loaded: try again in a few seconds (/ready tells when)"
            raise APIError(503, message, code="not_ready", headers={"Retry-After": "5"})
        return self._model

    def check_length(self, name: str, text: str) -> str:
        """A text of a request, unless it is longer than the server takes.

        Raises:
            APIError: If it is.
        """
        most = self.settings.max_characters
        if len(text) > most:
            message = f"{name}: {len(text)} characters, at most {most} are taken: send parts"
            raise APIError(400, message, param=name, code="string_above_max_length")
        return text

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return self._model is not None

    def begin(self) -> None:
        """Begin to load the model; requests are refused until it is there."""
        self._preparing = asyncio.create_task(self.prepare())

    def close(self) -> None:
        """Let nothing new begin."""
        self.jobs.close()

    async def prepare(self) -> None:
        """Load the model and run each kind of request once, so that the first client does not wait for it."""
        try:
            model = await asyncio.to_thread(self._load)
            await asyncio.to_thread(_warm_up, model)
        except Exception as error:
            self.problem = f"the model could not be loaded: {describe(error)}"
            logger.error(self.problem, exc_info=error)
            return
        self._model = model
        logger.info("ready", extra={"fields": {"model": model.name}})


def _warm_up(model: UniAudio2) -> None:
    """Use what the first requests will need, and where frames are compiled what requests side by side will."""
    trained = model.facts.trained_tasks
    if model.lm is not None and (trained is None or "tts" in trained):
        _say(model, WARM_UP[0])
        if model.engine.compiled:
            for texts in (WARM_UP[:1] * 2, WARM_UP, WARM_UP[:2]):  # the last ones are short in caches that have grown
                with ThreadPoolExecutor(len(texts)) as pool:
                    list(pool.map(functools.partial(_say, model), texts))
    load_detector()


WARM_UP = ("Yes.", "Yes, it is.", "The door is open and the window is not.", "No, thank you.")
"""Sentences of different lengths, so that requests stand at different places of a batch; first two at the same one."""


def _say(model: UniAudio2, text: str) -> None:
    with closing(cast("Generator[object]", model.stream(text, best_of=1))) as pieces:
        for _ in pieces:
            pass


def server_of(connection: HTTPConnection) -> Server:
    """The server that a request came to."""
    return connection.app.state.server


The = Annotated[Server, Depends(server_of)]
"""The server, as an argument of a route."""
