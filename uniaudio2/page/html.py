"""The page itself: one HTML file in two languages that loads nothing but the sounds and pictures beside it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from uniaudio2.page import words
from uniaudio2.page.card import card, label_of
from uniaudio2.page.media import embedded
from uniaudio2.page.scores import METRICS
from uniaudio2.page.site import Shown, Site
from uniaudio2.page.text import both, code, filled, folded, metric_name, number
from uniaudio2.page.words import Words
from uniaudio2.storage.folder import DEFAULT_FOLDER

Figures = dict[str, tuple[float, int]]


def render_page(site: Site) -> str:
    """The page as HTML."""
    style, script = (_static(name) for name in ("page.css", "page.js"))
    # The short form shows what was made, and not what the model lacks.
    shown = [one for one in site.shown if one.records or not site.plan.own_ears]
    page = _Page(site)
    body = "".join(page.section(one, number) for number, one in enumerate(shown, 1))
    links = "".join(_link(one, number) for number, one in enumerate(shown, 1))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>uniaudio2: {html.escape(site.model_name)}</title>"
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>{page.header()}'
        f'<nav aria-labelledby="contents"><h2 id="contents" class="unseen">{both(words.CONTENTS)}</h2>'
        f"<ul>{links}</ul></nav>{body}{page.footer()}</main><script>{script}</script></body></html>\n"
    )


def _static(name: str) -> str:
    return (resources.files("uniaudio2") / "page" / "static" / name).read_text(encoding="utf-8").strip()


def _link(shown: Shown, place: int) -> str:
    quiet = "" if shown.records else ' class="quiet"'
    return f'<li><a href="#{shown.section.name}"{quiet}>{place} {both(shown.section.title)}</a></li>'


class _Page:
    """Renders the parts of one site."""

    def __init__(self, site: Site) -> None:
        self.site, self.plan = site, site.plan

    def address(self, file: str) -> str:
        """The address of a file below the page's folder, or all of it as one."""
        return embedded(self.plan.folder / file) if self.plan.single_file else html.escape(file, quote=True)

    def header(self) -> str:
        """Whose page this is, an honest word about the model, and the figures of all."""
        default = self.plan.model is None or Path(self.plan.model).resolve() == DEFAULT_FOLDER
        honest = filled(words.HONEST_DEFAULT if default else words.HONEST, model=self.site.model_name)
        learned = sum(one.learned for one in self.site.shown)
        counted = filled(words.LEARNED, learned=learned, all=len(self.site.shown))
        facts = "".join(f"<li><b>{value}</b>{both(label)}</li>" for value, label in self._facts())
        return (
            f'<header><div class="top"><h1>uniaudio2 <em>{both(words.TITLE)}</em></h1>'
            '<button id="language" type="button"><span class="en" lang="zh">中文</span>'
            '<span class="zh" lang="en">English</span></button></div>'
            f'<p class="lead">{both(honest)} {both(counted)}</p><ul class="facts">{facts}</ul></header>'
        )

    def _facts(self) -> Iterator[tuple[str, Words]]:
        site = self.site
        yield f"{sum(bool(item.right) for item in site.judged)} / {len(site.judged)}", words.RIGHT
        yield f"{sum(item.time_s for item in site.items):.0f} s", words.WORK
        yield f"{sum(item.audio_s for item in site.items):.0f} s", words.AUDIO
        if site.failed:
            yield str(len(site.failed)), words.FAILED_ITEMS

    def section(self, shown: Shown, place: int) -> str:
        """One section: its scores and items, or why it has none."""
        section = shown.section
        cards = "".join(card(record, self.address) for record in shown.records)
        inside = f'{self._scores(shown)}<div class="grid">{cards}</div>' if cards else _missing(shown)
        row = f" <code>{html.escape(section.row)}</code>" if section.row else ""
        part = None if self.plan.own_ears else words.PARTS.get(section.name)
        heading = f'<p class="part">{both(part)}</p>' if part else ""
        return (
            f'{heading}<section id="{section.name}"><h2><span class="number">{place}</span> {both(section.title)}</h2>'
            f'<p class="sub">{both(section.about)}{row}</p>{inside}</section>'
        )

    def _scores(self, shown: Shown) -> str:
        """What the outputs of a section are worth, beside other systems, and the command that makes it."""
        figures = _table(dict(_rows(shown))) or f'<p class="note">{both(words.NOT_JUDGED)}</p>'
        whole = html.escape("; ".join(shown.scores))
        known = f'<p class="note">{both(words.EVALUATED)}: {whole}</p>' if whole else ""
        name = shown.section.name
        command = f"{self.plan.again} --sections {name} -o {name}" if self.plan.again else ""
        return f'<div class="scores">{figures}{known}{folded(words.COMMAND, command)}</div>'

    def footer(self) -> str:
        """Who judged, what may not be passed on, credits, and the command that made the page."""
        private = any(record.private for record in self.site.items)
        warning = f'<p class="problem">{both(words.PRIVATE)}</p>' if private else ""
        judge = {"own": words.JUDGE_OWN, "": words.JUDGE_NONE}.get(self.site.judge, words.JUDGE)
        lines = (filled(judge, name=self.site.judge), words.FOOTER)
        return f"<footer>{warning}{''.join(f'<p>{both(line)}</p>' for line in lines)}{code(self.plan.command)}</footer>"


def _rows(shown: Shown) -> Iterator[tuple[str, Figures]]:
    """Who has which figures: the model's outputs, then those of other systems."""
    ours = both(words.ROLES["ours"])
    if len(shown.outputs) > 1:
        for name in shown.outputs:
            yield f"{ours} {both(label_of(name))}", shown.figures("ours", name)
    else:
        yield ours, shown.figures("ours")
    if shown.systems and shown.figures("ours", shared=True) != shown.figures("ours"):
        yield both(words.SAME_CLIPS), shown.figures("ours", shared=True)
    if given := shown.figures("given"):
        yield both(words.AS_GIVEN), given
    for system in shown.systems:
        yield html.escape(system), shown.figures("peer", system)


def _table(rows: dict[str, Figures]) -> str:
    """Figures of several systems; empty where there are none."""
    metrics = [metric for metric in METRICS if any(metric.key in figures for figures in rows.values())]
    if not metrics:
        return ""
    heads = "".join(f"<th>{metric_name(metric)}</th>" for metric in metrics)
    lines = []
    for name, figures in rows.items():
        cells = [(figures[metric.key], metric) if metric.key in figures else None for metric in metrics]
        texts = [f"{number(one[0][0], one[1])} <small>n={one[0][1]}</small>" if one else "–" for one in cells]
        lines.append(f"<tr><th>{name}</th>{''.join(f'<td>{text}</td>' for text in texts)}</tr>")
    return f'<div class="scroll" tabindex="0"><table><tr><td></td>{heads}</tr>{"".join(lines)}</table></div>'


def _missing(shown: Shown) -> str:
    """Why a section has no items, and the commands that give it some."""
    section = shown.section
    make = f"uniaudio2 data synth corpus --preset {section.data}\n" if section.data else ""
    if not shown.learned:
        text, title = filled(words.UNTRAINED, row=section.row), words.TRAIN_IT
        lines = (
            f"{make}uniaudio2 prepare corpus -o codes\n"
            f'uniaudio2 train lm_3 init_from=nano "data.codes=[codes]" "mixture.weights={{{section.row}: 1}}" '
            "train.out_dir=run"
        )
    else:
        text, title = words.EMPTY, words.ADD_SOME
        lines = f"{make}uniaudio2 page --data corpus --sections {section.name} -o {section.name}"
    return f'<div class="missing"><p>{both(text)}</p>{folded(title, lines)}</div>'
