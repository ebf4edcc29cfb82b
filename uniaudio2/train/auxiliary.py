"""What makes a small language model attend: heads that say phones, an attention prior, and blanked history.

A model with a pretrained backbone needs none of this; one that starts from nothing on a laptop learns to babble first
and to listen or to follow a text much later. The heads teach in training and are not part of the exported model.

Shapes: B batch, S positions, D width, K codebooks, n stretches.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.data.collate import LMBatch
from uniaudio2.text import edit_distance
from uniaudio2.vocabulary import AudioVocabulary

PHONE_IDS = 257
"""Outputs of the phone heads: the blank, which comes first, and room for the phones of all languages."""
FRAMES_AHEAD = 2
"""How many reasoning frames ahead a position foretells. Choice: two, because a CTC head may say a phone one frame after
it sounds, and what has already sounded is no evidence of having read the text."""


class PhoneHead(nn.Module):
    """Phones by CTC, several CTC frames per position.

    Choice: phones rather than letters, because the codes say them almost directly; spelling is the backbone's work.

    Args:
        width: D.
        subframes: CTC frames per position.
    """

    def __init__(self, width: int, subframes: int) -> None:
        super().__init__()
        self.subframes = subframes
        self.linear = nn.Linear(width, subframes * PHONE_IDS)

    def log_probs(self, states: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities over chosen stretches.

        Args:
            states: (B, S, D).
            spans: (n, 3): row, first position, one behind the last.

        Returns:
            (n, longest · subframes, PHONE_IDS) float32 and CTC frames of each stretch (n,).
        """
        lengths = spans[:, 2] - spans[:, 1]
        frames = _gather(states, spans, int(lengths.max()))
        logits = self.linear(frames).view(len(spans), -1, PHONE_IDS)
        return logits.float().log_softmax(-1), lengths * self.subframes

    def loss(self, states: Tensor, spans: Tensor, phones: Tensor, counts: Tensor) -> Tensor:
        """Mean CTC loss per phone; what does not fit its stretch counts nothing.

        Args:
            states: (B, S, D).
            spans: (n, 3).
            phones: The phones of all stretches one after the other.
            counts: Phones of each stretch, (n,).
        """
        log_probs, lengths = self.log_probs(states, spans)
        losses = F.ctc_loss(log_probs.transpose(0, 1), phones, lengths, counts, reduction="none", zero_infinity=True)
        return losses.sum() / counts.sum().clamp(min=1)

    def error_rate(self, states: Tensor, spans: Tensor, phones: Tensor, counts: Tensor) -> float:
        """Edit distance of the greedy reading to what was said, per phone; arguments as for ``loss``."""
        log_probs, lengths = self.log_probs(states, spans)
        best = log_probs.argmax(-1).cpu().numpy()
        wanted = np.split(phones.cpu().numpy(), np.cumsum(counts.cpu().numpy())[:-1])
        errors = 0
        for row, length, target in zip(best, lengths.tolist(), wanted, strict=True):
            path = row[:length]
            kept = path[np.append(True, path[1:] != path[:-1])]
            errors += edit_distance(target.tolist(), kept[kept > 0].tolist())
        return errors / max(1, int(counts.sum()))


class PhoneHeads(nn.Module):
    """The three heads of a stage.

    Args:
        width: D.
        subframes: CTC frames per position.
    """

    def __init__(self, width: int, subframes: int) -> None:
        super().__init__()
        self.hearing = PhoneHead(width, subframes)  # on the understanding expert's reasoning frames
        self.reading = PhoneHead(width, subframes)  # on the text that is to be spoken, inside of the backbone
        self.foretelling = nn.Linear(width, FRAMES_AHEAD * subframes * PHONE_IDS)  # where frames are predicted

    def foresight_loss(self, hidden: Tensor, heard: Tensor, spans: Tensor, blanked: Tensor) -> Tensor:
        """How badly the positions before a frame know the phones that it will say, in nats per CTC frame.

        The teacher is the hearing head on the frame itself. Choice: codes are mostly noise to a small model, phones
        are what the text decides; a position that can name the next ones has found its place in the text.

        Args:
            hidden: (B, S, D), position p predicts row p + 1.
            heard: Output of the understanding expert, (B, S, D).
            spans: Reasoning frames that are predicted, (n, 3).
            blanked: (B, S) rows that were not shown, on which the teacher is deaf.
        """
        with torch.no_grad():
            log_probs, lengths = self.hearing.log_probs(heard, spans)
            said = log_probs.exp().view(len(spans), -1, self.hearing.subframes, PHONE_IDS)
        count = said.shape[1]
        frame = torch.arange(count, device=hidden.device)
        seen = (frame < (lengths // self.hearing.subframes)[:, None]) & ~_gather(blanked, spans, count)
        states = _gather(hidden, spans - torch.tensor((0, 1, 0), device=spans.device), count)
        guesses = self.foretelling(states).float().view(len(spans), count, FRAMES_AHEAD, -1, PHONE_IDS).log_softmax(-1)
        losses: list[Tensor] = []
        for ahead in range(FRAMES_AHEAD):
            guess, target = guesses[:, : count - ahead, ahead], said[:, ahead:]
            losses.append(-(target * guess).sum(-1).mean(-1)[seen[:, ahead:]])
        every = torch.cat(losses)
        return every.sum() / max(1, every.numel())


def spoken_texts(batch: LMBatch) -> tuple[Tensor, Tensor]:
    """Where texts stand whose speech is predicted.

    Returns:
        Spans of the texts (n, 3), and the number of the stretch in ``batch.heard`` that says each (n,).
    """
    frames = batch.aligned[batch.aligned[:, 5] == 0]
    same = (frames[:, None, :3] == batch.heard[None]).all(-1)
    found, said_by = same.nonzero(as_tuple=True)
    return frames[found][:, [0, 3, 4]], said_by


def phones_of(batch: LMBatch, stretches: Tensor) -> tuple[Tensor, Tensor]:
    """Phones of some stretches of ``batch.heard`` one after the other, and how many each has."""
    parts = torch.split(batch.heard_phones, batch.heard_lengths.tolist())
    chosen = [parts[i] for i in stretches.tolist()]
    return torch.cat([batch.heard_phones[:0], *chosen]), batch.heard_lengths[stretches]


def attention_prior_loss(attention: Tensor, aligned: Tensor, attended: Tensor, width: float) -> Tensor:
    """How little attention lies where it should: near the diagonal, or anywhere in a condition.

    For a predicted position at share t of its stretch, attention on the condition at share n earns
    exp(-(n - t)² / 2 width²); the loss is 1 minus the mean earning, in [0, 1]. Choice: attention outside of the
    condition earns nothing, so the heads must look at it at all, which small models do not learn by themselves.
    Source: guided attention (arXiv:1710.08969), there as a penalty.

    Args:
        attention: (B, heads, S, S), position p predicts row p + 1.
        aligned: (m, 6): row, first and end row of the predicted stretch, first and end position of the condition, head.
        attended: (k, 6): the same where the whole condition earns 1.
        width: Deviation of the diagonal as a share of the length.
    """
    earned: list[Tensor] = []
    for places, deviation in ((aligned, width), (attended, torch.inf)):
        for row, first, last, low, high, head in places.tolist():
            target = (torch.arange(last - first, device=attention.device) + 0.5) / (last - first)
            source = (torch.arange(high - low, device=attention.device) + 0.5) / (high - low)
            prior = torch.exp(-((source[None] - target[:, None]) ** 2) / (2 * deviation**2))
            part = attention[row, min(head, attention.shape[1] - 1), first - 1 : last - 1, low:high]
            earned.append((part * prior).sum(-1))
    return 1.0 - torch.cat(earned).mean()


def blank_history(batch: LMBatch, audio: AudioVocabulary, share: float) -> tuple[Tensor, Tensor]:
    """Hide part of the audio that was predicted so far, so that what comes next must be read from the condition.

    Every sequence draws a rate for the frames of each stream: with probability
    ``share`` uniform in [0, 1], else 0. Blanked frames show the pad id. Draws from torch's default CPU generator.

    Source: Choice; the same medicine as dropping decoder inputs of autoregressive synthesisers.

    Returns:
        What the model is shown (B, S, K+1), and which rows are blanked (B, S).
    """
    tokens, targets = batch.tokens, batch.loss_mask[..., 0]
    shifted = [audio.stream(stream.name) for stream in audio.streams]
    kinds = [(audio.is_code(stream.name, tokens[..., 0]), shift + stream.pad) for stream, shift in shifted]
    shown, blanked = tokens.clone(), torch.zeros_like(targets)
    for is_kind, pad in kinds:
        rates = torch.rand(len(tokens), 1) * (torch.rand(len(tokens), 1) < share)
        chosen = (torch.rand(targets.shape) < rates).to(tokens.device) & is_kind & targets
        shown[..., :-1] = torch.where(chosen[..., None], pad, shown[..., :-1])
        blanked |= chosen
    return shown, blanked


def _gather(values: Tensor, spans: Tensor, count: int) -> Tensor:
    """``count`` positions of every span (n, 3) from its first on, clamped to the end: (n, count, ...)."""
    offsets = torch.arange(count, device=values.device)
    return values[spans[:, :1], (spans[:, 1:2] + offsets).clamp(max=values.shape[1] - 1)]
