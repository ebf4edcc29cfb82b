"""The task table: for every task its parts in order, which of them are predicted, and prompts. Data only.

One row added here is one task added: sequences, training, generation and the command line read this table.
``docs/tasks.md`` shows all rows, and how to add one. Source: ARCHITECTURE section 2 for the published rows; prompts are
our own wordings.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from uniaudio2.errors import UserError

PartKind = Literal["text", "reasoning", "reconstruction", "voice"]


@dataclass(frozen=True)
class Part:
    """One part of a sequence."""

    kind: PartKind  # voice: reconstruction codes of a short recording, between the voice prompt's begin and end
    value: str  # name of the value that fills it, such as "transcription" or "audio"
    tag: str | None = None  # text only: written between <tag> and </tag>
    optional: bool = False  # may be left out


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Raises:
        ValueError: If the row describes no task: nothing is predicted, or text and audio are predicted together, or an
            output is optional or a voice prompt, or only one of the two prompt styles is given.
    """

    name: str
    short: str  # the prompt in the "short" style, followed by the language where one is known
    prompts: tuple[str, ...]  # paraphrases for the "full" style; empty: the task has no prompt
    inputs: tuple[Part, ...]
    outputs: tuple[Part, ...]
    guidance: bool = False  # has a guidance form (condition replaced by padding) in training and generation
    language: str | None = None  # the task is about this language
    kind: Literal["speech", "sound"] = "speech"  # of the audio that is made; "sound" is sounds and music, no voices

    def __post_init__(self) -> None:
        if not self.outputs:
            raise UserError(f"task '{self.name}' predicts nothing: give it outputs")
        if len({part.kind == "text" for part in self.outputs}) != 1:
            raise UserError(f"task '{self.name}' predicts text and audio together: make it two tasks")
        if any(part.optional or part.kind == "voice" for part in self.outputs):
            raise UserError(f"task '{self.name}': an output can be neither optional nor a voice prompt")
        if bool(self.short) != bool(self.prompts):
            raise UserError(f"task '{self.name}' needs a short prompt and paraphrases, or neither of them")

    @property
    def makes_audio(self) -> bool:
        """Whether audio is predicted."""
        return any(part.kind != "text" for part in self.outputs)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of all values in order, each once."""
        return tuple(dict.fromkeys(part.value for part in (*self.inputs, *self.outputs)))

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """Names of the values that must be given to generate."""
        return required(self.inputs)


def required(parts: Iterable[Part]) -> tuple[str, ...]:
    """Names of the values that these parts cannot do without."""
    return tuple(dict.fromkeys(part.value for part in parts if not part.optional))


def audio_parts(value: str) -> tuple[Part, Part]:
    """Both streams of a recording, reasoning first."""
    return Part("reasoning", value), Part("reconstruction", value)


def _text(value: str, tag: str | None = None) -> Part:
    return Part("text", value, tag)


_AUDIO = audio_parts("audio")
_TRANSCRIPTION = _text("transcription", "transcription")
_CAPTION = _text("caption", "caption")
_LYRIC = _text("lyric", "lyric")
_VOICE = Part("voice", "voice")
_OPTIONAL_VOICE = Part("voice", "voice", optional=True)

_LISTEN = (
    "Write down what is said in this recording.",
    "Turn the speech you hear into text.",
    "Please transcribe this audio.",
    "What are the spoken words in the clip?",
)
_SPEAK = (
    "Read this text aloud.",
    "Turn the following words into speech.",
    "Please say this sentence.",
    "Speak the text below.",
)

_TASKS = (
    Task("asr", "asr", _LISTEN, _AUDIO, (_TRANSCRIPTION,)),
    Task(
        "yue_asr",
        "asr",
        (
            "Write down the Cantonese speech in this recording.",
            "Transcribe what is said in Cantonese.",
            "Turn this Cantonese speech into characters.",
        ),
        _AUDIO,
        (_TRANSCRIPTION,),
        language="yue",
    ),
    Task(
        "d_asr",
        "dysarthric asr",
        (
            "Write down what this speaker with dysarthria says.",
            "Transcribe this impaired speech.",
            "The speaker finds it hard to articulate; turn the words into text.",
        ),
        _AUDIO,
        (_TRANSCRIPTION,),
    ),
    Task(
        "lyric_recognition",
        "lyrics",
        ("Write down the words of this song.", "What lyrics are sung here?", "Transcribe the singing."),
        _AUDIO,
        (_LYRIC,),
    ),
    Task(
        "audio_caption",
        "caption",
        (
            "Describe the sound in this recording.",
            "What can be heard here?",
            "Give a short caption of this audio.",
            "Say in one sentence what makes this sound.",
        ),
        _AUDIO,
        (_CAPTION,),
    ),
    Task(
        "music_caption",
        "music caption",
        ("Describe this piece of music.", "What kind of music is this?", "Give a caption of the music."),
        _AUDIO,
        (_CAPTION,),
    ),
    Task(
        "audio_understanding",
        "answer",
        (
            "Listen to the audio and answer the question.",
            "Answer the question about this recording.",
            "Use what you hear to reply to the question.",
        ),
        (_text("question"), *_AUDIO),
        (_text("answer"),),
    ),
    Task(
        "speech_s2t",
        "reply text",
        (
            "Listen to the speaker and reply in text.",
            "Answer the spoken request in writing.",
            "Write a reply to what is said.",
        ),
        _AUDIO,
        (_text("answer"),),
    ),
    Task(
        "speech_s2s",
        "reply speech",
        ("Listen to the speaker and reply aloud.", "Answer the spoken request in speech.", "Speak a reply."),
        audio_parts("source"),
        audio_parts("target"),
    ),
    Task("tts", "tts", _SPEAK, (_OPTIONAL_VOICE, _TRANSCRIPTION), _AUDIO, guidance=True),
    Task(
        "yue_tts",
        "tts",
        ("Read this text aloud in Cantonese.", "Say the following in Cantonese.", "Turn this into Cantonese speech."),
        (_OPTIONAL_VOICE, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
        language="yue",
    ),
    Task(
        "instruct_tts",
        "styled tts",
        (
            "Read the text in the style that is described.",
            "Speak the words as the description asks.",
            "Use the described voice for this text.",
        ),
        (_CAPTION, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
    ),
    Task(
        "prompt_instruct_tts",
        "styled voice tts",
        (
            "Read the text with the voice you hear, in the style that is described.",
            "Keep this voice and speak as the description asks.",
            "Say the words in the given voice and style.",
        ),
        (_VOICE, _CAPTION, _TRANSCRIPTION),
        _AUDIO,
    ),
    Task(
        "tta",
        "sound",
        (
            "Make the sound that is described.",
            "Create audio for this description.",
            "Produce the following sound.",
            "Let me hear what the text describes.",
        ),
        (_CAPTION,),
        _AUDIO,
        guidance=True,
        kind="sound",
    ),
    Task(
        "ttm",
        "music",
        ("Play music as described.", "Create a piece of music for this description.", "Compose what the text asks."),
        (_CAPTION,),
        _AUDIO,
        guidance=True,
        kind="sound",
    ),
    Task(
        "lts",
        "song",
        ("Sing these lyrics.", "Make a song from the words below.", "Turn the lyrics into a song."),
        (_LYRIC,),
        _AUDIO,
        guidance=True,
    ),
    Task(
        "speech_edit",
        "edit",
        (
            "Change the recording as the text asks.",
            "Edit this speech by the instruction.",
            "Apply the requested change to the audio.",
        ),
        (_text("instruction"), *audio_parts("source")),
        audio_parts("target"),
    ),
    Task(
        "speech_denoise",
        "denoise",
        ("Remove the noise from this recording.", "Clean up the speech.", "Keep the voice and drop the noise."),
        audio_parts("source"),
        audio_parts("target"),
    ),
    Task(
        "speech_ss",
        "separate speech",
        (
            "Separate the two speakers.",
            "Split this mixture into its voices.",
            "Give each speaker a recording of their own.",
        ),
        audio_parts("mixture"),
        (*audio_parts("first"), *audio_parts("second")),
    ),
    Task(
        "music_ss",
        "separate music",
        (
            "Separate the music into two parts.",
            "Split the voice from the accompaniment.",
            "Take this music apart.",
        ),
        audio_parts("mixture"),
        (*audio_parts("first"), *audio_parts("second")),
        kind="sound",
    ),
    Task(
        "reason_to_semantic",
        "details",
        ("Fill in the sound for these reasoning codes.", "Add the details.", "Continue from meaning to sound."),
        (Part("reasoning", "audio"),),
        (Part("reconstruction", "audio"),),
    ),
    Task(
        "semantic_to_reason",
        "meaning",
        ("Give the reasoning codes of this sound.", "Sum up the sound.", "Continue from sound to meaning."),
        (Part("reconstruction", "audio"),),
        (Part("reasoning", "audio"),),
    ),
    Task(
        "semantic_copy",
        "copy sound",
        ("Repeat the sound codes.", "Copy this recording.", "Say the same again."),
        _AUDIO,
        (Part("reconstruction", "copy"),),
    ),
    Task(
        "reason_copy",
        "copy meaning",
        ("Repeat the reasoning codes.", "Copy the meaning.", "Give the same reasoning again."),
        _AUDIO,
        (Part("reasoning", "copy"),),
    ),
    Task("audio_only", "", (), (), _AUDIO),
    Task("text_only", "", (), (), (_text("text"),)),
    # The two rows below are named in the paper without a published format; these formats are ours.
    Task(
        "prompted_song",
        "song",
        ("Sing these lyrics with the voice you hear.", "Keep this voice and sing the words.", "Use this singer."),
        (_VOICE, _LYRIC),
        _AUDIO,
        guidance=True,
    ),
    Task(
        "speech_with_sound",
        "scene",
        (
            "Read the text with the described sound in the background.",
            "Make a scene: the sound that is named and the words that are said.",
            "Speak the words while the sound is heard.",
        ),
        (_CAPTION, _TRANSCRIPTION),
        _AUDIO,
        guidance=True,
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def get_task(name: str | Task) -> Task:
    """The row of a task; names are matched without regard to case.

    Raises:
        ValueError: If there is no such task; the message names the nearest and all others.
    """
    if isinstance(name, Task):
        return name
    task = TASKS.get(name.lower().replace("-", "_"))
    if task is None:
        near = difflib.get_close_matches(name.lower(), TASKS, n=1)
        hint = f"did you mean '{near[0]}'? Known" if near else "known"
        raise UserError(f"unknown task '{name}'; {hint} tasks: {', '.join(TASKS)}")
    return task
