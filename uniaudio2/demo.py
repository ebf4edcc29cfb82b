"""The demo: the shipped recordings through the shipped model, a table, and one page to hear and see it all.

Makes a folder with wav files, spectrogram pictures and a self-contained ``index.html``. No model code here.
"""

import json
import os
import re
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniaudio2.audio import SAMPLE_RATE, read_audio, write_audio
from uniaudio2.codec.mel import LogMel
from uniaudio2.demo_page import Clip, DemoItem, DemoReport, render_page
from uniaudio2.eval.text_metrics import classes_named
from uniaudio2.files import replacing, write_text

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from uniaudio2.api.model import UniAudio2

SPEAK = (
    ("speak_en", "en", "The train to the city leaves at half past seven."),
    ("speak_en_short", "en", "Good morning, how are you today?"),
    ("speak_zh", "zh", "今天天气很好，我们去公园吧。"),
    ("speak_yue", "yue", "我哋今日去邊度食飯呀？"),
)
SPEAK_WITH_VOICE = ("speak_voice", "en", "Good morning, how are you today?")
SOUNDS = (("make_dog", "a dog barking"), ("make_rain", "rain falling"), ("make_rooster", "a rooster crowing"))
ROUND_TRIP = ("keyword_computer", "voice_sonnet", "sound_dog")  # recordings that are encoded and decoded again


def demo_table(report: DemoReport) -> "Table":
    """What was expected and what came, as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"uniaudio2 demo, model {report.model_name}", title_justify="left", row_styles=["", "dim"])
    table.add_column("item", no_wrap=True)
    for name in ("expected", "got"):
        table.add_column(name, overflow="fold")
    for name in ("", "time s", "audio s", "rtf"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in report.items:
        mark = {True: Text("✓", "green"), False: Text("✗", "red"), None: Text("")}[item.right]
        figures = (f"{item.time_s:.2f}", f"{item.audio_s:.2f}", f"{item.real_time_factor:.2f}")
        table.add_row(item.name, Text(item.expected), Text(item.got), mark, *figures)
    return table


def load_recordings() -> dict[str, Any]:
    """The table of shipped recordings, with the absolute path of each under ``path``."""
    folder = resources.files("uniaudio2") / "demo_assets"
    table = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    for entry in [*table["transcribe"], *table["caption"], table["voice"]]:
        entry["path"] = str(folder / entry["file"])
    return table


def words_of(text: str) -> str:
    """Lower case, letters and digits only, to compare two texts."""
    return " ".join(re.sub(r"[^\w' ]+", " ", text.lower()).split())


_STOP_WORDS = frozenset(
    {"a", "an", "the", "is", "it", "of", "in", "on", "and", "or", "some", "sound", "someone", "something", "noise"}
)


def same_meaning(expected: str, got: str) -> bool:
    """Whether two captions name the same classes of sound, no more and no fewer.

    Where the expected caption names no class that is known, a telling word in common decides (``piano`` in "a piano").
    """

    def stems(text: str) -> set[str]:
        """Words without endings, and without those that tell nothing."""
        words = (word for word in words_of(text).split() if word not in _STOP_WORDS)
        return {re.sub(r"(ing|ling|s|es|ed)$", "", word) for word in words}

    classes = classes_named(expected)
    return classes == classes_named(got) if classes else bool(stems(expected) & stems(got))


def spectrogram_png(audio: "Tensor", path: Path) -> None:
    """Write the log-mel spectrogram of a waveform (1, N) as a PNG, low frequencies at the bottom."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import torch
    from matplotlib import image

    hop = 240
    padded = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % hop))
    mel = LogMel(80, hop_length=hop)(padded[None])[0].T  # (bands, frames)
    low, high = -1.7, 1.1  # quiet room to loud speech, the same for all pictures so that they compare
    shades = ((mel - low) / (high - low)).clamp(0, 1)
    tall = shades.flip(0).repeat_interleave(2, 0)
    width = max(1, round(480 / tall.shape[1]))
    with replacing(path) as file:
        image.imsave(file, tall.repeat_interleave(width, 1).numpy(), cmap="magma", vmin=0, vmax=1, format="png")


class _Demo:
    """One run: the model, the folder and what was made so far."""

    def __init__(
        self, model: "UniAudio2", folder: Path, sampling: dict[str, Any], progress: Callable[[str], None]
    ) -> None:
        self.model, self.folder, self.sampling, self.progress = model, folder, sampling, progress
        self.items: list[DemoItem] = []
        self.recordings = load_recordings()

    def clip(self, title: str, name: str, audio: "Tensor") -> Clip:
        """Write a waveform and its picture."""
        wav, picture = self.folder / f"{name}.wav", self.folder / f"{name}.png"
        write_audio(wav, audio)
        spectrogram_png(audio, picture)
        return Clip(title, wav, picture, audio.shape[-1] / SAMPLE_RATE)

    def add(self, item: DemoItem) -> None:
        """Take in a finished item of the page."""
        self.items.append(item)

    def describe(self, section: str, entry: dict[str, Any]) -> None:
        """A recording in, words out."""
        self.progress(f"{section}: {entry['name']}")
        audio = read_audio(entry["path"])
        began = time.perf_counter()
        if section == "transcribe":
            got = self.model.transcribe(audio, language="en", **self.sampling).text
            right = words_of(got) == words_of(entry["expected"])
        else:
            got = self.model.caption(audio, **self.sampling).text
            right = same_meaning(entry["expected"], got)
        elapsed = time.perf_counter() - began
        clip = self.clip("recording", entry["name"], audio)
        note = f"{entry['credit']}, {entry['licence']}"
        self.add(
            DemoItem(section, entry["name"], entry["expected"], got, right, elapsed, clip.duration_s, [clip], note)
        )

    def speak(self, name: str, language: str, text: str, voice: dict[str, Any] | None = None) -> None:
        """Words in, speech out; the written file is then transcribed."""
        self.progress(f"speak: {name}")
        prompt = read_audio(voice["path"]) if voice else None
        began = time.perf_counter()
        speech = self.model.speak(text, voice=prompt, language=language, **self.sampling)
        elapsed = time.perf_counter() - began
        clips = [self.clip("speech", name, speech.audio)]
        if voice is not None and prompt is not None:
            clips.insert(0, self.clip("voice prompt", voice["name"], prompt))
        heard = self.model.transcribe(read_audio(clips[-1].wav), language=language, **self.sampling).text
        right = words_of(heard).replace(" ", "") == words_of(text).replace(" ", "")
        note = f"prompt: {voice['credit']}, {voice['licence']}" if voice else ""
        section = "voice" if voice else "speak"
        self.add(DemoItem(section, name, text, heard, right, elapsed, speech.duration_s, clips, note))

    def make_sound(self, name: str, text: str) -> None:
        """A description in, a sound out; the written file is then described."""
        self.progress(f"generate sound: {name}")
        began = time.perf_counter()
        sound = self.model.generate_sound(text, **self.sampling)
        elapsed = time.perf_counter() - began
        clip = self.clip("sound", name, sound.audio)
        heard = self.model.caption(read_audio(clip.wav), **self.sampling).text
        self.add(DemoItem("sound", name, text, heard, same_meaning(text, heard), elapsed, sound.duration_s, [clip]))

    def round_trip(self, name: str, path: str) -> None:
        """A recording through the codec."""
        self.progress(f"encode and decode: {name}")
        audio = read_audio(path)
        began = time.perf_counter()
        codes = self.model.encode(audio)
        between = time.perf_counter()
        decoded = self.model.decode(codes, seed=self.sampling.get("seed", 0))
        ended = time.perf_counter()
        before = self.clip("recording", name, audio)
        after = self.clip("from its codes", f"{name}_decoded", decoded)
        numbers = sum(stream.numel() for stream in codes.streams.values())
        distance = float((_mel(audio) - _mel(decoded)).abs().mean())
        got = f"{decoded.shape[-1]} samples, {distance:.2f} log-mel distance"
        expected = f"{audio.shape[-1]} samples"
        note = f"{numbers} codes; encode {between - began:.2f} s, decode {ended - between:.2f} s"
        right = decoded.shape[-1] == audio.shape[-1]
        self.add(DemoItem("codec", name, expected, got, right, ended - began, before.duration_s, [before, after], note))

    def run(self) -> None:
        """Everything, in the order of the page."""
        for entry in self.recordings["transcribe"]:
            self.describe("transcribe", entry)
        for entry in self.recordings["caption"]:
            self.describe("caption", entry)
        for name, language, text in SPEAK:
            self.speak(name, language, text)
        self.speak(*SPEAK_WITH_VOICE, voice=self.recordings["voice"])
        for name, text in SOUNDS:
            self.make_sound(name, text)
        paths = {
            entry["name"]: entry["path"]
            for entry in [*self.recordings["transcribe"], *self.recordings["caption"], self.recordings["voice"]]
        }
        for name in ROUND_TRIP:
            self.round_trip(name, paths[name])


def _mel(audio: "Tensor") -> "Tensor":
    """Log10-mel frames (T, 80) for a distance."""
    import torch

    padded = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 240))
    # LogMel gives (ln(power) + 3) / 4; half of log10(power) is log10(magnitude), the scale of published distances.
    return (LogMel(80)(padded[None])[0] * 4 - 3) / 2.302585 / 2


def run_demo(
    load: Callable[[], "UniAudio2"],
    folder: Path,
    *,
    sampling: dict[str, Any] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> DemoReport:
    """Do everything once and write wav files, pictures and the page.

    Args:
        load: Makes the model; timed.
        folder: Where the files go; made if missing, files of an earlier run are replaced.
        sampling: Sampling arguments of the model's methods (``seed``, ``temperature``, …).
        progress: Called with a line before each step.

    Raises:
        OSError: If the folder cannot be written.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    progress("load the model")
    model = load()
    load_s = time.perf_counter() - began
    demo = _Demo(model, folder, sampling or {}, progress)
    demo.run()
    total_s = time.perf_counter() - began
    report = DemoReport(demo.items, folder / "index.html", load_s, total_s, model.name)
    write_text(report.page, render_page(report))
    return report
