"""Any row of the task table on the held-out examples of a manifest: its inputs, its answers, and the commonest one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.recogniser import REMEDY, has_whisper, hear, whisper_name
from uniaudio2.errors import UserError
from uniaudio2.eval.context import Clip, Context, EvaluationError
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import score_texts, simplified
from uniaudio2.tasks import Audio, Source, Task, Text, Voice, get_task

OURS, TRUTH = "made by the model", "what was to be learned"
"""Groups of figures: the model's answers, and the answers of the examples."""


@runtime_checkable
class RunsRows(Protocol):
    """What runs a row: `UniAudio2`, or a double of it."""

    def run(self, task: str, values: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The outputs of a row by name."""
        ...


def given(example: Example, source: Source) -> Tensor | str | None:
    """What an example has for a value; None where it has nothing."""
    if isinstance(source, Audio | Voice):
        name = _name(source)
        return example.audio(name=name) if name in example.recordings else None
    if isinstance(source, Text):
        own = {"text": example.text, "caption": example.caption}
        return own.get(source.name) or example.texts.get(source.name)
    return None


def _name(source: Source) -> str | None:
    """What an example calls a value; None for what lies in another one."""
    return source.audio if isinstance(source, Voice) else getattr(source, "name", None)


def held_out(context: Context, task: str, data: str) -> list[Clip]:
    """The dev examples of a manifest that have every value of a row, at most ``limit`` of them.

    Where examples are to stand in front of them, the train examples that have every value are kept for `shots`.

    Raises:
        EvaluationError: If there is none, or too few to stand in front.
    """
    row = get_task(task)
    kinds = row.training.kinds if row.training is not None else ()

    def fits(example: Example) -> bool:
        """Whether it has all that the row wants."""
        sources = (row.source(value) for value in row.values)
        named = {*example.recordings, *example.texts, *(("text",) if example.text else ())}
        named |= {"caption"} if example.caption else set()
        return example.kind in kinds and all(_name(source) in named for source in sources)

    clips = context.sample([clip for clip in context.set_or_manifest(data) if fits(clip.example)])
    wanted = ", ".join(_name(row.source(value)) or value for value in row.values)
    if not clips:
        raise EvaluationError(f"{data}: no held-out example with {wanted}, which {task} needs")
    if context.shots:
        context.examples[task] = [clip for clip in context.training(data) if fits(clip.example)]
        if len(context.examples[task]) < context.shots:
            raise EvaluationError(f"{data}: fewer than {context.shots} train examples with {wanted} to show in front")
    return clips


def answers(context: Context, task: str, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """What the model makes of each example's inputs: outputs by name, audio as a waveform that was written and read.

    An example that the model cannot take counts as an empty answer.
    """
    row = get_task(task)
    model = getattr(context.subject, "model", context.subject)
    if not isinstance(model, RunsRows):
        raise EvaluationError(f"model {context.subject.name!r} cannot run rows of the task table")
    if (facts := getattr(model, "facts", None)) is not None and not context.untrained:
        facts.check_trained(row)
    inputs = dict.fromkeys(part.value for part in row.inputs if not part.optional)
    found: list[dict[str, Any]] = []
    for number, clip in enumerate(context.track(clips, task)):
        values = {name: given(clip.example, row.source(name)) for name in inputs}
        language = clip.example.language if row.makes_audio or clip.example.kind == "speech" else None
        try:
            options = {"shots": shots(context, row, clip, number)} if context.shots else {}
            seed = context.seed + number
            made = model.run(task, values, language=language, seed=seed, untrained=context.untrained, **options)
        except UserError as error:
            context.notes.append(f"{clip.example.id}: {error}")
            made = {}
        found.append({name: _settled(context, f"{task}_{number:03d}_{name}", one) for name, one in made.items()})
    return found


def shots(context: Context, row: Task, clip: Clip, number: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Train examples in front of a held-out one: inputs and outputs of each.

    Choice: where sound is to be made, of the same label if there are any (a style, a kind of noise), since an example
    shows what is wanted; where text is, of any label, since the label may be the answer.
    """
    pool = context.examples[row.name]
    alike = [one for one in pool if row.makes_audio and one.example.label == clip.example.label]
    pool = alike if len(alike) >= context.shots else pool
    chosen = random.Random(f"{context.seed}-{number}").sample(pool, context.shots)
    sides = ([part.value for part in row.inputs if not part.optional], [part.value for part in row.outputs])
    inputs, outputs = (
        [{name: given(one.example, row.source(name)) for name in dict.fromkeys(side)} for one in chosen]
        for side in sides
    )
    return list(zip(inputs, outputs, strict=True))


def _settled(context: Context, name: str, made: Any) -> Any:
    """Text as it is, audio as it is after being written to a file."""
    audio = getattr(made, "audio", made)
    return context.written(audio, name) if isinstance(audio, Tensor) else str(made)


def commonest(values: Sequence[Hashable]) -> float:
    """Share of the most frequent value: what always giving one answer would score."""
    return Counter(values).most_common(1)[0][1] / len(values)


def waves(made: Sequence[Mapping[str, Any]], name: str) -> list[Tensor]:
    """The waveforms (1, N) of one output; half a second of silence for an answer without."""
    found = [one.get(name) for one in made]
    silence = torch.zeros(1, SAMPLE_RATE // 2)
    return [one if isinstance(one, Tensor) and one.shape[-1] > SAMPLE_RATE // 10 else silence for one in found]


def words(
    context: Context,
    clips: Sequence[Clip],
    systems: Mapping[str, Sequence[Tensor]],
    target: str,
    items: Sequence[dict[str, Any]],
    text: Callable[[Example], str | None] = lambda example: example.text,
) -> list[Figure]:
    """Errors of what Whisper hears in the waveforms of each system, by language; examples without text are left out."""
    if not has_whisper():
        context.notes.append(f"No figure by Whisper. {REMEDY}")
        return []
    figures: list[Figure] = []
    texts = [text(clip.example) for clip in clips]
    for system, own in systems.items():
        for language in ("en", "zh"):
            some = [i for i, c in enumerate(clips) if texts[i] and (c.example.language or "en") == language]
            if not some:
                continue
            found = [hear(own[i], language) for i in context.track(some, f"{system}: Whisper")]
            for i, said in zip(some, found, strict=True):
                items[i][f"{system}: heard"] = said
            wanted = [simplified(str(texts[i]), language) for i in some]
            scores = score_texts(wanted, [simplified(said, language) for said in found], language=language,
                                 normaliser="whisper", seed=context.seed)  # fmt: skip
            name, rate = ("WER", scores.wer) if language == "en" else ("CER", scores.cer)
            figures.append(Figure.of(f"{name} by Whisper", rate, unit="%", group=f"{language}, {system}",
                                     target=target if system == OURS else "", judge=whisper_name()))  # fmt: skip
    return figures
