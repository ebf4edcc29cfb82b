"""The tokenizer of Higgs Audio v2, by transformers (which needs torchaudio for it)."""

from __future__ import annotations

from uniaudio2.systems.adapters.xcodec import Xcodec, XcodecConfig
from uniaudio2.systems.contract import Card
from uniaudio2.systems.registry import SYSTEMS


@SYSTEMS.register("higgs", XcodecConfig)
class Higgs(Xcodec):
    """Higgs Audio v2's tokenizer at 24 kHz and 25 frames a second, 2 kbit/s by default."""

    card = Card(
        title="Higgs tokenizer",
        licence="of its own, by Boson AI: see its hub page",
        hub_id="bosonai/higgs-audio-v2-tokenizer",
        needs="transformers, torchaudio",
        traps="without a bandwidth transformers takes the highest; its output is 13.4 ms late, align before scoring",
    )
    class_name = "HiggsAudioV2TokenizerModel"
