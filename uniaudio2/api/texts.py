"""Transcripts as text, subtitles and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniaudio2.api.results import Segment, TextResult, Word

FORMATS = ("txt", "json", "srt", "vtt", "tsv")


def as_text(result: TextResult, form: str | None, timestamps: str | None = None) -> str:
    """A result as a whole file in one of `FORMATS` but ``json``, which needs more than the result; None is ``txt``.

    Args:
        result: What was found.
        form: ``srt`` and ``vtt`` are subtitles; ``tsv`` has start and end in milliseconds.
        timestamps: ``segments``: ``txt`` has a line with start and end for every piece, instead of the text alone.
            ``words``: every form has a line or a cue for every word.
    """
    parts: Sequence[Segment | Word] = result.words if timestamps == "words" else result.segments
    if form == "srt":
        cues = (f"{number}\n{_span(part, ',')}\n{part.text}\n" for number, part in enumerate(parts, 1))
        return "\n".join(cues)
    if form == "vtt":
        return "\n".join(["WEBVTT\n", *(f"{_span(part, '.')}\n{part.text}\n" for part in parts)])
    if form == "tsv":
        rows = [f"{round(1000 * part.start_s)}\t{round(1000 * part.end_s)}\t{part.text}" for part in parts]
        return "\n".join(["start\tend\ttext", *rows, ""])
    if timestamps:
        return "".join(timed_line(part) + "\n" for part in parts)
    return result.text + "\n"


def timed_line(part: Segment | Word) -> str:
    """Start and end second and text of one piece, with tabs between."""
    return f"{part.start_s:.2f}\t{part.end_s:.2f}\t{part.text}"


def _span(part: Segment | Word, point: str) -> str:
    return f"{_clock(part.start_s, point)} --> {_clock(part.end_s, point)}"


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds, as subtitles have them."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"
