"""The key/value cache of one stack: allocated once, its slots reused in place.

Shapes: B slots, G key/value groups, P positions that fit, h channels of a head, S new positions, N layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, (B, G, P, h) each; every slot stands at a position of its own.

    A finished sequence's slot is reused by overwriting it. Entries beyond a slot's position are never attended to, so
    they need no clearing between sequences.

    Args:
        num_layers: N.
        shape: (B, G, P, h).
        table: Rotary cosines and sines of given positions.
        device: Where it is.
        dtype: Of keys and values.
    """

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int, int],
        table: Callable[[Tensor], tuple[Tensor, Tensor]],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # One tensor per layer, not one for all: compiled code writes into each in place, without copying the others.
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(num_layers)]
        self.blocks: tuple[KVCache, ...] = ()  # of a view whose slots do not lie side by side
        self._table = table
        self._make_tables()

    def _make_tables(self) -> None:
        """Rotary factors of every position that fits, (P, h): no more than the cache needs; and the slots' numbers."""
        device = self.keys[0].device
        self.cos, self.sin = self._table(torch.arange(self.max_positions, device=device))
        self._slots = torch.arange(self.keys[0].shape[0], device=device)[:, None]

    @property
    def batch_size(self) -> int:
        """Number of slots, B."""
        return sum(block.batch_size for block in self.blocks) or self.keys[0].shape[0]

    @property
    def max_positions(self) -> int:
        """Positions that fit, P."""
        return self.keys[0].shape[2]

    def pick(self, slots: Sequence[int]) -> KVCache:
        """A view of some slots in this order: nothing is copied, and what is written to it is written here.

        It serves until the cache is resized. The fewer stretches of neighbours the slots make, the less it costs.
        """
        stretches: list[list[int]] = []
        for slot in slots:
            if stretches and stretches[-1][1] == slot:
                stretches[-1][1] += 1
            else:
                stretches.append([slot, slot + 1])
        blocks = tuple(self._stretch(start, stop) for start, stop in stretches)
        if len(blocks) == 1:
            return blocks[0]
        view = copy.copy(self)
        view.blocks = blocks
        return view

    def _stretch(self, start: int, stop: int) -> KVCache:
        if (start, stop) == (0, self.batch_size):
            return self
        view = copy.copy(self)
        view.keys = [each[start:stop] for each in self.keys]
        view.values = [each[start:stop] for each in self.values]
        view._slots = self._slots[: stop - start]
        return view

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values (B, G, S, h) at ``positions`` (B, S)."""
        kept, known = self.keys[layer], self.values[layer]
        index = (self._slots, slice(None), positions)
        kept[index] = keys.transpose(1, 2).to(kept.dtype)
        known[index] = values.transpose(1, 2).to(known.dtype)

    def write_column(self, layer: int, position: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values (B, G, 1, h) of all slots at one position: cheaper than :meth:`write`."""
        self.keys[layer][:, :, position : position + 1] = keys
        self.values[layer][:, :, position : position + 1] = values

    def read(self, layer: int, length: int) -> tuple[Tensor, Tensor]:
        """First ``length`` keys and values of all slots, (B, G, length, h)."""
        return self.keys[layer][:, :, :length], self.values[layer][:, :, :length]

    def clear(self, start: int, stop: int) -> None:
        """Zero positions start..stop-1 of all slots."""
        for block in self.blocks or (self,):
            for tensor in (*block.keys, *block.values):
                tensor[:, :, start:stop] = 0

    def reorder(self, rows: Tensor, start: int, stop: int) -> None:
        """Give every slot what slot ``rows`` (B,) holds at positions start..stop-1."""
        for tensor in (*self.keys, *self.values):
            tensor[:, :, start:stop] = tensor[rows, :, start:stop]

    def resize(self, rows: Tensor, max_positions: int) -> None:
        """Keep slots ``rows`` (n,) in that order (they may repeat) and change the number of positions: copies all."""
        kept = min(max_positions, self.max_positions)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_zeros(rows.shape[0], old.shape[1], max_positions, old.shape[3])
                new[:, :, :kept] = old[rows, :, :kept]
                tensors[layer] = new
        self._make_tables()


@dataclass(frozen=True)
class CacheView:
    """Where a step reads and writes in a cache: at which positions, and how far attention may reach."""

    cache: KVCache
    positions: Tensor  # (B, S)
    length: int  # cache positions that are read, above the largest position
    mask: Tensor | None  # (B, 1, S, length) bool, True where attended; None: one new position, length - 1, in all slots

    def split(self) -> list[CacheView]:
        """One view for each stretch of neighbouring slots."""
        sizes = [block.batch_size for block in self.cache.blocks]
        masks = [None] * len(sizes) if self.mask is None else self.mask.split(sizes)
        return [
            CacheView(block, positions, self.length, mask)
            for block, positions, mask in zip(self.cache.blocks, self.positions.split(sizes), masks, strict=True)
        ]
