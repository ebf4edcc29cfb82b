"""From codes to a model folder: ``train`` and ``assemble``."""

from pathlib import Path
from typing import Any

import click

from uniaudio2.batch import InputError, check_output_folder
from uniaudio2.cli.output import say


@click.command()
@click.argument("stage")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--config", "-c", metavar="NAME", help="YAML file or preset name.  [default: the stage's preset]")
@click.pass_context
def train(context: click.Context, stage: str, overrides: tuple[str, ...], config: str | None) -> None:
    """Train one stage.

    STAGE is a name such as speech_expert or lm; 'list' shows all. Changes are words such as train.lr=1e-4. A run that
    was interrupted goes on where it stopped.
    """
    from uniaudio2.train.stages import STAGES, run_stage, stage_config

    if stage == "list":
        print("\n".join(STAGES))
        return
    settings = stage_config(stage, config, overrides)
    result = run_stage(settings, log=say)
    if not result.finished:
        say(f"stopped at step {result.step} and saved; the same command goes on")
        context.exit(130)
    if result.export_dir is not None:  # only the leading process exports
        print(result.export_dir)


@click.command()
@click.argument("out", type=Path)
@click.option("--part", "parts", multiple=True, metavar="DIR", help="Codec part that a stage exported; repeat.")
@click.option("--text-decoder", metavar="DIR", help="Export of the reasoning stage.")
@click.option(
    "--language-model", "language_models", multiple=True, metavar="DIR",
    help="Export of an lm stage; of several runs the mean is taken.",
)  # fmt: skip
@click.option(
    "--preset", default="nano", show_default=True, help="Codec preset, or YAML file, that the parts were trained with."
)
@click.option(
    "--generation", metavar="NAME", help="Preset or YAML file of how the model generates.  [default: as --preset]"
)
@click.option("--card", type=Path, metavar="FILE", help="Model card to put in.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bf16", "int8"]), default="int8", show_default=True,
    help="How weights are stored.",
)  # fmt: skip
def assemble(
    out: Path,
    parts: tuple[str, ...],
    text_decoder: str | None,
    language_models: tuple[str, ...],
    preset: str,
    generation: str | None,
    card: Path | None,
    dtype: Any,
) -> None:
    """Join what stages exported into a model folder.

    OUT is made or extended.
    """
    if not parts and not language_models and text_decoder is None:
        raise InputError("nothing to join: give --part for every codec stage, --language-model or --text-decoder")
    check_output_folder(out)
    from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE
    from uniaudio2.train.stages import assemble as join

    print(
        join(
            out,
            preset=preset,
            parts=parts,
            text_decoder=text_decoder,
            language_models=language_models,
            generation=generation,
            tokenizer=DEFAULT_FOLDER / TOKENIZER_FILE,
            card=card.read_text(encoding="utf-8") if card else None,
            dtype=dtype,
        )
    )
