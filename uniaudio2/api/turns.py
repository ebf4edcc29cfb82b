"""Where the language changes in a recording: what is said between two pauses is in one language.

Shapes: ``N`` samples. A waveform is (1, N), mono, 24 kHz, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniaudio2.api.core import Core
from uniaudio2.tasks import Task
from uniaudio2.voice_activity import pauses

PAUSE_S = 0.2  # shortest silence at which speakers change language
STRETCH_S = 0.5  # less speech tells no language; it goes with what comes before
SURE = 0.8  # least probability of a script


def language_turns(core: Core, audio: Tensor, row: Task, threshold: float) -> list[tuple[int, int]]:
    """Stretches of a waveform (1, N) in which one script is spoken, first sample and one past the last; they cover it.

    The model is asked of every stretch between pauses how likely its transcript begins with a Chinese character, and
    how likely with a Latin letter. Choice: one forward pass over the prompt tells that, without a detector of its own;
    inside of a stretch the model writes what it hears. A waveform in one language stays whole, since a transcript
    gains from what is around it.

    Args:
        core: The model.
        audio: (1, N).
        row: Of recognition.
        threshold: Least probability of speech of a 32 ms frame.
    """
    cuts = [0, *pauses(audio, threshold, PAUSE_S, STRETCH_S), audio.shape[1]]
    stretches = list(pairwise(cuts))
    if len(stretches) == 1:
        return stretches
    chinese = chinese_probabilities(core, [audio[:, start:end] for start, end in stretches], row)
    turns: list[tuple[int, int]] = []
    script: bool | None = None
    for (start, end), probability in zip(stretches, chinese, strict=True):
        told = None if 1 - SURE < probability < SURE else probability > 0.5
        if turns and (told is None or script is None or told == script):
            turns[-1] = (turns[-1][0], end)
        else:
            turns.append((start, end))
        script = script if told is None else told
    return turns


@torch.inference_mode()
def chinese_probabilities(core: Core, waves: Sequence[Tensor], row: Task) -> list[float]:
    """How likely the transcript of each waveform (1, N) begins in Chinese, if not with a Latin letter."""
    lm, tokenizer = core.parts
    builder = core.sequences
    (name,) = {part.value for part in row.inputs}
    prompts = [builder.prompt(row, {name: codes}) for codes in core.encode_many(waves)]
    tokens, mask = (
        pad_sequence([getattr(prompt, each) for prompt in prompts], batch_first=True).to(lm.device)
        for each in ("tokens", "mask")
    )
    hidden, _, _ = lm.hidden_states(tokens, mask)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=lm.device)
    first = lm.text_head(hidden[torch.arange(len(prompts), device=lm.device), last]).float().softmax(-1)
    chinese, latin = (first[:, list(tokenizer.outside_script(language))].sum(-1) for language in ("en", "zh"))
    return (chinese / (chinese + latin).clamp(min=1e-9)).tolist()
