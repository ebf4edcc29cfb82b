"""What a ReasoningCodec is built from, how it is asked to decode, and which encoder serves which role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from uniaudio2.codec.decoder import SamplingDefaults, Solver
from uniaudio2.codec.features import FeatureInfo
from uniaudio2.codec.reasoning import ReasoningConfig
from uniaudio2.codec.reconstruction import ReconstructionConfig
from uniaudio2.codec.registry import RegisteredConfig
from uniaudio2.codec.windows import WindowConfig
from uniaudio2.config import to_plain
from uniaudio2.errors import UserError

AUTOENCODER_LATENTS = "autoencoder_latents"
"""Name in a preset of the encoder that is the codec's own autoencoder, whose latents are the feature "acoustic"."""

Fill = Literal["silence", "repeat"]
Kind = Literal["speech", "sound"]
"""Whose defaults decode: those of speech and of recordings, or those of sounds and music that are made."""


class DecodeOptions(TypedDict, total=False):
    """Keyword arguments of `ReasoningCodec.decode` and the like; what is left out or None is the preset's."""

    steps: int | None  # of the decoder's sampler
    guidance_scale: float | None  # 1 is no guidance
    solver: Solver | None  # "euler" or "midpoint"
    noise_scale: float | None  # standard deviation of the initial noise; 0 is free of chance
    with_reasoning: bool | None  # add the reasoning vectors to the reconstruction vectors
    generator: torch.Generator | Sequence[torch.Generator] | None  # of the noise, one or one per clip: reproducible
    noise: Sequence[Tensor] | None  # initial noise of every window (B, T, C) instead of drawing it
    kind: Kind  # whose defaults of the preset are meant; "sound" is made sounds and music
    fill: Fill  # "silence" decodes short clips at their own length, "repeat" in full windows as the published code
    window_codes: int | None  # frames that are decoded at once: fewer look less far ahead, and are heard sooner
    first_codes: int | None  # of the first window, where the others double up to those: the beginning is heard sooner


@dataclass(frozen=True, kw_only=True)
class _CommonConfig:
    """What configs of all times have."""

    # Name -> values of its config. The name is the registered one, or any other when the values tell it as "encoder".
    encoders: dict[str, dict[str, Any]]
    # Role ("speech", …) -> "encoder.feature" that serves it; a role that is left out is the one feature of that name.
    roles: dict[str, str] = field(default_factory=dict)
    autoencoder: RegisteredConfig
    reasoning: ReasoningConfig
    reconstruction: ReconstructionConfig
    windows: WindowConfig = field(default_factory=WindowConfig)
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    sound_sampling: SamplingDefaults | None = None  # of sounds and music that are made; null: as for speech


@dataclass(frozen=True, kw_only=True)
class CodecConfig(_CommonConfig):
    """Everything that a codec is built from."""

    decoder: RegisteredConfig  # quantised vectors to latents

    def __post_init__(self) -> None:
        if not self.encoders:
            raise UserError("encoders must name at least one registered encoder")
        if self.encoders.get(AUTOENCODER_LATENTS):
            raise UserError(f"the encoder '{AUTOENCODER_LATENTS}' takes no values")

    @staticmethod
    def other_form(values: Mapping[str, Any]) -> type[_FlowCodecConfig] | None:
        """The schema of values that were written when there was one kind of decoder."""
        return _FlowCodecConfig if {"dit", "flow"} & set(values) else None


@dataclass(frozen=True, kw_only=True)
class _FlowCodecConfig(_CommonConfig):
    """The schema of before, with the flow decoder's network and path as sections of their own."""

    dit: dict[str, Any] = field(default_factory=dict)
    flow: dict[str, Any] = field(default_factory=dict)
    decoder: RegisteredConfig = field(default_factory=lambda: RegisteredConfig("flow_matching"))  # of a base preset

    def upgraded(self) -> CodecConfig:
        """The same with the decoder by its name."""
        parts = {part: {**self.decoder.config.get(part, {}), **getattr(self, part)} for part in ("dit", "flow")}
        common = {one.name: getattr(self, one.name) for one in fields(_CommonConfig)}
        return CodecConfig(decoder=RegisteredConfig(self.decoder.name, to_plain(parts)), **common)


def assign_roles(
    features: Mapping[str, Mapping[str, FeatureInfo]], roles: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Which encoder and feature serves each role.

    Args:
        features: What every encoder gives.
        roles: As in `CodecConfig`.

    Raises:
        UserError: If there is no such feature, or two encoders give one and the roles do not choose.
    """
    chosen: dict[str, tuple[str, str]] = {}
    for role, place in roles.items():
        encoder, _, feature = place.partition(".")
        if feature not in features.get(encoder, {}):
            known = ", ".join(f"{name}.{one}" for name, given in features.items() for one in given)
            raise UserError(f"role '{role}' is to be served by '{place}', which is not there; there are {known}")
        chosen[role] = (encoder, feature)
    for encoder, given in features.items():
        for feature in given:
            other = chosen.setdefault(feature, (encoder, feature))[0]
            if other != encoder and feature not in roles:
                raise UserError(
                    f"encoders '{other}' and '{encoder}' both give the feature '{feature}': choose one in the preset, "
                    f"such as roles: {{{feature}: {other}.{feature}}}"
                )
    return chosen
