"""The page of the demo: what was made, to hear and see, in one file that loads nothing from anywhere."""

import base64
import html
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniaudio2.audio import read_audio, write_audio
from uniaudio2.speech_text import is_han

_SECTIONS = {
    "transcribe": ("It listens", "Real recordings of people, none of them used in training, written down."),
    "caption": ("It knows sounds", "Real field recordings, described in words."),
    "speak": ("It speaks", "Text read aloud in its synthetic house voice, then heard back by its own ears."),
    "voice": ("It borrows a voice", "The same model, prompted with a few seconds of a public-domain reader."),
    "sound": ("It makes sounds", "From a description alone, then described by its own ears."),
    "codec": ("Codes and back", "A recording as 140 small numbers a second, and as sound again."),
}


@dataclass
class Clip:
    """A waveform on the page, with its picture."""

    title: str
    wav: Path
    picture: Path
    duration_s: float


@dataclass
class DemoItem:
    """One thing that the demo did."""

    section: str  # a key of the sections of the page
    name: str
    expected: str
    got: str
    right: bool | None  # None where there is no right or wrong
    time_s: float
    audio_s: float  # length of the audio that was read or made
    clips: list[Clip] = field(default_factory=list)
    note: str = ""

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio."""
        return self.time_s / max(self.audio_s, 1e-9)


@dataclass
class DemoReport:
    """Everything the demo did."""

    items: list[DemoItem]
    page: Path
    load_s: float
    total_s: float
    model_name: str

    @property
    def judged(self) -> list[DemoItem]:
        """Items that are right or wrong by their words."""
        return [item for item in self.items if item.right is not None and item.section != "codec"]

    @property
    def summary(self) -> str:
        """One line for the terminal."""
        right = sum(bool(item.right) for item in self.judged)
        work_s, audio_s = sum(item.time_s for item in self.items), sum(item.audio_s for item in self.items)
        return (
            f"{right} of {len(self.judged)} items as expected; model loaded in {self.load_s:.1f} s; "
            f"{work_s:.1f} s of work on {audio_s:.1f} s of audio; {self.total_s:.1f} s in all"
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain values for JSON, one per item."""
        return [
            {
                "task": item.section,
                "item": item.name,
                "expected": item.expected,
                "got": item.got,
                "as_expected": item.right,
                "time_s": round(item.time_s, 3),
                "audio_s": round(item.audio_s, 3),
                "real_time_factor": round(item.real_time_factor, 3),
                "files": [str(clip.wav) for clip in item.clips],
            }
            for item in self.items
        ]


def _data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _compressed(wav: Path) -> bytes:
    """A file as mp3, which every browser plays, an eighth of its size."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp3"
        write_audio(file, read_audio(wav))
        return file.read_bytes()


def _clip_html(clip: Clip) -> str:
    name = f"{clip.title}, {clip.wav.stem}"
    return (
        f"<figure><figcaption>{html.escape(clip.title)}<span>{clip.duration_s:.2f} s</span></figcaption>"
        f'<div class="axes"><span>12 kHz</span><span>0</span>'
        f'<img alt="log-mel spectrogram of {clip.duration_s:.2f} s, 0 to 12 kHz" '
        f'src="{_data_url(clip.picture.read_bytes(), "image/png")}"></div>'
        f'<audio controls preload="metadata" aria-label="{html.escape(name)}" '
        f'src="{_data_url(_compressed(clip.wav), "audio/mpeg")}"></audio></figure>'
    )


def _text_html(text: str) -> str:
    """A text, with its language where it is not the page's."""
    written = html.escape(text)
    return f'<span lang="zh">{written}</span>' if any(is_han(char) for char in text) else written


_LONG_TEXT = 45  # characters; longer items take a whole row
_LABELS = {
    "transcribe": ("said", "written down"),
    "caption": ("is", "described as"),
    "speak": ("text", "heard back as"),
    "voice": ("text", "heard back as"),
    "sound": ("asked for", "heard back as"),
    "codec": ("in", "out"),
}


def _mark(kind: str, title: str, sign: str) -> str:
    return f'<b class="mark {kind}" title="{title}">{sign}</b>'


def _item_html(item: DemoItem) -> str:
    first, second = _LABELS[item.section]
    mark = {True: _mark("yes", "as expected", "✓"), False: _mark("no", "not as expected", "✗"), None: ""}
    got = _text_html(item.got) if item.got else "<i>nothing</i>"
    note = f'<p class="note">{html.escape(item.note)}</p>' if item.note else ""
    clips = "".join(_clip_html(clip) for clip in item.clips)
    wide = " wide" if len(item.clips) > 1 else " full" if len(item.expected) > _LONG_TEXT else ""
    return (
        f'<article class="card{wide}" id="{html.escape(item.name)}"><div class="clips">{clips}</div>'
        f"<dl><dt>{first}</dt><dd>{_text_html(item.expected)}</dd>"
        f"<dt>{second}</dt><dd>{got} {mark[item.right]}</dd></dl>"
        f'<p class="time">{item.time_s:.2f} s of work, real-time factor {item.real_time_factor:.2f}</p>{note}</article>'
    )


_STYLE = """
:root{color-scheme:light dark;--bg:#f7f5f1;--card:#fff;--ink:#1f1d1a;--soft:#6d675e;--line:#e4dfd6;--accent:#a83d6b;
--yes:#2b7a4b;--no:#b3452c}
@media(prefers-color-scheme:dark){:root{--bg:#151317;--card:#1f1c22;--ink:#ece7ee;--soft:#a39ba8;--line:#332e38;
--accent:#f08bb4;--yes:#6fce95;--no:#f0916f}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans",
"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 20px 60px}
h1{font-size:2.1rem;line-height:1.15;margin:0 0 .3rem;letter-spacing:-.02em}
h1 em{font-style:normal;color:var(--accent)}
h2{font-size:1.35rem;margin:2.8rem 0 .1rem}
.lead,.sub{color:var(--soft);margin:0 0 1rem;max-width:46rem}
.facts{display:flex;flex-wrap:wrap;gap:10px;margin:1.4rem 0 0;padding:0;list-style:none}
.facts li{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:9px 15px;min-width:8.5rem}
.facts b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.facts span{color:var(--soft);font-size:.84rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:16px}
.card{background:var(--card);border:1px solid var(--line);border-radius:16px;padding:16px;min-width:0}
.wide{grid-column:span 2}.full{grid-column:1/-1}
@media(max-width:680px){.wide{grid-column:auto}}
.clips{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(230px,100%),1fr));gap:14px}
figure{margin:0;min-width:0}
figcaption{display:flex;justify-content:space-between;font-size:.8rem;color:var(--soft);margin-bottom:5px}
img{display:block;width:100%;height:104px;border-radius:9px;background:#000004;object-fit:fill}
.axes{position:relative}.axes span{position:absolute;left:5px;top:3px;font-size:.66rem;color:#fffc}
.axes span+span{top:auto;bottom:3px}
audio{display:block;width:100%;height:38px;margin-top:9px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 12px;margin:13px 0 0}
dt{color:var(--soft);font-size:.86rem;padding-top:.1rem}
dd{margin:0;overflow-wrap:anywhere}
.mark{margin-left:.3rem}.yes{color:var(--yes)}.no{color:var(--no)}
.time,.note{margin:9px 0 0;font-size:.8rem;color:var(--soft);font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.note{margin-top:2px}
footer{margin-top:3rem;color:var(--soft);font-size:.86rem;border-top:1px solid var(--line);padding-top:1rem}
"""


_SCRIPT = """
addEventListener("play",e=>document.querySelectorAll("audio").forEach(a=>a!==e.target&&a.pause()),true)
"""  # one player at a time


def render_page(report: DemoReport) -> str:
    """One HTML page with all sounds and pictures inside; it loads nothing from anywhere."""
    right = sum(bool(item.right) for item in report.judged)
    work_s, audio_s = sum(item.time_s for item in report.items), sum(item.audio_s for item in report.items)
    facts = [
        (f"{right} of {len(report.judged)}", "items as expected"),
        (f"{report.load_s:.1f} s", "to load the model"),
        (f"{work_s:.1f} s", f"of work on {audio_s:.0f} s of audio"),
        (f"{report.total_s:.0f} s", "in all, with pictures"),
    ]
    body = []
    for section, (title, lead) in _SECTIONS.items():
        cards = "".join(_item_html(item) for item in report.items if item.section == section)
        if cards:
            body.append(f'<section><h2>{title}</h2><p class="sub">{lead}</p><div class="grid">{cards}</div></section>')
    fact_list = "".join(f"<li><b>{value}</b><span>{label}</span></li>" for value, label in facts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>uniaudio2 demo</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><main><header>'
        "<h1>uniaudio2 <em>listens and speaks</em></h1>"
        f'<p class="lead">Made on this machine by the model <b>{html.escape(report.model_name)}</b>. Every sound '
        "below is a 16-bit file in this folder; what the model made was read back from that file before it was "
        "judged.</p>"
        f'<ul class="facts">{fact_list}</ul></header>{"".join(body)}'
        "<footer>Voices are synthetic. Pictures are log-mel spectrograms, 0 to 12 kHz, low tones at the bottom. "
        "Recordings: Free Spoken Digit Dataset (CC BY-SA 4.0), Picovoice wake-word benchmark (Apache-2.0), LJ Speech "
        "and LibriVox (public domain), ESC-10 sounds (CC0).</footer></main>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )
