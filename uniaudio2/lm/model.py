"""The audio-text language model: understanding expert, causal backbone, generation expert, heads.

Positions hold nine columns: K audio ids and one text id (last); the mask says which columns count. The experts run
over all positions but only change audio positions. Knows vocabularies' sizes, not what the ids mean.

Shapes: B batch, S positions, K codebooks, D backbone width, A audio ids per codebook, V text ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from uniaudio2.errors import UserError
from uniaudio2.lm.cache import KVCache
from uniaudio2.lm.depth import DepthDecoder
from uniaudio2.lm.transformer import (
    AttentionProbe,
    Embedding,
    Linear,
    Probed,
    RopeConfig,
    StackConfig,
    Transformer,
)
from uniaudio2.vocabulary import AudioTokens, AudioVocabulary, TextTokens


@dataclass(frozen=True)
class LMConfig:
    """Sizes, vocabularies and the sequence conventions a language model was trained with."""

    text_vocab_size: int  # V
    audio: AudioVocabulary  # sizes and special ids of the audio streams
    text: TextTokens  # special ids of the text stream
    understanding: StackConfig  # expert in front of the backbone
    backbone: StackConfig
    generation: StackConfig  # expert behind the backbone
    depth: StackConfig  # local decoder over the codebooks of a frame
    rope: RopeConfig = field(default_factory=RopeConfig)
    norm_eps: float = 1e-5
    max_positions: int = 2048  # longest sequence the model is made for
    dropout: float = 0.0  # on residual branches, in training only
    # Choice: "short" prompts are one tag and a language ("tts en"), because every prompt position costs a small model
    # time; "full" prompts are drawn from the task's paraphrases and end in two line ends, as published.
    prompt_style: Literal["short", "full"] = "full"

    def __post_init__(self) -> None:
        if isinstance(self.audio, AudioTokens):  # the form of before
            object.__setattr__(self, "audio", self.audio.upgraded())
        widths = {self.understanding.width, self.backbone.width, self.generation.width}
        if len(widths) != 1:
            raise UserError(f"experts and backbone must have one width, got {sorted(widths)}")
        if max(self.text.ids()) >= self.text_vocab_size:
            raise UserError(f"text_vocab_size {self.text_vocab_size} has no room for id {max(self.text.ids())}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class LMOutput:
    """Result of the training forward over S-1 input positions (position p predicts row p+1)."""

    text_logits: Tensor  # (B, S-1, V), or (M, V) for chosen text targets
    audio_logits: Tensor  # (N, K, A), at the chosen audio targets in row-major order
    audio_labels: Tensor  # (N, K)
    text_labels: Tensor  # (B, S-1) or (M,)
    audio_targets: Tensor  # (N,) flat indices into B * (S-1)
    text_targets: Tensor | None  # (M,) flat indices into B * (S-1), None: all positions
    understanding: Tensor  # (B, S-1, D) output of the understanding expert, for a CTC loss
    hidden: Tensor  # (B, S-1, D) what the heads see
    probed: Probed | None  # from inside of the backbone


@dataclass
class LMCache:
    """Key/value caches of one batch of sequences."""

    understanding: KVCache
    backbone: KVCache
    generation: KVCache

    @property
    def batch_size(self) -> int:
        """Number of slots."""
        return self.backbone.batch_size

    @property
    def max_positions(self) -> int:
        """Positions that fit."""
        return self.backbone.max_positions

    def resize(self, rows: Tensor, max_positions: int) -> None:
        """Keep slots ``rows`` (n,), in that order, with room for ``max_positions``."""
        for cache in (self.understanding, self.backbone, self.generation):
            cache.resize(rows, max_positions)

    def pick(self, slots: Sequence[int]) -> LMCache:
        """A view of some slots, see :meth:`KVCache.pick`."""
        return LMCache(*(cache.pick(slots) for cache in (self.understanding, self.backbone, self.generation)))

    def forget_experts(self, start: int, stop: int) -> None:
        """Clear the experts' entries at positions start..stop-1.

        That is what both experts hold for text in front of any audio: their input is zero there, and without biases
        zero stays zero through every layer.
        """
        for cache in (self.understanding, self.generation):
            cache.clear(start, stop)


class AudioLM(nn.Module):
    """The language model over frames of K audio streams and one text stream.

    Source: UniAudio 2.0 (arXiv:2602.04683) and ARCHITECTURE section 1.

    Args:
        config: Sizes and vocabularies.
    """

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        width, audio = config.backbone.width, config.audio
        self.text_embedding = Embedding(config.text_vocab_size, width)
        self.audio_embedding = Embedding(audio.num_codebooks * audio.size, width)
        eps, dropout = config.norm_eps, config.dropout
        self.understanding = Transformer(config.understanding, config.rope, norm_eps=eps, dropout=dropout)
        self.backbone = Transformer(config.backbone, config.rope, norm_eps=eps, dropout=dropout)
        self.generation = Transformer(config.generation, config.rope, norm_eps=eps, dropout=dropout)
        self.text_head = Linear(width, config.text_vocab_size)
        self.depth = DepthDecoder(
            config.depth,
            config.rope,
            input_width=width,
            num_codebooks=audio.num_codebooks,
            vocab_size=audio.size,
            norm_eps=eps,
            dropout=dropout,
        )
        offsets = torch.arange(audio.num_codebooks) * audio.size
        self.register_buffer("_offsets", offsets, persistent=False)
        self._offsets: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of activations, and of the weights unless they are quantised."""
        return self.backbone.norm.weight.dtype

    def initialise(self, generator: torch.Generator | None = None) -> AudioLM:
        """Draw fresh weights and return self; also after ``to_empty``.

        Choice: normal with deviation 0.02 everywhere, matrices that end a residual branch scaled down by
        1/sqrt(2 x layers) of their stack, as GPT-2 does; the paper does not say.
        """
        self._offsets.copy_(torch.arange(self.config.audio.num_codebooks) * self.config.audio.size)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                nn.init.ones_(parameter)
                continue
            deviation = 0.02
            if name.endswith(("attention.out.weight", "mlp.down.weight")):
                stack = self.depth.transformer if name.startswith("depth.") else getattr(self, name.split(".")[0])
                deviation /= (2 * len(stack.layers)) ** 0.5
            nn.init.normal_(parameter, 0.0, deviation, generator=generator)
        return self

    # -- embeddings -------------------------------------------------------------------------------------------------

    def embed_audio(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Masked sum of the codebooks' embeddings.

        Args:
            tokens: Audio ids (..., K).
            mask: Which count, bool (..., K).

        Returns:
            (..., D).
        """
        return self.audio_embedding.bag(tokens + self._offsets, mask)

    def embed_codebook(self, ids: Tensor, codebook: int) -> Tensor:
        """Embedding of ids (...) of one codebook, (..., D)."""
        return self.audio_embedding(ids + codebook * self.config.audio.size)

    # -- whole sequences --------------------------------------------------------------------------------------------

    def hidden_states(
        self, tokens: Tensor, mask: Tensor, probe: AttentionProbe | None = None
    ) -> tuple[Tensor, Tensor, Probed | None]:
        """Run sequences without a cache.

        Args:
            tokens: (B, S, K+1).
            mask: Bool, (B, S, K+1).
            probe: What is wanted from inside of the backbone.

        Returns:
            Hidden states for the heads (B, S, D), the understanding expert's output (B, S, D), and what was probed.
        """
        is_audio, is_text = mask[..., :1], mask[..., -1:]
        heard, _ = self.understanding(self.embed_audio(tokens[..., :-1], mask[..., :-1]))
        text = self.text_embedding(tokens[..., -1])
        state, probed = self.backbone(is_audio * heard + is_text * text, probe=probe)
        spoken, _ = self.generation(is_audio * state)
        return is_audio * spoken + is_text * state, heard, probed

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        *,
        shown: Tensor | None = None,
        audio_targets: Tensor | None = None,
        text_targets: Tensor | None = None,
        probe: AttentionProbe | None = None,
    ) -> LMOutput:
        """Teacher-forced forward for training: row p predicts row p+1.

        Args:
            tokens: (B, S, K+1), text last.
            mask: Bool of the same shape.
            shown: What the model reads, if not ``tokens``, which are then only what it should predict; same shape.
            audio_targets: Flat indices into B*(S-1) of positions whose next row the local decoder predicts, (N,);
                None: every position that is followed by audio, as published. Give a subset to save time.
            text_targets: Flat indices into B*(S-1) at which the text head runs, (M,); None: everywhere.
            probe: What is wanted from inside of the backbone (for guided attention).

        Returns:
            Logits, labels and intermediate states.

        Raises:
            ValueError: If the shapes do not fit.
        """
        self._check(tokens, mask)
        read = tokens if shown is None else shown
        hidden, heard, probed = self.hidden_states(read[:, :-1], mask[:, :-1], probe)
        flat = hidden.reshape(-1, hidden.shape[-1])
        if audio_targets is None:
            audio_targets = mask[:, 1:, 0].reshape(-1).nonzero().squeeze(1)
        labels = tokens[:, 1:, :-1].reshape(-1, self.config.audio.num_codebooks)[audio_targets]
        embedded = self.audio_embedding((labels + self._offsets)[:, :-1])
        words = tokens[:, 1:, -1]
        return LMOutput(
            text_logits=self.text_head(hidden if text_targets is None else flat[text_targets]),
            audio_logits=self.depth(flat[audio_targets], embedded),
            audio_labels=labels,
            text_labels=words if text_targets is None else words.reshape(-1)[text_targets],
            audio_targets=audio_targets,
            text_targets=text_targets,
            understanding=heard,
            hidden=hidden,
            probed=probed,
        )

    def forward_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Text logits (B, S, V) at every position, without the shift."""
        self._check(tokens, mask)
        return self.text_head(self.hidden_states(tokens, mask)[0])

    def _check(self, tokens: Tensor, mask: Tensor) -> None:
        columns = self.config.audio.num_codebooks + 1
        if tokens.ndim != 3 or tokens.shape[-1] != columns or tokens.shape != mask.shape:
            raise ValueError(
                f"tokens and mask must both be (B, S, {columns}), got {tuple(tokens.shape)} and {tuple(mask.shape)}"
            )

    # -- cached steps -----------------------------------------------------------------------------------------------

    def new_cache(self, batch_size: int, max_positions: int, *, dtype: torch.dtype | None = None) -> LMCache:
        """Caches for ``batch_size`` sequences of up to ``max_positions`` rows."""
        kind = dtype or self.dtype
        stacks = (self.understanding, self.backbone, self.generation)
        return LMCache(*(s.new_cache(batch_size, max_positions, device=self.device, dtype=kind) for s in stacks))

    def step(
        self,
        tokens: Tensor,
        mask: Tensor,
        cache: LMCache,
        positions: Tensor,
        *,
        length: int,
        exact: bool = False,
        experts: bool = True,
    ) -> Tensor:
        """Run new rows against the caches: one frame, or a chunk of a prompt.

        Args:
            tokens: New rows (B, S, K+1).
            mask: Bool of the same shape.
            cache: Filled up to the first new row; its slots are the rows of the batch.
            positions: Positions of the new rows, (B, S).
            length: Cache positions to read, above the largest position.
            exact: S is 1 and every row stands at position ``length - 1``.
            experts: False skips both experts: right only when these rows are text and no audio follows them.

        Returns:
            Hidden states (B, S, D).
        """

        def run(stack: Transformer, inputs: Tensor, kept: KVCache) -> Tensor:
            """Step one stack at the same positions."""
            return stack.step(inputs, kept, positions, length=length, exact=exact)

        text = self.text_embedding(tokens[..., -1])
        is_audio, is_text = mask[..., :1], mask[..., -1:]
        if not experts:
            return run(self.backbone, is_text * text, cache.backbone)
        embedded = self.embed_audio(tokens[..., :-1], mask[..., :-1])
        heard = run(self.understanding, embedded, cache.understanding)
        state = run(self.backbone, is_audio * heard + is_text * text, cache.backbone)
        spoken = run(self.generation, is_audio * state, cache.generation)
        return is_audio * spoken + is_text * state


_PUBLISHED_STACKS = {
    "understanding": "audio_understanding_expert",
    "backbone": "backbone",
    "generation": "audio_generation_expert",
    "depth.transformer": "decoder",
}
_PUBLISHED_BLOCK = {
    "attention_norm.weight": "norm_1.weight",
    "attention.qkv.weight": "attn.qkv.weight",
    "attention.out.weight": "attn.proj.weight",
    "mlp_norm.weight": "norm_2.weight",
    "mlp.gate.weight": "mlp.fc_1.weight",
    "mlp.up.weight": "mlp.fc_2.weight",
    "mlp.down.weight": "mlp.proj.weight",
}
_PUBLISHED_SINGLE = {
    "text_embedding.weight": "backbone.transformer.wte.weight",
    "text_head.weight": "backbone.lm_head.weight",
    "audio_embedding.weight": "audio_embeddings.weight",
    "depth.projection.weight": "projection.weight",
    "depth.heads": "audio_head",
}
_BLOCK_KEY = re.compile(r"(.+)\.layers\.(\d+)\.(.+)")


def published_lm_key(name: str) -> str:
    """Key in the published checkpoint of one of our parameters; shapes are equal, nothing is transposed.

    Source: ARCHITECTURE section 4.1.

    Raises:
        KeyError: If ``name`` is no parameter of :class:`AudioLM`.
    """
    if name in _PUBLISHED_SINGLE:
        return _PUBLISHED_SINGLE[name]
    match = _BLOCK_KEY.fullmatch(name)
    if match and match[1] in _PUBLISHED_STACKS and match[3] in _PUBLISHED_BLOCK:
        return f"{_PUBLISHED_STACKS[match[1]]}.transformer.h.{match[2]}.{_PUBLISHED_BLOCK[match[3]]}"
    stack = name.removesuffix(".norm.weight")
    if stack in _PUBLISHED_STACKS and stack != name:
        return f"{_PUBLISHED_STACKS[stack]}.transformer.ln_f.weight"
    raise KeyError(f"'{name}' is no parameter of the language model")


def lm_state_from_published(state: dict[str, Tensor], model: AudioLM) -> dict[str, Tensor]:
    """Rename a published state for ``model.load_state_dict(..., strict=True)``.

    Args:
        state: Published keys, without a leading ``module.``.
        model: The model to load into; only its parameter names are used (it may be on the meta device).

    Raises:
        ValueError: If keys are missing or left over; all are named.
    """
    wanted = {published_lm_key(name): name for name in model.state_dict()}
    missing, unused = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unused:
        raise UserError(f"published state does not fit: missing {missing or 'none'}; not used {unused or 'none'}")
    return {name: state[key] for key, name in wanted.items()}
