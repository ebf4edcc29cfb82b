"""Rotary position embedding (Su et al. 2021), half-split: channel ``i`` turns with channel ``i + D/2``.

Shapes: ``D`` rotated channels of a head, even. Codec and language model share nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_frequencies(dim: int, base: float = 10000.0, *, device: torch.device | None = None) -> Tensor:
    """Angle per position of each channel pair, ``base ** (-2i / D)``, (D/2,), float32."""
    return 1.0 / (base ** (torch.arange(0, dim, 2, device=device).float() / dim))


def rotary_table(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions.

    Args:
        positions: Any shape (...).
        frequencies: See :func:`rotary_frequencies`.

    Returns:
        Each (..., D), float32, the second half equal to the first.
    """
    angles = positions.float().unsqueeze(-1) * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first D channels of every head, in the type of ``x``; channels beyond them stay.

    Args:
        x: (..., channels of a head).
        cos: (..., D), broadcast over ``x``.
        sin: Like ``cos``.
    """
    half = cos.shape[-1] // 2
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cosine, sine = cos[..., :half].to(x.dtype), sin[..., :half].to(x.dtype)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat((*turned, rest) if rest.shape[-1] else turned, dim=-1)
