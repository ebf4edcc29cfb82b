"""The codec's stages: what trains, on which audio, with which loss."""

from uniaudio2.train.codec.stages import CodecTrainConfig, build_stage, load_parts

__all__ = ["CodecTrainConfig", "build_stage", "load_parts"]
