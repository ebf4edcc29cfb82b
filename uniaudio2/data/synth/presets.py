"""Named corpora: the package's default model is trained on those whose name starts with ``nano``."""

from __future__ import annotations

from uniaudio2.data.synth.heard import Heard
from uniaudio2.data.synth.real import Recordings
from uniaudio2.data.synth.renderer import Renderer
from uniaudio2.data.synth.sound import Mixtures, Sounds
from uniaudio2.data.synth.speech import Speech

SPEECH_SETS = ("fsdd", "keywords", "coffee_commands", "read_english", "read_chinese")
SOUND_SETS = ("esc10", "sonic_pi", "librosa_clips")
PEOPLE_SETS = (
    "keywords", "read_english", "read_chinese", "speechocean", "librispeech_text", "vctk_p239", "aishell_pair",
    "speech_commands",
)  # fmt: skip
HEARD_SOUND_SETS = (*SOUND_SETS, "effects")


def _beside(first_sentence: int, *, words: int = 0, **hours: float) -> Speech:
    """Speech beside another corpus, without a dev part, by sentences from ``first_sentence`` on."""
    return Speech(hours, words=words, speak_dev=False, first_sentence=first_sentence)


def _mixtures(minutes: float, *, seed: int, licensed: float = 1.0, varied: bool = False) -> tuple[Renderer, ...]:
    """Mixtures beside another corpus, with the real sounds that they are made of."""
    return Recordings(("esc10",)), Mixtures(minutes, ("esc10",), licensed=licensed, varied=varied, seed=seed)


_PILOT_HOURS = {
    "flite_slt": 0.06, "flite_rms": 0.02, "flite_kal16": 0.015, "festival_kal": 0.01, "festival_hts": 0.003,
    "espeak_en": 0.06, "zh_house": 0.02, "zh_many": 0.02, "yue_house": 0.015, "yue_many": 0.015,
}  # fmt: skip
_NANO_HOURS = {
    "flite_slt": 4.5, "flite_rms": 1.5, "flite_kal16": 1.0, "festival_kal": 0.5, "festival_hts": 0.15,
    "espeak_en": 5.0, "zh_house": 1.0, "zh_many": 1.0, "yue_house": 0.75, "yue_many": 0.75,
}  # fmt: skip

PRESETS: dict[str, tuple[Renderer, ...]] = {
    "nano": (
        Speech(_NANO_HOURS, words=2500),
        Recordings(SPEECH_SETS + SOUND_SETS),
        Sounds(40.0),
        Mixtures(20.0, SOUND_SETS),
    ),
    # More voices and sentences beside ``nano``, without its real recordings and its dev part.
    "nano_more": (
        _beside(12000, words=1000, flite_slt=2.5, flite_rms=2.0, flite_kal16=1.5, festival_kal=1.5, festival_hts=0.2,
                espeak_en=8.0),
        Sounds(40.0, seed=1),
    ),
    # Five further recorded voices, and further sentences by the voices of ``nano``.
    "nano_voices": (
        _beside(30000, flite_slt=1.0, flite_rms=1.0, flite_kal16=0.5, festival_kal=0.5, espeak_en=5.0, rhvoice=4.5,
                pico=3.6),
    ),
    # Mandarin and Cantonese beside ``nano``: other sentences.
    "nano_chinese": (_beside(2300, zh_house=1.5, zh_many=2.0, yue_house=1.2, yue_many=1.8),),
    "nano_chinese_more": (_beside(9000, zh_house=0.8, zh_many=2.2, yue_house=0.8, yue_many=2.2),),
    "nano_chinese_wide": (_beside(15000, zh_house=3.0, zh_many=7.0, yue_house=1.0, yue_many=3.0),),
    # The rest of the sentence lists.
    "nano_chinese_rest": (_beside(24000, zh_house=3.0, zh_many=9.0),),
    "nano_english_rest": (
        _beside(44700, flite_slt=2.0, flite_rms=1.0, flite_kal16=0.5, espeak_en=4.0, rhvoice=2.1, pico=1.4),
    ),
    # Two real sounds at once, and the real sounds themselves.
    "nano_mixtures": _mixtures(120.0, licensed=0.9, seed=2),
    "nano_mixtures_more": _mixtures(150.0, seed=3),
    "nano_mixtures_wide": _mixtures(240.0, seed=4),
    "nano_mixtures_varied": _mixtures(240.0, seed=5, varied=True),
    # Natural voices: 25 English and 6 Mandarin ones, the means of two of them, one more American voice.
    "natural": (
        Speech(
            {"kokoro_en": 4.0, "kokoro_en_pairs": 4.0, "hibari": 8.0, "kokoro_zh": 2.0, "kokoro_zh_pairs": 2.0},
            dev_sentences={"en": 400, "zh": 100},
            held_out_engines=("kokoro",),
            seen_engines=("kokoro",),
        ),
    ),
    # People: real recordings with text, one natural voice for hours, and engines of other kinds beside.
    "nano_people": (
        Speech(
            {
                "hibari": 7.0, "flite_slt": 0.7, "flite_rms": 0.7, "flite_kal16": 0.5, "festival_kal": 0.5,
                "espeak_en": 3.0, "zh_house": 0.3, "zh_many": 2.5, "yue_house": 0.7, "yue_many": 1.7,
            },
            words=2000,
        ),
        Recordings(PEOPLE_SETS + HEARD_SOUND_SETS),
        Sounds(40.0),
        Mixtures(60.0, ("esc10",)),
    ),
    # Real voices without transcripts, with what Whisper hears in them.
    "nano_heard": (Heard(("librispeech_voices", "coffee_commands")),),
    # The natural voices that nano speaks with beside the house voice: one Mandarin woman for an hour, and all others.
    "nano_natural": (
        Speech(
            {"kokoro_zh_house": 1.2, "kokoro_en": 0.8, "kokoro_zh": 0.4, "kokoro_en_pairs": 0.5},
            dev_sentences={"en": 400, "zh": 100}, speak_dev=False, first_sentence=9000,
        ),
    ),
    "pilot": (
        Speech(_PILOT_HOURS, words=60, dev_sentences={"en": 20, "zh": 6, "yue": 6}),
        Recordings(SPEECH_SETS + SOUND_SETS, limit=12),
        Sounds(2.5),
        Mixtures(1.0, SOUND_SETS, limit=12),
    ),
    # Needs espeak-ng alone.
    "tiny": (
        Speech({"espeak_en": 0.006, "zh_house": 0.001, "zh_many": 0.001, "yue_house": 0.001, "yue_many": 0.001},
               dev_sentences={"en": 0, "zh": 1, "yue": 1}),
        Sounds(0.8),
        Mixtures(0.1),
    ),
}  # fmt: skip
