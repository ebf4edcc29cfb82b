from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.spelled import LETTERS, Spelled, Speller, spell
from uniaudio2.codec.contract import Codec
from uniaudio2.codes import AudioCodes, Stream, reasoning_length, reconstruction_length
from uniaudio2.data.example import Recording, Turn
from uniaudio2.data.prepare import VOICE_SPEEDS, PrepareConfig, PrepareError, prepare
from uniaudio2.data.store import CodeStore, DatasetError

OLD = Path(__file__).parent / "codes_format_1"
TEXTS = ["abc", "hello there", "a", "the quick brown fox", "zebra", "some words", "xyz", "good day", "no", "yes"]


def test_codes_are_those_of_every_clip_alone(tmp_path: Path) -> None:
    source, codec = Spelled(TEXTS), Speller()
    prepare(codec, source, tmp_path / "codes", PrepareConfig(batch_s=3.0, shard_clips=4))
    store = CodeStore([tmp_path / "codes"], splits=("train", "dev"))
    assert len(store) == len(source.examples)
    for index, clip in enumerate(store.clips):
        number = next(i for i, e in enumerate(source.examples) if e.id == clip.id)
        codes = store.codes(index)
        samples = len(source.waves[number])
        assert codes.num_samples == clip.num_samples == samples
        assert codes.reasoning.shape[2] == reasoning_length(samples)
        assert codes.reconstruction.shape[2] == reconstruction_length(samples)
        if clip.text:
            letters = codes.reconstruction[0, 0, : len(clip.text)].tolist()
            assert "".join(LETTERS[letter] for letter in letters) == clip.text
    assert max(batch[0] for batch in codec.batches) > 1  # clips of one padded length did share a batch
    assert all(batch[0] * batch[2] <= 3.0 * 24000 or batch[0] == 1 for batch in codec.batches)


def test_a_stopped_run_goes_on_and_gives_the_same_files(tmp_path: Path) -> None:
    config = PrepareConfig(shard_clips=3)
    prepare(Speller(), Spelled(TEXTS), tmp_path / "whole", config)
    prepare(Speller(), Spelled(TEXTS), tmp_path / "parts", config)
    (tmp_path / "parts" / "codes-00001.jsonl").unlink()  # as if killed between the codes and their labels
    codec = Speller()
    prepare(codec, Spelled(TEXTS), tmp_path / "parts", config)
    assert sum(batch[0] for batch in codec.batches) == 3
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert all((tmp_path / "whole" / n).read_bytes() == (tmp_path / "parts" / n).read_bytes() for n in names)


def test_processes_share_the_work(tmp_path: Path) -> None:
    for part in (1, 0):
        prepare(Speller(), Spelled(TEXTS), tmp_path / "codes", PrepareConfig(shard_clips=3, part=part, parts=2))
    assert len(CodeStore([tmp_path / "codes"], splits=("train", "dev"))) == len(Spelled(TEXTS).examples)


def test_recordings_get_augmented_copies_in_train_only(tmp_path: Path) -> None:
    def louder(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return wave * np.float32(1 + 0.01 * rng.random())

    source = Spelled(TEXTS)
    prepare(Speller(), source, tmp_path / "codes", PrepareConfig(augmented_copies=2), augment=louder)
    store = CodeStore([tmp_path / "codes"], splits=("train", "dev"))
    recorded = {e.id for e in source.examples if e.engine is None and e.split == "train"}
    copies = [clip.id for clip in store.clips if clip.copy]
    assert sorted(copies) == sorted([*recorded, *recorded])
    with pytest.raises(PrepareError, match="no augmentation or"):
        prepare(Speller(), source, tmp_path / "other", PrepareConfig(augmented_copies=1))


def test_speech_gets_copies_by_other_voices_in_train_only(tmp_path: Path) -> None:
    def change(wave: np.ndarray, speed: float) -> np.ndarray:
        return np.repeat(wave, 2 if speed < 1 else 3)

    source, config = Spelled(TEXTS), PrepareConfig(voice_copies=2.0)
    prepare(Speller(), source, tmp_path / "codes", config, change_speed=change)
    clips = CodeStore([tmp_path / "codes"], splits=("train", "dev")).clips
    plain = {clip.id: clip for clip in clips if not clip.copy}
    copies = [clip for clip in clips if clip.copy]
    speech = sorted(e.id for e in source.examples if e.split == "train" and e.text)
    assert sorted(c.id for c in copies) == sorted([*speech, *speech])
    assert len({(c.id, c.speed) for c in copies}) == len(copies) and len({c.speed for c in copies}) > 2
    assert all(c.clean and c.speed in VOICE_SPEEDS and c.text == plain[c.id].text for c in copies)
    assert all(c.num_samples == (2 if c.speed < 1 else 3) * plain[c.id].num_samples for c in copies)
    assert all(c.speaker == f"{plain[c.id].speaker}@{c.speed}" for c in copies if plain[c.id].speaker)
    with pytest.raises(PrepareError, match="change of speed is given"):
        prepare(Speller(), source, tmp_path / "other", config)
    with pytest.raises(PrepareError, match="at most 6"):
        PrepareConfig(voice_copies=7.0)


def old_source() -> tuple[Spelled, PrepareConfig]:
    """What the folder of codes in format 1 was made from."""
    texts = ["one two", "three", "four five", "six", "seven eight"]
    return Spelled(texts, sounds=2), PrepareConfig(voice_copies=1.0, shard_clips=4)


def test_folders_of_format_1_are_read_and_gone_on_with(tmp_path: Path) -> None:
    source, config = old_source()
    splits = ("train", "dev")
    new = prepare(Speller(), source, tmp_path / "new", config, change_speed=lambda w, _: w)
    half = tmp_path / "half"
    shutil.copytree(OLD, half)
    (half / "codes-00001.jsonl").unlink()
    prepare(Speller(), source, half, config, change_speed=lambda w, _: w)
    wanted = CodeStore([new], splits=splits)
    for folder in (OLD, half):
        found = CodeStore([folder], splits=splits)
        assert found.clips == wanted.clips
        assert all(found.codes(index) == wanted.codes(index) for index in range(len(wanted)))


def test_named_audios_are_coded_and_kept_together(tmp_path: Path) -> None:
    source = Spelled(["one", "two", "three"], sounds=0)
    turns = (Turn(0.0, 0.1, "hi", "a"),)
    for number, example in enumerate(source.examples):
        audios = {
            "noisy": Recording("none.wav", example.duration),
            "clean": Recording("none.wav", example.duration + 0.4 * number),
        }
        source.examples[number] = replace(
            example, split="train", path="", audios=audios, texts={"question": "who"}, turns=turns
        )

    def wave(index: int, audio: str | None = None) -> np.ndarray:
        return source.waves[index] if audio == "noisy" else spell("z" * (len(source.waves[index]) // 1920 + 5 * index))

    source.wave = wave  # type: ignore[method-assign]
    config = PrepareConfig(voice_copies=1.0, augmented_copies=1, shard_clips=2)
    prepare(Speller(), source, tmp_path / "codes", config, augment=lambda w, _: w, change_speed=lambda w, _: w)
    store = CodeStore([tmp_path / "codes"])
    assert sorted(clip.id for clip in store.clips) == ["clip0", "clip1", "clip2"]  # no copies of what belongs together
    for index, clip in enumerate(store.clips):
        noisy, clean = store.codes(index, "noisy"), store.codes(index, "clean")
        text = clip.text or ""
        assert "".join(LETTERS[i] for i in noisy.reconstruction[0, 0, : len(text)].tolist()) == text
        assert set(clean.reconstruction[0, 0, : len(text)].tolist()) == {LETTERS.index("z")}
        assert clip.texts["question"] == "who" and clip.turns == (Turn(0.0, 0.1, "hi", "a"),)
        assert clip.num_samples == noisy.num_samples and set(clip.audios) == {"noisy", "clean"}


def test_a_codec_with_other_streams_is_prepared_by_their_names(tmp_path: Path) -> None:
    class Levels(Codec):
        """One stream of one book at 10 frames a second, at 8 kHz."""

        streams = (Stream("levels", 800, 1, 40_000, sample_rate=8000),)
        sample_rate = 8000

        def encode_rows(self, audio: torch.Tensor) -> AudioCodes:
            levels = audio[:, :, ::800].abs().mul(39_999).long()
            return AudioCodes.of({"levels": levels}, self.streams)

        def decode_stream(self, codes: AudioCodes, **options: object) -> Iterator[torch.Tensor]:
            raise NotImplementedError

    source = Spelled(["abc", "hello"], sounds=0)
    store = CodeStore([prepare(Levels(), source, tmp_path / "codes")])
    for index, clip in enumerate(store.clips):
        codes = store.codes(index)
        example = next(e for e in source.examples if e.id == clip.id)
        assert list(codes.streams) == ["levels"] and codes.sample_rate == 8000
        assert clip.duration_s == pytest.approx(example.duration, abs=1e-3)
        assert codes["levels"].shape == (1, 1, -(-clip.num_samples // 800))
        assert 0 < int(codes["levels"].max()) < 40_000


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    folder = prepare(Speller(), Spelled(TEXTS), tmp_path / "codes", PrepareConfig(shard_clips=4))
    labels = folder / "codes-00001.jsonl"
    labels.write_text(labels.read_text()[:-40])
    with pytest.raises(DatasetError, match=r"codes-00001\.jsonl: damaged.*run `uniaudio2 prepare` again"):
        CodeStore([folder])


def test_codes_of_another_codec_or_other_clips_never_mix(tmp_path: Path) -> None:
    folder = prepare(Speller(), Spelled(TEXTS), tmp_path / "codes")
    other = Speller()
    with torch.no_grad():
        other.scale += 1
    with pytest.raises(PrepareError, match="codes of another codec"):
        prepare(other, Spelled(TEXTS), folder)
    with pytest.raises(PrepareError, match="codes of other clips"):
        prepare(Speller(), Spelled(TEXTS[:-1]), folder)
    second = prepare(other, Spelled(TEXTS), tmp_path / "second")
    with pytest.raises(DatasetError, match="made by another codec"):
        CodeStore([folder, second])
    with pytest.raises(DatasetError, match="holds no prepared codes"):
        CodeStore([tmp_path])
