"""A comparison as files: JSON, Markdown, LaTeX, a plot and a page with players."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

from uniaudio2.compare.cells import difference, figure, system_rows, tables_of
from uniaudio2.compare.page import render_page
from uniaudio2.compare.run import Comparison, Row
from uniaudio2.compare.summary import Group, failures, to_report
from uniaudio2.eval.report import write_json
from uniaudio2.eval.results import table as markdown_table
from uniaudio2.files import write_text

ABOUT = "Means over clips, or pooled, with 95 % bootstrap intervals. RTF: seconds of work for a second of audio."
PLOT_METRICS = ("pesq_wb", "stoi", "log_mel_l1_7k5")


def write_all(comparison: Comparison, tables: Sequence[Group], place: str | Path) -> list[Path]:
    """Write a comparison and its tables into a folder and give the files; ``report.json`` holds all."""
    place = Path(place)
    report = to_report(comparison, tables)
    write_json(place / "report.json", {**report.to_dict(), "systems": [system_facts(row) for row in comparison.rows]})
    report.save_summary(place / "results.json")  # for `uniaudio2 results`
    plot = rate_distortion(tables)
    if plot:
        write_text(place / "rate_distortion.svg", plot)
    write_text(place / "report.md", to_markdown(comparison, tables, plot=bool(plot)))
    write_text(place / "report.tex", to_latex(comparison, tables))
    write_text(place / "index.html", render_page(comparison, tables, system_rows(comparison), plot, place))
    names = [
        "report.json",
        "results.json",
        "report.md",
        "report.tex",
        "index.html",
        *(["rate_distortion.svg"] if plot else []),
    ]
    return [place / name for name in names]


def system_facts(row: Row) -> dict[str, object]:
    """A system for ``report.json``."""
    card = dataclasses.asdict(row.card)
    own = {"label": row.spec.label, "name": row.spec.name, "settings": list(row.spec.settings), "version": row.version}
    return {**card, **own, "load_s": row.load_s, "peak_bytes": row.peak_bytes, "failures": row.failures}


def to_markdown(comparison: Comparison, tables: Sequence[Group], *, plot: bool = False) -> str:
    """The report as Markdown."""
    base = comparison.rows[0].spec.label
    lines = [f"# Comparison: {comparison.task.name}, {comparison.data}", "", f"`{comparison.command}`", ""]
    lines += [ABOUT, ""]
    if comparison.judges:
        lines += [f"Judges: {'; '.join(comparison.judges)}.", ""]
    for table in tables:
        heads, rows = tables_of(comparison, table, figure)
        lines += [f"## {table.name}, {len(table.clips)} clips", "", *markdown_table(heads, rows), ""]
        if len(comparison.rows) > 1:
            heads, rows = tables_of(comparison, table, difference, first=False)
            lines += [f"Difference to {base} on the same clips; * where its interval leaves zero out.", ""]
            lines += [*markdown_table(heads, rows), ""]
    if plot:
        lines += ["![Rate and distortion](rate_distortion.svg)", ""]
    heads, *rows = system_rows(comparison)
    lines += ["## Systems", "", *markdown_table(heads, rows), ""]
    lines += [f"- {note}" for note in (*comparison.notes, *failures(comparison))]
    facts = ", ".join(f"{key} {value}" for key, value in comparison.environment.items())
    return "\n".join([*lines, "", f"{facts}.", ""])


def to_latex(comparison: Comparison, tables: Sequence[Group]) -> str:
    """The tables in LaTeX, for the package booktabs; values without intervals, which ``report.md`` has."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        heads, rows = tables_of(comparison, table, lambda cell: figure(cell, interval=False))
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
        parts.append("\n".join([
            f"% {table.name}, {len(table.clips)} clips",
            r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
            r"\toprule",
            " & ".join(map(_tex, heads)) + r" \\", r"\midrule", *lines, r"\bottomrule", r"\end{tabular}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _tex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text)
    return escaped.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$").replace("–", "--")


def rate_distortion(tables: Sequence[Group]) -> str:
    """Bit rate against quality as SVG, a panel for each group; empty where no system has both."""
    panels = []
    for table in tables:
        keys = [key for key in PLOT_METRICS if any(key in own and "kbps" in own for own in table.cells.values())]
        panels += [(table, key) for key in keys[:1]]
    if not panels:
        return ""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(5.5 * len(panels), 4), layout="constrained")
    for index, (table, key) in enumerate(panels):
        axes = picture.add_subplot(1, len(panels), index + 1)
        for label, own in table.cells.items():
            if key in own and "kbps" in own:
                x, rate = own["kbps"].rate.value, own[key].rate
                errors = [[max(0.0, rate.value - rate.low)], [max(0.0, rate.high - rate.value)]]
                axes.errorbar([x], [rate.value], yerr=errors, fmt="o", capsize=3)
                axes.annotate(label, (x, rate.value), xytext=(5, 4), textcoords="offset points", fontsize=8)
        metric = next(metric for metric in table.metrics if metric.key == key)
        axes.set(xlabel="kbit/s", ylabel=f"{metric.title} ({metric.better} is better)", title=table.name)
        axes.grid(alpha=0.3)
    sink = io.StringIO()
    picture.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()[sink.getvalue().index("<svg") :]
