"""hibari, one American voice distilled from Kokoro, on a CPU."""

from uniaudio2.data.synth.voices import Voice
from uniaudio2.systems.contract import Card
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.speech_engine import EngineConfig, SpeechEngine


@SYSTEMS.register("hibari", EngineConfig)
class Hibari(SpeechEngine):
    """hibari; all of it lies in its package."""

    card = Card(title="hibari", licence="Apache-2.0", needs="hibari-tts")
    module = "hibari"
    voices = {"en": Voice("hibari", "heart", "en")}
