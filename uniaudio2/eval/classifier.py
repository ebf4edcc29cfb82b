"""An independent judge of generated sounds: a small classifier trained on real clips only, and a near-copy detector.

The classifier shares nothing with the codec or its experts but the recordings of the train split. It is trained in a
minute on two cores and kept in the user's cache folder; its accuracy on real dev clips is reported beside every use.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.data.manifest import Example
from uniaudio2.errors import UserError
from uniaudio2.eval.audio_metrics import log_mel
from uniaudio2.files import replacing

logger = logging.getLogger(__name__)

FRAMES = 112
"""Frames (hop 1024: 4.8 s) that the classifier sees; shorter clips are repeated, longer ones cut."""

_VERSION = 4
_EPOCHS = 40
_MEMBERS = 1
_FLOOR = -4.0
_POOL = 4


class _Network(nn.Module):
    """Four convolution blocks over the log-mel picture, then mean and maximum over time."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for factor in (1, 2, 3, 4):
            blocks += [
                nn.Conv2d(channels, width * factor, 3, padding=1, bias=False),
                nn.BatchNorm2d(width * factor),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            channels = width * factor
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2 * channels, num_classes)
        self.dropout = nn.Dropout(0.3)

    def forward(self, picture: Tensor) -> Tensor:
        """Pictures (B, 80, FRAMES) to logits (B, classes)."""
        x = self.blocks(picture[:, None]).mean(2)
        return self.head(self.dropout(torch.cat([x.mean(-1), x.amax(-1)], 1)))


def picture(audio: Tensor) -> Tensor:
    """Log-mel picture (80, FRAMES) of a clip (1, N): the loudest frame at 0, silence at -4, four frames averaged.

    Choice: level is taken out, since generated and real clips differ in it; digital silence at the end of a clip, which
    ESC-10 pads with, is cut and the rest repeated, so that padding is no cue.
    """
    mel = log_mel(audio)
    frame_max = mel.max(axis=0)
    loud = np.flatnonzero(frame_max > max(frame_max.max() + _FLOOR, -4.9))
    mel = mel[:, loud[0] : loud[-1] + 1] if loud.size else mel
    mel = np.clip(mel - mel.max(), _FLOOR, 0.0)
    repeats = math.ceil(_POOL * FRAMES / mel.shape[1])
    mel = np.tile(mel, (1, repeats))[:, : _POOL * FRAMES]
    return torch.from_numpy(mel.reshape(80, FRAMES, _POOL).mean(axis=2).astype(np.float32))


class SoundClassifier:
    """Names the class of a clip; the members' votes are averaged.

    Args:
        labels: Class names, in the order of the outputs.
        networks: The members, in eval mode.
    """

    def __init__(self, labels: Sequence[str], networks: Sequence[nn.Module]) -> None:
        self.labels = tuple(labels)
        self._networks = list(networks)

    @torch.inference_mode()
    def probabilities(self, clips: Sequence[Tensor]) -> Tensor:
        """Class probabilities (len(clips), classes) of waveforms (1, N) at 24 kHz."""
        pictures = torch.stack([picture(clip) for clip in clips])
        return torch.stack([network(part) for network in self._networks for part in [pictures]]).softmax(-1).mean(0)

    def classify(self, clips: Sequence[Tensor]) -> list[str]:
        """The likeliest class of each clip."""
        return [self.labels[index] for index in self.probabilities(clips).argmax(1).tolist()]

    @classmethod
    def trained(
        cls,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        cache: Path | None = None,
        epochs: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> SoundClassifier:
        """Train on labelled clips, or take the networks trained on these clips before from the cache.

        Args:
            examples: Labelled clips of the train split.
            seed: Seed of weights and augmentation.
            cache: Folder for trained networks; default `cache_folder`.
            epochs: Passes over the clips; None is enough of them.
            progress: Called with the share done.

        Raises:
            ValueError: If a clip has no label or there are fewer than two classes.
        """
        labels = sorted({example.label for example in examples if example.label})
        if len(labels) < 2 or any(not example.label for example in examples):
            raise UserError("the classifier needs clips of at least two classes, each with a label")
        epochs = _EPOCHS if epochs is None else epochs
        key = hashlib.sha256(
            repr([_VERSION, seed, epochs, [(e.id, e.label, e.duration) for e in examples]]).encode()
        ).hexdigest()[:16]
        file = (cache or cache_folder()) / f"sound-classifier-{key}.safetensors"
        with torch.random.fork_rng(devices=[]):
            networks = [_Network(len(labels)).eval() for _ in range(_MEMBERS)]
        if file.is_file():
            stored = load_file(file)
            for index, network in enumerate(networks):
                network.load_state_dict(
                    {name[2:]: value for name, value in stored.items() if name.startswith(f"{index}.")}
                )
            return cls(labels, networks)
        pictures = torch.stack([picture(example.audio()) for example in examples])
        targets = torch.tensor([labels.index(str(example.label)) for example in examples])
        for index, network in enumerate(networks):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1000 * seed + index)
                _reset(network)
                _fit(network, pictures, targets, epochs, index, progress)
        _save(file, {f"{i}.{k}": v for i, network in enumerate(networks) for k, v in network.state_dict().items()})
        return cls(labels, networks)


def _reset(network: nn.Module) -> None:
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def _fit(
    network: _Network,
    pictures: Tensor,
    targets: Tensor,
    epochs: int,
    member: int,
    progress: Callable[[float], None] | None,
) -> None:
    """Train one member: time rolls, masked bands and stretches, mixed pairs, one-cycle schedule."""
    network.train()
    count, size = len(pictures), min(32, len(pictures))
    one_hot = F.one_hot(targets, network.head.out_features).float()
    steps = epochs * math.ceil(count / size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(count, (size,))
        other = torch.randint(count, (size,))
        share = torch.where(torch.rand(size) < 0.5, torch.rand(size) * 0.5, torch.zeros(()))[:, None]
        batch = torch.lerp(_augment(pictures[chosen]), _augment(pictures[other]), share[..., None])
        wanted = torch.lerp(one_hot[chosen], one_hot[other], share)
        loss = F.cross_entropy(network(batch), wanted, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress((member + (step + 1) / steps) / _MEMBERS)
    network.eval()


def _augment(pictures: Tensor) -> Tensor:
    """Each picture rolled in time, tilted, with one band and one stretch blanked."""
    out = []
    for item in pictures:
        item = item.roll(int(torch.randint(FRAMES, ())), 1)
        tilt = torch.linspace(-0.5, 0.5, 80) * float(torch.randn(())) * 0.6
        item = (item + tilt[:, None] + 0.2 * float(torch.randn(()))).clamp(_FLOOR, 0.3)
        low, start = int(torch.randint(70, ())), int(torch.randint(FRAMES - 20, ()))
        item[low : low + int(torch.randint(1, 12, ()))] = _FLOOR / 2
        item[:, start : start + int(torch.randint(1, 20, ()))] = _FLOOR / 2
        out.append(item)
    return torch.stack(out)


def cache_folder() -> Path:
    """Where trained judges are kept: ``UNIAUDIO2_CACHE``, or ``uniaudio2`` in the user's cache folder."""
    named = os.environ.get("UNIAUDIO2_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uniaudio2"


def _save(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write under a temporary name and rename; a cache that cannot be written is only logged."""
    try:
        with replacing(file) as new:
            new.write(save({name: value.contiguous() for name, value in tensors.items()}))
    except OSError as error:
        logger.warning("%s: the trained classifier is not kept (%s)", file, error.strerror)


# --------------------------------------------------------------------------------------------- near-copies


class NearestClip:
    """Finds the training clip that a generated clip resembles most.

    Distance: mean absolute difference of log-mel pictures (decades) at the best circular shift, in steps of 85 ms, so
    that a copy that starts elsewhere is found as well.

    Args:
        examples: Training clips.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        if not examples:
            raise UserError("no training clips to compare with")
        self.ids = [example.id for example in examples]
        self._pictures = np.stack([_small(example.audio()) for example in examples])

    def find(self, audio: Tensor) -> tuple[str, float]:
        """Id of the nearest training clip and its distance in decades."""
        distances = self._distances(_small(audio), self._pictures)
        best = int(np.argmin(distances))
        return self.ids[best], float(distances[best])

    @staticmethod
    def _distances(own: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
        best = np.full(len(others), math.inf)
        for shift in range(own.shape[1]):
            best = np.minimum(best, np.abs(np.roll(own, shift, axis=1)[None] - others).mean(axis=(1, 2)))
        return best


def _small(audio: Tensor) -> NDArray[np.float32]:
    """Picture of 20 bands and 56 frames: `picture` averaged over 4 bands and 2 frames (85 ms)."""
    return picture(audio).reshape(20, 4, FRAMES // 2, 2).mean((1, 3)).numpy()
