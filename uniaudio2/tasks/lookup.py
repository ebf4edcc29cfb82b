"""Rows of the task table and their forms by name."""

from __future__ import annotations

import difflib

from uniaudio2.errors import UserError
from uniaudio2.tasks.row import Form, Task
from uniaudio2.tasks.table import TASKS
from uniaudio2.tasks.training import HeldOut

_EARLIER_NAMES = {"tts_voice": "tts+voice"}
"""What forms were called in the configs of earlier runs."""


def get_task(name: str | Task) -> Task:
    """The row of a task; names are matched without regard to case.

    Raises:
        UserError: If there is no such task; the message names the nearest and all others.
    """
    if isinstance(name, Task):
        return name
    task = TASKS.get(name.lower().replace("-", "_"))
    if task is None:
        near = difflib.get_close_matches(name.lower(), TASKS, n=1)
        hint = f"did you mean '{near[0]}'? Known" if near else "known"
        raise UserError(f"unknown task '{name}'; {hint} tasks: {', '.join(TASKS)}")
    return task


def trained_forms() -> list[Form]:
    """Every row that can be trained, without its optional values and with each of them.

    Those with an input come first, speech before sounds, text before audio: draws of a seed depend on this order.
    """
    forms: list[tuple[tuple[bool, bool, bool], Form]] = []
    for task in TASKS.values():
        if task.training is not None:
            order = (not task.inputs, "speech" not in task.training.kinds, task.makes_audio)
            forms += [(order, Form(task, given)) for given in ((), *((name,) for name in task.optional_inputs))]
    return [form for _, form in sorted(forms, key=lambda each: each[0])]


def get_form(name: str) -> Form:
    """The form of that name, ``TASK`` or ``TASK+VALUE``, or its name in earlier configs.

    Raises:
        UserError: If there is none that can be trained; the message names all.
    """
    name = _EARLIER_NAMES.get(name, name)
    for form in trained_forms():
        if form.name == name:
            return form
    known = ", ".join(form.name for form in trained_forms())
    row = name.split("+")[0]
    what = (
        f"task {row!r} has no training in the task table" if row == name and row in TASKS else f"unknown task {name!r}"
    )
    raise UserError(f"{what}; those that can be trained: {known}")


def held_out_groups(form: Form) -> tuple[HeldOut, ...]:
    """The groups of held-out examples that a form is scored on; none for what has no input to be judged by."""
    if form.task.training is None or not form.inputs:
        return ()
    named = form.task.training.held_out
    return tuple(g for g in named if g.optional == form.optional) if named else (HeldOut(form.name, form.optional),)
