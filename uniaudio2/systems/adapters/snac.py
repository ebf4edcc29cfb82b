"""SNAC, by its own package: a residual quantiser whose levels have rates of their own. Source: arXiv:2410.14411."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.errors import CheckpointError
from uniaudio2.systems.contract import Card, CodecSystem
from uniaudio2.systems.hub import WeightsConfig, find_weights, missing
from uniaudio2.systems.registry import SYSTEMS

WEIGHTS = "pytorch_model.bin"


@dataclass(frozen=True)
class SnacConfig(WeightsConfig):
    """Settings of SNAC."""

    seed: int = 0  # of the noise that its decoder adds


@SYSTEMS.register("snac", SnacConfig)
class Snac(CodecSystem):
    """SNAC at 24 kHz, .98 kbit/s; for 32 and 44.1 kHz ``@hub_id=hubertsiuzdak/snac_32khz`` and ``snac_44khz``."""

    card = Card(
        title="SNAC 24 kHz",
        licence="MIT",
        hub_id="hubertsiuzdak/snac_24khz",
        revision="d73ad176a12188fcf4f360ba3bf2c2fbbe8f58ec",
        needs="snac",
        traps="three levels at 12, 23 and 47 Hz, so three streams; its decoder adds noise, drawn here by the seed for "
        "each clip anew; every sample rate is a checkpoint of its own",
    )

    def __init__(self, config: SnacConfig, *, device: str = "cpu", download: bool = False) -> None:
        try:
            snac = importlib.import_module("snac")
        except ImportError as error:
            raise missing(self.card.title, "snac") from error
        folder, self.version = find_weights(self.card, config, download=download, also=[WEIGHTS])
        try:
            model = snac.SNAC(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
            model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
        except (OSError, EOFError, ValueError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{folder}: not the weights of {self.card.title} ({str(error)[:200]})") from error
        self._seed, self._device = config.seed, torch.device(device)
        self._model: Any = model.to(self._device).eval()
        self.sample_rate, hop = model.sampling_rate, int(model.hop_length)
        self.streams = tuple(
            Stream(f"level_{number}", hop * stride, 1, model.codebook_size, self.sample_rate)
            for number, stride in enumerate(model.vq_strides)
        )

    @torch.inference_mode()
    def encode(self, clips: Sequence[Tensor]) -> list[AudioCodes]:
        """See `CodecSystem.encode`; the model pads a clip to whole frames of its coarsest level."""
        found = []
        for clip in clips:
            levels = self._model.encode(clip[None].to(self._device))
            codes = {s.name: level[:, None].cpu() for s, level in zip(self.streams, levels, strict=True)}
            found.append(AudioCodes.of(codes, self.streams, clip.shape[-1]))
        return found

    @torch.inference_mode()
    def decode(self, codes: Sequence[AudioCodes]) -> list[Tensor]:
        """See `CodecSystem.decode`."""
        found = []
        for one in codes:
            levels = [one[stream.name][:, 0].to(self._device) for stream in self.streams]
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                torch.manual_seed(self._seed)
                wave = self._model.decode(levels)[0].float().cpu()
            wanted = one.covered_samples if one.num_samples is None else one.num_samples
            found.append(nn.functional.pad(wave, (0, max(0, wanted - wave.shape[-1])))[:, :wanted])
        return found
