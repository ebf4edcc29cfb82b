"""What a stage of the language model starts from: weights of earlier runs, their phone heads, a codec's codebooks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from uniaudio2.checkpoint import DEFAULT_FOLDER, load_lm
from uniaudio2.codec.contract import Codec
from uniaudio2.lm import AudioLM
from uniaudio2.train.auxiliary import PhoneHeads
from uniaudio2.train.config import TrainingError
from uniaudio2.train.state import mean_state

AUXILIARY_FILE = "auxiliary.safetensors"
PHONES_FILE = "phones.json"


class LMModel(nn.Module):
    """What a stage checkpoints: the language model and the heads that teach it."""

    def __init__(self, lm: AudioLM, heads: PhoneHeads | None) -> None:
        super().__init__()
        self.lm = lm
        self.heads = heads


def folders_of(names: str) -> list[Path]:
    """The folders named in one string, with commas; ``nano`` is the shipped model."""
    folders = [Path(name.strip()) for name in names.split(",")]
    return [DEFAULT_FOLDER if str(path) == DEFAULT_FOLDER.name and not path.exists() else path for path in folders]


def load_stage_weights(model: LMModel, folders: Sequence[Path]) -> None:
    """Start from an earlier stage's export, or from the mean of several runs of it (see `mean_state`).

    The phone heads are taken too if they are there and fit.

    Raises:
        TrainingError: If a folder is missing, a model does not fit, or the runs' phones differ.
    """
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(f"init_from: {folder}: no such folder; give the export/ of an earlier stage's run")
    if any(load_phones(folder) != load_phones(folders[0]) for folder in folders):
        raise TrainingError("runs with different phones have no mean: give runs of one stage on the same clips")
    states = []
    for folder in folders:
        _load_run(model, folder)
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(mean_state(states))


def _load_run(model: LMModel, folder: Path) -> None:
    state = load_lm(folder).state_dict()
    try:
        model.lm.load_state_dict(state, strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise TrainingError(f"{folder} does not fit the lm preset of this stage: {detail}") from None
    path = folder / AUXILIARY_FILE
    if model.heads is not None and path.is_file() and load_phones(folder):
        saved = load_file(path)
        if all(name in saved and saved[name].shape == p.shape for name, p in model.heads.state_dict().items()):
            model.heads.load_state_dict(saved)


def load_phones(folder: str | Path | None) -> list[str]:
    """The phones that an earlier stage's auxiliary head stands for; empty when there is none."""
    if folder is None:
        return []
    path = Path(folder) / PHONES_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


@torch.no_grad()
def start_from_codebooks(lm: AudioLM, codec: Codec) -> None:
    """Set the embedding of every code to the codec's own vector for it.

    The sum over the streams of a frame is then the codec's quantised vector, up to its bias and a common factor that
    gives it a root mean square of one. Choice: a model that learns embeddings from nothing has to find out that
    thousands of codes are near each other; the codec knows.

    Args:
        lm: Its special ids keep their embeddings.
        codec: Whose codes the language model reads.

    Raises:
        TrainingError: If the codec's vectors or codebooks do not fit the language model.
    """
    audio, weight = lm.config.audio, lm.audio_embedding.weight
    table = weight.view(audio.num_codebooks, audio.size, -1)
    for stream, first in (audio.stream(stream.name) for stream in audio.streams):
        vectors = codec.codebook_vectors(stream.name)
        wanted = (audio.num_codebooks, stream.codebook_size, weight.shape[1])
        if vectors.shape != wanted:
            raise TrainingError(
                f"embeddings_from: the codec has vectors {tuple(vectors.shape)}, the language model needs {wanted}; "
                "leave embeddings_from out"
            )
        spread = vectors.var(1).sum(0).mean().sqrt()  # of a sum over the streams, codes taken as independent
        table[:, first : first + vectors.shape[1]] = (vectors - vectors.mean(1, keepdim=True)) / spread
