"""MiMo-Audio, in the environment that its repository asks for. Source: github.com/XiaomiMiMo/MiMo-Audio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uniaudio2.errors import UserError
from uniaudio2.systems import servers
from uniaudio2.systems.contract import Card
from uniaudio2.systems.process import ProcessSystem
from uniaudio2.systems.registry import SYSTEMS


@dataclass(frozen=True)
class MimoAudioConfig:
    """Settings of MiMo-Audio: all of it is fetched by hand, see docs/use/compare.md."""

    python: str  # of its environment
    checkout: str  # of its repository
    weights: str  # folder of MiMo-Audio-7B-Instruct
    tokenizer: str  # folder of MiMo-Audio-Tokenizer


@SYSTEMS.register("mimo_audio", MimoAudioConfig)
class MimoAudio(ProcessSystem):
    """MiMo-Audio 7B, instruct."""

    card = Card(
        title="MiMo-Audio 7B Instruct",
        licence="see its hub page",
        hub_id="XiaomiMiMo/MiMo-Audio-7B-Instruct",
        needs="Python 3.12, torch 2.6, transformers 4.49, flash-attn 2.7.4 and CUDA, in an environment of its own",
        traps="its class is used from a checkout (691ce54), there is no package; two checkpoints",
    )

    def __init__(self, config: MimoAudioConfig, *, device: str = "cpu", download: bool = False) -> None:
        for path in (config.checkout, config.weights, config.tokenizer):
            if not Path(path).is_dir():
                raise UserError(f"{path}: no such folder; how to set up MiMo-Audio is in docs/use/compare.md")
        script = Path(servers.__path__[0]) / "mimo_audio.py"
        super().__init__([config.python, str(script), config.checkout, config.weights, config.tokenizer])
