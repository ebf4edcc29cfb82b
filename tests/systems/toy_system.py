"""A codec in one file, as docs/extend/system.md tells: eight samples become one of 256 levels."""

from dataclasses import dataclass

import torch

from uniaudio2.codes import AudioCodes, Stream
from uniaudio2.systems import SYSTEMS, Card, CodecSystem


@dataclass(frozen=True)
class ToyConfig:
    levels: int = 256
    fails_at: int = -1  # the clip at which it fails


@SYSTEMS.register("toy_system", ToyConfig)
class Toy(CodecSystem):
    card = Card(title="toy", licence="none")
    sample_rate = 16000

    def __init__(self, config, *, device="cpu", download=False):
        self.config, self.calls = config, 0
        self.streams = (Stream("codes", 2, 1, config.levels, self.sample_rate),)
        self.version = "1"

    def encode(self, clips):
        self.calls += 1
        if self.calls - 1 == self.config.fails_at:
            raise RuntimeError("this clip is too hard")
        found = []
        for clip in clips:
            means = torch.nn.functional.pad(clip, (0, -clip.shape[1] % 2)).view(1, 1, -1, 2).mean(-1)
            codes = ((means + 1) / 2 * (self.config.levels - 1)).round().long().clamp(0, self.config.levels - 1)
            found.append(AudioCodes.of({"codes": codes}, self.streams, clip.shape[1]))
        return found

    def decode(self, codes):
        waves = [(one["codes"][0].float() / (self.config.levels - 1) * 2 - 1).repeat_interleave(2, 1) for one in codes]
        return [wave[:, : one.num_samples] for wave, one in zip(waves, codes, strict=True)]
