"""How well a language model hears a text in speech: the judge of spoken attempts, in use and in post-training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from uniaudio2.codes import AudioCodes
from uniaudio2.lm import AudioLM
from uniaudio2.lm.loss import text_nats
from uniaudio2.sequence import SequenceBuilder

LENGTH_WEIGHT = 2.0
"""Nats a token for a length that is off by a factor of e; chosen on training sentences. The length is a judge that
shares none of the recogniser's errors: words that were left out or drawn out show in it."""


def heard_nats(
    lm: AudioLM, builder: SequenceBuilder, clips: Sequence[AudioCodes], words: str, language: str | None
) -> list[Tensor]:
    """How surprised the model is to be told what is said in each clip.

    Choice: the log-likelihood of the text, which tells more than the errors of a transcript. The clips should be codes
    of waveforms, not codes that the model made itself: those it hears too well.

    Args:
        lm: The language model.
        builder: Its sequences.
        clips: Codes of one clip each.
        words: What is said in all of them, in the form that the model learned.
        language: ``en``, ``zh``, ``yue`` or None.

    Returns:
        Of every clip the nats of each text token, (J,) on the model's device, the special ones around it included;
        made in inference mode.
    """
    task = "yue_asr" if language == "yue" else "asr"
    values = [{"audio": codes.to("cpu"), "transcription": words} for codes in clips]
    examples = [builder.example(task, each, language=language) for each in values]
    batch = builder.collate(examples).to(lm.device)
    return text_nats(lm, batch.tokens, batch.mask, batch.loss_mask)


def length_cost(samples: int, usual: float) -> float:
    """What a length of so many samples costs, in nats a token, where ``usual`` many are right."""
    return LENGTH_WEIGHT * abs(math.log(max(samples, 1) / usual))
