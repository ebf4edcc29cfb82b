"""Conversion of published files into model folders.

Sizes of published models come from `sizes`, files and their keys from `source`, names of parameters from the classes
themselves. Everything goes tensor by tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from uniaudio2.codec.autoencoder import SQCodec, SQCodecConfig, rename_published
from uniaudio2.codec.codec import CodecConfig
from uniaudio2.codec.features import build_encoder
from uniaudio2.codec.registry import RegisteredConfig
from uniaudio2.config import ConfigError, config_to_dict, load_config
from uniaudio2.errors import CheckpointError
from uniaudio2.lm.model import LMConfig, published_lm_key
from uniaudio2.published.mapping import build_meta, collect, on_meta
from uniaudio2.published.report import ConversionError, ConversionReport, write_report
from uniaudio2.published.sizes import PublishedError, codec_config, lm_config, musicfm_config, read_sqcodec_config
from uniaudio2.published.source import CODEC_ENCODERS, WEIGHT_SUFFIXES, Source, choose, move
from uniaudio2.storage.folder import TOKENIZER_FILE, copy_file, write_folder_config
from uniaudio2.storage.load import check_value
from uniaudio2.storage.pack import pack_tensors
from uniaudio2.tensors import LazyTensor, TensorFileError, save_tensors

ConvertDtype = Literal["same", "float32", "bf16", "int8"]


@dataclass(frozen=True)
class Job:
    """One part, ready to be written."""

    source: Path  # file or folder, for error messages
    part: str
    config: Any
    model: nn.Module  # on the meta device: names, shapes and which axes an int8 scale spans
    tensors: dict[str, LazyTensor]


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
        found = choose(source, report)
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
    hint = re.compile(r"(.+\.(?:head_size|num_kv_groups))=(\d+)")
    hints = {match[1]: int(match[2]) for word in overrides if (match := hint.fullmatch(word))}
    rest = [word for word in overrides if not hint.fullmatch(word)]
    values = lm_config(source.tensors, folder / "llm_config.yaml", hints)
    config = load_config(LMConfig, values, rest, name=f"{source.path}: lm")
    model = build_meta("lm", config, source.path, source.tensors)
    names = {published_lm_key(name): name for name in model.state_dict()}
    tensors = collect([(source, "", lambda key: names[key])], model, report)
    return Job(source.path, "lm", config, model, tensors)


def _plan_codec(found: Mapping[str, Source], folder: Path, overrides: Sequence[str], report: ConversionReport) -> Job:
    codec = found["codec"]
    if "sqcodec" not in found:
        raise ConversionError(f"{folder / 'sqcodec.pth'}: missing; {codec.path.name} needs its autoencoder beside it")
    tensors = dict(codec.tensors)
    parts = [codec]
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
        moved = move(found[kind], kind, prefix)
        tensors.update(moved.tensors)
        parts.append(moved)
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
    mapped = [*((part, "", rename) for part in parts), (found["sqcodec"], "sqcodec:", rename)]
    return Job(codec.path, "codec", config, model, collect(mapped, model, report))


def _encoder_config(found: Mapping[str, Source], folder: Path, kind: str) -> Path | None:
    if kind in found:
        return found[kind].path.parent / "config.json"
    matches = [path for path in sorted(folder.glob("*/config.json")) if kind in path.parent.name.lower()]
    return matches[0] if matches else None


def _plan_single(source: Source, folder: Path, report: ConversionReport) -> Job:
    """A lone autoencoder or music encoder."""
    if source.kind == "sqcodec":
        values = read_sqcodec_config(folder / "sqcodec_config.yaml")
        sizes = load_config(SQCodecConfig, values, name=str(folder / "sqcodec_config.yaml"))
        model = on_meta(lambda: SQCodec(sizes), source)
        tensors = collect([(source, "", lambda key: rename_published(key, sizes))], model, report)
        return Job(source.path, "autoencoder", RegisteredConfig("sqcodec", config_to_dict(sizes)), model, tensors)
    moved = move(source, "musicfm", "")
    values = musicfm_config(moved.tensors, "")
    model = on_meta(lambda: build_encoder("musicfm", values), moved)
    rename: Any = model.rename_published
    tensors = collect([(moved, "", rename)], model, report)
    return Job(source.path, "encoder", RegisteredConfig("musicfm", values), model, tensors)


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
