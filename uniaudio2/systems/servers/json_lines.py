"""The other side of `uniaudio2.systems.process`: requests as JSON lines in, answers out. Needs Python alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(load: Callable[[], tuple[dict[str, Any], dict[str, Callable[[dict[str, Any]], dict[str, Any]]]]]) -> None:
    """Load a model and answer requests until standard input ends.

    Args:
        load: Gives facts (``version``, ``sample_rate``) and, by task, functions from a request to an answer.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    sys.stdout = sys.stderr

    def answer(line: dict[str, Any]) -> None:
        """Print one line."""
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    try:
        facts, tasks = load()
    except Exception as error:
        answer({"ready": False, "error": f"{type(error).__name__}: {error}"})
        return
    answer({"ready": True, **facts})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["task"] not in tasks:
                raise NotImplementedError(f"there is no task {request['task']}, only {', '.join(tasks)}")
            answer({"id": request["id"], **tasks[request["task"]](request)})
        except Exception as error:
            answer({"id": request["id"], "error": f"{type(error).__name__}: {error}"})
