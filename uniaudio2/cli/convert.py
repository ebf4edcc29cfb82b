"""Published weights into model folders: ``convert``."""

from pathlib import Path
from typing import Any

import click

from uniaudio2.batch import InputError, check_output_folder
from uniaudio2.cli.options import Options, takes
from uniaudio2.cli.output import emit


@click.command()
@click.argument("source")
@click.argument("paths", nargs=-1, required=True, metavar="[SOURCE] TARGET [KEY=VALUE]...")
@click.option(
    "--dtype", type=click.Choice(["same", "float32", "bf16", "int8"]), default="same", show_default=True,
    help="How weights are stored.",
)  # fmt: skip
@click.option("--preset", default="3b", show_default=True, help="Language model preset, with llama.")
@takes("seed", "as_json")
def convert(source: str, paths: tuple[str, ...], dtype: Any, preset: str, *, options: Options) -> None:
    """Turn published weights into a model folder.

    SOURCE is a file or a folder, or the word llama, to start from the Llama folder that follows, or whisper, for the
    encoder of the Whisper that follows.
    """
    places = [path for path in paths if "=" not in path]
    overrides = [path for path in paths if "=" in path]
    foreign = source in ("llama", "whisper")
    if len(places) != (2 if foreign else 1):
        raise InputError(f"give: uniaudio2 convert {source if foreign else 'SOURCE'} {'SOURCE ' * foreign}TARGET")
    check_output_folder(Path(places[-1]))
    if source == "whisper":
        if overrides:
            raise InputError(f"convert whisper: takes no changes, {overrides[0]!r} given")
        from uniaudio2.published.whisper import convert_whisper

        report = convert_whisper(places[0], places[1], dtype=dtype)
    elif source == "llama":
        from uniaudio2.published.llama import convert_llama

        report = convert_llama(places[0], places[1], preset=preset, dtype=dtype, overrides=overrides, seed=options.seed)
    else:
        from uniaudio2.published.convert import convert as convert_weights

        report = convert_weights(source, places[0], dtype=dtype, overrides=overrides)
    if options.as_json:
        emit(report.to_dict())
    else:
        print("\n".join(report.lines()))
