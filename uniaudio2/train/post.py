"""Post-training of the language model: several answers to every prompt, a rule says how good each is.

Source: the paper names post-training as its fifth limitation. The objective is GRPO's (arXiv:2402.03300): an answer's
advantage is its reward beside those of the other answers to its prompt, no critic is needed, a KL term holds the
model near the one it started from. Choice: rewards by rule alone (word errors, equality), so only rows that end in
text; one step for every draw of answers, so that nothing has to be clipped; the mixture's own loss goes on beside it,
so that what is not rewarded is not lost.

Shapes: n answers, S positions, K codebooks, V text ids.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.data.collate import LMBatch
from uniaudio2.data.dataset import Filled, LMDataset
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.engine.engine import Engine
from uniaudio2.engine.request import GenerationRequest
from uniaudio2.engine.sampling import SamplingConfig, derive_seed
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import SequenceBuilder, TokenSequence
from uniaudio2.tasks import Form, Task, Text
from uniaudio2.train.config import TrainingError
from uniaudio2.train.lm import LMStage, LMTrainConfig
from uniaudio2.train.policy import advantages, grpo_loss, reward


@dataclass(frozen=True)
class PostTrainConfig(LMTrainConfig):
    """A post-training stage: that of the language model, and how answers are drawn and rewarded."""

    prompts: int = 6  # of each micro-batch that are answered
    answers: int = 6  # to each of them
    temperature: float = 1.0  # at which answers are drawn
    policy: float = 1.0  # weight of the GRPO loss
    kl: float = 0.02  # weight of the distance to the weights it began with
    supervised: float = 0.2  # weight of the mixture's own loss

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers < 2:
            raise TrainingError(f"answers must be at least 2, got {self.answers}: they are compared with each other")
        if self.prompts < 1 or min(self.policy, self.kl, self.supervised) < 0:
            raise TrainingError("prompts must be at least 1; policy, kl and supervised not negative")
        if not self.init_from:
            raise TrainingError("post-training needs weights to start from: set init_from")


@dataclass(frozen=True)
class PostBatch:
    """A batch of the mixture, and what of it is asked: names of forms and items."""

    mixture: LMBatch
    asked: tuple[tuple[str, int], ...]
    seed: int


@dataclass(frozen=True)
class Question:
    """A prompt to answer, and what is right."""

    task: Task
    filled: Filled
    right: tuple[str, ...]  # any of these


def answer_log_probs(
    lm: AudioLM, builder: SequenceBuilder, sequences: Sequence[TokenSequence], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the target texts of sequences that end in text, as drawn at a temperature.

    Returns:
        (n, longest - 1) float32, 0 outside of the targets, and which are targets, bool of the same shape.
    """
    batch = builder.collate(sequences).to(lm.device)
    targets = batch.loss_mask[:, 1:, -1]
    places = targets.reshape(-1).nonzero().squeeze(1)
    output = lm(batch.tokens, batch.mask, audio_targets=places[:0], text_targets=places)
    log_probs = (output.text_logits.float() / temperature).log_softmax(-1)
    chosen = log_probs.gather(1, output.text_labels[:, None]).squeeze(1)
    return chosen.new_zeros(targets.shape).masked_scatter(targets, chosen), targets


class PostStage(LMStage):
    """Post-training for the trainer.

    Args:
        config: The stage.

    Raises:
        TrainingError: If no row of the mixture ends in a text that a rule can score.
    """

    config: PostTrainConfig

    def __init__(self, config: PostTrainConfig) -> None:
        super().__init__(config)
        if not any(_scored(form) for form in self.dataset.forms.values()):
            raise TrainingError("mixture.weights: no row there ends in a text that a rule can score, such as asr")
        self.start = copy.deepcopy(self.model.lm).eval().requires_grad_(False)
        self.engine = Engine(self.model.lm, self.dataset.builder)

    def batch(self, step: int, seed: int) -> PostBatch:  # type: ignore[override]
        """A batch of the mixture, and some of its draws that end in text."""
        mixture, rng = super().batch(step, seed), batch_rng(seed, step, stream=0)
        draws = [segment for draw in self.dataset.planner.batch(step) for segment in draw.segments]
        draws = [(name, item) for name, item in draws if _scored(self.dataset.forms[name])]
        chosen = rng.permutation(len(draws))[: self.config.prompts]
        return PostBatch(mixture, tuple(draws[int(i)] for i in chosen), int(rng.integers(2**31)))

    def question(
        self, dataset: LMDataset, form: Form, item: int, rng: np.random.Generator, *, training: bool
    ) -> Question:
        """An example as a question; a caption may be any of the example's phrasings."""
        filled = dataset.fill(form, item, rng, training=training)
        (output,) = form.task.outputs
        wanted = filled.values[output.value]
        assert isinstance(wanted, Sequence)
        text = wanted if isinstance(wanted, str) else dataset.builder.ids_to_text(wanted)  # pyright: ignore[reportArgumentType]
        source = form.sources[output.value]
        others = dataset.store.clips[item].phrasings(source.name) if isinstance(source, Text) else ()
        return Question(form.task, filled, tuple(dict.fromkeys((text, *others))))

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The mixture's loss and GRPO's."""
        config = self.config
        total, metrics = super().loss(batch.mixture, step)
        total = config.supervised * total
        if batch.asked:
            rng = np.random.default_rng(batch.seed)
            forms = self.dataset.forms
            questions = [self.question(self.dataset, forms[n], i, rng, training=True) for n, i in batch.asked]
            sequences, rewards = self.answer(questions, config.answers, config.temperature, batch.seed)
            builder = self.dataset.builder
            with torch.no_grad():
                start, _ = answer_log_probs(self.start, builder, sequences, config.temperature)
            now, targets = answer_log_probs(self.model.lm, builder, sequences, config.temperature)
            loss, distance = grpo_loss(now, start, targets, advantages(rewards).flatten().to(now.device), config.kl)
            total = total + config.policy * loss
            metrics |= {"reward": rewards.mean(), "best_reward": rewards.amax(1).mean(), "kl": distance}
        return total, metrics

    def answer(
        self, questions: Sequence[Question], answers: int, temperature: float, seed: int
    ) -> tuple[list[TokenSequence], Tensor]:
        """Draw answers.

        Returns:
            Sequences with the answers as targets, those of a question next to each other, and rewards
            (questions, answers).
        """
        builder, tokens = self.dataset.builder, self.tokenizer.tokens
        requests = []
        for number, question in enumerate(questions):
            filled, task = question.filled, question.task
            prompt = builder.prompt(task, filled.values, shots=filled.shots, language=filled.language)
            longest = max(len(builder.text_ids(one)) for one in question.right)
            for attempt in range(answers):
                requests.append(
                    GenerationRequest(
                        prompt,
                        SamplingConfig(temperature),
                        seed=derive_seed(seed, number, attempt),
                        limits={"text": (1, 2 * longest + 8)},
                    )
                )
        training = self.model.training
        self.model.eval()
        made = self.engine.generate(requests)
        self.model.train(training)
        sequences: list[TokenSequence] = []
        rewards: list[float] = []
        for number, result in enumerate(made):
            question, part = questions[number // answers], result.parts[0]
            task, filled = question.task, question.filled
            ids = [tokens.bos, *part.ids.tolist(), tokens.eos]
            values = {**filled.values, task.outputs[0].value: ids}
            sequences.append(builder.example(task, values, shots=filled.shots, language=filled.language))
            ended = part.end == "end"
            score = task.training.score if task.training is not None else "exact"
            rewards.append(reward(score, question.right, part.text or "") if ended else 0.0)
        return sequences, torch.tensor(rewards).view(len(questions), answers)

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out figures of the language model's stages, and the reward of the likeliest answers."""
        figures = super().evaluate(step)
        for group, (form, items) in self.groups.items():
            if _scored(form):
                rngs = (batch_rng(0, item, stream=7) for item in items)
                asked = [
                    self.question(self.dev, form, i, rng, training=False) for i, rng in zip(items, rngs, strict=True)
                ]
                figures[f"{group}/reward"] = float(self.answer(asked, 1, 0.0, 0)[1].mean())
        return figures


def _scored(form: Form) -> bool:
    """Whether a rule can score the answers of a row: one text, that a condition decides."""
    training, outputs = form.task.training, form.task.outputs
    rule = training is not None and training.score != "nats"
    return rule and bool(form.inputs) and len(outputs) == 1 and outputs[0].kind == "text"
