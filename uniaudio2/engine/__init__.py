"""Generation: prompts in, text and codes out, for every task and any number of requests at once."""

from uniaudio2.engine.beam import beam_search
from uniaudio2.engine.cancel import Cancellation, Cancelled, cancellable, check_cancelled
from uniaudio2.engine.engine import Engine, Handle
from uniaudio2.engine.request import (
    GeneratedPart,
    GenerationRequest,
    GenerationResult,
    StreamEvent,
)
from uniaudio2.engine.sampling import GenerationError, SamplingConfig, derive_seed
from uniaudio2.engine.session import Generation

__all__ = [
    "Cancellation",
    "Cancelled",
    "Engine",
    "GeneratedPart",
    "Generation",
    "GenerationError",
    "GenerationRequest",
    "GenerationResult",
    "Handle",
    "SamplingConfig",
    "StreamEvent",
    "beam_search",
    "cancellable",
    "check_cancelled",
    "derive_seed",
]
