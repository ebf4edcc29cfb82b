"""Losses of the language model: masked cross-entropy per stream, and the choice of positions that pay it.

Shapes: B batch, S positions, K codebooks, N audio targets, A audio ids, V text ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uniaudio2.errors import UserError
from uniaudio2.lm.model import AttentionProbe, AudioLM, LMOutput


@dataclass(frozen=True)
class LMLossConfig:
    """How the streams are weighted, and which frames pay."""

    text: float = 1.0  # of the mean text loss
    # Of every codebook's mean loss; the sum counts, nothing is divided. Source: stage 2 of the paper gives the first
    # three streams (text and two codebooks) 2/8 and the others 1/8, taken as already normalised.
    codebooks: tuple[float, ...] = (0.125,) * 8
    # Share of the codebooks' losses that the frames of all streams but the last pay together; null: all count alike.
    reasoning_share: float | None = None
    # Share of the last stream's frames whose codes the local decoder learns at each step; the others always pay.
    frame_fraction: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 < self.frame_fraction <= 1:
            raise UserError(f"frame_fraction must be in (0, 1], got {self.frame_fraction}")
        if self.reasoning_share is not None and not 0 <= self.reasoning_share <= 1:
            raise UserError(f"reasoning_share must be in [0, 1], got {self.reasoning_share}")
        if not self.codebooks or min(self.codebooks) < 0:
            raise UserError("codebooks must be one weight of at least 0 per codebook")


@dataclass(frozen=True)
class LMLosses:
    """Losses in nats of one batch, and the forward pass they come from."""

    total: Tensor  # no axes: the weighted sum that is learned
    text_each: Tensor  # (M,) of every text target
    codes_each: Tensor  # (N, K) of every code target
    output: LMOutput

    @property
    def text_accuracy(self) -> Tensor:
        """Share of the text targets whose best guess is right."""
        return (self.output.text_logits.argmax(-1) == self.output.text_labels).float().mean()

    @property
    def codes_accuracy(self) -> Tensor:
        """The same of every codebook, (K,)."""
        return (self.output.audio_logits.argmax(-1) == self.output.audio_labels).float().mean(0)

    def metrics(self) -> dict[str, float]:
        """Figures for a log: means of what there is."""
        figures = {"loss": float(self.total.detach())}
        if self.text_each.numel():
            figures["text"] = float(self.text_each.detach().mean())
        for index, value in enumerate(self.codes_each.detach().mean(0).tolist() if self.codes_each.numel() else ()):
            figures[f"codebook{index}"] = value
        return figures


def text_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy over masked-in positions as the published helper has them; 0 when there are none.

    Args:
        logits: (..., V).
        labels: (...).
        mask: (...) bool or 0/1.
    """
    each = _nats(logits, labels, 0.0)
    weight = mask.to(each.dtype)
    count = weight.sum().clamp(min=1.0)
    correct = (logits.argmax(dim=-1) == labels).to(each.dtype)
    return (each * weight).sum() / count, (correct * weight).sum() / count


def audio_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor,
    weights: tuple[float, ...],
    *,
    normalisation: Literal["rows", "targets"] = "targets",
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted loss over the codebooks of N frames as the published helper has it.

    Source: ARCHITECTURE section 1.3; "rows" is the published normalisation, "targets" the repaired one.

    Args:
        logits: (N, K, A).
        labels: (N, K).
        mask: (N, K).
        weights: K weights.
        normalisation: Divide by N, or by the masked-in rows of each codebook.

    Returns:
        Sum of weight x loss / K (no axes), loss per codebook (K,), accuracy per codebook over the same rows (K,).

    Raises:
        ValueError: If there is not one weight per codebook.
    """
    count, books, _ = logits.shape
    if len(weights) != books:
        raise UserError(f"{len(weights)} codebook weights for {books} codebooks")
    each = _nats(logits, labels, 0.0)
    paying = mask.to(each.dtype)
    correct = (logits.argmax(dim=-1) == labels).to(each.dtype)
    if normalisation == "rows":
        divisor = each.new_full((books,), float(max(count, 1)))
    else:
        divisor, correct = paying.sum(dim=0).clamp(min=1.0), correct * paying
    losses = (each * paying).sum(dim=0) / divisor
    scale = torch.tensor(weights, dtype=losses.dtype, device=losses.device)
    return (losses * scale).sum() / books, losses, correct.sum(dim=0) / divisor


def choose_audio_targets(
    loss_mask: Tensor,
    fraction: float = 1.0,
    generator: torch.Generator | None = None,
    *,
    keep: Tensor | None = None,
) -> Tensor:
    """Positions whose next row pays audio loss, or a random part of them.

    Args:
        loss_mask: (B, S, K+1).
        fraction: Share to keep; at least one is kept when there are any.
        generator: CPU generator for the draw; the default generator when None.
        keep: (B, S) rows that are kept whatever the draw.

    Returns:
        Sorted flat indices into B*(S-1), (N,).
    """
    found = loss_mask[:, 1:, 0].reshape(-1).nonzero().squeeze(1)
    if fraction >= 1.0 or found.numel() <= 1:
        return found
    kept = max(1, round(found.numel() * fraction))
    chosen = torch.zeros(found.numel(), dtype=torch.bool, device="cpu")
    chosen[torch.randperm(found.numel(), generator=generator, device="cpu")[:kept]] = True
    chosen = chosen.to(found.device)
    if keep is not None:
        chosen |= keep[:, 1:].reshape(-1)[found]
    return found[chosen]


def lm_losses(
    model: AudioLM,
    tokens: Tensor,
    mask: Tensor,
    loss_mask: Tensor,
    config: LMLossConfig,
    *,
    shown: Tensor | None = None,
    probe: AttentionProbe | None = None,
    generator: torch.Generator | None = None,
) -> LMLosses:
    """Forward and losses of one batch, computing heads only where the loss needs them.

    Args:
        model: The language model; only in training mode frames are drawn and labels smoothed.
        tokens: (B, S, K+1).
        mask: Bool, (B, S, K+1).
        loss_mask: Bool, (B, S, K+1): entries that are predicted; of a frame all or none.
        config: Weights.
        shown: What the model reads, if not ``tokens``.
        probe: What is wanted from inside of the backbone, in ``output``.
        generator: CPU generator that draws the frames that pay; the default generator when None.

    Raises:
        ValueError: If there is not one weight per codebook.
    """
    audio, training = model.config.audio, model.training
    if len(config.codebooks) != audio.num_codebooks:
        raise UserError(f"{len(config.codebooks)} codebook weights for {audio.num_codebooks} codebooks")
    coarse = tokens[..., 0] < audio.fine_shift
    fraction = config.frame_fraction if training else 1.0
    output = model(
        tokens,
        mask,
        shown=shown,
        audio_targets=choose_audio_targets(loss_mask, fraction, generator, keep=coarse),
        text_targets=loss_mask[:, 1:, -1].reshape(-1).nonzero().squeeze(1),
        probe=probe,
    )
    smoothing = config.label_smoothing if training else 0.0
    text = _nats(output.text_logits, output.text_labels, smoothing)
    codes = _nats(output.audio_logits, output.audio_labels, smoothing)
    total = text.new_zeros(())
    if text.numel():
        total = total + config.text * text.mean()
    weights = codes.new_tensor(config.codebooks)
    kind = output.audio_labels[:, 0] < audio.fine_shift
    share = config.reasoning_share if audio.fine_shift else None
    parts = ((slice(None), 1.0),) if share is None else ((kind, share), (~kind, 1 - share))
    for rows, portion in parts:
        if codes[rows].numel():
            total = total + portion * (codes[rows].mean(0) * weights).sum()
    return LMLosses(total, text, codes, output)


@torch.inference_mode()
def text_nats(model: AudioLM, tokens: Tensor, mask: Tensor, loss_mask: Tensor) -> list[Tensor]:
    """How surprised the model is by the text targets of each sequence.

    Args:
        model: The language model.
        tokens: (B, S, K+1).
        mask: Bool, (B, S, K+1).
        loss_mask: Bool, (B, S, K+1): the entries whose text counts.

    Returns:
        Nats of every text target, sequence by sequence; empty where a sequence has none.
    """
    targets = loss_mask[:, 1:, -1].reshape(-1).nonzero().squeeze(1)
    output = model(tokens, mask, audio_targets=targets[:0], text_targets=targets)
    nats = _nats(output.text_logits, output.text_labels, 0.0)
    rows = targets // (tokens.shape[1] - 1)
    return [nats[rows == row] for row in range(len(tokens))]


def _nats(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy in float32 of every label, in the labels' shape."""
    each = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(),
        labels.reshape(-1),
        reduction="none",
        label_smoothing=label_smoothing if labels.numel() else 0.0,
    )
    return each.view(labels.shape)
