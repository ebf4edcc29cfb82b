"""What makes a run this run: settings by name, data by content."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from tests.train.codec.toy import config, make_corpus
from tests.train.test_lm import codes as codes  # a fixture
from tests.train.test_lm import config as lm_config
from uniaudio2.train.codec import build_stage
from uniaudio2.train.identity import differences, fingerprint
from uniaudio2.train.lm import LMStage


def test_data_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.jsonl").write_text(text)
        (tmp_path / name / "notes.txt").write_text(name)
    a, b, c = (fingerprint([tmp_path / name], ("manifest.jsonl",)) for name in "abc")
    assert a == b != c
    assert fingerprint([tmp_path / "a", tmp_path / "c"], ("*.jsonl",)) not in (a, c)
    assert fingerprint([tmp_path / "a/manifest.jsonl"], ()) == a


def test_a_codec_run_is_its_settings_and_its_clips(tmp_path: Path) -> None:
    first = config("reasoning", make_corpus(tmp_path / "one"), tmp_path)
    about = build_stage(first).identity()
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    moved = replace(first, clips=replace(first.clips, corpus=str(tmp_path / "moved")))
    assert not differences(about, build_stage(moved).identity())
    shares = replace(first, clips=replace(first.clips, shares={"esc10": 2.0}))
    assert differences(about, build_stage(shares).identity()) == ["clips.shares={}, now {'esc10': 2.0}"]
    manifest = tmp_path / "moved/manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("la la", "lo lo"))
    assert [line.split("=")[0] for line in differences(about, build_stage(moved).identity())] == ["data"]


def test_a_language_model_run_is_its_settings_and_its_codes(codes: Path, tmp_path: Path) -> None:
    about = LMStage(lm_config("lm_1", codes, tmp_path)).identity()
    moved = Path(shutil.copytree(codes, tmp_path / "codes"))
    assert not differences(about, LMStage(lm_config("lm_1", moved, tmp_path / "elsewhere")).identity())
    other = LMStage(lm_config("lm_1", moved, tmp_path, "mixture.positions=400", "losses.ctc=0.3")).identity()
    assert differences(about, other) == ["losses.ctc=0.5, now 0.3", "mixture.positions=512, now 400"]
    labels = next(moved.glob("codes-*.jsonl"))
    labels.write_text(labels.read_text().replace("espeak-ng", "flite"))
    changed = LMStage(lm_config("lm_1", moved, tmp_path)).identity()
    assert [line.split("=")[0] for line in differences(about, changed)] == ["data"]
