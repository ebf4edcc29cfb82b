"""The local decoder: predicts the K codebooks of one frame, one after the other, from the frame's hidden state.

Shapes: N frames, K codebooks, D backbone width, d width of the local decoder, A audio ids per codebook.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uniaudio2.lm.cache import KVCache
from uniaudio2.lm.quantize import QuantizedLinear, product
from uniaudio2.lm.transformer import Linear, RopeConfig, StackConfig, Transformer


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
        self.vocab_size = vocab_size
        self.projection = Linear(input_width, config.width)
        self.transformer = Transformer(config, rope, norm_eps=norm_eps, dropout=dropout)
        self.heads: nn.Parameter | nn.ModuleList  # a list of K matrices when quantised
        self.heads = nn.Parameter(torch.empty(num_codebooks, config.width, vocab_size))
        nn.init.normal_(self.heads, std=0.02)

    def forward(self, hidden: Tensor, label_embeddings: Tensor) -> Tensor:
        """Logits of all codebooks with the true earlier codebooks as input.

        Args:
            hidden: (N, D).
            label_embeddings: Embeddings of the labels of codebooks 0..K-2, (N, K-1, D).

        Returns:
            (N, K, A).
        """
        if hidden.shape[0] == 0:  # a batch of text targets only: no frame to predict
            return hidden.new_zeros(0, self.num_codebooks, self.vocab_size)
        inputs = torch.cat((hidden[:, None], label_embeddings.to(hidden.dtype)), dim=1)
        states, _ = self.transformer(self.projection(inputs))
        heads = self.heads
        if isinstance(heads, nn.ModuleList):  # quantised
            return torch.stack([head(states[:, codebook]) for codebook, head in enumerate(heads)], dim=1)
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
        logits = self.read(inputs, self.head(codebook), positions, cache, length=codebook + 1)
        return logits[:, : self.vocab_size]

    def store_heads_by_id(self) -> None:
        """Store the heads so that an id's weights lie side by side; shapes and values stay as they are.

        Choice: compiled code on a CPU reads the ids it needs as one stream then.
        """
        if isinstance(self.heads, nn.Parameter):
            self.heads.data = self.heads.data.transpose(1, 2).contiguous().transpose(1, 2)

    def head(self, codebook: int, start: int = 0, stop: int | None = None) -> tuple[Tensor, ...]:
        """What turns a state into the logits of the ids start..stop-1 of a codebook, a view of the weights.

        Returns:
            A matrix (ids, d), or a quantised one with its scales.
        """
        if isinstance(self.heads, nn.ModuleList):
            matrix = self.heads[codebook]
            assert isinstance(matrix, QuantizedLinear)
            return matrix.rows(start, matrix.out_features if stop is None else stop)
        return (self.heads[codebook].t()[start:stop],)

    def read(
        self, inputs: Tensor, head: tuple[Tensor, ...], positions: Tensor, cache: KVCache, *, length: int | None = None
    ) -> Tensor:
        """Logits of one codebook, where no argument but the tensors' contents differs from codebook to codebook.

        Args:
            inputs: See :meth:`step`.
            head: From :meth:`head`.
            positions: The codebook's number in every row, (B, 1).
            cache: Holds the codebooks before.
            length: The codebook's number plus one, to save masked attention; None: compiled code serves all of them.

        Returns:
            (B, ids), with up to a block more for 4-bit weights.
        """
        projected = self.projection(inputs)[:, None]
        whole = length is None
        length = self.num_codebooks if length is None else length
        state = self.transformer.step(projected, cache, positions, length=length, exact=not whole)[:, 0]
        return product(state, *head)
