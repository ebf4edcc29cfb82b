"""What a model folder says about the model: how it generates best, and what it was trained for.

The sections ``generation`` and ``trained_tasks`` of its ``config.yaml``; general code holds no number that is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from uniaudio2.checks import check_number
from uniaudio2.config import load_config
from uniaudio2.engine import SamplingConfig
from uniaudio2.errors import UserError
from uniaudio2.storage.folder import CONFIG_FILE, ModelFolder
from uniaudio2.tasks import Task

MOST_BEAMS, MOST_SHIFTS, MOST_ATTEMPTS = 64, 16, 64


@dataclass(frozen=True)
class Drawing:
    """How one kind of output is drawn unless the user says otherwise."""

    temperature: float = 1.0  # 0: the likeliest id
    top_k: int | None = None
    top_p: float = 1.0
    guidance: float = 1.0  # 1: off

    def __post_init__(self) -> None:
        check_number("guidance", self.guidance, 1.0, 100.0)
        _ = self.sampling

    @property
    def sampling(self) -> SamplingConfig:
        """The same as the engine takes it."""
        return SamplingConfig(self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True)
class GenerationConfig:
    """How a model is made to generate: the section ``generation`` of its folder.

    Choice of the defaults: words are what the model thinks likeliest; sound is drawn, because the likeliest codes are
    dull and loop. What is searched for or tried several times costs time, so it is once unless the folder says more.

    Raises:
        ValueError: If a value is out of range.
    """

    text: Drawing = Drawing(temperature=0.0)
    speech: Drawing = Drawing(temperature=0.8, top_k=50, guidance=1.5)
    sound: Drawing = Drawing(temperature=0.8, top_k=50, guidance=1.5)
    beams: int = 1  # hypotheses of a transcript that are followed at once
    shifts: int = 1  # shifted encodings of a recording that its transcript must suit (test-time augmentation)
    speech_attempts: int = 1  # at a sentence, of which the one is kept that the model itself hears best
    normalise_text: bool = False  # texts are read out in words first, as those of training were
    max_chunk_s: float = 10.0  # longer recordings are divided at pauses
    silence_dbfs: float = -65.0  # what is quieter has nothing to describe
    # Least probability of speech (32 ms) of what is transcribed; null: everything is, whether anybody speaks or not.
    voice_threshold: float | None = None
    # A transcript to whose absence the model gives more than this is dropped; null: none is.
    no_speech_threshold: float | None = None
    silence_caption: str = "silence"
    speech_caption: str | None = None  # of a piece that is mostly speech; null: the model finds its own words
    voice_prompt_s: float = 3.0  # seconds of a voice prompt that are used
    text_tokens_per_s: float = 10.0  # most text for a second of audio
    text_tokens_more: int = 12  # and so many more
    max_text_tokens: int = 512  # of a text that no audio limits
    max_sentence_s: float = 7.0  # longer sentences are spoken in parts
    speech_time: tuple[float, float] = (0.4, 2.2)  # least and most of the usual speaking time
    speech_more_s: float = 1.0  # and so much more
    speech_gain_db: float = 0.0  # speech is made louder by this than what was learned from; peaks are rounded off
    sound_time_s: tuple[float, float] = (0.8, 10.0)  # shortest and longest sound of free length
    # Beginnings of the words that name the sounds it learned; one that has none brings a warning; null: any.
    sounds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_number("beams", self.beams, 1, MOST_BEAMS, whole=True)
        check_number("shifts", self.shifts, 1, MOST_SHIFTS, whole=True)
        check_number("speech_attempts", self.speech_attempts, 1, MOST_ATTEMPTS, whole=True)
        check_number("max_chunk_s", self.max_chunk_s, 0.4)
        check_number("silence_dbfs", self.silence_dbfs, -200.0, 0.0)
        for name in ("voice_threshold", "no_speech_threshold"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, 0.0, 1.0)
        for name in ("voice_prompt_s", "text_tokens_per_s", "max_sentence_s"):
            check_number(name, getattr(self, name), 0.0, above=True)
        for name in ("text_tokens_more", "max_text_tokens"):
            check_number(name, getattr(self, name), 1, whole=True)
        check_number("speech_more_s", self.speech_more_s, 0.0)
        check_number("speech_gain_db", self.speech_gain_db, -40.0, 40.0)
        for name in ("speech_time", "sound_time_s"):
            least, most = getattr(self, name)
            check_number(f"{name}: the least", least, 0.0)
            check_number(f"{name}: the most", most, least, above=True)


@dataclass(frozen=True)
class Score:
    """What a model reached in a task it was trained for."""

    metric: str  # such as "WER"
    value: float
    set: str  # the data
    unit: str = "%"

    def __str__(self) -> str:
        return f"{self.metric} {self.value:g} {self.unit} ({self.set})"


@dataclass(frozen=True)
class ModelFacts:
    """The sections of a model folder that say how to use it."""

    generation: GenerationConfig = GenerationConfig()
    trained_tasks: dict[str, tuple[Score, ...]] | None = None  # scores by row of the task table; None: not known
    name: str = field(default="model", kw_only=True)

    @classmethod
    def of(cls, folder: ModelFolder) -> ModelFacts:
        """What a folder's config says.

        Raises:
            ConfigError: If a section holds what it may not.
        """
        sections = {key: folder.config[key] for key in ("generation", "trained_tasks") if folder.has(key)}
        name = folder.path.resolve().name
        return load_config(cls, {**sections, "name": name}, name=str(folder.path / CONFIG_FILE))

    def sections(self) -> dict[str, Any]:
        """The sections as they are written."""
        known = {} if self.trained_tasks is None else {"trained_tasks": self.trained_tasks}
        return {"generation": self.generation, **known}

    def check_trained(self, task: str | Task) -> None:
        """Refuse a row of the task table that the model was not trained for; a folder that says nothing allows all.

        Raises:
            ValueError: One line that names what was trained.
        """
        name = task if isinstance(task, str) else task.name
        if self.trained_tasks is not None and name not in self.trained_tasks:
            raise UserError(
                f"model {self.name!r} was not trained for task {name!r}, only for {', '.join(self.trained_tasks)}; "
                "--untrained (in Python untrained=True, over HTTP untrained=true) runs it all the same"
            )
