"""Finding the data folder, reading sets of recordings, and honouring what may be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uniaudio2.data import sources
from uniaudio2.data.manifest import ManifestError


def line(**changes: object) -> str:
    values: dict[str, object] = {
        "id": "x1",
        "path": "audio/x1.opus",
        "split": "train",
        "duration": 1.5,
        "text": None,
        "label": None,
        "caption": None,
        "speaker": None,
        "language": "en",
        "licence": "CC0-1.0",
        "attribution": "someone",
        "redistribute": True,
        "use": "train",
    }
    return json.dumps({**values, **changes})


def make_set(root: Path, name: str, *lines: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_only_what_may_be_shipped_is_read(tmp_path: Path) -> None:
    make_set(
        tmp_path,
        "fsdd",
        line(text="Seven", label=7, speaker="jackson"),
        line(id="x2", use="evaluation only, not for shipped weights"),
        line(id="x3", redistribute=False),
        line(id="x4", split="dev", text="one"),
    )
    train = sources.read_set(tmp_path, "fsdd", split="train")
    assert [example.id for example in train] == ["fsdd-x1"]
    assert (train[0].text, train[0].label, train[0].speaker) == ("seven", "7", "fsdd-jackson")
    assert train[0].file == tmp_path / "fsdd" / "audio/x1.opus"
    assert train[0].attribution == "someone" and train[0].source == "fsdd"
    assert [example.id for example in sources.read_set(tmp_path, "fsdd")] == ["fsdd-x1", "fsdd-x4"]


def test_sets_are_mapped(tmp_path: Path) -> None:
    make_set(tmp_path, "esc10", line(label="dog_bark", caption="a dog barking", language=None))
    make_set(tmp_path, "coffee_commands", line(label={"intent": "orderDrink", "slots": {"size": "large"}}))
    make_set(
        tmp_path, "read_chinese", line(language="cmn", text="广州市。"), line(id="x2", language="yue", text="係rock嘅")
    )
    dog = sources.read_set(tmp_path, "esc10")[0]
    assert dog.kind == "sound" and dog.label == "dog_bark" and len(dog.captions) >= 5 and dog.text is None
    assert sources.read_set(tmp_path, "coffee_commands")[0].label == "orderDrink: size=large"
    mandarin, cantonese = sources.read_set(tmp_path, "read_chinese")
    assert (mandarin.language, mandarin.text) == ("zh", "广州市")
    assert (cantonese.language, cantonese.text) == ("yue", None)


def test_every_class_has_five_phrasings() -> None:
    assert all(len(set(phrases)) >= 5 for phrases in sources.CAPTIONS.values())


def test_poison_and_missing_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="Hebrew"):
        sources.read_set(tmp_path, "yesno")
    with pytest.raises(ManifestError, match="no such set"):
        sources.read_set(tmp_path, "fsdd")
    make_set(tmp_path, "fsdd", line(), "{")
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:2"):
        sources.read_set(tmp_path, "fsdd")


def test_data_root_is_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sources.ENVIRONMENT_VARIABLE, raising=False)
    assert sources.find_data_root(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--data-root DIR or UNIAUDIO2_DATA=DIR"):
        sources.find_data_root()
    monkeypatch.setenv(sources.ENVIRONMENT_VARIABLE, str(tmp_path))
    assert sources.find_data_root() == tmp_path
    monkeypatch.setenv(sources.ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"\$UNIAUDIO2_DATA"):
        sources.find_data_root()


def test_real_folder_when_it_is_there() -> None:
    root = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (root / "esc10" / "manifest.jsonl").is_file():
        pytest.skip("no data folder beside the checkout")
    for name in sources.SETS:
        train = sources.read_set(root, name, split="train")
        assert train and all(example.file.is_file() for example in train[:5])
        if name in ("esc10", "sonic_pi", "librosa_clips"):
            assert all(len(example.captions) >= 5 for example in train)
