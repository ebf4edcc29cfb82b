"""The application: routes, what stands around each request, and the life of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.formparsers import MultiPartParser
from starlette.middleware.cors import CORSMiddleware

from uniaudio2 import __version__
from uniaudio2.api.model import UniAudio2
from uniaudio2.server import codec, health, live, models, realtime, speech, tasks, transcriptions, voices
from uniaudio2.server.errors import add_handlers
from uniaudio2.server.limits import Guard
from uniaudio2.server.settings import ServerSettings
from uniaudio2.server.state import Server

STATIC = Path(__file__).parent / "static"
DESCRIPTION = "One model that listens and speaks, behind OpenAI's audio interface."


def create_app(load: Callable[[], UniAudio2], settings: ServerSettings | None = None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        load: Gives the model; called in a thread when the application starts. Until then, and if it fails, requests
            are answered with 503.
        settings: Limits and places.
    """
    settings = settings or ServerSettings()
    # Uploads stay in memory, however large they may be: nothing of a request is written to disk.
    MultiPartParser.spool_max_size = max(MultiPartParser.spool_max_size, settings.max_body)
    server = Server(load, settings, voices.Voices(settings.voices))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.begin()
        yield
        server.close()

    app = FastAPI(
        title="uniaudio2",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.server = server
    add_handlers(app)
    for part in (speech, transcriptions, voices, tasks, codec, realtime, live, models, health):
        app.include_router(part.router)
    if (STATIC / "index.html").is_file():
        app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")
    app.add_middleware(Guard, server=server)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app
