"""Speech that a model made, rewarded token by token of its text: a model listens, and says how clear it finds each.

Choice: the judge is the model that post-training began with, frozen, so that the two cannot agree on a language of
their own. It hears the decoded waveform (see `uniaudio2.hearing`). Credit is local: all answers to a text have its
tokens, so every token of an answer is compared with that token of the others, and what it gains or loses goes to the
frames about there. A sentence is spoken in order and at an even pace, nearly.

Shapes: n answers, J text tokens, S rows of a sequence, F rows of a stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.codec.contract import Codec
from uniaudio2.codes import AudioCodes
from uniaudio2.hearing import LENGTH_WEIGHT, heard_nats
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import SequenceBuilder, TokenSequence

MOST_NATS = 6.0
"""A token that is not heard at all counts no more than this."""
CREDIT_WIDTH = 0.1
"""Deviation of the places of a token in its sentence, as a share of the length."""


@dataclass(frozen=True)
class Listener:
    """Who judges what is said.

    Attributes:
        codec: Makes codes audible, and encodes what is heard.
        lm: The judge, frozen.
        builder: Its sequences.
        steps: Of the flow decoder.
    """

    codec: Codec
    lm: AudioLM
    builder: SequenceBuilder
    steps: int = 2

    @torch.no_grad()
    def rewards(
        self, answers: Sequence[AudioCodes], words: str, language: str | None, length_s: float, seed: int
    ) -> Tensor:
        """How well each token of a text is heard in each answer.

        Args:
            answers: Codes, one clip each.
            words: The text.
            language: Of the text.
            length_s: How long it should take.
            seed: Of the decoder's noise.

        Returns:
            (n, J): minus the nats of a token, and minus the cost of a wrong length; 0 is best.
        """
        noise = torch.Generator().manual_seed(seed)
        waves = [
            torch.cat(list(self.codec.decode_stream(codes, steps=self.steps, generator=noise)), dim=-1)[0]
            for codes in answers
        ]
        heard = heard_nats(self.lm, self.builder, self.codec.encode_clips(waves), words, language)
        nats = torch.stack([one.float().cpu() for one in heard]).clamp(max=MOST_NATS)
        seconds = [max(wave.shape[-1], 1) / self.codec.sample_rate for wave in waves]
        off = torch.tensor([abs(math.log(found / length_s)) for found in seconds])
        return -nats - LENGTH_WEIGHT * off[:, None]


def local_advantages(rewards: Tensor, sequences: Sequence[TokenSequence], length: int) -> Tensor:
    """What every row of every answer to one text gains.

    Args:
        rewards: (n, J), see `Listener.rewards`.
        sequences: The answers, n.
        length: S of the batch.

    Returns:
        (n, S - 1): of the row behind each; 0 outside of what was made. Their mean is about 0, their deviation 1.
    """
    better = rewards - rewards.mean(0)
    found = torch.zeros(len(sequences), length - 1, dtype=torch.float32, device="cpu")
    made = torch.zeros_like(found, dtype=torch.bool)
    tokens = torch.linspace(0, 1, rewards.shape[1])
    for answer, sequence in enumerate(sequences):
        for span in (span for span in sequence.spans if span.target):
            rows = torch.linspace(0, 1, span.stop - span.start)
            near = (-0.5 * ((rows[:, None] - tokens) / CREDIT_WIDTH) ** 2).softmax(-1)  # (F, J)
            places = slice(max(span.start - 1, 0), span.stop - 1)
            found[answer, places] = (near @ better[answer])[-(places.stop - places.start) :]
            made[answer, places] = True
    spread = found[made].std(correction=0)
    return found / spread if spread > 1e-6 else torch.zeros_like(found)
