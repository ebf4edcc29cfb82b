"""Layouts of speech corpora. Each function gives the examples of a split of an unpacked data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from uniaudio2.data.benchmarks.files import column, example, find_audio, inside, recording, rows
from uniaudio2.data.example import Example, ManifestError, Turn

PARTS = ("train", "dev", "test")


def _part(split: str) -> str:
    """Train, dev or test, of a split such as ``test-clean``."""
    return next((part for part in PARTS if split.startswith(part)), "test")


def librispeech(root: Path, split: str) -> Iterator[Example]:
    """``SPLIT/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt``; its capitals become small letters."""
    top = inside(root, split) / split
    for file in sorted(top.glob("*/*/*.trans.txt")):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(" ")
            yield example(root, file.parent / f"{name}.flac", text=text.lower(), speaker=name.split("-")[0],
                          language="en", split=_part(split))  # fmt: skip


def libritts(root: Path, split: str) -> Iterator[Example]:
    """``SPLIT/SPEAKER/CHAPTER/*.wav`` with ``*.normalized.txt``."""
    top = inside(root, split) / split
    for file in sorted(top.glob("*/*/*.wav")):
        text = file.with_suffix(".normalized.txt")
        if text.is_file():
            yield example(root, file, text=text.read_text(encoding="utf-8").strip(), speaker=file.stem.split("_")[0],
                          language="en", split=_part(split))  # fmt: skip


def vctk(root: Path, split: str) -> Iterator[Example]:
    """``wav48_silence_trimmed/pNNN/*_mic1.flac`` (0.92) or ``wav48/pNNN/*.wav`` (0.80) with ``txt/pNNN/*.txt``."""
    top = inside(root, "txt")
    for text in sorted(top.glob("txt/*/*.txt")):
        speaker, stem = text.parent.name, text.stem
        places = [(f"wav48_silence_trimmed/{speaker}", f"{stem}_mic1"), (f"wav48/{speaker}", stem)]
        audio = next((found for place, name in places if (found := find_audio(top / place, name))), None)
        if audio is not None:  # p315 has audio without text, some have text without audio
            spoken = text.read_text(encoding="utf-8").strip()
            yield example(root, audio, id=stem, text=spoken, speaker=speaker, language="en", split="test")


def seed_tts_eval(root: Path, split: str) -> Iterator[Example]:
    """``en/meta.lst`` or ``zh/meta.lst``: name|prompt text|prompt audio|text, and the recording where it is given."""
    file = inside(root, f"{split}/meta.lst") / split / "meta.lst"
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        name, prompt_text, prompt, text, *rest = line.split("|")
        audios = {"prompt": recording(root, file.parent / prompt)}
        spoken = file.parent / (rest[0] if rest else f"wavs/{name}.wav")
        own = recording(root, spoken) if spoken.is_file() else None
        fields = {"path": own.path, "duration": own.duration} if own else {}
        texts = {"prompt_text": prompt_text}
        yield Example(id=name, text=text, language=split, split="test", audios=audios, texts=texts, root=root, **fields)


def aishell(root: Path, split: str) -> Iterator[Example]:
    """``wav/SPLIT/SPEAKER/*.wav`` with ``transcript/aishell_transcript_v0.8.txt``; its spaces are taken out."""
    top = inside(root, "transcript")
    texts: dict[str, str] = {}
    for line in (top / "transcript" / "aishell_transcript_v0.8.txt").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(" ")
        texts[name] = "".join(text.split())
    for file in sorted((top / "wav" / split).glob("*/*.wav")):
        if file.stem in texts:
            yield example(
                root, file, text=texts[file.stem], speaker=file.parent.name, language="zh", split=_part(split)
            )


def common_voice(language: str, folder: str) -> Callable[[Path, str], Iterator[Example]]:
    """Common Voice of a language: ``FOLDER/SPLIT.tsv`` with ``clips``."""

    def read(root: Path, split: str) -> Iterator[Example]:
        top = inside(root, f"{folder}/{split}.tsv", f"{split}.tsv")
        top = top / folder if (top / folder).is_dir() else top
        file = top / f"{split}.tsv"
        for row in rows(file, "\t"):
            audio = top / "clips" / column(row, "path", file)
            yield example(root, audio, text=column(row, "sentence", file), speaker=row.get("client_id") or None,
                          language=language, split=_part(split))  # fmt: skip

    return read


def torgo(root: Path, split: str) -> Iterator[Example]:
    """``SPEAKER/SessionN/{wav_headMic,wav_arrayMic}`` with ``prompts``; control speakers have a C in their name."""
    for prompt in sorted(root.glob("*/Session*/prompts/*.txt")):
        text, session = prompt.read_text(encoding="utf-8", errors="replace").strip(), prompt.parent.parent
        speaker = session.parent.name
        audio = next(
            (f for mic in ("wav_headMic", "wav_arrayMic") if (f := find_audio(session / mic, prompt.stem))), None
        )
        # A prompt in brackets is an instruction, one that ends in .jpg a picture to be described.
        wanted = ("C" in speaker) == (split == "control")
        if wanted and audio is not None and text and not re.search(r"[\[\]]|\.jpg$", text):
            yield example(root, audio, id=f"{speaker}-{session.name}-{prompt.stem}", text=text, speaker=speaker,
                          language="en", split="test")  # fmt: skip


def uaspeech(root: Path, split: str) -> Iterator[Example]:
    """``audio/**/SPEAKER/*_MN.wav`` with ``mlf/SPEAKER/*_word.mlf``; block B2 is the test part, others are train."""
    words: dict[str, str] = {}
    for file in sorted(inside(root, "mlf").glob("mlf/**/*_word.mlf")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for name, word in pairwise(lines):
            if name.startswith('"'):
                words[Path(name.strip('"')).stem.lstrip("*/")] = word.split()[-1]
    for audio in sorted(root.glob("**/audio/**/*.wav")):
        test = "_B2_" in audio.stem
        if audio.stem in words and test == (split == "test"):
            yield example(root, audio, text=words[audio.stem].lower(), speaker=audio.stem.split("_")[0], language="en",
                          split="test" if test else "train")  # fmt: skip


def dns(root: Path, split: str) -> Iterator[Example]:
    """The synthetic test set of the DNS challenge: ``synthetic/SPLIT/{noisy,clean}``, joined by ``fileid_N``."""
    folders = [path for path in sorted(root.glob(f"**/{split}")) if (path / "noisy").is_dir()]
    if not folders:
        raise ManifestError(f"{root}: not the folder of this data set, {split}/noisy is missing")
    clean = {_file_id(file): file for file in (folders[0] / "clean").glob("*.wav")}
    for file in sorted((folders[0] / "noisy").glob("*.wav"), key=lambda file: file.name):
        if _file_id(file) in clean:
            audios = {"noisy": recording(root, file), "clean": recording(root, clean[_file_id(file)])}
            yield Example(id=file.stem, split="test", audios=audios, root=root)


def _file_id(file: Path) -> str:
    return file.stem.rpartition("fileid_")[2]


def librimix(root: Path, split: str) -> Iterator[Example]:
    """``Libri2Mix/wav16k/min/SPLIT/{mix_clean,mix_both,s1,s2,…}``: the mixture and its speakers."""
    tops = [path for path in sorted(root.glob(f"**/{split}")) if (path / "s1").is_dir()]
    if not tops:
        raise ManifestError(f"{root}: not the folder of this data set, {split}/s1 is missing")
    mix = next((name for name in ("mix_clean", "mix_both", "mix_single") if (tops[0] / name).is_dir()), "mix_clean")
    for file in sorted((tops[0] / mix).glob("*.wav")):
        places = {"mixture": mix, **{f"s{n}": f"s{n}" for n in (1, 2, 3) if (tops[0] / f"s{n}").is_dir()}}
        audios = {name: recording(root, tops[0] / place / file.name) for name, place in places.items()}
        yield Example(id=file.stem, split=_part(split), language="en", audios=audios, root=root)


def ami(root: Path, split: str) -> Iterator[Example]:
    """Headset mixes with the manual annotations: ``words/*.xml``; every speaker's words between pauses are a turn."""
    meetings = AMI_PARTS.get(split, ())
    words = {folder.parent for folder in root.glob("**/words") if folder.is_dir()}
    if not words:
        raise ManifestError(f"{root}: not the folder of this data set, words is missing (AMI manual annotations)")
    for file in sorted(root.glob("**/*.Mix-Headset.wav")):
        meeting = file.name.split(".")[0]
        if meeting[:-1] in meetings:
            turns = [turn for top in words for turn in _ami_turns(top / "words", meeting)]
            yield example(root, file, id=meeting, language="en", split=split,
                          turns=tuple(sorted(turns, key=lambda turn: turn.start)))  # fmt: skip


AMI_PARTS = {
    "dev": ("ES2011", "IS1008", "TS3004", "IB4001", "IB4002", "IB4003", "IB4004", "IB4010", "IB4011"),
    "test": ("ES2004", "IS1009", "TS3003", "EN2002"),
}
"""Meetings of the "full corpus" parts, without the letter of the session (of IB and EN, as far as they have one)."""

TURN_PAUSE_S = 0.5


def _ami_turns(folder: Path, meeting: str) -> Iterator[Turn]:
    for file in sorted(folder.glob(f"{meeting}.*.words.xml")):
        said: list[tuple[float, float, str]] = []
        for word in ElementTree.parse(file).getroot().iter("w"):
            start, end = word.get("starttime"), word.get("endtime")
            if start and end and word.get("punc") != "true" and word.text and float(end) > float(start):
                said.append((float(start), float(end), word.text))
        speaker, group = f"{meeting}-{file.name.split('.')[1]}", list[tuple[float, float, str]]()
        for one in [*said, (float("inf"), float("inf"), "")]:
            if group and one[0] - group[-1][1] > TURN_PAUSE_S:
                yield Turn(group[0][0], group[-1][1], " ".join(word for _, _, word in group), speaker)
                group = []
            group.append(one)
