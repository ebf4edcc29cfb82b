"""Losses of the language model: masked cross-entropy per stream, and the choice of positions that pay it.

Shapes: B batch, S positions, K codebooks, N audio targets, A audio ids, V text ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uniaudio2.lm.model import AttentionProbe, AudioLM, LMOutput


@dataclass(frozen=True)
class LMLossConfig:
    """How the streams are weighted and normalised."""

    text_weight: float = 1.0
    # Weight of each codebook. Source: the paper's stage-2 weights give the first codebooks twice the share; scaled so
    # that K equal weights of 1 mean the plain average.
    codebook_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    audio_weight: float = 1.0
    # "rows" divides by every row handed in, also those without loss, as the published helper does; "targets" divides
    # by the rows that pay (the repaired form).
    audio_normalisation: Literal["rows", "targets"] = "targets"
    audio_target_fraction: float = 1.0  # share of audio targets that the local decoder sees in training
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.audio_target_fraction <= 1.0:
            raise ValueError(f"audio_target_fraction must be in (0, 1], got {self.audio_target_fraction}")
        if not self.codebook_weights or min(self.codebook_weights) < 0:
            raise ValueError("codebook_weights must be one weight of at least 0 per codebook")


@dataclass(frozen=True)
class LMLosses:
    """Losses in nats and accuracies of one batch; tensors of no axes unless said."""

    total: Tensor
    text: Tensor
    audio: Tensor  # weighted
    audio_each: Tensor  # (K,) unweighted
    text_accuracy: Tensor
    audio_accuracy: Tensor  # (K,)
    output: LMOutput

    def metrics(self) -> dict[str, float]:
        """Figures for a log."""
        values = {
            "loss": self.total,
            "text_loss": self.text,
            "audio_loss": self.audio,
            "text_accuracy": self.text_accuracy,
        }
        figures = {name: float(value.detach()) for name, value in values.items()}
        for index, value in enumerate(self.audio_each.detach().tolist()):
            figures[f"codebook{index}_loss"] = value
        return figures


def text_cross_entropy(
    logits: Tensor, labels: Tensor, mask: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy over masked-in positions; 0 when there are none.

    Args:
        logits: (..., V).
        labels: (...).
        mask: (...) bool or 0/1.
        label_smoothing: Share of probability spread over all ids.
    """
    vocabulary = logits.shape[-1]
    each = F.cross_entropy(
        logits.reshape(-1, vocabulary).float(), labels.reshape(-1), reduction="none", label_smoothing=label_smoothing
    )
    weight = mask.reshape(-1).to(each.dtype)
    count = weight.sum().clamp(min=1.0)
    correct = (logits.reshape(-1, vocabulary).argmax(dim=-1) == labels.reshape(-1)).to(each.dtype)
    return (each * weight).sum() / count, (correct * weight).sum() / count


def audio_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    mask: Tensor,
    weights: tuple[float, ...],
    *,
    normalisation: Literal["rows", "targets"] = "targets",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted loss over the codebooks of N frames.

    Source: ARCHITECTURE section 1.3; "rows" is the published normalisation.

    Args:
        logits: (N, K, A).
        labels: (N, K).
        mask: (N, K).
        weights: K weights.
        normalisation: Divide by N, or by the masked-in rows of each codebook.
        label_smoothing: Share of probability spread over all ids.

    Returns:
        Sum of weight x loss / K (no axes), loss per codebook (K,), accuracy per codebook over the same rows (K,).

    Raises:
        ValueError: If there is not one weight per codebook.
    """
    count, books, vocabulary = logits.shape
    if len(weights) != books:
        raise ValueError(f"{len(weights)} codebook weights for {books} codebooks")
    each = F.cross_entropy(
        logits.reshape(-1, vocabulary).float(), labels.reshape(-1), reduction="none", label_smoothing=label_smoothing
    ).view(count, books)
    paying = mask.to(each.dtype)
    correct = (logits.argmax(dim=-1) == labels).to(each.dtype)
    if normalisation == "rows":
        divisor = each.new_full((books,), float(max(count, 1)))
    else:
        divisor, correct = paying.sum(dim=0).clamp(min=1.0), correct * paying
    losses = (each * paying).sum(dim=0) / divisor
    scale = torch.tensor(weights, dtype=losses.dtype, device=losses.device)
    return (losses * scale).sum() / books, losses, correct.sum(dim=0) / divisor


def choose_audio_targets(loss_mask: Tensor, fraction: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Positions whose next row pays audio loss, or a random part of them.

    Args:
        loss_mask: (B, S, K+1).
        fraction: Share to keep; at least one is kept when there are any.
        generator: CPU generator for the draw; the default generator when None.

    Returns:
        Sorted flat indices into B*(S-1), (N,).
    """
    found = loss_mask[:, 1:, 0].reshape(-1).nonzero().squeeze(1)
    if fraction >= 1.0 or found.numel() <= 1:
        return found
    kept = max(1, round(found.numel() * fraction))
    order = torch.randperm(found.numel(), generator=generator)[:kept].sort().values
    return found[order.to(found.device)]


def lm_losses(
    model: AudioLM,
    tokens: Tensor,
    mask: Tensor,
    loss_mask: Tensor,
    config: LMLossConfig,
    *,
    generator: torch.Generator | None = None,
    probe: AttentionProbe | None = None,
) -> LMLosses:
    """Forward and losses of one batch, computing heads only where the loss needs them.

    Args:
        model: The language model.
        tokens: (B, S, K+1).
        mask: Bool, (B, S, K+1).
        loss_mask: Bool, (B, S, K+1): entries that are predicted.
        config: Weights and normalisation.
        generator: CPU generator that draws the part of the audio targets.
        probe: Heads whose attention is returned in ``output``.

    Returns:
        Losses; ``total`` is ``text_weight`` x text + ``audio_weight`` x audio.
    """
    fraction = config.audio_target_fraction if model.training else 1.0
    audio_targets = choose_audio_targets(loss_mask, fraction, generator)
    text_targets = loss_mask[:, 1:, -1].reshape(-1).nonzero().squeeze(1)
    output = model(tokens, mask, audio_targets=audio_targets, text_targets=text_targets, probe=probe)
    labels = tokens[:, 1:, -1].reshape(-1)[text_targets]
    text, text_accuracy = text_cross_entropy(
        output.text_logits, labels, torch.ones_like(labels), label_smoothing=config.label_smoothing
    )
    paying = loss_mask[:, 1:, :-1].reshape(-1, output.audio_labels.shape[-1])[audio_targets]
    audio, each, audio_accuracy = audio_cross_entropy(
        output.audio_logits,
        output.audio_labels,
        paying,
        config.codebook_weights,
        normalisation=config.audio_normalisation,
        label_smoothing=config.label_smoothing,
    )
    total = config.text_weight * text + config.audio_weight * audio
    return LMLosses(total, text, audio, each, text_accuracy, audio_accuracy, output)
