"""Kokoro-82M as an ONNX graph, on a CPU. Source: hexgrad/Kokoro-82M, after StyleTTS 2 (arXiv:2306.07691)."""

from uniaudio2.data.synth.voices import Voice
from uniaudio2.systems.contract import Card
from uniaudio2.systems.registry import SYSTEMS
from uniaudio2.systems.speech_engine import EngineConfig, SpeechEngine


@SYSTEMS.register("kokoro", EngineConfig)
class Kokoro(SpeechEngine):
    """Kokoro; its files are those that UNIAUDIO2_KOKORO names."""

    card = Card(
        title="Kokoro-82M (ONNX)", licence="Apache-2.0", needs="onnxruntime, hibari-tts; misaki[zh] for Mandarin"
    )
    module = "kokoro"
    voices = {"en": Voice("kokoro", "af_heart", "en"), "zh": Voice("kokoro", "zf_xiaoxiao", "zh")}
