"""What whoever starts the server decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uniaudio2.checks import check_number


@dataclass(frozen=True)
class ServerSettings:
    """Limits and places; the command ``serve`` has an option for each.

    Raises:
        ValueError: If a number is out of range.
    """

    api_key: str | None = None  # None: nobody is asked for one
    cors_origins: tuple[str, ...] = ()  # pages of which other addresses may ask
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
    threads: int = 1  # of the CPU, for each request that is worked on

    def __post_init__(self) -> None:
        for name in ("max_body_mb", "max_audio_s", "deadline_s", "idle_s"):
            check_number(name, getattr(self, name), 0.0, above=True)
        for name in ("max_characters", "running", "sessions", "threads", "best_of"):
            check_number(name, getattr(self, name), 1, whole=True)
        check_number("waiting", self.waiting, 0, whole=True)

    @property
    def max_body(self) -> int:
        """Most bytes of a request's body."""
        return int(self.max_body_mb * 1024 * 1024)
