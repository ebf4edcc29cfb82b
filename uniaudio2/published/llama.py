"""Start of a language model from a Hugging Face Llama folder: the backbone is taken over, the rest is drawn fresh.

Files are read without running anything in them, tensor by tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniaudio2.config import ConfigError, load_config, preset_path, read_yaml, to_plain
from uniaudio2.files import write_text
from uniaudio2.published.convert import ConvertDtype, Job, write_parts
from uniaudio2.published.mapping import build_meta
from uniaudio2.published.report import ConversionError, ConversionReport, KeyRecord, write_report
from uniaudio2.published.sizes import PublishedError
from uniaudio2.storage.folder import TOKENIZER_FILE
from uniaudio2.tensors import INDEX_SUFFIX, LazyTensor, TensorFileError, open_tensors


def convert_llama(
    source: Path | str,
    target: Path | str,
    *,
    preset: str = "3b",
    dtype: ConvertDtype = "same",
    overrides: Sequence[str] = (),
    seed: int = 0,
) -> ConversionReport:
    """Start a language model from a Hugging Face Llama folder.

    The backbone, the text embedding and the text head come from the Llama (tied embeddings are untied). Experts, audio
    embedding, local decoder and audio heads are drawn fresh. Choice: normal draws as in ``AudioLM.initialise``,
    because the paper warms the experts up from nothing in stages 1 and 2 and names no other start.

    Args:
        source: Folder with ``config.json``, safetensors (sharded or not) and ``tokenizer.json``.
        target: The model folder, created if absent.
        preset: LM preset (or a YAML file) that gives the audio vocabulary, the local decoder and the experts' layer
            counts; the widths follow the Llama.
        dtype: See :func:`convert`.
        overrides: ``KEY=VALUE`` on the resulting config.
        seed: Of the fresh weights.

    Raises:
        ConversionError: If the folder is not a Llama's or a tensor is missing or unexplained.
    """
    source, target = Path(source), Path(target)
    report = ConversionReport()
    try:
        llama = _read_llama_config(source)
        tensors = _llama_tensors(source)
        tokens, extended = _text_tokens(source, llama, tensors)
        values = _llama_lm_values(llama, preset, tokens, extended)
        from uniaudio2.lm.model import LMConfig

        config = load_config(LMConfig, values, overrides, name=f"{source / 'config.json'}")
        model = build_meta("lm", config, source / "config.json", tensors)
        mapped = _map_llama(tensors, llama, config, model, report, source)
    except (TensorFileError, PublishedError, ConfigError) as error:
        problem = str(error) if str(source) in str(error) else f"{source}: {error}"
        raise ConversionError(problem, report) from None
    if report.problem:
        raise ConversionError(f"{source}: {report.problem}", report)
    mapped.update(_fresh(model, mapped, seed))
    order = {name: mapped[name] for name in model.state_dict()}
    write_parts([Job(source, "lm", config, model, order)], target, dtype, report)
    if tokens.file is not None:
        write_text(target / TOKENIZER_FILE, tokens.file)
        report.written.append(str(target / TOKENIZER_FILE))
    else:
        report.notes.append(f"{TOKENIZER_FILE} is not there: copy the Llama's into {target} before use")
    write_report(target, report)
    return report


def _read_llama_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise PublishedError(f"{path}: missing; give a Hugging Face Llama folder")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise PublishedError(f"{path}: not readable as JSON") from None
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind != "llama":
        raise PublishedError(f"{path}: model_type is {kind!r}, not 'llama'")
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        if not isinstance(values.get(key), int) or values[key] < 1:
            raise PublishedError(f"{path}: does not tell {key}, a whole number above 0")
    for key in ("attention_bias", "mlp_bias"):
        if values.get(key):
            raise PublishedError(f"{path}: {key} is on, which this backbone does not have")
    return values


def _llama_tensors(folder: Path) -> dict[str, LazyTensor]:
    for name in (f"model.safetensors{INDEX_SUFFIX}", "model.safetensors"):
        if (folder / name).is_file():
            return open_tensors(folder / name)
    raise PublishedError(f"{folder}: holds no model.safetensors (nor its index of shards)")


@dataclass(frozen=True)
class _TextSide:
    """Special text ids for a Llama, and its tokenizer's file with them."""

    ids: dict[str, int]
    vocab_size: int
    file: str | None


def _text_tokens(folder: Path, llama: Mapping[str, Any], tensors: Mapping[str, LazyTensor]) -> tuple[_TextSide, int]:
    """Special ids: the reserved ones of Llama 3.2 where they fit, else new ids behind the vocabulary.

    Returns:
        The ids, and by how many rows the embedding grows.
    """
    from uniaudio2.vocabulary import TextTokens

    published = TextTokens()
    rows = tensors["model.embed_tokens.weight"].shape[0] if "model.embed_tokens.weight" in tensors else 0
    rows = rows or int(llama["vocab_size"])
    path = folder / TOKENIZER_FILE
    file = path.read_text(encoding="utf-8") if path.is_file() else None
    if rows > max(published.ids()):
        return _TextSide({}, rows, file), 0
    names = published.names()
    if file is None:
        ids = {name: rows + number for number, name in enumerate(names)}
    else:
        from tokenizers import AddedToken, Tokenizer

        try:
            tokenizer = Tokenizer.from_str(file)
        except Exception as error:  # the library raises bare Exception
            raise PublishedError(f"{path}: is not a tokenizer ({str(error).splitlines()[0][:100]})") from None
        tokenizer.add_special_tokens([AddedToken(word, special=True) for word in names.values()])
        ids = {name: tokenizer.token_to_id(word) or 0 for name, word in names.items()}
        file = tokenizer.to_str()
    size = max(rows, max(ids.values()) + 1)
    return _TextSide(ids, size, file), size - rows


def _llama_lm_values(llama: Mapping[str, Any], preset: str, text: _TextSide, extended: int) -> dict[str, Any]:
    values = to_plain(read_yaml(preset_path("lm", preset)))
    stack = {
        "width": llama["hidden_size"],
        "num_heads": llama["num_attention_heads"],
        "num_kv_groups": llama.get("num_key_value_heads") or llama["num_attention_heads"],
        "mlp_width": llama["intermediate_size"],
        "head_size": llama.get("head_dim"),
    }
    values["text_vocab_size"] = text.vocab_size
    values["text"] = text.ids
    values["backbone"] = {"num_layers": llama["num_hidden_layers"], **stack}
    for expert in ("understanding", "generation"):
        values[expert] = {"num_layers": values[expert]["num_layers"], **stack}
    values["rope"] = _llama_rope(llama)
    values["norm_eps"] = llama.get("rms_norm_eps", 1e-5)
    return values


def _llama_rope(llama: Mapping[str, Any]) -> dict[str, Any]:
    told = [llama.get(key) or {} for key in ("rope_scaling", "rope_parameters")]
    if not all(isinstance(each, dict) for each in told):
        raise PublishedError("config.json: rope_scaling must be a mapping")
    scaling = {**told[0], **told[1]}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    values: dict[str, Any] = {"base": llama.get("rope_theta", scaling.get("rope_theta", 10000.0))}
    if kind == "default":
        return {**values, "factor": None}
    if kind != "llama3":
        raise PublishedError(f"config.json: rope type '{kind}' is not known (known: default, llama3)")
    names = {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_seq_len": "original_max_position_embeddings",
    }
    missing = [theirs for theirs in names.values() if scaling.get(theirs) is None]
    if missing:
        raise PublishedError(f"config.json: rope_scaling does not tell {', '.join(missing)}")
    return values | {ours: scaling[theirs] for ours, theirs in names.items()}


_VOCABULARY = ("backbone.transformer.wte.weight", "backbone.lm_head.weight")  # grow by the special tokens
_LLAMA_BLOCK = {
    "input_layernorm.weight": "norm_1.weight",
    "self_attn.o_proj.weight": "attn.proj.weight",
    "post_attention_layernorm.weight": "norm_2.weight",
    "mlp.gate_proj.weight": "mlp.fc_1.weight",
    "mlp.up_proj.weight": "mlp.fc_2.weight",
    "mlp.down_proj.weight": "mlp.proj.weight",
}


def _map_llama(
    tensors: dict[str, LazyTensor],
    llama: Mapping[str, Any],
    config: Any,
    model: nn.Module,
    report: ConversionReport,
    folder: Path,
) -> dict[str, LazyTensor]:
    """Llama's tensors by their names here; ``report`` gets every key."""
    from uniaudio2.lm.model import published_lm_key

    ours = {published_lm_key(name): name for name in model.state_dict()}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    left = dict(tensors)
    rows = tensors["model.embed_tokens.weight"].shape[0] if tensors.get("model.embed_tokens.weight") else 0
    mapped: dict[str, LazyTensor] = {}

    def put(published: str, *keys: str) -> None:
        """Map the Llama's keys, stacked, to one published key, and note what does not fit."""
        name = ours[published]
        parts = [left.pop(key, None) for key in keys]
        absent = [key for key, part in zip(keys, parts, strict=True) if part is None]
        report.missing.extend(absent)
        report.records.extend(KeyRecord("model.safetensors", key, "renamed", name) for key in keys if key not in absent)
        if absent:
            return
        tensor = _stacked([part for part in parts if part is not None])
        if published in _VOCABULARY and tensor.shape == (rows, *shapes[name][1:]) and rows < shapes[name][0]:
            tensor = _extended(tensor, shapes[name][0])
        if tensor.shape != shapes[name]:
            report.wrong_shape.append(f"{' + '.join(keys)} is {list(tensor.shape)}, needs {list(shapes[name])}")
        elif not tensor.dtype.is_floating_point:
            report.wrong_type.append(f"{' + '.join(keys)} holds {tensor.dtype}")
        mapped[name] = tensor

    embedding = "model.embed_tokens.weight"
    tied = "lm_head.weight" not in tensors
    head = left.get(embedding) if tied else None
    put("backbone.transformer.wte.weight", embedding)
    if tied and head is not None:
        left["lm_head.weight"] = head
        report.notes.append("the text head is a copy of the tied embedding")
    put("backbone.lm_head.weight", "lm_head.weight")
    for layer in range(config.backbone.num_layers):
        theirs, block = f"model.layers.{layer}.", f"backbone.transformer.h.{layer}."
        put(f"{block}attn.qkv.weight", *(f"{theirs}self_attn.{part}_proj.weight" for part in "qkv"))
        for key, name in _LLAMA_BLOCK.items():
            put(block + name, theirs + key)
    put("backbone.transformer.ln_f.weight", "model.norm.weight")
    for key in left:
        if key.endswith("rotary_emb.inv_freq"):
            report.records.append(KeyRecord("model.safetensors", key, "unused", None, "computed here"))
        else:
            report.unexplained.append(f"{folder.name}: {key}")
    return mapped


def _stacked(parts: Sequence[LazyTensor]) -> LazyTensor:
    if len(parts) == 1:
        return parts[0]
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return LazyTensor(shape, parts[0].dtype, lambda: torch.cat([part.read() for part in parts]))


def _extended(tensor: LazyTensor, rows: int) -> LazyTensor:
    """More rows behind a vocabulary, each the mean of those that are there."""

    def read() -> Tensor:
        """The old rows and the new ones."""
        value = tensor.read()
        mean = value.float().mean(0, keepdim=True).to(value.dtype)
        return torch.cat([value, mean.expand(rows - len(value), -1)])

    return LazyTensor((rows, *tensor.shape[1:]), tensor.dtype, read)


def _fresh(model: nn.Module, mapped: Mapping[str, LazyTensor], seed: int) -> dict[str, LazyTensor]:
    """Freshly drawn tensors for every name that the Llama does not fill."""
    dtype = next(iter(mapped.values())).dtype
    stacks = {
        name: len(layers)
        for name, module in model.named_modules()
        if isinstance(layers := getattr(module, "layers", None), nn.ModuleList)
    }

    def lazy(name: str, shape: tuple[int, ...], number: int) -> LazyTensor:
        """A tensor that is drawn when it is read, the same every time."""

        def read() -> Tensor:
            """Draw it."""
            if len(shape) < 2:
                return torch.ones(shape, dtype=dtype)
            deviation = 0.02
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                layers = next(count for stack, count in stacks.items() if name.startswith(f"{stack}."))
                deviation /= (2 * layers) ** 0.5
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            return torch.empty(shape).normal_(0.0, deviation, generator=generator).to(dtype)

        return LazyTensor(shape, dtype, read)

    state = model.state_dict()
    return {
        name: lazy(name, tuple(tensor.shape), number)
        for number, (name, tensor) in enumerate(state.items())
        if name not in mapped
    }
