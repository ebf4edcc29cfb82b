"""The tasks: one table of rows, with how examples become each trained one, how long it gets, how it is scored."""

from uniaudio2.tasks.lookup import get_form, get_task, held_out_groups, trained_forms
from uniaudio2.tasks.row import Form, LengthRule, Part, PartKind, Task, audio_parts, required
from uniaudio2.tasks.table import TASKS
from uniaudio2.tasks.training import KINDS, Audio, HeldOut, Label, Score, Sentence, Source, Text, Training, Voice

__all__ = [
    "KINDS",
    "TASKS",
    "Audio",
    "Form",
    "HeldOut",
    "Label",
    "LengthRule",
    "Part",
    "PartKind",
    "Score",
    "Sentence",
    "Source",
    "Task",
    "Text",
    "Training",
    "Voice",
    "audio_parts",
    "get_form",
    "get_task",
    "held_out_groups",
    "required",
    "trained_forms",
]
