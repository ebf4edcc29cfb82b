"""The reconstruction branch: pronunciation, structure and acoustic codes at 12.5 Hz, conditioned on the reasoning.

Owns the fusion of features into three branches, their modulation by the reasoning vectors (FiLM), their quantisers,
and the semantic decoders whose loss gives the first two branches their meaning. Source: UniAudio 2.0
(arXiv:2602.04683), the ReasoningCodec section, and the released weights.

Shapes: ``B`` batch, ``T_rec`` 12.5 Hz frames, ``T_rea`` 5 Hz frames, ``K`` codebooks (all branches together), ``D``
width, ``C`` feature channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniaudio2.codec.quantize import Quantized, QuantizerConfig, ResidualVectorQuantize, check_codes
from uniaudio2.codec.quantize import rename_published as rename_published_quantizer
from uniaudio2.codec.reasoning import apply_over_time, get_feature, get_info, strided_convolution
from uniaudio2.errors import UserError

if TYPE_CHECKING:
    from uniaudio2.codec.features import FeatureInfo

FRAME_RATE_HZ = 12.5
"""Rate of the reconstruction codes."""

BRANCHES = ("pronunciation", "structure", "acoustic")
"""The three branches, in the order of their codebooks."""


@dataclass(frozen=True)
class ReconstructionConfig:
    """Sizes of the reconstruction branch."""

    dim: int  # D, width of the quantised vectors
    pronunciation: QuantizerConfig  # 1 codebook
    structure: QuantizerConfig  # 1 codebook
    acoustic: QuantizerConfig  # 6 codebooks
    pronunciation_inputs: tuple[str, ...] = ("phone",)  # feature roles, in the order of their concatenation
    structure_inputs: tuple[str, ...] = ("semantic",)
    acoustic_inputs: tuple[str, ...] = ("acoustic", "speech")
    film: bool = True  # whether the branches are modulated by the reasoning vectors; off for ablations
    film_strength: float = 0.1  # largest change of scale by the condition
    condition_dropout: float = 0.2  # probability, per row and branch in training, of no modulation
    semantic_decoders: bool = True  # whether the decoders for the semantic loss are built

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise UserError(f"dim must be at least 1, got {self.dim}")
        if not 0.0 <= self.condition_dropout <= 1.0:
            raise UserError(f"condition_dropout must lie in [0, 1], got {self.condition_dropout}")
        for branch in BRANCHES:
            if not self.inputs(branch):
                raise UserError(f"{branch}_inputs must name at least one feature role")
        sizes = {self.quantizer(branch).codebook_size for branch in BRANCHES}
        if len(sizes) != 1:
            raise UserError(f"all branches must have the same codebook_size, got {sorted(sizes)}")

    def quantizer(self, branch: str) -> QuantizerConfig:
        """The quantiser of a branch."""
        return getattr(self, branch)

    def inputs(self, branch: str) -> tuple[str, ...]:
        """The feature roles of a branch."""
        return getattr(self, f"{branch}_inputs")

    @property
    def num_codebooks(self) -> int:
        """K of all branches together."""
        return sum(self.quantizer(branch).num_codebooks for branch in BRANCHES)

    @property
    def codebook_size(self) -> int:
        """V, the same for all branches."""
        return self.acoustic.codebook_size


class ReconstructionOutput(NamedTuple):
    """What the branch returns."""

    quantized: Tensor  # (B, T_rec, D) sum of the three branches
    codes: Tensor  # (B, K, T_rec) int64
    commitment_loss: Tensor  # scalar, mean over codebooks
    perplexity: Tensor  # (K,)
    phone: Tensor  # (B, T_rec, D) quantised pronunciation vectors
    structure: Tensor  # (B, T_rec, D) quantised structure vectors


class TimeFiLM(nn.Linear):
    """Feature-wise modulation per frame: ``(1 + strength * tanh(dg)) * x + b`` with (dg, b) linear in the condition.

    In training whole rows are left unmodulated now and then; in evaluation never. Released weights: the published code
    does so in evaluation as well, so that its codes change from run to run; that is not copied.
    """

    def __init__(self, condition_dim: int, dim: int, *, strength: float, condition_dropout: float) -> None:
        super().__init__(condition_dim, 2 * dim)
        self.strength, self.condition_dropout = strength, condition_dropout

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Modulate (B, T, D) by a condition (B, T, D_condition)."""
        scale, shift = super().forward(condition).chunk(2, dim=-1)
        modulated = (1.0 + self.strength * torch.tanh(scale)) * x + shift
        if self.training and self.condition_dropout > 0.0:
            kept = torch.rand(len(x), 1, 1, device=x.device, dtype=torch.float32) >= self.condition_dropout
            return torch.where(kept, modulated, x)
        return modulated


class ConvolutionUnit(nn.Module):
    """x + conv1x1(ELU(conv3(ELU(x)))), (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the residual unit."""
        return x + self.conv2(F.elu(self.conv1(F.elu(x))))


class SemanticDecoder(nn.Module):
    """Convolution stack that gives quantised vectors back as the feature they should mean. A training target only.

    Args:
        dim: Channels of the quantised vectors.
        channels: Channels of the feature.
        upsampling: Factors of the two blocks; their product is the ratio of the frame rates.
    """

    def __init__(self, dim: int, channels: int, upsampling: tuple[int, ...]) -> None:
        super().__init__()
        self.conv_in = nn.Conv1d(dim, channels, 3, padding=1, bias=False)
        self.upsample = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=1)
            if factor == 1
            else nn.ConvTranspose1d(
                channels, channels, 2 * factor, stride=factor, padding=(factor + 1) // 2, output_padding=factor % 2
            )
            for factor in upsampling
        )
        self.units = nn.ModuleList(
            nn.Sequential(ConvolutionUnit(channels), ConvolutionUnit(channels)) for _ in upsampling
        )
        self.conv_out = nn.Conv1d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T * ratio, C)."""
        x = self.conv_in(x.transpose(1, 2))
        for upsample, units in zip(self.upsample, self.units, strict=True):
            x = units(upsample(x))
        return self.conv_out(x).transpose(1, 2)


def _upsampling(info: FeatureInfo, role: str) -> tuple[int, ...]:
    """Factors of the semantic decoder's blocks: 12.5 Hz x 1, 2 or 4."""
    ratio = info.frame_rate_hz / FRAME_RATE_HZ
    factors = {1.0: (1, 1), 2.0: (1, 2), 4.0: (2, 2)}
    if ratio not in factors:
        raise UserError(f"feature '{role}' has {info.frame_rate_hz:g} Hz; semantic decoders know 12.5, 25 and 50 Hz")
    return factors[ratio]


class ReconstructionEncoder(nn.Module):
    """Features and quantised reasoning vectors -> quantised vectors and codes of the three branches.

    Args:
        config: Sizes.
        feature_info: Channels and frame rate of every feature role that the branches name.
        reasoning_dim: Width of the quantised reasoning vectors.
    """

    def __init__(
        self, config: ReconstructionConfig, feature_info: Mapping[str, FeatureInfo], *, reasoning_dim: int
    ) -> None:
        super().__init__()
        self.config = config
        roles = list(dict.fromkeys(role for branch in BRANCHES for role in config.inputs(branch)))
        infos = {role: get_info(feature_info, role) for role in roles}
        self.downsample = nn.ModuleDict(
            {role: strided_convolution(info, FRAME_RATE_HZ, role) for role, info in infos.items()}
        )
        self.fusion = nn.ModuleDict(
            {b: nn.Linear(sum(infos[role].channels for role in config.inputs(b)), config.dim) for b in BRANCHES}
        )
        self.reasoning_adaptor = nn.Linear(reasoning_dim, config.dim)
        self.film = nn.ModuleDict(
            {
                branch: TimeFiLM(
                    config.dim, config.dim, strength=config.film_strength, condition_dropout=config.condition_dropout
                )
                for branch in (BRANCHES if config.film else ())
            }
        )
        self.quantizers = nn.ModuleDict(
            {b: ResidualVectorQuantize.from_config(config.dim, config.quantizer(b)) for b in BRANCHES}
        )
        self.semantic_decoders = nn.ModuleDict()
        if config.semantic_decoders:
            for branch in ("pronunciation", "structure"):
                role = config.inputs(branch)[0]
                self.semantic_decoders[branch] = SemanticDecoder(
                    config.dim, infos[role].channels, _upsampling(infos[role], role)
                )

    def forward(self, features: Mapping[str, Tensor], reasoning: Tensor) -> ReconstructionOutput:
        """Encode and quantise.

        Args:
            features: Role -> (B, T_role, C).
            reasoning: Quantised reasoning vectors, (B, T_rea, D_reasoning).

        Returns:
            Sum of the quantised vectors, codes in the order pronunciation, structure, acoustic, losses.

        Raises:
            ValueError: If a role is missing or the lengths of the branches do not agree.
        """
        parts = {branch: self._quantizer(branch)(x) for branch, x in self.quantizer_inputs(features, reasoning).items()}
        results: list[Quantized] = [parts[branch] for branch in BRANCHES]
        weights = [self.config.quantizer(branch).num_codebooks for branch in BRANCHES]
        loss = torch.stack([r.commitment_loss * w for r, w in zip(results, weights, strict=True)]).sum() / sum(weights)
        return ReconstructionOutput(
            quantized=results[0].quantized + results[1].quantized + results[2].quantized,
            codes=torch.cat([result.codes for result in results], dim=1),
            commitment_loss=loss,
            perplexity=torch.cat([result.perplexity for result in results]),
            phone=results[0].quantized,
            structure=results[1].quantized,
        )

    def quantizer_inputs(self, features: Mapping[str, Tensor], reasoning: Tensor) -> dict[str, Tensor]:
        """The modulated features of every branch before quantisation, branch -> (B, T_rec, D)."""
        fused = {branch: self._fuse(features, branch) for branch in BRANCHES}
        lengths = {branch: x.shape[1] for branch, x in fused.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(
                f"the branches have different lengths at 12.5 Hz: {lengths}; pad the audio to a multiple of 0.4 s"
            )
        if not self.config.film:
            return fused
        condition = self.reasoning_condition(reasoning, lengths["acoustic"])
        return {branch: self.film[branch](x, condition) for branch, x in fused.items()}

    def reasoning_condition(self, reasoning: Tensor, num_frames: int, first_frame: int = 0) -> Tensor:
        """Reasoning vectors brought to 12.5 Hz; also what is added to the quantised sum when decoding with reasoning.

        Each reconstruction frame takes the reasoning frame in whose time it starts, so that pairs of reasoning frames
        cover 3 and 2 frames; frames past the last one repeat it.

        Args:
            reasoning: (B, T_rea, D_reasoning), from the clip's first frame on.
            num_frames: Wanted number of 12.5 Hz frames.
            first_frame: First wanted 12.5 Hz frame.

        Returns:
            (B, num_frames, D).
        """
        frames = torch.arange(first_frame, first_frame + num_frames, device=reasoning.device)
        index = (frames * 2 // 5).clamp_max(reasoning.shape[1] - 1)
        return self.reasoning_adaptor(reasoning)[:, index]

    def semantic_loss(self, output: ReconstructionOutput, features: Mapping[str, Tensor]) -> Tensor:
        """How badly the quantised pronunciation and structure vectors predict their features; about 1 when useless.

        Choice: squared error divided by the feature's variance, because experts differ in scale.

        Args:
            output: Of :meth:`forward` on the same features.
            features: Role -> (B, T_role, C); no gradient reaches them.

        Returns:
            Scalar, mean of both decoders.

        Raises:
            ValueError: If the model has no semantic decoders.
        """
        if not self.semantic_decoders:
            raise UserError("this model was built without semantic decoders; set semantic_decoders: true")
        losses = []
        for branch, vectors in (("pronunciation", output.phone), ("structure", output.structure)):
            target = get_feature(features, self.config.inputs(branch)[0]).detach()
            predicted = self.semantic_decoders[branch](vectors)
            length = min(target.shape[1], predicted.shape[1])
            target, predicted = target[:, :length].float(), predicted[:, :length].float()
            spread = target - target.mean(dim=(0, 1), keepdim=True)
            losses.append((predicted - target).square().mean() / spread.square().mean().clamp_min(1e-6))
        return torch.stack(losses).mean()

    def decode(self, codes: Tensor) -> Tensor:
        """Sum of the branches' quantised vectors, (B, T_rec, D).

        Args:
            codes: (B, K, T_rec) integers in [0, V).

        Raises:
            ValueError: If shape, type or range of ``codes`` is wrong.
        """
        check_codes(codes, self.config.num_codebooks, self.config.codebook_size, "reconstruction codes")
        sizes = [self.config.quantizer(branch).num_codebooks for branch in BRANCHES]
        parts = [self._quantizer(b).decode(part) for b, part in zip(BRANCHES, codes.split(sizes, dim=1), strict=True)]
        return parts[0] + parts[1] + parts[2]

    def usage_perplexity(self) -> Tensor:
        """(K,) perplexity of every codebook by the running counts of training."""
        return torch.cat([self._quantizer(branch).usage_perplexity() for branch in BRANCHES])

    def _quantizer(self, branch: str) -> ResidualVectorQuantize:
        quantizer = self.quantizers[branch]
        assert isinstance(quantizer, ResidualVectorQuantize)
        return quantizer

    def _fuse(self, features: Mapping[str, Tensor], branch: str) -> Tensor:
        """A branch's features at 12.5 Hz, cut to the shortest, concatenated and projected: (B, T_rec, D)."""
        roles = self.config.inputs(branch)
        parts = [apply_over_time(self.downsample[role], get_feature(features, role)) for role in roles]
        length = min(part.shape[1] for part in parts)
        return self.fusion[branch](torch.cat([part[:, :length] for part in parts], dim=-1))


PUBLISHED_NAMES = {
    "d_conv_whisper.": "downsample.speech.",
    "d_conv_wavlm.": "downsample.phone.",
    "d_conv_embedding_semantic.": "downsample.semantic.",
    "d_conv_embedding_acoustic.": "downsample.acoustic.",
    "cond_fusion_layer_phone.": "fusion.pronunciation.",
    "cond_fusion_layer_semantic.": "fusion.structure.",
    "cond_fusion_layer_acoustic.": "fusion.acoustic.",
    "reason_adaptor.": "reasoning_adaptor.",
    "time_film_phone.": "film.pronunciation.",
    "time_film_semantic.": "film.structure.",
    "time_film_acoustic.": "film.acoustic.",
    "vq_pronunciation_semantic.": "quantizers.pronunciation.",
    "vq_structure_semantic.": "quantizers.structure.",
    "vq_acoustic.": "quantizers.acoustic.",
    "pronunciation_decoder.": "semantic_decoders.pronunciation.",
    "structure_semantic_decoder.": "semantic_decoders.structure.",
}
"""Beginnings of published names and ours."""


def rename_published(key: str) -> str | None:
    """Our name of a published key of this branch; None for what is not needed.

    Raises:
        KeyError: If the key is not known.
    """
    for theirs, ours in PUBLISHED_NAMES.items():
        if key.startswith(theirs):
            rest = key.removeprefix(theirs)
            if theirs.startswith("vq_"):
                inner = rename_published_quantizer(rest)
                return None if inner is None else ours + inner
            return ours + (_rename_in_decoder(rest) if "decoder" in theirs else rest)
    raise KeyError(key)


def _rename_in_decoder(key: str) -> str:
    """conv1.conv.weight, conv_blocks.0.conv.deconv.bias, conv_blocks.0.res_units.1.conv1.conv.weight, ..."""
    if key in ("conv1.conv.weight", "conv2.conv.weight"):
        return {"conv1": "conv_in", "conv2": "conv_out"}[key.partition(".")[0]] + ".weight"
    parts = key.split(".")
    if parts[0] == "conv_blocks" and parts[2] == "conv" and parts[3] in ("conv", "deconv"):
        return f"upsample.{parts[1]}.{parts[4]}"
    if parts[0] == "conv_blocks" and parts[2] == "res_units":
        return f"units.{parts[1]}.{parts[3]}.{parts[4]}.{parts[-1]}"
    raise KeyError(key)
