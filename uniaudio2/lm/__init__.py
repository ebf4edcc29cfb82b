"""The language model over audio and text tokens."""

from uniaudio2.lm.cache import KVCache
from uniaudio2.lm.depth import DepthDecoder
from uniaudio2.lm.loss import LMLossConfig, LMLosses, choose_audio_targets, lm_losses
from uniaudio2.lm.model import (
    AttentionProbe,
    AudioLM,
    LMCache,
    LMConfig,
    LMOutput,
    lm_state_from_published,
    published_lm_key,
)
from uniaudio2.lm.transformer import RMSNorm, RopeConfig, StackConfig, Transformer

__all__ = [
    "AttentionProbe",
    "AudioLM",
    "DepthDecoder",
    "KVCache",
    "LMCache",
    "LMConfig",
    "LMLossConfig",
    "LMLosses",
    "LMOutput",
    "RMSNorm",
    "RopeConfig",
    "StackConfig",
    "Transformer",
    "choose_audio_targets",
    "lm_losses",
    "lm_state_from_published",
    "published_lm_key",
]
