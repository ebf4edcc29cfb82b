"""What all codec stages share: their clips, held-out clips, frozen parts, and the export of one part of the codec.

Shapes: ``B`` batch, ``N`` samples.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.encoder import file_of
from uniaudio2.codec.experts import Expert
from uniaudio2.codec.loss import SpectralLoss
from uniaudio2.codes import SAMPLE_RATE, UNIT
from uniaudio2.data.corpus import Corpus
from uniaudio2.data.manifest import Example
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.storage.folder import DEFAULT_FOLDER
from uniaudio2.storage.load import is_scale, read_stored
from uniaudio2.tensors import open_tensors, save_tensors
from uniaudio2.train.codec.clips import ClipConfig, ClipSampler
from uniaudio2.train.config import TrainConfig, TrainingError
from uniaudio2.train.identity import fingerprint, flat_config

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CodecStageConfig:
    """What every codec stage has. Each stage has a config of its own, which adds ``stage`` and what only it knows."""

    train: TrainConfig
    clips: ClipConfig
    codec: str = "nano"  # preset under configs/codec, or the path of a YAML file
    parts: tuple[str, ...] = ()  # files that earlier stages exported


class CodecStage(ABC):
    """Clips that fit the stage, in training and held out, and the export of one part.

    Args:
        config: The stage.
        kinds: Kinds of clips that it learns from.
    """

    name = "codec"
    packages: tuple[str, ...] = ()  # further packages that training and evaluation import
    model: nn.ModuleDict

    def __init__(self, config: CodecStageConfig, kinds: Iterable[str] = ("speech", "sound", "music")) -> None:
        self.config, self.clips, self.kinds = config, config.clips, frozenset(kinds)
        self.train_corpus = Corpus(self.clips.corpus, "train")
        self.dev_corpus = Corpus(self.clips.corpus, "dev")
        chosen = [i for i, example in enumerate(self.train_corpus.examples) if self.fits(example)]
        self.sampler = ClipSampler(self.train_corpus, chosen, self.clips)

    def fits(self, example: Example) -> bool:
        """Whether the stage can learn from an example."""
        limit = 1e9 if self.clips.crop_s else self.clips.max_clip_s
        return (
            self.has_labels(example)
            and example.kind in self.kinds
            and (self.clips.min_clip_s <= example.duration <= limit)
        )

    def has_labels(self, example: Example) -> bool:
        """Whether an example has the labels that the loss needs."""
        return True

    @property
    def device(self) -> torch.device:
        """Where the stage is."""
        return next(self.model.parameters()).device

    def identity(self) -> dict[str, Any]:
        """What makes a run this run: its config, and a fingerprint of the clips."""
        return {**flat_config(self.config), "data": fingerprint(self.clips.corpus.split(","), ("manifest.jsonl",))}

    @abstractmethod
    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """See `Stage`."""

    @abstractmethod
    def evaluate(self, step: int) -> dict[str, float]:
        """See `Stage`."""

    @abstractmethod
    def export(self, out_dir: Path) -> None:
        """See `Stage`."""

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N)."""
        return {"audio": torch.from_numpy(self.sampler.draw(batch_rng(seed, step))[1])[:, None]}

    def parameters_to_train(self) -> Iterable[nn.Parameter]:
        """Every parameter of ``model``."""
        return self.model.parameters()

    def dev_waves(
        self, count: int, *, seed: int = 0, crop_s: float = 8.0, where: Callable[[Example], bool] | None = None
    ) -> list[tuple[Example, Tensor]]:
        """``count`` fixed dev clips, spread over sources, as (example, audio (1, 1, N)), N a multiple of 0.4 s."""
        groups: dict[str, list[int]] = {}
        for i, e in enumerate(self.dev_corpus.examples):
            if self.fits(e) and (where is None or where(e)):
                groups.setdefault(f"{e.source}/{e.engine}/{e.language}", []).append(i)
        rng = np.random.default_rng(seed)
        order = [list(rng.permutation(g)) for _, g in sorted(groups.items())]
        chosen = [g.pop() for _ in range(count) for g in order if g][:count]
        out = []
        for i in chosen:
            wave = self.dev_corpus.wave(int(i))[: int(crop_s * SAMPLE_RATE)]
            wave = np.pad(wave, (0, -len(wave) % UNIT))
            out.append((self.dev_corpus.examples[int(i)], torch.from_numpy(wave.copy())[None, None].to(self.device)))
        return out

    def export_part(self, out_dir: Path, module: nn.Module, prefix: str) -> None:
        """Write one part's tensors as ``out_dir/<stage>.safetensors`` under the codec's key names.

        A finished encoder inside of it is left out: its weights are a file of their own.
        """
        out_dir.mkdir(parents=True, exist_ok=True)
        state = module.state_dict()
        tensors = {f"{prefix}{name}": value for name, value in state.items() if file_of(module, name) is None}
        save_tensors(out_dir / f"{self.name}.safetensors", tensors)


def trainable_encoder(codec: ReasoningCodec, role: str) -> tuple[str, Expert]:
    """The encoder of a codec that gives a role, set free to learn.

    Returns:
        Its name in the codec, and the encoder.

    Raises:
        TrainingError: If none gives the role, or the one that does is not an expert that is trained here.
    """
    name, _ = codec.roles.get(role, ("", ""))
    if name not in codec.encoders:
        raise TrainingError(f"no encoder of the codec preset gives '{role}': nothing to train in this stage")
    encoder = codec.encoders[name]
    if not isinstance(encoder, Expert):
        raise TrainingError(f"encoder '{name}', which gives '{role}', is a finished one; choose another codec preset")
    encoder.unfreeze()
    return name, encoder


def phone_inventory(corpus: Corpus, min_count: int = 30, limit: int | None = None) -> list[str]:
    """The blank, then the ``limit`` most frequent phones of at least ``min_count`` uses, in alphabetical order."""
    counts = Counter(p for e in corpus.examples if e.phonemes for p in e.phonemes.split())
    return ["<blank>", *sorted(p for p, n in counts.most_common(limit) if n >= min_count)]


def known_phones(example: Example, ids: Mapping[str, int]) -> list[int]:
    """Ids of an example's phones; those that have none are left out."""
    return [ids[p] for p in (example.phonemes or "").split() if p in ids]


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
    """Rows of ids as one tensor (B, longest), int64, at least one column."""
    out = torch.full((len(rows), max(1, *map(len, rows))), fill)
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
    return out


def load_parts(codec: nn.Module, files: Iterable[str | Path]) -> set[str]:
    """Load exported parts into a codec.

    Args:
        codec: The module whose key names the files use.
        files: Safetensors files written by the stages.

    Returns:
        Names of the tensors that were loaded.

    Raises:
        TrainingError: If a file is missing, or holds a tensor that the codec has not or has in another shape.
    """
    own = dict(codec.state_dict())
    loaded: set[str] = set()
    for file in files:
        if not Path(file).is_file():
            raise TrainingError(f"{file} is not there: run the earlier stage that exports it first")
        stored = open_tensors(file)
        tensors = {name: read_stored(name, stored) for name in stored if not is_scale(name, stored)}
        for name, value in tensors.items():
            if name not in own or own[name].shape != value.shape:
                raise TrainingError(f"{file}: {name} {tuple(value.shape)} does not fit the codec preset")
        codec.load_state_dict({name: value.to(own[name].dtype) for name, value in tensors.items()}, strict=False)
        loaded |= tensors.keys()
    return loaded


def load_finished(codec: nn.Module, loaded: set[str]) -> set[str]:
    """Fill the finished encoders that no part holds with the package's own weights of them.

    Args:
        codec: With encoders whose weights are files of their own, or without.
        loaded: Names of the tensors that parts gave.

    Returns:
        Those names and the ones filled here.
    """
    missing = {name: file for name in codec.state_dict() if name not in loaded and (file := file_of(codec, name))}
    for file in set(missing.values()):
        path = DEFAULT_FOLDER / f"codec-{file}.safetensors"
        stored = open_tensors(path) if path.is_file() else {}
        own = {name: tuple(tensor.shape) for name, tensor in codec.state_dict().items() if missing.get(name) == file}
        if all(name in stored and stored[name].shape == shape for name, shape in own.items()):
            loaded = loaded | load_parts(codec, [path])
        else:
            _LOG.warning(
                "the encoder '%s' has random weights: its sizes are not the package's, name its file in parts", file
            )
    return loaded


def score_waves(items: Sequence[tuple[Example, Tensor, Tensor]], spectral: SpectralLoss) -> dict[str, float]:
    """Mean STOI of speech and spectral distance of all, by synthetic, real and sound."""
    from pystoi import stoi

    sums: dict[str, list[float]] = {}
    for example, clean, decoded in items:
        group = "sound" if example.kind != "speech" else ("real" if example.engine is None else "synthetic")
        sums.setdefault(f"spectral/{group}", []).append(float(spectral(decoded, clean)))
        if group != "sound" and clean.shape[-1] > SAMPLE_RATE * 0.7:
            sums.setdefault(f"stoi/{group}", []).append(
                float(stoi(clean[0, 0].cpu().numpy(), decoded[0, 0].cpu().numpy(), SAMPLE_RATE))
            )
    return {k: float(np.mean(v)) for k, v in sorted(sums.items())}
