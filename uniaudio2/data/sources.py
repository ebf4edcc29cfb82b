"""Real recordings: finding the data folder, and reading each set's manifest as our examples.

A set is a folder with a ``manifest.jsonl`` whose lines carry ``use`` and ``redistribute``. Only lines with
``use == "train"`` and ``redistribute`` not false are handed out for training. Sets whose labels would poison
training are left out by name (`EXCLUDED`).
"""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniaudio2.data.manifest import Example, ManifestError
from uniaudio2.data.synth.sentences import normalise_english
from uniaudio2.errors import UserError

ENVIRONMENT_VARIABLE = "UNIAUDIO2_DATA"
DEFAULT_ROOT = Path("../shared/data")


@dataclass(frozen=True)
class RealSet:
    """A set of recordings: what its clips are (``"speech"``, ``"sound"`` or ``"music"``), and what it is made of."""

    kind: str
    where: str


SETS = {
    "fsdd": RealSet("speech", "Free Spoken Digit Dataset (CC-BY-SA-4.0)"),
    "keywords": RealSet("speech", "Picovoice wake-word benchmark (Apache-2.0)"),
    "coffee_commands": RealSet("speech", "Picovoice speech-to-intent benchmark (Apache-2.0)"),
    "read_english": RealSet("speech", "LJ Speech, LibriSpeech, LibriVox and CMU ARCTIC sentences"),
    "read_chinese": RealSet("speech", "an AISHELL-1 sentence and HKCanCor clips"),
    "speechocean": RealSet("speech", "speechocean762 (CC-BY-4.0)"),
    "librispeech_text": RealSet("speech", "LibriSpeech train-clean-100 (CC-BY-4.0)"),
    "librispeech_voices": RealSet("speech", "LibriSpeech train-clean-100 (CC-BY-4.0), one clip a voice"),
    "vctk_p239": RealSet("speech", "VCTK, speaker p239 (ODC-BY-1.0)"),
    "aishell_pair": RealSet("speech", "AISHELL-1, two speakers (Apache-2.0)"),
    "speech_commands": RealSet("speech", "Speech Commands (CC-BY-4.0)"),
    "precise_words": RealSet("speech", "Mycroft Precise community data (public domain)"),
    "emodb": RealSet("speech", "Berlin emotional speech (CC0)"),
    "ami_meetings": RealSet("speech", "AMI meeting corpus (CC-BY-4.0)"),
    "sung_notes": RealSet("music", "vocobox sung notes and vowels (MIT)"),
    "effects": RealSet("sound", "effects and vocal sounds (CC0 and CC-BY)"),
    "ambience": RealSet("sound", "ambience beds (CC0, CC-BY and public domain)"),
    "esc10": RealSet("sound", "ESC-10 (CC0 and CC-BY-3.0)"),
    "sonic_pi": RealSet("music", "Sonic Pi's samples (CC0)"),
    "librosa_clips": RealSet("music", "librosa's example recordings (public domain and CC-BY-3.0)"),
}
"""Sets that are known, each a folder of its name in the data folder with a ``manifest.jsonl``; others are sounds."""

EXCLUDED = {"yesno": "Hebrew speech with English text: it would teach a wrong English"}
"""Sets that are never used for training, and why."""

_PHRASES = {
    "dog_bark": "a dog barking | a dog barks | barking of a dog | "
    "the bark of a dog | a dog is barking | sound of a barking dog",
    "rain": "rain falling | rain | it is raining | the sound of rain | raindrops falling | steady rain outside",
    "sea_waves": "sea waves | waves of the sea | ocean waves rolling in | "
    "waves breaking on a beach | the sea with its waves | surf at the shore",
    "baby_cry": "a baby crying | a crying baby | a baby cries | "
    "an infant is crying | the cry of a baby | a small child crying",
    "clock_tick": "a clock ticking | ticking of a clock | a ticking clock | "
    "the tick of a clock | a clock ticks | tick tock of a clock",
    "person_sneeze": "a person sneezing | a sneeze | someone sneezes | "
    "somebody is sneezing | a person sneezes | the sound of a sneeze",
    "helicopter": "a helicopter | a helicopter flying | the rotor of a helicopter | "
    "a helicopter overhead | the sound of a helicopter | a helicopter passes by",
    "chainsaw": "a chainsaw running | a chainsaw | someone uses a chainsaw | "
    "a chainsaw cutting wood | the motor of a chainsaw | sawing with a chainsaw",
    "rooster": "a rooster crowing | a rooster crows | the crow of a rooster | "
    "a crowing rooster | a cock crowing | a rooster is crowing",
    "fire_crackling": "a crackling fire | fire crackling | a fire burns and crackles | "
    "the crackle of a fire | wood burning in a fire | a burning fire",
    "tabla": "a tabla drum | a tabla hit | a stroke on a tabla | an indian tabla | the sound of a tabla",
    "elec": "an electronic sound | a short electronic tone | an electronic effect | "
    "a synthetic blip | an electronic sample",
    "hat": "a hi hat | a hi hat hit | a closed hi hat | a cymbal tick | the sound of a hi hat",
    "bd": "a bass drum | a kick drum | a bass drum hit | a deep drum hit | one kick of a bass drum",
    "drum": "a drum | a drum hit | a hit on a drum | one stroke on a drum | the sound of a drum",
    "loop": "a drum loop | a music loop | a rhythmic loop | a looped beat | a short repeating rhythm",
    "perc": "a percussion hit | percussion | a percussive sound | a short percussion sample | one percussion hit",
    "ambi": "an ambient sound | ambient music | a calm ambient tone | a soft drone | an ambient texture",
    "bass": "a bass note | a synth bass | a low bass sound | a bass tone | one deep bass note",
    "mehackit": "a robot sound | a toy robot | a toy robot sound | a small robot moves | a robot effect",
    "glitch": "a glitch sound | a digital glitch | a glitch effect | a short digital error sound | glitchy percussion",
    "arovane": "an electronic beat | an electronic music loop | techno beat | a synthetic beat | electronic drums",
    "vinyl": "a vinyl record | vinyl noise | the hiss of a vinyl record | a turntable sound | crackle of vinyl",
    "sn": "a snare drum | a snare hit | a snare drum hit | one snare stroke | the sound of a snare",
    "guit": "a guitar | a guitar chord | guitar notes | a plucked guitar | the sound of a guitar",
    "misc": "a sound effect | a short effect | some effect sound | a strange sound | a sample of an effect",
    "ride": "a ride cymbal | a cymbal | a cymbal ringing | a ride cymbal hit | the sound of a cymbal",
    "classical": "classical music | a classical piece | an orchestra playing | "
    "a classical orchestra | music by an orchestra",
    "whale song": "a whale singing | a humpback whale | the song of a whale | whale song under water | a whale calls",
    "jazz": "jazz music | a jazz tune | a relaxed jazz band | a jazz trio | jazz with drums and bass",
    "trumpet": "a trumpet | a solo trumpet | someone plays the trumpet | a trumpet phrase | jazz trumpet",
}
CAPTIONS = {label: tuple(phrases.split(" | ")) for label, phrases in _PHRASES.items()}
"""At least five phrasings for every class of the licensed sets; the first one is the plainest."""


def find_data_root(data_root: str | Path | None = None) -> Path:
    """Find the folder that holds the data sets.

    Args:
        data_root: Given by the user; None looks in the environment variable UNIAUDIO2_DATA, then in ``../shared/data``.

    Returns:
        An existing folder.

    Raises:
        ValueError: If it does not exist.
    """
    if data_root is not None:
        root, origin = Path(data_root), "--data-root"
    elif os.environ.get(ENVIRONMENT_VARIABLE):
        root, origin = Path(os.environ[ENVIRONMENT_VARIABLE]), f"${ENVIRONMENT_VARIABLE}"
    else:
        root, origin = DEFAULT_ROOT, "the default place"
    if not root.is_dir():
        raise UserError(
            f"no data folder at {root} ({origin}); give one with --data-root DIR or {ENVIRONMENT_VARIABLE}=DIR"
        )
    return root


def data_root_if_any(data_root: str | Path | None = None) -> Path | None:
    """As `find_data_root`, but None where no folder was named and the default one is not there."""
    named = data_root is not None or os.environ.get(ENVIRONMENT_VARIABLE)
    return find_data_root(data_root) if named or DEFAULT_ROOT.is_dir() else None


def read_set(root: Path, name: str, *, split: str | None = None) -> list[Example]:
    """Read one set as examples that may be used for training and shipped.

    Args:
        root: Data folder (see `find_data_root`).
        name: Name of the set's folder.
        split: Keep only this split.

    Returns:
        Examples with ``source`` set to the set's name, absolute through their ``root``, without phones.

    Raises:
        ManifestError: If the set is missing, excluded, or a line is broken.
    """
    if name in EXCLUDED:
        raise ManifestError(f"{name} is not used for training: {EXCLUDED[name]}")
    file = root / name / "manifest.jsonl"
    if not file.is_file():
        where = f" ({SETS[name].where})" if name in SETS else ""
        raise ManifestError(f"{file}: no such set{where}; known ones are {', '.join(SETS)}")
    examples: list[Example] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            usable = data.get("use", "train") == "train" and data.get("redistribute", True) is not False
            if usable and (split is None or data["split"] == split):
                examples.append(_to_example(data, name, root / name))
        except (json.JSONDecodeError, KeyError, ManifestError) as error:
            raise ManifestError(f"{file}:{number}: {error}") from error
    return examples


def _to_example(data: dict[str, Any], name: str, folder: Path) -> Example:
    """Map a line of a set's own manifest to an `Example`."""
    language = {"cmn": "zh", "yue": "yue", "en": "en"}.get(data.get("language") or "")
    spoken = bool(data.get("text") and language)
    kind = SETS[name].kind if name in SETS else "speech" if spoken else "sound"
    label = data.get("label")
    if isinstance(label, dict) and "intent" in label:
        slots = ", ".join(f"{key}={value}" for key, value in sorted(label.get("slots", {}).items()))
        label = f"{label['intent']}: {slots}"
    elif isinstance(label, dict | list):
        label = json.dumps(label, ensure_ascii=False)
    caption, captions = data.get("caption"), ()
    if kind != "speech":
        if label == "whale song":
            kind = "sound"
        captions = CAPTIONS.get(str(label), ())
        if caption and caption not in captions:
            captions = (caption, *captions)
        caption = caption or (captions[0] if captions else None)
    return Example(
        id=f"{name}-{data['id']}",
        path=data["path"],
        duration=float(data["duration"]),
        split=data["split"],
        kind=kind,
        text=normalise_transcript(data.get("text"), language) if kind == "speech" else None,
        language=language,
        speaker=f"{name}-{data['speaker']}" if data.get("speaker") else None,
        label=None if label is None else str(label),
        caption=caption,
        captions=captions,
        licence=data.get("licence"),
        attribution=data.get("attribution"),
        source=name,
        root=folder,
    )


def normalise_transcript(text: str | None, language: str | None) -> str | None:
    """Bring the transcript of a recording to the normal form of the sentence lists; None where that fails."""
    if not text or language is None:
        return None
    if language == "en":
        # Acronym and abbreviation rules are for synthesis; a transcript already says what was spoken.
        sentence = normalise_english(re.sub(r"\.", "", text.lower()))
        return sentence.text if sentence else None
    from uniaudio2.data.synth.sentences import normalise_chinese

    sentence = normalise_chinese(text)
    return sentence.text if sentence else None


def phrase(example: Example, rng: random.Random) -> str | None:
    """One of the phrasings of an example's caption."""
    options = example.captions or ((example.caption,) if example.caption else ())
    return rng.choice(options) if options else None
