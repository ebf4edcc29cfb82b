"""Speech that a model made, rewarded token by token of its text: a model listens, and says how clear it finds each.

Choice: the judge is the model that post-training began with, frozen, so that the two cannot agree on a language of
their own. It hears the decoded waveform (see `uniaudio2.hearing`). Credit is local: all answers to a text have its
tokens, so every token of an answer is compared with that token of the others, and what it gains or loses goes to the
frames about there. A sentence is spoken in order and at an even pace, nearly.

Shapes: n answers, J text tokens without the special ones, S rows of a sequence, F rows of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.codec.contract import Codec
from uniaudio2.codes import AudioCodes
from uniaudio2.hearing import heard_nats, length_cost
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import SequenceBuilder, TokenSequence

MOST_NATS = 6.0
"""Choice: a token that is not heard at all costs no more than a chance of 1 in 400, so that none outweighs the rest."""
CREDIT_WIDTH = 0.1
"""Choice: deviation of the places of a token in its sentence, as a share of the length: half a second in five."""
LEAST_SPREAD = 0.2
"""Choice: answers that differ by less, in nats, pull less: what is left is noise."""


@dataclass(frozen=True)
class Listener:
    """Who judges what is said.

    Attributes:
        codec: Makes codes audible, and encodes what is heard.
        lm: The judge, frozen.
        builder: Its sequences.
    """

    codec: Codec
    lm: AudioLM
    builder: SequenceBuilder

    @torch.no_grad()
    def rewards(
        self, answers: Sequence[AudioCodes], words: str, language: str | None, length_s: float, seed: int
    ) -> Tensor:
        """How well each token of a text is heard in each answer.

        Args:
            answers: Codes, one clip each, of at least one frame.
            words: The text.
            language: Of the text.
            length_s: How long it should take.
            seed: Of the decoder's noise, the same for all.

        Returns:
            (n, J) on the CPU: minus the nats of a token, at most `MOST_NATS`, and minus the cost of a wrong length.
        """
        device = self.codec.device
        with torch.autocast(device.type, enabled=False):  # codes are to be those of use
            waves = [self.codec.decode(one, generator=torch.Generator().manual_seed(seed))[0].cpu() for one in answers]
            heard = heard_nats(self.lm, self.builder, self.codec.encode_clips(waves), words, language)
        content = len(self.builder.text_ids(words)) - 2  # without begin and end of text
        edge = (len(heard[0]) - content) // 2
        nats = torch.stack([one.float().cpu() for one in heard])[:, edge : edge + content].clamp(max=MOST_NATS)
        usual = length_s * self.codec.sample_rate
        return -nats - torch.tensor([length_cost(wave.shape[-1], usual) for wave in waves])[:, None]


def local_advantages(rewards: Tensor, sequences: Sequence[TokenSequence], length: int) -> Tensor:
    """What every row of every answer to one text gains.

    Args:
        rewards: (n, J), see `Listener.rewards`.
        sequences: The answers, n.
        length: S of the batch.

    Returns:
        (n, S - 1): entry p is the advantage of row p + 1, which position p predicts; 0 where that is no target.
    """
    better = rewards - rewards.mean(0)
    found = torch.zeros(len(sequences), length, dtype=torch.float32, device="cpu")
    drawn = torch.zeros_like(found, dtype=torch.bool)
    tokens = (torch.arange(rewards.shape[1]) + 0.5) / rewards.shape[1]
    for answer, sequence in enumerate(sequences):
        for span in (span for span in sequence.spans if span.target):
            rows = span.start + sequence.loss_mask[span.start : span.stop, 0].nonzero().squeeze(1)
            frames = (rows - span.codes.start + 0.5) / max(span.codes.stop - span.codes.start, 1)
            near = (-0.5 * ((frames[:, None] - tokens) / CREDIT_WIDTH) ** 2).softmax(-1)  # (F, J)
            found[answer, rows] = near @ better[answer]
            drawn[answer, rows] = True
    return (found / found[drawn].std(correction=0).clamp(min=LEAST_SPREAD))[:, 1:]
