"""Vector quantisers: one codebook, and a residual stack of codebooks behind a shared projection.

Shapes: ``B`` batch, ``T`` codec frames, ``K`` codebooks, ``V`` codebook size, ``D`` width. Features are (B, T, D),
codes are (B, K, T). The file knows nothing of what is quantised.

Codebooks are not trained by gradients: they follow the running mean of the vectors assigned to them (exponential
moving averages in float32), start from k-means on the first training batch, and an entry that is hardly ever used
is moved onto a badly represented vector of the current batch. All of that state lies in buffers, so that a saved
model goes on training exactly where it stopped. In evaluation mode nothing changes and codes are deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.errors import UserError


@dataclass(frozen=True)
class QuantizerConfig:
    """Numbers of one residual quantiser."""

    num_codebooks: int  # residual levels K
    codebook_size: int  # entries per codebook V
    codebook_dim: int  # width in which vectors are compared
    ema_decay: float = 0.99  # of the running counts and sums, per training step
    dead_fraction: float = 0.03  # an entry used less than this share of the mean use is moved; 0 turns it off
    level_dropout: float = 0.0  # probability, per batch row in training, that only the first few levels are summed

    def __post_init__(self) -> None:
        for name in ("num_codebooks", "codebook_size", "codebook_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.ema_decay < 1.0:
            raise UserError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if not 0.0 <= self.dead_fraction < 1.0:
            raise UserError(f"dead_fraction must lie in [0, 1), got {self.dead_fraction}")
        if not 0.0 <= self.level_dropout <= 1.0:
            raise UserError(f"level_dropout must lie in [0, 1], got {self.level_dropout}")


class Quantized(NamedTuple):
    """What a quantiser returns."""

    quantized: Tensor  # (B, T, D), straight-through gradient in training
    codes: Tensor  # (B, K, T) int64
    commitment_loss: Tensor  # scalar
    perplexity: Tensor  # (K,) exp(entropy) of the codes in this batch, in [1, V]


def check_codes(codes: Tensor, num_codebooks: int, codebook_size: int, what: str = "codes") -> None:
    """Refuse codes that are not (B, ``num_codebooks``, T) integers in [0, ``codebook_size``).

    Args:
        codes: The codes to check.
        num_codebooks: K, the size of axis 1.
        codebook_size: V, the first number that is no code.
        what: Name of the stream for the message.

    Raises:
        ValueError: If the type, the shape or the range is wrong.
    """
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise UserError(f"{what} must be integers, got {codes.dtype}")
    if codes.dim() != 3 or codes.shape[1] != num_codebooks:
        raise UserError(f"{what} must be (B, {num_codebooks}, T), got {tuple(codes.shape)}")
    if codes.numel() and codes.device.type != "meta":
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= codebook_size:
            raise UserError(
                f"{what} must lie in 0..{codebook_size - 1}, got {low}..{high}; "
                "special tokens have to be removed before decoding"
            )


def _all_reduce(tensor: Tensor) -> Tensor:
    """Sum over processes where training is distributed, else nothing."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def _from_first_rank(tensor: Tensor) -> Tensor:
    """The first process's tensor on all processes."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


def _nearest(vectors: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Index (M,) of the nearest entry by Euclidean distance and its squared distance (M,), for vectors (M, d)."""
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2: one matrix product instead of M x V differences.
    scores = torch.addmm(codebook.square().sum(dim=1), vectors, codebook.t(), alpha=-2.0)
    best, index = scores.min(dim=1)
    return index, (best + vectors.square().sum(dim=1)).clamp_min(0.0)


def _count(index: Tensor, size: int) -> Tensor:
    """How often each of 0..size-1 occurs, float32."""
    return torch.bincount(index, minlength=size).to(torch.float32)


def _kmeans(vectors: Tensor, num_centers: int, num_iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random distinct members: centres (num_centers, d) and their counts (num_centers,)."""
    centers = vectors[torch.randperm(len(vectors), device=vectors.device)[:num_centers]].clone()
    counts = vectors.new_zeros(num_centers)
    for _ in range(num_iterations):
        index, _ = _nearest(vectors, centers)
        counts = _count(index, num_centers)
        sums = torch.zeros_like(centers).index_add_(0, index, vectors)
        centers = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1.0)[:, None], centers)
    return centers, counts


def perplexity_of(counts: Tensor) -> Tensor:
    """exp(entropy) of counts over the last axis: 1 where one entry takes all, V where all are used alike."""
    share = counts / counts.sum(dim=-1, keepdim=True).clamp_min(1e-9)
    return torch.exp(-(share * share.clamp_min(1e-12).log()).sum(dim=-1))


class VectorQuantize(nn.Module):
    """One codebook of ``codebook_size`` vectors of width ``dim``, without projection.

    Buffers (all saved): ``codebook`` (V, dim), ``usage`` (V,) the running counts of assigned vectors, ``initialised``
    () bool. The running sums of the usual form are ``codebook * usage`` at every moment, so they are not kept.

    Args:
        dim: Width of the vectors.
        codebook_size: V.
        ema_decay: Of the running sums and counts.
        dead_fraction: Entries used less than this share of the mean are moved in training.
    """

    codebook: Tensor
    usage: Tensor
    initialised: Tensor

    def __init__(self, dim: int, codebook_size: int, *, ema_decay: float = 0.99, dead_fraction: float = 0.03) -> None:
        super().__init__()
        self.dim, self.codebook_size = dim, codebook_size
        self.ema_decay, self.dead_fraction = ema_decay, dead_fraction
        codebook = torch.randn(codebook_size, dim, dtype=torch.float32) * dim**-0.5
        self.register_buffer("codebook", codebook)
        self.register_buffer("usage", torch.ones(codebook_size, dtype=torch.float32))
        self.register_buffer("initialised", torch.tensor(False))
        self._known_initialised = False  # spares a device synchronisation per step

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known_initialised = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest entries of vectors; in training the codebook learns from them.

        Args:
            x: (B, T, dim) or (M, dim).

        Returns:
            The entries (no gradient, float32, shape of ``x``), their codes (int64, shape of ``x`` without the last
            axis) and the counts (V,) of the codes.
        """
        vectors = x.detach().reshape(-1, self.dim).to(torch.float32)
        if self.training and not self._known_initialised:
            if not bool(self.initialised):
                self.initialise(vectors)
            self._known_initialised = True
        codebook = self.codebook.to(torch.float32)
        index, distance = _nearest(vectors, codebook)
        entries = F.embedding(index, codebook).view(x.shape)
        counts = _count(index, self.codebook_size)
        if self.training:
            self._learn(vectors, index, counts, distance)
        return entries, index.view(x.shape[:-1]), counts

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """Set the codebook by k-means.

        Where there are fewer vectors than would feed all entries (four each), the others repeat the centres and are
        marked as unused, so that the following training steps move them onto vectors of their own batches. (Placed
        on vectors of this batch they would leave the next level nothing to start from.)

        Args:
            vectors: (M, dim) samples of what will be quantised, M >= 1.
        """
        vectors = vectors.reshape(-1, self.dim).to(self.codebook.device, torch.float32)
        num_centers = max(1, min(self.codebook_size, len(vectors) // 4))
        centers, counts = _kmeans(vectors, num_centers)
        spare = self.codebook_size - num_centers
        fill = centers[torch.arange(spare, device=vectors.device) % num_centers]
        self.codebook.copy_(_from_first_rank(torch.cat([centers, fill])))
        self.usage.copy_(_from_first_rank(torch.cat([counts, counts.new_zeros(spare)])))
        self.initialised.fill_(True)

    @torch.no_grad()
    def _learn(self, vectors: Tensor, index: Tensor, counts: Tensor, distance: Tensor) -> None:
        """One step of the running averages, then the revival of unused entries."""
        counts = _all_reduce(counts.clone())
        sums = _all_reduce(torch.zeros_like(self.codebook).index_add_(0, index, vectors.to(self.codebook.dtype)))
        running_sums = torch.lerp(self.codebook * self.usage[:, None], sums, 1.0 - self.ema_decay)
        self.usage.lerp_(counts, 1.0 - self.ema_decay)
        # An entry without any use keeps its place (its sum and its count are both zero).
        used = self.usage > 1e-6
        self.codebook.copy_(
            torch.where(used[:, None], running_sums / self.usage.clamp_min(1e-6)[:, None], self.codebook)
        )
        if self.dead_fraction > 0.0:
            mean_usage = self.usage.mean()
            dead = self.usage < self.dead_fraction * mean_usage
            # Choice: new places are drawn with probability proportional to the squared error (as k-means++ does),
            # because drawing evenly would give most of them to silence.
            picks = vectors[torch.multinomial(distance + 1e-8, self.codebook_size, replacement=True)]
            picks = _from_first_rank(picks).to(self.codebook.dtype)
            self.codebook.copy_(torch.where(dead[:, None], picks, self.codebook))
            # A moved entry starts with half the mean use: long enough to win vectors before it is judged again.
            self.usage.copy_(torch.where(dead, 0.5 * mean_usage, self.usage))


class ResidualVectorQuantize(nn.Module):
    """Projection, K codebooks each quantising what the ones before left over, projection back.

    Source: UniAudio 2.0 (arXiv:2602.04683), ReasoningCodec; the form is that of the released weights: one
    ``project_in`` and one ``project_out`` around all levels (absent where the widths agree).

    Args:
        dim: Width D of the features.
        num_codebooks: K.
        codebook_size: V.
        codebook_dim: Width of the codebooks.
        ema_decay: See :class:`QuantizerConfig`.
        dead_fraction: See :class:`QuantizerConfig`.
        level_dropout: See :class:`QuantizerConfig`.
    """

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int,
        codebook_dim: int,
        *,
        ema_decay: float = 0.99,
        dead_fraction: float = 0.03,
        level_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.num_codebooks, self.codebook_size = dim, num_codebooks, codebook_size
        self.level_dropout = level_dropout
        same = dim == codebook_dim
        self.project_in: nn.Module = nn.Identity() if same else nn.Linear(dim, codebook_dim)
        self.project_out: nn.Module = nn.Identity() if same else nn.Linear(codebook_dim, dim)
        self.levels = nn.ModuleList(
            VectorQuantize(codebook_dim, codebook_size, ema_decay=ema_decay, dead_fraction=dead_fraction)
            for _ in range(num_codebooks)
        )

    @classmethod
    def from_config(cls, dim: int, config: QuantizerConfig) -> ResidualVectorQuantize:
        """Build from a :class:`QuantizerConfig`."""
        return cls(
            dim,
            config.num_codebooks,
            config.codebook_size,
            config.codebook_dim,
            ema_decay=config.ema_decay,
            dead_fraction=config.dead_fraction,
            level_dropout=config.level_dropout,
        )

    def forward(self, x: Tensor) -> Quantized:
        """Quantise features.

        The commitment loss is the mean over levels of the squared distance between the running residual and its
        entry, in the projected space; gradients pass the quantiser unchanged (straight-through).

        Args:
            x: (B, T, D).

        Returns:
            Quantised features with codes, loss and perplexities.

        Raises:
            ValueError: If ``x`` is not (B, T, D) or holds no frame.
        """
        if x.dim() != 3 or x.shape[2] != self.dim or x.shape[1] == 0:
            raise ValueError(f"features to quantise must be (B, T, {self.dim}) with T > 0, got {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            projected = self.project_in(x.to(self._dtype)).to(torch.float32)
            residual, total = projected, torch.zeros_like(projected)
            kept_levels = self._draw_kept_levels(x)
            codes, counts, losses = [], [], []
            for number, level in enumerate(self.levels):
                entries, index, count = level(residual)
                losses.append(F.mse_loss(residual, entries))
                residual = residual - entries
                if kept_levels is None:
                    total = total + entries
                else:
                    total = total + entries * (kept_levels > number)[:, None, None]
                codes.append(index)
                counts.append(count)
            if self.training:
                total = projected + (total - projected).detach()
            quantized = self.project_out(total.to(self._dtype)).to(x.dtype)
        return Quantized(
            quantized, torch.stack(codes, dim=1), torch.stack(losses).mean(), perplexity_of(torch.stack(counts))
        )

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, K, T) of features (B, T, D)."""
        return self.forward(x).codes

    def decode(self, codes: Tensor) -> Tensor:
        """Features (B, T, D) of codes: look up, sum over levels, project back.

        Args:
            codes: (B, K, T) integers in [0, V).

        Raises:
            ValueError: If shape, type or range of ``codes`` is wrong.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        codebooks = [level.get_buffer("codebook") for level in self.levels]
        total = sum(F.embedding(codes[:, k].long(), codebook) for k, codebook in enumerate(codebooks))
        return self.project_out(total.to(self._dtype))  # pyright: ignore[reportAttributeAccessIssue]

    @torch.no_grad()
    def usage_perplexity(self) -> Tensor:
        """(K,) perplexity by the running counts of training: a steadier figure than that of one batch."""
        return torch.stack([perplexity_of(level.get_buffer("usage").to(torch.float32)) for level in self.levels])

    @property
    def _dtype(self) -> torch.dtype:
        """Type of the projections' weights (float32 where there are none)."""
        return self.project_in.weight.dtype if isinstance(self.project_in, nn.Linear) else torch.float32

    def _draw_kept_levels(self, x: Tensor) -> Tensor | None:
        """(B,) number of levels to sum per row, or None for all of them."""
        if not self.training or self.level_dropout == 0.0 or self.num_codebooks == 1:
            return None
        batch = x.shape[0]
        drawn = torch.randint(1, self.num_codebooks, (batch,), device=x.device)
        drop = torch.rand(batch, device=x.device, dtype=torch.float32) < self.level_dropout
        return torch.where(drop, drawn, self.num_codebooks)


PUBLISHED_LEVEL_NAMES: dict[str, str | None] = {
    "_codebook.embed": "codebook",
    "_codebook.embed_avg": None,  # codebook × usage
    "_codebook.cluster_size": "usage",
    "_codebook.initted": "initialised",
}
"""Published names inside one residual level and ours. The published tensors have a leading axis of size 1."""


def rename_published(key: str) -> str | None:
    """Our name of a published key of a residual quantiser, given without its own prefix; None for what is not needed.

    Raises:
        KeyError: If the key is not known.
    """
    if key.startswith(("project_in.", "project_out.")):
        return key
    head, _, rest = key.partition(".")
    number, _, rest = rest.partition(".")
    if head != "layers":
        raise KeyError(key)
    name = PUBLISHED_LEVEL_NAMES[rest]
    return None if name is None else f"levels.{number}.{name}"
