"""Systems by name, by a file of one's own, and what is said where one cannot be had."""

from __future__ import annotations

import pytest

from uniaudio2.config import ConfigError
from uniaudio2.errors import CheckpointError, MissingPackageError, UserError
from uniaudio2.systems import SYSTEMS, CodecSystem, SpeechSystem, StoredSystem, hub, load_system, parse_systems


def test_every_file_is_a_system_with_a_card():
    names = list(SYSTEMS)
    assert {"encodec", "mimi", "dac", "xcodec", "higgs", "ours", "files", "whisper", "kokoro", "openai"} <= set(names)
    for name in names:
        cls = SYSTEMS.classes(name)[1]
        assert issubclass(cls, CodecSystem | SpeechSystem | StoredSystem)
        assert cls.card.title and cls.card.licence
        if issubclass(cls, SpeechSystem):
            assert cls.tasks(), f"{name} has no task"


def test_words_name_systems_and_their_settings():
    first, second = parse_systems("encodec@kbps=3, encodec@kbps=6@label=six")
    assert (first.label, first.name, first.settings) == ("encodec 3", "encodec", ("kbps=3",))
    assert second.label == "six" and second.settings == ("kbps=6",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no systems given"),
        ("nosuch", "unknown system 'nosuch'"),
        ("mimi,mimi", "two systems are called 'mimi'"),
        ("mimi@1.1", "settings are written @key=value"),
        ("mine.py", "no such file"),
    ],
)
def test_words_that_name_nothing(words, message):
    with pytest.raises(ConfigError, match=message):
        parse_systems(words)


def test_rows_of_a_yaml_file(tmp_path):
    file = tmp_path / "peers.yaml"
    file.write_text("systems:\n  - encodec@kbps=3\n  - mimi\n")
    assert [spec.label for spec in parse_systems(str(file))] == ["encodec 3", "mimi"]
    file.write_text("systems: encodec\n")
    with pytest.raises(ConfigError, match="expected a list 'systems'"):
        parse_systems(str(file))


def test_nothing_is_fetched_unasked(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(hub_id, **options):
        asked.append(options["local_files_only"])
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(
        UserError, match=r"weights of Mimi are not here: --download fetches kyutai/mimi \(licence: CC-BY"
    ):
        load_system(parse_systems("mimi")[0])
    with pytest.raises(UserError, match="kyutai/mimi: Mimi could not be fetched"):
        load_system(parse_systems("mimi")[0], download=True)
    assert asked == [True, False]


def test_a_pinned_commit_belongs_to_its_own_hub_id(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(hub_id, **options):
        asked.append((hub_id, options["revision"]))
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    pinned = SYSTEMS.classes("encodec")[1].card.revision
    for words in ("", "@revision=main", "@hub_id=facebook/encodec_32khz", "@hub_id=facebook/encodec_32khz@revision=v1"):
        with pytest.raises(UserError, match="are not here"):
            load_system(parse_systems(f"encodec{words}")[0])
    assert asked == [
        ("facebook/encodec_24khz", pinned), ("facebook/encodec_24khz", "main"),
        ("facebook/encodec_32khz", None), ("facebook/encodec_32khz", "v1"),
    ]  # fmt: skip


def test_wrong_weights_and_settings(weights, tmp_path):
    folder = weights("encodec")
    for word, error, message in [
        (f"encodec@weights={folder}@kbps=5", UserError, "0.75 kbit/s a codebook and 32 of them: 5 kbit/s cannot be"),
        (f"encodec@weights={folder}@bits=5", ConfigError, "bits"),
        (f"encodec@weights={tmp_path}", UserError, "config.json is missing"),
    ]:
        with pytest.raises(error, match=message):
            load_system(parse_systems(word)[0])
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not the weights of EnCodec 24 kHz, 1 are missing"):
        load_system(parse_systems(f"encodec@weights={broken}")[0])


def test_a_class_that_transformers_lacks():
    with pytest.raises(MissingPackageError, match=r"Thing needs NoSuchModel, which transformers \d+\.\d+"):
        hub.transformers_class("NoSuchModel", "Thing")
