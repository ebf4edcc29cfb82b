"""From audio that is still coming to text: pieces as soon as they are finished, and guesses at the one being spoken.

Pieces are cut by the same code as those of `transcribe`, so that in the end the text is the same. Source of the
guesses: two successive hearings that agree (LocalAgreement-2; Liu, Spanakis and Niehues 2020, Macháček et al. 2023).

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uniaudio2.api.core import Core
from uniaudio2.api.listen import Chunk, Listening, chunks_of, hear, joined, segment
from uniaudio2.api.request import GREEDY, Sampling
from uniaudio2.api.results import LiveResult, Segment, join_texts
from uniaudio2.audio import SAMPLE_RATE, AudioError, PauseCutter
from uniaudio2.voice_activity import KEPT_S, MARGIN_S, Speech, SpeechFinder, speech_probabilities

LEAST_S = 0.4  # of a piece that is heard before it is finished


@dataclass(frozen=True)
class Arrived:
    """What there is after some more audio has come."""

    finished: list[Chunk]
    present: Tensor  # (1, n) the piece that is being spoken, as far as it has come
    heard: int  # samples that have come


def listen(
    core: Core, blocks: Iterable[Tensor], how: Listening, sampling: Sampling, every_s: float | None
) -> Iterator[LiveResult]:
    """What is said in blocks (1, n) that are still coming; see `UniAudio2.listen`."""
    pieces: list[Segment] = []
    guesses, heard = Guesses(core, how, every_s), 0
    for arrived in divide(core, blocks, how, core.facts.generation.voice_threshold):
        heard = arrived.heard
        found = hear(core, [chunk.audio for chunk in arrived.finished], how, sampling)
        fresh = [segment(chunk, one, how) for chunk, one in zip(arrived.finished, found, strict=True)]
        if fresh:
            pieces += fresh
            guesses.forget()
        if guesses.renew(arrived.present) or fresh:
            text = join_texts([piece.text for piece in pieces if piece.text])
            said = tuple(piece for piece in fresh if piece.text)
            yield LiveResult(text, heard / SAMPLE_RATE, guesses.agreed, guesses.guess, said)
    if not heard:
        raise AudioError("no audio came: there is nothing to transcribe")
    result = joined(heard / SAMPLE_RATE, pieces, how)
    yield LiveResult(result.text, heard / SAMPLE_RATE, result=result)


def divide(core: Core, blocks: Iterable[Tensor], how: Listening, threshold: float | None) -> Iterator[Arrived]:
    """The pieces of `transcribe` as they come; without a threshold all of the audio is worked on."""
    if threshold is None:
        cutter = PauseCutter(how.max_chunk_s)
        for block in blocks:
            yield Arrived(_chunks(cutter.push(block)), cutter.waiting, cutter.start + cutter.waiting.shape[1])
        last = _chunks(cutter.finish())
        if last:
            yield Arrived(last, cutter.waiting[:, :0], last[-1].end)
        return
    tape, finder, cutters = _Tape(), SpeechFinder(threshold), [PauseCutter(how.max_chunk_s)]

    def finish(num_samples: int | None) -> list[Chunk]:
        """Pieces that are finished now."""
        return [
            chunk
            for speech, offset, audio in _finished_parts(tape, finder, cutters, how.max_chunk_s, num_samples)
            for chunk in chunks_of(core, how, threshold, speech, offset, audio)
        ]

    for probabilities in speech_probabilities(tape.record(blocks)):
        finder.push(probabilities)
        yield Arrived(finish(None), cutters[-1].waiting, tape.end)
    last = finish(tape.end)
    if last:
        yield Arrived(last, cutters[-1].waiting, tape.end)


def _chunks(cut: Iterator[tuple[int, Tensor]]) -> list[Chunk]:
    return [Chunk(start, start + audio.shape[-1], audio) for start, audio in cut]


def _finished_parts(
    tape: _Tape, finder: SpeechFinder, cutters: list[PauseCutter], max_s: float, num_samples: int | None
) -> Iterator[tuple[Speech, int, Tensor]]:
    """Parts (1, n) of stretches of speech that are finished now, and where in them; the last cutter is of the present.

    An open stretch is cut only as far as somebody has spoken: what follows may turn out not to belong to it.
    """
    while len(cutters) <= len(finder.spans):
        number = len(cutters) - 1
        speech, cutter = finder.speech(number, num_samples), cutters[-1]
        closed = num_samples is not None or finder.is_closed(number)
        fed = speech.first + cutter.start + cutter.waiting.shape[1]
        for offset, audio in cutter.push(tape.read(fed, speech.last if closed else min(speech.end, tape.end))):
            yield speech, offset, audio
        if not closed:
            break
        for offset, audio in cutter.finish():
            yield speech, offset, audio
        cutters.append(PauseCutter(max_s))
    if len(cutters) > len(finder.spans) and finder.heard > KEPT_S * SAMPLE_RATE:
        tape.forget(finder.heard - round(MARGIN_S * SAMPLE_RATE))


class _Tape:
    """Samples that have come and may be needed yet."""

    def __init__(self) -> None:
        self._audio = torch.zeros(1, 0, dtype=torch.float32, device="cpu")
        self._first = 0

    @property
    def end(self) -> int:
        """Samples that have come."""
        return self._first + self._audio.shape[1]

    def record(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Keep blocks (1, n) while they pass."""
        for block in blocks:
            self._audio = torch.cat([self._audio, block], dim=1)
            yield block

    def read(self, first: int, last: int) -> Tensor:
        """The samples from ``first`` up to ``last``, (1, n); those before are forgotten."""
        self.forget(first)
        return self._audio[:, : max(0, last - first)]

    def forget(self, first: int) -> None:
        """Drop what came before a sample."""
        self._audio = self._audio[:, max(0, first - self._first) :]
        self._first = max(first, self._first)


class Guesses:
    """What the piece that is being spoken may say: it is heard again and again.

    Choice: quickly, without search; the finished piece is heard as `transcribe` does.

    Args:
        core: The model.
        how: How pieces are heard.
        every_s: Seconds of new audio after which it is heard again; None: not at all. On a machine that is too slow
            for that it is longer, so that hearing takes at most half of the time.
    """

    def __init__(self, core: Core, how: Listening, every_s: float | None) -> None:
        self._core, self._how, self._every_s = core, replace(how, effort=GREEDY), every_s
        self.forget()

    def forget(self) -> None:
        """The next piece begins."""
        self.agreed = self.guess = ""
        self._words: list[str] = []  # of the last hearing
        self._settled: list[str] = []  # that are agreed on
        self._due_s = LEAST_S

    def renew(self, present: Tensor) -> bool:
        """Hear the piece (1, n) as far as it has come, if it is time to; whether that changed anything."""
        length_s = present.shape[1] / SAMPLE_RATE
        if self._every_s is None or length_s < self._due_s:
            return False
        began = time.perf_counter()
        words = split_words(hear(self._core, [present], self._how, {})[0].text)
        self._due_s = length_s + max(self._every_s, 2 * (time.perf_counter() - began))
        before = self.agreed, self.guess
        common = 0
        while common < min(len(words), len(self._words)) and words[common] == self._words[common]:
            common += 1
        count = len(self._settled)
        if common > count and words[:count] == self._settled:
            self._settled, self.agreed = words[:common], join_texts(words[:common])
        self._words, self.guess = words, join_texts(words[len(self._settled) :])
        return (self.agreed, self.guess) != before


def split_words(text: str) -> list[str]:
    """Words of a text, and Chinese characters one by one; joined by `join_texts` they are the text."""
    return re.findall(r"[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff]+", text)
