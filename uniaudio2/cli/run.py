"""Any row of the task table: ``run``."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uniaudio2.batch import (
    PUBLISHED_CODES,
    STANDARD_STREAM,
    InputError,
    check_output_file,
    check_output_folder,
    check_readable,
)
from uniaudio2.cli.options import MODEL_OPTIONS, Number, Options, takes
from uniaudio2.cli.output import emit
from uniaudio2.errors import UserError
from uniaudio2.formats import WRITABLE_AUDIO

if TYPE_CHECKING:
    from uniaudio2.api.results import AudioResult
    from uniaudio2.codes import AudioCodes
    from uniaudio2.tasks import Part, Task

Sides = tuple[str, str]


def _check_shots(ctx: click.Context, param: click.Parameter, shots: tuple[Sides, ...]) -> tuple[Sides, ...]:
    """Refuse an option in the place of a side: one of the two words is missing."""
    for number, sides in enumerate(shots, 1):
        if any(word.startswith("--") for word in sides):
            raise InputError(f"--shot {number}: give an input and an output, with quotes around each")
    return shots


@click.command()
@click.argument("task")
@click.argument("inputs", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--shot", "shots", nargs=2, multiple=True, callback=_check_shots, metavar="INPUT OUTPUT",
    help="An example that comes first; repeat. Several values: 'name=value name=value'.",
)  # fmt: skip
@click.option("--output", "-o", metavar="PATH", help="Audio or codes file, or a folder for several.")
@click.option(
    "--max-seconds", type=Number(0.2, 86400), metavar="S", help="Longest audio to make.  [default: from the input]"
)
@click.option("--untrained", is_flag=True, help="Run a row also that the model was not trained for.")
@takes("steps", "language", *MODEL_OPTIONS)
def run(
    task: str,
    inputs: tuple[str, ...],
    shots: tuple[Sides, ...],
    output: str | None,
    max_seconds: float | None,
    untrained: bool,
    *,
    options: Options,
) -> None:
    """Run any row of the task table.

    Such as: run tts transcription="hello" -o hello.wav. TASK is a name in the table; 'list' shows all, and what the
    model was trained for. A value is a text, or the path of a file of audio or codes.
    """
    from uniaudio2.tasks import get_task

    if task == "list":
        _list(options)
        return
    row = get_task(task)
    if not untrained:
        options.check_trained(row.name)
    values = read_values(row, row.inputs, inputs)
    examples = [read_shot(row, number, sides) for number, sides in enumerate(shots, 1)]
    given = [*values.values(), *(value for sides in examples for side in sides for value in side.values())]
    if given.count(STANDARD_STREAM) > 1:
        raise InputError("- (standard input) can be read only once")
    targets = _targets(row, output)
    results = options.load().run(
        row,
        values,
        shots=examples,
        language=options.language,
        max_duration_s=max_seconds,
        untrained=untrained,
        steps=options.steps,
        **options.sampling,
    )
    for name, result in results.items():
        record: dict[str, Any] = {"task": row.name, "value": name}
        if isinstance(result, str):
            record["text"] = line = result
        else:
            line = targets[name]
            record |= {"path": line, **_write(result, line)}
        if line == STANDARD_STREAM:
            continue
        if options.as_json:
            emit(record)
        else:
            print(line, flush=True)


def _list(options: Options) -> None:
    """The table: name, what goes in and comes out, and the scores of what the model was trained for."""
    from uniaudio2.tasks import TASKS

    trained = options.facts.trained_tasks or {}
    for row in TASKS.values():
        takes = [part.value + ("?" if part.optional else "") for part in row.inputs]
        makes = [part.value for part in row.outputs]
        shape = f"{', '.join(dict.fromkeys(takes)) or 'nothing'} -> {', '.join(dict.fromkeys(makes))}"
        scores = [str(score) for score in trained.get(row.name, ())]
        if options.as_json:
            known = {"trained": row.name in trained, "scores": [vars(score) for score in trained.get(row.name, ())]}
            emit({"task": row.name, "shape": shape, **(known if options.facts.trained_tasks is not None else {})})
        elif row.name in trained:
            print(f"{row.name}\t{shape}\ttrained: {'; '.join(scores) or 'not scored'}")
        else:
            print(f"{row.name}\t{shape}")


def read_values(task: "Task", parts: "Sequence[Part]", assignments: Sequence[str]) -> dict[str, str]:
    """``name=value`` words checked against parts of a row of the task table; audio values are paths.

    Raises:
        InputError: If a word is no assignment, a name is unknown, given twice or missing, or a file cannot be read.
    """
    kinds: dict[str, str] = {}
    for part in parts:
        kinds.setdefault(part.value, part.kind)
    side = "output" if parts == task.outputs else "input"
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r}: {side}s are given as name=value; {task.name} takes {', '.join(kinds)}")
        if name not in kinds:
            raise InputError(f"task {task.name!r} has no {side} {name!r}; it takes {', '.join(kinds) or 'none'}")
        if name in values:
            raise InputError(f"{name}: is given twice")
        if kinds[name] == "text":
            if not value.strip():
                raise InputError(f"{name}: the text is empty")
        elif not value:
            raise InputError(f"{name}: is empty, name a file")
        else:
            check_readable(value)
        values[name] = value
    missing = [part.value for part in parts if not part.optional and part.value not in values]
    if missing:
        wanted = " and ".join(f"{name}=…" for name in dict.fromkeys(missing))
        raise InputError(f"task {task.name!r} needs {wanted}")
    return values


def read_shot(task: "Task", number: int, sides: Sides) -> tuple[dict[str, str], dict[str, str]]:
    """Both sides of an example: a value alone where the row needs one, else ``name=value name=value``.

    Raises:
        InputError: If a side cannot be used; the message names the example.
    """
    try:
        given, made = (
            read_values(task, parts, _assignments(task, parts, words))
            for parts, words in zip((task.inputs, task.outputs), sides, strict=True)
        )
    except UserError as error:
        raise InputError(f"--shot {number}: {error}") from None
    return given, made


def _assignments(task: "Task", parts: "Sequence[Part]", words: str) -> list[str]:
    """``name=value`` for every value in one side of an example, cut where a name of the row and ``=`` stand."""
    from uniaudio2.tasks import required

    names = "|".join(re.escape(part.value) for part in parts)
    cuts = [match.start(1) for match in re.finditer(rf"(?:^|\s)((?:{names})=)", words)] if names else []
    if cuts and not words[: cuts[0]].strip():
        return [words[start:stop].strip() for start, stop in zip(cuts, [*cuts[1:], len(words)], strict=True)]
    needed = required(parts)
    if len(needed) == 1:
        return [f"{needed[0]}={words}"]
    if needed:
        raise InputError(f"write it as '{' '.join(f'{name}=…' for name in needed)}'")
    if words.strip():
        raise InputError(f"task {task.name!r} takes no input: give '' in its place")
    return []


def _targets(row: "Task", output: str | None) -> dict[str, str]:
    """Where each audio value that a row makes is written: the file ``output``, or files in that folder."""
    kinds = {part.value: part.kind for part in row.outputs if part.kind != "text"}
    if not kinds:
        if output is not None:
            raise InputError(f"task {row.name!r} makes text, which is printed: leave -o out")
        return {}
    if output is None:
        raise InputError(f"task {row.name!r} makes audio: name a wav file with -o")
    if len(kinds) > 1:
        check_output_folder(Path(output))
        return {name: str(Path(output) / f"{name}.wav") for name in kinds}
    name, last = next(iter(kinds.items()))
    if last == "reasoning":  # meaning without sound
        check_output_file(output, (".safetensors",))
    else:
        check_output_file(output, (*WRITABLE_AUDIO, ".safetensors", PUBLISHED_CODES))
    return {name: output}


def _write(result: "AudioResult | AudioCodes", target: str) -> dict[str, Any]:
    """Write generated audio as a wave or as its codes, as the name says, and give the facts for a report."""
    from uniaudio2.codes import AudioCodes

    if isinstance(result, AudioCodes):
        result.save(target)
        return {f"{name}_frames": codes.shape[-1] for name, codes in result.streams.items() if codes.shape[-1]}
    if target.endswith((".safetensors", PUBLISHED_CODES)):
        result.codes[0].save(target)
    else:
        result.save(target)
    return result.to_dict()
