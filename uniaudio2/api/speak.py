"""From text to audio: sentences in one voice, several attempts at each, and sounds.

Shapes: ``N`` samples, ``K`` codebooks, ``T`` frames. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from uniaudio2.api.core import Core, check_decoding
from uniaudio2.api.inputs import AudioInput, level_dbfs, load_waveform
from uniaudio2.api.request import (
    Ask,
    Limits,
    Sampling,
    build_request,
    check_sampling,
    drawing,
    generate,
    seed_of,
    speech_limits,
)
from uniaudio2.api.results import AudioResult, SpeechResult
from uniaudio2.api.settings import MOST_ATTEMPTS
from uniaudio2.audio import FASTEST, SAMPLE_RATE, SLOWEST, AudioError, change_speed, limit, stretched
from uniaudio2.checks import check_number, check_optional
from uniaudio2.codes import AudioCodes
from uniaudio2.engine import derive_seed
from uniaudio2.hearing import heard_nats, length_cost
from uniaudio2.sequence import voice_codes
from uniaudio2.speech_text import Sentence, check_description, plan_speech, speaking_time_s
from uniaudio2.text import TextError, normalise_text

logger = logging.getLogger(__name__)

MIN_SOUND_S = 0.2
FADE_S = 0.005
# Choice: frames of the finest codes after which a sentence begins to be heard; half of them are look-ahead. What is
# heard then lasts until the next window is there, as long as a frame takes at most a third of its time.
FIRST_CODES = 6


@dataclass(frozen=True)
class Speaking:
    """How sentences are spoken, checked.

    Raises:
        ValueError: If a number is out of range.
    """

    attempts: int
    voice: Tensor | None  # codes (K, T) of the last stream of a voice prompt
    batch_size: int
    steps: int | None
    sampling: Sampling
    speed: float = 1.0

    @classmethod
    def of(
        cls,
        core: Core,
        voice: AudioInput | None,
        sample_rate: int,
        batch_size: int,
        steps: int | None,
        best_of: int | None,
        sampling: Sampling,
        speed: float = 1.0,
    ) -> Speaking:
        """From what the user gave."""
        config = core.facts.generation
        greedy = drawing(config.speech, sampling).greedy
        check_optional("best_of", best_of, 1, MOST_ATTEMPTS, whole=True)
        check_number("batch_size", batch_size, 1, whole=True)
        check_number("speed", speed, SLOWEST, FASTEST)
        check_decoding(steps, sampling.get("seed"))
        if best_of is None:
            best_of = 1 if greedy else config.speech_attempts  # greedy attempts would all be the same
        prompt = None if voice is None else voice_prompt(core, load_waveform(_recording(core, voice), sample_rate))
        return cls(best_of, prompt, batch_size, steps, sampling, speed)


def _recording(core: Core, voice: AudioInput) -> AudioInput:
    """What a voice sounds like: the recording of a named voice, unless a file has its name, or what was given.

    Raises:
        AudioError: If a single word is neither a voice nor a file.
    """
    if not isinstance(voice, str) or voice == "-" or Path(voice).exists() or "/" in voice or "." in voice:
        return voice
    if voice not in core.voices:
        known = f"its voices are {', '.join(core.voices)}" if core.voices else "it comes with none"
        raise AudioError(f"{voice}: neither a file nor a voice of {core.name}; {known}")
    return core.voices[voice].recording


def speak(core: Core, text: str, language: str | None, how: Speaking) -> SpeechResult:
    """A text read aloud, sentence by sentence in one voice; see `UniAudio2.speak`."""
    sentences = plan(core, text, language)
    parts = list(speak_parts(core, sentences, how))
    ends = list(itertools.accumulate(audio.shape[-1] / SAMPLE_RATE for audio, _ in parts))
    last = len(parts) - 1
    pauses = [
        0.0 if number == last else sentence.pause_after_s / how.speed for number, sentence in enumerate(sentences)
    ]
    return SpeechResult(
        audio=torch.cat([audio for audio, _ in parts], dim=-1),
        text=text,
        seed=seed_of(how.sampling),
        codes=tuple(codes for _, codes in parts),
        sentences=tuple(sentences),
        times_s=tuple((start, end - pause) for start, end, pause in zip([0.0, *ends], ends, pauses, strict=False)),
    )


def plan(core: Core, text: str, language: str | None, first_words: int | None = None) -> list[Sentence]:
    """The sentences of a text, as long as the model speaks at once, and the first of them of few words where wanted."""
    check_optional("first_words", first_words, 1, whole=True)
    return plan_speech(text, language, max_sentence_s=core.facts.generation.max_sentence_s, first_words=first_words)


def speak_parts(core: Core, sentences: Sequence[Sentence], how: Speaking) -> Iterator[tuple[Tensor, AudioCodes]]:
    """Waveform (1, N), with the pause behind it, and codes of each sentence."""
    seed = seed_of(how.sampling)
    for first in range(0, len(sentences), how.batch_size):
        batch = list(enumerate(sentences[first : first + how.batch_size], first))
        asks = [_ask(core, sentence, how) for _, sentence in batch]
        answers = generate(
            core,
            [ask for ask in asks for _ in range(how.attempts)],
            how.sampling,
            seeds=[derive_seed(seed, number, attempt) for number, _ in batch for attempt in range(how.attempts)],
        )
        made = [cast(AudioCodes, answer["audio"]) for answer in answers]
        for (number, sentence), ask in zip(batch, asks, strict=True):
            mine, made = made[: how.attempts], made[how.attempts :]
            waves = [core.decode(codes, seed=derive_seed(seed, number), steps=how.steps) for codes in mine]
            best = best_heard(core, waves, ask)
            pause_s = 0.0 if number == len(sentences) - 1 else sentence.pause_after_s / how.speed
            wave = louder(change_speed(waves[best], how.speed), core.facts.generation.speech_gain_db)
            yield _with_pause(wave, pause_s), mine[best]


def stream_parts(core: Core, sentences: Sequence[Sentence], how: Speaking) -> Iterator[Tensor]:
    """Waveforms (1, n) as soon as they can be heard; joined they are nearly those of `speak_parts`, one by one.

    A single attempt at a sentence is heard while it is made, window by window of the codec; the first windows are short
    and know little of what follows. Of several attempts the best is heard, once all are whole.
    """
    if how.attempts > 1:
        yield from (audio for audio, _ in speak_parts(core, sentences, how))
    elif how.speed != 1:
        yield from stretched(_as_made(core, sentences, how), how.speed)
    else:
        yield from _as_made(core, sentences, how)


def _as_made(core: Core, sentences: Sequence[Sentence], how: Speaking) -> Iterator[Tensor]:
    """One attempt at each sentence at the model's own speed."""
    fade, gain_db = round(FADE_S * SAMPLE_RATE), core.facts.generation.speech_gain_db
    for number, sentence in enumerate(sentences):
        seed = derive_seed(seed_of(how.sampling), number)
        request = build_request(core, core.sequences, _ask(core, sentence, how), how.sampling, seed)
        decoding = core.codec.decoder_session(
            steps=how.steps, generator=torch.Generator().manual_seed(seed), first_codes=FIRST_CODES
        )
        # Held back: the end is faded, once it is known to be the end.
        rest = torch.zeros(1, 0, dtype=torch.float32, device="cpu")
        with closing(core.engine.stream(request)) as events:
            for event in events:
                if event.codes is None:
                    continue
                codes = AudioCodes.of({event.kind: event.codes[None]}, core.codec.streams)
                rest = torch.cat((rest, louder(decoding.push(codes)[0].cpu(), gain_db)), dim=-1)
                if rest.shape[-1] > fade:
                    yield rest[:, :-fade]
                    rest = rest[:, -fade:]
        rest = torch.cat((rest, louder(decoding.finish()[0].cpu(), gain_db)), dim=-1)
        yield _with_pause(rest, 0.0 if number == len(sentences) - 1 else sentence.pause_after_s)


def _ask(core: Core, sentence: Sentence, how: Speaking) -> Ask:
    """One sentence as a request."""
    words = spoken(core, sentence.text, sentence.language)
    values: dict[str, Any] = {"transcription": words}
    if how.voice is not None:
        values["voice"] = how.voice
    task = "yue_tts" if sentence.language == "yue" else "tts"
    core.facts.check_trained(task)
    limits = speech_limits(core.facts.generation, speaking_time_s(words))
    return Ask(task, values, sentence.language, limits)


def best_heard(core: Core, waves: Sequence[Tensor], ask: Ask) -> int:
    """Which of several attempts at a sentence is best: the model hears its text in it, and its length is usual."""
    if len(waves) == 1:
        return 0
    words = ask.values["transcription"]
    each = heard_nats(core.parts[0], core.sequences, core.encode_many(waves), words, ask.language)
    usual = speaking_time_s(words) * SAMPLE_RATE
    costs = [float(n.mean()) + length_cost(wave.shape[-1], usual) for n, wave in zip(each, waves, strict=True)]
    return costs.index(min(costs))


def generate_sound(
    core: Core, text: str, duration_s: float | None, steps: int | None, sampling: Sampling
) -> AudioResult:
    """The sound that a text describes; see `UniAudio2.generate_sound`."""
    check_sampling(sampling)
    check_decoding(steps, sampling.get("seed"))
    core.facts.check_trained("tta")
    least, most = core.facts.generation.sound_time_s
    limits = Limits(min_audio_s=least, max_audio_s=most)
    if duration_s is not None:
        check_number("duration_s", duration_s, MIN_SOUND_S)
        limits = Limits(min_audio_s=duration_s, max_audio_s=duration_s, exact=True)
    words = spoken(core, check_description(text), "en")
    warn_of_unknown(core, words)
    codes = cast(AudioCodes, generate(core, [Ask("tta", {"caption": words}, None, limits)], sampling)[0]["audio"])
    if duration_s is not None:
        wanted = min(round(duration_s * SAMPLE_RATE), codes.covered_samples)
        codes = AudioCodes.of(codes.streams, codes.hops, wanted, sample_rate=codes.sample_rate)
    seed = seed_of(sampling)
    return AudioResult(core.decode(codes, seed=seed, kind="sound", steps=steps), text, seed, (codes,))


def warn_of_unknown(core: Core, description: str) -> None:
    """Say so where a description, in the form that the model learned, names no sound that it learned."""
    known = core.facts.generation.sounds
    if known is not None and not any(word.startswith(known) for word in description.split()):
        logger.warning("%r: model %s learned no such sound, only: %s", description, core.name, ", ".join(known))


def voice_prompt(core: Core, audio: Tensor) -> Tensor:
    """Codes (K, T) of the last stream of a voice prompt, from the loudest few seconds of a waveform (1, N).

    Raises:
        AudioError: If it is silent.
    """
    config = core.facts.generation
    if level_dbfs(audio) < config.silence_dbfs:
        raise AudioError("the voice prompt is silent: give about 3 s of one person speaking")
    length = round(config.voice_prompt_s * SAMPLE_RATE)
    if audio.shape[-1] > length:
        hop = SAMPLE_RATE // 10
        power = torch.nn.functional.avg_pool1d(audio.square()[None], length, hop)[0, 0]
        start = int(power.argmax()) * hop
        audio = audio[:, start : start + length]
    return voice_codes(core.encode(audio)[core.codec.streams[-1].name][0])


def spoken(core: Core, text: str, language: str) -> str:
    """The text in the form the model learned.

    Raises:
        TextError: If nothing is left to say.
    """
    if not core.facts.generation.normalise_text:
        return text.strip()
    words = normalise_text(text, language)
    if not words:
        raise TextError(f"there is nothing to say in {text[:40]!r}: give at least one word")
    return words


def louder(audio: Tensor, gain_db: float) -> Tensor:
    """A waveform made louder, sample by sample, so that pieces of a stream fit; peaks are bent below full scale."""
    return limit(audio * 10 ** (gain_db / 20)) if gain_db else audio


def _with_pause(audio: Tensor, pause_s: float) -> Tensor:
    """Silence behind a waveform (1, N), whose end is faded so that it does not click."""
    fade = min(round(FADE_S * SAMPLE_RATE), audio.shape[-1])
    audio = audio.clone()
    if fade:
        audio[:, -fade:] *= torch.linspace(1, 0, fade, dtype=torch.float32, device="cpu")
    return torch.nn.functional.pad(audio, (0, round(pause_s * SAMPLE_RATE)))
