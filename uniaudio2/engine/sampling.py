"""How ids are drawn: settings, filters, draws from uniform numbers, guidance, and seeds.

Shapes: n rows that draw, V ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.errors import UserError

LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-3, 100.0
ATTEMPT_SEEDS = 1_000_003  # distance of the seeds of several attempts at one piece


class GenerationError(UserError):
    """A request that cannot be served."""


@dataclass(frozen=True)
class SamplingConfig:
    """How ids are drawn."""

    temperature: float = 1.0  # 0: the likeliest id
    top_k: int | None = None  # keep this many; ties with the last are kept; None: all
    top_p: float = 1.0  # keep the likeliest ids that hold this probability

    def __post_init__(self) -> None:
        if self.temperature != 0 and not LEAST_TEMPERATURE <= self.temperature <= MOST_TEMPERATURE:
            raise GenerationError(
                f"temperature must be 0 (the likeliest id) or in [{LEAST_TEMPERATURE}, {MOST_TEMPERATURE:g}], "
                f"got {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k must be at least 1, got {self.top_k}; leave it out to keep all ids")
        if not 0.0 < self.top_p <= 1.0:
            raise GenerationError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest id is always taken."""
        return self.temperature == 0.0 or self.top_k == 1


def derive_seed(seed: int, piece: int, attempt: int = 0) -> int:
    """Seed of one attempt at one piece of a longer request, such as a sentence of a text.

    The first piece has the request's own seed; the others' are hashed, so that no piece draws what a piece of another
    seed draws, as it would if the number of the piece were added. Attempts lie further apart than users' seeds.
    """
    if piece:
        seed = int.from_bytes(hashlib.sha256(f"{seed}/{piece}".encode()).digest()[:7], "big")
    return seed + attempt * ATTEMPT_SEEDS


def filter_probabilities(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    *,
    most: int | None = None,
    some_keep_all: bool = True,
) -> Tensor:
    """Probabilities after temperature, top-k and top-p.

    Entries below the k-th largest are removed, ties with it are kept. Source: ARCHITECTURE section 1.4.

    Args:
        logits: (n, V); forbidden ids are -inf.
        temperature: (n,), above 0.
        top_k: (n,), 0 or None: all.
        top_p: (n,) in (0, 1]; None: all.
        most: Largest entry of ``top_k``; None: it is read from there, which waits for the device.
        some_keep_all: Whether ``top_k`` may be 0 anywhere.

    Returns:
        (n, V), rows sum to one.
    """
    logits = logits.float()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature[:, None]  # no overflow, however cold
    if top_k is not None:
        most = min(int(top_k.max()) if most is None else most, logits.shape[-1])
        best = logits.topk(most, dim=-1).values
        last = best.gather(1, (top_k - 1).clamp(0, most - 1)[:, None])
        if some_keep_all:
            last = last.masked_fill((top_k == 0)[:, None], -torch.inf)
        logits = logits.masked_fill(logits < last, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if top_p is not None:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        dropped = ordered.cumsum(dim=-1) - ordered >= top_p[:, None]
        dropped &= (top_p < 1.0)[:, None]
        probabilities = probabilities.masked_fill(dropped.gather(1, order.argsort(dim=-1)), 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def cumulative_dtype(device: torch.device) -> torch.dtype:
    """Type in which probabilities are summed; an Apple GPU has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Needs:
    """Which steps of a draw any row of a group needs, known on the host."""

    draws: bool = False  # else all rows are greedy
    top_k: int = 0  # largest of the rows; 0: no row keeps a number of ids
    some_keep_all: bool = False  # while others keep a number
    top_p: bool = False

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig]) -> Needs:
        """What rows with these settings need."""
        drawn = [config for config in configs if not config.greedy]
        top_k = max((config.top_k or 0 for config in drawn), default=0)
        some_keep_all = top_k > 0 and any(config.top_k is None for config in configs)
        return cls(bool(drawn), top_k, some_keep_all, any(config.top_p < 1.0 for config in drawn))


@dataclass(frozen=True)
class Sampler:
    """Settings of n rows, (n,) each."""

    needs: Needs
    greedy: Tensor  # bool
    temperature: Tensor
    top_k: Tensor  # 0: all
    top_p: Tensor

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig], device: torch.device | str) -> Sampler:
        """Settings as tensors."""
        greedy = [config.greedy for config in configs]
        return cls(
            Needs.of(configs),
            torch.tensor(greedy, device=device),
            torch.tensor([config.temperature or 1.0 for config in configs], dtype=torch.float32, device=device),
            torch.tensor([config.top_k or 0 for config in configs], dtype=torch.int64, device=device),
            torch.tensor([config.top_p for config in configs], dtype=torch.float32, device=device),
        )

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Draw one id per row by inverting the cumulative distribution.

        Choice: one uniform number per drawn id, made in advance from the request's seed, so that a draw depends
        neither on the batch around it nor on the device.

        Args:
            logits: (n, V), forbidden ids -inf.
            uniform: (n,) in [0, 1).

        Returns:
            (n,) int64.
        """
        likeliest = logits.argmax(dim=-1)
        if not self.needs.draws:
            return likeliest
        probabilities = filter_probabilities(
            logits,
            self.temperature,
            self.top_k if self.needs.top_k else None,
            self.top_p if self.needs.top_p else None,
            most=self.needs.top_k,
            some_keep_all=self.needs.some_keep_all,
        )
        wide = cumulative_dtype(logits.device)
        cumulative = probabilities.to(wide).cumsum(dim=-1)
        level = uniform.to(wide)[:, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, level, right=True).clamp(max=logits.shape[-1] - 1).squeeze(1)
        if wide == torch.float32:  # which may round a level up to the very end
            possible = probabilities.gather(1, drawn[:, None]).squeeze(1) > 0
            drawn = torch.where(possible, drawn, likeliest)
        return torch.where(self.greedy, likeliest, drawn)


def guide(logits: Tensor, pair: Tensor | None, scale: Tensor | None, count: int) -> Tensor:
    """Apply guidance: u + (c - u) * scale.

    Args:
        logits: (count + guided, V): conditional rows first, then the unconditional rows of the guided ones.
        pair: (count,) row of the unconditional partner (its own row when not guided); None: nothing is guided.
        scale: (count,).
        count: Conditional rows.

    Returns:
        (count, V).
    """
    if pair is None or scale is None:
        return logits[:count]
    without = logits[pair]
    return without + (logits[:count] - without) * scale[:, None]
