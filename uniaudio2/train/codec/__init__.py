"""The codec's stages: what trains, on which audio, with which loss.

Each stage trains one part of `ReasoningCodec` and exports exactly that part's tensors under the codec's own key names,
so that the parts of all stages together are the codec.
"""

from collections.abc import Callable
from typing import Any

import torch

from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import load_config, preset_path
from uniaudio2.train.codec.autoencoder import AutoencoderConfig, AutoencoderStage
from uniaudio2.train.codec.base import CodecStage, CodecStageConfig, load_finished, load_parts
from uniaudio2.train.codec.reasoning import ReasoningStage, ReasoningStageConfig
from uniaudio2.train.codec.reasoning_grpo import ReasoningGRPOConfig, ReasoningGRPOStage
from uniaudio2.train.codec.reconstruction import ReconstructionStage, ReconstructionStageConfig
from uniaudio2.train.codec.sound_expert import SoundExpertConfig, SoundExpertStage
from uniaudio2.train.codec.speech_expert import SpeechExpertConfig, SpeechExpertStage

__all__ = ["CODEC_STAGES", "CodecStage", "CodecStageConfig", "build_stage", "load_finished", "load_parts"]

CODEC_STAGES: dict[str, tuple[type[CodecStageConfig], Callable[[Any, ReasoningCodec], CodecStage]]] = {
    "speech_expert": (SpeechExpertConfig, SpeechExpertStage),
    "sound_expert": (SoundExpertConfig, SoundExpertStage),
    "autoencoder": (AutoencoderConfig, AutoencoderStage),
    "reasoning": (ReasoningStageConfig, ReasoningStage),
    "reasoning_grpo": (ReasoningGRPOConfig, ReasoningGRPOStage),
    "reconstruction": (ReconstructionStageConfig, ReconstructionStage),
}
"""Config and stage by name, in the order in which a codec is made."""


def build_stage(config: CodecStageConfig) -> CodecStage:
    """The stage that a config describes, with the parts of earlier stages loaded."""
    torch.manual_seed(config.train.seed)
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", config.codec)))
    load_finished(codec, load_parts(codec, config.parts))
    build = next(build for kind, build in CODEC_STAGES.values() if type(config) is kind)
    return build(config, codec)
