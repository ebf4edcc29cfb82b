"""The ReasoningCodec: audio <-> two streams of codes, assembled from the parts of this folder.

Owns the order of the parts, the windows in which long audio is encoded and decoded, and the names of published
parameters. Source: UniAudio 2.0 (arXiv:2602.04683), the ReasoningCodec section, and the released weights.

Shapes: ``B`` batch, ``N`` samples, ``T`` latent frames (25 Hz), ``T_rea`` 5 Hz frames, ``T_rec`` 12.5 Hz frames, ``K``
codebooks, ``C`` channels, ``D`` width. Audio is (B, 1, N), features and latents (B, T, C), codes (B, K, T).

Only clips of one length are batched, so nothing needs a mask and a clip's codes do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor, nn

from uniaudio2.codec.autoencoder import SQCodec, build_autoencoder, fold_weight_norm
from uniaudio2.codec.autoencoder import rename_published as rename_published_autoencoder
from uniaudio2.codec.contract import Codec, check_audio, unpad
from uniaudio2.codec.dit import DiTConfig
from uniaudio2.codec.features import AudioEncoder, FeatureInfo, build_encoder
from uniaudio2.codec.flow_matching import FlowConfig, FlowDecoder, Solver
from uniaudio2.codec.flow_matching import rename_published as rename_published_flow
from uniaudio2.codec.quantize import check_codes
from uniaudio2.codec.reasoning import ReasoningConfig, ReasoningEncoder
from uniaudio2.codec.reasoning import rename_published as rename_published_reasoning
from uniaudio2.codec.reconstruction import ReconstructionConfig, ReconstructionEncoder
from uniaudio2.codec.reconstruction import rename_published as rename_published_reconstruction
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

AUTOENCODER_LATENTS = "autoencoder_latents"
"""Name in a preset of the encoder that is the codec's own autoencoder, for the role "acoustic"."""

LATENTS_PER_CODE = RECONSTRUCTION_HOP // LATENT_HOP
"""Latent frames per reconstruction frame, 2."""

PUBLISHED_WINDOW = 720_240
"""Samples by which the published code advances when it encodes: 30 s and 240 samples too many."""

Fill = Literal["silence", "repeat"]
Kind = Literal["speech", "sound"]
"""Whose defaults decode: those of speech and of recordings, or those of sounds and music that are made."""


@dataclass(frozen=True)
class RegisteredConfig:
    """A class chosen by its registered name, with the values of that class's own config."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True)
class SamplingDefaults:
    """What decoding does unless told otherwise."""

    steps: int = 10  # of the ODE solver
    guidance_scale: float = 1.5  # 1 is no guidance
    solver: Solver = "euler"
    noise_scale: float = 1.0  # of the initial noise; below 1 the result moves from a sample towards the mean
    with_reasoning: bool = False  # whether the reasoning vectors are added to the reconstruction vectors

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if self.noise_scale < 0:
            raise UserError(f"noise_scale must not be negative, got {self.noise_scale}")


class DecodeOptions(TypedDict, total=False):
    """Keyword arguments of `ReasoningCodec.decode` and `decode_stream`; what is left out or None is the preset's."""

    steps: int | None  # of the ODE solver
    guidance_scale: float | None  # 1 is no guidance
    solver: Solver | None  # "euler" or "midpoint"
    noise_scale: float | None  # standard deviation of the initial noise; 0 is free of chance
    with_reasoning: bool | None  # add the reasoning vectors to the reconstruction vectors
    generator: torch.Generator | Sequence[torch.Generator] | None  # of the noise, one or one per clip: reproducible
    noise: Sequence[Tensor] | None  # initial noise of every window (B, T, C) instead of drawing it
    kind: Kind  # whose defaults of the preset are meant; "sound" is made sounds and music
    fill: Fill  # "silence" decodes short clips at their own length, "repeat" in full windows as the published code


@dataclass(frozen=True)
class CodecConfig:
    """Everything that a codec is built from."""

    encoders: dict[str, dict[str, Any]]  # registered name -> values of its config; "autoencoder_latents" has none
    autoencoder: RegisteredConfig
    reasoning: ReasoningConfig
    reconstruction: ReconstructionConfig
    dit: DiTConfig
    flow: FlowConfig
    windows: WindowConfig = field(default_factory=WindowConfig)
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    sound_sampling: SamplingDefaults | None = None  # of sounds and music that are made; null: as for speech

    def __post_init__(self) -> None:
        if not self.encoders:
            raise UserError("encoders must name at least one registered encoder")
        if self.encoders.get(AUTOENCODER_LATENTS):
            raise UserError(f"the encoder '{AUTOENCODER_LATENTS}' takes no values")
        if self.flow.frames_per_code != LATENTS_PER_CODE:
            raise UserError(f"flow.frames_per_code must be {LATENTS_PER_CODE}, got {self.flow.frames_per_code}")


class ReasoningCodec(Codec):
    """Encodes 24 kHz mono audio as reasoning (5 Hz) and reconstruction (12.5 Hz) codes, and decodes it again.

    Children: ``encoders`` (frozen, by registered name), ``autoencoder`` (frozen here), ``reasoning``,
    ``reconstruction`` and ``decoder`` (the flow decoder).

    Args:
        config: Sizes and registered names.

    Raises:
        ValueError: If a name is not registered, two encoders serve one role, or a role is missing.
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
        self.autoencoder = build_autoencoder(config.autoencoder.name, config.autoencoder.config)
        if self.autoencoder.hop_length != LATENT_HOP:
            raise UserError(
                f"the autoencoder must have {LATENT_HOP} samples per latent frame, it has {self.autoencoder.hop_length}"
            )
        self.autoencoder.requires_grad_(False)
        self.encoders = nn.ModuleDict()
        self.feature_info: dict[str, FeatureInfo] = {}
        for name, values in config.encoders.items():
            if name == AUTOENCODER_LATENTS:
                self._add_roles(name, {"acoustic": FeatureInfo(self.autoencoder.latent_dim, LATENT_RATE_HZ)})
                continue
            encoder: AudioEncoder = build_encoder(name, values)
            self.encoders[name] = encoder.freeze()
            self._add_roles(name, encoder.feature_info)
        self.reasoning = ReasoningEncoder(config.reasoning, self.feature_info)
        self.reconstruction = ReconstructionEncoder(
            config.reconstruction, self.feature_info, reasoning_dim=config.reasoning.dim
        )
        self.decoder = FlowDecoder(
            config.flow, config.dit, latent_dim=self.autoencoder.latent_dim, condition_dim=config.reconstruction.dim
        )
        self.eval()

    @classmethod
    def from_pretrained(cls, source: str | Path | None = None, **options: Any) -> ReasoningCodec:
        """Load a codec from a model folder; the shipped one without ``source``. See `checkpoint.load_codec`."""
        from uniaudio2.checkpoint import load_codec

        return load_codec(source, **options) if source is not None else load_codec(**options)

    def train(self, mode: bool = True) -> ReasoningCodec:
        """Set training mode for the trained parts; encoders and autoencoder stay in evaluation mode."""
        super().train(mode)
        self.encoders.eval()
        self.autoencoder.eval()
        return self

    def encoding_state(self) -> dict[str, Tensor]:
        """The part of ``state_dict()`` that codes depend on: without the flow decoder and the autoencoder's decoder."""
        encoding = self.autoencoder.encoding_parts

        def encodes(name: str) -> bool:
            """Whether ``encode`` reads a tensor."""
            part, _, rest = name.partition(".")
            return rest.split(".")[0] in encoding if part == "autoencoder" else part != "decoder"

        return {name: tensor for name, tensor in self.state_dict().items() if encodes(name)}

    def _add_roles(self, name: str, infos: Mapping[str, FeatureInfo]) -> None:
        """Note the features that an encoder gives."""
        for role, info in infos.items():
            if role in self.feature_info:
                raise UserError(f"encoder '{name}' gives the feature '{role}', which another encoder gives already")
            self.feature_info[role] = info

    # Encoding

    @torch.no_grad()
    def extract_features(self, audio: Tensor, roles: Collection[str] | None = None) -> dict[str, Tensor]:
        """Features of all encoders for audio that fits one window.

        Args:
            audio: (B, 1, N), N a positive multiple of 9600 samples (0.4 s).
            roles: Run only the encoders that serve one of these roles; None runs all.

        Returns:
            Role -> (B, T_role, C).

        Raises:
            ValueError: If the shape is another.
        """
        if audio.dim() != 3 or audio.shape[1] != 1 or audio.shape[2] == 0 or audio.shape[2] % UNIT:
            raise UserError(f"audio must be (B, 1, N) with N a positive multiple of {UNIT}, got {tuple(audio.shape)}")
        features: dict[str, Tensor] = {}
        if AUTOENCODER_LATENTS in self.config.encoders and (roles is None or "acoustic" in roles):
            features["acoustic"] = self.autoencoder.encode(audio)
        for encoder in self.encoders.values():
            serves: Any = encoder.feature_info
            if roles is None or not set(roles).isdisjoint(serves):
                features.update(encoder(audio))
        return features

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

        for piece in _windows(chunks, window):
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
        """Codes to audio of any length.

        Codes are decoded in overlapping windows; each window starts from latents of the one before (in-context) and
        is joined to it where the codes say, by a cross-fade over those common latents. Clips of one batch are decoded
        together, and each as it would be alone.

        Args:
            codes: Of one or several clips of one length.
            **options: See `DecodeOptions`.

        Returns:
            (B, 1, N): exactly ``codes.num_samples`` samples, or 1920 per reconstruction frame where that is None. Not
            limited to [-1, 1].

        Raises:
            ValueError: If codes are out of range or an option is.
        """
        audio: Tensor | None = None
        end, num_samples = 0, _num_samples(codes)
        for piece in self.decode_stream(codes, **options):
            if audio is None:
                audio = piece.new_zeros(len(codes), 1, num_samples)
            audio[:, :, end : end + piece.shape[2]] = piece
            end += piece.shape[2]
        if audio is None:
            return self.decoder.empty_condition.new_zeros(len(codes), 1, 0)
        assert end == num_samples
        return audio

    @torch.no_grad()
    def decode_stream(self, codes: AudioCodes, **options: Unpack[DecodeOptions]) -> Iterator[Tensor]:
        """Like :meth:`decode`, but yields the audio in consecutive pieces (B, 1, n), in constant memory."""
        windows = self.config.windows
        fill, generator, noise = (
            options.pop("fill", "silence"),
            options.pop("generator", None),
            options.pop("noise", None),
        )
        kind = options.pop("kind", "speech")
        if kind not in ("speech", "sound"):
            raise UserError(f"kind must be 'speech' or 'sound', got {kind!r}")
        defaults = (self.config.sound_sampling if kind == "sound" else None) or self.config.sampling
        chosen = replace(defaults, **{name: value for name, value in options.items() if value is not None})
        self._check_codes(codes, chosen.with_reasoning)
        if fill not in ("silence", "repeat"):
            raise UserError(f"fill must be 'silence' or 'repeat', got {fill!r}")
        remaining = _num_samples(codes)
        if remaining == 0:
            return
        if fill == "repeat":
            codes = _repeat_to_windows(codes, windows)
        fade = windows.context_latents * LATENT_HOP
        ramp = (torch.arange(fade, device=self.device) + 0.5) / fade
        context: Tensor | None = None
        tail: Tensor | None = None
        starts = window_starts(codes.reconstruction.shape[2], windows)
        for number, start in enumerate(starts):
            last = number == len(starts) - 1
            condition = self.condition(codes, start, windows.decode_codes, with_reasoning=chosen.with_reasoning)
            latents = self.decoder.sample(
                condition,
                context=context,
                steps=chosen.steps,
                guidance_scale=chosen.guidance_scale,
                solver=chosen.solver,
                generator=generator,
                noise_scale=chosen.noise_scale,
                noise=None if noise is None else noise[number],
            )
            audio = self.autoencoder.decode(latents)
            if tail is not None:
                audio[:, :, :fade] = tail * (1 - ramp) + audio[:, :, :fade] * ramp
            if not last:
                join = windows.hop_codes * LATENTS_PER_CODE
                context = latents[:, join : join + windows.context_latents]
                tail = audio[:, :, join * LATENT_HOP : join * LATENT_HOP + fade]
                audio = audio[:, :, : join * LATENT_HOP]
            yield audio[:, :, :remaining]
            remaining -= audio.shape[2]
            if remaining <= 0:
                return

    @torch.no_grad()
    def condition(
        self, codes: AudioCodes, start: int = 0, max_frames: int | None = None, *, with_reasoning: bool = False
    ) -> Tensor:
        """The flow decoder's condition (B, 2 n, D) for reconstruction frames ``start`` .. ``start + max_frames``."""
        reconstruction = codes.reconstruction.to(self.device)
        end = reconstruction.shape[2] if max_frames is None else start + max_frames
        vectors = self.reconstruction.decode(reconstruction[:, :, start:end])
        if with_reasoning:
            # Five reconstruction frames share two reasoning frames: begin where such a group begins.
            group, num_frames = start // 5, vectors.shape[1]
            offset = start - 5 * group
            first = min(2 * group, codes.reasoning.shape[2] - 1)
            part = codes.reasoning[:, :, first : first + 2 * (-(-(offset + num_frames) // 5))].to(self.device)
            vectors = vectors + self.reconstruction.reasoning_condition(
                self.reasoning.decode(part), num_frames, first_frame=offset
            )
        return self.decoder.condition(vectors)

    @property
    def device(self) -> torch.device:
        """Where the codec's parameters are."""
        return self.decoder.empty_condition.device

    def _check_codes(self, codes: AudioCodes, with_reasoning: bool) -> None:
        """Refuse codes of another codec before any work is done."""
        config = self.config
        check_codes(
            codes.reconstruction,
            config.reconstruction.num_codebooks,
            config.reconstruction.codebook_size,
            "reconstruction codes",
        )
        if with_reasoning:
            quantizer = config.reasoning.quantizer
            check_codes(codes.reasoning, quantizer.num_codebooks, quantizer.codebook_size, "reasoning codes")
            if codes.reasoning.shape[2] == 0 and codes.reconstruction.shape[2] > 0:
                raise UserError("there are no reasoning codes to decode with; use with_reasoning=False")

    # Published weights

    def published_key(self, key: str) -> str | None:
        """Our name of a key of the published codec file, or of ``sqcodec:`` + a key of the autoencoder's file.

        Weight-normalised layers keep the ending of their halves; :func:`finish_published` folds them.

        Args:
            key: As in the file, without a leading ``module.``.

        Returns:
            Name in this codec's state, or None for what is not needed.

        Raises:
            KeyError: If the key is not known to this codec.
        """
        if key.startswith("sqcodec:"):
            assert isinstance(self.autoencoder, SQCodec)
            return "autoencoder." + rename_published_autoencoder(key.removeprefix("sqcodec:"), self.autoencoder.config)
        if key.startswith(PUBLISHED_UNUSED):
            return None
        if key.startswith("audio_thinking."):
            return _below("reasoning", rename_published_reasoning(key.removeprefix("audio_thinking.")))
        for name, encoder in self.encoders.items():
            prefix = getattr(encoder, "published_prefix", None)
            if prefix is not None and key.startswith(prefix):
                rename: Any = encoder.rename_published
                return _below(f"encoders.{name}", rename(key.removeprefix(prefix)))
        try:
            return _below("decoder", rename_published_flow(key))
        except KeyError:
            return _below("reconstruction", rename_published_reconstruction(key))


PUBLISHED_UNUSED = ("wavlm_transfer.kernel", "film_encoder.")
"""Published parameters that are computed here (the resampling filter) or have no part in coding."""


def _below(prefix: str, name: str | None) -> str | None:
    """The name inside a child module; None stays None."""
    return None if name is None else f"{prefix}.{name}"


def finish_published(state: Mapping[str | None, Tensor], *, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Bring renamed published tensors into this codec's form: fold weight norms, drop the codebooks' leading axis.

    Args:
        state: Tensors by the names that :meth:`ReasoningCodec.published_key` gives.
        wanted: Names of the codec's own state. Weight-normalised pairs that it holds itself are left alone.

    Returns:
        Tensors that load strictly.

    Raises:
        ValueError: If half of a weight-normalised pair is missing or a codebook was never initialised.
    """
    wanted = set(wanted)
    kept = {name: value for name, value in state.items() if name is not None and name in wanted}
    others = {name: value for name, value in state.items() if name is not None and name not in wanted}
    folded = fold_weight_norm(others)
    finished = {**kept, **folded}
    for name, value in finished.items():
        kind = name.rpartition(".")[2]
        if kind in ("codebook", "usage") and "levels" in name.split("."):
            finished[name] = value[0]
        elif kind == "initialised":
            if not bool(value.reshape(())):
                raise UserError(f"{name}: this codebook was never initialised; the file holds no trained codec")
            finished[name] = value.reshape(()).bool()
    return finished


def window_starts(num_codes: int, windows: WindowConfig) -> list[int]:
    """First reconstruction frames of the decoder windows for ``num_codes`` (>= 1) frames."""
    starts = [0]
    while starts[-1] + windows.decode_codes < num_codes:
        starts.append(starts[-1] + windows.hop_codes)
    return starts


def _repeat_to_windows(codes: AudioCodes, windows: WindowConfig) -> AudioCodes:
    """Repeat both streams until all windows are full, as the published code does."""
    num_codes = codes.reconstruction.shape[2]
    starts = window_starts(num_codes, windows)
    total = starts[-1] + windows.decode_codes

    def tiled(stream: Tensor, length: int) -> Tensor:
        """As many frames of the endlessly repeated stream."""
        return stream[:, :, torch.arange(length, device=stream.device) % max(1, stream.shape[2])]

    reasoning = codes.reasoning
    if reasoning.shape[2]:
        reasoning = tiled(reasoning, -(-total * 2 // 5))
    return AudioCodes(reasoning, tiled(codes.reconstruction, total))


def _num_samples(codes: AudioCodes) -> int:
    """Samples that decoding gives."""
    return codes.reconstruction.shape[2] * RECONSTRUCTION_HOP if codes.num_samples is None else codes.num_samples


def _windows(chunks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    """Consecutive windows of ``length`` samples from pieces of any length; the last one may be shorter."""
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
