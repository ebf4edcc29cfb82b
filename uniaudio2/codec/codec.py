"""The ReasoningCodec: audio <-> two streams of codes, assembled from the parts of this folder.

Owns the order of the parts and which encoder serves which role. Source: UniAudio 2.0 (arXiv:2602.04683), the
ReasoningCodec section, and the released weights.

Shapes: ``B`` batch, ``N`` samples, ``T`` latent frames (25 Hz), ``T_rea`` 5 Hz frames, ``T_rec`` 12.5 Hz frames, ``K``
codebooks, ``C`` channels, ``D`` width. Audio is (B, 1, N), features and latents (B, T, C), codes (B, K, T).

Only clips of one length are batched, so nothing needs a mask and a clip's codes do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack, cast, overload

import torch
from torch import Tensor, nn

from uniaudio2.codec.codec_config import AUTOENCODER_LATENTS, CodecConfig, DecodeOptions, Fill, Kind, assign_roles
from uniaudio2.codec.contract import Codec, check_audio, unpad
from uniaudio2.codec.decoder import LatentDecoder, SamplingDefaults
from uniaudio2.codec.features import AudioEncoder, FeatureInfo
from uniaudio2.codec.published_names import finish_published, published_key
from uniaudio2.codec.quantize import check_codes
from uniaudio2.codec.reasoning import ReasoningEncoder
from uniaudio2.codec.reconstruction import ReconstructionEncoder
from uniaudio2.codec.registry import AUTOENCODERS, CODECS, DECODERS, ENCODERS, REASONING_CODEC
from uniaudio2.codec.windows import (
    LATENTS_PER_CODE,
    WindowConfig,
    WindowedSession,
    audio_windows,
    repeat_to_windows,
    window_starts,
)
from uniaudio2.codes import (
    LATENT_HOP,
    LATENT_RATE_HZ,
    REASONING_HOP,
    REASONING_RATE_HZ,
    RECONSTRUCTION_HOP,
    RECONSTRUCTION_RATE_HZ,
    SAMPLE_RATE,
    UNIT,
    AudioCodes,
    Stream,
    num_units,
    reasoning_length,
    reconstruction_length,
)
from uniaudio2.errors import UserError
from uniaudio2.storage.load import LoadOptions, load_part

__all__ = [
    "CodecConfig",
    "DecodeOptions",
    "Kind",
    "ReasoningCodec",
    "WindowConfig",
    "finish_published",
    "window_starts",
]

PUBLISHED_WINDOW = 720_240
"""Samples by which the published code advances when it encodes: 30 s and 240 samples too many."""


@CODECS.register(REASONING_CODEC, CodecConfig)
class ReasoningCodec(Codec):
    """Encodes 24 kHz mono audio as reasoning (5 Hz) and reconstruction (12.5 Hz) codes, and decodes it again.

    Children: ``encoders`` (frozen, by name), ``autoencoder`` (frozen here), ``reasoning``, ``reconstruction`` and
    ``decoder``.

    Args:
        config: Sizes and registered names.

    Raises:
        UserError: If a name is not registered, or it is not clear which encoder serves a role.
    """

    config: CodecConfig
    sample_rate = SAMPLE_RATE

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        quantizer, reconstruction = config.reasoning.quantizer, config.reconstruction
        self.streams = (
            Stream("reasoning", REASONING_HOP, quantizer.num_codebooks, quantizer.codebook_size),
            Stream("reconstruction", RECONSTRUCTION_HOP, reconstruction.num_codebooks, reconstruction.codebook_size),
        )
        self.autoencoder = AUTOENCODERS.build(config.autoencoder.name, config.autoencoder.config)
        if self.autoencoder.hop_length != LATENT_HOP:
            raise UserError(
                f"the autoencoder must have {LATENT_HOP} samples per latent frame, it has {self.autoencoder.hop_length}"
            )
        self.autoencoder.requires_grad_(False)
        self.encoders = nn.ModuleDict()
        features: dict[str, Mapping[str, FeatureInfo]] = {}
        for name, values in config.encoders.items():
            if name == AUTOENCODER_LATENTS:
                features[name] = {"acoustic": FeatureInfo(self.autoencoder.latent_dim, LATENT_RATE_HZ)}
                continue
            values = dict(values)
            encoder: AudioEncoder = ENCODERS.build(str(values.pop("encoder", name)), values)
            self.encoders[name] = encoder.freeze()
            features[name] = encoder.feature_info
        self.roles = assign_roles(features, config.roles)
        self.feature_info = {role: features[encoder][feature] for role, (encoder, feature) in self.roles.items()}
        self.reasoning = ReasoningEncoder(config.reasoning, self.feature_info)
        self.reconstruction = ReconstructionEncoder(
            config.reconstruction, self.feature_info, reasoning_dim=config.reasoning.dim
        )
        self.decoder: LatentDecoder = DECODERS.build(
            config.decoder.name,
            config.decoder.config,
            latent_dim=self.autoencoder.latent_dim,
            condition_dim=config.reconstruction.dim,
        )
        if self.decoder.config.frames_per_code != LATENTS_PER_CODE:
            raise UserError(
                f"frames_per_code of the decoder must be {LATENTS_PER_CODE}, got {self.decoder.config.frames_per_code}"
            )
        self.eval()

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, **options: Unpack[LoadOptions]) -> Self:
        """Load a codec from a model folder; the shipped one without ``source``. See `storage.load.load_part`."""
        return load_part(source, "codec", CodecConfig, cls, **options)

    def train(self, mode: bool = True) -> ReasoningCodec:
        """Set training mode for the trained parts; encoders and autoencoder stay in evaluation mode."""
        super().train(mode)
        self.encoders.eval()
        self.autoencoder.eval()
        return self

    def encoding_state(self) -> dict[str, Tensor]:
        """The part of ``state_dict()`` that codes depend on: without the decoder and the autoencoder's decoder."""
        encoding = self.autoencoder.encoding_parts

        def encodes(name: str) -> bool:
            """Whether ``encode`` reads a tensor."""
            part, _, rest = name.partition(".")
            return rest.split(".")[0] in encoding if part == "autoencoder" else part != "decoder"

        return {name: tensor for name, tensor in self.state_dict().items() if encodes(name)}

    # Encoding

    @torch.no_grad()
    def extract_features(self, audio: Tensor, roles: Collection[str] | None = None) -> dict[str, Tensor]:
        """Features of the encoders for audio that fits one window.

        Args:
            audio: (B, 1, N), N a positive multiple of 9600 samples (0.4 s).
            roles: Only these; None means all that are served.

        Returns:
            Role -> (B, T_role, C).

        Raises:
            ValueError: If the shape is another.
        """
        if audio.dim() != 3 or audio.shape[1] != 1 or audio.shape[2] == 0 or audio.shape[2] % UNIT:
            raise UserError(f"audio must be (B, 1, N) with N a positive multiple of {UNIT}, got {tuple(audio.shape)}")
        wanted = self.roles if roles is None else {role: self.roles[role] for role in roles if role in self.roles}
        given: dict[str, dict[str, Tensor]] = {}
        for name in dict.fromkeys(encoder for encoder, _ in wanted.values()):
            latents = name == AUTOENCODER_LATENTS
            given[name] = {"acoustic": self.autoencoder.encode(audio)} if latents else self.encoders[name](audio)
        return {role: given[encoder][feature] for role, (encoder, feature) in wanted.items()}

    def num_frames(self, num_samples: int) -> dict[str, int]:
        """Frames of both streams for a clip of ``num_samples``; now and then one more than cover it."""
        return {"reasoning": reasoning_length(num_samples), "reconstruction": reconstruction_length(num_samples)}

    def encode_rows(self, audio: Tensor) -> AudioCodes:
        """Codes of clips (B, 1, N) that fit one window, N a multiple of 0.4 s."""
        return AudioCodes(*self._encode_rows(audio))

    @overload
    def encode(
        self, audio: Tensor, lengths: None = None, *, windows_at_once: int | None = None, fill: Fill = "silence"
    ) -> AudioCodes: ...
    @overload
    def encode(self, audio: Tensor, lengths: Sequence[int] | Tensor) -> list[AudioCodes]: ...
    def encode(
        self,
        audio: Tensor,
        lengths: Sequence[int] | Tensor | None = None,
        *,
        windows_at_once: int | None = None,
        fill: Fill = "silence",
    ) -> AudioCodes | list[AudioCodes]:
        """Codes of mono audio of any length; see :meth:`Codec.encode`.

        Audio is encoded in windows of exactly 30 s; the last one is padded with silence to a multiple of 0.4 s.

        Args:
            audio: Waveform in [-1, 1] at 24 kHz, (B, 1, N), N > 0.
            lengths: Samples of each clip, where clips are padded.
            windows_at_once: Windows (of 30 s, over batch and time) that are encoded together; bounds the memory. None
                is one on a CPU, where more take more memory and no less time, else four.
            fill: "silence", or "repeat" for the published way, which fills windows by repeating the clip, always
                encodes at least two, and lets windows drift by 10 ms each.
        """
        check_audio(audio, self.sample_rate)
        if fill not in ("silence", "repeat"):
            raise UserError(f"fill must be 'silence' or 'repeat', got {fill!r}")
        if lengths is not None:
            return self.encode_clips(unpad(audio, lengths))
        if fill == "repeat":
            return self._encode_repeated(audio, windows_at_once)
        return self.encode_stream([audio], windows_at_once=windows_at_once)

    def encode_stream(self, chunks: Iterable[Tensor], *, windows_at_once: int | None = None) -> AudioCodes:
        """Tokenise audio that comes piece by piece, in constant memory: the codes of :meth:`encode` on all of it.

        Args:
            chunks: Consecutive pieces (B, 1, n) of any lengths.
            windows_at_once: See :meth:`encode`.

        Raises:
            ValueError: If there is no sample, or a piece has another shape or values that are not finite.
        """
        window = self.config.windows.encode_units * UNIT
        reasoning: list[Tensor] = []
        reconstruction: list[Tensor] = []
        num_samples = 0
        pending: list[Tensor] = []

        def flush() -> None:
            """Encode the windows that wait, all of one length."""
            for codes_5hz, codes_12hz in self._encode_windows(pending, windows_at_once):
                reasoning.append(codes_5hz)
                reconstruction.append(codes_12hz)
            pending.clear()

        for piece in audio_windows(chunks, window):
            num_samples += piece.shape[2]
            if piece.shape[2] < window:
                flush()
                piece = nn.functional.pad(piece, (0, num_units(piece.shape[2]) * UNIT - piece.shape[2]))
            pending.append(piece)
            if len(pending) * len(piece) >= self._at_once(windows_at_once):
                flush()
        flush()
        if num_samples == 0:
            raise UserError("there is no audio to encode (0 samples)")
        return AudioCodes(
            torch.cat(reasoning, dim=2)[:, :, : reasoning_length(num_samples)],
            torch.cat(reconstruction, dim=2)[:, :, : reconstruction_length(num_samples)],
            num_samples,
        )

    @torch.no_grad()
    def _encode_windows(self, windows: Sequence[Tensor], at_once: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes of each of several windows (B, 1, n) of one length; rows are encoded a bounded number at a time."""
        if not windows:
            return
        batch, length = windows[0].shape[0], windows[0].shape[2]
        rows = torch.cat(list(windows), dim=0)
        rows_at_once = max(1, self._at_once(at_once) * self.config.windows.encode_units * UNIT // length)
        parts = [self._encode_rows(part) for part in rows.split(rows_at_once)]
        reasoning, reconstruction = (torch.cat(codes) for codes in zip(*parts, strict=True))
        yield from zip(reasoning.split(batch), reconstruction.split(batch), strict=True)

    def _at_once(self, wanted: int | None) -> int:
        """Windows that are encoded together: as many as are wanted, or what suits the device."""
        if wanted is None:
            return 1 if self.device.type == "cpu" else 4
        return wanted

    def _encode_rows(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams of codes for audio (B, 1, N) that fits one window."""
        parameter = self.reconstruction.reasoning_adaptor.weight
        features = self.extract_features(audio.to(parameter.device, torch.float32))
        features = {role: x.to(parameter.dtype) for role, x in features.items()}
        reasoning = self.reasoning(features)
        return reasoning.codes, self.reconstruction(features, reasoning.quantized).codes

    def _encode_repeated(self, audio: Tensor, windows_at_once: int | None) -> AudioCodes:
        """The published way: windows of the endlessly repeated clip, 720 240 samples apart, counted as 30 s each."""
        num_samples, window = audio.shape[2], 75 * UNIT
        filled = num_samples
        while filled < PUBLISHED_WINDOW:
            filled *= 2
        reasoning, reconstruction = [], []
        for number in range(filled // window + 1):
            # Choice: 30 s of each window without its last 240 samples, which reach one frame of one encoder.
            start = number * PUBLISHED_WINDOW
            index = torch.arange(start, start + window, device=audio.device) % num_samples
            for codes_5hz, codes_12hz in self._encode_windows([audio[:, :, index]], windows_at_once):
                reasoning.append(codes_5hz)
                reconstruction.append(codes_12hz)
        return AudioCodes(
            torch.cat(reasoning, dim=2)[:, :, : int(num_samples / SAMPLE_RATE * REASONING_RATE_HZ) + 1],
            torch.cat(reconstruction, dim=2)[:, :, : int(num_samples / SAMPLE_RATE * RECONSTRUCTION_RATE_HZ) + 1],
            num_samples,
        )

    def codebook_vectors(self, stream: str) -> Tensor:
        """What each code adds to the quantised vectors of a stream, without the projections' biases.

        Returns:
            (K, V, D): the sum over K of the entries of one frame is its quantised vector up to the biases.
        """
        groups: list[Any]
        if self.stream(stream).name == "reasoning":
            groups = [self.reasoning.quantizer]
        else:
            groups = [self.reconstruction.quantizers[name] for name in ("pronunciation", "structure", "acoustic")]
        return torch.stack(
            [level.codebook.float() @ group.project_out.weight.float().T for group in groups for level in group.levels]
        )

    # Decoding

    def decode(self, codes: AudioCodes, **options: Unpack[DecodeOptions]) -> Tensor:
        """Codes to audio of any length, in overlapping windows (see `uniaudio2.codec.windows`).

        Clips of one batch are decoded together, and each as it would be alone.

        Args:
            codes: Of one or several clips of one length.
            **options: See `DecodeOptions`.

        Returns:
            (B, 1, N): exactly ``codes.num_samples`` samples, or 1920 per reconstruction frame where that is None. Not
            limited to [-1, 1].

        Raises:
            UserError: If codes are out of range or an option is.
        """
        return super().decode(codes, **options)

    def decode_stream(self, codes: AudioCodes, **options: Unpack[DecodeOptions]) -> Iterator[Tensor]:
        """Like :meth:`decode`, but gives the audio in consecutive pieces (B, 1, n), in constant memory."""
        fill = options.pop("fill", "silence")
        if fill not in ("silence", "repeat"):
            raise UserError(f"fill must be 'silence' or 'repeat', got {fill!r}")
        session, sampling, windows = self._session(options)
        self.check_streams(codes, sampling.with_reasoning)
        if sampling.with_reasoning and codes.reasoning.shape[2] == 0 and codes.reconstruction.shape[2] > 0:
            raise UserError("there are no reasoning codes to decode with; use with_reasoning=False")
        if fill == "repeat" and codes.reconstruction.shape[2]:
            codes = repeat_to_windows(codes, windows)
        return session.stream(codes)

    def decoder_session(self, **options: Unpack[DecodeOptions]) -> WindowedSession:
        """Decode codes as they come: the audio of :meth:`decode`, each window as soon as its frames are there.

        Raises:
            UserError: If an option is out of range, or ``fill`` is given, which needs the whole clip.
        """
        if "fill" in options:
            raise UserError("fill needs the whole clip: leave it out of a session")
        return self._session(options)[0]

    def _session(self, options: DecodeOptions) -> tuple[WindowedSession, SamplingDefaults, WindowConfig]:
        """A session with checked options, how it samples and in which windows."""
        chosen = cast("dict[str, Any]", dict(options))
        kind = chosen.pop("kind", "speech")
        if kind not in ("speech", "sound"):
            raise UserError(f"kind must be 'speech' or 'sound', got {kind!r}")
        windows = self.config.windows.decoding(chosen.pop("window_codes", None))
        sources = {name: chosen.pop(name, None) for name in ("generator", "noise", "first_codes")}
        defaults = (self.config.sound_sampling if kind == "sound" else None) or self.config.sampling
        sampling = replace(defaults, **{name: value for name, value in chosen.items() if value is not None})
        self.decoder.check_sampler(sampling.steps, sampling.solver)
        return WindowedSession(self, windows, sampling, **sources), sampling, windows

    @torch.no_grad()
    def condition(
        self, codes: AudioCodes, start: int = 0, max_frames: int | None = None, *, with_reasoning: bool = False
    ) -> Tensor:
        """The decoder's condition (B, 2 n, D) for reconstruction frames ``start`` .. ``start + max_frames``."""
        reconstruction = codes.reconstruction.to(self.device)
        end = reconstruction.shape[2] if max_frames is None else start + max_frames
        vectors = self.reconstruction.decode(reconstruction[:, :, start:end])
        if with_reasoning:
            # Five reconstruction frames share two reasoning frames: begin where such a group begins.
            five, two = UNIT // RECONSTRUCTION_HOP, UNIT // REASONING_HOP
            group, num_frames = start // five, vectors.shape[1]
            offset = start - five * group
            first = min(two * group, codes.reasoning.shape[2] - 1)
            part = codes.reasoning[:, :, first : first + two * (-(-(offset + num_frames) // five))].to(self.device)
            vectors = vectors + self.reconstruction.reasoning_condition(
                self.reasoning.decode(part), num_frames, first_frame=offset
            )
        return self.decoder.condition(vectors)

    @property
    def device(self) -> torch.device:
        """Where the codec's parameters are."""
        return self.decoder.empty_condition.device

    def check_streams(self, codes: AudioCodes, with_reasoning: bool = True) -> None:
        """Refuse codes of another codec, of the streams that there are.

        Raises:
            UserError: If a stream has other codebooks, or a code is outside its codebook.
        """
        for stream in self.streams if with_reasoning else self.streams[1:]:
            if stream.name in codes.streams:
                found = codes[stream.name]
                check_codes(found, stream.num_codebooks, stream.codebook_size, f"{stream.name} codes")

    def published_key(self, key: str) -> str | None:
        """Our name of a published key; see `uniaudio2.codec.published_names`."""
        return published_key(self, key)
