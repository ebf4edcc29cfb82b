"""MiMo-Audio as a program: run in its own environment, inside a checkout of its repository.

python mimo_audio.py CHECKOUT MODEL TOKENIZER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

CAPTION = "Describe this audio in one sentence."


def load() -> tuple[dict[str, Any], dict[str, Any]]:
    """The model by its repository's own class, and its tasks."""
    checkout, model_folder, tokenizer_folder = sys.argv[1:4]
    sys.path.insert(0, checkout)
    from src.mimo_audio.mimo_audio import MimoAudio  # pyright: ignore[reportMissingImports]

    model = MimoAudio(model_folder, tokenizer_folder)

    def speak(request: dict[str, Any]) -> dict[str, Any]:
        """The text read aloud, in the voice of a file where one is given."""
        voice = {"prompt_speech": request["voice"]} if "voice" in request else {}
        model.tts_sft(request["text"], request["output"], **voice)
        return {"audio": request["output"]}

    return {"version": Path(model_folder).name, "sample_rate": 24000}, {
        "asr": lambda request: {"text": model.asr_sft(request["audio"])},
        "tts": speak,
        "caption": lambda request: {"text": model.audio_understanding_sft(request["audio"], CAPTION)},
        "answer": lambda request: {"text": model.audio_understanding_sft(request["audio"], request["question"])},
    }


def main() -> None:
    """Answer requests."""
    from json_lines import serve  # pyright: ignore[reportMissingImports]  # it lies beside this file

    serve(load)


if __name__ == "__main__":
    main()
