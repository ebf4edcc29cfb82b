"""The data sets that are known by name, and reading one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from uniaudio2.data.benchmarks import sound, speech
from uniaudio2.data.example import Example, ManifestError
from uniaudio2.data.manifest import read_manifest

Layout = Callable[[Path, str], Iterator[Example]]


@dataclass(frozen=True)
class Benchmark:
    """A data set that papers report on.

    Attributes:
        title: Its name.
        licence: As its publisher states it; terms may ask for more than this line.
        where: Where it is had.
        splits: Its own names; the first one is taken if none is named.
        normaliser: Of texts, where texts are scored.
        metric: What is reported on it.
        layout: Reads it; None where only a ``manifest.jsonl`` of one's own is read.
    """

    title: str
    licence: str
    where: str
    splits: tuple[str, ...]
    normaliser: str
    metric: str
    layout: Layout | None


_CV = "commonvoice.mozilla.org"
BENCHMARKS: dict[str, Benchmark] = {
    "librispeech": Benchmark("LibriSpeech", "CC-BY-4.0", "openslr.org/12",
        ("test-clean", "test-other", "dev-clean", "dev-other", "train-clean-100"), "whisper", "WER",
        speech.librispeech),
    "libritts": Benchmark("LibriTTS", "CC-BY-4.0", "openslr.org/60",
        ("test-clean", "test-other", "dev-clean", "dev-other"), "whisper", "WER of speech made", speech.libritts),
    "vctk": Benchmark("VCTK", "CC-BY-4.0", "datashare.ed.ac.uk/handle/10283/3443",
        ("all",), "whisper", "reconstruction", speech.vctk),
    "seed_tts_eval": Benchmark("Seed-TTS-eval", "CC-BY of DiDiSpeech and Common Voice: see its page",
        "github.com/BytedanceSpeech/seed-tts-eval", ("en", "zh"), "whisper",
        "WER / CER of speech made, speaker similarity", speech.seed_tts_eval),
    "aishell": Benchmark("AISHELL-1", "Apache-2.0", "openslr.org/33", ("test", "dev", "train"), "whisper", "CER",
        speech.aishell),
    "common_voice_en": Benchmark("Common Voice, English", "CC0-1.0", _CV, ("test", "dev"), "whisper", "WER",
        speech.common_voice("en", "en")),
    "common_voice_zh": Benchmark("Common Voice, Mandarin (zh-CN)", "CC0-1.0", _CV, ("test", "dev"), "whisper", "CER",
        speech.common_voice("zh", "zh-CN")),
    "common_voice_hk": Benchmark("Common Voice, Cantonese (zh-HK)", "CC0-1.0", _CV, ("test", "dev"), "whisper", "CER",
        speech.common_voice("yue", "zh-HK")),
    "common_voice_yue": Benchmark("Common Voice, Cantonese (yue)", "CC0-1.0", _CV, ("test", "dev"), "whisper", "CER",
        speech.common_voice("yue", "yue")),
    "musiccaps": Benchmark("MusicCaps", "CC-BY-SA-4.0 (captions); the videos have their own",
        "huggingface.co/datasets/google/MusicCaps", ("eval", "train"), "", "CLAP, FAD; captions", sound.musiccaps),
    "audiocaps": Benchmark("AudioCaps", "MIT (captions); the videos have their own", "github.com/cdjkim/audiocaps",
        ("test", "val", "train"), "", "CIDEr, SPIDEr; CLAP, FAD", sound.audiocaps),
    "clotho": Benchmark("Clotho", "Tampere University, non-commercial (captions); Freesound's, by clip",
        "zenodo.org/records/4783391", ("evaluation", "validation", "development"), "", "SPIDEr", sound.clotho),
    "esc50": Benchmark("ESC-50", "CC-BY-NC-3.0", "github.com/karolpiczak/ESC-50",
        ("fold1", "fold2", "fold3", "fold4", "fold5"), "", "accuracy over five folds", sound.esc50),
    "secap": Benchmark("SECap", "see its page", "github.com/thuhcsi/SECap", ("test",), "", "emotion captions", None),
    "torgo": Benchmark("TORGO", "free for research, see its page", "cs.toronto.edu/~complingweb/data/TORGO/torgo.html",
        ("dysarthric", "control"), "whisper", "WER", speech.torgo),
    "uaspeech": Benchmark("UASpeech", "by agreement with its makers", "speechtechnology.web.illinois.edu/uaspeech",
        ("test", "train"), "whisper", "WER", speech.uaspeech),
    "mmau": Benchmark("MMAU", "Apache-2.0 (questions); the clips have their own", "github.com/Sakshi113/MMAU",
        ("test-mini", "test"), "", "accuracy of choices", sound.mmau),
    "mmlu": Benchmark("MMLU", "MIT", "github.com/hendrycks/test", ("test",), "", "accuracy of choices; text alone",
        None),
    "dns": Benchmark("DNS challenge, synthetic test set", "of its sources, see its page",
        "github.com/microsoft/DNS-Challenge", ("no_reverb", "with_reverb"), "", "DNSMOS, PESQ, STOI", speech.dns),
    "librimix": Benchmark("LibriMix", "MIT (scripts), CC-BY-4.0 (speech), WHAM noise non-commercial",
        "github.com/JorisCos/LibriMix", ("test", "dev"), "", "SI-SDR", speech.librimix),
    "ami": Benchmark("AMI meetings", "CC-BY-4.0", "groups.inf.ed.ac.uk/ami", ("test", "dev"), "whisper", "DER, WER",
        speech.ami),
}  # fmt: skip
"""Data sets by name."""


def read_benchmark(name: str, folder: str | Path, split: str | None = None) -> list[Example]:
    """The examples of a data set, read from a folder as it was unpacked; a ``manifest.jsonl`` in it is read instead.

    Args:
        name: A key of `BENCHMARKS`.
        folder: Where it lies.
        split: One of its own; None takes the first.

    Raises:
        ManifestError: If the name or the split is unknown, the folder is another one, or nothing is in it.
    """
    if name not in BENCHMARKS:
        raise ManifestError(f"no data set {name!r} is known; there are {', '.join(BENCHMARKS)}")
    own, root = BENCHMARKS[name], Path(folder)
    if not root.is_dir():
        raise ManifestError(f"{folder}: no such folder; {own.title} is had from {own.where}")
    if (root / "manifest.jsonl").is_file():
        return read_manifest(root)
    if own.layout is None:
        raise ManifestError(f"{own.title}: there is no reader of its layout; write a manifest.jsonl into {folder}")
    if split is not None and split not in own.splits:
        raise ManifestError(f"{own.title} has no split {split!r}; it has {', '.join(own.splits)}")
    found = list(own.layout(root, split or own.splits[0]))
    if not found:
        raise ManifestError(f"{folder}: no clips of {own.title}, split {split or own.splits[0]}, are in it")
    return found
