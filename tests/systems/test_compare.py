"""Comparisons from the command line: same clips, same scorer, failures named, finished clips kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uniaudio2.cli import execute
from uniaudio2.compare.data import clips_of
from uniaudio2.compare.paper import TABLES, listing, run_table
from uniaudio2.errors import UserError

TOY = str(Path(__file__).with_name("toy_system.py"))


def voice(seconds: float, seed: int) -> np.ndarray:
    """Pulses with formant-like noise, gated like syllables."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(24000 * seconds)) / 24000
    wave = sum(np.sin(2 * np.pi * (110 + 10 * seed) * k * t) / k for k in range(1, 20))
    return (0.1 * wave * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)) + 0.003 * rng.standard_normal(len(t))).astype("f4")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals need not be fine here."""
    monkeypatch.setattr("uniaudio2.eval.text_metrics.RESAMPLES", 100)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = []
    for number in range(3):
        soundfile.write(folder / f"c{number}.wav", voice(0.9, number), 24000)
        line = {"id": f"c{number}", "path": f"c{number}.wav", "duration": 0.9, "split": "test", "language": "en"}
        lines.append({**line, "text": f"sentence number {number}", "speaker": f"s{number}"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_codecs_compared(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    systems = f"{TOY}@label=fine,{TOY}@levels=16@label=coarse,{TOY}@fails_at=1@label=weak,mimi@weights=nowhere"
    words = ["compare", "codecs", "--systems", systems, "--data", str(corpus), "-o", str(out), "--device", "cpu"]
    assert execute(words) == 1  # some failed, and were named
    told = capfd.readouterr()
    assert "weak failed at 1 of 3 clips, such as c1: RuntimeError: this clip is too hard" in told.out
    assert "mimi nowhere failed: nowhere: no weights of Mimi" in told.out
    report = json.loads((out / "report.json").read_text())
    figures = {(f["name"], f["group"]): f for f in report["figures"]}
    assert figures["kbit/s", "speech: fine"]["value"] == pytest.approx(64.0)
    assert figures["kbit/s", "speech: coarse"]["value"] == pytest.approx(32.0)
    assert figures["STOI", "speech: fine"]["value"] > figures["STOI", "speech: coarse"]["value"]
    assert figures["STOI", "speech: weak"]["count"] == 2
    paired = figures["STOI, difference to fine", "speech: coarse"]
    low, high = paired["low"], paired["high"]
    assert low <= paired["value"] <= high < 0
    assert figures["STOI, difference to fine", "speech: weak"]["value"] == pytest.approx(0, abs=1e-9)
    assert figures["encode RTF", "speech: fine"]["value"] > 0
    facts = {system["label"]: system for system in report["systems"]}
    assert facts["fine"]["peak_bytes"].get("ram", 1) > 0 and facts["mimi nowhere"]["failures"][""]
    page = (out / "index.html").read_text()
    assert page.count("<audio") == 3 + 3 + 3 + 2 and not re.search(r"(src|href)=.?http", page)
    for file in ("report.md", "report.tex", "rate_distortion.svg", "audio/original/c0.wav", "audio/fine/c0.wav"):
        assert (out / file).stat().st_size > 0, file
    assert r"\begin{tabular}" in (out / "report.tex").read_text() and r"kbit/s & " in (out / "report.tex").read_text()

    # Again: only what failed is done anew, and the weak one is past its weak clip.
    before = (out / "audio" / "fine" / "c0.wav").stat().st_mtime_ns
    assert execute(words) == 1
    told = capfd.readouterr()
    assert "fine: 0 of 3 clips to do" in told.err and "weak: 1 of 3 clips to do" in told.err
    assert "weak failed" not in told.out and (out / "audio" / "fine" / "c0.wav").stat().st_mtime_ns == before


def test_a_line_that_was_cut_off_is_done_again(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    words = ["compare", "codecs", "--systems", f"{TOY}@label=a", "--data", str(corpus), "-o", str(out), "--limit", "2"]
    assert execute([*words, "--device", "cpu"]) == 0
    records = out / "records" / "a.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join([*lines[:2], lines[2][:20]]))
    capfd.readouterr()
    assert execute([*words, "--device", "cpu"]) == 0
    assert "a: 1 of 2 clips to do" in capfd.readouterr().err
    assert execute([*words, "--device", "cpu", "--seed", "1"]) == 1
    assert "holds a comparison with other seed" in capfd.readouterr().err
    other = [*words[:3], f"{TOY}@levels=8@label=a", *words[4:], "--device", "cpu"]
    assert execute(other) == 1
    assert "records of other settings" in capfd.readouterr().err


def test_stored_texts_are_recognisers(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jiwer")
    for name, change in (("right", ""), ("wrong", "not ")):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"c{number}.txt").write_text(f"{change}Sentence number {number}.")
    systems = f"files@path={tmp_path}/right@label=right,files@path={tmp_path}/wrong@label=wrong"
    words = ["compare", "asr", "--systems", systems, "--data", str(corpus), "--normaliser", "simple"]
    assert execute([*words, "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0, capfd.readouterr().err
    figures = {
        (f["name"], f["group"]): f["value"] for f in json.loads((tmp_path / "out/report.json").read_text())["figures"]
    }
    assert figures["WER", "en: right"] == 0 and figures["WER", "en: wrong"] == pytest.approx(1 / 3)
    assert figures["WER, difference to right", "en: wrong"] == pytest.approx(1 / 3)


def test_a_judge_that_is_missing_is_named(corpus: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setitem(__import__("sys").modules, "speechmos", None)
    words = [
        "compare",
        "codecs",
        "--systems",
        f"{TOY}@label=a",
        "--data",
        str(corpus),
        "--limit",
        "1",
        "--device",
        "cpu",
    ]
    assert execute([*words, "--judges", "dnsmos", "-o", str(tmp_path / "out")]) == 0
    assert "No figures by dnsmos: " in capfd.readouterr().out
    assert execute([*words, "--judges", "nobody", "-o", str(tmp_path / "out2")]) == 1
    assert "unknown judge 'nobody'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "nothing"], "no comparison of 'nothing'"),
        (["compare", "codecs"], "compare codecs needs --systems"),
        (["compare", "paper", "--table", "none", "-o", "x", "--data-root", "."], "no table 'none'"),
        (["compare", "codecs", "--systems", "mimi", "--data", "librispeech=nowhere", "-o", "x"], "openslr.org/12"),
    ],
)
def test_bad_words(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert execute(words) == 1
    assert message in capfd.readouterr().err


def test_lists(capfd: pytest.CaptureFixture[str]) -> None:
    assert execute(["compare", "list"]) == 0
    assert "encodec\tcodecs\tEnCodec 24 kHz\tfacebook/encodec_24khz (2fa7a29" in capfd.readouterr().out
    assert execute(["compare", "data", "--json"]) == 0
    assert '"name": "seed_tts_eval"' in capfd.readouterr().out
    assert execute(["compare", "paper"]) == 0
    assert capfd.readouterr().out.strip() == listing().strip()


def test_the_reference_page_gives_its_known_figures(tmp_path: Path, shared: Path) -> None:
    root = shared / "data"
    if not (root / "seed_demo" / "tasks.jsonl").is_file():
        pytest.skip("the reference page's files are not here")
    pytest.importorskip("pystoi")
    systems = f"files@path={root}/seed_demo/reconstruction/{{kind}}/mimi/{{name}}@label=mimi"
    text = run_table("page", tmp_path, root=root, systems=systems)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| mimi")]
    assert len(rows) == 7
    tolerance = {"pesq_wb": 0.006, "mcd_db": 0.07, "mr_stft": 0.006}
    for _, what, published, here, _ in rows:
        if here != "–" or "pesq" not in what:  # PESQ is compiled and may be absent
            assert float(here) == pytest.approx(float(published), abs=tolerance.get(what.split()[-1], 0.0016)), what


def test_a_paper_table_without_its_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data of table 'asr' are below"):
        run_table("asr", tmp_path / "out", root=tmp_path)
    assert all(row.data or row.why for table in TABLES.values() for row in table.rows)


def test_limit_draws_by_the_seed(corpus: Path) -> None:
    drawn = [[clip.example.id for clip in clips_of(str(corpus), limit=2, seed=seed)] for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({tuple(ids) for ids in drawn}) > 1
