"""The path from files to results, on random weights: lengths, divisions, reproducibility, every option."""

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny_model import make_tiny_model
from uniaudio2 import UniAudio2
from uniaudio2.api.inputs import load_waveform
from uniaudio2.api.request import generate
from uniaudio2.api.results import AudioResult, join_texts
from uniaudio2.audio import SAMPLE_RATE, AudioError, read_audio
from uniaudio2.codec.windows import WindowConfig
from uniaudio2.codes import AudioCodes
from uniaudio2.devices import choose_device
from uniaudio2.engine import beam_search, derive_seed
from uniaudio2.lm.loss import text_nats
from uniaudio2.tasks import TASKS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return UniAudio2.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")


def noise(seconds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE), generator=generator)


def tune(monkeypatch, model, **settings):
    """Change the section ``generation`` of a model."""
    facts = replace(model.facts, generation=replace(model.facts.generation, **settings))
    monkeypatch.setattr(model, "facts", facts)


# -- waveforms and pieces


def test_waveforms_of_every_kind(tmp_path):
    samples = noise(0.5)[0]
    assert torch.equal(load_waveform(samples), load_waveform(samples.numpy())[None][0])
    stereo = torch.stack([samples, -samples])
    assert load_waveform(stereo).abs().max() == 0
    assert load_waveform(samples[:8000], sample_rate=16000).shape == (1, 12000)
    soundfile.write(tmp_path / "a.wav", samples.numpy(), SAMPLE_RATE, subtype="FLOAT")
    assert torch.allclose(load_waveform(tmp_path / "a.wav"), samples[None])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(0), "no samples"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
        (torch.zeros(100, dtype=torch.int16), "must be floats"),
        (torch.zeros(1, 1, 10), r"got \(1, 1, 10\)"),
        (np.zeros((1000, 2), np.float32), "transpose"),
        ("missing.wav", "no such file"),
    ],
)
def test_bad_waveforms_say_why(audio, message):
    with pytest.raises(AudioError, match=message):
        load_waveform(audio)


def test_texts_are_joined_by_script():
    assert join_texts(["one two", "three"]) == "one two three"
    assert join_texts(["你好", "世界", "ok"]) == "你好世界 ok"
    assert join_texts([]) == ""


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="is not there"):
            choose_device("cuda:7")


# -- codes


def test_encoding_is_deterministic_and_batched_equals_single(model):
    clips = [noise(seconds, seed) for seed, seconds in enumerate((0.14, 1.0, 1.05, 1.2, 0.9))]
    for clip, batched in zip(clips, model.encode_many(clips), strict=True):
        single = model.encode(clip)
        assert torch.equal(single.reasoning, batched.reasoning)
        assert torch.equal(single.reconstruction, batched.reconstruction)
        assert batched.num_samples == clip.shape[-1]


def test_decoding_gives_the_exact_length_and_obeys_its_options(model):
    codes = model.encode(noise(1.234))
    audio = model.decode(codes, seed=1)
    assert audio.shape == (1, round(1.234 * SAMPLE_RATE))
    assert torch.equal(audio, model.decode(codes, seed=1))
    for options in (
        {"seed": 2},
        {"seed": 1, "steps": 5},
        {"seed": 1, "guidance": 4.0},
        {"seed": 1, "temperature": 0.5},
    ):
        assert not torch.equal(audio, model.decode(codes, **options)), options


def test_sounds_are_decoded_as_the_preset_says_for_sounds(model, monkeypatch):
    codes = model.encode(noise(1.0))
    speech = model.decode(codes, seed=1)
    monkeypatch.setattr(model.codec, "config", replace(model.codec.config, sound_sampling=None))
    assert torch.equal(model.decode(codes, seed=1, kind="sound"), speech)  # no settings of their own: as speech
    own = replace(model.codec.config.sampling, guidance_scale=3.0, noise_scale=0.7)
    monkeypatch.setattr(model.codec, "config", replace(model.codec.config, sound_sampling=own))
    sound = model.decode(codes, seed=1, kind="sound")
    assert torch.equal(sound, model.decode(codes, seed=1, guidance=3.0, temperature=0.7))
    assert torch.equal(speech, model.decode(codes, seed=1)) and not torch.equal(speech, sound)
    assert not torch.equal(sound, model.decode(codes, seed=1, kind="sound", guidance=1.0))
    made = model.generate_sound("rain", duration_s=1.0, seed=2)
    assert torch.equal(made.audio, model.decode(made.codes[0], seed=2, kind="sound"))
    spoken = model.run("tta", {"caption": "rain"}, max_duration_s=1.0, seed=2)["audio"]
    assert torch.equal(spoken.audio, model.decode(spoken.codes[0], seed=2, kind="sound"))
    with pytest.raises(ValueError, match="kind must be"):
        model.decode(codes, kind="noise")


# -- audio to text


def test_transcripts_of_one_and_of_many(model):
    clips = [noise(seconds, 3) for seconds in (0.5, 1.0)]
    single = [model.transcribe(clip, top_k=1) for clip in clips]
    together = model.transcribe(clips, top_k=1)
    assert [result.text for result in single] == [result.text for result in together]
    assert isinstance(single[0].text, str)
    assert together[1].duration_s == pytest.approx(1.0)


def test_long_audio_has_segments_in_order(model):
    result = model.transcribe(noise(3.0), max_chunk_s=1.0)
    times = [(part.start_s, part.end_s) for part in result.segments]
    assert times == sorted(times)
    assert all(end - start <= 1.0 + 1e-6 for start, end in times)
    assert result.text == join_texts([part.text for part in result.segments])


def test_silence_has_no_words(model):
    for level in (0.0, 0.3):
        quiet = torch.full((1, SAMPLE_RATE), level)
        assert model.transcribe(quiet).text == ""
        assert model.transcribe(quiet).segments == ()
        assert model.caption(quiet).text == "silence"


def test_language_changes_the_question(model, monkeypatch):
    asked = []

    def note(core, asks, *args, **options):
        asked.append(asks[0])
        return generate(core, asks, *args, **options)

    monkeypatch.setattr("uniaudio2.api.listen.generate", note)
    for language in (None, "en", "zh", "yue"):
        model.transcribe(noise(0.4), language=language)
    assert [(ask.task.name, ask.language) for ask in asked] == [
        ("asr", None),
        ("asr", "en"),
        ("asr", "zh"),
        ("yue_asr", "yue"),
    ]
    with pytest.raises(ValueError, match="unknown language"):
        model.transcribe(noise(0.4), language="fr")


# -- text to audio


def test_speech_is_reproducible_and_seeded(model):
    first, again, other = (model.speak("hello", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.audio, again.audio)
    assert first.audio.shape != other.audio.shape or not torch.equal(first.audio, other.audio)
    assert first.audio.shape[0] == 1
    assert first.seed == 1


def test_length_follows_the_text(model):
    short, long = model.speak("hi"), model.speak("this is a sentence of some sixty characters, more or less so")
    assert 0 < short.duration_s <= 2.2 * 2 / 15 + 1.0 + 0.25
    assert 0.4 * 60 / 15 - 0.25 <= long.duration_s <= 2.2 * 60 / 15 + 1.25


def test_sentences_streamed_are_sentences_spoken(model):
    text = "One two. Three four. Five."
    spoken = model.speak(text, batch_size=1, seed=5)
    streamed = list(model.stream(text, seed=5))
    assert len(streamed) == len(spoken.sentences) == len(spoken.codes) == 3
    assert torch.equal(torch.cat(streamed, -1), spoken.audio)


def test_the_beginning_of_a_sentence_is_heard_before_its_end_is_made(model, monkeypatch):
    windows = WindowConfig(decode_codes=12, overlap_codes=4, context_latents=4)
    monkeypatch.setattr(model.codec, "config", replace(model.codec.config, windows=windows))
    text = "This is a sentence that has several windows of sound. Then one."
    spoken = model.speak(text, batch_size=1, seed=5, best_of=1)
    made = []
    step = model.engine._session.step
    monkeypatch.setattr(model.engine._session, "step", lambda: made.append(1) or step())
    pieces, steps = [], []
    for piece in model.stream(text, seed=5, best_of=1):
        pieces.append(piece)
        steps.append(len(made))
    assert len(pieces) > 3 and steps[0] < steps[1] and steps[0] < 0.7 * steps[-1]
    assert torch.equal(torch.cat(pieces, -1), spoken.audio)
    stopped = model.stream(text, seed=5, best_of=1)
    next(stopped)
    assert model.engine._session.active
    stopped.close()
    model.caption(noise(0.5))
    assert not model.engine._session.active


def test_threads_and_calls_of_every_kind_share_the_engine(model):
    clips = [noise(0.4 + 0.2 * index, seed=index) for index in range(4)]
    calls = [
        lambda: [str(text) for text in model.transcribe(clips, beams=2)],
        lambda: [str(text) for text in model.transcribe(clips, beams=1, temperature=0.7, seed=3)],
        lambda: [str(text) for text in model.caption(clips)],
        lambda: model.speak("One two. Three.", seed=2, best_of=2).audio.tolist(),
        lambda: model.generate_sound("rain", duration_s=0.6, seed=1).audio.tolist(),
        lambda: torch.cat(list(model.stream("One two. Three.", seed=3, best_of=1)), -1).tolist(),
    ]
    alone, found = [call() for call in calls], {}
    threads = [
        threading.Thread(target=lambda i=index: found.setdefault(i, calls[i % 6]())) for index in range(2 * len(calls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert [found[index] for index in range(12)] == 2 * alone


def test_batched_sentences_equal_single_ones(model):
    text = "One two. Three four five. Six."
    assert torch.equal(model.speak(text, batch_size=1).audio, model.speak(text, batch_size=8).audio)


def test_a_transcript_is_searched_for_as_the_model_or_the_user_says(model, monkeypatch):
    searched = []

    def search(engine, requests, *, renderings, beams):
        searched.append((len(requests), [len(each) for each in renderings], beams))
        return beam_search(engine, requests, renderings=renderings, beams=beams)

    monkeypatch.setattr("uniaudio2.api.request.beam_search", search)
    clips = [noise(0.5, seed=1), noise(0.9, seed=2)]
    model.transcribe(clips)
    assert searched == []
    tune(monkeypatch, model, beams=2, shifts=3)
    chosen = [str(one) for one in model.transcribe(clips, seed=1)]
    assert searched == [(2, [2, 2], 2)]
    assert [str(model.transcribe(clip, beams=2, shifts=3)) for clip in clips] == chosen  # whatever the batch
    model.transcribe(clips[0], shifts=1, beams=4)
    assert searched[-1] == (1, [0], 4)
    count = len(searched)
    model.transcribe(clips[0], temperature=0.5)  # drawn, not searched for
    model.transcribe(clips[0], beams=1, shifts=1)
    assert len(searched) == count


def test_a_search_that_makes_no_sense(model):
    with pytest.raises(ValueError, match="beams must be at least 1"):
        model.transcribe(noise(1.0), beams=0)
    with pytest.raises(ValueError, match="shifts must be at least 1"):
        model.transcribe(noise(1.0), shifts=0)
    with pytest.raises(ValueError, match="shifts must be at most 16"):
        model.transcribe(noise(1.0), shifts=17)
    with pytest.raises(ValueError, match="leave out temperature"):
        model.transcribe(noise(1.0), beams=2, temperature=0.5)
    model.transcribe(noise(1.0), beams=2, top_k=1)  # nothing is drawn here


def test_no_sentence_draws_what_another_draws_at_another_seed(model):
    seeds = {
        derive_seed(seed, sentence, attempt) for seed in range(30) for sentence in range(30) for attempt in range(4)
    }
    assert len(seeds) == 30 * 30 * 4 and derive_seed(7, 0) == 7
    said = [model.speak("Hello. Hello.", best_of=1, seed=seed) for seed in (0, 1)]
    assert not torch.equal(said[0].codes[1].reasoning, said[1].codes[0].reasoning)
    assert torch.equal(said[0].codes[0].reasoning, model.speak("Hello.", best_of=1, seed=0).codes[0].reasoning)


def test_every_device_gets_the_same_noise(model, monkeypatch):
    devices = []
    decode = model.codec.decode_stream

    def note(codes, **options):
        devices.append(options["generator"].device.type)
        return decode(codes, **options)

    monkeypatch.setattr(model.codec, "decode_stream", note)
    model.decode(model.encode(noise(0.4)))
    assert devices == ["cpu"]


def test_all_calls_share_one_engine(model):
    first = model.engine
    model.speak("Hello.", best_of=1)
    assert model.engine is first and first.compiled is False


def test_the_attempt_is_kept_in_which_the_text_is_heard_best(model, monkeypatch):
    tried = []

    def heard(lm, tokens, mask, loss_mask):
        tried.append(len(tokens))
        return [float(number != 1) for number in range(len(tokens))]  # pretend that the second attempt is understood

    monkeypatch.setattr("uniaudio2.api.speak.text_nats", heard)
    alone = [model.speak("Hello.", best_of=1, seed=derive_seed(2, 0, attempt)) for attempt in range(3)]
    assert not tried
    result = model.speak("Hello.", best_of=3, seed=2)
    assert tried == [3]
    assert torch.equal(result.codes[0].reconstruction, alone[1].codes[0].reconstruction)
    assert not torch.equal(result.codes[0].reconstruction, alone[0].codes[0].reconstruction)
    with pytest.raises(ValueError, match="best_of must be at least 1"):
        model.speak("hello", best_of=0)


def test_attempts_are_the_models_own_number_and_do_not_depend_on_the_batch(model, monkeypatch):
    tune(monkeypatch, model, speech_attempts=3)
    text = "Hello there. How are you? I am well."
    together, chosen, single = (model.speak(text, seed=4, **how) for how in ({}, {"best_of": 3}, {"batch_size": 1}))
    assert torch.equal(together.audio, chosen.audio)
    assert all(
        torch.equal(a.reconstruction, b.reconstruction) for a, b in zip(together.codes, single.codes, strict=True)
    )
    streamed = torch.cat(list(model.stream(text, seed=4)), dim=-1)
    assert torch.allclose(streamed, single.audio, atol=1e-4)


def test_greedy_speech_is_attempted_once(model, monkeypatch):
    tune(monkeypatch, model, speech_attempts=3)
    monkeypatch.setattr("uniaudio2.api.speak.text_nats", lambda *_: pytest.fail("there is nothing to choose from"))
    model.speak("Hello.", temperature=0)


def test_surprise_is_the_mean_over_a_texts_tokens(model):
    builder = model.sequences
    codes = model.encode(noise(1.0))
    texts = ["hello", "a longer text"]
    examples = [builder.example("asr", {"audio": codes, "transcription": text}) for text in texts]
    batch = builder.collate(examples)
    each = text_nats(model.lm, batch.tokens, batch.mask, batch.loss_mask)
    for example, found in zip(examples, each, strict=True):
        one = builder.collate([example])
        logits = model.lm.forward_text(one.tokens[:, :-1], one.mask[:, :-1]).log_softmax(-1)
        wanted = one.loss_mask[0, 1:, -1]
        said = logits[0, wanted].gather(1, one.tokens[0, 1:, -1][wanted][:, None])
        assert found == pytest.approx(-float(said.detach().mean()), abs=1e-4)


def test_voice_prompt_is_used(model):
    plain = model.speak("hello there", seed=3)
    voices = [model.speak("hello there", seed=3, voice=noise(4.0, seed)) for seed in (1, 2)]
    results = [plain, *voices]
    for one, two in ((0, 1), (0, 2), (1, 2)):
        first, second = results[one].audio, results[two].audio
        assert first.shape != second.shape or not torch.equal(first, second)
    with pytest.raises(AudioError, match="voice prompt is silent"):
        model.speak("hello", voice=torch.zeros(1, 48000))


OPTIONS = [{"temperature": 0.2}, {"top_k": 1}, {"top_p": 0.1}, {"guidance": 5.0}, {"steps": 7}, {"language": "yue"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_of_speech_changes_something(model, options):
    base, changed = model.speak("good morning", seed=4), model.speak("good morning", seed=4, **options)
    assert base.audio.shape != changed.audio.shape or not torch.equal(base.audio, changed.audio)


def test_sounds_have_the_asked_length(model):
    assert model.generate_sound("a dog barking", duration_s=2.0).duration_s == pytest.approx(2.0, abs=0.25)
    assert model.generate_sound("rain", seed=1).duration_s <= 10.25
    with pytest.raises(ValueError, match="at least 0.2"):
        model.generate_sound("rain", duration_s=0)


def test_results_are_written_as_heard(model, tmp_path):
    speech = model.speak("hello")
    speech.save(tmp_path / "hello.wav")
    assert soundfile.info(tmp_path / "hello.wav").subtype == "PCM_16"
    assert read_audio(tmp_path / "hello.wav").shape == speech.audio.shape
    assert speech.to_dict()["language"] == "en"


# -- any task


@pytest.mark.parametrize("name", TASKS)
def test_every_row_of_the_task_table_runs(model, name):
    task = TASKS[name]
    values = {part.value: "a dog" if part.kind == "text" else noise(0.6) for part in task.inputs}
    results = model.run(name, values, max_duration_s=0.8, seed=1)
    assert set(results) == {part.value for part in task.outputs}
    for part in task.outputs:
        if part.kind == "text":
            assert isinstance(results[part.value], str)
        elif part.kind == "reconstruction":
            result = results[part.value]
            assert isinstance(result, AudioResult)
            assert 0 < result.duration_s <= 1.2


def test_run_names_what_is_wrong(model):
    with pytest.raises(ValueError, match="unknown task 'asrr'; did you mean 'asr'"):
        model.run("asrr", {})
    with pytest.raises(ValueError, match="needs audio"):
        model.run("asr", {})
    with pytest.raises(ValueError, match="has no input 'text'; it takes voice, transcription"):
        model.run("tts", {"text": "x"})


def test_a_codec_alone_says_so(model):
    codec_only = UniAudio2(model.codec, name="codec")
    codes = codec_only.encode(noise(0.4))
    assert isinstance(codes, AudioCodes)
    with pytest.raises(ValueError, match="codec alone"):
        codec_only.transcribe(noise(0.4))


def test_a_model_is_saved_pushed_and_fetched_by_its_hub_id(model, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra 'published'")
    store = tmp_path / "hub"

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo, *, private, **_):
            assert (repo, private) == ("someone/speaks", True)

        def upload_folder(self, *, repo_id, folder_path, **_):
            shutil.copytree(folder_path, store / repo_id)
            return f"hub:{repo_id}"

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **_: str(store / repo))
    assert model.push_to_hub("someone/speaks") == "hub:someone/speaks"
    again = UniAudio2.from_pretrained("someone/speaks", device="cpu")
    for mine, theirs in ((model.codec, again.codec), (model.lm, again.lm)):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in mine.state_dict().items())
    light = UniAudio2.from_pretrained(store / "someone/speaks", device="cpu", dtype="int8")
    with pytest.raises(ValueError, match="quantised weights: load it without dtype"):
        light.save_pretrained(tmp_path / "light")
