"""Post-training: rewards, advantages and the loss by hand; a small model is pushed towards what is rewarded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.spelled import LETTERS, Spelled, Speller, spell
from uniaudio2.checkpoint import load_lm
from uniaudio2.codes import REASONING_HOP, RECONSTRUCTION_HOP, AudioCodes, Stream
from uniaudio2.config import load_config, preset_path
from uniaudio2.data.prepare import prepare
from uniaudio2.hearing import LENGTH_WEIGHT
from uniaudio2.sequence import Span, TokenSequence
from uniaudio2.train import Trainer, TrainingError
from uniaudio2.train.lm import LMStage, LMTrainConfig
from uniaudio2.train.policy import advantages, grpo_loss, reward
from uniaudio2.train.post import PostStage, PostTrainConfig, answer_log_probs
from uniaudio2.train.spoken import Listener, local_advantages


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list(LETTERS[:4]), size)) for size in rng.integers(4, 8, 15)]
    return prepare(Speller(), Spelled(texts), tmp_path_factory.mktemp("post") / "codes")


@pytest.fixture(scope="module")
def start(codes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned to write something of the right kind."""
    out = tmp_path_factory.mktemp("start")
    small = [*small_settings(codes, out), "init_from=null", "train.steps=25", "train.lr=6e-3"]
    stage = LMStage(load_config(LMTrainConfig, preset_path("train", "lm_3"), small))
    result = Trainer(stage.config.train, stage, log=lambda line: None).run()
    assert result.export_dir is not None
    return result.export_dir


def small_settings(codes: Path, out: Path) -> list[str]:
    return [
        "lm=tiny", f"data.codes=[{codes}]", f"train.out_dir={out}", "mixture.house_voices=[]", "mixture.positions=256",
        "mixture.weights={asr: 1.0}", "mixture.source_repeats={}", "train.prefetch=none", "train.tensorboard=false",
        "train.precision=float32", "train.warmup_steps=1", "data.joined=0", "data.dev_clips=4",
        "losses.ctc=0", "losses.reading=0", "losses.foresight=0", "losses.guided_layer=1", "losses.history_noise=0",
    ]  # fmt: skip


def config(codes: Path, start: Path, out: Path, *more: str) -> PostTrainConfig:
    overrides = [*small_settings(codes, out), f"init_from={start}", *more]
    return load_config(PostTrainConfig, preset_path("train", "lm_post"), overrides)


@pytest.mark.parametrize(
    ("score", "right", "found", "expected"),
    [
        ("wer", ["a b c d"], "a b c d", 1.0),
        ("wer", ["a b c d"], "a x c d", 0.75),
        ("wer", ["a b"], "x y z u v", 0.0),
        ("cer", ["你好吗"], "你好", 2 / 3),
        ("class", ["a dog barks", "barking dog"], "Barking dog", 1.0),
        ("exact", ["paris"], "paris", 1.0),
        ("exact", ["the red one"], "the blue one", 0.2 * 2 / 3),
        ("exact", ["two"], "three", 0.0),
    ],
)
def test_rewards(score: str, right: list[str], found: str, expected: float) -> None:
    assert reward(score, right, found) == pytest.approx(expected)  # type: ignore[arg-type]


def test_advantages_compare_answers_to_one_question() -> None:
    found = advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]]))
    assert torch.allclose(found[0], torch.tensor([1.0, -1.0, -1.0, 1.0]))
    assert not found[1].any()
    assert torch.allclose(found.sum(1), torch.zeros(3), atol=1e-5) and found[2, 3] > 1.5


def test_the_loss_moves_probability_towards_better_answers_and_back_to_the_start() -> None:
    now = torch.tensor([[-1.0, -1.0], [-1.0, -1.0]], requires_grad=True)
    targets = torch.tensor([[True, True], [True, False]])
    loss, distance = grpo_loss(now, now.detach(), targets, torch.tensor([[1.0], [-1.0]]), kl=0.5)
    assert float(distance) == 0 and float(loss.detach()) == pytest.approx(-(2 - 1) / 3)
    loss.backward()
    assert now.grad is not None
    assert torch.allclose(now.grad, torch.tensor([[-1 / 3, -1 / 3], [1 / 3, 0.0]]))
    now.grad = None
    start = torch.full((2, 2), -1.5)
    loss, distance = grpo_loss(now, start, targets, torch.zeros(2, 1), kl=0.5)
    assert float(distance) == pytest.approx(math.exp(-0.5) + 0.5 - 1)
    loss.backward()
    assert bool((now.grad[targets] > 0).all())  # lower again, where it began


def test_answers_are_scored_and_their_log_probabilities_are_the_engines(
    codes: Path, start: Path, tmp_path: Path
) -> None:
    stage = PostStage(config(codes, start, tmp_path / "run"))
    form = stage.dataset.forms["asr"]
    rng = np.random.default_rng(0)
    items = [int(item) for item in stage.dataset.planner.pools["asr"].items[:2]]
    questions = [stage.question(stage.dataset, form, item, rng, training=False) for item in items]
    sequences, rewards = stage.answer(questions, 3, 1.0, seed=5)
    again, same = stage.answer(questions, 3, 1.0, seed=5)
    assert [one.shape for one in rewards] == [(3, 1)] * 2
    assert all(torch.equal(a, b) for a, b in zip(rewards, same, strict=True))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(sequences, again, strict=True))
    assert len({tuple(one.tokens[:, -1].tolist()) for one in sequences[:3]}) > 1
    with torch.no_grad():
        log_probs, targets = answer_log_probs(stage.model.lm, stage.dataset.builder, sequences)
        for row, sequence in enumerate(sequences):
            tokens, mask = sequence.tokens[None], sequence.mask[None]
            logits = stage.model.lm(tokens, mask).text_logits[0].log_softmax(-1)
            wanted = sequence.loss_mask[1:, -1]
            alone = logits.gather(1, sequence.tokens[1:, -1:])[wanted, 0]
            assert torch.allclose(log_probs[row][targets[row]], alone, atol=1e-4)
        assert not targets[..., :-1].any() and not log_probs[~targets].any()
    assert [question.right[0] for question in questions] == [stage.dataset.store.clips[item].text for item in items]


def test_rewards_rise_and_what_was_learned_is_handed_on(
    codes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers with many an "a" are rewarded, which any model can learn in few steps."""
    monkeypatch.setattr("uniaudio2.train.post.reward", lambda score, right, found: found.count("a") / (len(found) + 1))
    more = ["train.steps=12", "train.lr=1e-3", "answers=8", "prompts=4", "supervised=0", "kl=0", "train.eval_every=0"]
    stage = PostStage(config(codes, start, tmp_path / "run", *more))
    with torch.no_grad():
        before = stage.evaluate(0)
    assert {"asr_en/reward", "asr_en/nats"} <= before.keys()
    rng = np.random.default_rng(1)
    items = [int(item) for item in stage.dataset.planner.pools["asr"].items[:6]]
    form = stage.dataset.forms["asr"]
    questions = [stage.question(stage.dataset, form, item, rng, training=False) for item in items]
    _, then = stage.answer(questions, 8, 1.0, seed=9)
    result = Trainer(stage.config.train, stage, log=lambda line: None).run()
    _, now = stage.answer(questions, 8, 1.0, seed=9)
    assert float(torch.stack(now).mean()) > float(torch.stack(then).mean()) + 0.05, (then, now)
    assert '"reward"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert result.export_dir is not None and load_lm(result.export_dir).config == stage.start.config


class SmallSpeller(Speller):
    """The codec that the tiny model's vocabulary is for."""

    streams = (Stream("reasoning", REASONING_HOP, 8, 16), Stream("reconstruction", RECONSTRUCTION_HOP, 8, 32))


SPEAKS = ("mixture.weights={tts: 1.0}", "speech_temperature=1.0")


@pytest.fixture
def spoken(codes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PostStage:
    monkeypatch.setattr("uniaudio2.train.post.load_codec", lambda source: SmallSpeller())
    more = ["train.steps=12", "train.lr=6e-3", "answers=8", "prompts=4", "supervised=0", "kl=0", "train.eval_every=0"]
    return PostStage(config(codes, start, tmp_path / "run", *SPEAKS, *more))


def questions_of(stage: PostStage, row: str, count: int) -> list[Any]:
    form, rng = stage.dataset.forms[row], np.random.default_rng(1)
    items = [int(item) for item in stage.dataset.planner.pools[row].items[:count]]
    return [stage.question(stage.dataset, form, item, rng, training=False) for item in items]


def test_credit_goes_to_the_frames_where_a_token_is_said() -> None:
    tokens = torch.zeros(80, 9, dtype=torch.int64)

    def answer(coarse: int, fine: int) -> TokenSequence:
        """Rows 3 … of two streams between begin and end frames, of which the first end was drawn."""
        first, second = 3 + coarse + 2, 3 + coarse + 2 + fine + 2
        spans = (Span("reasoning", "audio", 3, first, True), Span("reconstruction", "audio", first, second, True))
        drawn = torch.zeros(80, 9, dtype=torch.bool)
        drawn[4:first, :-1] = drawn[first + 1 : second - 1, :-1] = True
        return TokenSequence(tokens, tokens > 0, drawn, (Span("text", "transcription", 0, 3, False), *spans))

    answers = [answer(20, 40), answer(10, 30)]
    rewards = torch.tensor([[0.0, -1.0, -1.0, -3.0], [-2.0, -1.0, -1.0, -1.0]])
    found = local_advantages(rewards, answers, length=80)
    assert found.shape == (2, 79)
    # Entry p belongs to row p + 1: begin frames and the end of the second stream are nobody's choice.
    drawn = [(slice(3, 24), slice(25, 65)), (slice(3, 14), slice(15, 45))]
    for each, parts in zip(found, drawn, strict=True):
        outside = torch.ones(79, dtype=torch.bool)
        for part in parts:
            outside[part] = False
            assert bool((each[part] != 0).any())
        assert not each[outside].any()
    assert bool((found[0, 3:7] > 0.5).all()) and bool((found[0, 20:24] < -0.5).all())
    assert bool((found[0, 25:32] > 0.5).all()) and bool((found[0, 58:65] < -0.5).all())
    assert bool((found[1, 3:5] < -0.5).all()) and bool((found[1, 42:45] > 0.5).all())
    assert not local_advantages(torch.ones(2, 4), answers, length=80).any()
    close = local_advantages(rewards * 1e-3, answers, length=80)
    assert float(close.abs().max()) < 0.02  # what hardly differs hardly pulls


@pytest.mark.parametrize("row", ["asr", "tts"])
def test_only_what_was_drawn_is_a_target(row: str, spoken: PostStage, codes: Path, start: Path, tmp_path: Path) -> None:
    stage = spoken if row == "tts" else PostStage(config(codes, start, tmp_path / "asr"))
    made: list[Any] = []
    generate = stage.engine.generate

    def noted(requests: Any) -> Any:
        made.extend(zip(requests, generate(requests), strict=True))
        return [result for _, result in made]

    stage.engine.generate = noted  # type: ignore[method-assign]
    sequences, _ = stage.answer(questions_of(stage, row, 4), 4, 1.0 if row == "tts" else 3.0, seed=1)
    ends = {result.parts[0].end for _, result in made}
    for sequence, (request, result) in zip(sequences, made, strict=True):
        column = 0 if row == "tts" else -1
        found = sequence.tokens[sequence.loss_mask[:, column], column].tolist()
        drawn = [part.ids[:, 0] if row == "tts" else part.ids for part in result.parts]
        first, rest = drawn[0].tolist(), [int(i) for ids in drawn[1:] for i in ids]
        end = [request.prompt.phases[0].eos] if result.parts[0].end == "end" else []
        assert found == [*first, *end, *rest]
    assert len(ends) > 1, ends  # some by themselves, some by a limit


def test_a_listener_hears_waves_and_counts_their_length(spoken: PostStage, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    def nats(lm: Any, builder: Any, clips: list[AudioCodes], words: str, language: str | None) -> list[torch.Tensor]:
        heard.extend(clips)
        content = len(builder.text_ids(words)) - 2
        return [torch.tensor([9.0, 9.0, *[1.0] * (content - 1), 50.0, 9.0, 9.0])] * len(clips)  # special ones around

    monkeypatch.setattr("uniaudio2.train.spoken.heard_nats", nats)
    codec = SmallSpeller()
    one = codec.encode(torch.from_numpy(spell("abcde" * 2))[None, None])
    two = codec.encode(torch.from_numpy(spell("abcde" * 4))[None, None])
    assert spoken.listener is not None
    listener = Listener(codec, spoken.start, spoken.dataset.builder)
    rewards = listener.rewards([one, two], "a b c d e", "en", one.covered_samples / 24000, seed=0)
    assert rewards[0].tolist() == [-1.0] * (rewards.shape[1] - 1) + [-6.0]  # no more than six nats for a token
    assert torch.allclose(rewards[1] - rewards[0], torch.tensor(-LENGTH_WEIGHT * math.log(2)))
    assert torch.equal(heard[0].reconstruction, one.reconstruction)


def test_speech_is_drawn_scored_and_learned(spoken: PostStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speech of few different codes is rewarded, which any model can learn in few steps."""

    def low(self: Listener, answers: list[AudioCodes], words: str, *_: Any) -> torch.Tensor:
        assert len(words.split()) > 2
        return torch.tensor([[float((one.reconstruction < 8).float().mean())] * 3 for one in answers])

    questions = questions_of(spoken, "tts", 6)
    sequences, rewards = spoken.answer(questions[:2], 3, 1.0, seed=4)
    ids = spoken.dataset.builder.text_ids
    for question, one in zip(questions, rewards, strict=False):
        (words,) = question.right
        assert words in spoken.dataset.texts and one.shape == (3, len(ids(words)) - 2) and bool((one <= 0).all())
    with torch.no_grad():
        log_probs, targets = answer_log_probs(spoken.model.lm, spoken.dataset.builder, sequences)
        one = sequences[4]
        rows = one.loss_mask[1:, 0]
        output = spoken.model.lm(one.tokens[None], one.mask[None], audio_targets=rows.nonzero().squeeze(1))
        alone = output.audio_logits.log_softmax(-1).gather(-1, one.tokens[1:, :-1][rows][..., None]).squeeze(-1)
        assert torch.allclose(log_probs[4][targets[4]].view(alone.shape), alone, atol=1e-4)
    monkeypatch.setattr(Listener, "rewards", low)
    with torch.no_grad():
        assert {"tts_en/reward", "tts_en/nats"} <= spoken.evaluate(0).keys()
    before = torch.stack(spoken.answer(questions, 8, 1.0, seed=9)[1]).mean()
    Trainer(spoken.config.train, spoken, log=lambda line: None).run()
    after = torch.stack(spoken.answer(questions, 8, 1.0, seed=9)[1]).mean()
    assert float(after) > float(before) + 0.05, (before, after)
    assert '"speech_reward"' in (Path(spoken.config.train.out_dir) / "metrics.jsonl").read_text()


def test_text_and_speech_are_answered_in_one_batch(
    codes: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniaudio2.train.post.load_codec", lambda source: SmallSpeller())
    both = ["mixture.weights={asr: 0.5, tts: 0.5}", "prompts=6", "answers=2", "supervised=0", "kl=0"]
    stage = PostStage(config(codes, start, tmp_path / "both", *both))
    assert stage.asked == {"asr", "tts"}
    batch = next(b for b in (stage.batch(step, 0) for step in range(20)) if len({name for name, _ in b.asked}) == 2)
    losses = {True: 2.0, False: 5.0}
    monkeypatch.setattr(PostStage, "policy_loss", lambda self, asked, seed, spoken: (torch.tensor(losses[spoken]), {}))
    total, _ = stage.loss(batch, 0)
    spoken = sum(name == "tts" for name, _ in batch.asked)
    assert float(total.detach()) == pytest.approx((2 * spoken + 5 * (len(batch.asked) - spoken)) / len(batch.asked))
    alone = PostStage(config(codes, start, tmp_path / "alone", *both, "rows=[asr]"))
    assert alone.asked == {"asr"} and alone.codec is None
    assert {name for step in range(5) for name, _ in alone.batch(step, 0).asked} == {"asr"}


def test_what_makes_no_sense_is_refused(codes: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers must be at least 2"):
        config(codes, start, tmp_path, "answers=1")
    with pytest.raises(ValueError, match="set init_from"):
        config(codes, start, tmp_path, "init_from=null")
    with pytest.raises(ValueError, match="must be above 0: answers must differ"):
        config(codes, start, tmp_path, "speech_temperature=0")
    with pytest.raises(TrainingError, match="rows: 'tta' is no row"):
        PostStage(config(codes, start, tmp_path, "rows=[tta]"))
    with pytest.raises(TrainingError, match="codec: the codes were not made by the codec of the shipped model"):
        PostStage(config(codes, start, tmp_path, *SPEAKS))
    with pytest.raises(TrainingError, match="no row there has answers that can be rewarded"):
        PostStage(config(codes, start, tmp_path, "mixture.weights={tta: 1.0}"))
