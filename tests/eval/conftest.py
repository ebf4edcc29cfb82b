import json

import numpy as np
import pytest
import soundfile
import torch

from uniaudio2.codes import (
    REASONING_HOP,
    RECONSTRUCTION_HOP,
    AudioCodes,
    Stream,
    reasoning_length,
    reconstruction_length,
)

RATE = 24000
CLASSES = ("dog_bark", "rain", "helicopter")


def tone(seconds, hz, seed=0):
    n = round(seconds * RATE)
    rng = np.random.default_rng(seed)
    gate = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * np.arange(n) / RATE)
    return (0.2 * gate * np.sin(2 * np.pi * hz * np.arange(n) / RATE) + 0.005 * rng.standard_normal(n)).astype(
        np.float32
    )


def write_set(root, name, rows):
    """Write a set as the data folder has them; rows are (id, seconds, hz, fields)."""
    folder = root / name
    (folder / "audio").mkdir(parents=True)
    lines = []
    for number, (key, seconds, hz, fields) in enumerate(rows):
        soundfile.write(folder / "audio" / f"{key}.wav", tone(seconds, hz, number), RATE)
        row = {"id": key, "path": f"audio/{key}.wav", "split": "dev", "duration": seconds, "use": "train"}
        row |= {"text": None, "label": None, "language": None, "speaker": None, "caption": None, **fields}
        lines.append(json.dumps(row))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")


class FakeSubject:
    """Knows the text of a clip by its length in samples; speaks sentences as tones, keeps audio in a dictionary."""

    name = "fake"
    streams = (Stream("reasoning", REASONING_HOP, 8, 4), Stream("reconstruction", RECONSTRUCTION_HOP, 8, 8))

    def __init__(self, answers=None):
        self.answers = answers or {}
        self.calls = []
        self.kept = {}
        self.kinds = []  # what decoding was asked for

    def _of(self, clip):
        return self.answers.get(clip.shape[-1], "")

    def transcribe(self, clips, *, language, seed):
        self.calls.append(("transcribe", len(clips), language, seed))
        return [self._of(clip) for clip in clips]

    def caption(self, clips, *, seed):
        return [self._of(clip) for clip in clips]

    def speak(self, text, *, language, voice, seed):
        length = round(1.3 * RATE) + 10 * len(text) + seed
        self.answers[length] = text
        return torch.from_numpy(tone(length / RATE, 200))[None][:, :length]

    def generate_sound(self, text, *, seed):
        return torch.from_numpy(tone(2.0, 300, seed))[None]

    def encode(self, clips):
        out = []
        for clip in clips:
            n = clip.shape[-1]
            codes = AudioCodes(
                torch.zeros(1, 8, reasoning_length(n), dtype=torch.long),
                torch.arange(reconstruction_length(n)).repeat(1, 8, 1) % 8,
                n,
            )
            self.kept[n] = clip
            out.append(codes)
        return out

    def decode(self, codes, *, seed, kind="speech"):
        self.kinds.append(kind)
        return self.kept[codes.num_samples] * 0.5

    def decode_in(self, steps, codes, *, seed, kind="speech"):
        noise = torch.randn(self.kept[codes.num_samples].shape, generator=torch.Generator().manual_seed(steps))
        return self.decode(codes, seed=seed, kind=kind) + 0.1 / steps * noise

    def autoencode(self, clip):
        return clip

    def read_reasoning(self, codes):
        return self.answers.get(codes.num_samples, "")


@pytest.fixture
def data_root(tmp_path):
    """A data folder with a few clips of every set, each clip of its own length."""
    root = tmp_path / "data"
    root.mkdir()
    digits = [(f"d{i}", 0.5 + 0.01 * i, 150 + 10 * i,
               {"text": text, "language": "en", "speaker": f"s{i % 2}", "label": i})
              for i, text in enumerate(("zero", "one", "two", "three"))]  # fmt: skip
    write_set(root, "fsdd", digits)
    words = [(f"k{i}", 1.0 + 0.01 * i, 200, {"text": text, "language": "en", "label": text})
             for i, text in enumerate(("alexa", "smart mirror"))]  # fmt: skip
    write_set(root, "keywords", words)
    read = [("lj1", 2.0, 180, {"text": "Hello, there world.", "language": "en", "speaker": "lj"}),
            ("x1", 2.1, 120, {"text": "one two three four", "language": "en", "speaker": "other"}),
            ("x2", 2.2, 120, {"text": None, "language": "en", "speaker": "other"})]  # fmt: skip
    write_set(root, "read_english", read)
    sounds = []
    for index, label in enumerate(CLASSES):
        for split, copies in (("train", 4), ("dev", 2)):
            for copy in range(copies):
                seconds = 1.5 + 0.1 * index + 0.01 * copy + (0.05 if split == "dev" else 0)
                fields = {"label": label, "caption": label.replace("_", " "), "split": split}
                sounds.append((f"{label}-{split}-{copy}", seconds, (300, 1500, 5000)[index] + 20 * copy, fields))
    write_set(root, "esc10", sounds)
    write_set(root, "librosa_clips", [("m1", 1.6, 440, {"label": "jazz", "caption": "jazz"})])
    write_set(root, "sonic_pi", [("m2", 0.3, 440, {"label": "bd", "caption": "a bass drum"})])
    (root / "text").mkdir()
    nouns = ("river", "window", "garden", "teacher", "doctor", "market", "village", "picture", "bottle", "mountain")
    colours = ("red", "blue", "green", "white", "black", "brown")
    lines = [f"The {a} was near the {c} {b} again today." for a in nouns for b in nouns for c in colours if a != b]
    (root / "text" / "en_common_voice.txt").write_text("\n".join(lines) + "\n")
    signs = "\u4eca\u5929\u6c14\u5f88\u597d\u4f60\u6211\u7684\u670b\u53cb\u5c71\u6c34\u706b"
    chinese = "".join(f"{a}{b}{c}\n" for a in signs for b in signs[:4] for c in signs[4:8])
    for name in ("cmn_hans_common_voice.txt", "yue_common_voice.txt"):
        (root / "text" / name).write_text(chinese, encoding="utf-8")
    return root


@pytest.fixture
def add_set(data_root):
    """A function that adds a set to the data folder; see `write_set`."""
    return lambda name, rows: write_set(data_root, name, rows)


@pytest.fixture
def corpus(tmp_path):
    """A synthetic corpus's dev split: two engines, three voices, whole sentences."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    sentences = ("the river was near the old window again today", "the garden was near the old market again today",
                 "the doctor was near the old village again today")  # fmt: skip
    voices = (("flite", "flite-awb", 200), ("espeak-ng", "espeak-ng-a", 130), ("espeak-ng", "espeak-ng-b", 300))
    for number in range(12):
        engine, speaker, hz = voices[number % 3]
        seconds = 1.7 + 0.01 * number
        soundfile.write(folder / f"{number}.wav", tone(seconds, hz, number), RATE)
        rows.append({"id": f"u{number}", "path": f"{number}.wav", "duration": seconds, "split": "dev", "kind": "speech",
                     "text": sentences[number % 3], "language": "en", "speaker": speaker, "engine": engine,
                     "source": "synth_unseen_voice"})  # fmt: skip
    rows.append({**rows[0], "id": "seen", "source": "synth_seen_voice"})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture
def fake():
    return FakeSubject
