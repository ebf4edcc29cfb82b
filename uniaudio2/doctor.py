"""What this installation has, what it lacks and how to mend it; sizes of presets. Prints nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniaudio2 import __version__

if TYPE_CHECKING:
    from rich.table import Table

PURPOSES = {
    "published": "encoders of the published codec, hub ids",
    "data": "making synthetic training data",
    "eval": "scores",
    "pesq": "the PESQ score (compiled on installation)",
    "train": "training curves in TensorBoard",
    "media": "m4a, webm and video as input where there is no ffmpeg",
    "wandb": "training curves at Weights & Biases",
}
IMPORT_NAMES = {"pyyaml": "yaml"}
TOOLS = {
    "espeak-ng": "speech of many languages for 'uniaudio2 data synth'; install the system package espeak-ng",
    "flite": "English voices for 'uniaudio2 data synth'; install the system package flite",
    "festival": "English voices for 'uniaudio2 data synth'; install festival and the voices of docs/train/data.md",
    "RHVoice-test": "English voices for 'uniaudio2 data synth'; install rhvoice (Debian non-free)",
    "pico2wave": "English voices for 'uniaudio2 data synth'; install libttspico-utils (Debian non-free)",
}
BYTES_PER_WEIGHT = {"float32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*\])?(?:>=([\d.]+))?")
INT4_GROUP = 64  # weights that share one half-precision scale


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str  # "program", "package", "extra", "tool", "device" or "model"
    name: str
    value: str
    ok: bool = True
    remedy: str = ""  # what to do when it is not


@dataclass(frozen=True)
class PresetSize:
    """Parameters of one preset and what they take in memory, in bytes."""

    kind: str  # "lm" or "codec"
    name: str
    parameters: dict[str, int]  # by child module
    buffers: int  # bytes of tables and codebooks, the same in every type
    cache_per_position: int  # bytes of key/value cache per sequence position, bf16; 0 for a codec

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    def memory(self) -> dict[str, int]:
        """Bytes of the weights by type; int8 and int4 with their scales, embeddings and vectors included."""
        scales = {"int8": 2 / 1024, "int4": 2 / INT4_GROUP}  # bytes of scale per weight (rows of about 1024)
        return {
            dtype: round(self.total * (size + scales.get(dtype, 0.0))) + self.buffers
            for dtype, size in BYTES_PER_WEIGHT.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "total": self.total, "memory": self.memory()}


def diagnose(model: Path | str | None = None) -> list[Finding]:
    """Everything there is to say about this installation.

    Args:
        model: A model folder or hub id to look at; None for the shipped one.
    """
    return [*_program(), *packages(), *_tools(), *devices(), *model_findings(model)]


def _program() -> list[Finding]:
    """Versions of this program, of Python and of the system."""
    enough = sys.version_info >= (3, 11)
    return [
        Finding("program", "uniaudio2", __version__),
        Finding("program", "python", platform.python_version(), enough, "" if enough else "use Python 3.11 or later"),
        Finding("program", "system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"),
    ]


def packages() -> list[Finding]:
    """Packages that are always needed, and extras: their versions, or how to install them."""
    wanted = requirements()
    findings = []
    for name, least in wanted.pop("").items():
        found = _version(name)
        ok = found is not None and _numbers(found) >= _numbers(least)
        value = "missing" if found is None else found if ok else f"{found}, older than {least}"
        findings.append(Finding("package", name, value, ok, "" if ok else f"pip install '{name}>={least}'"))
    for extra, names in wanted.items():
        lacking = [name for name in names if _version(name) is None]
        value = "installed" if not lacking else f"without {', '.join(lacking)}"
        remedy = f"for {PURPOSES[extra]}: pip install 'uniaudio2[{extra}]'" if lacking else ""
        findings.append(Finding("extra", extra, value, not lacking, remedy))
    return findings


def requirements() -> dict[str, dict[str, str]]:
    """Least version of every package, by extra ("" for what is always needed); of extras those that users need."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    if table.get("name") == "uniaudio2":  # a checkout; what is installed beside it may be older
        lines = {"": table["dependencies"], **table["optional-dependencies"]}
    else:
        lines = {"": []}
        for line in importlib.metadata.requires("uniaudio2") or []:
            extra = re.search(r"""extra == ["'](.+?)["']""", line)
            lines.setdefault(extra[1] if extra else "", []).append(line)
    parsed = {
        extra: {match[1]: match[2] or "0" for match in map(_REQUIREMENT.match, names) if match}
        for extra, names in lines.items()
    }
    return {extra: names for extra, names in parsed.items() if extra in ("", *PURPOSES)}


def _version(name: str) -> str | None:
    """The installed version of a package; None if it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        known = importlib.util.find_spec(IMPORT_NAMES.get(name, name.replace("-", "_")))
        return None if known is None else "unknown version"


def _numbers(version: str) -> tuple[float, ...]:
    """A version for comparison, without what follows its numbers; an unknown one is new enough."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(float, found[0].split("."))) if found else (math.inf,)


def _tools() -> list[Finding]:
    """Programs outside of Python."""
    return [
        Finding("tool", name, path or "missing", path is not None, "" if path else f"for {purpose}")
        for name, purpose in TOOLS.items()
        for path in [shutil.which(name)]
    ]


def devices() -> list[Finding]:
    """Where models can run: CPU, CUDA, MPS, with memory and numeric types."""
    import torch

    findings = [Finding("device", "cpu", f"{torch.get_num_threads()} threads, {_memory_text()}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        kinds = "bf16" if torch.cuda.is_bf16_supported() else "float16"
        findings.append(
            Finding("device", f"cuda:{index}", f"{properties.name}, {_gib(properties.total_memory)}, {kinds}")
        )
    if torch.backends.mps.is_available():
        findings.append(Finding("device", "mps", "Apple GPU"))
    if len(findings) == 1 and torch.version.cuda is None and shutil.which("nvidia-smi"):
        remedy = "this torch has no CUDA: install the CUDA build of torch for your driver"
        findings.append(Finding("device", "cuda", "a GPU is there but torch cannot use it", False, remedy))
    return findings


def _memory_text() -> str:
    """The machine's memory."""
    try:
        return _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return "memory unknown"


def model_findings(source: Path | str | None = None) -> list[Finding]:
    """Whether a model folder is complete, part by part.

    Args:
        source: See :func:`uniaudio2.storage.folder.open_folder`.
    """
    from uniaudio2.checkpoint import PARTS
    from uniaudio2.errors import CheckpointError
    from uniaudio2.storage.folder import CARD_FILE, open_folder
    from uniaudio2.tensors import TensorFileError, open_tensors

    try:
        folder = open_folder(source)
    except CheckpointError as error:
        return [Finding("model", "folder", str(source or "shipped"), False, str(error))]
    findings = [Finding("model", "folder", str(folder.path))]
    for part in PARTS:
        if not folder.has(part):
            optional = part == "text_decoder"
            findings.append(
                Finding("model", part, "not in this folder", optional, "" if optional else "convert or train it")
            )
            continue
        try:
            tensors = open_tensors(folder.weights(part))
        except TensorFileError as error:
            findings.append(Finding("model", part, "unreadable", False, str(error)))
            continue
        size = sum(tensor.num_bytes for tensor in tensors.values())
        count = sum(tensor.numel for name, tensor in tensors.items() if not name.endswith(".scale"))
        kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.numel > 1024})
        findings.append(Finding("model", part, f"{count / 1e6:.1f} M values, {size / 1e6:.1f} MB ({', '.join(kinds)})"))
    try:
        findings.append(Finding("model", "tokenizer", folder.tokenizer.name))
    except CheckpointError as error:
        findings.append(Finding("model", "tokenizer", "missing", False, str(error)))
    card = (folder.path / CARD_FILE).is_file()
    findings.append(Finding("model", "card", CARD_FILE if card else "none"))
    return findings


def preset_size(kind: str, name: str) -> PresetSize:
    """Parameters and memory of a preset, counted on the meta device.

    Args:
        kind: ``lm`` or ``codec``.
        name: The preset.

    Raises:
        ConfigError: If there is no such preset.
        MissingPackageError: If a published encoder's package is missing.
    """
    import torch

    from uniaudio2.checkpoint import PARTS
    from uniaudio2.config import load_config, preset_path

    config: Any = load_config(PARTS[kind].config_class, preset_path(kind, name))
    with torch.device("meta"):
        model: Any = PARTS[kind].model_class(config)
    parameters = {child: sum(p.numel() for p in module.parameters()) for child, module in model.named_children()}
    loose = sum(p.numel() for p in model.parameters(recurse=False))
    if loose:
        parameters["other"] = loose
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    cache = 0
    if kind == "lm":
        stacks = (config.understanding, config.backbone, config.generation)
        cache = sum(2 * 2 * stack.num_layers * stack.num_kv_groups * stack.head_dim for stack in stacks)
    return PresetSize(kind, name, parameters, buffers, cache)


def preset_sizes(name: str) -> list[PresetSize]:
    """The sizes of every preset of that name (LM, codec or both).

    Raises:
        ConfigError: If there is none; the message lists the names.
    """
    from uniaudio2.config import ConfigError, list_presets

    kinds = [kind for kind in ("lm", "codec") if name in list_presets(kind)]
    if not kinds:
        known = sorted({preset for kind in ("lm", "codec") for preset in list_presets(kind)})
        raise ConfigError(f"no preset '{name}'; there are {', '.join(known)}")
    return [preset_size(kind, name) for kind in kinds]


def findings_table(findings: Sequence[Finding]) -> Table:
    """The findings as a table for a terminal, one row each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        mark = Text("ok", "green") if finding.ok else Text("--", "yellow")
        table.add_row(finding.topic, finding.name, mark, Text(finding.value), Text(finding.remedy))
    return table


def memory_table(sizes: Sequence[PresetSize]) -> Table:
    """What presets take in memory, as a table for a terminal: MB of weights by numeric type."""
    from rich.table import Table

    table = Table(title="memory of the weights, MB", title_justify="left")
    for name in ("preset", "parameters", *BYTES_PER_WEIGHT):
        table.add_column(name, justify="left" if name == "preset" else "right")
    for size in sizes:
        megabytes = [f"{count / 1e6:.1f}" for count in size.memory().values()]
        table.add_row(f"{size.kind} {size.name}", f"{size.total / 1e6:.1f} M", *megabytes)
    return table


def _gib(size: float) -> str:
    """Bytes in GiB, for reading."""
    return f"{size / 2**30:.1f} GiB"
