"""Small parts of the page's HTML: texts in two languages, texts of users, commands, figures."""

from __future__ import annotations

import html
from collections.abc import Mapping

from uniaudio2.eval.judges import Metric
from uniaudio2.page import words
from uniaudio2.page.words import Words
from uniaudio2.speech_text import is_han


def filled(text: Words, **values: object) -> Words:
    """The text with values in place of {names}."""
    return text[0].format(**values), text[1].format(**values)


def both(text: Words) -> str:
    """A text in both languages, of which the page shows one."""
    english, chinese = (html.escape(one) for one in text)
    return f'<span class="en">{english}</span><span class="zh" lang="zh">{chinese}</span>'


def attribute(name: str, text: Words) -> str:
    """An attribute in English, and the same in Chinese for the page's script."""
    english, chinese = (html.escape(one, quote=True) for one in text)
    return f'{name}="{english}" data-zh="{chinese}"'


def user_text(text: str) -> str:
    """A text that was given or made, with its language where it is not the page's, its lines kept."""
    if not text.strip():
        return f"<i>{both(words.NOTHING)}</i>"
    written = html.escape(text).replace("\n", "<br>")
    return f'<span lang="zh">{written}</span>' if any(is_han(char) for char in text) else written


def code(text: str) -> str:
    """Commands, which the keyboard reaches and which break where they are too long."""
    return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>' if text else ""


def folded(title: Words, text: str) -> str:
    """Commands that are opened when somebody wants them."""
    return f"<details><summary>{both(title)}</summary>{code(text)}</details>" if text else ""


def mark(right: bool | None) -> str:
    """Whether something is as expected; nothing where there is no right or wrong."""
    if right is None:
        return ""
    kind, sign, text = ("yes", "✓", words.AS_EXPECTED) if right else ("no", "✗", words.NOT_AS_EXPECTED)
    return f' <b class="mark {kind}"><span aria-hidden="true">{sign}</span><span class="unseen">{both(text)}</span></b>'


def metric_name(metric: Metric) -> str:
    """What a figure is called."""
    return both(words.METRICS.get(metric.key, (metric.title, metric.title)))


def number(value: float, metric: Metric) -> str:
    """A figure, pooled already."""
    return f"{100 * value:.0f} %" if metric.unit == "%" else f"{value:.2f}"


def clip_figure(figures: Mapping[str, float], metric: Metric) -> str:
    """The figure of one clip."""
    below = figures.get(metric.per, 0.0) if metric.per else 1.0
    return number(figures[metric.key] / below, metric) if below else "–"
