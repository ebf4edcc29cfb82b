"""The options that several commands share, each declared once, and how a command takes them."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from uniaudio2.batch import InputError

if TYPE_CHECKING:
    import torch

    from uniaudio2.api.model import UniAudio2


@dataclass
class Options:
    """What commands have in common, checked before weights load: each field is an option.

    `takes` gives a command the ones that it names.
    """

    timestamps: Annotated[bool, typer.Option("--timestamps", help="Start and end second of each piece.")] = False
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Also write one file per input there; files that exist are skipped."
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make files anew that exist in the output folder.")] = (
        False
    )
    recursive: Annotated[
        bool,
        typer.Option("--recursive", "-r", help="Search the folders inside a folder too (not hidden ones, nor links)."),
    ] = False
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pieces of audio worked on together.")] = 8
    beams: Annotated[
        int | None,
        typer.Option(
            "--beams",
            min=1,
            max=64,
            help="Hypotheses of a transcript; 1 is quickest.  [dim]default: the model's, nano 4[/dim]",
        ),
    ] = None
    hearings: Annotated[
        int | None,
        typer.Option(
            "--hearings",
            min=1,
            max=16,
            help="Instants from which a recording is heard; 1 is quickest.  [dim]default: the model's, nano 3[/dim]",
        ),
    ] = None
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the decoder that makes the wave.")] = (
        None
    )
    language: Annotated[
        str | None,
        typer.Option("--language", "-l", metavar="en|zh|yue", help="Language.  [dim]default: detected[/dim]"),
    ] = None
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", metavar="DIR", help="Model folder.  [dim]default: the model in the package[/dim]"
        ),
    ] = None
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps, or auto.")] = "auto"
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")] = 0
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", min=0.0, help="Randomness of sampling; 0 takes the best.  [dim]default: by task[/dim]"
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", min=1, help="Sample from the k best only; 1 is greedy.  [dim]default: by task[/dim]"),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p", min=0.0, max=1.0, help="Sample from this share of the mass.  [dim]default: by task[/dim]"
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance", min=1.0, help="How strictly to follow the text; 1 is off.  [dim]default: by task[/dim]"
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of text.")] = False

    def __post_init__(self) -> None:
        if self.model is not None:
            if not self.model.exists():
                raise InputError(f"--model {self.model}: no such folder")
            if not self.model.is_dir():
                raise InputError(f"--model {self.model}: is a file; name the folder that holds config.yaml")
            if not (self.model / "config.yaml").is_file():
                raise InputError(
                    f"--model {self.model}: not a model folder, config.yaml is missing "
                    "(uniaudio2 convert makes one from published weights)"
                )
        kind = self.device.split(":")[0]
        if kind not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"--device {self.device}: unknown, choose auto, cpu, cuda, cuda:N or mps")
        if self.language is not None:
            from uniaudio2.text import check_language

            self.language = check_language(self.language)

    def load(self) -> "UniAudio2":
        """Load the model."""
        from uniaudio2.api.model import UniAudio2

        return UniAudio2.from_pretrained(self.model, device=self.device)

    @property
    def place(self) -> "torch.device":
        """The device of that name; raises ValueError if it is not there."""
        from uniaudio2.devices import choose_device

        return choose_device(self.device)

    @property
    def sampling(self) -> dict[str, Any]:
        """Sampling arguments of the ``UniAudio2`` methods; None means the task's default."""
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance,
        }


FILE_OPTIONS = ("out_folder", "overwrite", "recursive")
CODEC_OPTIONS = ("model", "device", "seed", "temperature", "top_k", "guidance", "as_json")
MODEL_OPTIONS = ("model", "device", "seed", "temperature", "top_k", "top_p", "guidance", "as_json")


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named fields of `Options` as options; it gets them as its argument ``options``, checked."""
    hints = get_type_hints(Options, include_extras=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(Options, name), annotation=hints[name])
        for name in names
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        """Replace ``options`` in the command's signature, which is what typer reads."""
        signature = inspect.signature(command, eval_str=True)
        own = [part for part in signature.parameters.values() if part.name != "options"]
        own = [part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in own]

        @functools.wraps(command)
        def call(**values: Any) -> None:
            """The command as typer sees it."""
            options = Options(**{name: values.pop(name) for name in names})
            command(**values, options=options)

        call.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        call.__annotations__ = {part.name: part.annotation for part in [*own, *shared]}
        return call

    return decorate
