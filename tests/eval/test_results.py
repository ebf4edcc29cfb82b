"""The page of results is what its files say, and the committed page is that page."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from uniaudio2.eval import Figure, Report
from uniaudio2.eval.results import (
    ResultsError,
    from_report,
    judge,
    page_of,
    read_results,
    render_headlines,
    render_result,
)

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "results"


def report(**more: object) -> Report:
    figures = [
        Figure("WER", 0.234, 0.2, 0.27, 200, "%", "en", "<= 40 %; <= 20 %", clusters=6),
        Figure("CER", 0.1, 0.05, 0.15, 200, "%", "en", judge="ear"),
    ]
    one = Report("asr", "mine", "m", "uniaudio2 evaluate asr --data mine", 0, judge="jiwer", figures=figures)
    one.speakers, one.notes, one.date = "6, of whom 0 have clips in the train part", ["Rough."], "2026-01-02 03:04 UTC"
    for name, value in more.items():
        setattr(one, name, value)
    return one


def test_a_report_becomes_a_file_and_a_page(tmp_path: Path) -> None:
    report().save_summary(tmp_path / "10_asr.json")
    second = json.loads((tmp_path / "10_asr.json").read_text())
    second |= {"section": "More", "title": "Second"}
    second["figures"][0] |= {"headline": "words", "text": "one in four"}
    (tmp_path / "20_more.json").write_text(json.dumps(second))
    (tmp_path / "intro.md").write_text("What this is.\n")
    page = page_of(tmp_path)
    assert page.startswith("# Results\n\nWhat this is.\n\n## At a glance\n")
    assert "| words | one in four | 20.0 % to 27.0 % |" in page
    assert "`uniaudio2 evaluate asr --data mine`, 2026-01-02, " in page
    assert "Judge: jiwer. Speakers: 6, of whom 0 have clips in the train part." in page
    assert "| WER, en | 23.4 % | 20.0 % to 27.0 % | 200 (6) | <= 40 %; <= 20 %: met; missed |" in page
    assert "| CER, en (ear) | 10.0 % | 5.0 % to 15.0 % | 200 |  |" in page
    assert page.index("### asr, mine") < page.index("## More") < page.index("### Second") and "\nRough.\n" in page
    assert all(len(cell) < 80 for line in page.splitlines() if line[:1] == "|" for cell in line.split("|"))


def test_groups_with_the_same_figures_share_a_table() -> None:
    figures = [Figure(n, 0.5, 0.4, 0.6, 3, group=g) for g in ("a: x", "a: y") for n in ("stoi", "estoi", "p", "q")]
    figures += [Figure("bit rate", 1.4, unit="kbit/s"), Figure("stoi", 0.9, group="b", target=">= 0.8")]
    text = "\n".join(render_result(from_report(report(figures=figures))))
    assert "| Group | n | stoi | estoi | p | q |" in text and text.count("0.500 [0.400, 0.600]") == 8
    assert "| bit rate | 1.400 kbit/s |" in text and "| stoi, b | 0.900 |" in text and "| stoi, a: x" not in text


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [
        (0.1, "<= 12 %", "met"),
        (0.2, "<= 12 %; <= 25 %", "missed; met"),
        (0.9, ">= 0.85; >= 0.90", "met"),
        (80.0, "<= 6 min", "met"),
        (0.5, "a wide margin", ""),
        (math.nan, "<= 1", ""),
    ],
)
def test_verdicts(value: float, target: str, verdict: str) -> None:
    assert judge(Figure("x", value, target=target)) == verdict


@pytest.mark.parametrize("text", ["{", "[]", '{"title": "t"}', '{"title": "t", "figures": [], "kommand": "c"}'])
def test_broken_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ResultsError, match=r"a\.json: not a file of results"):
        read_results(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no files of results"):
        read_results(tmp_path)


def test_the_committed_page_is_the_rendered_one() -> None:
    page = (REPOSITORY / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    assert page == page_of(RESULTS), "run: uniaudio2 results docs/results -o docs/RESULTS.md"


def test_the_readme_has_the_headlines() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "\n".join(render_headlines(read_results(RESULTS))) in readme, "copy 'At a glance' from docs/RESULTS.md"


def test_every_result_says_how_it_was_measured() -> None:
    for one in read_results(RESULTS):
        assert one.title and one.command and one.machine, one.title
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", one.date), one.title
        if " asr" in one.command:
            assert one.speakers and one.judge, f"{one.title}: say who was heard and what scored it"
