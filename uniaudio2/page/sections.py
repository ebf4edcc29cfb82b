"""The sections of the page in order, as data: first those of the reference page in its order, then ours.

Source of the order: the demo page of UniAudio 2.0; after its last section come captions, questions, separation, who
speaks when, text and few-step decoding, and then what the reference page does not show.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uniaudio2.errors import UserError
from uniaudio2.page import scores, ways
from uniaudio2.page.scores import Judge
from uniaudio2.page.ways import Way

Words = tuple[str, str]
"""A text in English and in Chinese."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: For ``--sections``; unique.
        title: Heading.
        about: What is to be heard and seen.
        row: Of the task table; None for codes, which every model has.
        judge: What its outputs are worth.
        way: How an item is done, where the model has learned the row.
        corpus: How manifests give items: ``"row"`` by what the row needs, ``"shot"`` the same with another example
            in front, ``"classes"`` as episodes; None not at all.
        baseline: Whether what was given is judged as if it had been made, to compare with.
        data: Preset of `uniaudio2 data synth` that makes a corpus for it; empty where there is none.
    """

    name: str
    title: Words
    about: Words
    row: str | None
    judge: Judge
    way: Way = ways.ROW
    corpus: Literal["row", "shot", "classes"] | None = "row"
    data: str = ""
    baseline: bool = False


_SPEECH, _SCENES = "nano_speech_tasks", "nano_scene_tasks"

SECTIONS = (
    Section("codec", ("Audio codec", "音频编解码"),
            ("A recording as a few small numbers a second, and as sound again.",
             "把录音变成每秒几个小数字，再还原成声音。"),
            None, scores.coded, ways.CODEC, None),
    Section("speak", ("Text to speech", "语音合成"),
            ("Text read aloud in the house voice of its language.", "用该语言的默认声音朗读文字。"),
            "tts", scores.spoken, ways.SPEAK, data="nano"),
    Section("sound", ("Text to sound", "文字生成声音"),
            ("A sound made from its description alone.", "只凭描述生成声音。"),
            "tta", scores.sounding, ways.SOUND, None),
    Section("music", ("Text to music", "文字生成音乐"),
            ("A piece of music made from its description.", "按描述生成一段音乐。"),
            "ttm", scores.no_judge, data=_SCENES),
    Section("song", ("Song generation", "歌曲生成"),
            ("A line of lyrics, sung.", "把一句歌词唱出来。"), "lts", scores.spoken, data=_SCENES),
    Section("style", ("Speech by description", "按描述说话"),
            ("A text, and how it is to be said (InstructTTS).", "一段文字，加上对说话方式的描述（InstructTTS）。"),
            "instruct_tts", scores.spoken, data=_SPEECH),
    Section("styled_voice", ("Speech by voice and description", "按声音样本和描述说话"),
            ("A text, how it is to be said, and a recording of the voice (audio-instructed TTS).",
             "一段文字、说话方式的描述和一段声音样本。"), "prompt_instruct_tts", scores.spoken, data=_SPEECH),
    Section("edit", ("Speech editing", "语音编辑"),
            ("A recording changed as an instruction asks.", "按指令改变一段录音。"), "speech_edit", scores.spoken,
            data=_SPEECH),
    Section("impaired", ("Dysarthric speech recognition", "构音障碍语音识别"),
            ("Speech that is hard to articulate, written down.", "把构音障碍者的话写成文字。"), "d_asr", scores.words,
            data=_SPEECH),
    Section("scene", ("Speech with sound", "带背景声的话语"),
            ("A text is spoken while a sound is heard.", "在指定的声音背景中朗读文字。"), "speech_with_sound",
            scores.spoken, data=_SPEECH),
    Section("reply_text", ("Spoken question, written answer", "语音提问，文字回答"),
            ("A question is asked aloud and answered in writing.", "用语音提问，用文字回答。"), "speech_s2t",
            scores.answer, data=_SCENES),
    Section("shot_denoise", ("Denoising by one example", "单样本降噪"),
            ("A noisy and a clean clip show the task; another noisy clip is to be cleaned.",
             "先给一对带噪和干净的录音作示例，再清理另一段。"),
            "speech_denoise", scores.cleaned, corpus="shot", data=_SPEECH, baseline=True),
    Section("shot_voice", ("Voice conversion by one example", "单样本变声"),
            ("A pair of voices shows the task; another clip is to be said by the second voice.",
             "先给一对声音作示例，再把另一段话换成第二个声音。"), "voice_conversion", scores.converted, corpus="shot",
            data=_SPEECH),
    Section("shot_sound", ("Sound classification by examples", "少样本声音分类"),
            ("Two sounds with their names, then a third one to be named.",
             "先给两个带名称的声音，再说出第三个的名称。"),
            "classify", scores.answer, corpus="classes"),
    Section("caption", ("Captions of sounds", "描述声音"),
            ("What is heard, in words.", "用文字说出听到了什么。"), "audio_caption", scores.meaning, ways.CAPTION,
            data=_SCENES),
    Section("music_caption", ("Captions of music", "描述音乐"),
            ("What music it is, in words.", "用文字描述音乐。"), "music_caption", scores.no_judge, data=_SCENES),
    Section("question", ("Questions about a recording", "就录音提问"),
            ("A question about what is heard, and its answer.", "关于录音的问题与回答。"), "audio_understanding",
            scores.answer, data=_SCENES),
    Section("separate", ("Two speakers apart", "分开两个说话人"),
            ("Two people at once; each gets a recording of their own.", "两人同时说话，各得一段自己的录音。"),
            "speech_ss", scores.cleaned, data=_SPEECH, baseline=True),
    Section("separate_music", ("Voice and accompaniment apart", "分开人声与伴奏"),
            ("A song, taken apart.", "把歌曲拆成人声和伴奏。"), "music_ss", scores.parted, data=_SCENES, baseline=True),
    Section("speakers", ("Who speaks when", "谁在何时说话"),
            ("Turns of each speaker: number, start and end in seconds (diarization).",
             "每个说话人的编号、起止秒数（说话人日志）。"), "diarization", scores.turns, data=_SCENES),
    Section("text", ("Text alone", "纯文本"),
            ("Sentences that the language model makes up by itself.", "语言模型自己写出的句子。"), "text_only",
            scores.no_judge, corpus=None),
    Section("steps", ("Few-step decoding", "少步解码"),
            ("The same codes, turned into sound by 1, 2, 4 and 10 steps of the flow decoder.",
             "同样的编码，用流匹配解码器的 1、2、4、10 步还原成声音。"), None, scores.coded, ways.FEW_STEPS, None),
    Section("transcribe", ("Speech to text", "语音识别"),
            ("What is said, written down.", "把说的话写成文字。"), "asr", scores.words, ways.TRANSCRIBE, data="nano"),
    Section("lyrics", ("Lyrics of a song", "听写歌词"),
            ("What is sung, written down.", "把唱的词写成文字。"), "lyric_recognition", scores.words, data=_SCENES),
    Section("voice", ("A voice prompt", "声音样本"),
            ("Text read aloud with the voice of a short recording.", "用一小段录音里的声音朗读文字。"), "tts",
            scores.spoken, ways.SPEAK, None),
    Section("convert", ("Voice conversion", "变声"),
            ("A recording said again with another voice.", "用另一个声音重说一段录音。"), "voice_conversion",
            scores.converted, data=_SPEECH),
    Section("denoise", ("Noise removal", "降噪"),
            ("Speech without the noise around it.", "去掉话语周围的噪声。"), "speech_denoise", scores.cleaned,
            data=_SPEECH, baseline=True),
    Section("reply_speech", ("Spoken question, spoken answer", "语音提问，语音回答"),
            ("A question is asked aloud and answered aloud.", "用语音提问，用语音回答。"), "speech_s2s", scores.spoken,
            data=_SCENES),
)  # fmt: skip

DEMO = ("transcribe", "caption", "speak", "voice", "sound", "codec")
"""Sections of the short form, in its order."""


def find_sections(names: Sequence[str]) -> list[Section]:
    """Sections by name, or by the name of their row, in the order of the page; all of them for no names.

    Raises:
        UserError: If there is no such section; the message names the nearest.
    """
    known = {name for section in SECTIONS for name in (section.name, section.row) if name}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"no section {name!r}; there are {', '.join(one.name for one in SECTIONS)}{hint}")
    return [one for one in SECTIONS if not names or one.name in names or one.row in names]


def demo_sections() -> list[Section]:
    """The sections of the short form."""
    own = {section.name: section for section in SECTIONS}
    return [own[name] for name in DEMO]
