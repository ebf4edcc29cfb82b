"""The report on an installation, and the sizes of presets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uniaudio2 import doctor
from uniaudio2.config import ConfigError


def test_every_lack_has_a_remedy(tmp_path: Path) -> None:
    findings = doctor.diagnose(tmp_path)
    assert {finding.topic for finding in findings} >= {"program", "package", "extra", "tool", "device", "model"}
    for finding in findings:
        assert finding.ok or finding.remedy, finding
    model = [finding for finding in findings if finding.topic == "model"]
    assert not model[0].ok and "not a model folder" in model[0].remedy


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "jiwer" else version(name))
    extra = next(finding for finding in doctor.packages() if finding.name == "eval")
    assert not extra.ok and "without jiwer" in extra.value and "pip install 'uniaudio2[eval]'" in extra.remedy


@pytest.mark.parametrize(
    ("installed", "ok"),
    [("2.9.1+cpu", False), ("2.11.0", True), ("2.12.0.dev20260101", True), ("unknown version", True)],
)
def test_a_package_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, installed: str, ok: bool) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: installed if name == "torch" else "99")
    torch = next(finding for finding in doctor.packages() if finding.name == "torch")
    assert torch.ok is ok
    assert ok or (torch.value == "2.9.1+cpu, older than 2.11" and torch.remedy == "pip install 'torch>=2.11'")


def test_what_is_required_reads_the_same_from_a_checkout_and_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    here = doctor.requirements()
    assert here[""]["torch"] == "2.11" and "misaki" in here["data"] and "dev" not in here
    core = here.pop("")
    lines = [f"{name}>={least}" for name, least in core.items()]
    lines += [f'{name}>={least}; extra == "{extra}"' for extra, names in here.items() for name, least in names.items()]
    monkeypatch.setattr(doctor, "__file__", "/nowhere/uniaudio2/doctor.py")
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: lines)
    assert doctor.requirements() == {"": core, **here}


def test_size_of_the_published_model() -> None:
    (size,) = doctor.preset_sizes("3b")
    assert size.total == 4_863_493_120
    memory = size.memory()
    assert memory["float32"] == pytest.approx(4 * size.total, rel=0.01)
    assert memory["float32"] > memory["bf16"] > memory["int8"] > memory["int4"]
    assert size.cache_per_position == 2 * 2 * 33 * 8 * 128
    json.dumps(size.to_dict())
    with pytest.raises(ConfigError, match="no preset '4b'"):
        doctor.preset_sizes("4b")
