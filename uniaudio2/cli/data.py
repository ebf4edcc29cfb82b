"""Corpora: ``data synth``, ``data validate``, ``data inspect`` and ``prepare``."""

from pathlib import Path

import click

from uniaudio2.batch import check_output_folder, check_readable
from uniaudio2.cli.options import PLACE_OPTIONS, Number, Options, count, takes
from uniaudio2.cli.output import BatchError, emit, progress_bar, say

manifest_argument = click.argument("manifest", type=Path)


@click.group()
def data() -> None:
    """Make, check and look at labelled audio."""


@data.command()
@click.argument("out", metavar="DIR", type=Path)
@click.option("--preset", default="nano", show_default=True, help="How much of what: pilot, nano, ….")
@click.option(
    "--workers", type=count(0), default=2, show_default=True, metavar="N", help="Processes; 0 works in this one."
)
@click.option("--data-root", type=Path, metavar="DIR", help="Text and real sets.  [default: UNIAUDIO2_DATA]")
@click.option("--available", is_flag=True, help="Leave out what is missing here; built-in sentences for missing lists.")
@click.option("--resume/--no-resume", default=True, help="Keep the shards that are finished (as by default).")
@takes("seed")
def synth(
    out: Path, preset: str, workers: int, data_root: Path | None, available: bool, resume: bool, *, options: Options
) -> None:
    """Make labelled speech and sounds.

    They go into the folder DIR; an interrupted run goes on.
    """
    check_output_folder(out)
    from uniaudio2.data.synth.run import synthesise

    with progress_bar("shards") as show:
        manifest = synthesise(
            out,
            preset=preset,
            seed=options.seed,
            workers=workers,
            resume=resume,
            data_root=data_root,
            available=available,
            progress=lambda done, total, clips: show(done, total),
        )
    print(manifest)


@data.command()
@manifest_argument
@click.option("--phonemes", is_flag=True, help="Write the phones of every text into the manifest where it has none.")
@takes("as_json")
def validate(manifest: Path, phonemes: bool, *, options: Options) -> None:
    """Check a manifest against its audio.

    MANIFEST is JSONL, or the folder that holds it. Problems are listed one per line.
    """
    from uniaudio2.data.manifest import add_phonemes
    from uniaudio2.data.manifest import validate as check

    if phonemes:
        from uniaudio2.data.synth.engines.espeak import phonemes as spoken

        made, left = add_phonemes(manifest, spoken)
        say(f"phones written for {made} clips")
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            say(f"no phones, for want of a language or of a known reading: {', '.join(left[:5])}{more}")
    report = check(manifest)
    if options.as_json:
        counts = [{"split": s, "kind": k, "language": la, "clips": n} for (s, k, la), n in report.counts.items()]
        emit({"examples": report.num_examples, "hours": report.hours, "counts": counts, "problems": report.problems})
    else:
        for problem in report.problems:
            print(problem)
        hours = ", ".join(f"{split} {hours:.2f} h" for split, hours in report.hours.items())
        print(f"{report.num_examples} examples ({hours}), {len(report.problems)} problems")
        for (split, kind, language), clips in sorted(report.counts.items()):
            print(f"{split}\t{kind}\t{language}\t{clips}")
    if report.problems:
        raise BatchError


@data.command()
@manifest_argument
@click.option("--out", "-o", type=Path, required=True, metavar="DIR", help="Folder for pictures, clips and a page.")
@click.option("--pictures", type=count(), default=12, show_default=True, metavar="N", help="Pictures per class.")
@click.option("--clips", type=count(0), default=3, show_default=True, metavar="N", help="Clips per class to listen to.")
@takes("seed")
def inspect(manifest: Path, out: Path, pictures: int, clips: int, *, options: Options) -> None:
    """Draw and cut examples of every class.

    Pictures and clips of a corpus, MANIFEST, to check its labels by eye and ear.
    """
    check_output_folder(out)
    from uniaudio2.data.inspect import inspect as draw

    for sheet in draw(manifest, out, pictures=pictures, clips=clips, seed=options.seed):
        print(sheet)


@click.command()
@manifest_argument
@click.option("--out", "-o", type=Path, required=True, metavar="DIR", help="Folder of codes; goes on where it stopped.")
@click.option("--splits", default="train,dev", show_default=True, help="Parts of the manifest, with commas.")
@click.option("--augmented-copies", type=count(0), default=0, metavar="N", help="More copies of recordings.")
@click.option("--synthetic-copies", type=Number(0), default=0.0, metavar="N", help="The same for synthetic clips.")
@click.option(
    "--voice-copies",
    type=Number(0, 6),
    default=0.0,
    metavar="N",
    help="Copies of speech at other speeds, for other voices.",
)
@click.option("--part", type=count(0), default=0, metavar="N", help="Which part of the work this process does, from 0.")
@click.option("--parts", type=count(), default=1, metavar="N", help="Processes that share the work.")
@click.option(
    "--precision", default="float32", show_default=True,
    help="float32, or bf16: twice as fast on a CPU, 98 % of first-book codes equal.",
)  # fmt: skip
@takes(*PLACE_OPTIONS, "seed")
def prepare(
    manifest: Path,
    out: Path,
    splits: str,
    augmented_copies: int,
    synthetic_copies: float,
    voice_copies: float,
    part: int,
    parts: int,
    precision: str,
    *,
    options: Options,
) -> None:
    """Turn a corpus into codes for training.

    MANIFEST is the folder of the corpus, or its manifest. Transcripts get the form that the model learned: for nano
    numbers in words, no capitals, no punctuation.
    """
    check_readable(str(manifest / "manifest.jsonl" if manifest.is_dir() else manifest))
    check_output_folder(out)
    from uniaudio2.checkpoint import load_codec
    from uniaudio2.data.augment import augment, speed_perturb
    from uniaudio2.data.corpus import Corpus
    from uniaudio2.data.manifest import as_spoken
    from uniaudio2.data.prepare import PrepareConfig
    from uniaudio2.data.prepare import prepare as prepare_codes

    config = PrepareConfig(
        augmented_copies=augmented_copies,
        synthetic_copies=synthetic_copies,
        voice_copies=voice_copies,
        splits=tuple(name.strip() for name in splits.split(",") if name.strip()),
        seed=options.seed,
        part=part,
        parts=parts,
        precision=precision,
    )
    corpus = Corpus(manifest)
    if options.facts.generation.normalise_text:
        corpus.examples = [as_spoken(example) for example in corpus.examples]
    codec = load_codec(options.model, device=options.place)
    print(prepare_codes(codec, corpus, out, config, augment=augment, change_speed=speed_perturb, log=say))
