"""espeak-ng, rules without recorded voices: what every other voice should beat."""

from uniaudio2.data.synth.voices import Voice
from uniaudio2.systems.contract import Card
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.speech_engine import EngineConfig, SpeechEngine


@SYSTEMS.register("espeak", EngineConfig)
class Espeak(SpeechEngine):
    """espeak-ng through its library."""

    card = Card(title="espeak-ng", licence="GPL-3.0 program, no recorded voice", needs="espeakng-loader or espeak-ng")
    module = "espeak"
    voices = {
        "en": Voice("espeak-ng", "en-us", "en", 50, 160),
        "zh": Voice("espeak-ng", "cmn", "zh", 50, 160),
        "yue": Voice("espeak-ng", "yue", "yue", 50, 160),
    }
