"""A model folder of this package: its codec, its language model or both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from uniaudio2.codes import AudioCodes
from uniaudio2.systems.contract import Card, CodecSystem, SpeechSystem
from uniaudio2.systems.registry import SYSTEMS


@dataclass(frozen=True)
class OursConfig:
    """Settings of a model of ours."""

    model: str | None = None  # folder or hub id; None is the model in the package
    best_of: int | None = None  # attempts at every sentence; None is the model's own number
    beams: int | None = None  # hypotheses of every transcript
    shifts: int | None = None  # shifted encodings of a recording
    seed: int = 0  # of decoding


@SYSTEMS.register("ours", OursConfig)
class Ours(CodecSystem, SpeechSystem):
    """uniaudio2."""

    card = Card(title="uniaudio2", licence="Apache-2.0", needs="nothing further")

    def __init__(self, config: OursConfig, *, device: str = "cpu", download: bool = False) -> None:
        from uniaudio2.eval.subject import Effort, PipelineSubject

        self._effort = Effort(config.best_of, config.beams, config.shifts)
        self._subject = PipelineSubject.load(config.model, device=device, effort=self._effort)
        self._seed, self.streams = config.seed, self._subject.streams
        self.sample_rate = self._subject.model.codec.sample_rate
        self.version = self._subject.name

    def encode(self, clips: Sequence[Tensor]) -> list[AudioCodes]:
        """See `CodecSystem.encode`."""
        return self._subject.encode(clips)

    def decode(self, codes: Sequence[AudioCodes]) -> list[Tensor]:
        """See `CodecSystem.decode`."""
        return [self._subject.decode(one, seed=self._seed) for one in codes]

    def transcribe(self, audio: Tensor, *, language: str | None, seed: int) -> str:
        """See `SpeechSystem.transcribe`."""
        return self._subject.transcribe([audio], language=language, seed=seed)[0]

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """See `SpeechSystem.speak`."""
        return self._subject.speak(text, language=language, voice=voice, seed=seed)

    def caption(self, audio: Tensor, *, seed: int) -> str:
        """See `SpeechSystem.caption`."""
        return self._subject.caption([audio], seed=seed)[0]

    def answer(self, audio: Tensor, question: str, *, seed: int) -> str:
        """See `SpeechSystem.answer`."""
        model = self._subject.model
        row, given = ("audio_understanding", {"question": question}) if question else ("speech_s2t", {})
        return str(model.run(row, {"audio": audio, **given}, seed=seed)["answer"])

    def generate_sound(self, text: str, *, seed: int) -> Tensor:
        """See `SpeechSystem.generate_sound`."""
        return self._subject.generate_sound(text, seed=seed)

    def stream_speech(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Iterator[Tensor]:
        """See `SpeechSystem.stream_speech`; one attempt a sentence, unless ``best_of`` says otherwise."""
        best_of = self._effort.best_of
        return self._subject.model.stream(text, language=language, voice=voice, best_of=best_of, seed=seed)

    def stream_text(self, blocks: Iterable[Tensor], *, language: str | None, seed: int) -> Iterator[str]:
        """See `SpeechSystem.stream_text`."""
        own = self._effort
        for live in self._subject.model.listen(
            blocks, language=language, beams=own.beams, shifts=own.shifts, seed=seed
        ):
            yield " ".join(part for part in (live.text, live.agreed, live.guess) if part)
