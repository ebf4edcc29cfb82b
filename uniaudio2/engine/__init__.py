"""Generation: prompts in, text and codes out, for every task and any number of requests at once."""

from uniaudio2.engine.beam import beam_search
from uniaudio2.engine.generate import (
    RECONSTRUCTION_PER_REASONING,
    Engine,
    GenerationError,
    GenerationRequest,
    GenerationResult,
    SamplingConfig,
    StreamEvent,
    derive_seed,
)

__all__ = [
    "RECONSTRUCTION_PER_REASONING",
    "Engine",
    "GenerationError",
    "GenerationRequest",
    "GenerationResult",
    "SamplingConfig",
    "StreamEvent",
    "beam_search",
    "derive_seed",
]
