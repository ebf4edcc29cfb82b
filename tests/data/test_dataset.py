from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.spelled import LETTERS, Spelled, Speller
from uniaudio2.config import load_config, preset_path
from uniaudio2.data.dataset import LMDataset, read_sentences
from uniaudio2.data.mixture import MixtureConfig, MixtureError, Planner, Pool
from uniaudio2.data.prepare import PrepareConfig, prepare
from uniaudio2.data.store import CodeStore
from uniaudio2.lm import LMConfig
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import get_form
from uniaudio2.train.lm import load_tokenizer

ALL = {"asr": 1.0, "tts": 1.0, "tts+voice": 1.0, "audio_caption": 0.5, "tta": 0.5, "text_only": 0.5, "audio_only": 0.5}
CONFIG = MixtureConfig(weights=ALL, positions=400, epoch_sequences=64, min_voice_prompt_s=0.2)


def words(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 30, count)
    return ["".join(rng.choice(list(LETTERS[:-1]), size)) for size in sizes]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CodeStore:
    return CodeStore([prepare(Speller(), Spelled(words(40)), tmp_path_factory.mktemp("codes"))])


@pytest.fixture(scope="module")
def builder() -> SequenceBuilder:
    config = load_config(LMConfig, preset_path("lm", "tiny"))
    return SequenceBuilder(load_tokenizer(None, config), config.audio, text=config.text, prompt_style="short")


def test_batches_depend_on_seed_and_index_alone(store: CodeStore, builder: SequenceBuilder) -> None:
    first, second = (LMDataset(store, builder, CONFIG, seed=1) for _ in range(2))
    forward = [first.batch(index) for index in range(30)]
    for index in reversed(range(30)):
        again = second.batch(index)
        assert torch.equal(forward[index].tokens, again.tokens)
        assert torch.equal(forward[index].loss_mask, again.loss_mask)
    other = LMDataset(store, builder, CONFIG, seed=2)
    assert any(
        forward[i].tokens.shape != (o := other.batch(i)).tokens.shape or not torch.equal(forward[i].tokens, o.tokens)
        for i in range(5)
    )


def test_batches_keep_to_the_budget_and_the_weights(store: CodeStore, builder: SequenceBuilder) -> None:
    dataset = LMDataset(store, builder, CONFIG, seed=0)
    counts: dict[str, int] = {}
    filled = padded = 0
    for index in range(60):
        batch = dataset.batch(index)
        rows, length = batch.tokens.shape[:2]
        assert rows * length <= CONFIG.positions or rows == 1
        filled, padded = filled + batch.num_positions, padded + rows * length
        for entry in batch.entries:
            counts[entry] = counts.get(entry, 0) + 1
    assert filled / padded > 0.8
    total = sum(counts.values())
    for entry, weight in ALL.items():
        assert counts[entry] / total == pytest.approx(weight / sum(ALL.values()), abs=0.05)


def test_every_clip_comes_once_before_any_comes_twice() -> None:
    pool = Pool(np.arange(50), np.ones(50), np.full(50, 20), np.ones(50))
    planner = Planner(MixtureConfig(weights={"asr": 1.0}, positions=100, epoch_sequences=20), {"asr": pool}, 0)
    drawn: list[int] = []
    index = 0
    while len(drawn) < 100:
        drawn += [draw.segments[0][1] for draw in planner.batch(index)]
        index += 1
    assert sorted(drawn[:40]) == sorted(set(drawn[:40]))
    assert sorted(drawn) == sorted([*range(50), *range(50)])


def test_short_clips_come_first(store: CodeStore, builder: SequenceBuilder) -> None:
    config = replace(CONFIG, weights={"asr": 1.0}, curriculum_start_s=0.9, curriculum_batches=60)
    dataset = LMDataset(store, builder, config, seed=0)
    length = {i: clip.duration_s for i, clip in enumerate(store.clips)}

    def longest(index: int) -> float:
        return max(length[draw.segments[0][1]] for draw in dataset.planner.batch(index))

    assert max(longest(i) for i in range(5)) <= 0.9
    assert max(longest(i) for i in range(100, 130)) > 2.0


def test_repeats_change_how_often_a_source_is_drawn(store: CodeStore, builder: SequenceBuilder) -> None:
    def recorded_share(repeats: dict[str, float]) -> float:
        config = replace(CONFIG, weights={"asr": 1.0}, source_repeats=repeats)
        dataset = LMDataset(store, builder, config, seed=0)
        drawn = [store.clips[d.segments[0][1]].engine for i in range(60) for d in dataset.planner.batch(i)]
        return drawn.count(None) / len(drawn)

    assert recorded_share({"recorded": 4.0}) > 1.8 * recorded_share({})


def test_house_voice_prompt_and_spans(store: CodeStore, builder: SequenceBuilder) -> None:
    config = replace(CONFIG, house_voices=("voice0",))
    phones = store.phones(256)
    dataset = LMDataset(store, builder, config, seed=0, phones={phone: i + 1 for i, phone in enumerate(phones)})
    speakers = {store.clips[int(i)].speaker for i in dataset.planner.pools["tts"].items}
    assert speakers == {"voice0"}
    item = int(dataset.planner.pools["tts+voice"].items[0])
    segment = dataset.segment(get_form("tts+voice"), item, np.random.default_rng(0), training=False)
    assert [span.kind for span in segment.sequence.spans] == ["prompt", "voice", "text", "reasoning", "reconstruction"]
    batch = dataset.held_out(get_form("asr"), [item], shuffled=False)
    row, first, last = batch.heard[0].tolist()
    assert torch.equal(batch.tokens[row, first:last, 0], store.codes(item).reasoning[0, 0])
    assert " ".join(phones[i - 1] for i in batch.heard_phones.tolist()) == store.clips[item].phonemes
    assert batch.aligned[:, -1].tolist() == [0, 1]  # one head for the sounds, one for the meaning
    _, predicted, end, first, _, _ = batch.aligned[0].tolist()
    assert batch.aligned[1, 3] == batch.heard[0, 1] < first
    ids = batch.tokens[0, predicted:end, -1].tolist()
    assert builder.tokenizer is not None and builder.tokenizer.decode(ids) == store.clips[item].text


def test_a_copy_at_another_speed_is_a_voice_of_its_own(tmp_path: Path, builder: SequenceBuilder) -> None:
    texts = [f"{word} again" for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]] * 8
    config = PrepareConfig(voice_copies=1.0, augmented_copies=1)
    prepare(Speller(), Spelled(texts), tmp_path / "codes", config, augment=lambda w, _: w, change_speed=lambda w, _: w)
    store = CodeStore([tmp_path / "codes"])
    dataset = LMDataset(store, builder, CONFIG, seed=0)
    pool = [int(i) for i in dataset.planner.pools["tts+voice"].items]
    changed = [i for i in pool if store.clips[i].copy]
    assert len(changed) > 20 and all(store.clips[i].speed != 1.0 for i in changed)
    for item in pool:
        prompt = dataset._other_clip(item, np.random.default_rng(item))
        assert prompt != item and store.clips[prompt].speaker == store.clips[item].speaker
        assert store.clips[prompt].speed == store.clips[item].speed
    assert all(not store.clips[int(i)].copy for i in dataset.planner.pools["tts"].items)


def squeeze(text: str) -> str:
    """Without repetitions of a letter: the last frame of a part may be said twice."""
    return "".join(letter for letter, before in zip(text, " " + text, strict=False) if letter != before)


def test_joined_clips_say_their_parts_one_after_another(tmp_path: Path, builder: SequenceBuilder) -> None:
    texts = words(40)
    config = PrepareConfig(augmented_copies=1, shard_clips=9)
    prepare(Speller(), Spelled(texts), tmp_path / "codes", config, augment=lambda w, _: w)
    stores = [CodeStore([tmp_path / "codes"]) for _ in range(2)]
    alone = len(stores[0])
    for store in stores:
        store.join(0.5, 8.0, seed=3)
    store, again = stores
    joined = range(alone, len(store))
    assert 10 < len(joined) <= 0.5 * alone and [c.parts for c in store.clips] == [c.parts for c in again.clips]
    for index in joined:
        clip, codes = store.clips[index], store.codes(index)
        parts = [store.clips[part] for part in clip.parts]
        assert len(parts) > 1 and {p.speaker for p in parts} == {clip.speaker} and not any(p.copy for p in parts)
        assert clip.text == " ".join(p.text or "" for p in parts) and clip.duration_s <= 8.0 + 0.4 * len(parts)
        assert codes.reasoning.shape[2] == store.frames(index)["reasoning"]
        assert codes.reconstruction.shape[2] == store.frames(index)["reconstruction"]
        assert len({*clip.parts}) == len(parts)
        assert abs(codes.reconstruction.shape[2] - 2.5 * codes.reasoning.shape[2]) <= 3  # the streams stay in step
        heard = "".join(LETTERS[i] for i in codes.reconstruction[0, 0].tolist() if i < len(LETTERS))
        assert squeeze(heard) == squeeze("".join(p.text or "" for p in parts))
        assert codes.num_samples == clip.num_samples
    dataset = LMDataset(store, builder, CONFIG, seed=0)
    assert not set(dataset.texts) & {store.clips[i].text for i in joined}
    for index in joined:
        assert dataset._other_clip(index, np.random.default_rng(index)) not in store.clips[index].parts
    drawn = {i for number in range(40) for d in dataset.planner.batch(number) for _, i in d.segments}
    assert drawn & set(joined)


def test_shuffled_conditions_change_the_input_and_not_the_target(store: CodeStore, builder: SequenceBuilder) -> None:
    phones = {phone: i + 1 for i, phone in enumerate(store.phones(256))}
    dataset = LMDataset(store, builder, CONFIG, seed=0, phones=phones)
    items = [int(i) for i in dataset.planner.pools["asr"].items[:6]]
    right, wrong = (dataset.held_out(get_form("asr"), items, shuffled=s) for s in (False, True))
    for row in range(6):
        targets = [batch.tokens[row, :, -1][batch.loss_mask[row, :, -1]] for batch in (right, wrong)]
        assert torch.equal(*targets)
    assert not torch.equal(right.heard_phones, wrong.heard_phones)


def test_conditions_are_dropped_in_a_tenth(store: CodeStore, builder: SequenceBuilder) -> None:
    dataset = LMDataset(store, builder, replace(CONFIG, weights={"tts": 1.0}), seed=0)
    pad = builder.text.text_pad
    dropped = total = 0
    for index in range(80):
        batch = dataset.batch(index)
        dropped += int((batch.tokens[:, 0, -1] == pad).sum())
        total += len(batch.tokens)
    assert dropped / total == pytest.approx(0.1, abs=0.05)


def test_auditory_sentences_join_segments_within_their_limit(store: CodeStore, builder: SequenceBuilder) -> None:
    config = replace(CONFIG, positions=1024, sentences=0.6, sentence_positions=300)
    dataset = LMDataset(store, builder, config, seed=0)
    draws = [draw for index in range(30) for draw in dataset.planner.batch(index)]
    joined = [draw for draw in draws if len(draw.segments) > 1]
    assert len(joined) > len(draws) * 0.1
    assert all(len(draw.segments) <= 4 and draw.positions <= 300 for draw in joined)
    batch = dataset.batch(next(i for i in range(30) if any(len(d.segments) > 1 for d in dataset.planner.batch(i))))
    assert (batch.heard[:, 2] <= batch.tokens.shape[1]).all()
    audio = batch.mask[batch.heard[:, 0], batch.heard[:, 1], 0]
    assert audio.all()  # positions of later segments point at audio too


def test_a_task_without_clips_is_named(store: CodeStore, builder: SequenceBuilder) -> None:
    with pytest.raises(MixtureError, match="'tts' has a weight, but no clip"):
        LMDataset(store, builder, replace(CONFIG, house_voices=("nobody",)), seed=0)
    with pytest.raises(MixtureError, match="unknown task 'sing'; those that can be trained: asr, "):
        MixtureConfig(weights={"sing": 1.0})


def test_sentences_are_normalised_and_held_out_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Hello, World!\n\nKeep this out.\n")
    assert read_sentences(tmp_path / "text.txt", "en", without=["keep this out"]) == ["hello world"]
