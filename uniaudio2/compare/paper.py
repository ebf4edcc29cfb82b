"""Published figures, what each needs to be measured here, and both beside each other.

Tables go by what they report, since the figures were collected from published reports and not all say which table of
the paper they stand in. `SOURCES` says where each came from. A figure that cannot be measured by a comparison is listed
with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.compare.cells import number
from uniaudio2.compare.data import PAGE, clips_of
from uniaudio2.compare.run import compare
from uniaudio2.compare.summary import Group, groups
from uniaudio2.compare.write import write_all
from uniaudio2.errors import UserError
from uniaudio2.eval.results import table as markdown_table
from uniaudio2.files import write_text
from uniaudio2.systems.registry import Spec, parse_systems

SOURCES = {
    "paper": "UniAudio 2.0, arXiv:2602.04683",
    "reports": "the systems' own reports, as collected in November 2026",
    "page": "the reference page's stored files, measured by this project",
}


@dataclass(frozen=True)
class Published:
    """A published figure.

    Attributes:
        system: Whose it is.
        what: What it says.
        value: The figure; of rates a share of one.
        source: A key of `SOURCES`.
        data: Data set and split; empty where it cannot be measured by a comparison.
        group: Language, or kind of audio.
        metric: Key of the metric.
        unit: ``"%"`` for rates.
        why: Why it cannot be measured here.
    """

    system: str
    what: str
    value: float
    source: str = "paper"
    data: str = ""
    group: str = ""
    metric: str = ""
    unit: str = ""
    why: str = ""


@dataclass(frozen=True)
class Table:
    """Published figures of one kind.

    Attributes:
        task: The comparison that measures them.
        rows: The figures.
        systems: What it runs on.
        note: What is to be known of their differences.
    """

    task: str
    rows: tuple[Published, ...]
    systems: str = "ours"
    note: str = ""


def _asr(system: str, clean: float, other: float, source: str) -> list[Published]:
    return [
        Published(system, f"WER, {split}", value / 100, source, f"librispeech:{split}", "en", "word_errors", "%")
        for split, value in (("test-clean", clean), ("test-other", other))
    ]


def _tts(system: str, en: float, zh: float, source: str) -> list[Published]:
    return [
        Published(system, "WER, Seed-TTS-eval en", en / 100, source, "seed_tts_eval:en", "en", "word_errors", "%"),
        Published(system, "CER, Seed-TTS-eval zh", zh / 100, source, "seed_tts_eval:zh", "zh", "char_errors", "%"),
    ]


def _codec(system: str, pesq: float, stoi: float) -> list[Published]:
    where = {"data": "librispeech:test-clean", "group": "speech"}
    return [
        Published(system, "PESQ-WB, LibriSpeech", pesq, "reports", metric="pesq_wb", **where),
        Published(system, "STOI, LibriSpeech", stoi, "reports", metric="stoi", **where),
    ]


_PAGE_METRICS = ("pesq_wb", "stoi", "estoi", "log_mel_l1_7k5", "mr_stft", "mcd_db")
_PAGE: dict[str, tuple[float, ...]] = {
    "uniaudio2": (2.32, 0.884, 0.737, 0.263, 1.40, 5.93),
    "higgs": (2.34, 0.913, 0.758, 0.195, 1.03, 5.18),
    "mimi": (2.14, 0.914, 0.778, 0.254, 1.23, 5.33),
    "xcodec": (2.35, 0.900, 0.750, 0.220, 2.46, 5.76),
    "encodec": (1.80, 0.877, 0.695, 0.254, 1.26, 5.65),
    "dac": (1.77, 0.899, 0.716, 0.219, 1.19, 5.38),
}
_PAGE_MUSIC = {"uniaudio2": 1.68, "higgs": 1.07, "mimi": 1.37, "xcodec": 2.75, "encodec": 1.22, "dac": 1.29}
_PAGE_KBPS = {"uniaudio2": 1.78, "higgs": 2.0, "mimi": 1.1, "xcodec": 2.0}

_PAGE_ROWS = [
    *(Published(name, f"speech, {metric}", value, "page", PAGE, "speech", metric)
      for name, values in _PAGE.items() for metric, value in zip(_PAGE_METRICS, values, strict=True)),
    *(Published(name, "music, mr_stft", value, "page", PAGE, "music", "mr_stft")
      for name, value in _PAGE_MUSIC.items()),
]  # fmt: skip
_PAGE_NOTE = (
    "X-Codec keeps no phase, so its delay is uncertain by a few milliseconds, which moves PESQ by .3 on a clip: with "
    "the delays that the yardstick seems to have taken our scorer gives its figures (docs/reference/metrics.md)."
)
_NOT_COMPARED = "there is no such comparison; `uniaudio2 evaluate` has the nearest"
_OURS = "UniAudio 2.0"

TABLES: dict[str, Table] = {
    "page": Table("codecs", tuple(_PAGE_ROWS), ",".join(
        f"files@path=PAGE/reconstruction/{{kind}}/{name}/{{name}}@label={name}"
        + (f"@kbps={_PAGE_KBPS[name]}" if name in _PAGE_KBPS else "") for name in _PAGE
    ), _PAGE_NOTE),
    "codec": Table("codecs", (
        Published(_OURS, "PESQ-WB of its codec", 2.36, why="its data are not named in what was collected"),
        Published(_OURS, "STOI of its codec", 0.85, why="its data are not named in what was collected"),
        *_codec("Mimi, 1.1 kbit/s", 2.25, 0.91), *_codec("Higgs, 2.0 kbit/s", 3.11, 0.85),
        *_codec("X-Codec2, 0.8 kbit/s", 2.43, 0.92), *_codec("MOSS, 1.0 kbit/s", 2.87, 0.94),
        *_codec("MOSS, 2.0 kbit/s", 3.41, 0.96), *_codec("Qwen3-TTS, 2.2 kbit/s", 3.19, 0.96),
    )),
    "asr": Table("asr", (
        *_asr(_OURS, 2.71, 6.3, "paper"), *_asr("Qwen2.5-Omni", 2.37, 4.21, "reports"),
        *_asr("Step-Audio 2", 1.17, 2.42, "reports"), *_asr("Kimi-Audio", 1.28, 2.42, "reports"),
    )),
    "tts": Table("tts", (
        *_tts(_OURS, 3.63, 2.30, "paper"), *_tts("Qwen2.5-Omni", 3.10, 1.21, "reports"),
        *_tts("MOSS", 1.89, 1.23, "reports"),
        Published(_OURS, "WER, LibriSpeech test-clean sentences", 0.0346, "paper", "librispeech:test-clean", "en",
                  "word_errors", "%"),
    )),
    "others": Table("", (
        Published(_OURS, "AudioCaps, CIDEr", 0.69, why=_NOT_COMPARED),
        Published(_OURS, "MMLU", 0.441, unit="%", why="text alone"),
        Published(_OURS, "dysarthric speech, WER", 0.194, unit="%", why="its part of the corpus is not named"),
        Published(_OURS, "one-shot denoising", 14.1, why=_NOT_COMPARED),
        Published(_OURS, "one-shot voice conversion, speaker similarity", 0.89, why=_NOT_COMPARED),
    )),
}  # fmt: skip
"""Published figures by table."""


def listing() -> str:
    """All tables with what their figures need, as Markdown."""
    lines: list[str] = []
    for name, table in TABLES.items():
        rows = []
        for row in table.rows:
            value = number(row.value, row.unit) + (" %" if row.unit else "")
            rows.append((row.system, row.what, value, row.data or f"not run: {row.why}", SOURCES[row.source]))
        lines += [f"## {name}", "", *markdown_table(("System", "What", "Published", "Needs", "Source"), rows), ""]
    return "\n".join(lines)


def run_table(
    name: str,
    place: Path,
    *,
    root: Path,
    systems: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> str:
    """Measure what a table needs and put both beside each other.

    Args:
        name: A key of `TABLES`.
        place: Folder for the reports, and for ``paper.md``.
        root: Folder with the data sets, each in a folder of its name.
        systems: As for a comparison; None takes the table's own.
        limit: Most clips of each data set.
        seed: Of every random choice.
        say: Told what goes on.
        options: As for `compare`.

    Returns:
        The table as Markdown.

    Raises:
        UserError: If there is no such table, or none of its data are there.
    """
    if name not in TABLES:
        raise UserError(f"no table {name!r} of published figures; there are {', '.join(TABLES)}")
    table = TABLES[name]
    specs = parse_systems(systems or table.systems.replace("PAGE", str(root / "seed_demo")))
    found: dict[str, list[Group]] = {}
    for data in dict.fromkeys(row.data for row in table.rows if row.data):
        dataset, _, split = data.partition(":")
        folder = root / ("seed_demo" if dataset == PAGE else dataset)
        if not folder.is_dir():
            say(f"{data}: not at hand, {folder} is missing")
            continue
        clips = clips_of(f"{dataset}={folder}", split=split or None, limit=limit, seed=seed)
        report = place / data.replace(":", "-")
        comparison = compare(table.task, specs, clips, report, data=data, seed=seed, say=say, **options)
        found[data] = groups(comparison)
        write_all(comparison, found[data], report)
    if not found:
        raise UserError(f"no data of table {name!r} are below {root}: `uniaudio2 compare data` says where they are had")
    text = _beside(name, table, specs, found)
    write_text(place / "paper.md", text)
    return text


def _beside(name: str, table: Table, specs: Sequence[Spec], found: dict[str, list[Group]]) -> str:
    heads = ["Published by", "What", "Published", *(f"{spec.label}, here" for spec in specs)]
    own = name == "page"  # the page's systems are each their own row
    if own:
        heads[3:] = ["Here", "Difference"]
    rows: list[list[str]] = []
    for row in table.rows:
        values = [_measured(row, spec.label, found) for spec in specs if not own or spec.label == row.system]
        shown = [number(value, row.unit) for value in values]
        if own:
            shown = [*(shown or ["–"]), number(values[0] - row.value, row.unit) if values else "–"]
        rows.append([row.system, row.what, number(row.value, row.unit), *(shown if row.data else [row.why])])
    sources = "; ".join(SOURCES[key] for key in dict.fromkeys(row.source for row in table.rows))
    width = len(heads)
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    notes = [f"Published: {sources}.", *filter(None, [table.note])]
    return "\n".join([f"# Published and here: {name}", "", *markdown_table(heads, padded), "", *notes, ""])


def _measured(row: Published, label: str, found: dict[str, list[Group]]) -> float:
    for group in found.get(row.data, []):
        cell = group.cells.get(label, {}).get(row.metric)
        if group.name == row.group and cell is not None:
            return cell.rate.value
    return math.nan
