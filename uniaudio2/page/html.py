"""The page itself: one HTML file in two languages that loads nothing but the sounds and pictures beside it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from uniaudio2.page import words
from uniaudio2.page.build import Shown, Site
from uniaudio2.page.media import embedded
from uniaudio2.page.record import Piece, Record
from uniaudio2.page.scores import METRICS
from uniaudio2.page.words import Words
from uniaudio2.speech_text import is_han
from uniaudio2.storage.folder import DEFAULT_FOLDER

_ORDER = ("shot", "given", "ours", "truth", "peer")


def render_page(site: Site) -> str:
    """The page as HTML."""
    return _Page(site).render()


def both(text: Words, **values: object) -> str:
    """A text in both languages, of which one is shown; values in place of {names}."""
    english, chinese = (html.escape(one.format(**values)) for one in text)
    return f'<span class="en">{english}</span><span class="zh" lang="zh">{chinese}</span>'


def named(text: Words, **values: object) -> str:
    """The attribute that a screen reader says, in English, and the same in Chinese for the script."""
    english, chinese = (html.escape(one.format(**values), quote=True) for one in text)
    return f'aria-label="{english}" data-zh="{chinese}"'


def _user_text(text: str) -> str:
    """A text with its language where it is not the page's, its lines kept."""
    written = html.escape(text).replace("\n", "<br>") or both(words.NOTHING)
    return f'<span lang="zh">{written}</span>' if any(is_han(char) for char in text) else written


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.0f} %" if unit == "%" else f"{value:.2f}"


class _Page:
    """Renders one site."""

    def __init__(self, site: Site) -> None:
        self.site, self.plan = site, site.plan

    def render(self) -> str:
        """All of it."""
        style, script = (_static(name) for name in ("page.css", "page.js"))
        # A short form shows what it made and nothing that it lacks.
        shown = [one for one in self.site.shown if one.records or not self.plan.own_ears]
        body = "".join(self._section(one, number) for number, one in enumerate(shown, 1))
        nav = "".join(self._link(one, number) for number, one in enumerate(shown, 1))
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>uniaudio2: {html.escape(self.site.model_name)}</title>"
            f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>'
            f'{self._header()}<nav aria-labelledby="contents"><h2 id="contents" class="unseen">{both(words.CONTENTS)}'
            f"</h2><ul>{nav}</ul></nav>{body}{self._footer()}</main><script>{script}</script></body></html>\n"
        )

    def _header(self) -> str:
        default = self.plan.model is None or Path(self.plan.model).resolve() == DEFAULT_FOLDER
        honest = words.HONEST_DEFAULT if default else words.HONEST
        learned = [one for one in self.site.shown if one.learned]
        facts = "".join(f"<li><b>{value}</b>{both(label)}</li>" for value, label in self._facts())
        return (
            f'<header><div class="top"><h1>uniaudio2 <em>{both(words.TITLE)}</em></h1>'
            '<button id="language" type="button"><span class="en" lang="zh">中文</span>'
            '<span class="zh" lang="en">English</span></button></div>'
            f'<p class="lead">{both(honest, model=self.site.model_name)} '
            f"{both(words.LEARNED, learned=len(learned), all=len(self.site.shown))}</p>"
            f'<ul class="facts">{facts}</ul></header>'
        )

    def _facts(self) -> Iterable[tuple[str, Words]]:
        site = self.site
        right = sum(bool(item.right) for item in site.judged)
        work_s, audio_s = sum(item.time_s for item in site.items), sum(item.audio_s for item in site.items)
        yield f"{right} / {len(site.judged)}", words.RIGHT
        yield f"{work_s:.0f} s", words.WORK
        yield f"{audio_s:.0f} s", words.AUDIO
        if site.failed:
            yield f"{len(site.failed)}", words.FAILED_ITEMS

    def _link(self, shown: Shown, number: int) -> str:
        quiet = ' class="quiet"' if not shown.records else ""
        return f'<li><a href="#{shown.section.name}"{quiet}>{number} {both(shown.section.title)}</a></li>'

    def _section(self, shown: Shown, number: int) -> str:
        section = shown.section
        cards = "".join(self._card(shown, record) for record in shown.records)
        missing = self._untrained(shown) if not shown.learned and not cards else self._empty(shown) if not cards else ""
        row = f" <code>{html.escape(section.row)}</code>" if section.row else ""
        return (
            f'<section id="{section.name}"><h2><span class="number">{number}</span> {both(section.title)}</h2>'
            f'<p class="sub">{both(section.about)}{row}</p>{self._scores(shown) if cards else ""}{missing}'
            f'<div class="grid">{cards}</div></section>'
        )

    def _scores(self, shown: Shown) -> str:
        """What the outputs of a section are worth, beside other systems, and the command that makes it."""
        systems = list(dict.fromkeys(
            piece.name for record in shown.done for piece in record.pieces if piece.role == "peer"
        ))  # fmt: skip
        rows = {both(words.ROLES["ours"]): shown.figures()}
        rows |= {html.escape(system): figures for system in systems if (figures := shown.figures(system))}
        metrics = [metric for metric in METRICS if any(metric.key in figures for figures in rows.values())]
        if shown.section.name == "steps":
            metrics = []  # each player has its own figures
        heads = "".join(f"<th>{both(words.METRICS.get(m.key, (m.title, m.title)))}</th>" for m in metrics)
        lines = []
        for system, figures in rows.items():
            cells = [figures.get(metric.key) for metric in metrics]
            texts = [f"{_number(c[0], m.unit)} <small>n={c[1]}</small>" if c else "–"
                     for c, m in zip(cells, metrics, strict=True)]  # fmt: skip
            lines.append(f"<tr><th>{system}</th>{''.join(f'<td>{text}</td>' for text in texts)}</tr>")
        table = f'<div class="scroll" tabindex="0"><table><tr><td></td>{heads}</tr>{"".join(lines)}</table></div>'
        known = f'<p class="note">{both(words.EVALUATED)}: {html.escape("; ".join(shown.scores))}</p>'
        judged = table if metrics else "" if shown.section.name == "steps" else self._not_judged()
        command = f"{self.plan.command} --sections {shown.section.name}" if self.plan.command else ""
        made = f"<details><summary>{both(words.COMMAND)}</summary>{_code(command)}</details>" if command else ""
        return f'<div class="scores">{judged}{known if shown.scores else ""}{made}</div>'

    def _not_judged(self) -> str:
        return f'<p class="note">{both(words.NOT_JUDGED)}</p>'

    def _untrained(self, shown: Shown) -> str:
        row = str(shown.section.row)
        make = f"uniaudio2 data synth corpus --preset {shown.section.data}\n" if shown.section.data else ""
        train = f'uniaudio2 train lm_3 init_from=nano "data.codes=[codes]" "mixture.weights={{{row}: 1}}"'
        code = _code(f"{make}uniaudio2 prepare corpus -o codes\n{train} train.out_dir=run")
        return f'<div class="missing"><p>{both(words.UNTRAINED, row=row)}</p>{code}</div>'

    def _empty(self, shown: Shown) -> str:
        make = f"uniaudio2 data synth corpus --preset {shown.section.data}\n" if shown.section.data else ""
        code = _code(f"{make}uniaudio2 page --data corpus --sections {shown.section.name}")
        return f'<div class="missing"><p>{both(words.EMPTY)}</p>{code}</div>'

    def _card(self, shown: Shown, record: Record) -> str:
        pieces = sorted(record.pieces, key=lambda piece: _ORDER.index(piece.role))
        texts = "".join(_line(piece) for piece in pieces if not piece.file and piece.role != "shot")
        clips = "".join(self._clip(piece, record) for piece in pieces if piece.file or piece.role == "shot")
        sounds = sum(bool(piece.file) for piece in pieces)
        wide = " full" if sounds > 2 else " wide" if sounds > 1 or len(record.expected) > 45 else ""
        error = f'<p class="problem">{both(words.FAILED)}: {html.escape(record.error)}</p>' if record.error else ""
        time = f"{record.time_s:.2f} s" if record.time_s else ""
        factor = both(words.FACTOR, seconds=time, factor=f"{record.real_time_factor:.2f}") if time else ""
        note = f'<p class="note">{html.escape(record.note)}</p>' if record.note else ""
        code = f"<details><summary>{both(words.COMMAND_HERE)}</summary>{_code(record.command)}</details>"
        return (
            f'<article class="card{wide}" id="{shown.section.name}-{html.escape(record.name, quote=True)}">'
            f"<h3>{html.escape(record.name)}</h3>{error}{f'<dl>{texts}</dl>' if texts else ''}"
            f'<div class="clips">{clips}</div><p class="note">{factor}</p>{note}{code if record.command else ""}'
            "</article>"
        )

    def _clip(self, piece: Piece, record: Record) -> str:
        label = _label(piece)
        chip = f'<span class="role {piece.role}">{both(words.ROLES[piece.role])}</span>'
        if not piece.file:
            return f'<figure class="{piece.role}"><figcaption>{chip} {both(label)}</figcaption>{_said(piece.text)}</figure>'
        seconds = f"{piece.duration_s:.2f} s"
        spoken = (f"{words.ROLES[piece.role][0]}: {label[0]}, {record.name}",
                  f"{words.ROLES[piece.role][1]}：{label[1]}，{record.name}")  # fmt: skip
        spectrum = named(words.PICTURE, seconds=seconds).replace("aria-label", "alt")
        return (
            f'<figure class="{piece.role}"><figcaption><span>{chip} {both(label)}</span><span>{seconds}</span>'
            f'</figcaption><div class="axes"><span>12 kHz</span><span>0</span><i></i>'
            f'<img {spectrum} src="{self._address(piece.picture)}" loading="lazy"></div>'
            f'<audio controls preload="none" {named(spoken).replace("{", "").replace("}", "")} '
            f'src="{self._address(piece.file)}"></audio>{_figures(piece)}</figure>'
        )

    def _address(self, file: str) -> str:
        return embedded(self.plan.folder / file) if self.plan.single_file else html.escape(file, quote=True)

    def _footer(self) -> str:
        private = f'<p class="problem">{both(words.PRIVATE)}</p>' if any(r.private for r in self.site.items) else ""
        judge = {"own": words.JUDGE_OWN, "": words.JUDGE_NONE}.get(self.site.judge, words.JUDGE)
        return (
            f"<footer>{private}<p>{both(judge, name=self.site.judge)}</p><p>{both(words.FOOTER)}</p>"
            f"{_code(self.plan.command) if self.plan.command else ''}</footer>"
        )


def _static(name: str) -> str:
    return (resources.files("uniaudio2") / "page" / "static" / name).read_text(encoding="utf-8").strip()


def _label(piece: Piece) -> Words:
    """What a piece is called: a peer by its name, a value by what it is."""
    if piece.role == "peer":
        return (piece.name, piece.name)
    if piece.name.startswith("steps_"):
        number = piece.name.removeprefix("steps_")
        return (words.STEPS[0].format(n=number), words.STEPS[1].format(n=number))
    return words.VALUES.get(piece.name, (piece.name, piece.name))


def _said(text: str) -> str:
    return f'<p class="said">{_user_text(text)}</p>'


def _line(piece: Piece) -> str:
    """A text with what it is, and whether it is right."""
    chip = f'<span class="role {piece.role}">{both(words.ROLES[piece.role])}</span>'
    return (
        f"<dt>{chip} {both(_label(piece))}</dt><dd>{_user_text(piece.text)}{_mark(piece.right)}{_figures(piece)}</dd>"
    )


def _mark(right: bool | None) -> str:
    if right is None:
        return ""
    kind, sign, text = ("yes", "✓", words.AS_EXPECTED) if right else ("no", "✗", words.NOT_AS_EXPECTED)
    return f' <b class="mark {kind}"><span aria-hidden="true">{sign}</span><span class="unseen">{both(text)}</span></b>'


def _figures(piece: Piece) -> str:
    """Figures of a piece, and what the judge heard in it."""
    heard = f"{both(words.HEARD)} “{_user_text(piece.heard)}”{_mark(piece.right)}" if piece.heard else ""
    parts = [f"{both(words.METRICS.get(metric.key, (metric.title, metric.title)))} {_value(piece.figures, metric)}"
             for metric in METRICS if metric.key in piece.figures and metric.key != "right"]  # fmt: skip
    lines = [part for part in (heard, " · ".join(parts)) if part]
    return f'<p class="figures">{"<br>".join(lines)}</p>' if lines else ""


def _value(figures: Mapping[str, float], metric: object) -> str:
    per, unit, key = (str(getattr(metric, name)) for name in ("per", "unit", "key"))
    below = figures.get(per, 0.0) if per else 1.0
    return _number(figures[key] / below, unit) if below else "–"
