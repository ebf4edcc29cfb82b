"""What is compared: how a system serves one clip, how that is scored, and which figures come of it.

Every clip of a system becomes one record, a flat dictionary of numbers and texts; figures are means or pooled ratios of
records. A record is all that is kept, so that an interrupted comparison goes on and a finished one can be read anew.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, read_audio, resample, write_audio
from uniaudio2.codes import AudioCodes
from uniaudio2.errors import UserError
from uniaudio2.eval.audio_metrics import reconstruction_scores
from uniaudio2.eval.context import Clip
from uniaudio2.eval.judges import WORDS, Metric, text_errors
from uniaudio2.systems.contract import CodecSystem, SpeechSystem, StoredSystem, System

Record = dict[str, Any]


@dataclass
class Scorer:
    """What is the same for every system.

    Attributes:
        place: Folder for what the systems make.
        seed: Of every random choice.
        normaliser: Of texts.
        judges: Further judges by name: a waveform (1, N) at 24 kHz and a clip to figures.
    """

    place: Path
    seed: int = 0
    normaliser: str = "whisper"
    judges: Mapping[str, Callable[[Tensor, Clip], Record]] = field(default_factory=dict)

    def keep(self, wave: Tensor, rate: int, label: str, clip: Clip) -> tuple[Tensor, str]:
        """A waveform as it is after being written as a 16-bit file, at 24 kHz, and the file's name in the report."""
        name = f"audio/{file_name(label)}/{file_name(clip.example.id)}.wav"
        write_audio(self.place / name, wave, rate)
        return read_audio(self.place / name), name

    def judged(self, wave: Tensor, clip: Clip) -> Record:
        """What the further judges say."""
        return {key: value for judge in self.judges.values() for key, value in judge(wave, clip).items()}


def file_name(text: str) -> str:
    """A text as a file name."""
    return re.sub(r"[^\w.-]+", "_", text)[:120]


class _Clock:
    seconds: float = math.nan
    cpu_s: float = math.nan


@contextmanager
def _timed() -> Iterator[_Clock]:
    """Seconds of a block, and those that the cores of this process worked on it."""
    clock = _Clock()
    start, worked = time.perf_counter(), time.process_time()
    yield clock
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock.seconds, clock.cpu_s = time.perf_counter() - start, time.process_time() - worked


# --------------------------------------------------------------------------------------------- codecs

SPEED = (
    Metric("seconds", "RTF", "", "lower", "audio_s"),
    Metric("cpu_s", "CPU RTF", "", "lower", "audio_s"),  # the same beside other busy processes
)
CODEC_METRICS = (
    Metric("kbps", "kbit/s", "", ""),
    Metric("pesq_wb", "PESQ-WB", "", "higher"),
    Metric("stoi", "STOI", "", "higher"),
    Metric("estoi", "ESTOI", "", "higher"),
    Metric("log_mel_l1_7k5", "log-mel L1 to 7.5 kHz"),
    Metric("log_mel_l1", "log-mel L1"),
    Metric("mr_stft", "MR-STFT"),
    Metric("mcd_db", "MCD", "dB"),
    Metric("f0_semitones", "F0 error", "semitones"),
    Metric("encode_s", "encode RTF", "", "lower", "audio_s"),
    Metric("decode_s", "decode RTF", "", "lower", "audio_s"),
    SPEED[1],
)


def code_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """A clip through a codec, or its stored reconstruction, scored against the original."""
    original = clip.load()
    record: Record = {"audio_s": original.shape[-1] / SAMPLE_RATE}
    if isinstance(system, StoredSystem):
        wave = resample(system.audio(clip.example), system.sample_rate, SAMPLE_RATE)
        _, record["file"] = scorer.keep(wave, SAMPLE_RATE, label, clip)
        record["kbps"] = math.nan if system.kbps is None else system.kbps
    elif isinstance(system, CodecSystem):
        audio = resample(original, SAMPLE_RATE, system.sample_rate)
        with _timed() as encoding:
            codes = system.encode([audio])[0]
        with _timed() as decoding:
            decoded = system.decode([codes])[0]
        record |= {"encode_s": encoding.seconds, "decode_s": decoding.seconds, "kbps": _kbps(codes, system)}
        record["cpu_s"] = encoding.cpu_s + decoding.cpu_s
        wave, record["file"] = scorer.keep(decoded, system.sample_rate, label, clip)
    else:
        raise UserError(f"{system.card.title} is no codec")
    return record | reconstruction_scores(original, wave, kind=clip.example.kind) | scorer.judged(wave, clip)


def _kbps(codes: AudioCodes, system: CodecSystem) -> float:
    """Bits of the codes that were made, over the seconds that their frames stand for."""
    return (
        sum(
            float(stream.rate_hz) * codes[stream.name].shape[1] * math.log2(stream.codebook_size)
            for stream in system.streams
        )
        / 1000
    )


# --------------------------------------------------------------------------------------------- text and speech


def hear_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """What a system hears in a clip, against its transcript."""
    example = clip.example
    original = clip.load()
    record: Record = {"audio_s": original.shape[-1] / SAMPLE_RATE}
    if isinstance(system, StoredSystem):
        text = system.text(example)
    elif isinstance(system, SpeechSystem):
        audio = resample(original, SAMPLE_RATE, system.sample_rate)
        with _timed() as clock:
            text = system.transcribe(audio, language=example.language, seed=scorer.seed)
        record |= {"seconds": clock.seconds, "cpu_s": clock.cpu_s}
    else:
        raise UserError(f"{system.card.title} does not transcribe")
    return record | text_errors(str(example.text), text, example.language or "en", scorer.normaliser)


def speak_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """A clip's text, spoken; judged by the further judges."""
    example = clip.example
    language = example.language or "en"
    record: Record = {"expected": example.text}
    if isinstance(system, StoredSystem):
        wave, rate = system.audio(example), system.sample_rate
    elif isinstance(system, SpeechSystem):
        with _timed() as clock:
            wave = system.speak(str(example.text), language=language, voice=None, seed=scorer.seed)
        rate = system.sample_rate
        record |= {"seconds": clock.seconds, "cpu_s": clock.cpu_s}
    else:
        raise UserError(f"{system.card.title} does not speak")
    if wave.numel() == 0:
        raise UserError("nothing was spoken")
    heard, record["file"] = scorer.keep(wave, rate, label, clip)
    return record | {"audio_s": heard.shape[-1] / SAMPLE_RATE} | scorer.judged(heard, clip)


# --------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class CompareTask:
    """One thing to compare.

    Attributes:
        name: After ``compare``.
        serve: Makes a clip's record.
        metrics: Columns, those without any value are left out.
        needs_text: Whether clips without a text are left out.
        has_original: Whether a clip's own audio belongs on the page.
        judges: Judges that are used if none are named.
    """

    name: str
    serve: Callable[[System, Clip, str, Scorer], Record]
    metrics: Sequence[Metric]
    needs_text: bool = False
    has_original: bool = True
    judges: tuple[str, ...] = ()


TASKS = {
    task.name: task
    for task in (
        CompareTask("codecs", code_clip, CODEC_METRICS),
        CompareTask("asr", hear_clip, (*WORDS, *SPEED), needs_text=True),
        CompareTask("tts", speak_clip, SPEED, needs_text=True, has_original=False, judges=("whisper",)),
    )
}
