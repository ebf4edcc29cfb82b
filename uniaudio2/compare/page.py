"""The page of a comparison: tables, plot, and every clip beside what each system made of it. Loads nothing remote."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from uniaudio2.audio import write_audio
from uniaudio2.compare.cells import difference, figure, tables_of
from uniaudio2.compare.run import Comparison
from uniaudio2.compare.scorer import Record, file_name
from uniaudio2.compare.summary import Group, failures

MOST_CLIPS = 24
"""Clips with players; the report has the figures of all."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0;font-size:14px;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}
audio{width:15rem;height:2rem}code{background:#f3f3f3;padding:.1rem .3rem}svg{max-width:100%;height:auto}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}code{background:#2a2a2a}
svg{background:#fff}}
"""


def render_page(
    comparison: Comparison, tables: Sequence[Group], systems: Sequence[tuple[str, ...]], plot: str, place: Path
) -> str:
    """The page as HTML; originals are written beside it, what systems made is there already."""
    title = html.escape(f"Comparison: {comparison.task.name}, {comparison.data}")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>',
        f"<p><code>{html.escape(comparison.command)}</code></p>",
    ]
    for table in tables:
        parts.append(f"<h2>{html.escape(table.name)}, {len(table.clips)} clips</h2>")
        parts.append(_table(*tables_of(comparison, table, figure)))
        if len(comparison.rows) > 1:
            first = html.escape(comparison.rows[0].spec.label)
            parts.append(f"<p>Difference to {first} on the same clips; * where its interval leaves zero out.</p>")
            parts.append(_table(*tables_of(comparison, table, difference, first=False)))
    parts += [plot, "<h2>Systems</h2>", _table(systems[0], systems[1:])]
    notes = [*comparison.notes, *failures(comparison)]
    if notes:
        parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>")
    parts += ["<h2>Clips</h2>", _clips(comparison, place), "</body></html>"]
    return "\n".join(part for part in parts if part) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, escaped: bool = False) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{cell if escaped else html.escape(cell)}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{cells(heads, 'th')}</tr></thead><tbody>{body}</tbody></table>"


def _clips(comparison: Comparison, place: Path) -> str:
    heads = ["Clip", *(row.spec.label for row in comparison.rows)]
    rows = []
    for clip in comparison.clips[:MOST_CLIPS]:
        name = f"audio/original/{file_name(clip.example.id)}.wav"
        if comparison.task.has_original and not (place / name).is_file():
            write_audio(place / name, clip.load())
        about = html.escape(clip.example.text or clip.example.caption or "")
        player = _player(name, f"original, {clip.example.id}") if comparison.task.has_original else ""
        first = f"<b>{html.escape(clip.example.id)}</b><br>{about}<br>{player}"
        rows.append([first, *(_output(row.records.get(clip.example.id), row.failures, clip.example.id, row.spec.label)
                              for row in comparison.rows)])  # fmt: skip
    return _table([html.escape(head) for head in heads], rows, escaped=True)


def _output(record: Record | None, failed: dict[str, str], clip: str, label: str) -> str:
    if record is None:
        return f"<i>{html.escape(failed.get(clip) or failed.get('', ''))}</i>"
    player = _player(str(record["file"]), f"{label}, {clip}") if record.get("file") else ""
    return f"{player}<br>{html.escape(str(record.get('found', '')))}"


def _player(file: str, name: str) -> str:
    return f'<audio controls preload="none" aria-label="{html.escape(name)}" src="{html.escape(file)}"></audio>'
