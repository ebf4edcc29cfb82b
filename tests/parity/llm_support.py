"""Builds our language model from a fixture's sizes and published weights."""

from __future__ import annotations

from typing import Any

from tests.parity.fixtures import Fixture
from uniaudio2.lm import AudioLM, LMConfig, RopeConfig, StackConfig, lm_state_from_published
from uniaudio2.tokenizer import AudioTokens, TextTokens


def rope_config(config: dict[str, Any]) -> RopeConfig:
    return RopeConfig(base=float(config["base"]), **config["adjustments"])


def stack_config(sizes: dict[str, int]) -> StackConfig:
    return StackConfig(
        num_layers=sizes["n_layer"],
        width=sizes["n_embd"],
        num_heads=sizes["n_head"],
        num_kv_groups=sizes["n_query_groups"],
        mlp_width=sizes["intermediate_size"],
    )


def audio_tokens(ids: dict[str, int]) -> AudioTokens:
    """Special ids as a fixture's ``ids`` table names them; the published voice prompt is not shifted."""
    return AudioTokens(
        num_codebooks=ids["parallel_number"] - 1,
        num_reasoning=ids["audio_reason_card"],
        num_reconstruction=ids["audio_semantic_card"],
        reasoning_codebook_size=min(ids["reason_bos"], ids["reason_eos"]),
        reconstruction_codebook_size=min(ids["semantic_bos"], ids["semantic_eos"]),
        reasoning_bos=ids["reason_bos"],
        reasoning_eos=ids["reason_eos"],
        reasoning_pad=ids["reason_pad_token"],
        reconstruction_bos=ids["semantic_bos"],
        reconstruction_eos=ids["semantic_eos"],
        reconstruction_pad=ids["semantic_pad_token"],
        voice_bos=ids["audio_prompt_bos"],
        voice_eos=ids["audio_prompt_eos"],
        shift_voice_ids=False,
    )


def text_tokens(special: dict[str, int], *, bos: int, eos: int, text_pad: int) -> TextTokens:
    named = {"bos": bos, "eos": eos, "text_pad": text_pad}
    for tag in ("think", "answer", "transcription", "lyric", "caption"):
        named |= {f"{tag}_begin": special[f"<{tag}>"], f"{tag}_end": special[f"</{tag}>"]}
    return TextTokens(**named)


def stage3_model(fixture: Fixture, ids: dict[str, int] | None = None) -> AudioLM:
    """The model of ``llm_stage3`` with its weights; special ids only matter where ``ids`` is given."""
    sizes = fixture.info["config"]
    reason, semantic = sizes["reason"], sizes["semantic"]
    table = ids or {
        "parallel_number": sizes["codebooks"] + 1,
        "audio_reason_card": reason,
        "audio_semantic_card": semantic,
        **{"reason_bos": reason - 4, "reason_eos": reason - 3, "reason_pad_token": reason - 2},
        **{"semantic_bos": semantic - 6, "semantic_eos": semantic - 5, "semantic_pad_token": semantic - 4},
        **{"audio_prompt_bos": semantic - 3, "audio_prompt_eos": semantic - 2},
    }
    config = LMConfig(
        text_vocab_size=sizes["vocab"],
        audio=audio_tokens(table),
        text=TextTokens(*range(13)),
        understanding=stack_config(sizes["understanding"]),
        backbone=stack_config(sizes["backbone"]),
        generation=stack_config(sizes["generation"]),
        depth=stack_config(sizes["decoder"]),
        rope=rope_config(sizes["rope"]),
        norm_eps=sizes["norm_eps"],
    )
    model = AudioLM(config)
    model.load_state_dict(lm_state_from_published(fixture.weights, model), strict=True)
    return model.eval()
