"""Audio to codes and back: ``encode`` and ``decode``."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uniaudio2.batch import (
    CODES_SUFFIXES,
    PUBLISHED_CODES,
    STANDARD_STREAM,
    InputError,
    check_output_file,
    collect_inputs,
)
from uniaudio2.cli.options import PLACE_OPTIONS, Options, takes
from uniaudio2.cli.output import Batch, items_to_do, report_made, say
from uniaudio2.formats import AUDIO_SUFFIXES, WRITABLE_AUDIO

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2

inputs_argument = click.argument("inputs", nargs=-1, required=True)


@click.command()
@inputs_argument
@click.option(
    "--output", "-o", "--out", required=True, metavar="PATH",
    help="Codes file (.safetensors, NAME_reason.pt), - , or a folder.",
)  # fmt: skip
@click.option("--published", is_flag=True, help="The published pair of files, NAME_reason.pt and NAME_semantic.pt.")
@takes("overwrite", "recursive", *PLACE_OPTIONS, "as_json")
def encode(inputs: tuple[str, ...], output: str, published: bool, *, options: Options) -> None:
    """Turn audio into codes.

    INPUTS are audio files, folders, or - for standard input. An output called NAME_reason.pt is the published pair of
    files, with NAME_semantic.pt beside it.
    """

    def work(model: "UniAudio2", source: str, target: str) -> dict[str, Any]:
        """Encode one file; tells how long it is."""
        codes = model.encode(source)
        if target == STANDARD_STREAM:
            with tempfile.TemporaryDirectory() as folder:
                codes.save(Path(folder) / "codes.safetensors")
                sys.stdout.buffer.write((Path(folder) / "codes.safetensors").read_bytes())
                sys.stdout.buffer.flush()
        else:
            codes.save(Path(target))
        frames = {f"{name}_frames": stream.shape[-1] for name, stream in codes.streams.items()}
        return {"duration_s": codes.duration_s, **frames}

    if published and not _into_folder(inputs, output) and not output.endswith(PUBLISHED_CODES):
        raise InputError(f"{output}: --published writes two files; name the first, such as x{PUBLISHED_CODES}")
    suffix = PUBLISHED_CODES if published else ".safetensors"
    _convert(inputs, output, suffix, (".safetensors", PUBLISHED_CODES), AUDIO_SUFFIXES, options, work)


@click.command()
@inputs_argument
@click.option("--output", "-o", "--out", required=True, metavar="PATH", help="Audio file, - , or a folder.")
@click.option(
    "--solver", type=click.Choice(["euler", "midpoint"]), help="Of the decoder; midpoint takes twice the time."
)
@click.option(
    "--kind", type=click.Choice(["speech", "sound"]), default="speech", show_default=True,
    help="Whose defaults of the decoder.",
)  # fmt: skip
@takes("overwrite", "recursive", "steps", *PLACE_OPTIONS, "seed", "temperature", "guidance", "as_json")
def decode(inputs: tuple[str, ...], output: str, solver: Any, kind: Any, *, options: Options) -> None:
    """Turn codes into audio.

    INPUTS are files of codes, folders, or - for standard input. Seed, temperature and guidance act on the decoder's
    noise. Of a published pair name the first file, NAME_reason.pt.
    """

    def work(model: "UniAudio2", source: str, target: str) -> dict[str, Any]:
        """Decode one file; tells how long it is."""
        from uniaudio2.audio import AudioWriter
        from uniaudio2.codes import AudioCodes

        if source == STANDARD_STREAM:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "codes.safetensors"
                path.write_bytes(sys.stdin.buffer.read())
                codes = AudioCodes.load(path)
        else:
            codes = AudioCodes.load(Path(source))
        pieces = model.decode_stream(
            codes,
            seed=options.seed,
            kind=kind,
            guidance=options.guidance,
            steps=options.steps,
            solver=solver,
            temperature=options.temperature,
        )
        with AudioWriter(target) as file:
            for piece in pieces:
                file.write(piece)
        return {"duration_s": codes.duration_s}

    _convert(inputs, output, ".wav", WRITABLE_AUDIO, CODES_SUFFIXES, options, work)


def _into_folder(inputs: Sequence[str], output: str) -> bool:
    """Whether the result is a folder: several inputs, an input folder, or an existing output folder."""
    return len(inputs) > 1 or Path(inputs[0]).is_dir() or (output != STANDARD_STREAM and Path(output).is_dir())


def _convert(
    inputs: Sequence[str],
    output: str,
    suffix: str,
    writable: Sequence[str],
    readable: frozenset[str],
    options: Options,
    work: "Callable[[UniAudio2, str, str], dict[str, Any]]",
) -> None:
    """The common body: one file in, one file out, a folder's tree mirrored."""
    batch = Batch(options.as_json and output != STANDARD_STREAM)
    items = collect_inputs(inputs, readable, recursive=options.recursive, log=say)
    if _into_folder(inputs, output):
        todo = [(item, str(target)) for item, target in items_to_do(items, Path(output), suffix, options, batch)]
    else:
        check_output_file(output, writable)
        todo = [(item, output) for item in batch.screen(items)]
    if not todo:
        batch.finish()
        return
    model = options.load()
    for item, target in todo:
        with batch.guard(item.source):
            began = time.perf_counter()
            facts = work(model, item.source, target)
            batch.served += 1
            report_made({"path": item.source, "output": target, **facts}, target, options, began)
    batch.finish()
