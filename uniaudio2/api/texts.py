"""Transcripts as text, subtitles and tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniaudio2.api.results import Segment, TextResult

FORMATS = ("txt", "json", "srt", "vtt", "tsv")


def as_text(result: "TextResult", form: str | None, timestamps: bool = False) -> str:
    """A result as a whole file in one of `FORMATS` but ``json``, which needs more than the result; None is ``txt``.

    Args:
        result: What was found.
        form: ``srt`` and ``vtt`` are subtitles; ``tsv`` has start and end in milliseconds.
        timestamps: Whether ``txt`` has a line with start and end for every piece, instead of the text alone.
    """
    if form == "srt":
        cues = (f"{number}\n{_span(part, ',')}\n{part.text}\n" for number, part in enumerate(result.segments, 1))
        return "\n".join(cues)
    if form == "vtt":
        return "\n".join(["WEBVTT\n", *(f"{_span(part, '.')}\n{part.text}\n" for part in result.segments)])
    if form == "tsv":
        rows = [f"{round(1000 * part.start_s)}\t{round(1000 * part.end_s)}\t{part.text}" for part in result.segments]
        return "\n".join(["start\tend\ttext", *rows, ""])
    if timestamps:
        return "".join(timed_line(part) + "\n" for part in result.segments)
    return result.text + "\n"


def timed_line(part: "Segment") -> str:
    """Start and end second and text of one piece, with tabs between."""
    return f"{part.start_s:.2f}\t{part.end_s:.2f}\t{part.text}"


def _span(part: "Segment", point: str) -> str:
    return f"{_clock(part.start_s, point)} --> {_clock(part.end_s, point)}"


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds, as subtitles have them."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"
