"""A system that needs an environment of its own, as another program that answers JSON lines.

Its program prints ``{"ready": true, "version": …, "sample_rate": …}`` once it has loaded, then reads requests, one line
each, and prints one line for each: ``{"id": 3, "task": "asr", "audio": "/tmp/x.wav", …}`` gives
``{"id": 3, "text": …}``, ``{"id": 3, "audio": FILE}`` or ``{"id": 3, "error": …}``. `uniaudio2.systems.servers` holds
such programs; they need nothing of this package.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, read_audio, write_audio
from uniaudio2.errors import UserError
from uniaudio2.systems.contract import SpeechSystem


class ProcessSystem(SpeechSystem):
    """A `SpeechSystem` whose tasks are served by a program.

    Args:
        command: The program and its arguments.
        load_s: Seconds that it may take to load.
        answer_s: Seconds that it may take for an answer.
    """

    def __init__(self, command: Sequence[str], *, load_s: float = 1800.0, answer_s: float = 600.0) -> None:
        self._answer_s, self._count = answer_s, 0
        self._folder = tempfile.TemporaryDirectory(prefix="uniaudio2-")
        try:
            self._program = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        except OSError as error:
            raise UserError(f"{self.card.title}: {command[0]} cannot be started ({error.strerror})") from error
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self._line(load_s)
        if not ready.get("ready"):
            raise UserError(f"{self.card.title}: its program did not load ({ready.get('error', ready)})")
        self.version = str(ready.get("version", ""))
        self.sample_rate = int(ready.get("sample_rate", SAMPLE_RATE))

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _line(self, seconds: float) -> dict[str, Any]:
        """The next line of the program."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise UserError(f"{self.card.title}: its program did not answer within {seconds:g} s") from None
        if line is None:
            raise UserError(
                f"{self.card.title}: its program ended (status {self._program.wait()}); its errors are above"
            )
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{self.card.title}: its program printed {line.strip()[:80]!r} in place of a JSON object")
        return value

    def ask(self, task: str, audio: Tensor | None = None, **values: Any) -> dict[str, Any]:
        """One request; a waveform (1, N) at ``sample_rate`` is handed over as a file.

        Raises:
            UserError: If the program says that it failed, ends, or is silent for too long.
        """
        self._count += 1
        request = {"id": self._count, "task": task, **values}
        if audio is not None:
            request["audio"] = str(self._file(audio, "in"))
        assert self._program.stdin is not None
        try:
            self._program.stdin.write(json.dumps(request) + "\n")
            self._program.stdin.flush()
        except OSError as error:
            raise UserError(f"{self.card.title}: its program ended (status {self._program.wait()})") from error
        answer = self._line(self._answer_s)
        if answer.get("id") != self._count:
            raise UserError(f"{self.card.title}: its program answered {answer.get('id')} in place of {self._count}")
        if "error" in answer:
            raise UserError(f"{self.card.title}: {answer['error']}")
        return answer

    def _file(self, audio: Tensor, name: str) -> Path:
        path = Path(self._folder.name) / f"{name}_{self._count}.wav"
        write_audio(path, audio, self.sample_rate)
        return path

    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """See `SpeechSystem.transcribe`."""
        return str(self.ask("asr", audio, language=language, seed=seed)["text"])

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """See `SpeechSystem.speak`."""
        given = {} if voice is None else {"voice": str(self._file(voice, "voice"))}
        return self.make("tts", text=text, language=language, seed=seed, **given)

    def caption(self, audio: Tensor, *, seed: int) -> str:
        """See `SpeechSystem.caption`."""
        return str(self.ask("caption", audio, seed=seed)["text"])

    def answer(self, audio: Tensor, question: str, *, seed: int) -> str:
        """See `SpeechSystem.answer`."""
        return str(self.ask("answer", audio, question=question, seed=seed)["text"])

    def make(self, task: str, **values: Any) -> Tensor:
        """A waveform (1, N) that the program was asked to write into a file."""
        output = str(Path(self._folder.name) / f"out_{self._count}.wav")
        answer = self.ask(task, None, output=output, **values)
        return read_audio(answer["audio"], self.sample_rate)

    def close(self) -> None:
        """End the program."""
        self._program.kill()
        self._program.wait()
        for pipe in (self._program.stdin, self._program.stdout):
            with contextlib.suppress(OSError, AttributeError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        self._folder.cleanup()

    def __del__(self) -> None:
        if hasattr(self, "_program") and self._program.poll() is None:
            self.close()
