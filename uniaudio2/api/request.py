"""From a row of the task table and its values to what the engine generates: drawing, limits, answers.

Shapes: ``K`` codebooks, ``T`` codec frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias, TypedDict

from uniaudio2.api.core import Core
from uniaudio2.api.settings import MOST_BEAMS, MOST_SHIFTS, Drawing, GenerationConfig
from uniaudio2.checks import check_optional
from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.engine import (
    GenerationRequest,
    GenerationResult,
    SamplingConfig,
    beam_search,
)
from uniaudio2.errors import UserError
from uniaudio2.sequence import Prompt, SequenceBuilder
from uniaudio2.tasks import Task, get_task

SPOKEN = ("transcription", "lyric")
"""Values that hold what a voice says."""


class Sampling(TypedDict, total=False):
    """How ids are drawn; None, or a name that is left out, is the model's default for the kind of output."""

    seed: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    guidance: float | None


class Heard(NamedTuple):
    """A text that was generated."""

    text: str
    mean_log_probability: float | None = None  # natural logarithm, over its tokens and its end
    no_speech_probability: float | None = None  # of an empty text


Answer: TypeAlias = "dict[str, Heard | AudioCodes]"
"""Text, or codes, by the name of the value."""


class Effort(NamedTuple):
    """How hard a transcript is searched for."""

    beams: int = 1
    shifts: int = 1


GREEDY = Effort()


@dataclass(frozen=True)
class Limits:
    """How much may be generated."""

    max_tokens: int = 0  # text
    min_audio_s: float = 0.0
    max_audio_s: float = 0.0
    exact: bool = False  # the audio is to be as long as ``max_audio_s``, to the sample

    def frames(self, rates_hz: Mapping[str, float]) -> dict[str, tuple[int, int]]:
        """Least and most text ids, and frames of every stream; the rates are those of the streams, by name."""
        if self.exact:  # rounded up: the rest of the last frame is cut from the wave
            counts = {name: max(1, math.ceil(self.max_audio_s * rate - 1e-6)) for name, rate in rates_hz.items()}
            return {name: (count, count) for name, count in counts.items()}
        first = next(iter(rates_hz.values()))
        least, most = (max(1, round(seconds * first)) for seconds in (self.min_audio_s, self.max_audio_s))
        return {"text": (0, self.max_tokens), **_frame_limits(least, most, rates_hz)}


@dataclass(frozen=True)
class Ask:
    """One generation: a row of the task table with its inputs."""

    task: str | Task
    values: Mapping[str, Any]
    language: str | None
    limits: Limits
    shots: Sequence[Mapping[str, Any]] = ()  # complete examples, in front of the inputs


def text_limits(config: GenerationConfig, audio_s: float) -> Limits:
    """Of the text for audio of that length."""
    return Limits(max_tokens=int(config.text_tokens_per_s * audio_s) + config.text_tokens_more)


def speech_limits(config: GenerationConfig, expected_s: float) -> Limits:
    """Around the usual speaking time."""
    least, most = config.speech_time
    return Limits(min_audio_s=least * expected_s, max_audio_s=most * expected_s + config.speech_more_s)


def _frame_limits(least: int, most: int, rates_hz: Mapping[str, float]) -> dict[str, tuple[int, int]]:
    """Limits of all streams from those of the first."""
    first = next(iter(rates_hz.values()))
    ratios = {name: rate / first for name, rate in rates_hz.items()}
    return {name: (max(1, int((least - 1) * r) + 1), math.ceil(most * r)) for name, r in ratios.items()}


def seed_of(sampling: Sampling) -> int:
    """The seed that was asked for, 0 if none was."""
    seed = sampling.get("seed")
    return 0 if seed is None else int(seed)  # torch takes no integers of NumPy


def check_sampling(sampling: Sampling) -> None:
    """Refuse unknown names and values out of range.

    Raises:
        TypeError: If a name is unknown.
        ValueError: If a value is out of range.
    """
    unknown = sorted(set(sampling) - Sampling.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown sampling argument {unknown[0]!r}")
    check_optional("seed", sampling.get("seed"), 0, 2**63 - 1, whole=True)
    check_optional("temperature", sampling.get("temperature"), 0.0, 100.0)
    check_optional("top_k", sampling.get("top_k"), 1, whole=True)
    check_optional("top_p", sampling.get("top_p"), 0.0, 1.0, above=True)
    check_optional("guidance", sampling.get("guidance"), 1.0, 100.0)


def drawing(defaults: Drawing, sampling: Sampling) -> SamplingConfig:
    """How ids are drawn: the defaults of a kind of output, changed by what the user asks for."""
    check_sampling(sampling)
    named = {name: sampling.get(name) for name in ("temperature", "top_k", "top_p")}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    drawn = replace(defaults.sampling, **given)
    if given and "temperature" not in given and drawn.temperature == 0:
        drawn = replace(drawn, temperature=1.0)  # who asks for top-k or top-p asks to sample
    return drawn


def search_effort(config: GenerationConfig, beams: int | None, shifts: int | None, sampling: Sampling) -> Effort:
    """What the user asked for, else the model's own numbers, else (when ids are drawn) one of each.

    Raises:
        ValueError: If a number is out of range, or ids are to be drawn and searched for.
    """
    draws = not drawing(config.text, sampling).greedy
    check_optional("beams", beams, 1, MOST_BEAMS, whole=True)
    check_optional("shifts", shifts, 1, MOST_SHIFTS, whole=True)
    if draws and max(beams or 1, shifts or 1) > 1:
        raise UserError("beams and shifts look for the likeliest text: leave out temperature, top-k and top-p")
    return Effort(
        beams if beams is not None else 1 if draws else config.beams,
        shifts if shifts is not None else 1 if draws else config.shifts,
    )


def generate(
    core: Core, asks: Sequence[Ask], sampling: Sampling, *, seeds: Sequence[int] | None = None
) -> list[Answer]:
    """Run requests together; each gives its outputs by name.

    Every request draws from a seed of its own, so its result does not depend on the others; without ``seeds`` all
    have the one of ``sampling``.
    """
    builder = core.sequences
    drawn = [seed_of(sampling)] * len(asks) if seeds is None else seeds
    requests = [build_request(core, builder, ask, sampling, seed) for ask, seed in zip(asks, drawn, strict=True)]
    return [outputs_of(result, core.codec.streams) for result in core.engine.generate(requests)]


def search(core: Core, asks: Sequence[Ask], effort: Effort, sampling: Sampling) -> list[Answer]:
    """The likeliest text for every ``effort.shifts`` consecutive requests together."""
    builder = core.sequences
    requests = [build_request(core, builder, ask, sampling, seed_of(sampling)) for ask in asks]
    groups = [requests[first : first + effort.shifts] for first in range(0, len(requests), effort.shifts)]
    results = beam_search(
        core.engine,
        [group[0] for group in groups],
        renderings=[[request.prompt for request in group[1:]] for group in groups],
        beams=effort.beams,
    )
    return [outputs_of(result, core.codec.streams) for result in results]


def build_request(core: Core, builder: SequenceBuilder, ask: Ask, sampling: Sampling, seed: int) -> GenerationRequest:
    """One generation request, from the task's defaults and what the user asked for.

    Raises:
        ValueError: If an option is out of range, or the input or what is asked for is longer than the model allows.
    """
    row, config = get_task(ask.task), core.facts.generation
    speaks = row.makes_audio and "transcription" in row.values
    defaults = config.speech if speaks else config.sound if row.makes_audio else config.text
    drawn = drawing(defaults, sampling)
    guidance = sampling.get("guidance")
    if guidance is None:
        guidance = defaults.guidance if row.guidance else 1.0
    elif guidance != 1.0 and not row.guidance:
        raise UserError(f"task {row.name!r} has no guidance: leave --guidance out or give 1")
    prompt = in_script(builder.prompt(row, ask.values, shots=ask.shots, language=ask.language), builder, ask.language)
    most_positions = core.parts[0].config.max_positions
    room = most_positions - len(prompt) - 8
    if room < 16:
        remedy = "fewer or shorter shots, or shorter audio or text" if ask.shots else "shorter audio or text"
        raise UserError(
            f"the input of task {row.name!r} is too long for this model ({len(prompt)} positions of "
            f"{most_positions}): give {remedy}"
        )
    return GenerationRequest(
        prompt,
        sampling=drawn,
        guidance_scale=guidance,
        seed=seed,
        limits=_limits_within(row, ask.limits, room, core.codec.streams),
        match_lengths=not ask.limits.exact,
    )


def in_script(prompt: Prompt, builder: SequenceBuilder, language: str | None) -> Prompt:
    """The prompt of a transcript that can only be written in the script of its language; None: in any."""
    if language is None or builder.tokenizer is None or prompt.phases[0].value not in SPOKEN:
        return prompt
    outside = builder.tokenizer.outside_script(language)
    phases = [replace(phase, forbidden=(*phase.forbidden, *outside)) for phase in prompt.phases]
    return replace(prompt, phases=tuple(phases))


def _limits_within(row: Task, limits: Limits, room: int, streams: Sequence[Stream]) -> dict[str, tuple[int, int]]:
    """Limits in ids and frames that fit into so many positions.

    Raises:
        ValueError: If the audio has a given length that does not fit.
    """
    rates = {stream.name: float(stream.rate_hz) for stream in streams}
    frames = limits.frames(rates)
    if not row.makes_audio:
        return {"text": (0, min(frames["text"][1], room))}
    first = streams[0].name
    longest = max(1, int(room / (sum(rates.values()) / rates[first])) - 4)
    if limits.exact:
        if frames[first][1] > longest:
            raise UserError(
                f"{limits.max_audio_s:g} s of audio are more than this model makes at once: "
                f"give at most {longest / rates[first]:g} s"
            )
        return frames
    most = min(frames[first][1], longest)
    return _frame_limits(min(frames[first][0], most), most, rates)


def outputs_of(result: GenerationResult, streams: Sequence[Stream]) -> Answer:
    """Text, or codes, by the name of the value; a stream that the task does not make has no frames."""
    outputs: Answer = {}
    for value in dict.fromkeys(part.value for part in result.parts):
        parts = {part.kind: part for part in result.parts if part.value == value}
        if "text" in parts:
            part = parts["text"]
            outputs[value] = Heard(part.text or "", part.log_probability, part.empty_probability)
            continue
        made = {kind: part.codes for kind, part in parts.items() if part.codes is not None}
        nothing = next(iter(made.values()))[:, :0]
        outputs[value] = AudioCodes.of({one.name: made.get(one.name, nothing)[None] for one in streams}, streams)
    return outputs
