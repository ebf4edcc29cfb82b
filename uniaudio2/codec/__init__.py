"""The codec: audio to reasoning and reconstruction codes, and back."""

from uniaudio2.codec.codec import CodecConfig, ReasoningCodec

__all__ = ["CodecConfig", "ReasoningCodec"]
