"""Loading, saving, audio to codes and back, on random weights."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.api.support import noise
from uniaudio2 import UniAudio2
from uniaudio2.api.settings import GenerationConfig, ModelFacts, Score
from uniaudio2.audio import SAMPLE_RATE
from uniaudio2.checkpoint import DEFAULT_FOLDER, open_folder
from uniaudio2.codes import AudioCodes
from uniaudio2.config import dump_config, load_config, preset_path, read_yaml
from uniaudio2.devices import choose_device
from uniaudio2.errors import UserError


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="is not there"):
            choose_device("cuda:7")


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
    assert torch.equal(audio, model.decode(codes, seed=1)) and torch.equal(audio, model.decode(codes, seed=np.uint8(1)))
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": True}, "steps must be a whole number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"temperature": float("inf")}, "temperature must be a finite number"),
        ({"solver": "heun"}, "solver must be 'euler' or 'midpoint', got 'heun'"),
        ({"kind": "music"}, "kind must be 'speech' or 'sound', got 'music'"),
    ],
)
def test_decoding_is_refused_when_it_is_asked_for(model, options, message):
    codes = model.encode(noise(0.4))
    with pytest.raises(UserError, match=message):
        model.decode_stream(codes, **options)  # not only when it is iterated


def test_a_model_says_what_it_can_and_keeps_saying_so(model, tmp_path):
    facts = replace(model.facts, trained_tasks={"asr": (Score("WER", 12.5, "some"),), "tts": ()})
    speaks = UniAudio2(model.codec, model.lm, model.tokenizer, name="some", facts=facts)
    again = UniAudio2.from_pretrained(speaks.save_pretrained(tmp_path / "some"), device="cpu")
    assert again.facts == replace(facts, name="some")
    assert str(again.facts.trained_tasks["asr"][0]) == "WER 12.5 % (some)"
    with pytest.raises(UserError, match="model 'some' was not trained for task 'tta', only for asr, tts; --untrained"):
        again.generate_sound("rain")
    with pytest.raises(UserError, match="not trained for task 'yue_asr'"):
        again.transcribe(noise(0.4), language="yue")
    with pytest.raises(UserError, match="not trained for task 'audio_caption'"):
        again.caption(noise(0.4))
    with pytest.raises(UserError, match="not trained for task 'reason_copy'"):
        again.run("reason_copy", {"audio": noise(0.4)})
    assert again.run("reason_copy", {"audio": noise(0.4)}, max_duration_s=0.4, untrained=True)
    assert isinstance(again.transcribe(noise(0.4)).text, str)


def test_a_shipped_model_has_a_name_and_is_not_tuned_in_code():
    folder = open_folder("nano")
    assert folder.path == DEFAULT_FOLDER
    tuned = load_config(GenerationConfig, folder.section("generation"))
    assert tuned == load_config(GenerationConfig, preset_path("generation", "nano")) != GenerationConfig()
    assert ModelFacts.of(folder).trained_tasks is not None


def test_folders_from_before_the_section_are_read_on(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "old")
    config = read_yaml(folder / "config.yaml")
    config.pop("generation")
    config["lm"] |= {"beams": 2, "hearings": 3, "speech_attempts": 5}
    dump_config(config, folder / "config.yaml")
    found = UniAudio2.from_pretrained(folder, device="cpu").facts
    nano = load_config(GenerationConfig, preset_path("generation", "nano"))
    assert found.generation == replace(nano, beams=2, shifts=3, speech_attempts=5)
    assert found.trained_tasks is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams must be at least 1"),
        ({"silence_dbfs": 3.0}, "silence_dbfs must be at most 0"),
        ({"speech_time": (2.0, 1.0)}, "speech_time: the most must be"),
        ({"max_chunk_s": 0.1}, "max_chunk_s must be at least 0.4"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        GenerationConfig(**settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_weights_are_held_as_asked(model, dtype):
    held = UniAudio2.from_pretrained(model.folder, device="cpu", dtype=dtype)
    assert held.lm.dtype == {"bfloat16": torch.bfloat16}.get(dtype, torch.float32)
    assert isinstance(held.transcribe(noise(0.5)).text, str)
    with pytest.raises(UserError, match="unknown dtype 'int3'; give a torch dtype or one of: float32, bfloat16, int8"):
        UniAudio2.from_pretrained(model.folder, device="cpu", dtype="int3")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_says_so_instead_of_hanging(model: UniAudio2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a child
    assert model.encode(noise(0.4)).num_samples  # one thread: nothing to wait for
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for call in (lambda: model.encode(noise(0.4)), lambda: model.caption(noise(0.4)), lambda: model.speak("One.")):
        with pytest.raises(UserError, match="spawn"):
            call()
