"""One comparison: systems one after another, each over all clips; what is done is kept and not done again."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniaudio2.audio import read_audio
from uniaudio2.compare.memory import PeakMemory
from uniaudio2.compare.scorer import Record, Scorer, file_name
from uniaudio2.compare.tasks import NEEDS, TASKS, CompareTask
from uniaudio2.errors import UserError, is_expected, one_line
from uniaudio2.eval.context import Clip
from uniaudio2.eval.frechet import Moments, axes_of, pooled
from uniaudio2.eval.judges import Judge, Metric, find_judges
from uniaudio2.eval.report import environment, write_json
from uniaudio2.systems.contract import Card
from uniaudio2.systems.registry import SYSTEMS, Spec, load_system

RUN_FILE, RECORDS = "run.json", "records"


@dataclass
class Row:
    """One system of a comparison.

    Attributes:
        spec: As it was asked for.
        card: What is known of it.
        version: What was loaded.
        records: Clip id -> record of those that it served.
        failures: Clip id -> why it was not served; ``""`` stands for the system as a whole.
        load_s: Seconds to load it.
        peak_bytes: Most memory while it worked: of the process, and of the CUDA device if there is one.
    """

    spec: Spec
    card: Card
    version: str = ""
    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    load_s: float | None = None
    peak_bytes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """What a figure of all clips together goes by.

    Attributes:
        metric: Its column.
        real: Clip id -> frames of the clip.
        made: Label of a system -> clip id -> frames of what it made.
    """

    metric: Metric
    real: Mapping[str, Moments]
    made: Mapping[str, Mapping[str, Moments]]


@dataclass
class Comparison:
    """What was found.

    Attributes:
        task: What was compared.
        data: Name of the data.
        clips: The clips, in order.
        rows: The systems, in the order asked for; differences are to the first one.
        command: What to type to get it again.
        seed: Of every random choice.
        normaliser: Of texts.
        judges: Further judges that were there.
        notes: Remarks, such as judges that are missing.
        pools: What judges of all clips together go by.
        environment: Machine and versions.
    """

    task: CompareTask
    data: str
    clips: Sequence[Clip]
    rows: list[Row]
    command: str
    seed: int
    normaliser: str
    judges: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=environment)


def compare(
    task: str,
    specs: Sequence[Spec],
    clips: Sequence[Clip],
    place: str | Path,
    *,
    data: str = "",
    seed: int = 0,
    normaliser: str = "whisper",
    judges: Sequence[str] | None = None,
    device: str = "cpu",
    download: bool = False,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Run a comparison, or go on with it.

    Args:
        task: A name of `TASKS`.
        specs: The systems; the first one is what the others are compared with.
        clips: What they are given.
        place: Folder of the report.
        data: What to call the data.
        seed: Of every random choice.
        normaliser: Of texts.
        judges: Names of further judges; None takes the task's own.
        device: Where systems run.
        download: Whether weights may be fetched.
        command: For the report.
        say: Told what goes on.

    Returns:
        Records of every system. A system that cannot be loaded, or fails at some clips, is in it with the reason.

    Raises:
        UserError: If the folder holds a comparison of something else, or there are no clips.
    """
    chosen = TASKS[task]
    clips = [clip for clip in clips if NEEDS[chosen.needs](clip.example)]
    if not clips:
        raise UserError(f"no clips to compare on{f' that have {chosen.needs}' if chosen.needs else ''}")
    place = Path(place)
    found, notes = _judges(chosen, chosen.judges if judges is None else judges, normaliser)
    scoring = {name: judge.score for name, judge in found.items() if judge.score is not None}
    _claim(place, task, clips, seed, normaliser, sorted(scoring))
    scorer = Scorer(place, tuple(clips), seed, normaliser, scoring)
    chosen = dataclasses.replace(
        chosen, metrics=(*(m for judge in found.values() for m in judge.metrics), *chosen.metrics)
    )
    rows = [_run(chosen, spec, clips, scorer, device, download, say) for spec in specs]
    own = tuple(judge.title for judge in found.values())
    whole = [pool(judge, clips, rows, place, say) for judge in found.values() if judge.embed is not None]
    return Comparison(chosen, data, clips, rows, command, seed, normaliser, own, notes, whole)


def _judges(task: CompareTask, names: Sequence[str], normaliser: str) -> tuple[dict[str, Judge], list[str]]:
    """The judges that are at hand and have something to judge, and a line for each of the others."""
    found, notes = find_judges(names, normaliser)
    for name, judge in list(found.items()):
        if not task.makes_audio:
            reason = f"{task.name} makes no audio"
        elif judge.embed is not None and not task.has_original:
            reason = f"{task.name} has no recordings that the outputs should be like as a whole"
        else:
            continue
        del found[name]
        notes.append(f"No figures by {name}: {reason}.")
    return found, notes


def pool(judge: Judge, clips: Sequence[Clip], rows: Sequence[Row], place: Path, say: Callable[[str], None]) -> Pool:
    """What a judge of all clips together goes by, of the clips and of every system's outputs."""
    embed = judge.embed
    assert embed is not None
    say(f"{judge.title}: {len(clips)} clips, {len(rows)} systems")
    real = {clip.example.id: Moments.of(embed(clip.load())) for clip in clips}
    axes = axes_of(pooled(list(real.values())))
    made = {
        row.spec.label: {
            clip: Moments.of(embed(read_audio(place / record["file"]))).along(axes)
            for clip, record in row.records.items() if clip in real
        }
        for row in rows
    }  # fmt: skip
    return Pool(judge.metrics[0], {clip: moments.along(axes) for clip, moments in real.items()}, made)


def _claim(place: Path, task: str, clips: Sequence[Clip], seed: int, normaliser: str, judges: list[str]) -> None:
    """Note what a folder's records are of; refuse a folder with records of something else."""
    own = [clip.example for clip in clips]
    lengths = [[one.id, round(one.duration, 3), one.text or one.caption or one.texts.get("answer")] for one in own]
    wanted = {"task": task, "seed": seed, "normaliser": normaliser, "judges": judges, "clips": lengths}
    file = place / RUN_FILE
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: not readable ({error}); give another folder with -o") from error
        differing = [key for key in wanted if before.get(key) != wanted[key]]
        if differing:
            raise UserError(
                f"{place} holds a comparison with other {', '.join(differing)}: give another folder with -o"
            )
    else:
        write_json(file, wanted)


def _run(
    task: CompareTask, spec: Spec, clips: Sequence[Clip], scorer: Scorer, device: str, download: bool,
    say: Callable[[str], None],
) -> Row:  # fmt: skip
    """Serve the clips that a system has not served yet."""
    row = Row(spec, SYSTEMS.classes(spec.name)[1].card)
    kept = _Records(scorer.place / RECORDS / f"{file_name(spec.label)}.jsonl", spec)
    row.records = kept.read()
    facts = kept.facts
    row.version, row.load_s, row.peak_bytes = facts.get("version", ""), facts.get("load_s"), facts.get("peak", {})
    waiting = [clip for clip in clips if clip.example.id not in row.records]
    say(f"{spec.label}: {len(waiting)} of {len(clips)} clips to do")
    if not waiting:
        return row
    memory = PeakMemory()
    try:
        start = time.perf_counter()
        system = load_system(spec, device=device, download=download)
        row.load_s, row.version = time.perf_counter() - start, system.version
    except Exception as error:
        row.failures[""] = _reason(error, say, spec.label)
        return row
    for clip in waiting:
        try:
            record = task.serve(system, clip, spec.label, scorer)
        except Exception as error:
            row.failures[clip.example.id] = _reason(error, say, f"{spec.label}, {clip.example.id}")
            continue
        row.records[clip.example.id] = kept.add(clip.example.id, record)
    row.peak_bytes = memory.read()
    kept.close({"version": row.version, "load_s": row.load_s, "peak": row.peak_bytes})
    del system
    gc.collect()
    return row


def _reason(error: Exception, say: Callable[[str], None], where: str) -> str:
    text = one_line(error) if is_expected(error) else f"{type(error).__name__}: {one_line(error)}"
    say(f"{where}: {text}")
    return text


class _Records:
    """The records of a system in a file, one line each; a line that was cut off by an interrupt does not count."""

    def __init__(self, file: Path, spec: Spec) -> None:
        self._file, self._spec = file, {"system": spec.name, "settings": list(spec.settings)}
        self.facts: dict[str, Any] = {}

    def read(self) -> dict[str, Record]:
        """Records by clip; raises UserError if they are of other settings."""
        if not self._file.is_file():
            self._append(self._spec)
            return {}
        lines: list[dict[str, Any]] = []
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        if not lines or lines[0] != self._spec:
            raise UserError(f"{self._file}: records of other settings: give another folder with -o, or another @label=")
        for line in lines:
            self.facts |= line.get("facts", {})
        return {line["clip"]: line["record"] for line in lines if "record" in line}

    def add(self, clip: str, record: Record) -> Record:
        """Keep a record; a figure that is undefined for a clip is None."""
        record = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in record.items()}
        self._append({"clip": clip, "record": record})
        return record

    def close(self, facts: dict[str, Any]) -> None:
        """Keep what holds for all records."""
        self._append({"facts": facts})

    def _append(self, line: dict[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(line, ensure_ascii=False)
        with self._file.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # what an interrupt cut off
                    file.write(b"\n")
            file.write(f"{text}\n".encode())
