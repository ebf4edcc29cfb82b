"""A loaded model: codec, language model and tokenizer of one folder; loading, saving, and audio to codes and back.

Shapes: ``B`` batch, ``N`` samples, ``K`` codebooks, ``T`` codec frames. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypedDict, Unpack, cast

import torch
from torch import Tensor

from uniaudio2.api.inputs import AudioInput, open_recording
from uniaudio2.api.settings import ModelFacts
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.checkpoint import SaveDtype, load_codec, load_lm, open_folder, push_to_hub, save_pretrained
from uniaudio2.checks import check_optional
from uniaudio2.codes import AudioCodes
from uniaudio2.devices import choose_device
from uniaudio2.engine import Engine
from uniaudio2.errors import UserError
from uniaudio2.lm.quantize import QUANTIZED_TYPES, QuantizedLinear, quantize_weights
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.storage.voices import NamedVoice, read_voices
from uniaudio2.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from uniaudio2.codec.codec import Kind
    from uniaudio2.codec.contract import Codec
    from uniaudio2.codec.decoder import Solver
    from uniaudio2.lm.model import AudioLM

ENGINE_ROWS = 64  # cache rows of the engine: 8 sentences with 4 guided attempts each run together
MOST_STEPS = 1000
DTYPES: dict[str, torch.dtype | None] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    **dict.fromkeys(QUANTIZED_TYPES),
}
"""Names of types of weights; 8 and 4 bits are made of what the loader chooses."""
MOST_SEED = 2**63 - 1


class DecodeOptions(TypedDict, total=False):
    """How codes are turned into a waveform; see `Core.decode_stream`."""

    seed: int
    kind: Kind
    guidance: float | None
    steps: int | None
    solver: Solver | None
    temperature: float | None


class Core:
    """Codec, language model and tokenizer of one model folder.

    Args:
        codec: Audio to codes and back.
        lm: The language model; None for a codec alone.
        tokenizer: Of the text stream; None for a codec alone.
        name: Shown in reports.
        folder: Where it came from.
        facts: What its folder says about its use; None: the defaults.
        compile: Whether the engine runs compiled code, see `Engine`.
    """

    def __init__(
        self,
        codec: Codec,
        lm: AudioLM | None = None,
        tokenizer: TextTokenizer | None = None,
        *,
        name: str = "model",
        folder: Path | None = None,
        facts: ModelFacts | None = None,
        compile: bool = False,
    ) -> None:
        self.codec, self.lm, self.tokenizer, self.name, self.folder = codec.eval(), lm, tokenizer, name, folder
        self.facts = facts or ModelFacts(name=name)
        self._compile, self._engine, self._making = compile, cast("Engine | None", None), threading.Lock()
        self._process = os.getpid()
        self.voices: dict[str, NamedVoice] = read_voices(folder)
        """Voices that come with the model, by name."""

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str | None = None,
        *,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        compile: bool = False,
    ) -> Self:
        """Load a model folder; without ``source``, the model in the package.

        Args:
            source: Folder with ``config.yaml`` and weights, the name of a shipped model, or a hub id ``owner/name``.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: Of the weights in memory, a torch type or its name; None keeps what the loader chooses. ``"int8"`` or
                ``"int4"`` hold the language model's in that form, see :func:`quantize_weights`.
            compile: Compile the language model's steps when they are first needed. It takes a minute or two once and
                pays for models that do not fit the processor's cache, and on a GPU; the shipped model is too small.

        Raises:
            ValueError: If the folder cannot be used, the device is not there, or the type is unknown.
        """
        place = choose_device(device)
        quantized = dtype if isinstance(dtype, str) and dtype in QUANTIZED_TYPES else None
        if isinstance(dtype, str):
            if dtype not in DTYPES:
                raise UserError(f"unknown dtype {dtype!r}; give a torch dtype or one of: {', '.join(DTYPES)}")
            dtype = DTYPES[dtype]
        folder = open_folder(source)
        facts = ModelFacts.of(folder)
        name = facts.name
        codec = load_codec(folder, device=place, dtype=dtype)
        if codec.sample_rate != SAMPLE_RATE:
            raise UserError(
                f"{folder.path}: its codec works at {codec.sample_rate} Hz; only {SAMPLE_RATE} Hz are served"
            )
        if not folder.has("lm"):
            return cls(codec, name=name, folder=folder.path, facts=facts)
        lm = load_lm(folder, device=place, dtype=dtype)
        lm.config.audio.check_codec(codec.streams)
        if quantized is not None:
            quantize_weights(lm, quantized)
        tokenizer = TextTokenizer.load(folder.tokenizer, lm.config.text)
        if tokenizer.vocab_size > lm.config.text_vocab_size:
            raise UserError(
                f"{folder.tokenizer}: has {tokenizer.vocab_size} ids, the language model {lm.config.text_vocab_size}; "
                "copy the one that it was trained with"
            )
        return cls(codec, lm, tokenizer, name=name, folder=folder.path, facts=facts, compile=compile)

    def save_pretrained(self, folder: Path | str, *, dtype: SaveDtype = "float32") -> Path:
        """Write codec, language model, tokenizer and facts as a model folder; see `checkpoint.save_pretrained`.

        Raises:
            ValueError: If the language model's weights are held in 8 or 4 bits, which cannot be turned back.
        """
        if self.lm is not None and any(isinstance(module, QuantizedLinear) for module in self.lm.modules()):
            raise UserError(f"model {self.name!r} holds quantised weights: load it without dtype, then save it")
        return save_pretrained(self, folder, dtype=dtype)

    def push_to_hub(self, repo: str, *, dtype: SaveDtype = "float32", private: bool = True) -> str:
        """Save to a temporary folder and upload it to the Hugging Face hub as ``owner/name``; address of the commit."""
        with tempfile.TemporaryDirectory() as folder:
            return push_to_hub(self.save_pretrained(folder, dtype=dtype), repo, private=private)

    @property
    def device(self) -> torch.device:
        """Where the codec is."""
        return self.codec.device

    @property
    def parts(self) -> tuple[AudioLM, TextTokenizer]:
        """Language model and tokenizer.

        Raises:
            ValueError: If the model is a codec alone.
        """
        if self.lm is None or self.tokenizer is None:
            raise UserError(f"model {self.name!r} is a codec alone: it can encode and decode only")
        return self.lm, self.tokenizer

    @property
    def sequences(self) -> SequenceBuilder:
        """Builds this model's sequences: prompts, training examples and batches of them."""
        lm, tokenizer = self.parts
        return SequenceBuilder(tokenizer, lm.config.audio, text=lm.config.text, prompt_style=lm.config.prompt_style)

    @property
    def engine(self) -> Engine:
        """The engine that serves all requests to this model, from any thread; made when it is first needed."""
        lm, _ = self.parts
        self._check_process()
        with self._making:
            if self._engine is None:
                self._engine = Engine(lm, self.sequences, max_batch=ENGINE_ROWS, compile=self._compile)
            return self._engine

    def _check_process(self) -> None:
        """Refuse to work in the child of a fork, whose threads do not exist: torch would wait for them forever."""
        if os.getpid() != self._process and torch.get_num_threads() > 1:
            raise UserError(
                "this model was loaded before the process forked, and torch's threads are not in the child: load it "
                "there, start processes by multiprocessing's 'spawn', or call torch.set_num_threads(1) before loading"
            )

    def encode(self, audio: AudioInput, *, sample_rate: int = SAMPLE_RATE) -> AudioCodes:
        """Turn audio of any length into codes, (1, K, T) each; deterministic, in constant memory for files."""
        self._check_process()
        return self.codec.encode_stream(block[None] for block in open_recording(audio, sample_rate).blocks())

    def encode_many(self, clips: Sequence[Tensor], *, batch_s: float = 60.0) -> list[AudioCodes]:
        """Codes of several waveforms (1, N), each as if it were alone; see `Codec.encode_clips`."""
        self._check_process()
        return self.codec.encode_clips(clips, batch_s=batch_s)

    def decode(self, codes: AudioCodes, **options: Unpack[DecodeOptions]) -> Tensor:
        """Turn the codes of one clip into a waveform (1, N) of the exact length; options as for `decode_stream`."""
        pieces = list(self.decode_stream(codes, **options))
        return torch.cat(pieces, dim=-1) if pieces else torch.zeros(1, 0, dtype=torch.float32, device="cpu")

    def decode_stream(
        self,
        codes: AudioCodes,
        *,
        seed: int = 0,
        kind: Kind = "speech",
        guidance: float | None = None,
        steps: int | None = None,
        solver: Solver | None = None,
        temperature: float | None = None,
    ) -> Iterator[Tensor]:
        """Turn the codes of one clip into a waveform, piece by piece (1, n), in constant memory.

        Args:
            codes: Of one clip.
            seed: Draws the decoder's noise; the same seed gives the same waveform.
            kind: "speech", or "sound" for the preset's defaults of sounds and music that are made.
            guidance: How strictly the decoder follows the codes; None is the preset's for this kind, as for the next
                three.
            steps: Of the decoder.
            solver: "euler", or "midpoint", which takes twice as long for a step.
            temperature: Scale of the decoder's noise; 0 is free of chance.

        Raises:
            ValueError: At once, if there are several clips, or codes or an option are out of range.
        """
        self._check_process()
        if len(codes) != 1:
            raise UserError(f"one clip at a time, got a batch of {len(codes)}")
        finest = self.codec.streams[-1].name
        if codes[finest].shape[-1] == 0:
            raise UserError(f"there is nothing to hear in these codes: they have no {finest} frames")
        check_decoding(steps, seed)
        check_optional("guidance", guidance, 0.0, 100.0)
        check_optional("temperature", temperature, 0.0, 100.0)
        for name, value, known in (("kind", kind, ("speech", "sound")), ("solver", solver, ("euler", "midpoint"))):
            if value is not None and value not in known:
                raise UserError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")
        self.codec.check_codes(codes)  # here because decoding may leave a stream out
        pieces = self.codec.decode_stream(
            codes,
            steps=steps,
            guidance_scale=guidance,
            solver=solver,
            noise_scale=temperature,
            kind=kind,
            generator=torch.Generator().manual_seed(int(seed)),  # on the CPU: the same noise on every device
        )
        return (piece[0].cpu() for piece in pieces)


def check_decoding(steps: int | None, seed: int | None) -> None:
    """Refuse what the decoder cannot take, before anything is generated for it.

    Raises:
        ValueError: If a number is out of range.
    """
    check_optional("steps", steps, 1, MOST_STEPS, whole=True)
    check_optional("seed", seed, 0, MOST_SEED, whole=True)
