"""What whoever starts the server decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.checks import check_number

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServerSettings:
    """Limits and places; the command ``serve`` has an option for each.

    Raises:
        ValueError: If a number is out of range.
    """

    api_key: str | None = None  # None: nobody is asked for one
    cors_origins: tuple[str, ...] = ()  # pages of which other addresses may ask
    hosts: tuple[str, ...] = ()  # names under which it may be asked; none: any
    voices: Path | None = None  # folder of the voices that are stored; None: none can be
    max_body_mb: float = 25.0  # as OpenAI has it
    max_audio_s: float = 1800.0  # of a recording that is sent, and of what is sent to a realtime session at once
    max_characters: int = 4096  # of a text to speak, as OpenAI has it
    running: int = 16  # requests that are worked on at once
    waiting: int = 64  # requests that wait; who comes then is told to come back
    sessions: int = 32  # realtime sessions at once
    deadline_s: float = 600.0  # for one request, waiting included
    idle_s: float = 20.0  # a client that sends or reads nothing for so long is cut off
    best_of: int = 1  # attempts at a sentence where the request does not say; more is better, and later
    first_words: int = 0  # most words of what is heard first where the request does not say; 0: a whole sentence
    threads: int = 1  # of the CPU, for each request that is worked on

    def __post_init__(self) -> None:
        for name in ("max_body_mb", "max_audio_s", "deadline_s", "idle_s"):
            check_number(name, getattr(self, name), 0.0, above=True)
        for name in ("max_characters", "running", "sessions", "threads", "best_of"):
            check_number(name, getattr(self, name), 1, whole=True)
        for name in ("waiting", "first_words"):
            check_number(name, getattr(self, name), 0, whole=True)

    @classmethod
    def listening_at(cls, host: str, allow_hosts: Sequence[str] = (), **settings: Any) -> ServerSettings:
        """Settings for an address; what only this machine can reach, and asks for no key, answers to its names alone.

        Args:
            host: Address to listen at.
            allow_hosts: Further names, such as that of a proxy in front.
            **settings: Of the class.
        """
        narrow = allow_hosts or (host in LOOPBACK and settings.get("api_key") is None)
        return cls(hosts=(*LOOPBACK, *allow_hosts) if narrow else (), **settings)

    @property
    def max_body(self) -> int:
        """Most bytes of a request's body."""
        return int(self.max_body_mb * 1024 * 1024)
