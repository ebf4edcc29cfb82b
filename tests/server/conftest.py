"""A server around a model of random weights, in a thread of this process."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2

pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")

import uvicorn

from uniaudio2.server.app import create_app
from uniaudio2.server.run import configured
from uniaudio2.server.settings import ServerSettings
from uniaudio2.server.state import Server


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    url: str
    server: Server


@contextmanager
def serving(load: Callable[[], UniAudio2], **settings: Any) -> Iterator[Running]:
    """A server on a free port of this machine, once it is ready."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 16384
    )  # or slow readers would not be noticed for megabytes
    app = create_app(load, ServerSettings(**settings))
    process = uvicorn.Server(configured(app, grace_s=60))
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    state: Server = app.state.server
    while not state.ready and state.problem is None:
        time.sleep(0.02)
    try:
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", state)
    finally:
        process.should_exit = True
        thread.join(90)
        listener.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> UniAudio2:
    """Made once: tests leave it as it is."""
    return UniAudio2.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")


@pytest.fixture(scope="session")
def running(model: UniAudio2, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with usual limits, but small ones."""
    voices = tmp_path_factory.mktemp("voices")
    with serving(lambda: model, voices=voices, max_body_mb=2.0, max_audio_s=60.0) as found:
        yield found


def clip(seconds: float = 1.0, form: str = "WAV", subtype: str | None = None, seed: int = 0) -> bytes:
    """A recording of noise as the bytes of a file."""
    noise = 0.1 * torch.randn(round(24000 * seconds), generator=torch.Generator().manual_seed(seed))
    file = io.BytesIO()
    soundfile.write(file, noise.numpy(), 24000, format=form, subtype=subtype)
    return file.getvalue()


def resident_mb() -> float:
    """Memory of this process, in which the server runs too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Tally:
    """What came of many requests; ``statuses`` counts numbers of HTTP, "hang", and ends of other kinds."""

    def __init__(self) -> None:
        self.statuses: Counter[int | str] = Counter()
        self.start_mb = resident_mb()

    def line(self, name: str) -> str:
        """One line that can be quoted."""
        failed = sum(count for status, count in self.statuses.items() if isinstance(status, int) and status >= 500)
        each = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items(), key=str))
        return (
            f"{name}: {sum(self.statuses.values())} requests, {failed} answers of 5xx, {self.statuses['hang']} hangs, "
            f"memory {self.start_mb:.0f} MB at the start, {resident_mb():.0f} MB at the end ({each})"
        )
