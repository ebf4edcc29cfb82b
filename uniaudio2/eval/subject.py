"""The model under test, as evaluations see it: a small interface, and `UniAudio2` behind it.

Anything with these methods can be evaluated, so that other systems and test doubles get the same treatment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.codec.codec import Kind, ReasoningCodec


@runtime_checkable
class Subject(Protocol):
    """A model that can be evaluated. Waveforms are (1, N) at 24 kHz."""

    name: str

    def transcribe(self, clips: Sequence[Tensor], *, language: str | None, seed: int) -> list[str]:
        """What is said in each clip."""
        ...

    def caption(self, clips: Sequence[Tensor], *, seed: int) -> list[str]:
        """What is heard in each clip."""
        ...

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """The text read aloud."""
        ...

    def generate_sound(self, text: str, *, seed: int) -> Tensor:
        """The sound described."""
        ...

    def encode(self, clips: Sequence[Tensor]) -> list[AudioCodes]:
        """Codes of each clip."""
        ...

    def decode(self, codes: AudioCodes, *, seed: int, kind: Kind = "speech") -> Tensor:
        """The waveform of one clip's codes, by the decoder's defaults for speech and recordings or for made sounds."""
        ...


@runtime_checkable
class HasAutoencoder(Protocol):
    """A subject whose autoencoder can be heard without the codes: the upper bound of its decoder."""

    def autoencode(self, clip: Tensor) -> Tensor:
        """A clip through the autoencoder alone."""
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A subject whose decoder can be told how many steps to take."""

    def decode_in(self, steps: int, codes: AudioCodes, *, seed: int, kind: Kind = "speech") -> Tensor:
        """As `Subject.decode`, in so many steps."""
        ...


@runtime_checkable
class HasTextDecoder(Protocol):
    """A subject whose codec can say what its reasoning codes mean."""

    def read_reasoning(self, codes: AudioCodes) -> str:
        """Text or caption from reasoning codes alone."""
        ...


@runtime_checkable
class HasStreams(Protocol):
    """A subject that describes the streams of its codes."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Streams in order."""
        ...


@dataclass(frozen=True)
class Effort:
    """How hard a model tries; None is what it does by itself.

    Attributes:
        best_of: Attempts at every sentence that is spoken.
        beams: Hypotheses of every transcript.
        shifts: Shifted encodings of a recording that it must suit.
    """

    best_of: int | None = None
    beams: int | None = None
    shifts: int | None = None

    def given(self) -> dict[str, int]:
        """What was asked for."""
        return {name: value for name, value in vars(self).items() if value is not None}


class PipelineSubject:
    """`UniAudio2` as a subject.

    Args:
        model: The model.
        text_decoder: The codec's own text decoder, if the model folder has one.
        tokenizer: Turns what the text decoder says into text; None takes the model's.
        batch_size: Clips worked on together.
        effort: How hard the model tries.
        sampling: Options for what is generated (``temperature``, ``guidance`` ...); the task's defaults if empty.
        reading: The same for transcripts.
    """

    def __init__(
        self,
        model: UniAudio2,
        *,
        text_decoder: Any = None,
        tokenizer: Any = None,
        batch_size: int = 8,
        effort: Effort = Effort(),
        sampling: dict[str, Any] | None = None,
        reading: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.name = model, model.name
        self._text_decoder, self._tokenizer = text_decoder, tokenizer or model.tokenizer
        self._batch_size, self._effort = batch_size, effort
        self._sampling, self._reading = sampling or {}, reading or {}

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        device: str = "cpu",
        **options: Any,
    ) -> PipelineSubject:
        """Load a model folder (None: the model in the package) with its text decoder, if it has one."""
        from uniaudio2.api.model import UniAudio2

        model = UniAudio2.from_pretrained(source, device=device)
        return cls.around(model, **options)

    @classmethod
    def around(
        cls,
        model: UniAudio2,
        **options: Any,
    ) -> PipelineSubject:
        """A loaded model, with the text decoder of its folder if there is one."""
        from uniaudio2.checkpoint import load_text_decoder, open_folder
        from uniaudio2.tokenizer import TextTokenizer

        decoder = tokenizer = None
        if model.folder is not None:
            folder = open_folder(model.folder)
            if folder.has("text_decoder"):
                decoder = load_text_decoder(folder, device=model.device).eval()
                tokenizer = model.tokenizer or TextTokenizer.load(folder.tokenizer)
        return cls(model, text_decoder=decoder, tokenizer=tokenizer, **options)

    def transcribe(self, clips: Sequence[Tensor], *, language: str | None, seed: int) -> list[str]:
        """See `Subject.transcribe`."""
        found = self.model.transcribe(
            list(clips),
            language=language,
            batch_size=self._batch_size,
            beams=self._effort.beams,
            shifts=self._effort.shifts,
            seed=seed,
            **self._reading,
        )
        return [str(result) for result in found]

    def caption(self, clips: Sequence[Tensor], *, seed: int) -> list[str]:
        """See `Subject.caption`."""
        found = self.model.caption(list(clips), batch_size=self._batch_size, seed=seed, **self._sampling)
        return [str(result) for result in found]

    def speak(self, text: str, *, language: str, voice: Tensor | None, seed: int) -> Tensor:
        """See `Subject.speak`."""
        spoken = self.model.speak(
            text, language=language, voice=voice, best_of=self._effort.best_of, seed=seed, **self._sampling
        )
        return spoken.audio

    def generate_sound(self, text: str, *, seed: int) -> Tensor:
        """See `Subject.generate_sound`."""
        return self.model.generate_sound(text, seed=seed, **self._sampling).audio

    def encode(self, clips: Sequence[Tensor]) -> list[AudioCodes]:
        """See `Subject.encode`."""
        return self.model.encode_many(list(clips))

    def decode(self, codes: AudioCodes, *, seed: int, kind: Kind = "speech") -> Tensor:
        """See `Subject.decode`."""
        return self.model.decode(codes, seed=seed, kind=kind)

    def decode_in(self, steps: int, codes: AudioCodes, *, seed: int, kind: Kind = "speech") -> Tensor:
        """See `HasSteps`."""
        return self.model.decode(codes, seed=seed, kind=kind, steps=steps)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Streams of the model's codec."""
        return self.model.codec.streams

    @property
    def _reasoning_codec(self) -> ReasoningCodec:
        """The codec, where it has the parts of a ReasoningCodec."""
        from uniaudio2.codec.codec import ReasoningCodec

        if not isinstance(self.model.codec, ReasoningCodec):
            raise UserError(f"the codec of model {self.name!r} has no autoencoder and no reasoning of its own to show")
        return self.model.codec

    @torch.inference_mode()
    def autoencode(self, clip: Tensor) -> Tensor:
        """A clip through the codec's autoencoder, latents rounded as the decoder rounds them."""
        codec = self._reasoning_codec
        hop = int(codec.autoencoder.hop_length)
        padded = torch.nn.functional.pad(clip, (0, -clip.shape[-1] % hop))[None].to(self.model.device)
        return codec.autoencoder.decode(codec.autoencoder.encode(padded))[0, :, : clip.shape[-1]].cpu()

    @torch.inference_mode()
    def read_reasoning(self, codes: AudioCodes) -> str:
        """Text from the reasoning codes by the codec's own text decoder.

        Raises:
            ValueError: If the model folder has no text decoder.
        """
        if self._text_decoder is None or self._tokenizer is None:
            raise UserError(f"model {self.name!r} has no text_decoder.safetensors: its codes cannot be read as text")
        vectors = self._reasoning_codec.reasoning.decode(codes.reasoning.to(self.model.device))
        vectors = vectors[:, : self._text_decoder.config.max_frames]
        return self._tokenizer.decode(self._text_decoder.generate(vectors)[0])
