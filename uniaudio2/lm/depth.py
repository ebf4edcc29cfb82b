"""The local decoder: predicts the K codebooks of one frame, one after the other, from the frame's hidden state.

Shapes: N frames, K codebooks, D backbone width, d width of the local decoder, A audio ids per codebook.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uniaudio2.lm.transformer import KVCache, RopeConfig, StackConfig, Transformer


class DepthDecoder(nn.Module):
    """Causal transformer over the codebooks of a frame, with one output matrix per codebook.

    Source: ARCHITECTURE section 1.3, step 8.

    Args:
        config: Sizes of the stack.
        rope: Rotary positions.
        input_width: D, width of the hidden states and audio embeddings that come in.
        num_codebooks: K.
        vocab_size: A.
        norm_eps: Epsilon of the norms.
        dropout: Probability, in training only.
    """

    def __init__(
        self,
        config: StackConfig,
        rope: RopeConfig,
        *,
        input_width: int,
        num_codebooks: int,
        vocab_size: int,
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        self.projection = nn.Linear(input_width, config.width, bias=False)
        self.transformer = Transformer(config, rope, norm_eps=norm_eps, dropout=dropout)
        self.heads = nn.Parameter(torch.zeros(num_codebooks, config.width, vocab_size))

    def forward(self, hidden: Tensor, label_embeddings: Tensor) -> Tensor:
        """Logits of all codebooks with the true earlier codebooks as input.

        Args:
            hidden: (N, D).
            label_embeddings: Embeddings of the labels of codebooks 0..K-2, (N, K-1, D).

        Returns:
            (N, K, A).
        """
        if hidden.shape[0] == 0:  # a batch of text targets only: no frame to predict
            return hidden.new_zeros(0, self.num_codebooks, self.heads.shape[-1])
        inputs = torch.cat((hidden[:, None], label_embeddings.to(hidden.dtype)), dim=1)
        states, _ = self.transformer(self.projection(inputs))
        heads = self.heads
        if torch.is_autocast_enabled(states.device.type):
            dtype = torch.get_autocast_dtype(states.device.type)
            states, heads = states.to(dtype), heads.to(dtype)
        return torch.bmm(states.transpose(0, 1), heads.to(states.dtype)).transpose(0, 1)

    def new_cache(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> KVCache:
        """Cache for the K steps of one frame; it may be reused for the next frame without clearing."""
        return self.transformer.new_cache(batch_size, self.num_codebooks, device=device, dtype=dtype)

    def step(self, inputs: Tensor, codebook: int, cache: KVCache) -> Tensor:
        """Logits of one codebook.

        Args:
            inputs: The frame's hidden state for codebook 0, else the embedding of the id before, (B, D).
            codebook: Which codebook, 0..K-1.
            cache: Holds the codebooks before.

        Returns:
            (B, A).
        """
        positions = torch.full((inputs.shape[0], 1), codebook, device=inputs.device)
        projected = self.projection(inputs)[:, None]
        state = self.transformer.step(projected, cache, positions, length=codebook + 1, exact=True)
        return state[:, 0] @ self.heads[codebook].to(state.dtype)
