"""Conversion of published files into model folders.

Knows file names, key spellings and how to report them; the sizes of published models come from `published`, the names
of their parameters from the classes themselves. Files are read without running anything in them, tensor by tensor.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uniaudio2.checkpoint import PARTS
from uniaudio2.config import ConfigError, config_to_dict, load_config
from uniaudio2.errors import CheckpointError, UserError
from uniaudio2.files import write_text
from uniaudio2.published.sizes import PublishedError, codec_config, lm_config, musicfm_config, read_sqcodec_config
from uniaudio2.storage.folder import CARD_FILE, TOKENIZER_FILE, copy_file, write_folder_config
from uniaudio2.storage.load import MODEL_ERRORS, SizeLimit, check_value, no_model
from uniaudio2.storage.pack import pack_tensors
from uniaudio2.tensors import (
    INDEX_SUFFIX,
    LazyTensor,
    TensorFileError,
    is_torch_file,
    load_torch,
    open_tensors,
    save_tensors,
    summarise,
)

logger = logging.getLogger(__name__)

ConvertDtype = Literal["same", "float32", "bf16", "int8"]
Kind = Literal["lm", "codec", "sqcodec", "musicfm", "whisper", "wavlm", "other"]
Action = Literal["used", "renamed", "unused"]

WEIGHT_SUFFIXES = (".checkpoint", ".ckpt", ".pth", ".pt", ".bin", ".safetensors")
NESTINGS = ("model", "codec_model", "state_dict", "module", "generator")
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
CODEC_ENCODERS = {
    "whisper": "whisper_encoder.",
    "wavlm": "wavlm_encoder.",
    "musicfm": "pretrained_model.model.model.",
}
NORM_SPELLINGS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
REPORT_FILE = "conversion.json"


class ConversionError(UserError):
    """Files that cannot be converted: one line that says why; ``report`` has what was found until then."""

    def __init__(self, message: str, report: ConversionReport | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class KeyRecord:
    """What became of one tensor of a source file."""

    file: str
    key: str
    action: Action
    name: str | None  # in the written file
    why: str = ""  # for unused ones


@dataclass
class ConversionReport:
    """Everything that a conversion did and could not do."""

    records: list[KeyRecord] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # names here that no source gave
    wrong_shape: list[str] = field(default_factory=list)
    wrong_type: list[str] = field(default_factory=list)  # whole numbers where weights are, and the other way round
    unexplained: list[str] = field(default_factory=list)  # source keys that nothing here knows
    notes: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def count(self, action: Action) -> int:
        """Number of source tensors with this action."""
        return sum(record.action == action for record in self.records)

    @property
    def problem(self) -> str | None:
        """One line that says what keeps the result from being complete; None if nothing does."""
        kinds = (
            ("missing", self.missing),
            ("of a wrong shape", self.wrong_shape),
            ("of a wrong type", self.wrong_type),
            ("not explained", self.unexplained),
        )
        parts = [f"{len(keys)} {what} ({summarise(keys)})" for what, keys in kinds if keys]
        return "; ".join(parts) or None

    def lines(self) -> list[str]:
        """A short summary for people."""
        text = [
            f"{self.count('used')} tensors used under their name, {self.count('renamed')} renamed, "
            f"{self.count('unused')} not needed"
        ]
        whys: dict[str, list[str]] = {}
        for record in self.records:
            if record.action == "unused":
                whys.setdefault(record.why, []).append(record.key)
        text += [f"not needed ({why}): {len(keys)}, {summarise(keys, 3)}" for why, keys in whys.items()]
        text += self.notes
        text += [f"wrote {path}" for path in self.written]
        return text if self.problem is None else [*text, self.problem]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: every key and what became of it."""
        return {
            "keys": [
                {"file": r.file, "key": r.key, "action": r.action, "name": r.name, **({"why": r.why} if r.why else {})}
                for r in self.records
            ],
            "missing": self.missing,
            "wrong_shape": self.wrong_shape,
            "wrong_type": self.wrong_type,
            "unexplained": self.unexplained,
            "notes": self.notes,
            "written": self.written,
        }


@dataclass(frozen=True)
class Source:
    """One weight file, opened: its tensors under clean published keys."""

    path: Path
    kind: Kind
    tensors: Mapping[str, LazyTensor]
    dropped: Mapping[str, str]  # key in the file -> why it is no weight of the model


def convert(
    source: Path | str,
    target: Path | str,
    *,
    dtype: ConvertDtype = "same",
    overrides: Sequence[str] = (),
) -> ConversionReport:
    """Turn published files into a model folder, or into one part of it.

    Args:
        source: One published file (``llm_ep3.checkpoint``, ``ReasoningCodec.checkpoint``, ``sqcodec.pth``,
            ``music_ssl.pt``) with its companions beside it, or the folder that holds them all.
        target: The model folder, created if absent; parts that are there already and not converted now stay.
        dtype: ``same`` keeps the file's types; else ``float32``, ``bf16`` or ``int8``.
        overrides: ``lm.KEY=VALUE`` and ``codec.KEY=VALUE`` for sizes that no file tells.

    Returns:
        What was used, renamed and not needed; also written to ``conversion.json``.

    Raises:
        ConversionError: If a file cannot be read safely, a companion is missing, or a key is missing, unexplained or
            of the wrong shape. Nothing has been written then.
    """
    source, target = Path(source), Path(target)
    if not source.exists():
        raise ConversionError(f"{source}: no such file or folder")
    folder = source if source.is_dir() else source.parent
    report = ConversionReport()
    try:
        found = _choose(source, report)
        jobs = [_plan(kind, found, folder, overrides, report) for kind in ("lm", "codec") if kind in found]
        if not jobs:
            jobs = [_plan_single(found[kind], folder, report) for kind in ("sqcodec", "musicfm") if kind in found]
    except (TensorFileError, PublishedError, ConfigError) as error:
        problem = str(error) if str(folder) in str(error) else f"{source}: {error}"
        raise ConversionError(problem, report) from None
    if not jobs:
        raise ConversionError(
            f"{source}: holds no published weights (looked for {', '.join(WEIGHT_SUFFIXES)}); for a Hugging Face Llama "
            "folder use 'uniaudio2 convert llama'"
        )
    if report.problem:
        raise ConversionError(f"{source}: {report.problem}", report)
    write_parts(jobs, target, dtype, report)
    _copy_tokenizer(folder, target, [job.part for job in jobs], report)
    write_report(target, report)
    return report


@dataclass(frozen=True)
class Job:
    """One part, ready to be written."""

    source: Path  # file or folder, for error messages
    part: str
    config: Any
    model: nn.Module  # on the meta device: names, shapes and which axes an int8 scale spans
    tensors: dict[str, LazyTensor]


# -- reading ----------------------------------------------------------------------------------------------------------


def open_source(path: Path) -> Source:
    """Open a published weight file of any spelling, without running anything in it.

    Args:
        path: A PyTorch or safetensors file.

    Returns:
        Its tensors with nesting, ``module.`` and wrappers' names removed, and what kind of model they are.

    Raises:
        TensorFileError: If it cannot be read safely.
        ConversionError: If two keys become one.
    """
    dropped: dict[str, str] = {}
    tensors = _flatten(load_torch(path), path, dropped) if is_torch_file(path) else open_tensors(path)
    clean: dict[str, LazyTensor] = {}
    for key, tensor in tensors.items():
        name = clean_key(key)
        if name.endswith("_flat_param"):
            raise ConversionError(f"{path}: holds flattened FSDP shards ({key}); save a full state dict first")
        if name in clean:
            raise ConversionError(f"{path}: two keys become '{name}' when prefixes are removed")
        clean[name] = tensor
    return Source(path, kind_of(clean), clean, dropped)


def clean_key(key: str) -> str:
    """A key without one leading ``module.`` and without the names that wrappers of training put in.

    A ``module.`` inside a name (``conv_module.``) stays.
    """
    for wrapper in WRAPPERS:
        key = re.sub(rf"(^|(?<=\.)){re.escape(wrapper)}", "", key)
    return key.removeprefix("module.")


def _flatten(loaded: Any, path: Path, dropped: dict[str, str]) -> dict[str, LazyTensor]:
    """The state dict inside what ``torch.save`` wrote, wherever it is nested."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            raise TensorFileError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
        if any(isinstance(value, Tensor) for value in loaded.values()):
            break
        inner = next((name for name in NESTINGS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            raise TensorFileError(f"{path}: holds no state dict (keys {summarise(map(str, loaded))})")
        dropped.update({str(name): "not the model's weights" for name in loaded if name != inner})
        loaded = loaded[inner]
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            dropped[str(name)] = "not a tensor"
    return {str(name): LazyTensor.of(value) for name, value in loaded.items() if isinstance(value, Tensor)}


def kind_of(tensors: Iterable[str]) -> Kind:
    """Which published model a state dict belongs to, by its clean keys."""
    names = list(tensors)

    def has(*patterns: str) -> bool:
        """Whether every pattern matches the beginning of some key."""
        return all(any(re.match(pattern, name) for name in names) for pattern in patterns)

    if has(r"audio_head$", r"backbone\.transformer\."):
        return "lm"
    if has(r"cfm_wrapper\.", r"vq_acoustic\."):
        return "codec"
    if has(r"encoder\.\d+\.", r"decoder\.\d+\.") and not has(r"encoder\.layers\."):
        return "sqcodec"
    if has(r"(.+\.)?conformer\.layers\.0\.ffn1\."):
        return "musicfm"
    if has(r"(.+\.)?encoder\.layers\.0\.attention\.gru_rel_pos_const$"):
        return "wavlm"
    if has(r"(model\.)?encoder\.conv1\.weight$", r"(model\.)?encoder\.embed_positions\.weight$"):
        return "whisper"
    return "other"


def _candidates(folder: Path) -> list[Path]:
    """Weight files of a folder and of the encoders' folders in it."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name.endswith(WEIGHT_SUFFIXES)]
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        files += _encoder_weights(inner)
    return files


def _encoder_weights(folder: Path) -> list[Path]:
    config = folder / "config.json"
    if not config.is_file():
        return []
    indexes = sorted(folder.glob(f"*.safetensors{INDEX_SUFFIX}"))
    if indexes:
        return [indexes[0]]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    return []


def _choose(source: Path, report: ConversionReport) -> dict[str, Source]:
    """The sources by kind. A file brings along what lies beside it; of several language models the last counts."""
    if source.is_file():
        first = open_source(source)
        if first.kind == "other":
            raise ConversionError(f"{source}: holds tensors, but of no published model ({summarise(first.tensors)})")
        found: dict[str, Source] = {first.kind: first}
        if first.kind == "codec":
            for path in _candidates(source.parent):
                if path != source:
                    other = _try_open(path, report)
                    if other is not None and other.kind in ("sqcodec", *CODEC_ENCODERS):
                        found.setdefault(other.kind, other)
        return found
    by_kind: dict[str, list[Source]] = {}
    for path in _candidates(source):
        opened = open_source(path) if path.parent == source else _try_open(path, report)
        if opened is not None:
            by_kind.setdefault(opened.kind, []).append(opened)
    codecs = by_kind.get("codec", [])
    if len(codecs) > 1:
        names = ", ".join(entry.path.name for entry in codecs)
        raise ConversionError(f"{source}: holds several codecs ({names}); convert the one you want by its file name")
    found = {}
    for kind, entries in by_kind.items():
        entries.sort(key=lambda entry: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", entry.path.name)])
        found[kind] = entries[-1]
        if kind == "other":
            report.notes += [f"left alone, no published weights: {entry.path.name}" for entry in entries]
        elif len(entries) > 1:
            others = ", ".join(entry.path.name for entry in entries[:-1])
            report.notes.append(f"took {entries[-1].path.name}, left out {others}")
    return found


def _try_open(path: Path, report: ConversionReport) -> Source | None:
    """Open a companion file; one that cannot be read is noted, and named again if it turns out to be needed."""
    try:
        return open_source(path)
    except (TensorFileError, ConversionError) as error:
        report.notes.append(f"companion not used: {error}")
        return None


# -- planning ---------------------------------------------------------------------------------------------------------


def _plan(
    kind: str, found: Mapping[str, Source], folder: Path, overrides: Sequence[str], report: ConversionReport
) -> Job:
    own = [word.removeprefix(f"{kind}.") for word in overrides if word.startswith(f"{kind}.")]
    strange = [word for word in overrides if not word.startswith(("lm.", "codec."))]
    if strange:
        raise ConversionError(f"override '{strange[0]}': begin it with lm. or codec.")
    if kind == "lm":
        return _plan_lm(found["lm"], folder, own, report)
    return _plan_codec(found, folder, own, report)


def _plan_lm(source: Source, folder: Path, overrides: Sequence[str], report: ConversionReport) -> Job:
    from uniaudio2.lm.model import LMConfig, published_lm_key

    hint = re.compile(r"(.+\.(?:head_size|num_kv_groups))=(\d+)")
    hints = {match[1]: int(match[2]) for word in overrides if (match := hint.fullmatch(word))}
    rest = [word for word in overrides if not hint.fullmatch(word)]
    values = lm_config(source.tensors, folder / "llm_config.yaml", hints)
    config = load_config(LMConfig, values, rest, name=f"{source.path}: lm")
    model = build_meta("lm", config, source.path, source.tensors)
    names = {published_lm_key(name): name for name in model.state_dict()}
    tensors = _collect([(source, "", lambda key: names[key])], model, report)
    return Job(source.path, "lm", config, model, tensors)


def _plan_codec(found: Mapping[str, Source], folder: Path, overrides: Sequence[str], report: ConversionReport) -> Job:
    from uniaudio2.codec.codec import CodecConfig

    codec = found["codec"]
    if "sqcodec" not in found:
        raise ConversionError(f"{folder / 'sqcodec.pth'}: missing; {codec.path.name} needs its autoencoder beside it")
    tensors = dict(codec.tensors)
    parts = [(codec, "", None)]
    for kind, prefix in CODEC_ENCODERS.items():
        if any(name.startswith(prefix) for name in tensors):
            continue
        if kind not in found:
            wanted = {"whisper": "the folder whisper-medium", "wavlm": "the folder wavlm", "musicfm": "music_ssl.pt"}
            refused = [note for note in report.notes if note.startswith("companion not used")]
            raise ConversionError(
                f"{codec.path}: does not hold the encoder '{prefix}*', and {wanted[kind]} with its weights is not "
                f"beside it{'; ' + refused[0] if refused else ''}"
            )
        moved = _move(found[kind], kind, prefix)
        tensors.update(moved.tensors)
        parts.append((moved, "", None))
    values = codec_config(
        tensors,
        sqcodec_config=folder / "sqcodec_config.yaml",
        flow_config=folder / "model_config.json",
        whisper_config=_encoder_config(found, folder, "whisper"),
        wavlm_config=_encoder_config(found, folder, "wavlm"),
    )
    config = load_config(CodecConfig, values, overrides, name=f"{codec.path}: codec")
    model = build_meta("codec", config, codec.path, tensors)
    rename: Callable[[str], str | None] = model.published_key  # type: ignore[assignment]
    mapped = [(entry, prefix, rename) for entry, prefix, _ in parts]
    mapped.append((found["sqcodec"], "sqcodec:", rename))
    return Job(codec.path, "codec", config, model, _collect(mapped, model, report))


def _encoder_config(found: Mapping[str, Source], folder: Path, kind: str) -> Path | None:
    if kind in found:
        return found[kind].path.parent / "config.json"
    matches = [path for path in sorted(folder.glob("*/config.json")) if kind in path.parent.name.lower()]
    return matches[0] if matches else None


def _move(source: Source, kind: str, prefix: str) -> Source:
    """An encoder's own file, with its keys as they are inside the codec's file."""
    anchors = {"whisper": "encoder.", "wavlm": "", "musicfm": ""}
    marks = {"whisper": "conv1.weight", "wavlm": "encoder.layers.0.", "musicfm": "conformer.layers.0."}
    mark = anchors[kind] + marks[kind]
    first = next(name for name in source.tensors if mark in name)
    outer = first[: first.index(mark)] + anchors[kind]
    inside = {prefix + name[len(outer) :]: t for name, t in source.tensors.items() if name.startswith(outer)}
    outside = {name: "outside of the encoder" for name in source.tensors if not name.startswith(outer)}
    return Source(source.path, source.kind, inside, {**source.dropped, **outside})


def _plan_single(source: Source, folder: Path, report: ConversionReport) -> Job:
    """A lone autoencoder or music encoder."""
    from uniaudio2.codec.registry import RegisteredConfig

    if source.kind == "sqcodec":
        from uniaudio2.codec.autoencoder import SQCodec, SQCodecConfig, rename_published

        values = read_sqcodec_config(folder / "sqcodec_config.yaml")
        sizes = load_config(SQCodecConfig, values, name=str(folder / "sqcodec_config.yaml"))
        model = _on_meta(lambda: SQCodec(sizes), source)
        tensors = _collect([(source, "", lambda key: rename_published(key, sizes))], model, report)
        return Job(source.path, "autoencoder", RegisteredConfig("sqcodec", config_to_dict(sizes)), model, tensors)
    from uniaudio2.codec.features import build_encoder

    moved = _move(source, "musicfm", "")
    values = musicfm_config(moved.tensors, "")
    model = _on_meta(lambda: build_encoder("musicfm", values), moved)
    rename: Any = model.rename_published
    return Job(
        source.path,
        "encoder",
        RegisteredConfig("musicfm", values),
        model,
        _collect([(moved, "", rename)], model, report),
    )


def build_meta(part: str, config: Any, source: Path, stored: Mapping[str, LazyTensor]) -> nn.Module:
    """A part's model on the meta device: names and shapes without memory.

    Args:
        part: ``lm`` or ``codec``.
        config: Its config.
        source: The file that the sizes come from, for error messages.
        stored: Its tensors, by which absurd sizes are found out.

    Raises:
        ConversionError: If the values do not make a model.
    """
    return _on_meta(lambda: PARTS[part].model_class(config), Source(source, "other", stored, {}))


def _on_meta(make: Callable[[], nn.Module], source: Source) -> nn.Module:
    """Run a constructor on the meta device, with errors that name the file its sizes come from."""
    try:
        with SizeLimit.of(source.tensors, values=False), torch.device("meta"):
            return make()
    except ImportError as error:
        raise ConversionError(str(error)) from None
    except MODEL_ERRORS as error:
        raise ConversionError(f"{source.path}: {no_model(error)}") from error


def _collect(
    sources: Sequence[tuple[Source, str, Callable[[str], str | None]]], model: nn.Module, report: ConversionReport
) -> dict[str, LazyTensor]:
    """Map every source tensor to a name of the model, fold weight norms, and note what became of each.

    Args:
        sources: Each with a prefix to put before its keys when they are looked up, and the function from published
            key to name here (None: not needed, KeyError: unknown).
        model: On the meta device.
        report: Is filled.
    """
    expected = model.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    by_name: dict[str, LazyTensor] = {}
    for source, prefix, rename in sources:
        file = source.path.name
        report.records += [KeyRecord(file, key, "unused", None, why) for key, why in source.dropped.items()]
        for key, tensor in source.tensors.items():
            try:
                name = rename(prefix + key)
            except (KeyError, ValueError):
                _note_unknown(file, key, report)
                continue
            if name is None:
                report.records.append(KeyRecord(file, key, "unused", None, "computed or not used here"))
                continue
            report.records.append(KeyRecord(file, key, "used" if name == key else "renamed", name))
            if name in by_name and not _same(by_name[name], tensor):
                report.unexplained.append(f"{key} (another value of '{name}')")
            by_name[name] = tensor
    named = _fold(by_name, wanted, report)
    finished: dict[str, LazyTensor] = {}
    for name, shape in wanted.items():
        tensor = named.pop(name, None)
        if tensor is None:
            report.missing.append(name)
        elif (fitting := _reshape(name, tensor, shape)) is None:
            report.wrong_shape.append(f"{name} is {list(tensor.shape)}, needs {list(shape)}")
        elif fitting.dtype.is_floating_point != expected[name].is_floating_point():
            report.wrong_type.append(f"{name} holds {fitting.dtype}, needs {expected[name].dtype}")
        else:
            finished[name] = fitting
    report.unexplained += sorted(named)
    return finished


def _note_unknown(file: str, key: str, report: ConversionReport) -> None:
    """A key that no part here knows: training leftovers are explained, anything else is not."""
    leftover = re.match(r"audio_thinking\.(?!cls_token|encoder_|semantic_merge|reasoning_vq|down_sampling)", key)
    if leftover:
        report.records.append(KeyRecord(file, key, "unused", None, "language model of the codec's training"))
    else:
        report.unexplained.append(f"{file}: {key}")


def _same(first: LazyTensor, second: LazyTensor) -> bool:
    return first.shape == second.shape and torch.equal(first.read(), second.read())


def _fold(
    tensors: Mapping[str, LazyTensor], wanted: Mapping[str, Any], report: ConversionReport
) -> dict[str, LazyTensor]:
    """Weight-normalised pairs as the model spells them: either spelling, or folded into the plain weight."""
    folded: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        ending = next((e for pair in NORM_SPELLINGS for e in pair if name.endswith(f".{e}")), None)
        if ending is None or name in wanted:
            folded[name] = tensor
            continue
        stem = name.removesuffix(ending)
        which = next(pair.index(ending) for pair in NORM_SPELLINGS if ending in pair)
        other = next(stem + pair[1 - which] for pair in NORM_SPELLINGS if ending in pair)
        respelled = next((stem + pair[which] for pair in NORM_SPELLINGS if stem + pair[which] in wanted), None)
        if respelled is not None:
            folded[respelled] = tensor
        elif other not in tensors:
            report.unexplained.append(f"{name} (the other half of its weight norm is missing)")
        elif which == 1:
            folded[f"{stem}weight"] = _folded(tensors[other], tensor)
    return folded


def _folded(g: LazyTensor, v: LazyTensor) -> LazyTensor:
    from uniaudio2.codec.autoencoder import apply_weight_norm

    return LazyTensor(v.shape, v.dtype, lambda: apply_weight_norm(g.read(), v.read()).to(v.dtype))


def _reshape(name: str, tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor | None:
    """The tensor in the model's shape, if only axes of size 1 differ."""
    if name.endswith(".initialised"):
        return LazyTensor(shape, torch.bool, lambda: _initialised(name, tensor).reshape(shape))
    if tensor.shape == shape:
        return tensor
    if tensor.shape and tuple(n for n in tensor.shape if n != 1) == tuple(n for n in shape if n != 1):
        return LazyTensor(shape, tensor.dtype, lambda: tensor.read().reshape(shape))
    return None


def _initialised(name: str, tensor: LazyTensor) -> Tensor:
    value = tensor.read()
    if not bool(value.bool().all()):
        raise ConversionError(f"{name}: this codebook was never initialised; the file holds no trained codec")
    return value.bool()


# -- writing ----------------------------------------------------------------------------------------------------------


def write_parts(jobs: Sequence[Job], target: Path, dtype: ConvertDtype, report: ConversionReport) -> None:
    """Write weights, then the folder's config.

    Raises:
        ConversionError: If something cannot be written, or a weight is NaN or infinite; what was written is removed.
    """
    made = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            tensors = pack_tensors(_checked(job), job.model, dtype)
            written = save_tensors(target / f"{job.part}.safetensors", tensors, metadata={"format": "pt"})
            report.written += [str(path) for path in written]
        write_folder_config(target, {job.part: job.config for job in jobs})
    except (OSError, TensorFileError, CheckpointError, ConversionError) as error:
        for path in report.written:
            Path(path).unlink(missing_ok=True)
        if made and target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        problem = f"{target}: cannot be written ({error.strerror})" if isinstance(error, OSError) else str(error)
        raise ConversionError(problem, report) from None


def _checked(job: Job) -> dict[str, LazyTensor]:
    """A job's tensors, each looked through when it is read."""
    expected = job.model.state_dict()

    def lazy(name: str, tensor: LazyTensor) -> LazyTensor:
        """A tensor that is checked when it is read."""

        def read() -> Tensor:
            """Read and check."""
            value = tensor.read()
            check_value(value, expected[name], f"{job.source}: '{name}'")
            return value

        return LazyTensor(tensor.shape, tensor.dtype, read)

    return {name: lazy(name, tensor) for name, tensor in job.tensors.items()}


def _copy_tokenizer(folder: Path, target: Path, parts: Sequence[str], report: ConversionReport) -> None:
    if "lm" not in parts or (target / TOKENIZER_FILE).exists():
        return
    places = [folder / TOKENIZER_FILE, *sorted(folder.glob(f"*/{TOKENIZER_FILE}"))]
    own = [path for path in places if path.is_file() and not re.search("whisper|wavlm", path.parent.name.lower())]
    if own:
        copy_file(own[0], target / TOKENIZER_FILE)
        report.written.append(str(target / TOKENIZER_FILE))
    else:
        report.notes.append(f"{TOKENIZER_FILE} is not there: copy the one of Llama 3.2 into {target} before use")


def write_report(target: Path, report: ConversionReport) -> None:
    """Write ``conversion.json``, and a short card where there is none."""
    if not (target / CARD_FILE).exists():
        names = sorted({record.file for record in report.records})
        write_text(
            target / CARD_FILE,
            "# Converted model\n\nMade by `uniaudio2 convert` from "
            + ", ".join(f"`{name}`" for name in names)
            + f". Licence and limits are those of the originals. `{REPORT_FILE}` says what became of every tensor.\n",
        )
    write_text(target / REPORT_FILE, json.dumps(report.to_dict(), indent=1) + "\n")
