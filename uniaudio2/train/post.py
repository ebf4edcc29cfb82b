"""Post-training of the language model: several answers to every prompt, some better than others.

Source: the paper names post-training as its fifth limitation. The objective is GRPO's (arXiv:2402.03300): an answer's
advantage is its reward beside those of the other answers to its prompt, no critic is needed, a KL term holds the
model near the one it started from. Choice: answers in text are rewarded by rule (word errors, equality), speech by how
well the model that it began with hears its text (see `uniaudio2.train.spoken`); one step for every draw of answers, so
that nothing has to be clipped; the mixture's own loss goes on beside it, so that what is not rewarded is not lost.

Shapes: n answers, S positions, K codebooks, V text ids, J text tokens of a sentence.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniaudio2.checkpoint import load_codec
from uniaudio2.codes import AudioCodes
from uniaudio2.data.collate import LMBatch
from uniaudio2.data.dataset import Filled, LMDataset
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.data.prepare import codec_fingerprint
from uniaudio2.engine.engine import Engine
from uniaudio2.engine.request import GenerationRequest, GenerationResult
from uniaudio2.engine.sampling import SamplingConfig, derive_seed
from uniaudio2.lm import AudioLM
from uniaudio2.sequence import SequenceBuilder, TokenSequence, Value
from uniaudio2.tasks import Audio, Form, Task, Text, get_form
from uniaudio2.train.config import TrainingError
from uniaudio2.train.identity import fingerprint
from uniaudio2.train.lm import LMStage, LMTrainConfig
from uniaudio2.train.lm_start import folders_of
from uniaudio2.train.policy import advantages, grpo_loss, reward
from uniaudio2.train.spoken import Listener, local_advantages

ROLLOUT_ROWS = 64  # answers that are drawn at once


@dataclass(frozen=True)
class PostTrainConfig(LMTrainConfig):
    """A post-training stage: that of the language model, and how answers are drawn and rewarded."""

    prompts: int = 6  # of each micro-batch that are answered
    answers: int = 6  # to each of them
    temperature: float = 1.0  # at which answers in text are drawn
    speech_temperature: float = 0.6  # at which speech is drawn
    # Forms that are answered, such as tts; none: all of the mixture whose answers can be rewarded.
    rows: tuple[str, ...] = ()
    codec: str | None = None  # model folder whose codec makes speech audible; null: the shipped one
    policy: float = 1.0  # weight of the GRPO loss
    kl: float = 0.02  # weight of the distance to the weights it began with
    supervised: float = 0.2  # weight of the mixture's own loss

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers < 2:
            raise TrainingError(f"answers must be at least 2, got {self.answers}: they are compared with each other")
        if self.prompts < 1 or min(self.policy, self.kl, self.supervised) < 0:
            raise TrainingError("prompts must be at least 1; policy, kl and supervised not negative")
        if min(self.temperature, self.speech_temperature) <= 0:
            raise TrainingError("temperature and speech_temperature must be above 0: answers must differ")
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
    right: tuple[str, ...]  # any of these; of speech what it should say
    length_s: float = 0.0  # of speech


def answer_log_probs(
    lm: AudioLM, builder: SequenceBuilder, sequences: Sequence[TokenSequence], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the targets of sequences, texts and codes, as drawn at a temperature.

    Returns:
        (n, longest - 1, K+1) float32, 0 outside of the targets, and which are targets, bool of the same shape.
    """
    batch = builder.collate(sequences).to(lm.device)
    targets = batch.loss_mask[:, 1:]
    flat = targets.flatten(0, 1)
    codes, words = (flat[:, column].nonzero().squeeze(1) for column in (0, -1))
    output = lm(batch.tokens, batch.mask, audio_targets=codes, text_targets=words)

    def chosen(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.float() / temperature).log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)

    log_probs = torch.zeros(flat.shape, device=flat.device).index_put(
        (codes[:, None], torch.arange(flat.shape[1] - 1, device=flat.device)),
        chosen(output.audio_logits, output.audio_labels),
    )
    log_probs = log_probs.index_put(
        (words, torch.full_like(words, flat.shape[1] - 1)), chosen(output.text_logits, output.text_labels)
    )
    return log_probs.view(targets.shape), targets


def only_drawn(sequence: TokenSequence, request: GenerationRequest, result: GenerationResult) -> TokenSequence:
    """The answer as a target without what the engine did not draw: begin frames and tags, and ends that a limit set.

    Args:
        sequence: The prompt of the request and what came of it.
        request: What was asked.
        result: What was drawn.
    """
    drawn = torch.zeros(len(sequence), 1, dtype=torch.bool, device="cpu")
    start = len(request.prompt)
    for index, (part, phase) in enumerate(zip(result.parts, request.prompt.phases, strict=True)):
        stop = start + len(part.ids)
        drawn[start : stop + (part.end == "end" and not request.frame_ratio(index))] = True
        start = stop + len(phase.link_tokens)
    return replace(sequence, loss_mask=sequence.loss_mask & drawn)


class PostStage(LMStage):
    """Post-training for the trainer.

    Args:
        config: The stage.

    Raises:
        TrainingError: If no row of the mixture, or one of those that are named, has answers that can be rewarded, or
            the codec is not the one that made the codes.
    """

    config: PostTrainConfig

    def __init__(self, config: PostTrainConfig) -> None:
        super().__init__(config)
        forms = self.dataset.forms
        named = [get_form(name).name for name in config.rows]
        for name in named:
            if name not in forms or not _rewarded(forms[name]):
                raise TrainingError(f"rows: {name!r} is no row of the mixture whose answers can be rewarded")
        self.asked = set(named or (name for name, form in forms.items() if _rewarded(form)))
        if not self.asked:
            raise TrainingError("mixture.weights: no row there has answers that can be rewarded, such as asr or tts")
        self.start = copy.deepcopy(self.model.lm).eval().requires_grad_(False)
        self.engine = Engine(self.model.lm, self.dataset.builder, max_batch=ROLLOUT_ROWS)
        self.codec = None  # an attribute, so that it moves to the device with the rest
        if any(forms[name].task.makes_audio for name in self.asked):
            self.codec = load_codec(config.codec).requires_grad_(False)
            if codec_fingerprint(self.codec) != self.dataset.store.codec:
                raise TrainingError(
                    f"codec: the codes were not made by the codec of {config.codec or 'the shipped model'}; set it to "
                    "the model folder that `uniaudio2 prepare` was given"
                )
            self.listener = Listener(self.codec, self.start, self.dataset.builder)

    def identity(self) -> dict[str, Any]:
        """The weights that it began with, which judge, belong to it: they are read again when it goes on."""
        return {**super().identity(), "start": fingerprint(folders_of(self.config.init_from or ""), ("lm*",))}

    def batch(self, step: int, seed: int) -> PostBatch:  # type: ignore[override]
        """A batch of the mixture, and some of its draws to be answered."""
        mixture, rng = super().batch(step, seed), batch_rng(seed, step, stream=0)
        draws = [segment for draw in self.dataset.planner.batch(step) for segment in draw.segments]
        draws = [(name, item) for name, item in draws if name in self.asked]
        chosen = rng.permutation(len(draws))[: self.config.prompts]
        return PostBatch(mixture, tuple(draws[int(i)] for i in chosen), int(rng.integers(2**31)))

    def question(
        self, dataset: LMDataset, form: Form, item: int, rng: np.random.Generator, *, training: bool
    ) -> Question:
        """An example as a question; a caption may be any of the example's phrasings."""
        filled = dataset.fill(form, item, rng, training=training)
        (output,) = form.task.outputs
        source, clip = form.sources[output.value], dataset.store.clips[item]
        wanted = filled.values[output.value]
        if isinstance(source, Audio):
            assert isinstance(wanted, AudioCodes) and source.says is not None
            length_s = wanted.covered_samples / wanted.sample_rate
            return Question(form.task, filled, (clip.texts[source.says],), length_s)
        assert isinstance(wanted, Sequence)
        text = wanted if isinstance(wanted, str) else dataset.builder.ids_to_text(wanted)  # pyright: ignore[reportArgumentType]
        others = clip.phrasings(source.name) if isinstance(source, Text) else ()
        return Question(form.task, filled, tuple(dict.fromkeys((text, *others))))

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The mixture's loss and GRPO's."""
        config = self.config
        total, metrics = super().loss(batch.mixture, step)
        total = config.supervised * total
        rng = np.random.default_rng(batch.seed)
        forms = self.dataset.forms
        asked = [self.question(self.dataset, forms[n], i, rng, training=True) for n, i in batch.asked]
        for spoken in (False, True):
            questions = [question for question in asked if question.task.makes_audio == spoken]
            if questions:
                loss, found = self.policy_loss(questions, batch.seed, spoken)
                total = total + config.policy * len(questions) / len(asked) * loss
                metrics |= found
        return total, metrics

    def policy_loss(
        self, questions: Sequence[Question], seed: int, spoken: bool
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """GRPO's loss for questions that are all answered in speech, or all in text, and what to log of it."""
        config, builder, lm = self.config, self.dataset.builder, self.model.lm
        temperature = config.speech_temperature if spoken else config.temperature
        sequences, rewards = self.answer(questions, config.answers, temperature, seed)
        if spoken:
            longest, count = max(map(len, sequences)), config.answers
            groups = [sequences[first : first + count] for first in range(0, len(sequences), count)]
            advantage = torch.cat([local_advantages(r, g, longest) for r, g in zip(rewards, groups, strict=True)])
            means = torch.stack([one.mean(1) for one in rewards])
        else:
            means = torch.cat(rewards, 1).T
            advantage = advantages(means).reshape(-1, 1)
        with torch.no_grad():
            start, _ = answer_log_probs(self.start, builder, sequences, temperature)
        now, targets = answer_log_probs(lm, builder, sequences, temperature)
        loss, distance = grpo_loss(now, start, targets, advantage[..., None].to(now.device), config.kl)
        prefix = "speech_" if spoken else ""
        figures = {"reward": means.mean(), "best_reward": means.amax(1).mean(), "kl": distance}
        return loss, {prefix + name: value for name, value in figures.items()}

    def answer(
        self, questions: Sequence[Question], answers: int, temperature: float, seed: int
    ) -> tuple[list[TokenSequence], list[Tensor]]:
        """Draw answers to questions.

        Returns:
            Sequences with the answers as targets, those of a question next to each other, and for every question the
            rewards: of each answer in text (answers, 1), of speech for each token of the text (answers, J).
        """
        builder, hops = self.dataset.builder, self.dataset.store.hops.items()
        requests = []
        for number, question in enumerate(questions):
            filled, task = question.filled, question.task
            prompt = builder.prompt(task, filled.values, shots=filled.shots, language=filled.language)
            if task.makes_audio:
                usual = question.length_s * self.dataset.store.sample_rate
                limits = {k: (max(1, int(0.5 * usual / hop)), math.ceil(1.6 * usual / hop) + 3) for k, hop in hops}
            else:
                longest = max(len(builder.text_ids(one)) for one in question.right)
                limits = {"text": (1, 2 * longest + 8)}
            for attempt in range(answers):
                drawn = derive_seed(seed, number, attempt)
                requests.append(GenerationRequest(prompt, SamplingConfig(temperature), seed=drawn, limits=limits))
        training = self.model.training
        self.model.eval()
        made = self.engine.generate(requests)
        self.model.train(training)
        sequences: list[TokenSequence] = []
        rewards: list[Tensor] = []
        for number, question in enumerate(questions):
            own = made[number * answers : (number + 1) * answers]
            task, filled = question.task, question.filled
            judge = self._heard if task.makes_audio else self._scored
            values, found = judge(question, own, derive_seed(seed, number))
            rewards.append(found)
            name = task.outputs[0].value
            for value, asked, result in zip(values, requests[number * answers :], own, strict=False):
                given = {**filled.values, name: value}
                sequence = builder.example(task, given, shots=filled.shots, language=filled.language)
                sequences.append(only_drawn(sequence, asked, result))
        return sequences, rewards

    def _scored(self, question: Question, answers: Sequence[GenerationResult], seed: int) -> tuple[list[Value], Tensor]:
        """Answers in text as values of a sequence, and their rewards (n, 1)."""
        tokens, training = self.tokenizer.tokens, question.task.training
        score = training.score if training is not None else "exact"
        parts = [answer.parts[0] for answer in answers]
        found = [reward(score, question.right, part.text or "") if part.end == "end" else 0.0 for part in parts]
        return [[tokens.bos, *part.ids.tolist(), tokens.eos] for part in parts], torch.tensor(found)[:, None]

    def _heard(self, question: Question, answers: Sequence[GenerationResult], seed: int) -> tuple[list[Value], Tensor]:
        """Speech as values of a sequence, and its rewards (n, J)."""
        codes, language = [answer.codes() for answer in answers], question.filled.language
        return list(codes), self.listener.rewards(codes, question.right[0], language, question.length_s, seed)

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out figures of the model's stages, and the reward of the likeliest answers, or of drawn speech."""
        figures = super().evaluate(step)
        for group, (form, items) in self.groups.items():
            if form.name in self.asked:
                rngs = (batch_rng(0, item, stream=7) for item in items)
                asked = [
                    self.question(self.dev, form, i, rng, training=False) for i, rng in zip(items, rngs, strict=True)
                ]
                temperature = self.config.speech_temperature if form.task.makes_audio else 0.0
                rewards = self.answer(asked, 1, temperature, 0)[1]
                figures[f"{group}/reward"] = float(torch.stack([one.mean() for one in rewards]).mean())
        return figures


def _rewarded(form: Form) -> bool:
    """Whether answers of a row can be rewarded: one text that a rule scores, or speech whose text is given."""
    training, outputs = form.task.training, form.task.outputs
    if training is None or not form.inputs or len(outputs) != 1:
        return False
    source = form.sources[outputs[0].value]
    if isinstance(source, Audio):
        given = [form.sources[part.value] for part in form.inputs]
        return any(isinstance(one, Text) and one.name == source.says for one in given)
    return outputs[0].kind == "text" and training.score != "nats"
