"""The card of one item: what was given, what was made, what is right, and what others made."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from uniaudio2.page import words
from uniaudio2.page.record import Piece, Record
from uniaudio2.page.scores import METRICS
from uniaudio2.page.text import attribute, both, clip_figure, filled, folded, mark, metric_name, user_text
from uniaudio2.page.words import Words

_ORDER = ("shot", "given", "ours", "truth", "peer")
_LONG_TEXT = 45  # characters; a card with more takes more room


def card(record: Record, address: Callable[[str], str]) -> str:
    """An item as HTML.

    Args:
        record: What was made of it.
        address: Gives the address of a file below the page's folder.
    """
    right = {piece.file for piece in record.pieces if piece.role == "truth" and piece.file}
    pieces = [piece for piece in record.pieces if piece.role != "given" or piece.file not in right]
    pieces.sort(key=lambda piece: _ORDER.index(piece.role))
    texts = "".join(_line(piece) for piece in pieces if not piece.file and piece.role != "shot")
    clips = "".join(_clip(piece, record, address) for piece in pieces if piece.file or piece.role == "shot")
    sounds = sum(bool(piece.file) for piece in pieces)
    wide = " full" if sounds > 2 else " wide" if sounds > 1 or len(record.expected) > _LONG_TEXT else ""
    place = re.sub(r"\s", "-", f"{record.section}-{record.name}")
    return (
        f'<article class="card{wide}" id="{html.escape(place, quote=True)}"><h3>{html.escape(record.name)}</h3>'
        f"{problem(record.error)}<dl>{texts}</dl>"
        f'<div class="clips">{clips}</div>{_facts(record)}'
        f"{folded(words.COMMAND_HERE, record.command)}</article>"
    )


def problem(error: str) -> str:
    """Why something failed."""
    return f'<p class="problem">{both(words.FAILED)}: {html.escape(error)}</p>' if error else ""


def _facts(record: Record) -> str:
    """Time of work, and whose recordings these are."""
    work = filled(words.WORK_NOTE, seconds=f"{record.time_s:.2f}", factor=f"{record.real_time_factor:.2f}")
    time = f'<p class="note">{both(work)}</p>' if record.time_s and record.audio_s else ""
    return time + (f'<p class="note">{html.escape(record.note)}</p>' if record.note else "")


def label_of(name: str) -> Words:
    """What a value of the task table is called."""
    return words.VALUES.get(name, (name, name))


def _title(piece: Piece) -> str:
    """Whose a piece is, and what."""
    if piece.role == "peer":
        return f'<span class="role peer">{html.escape(piece.name)}</span>'
    return f'<span class="role {piece.role}">{both(words.ROLES[piece.role])}</span> {both(label_of(piece.name))}'


def _line(piece: Piece) -> str:
    """A text, and whether it is right."""
    return f"<dt>{_title(piece)}</dt><dd>{user_text(piece.text)}{mark(piece.right)}{_figures(piece)}</dd>"


def _clip(piece: Piece, record: Record, address: Callable[[str], str]) -> str:
    """A sound with its picture and player; or a text that stands among sounds."""
    if not piece.file:
        return (
            f'<figure class="{piece.role}"><figcaption>{_title(piece)}</figcaption>'
            f'<p class="said">{user_text(piece.text)}</p></figure>'
        )
    seconds = f"{piece.duration_s:.2f} s"
    role = (piece.name, piece.name) if piece.role == "peer" else words.ROLES[piece.role]
    label = label_of(piece.name)
    spoken = (f"{role[0]}: {label[0]}, {record.name}", f"{role[1]}：{label[1]}，{record.name}")
    picture = attribute("alt", filled(words.PICTURE, seconds=seconds))
    return (
        f'<figure class="{piece.role}"><figcaption><span>{_title(piece)}</span><span>{seconds}</span></figcaption>'
        f'<div class="axes"><span>12 kHz</span><span>0</span><i></i>'
        f'<img {picture} src="{address(piece.picture)}" loading="lazy"></div>'
        f'<audio controls preload="none" {attribute("aria-label", spoken)} src="{address(piece.file)}"></audio>'
        f"{_figures(piece)}</figure>"
    )


def _figures(piece: Piece) -> str:
    """Figures of a piece, and what the judge heard in it."""
    heard = f"{both(words.HEARD)} “{user_text(piece.heard)}”{mark(piece.right)}" if piece.heard else ""
    known = [metric for metric in METRICS if metric.key in piece.figures and metric.key != "right"]
    figures = " · ".join(f"{metric_name(metric)} {clip_figure(piece.figures, metric)}" for metric in known)
    lines = [line for line in (heard, figures) if line]
    return f'<p class="figures">{"<br>".join(lines)}</p>' if lines else ""
