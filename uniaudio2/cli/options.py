"""The options that several commands share, each declared once, and how a command takes them."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uniaudio2.batch import InputError
from uniaudio2.checks import check_number
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    import torch

    from uniaudio2.api.model import UniAudio2
    from uniaudio2.api.request import Sampling
    from uniaudio2.api.settings import ModelFacts

Command = Callable[..., Any]
TIMESTAMPS = ("segments", "words")


class Number(click.ParamType):
    """A finite number in a range.

    Args:
        least: Smallest value.
        most: Largest value.
        whole: Whether it must be an integer.
        above: Whether ``least`` itself is too small.
    """

    name = "number"

    def __init__(
        self, least: float = -math.inf, most: float = math.inf, *, whole: bool = False, above: bool = False
    ) -> None:
        self.least, self.most, self.whole, self.above = least, most, whole, above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """The number that a word stands for; a word that is none, or is out of range, is a mistake in the arguments."""
        try:
            number = int(value) if self.whole else float(value)
            check_number("it", number, self.least, self.most, whole=self.whole, above=self.above)
        except UserError as error:
            self.fail(str(error), param, ctx)
        except ValueError:
            self.fail(f"{value!r} is not a {'whole ' * self.whole}number", param, ctx)
        return number


class Timed(click.Command):
    """A command whose ``--timestamps`` may stand alone before a file; click would take the file for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the command line; see `click.Command.parse_args`."""
        joined: list[str] = []
        for word in args:
            if joined and joined[-1] == "--timestamps":
                joined[-1] += f"={word}" if word in TIMESTAMPS else "=segments"
                if word in TIMESTAMPS:
                    continue
            joined.append(word)
        return super().parse_args(ctx, joined)


def count(least: int = 1, most: float = math.inf) -> Number:
    """A whole number in a range."""
    return Number(least, most, whole=True)


def _shared(*flags: str, default: Any = None, **settings: Any) -> Any:
    """A field of `Options`, with what click needs to know."""
    shown = {"show_default": True} if default not in (None, False) else {}
    return field(default=default, metadata={"flags": flags, "settings": {"default": default, **shown, **settings}})


@dataclass
class Options:
    """What commands have in common, checked before weights load: each field is an option.

    `takes` gives a command the ones that it names.
    """

    timestamps: str | None = _shared(
        "--timestamps", metavar="[segments|words]", type=click.Choice(TIMESTAMPS), flag_value="segments", is_flag=False,
        help="Start and end second of each piece, or of each word.",
    )  # fmt: skip
    out: Path | None = _shared(
        "--out", "-o", "--output", metavar="PATH", type=Path,
        help="Also write one file per input into this folder, where files that exist are skipped; or the file itself, "
        "such as talk.srt.",
    )  # fmt: skip
    overwrite: bool = _shared("--overwrite", is_flag=True, default=False, help="Make files anew that exist already.")
    recursive: bool = _shared(
        "--recursive", "-r", is_flag=True, default=False,
        help="Search the folders inside a folder too (not hidden ones, nor links).",
    )  # fmt: skip
    batch_size: int = _shared(
        "--batch-size", default=8, type=count(1, 4096), metavar="N", help="Pieces of audio worked on together."
    )
    beams: int | None = _shared(
        "--beams", type=count(1, 64), metavar="N",
        help="Hypotheses of a transcript; 1 is quickest.  [default: the model's, nano 4]",
    )  # fmt: skip
    shifts: int | None = _shared(
        "--shifts", type=count(1, 16), metavar="N",
        help="Shifted encodings of a recording that its transcript must suit; 1 is quickest.  "
        "[default: the model's, nano 3]",
    )  # fmt: skip
    steps: int | None = _shared(
        "--steps", type=count(1, 1000), metavar="N", help="Steps of the decoder that makes the wave."
    )
    language: str | None = _shared("--language", "-l", metavar="en|zh|yue", help="Language.  [default: detected]")
    model: str | None = _shared(
        "--model", "-m", metavar="DIR", help="Model folder, or the name of a shipped model.  [default: nano]"
    )
    device: str = _shared("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1, mps, or auto.")
    dtype: str | None = _shared(
        "--dtype", type=click.Choice(["float32", "bfloat16", "int8", "int4"]),
        help="Weights in memory; int8 and int4 are those of the language model.  [default: as loaded]",
    )  # fmt: skip
    compile: bool = _shared(
        "--compile/--no-compile", default=False, show_default=False,
        help="Compile the language model first: a minute or two, which pays for large models.",
    )  # fmt: skip
    seed: int = _shared(
        "--seed", default=0, type=count(0, 2**63 - 1), metavar="N", help="The same seed gives the same result."
    )
    temperature: float | None = _shared(
        "--temperature", type=Number(0, 100), metavar="T",
        help="Randomness of sampling; 0 takes the best.  [default: by task]",
    )  # fmt: skip
    top_k: int | None = _shared(
        "--top-k", type=count(), metavar="N", help="Sample from the N best only; 1 is greedy.  [default: by task]"
    )
    top_p: float | None = _shared(
        "--top-p", type=Number(0, 1, above=True), metavar="P",
        help="Sample from this share of the mass.  [default: by task]",
    )  # fmt: skip
    guidance: float | None = _shared(
        "--guidance", type=Number(1, 100), metavar="G",
        help="How strictly to follow the text; 1 is off.  [default: by task]",
    )  # fmt: skip
    as_json: bool = _shared("--json", is_flag=True, default=False, help="One JSON object per line instead of text.")

    def __post_init__(self) -> None:
        if self.model is not None:
            self.model = _model_folder(self.model)
        kind = self.device.split(":")[0]
        if kind not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"--device {self.device}: unknown, choose auto, cpu, cuda, cuda:N or mps")
        if self.language is not None:
            from uniaudio2.text import check_language

            self.language = check_language(self.language)

    def check_trained(self, *tasks: str) -> None:
        """Refuse what the model was not trained for, before its weights load.

        Raises:
            UserError: One line that names what was trained.
        """
        for task in tasks:
            self.facts.check_trained(task)

    @functools.cached_property
    def facts(self) -> "ModelFacts":
        """What the model folder says about its use."""
        from uniaudio2.api.settings import ModelFacts
        from uniaudio2.storage.folder import open_folder

        return ModelFacts.of(open_folder(self.model))

    def load(self) -> "UniAudio2":
        """Load the model."""
        from uniaudio2.api.model import UniAudio2

        return UniAudio2.from_pretrained(self.model, device=self.device, dtype=self.dtype, compile=self.compile)

    @property
    def place(self) -> "torch.device":
        """The device of that name; raises UserError if it is not there."""
        from uniaudio2.devices import choose_device

        return choose_device(self.device)

    @property
    def sampling(self) -> "Sampling":
        """Sampling arguments of the ``UniAudio2`` methods; None means the task's default."""
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance,
        }


def _model_folder(name: str) -> str:
    """The folder that ``--model`` names."""
    from uniaudio2.storage.folder import CONFIG_FILE, SHIPPED

    path = Path(name)
    if not path.exists() and len(path.parts) == 1 and (SHIPPED / name / CONFIG_FILE).is_file():
        return str(SHIPPED / name)
    if not path.exists():
        raise InputError(f"--model {name}: no such folder")
    if not path.is_dir():
        raise InputError(f"--model {name}: is a file; name the folder that holds {CONFIG_FILE}")
    if not (path / CONFIG_FILE).is_file():
        raise InputError(
            f"--model {name}: not a model folder, {CONFIG_FILE} is missing "
            "(uniaudio2 convert makes one from published weights)"
        )
    return name


FILE_OPTIONS = ("out", "overwrite", "recursive")
PLACE_OPTIONS = ("model", "device")
DRAW_OPTIONS = ("seed", "temperature", "top_k", "top_p", "guidance")
MODEL_OPTIONS = (*PLACE_OPTIONS, "dtype", "compile", *DRAW_OPTIONS, "as_json")


def takes(*names: str) -> Callable[[Command], Command]:
    """Give a command the named fields of `Options` as options; it gets them as its argument ``options``, checked."""
    known = {each.name: each.metadata for each in fields(Options)}

    def decorate(command: Command) -> Command:
        """The command as click calls it, with the options declared."""

        @functools.wraps(command)
        def call(**values: Any) -> Any:
            options = Options(**{name: values.pop(name) for name in names})
            return command(**values, options=options)

        declared: Command = call
        for name in reversed(names):
            declared = click.option(*known[name]["flags"], name, **known[name]["settings"])(declared)
        return declared

    return decorate
