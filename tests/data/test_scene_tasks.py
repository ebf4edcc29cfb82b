"""Scenes, music, songs, questions, replies and conversations: plans, labels that are true of the audio, determinism."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uniaudio2.data.manifest import Example, read_manifest, validate
from uniaudio2.data.sources import CAPTIONS
from uniaudio2.data.synth import facts, music, presets, questions, replies, run, scenes, songs, soundfont, turns
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.data.synth.vocoder import world
from uniaudio2.data.synth.voices import SynthesiserMissing, Voice
from uniaudio2.eval.diarization import diarization_error, read_turns
from uniaudio2.tasks import Audio, Text, get_task

RATE = 24000


@pytest.fixture(scope="module")
def player() -> None:
    if soundfont.missing():
        pytest.skip(soundfont.missing() or "")


def recordings(folder: Path, label: str, hertz: float, *, speakers: int = 0) -> list[Example]:
    """Clips of one class, or of some speakers with a pitch each."""
    made = []
    for number in range(max(speakers, 2)):
        tone = 0.3 * np.sin(2 * np.pi * (hertz + 70 * number) * np.arange(4 * RATE) / RATE)
        soundfile.write(folder / f"{label}{number}.wav", tone, RATE)
        made.append(
            Example(id=f"{label}{number}", path=f"{label}{number}.wav", duration=4.0, label=label,
                    speaker=f"s{number}" if speakers else None, root=folder)
        )  # fmt: skip
    return made


def test_scenes_tell_the_order_and_dev_has_other_pairs() -> None:
    tasks = scenes.plan_scenes(60, {}, 0, dev=8)
    pairs = {
        split: {
            pair for task in tasks if task.split == split for pair in itertools.pairwise(s.label for s in task.sounds)
        }
        for split in ("train", "dev")
    }
    dev = [task for task in tasks if task.split == "dev"]
    assert len(dev) == 8 and all(scenes.is_held_out([s.label for s in task.sounds]) for task in dev)
    assert not {p for p in pairs["train"] if scenes.is_held_out(p)} and len(pairs["train"]) > 30
    for task in tasks:
        first, *others = scenes.captions(task, np.random.default_rng(0))
        assert (" while " if task.together else " then ") in first and others
        assert first.startswith(task.sounds[0].phrases[0])
    sequence = next(task for task in tasks if not task.together and len(task.sounds) == 2)
    wordings = scenes.captions(sequence, np.random.default_rng(0))
    reversed_order = next(text for text in wordings if " after " in text)
    assert any(reversed_order.startswith(phrase) for phrase in sequence.sounds[1].phrases)


def test_a_scene_sounds_in_its_order(tmp_path: Path) -> None:
    low, high = recordings(tmp_path, "dog_bark", 400)[0], recordings(tmp_path, "rooster", 3000)[0]
    sounds = (scenes.Sound("dog_bark", low), scenes.Sound("rooster", high))
    example, wave = scenes.render_scene(scenes.SceneTask("a", sounds, together=False), 0)
    halves = np.array_split(wave, 2)
    peaks = [np.abs(np.fft.rfft(half)).argmax() * RATE / half.size for half in halves]
    assert peaks[0] < 1000 < peaks[1] and example.label == "dog_bark then rooster"
    assert np.array_equal(wave, scenes.render_scene(scenes.SceneTask("a", sounds, together=False), 0)[1])


def test_music_has_its_tempo_and_key(player: None) -> None:
    task = dataclasses.replace(music.plan_music(1, 0)[0], beats_per_minute=120.0, metre=4, drums=True, tonic=60)
    notes = music.compose(task, np.random.default_rng(0))
    beats = [note.start / 0.5 for note in notes]
    assert all(abs(2 * beat - round(2 * beat)) < 1e-6 for beat in beats)
    tones = {note.key % 12 for note in notes if note.program != soundfont.DRUMS}
    assert tones <= {degree % 12 for degree in music.SCALES[task.mode]}
    wave = music.render_piece(task, 0)
    assert wave.size == round(task.seconds * RATE) and np.isfinite(wave).all() and np.sqrt(np.mean(wave**2)) > 0.02
    assert np.array_equal(wave, music.render_piece(task, 0))
    for piece in music.plan_music(60, 0):
        assert piece.instrument in piece.caption and len(piece.caption.split()) >= 4
        assert piece.mode not in piece.caption or f"in a {piece.mode} key" in piece.caption


def test_a_soundfont_plays_the_pitch_that_is_written(player: None) -> None:
    wave = soundfont.render([soundfont.Note(73, 69, 0.1, 0.8)], RATE)
    assert not wave[: RATE // 20].any()
    assert abs(np.abs(np.fft.rfft(wave)).argmax() * RATE / wave.size - 440) < 15


def test_a_missing_soundfont_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    soundfont._player.cache_clear()
    monkeypatch.setenv(soundfont.ENVIRONMENT_VARIABLE, str(tmp_path / "none.sf2"))
    with pytest.raises(SynthesiserMissing, match="fluid-soundfont-gm"):
        soundfont.render([], 100)
    soundfont._player.cache_clear()


def test_songs_follow_their_tune(player: None) -> None:
    try:
        pyworld = world()
    except SynthesiserMissing as error:
        pytest.skip(str(error))
    task = songs.SongTask("a", Voice("espeak-ng", "en-us"), "moon star moon", 1, 60, 0.5, 0)
    try:
        example, waves = songs.render_song(task, 0)
    except SynthesiserMissing as error:
        pytest.skip(str(error))
    assert list(waves) == ["audio", "vocals", "accompaniment"] and example.texts["lyric"] == task.lyric
    assert np.allclose(waves["audio"], waves["vocals"] + waves["accompaniment"])
    pitch, times = pyworld.dio(waves["vocals"].astype(np.float64), RATE)
    for index, key in enumerate(songs.melody(3, 1, 60)):
        own = pitch[(pitch > 0) & (times > 0.5 * index + 0.15) & (times < 0.5 * index + 0.45)]
        assert abs(12 * np.log2(np.median(own) / 440) + 69 - key) < 0.5


def test_no_line_is_sung_twice() -> None:
    tasks = songs.plan_songs(80, 0, dev=20)
    assert len({task.lyric for task in tasks}) == 100
    assert {task.split for task in tasks[80:]} == {"dev"}
    assert all(songs.melody(len(t.words), t.tune, t.tonic)[-1] == t.tonic for t in tasks)


def test_questions_have_true_answers(tmp_path: Path, player: None) -> None:
    given = {"sounds": [*recordings(tmp_path, "dog_bark", 400), *recordings(tmp_path, "rooster", 3000)]}
    tasks = questions.plan_questions(6, {"train": given, "dev": given}, 0, dev=1)
    assert {task.kind for task in tasks} >= {"count", "first", "instrument"}
    assert all(task.answer == questions.NAMES[task.sounds[0].label] for task in tasks if task.kind == "first")
    for task in (task for task in tasks if task.kind == "count"):
        example, wave = questions.render_question(task, 0)
        level = np.abs(wave[: wave.size // 240 * 240]).reshape(-1, 240).max(1) > 0.3 * np.abs(wave).max()
        starts = np.flatnonzero(level & ~np.concatenate([[False], level[:-1]]))
        bursts = 1 + int((np.diff(starts) > 20).sum())  # 0.2 s apart at least
        assert questions.NUMBERS[bursts - 1] == task.answer == example.texts["answer"]


def test_one_recording_is_asked_several_questions(tmp_path: Path, player: None) -> None:
    label = '{"gender": "f", "age": 30}'
    people = [dataclasses.replace(e, label=label, language="en") for e in recordings(tmp_path, "person", 150)]
    given = {"sounds": recordings(tmp_path, "dog_bark", 400), "speakers": people, "languages": people}
    tasks = questions.plan_questions(8, {"train": given}, 0)
    about: dict[str, dict[str, str]] = {}
    for task in tasks:
        if task.recording is not None:
            about.setdefault(task.recording.id, {})[task.kind] = task.answer
    assert {"speech": "yes", "language": "english", "gender": "a woman"} in about.values()
    assert {"speech": "no", "sound": "a dog"} in about.values()
    assert all(e["speech"] == ("no" if "sound" in e else "yes") for e in about.values() if "speech" in e)
    assert set(questions.NAMES) <= CLASSES.keys() | CAPTIONS.keys()  # every name has recordings or a recipe


def test_dev_asks_known_facts_in_unseen_words_by_unseen_voices() -> None:
    train, dev = (facts.questions(held_out=held) for held in (False, True))
    assert {q.fact for q in dev} == {q.fact for q in train} and len({q.fact for q in train}) >= 60
    assert not {q.text for q in dev} & {q.text for q in train}
    answers: dict[str, set[str]] = {}
    for question in (*train, *dev):
        answers.setdefault(question.text, set()).add(question.reply)
    assert all(len(found) == 1 for found in answers.values())
    tasks = replies.plan_replies(100, 0, dev=20)
    speakers = {split: {t.voice.speaker for t in tasks if t.split == split} for split in ("train", "dev")}
    assert not speakers["train"] & speakers["dev"] and len(speakers["train"]) > 10
    assert "the capital of france is paris" in facts.statements()


def test_turns_are_where_somebody_speaks(tmp_path: Path) -> None:
    people = recordings(tmp_path, "person", 150, speakers=4)
    tasks = turns.plan_turns(12, {"train": people, "dev": people}, 0, dev=2)
    assert len(tasks) == 14 and {len(task.speakers) for task in tasks} == {2, 3}
    for task in tasks[:4]:
        example, wave = turns.render_turns(task, 0)
        assert isinstance(wave, np.ndarray) and len(example.turns) == len(task.order)
        spoken = np.zeros(wave.size, bool)
        for turn in example.turns:
            spoken[round(turn.start * RATE) : round(turn.end * RATE)] = True
        loud = np.abs(wave) > 0.02
        assert loud[spoken].mean() > 0.5 and loud[~spoken].mean() < 0.1
        assert read_turns(example.texts["turns"])[0].speaker == "1"
        error, speech = diarization_error(example.turns, read_turns(example.texts["turns"]))
        assert error / speech < 0.1  # times are written in tenths


def test_every_row_finds_its_examples(tmp_path: Path, player: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "scene_rows", (scenes.Scenes(2, 1, ()), music.Music(2, 1), songs.Songs(0, 0)))
    monkeypatch.setattr(songs, "plan_songs", lambda *_, **__: [
        songs.SongTask(f"song-{i}", Voice("espeak-ng", "en-us"), "moon star", 0, 60, 0.4, 0, split)
        for i, split in enumerate(("train", "dev"))])  # fmt: skip
    try:
        manifest = run.synthesise(tmp_path, preset="scene_rows", workers=0, available=True)
    except SynthesiserMissing as error:
        pytest.skip(str(error))
    assert validate(manifest).problems == []
    examples = read_manifest(manifest)
    for name, wanted in (("audio_caption", 3), ("ttm", 3), ("lts", 2), ("music_ss", 2), ("lyric_recognition", 2)):
        sources = [get_task(name).source(value) for value in get_task(name).values]
        fits = [
            all(
                source.name in one.recordings
                if isinstance(source, Audio)
                else source.name in {**one.texts, "caption": 1}
                for source in sources
                if isinstance(source, Audio | Text)
            )
            and (name != "audio_caption" or bool(one.caption))
            for one in examples
        ]
        assert sum(fits) == wanted, name
