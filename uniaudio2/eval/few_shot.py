"""Few-shot classification: two classes, one or two examples of each, and a recording that belongs to one of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from uniaudio2.data.episodes import Episodes, Labelled, class_name
from uniaudio2.eval.context import Context, EvaluationError
from uniaudio2.eval.held_out import RunsRows
from uniaudio2.eval.report import Figure
from uniaudio2.eval.text_metrics import accuracy, simple
from uniaudio2.tasks import get_task

Result = tuple[list[Figure], list[dict[str, Any]]]

EPISODES = 200
"""Scored for each number of examples, as many as the reference asks."""


def classify(context: Context, data: str) -> Result:
    """Episodes from the held-out recordings of a labelled manifest or set: the answer must be the class's name."""
    clips = context.set_or_manifest(data)
    labelled = [
        Labelled.of(each.id, each.label, each.source, each.duration, recorded=each.engine is None)
        for each in (clip.example for clip in clips)
    ]
    episodes = Episodes(labelled)
    asked = [index for index in range(len(clips)) if episodes.has(index)]
    if not asked:
        raise EvaluationError(f"{data}: few-shot classification needs two classes with two recordings each")
    model = getattr(context.subject, "model", context.subject)
    if not isinstance(model, RunsRows):
        raise EvaluationError(f"model {context.subject.name!r} cannot run rows of the task table")
    if (facts := getattr(model, "facts", None)) is not None and not context.untrained:
        facts.check_trained(get_task("classify"))
    figures: list[Figure] = []
    items: list[dict[str, Any]] = []
    for shots in (1, 2):
        rng = np.random.default_rng((context.seed, shots))
        chosen = rng.choice(asked, min(EPISODES, context.limit or EPISODES))
        own: list[dict[str, Any]] = []
        for index in context.track([int(i) for i in chosen], f"classify, {shots} of each class"):
            episode = episodes.draw(index, rng, examples=shots)
            examples = [({"audio": clips[i].load()}, {"label": name}) for i, name in episode.examples]
            made = model.run("classify", {"audio": clips[index].load()}, shots=examples, untrained=context.untrained)
            found, names = str(made["label"]), sorted({name for _, name in episode.examples})
            own.append({
                "id": clips[index].example.id, "examples of each": shots, "classes": names,
                "wanted": episode.answer, "found": found, "right": simple(found) == simple(episode.answer),
                "one of the two": simple(found) in map(simple, names), "last example": episode.examples[-1][1],
            })  # fmt: skip
        group = f"{shots} of each class"
        target = ">= 75 %" if shots == 1 else ">= 80 %"
        figures += [
            Figure.of("class right (chance 50 %)", accuracy([row["right"] for row in own]), unit="%", group=group,
                      target=target),
            Figure.of("answer is one of the two classes", accuracy([row["one of the two"] for row in own]), unit="%",
                      group=group),
            Figure.of("answer is that of the last example",
                      accuracy([simple(row["found"]) == simple(row["last example"]) for row in own]), unit="%",
                      group=group),
        ]  # fmt: skip
        items += own
    names = sorted({class_name(str(labelled[index].label)) for index in asked})
    context.notes.append(f"{len(names)} classes: {', '.join(names)}.")
    return figures, items
