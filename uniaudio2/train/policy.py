"""Learning from answers that a rule rewards (GRPO): rewards, advantages and the loss. Knows no model and no data.

Source: arXiv:2402.03300; the UniAudio 2.0 paper aligns its reasoning branch so, after supervised training. Choice: one
step for every draw of answers, so that nothing has to be clipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uniaudio2.tasks import Score
from uniaudio2.text import edit_distance


def reward(score: Score, right: Sequence[str], found: str) -> float:
    """How good an answer is, 0 to 1.

    Choice: a whole answer counts in full only when it is equal, and a fifth of its words otherwise, so that there is
    something to climb; transcripts and captions by the share of words (in Chinese of characters) that are right,
    a caption by the phrasing that it is nearest to.
    """
    shares = [_share_right(_units(one), _units(found)) for one in right]
    best = max(shares)
    return best if score != "exact" or best == 1.0 else 0.2 * best


def _units(text: str) -> list[str]:
    words = text.lower().split()
    return words if len(words) > 1 or text.isascii() else list(text)


def _share_right(right: list[str], found: list[str]) -> float:
    return 1.0 - min(1.0, edit_distance(right, found) / max(1, len(right)))


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (questions, answers) less the mean of their question's, over its deviation; 0 where all are alike."""
    spread = rewards.std(dim=1, keepdim=True, correction=0)
    return torch.where(spread > 1e-6, (rewards - rewards.mean(dim=1, keepdim=True)) / spread.clamp(min=1e-6), 0.0)


def grpo_loss(now: Tensor, start: Tensor, targets: Tensor, advantage: Tensor, kl: float) -> tuple[Tensor, Tensor]:
    """GRPO's loss for answers that the present weights drew.

    Args:
        now: Log-probabilities of the ids by the model that learns, (n, …).
        start: The same by the model it began as.
        targets: Which are answers, bool, in the same shape.
        advantage: Of each answer, or of each of its ids, in a shape that fits, such as (n, 1) or (n, S, 1).
        kl: Weight of the KL term.

    Returns:
        The loss and the KL divergence in nats an id; both are means over all ids of all answers.
    """
    apart = start - now
    divergence = apart.exp() - apart - 1  # of the drawn ids: never negative, right on average
    gain = (now - now.detach()).exp() * advantage
    count = targets.sum().clamp(min=1)
    distance = (divergence * targets).sum() / count
    return -(gain * targets).sum() / count + kl * distance, distance.detach()
