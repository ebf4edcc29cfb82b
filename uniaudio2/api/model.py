"""The whole path as code: audio → codes → tokens → language model → codes → audio, or text.

``UniAudio2`` is what a user holds. It knows how long things may get, where long input is divided and how results are
joined; encoding, sequences and the generation loop live in their own files.

Shapes: ``B`` batch, ``N`` samples, ``K`` codebooks, ``T`` codec frames. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from uniaudio2.audio import (
    SAMPLE_RATE,
    AudioError,
    Recording,
    chunks_at_pauses,
    open_audio,
    resample,
    rms_dbfs,
    write_audio,
)
from uniaudio2.checkpoint import SaveDtype, load_codec, load_lm, open_folder, push_to_hub, save_pretrained
from uniaudio2.codec.quantize import check_codes
from uniaudio2.codes import (
    REASONING_RATE_HZ,
    UNIT,
    AudioCodes,
    num_units,
    published_pair,
    reasoning_length,
    reconstruction_length,
)
from uniaudio2.devices import choose_device
from uniaudio2.engine import (
    RECONSTRUCTION_PER_REASONING,
    Engine,
    GenerationRequest,
    GenerationResult,
    SamplingConfig,
    beam_search,
    derive_seed,
)
from uniaudio2.errors import UserError
from uniaudio2.lm.loss import text_nats
from uniaudio2.lm.quantize import QUANTIZED_TYPES, QuantizedLinear, quantize_weights
from uniaudio2.sequence import SequenceBuilder, voice_codes
from uniaudio2.speech_text import (
    Sentence,
    check_description,
    check_text,
    detect_language,
    is_han,
    plan_speech,
    speaking_time_s,
)
from uniaudio2.tasks import Part, Task, get_task, required
from uniaudio2.text import TextError, check_language, normalise_text
from uniaudio2.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from uniaudio2.codec.codec import Kind, ReasoningCodec
    from uniaudio2.codec.flow_matching import Solver
    from uniaudio2.lm.model import AudioLM

AudioInput: TypeAlias = "str | PathLike[str] | Recording | Tensor | np.ndarray[Any, Any]"

MAX_CHUNK_S = 10.0  # longer recordings are divided at pauses; nano learned from clips up to this length
VOICE_PROMPT_S = 3.0  # seconds of a voice prompt that are used, as in training
SILENCE_DBFS = -65.0  # a chunk below this has nothing to describe
SILENCE_CAPTION = "silence"
MAX_SOUND_S = 10.0
MOST_BEAMS, MOST_HEARINGS = 64, 16
BATCHES_HELD = 4  # batches of pieces that wait together, to be sorted by length
ENGINE_ROWS = 64  # cache rows of the engine: 8 sentences with 4 guided attempts each run together


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was found in it."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class TextResult:
    """What was said or heard in one recording; ``str()`` gives the text."""

    text: str
    segments: tuple[Segment, ...]  # in order, only those with text
    duration_s: float
    language: str | None = None  # as asked for; None for captions

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        segments = [
            {"start_s": round(part.start_s, 3), "end_s": round(part.end_s, 3), "text": part.text}
            for part in self.segments
        ]
        record: dict[str, Any] = {"text": self.text, "duration_s": round(self.duration_s, 3), "segments": segments}
        return record if self.language is None else {**record, "language": self.language}


@dataclass(frozen=True)
class AudioResult:
    """A generated waveform and how it came about."""

    audio: Tensor  # (1, N), 24 kHz
    text: str
    seed: int
    codes: tuple[AudioCodes, ...] = ()  # one per piece
    sample_rate: int = SAMPLE_RATE

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.audio.shape[-1] / self.sample_rate

    def save(self, path: str | PathLike[str]) -> None:
        """Write a 16-bit wav or flac file (``-`` for standard output); complete or not at all.

        Raises:
            AudioError: If it cannot be written.
        """
        write_audio(str(path), self.audio, self.sample_rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"text": self.text, "duration_s": round(self.duration_s, 3), "seed": self.seed}


@dataclass(frozen=True)
class SpeechResult(AudioResult):
    """Generated speech; one entry of ``sentences`` and of ``codes`` for each piece spoken."""

    sentences: tuple[Sentence, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        languages = sorted({sentence.language for sentence in self.sentences})
        return {**super().to_dict(), "language": "+".join(languages), "sentences": len(self.sentences)}


def open_recording(audio: AudioInput, sample_rate: int = SAMPLE_RATE) -> Recording:
    """Audio at 24 kHz that is read block by block, from a file, or from samples (N,), (1, N) or (channels, N).

    Args:
        audio: Path (``-`` for standard input), or samples in [-1, 1].
        sample_rate: Rate of samples given as such, Hz; files know theirs.

    Raises:
        AudioError: If there is nothing usable in it; the message says why.
    """
    if isinstance(audio, Recording):
        return audio
    if isinstance(audio, str | PathLike):
        return open_audio(str(audio))
    if not isinstance(audio, Tensor | np.ndarray | Sequence):
        raise AudioError(f"audio must be a path or samples, got {type(audio).__name__}")
    wave = torch.as_tensor(audio).detach().to("cpu")
    if not wave.is_floating_point():
        raise AudioError(f"samples must be floats in [-1, 1], got {wave.dtype}; divide 16-bit integers by 32768")
    wave = wave.float()
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2:
        raise AudioError(f"samples must be (N,), (1, N) or (channels, N), got {tuple(wave.shape)}")
    if wave.shape[0] > 64:
        raise AudioError(f"samples must be (channels, N), got {tuple(wave.shape)}; transpose them")
    wave = wave.mean(0, keepdim=True)
    if wave.shape[-1] == 0:
        raise AudioError("the audio holds no samples")
    if not torch.isfinite(wave).all():
        raise AudioError("the audio holds samples that are NaN or infinite")
    return Recording.of(resample(wave, sample_rate, SAMPLE_RATE))


def load_waveform(audio: AudioInput, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """All of a recording as a waveform (1, N) at 24 kHz; see `open_recording`."""
    return open_recording(audio, sample_rate).read()


def level_dbfs(audio: Tensor) -> float:
    """Level of a waveform (1, N) without its constant part, dB relative to full scale."""
    return rms_dbfs(audio - audio.mean())


@dataclass(frozen=True)
class _Defaults:
    """How a kind of output is drawn unless the user says otherwise."""

    sampling: SamplingConfig
    guidance: float = 1.0


# Choice: words are what the model thinks likeliest; sound is drawn, because the likeliest codes are dull and loop.
# Speech of given words is drawn more coldly: a bold draw mispronounces (chosen on sentences of no test, E19).
TEXT_DEFAULTS = _Defaults(SamplingConfig(temperature=0.0))
SPEECH_DEFAULTS = _Defaults(SamplingConfig(temperature=0.3, top_k=20), guidance=1.5)
AUDIO_DEFAULTS = _Defaults(SamplingConfig(temperature=0.8, top_k=50), guidance=1.5)


class _Effort(NamedTuple):
    """How hard a transcript is searched for; see `UniAudio2.transcribe`."""

    beams: int
    hearings: int


_GREEDY = _Effort(1, 1)


@dataclass(frozen=True)
class _Limits:
    """How much may be generated, from the length of the input."""

    max_tokens: int = 0  # text
    min_audio_s: float = 0.0
    max_audio_s: float = 0.0

    def frames(self) -> dict[str, tuple[int, int]]:
        """Least and most text ids, reasoning and reconstruction frames."""
        least, most = (max(1, round(seconds * REASONING_RATE_HZ)) for seconds in (self.min_audio_s, self.max_audio_s))
        return {"text": (0, self.max_tokens), **_frame_limits(least, most)}


def _frame_limits(least: int, most: int) -> dict[str, tuple[int, int]]:
    """Limits of both streams from those of the reasoning stream."""
    ratio = RECONSTRUCTION_PER_REASONING
    return {
        "reasoning": (least, most),
        "reconstruction": (max(1, int((least - 1) * ratio) + 1), math.ceil(most * ratio)),
    }


@dataclass(frozen=True)
class _Ask:
    """One generation: a row of the task table with its inputs."""

    task: str | Task
    values: Mapping[str, Any]
    language: str | None
    limits: _Limits
    shots: Sequence[Mapping[str, Any]] = ()  # complete examples, in front of the inputs


def _text_limits(audio_s: float) -> _Limits:
    """Choice: of 15 000 training clips in three languages none has more than 10 text tokens a second and 5 (E26)."""
    return _Limits(max_tokens=int(10 * audio_s) + 12)


def _speech_limits(expected_s: float) -> _Limits:
    """From a bit less than half to a bit more than double the usual speaking time."""
    return _Limits(min_audio_s=0.4 * expected_s, max_audio_s=2.2 * expected_s + 1.0)


def _sound_limits(duration_s: float | None) -> _Limits:
    if duration_s is None:
        return _Limits(min_audio_s=0.8, max_audio_s=MAX_SOUND_S)
    return _Limits(min_audio_s=duration_s, max_audio_s=duration_s)


def _seed(sampling: Mapping[str, Any]) -> int:
    seed = sampling.get("seed")
    return 0 if seed is None else int(seed)


def _check_count(name: str, count: int, most: int | None = None) -> None:
    if count < 1:
        raise UserError(f"{name} must be at least 1, got {count}")
    if most is not None and count > most:
        raise UserError(f"{name} must be at most {most}, got {count}")


def _drawing(defaults: _Defaults, sampling: Mapping[str, Any]) -> SamplingConfig:
    """How ids are drawn: the defaults of a kind of output, changed by what the user asks for."""
    given = {name: sampling[name] for name in ("temperature", "top_k", "top_p") if sampling.get(name) is not None}
    drawn = replace(defaults.sampling, **given)
    if given and "temperature" not in given and drawn.temperature == 0:
        drawn = replace(drawn, temperature=1.0)  # who asks for top-k or top-p asks to sample
    return drawn


def _hearings(audio: Tensor, count: int) -> list[Tensor]:
    """A waveform (1, N) behind silences that are spread evenly over one reasoning frame.

    Choice: where a frame begins decides which 5 Hz codes a sound falls into, so these renderings err differently.
    """
    frame = SAMPLE_RATE / REASONING_RATE_HZ
    return [torch.nn.functional.pad(audio, (round(index * frame / count), 0)) for index in range(count)]


def _with_pause(audio: Tensor, pause_s: float) -> Tensor:
    """Silence behind a waveform (1, N), whose last 5 ms are faded so that it does not click."""
    fade = min(round(0.005 * SAMPLE_RATE), audio.shape[-1])
    audio = audio.clone()
    if fade:
        audio[:, -fade:] *= torch.linspace(1, 0, fade)
    return torch.nn.functional.pad(audio, (0, round(pause_s * SAMPLE_RATE)))


def join_texts(texts: Sequence[str]) -> str:
    """Texts of consecutive pieces as one, without a space between Chinese characters."""
    joined = ""
    for text in texts:
        glue = " " if joined and not (is_han(joined[-1]) and is_han(text[0])) else ""
        joined += glue + text
    return joined


class UniAudio2:
    """Codec, language model and tokenizer of one model folder, ready to use.

    Args:
        codec: Audio to codes and back.
        lm: The language model; None for a codec alone.
        tokenizer: Of the text stream; None for a codec alone.
        name: Shown in reports.
        folder: Where it came from.
        compile: Whether the engine runs compiled code, see `Engine`.
    """

    def __init__(
        self,
        codec: ReasoningCodec,
        lm: AudioLM | None = None,
        tokenizer: TextTokenizer | None = None,
        *,
        name: str = "model",
        folder: Path | None = None,
        compile: bool = False,
    ) -> None:
        self.codec, self.lm, self.tokenizer, self.name, self.folder = codec.eval(), lm, tokenizer, name, folder
        self._compile, self._engine, self._making = compile, cast("Engine | None", None), threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str | None = None,
        *,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        compile: bool = False,
    ) -> UniAudio2:
        """Load a model folder; without ``source``, the model in the package.

        Args:
            source: Folder with ``config.yaml`` and weights, or a hub id ``owner/name``.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: Of the weights in memory; None keeps what the loader chooses. ``"int8"`` or ``"int4"`` hold the
                language model's in that form, see :func:`quantize_weights`.
            compile: Compile the language model's steps when they are first needed. It takes a minute or two once and
                pays for models that do not fit the processor's cache, and on a GPU; the shipped model is too small.

        Raises:
            ValueError: If the folder cannot be used, the device is not there, or the type is unknown.
        """
        place = choose_device(device)
        quantized, dtype = (dtype, None) if isinstance(dtype, str) else (None, dtype)
        if quantized is not None and quantized not in QUANTIZED_TYPES:
            raise UserError(f"unknown dtype {quantized!r}; give a torch dtype or one of: {', '.join(QUANTIZED_TYPES)}")
        folder = open_folder(source)
        name = folder.path.resolve().name
        codec = load_codec(folder, device=place, dtype=dtype)
        if not folder.has("lm"):
            return cls(codec, name=name, folder=folder.path)
        lm = load_lm(folder, device=place, dtype=dtype)
        if quantized is not None:
            quantize_weights(lm, quantized)
        tokenizer = TextTokenizer.load(folder.tokenizer, lm.config.text)
        if tokenizer.vocab_size > lm.config.text_vocab_size:
            raise UserError(
                f"{folder.tokenizer}: has {tokenizer.vocab_size} ids, the language model {lm.config.text_vocab_size}; "
                "copy the one that it was trained with"
            )
        return cls(codec, lm, tokenizer, name=name, folder=folder.path, compile=compile)

    def save_pretrained(self, folder: Path | str, *, dtype: SaveDtype = "float32") -> Path:
        """Write codec, language model and tokenizer as a model folder; see `checkpoint.save_pretrained`.

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

    # ------------------------------------------------------------------------------------------- audio and codes

    @property
    def device(self) -> torch.device:
        """Where the codec is."""
        return self.codec.device

    def check_audio(self, audio: AudioInput, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """See `load_waveform`."""
        return load_waveform(audio, sample_rate)

    def encode(self, audio: AudioInput, *, sample_rate: int = SAMPLE_RATE) -> AudioCodes:
        """Turn audio of any length into codes, (1, K, T) each; deterministic, in constant memory for files."""
        return self.codec.encode_stream(block[None] for block in open_recording(audio, sample_rate).blocks())

    def decode(self, codes: AudioCodes, **options: Any) -> Tensor:
        """Turn the codes of one clip into a waveform (1, N) of the exact length; options as for `decode_stream`."""
        pieces = list(self.decode_stream(codes, **options))
        return torch.cat(pieces, dim=-1) if pieces else torch.zeros(1, 0)

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
            ValueError: If there are several clips, or codes or an option are out of range.
        """
        if len(codes) != 1:
            raise UserError(f"one clip at a time, got a batch of {len(codes)}")
        if codes.reconstruction.shape[-1] == 0:
            raise UserError("there is nothing to hear in these codes: they have no reconstruction frames")
        meaning = self.codec.config.reasoning.quantizer  # checked here because decoding may leave this stream out
        check_codes(codes.reasoning, meaning.num_codebooks, meaning.codebook_size, "reasoning codes")
        pieces = self.codec.decode_stream(
            codes,
            steps=steps,
            guidance_scale=guidance,
            solver=solver,
            noise_scale=temperature,
            kind=kind,
            generator=self._generator(seed),
        )
        for piece in pieces:
            yield piece[0].cpu()

    def encode_many(self, clips: Sequence[Tensor], *, batch_s: float = 60.0) -> list[AudioCodes]:
        """Codes of several waveforms (1, N); those of one padded length are encoded together, with equal results."""
        groups: dict[int, list[int]] = {}
        for index, clip in enumerate(clips):
            groups.setdefault(num_units(clip.shape[-1]), []).append(index)
        results: list[AudioCodes | None] = [None] * len(clips)
        for units, members in groups.items():
            at_once = max(1, int(batch_s / (units * UNIT / SAMPLE_RATE)))
            for start in range(0, len(members), at_once):
                part = members[start : start + at_once]
                padded = [
                    torch.nn.functional.pad(clips[index], (0, units * UNIT - clips[index].shape[-1])) for index in part
                ]
                codes = self.codec.encode(torch.stack(padded).to(self.device))
                for row, index in enumerate(part):
                    length = clips[index].shape[-1]
                    results[index] = AudioCodes(
                        codes.reasoning[row : row + 1, :, : reasoning_length(length)],
                        codes.reconstruction[row : row + 1, :, : reconstruction_length(length)],
                        length,
                    )
        return cast("list[AudioCodes]", results)

    def _generator(self, seed: int) -> torch.Generator:
        """Draws on the CPU, so that a seed gives the same noise on every device."""
        return torch.Generator().manual_seed(seed)

    # ------------------------------------------------------------------------------------------- audio to text

    def transcribe(
        self,
        audio: AudioInput | Sequence[AudioInput],
        *,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        max_chunk_s: float = MAX_CHUNK_S,
        batch_size: int = 8,
        beams: int | None = None,
        hearings: int | None = None,
        **sampling: Any,
    ) -> Any:
        """Write down what is said.

        Args:
            audio: A file, or samples; or a list of them, worked on together. Long recordings are divided at pauses.
            language: ``en``, ``zh`` or ``yue``; None lets the model find out.
            sample_rate: Rate of samples given as such, Hz.
            max_chunk_s: Longest piece worked on at once.
            batch_size: Pieces worked on together.
            beams: Hypotheses that are followed at once; None takes the model's own number (nano: 4), 1 is quickest.
            hearings: From how many instants on each piece is encoded, for one text that suits all; None takes the
                model's own number (nano: 3), 1 is quickest.
            **sampling: ``seed``, ``temperature``, ``top_k``, ``top_p``, ``guidance``; None is the task's default. A
                transcript that is drawn is one draw, without beams and hearings.

        Returns:
            A `TextResult`, or a list of them for a list. ``segments`` has times.

        Raises:
            ValueError: If audio, language or an option cannot be used.
        """
        code = check_language(language) if language is not None else None
        task = "yue_asr" if code == "yue" else "asr"
        effort = self._search_effort(beams, hearings, sampling)
        return self._describe(audio, task, code, "", sample_rate, max_chunk_s, batch_size, sampling, effort)

    def _search_effort(self, beams: int | None, hearings: int | None, sampling: Mapping[str, Any]) -> _Effort:
        """What the user asked for, else the model's own numbers, else (when ids are drawn) one of each."""
        config = self._need_lm()[0].config
        draws = not _drawing(TEXT_DEFAULTS, sampling).greedy
        _check_count("beams", 1 if beams is None else beams, MOST_BEAMS)
        _check_count("hearings", 1 if hearings is None else hearings, MOST_HEARINGS)
        if draws and max(beams or 1, hearings or 1) > 1:
            raise UserError("beams and hearings look for the likeliest text: leave out temperature, top-k and top-p")
        return _Effort(
            beams if beams is not None else 1 if draws else config.beams,
            hearings if hearings is not None else 1 if draws else config.hearings,
        )

    def caption(
        self,
        audio: AudioInput | Sequence[AudioInput],
        *,
        sample_rate: int = SAMPLE_RATE,
        max_chunk_s: float = MAX_CHUNK_S,
        batch_size: int = 8,
        **sampling: Any,
    ) -> Any:
        """Say in words what is heard; arguments and result as for `transcribe`, without language, beams and hearings.

        The captions of a long recording's pieces are joined, each said once.
        """
        return self._describe(
            audio, "audio_caption", None, SILENCE_CAPTION, sample_rate, max_chunk_s, batch_size, sampling
        )

    def _describe(
        self,
        audio: AudioInput | Sequence[AudioInput],
        task: str,
        language: str | None,
        silence: str,
        sample_rate: int,
        max_chunk_s: float,
        batch_size: int,
        sampling: Mapping[str, Any],
        effort: _Effort = _GREEDY,
    ) -> Any:
        """Both ways from audio to text: divide, skip silence, generate in batches, join; in constant memory."""
        many = isinstance(audio, list | tuple)
        recordings = [
            open_recording(one, sample_rate) for one in cast("Sequence[AudioInput]", audio if many else [audio])
        ]
        found: list[list[Segment]] = [[] for _ in recordings]
        pieces = (
            (row, start, chunk)
            for row, recording in enumerate(recordings)
            for start, chunk in chunks_at_pauses(recording.blocks(), max_chunk_s)
        )
        while group := list(islice(pieces, BATCHES_HELD * batch_size)):
            texts = self._texts([chunk for _, _, chunk in group], task, language, silence, batch_size, sampling, effort)
            for (row, start, chunk), text in zip(group, texts, strict=True):
                if text:
                    found[row].append(Segment(start / SAMPLE_RATE, (start + chunk.shape[-1]) / SAMPLE_RATE, text))
        results = []
        for recording, segments in zip(recordings, found, strict=True):
            said = [segment.text for segment in segments]
            if task == "audio_caption":
                heard = [text for text in dict.fromkeys(said) if text != silence] or said[:1]
                text = ", then ".join(heard)
            else:
                text = join_texts(said)
            results.append(TextResult(text, tuple(segments), recording.duration_s, language))
        return results if many else results[0]

    def _texts(
        self,
        chunks: Sequence[Tensor],
        task: str,
        language: str | None,
        silence: str,
        batch_size: int,
        sampling: Mapping[str, Any],
        effort: _Effort,
    ) -> list[str]:
        """What the model hears in each of several waveforms (1, N); ``silence`` where there is nothing to hear."""
        texts = [silence] * len(chunks)
        loud = [index for index, chunk in enumerate(chunks) if level_dbfs(chunk) >= SILENCE_DBFS]
        # Choice: pieces of like length together, so that little of a batch waits for its longest member.
        loud.sort(key=lambda index: chunks[index].shape[-1])
        for first in range(0, len(loud), batch_size):
            batch = loud[first : first + batch_size]
            waves = [wave for index in batch for wave in _hearings(chunks[index], effort.hearings)]
            asks = [
                _Ask(task, {"audio": codes}, language, _text_limits(codes.duration_s))
                for codes in self.encode_many(waves)
            ]
            answers = self._generate(asks, sampling) if effort == _GREEDY else self._search(asks, effort, sampling)
            for index, answer in zip(batch, answers, strict=True):
                texts[index] = str(next(iter(answer.values()))).strip()
        return texts

    def _search(
        self, asks: Sequence[_Ask], effort: _Effort, sampling: Mapping[str, Any]
    ) -> list[dict[str, str | AudioCodes]]:
        """The likeliest text for every ``effort.hearings`` consecutive requests together."""
        builder = self.sequences
        requests = [self._request(builder, ask, sampling, _seed(sampling)) for ask in asks]
        groups = [requests[first : first + effort.hearings] for first in range(0, len(requests), effort.hearings)]
        results = beam_search(
            self.engine,
            [group[0] for group in groups],
            renderings=[[request.prompt for request in group[1:]] for group in groups],
            beams=effort.beams,
        )
        return [_outputs(result) for result in results]

    # ------------------------------------------------------------------------------------------- text to audio

    def speak(
        self,
        text: str,
        *,
        voice: AudioInput | None = None,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        batch_size: int = 8,
        steps: int | None = None,
        best_of: int | None = None,
        **sampling: Any,
    ) -> SpeechResult:
        """Read a text aloud, sentence by sentence in one voice.

        Args:
            text: Up to 100 000 characters.
            voice: About 3 s of the voice to speak with; None is the house voice of the language.
            language: ``en``, ``zh`` or ``yue``; None finds out, sentence by sentence.
            sample_rate: Rate of ``voice`` where it is given as samples, Hz.
            batch_size: Sentences worked on together.
            steps: Of the decoder that makes the wave.
            best_of: Attempts per sentence, of which the one is kept in which the model itself hears the text best;
                None takes the model's own number (nano: 4), 1 is quickest.
            **sampling: ``seed``, ``temperature``, ``top_k``, ``top_p``, ``guidance``; None is the task's default. The
                same ``seed`` gives the same speech.

        Raises:
            ValueError: If there is nothing to say, or the language or the voice cannot be used.
        """
        sentences = plan_speech(text, language)
        parts = list(self._speak_parts(sentences, voice, sample_rate, batch_size, steps, best_of, sampling))
        return SpeechResult(
            audio=torch.cat([audio for audio, _ in parts], dim=-1),
            text=text,
            seed=_seed(sampling),
            codes=tuple(codes for _, codes in parts),
            sentences=tuple(sentences),
        )

    def stream(
        self,
        text: str,
        *,
        voice: AudioInput | None = None,
        language: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        steps: int | None = None,
        best_of: int | None = None,
        **sampling: Any,
    ) -> Iterator[Tensor]:
        """Like `speak`, but yields the waveform (1, N) of each sentence, with its pause, as soon as it is made.

        Joined, the pieces are what `speak` gives with the same seed and ``batch_size=1``.
        """
        sentences = plan_speech(text, language)
        for audio, _ in self._speak_parts(sentences, voice, sample_rate, 1, steps, best_of, sampling):
            yield audio

    def _speak_parts(
        self,
        sentences: Sequence[Sentence],
        voice: AudioInput | None,
        sample_rate: int,
        batch_size: int,
        steps: int | None,
        best_of: int | None,
        sampling: Mapping[str, Any],
    ) -> Iterator[tuple[Tensor, AudioCodes]]:
        """Waveform (1, N), with the pause behind it, and codes of each sentence."""
        attempts = best_of
        if attempts is None:  # greedy attempts would all be the same
            greedy = _drawing(SPEECH_DEFAULTS, sampling).greedy
            attempts = 1 if greedy else self._need_lm()[0].config.speech_attempts
        _check_count("best_of", attempts)
        prompt = None if voice is None else self._voice(load_waveform(voice, sample_rate))
        seed = _seed(sampling)
        for first in range(0, len(sentences), batch_size):
            batch = sentences[first : first + batch_size]
            asks, seeds = [], []
            for number, sentence in enumerate(batch, first):
                words = self._spoken(sentence.text, sentence.language)
                task = "yue_tts" if sentence.language == "yue" else "tts"
                values: dict[str, Any] = {"transcription": words}
                if prompt is not None:
                    values["voice"] = prompt
                limits = _speech_limits(speaking_time_s(words))
                asks += [_Ask(task, values, sentence.language, limits)] * attempts
                seeds += [derive_seed(seed, number, attempt) for attempt in range(attempts)]
            made = [cast(AudioCodes, answer["audio"]) for answer in self._generate(asks, sampling, seeds=seeds)]
            for number, sentence in enumerate(batch, first):
                mine = slice((number - first) * attempts, (number - first + 1) * attempts)
                waves = [self.decode(codes, seed=derive_seed(seed, number), steps=steps) for codes in made[mine]]
                best = self._best_heard(waves, asks[mine.start])
                pause_s = 0.0 if number == len(sentences) - 1 else sentence.pause_after_s
                yield _with_pause(waves[best], pause_s), made[mine][best]

    def _best_heard(self, waves: Sequence[Tensor], ask: _Ask) -> int:
        """Which of several attempts at one sentence the model itself hears best: fewest nats for its text.

        Choice: it listens to the waves, not to the codes that it has just made, which it hears too well; nats tell
        more than the errors of a transcript (docs/experiments.md, E35).
        """
        if len(waves) == 1:
            return 0
        words, task = ask.values["transcription"], "yue_asr" if ask.language == "yue" else "asr"
        lm, builder = self._need_lm()[0], self.sequences
        batch = builder.collate(
            [
                builder.example(task, {"audio": codes, "transcription": words}, language=ask.language)
                for codes in self.encode_many(waves)
            ]
        ).to(lm.device)
        each = text_nats(lm, batch.tokens, batch.mask, batch.loss_mask)
        return min(range(len(waves)), key=lambda attempt: each[attempt])

    def generate_sound(
        self, text: str, *, duration_s: float | None = None, steps: int | None = None, **sampling: Any
    ) -> AudioResult:
        """Make the sound that a text describes.

        Args:
            text: Such as "a dog barking".
            duration_s: Length in seconds; None leaves it to the model.
            steps: Of the decoder that makes the wave.
            **sampling: As for `speak`.

        Raises:
            ValueError: If the text is empty or the duration is not above 0.
        """
        if duration_s is not None and not duration_s > 0:
            raise UserError(f"duration_s must be above 0, got {duration_s}")
        words = self._spoken(check_description(text), "en")
        answer = self._generate([_Ask("tta", {"caption": words}, None, _sound_limits(duration_s))], sampling)[0]
        codes = cast(AudioCodes, answer["audio"])
        seed = _seed(sampling)
        return AudioResult(self.decode(codes, seed=seed, kind="sound", steps=steps), text, seed, (codes,))

    # ------------------------------------------------------------------------------------------- any task

    def run(
        self,
        task: str | Task,
        values: Mapping[str, Any],
        *,
        shots: Sequence[tuple[Any, Any]] = (),
        language: str | None = None,
        max_duration_s: float | None = None,
        sample_rate: int = SAMPLE_RATE,
        steps: int | None = None,
        **sampling: Any,
    ) -> dict[str, str | AudioResult | AudioCodes]:
        """Run any row of the task table.

        Args:
            task: Name, such as ``asr`` (see ``uniaudio2 run list``), or a row of your own.
            values: The row's inputs by name: text, a file (audio or codes), samples, or `AudioCodes`.
            shots: Examples of the task that come first, in order: pairs of inputs and outputs. Each side is a mapping
                of names to values as above, or the value alone where the row needs only one; None where it needs none.
            language: Named in the prompt where the model was trained so.
            max_duration_s: Longest audio to make, seconds; None derives it from the input.
            sample_rate: Rate of samples given as such, Hz.
            steps: Of the decoder that makes the wave.
            **sampling: As for `speak`.

        Returns:
            The row's outputs by name: text, `AudioResult`, or `AudioCodes` where only reasoning codes are made.

        Raises:
            ValueError: If the task or a value is unknown, or an input is missing or cannot be used.
        """
        row = get_task(task)
        code = check_language(language) if language is not None else row.language
        inputs = self._read_values(row, row.inputs, values, code, sample_rate)
        examples = [self._read_shot(row, number, shot, code, sample_rate) for number, shot in enumerate(shots, 1)]
        limits = _limits(row, inputs)
        if max_duration_s is not None:
            limits = replace(limits, min_audio_s=min(limits.min_audio_s, max_duration_s), max_audio_s=max_duration_s)
        answer = self._generate([_Ask(row, inputs, code, limits, examples)], sampling)[0]
        seed = _seed(sampling)
        text = " ".join(str(values[name]) for name, value in inputs.items() if isinstance(value, str))
        results: dict[str, str | AudioResult | AudioCodes] = {}
        for name, value in answer.items():
            if isinstance(value, str) or value.reconstruction.shape[-1] == 0:
                results[name] = value
            else:
                audio = self.decode(value, seed=seed, kind=row.kind, steps=steps)
                results[name] = AudioResult(audio, text, seed, (value,))
        return results

    def _read_values(
        self, row: Task, parts: Sequence[Part], values: Mapping[str, Any], language: str | None, sample_rate: int
    ) -> dict[str, Any]:
        """Values of these parts of a row as the sequence builder wants them.

        Raises:
            ValueError: If a value is unknown, missing, or of the wrong kind.
        """
        kinds: dict[str, str] = {}
        for part in parts:
            kinds.setdefault(part.value, part.kind)
        side = "output" if parts == row.outputs else "input"
        unknown = [name for name in values if name not in kinds]
        if unknown:
            raise UserError(f"task {row.name!r} has no {side} {unknown[0]!r}; it takes {', '.join(kinds) or 'none'}")
        missing = [name for name in required(parts) if name not in values]
        if missing:
            raise UserError(f"task {row.name!r} needs {' and '.join(missing)}")
        read: dict[str, Any] = {}
        for name, value in values.items():
            if kinds[name] == "text":
                if not isinstance(value, str):
                    raise UserError(f"{name!r} of task {row.name!r} must be text, got {type(value).__name__}")
                words = check_text(value, purpose=f"for {name!r}")
                read[name] = self._spoken(words, language or detect_language(words))
            elif kinds[name] == "voice":
                read[name] = self._voice(load_waveform(value, sample_rate))
            else:
                read[name] = self._codes_of(value, sample_rate)
        return read

    def _codes_of(self, value: AudioInput | AudioCodes, sample_rate: int) -> AudioCodes:
        """Codes as they are, from a file of codes, or of audio."""
        if isinstance(value, AudioCodes):
            return value
        if isinstance(value, str | PathLike) and (
            str(value).endswith(".safetensors") or published_pair(str(value)) is not None
        ):
            return AudioCodes.load(str(value))
        return self.encode(value, sample_rate=sample_rate)

    def _read_shot(
        self, row: Task, number: int, shot: tuple[Any, Any], language: str | None, sample_rate: int
    ) -> dict[str, Any]:
        """One example as the sequence builder wants it: all values of the row by name."""
        if not isinstance(shot, tuple | list) or len(shot) != 2:
            raise UserError(f"shot {number} must be a pair (input, output), got {type(shot).__name__}")
        try:
            inputs, outputs = (
                self._read_values(row, parts, _by_name(row, parts, side), language, sample_rate)
                for parts, side in zip((row.inputs, row.outputs), shot, strict=True)
            )
        except UserError as error:
            raise UserError(f"shot {number}: {error}") from None
        for name in inputs.keys() & outputs.keys():  # one recording, whose streams lie on both sides
            given, made = inputs[name], outputs[name]
            first = any(part.kind == "reasoning" and part.value == name for part in row.inputs)
            reasoning, reconstruction = (given, made) if first else (made, given)
            outputs[name] = (reasoning.reasoning[0], reconstruction.reconstruction[0])
        return {**inputs, **outputs}

    def _voice(self, audio: Tensor) -> Tensor:
        """Reconstruction codes (K, T) of a voice prompt, from the loudest 3 s of the recording."""
        if level_dbfs(audio) < SILENCE_DBFS:
            raise AudioError("the voice prompt is silent: give about 3 s of one person speaking")
        length = round(VOICE_PROMPT_S * SAMPLE_RATE)
        if audio.shape[-1] > length:
            hop = SAMPLE_RATE // 10
            power = torch.nn.functional.avg_pool1d(audio.square()[None], length, hop)[0, 0]
            start = int(power.argmax()) * hop
            audio = audio[:, start : start + length]
        return voice_codes(self.encode(audio).reconstruction[0])

    def _spoken(self, text: str, language: str) -> str:
        """The text in the form the model learned: models trained here read normalised text."""
        lm, _ = self._need_lm()
        if lm.config.prompt_style != "short":
            return text.strip()
        words = normalise_text(text, language)
        if not words:
            raise TextError(f"there is nothing to say in {text[:40]!r}: give at least one word")
        return words

    @property
    def sequences(self) -> SequenceBuilder:
        """Builds this model's sequences: prompts, training examples and batches of them."""
        lm, tokenizer = self._need_lm()
        return SequenceBuilder(tokenizer, lm.config.audio, text=lm.config.text, prompt_style=lm.config.prompt_style)

    @property
    def engine(self) -> Engine:
        """The engine that serves all requests to this model, from any thread; made when it is first needed."""
        lm, _ = self._need_lm()
        with self._making:
            if self._engine is None:
                self._engine = Engine(lm, self.sequences, max_batch=ENGINE_ROWS, compile=self._compile)
            return self._engine

    def _need_lm(self) -> tuple[AudioLM, TextTokenizer]:
        if self.lm is None or self.tokenizer is None:
            raise UserError(f"model {self.name!r} is a codec alone: it can encode and decode only")
        return self.lm, self.tokenizer

    def _generate(
        self, asks: Sequence[_Ask], sampling: Mapping[str, Any], *, seeds: Sequence[int] | None = None
    ) -> list[dict[str, str | AudioCodes]]:
        """Run requests together; each gives its outputs by name.

        Every request draws from a seed of its own, so its result does not depend on the others; without ``seeds`` all
        have the one of ``sampling``.
        """
        builder = self.sequences
        drawn = [_seed(sampling)] * len(asks) if seeds is None else seeds
        requests = [self._request(builder, ask, sampling, seed) for ask, seed in zip(asks, drawn, strict=True)]
        return [_outputs(result) for result in self.engine.generate(requests)]

    def _request(
        self, builder: SequenceBuilder, ask: _Ask, sampling: Mapping[str, Any], seed: int
    ) -> GenerationRequest:
        """One generation request, from the task's defaults and what the user asked for."""
        row = get_task(ask.task)
        unknown = set(sampling) - {"seed", "temperature", "top_k", "top_p", "guidance"}
        if unknown:
            raise TypeError(f"unknown sampling argument {sorted(unknown)[0]!r}")
        speaks = row.makes_audio and "transcription" in row.values
        defaults = SPEECH_DEFAULTS if speaks else AUDIO_DEFAULTS if row.makes_audio else TEXT_DEFAULTS
        drawn = _drawing(defaults, sampling)
        guidance = sampling.get("guidance")
        if guidance is None:
            guidance = defaults.guidance if row.guidance else 1.0
        elif guidance != 1.0 and not row.guidance:
            raise UserError(f"task {row.name!r} has no guidance: leave --guidance out or give 1")
        prompt = builder.prompt(row, ask.values, shots=ask.shots, language=ask.language)
        limits = ask.limits.frames()
        room = self._need_lm()[0].config.max_positions - len(prompt) - 8
        if room < 16:
            remedy = "fewer or shorter shots, or shorter audio or text" if ask.shots else "shorter audio or text"
            raise UserError(
                f"the input of task {row.name!r} is too long for this model ({len(prompt)} positions of "
                f"{room + len(prompt) + 8}): give {remedy}"
            )
        if row.makes_audio:
            longest = int(room / (1 + RECONSTRUCTION_PER_REASONING)) - 4
            most = min(limits["reasoning"][1], max(1, longest))
            limits = _frame_limits(min(limits["reasoning"][0], most), most)
        else:
            limits = {"text": (0, min(limits["text"][1], room))}
        return GenerationRequest(prompt, sampling=drawn, guidance_scale=guidance, seed=seed, limits=limits)


def _all_text(inputs: Mapping[str, Any]) -> str:
    """All texts among the inputs."""
    return " ".join(value for value in inputs.values() if isinstance(value, str))


def _limits(row: Task, inputs: Mapping[str, Any]) -> _Limits:
    """How much a row may generate, from the inputs it has."""
    longest_s = max((value.duration_s for value in inputs.values() if isinstance(value, AudioCodes)), default=0.0)
    text = _all_text(inputs)
    if not row.makes_audio:
        return _text_limits(longest_s) if longest_s else _Limits(max_tokens=512)
    if row.length_rule == "spoken":
        return _speech_limits(speaking_time_s(text))
    if row.length_rule == "sound":
        return _sound_limits(None)
    if row.length_rule == "copied":  # audio in, audio out: about as long as what came in
        return _Limits(max_audio_s=longest_s * 1.5 + 1.0)
    return _Limits(max_audio_s=max(MAX_SOUND_S, 2.0 * speaking_time_s(text)))


def _by_name(row: Task, parts: Sequence[Part], side: Any) -> Mapping[str, Any]:
    """One side of a shot by names: a mapping as it is, a value alone for the one value that these parts need."""
    if isinstance(side, Mapping):
        return side
    names = required(parts)
    if len(names) == 1:
        return {names[0]: side}
    if names:
        wanted = " and ".join(names)
        raise UserError(f"task {row.name!r} needs {wanted} on this side: give a mapping of names to values")
    if side is not None:
        raise UserError(f"task {row.name!r} takes no input: give None in its place")
    return {}


def _outputs(result: GenerationResult) -> dict[str, str | AudioCodes]:
    """Text, or codes, by the name of the value; a stream that the task does not make has no frames."""
    outputs: dict[str, str | AudioCodes] = {}
    for value in dict.fromkeys(part.value for part in result.parts):
        parts = {part.kind: part for part in result.parts if part.value == value}
        if "text" in parts:
            outputs[value] = parts["text"].text or ""
            continue
        streams = {kind: part.codes for kind, part in parts.items() if part.codes is not None}
        nothing = next(iter(streams.values()))[:, :0]
        outputs[value] = AudioCodes(
            streams.get("reasoning", nothing)[None], streams.get("reconstruction", nothing)[None], None
        )
    return outputs
