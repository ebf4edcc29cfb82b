"""Stage 4b: the reasoning branch and its text decoder, by texts that they draw themselves and a rule rewards.

Source: UniAudio 2.0 aligns its reasoning codes with text first by supervised training, then by GRPO. Choice: rewards by
rule alone (the share of words or characters that are right; of captions whether they are one of the phrasings), no
second model as a judge.

Shapes: ``B`` batch, ``n`` texts drawn of it, ``T`` reasoning frames (5 Hz), ``L`` text tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.text_decoder import TextDecoder
from uniaudio2.tasks import Score
from uniaudio2.train.codec.base import padded
from uniaudio2.train.codec.reasoning import ReasoningStage, ReasoningStageConfig
from uniaudio2.train.config import TrainingError
from uniaudio2.train.identity import fingerprint
from uniaudio2.train.policy import advantages, grpo_loss, reward


@dataclass(frozen=True, kw_only=True)
class ReasoningGRPOConfig(ReasoningStageConfig):
    """Stage ``reasoning_grpo``."""

    stage: Literal["reasoning_grpo"] = "reasoning_grpo"  # pyright: ignore[reportIncompatibleVariableOverride]
    # The text decoder alone learns: what was encoded stays as it is.
    freeze_codes: bool = False
    answers: int = 6  # texts drawn of every clip
    temperature: float = 1.0  # at which they are drawn
    policy: float = 1.0  # weight of the GRPO loss
    kl: float = 0.02  # weight of the distance to the weights it began with
    supervised: float = 0.3  # weight of the supervised loss, so that what is not rewarded is not lost

    def __post_init__(self) -> None:
        if self.answers < 2:
            raise TrainingError(f"answers must be at least 2, got {self.answers}: they are compared with each other")
        if min(self.policy, self.kl, self.supervised) < 0 or self.temperature <= 0:
            raise TrainingError("policy, kl and supervised must not be negative, temperature must be above 0")
        if self.quantize_after:
            raise TrainingError("GRPO reads codes from its first step on: leave quantize_after at 0")
        if self.text_decoder is None:
            raise TrainingError("GRPO needs weights to start from: set text_decoder to the export of stage reasoning")


class ReasoningGRPOStage(ReasoningStage):
    """Several texts of every clip are drawn from its codes; the better ones become likelier.

    The gradient reaches the reasoning branch through its quantiser as in the stage before, unless codes are frozen.
    """

    name = "reasoning_grpo"
    config: ReasoningGRPOConfig

    def __init__(self, config: ReasoningGRPOConfig, codec: ReasoningCodec) -> None:
        super().__init__(config, codec)
        if config.freeze_codes:
            codec.reasoning.requires_grad_(False)
            self.freeze_codebooks = True
        for module in codec.reasoning.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # what is drawn, and how likely it was at the start, is compared without noise
        self.start = copy.deepcopy(self.model).eval().requires_grad_(False)

    def identity(self) -> dict[str, Any]:
        """The weights that the KL term holds on to belong to it: they are read again when a run goes on."""
        files = [str(one) for one in (*self.config.parts, self.config.text_decoder) if one]
        return {**super().identity(), "start": fingerprint(files, ())}

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The supervised loss and GRPO's."""
        config = self.config
        if config.freeze_codes:
            self.model["part"].eval()
        features = self.features(batch)
        vectors = self.vectors(features)
        total, logs = self.supervised(batch, vectors)
        if config.policy == 0:  # supervised training alone, to compare with
            return config.supervised * total, logs
        frames = batch["frames"].clamp(max=vectors[0].shape[1])
        rows, rewards = self.draw(batch["rows"].tolist(), vectors[0].detach(), frames)
        tokens = padded(rows, -100).to(self.device)
        now = _log_probs(self.model["text"], vectors[0], frames, tokens, config.temperature)
        with torch.no_grad():
            before = vectors[0] if config.freeze_codes else self.start["part"](features).quantized
            start = _log_probs(self.start["text"], before, frames, tokens, config.temperature)
        advantage = advantages(rewards).view(-1, 1).to(self.device)
        policy, distance = grpo_loss(now, start, tokens[:, 1:] >= 0, advantage, config.kl)
        logs |= {"reward": rewards.mean(), "best_reward": rewards.amax(1).mean(), "kl": distance}
        return config.supervised * total + config.policy * policy, logs

    def draw(self, examples: list[int], vectors: Tensor, frames: Tensor) -> tuple[list[list[int]], Tensor]:
        """Draw texts of training clips, by the global generator, which the trainer seeds for every micro-batch.

        Returns:
            Ids of each text with begin and end, those of a clip next to each other, and rewards (B, answers); a text
            that does not end has none.
        """
        clips = [self.train_corpus.examples[i] for i in examples]
        right = [(e.text or "",) if e.kind == "speech" else (e.caption or "", *e.captions) for e in clips]
        # A caption is right when it is one of the phrasings: single words of it name no sound.
        rules: list[Score] = ["wer" if e.kind == "speech" else "exact" for e in clips]
        longest = max(len(self.tokenizer.encode(text, special=False)) for texts in right for text in texts)
        most = min(self.text_config.max_tokens, 2 * longest + 8)
        decoder: Any = self.model["text"]
        answers, training = self.config.answers, decoder.training
        drawn = decoder.eval().generate(
            *(each.repeat_interleave(answers, 0) for each in (vectors, frames)),
            temperature=self.config.temperature,
            max_tokens=most,
        )
        decoder.train(training)
        begin, end = self.text_config.bos_id, self.text_config.eos_id
        rewards = []
        for number, ids in enumerate(drawn):
            clip, text = number // answers, self.tokenizer.decode(ids).strip()
            rewards.append(reward(rules[clip], right[clip], text) if len(ids) < most else 0.0)
        rows = [[begin, *ids, *([end] if len(ids) < most else [])] for ids in drawn]
        return rows, torch.tensor(rewards).view(-1, answers)


def _log_probs(decoder: Any, vectors: Tensor, frames: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (n, L - 1) of texts (n, L), -100 behind their ends, as they are drawn: without dropout."""
    assert isinstance(decoder, TextDecoder)
    training = decoder.training
    decoder.eval()
    memory, mask = decoder.read(vectors, frames)
    answers = len(tokens) // len(vectors)
    memory, mask = (each.repeat_interleave(answers, 0) for each in (memory, mask))
    logits = decoder.logits(tokens[:, :-1].clamp(min=0), memory, mask).float() / temperature
    decoder.train(training)
    return logits.log_softmax(-1).gather(2, tokens[:, 1:].clamp(min=0)[..., None])[..., 0]
