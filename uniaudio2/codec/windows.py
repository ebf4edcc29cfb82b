"""The windows in which long audio is encoded and long codes are decoded.

Codes are decoded in overlapping windows; each starts from latents of the one before (in-context) and is joined to it
where the codes say, by a cross-fade over those common latents. A stream may begin with small windows, which grow, to be
heard sooner: each then sees less of what comes.

Shapes: ``B`` batch, ``N`` samples, ``T`` latent frames (25 Hz), ``T_rec`` 12.5 Hz frames, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from uniaudio2.codec.contract import check_audio, join_pieces
from uniaudio2.codec.decoder import SamplingDefaults, draw_noise
from uniaudio2.codes import LATENT_HOP, RECONSTRUCTION_HOP, SAMPLE_RATE, AudioCodes
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from uniaudio2.codec.codec import ReasoningCodec

LATENTS_PER_CODE = RECONSTRUCTION_HOP // LATENT_HOP
"""Latent frames per reconstruction frame, 2."""


@dataclass(frozen=True)
class WindowConfig:
    """How long audio is cut. The defaults are those of the published code."""

    encode_units: int = 75  # window of the encoder in units of 0.4 s; 75 = 30 s
    decode_codes: int = 250  # window of the decoder in reconstruction frames; 250 = 20 s
    overlap_codes: int = 64  # frames that consecutive decoder windows share
    context_latents: int = 32  # latents of the window before that are given to the next one; also the cross-fade

    def __post_init__(self) -> None:
        if self.encode_units < 1:
            raise UserError(f"encode_units must be at least 1, got {self.encode_units}")
        most = self.decode_codes // 2
        if not 1 <= self.overlap_codes <= most:
            raise UserError(f"overlap_codes must lie in 1..{most} (half of decode_codes), got {self.overlap_codes}")
        most = LATENTS_PER_CODE * self.overlap_codes
        if not 1 <= self.context_latents <= most:
            raise UserError(f"context_latents must lie in 1..{most} (the overlap), got {self.context_latents}")

    @property
    def hop_codes(self) -> int:
        """Reconstruction frames from one decoder window to the next."""
        return self.decode_codes - self.overlap_codes

    def decoding(self, window_codes: int | None) -> WindowConfig:
        """The same with decoder windows of another length; overlap and context shrink where they must.

        Raises:
            UserError: If the window is shorter than two frames.
        """
        if window_codes is None:
            return self
        if window_codes < 2:
            raise UserError(f"window_codes must be at least 2, got {window_codes}")
        overlap = min(self.overlap_codes, window_codes // 2)
        context = min(self.context_latents, LATENTS_PER_CODE * overlap)
        return replace(self, decode_codes=window_codes, overlap_codes=overlap, context_latents=context)


def window_starts(num_codes: int, windows: WindowConfig) -> list[int]:
    """First reconstruction frames of the decoder windows for ``num_codes`` (>= 1) frames."""
    starts = [0]
    while starts[-1] + windows.decode_codes < num_codes:
        starts.append(starts[-1] + windows.hop_codes)
    return starts


def repeat_to_windows(codes: AudioCodes, windows: WindowConfig) -> AudioCodes:
    """Repeat both streams until all windows are full, as the published code does."""
    total = window_starts(codes.reconstruction.shape[2], windows)[-1] + windows.decode_codes

    def tiled(stream: Tensor, length: int) -> Tensor:
        """As many frames of the endlessly repeated stream."""
        return stream[:, :, torch.arange(length, device=stream.device) % max(1, stream.shape[2])]

    reasoning = codes.reasoning
    if reasoning.shape[2]:
        reasoning = tiled(reasoning, -(-total * 2 // 5))
    length = codes.covered_samples if codes.num_samples is None else codes.num_samples
    return AudioCodes(reasoning, tiled(codes.reconstruction, total), length)


def audio_windows(chunks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    """Consecutive windows of ``length`` samples from pieces of any length; the last one may be shorter.

    Raises:
        UserError: If a piece cannot be encoded, see `check_audio`.
    """
    waiting: list[Tensor] = []
    available = 0
    for chunk in chunks:
        check_audio(chunk, SAMPLE_RATE)
        waiting.append(chunk)
        available += chunk.shape[2]
        if available < length:
            continue
        joined = waiting[0] if len(waiting) == 1 else torch.cat(waiting, dim=2)
        whole = available // length * length
        yield from joined[:, :, :whole].split(length, dim=2)
        waiting, available = [joined[:, :, whole:]], available - whole
    if available:
        yield torch.cat(waiting, dim=2)


class WindowedSession:
    """Decodes codes of the ReasoningCodec as they come: a window is decoded as soon as its frames are there.

    Args:
        codec: Decodes one window.
        windows: Where windows lie.
        sampling: How latents are drawn.
        generator: Of the initial noise; one, one per clip, or None for the global one. A frame's noise is the same
            whatever the windows are.
        noise: Initial noise of every window instead of drawing it.
        first_codes: Frames of the first window; each further one is twice as long, up to those of ``windows``. None:
            all are as long as those.

    Raises:
        UserError: If the first window is shorter than two frames.
    """

    def __init__(
        self,
        codec: ReasoningCodec,
        windows: WindowConfig,
        sampling: SamplingDefaults,
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        noise: Sequence[Tensor] | None = None,
        first_codes: int | None = None,
    ) -> None:
        if first_codes is not None and first_codes < 2:
            raise UserError(f"first_codes must be at least 2, got {first_codes}")
        self._codec, self._windows, self._sampling = codec, windows, sampling
        self._generator, self._given_noise = generator, noise
        self._window = windows.decoding(first_codes and min(first_codes, windows.decode_codes))  # the next one
        self._start = 0  # its first frame
        self._noise: Tensor | None = None  # of frames from there on, as far as it is drawn, (B, n, C)
        self._parts: list[AudioCodes] = []
        self._frames = 0  # reconstruction frames that are there
        self._decoded = 0  # of which are decoded
        self._number = 0  # of the next window
        self._context: Tensor | None = None  # latents that the next window begins with, (B, context, C)
        self._rest: Tensor | None = None  # audio (B, 1, n) behind the last join, which the next window replaces
        self._given = 0  # samples that are out
        self._length: int | None = None  # samples of the clip, where its codes tell it

    def push(self, codes: AudioCodes) -> Tensor:
        """See `DecoderSession.push`.

        Raises:
            UserError: If codes are out of range, or come behind the end of the clip.
        """
        pieces = list(self._take(codes))
        return torch.cat(pieces, dim=2) if pieces else self._nothing()

    def finish(self) -> Tensor:
        """See `DecoderSession.finish`."""
        if self._decoded < self._frames and not self._full:
            self._rest = self._decode(last=True)
        audio = self._nothing() if self._rest is None else self._cut(self._rest)
        self._rest = None
        return audio

    def stream(self, codes: AudioCodes) -> Iterator[Tensor]:
        """All of a clip, window by window."""
        yield from self._take(codes)
        if self._full:
            return
        audio = self.finish()
        if audio.shape[2]:
            yield audio

    @property
    def _full(self) -> bool:
        """Whether the clip is out already, because it is shorter than its frames."""
        return self._length is not None and self._given >= self._length

    def _take(self, codes: AudioCodes) -> Iterator[Tensor]:
        """Note further codes and decode the windows that are whole."""
        if self._length is not None and "reconstruction" in codes.streams and codes.reconstruction.shape[2]:
            raise UserError("the clip has ended: codes that tell its number of samples come last")
        self._codec.check_streams(codes, self._sampling.with_reasoning)
        self._parts.append(codes)
        if "reconstruction" in codes.streams:
            covered = codes.reconstruction.shape[2] * RECONSTRUCTION_HOP
            if codes.num_samples is not None and codes.num_samples < covered:
                self._length = self._frames * RECONSTRUCTION_HOP + codes.num_samples
            self._frames += codes.reconstruction.shape[2]
        while self._start + self._window.decode_codes <= self._frames and not self._full:
            join = self._window.hop_codes * RECONSTRUCTION_HOP
            audio = self._decode(last=False)
            self._rest = audio[:, :, join:]
            yield self._cut(audio[:, :, :join])

    @torch.no_grad()
    def _decode(self, *, last: bool) -> Tensor:
        """Audio (B, 1, n) of the next window, whose beginning is joined to what was there."""
        if len(self._parts) > 1:
            self._parts = [join_pieces(self._parts)]
        window, sampling = self._window, self._sampling
        condition = self._codec.condition(
            self._parts[0], self._start, window.decode_codes, with_reasoning=sampling.with_reasoning
        )
        latents = self._codec.decoder.sample(
            condition,
            context=self._context,
            steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            solver=sampling.solver,
            noise=self._noise_for(condition),
        )
        audio = self._codec.autoencoder.decode(latents)
        if self._rest is not None and self._context is not None:
            fade = self._context.shape[1] * LATENT_HOP
            ramp = (torch.arange(fade, device=audio.device, dtype=torch.float32) + 0.5) / fade
            audio[:, :, :fade] = self._rest[:, :, :fade] * (1 - ramp) + audio[:, :, :fade] * ramp
        self._decoded = min(self._frames, self._start + window.decode_codes)
        self._number += 1
        if not last:
            join = window.hop_codes * LATENTS_PER_CODE
            self._context = latents[:, join : join + window.context_latents]
            self._noise = None if self._noise is None else self._noise[:, join:]
            self._start += window.hop_codes
            self._window = self._windows.decoding(min(2 * window.decode_codes, self._windows.decode_codes))
        return audio

    def _noise_for(self, condition: Tensor) -> Tensor:
        """Initial noise (B, T, C) of the next window, whose condition is (B, T, D).

        Choice: drawn frame by frame, so that it does not depend on where windows lie.
        """
        if self._given_noise is not None:
            return self._given_noise[self._number]
        batch, frames = condition.shape[:2]
        drawn = [] if self._noise is None else [self._noise]
        there = 0 if self._noise is None else self._noise.shape[1]
        shape = (batch, LATENTS_PER_CODE, self._codec.decoder.latent_dim)
        for _ in range((frames - there) // LATENTS_PER_CODE):
            drawn.append(draw_noise(shape, self._generator, condition.device, condition.dtype))
        self._noise = torch.cat(drawn, dim=1)
        return self._sampling.noise_scale * self._noise[:, :frames]

    def _cut(self, audio: Tensor) -> Tensor:
        """The part of the next audio that is within the clip."""
        if self._length is not None:
            audio = audio[:, :, : self._length - self._given]
        self._given += audio.shape[2]
        return audio

    def _nothing(self) -> Tensor:
        """Audio without a sample."""
        batch = len(self._parts[0]) if self._parts else 1
        return self._codec.decoder.empty_condition.new_zeros(batch, 1, 0)
