"""Named corpora: the package's default model is trained on those whose name starts with ``nano``."""

from __future__ import annotations

from uniaudio2.data.synth.backgrounds import Noisy, SpokenScenes
from uniaudio2.data.synth.dysarthria import Dysarthria
from uniaudio2.data.synth.heard import Heard
from uniaudio2.data.synth.music import Music
from uniaudio2.data.synth.overlap import Overlaps
from uniaudio2.data.synth.questions import Questions
from uniaudio2.data.synth.real import Recordings
from uniaudio2.data.synth.renderer import Renderer
from uniaudio2.data.synth.replies import Replies
from uniaudio2.data.synth.scenes import Scenes
from uniaudio2.data.synth.songs import Songs
from uniaudio2.data.synth.sound import Mixtures, Sounds
from uniaudio2.data.synth.speech import Speech
from uniaudio2.data.synth.styles import Styles
from uniaudio2.data.synth.turns import Conversations

SPEECH_SETS = (
    "keywords", "read_english", "read_chinese", "speechocean", "librispeech_text", "vctk_p239", "aishell_pair",
    "speech_commands",
)  # fmt: skip
SOUND_SETS = ("esc10", "sonic_pi", "librosa_clips", "effects")


def _beside(first_sentence: int, *, words: int = 0, **hours: float) -> Speech:
    """Speech beside another corpus, without a dev part, by sentences from ``first_sentence`` on."""
    return Speech(hours, words=words, speak_dev=False, first_sentence=first_sentence)


_PILOT_HOURS = {
    "flite_slt": 0.06, "flite_rms": 0.02, "flite_kal16": 0.015, "festival_kal": 0.01, "festival_hts": 0.003,
    "espeak_en": 0.06, "zh_house": 0.02, "zh_many": 0.02, "yue_house": 0.015, "yue_many": 0.015,
}  # fmt: skip
_NANO_HOURS = {
    "hibari": 7.0, "flite_slt": 0.7, "flite_rms": 0.7, "flite_kal16": 0.5, "festival_kal": 0.5, "espeak_en": 3.0,
    "zh_house": 0.3, "zh_many": 2.5, "yue_house": 0.7, "yue_many": 1.7,
}  # fmt: skip

PRESETS: dict[str, tuple[Renderer, ...]] = {
    # Real recordings with text, one natural voice for hours, engines of other kinds beside, sounds.
    "nano": (
        Speech(_NANO_HOURS, words=2000),
        Recordings(SPEECH_SETS + SOUND_SETS),
        Sounds(40.0),
        Mixtures(60.0, ("esc10",)),
    ),
    # Real voices without transcripts, with what Whisper hears in them.
    "nano_heard": (Heard(("librispeech_voices", "coffee_commands")),),
    # The natural Mandarin voice that nano speaks with, and other natural voices.
    "nano_mandarin": (_beside(9000, kokoro_zh_house=1.2),),
    "nano_natural": (_beside(12000, kokoro_en=0.8, kokoro_zh=0.4, kokoro_en_pairs=0.5),),
    # Two real sounds at once, and the real sounds themselves.
    "nano_mixtures": (Recordings(("esc10",)), Mixtures(120.0, ("esc10",), licensed=0.9, seed=2)),
    # Speech by description, edits, conversion, impaired speech, speech with sounds, noise and two speakers.
    "nano_speech_tasks": (Styles(), Dysarthria(), SpokenScenes(), Noisy(), Overlaps()),
    # Scenes, music, songs, questions about sounds, questions about a closed world, conversations.
    "nano_scene_tasks": (
        Scenes(270, 30),
        Music(240, 30),
        Songs(60, 12),
        Questions(150, 12),
        Replies(1500, 60),
        Conversations(350, 30),
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
