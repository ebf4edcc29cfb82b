"""Any row of the task table: its values read and checked, examples in front of them, its outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, TypeAlias

from uniaudio2.api.core import Core
from uniaudio2.api.inputs import AudioInput, load_waveform, open_recording
from uniaudio2.api.listen import Listening, describe, listens, read_codes
from uniaudio2.api.request import (
    GREEDY,
    Ask,
    Heard,
    Limits,
    Sampling,
    generate,
    search_effort,
    seed_of,
    speech_limits,
    text_limits,
)
from uniaudio2.api.results import AudioResult
from uniaudio2.api.settings import GenerationConfig
from uniaudio2.api.speak import spoken, voice_prompt
from uniaudio2.codes import AudioCodes, published_pair
from uniaudio2.errors import UserError
from uniaudio2.speech_text import check_text, detect_language, speaking_time_s
from uniaudio2.tasks import Part, Task, required

Value: TypeAlias = "AudioInput | AudioCodes"  # a text is a str, as a path is
Shot: TypeAlias = "tuple[Any, Any]"
Output: TypeAlias = "str | AudioResult | AudioCodes"


def run_row(
    core: Core,
    row: Task,
    values: Mapping[str, Value],
    shots: Sequence[Shot],
    language: str | None,
    max_duration_s: float | None,
    sample_rate: int,
    steps: int | None,
    sampling: Sampling,
) -> dict[str, Output]:
    """The outputs of a row; see `UniAudio2.run`. One recording in, one text out goes the way of `transcribe`."""
    if listens(row) and not shots:
        return {row.outputs[0].value: _listen(core, row, values, language, sample_rate, sampling)}
    if row.needs_examples and not shots:
        raise UserError(
            f"task '{row.name}' learns its classes from examples: give some (--shot, or shots=[(inputs, outputs), …])"
        )
    inputs = read_values(core, row, row.inputs, values, language, sample_rate)
    examples = [read_shot(core, row, number, shot, language, sample_rate) for number, shot in enumerate(shots, 1)]
    limits = row_limits(core.facts.generation, row, inputs)
    if max_duration_s is not None:
        limits = replace(limits, min_audio_s=min(limits.min_audio_s, max_duration_s), max_audio_s=max_duration_s)
    answer = generate(core, [Ask(row, inputs, language, limits, examples)], sampling)[0]
    seed = seed_of(sampling)
    text = " ".join(str(values[name]) for name, value in inputs.items() if isinstance(value, str))
    results: dict[str, Output] = {}
    for name, value in answer.items():
        if isinstance(value, Heard):
            results[name] = value.text
        elif value[core.codec.streams[-1].name].shape[-1] == 0:
            results[name] = value
        else:
            audio = core.decode(value, seed=seed, kind=row.kind, steps=steps)
            results[name] = AudioResult(audio, text, seed, (value,))
    return results


def _listen(
    core: Core, row: Task, values: Mapping[str, Value], language: str | None, sample_rate: int, sampling: Sampling
) -> str:
    """The text of a recording, divided, searched for and joined as in `transcribe` and `caption`, or of codes."""
    config = core.facts.generation
    check_names(row, row.inputs, values)
    (value,) = values.values()
    captions = listens(row) == "caption"
    effort = GREEDY if captions else search_effort(config, None, None, sampling)
    how = Listening(row, language, config.max_chunk_s, 8, effort, config.silence_caption if captions else "")
    codes = stored_codes(value)
    if codes is not None:  # encoded once and for all: nothing can be shifted or divided
        return read_codes(core, [codes], replace(how, effort=effort._replace(shifts=1)), sampling)[0].text
    assert not isinstance(value, AudioCodes)
    return describe(core, [open_recording(value, sample_rate)], how, sampling)[0].text


def check_names(row: Task, parts: Sequence[Part], values: Mapping[str, Any]) -> dict[str, str]:
    """Kinds of the values of these parts of a row by name.

    Raises:
        ValueError: If a value is unknown or missing.
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
    return kinds


def read_values(
    core: Core, row: Task, parts: Sequence[Part], values: Mapping[str, Value], language: str | None, sample_rate: int
) -> dict[str, Any]:
    """Values of these parts of a row as the sequence builder wants them.

    Raises:
        ValueError: If a value is unknown, missing, or of the wrong kind.
    """
    kinds = check_names(row, parts, values)
    read: dict[str, Any] = {}
    for name, value in values.items():
        if kinds[name] == "text":
            if not isinstance(value, str):
                raise UserError(f"{name!r} of task {row.name!r} must be text, got {type(value).__name__}")
            words = check_text(value, purpose=f"for {name!r}")
            read[name] = spoken(core, words, language or detect_language(words))
        elif kinds[name] == "voice":
            if isinstance(value, AudioCodes):
                raise UserError(f"{name!r} of task {row.name!r} must be a recording, got codes")
            read[name] = voice_prompt(core, load_waveform(value, sample_rate))
        else:
            codes = stored_codes(value)
            read[name] = codes if codes is not None else core.encode(value, sample_rate=sample_rate)  # type: ignore[arg-type]
    return read


def stored_codes(value: Value) -> AudioCodes | None:
    """Codes as they are, or from a file of codes; None for a recording."""
    if isinstance(value, AudioCodes):
        return value
    if isinstance(value, str | PathLike) and (
        str(value).endswith(".safetensors") or published_pair(str(value)) is not None
    ):
        return AudioCodes.load(str(value))
    return None


def read_shot(core: Core, row: Task, number: int, shot: Shot, language: str | None, sample_rate: int) -> dict[str, Any]:
    """One example as the sequence builder wants it: all values of the row by name.

    Raises:
        ValueError: If it is no pair, or a side of it cannot be used.
    """
    if not isinstance(shot, tuple | list) or len(shot) != 2:
        raise UserError(f"shot {number} must be a pair (input, output), got {type(shot).__name__}")
    try:
        inputs, outputs = (
            read_values(core, row, parts, by_name(row, parts, side), language, sample_rate)
            for parts, side in zip((row.inputs, row.outputs), shot, strict=True)
        )
    except UserError as error:
        raise UserError(f"shot {number}: {error}") from None
    for name in inputs.keys() & outputs.keys():  # one recording, whose streams lie on both sides
        given, made = inputs[name], outputs[name]
        kinds = {part.kind for part in row.inputs if part.value == name}
        outputs[name] = tuple((given if one.name in kinds else made)[one.name][0] for one in core.codec.streams)
    return {**inputs, **outputs}


def by_name(row: Task, parts: Sequence[Part], side: Any) -> Mapping[str, Any]:
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


def row_limits(config: GenerationConfig, row: Task, inputs: Mapping[str, Any]) -> Limits:
    """How much a row may generate, from the inputs it has."""
    longest_s = max((value.duration_s for value in inputs.values() if isinstance(value, AudioCodes)), default=0.0)
    texts = {part.value: part.tag for part in row.inputs if isinstance(inputs.get(part.value), str)}
    said = [name for name, tag in texts.items() if tag in ("transcription", "lyric")] or list(texts)
    text = " ".join(inputs[name] for name in said)
    if not row.makes_audio:
        return text_limits(config, longest_s) if longest_s else Limits(max_tokens=config.max_text_tokens)
    least, most = config.sound_time_s
    if row.length_rule == "spoken":
        return speech_limits(config, speaking_time_s(text))
    if row.length_rule == "sound":
        return Limits(min_audio_s=least, max_audio_s=most)
    if row.length_rule == "copied":  # audio in, audio out: about as long as what came in, or slowed down
        return Limits(max_audio_s=longest_s * (2.2 if texts else 1.5) + 1.0)
    return Limits(max_audio_s=max(most, 2.0 * speaking_time_s(text)))
