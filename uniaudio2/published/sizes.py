"""Configs of published models, read from their files: tensor shapes, ``llm_config.yaml``, ``sqcodec_config.yaml``.

A size that the tensors show is taken from them. What they cannot show must be told by a file; there is no silent
default for what only ``llm_config.yaml`` or ``sqcodec_config.yaml`` knows. Source of the layout: the state dicts of the
published classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.config import ConfigError, read_yaml, to_plain
from uniaudio2.errors import UserError
from uniaudio2.tensors import LazyTensor

Tensors = Mapping[str, LazyTensor]


class PublishedError(UserError):
    """Published files that cannot be understood: says which file or value is needed."""


@dataclass(frozen=True)
class StackFamily:
    """Head layout of one registered Llama size; everything else shows in the tensors."""

    head_size: int
    num_kv_groups: int
    rope_factor: float


LLAMA_FAMILIES = {
    "Llama-3.2-1B": StackFamily(64, 8, 32.0),
    "Llama-3.2-3B": StackFamily(128, 8, 32.0),
    "Llama-3.1-8B": StackFamily(128, 8, 8.0),
    "Llama-3.2-300M": StackFamily(64, 8, 32.0),
    "Llama-3.2-4Layer": StackFamily(64, 8, 32.0),
}
EXPERTS = "Llama-3.2-3B"  # the experts' fixed configurations have the 3B model's heads

LLM_CONFIG_KEYS = (
    "llm_name",
    "local_model",
    "parallel_number",
    "audio_reason_card",
    "audio_semantic_card",
    "reason_bos",
    "reason_eos",
    "reason_pad_token",
    "semantic_bos",
    "semantic_eos",
    "semantic_pad_token",
    "audio_prompt_bos",
    "audio_prompt_eos",
    "text_pad_token",
)
SQCODEC_KEYS = (
    "num_bands",
    "sample_rate",
    "causal",
    "num_samples",
    "downsample_factors",
    "downsample_kernel_sizes",
    "upsample_factors",
    "upsample_kernel_sizes",
    "latent_hidden_dim",
    "default_kernel_size",
    "delay_kernel_size",
    "init_channel",
    "res_kernel_size",
)


def count_layers(tensors: Tensors, prefix: str) -> int:
    """How many numbered children a prefix such as ``backbone.transformer.h.`` has."""
    numbers = {match[1] for name in tensors if (match := re.match(re.escape(prefix) + r"(\d+)\.", name))}
    return len(numbers)


def shape_of(tensors: Tensors, name: str, axes: int) -> tuple[int, ...]:
    """Shape of a tensor that must be there.

    Raises:
        PublishedError: If it is missing, or has not so many axes, or is empty.
    """
    if name not in tensors:
        raise PublishedError(f"the tensor '{name}' is missing; the file is not complete")
    shape = tensors[name].shape
    if len(shape) != axes or 0 in shape:
        raise PublishedError(f"the tensor '{name}' is {list(shape)}, but must have {axes} axes and not be empty")
    return shape


# -- language model ---------------------------------------------------------------------------------------------------


def read_llm_config(path: Path) -> dict[str, Any]:
    """Read ``llm_config.yaml`` and check that it tells everything that the weights do not.

    Raises:
        PublishedError: If the file or a value is missing; the message says which values are needed.
    """
    if not path.is_file():
        raise PublishedError(
            f"{path}: missing; it comes with the published weights and tells {', '.join(LLM_CONFIG_KEYS)}, which the "
            "weights themselves do not show"
        )
    try:
        values = to_plain(read_yaml(path))
    except ConfigError as error:
        raise PublishedError(str(error)) from None
    for nested in ("model", "llm", "config"):
        if isinstance(values.get(nested), dict) and "llm_name" in values[nested]:
            values = {**values, **values[nested]}
    missing = [key for key in LLM_CONFIG_KEYS if values.get(key) is None]
    if missing:
        raise PublishedError(f"{path}: does not tell {', '.join(missing)}")
    wrong = [key for key in LLM_CONFIG_KEYS[2:] if not isinstance(values[key], int)]
    if wrong:
        raise PublishedError(f"{path}: {', '.join(wrong)} must be whole numbers")
    return values


def _family(name: Any, what: str, path: Path) -> StackFamily:
    short = str(name).rpartition("/")[2]
    stack = "backbone" if what == "llm_name" else "depth"
    if short not in LLAMA_FAMILIES:
        known = ", ".join(LLAMA_FAMILIES)
        raise PublishedError(
            f"{path}: {what} is '{name}', whose head size is not known here (known: {known}); tell it by the "
            f"overrides lm.{stack}.head_size=... and lm.{stack}.num_kv_groups=..."
        )
    return LLAMA_FAMILIES[short]


def _stack(tensors: Tensors, prefix: str, head_size: int, num_kv_groups: int) -> dict[str, Any]:
    block = f"{prefix}.transformer.h."
    rows, width = shape_of(tensors, f"{block}0.attn.qkv.weight", 2)
    num_heads = shape_of(tensors, f"{block}0.attn.proj.weight", 2)[1] // head_size
    if num_heads * head_size + 2 * num_kv_groups * head_size != rows:
        raise PublishedError(
            f"{prefix}: attn.qkv has {rows} rows, which is not ({num_heads} + 2 x {num_kv_groups}) heads of "
            f"{head_size}; check the model names in llm_config.yaml, or give head_size and num_kv_groups with overrides"
        )
    values = {
        "num_layers": count_layers(tensors, block),
        "width": width,
        "num_heads": num_heads,
        "num_kv_groups": num_kv_groups,
        "mlp_width": shape_of(tensors, f"{block}0.mlp.fc_1.weight", 2)[0],
    }
    return values if num_heads * head_size == width else {**values, "head_size": head_size}


def _audio_vocabulary(llm: Mapping[str, Any], num_codebooks: int) -> dict[str, Any]:
    """Numbers of ids and the special ones, from the values of ``llm_config.yaml``."""
    specials = {
        "reasoning": {name: llm[f"reason_{name}"] for name in ("bos", "eos", "pad_token")},
        "reconstruction": {name: llm[f"semantic_{name}"] for name in ("bos", "eos", "pad_token")},
        "voice": {name: llm[f"audio_prompt_{name}"] for name in ("bos", "eos")},
    }
    return {
        "num_codebooks": num_codebooks,
        "num_reasoning": llm["audio_reason_card"],
        "num_reconstruction": llm["audio_semantic_card"],
        "reasoning_codebook_size": min(specials["reasoning"].values()),
        "reconstruction_codebook_size": min(*specials["reconstruction"].values(), *specials["voice"].values()),
        **{
            f"{stream}_{name.removesuffix('_token')}": id_
            for stream in specials
            for name, id_ in specials[stream].items()
        },
        "shift_voice_ids": False,  # Released weights: voice prompt ids are not shifted
    }


def lm_config(tensors: Tensors, config_path: Path, hints: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The values of an ``LMConfig`` for a published language model.

    Args:
        tensors: Its tensors under published keys.
        config_path: Where ``llm_config.yaml`` lies.
        hints: ``backbone.head_size``, ``backbone.num_kv_groups`` and the same for ``understanding``, ``generation``
            and ``depth``, for sizes that are not registered.

    Raises:
        PublishedError: If something that the tensors do not show is not told.
    """
    llm = read_llm_config(config_path)
    hints = dict(hints or {})
    num_codebooks, _, size = shape_of(tensors, "audio_head", 3)
    reason, semantic = llm["audio_reason_card"], llm["audio_semantic_card"]
    if reason + semantic != size or llm["parallel_number"] != num_codebooks + 1:
        raise PublishedError(
            f"{config_path}: audio_reason_card + audio_semantic_card = {reason + semantic} and parallel_number = "
            f"{llm['parallel_number']}, but the weights have {size} audio ids and {num_codebooks} + 1 streams"
        )
    stacks: dict[str, Any] = {}
    rope_factor = 32.0
    for ours, theirs in {
        "backbone": "backbone",
        "understanding": "audio_understanding_expert",
        "generation": "audio_generation_expert",
        "depth": "decoder",
    }.items():
        head_size = hints.get(f"{ours}.head_size", hints.get("backbone.head_size") if ours != "depth" else None)
        groups = hints.get(f"{ours}.num_kv_groups", hints.get("backbone.num_kv_groups") if ours != "depth" else None)
        if head_size is None or groups is None:
            key = {"backbone": "llm_name", "depth": "local_model"}.get(ours)
            family = _family(llm[key], key, config_path) if key else LLAMA_FAMILIES[EXPERTS]
            head_size, groups = head_size or family.head_size, groups or family.num_kv_groups
            rope_factor = family.rope_factor if ours == "backbone" else rope_factor
        stacks[ours] = _stack(tensors, theirs, head_size, groups)
    return {
        "text_vocab_size": shape_of(tensors, "backbone.transformer.wte.weight", 2)[0],
        "audio": _audio_vocabulary(llm, num_codebooks),
        "text": {"text_pad": llm["text_pad_token"]},
        **stacks,
        "rope": {"factor": rope_factor},
        "prompt_style": "full",
    }


# -- codec ------------------------------------------------------------------------------------------------------------


def read_sqcodec_config(path: Path) -> dict[str, Any]:
    """The autoencoder's sizes from ``sqcodec_config.yaml`` (under ``generator.config``, or at the top).

    Raises:
        PublishedError: If the file or a value is missing; the message says which values are needed.
    """
    if not path.is_file():
        raise PublishedError(
            f"{path}: missing; it comes with sqcodec.pth and tells {', '.join(SQCODEC_KEYS)} (under generator.config)"
        )
    try:
        values = to_plain(read_yaml(path))
    except ConfigError as error:
        raise PublishedError(str(error)) from None
    found = values
    for step in ("generator", "config"):
        inner = found.get(step)
        found = inner if isinstance(inner, dict) else found
    missing = [key for key in SQCODEC_KEYS if found.get(key) is None]
    if missing:
        raise PublishedError(f"{path}: generator.config does not tell {', '.join(missing)}")
    return {key: found[key] for key in SQCODEC_KEYS}


def _read_json(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise PublishedError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(values, dict):
        raise PublishedError(f"{path}: must hold a mapping")
    return values


def codec_config(
    tensors: Tensors,
    *,
    sqcodec_config: Path,
    flow_config: Path | None = None,
    whisper_config: Path | None = None,
    wavlm_config: Path | None = None,
) -> dict[str, Any]:
    """The values of a ``CodecConfig`` for a published codec, of either codebook size.

    Args:
        tensors: Its tensors under published keys, encoders included.
        sqcodec_config: Where ``sqcodec_config.yaml`` lies.
        flow_config: ``model_config.json``, for networks of another head size than 64.
        whisper_config: ``config.json`` of the Whisper folder, for encoders of another head size than 64.
        wavlm_config: ``config.json`` of the WavLM folder.
    """
    dim = shape_of(tensors, "cond_fusion_layer_phone.weight", 2)[0]
    return {
        "encoders": {
            "whisper": _whisper(tensors, _read_json(whisper_config)),
            "wavlm": _wavlm(tensors, _read_json(wavlm_config)),
            "musicfm": musicfm_config(tensors, "pretrained_model.model.model."),
        },
        "autoencoder": {"name": "sqcodec", "config": read_sqcodec_config(sqcodec_config)},
        "reasoning": _reasoning(tensors),
        "reconstruction": {
            "dim": dim,
            "pronunciation": _quantizer(tensors, "vq_pronunciation_semantic."),
            "structure": _quantizer(tensors, "vq_structure_semantic."),
            "acoustic": _quantizer(tensors, "vq_acoustic."),
            "semantic_decoders": any(name.startswith("pronunciation_decoder.") for name in tensors),
        },
        "dit": _dit(tensors, _read_json(flow_config)),
        "flow": {"latent_scale": 1.0},
    }


def _quantizer(tensors: Tensors, prefix: str) -> dict[str, Any]:
    shape = shape_of(tensors, f"{prefix}layers.0._codebook.embed", 3)
    return {
        "num_codebooks": count_layers(tensors, f"{prefix}layers."),
        "codebook_size": shape[-2],
        "codebook_dim": shape[-1],
    }


def _reasoning(tensors: Tensors) -> dict[str, Any]:
    block = "audio_thinking.encoder_transformers."
    dim = shape_of(tensors, "audio_thinking.cls_token", 2)[-1]
    first = f"{block}0.ff.ff.0.proj.bias"
    return {
        "dim": dim,
        "num_layers": count_layers(tensors, block),
        "num_heads": dim // shape_of(tensors, f"{block}0.self_attn.q_norm.weight", 1)[0],
        "feed_forward_dim": shape_of(tensors, first, 1)[0] // 2,
        "quantizer": _quantizer(tensors, "audio_thinking.reasoning_vq."),
    }


def _dit(tensors: Tensors, values: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "cfm_wrapper.estimator."
    width = shape_of(tensors, f"{prefix}proj_in.ffn_1.weight", 3)[0]
    heads = values.get("num_attention_heads")
    if heads is None:
        heads = _heads_of_64(width, "the flow network", "model_config.json (num_attention_heads)")
    hidden = shape_of(tensors, f"{prefix}transformer_blocks.0.ff.net.0.proj.weight", 2)[0]
    return {
        "width": width,
        "num_layers": count_layers(tensors, f"{prefix}transformer_blocks."),
        "num_heads": int(heads),
        "mlp_ratio": hidden // width,
        "num_time_features": shape_of(tensors, f"{prefix}adaln_single.emb.timestep_embedder.linear_1.weight", 2)[1],
    }


def _heads_of_64(width: int, what: str, remedy: str) -> int:
    """Heads of a network whose published sizes all have 64 channels per head."""
    if width % 64:
        raise PublishedError(f"{what} is {width} wide, which is no multiple of 64: its heads must be told by {remedy}")
    return width // 64


def _whisper(tensors: Tensors, values: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "whisper_encoder."
    width, mels, _ = shape_of(tensors, f"{prefix}conv1.weight", 3)
    heads = values.get("encoder_attention_heads")
    if heads is None:
        heads = _heads_of_64(width, "the Whisper encoder", "whisper-medium/config.json (encoder_attention_heads)")
    return {
        "d_model": width,
        "encoder_layers": count_layers(tensors, f"{prefix}layers."),
        "encoder_attention_heads": int(heads),
        "encoder_ffn_dim": shape_of(tensors, f"{prefix}layers.0.fc1.weight", 2)[0],
        "num_mel_bins": mels,
        "max_source_positions": shape_of(tensors, f"{prefix}embed_positions.weight", 2)[0],
    }


def _wavlm(tensors: Tensors, values: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "wavlm_encoder."
    width = shape_of(tensors, f"{prefix}feature_projection.projection.weight", 2)[0]
    convs = [
        shape_of(tensors, f"{prefix}feature_extractor.conv_layers.{i}.conv.weight", 3)
        for i in range(count_layers(tensors, f"{prefix}feature_extractor.conv_layers."))
    ]
    position = f"{prefix}encoder.pos_conv_embed.conv."
    spelling = next(
        (name for name in ("parametrizations.weight.original1", "weight_v", "weight") if position + name in tensors),
        "parametrizations.weight.original1",
    )
    _, per_group, kernel = shape_of(tensors, position + spelling, 3)
    buckets, heads = shape_of(tensors, f"{prefix}encoder.layers.0.attention.rel_attn_embed.weight", 2)
    config: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": count_layers(tensors, f"{prefix}encoder.layers."),
        "num_attention_heads": heads,
        "intermediate_size": shape_of(tensors, f"{prefix}encoder.layers.0.feed_forward.intermediate_dense.weight", 2)[
            0
        ],
        "conv_dim": [shape[0] for shape in convs],
        "conv_kernel": [shape[2] for shape in convs],
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": width // per_group,
        "num_buckets": buckets,
    }
    for key in ("conv_stride", "max_bucket_distance"):  # WavLM base unless its own config says otherwise
        if key in values:
            config[key] = values[key]
    return config


def musicfm_config(tensors: Tensors, prefix: str) -> dict[str, Any]:
    """The values of a ``MusicFMConfig``.

    Args:
        tensors: Tensors of the music encoder.
        prefix: What stands before ``conformer.`` in their names.
    """
    layer = f"{prefix}conformer.layers."
    width, flat = shape_of(tensors, f"{prefix}conv.linear.weight", 2)
    channels = shape_of(tensors, f"{prefix}conv.conv.0.conv1.weight", 4)[0]
    frequencies = f"{prefix}conformer.embed_positions.inv_freq"
    half_head = tensors[frequencies].shape[0] if frequencies in tensors else 32
    return {
        "encoder_dim": width,
        "conv_dim": channels,
        "num_heads": width // (2 * half_head),
        "intermediate_size": shape_of(tensors, f"{layer}0.ffn1.intermediate_dense.weight", 2)[0],
        "depth": count_layers(tensors, layer),
        "depthwise_kernel_size": shape_of(tensors, f"{layer}0.conv_module.depthwise_conv.weight", 3)[2],
        "num_mels": 4 * flat // channels,
    }
