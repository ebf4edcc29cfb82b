"""Builds a page: every item is done once, judged and kept, and the page is written of what there is."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from uniaudio2.errors import describe, is_disk_full, is_expected
from uniaudio2.files import write_text
from uniaudio2.page import ways
from uniaudio2.page.html import render_page
from uniaudio2.page.items import Item, Sound, Values
from uniaudio2.page.media import FOLDER, Media
from uniaudio2.page.record import Piece, Record, kept, save
from uniaudio2.page.scores import Ears, Output, Verdict
from uniaudio2.page.sections import Section
from uniaudio2.page.site import Plan, Shown, Site
from uniaudio2.page.ways import Job, Timed, Way, command_line
from uniaudio2.tasks import get_task

if TYPE_CHECKING:
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.api.settings import ModelFacts

LAYOUT = 1  # of records: another number makes all items anew


def build_page(
    load: Callable[[], UniAudio2],
    plan: Plan,
    *,
    facts: ModelFacts | None = None,
    progress: Callable[[str], None] = lambda line: None,
    complain: Callable[[str], None] = lambda line: None,
) -> Site:
    """Do what is not done yet and write the page.

    Args:
        load: Makes the model; timed, and called only if there is something to do.
        plan: What is on the page.
        facts: Of the model; None asks the model itself.
        progress: Called with a line before each item.
        complain: Called with a line for each item that failed.

    Raises:
        OSError: If the folder cannot be written.
    """
    began = time.perf_counter()
    plan.folder.mkdir(parents=True, exist_ok=True)
    loaded = _Loader(load, progress)
    facts = facts or loaded().facts
    maker = _Maker(plan, loaded, progress, complain)
    shown = [Shown(one, _learned(one, plan, facts), scores=_scores(one, facts)) for one in plan.sections]
    for one in shown:
        if one.learned or (plan.untrained and not plan.codec_alone):
            one.records = [maker.record(one, item) for item in plan.items.get(one.section.name, ())]
    site = Site(plan, facts.name, shown, maker.ears.name, loaded.seconds)
    site.total_s = time.perf_counter() - began
    progress("write the page")
    write_text(site.page, render_page(site))
    site.total_s = time.perf_counter() - began
    return site


def model_identity(folder: Path) -> str:
    """Names, sizes and times of a model's files: another one is another model."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])


def _learned(section: Section, plan: Plan, facts: ModelFacts) -> bool:
    if section.row is None or plan.codec_alone:
        return section.row is None
    return facts.trained_tasks is None or section.row in facts.trained_tasks


def _scores(section: Section, facts: ModelFacts) -> tuple[str, ...]:
    return tuple(str(score) for score in (facts.trained_tasks or {}).get(section.row or "", ()))


class _Loader:
    """The model, loaded once when it is first needed."""

    def __init__(self, load: Callable[[], UniAudio2], progress: Callable[[str], None]) -> None:
        self._load, self._progress, self.seconds = load, progress, 0.0

    def __call__(self) -> UniAudio2:
        """The model."""
        return self._model

    @functools.cached_property
    def _model(self) -> UniAudio2:
        self._progress("load the model")
        began = time.perf_counter()
        model = self._load()
        self.seconds = time.perf_counter() - began
        return model


class _Maker:
    """Makes records of items."""

    def __init__(
        self, plan: Plan, model: _Loader, progress: Callable[[str], None], complain: Callable[[str], None]
    ) -> None:
        self.plan, self.model, self.progress, self.complain = plan, model, progress, complain
        self.media = Media(plan.folder, ".wav" if plan.own_ears else ".flac")
        self.ears = Ears(model if plan.own_ears else None, plan.sampling)

    def record(self, shown: Shown, item: Item) -> Record:
        """What an item comes to: kept from before, made now, or why it failed."""
        section, place = shown.section, f"{shown.section.name}-{item.file_name}"
        known = [LAYOUT, self.plan.identity, dict(self.plan.sampling), self.plan.model, section.name, shown.learned]
        text = json.dumps([*known, item.identity(), self.ears.name], ensure_ascii=False)
        identity = hashlib.sha256(text.encode()).hexdigest()
        fresh = self.plan.fresh or self.plan.identity is None
        before = None if fresh else kept(self.plan.folder, place, identity)
        if before is not None:
            return before
        self.model()  # a model that cannot be loaded is no item's failure
        self.progress(f"{section.name}: {item.id}")
        record = Record(section.name, item.id, note=item.note, private=item.private, identity=identity)
        try:
            self._make(shown, item, record, place)
        except Exception as error:
            if isinstance(error, BrokenPipeError) or is_disk_full(error):
                raise
            if not is_expected(error):
                traceback.print_exception(error)
            record.error, record.pieces = describe(error), [one for one in record.pieces if one.role != "ours"]
            self.complain(f"{section.name}, {item.id}: {record.error}")
            return record
        if self.plan.identity is not None:
            save(record, self.plan.folder, place)
        return record

    def _make(self, shown: Shown, item: Item, record: Record, place: str) -> None:
        section, pieces = shown.section, record.pieces
        given = self._side("given", item.given, place, pieces)
        shots = []
        for number, sides in enumerate(item.shots, 1):
            own = [self._side("shot", values, f"{place}-shot{number}", pieces) for values in sides]
            shots.append((own[0], own[1]))
        way = section.way if shown.learned else ways.ROW
        sampling = {**self.plan.sampling, "seed": int(self.plan.sampling.get("seed") or 0) + item.draw}
        told = (item.language, sampling, self.plan.untrained and not shown.learned)
        job = Job(section.row or "", given, tuple(shots), *told)
        record.command = command_line(way, job, self.plan.model, f"{place}.wav")
        self._run(section, way, self._here(job), item, record, place)
        truth = {piece.name: piece for piece in pieces if piece.role == "truth"}
        first = next(piece for piece in pieces if piece.role == "ours")
        ours = [piece for piece in pieces if piece.role == "ours"]
        texts = [item.truth.get(first.name), item.says.get(first.name), given.get("caption")]
        record.expected = next((text for text in texts if isinstance(text, str)), "")
        record.got = first.text or first.heard
        judged = [piece.right for piece in ours if piece.right is not None]
        record.right = all(judged) if judged else None
        sounds = [one for one in (ours if first.file else pieces) if one.file and one.role in ("ours", "given")]
        record.audio_s = sum(piece.duration_s for piece in sounds)
        if section.way is ways.CODEC and truth:
            self._lengths(record, truth[first.name], first)

    def _side(self, role: str, values: Values, place: str, pieces: list[Piece]) -> dict[str, str]:
        """Texts, and sounds written as files below the page's folder, by name."""
        found: dict[str, str] = {}
        for name, value in values.items():
            if isinstance(value, Sound):
                piece = self.media.sound(role, name, f"{place}-{_plain(name)}", value.read())
                found[name] = piece.file
            else:
                piece = Piece(role, name, text=value)
                found[name] = value
            pieces.append(piece)
        return found

    def _here(self, job: Job) -> Job:
        """The job with paths that lead to the files from anywhere."""
        files = {piece: str(self.plan.folder / piece) for piece in self._files(job)}

        def side(values: Mapping[str, str]) -> dict[str, str]:
            """One side of values."""
            return {name: files.get(value, value) for name, value in values.items()}

        return replace(job, given=side(job.given), shots=tuple((side(a), side(b)) for a, b in job.shots))

    def _files(self, job: Job) -> list[str]:
        sides = [job.given, *(side for shot in job.shots for side in shot)]
        start = f"{FOLDER}/"
        return [value for side in sides for value in side.values() if value.startswith(start)]

    def _run(self, section: Section, way: Way, job: Job, item: Item, record: Record, place: str) -> None:
        """Do the job; pieces of what came, of the truth and of peers, judged."""
        model = self.model()
        began = time.perf_counter()
        made = way.run(model, job)
        record.time_s = time.perf_counter() - began
        for name, value in made.items():
            wave = value.wave if isinstance(value, Timed) else value
            if isinstance(wave, Tensor):
                piece = self.media.sound("ours", name, f"{place}-ours-{name}", wave)
            else:
                piece = Piece("ours", name, text=str(wave))
            piece.figures = {"work_s": value.seconds} if isinstance(value, Timed) else {}
            record.pieces.append(piece)
        same = {name for name, value in item.truth.items() if item.given.get(name) is value}
        record.pieces += [
            replace(one, role="truth") for one in record.pieces if one.role == "given" and one.name in same
        ]
        others = {name: value for name, value in item.truth.items() if name not in same}
        self._side("truth", others, f"{place}-truth", record.pieces)
        outputs = [part.value for part in get_task(section.row).outputs] if section.row else ["audio"]
        outputs = list(dict.fromkeys(outputs))
        for system, value in item.peers.items():
            self._side("peer", {system: value}, f"{place}-peer", record.pieces)
        judge = _Judge(section, item, record, self.plan.folder, self.ears)
        for piece in record.pieces:
            if piece.role in ("ours", "peer"):
                judge.piece(piece, piece.name if piece.role == "ours" else outputs[0])
            elif piece.role == "given" and piece.file and section.baseline:
                judge.baseline(piece, outputs)

    def _lengths(self, record: Record, before: Piece, after: Piece) -> None:
        """For codes: as many samples as there were, and how near they are."""
        samples = [round(piece.duration_s * 24_000) for piece in (before, after)]
        distance = after.figures.get("log_mel_l1")
        record.expected = f"{samples[0]} samples"
        record.got = f"{samples[1]} samples" + ("" if distance is None else f", {distance:.2f} log-mel distance")
        record.right = samples[0] == samples[1]


@dataclass(frozen=True)
class _Judge:
    """Judges the pieces of one record."""

    section: Section
    item: Item
    record: Record
    folder: Path
    ears: Ears

    def verdict(self, piece: Piece, name: str) -> Verdict:
        """What a piece is worth as that output."""
        steps = name.startswith("steps_")  # of the decoder: all should be the one recording
        truths = (one for one in self.record.pieces if one.role == "truth" and one.file)
        truth = next((one.file for one in truths if steps or one.name == name), None)
        file = self.folder / piece.file if piece.file else None
        wanted = None if truth is None else self.folder / truth
        return self.section.judge(Output(self.item, name, piece.text, file, wanted), self.ears)

    def piece(self, piece: Piece, name: str) -> None:
        """Judge something that was made."""
        verdict = self.verdict(piece, name)
        piece.figures = {**verdict.figures, **piece.figures}
        piece.right, piece.heard = verdict.right, verdict.heard

    def baseline(self, piece: Piece, outputs: Sequence[str]) -> None:
        """Judge what was given in the place of each output; figures are means over them."""
        found = [self.verdict(piece, name).figures for name in outputs]
        keys = dict.fromkeys(key for figures in found for key in figures)
        piece.figures = {key: sum(own.get(key, 0.0) for own in found) / len(found) for key in keys}


def _plain(name: str) -> str:
    """A name as a part of a file's name."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name)
