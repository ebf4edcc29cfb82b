"""Where in a recording somebody speaks, by the model of Silero VAD (its package carries the weights, MIT licence).

Choice: the network in 20 lines of our own over the package's safetensors file, because importing the package sets the
whole process to one thread, and because here all frames but the recurrent part are computed at once.

Shapes: ``B`` batch, ``N`` samples, ``F`` frames of 32 ms.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from torch import Tensor, nn

from uniaudio2.audio import SAMPLE_RATE, Recording
from uniaudio2.errors import UserError
from uniaudio2.tensors import load_tensors

if TYPE_CHECKING:
    State = tuple[Tensor, Tensor]

RATE = 16_000  # Hz, of the detector
FRAME = 512  # samples of one decision
CONTEXT = 64  # samples before a frame that the decision sees
GAP_S = 1.0  # pauses up to this long do not divide
KEPT_S = 1.0  # silence up to this long at either end is left alone
MARGIN_S = 0.5  # what is left of longer silence


class VoiceActivityDetector(nn.Module):
    """Probability of speech for every 32 ms; a frame knows nothing of what comes later.

    Source: Silero VAD 6 (github.com/snakers4/silero-vad), 16 kHz.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Linear(128, 1)

    @torch.inference_mode()
    def forward(self, audio: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decide for whole frames.

        Args:
            audio: (B, 64 + 512 F) at 16 kHz: the context and the frames.
            state: Of the call before, for audio that comes in pieces.

        Returns:
            Probabilities (B, F), and the state for the next call.
        """
        frames = audio.unfold(1, CONTEXT + FRAME, FRAME)  # (B, F, 576)
        batch, count = frames.shape[:2]
        x = nn.functional.pad(frames.reshape(batch * count, 1, -1), (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(x).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        x, after = self.lstm(x.reshape(batch, count, -1), state)
        return self.final_conv(x.relu()).sigmoid()[..., 0], after


@cache
def load_detector() -> VoiceActivityDetector:
    """The detector with its weights, on the CPU.

    Raises:
        UserError: If the package ``silero-vad`` is missing.
    """
    found = importlib.util.find_spec("silero_vad")  # finds it without importing it
    if found is None or not found.submodule_search_locations:
        raise UserError("voice activity needs the package silero-vad: pip install silero-vad")
    tensors = load_tensors(Path(found.submodule_search_locations[0]) / "data" / "silero_vad_16k.safetensors")
    names = {f"lstm_cell.{part}": f"lstm.{part}_l0" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    state = {names.get(name, name): tensor for name, tensor in tensors.items()}
    state["final_conv.weight"] = state["final_conv.weight"][..., 0]
    detector = VoiceActivityDetector()
    detector.load_state_dict(state)
    return detector.eval()


def speech_probabilities(blocks: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """Probability of speech for every 32 ms of audio that comes block by block, in constant memory.

    Args:
        blocks: Consecutive blocks (1, n) at 24 kHz.

    Yields:
        Arrays (F,); joined they cover the audio, its last frame filled up with silence.
    """
    detector, resampler = load_detector(), soxr.ResampleStream(SAMPLE_RATE, RATE, 1, dtype="float32")
    waiting, state = np.zeros(CONTEXT, np.float32), None
    for block in itertools.chain(blocks, [None]):
        samples = np.zeros(0, np.float32) if block is None else block[0].numpy()
        waiting = np.concatenate([waiting, resampler.resample_chunk(samples, last=block is None)])
        if block is None:
            waiting = np.pad(waiting, (0, -(len(waiting) - CONTEXT) % FRAME))
        count = (len(waiting) - CONTEXT) // FRAME
        if count:
            probabilities, state = detector(torch.from_numpy(waiting[: CONTEXT + count * FRAME])[None], state)
            waiting = waiting[count * FRAME :]
            yield probabilities[0].numpy()


@dataclass(frozen=True)
class Speech:
    """A stretch in which somebody speaks, and what of the recording around it is worked on; samples at 24 kHz."""

    start: int  # of the speech
    end: int
    first: int  # of the stretch with its margins
    last: int  # one past it


def find_speech(recording: Recording, threshold: float) -> list[Speech]:
    """Where somebody speaks in a recording, in order.

    Pauses up to a second do not divide, and silence up to a second stays at either end: trimming is for what would
    mislead a recogniser, long silence or noise before the first word.

    Args:
        recording: Any length; read once, in constant memory.
        threshold: Least probability of speech of a 32 ms frame.
    """
    finder = SpeechFinder(threshold)
    for probabilities in speech_probabilities(recording.blocks()):
        finder.push(probabilities)
    return [finder.speech(number, recording.num_samples) for number in range(len(finder.spans))]


class SpeechFinder:
    """Finds where somebody speaks while the audio comes; see `find_speech`.

    Args:
        threshold: Least probability of speech of a 32 ms frame.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self.heard = 0  # samples that are decided on
        self.spans: list[list[int]] = []  # first sample of each stretch of speech, and one past it; the last may grow

    def push(self, probabilities: np.ndarray) -> None:
        """Take the probabilities (F,) of the next frames."""
        step = FRAME * SAMPLE_RATE // RATE
        for index in np.flatnonzero(probabilities >= self._threshold).tolist():
            start = self.heard + index * step
            if self.spans and not self._divides(start):
                self.spans[-1][1] = start + step
            else:
                self.spans.append([start, start + step])
        self.heard += len(probabilities) * step

    def _divides(self, at: int) -> bool:
        """Whether nobody has spoken for long, at a sample."""
        return at - self.spans[-1][1] > GAP_S * SAMPLE_RATE

    def is_closed(self, number: int) -> bool:
        """Whether a stretch cannot grow any more."""
        return number + 1 < len(self.spans) or self._divides(self.heard)

    def speech(self, number: int, num_samples: int | None) -> Speech:
        """A stretch as it is now, in a recording of that length; None: the audio goes on."""
        (start, end), margin, kept = self.spans[number], round(MARGIN_S * SAMPLE_RATE), round(KEPT_S * SAMPLE_RATE)
        first, last = 0 if start <= kept else start - margin, end + margin
        if num_samples is not None:
            end = min(end, num_samples)
            last = num_samples if num_samples - end <= kept else end + margin
        return Speech(start, end, first, last)


def speech_share(audio: Tensor, threshold: float = 0.5) -> float:
    """Share of the 32 ms frames of a waveform (1, N) at 24 kHz in which somebody speaks."""
    return float(np.mean(np.concatenate(list(speech_probabilities([audio]))) >= threshold))


def pauses(audio: Tensor, threshold: float, least_s: float, speech_s: float) -> list[int]:
    """Middles of the pauses inside of a waveform, in samples.

    Args:
        audio: (1, N) at 24 kHz.
        threshold: Least probability of speech of a 32 ms frame.
        least_s: Shortest pause.
        speech_s: A pause counts only with so much speech since the one before, and behind it.
    """
    step = FRAME * SAMPLE_RATE // RATE
    spoken = np.flatnonzero(np.concatenate(list(speech_probabilities([audio]))) >= threshold)
    found: list[int] = []
    begun = 0  # frames of speech up to the pause before
    for index in np.flatnonzero(np.diff(spoken) * step > least_s * SAMPLE_RATE + step).tolist():
        if min(index + 1 - begun, len(spoken) - index - 1) * step >= speech_s * SAMPLE_RATE:
            found.append((int(spoken[index]) + 1 + int(spoken[index + 1])) * step // 2)
            begun = index + 1
    return found


def cut(blocks: Iterable[Tensor], stretches: Iterable[Speech]) -> Iterator[tuple[Speech, Iterator[Tensor]]]:
    """The audio of stretches that follow one another, in constant memory.

    Args:
        blocks: Consecutive blocks (1, n) of a recording.
        stretches: In order, without overlap.

    Yields:
        Each stretch and its consecutive blocks, to be used up before the next one is asked for.
    """
    source, waiting, at = iter(blocks), torch.zeros(1, 0, dtype=torch.float32, device="cpu"), 0

    def take(first: int, last: int) -> Iterator[Tensor]:
        """The samples from ``first`` up to ``last``."""
        nonlocal waiting, at
        while at < last:
            if not waiting.shape[1]:
                following = next(source, None)
                if following is None:
                    return
                waiting = following
            passed, until = max(0, first - at), min(waiting.shape[1], last - at)
            if passed < until:
                yield waiting[:, passed:until]
            at, waiting = at + until, waiting[:, until:]

    for stretch in stretches:
        yield stretch, take(stretch.first, stretch.last)
