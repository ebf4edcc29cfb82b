"""The registry of evaluations and the one function that runs them: task and data in, `Report` out.

Rules that hold for all of them: dev splits only; deterministic seeds; generated audio is scored as it is after being
written to a 16-bit file; every figure comes with its 95 % interval and the number of clips behind it.
"""

from __future__ import annotations

import contextlib
import difflib
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from uniaudio2.api.request import Sampling
from uniaudio2.data.sources import find_data_root
from uniaudio2.eval import (
    answers,
    few_shot,
    generation,
    musical,
    reconstruction,
    repaired,
    scenes,
    speed,
    styled,
    understanding,
)
from uniaudio2.eval.context import Context, EvaluationError, Track, quiet
from uniaudio2.eval.report import Figure, Report
from uniaudio2.eval.style_judge import JUDGE
from uniaudio2.eval.subject import Effort, PipelineSubject, Subject
from uniaudio2.eval.text_metrics import get_normaliser

Result = tuple[list[Figure], list[dict[str, Any]]]
Run = Callable[[Context], Result]


@dataclass(frozen=True)
class Evaluation:
    """One row of the registry.

    Attributes:
        task: First word after ``evaluate``.
        data: Value of ``--data``.
        description: One line.
        run: Measures; gets a `Context`.
        judge: What scores it.
        reads_text: Whether a text normaliser matters.
    """

    task: str
    data: str
    description: str
    run: Run
    judge: str
    reads_text: bool = False

    @property
    def efforts(self) -> frozenset[str]:
        """What of `Effort` it depends on."""
        listens = self.task in ("asr", "speed") or (self.task == "tts" and self.run is not generation.tts_voices)
        speaks = self.task in ("tts", "speed")
        return frozenset((*(("beams", "shifts") if listens else ()), *(("best_of",) if speaks else ())))


LANGUAGES = ("en", "zh", "yue")

TEXT = "edit distance to the transcript (jiwer)"
WORDS = "table of the words that name a class"
EXACT = "equality with the right answer"
DISTANCES = "distances to the original: pystoi, pesq, our spectral ones"

EVALUATIONS: tuple[Evaluation, ...] = (
    Evaluation("asr", "fsdd", "spoken digits, real, 8 kHz: accuracy",
               lambda c: understanding.asr_words(c, "fsdd", ">= 90 %; >= 97 %"), TEXT, True),
    Evaluation("asr", "keywords", "spoken keywords, real, many speakers: accuracy",
               lambda c: understanding.asr_words(c, "keywords", ">= 80 %; >= 92 %"), TEXT, True),
    Evaluation("asr", "read_english", "read English, real: WER and CER, LJ and other voices apart",
               understanding.asr_read_english, TEXT, True),
    Evaluation("asr", "synth-heldout", "unseen sentences by unseen synthetic voices: en, zh, yue, by engine and voice",
               understanding.asr_synth_held_out, TEXT, True),
    Evaluation("asr", "nothing", "an hour without speech: words that are written down all the same",
               understanding.asr_nothing, "count of words"),
    Evaluation("tts", "sentences", "unseen sentences: own recogniser and an independent one, beside the source voice",
               generation.tts, f"{generation.OWN}; {generation.LISTENER}", True),
    Evaluation("tts", "voices", "voice prompts of left-out voices: nearest voice and pitch", generation.tts_voices,
               "nearest mean of mel-cepstra; our pitch tracker"),
    Evaluation("audio_caption", "esc10", "single real sounds: class named", understanding.captions_esc10, WORDS),
    Evaluation("audio_caption", "mixtures", "two real sounds at once: both classes named",
               understanding.captions_mixtures, WORDS),
    Evaluation("tta", "esc10", "ten classes, five seeds, two phrasings: named by an independent classifier",
               generation.tta, "classifier trained on the ESC-10 train clips alone"),
    Evaluation("codec", "all", "speech, sounds and music through the codec, beside its autoencoder and peers",
               reconstruction.codec, DISTANCES),
    Evaluation("codec", "steps", "the same codes by 1, 2, 4 and 10 steps of the decoder", reconstruction.codec_steps,
               f"{DISTANCES}; Whisper; classifier trained on the ESC-10 train clips alone"),
    Evaluation("reasoning", "all", "text from the reasoning codes alone, beside codes of another clip",
               understanding.reasoning, f"{TEXT}; {WORDS}", True),
    Evaluation("speed", "all", "load time and real-time factors", speed.speed, "clock"),
)  # fmt: skip
"""All evaluations; the first one of a task is its default."""

ON_DATA: dict[str, tuple[Callable[[Context, str], Result], str]] = {
    "asr": (understanding.asr_data, TEXT),
    "tts": (generation.tts_data, generation.OWN),
    "audio_caption": (scenes.captions, WORDS),
    "audio_understanding": (answers.understanding, EXACT),
    "speech_s2t": (answers.reply_text, EXACT),
    "speech_s2s": (answers.reply_speech, "Whisper"),
    "diarization": (answers.diarization, "diarization error rate, no collar, overlaps included"),
    "text_only": (lambda context, _: answers.facts(context), "the model's own likelihoods"),
    "music_caption": (musical.music_caption, "table of the words that name a property"),
    "ttm": (musical.ttm, f"{musical.INSTRUMENT_JUDGE}; {musical.TEMPO_JUDGE}"),
    "lyric_recognition": (musical.lyrics, TEXT),
    "lts": (musical.songs, "Whisper; WORLD"),
    "music_ss": (musical.music_separation, "distances to the stems"),
    "instruct_tts": (styled.instruct, f"{JUDGE}; Whisper"),
    "prompt_instruct_tts": (styled.prompt_instruct, f"{JUDGE}; Whisper"),
    "speech_edit": (styled.edit, f"{JUDGE}; Whisper"),
    "voice_conversion": (styled.conversion, "distance of mel-cepstra; Whisper"),
    "d_asr": (repaired.impaired, TEXT),
    "speech_with_sound": (repaired.with_sound, "Whisper; a classifier of sounds"),
    "speech_denoise": (repaired.denoised, "STOI; Whisper"),
    "speech_ss": (repaired.separated, "STOI; Whisper"),
    "classify": (few_shot.classify, EXACT),
    "codec": (reconstruction.codec_data, DISTANCES),
}
"""What runs on any manifest or set of recordings, by task, and its judge."""

WITH_SHOTS = frozenset(ON_DATA) - {"asr", "tts", "audio_caption", "text_only", "classify", "codec"}
"""Those of them that can have examples in front."""

ANSWERED = ("audio_understanding", "speech_s2t", "d_asr")
"""Tasks whose answers are compared as normalised texts."""

TASKS = tuple(dict.fromkeys([*(item.task for item in EVALUATIONS), *ON_DATA]))


def find_evaluation(task: str, data: str | None = None, data_root: str | Path | None = None) -> Evaluation:
    """The evaluation of that task and data.

    Args:
        task: A task or another name for it.
        data: A name of the registry, a manifest's path, or a folder below the data root; None is the task's first one.
        data_root: Folder of the data sets, as for `evaluate`.

    Raises:
        EvaluationError: If there is none; the message names those there are.
    """
    task = {"sound": "tta", "caption": "audio_caption", "speak": "tts", "transcribe": "asr"}.get(task, task)
    own = [item for item in EVALUATIONS if item.task == task]
    if not own and task not in ON_DATA:
        near = difflib.get_close_matches(task, TASKS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise EvaluationError(f"no evaluation of {task!r}; there are {', '.join(TASKS)}{hint}")
    if data is None and not own:
        raise EvaluationError(f"{task} is scored on held-out examples of a manifest: give --data MANIFEST")
    if data is None:
        return own[0]
    for item in own:
        if item.data == data.replace("synth_heldout", "synth-heldout"):
            return item
    if task in ON_DATA and (Path(data).exists() or _is_set(data, data_root)):
        run, judge = ON_DATA[task]
        return Evaluation(task, data, "any data", lambda c: run(c, data), judge, task in ("asr", "tts", *ANSWERED))
    known = ", ".join(item.data for item in own)
    more = ", the path of a manifest or the name of a set under --data-root" if task in ON_DATA else ""
    raise EvaluationError(f"no data {data!r} for {task}; choose {known}{more}")


def _is_set(name: str, data_root: str | Path | None) -> bool:
    try:
        return (find_data_root(data_root) / name / "manifest.jsonl").is_file()
    except ValueError:
        return False


class Options(Sampling, total=False):
    """What `evaluate` may be told besides; sampling options are for every generation, None is the task's default."""

    data_root: str | Path | None  # folder of the data sets; None looks in UNIAUDIO2_DATA, then ../shared/data
    corpus: str | Path | None  # synthetic corpus with a dev split; None speaks its dev sentences on the fly
    limit: int | None  # most items of a set; None is the full evaluation
    device: str  # where the model runs
    normaliser: str  # simple or whisper
    languages: Sequence[str]  # to score where there is a choice
    tell_language: bool  # whether the recogniser is told each clip's language; without it, it has to find it
    unseen_speakers: bool  # whether to leave out speakers who are in the train part of their set too
    untrained: bool  # whether rows are scored that the model was not trained for
    shots: int  # train examples in front of each held-out one, in evaluations of rows of the task table
    work: str | Path | None  # folder that keeps the audio that was scored; None uses a temporary one
    progress: bool  # whether to show progress bars on standard error
    batch_size: int  # clips that the model works on together


def evaluate(
    task: str,
    *,
    data: str | None = None,
    model: Subject | Any | str | Path | None = None,
    effort: Effort | None = None,
    out: str | Path | None = None,
    command: str | None = None,
    **options: Unpack[Options],
) -> Report:
    """Run one evaluation.

    Args:
        task: ``asr``, ``tts``, ``audio_caption``, ``tta``, ``codec``, ``reasoning`` or ``speed``.
        data: A name of the registry, or, for the tasks of `ON_DATA`, a manifest or the name of a set of recordings;
            None is the first.
        model: Model folder, hub id, a loaded `UniAudio2`, or any `Subject`; None is the model in the package.
        effort: How hard the model tries; None is as it does by itself.
        out: JSON file for the report.
        command: Command line for the report; None reconstructs it from the arguments.
        options: See `Options`.

    Returns:
        The report; it is saved too if ``out`` is given.

    Raises:
        ValueError: If task, data, model or an option is unknown, or something needed is missing.
    """
    start = time.perf_counter()
    evaluation = find_evaluation(task, data, options.get("data_root"))
    effort = effort or Effort()
    sampling: dict[str, Any] = {name: value for name, value in options.items() if name not in _SETTINGS}
    _check(evaluation, effort, sampling, options)
    sampling = {name: value for name, value in sampling.items() if value is not None}
    with contextlib.ExitStack() as stack:
        folder = Path(options.get("work") or stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        track = stack.enter_context(_bars()) if options.get("progress") else quiet
        context = _context(evaluation, model, effort, sampling, options, folder, track)
        figures, items = evaluation.run(context)
        report = Report(
            task=evaluation.task,
            data=evaluation.data,
            model=context.subject.name,
            command=command or _command(evaluation, model, context, {**effort.given(), **sampling}),
            seed=context.seed,
            normaliser=context.normaliser if evaluation.reads_text else None,
            judge=evaluation.judge,
            speakers=context.speakers if evaluation.task in ("asr", "reasoning") else "",
            figures=figures,
            items=items,
            notes=[*context.notes, *_remarks(figures, context)],
        )
    report.seconds = round(time.perf_counter() - start, 1)
    if out is not None:
        report.save(out)
    return report


_SETTINGS = Options.__annotations__.keys() - Sampling.__annotations__.keys() | {"seed"}


def _context(
    evaluation: Evaluation,
    model: Any,
    effort: Effort,
    sampling: dict[str, Any],
    options: Options,
    work: Path,
    track: Track,
) -> Context:
    """What the evaluation is given; the model is loaded when it is asked for."""
    device, batch_size = options.get("device", "cpu"), options.get("batch_size", 8)
    root, corpus = options.get("data_root"), options.get("corpus")
    return Context(
        make_subject=lambda: _subject(model, device, batch_size, effort, sampling, evaluation.task),
        work=work,
        data_root=None if root is None else Path(root),
        corpus=None if corpus is None else Path(corpus),
        limit=options.get("limit"),
        seed=options.get("seed") or 0,
        normaliser=options.get("normaliser", "simple"),
        track=track,
        source=model if isinstance(model, str | Path) else getattr(model, "folder", None),
        device=device,
        languages=tuple(options.get("languages", LANGUAGES)),
        tell_language=options.get("tell_language", True),
        unseen_speakers=options.get("unseen_speakers", False),
        untrained=options.get("untrained", False),
        shots=options.get("shots", 0),
    )


def _check(evaluation: Evaluation, effort: Effort, sampling: dict[str, Any], options: Options) -> None:
    """Refuse what is out of range or changes nothing, before anything is loaded."""
    get_normaliser(options.get("normaliser", "simple"))
    limit = options.get("limit")
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit must be at least 1, not {limit}")
    shots = options.get("shots", 0)
    if not 0 <= shots <= MOST_SHOTS:
        raise EvaluationError(f"shots must be from 0 to {MOST_SHOTS}, not {shots}")
    if shots and evaluation.task not in WITH_SHOTS:
        raise EvaluationError(
            f"no examples can stand in front of {evaluation.task}; they can of {', '.join(sorted(WITH_SHOTS))}"
        )
    unknown = sorted(set(options.get("languages", ())) - set(LANGUAGES))
    if unknown:
        raise EvaluationError(f"unknown language {unknown[0]!r}; choose from {', '.join(LANGUAGES)}")
    misplaced = sorted({"best_of", "beams", "shifts"} & sampling.keys())
    if misplaced:
        raise EvaluationError(f"give {misplaced[0]} as effort=Effort({misplaced[0]}=...)")
    for name, value in effort.given().items():
        if name not in evaluation.efforts:
            raise EvaluationError(f"{name} changes nothing in {evaluation.task} --data {evaluation.data}: leave it out")
        if value < 1:
            raise EvaluationError(f"{name} must be at least 1, not {value}")


MOST_SHOTS = 8
"""Examples in front of a held-out one. Choice: more sentences do not fit into 2048 positions."""

FEW = 10
"""Voices or recordings below which an interval over them is rough."""


def _remarks(figures: Sequence[Figure], context: Context) -> list[str]:
    """What a reader of the figures has to know."""
    remarks = []
    few = sorted({figure.clusters for figure in figures if 0 < figure.clusters < FEW})
    if few:
        numbers = " and ".join(filter(None, (", ".join(map(str, few[:-1])), str(few[-1]))))
        remarks.append(f"Intervals over {numbers} voices, prompts or recordings are rough: they are few.")
    if not context.tell_language:
        remarks.append("The recogniser was not told the language.")
    if context.shots:
        remarks.append(f"In front of each held-out example: {context.shots} of the train part, with what is right.")
    if context.limit is not None:
        remarks.append(f"Only up to {context.limit} items of each set were scored.")
    return remarks


def _subject(model: Any, device: str, batch_size: int, effort: Effort, sampling: dict[str, Any], task: str) -> Subject:
    # How speech is drawn must not change how the recogniser behind it reads.
    given: dict[str, Any] = {"batch_size": batch_size, "effort": effort, "reading": sampling if task == "asr" else {}}
    if model is None or isinstance(model, str | Path):
        return PipelineSubject.load(model, device=device, sampling=sampling, **given)
    from uniaudio2.api.model import UniAudio2

    if isinstance(model, UniAudio2):  # asked first: it has a subject's methods by name, with other results
        return PipelineSubject.around(model, sampling=sampling, **given)
    if isinstance(model, Subject):
        return model
    raise EvaluationError(f"cannot evaluate a {type(model).__name__}; give a model folder or a UniAudio2 object")


def _command(evaluation: Evaluation, model: Any, context: Context, sampling: dict[str, Any]) -> str:
    words = ["uniaudio2", "evaluate", evaluation.task, "--data", evaluation.data]
    if isinstance(model, str | Path):
        words += ["--model", str(model)]
    if context.corpus is not None:
        words += ["--corpus", str(context.corpus)]
    if context.limit is not None:
        words += ["--limit", str(context.limit)]
    if context.shots:
        words += ["--shots", str(context.shots)]
    if context.normaliser != "simple":
        words += ["--normaliser", context.normaliser]
    if context.languages != LANGUAGES:
        words += ["--languages", ",".join(context.languages)]
    words += ["--detect-language"] if not context.tell_language else []
    words += ["--unseen-speakers"] if context.unseen_speakers else []
    for name, value in sampling.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--seed", str(context.seed)])


@contextlib.contextmanager
def _bars() -> Iterator[Track]:
    """Progress bars on standard error, one line for each stage; plain silence where it is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def track(items: Sequence[Any], description: str) -> Iterable[Any]:
            """The items, with a bar that moves as they are taken."""
            return progress.track(items, total=len(items), description=description)

        yield track
