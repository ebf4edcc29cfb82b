"""An independent listener: pocketsphinx chooses which of ten sentences was said.

Its English model comes with its package and has never seen anything of ours, so what it understands is intelligible.
Chance is 10 %. The distractors are real sentences with the same number of words, within one, drawn by a seed that
depends on the sentence alone: the same choice faces every system and every voice.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.errors import UserError
from uniaudio2.eval.audio_metrics import need
from uniaudio2.eval.speech_analysis import as_wave
from uniaudio2.eval.text_metrics import simple

CHOICES = 10
"""Sentences the listener chooses from."""

_RATE = 16000


class Listener:
    """Ten-way forced choice by pocketsphinx. One object may be used for any number of clips, one after another."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise need("pocketsphinx") from error
        self._decoder: Any = Decoder(samprate=_RATE, loglevel="FATAL")

    def knows(self, sentence: str) -> bool:
        """Whether every word of a sentence is in the listener's dictionary and there is a word at all."""
        words = simple(sentence).split()
        return bool(words) and all(self._decoder.lookup_word(word) is not None for word in words)

    def choose(self, audio: Tensor, sentences: Sequence[str]) -> int | None:
        """Which sentence was said.

        Args:
            audio: Waveform at 24 kHz, (1, N).
            sentences: What may have been said; every word must be known.

        Returns:
            Index of the sentence chosen; None if none fits the audio at all.

        Raises:
            ValueError: If a word is not in the dictionary or two sentences are the same.
        """
        texts = [simple(sentence) for sentence in sentences]
        if len(set(texts)) != len(texts):
            raise UserError("the sentences to choose from must differ")
        for text in texts:
            if not self.knows(text):
                raise UserError(f"a word of {text!r} is not in the listener's dictionary; leave the sentence out")
        wave = soxr.resample(as_wave(audio), SAMPLE_RATE, _RATE)
        # Choice: a peak of 0.5 for every clip, so that level does not decide; 0.2 s of near-silence at both ends.
        wave = 0.5 * wave / max(float(np.abs(wave).max(initial=0.0)), 1e-6)
        margin = 1e-4 * np.random.default_rng(0).standard_normal(_RATE // 5)
        samples = (np.concatenate([margin, wave, margin]) * 32767).clip(-32768, 32767).astype(np.int16)
        grammar = "#JSGF V1.0;\ngrammar choice;\npublic <said> = " + " | ".join(texts) + " ;\n"
        self._decoder.add_jsgf_string("choice", grammar)
        self._decoder.activate_search("choice")
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return texts.index(hypothesis.hypstr) if hypothesis is not None and hypothesis.hypstr in texts else None

    def right(self, audio: Tensor, sentence: str, pool: Sequence[str]) -> bool:
        """Whether the sentence said is picked out of ten; see `choose` and `distractors`."""
        choices = [sentence, *distractors(sentence, pool)]
        random.Random(f"order-{simple(sentence)}").shuffle(choices)
        picked = self.choose(audio, choices)
        return picked is not None and choices[picked] == sentence


@functools.lru_cache(maxsize=1)
def _by_length(pool: tuple[str, ...]) -> dict[int, list[str]]:
    """Distinct normalised sentences by number of words, sorted."""
    lengths: dict[int, list[str]] = {}
    for text in sorted({simple(sentence) for sentence in pool}):
        lengths.setdefault(len(text.split()), []).append(text)
    return lengths


def distractors(sentence: str, pool: Sequence[str], count: int = CHOICES - 1) -> list[str]:
    """Other sentences of the same number of words, within one.

    Args:
        sentence: The sentence said.
        pool: Sentences to draw from; all their words must be known to the listener. Give the same object each time.
        count: How many.

    Returns:
        Normalised sentences, the same for the same sentence and pool.

    Raises:
        ValueError: If the pool has too few.
    """
    text = simple(sentence)
    words = len(text.split())
    lengths = _by_length(tuple(pool))
    near = [other for n in (words - 1, words, words + 1) for other in lengths.get(n, []) if other != text]
    if len(near) < count:
        raise UserError(
            f"only {len(near)} other sentences of {words} words, within one, for {text!r}; {count} are needed: "
            "give a larger pool of sentences"
        )
    return random.Random(f"distractors-{text}").sample(near, count)
