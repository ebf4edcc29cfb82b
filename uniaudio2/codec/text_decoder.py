"""Text from reasoning codes: the small decoder that aligns the reasoning branch with language.

The published codec projects its reasoning codes into a text LLM (UniAudio 2.0, ReasoningCodec, supervised alignment);
``nano`` has this small transformer in the LLM's place. It sees **nothing but the quantised reasoning vectors**, so it
can only be right when the codes say what was spoken or what sounded.

Shapes: ``B`` batch, ``T`` 5 Hz reasoning frames, ``L`` text tokens, ``D`` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.errors import UserError

CTC_SIZE = 257
"""Outputs of the auxiliary CTC head: the blank, then room for the phones of all languages."""


@dataclass(frozen=True)
class TextDecoderConfig:
    """Sizes of the text decoder."""

    vocab_size: int
    bos_id: int  # begins every text
    eos_id: int  # ends every text
    condition_dim: int = 256  # of the quantised reasoning vectors
    width: int = 160
    num_layers: int = 2
    num_heads: int = 4
    max_tokens: int = 96
    max_frames: int = 160  # 32 s at 5 Hz
    sub_frames: int = 6  # CTC outputs per reasoning frame: 30 Hz, above any phone rate; 0 = no CTC head
    dropout: float = 0.1


class TextDecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the codes, feed-forward; pre-norm."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        d = config.width
        self.num_heads = config.num_heads
        self.self_norm, self.cross_norm, self.feed_norm = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.self_out = nn.Linear(d, d, bias=False)
        self.query = nn.Linear(d, d, bias=False)
        self.key_value = nn.Linear(d, 2 * d, bias=False)
        self.cross_out = nn.Linear(d, d, bias=False)
        self.feed_in, self.feed_out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.dropout = nn.Dropout(config.dropout)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """x (B, L, D), memory (B, T, D), memory_mask (B, T) true where valid -> (B, L, D)."""
        q, k, v = (self._heads(h) for h in self.qkv(self.self_norm(x)).chunk(3, -1))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.self_out(h.transpose(1, 2).flatten(2)))
        k, v = (self._heads(h) for h in self.key_value(memory).chunk(2, -1))
        q = self._heads(self.query(self.cross_norm(x)))
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=memory_mask[:, None, None])
        x = x + self.dropout(self.cross_out(h.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_out(F.gelu(self.feed_in(self.feed_norm(x)))))


class TextDecoder(nn.Module):
    """Quantised reasoning vectors to text tokens."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.memory_in = nn.Linear(config.condition_dim, d)
        self.memory_position = nn.Parameter(0.02 * torch.randn(config.max_frames, d))
        self.memory_block = nn.TransformerEncoderLayer(
            d, config.num_heads, 4 * d, config.dropout, F.gelu, batch_first=True, norm_first=True
        )
        self.embedding = nn.Embedding(config.vocab_size, d)
        self.position = nn.Parameter(0.02 * torch.randn(config.max_tokens + 1, d))
        self.layers = nn.ModuleList([TextDecoderLayer(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(d)
        self.ctc_head = nn.Linear(d, config.sub_frames * CTC_SIZE) if config.sub_frames else None
        nn.init.normal_(self.embedding.weight, std=d**-0.5)

    def read(self, reasoning: Tensor, num_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prepare the codes for cross-attention.

        Args:
            reasoning: Quantised reasoning vectors (B, T, condition_dim).
            num_frames: Valid frames per row (B,); all when None.

        Returns:
            Memory (B, T, D) and its validity (B, T).

        Raises:
            ValueError: If T exceeds ``max_frames``.
        """
        t = reasoning.shape[1]
        if t > self.config.max_frames:
            raise UserError(f"{t} reasoning frames given, at most {self.config.max_frames} are read: cut the audio")
        mask = torch.arange(t, device=reasoning.device) < (
            torch.full((reasoning.shape[0], 1), t, device=reasoning.device)
            if num_frames is None
            else num_frames[:, None]
        )
        memory = self.memory_in(reasoning) + self.memory_position[:t]
        return self.memory_block(memory, src_key_padding_mask=~mask), mask

    def logits(self, tokens: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """tokens (B, L) starting with ``bos_id`` -> next-token logits (B, L, vocab_size)."""
        x = self.embedding(tokens) * self.config.width**0.5 + self.position[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, memory, memory_mask)
        return self.norm(x) @ self.embedding.weight.T

    def ctc_logits(self, memory: Tensor) -> Tensor:
        """Memory (B, T, D) -> phone logits (B, T * sub_frames, 257), blank first: the auxiliary alignment loss.

        Raises:
            ValueError: If the model was built without the head.
        """
        if self.ctc_head is None:
            raise UserError("this text decoder has no CTC head: set sub_frames above 0")
        return self.ctc_head(memory).unflatten(-1, (self.config.sub_frames, -1)).flatten(1, 2)

    @torch.inference_mode()
    def generate(
        self,
        reasoning: Tensor,
        num_frames: Tensor | None = None,
        *,
        temperature: float = 0.0,
        max_tokens: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Text for each row.

        Args:
            reasoning: Quantised reasoning vectors (B, T, condition_dim).
            num_frames: Valid frames per row (B,).
            temperature: Of the draws; 0 takes the likeliest token.
            max_tokens: Longest text; that of the config when None.
            generator: Of the draws, of the CPU; the global one when None.

        Returns:
            Token ids of each row, without ``bos_id`` and ``eos_id``.
        """
        memory, mask = self.read(reasoning, num_frames)
        tokens = torch.full((reasoning.shape[0], 1), self.config.bos_id, device=reasoning.device)
        done = torch.zeros(reasoning.shape[0], dtype=torch.bool, device=reasoning.device)
        for _ in range(max_tokens or self.config.max_tokens):
            logits = self.logits(tokens, memory, mask)[:, -1]
            if temperature > 0:
                chances = (logits.float() / temperature).softmax(-1).cpu()  # a seed draws the same on every device
                following = torch.multinomial(chances, 1, generator=generator)[:, 0].to(tokens.device)
            else:
                following = logits.argmax(-1)
            tokens = torch.cat((tokens, following[:, None]), 1)
            done |= following == self.config.eos_id
            if bool(done.all()):
                break
        rows = tokens[:, 1:].tolist()
        return [row[: row.index(self.config.eos_id)] if self.config.eos_id in row else row for row in rows]
