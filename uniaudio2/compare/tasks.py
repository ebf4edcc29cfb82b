"""What is compared: how a system serves one clip, how that is scored, and which figures come of it.

Every clip of a system becomes one record, a flat dictionary of numbers and texts; figures are means or pooled ratios of
records. A record is all that is kept, so that an interrupted comparison goes on and a finished one can be read anew.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, resample
from uniaudio2.codes import AudioCodes
from uniaudio2.compare.scorer import Record, Scorer, captions_of, timed
from uniaudio2.data.example import Example
from uniaudio2.errors import UserError
from uniaudio2.eval.audio_metrics import reconstruction_scores
from uniaudio2.eval.caption_metrics import names_label
from uniaudio2.eval.context import Clip
from uniaudio2.eval.judges import WORDS, Metric, text_errors
from uniaudio2.eval.text_metrics import simple
from uniaudio2.systems.contract import CodecSystem, SpeechSystem, StoredSystem, System

SPEED = (
    Metric("seconds", "RTF", "", "lower", "audio_s"),
    Metric("cpu_s", "CPU RTF", "", "lower", "audio_s"),  # the same beside other busy processes
)

# --------------------------------------------------------------------------------------------- codecs

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
        with timed() as encoding:
            codes = system.encode([audio])[0]
        with timed() as decoding:
            decoded = system.decode([codes])[0]
        record |= {"encode_s": encoding.seconds, "decode_s": decoding.seconds, "kbps": _kbps(codes, system)}
        record["cpu_s"] = encoding.cpu_s + decoding.cpu_s
        wave, record["file"] = scorer.keep(decoded, system.sample_rate, label, clip)
    else:
        raise UserError(f"{system.card.title} is no codec")
    scores = reconstruction_scores(original, wave, kind=clip.example.kind)
    return record | scores | scorer.judged(wave, clip, original)


def _kbps(codes: AudioCodes, system: CodecSystem) -> float:
    """Bits of the codes that were made, over the seconds that their frames stand for."""
    return (
        sum(
            float(stream.rate_hz) * codes[stream.name].shape[1] * math.log2(stream.codebook_size)
            for stream in system.streams
        )
        / 1000
    )


# --------------------------------------------------------------------------------------------- audio to text


def _written(
    system: System, clip: Clip, audio: Tensor, ask: Callable[[SpeechSystem, Tensor], str]
) -> tuple[str, Record]:
    """The text that a system makes of a waveform (1, N) at 24 kHz, or its stored one, and what it took."""
    record: Record = {"audio_s": audio.shape[-1] / SAMPLE_RATE}
    if isinstance(system, StoredSystem):
        return system.text(clip.example), record
    speech = _speech_system(system)
    given = resample(audio, SAMPLE_RATE, system.sample_rate)
    with timed() as clock:
        text = ask(speech, given)
    return text, record | {"seconds": clock.seconds, "cpu_s": clock.cpu_s}


def _speech_system(system: System) -> SpeechSystem:
    if not isinstance(system, SpeechSystem):
        raise UserError(f"{system.card.title} is a codec: it neither listens nor speaks")
    return system


def hear_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """What a system hears in a clip, against its transcript."""
    own, audio = clip.example, clip.load()
    text, record = _written(
        system, clip, audio, lambda it, wave: it.transcribe(wave, language=own.language, seed=scorer.seed)
    )
    if isinstance(system, SpeechSystem):
        record["first_text_s"] = _first_text(system, audio, own.language, scorer.seed)
    return record | text_errors(str(own.text), text, own.language or "en", scorer.normaliser)


BLOCK_S = 0.25
"""Audio that a listening system is given at a time."""


def _first_text(system: SpeechSystem, audio: Tensor, language: str | None, seed: int) -> float:
    """Seconds from a recording's start, as if it were being spoken, until a system has written a word of it.

    The audio that it has asked for by then, and the time that it has worked. NaN where it wants whole recordings, or
    writes nothing.
    """
    taken = 0

    def blocks() -> Iterator[Tensor]:
        nonlocal taken
        for block in resample(audio, SAMPLE_RATE, system.sample_rate).split(round(BLOCK_S * system.sample_rate), 1):
            taken += block.shape[1]
            yield block

    start = time.perf_counter()
    texts = system.stream_text(blocks(), language=language, seed=seed)
    for text in texts or ():
        if text.strip():
            return taken / system.sample_rate + time.perf_counter() - start
    return math.nan


CAPTION_METRICS = (
    Metric("cider_d", "CIDEr-D", "", "higher"),
    Metric("class_named", "class named", "%", "higher"),
    *SPEED,
)


def caption_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """What a system says is heard in a clip, against its captions and the class that it is of."""
    text, record = _written(system, clip, clip.load(), lambda it, wave: it.caption(wave, seed=scorer.seed))
    right = captions_of(clip)
    record |= {"expected": " | ".join(right), "found": text, "cider_d": scorer.cider.score(text, right)}
    if clip.example.label:
        record["class_named"] = float(names_label(clip.example.label, text))
    return record


ANSWER_METRICS = (Metric("right", "right", "%", "higher"), *SPEED)


def answer_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """The answer to a question about a clip, or to what is said in it where no question is written."""
    own = clip.example
    question, expected = own.texts.get("question", ""), str(own.texts.get("answer") or own.texts.get("reply"))
    audio = own.audio(name="request") if "request" in own.audios else clip.load()
    text, record = _written(system, clip, audio, lambda it, wave: it.answer(wave, question, seed=scorer.seed))
    return record | {"expected": expected, "found": text, "right": float(is_right(question, expected, text))}


_CHOICE = re.compile(r"^\(([A-H])\) *(.+)$", re.MULTILINE)


def is_right(question: str, expected: str, found: str) -> bool:
    """Whether an answer is the expected one, or names it alone among the choices ``(A) …`` of the question."""
    wanted, said = simple(expected), simple(found)
    if wanted == said:
        return True
    choices = {letter: simple(text) for letter, text in _CHOICE.findall(question)}
    letter = re.match(r"\W*([A-H])\b(?:[).:]|$)", found.strip())
    if letter and letter[1] in choices:
        return choices[letter[1]] == wanted
    named = {text for text in choices.values() if f" {text} " in f" {said} "}
    longest = {text for text in named if not any(text in other and text != other for other in named)}
    return longest == {wanted}


# --------------------------------------------------------------------------------------------- text to audio


def _spoken(
    system: System, clip: Clip, label: str, scorer: Scorer, ask: Callable[[SpeechSystem], Tensor]
) -> tuple[Tensor, Record]:
    """The waveform (1, N) at 24 kHz that a system makes for a clip, or its stored one, and what it took."""
    record: Record = {}
    if isinstance(system, StoredSystem):
        wave = system.audio(clip.example)
    else:
        speech = _speech_system(system)
        with timed() as clock:
            wave = ask(speech)
        record = {"seconds": clock.seconds, "cpu_s": clock.cpu_s}
    if wave.numel() == 0:
        raise UserError("nothing can be heard: the waveform is empty")
    heard, record["file"] = scorer.keep(wave, system.sample_rate, label, clip)
    return heard, record | {"audio_s": heard.shape[-1] / SAMPLE_RATE}


def speak_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """A clip's text, spoken in a voice of the system; judged by the further judges."""
    return _speak(system, clip, label, scorer, None)


def clone_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """A clip's text, spoken in the voice of its prompt, which the judges compare it with."""
    return _speak(system, clip, label, scorer, clip.example.audio(name="prompt"))


def _speak(system: System, clip: Clip, label: str, scorer: Scorer, prompt: Tensor | None) -> Record:
    text, language = str(clip.example.text), clip.example.language or "en"
    voice = None if prompt is None else resample(prompt, SAMPLE_RATE, system.sample_rate)
    wave, record = _spoken(
        system, clip, label, scorer, lambda it: it.speak(text, language=language, voice=voice, seed=scorer.seed)
    )
    if isinstance(system, SpeechSystem):
        record["first_audio_s"] = _first_audio(system, text, language, voice, scorer.seed)
    return record | {"expected": text} | scorer.judged(wave, clip, prompt)


def _first_audio(system: SpeechSystem, text: str, language: str, voice: Tensor | None, seed: int) -> float:
    """Seconds until a system that streams gives the first samples; NaN where it gives whole texts only."""
    start = time.perf_counter()
    pieces = system.stream_speech(text, language=language, voice=voice, seed=seed)
    if pieces is None:
        return math.nan
    try:
        return next((time.perf_counter() - start for piece in pieces if piece.numel()), math.nan)
    finally:
        getattr(pieces, "close", lambda: None)()  # the rest is not wanted


def sound_clip(system: System, clip: Clip, label: str, scorer: Scorer) -> Record:
    """The sound or music that a clip's caption describes; judged by the further judges."""
    text = captions_of(clip)[0]
    wave, record = _spoken(system, clip, label, scorer, lambda it: it.generate_sound(text, seed=scorer.seed))
    return record | {"expected": text} | scorer.judged(wave, clip)


# --------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class CompareTask:
    """One thing to compare.

    Attributes:
        name: After ``compare``.
        serve: Makes a clip's record.
        metrics: Columns, those without any value are left out.
        needs: What a clip must have, as a key of `NEEDS`; others are left out.
        by_language: Whether there is a table for each language, not for each kind of audio.
        makes_audio: Whether there is something for judges to hear.
        has_original: Whether a clip's own audio belongs on the page, and is what the outputs as a whole should be like.
        judges: Judges that are used if none are named.
    """

    name: str
    serve: Callable[[System, Clip, str, Scorer], Record]
    metrics: Sequence[Metric]
    needs: str = ""
    by_language: bool = False
    makes_audio: bool = True
    has_original: bool = True
    judges: tuple[str, ...] = ()


NEEDS: dict[str, Callable[[Example], bool]] = {
    "": lambda own: True,
    "a text": lambda own: bool(own.text),
    "a text and a voice prompt": lambda own: bool(own.text) and "prompt" in own.audios,
    "a caption": lambda own: bool(own.caption or own.captions),
    "an answer": lambda own: bool(own.texts.get("answer") or own.texts.get("reply")),
}
"""What a clip may have to have."""

_FIRST_AUDIO, _FIRST_TEXT = Metric("first_audio_s", "first audio", "s"), Metric("first_text_s", "first text", "s")
TASKS = {
    task.name: task
    for task in (
        CompareTask("codecs", code_clip, CODEC_METRICS),
        CompareTask("asr", hear_clip, (*WORDS, *SPEED, _FIRST_TEXT), "a text", by_language=True,
                    makes_audio=False),
        CompareTask("tts", speak_clip, (*SPEED, _FIRST_AUDIO), "a text", by_language=True, has_original=False,
                    judges=("whisper",)),
        CompareTask("clone", clone_clip, (*SPEED, _FIRST_AUDIO), "a text and a voice prompt", by_language=True,
                    has_original=False, judges=("whisper", "similarity")),
        CompareTask("caption", caption_clip, CAPTION_METRICS, "a caption", makes_audio=False),
        CompareTask("answer", answer_clip, ANSWER_METRICS, "an answer", makes_audio=False),
        CompareTask("tta", sound_clip, SPEED, "a caption", judges=("fad",)),
    )
}  # fmt: skip
