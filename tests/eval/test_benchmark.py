import json
import math

import pytest
import torch

from uniaudio2.data.manifest import Example, read_manifest
from uniaudio2.data.sources import read_set
from uniaudio2.eval import (
    EvaluationError,
    Figure,
    Report,
    benchmark,
    classifier,
    evaluate,
    find_evaluation,
    generation,
    reconstruction,
    understanding,
)
from uniaudio2.eval.context import Clip, Context


def answers_of(root, name, split="dev"):
    return {e.audio().shape[-1]: e.text for e in read_set(root, name, split=split) if e.text}


def test_digits_right_and_wrong(data_root, fake, tmp_path):
    answers = answers_of(data_root, "fsdd")
    perfect = evaluate("asr", data="fsdd", model=fake(dict(answers)), data_root=data_root, out=tmp_path / "r.json")
    assert perfect.figure("accuracy").value == 1 and perfect.figure("accuracy").count == 4
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["normaliser"] == "simple" and stored["seed"] == 0 and stored["environment"]["torch"]
    assert stored["command"].startswith("uniaudio2 evaluate asr --data fsdd")
    length = next(n for n, text in answers.items() if text == "two")
    answers[length] = "tow"
    report = evaluate("asr", data="fsdd", model=fake(answers), data_root=data_root)
    assert report.figure("accuracy").value == 0.75
    assert report.figure("accuracy, forced to the list (extra)").value == 1
    assert report.figure("accuracy", "fsdd-s0").value == 0.5
    assert [row["right"] for row in report.items].count(False) == 1


def test_read_english_keeps_the_known_voice_apart(data_root, fake):
    answers = answers_of(data_root, "read_english")
    answers = {n: "hello there world" if "hello" in text else "one two" for n, text in answers.items()}
    report = evaluate("asr", data="read_english", model=fake(answers), data_root=data_root)
    assert report.figure("WER", "LJ").value == 0
    assert report.figure("WER", "other voices").value == 0.5
    assert report.figure("WER", "all").value == pytest.approx(2 / 7)


def test_words_where_nobody_speaks_are_counted_by_the_minute(data_root, add_set, fake):
    beds = [(f"bed{i}", 10.0 + i, 100, {"label": "room", "split": split}) for i, split in enumerate(("dev", "train"))]
    add_set("ambience", beds)
    quiet = evaluate("asr", data="nothing", model=fake(), data_root=data_root)
    assert quiet.figure("words a minute").value == 0 and quiet.figure("pieces without a word").value == 1
    heard = evaluate(
        "asr", data="nothing", model=fake({11 * 24000: "alexa \u4f60\u597d", 240000: "yes no"}), data_root=data_root
    )
    minutes = 6 * (10 + 11 + 10) / 60
    assert heard.figure("listened to").value == pytest.approx(minutes)
    assert heard.figure("words a minute").value == pytest.approx((6 * 3 + 12 * 2) / minutes)


def test_held_out_speech_by_engine(data_root, corpus, fake):
    answers = {e.audio().shape[-1]: e.text for e in read_manifest(corpus)}
    subject = fake(answers)
    report = evaluate("asr", data="synth-heldout", model=subject, corpus=corpus, data_root=data_root, languages=["en"])
    assert report.figure("WER", "en").value == 0 and report.figure("WER", "en").count == 12
    assert report.figure("WER", "flite").count == 4
    assert report.figure("CER", "voice espeak-ng-b").count == 4
    assert all(call[2] == "en" for call in subject.calls)
    with pytest.raises(EvaluationError, match="unseen 'zh' voices"):
        evaluate("asr", data="synth-heldout", model=subject, corpus=corpus, data_root=data_root, languages=["zh"])


def test_a_manifest_by_path(corpus, data_root, fake):
    report = evaluate("asr", data=str(corpus / "manifest.jsonl"), model=fake(), data_root=data_root, limit=5)
    assert report.figure("WER", "en").value == 1 and report.figure("WER", "en").count == 5
    assert any("5 items" in note for note in report.notes)


def test_captions(data_root, fake):
    answers = {e.audio().shape[-1]: f"a {e.label} sound" for e in read_set(data_root, "esc10", split="dev")}
    words = {n: text.replace("dog_bark", "barking dog") for n, text in answers.items()}
    report = evaluate("audio_caption", model=fake(words), data_root=data_root)
    assert report.data == "esc10" and report.figure("class named").value == 1
    both = evaluate(
        "audio_caption", data="mixtures", model=fake({120000: "a dog and rain"}), data_root=data_root, limit=12
    )
    wanted = [set(row["labels"]) for row in both.items]
    assert both.figure("both classes named").value == sum(w == {"dog_bark", "rain"} for w in wanted) / 12
    assert all(len(w) == 2 for w in wanted) and len(set(map(frozenset, wanted))) > 1


def test_mixtures_are_repeatable_and_audible(data_root):
    examples = read_set(data_root, "esc10", split="dev")
    first, second = (understanding.two_event_mixtures(examples, [3])[0].load() for _ in range(2))
    assert torch.equal(first, second) and first.shape == (1, 120000)
    assert 0.01 < float(first.square().mean().sqrt()) < 0.3


def test_reasoning_and_shuffled_codes(data_root, corpus, fake):
    answers = {e.audio().shape[-1]: e.text for e in read_manifest(corpus)}
    for name in ("read_english", "keywords", "fsdd"):
        answers |= answers_of(data_root, name)
    answers |= {e.audio().shape[-1]: f"{e.label}".replace("_", " ") for e in read_set(data_root, "esc10", split="dev")}
    report = evaluate("reasoning", model=fake(answers), data_root=data_root, corpus=corpus)
    assert report.figure("WER", "read English").value == 0
    assert report.figure("WER, codes of another clip", "read English").value >= 1
    assert report.figure("accuracy", "digits").value == 1
    assert report.figure("accuracy, codes of another clip", "digits").value == 0
    assert (
        report.figure("class named", "sounds").value
        > report.figure("class named, codes of another clip", "sounds").value
    )
    kinds = ("", ", codes of another clip")
    both, shuffled = (report.figure(f"both classes named{kind}", "mixtures") for kind in kinds)
    assert both.count == shuffled.count == 100 and both.value == 0  # one answer for all clips of five seconds


@pytest.mark.parametrize("count", [2, 3, 10])
def test_derangement(count):
    order = understanding.derangement(count, 0)
    assert sorted(order) == list(range(count)) and all(i != j for i, j in enumerate(order))


def test_codec(data_root, corpus, fake, tmp_path):
    report = evaluate("codec", model=fake(), data_root=data_root, corpus=corpus, limit=1, work=tmp_path / "heard")
    group = "synthetic speech, unseen voices: "
    assert report.figure("log_mel_l1", group + "codec").value < 0.05  # half the level, otherwise the same
    assert report.figure("log_mel_l1", group + "autoencoder alone").value < 0.01
    assert report.figure("bit rate").value == pytest.approx((8 * 2 * 5 + 8 * 3 * 12.5) / 1000)
    assert report.figure("codebook perplexity", "reasoning 0").value == pytest.approx(1)
    assert report.figure("codebook perplexity", "reconstruction 0").value > 6
    assert any((tmp_path / "heard").glob("codec_*.wav"))


def test_codec_in_few_and_many_steps(data_root, corpus, fake, monkeypatch):
    monkeypatch.setattr(reconstruction, "has_whisper", lambda: False)
    report = evaluate("codec", data="steps", model=fake(), data_root=data_root, corpus=corpus, limit=2)
    names = ("1 step", "2 steps", "4 steps", "10 steps")
    off = [report.figure("log_mel_l1", f"sounds: {name}").value for name in names]
    assert off == sorted(off, reverse=True)
    assert report.figure("milliseconds for a second of audio", "2 steps").value > 0
    assert report.figure("sounds, decoded as made ones are, named by a classifier", "1 step").count == 2


def test_short_clips_of_one_speaker_are_scored_in_chains():
    waves = {str(i): torch.full((1, 24000), 0.1 * i) for i in range(6)}
    recordings = [reconstruction.Recording(k, "g", "speech", w, "s" if k < "5" else "t") for k, w in waves.items()]
    late = {k: w[:, :23000] for k, w in waves.items()}
    rows = reconstruction._chained(recordings, late)
    assert [(one.id, one.audio.shape, estimate.shape) for one, estimate in rows] == [
        ("0 and 3 more", (1, 96000), (1, 96000)),
        ("4", (1, 24000), (1, 24000)),
        ("5", (1, 24000), (1, 24000)),
    ]
    sound = reconstruction.Recording("0", "g", "sound", waves["0"])
    assert [one.id for one, _ in reconstruction._chained([sound, sound], late)] == ["0", "0"]


def test_speech_is_scored_on_the_written_file(data_root, fake, monkeypatch, tmp_path):
    pytest.importorskip("pocketsphinx")
    monkeypatch.setattr(generation, "source_voice", lambda sentences, language: None)
    report = evaluate("tts", model=fake(), data_root=data_root, limit=4, languages=["en"], work=tmp_path / "out")
    name = "en, spoken by the model"
    assert report.figure("CER by own recogniser", name).value == 0
    assert report.figures[0].name.startswith("right by an independent listener")
    assert len(list((tmp_path / "out").glob("*.wav"))) == 4
    assert any("source voice" in note for note in report.notes)


def test_voices(data_root, corpus, fake):
    report = evaluate("tts", data="voices", model=fake(), data_root=data_root, corpus=corpus, limit=2)
    assert report.figure("chance").value == pytest.approx(1 / 3)
    assert 0 <= report.figure("nearest voice is the prompt's").value <= 1
    assert report.figure("nearest voice, real clips (ceiling)").value > 0.8


def test_generated_sounds(data_root, fake, monkeypatch, tmp_path):
    monkeypatch.setenv("UNIAUDIO2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "_EPOCHS", 2)
    report = evaluate("tta", model=fake(), data_root=data_root, limit=4)
    assert report.figure("class named by the classifier").count == 4
    assert report.figure("classifier on real dev clips").count == 6
    assert report.figure("near-copies of a training clip").value <= 1
    assert list((tmp_path / "cache").iterdir())


def test_every_row_of_the_registry_can_be_found():
    for row in benchmark.EVALUATIONS:
        assert find_evaluation(row.task, row.data) is row
    assert find_evaluation("sound").task == "tta"


def test_mistakes_are_named_before_anything_is_loaded():
    def never():
        raise AssertionError("loaded")

    with pytest.raises(EvaluationError, match="did you mean asr"):
        evaluate("asrr", model=never)
    with pytest.raises(EvaluationError, match="choose fsdd, keywords, read_english, synth-heldout, nothing, the path"):
        evaluate("asr", data="nope", model=never)
    with pytest.raises(EvaluationError, match="limit must be at least 1"):
        evaluate("asr", data="fsdd", model=never, limit=0)
    with pytest.raises(ValueError, match="unknown normaliser"):
        evaluate("asr", data="fsdd", model=never, normaliser="none")
    with pytest.raises(EvaluationError, match="unknown language 'fr'"):
        evaluate("asr", data="fsdd", model=never, languages=["fr"])
    with pytest.raises(ValueError, match="no data folder"):
        evaluate("asr", data="fsdd", model=never, data_root="/nowhere")


def test_limit_draws_by_the_seed(tmp_path):
    first, again, other = (
        Context(lambda: None, tmp_path, limit=3, seed=seed).sample(list(range(50))) for seed in (0, 0, 1)
    )
    assert first == again != other and first == sorted(first)


def test_report_shows_and_saves(tmp_path):
    report = Report("asr", "fsdd", "m", "uniaudio2 evaluate asr", 0)
    report.figures = [
        Figure("accuracy", 0.915, 0.9, 0.93, 300, "%", target=">= 90 %"),
        Figure("x", math.nan, unit="dB"),
    ]
    report.items = [{"value": math.nan, "tensor": torch.tensor(1)}]
    report.save(tmp_path / "deep" / "r.json")
    stored = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert stored["figures"][0]["value"] == 0.915 and stored["figures"][1]["value"] is None
    assert report.rows()[0] == ("accuracy", "", "91.5 %", "90.0 % to 93.0 %", "300", ">= 90 %")
    assert report.rows()[1][2:4] == ("undefined", "")
    assert "items" not in report.summary() and report.summary()["figures"][1] == {"name": "x", "unit": "dB"}


def test_recordings_of_ones_own(data_root, corpus, fake, add_set):
    """Every task that takes a manifest, by its path and by a set's name; who is in training is counted."""
    answers = {e.audio().shape[-1]: e.text for e in read_manifest(corpus)}
    report = evaluate("asr", data=str(corpus), model=fake(dict(answers)), data_root=data_root)
    assert report.figure("WER", "en").value == 0 and report.figure("right as a whole", "en").value == 1
    assert report.speakers == "3, of whom 0 have clips in the train part"
    assert any("over 2 and 3 voices" in note for note in report.notes)
    answers = answers_of(data_root, "fsdd")
    spoken = evaluate("tts", data="fsdd", model=fake(answers), data_root=data_root, limit=2)
    assert spoken.figure("CER by own recogniser", "en, recordings").value == 0
    assert spoken.figure("CER by own recogniser", "en, spoken by the model").judge == generation.OWN
    coded = evaluate("codec", data="esc10", model=fake(), data_root=data_root, limit=2)
    assert coded.figure("log_mel_l1", "sound: codec").count == 2
    captions = {e.audio().shape[-1]: "a drum with bass, bd" for e in read_set(data_root, "sonic_pi")}
    named = evaluate("audio_caption", data="sonic_pi", model=fake(captions), data_root=data_root)
    assert named.figure("class named").value == 1 and named.judge
    add_set("bare", [("k", 1.0, 200, {})])
    for task in ("tts", "audio_caption", "asr"):
        with pytest.raises(EvaluationError, match="bare: no clip with"):
            evaluate(task, data="bare", model=fake(), data_root=data_root)


def test_the_language_is_told_or_found(data_root, fake):
    for told in (True, False):
        subject = fake(answers_of(data_root, "fsdd"))
        report = evaluate("asr", data="fsdd", model=subject, data_root=data_root, tell_language=told)
        assert {call[2] for call in subject.calls} == {"en" if told else None}
        assert ("The recogniser was not told the language." in report.notes) is not told


def test_speakers_of_the_train_part_are_left_out(data_root, fake, add_set):
    rows = [(f"c{i}", 1 + 0.1 * i, 200, {"text": "go", "language": "en", "speaker": s, "split": split})
            for i, (s, split) in enumerate([("a", "train"), ("a", "dev"), ("b", "dev"), (None, "dev")])]  # fmt: skip
    add_set("commands", rows)
    every = evaluate("asr", data="commands", model=fake(), data_root=data_root)
    assert every.figure("WER", "en").count == 3 and every.speakers.startswith("2, of whom 1 ")
    unseen = evaluate("asr", data="commands", model=fake(), data_root=data_root, unseen_speakers=True)
    assert [row["speaker"] for row in unseen.items] == ["commands-b"]
    assert unseen.speakers.startswith("1, of whom 0 ") and "--unseen-speakers" in unseen.command
    with pytest.raises(EvaluationError, match="by speakers who are not in its train part"):
        evaluate("asr", data="keywords", model=fake(), data_root=data_root, unseen_speakers=True)


def test_intervals_of_mixtures_draw_recordings(data_root):
    dev = read_set(data_root, "esc10", split="dev")
    mixtures = understanding.two_event_mixtures(dev, range(3))
    assert all(len(clip.cluster) == 2 for clip in mixtures)


def test_clips_cut_from_one_recording_are_one_unit():
    sound = Example("esc10-4-125929-B", "x", 1.0, kind="sound")
    assert Clip(sound, lambda: None).cluster == "esc10-4-125929"
    assert Clip(Example("a-B", "x", 1.0, speaker="s"), lambda: None).cluster == "s"


def test_whisper_judges_where_it_is_at_hand(data_root, corpus, fake, tmp_path, monkeypatch):
    def hear(wave, language, **_):
        return "The Red River" if language == "en" else "\u4eca\u5929\u6c23"

    for module in (generation, reconstruction):
        monkeypatch.setattr(module, "has_whisper", lambda: True)
        monkeypatch.setattr(module, "hear", hear)
        monkeypatch.setattr(module, "whisper_name", lambda: "an ear")
    report = evaluate("tts", model=fake(), data_root=data_root, limit=2, languages=["zh", "yue"])
    figure = report.figure("CER by Whisper", "zh, spoken by the model")
    assert figure.judge == "an ear" and figure.count == 2
    assert not [one for one in report.figures if one.name.endswith("by Whisper") and one.group.startswith("yue")]
    report = evaluate("codec", model=fake(), data_root=data_root, corpus=corpus, limit=2)
    changed = [one for one in report.figures if one.name == "words changed, by Whisper"]
    assert changed and all(one.value == 0 for one in changed)
