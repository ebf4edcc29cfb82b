"""The words of the page in English and in Chinese."""

from __future__ import annotations

Words = tuple[str, str]

TITLE: Words = ("listens and speaks", "会听，也会说")
CONTENTS: Words = ("Contents", "目录")
HONEST_DEFAULT: Words = (
    "Everything marked as ours was made on one machine by {model}, the default model inside this package: a small "
    "model, trained on two CPU cores to show that every part works. It is not a product, and some of what it says is "
    "wrong. "
    "Nothing was picked: one seed, the first result.",
    "标为“本模型”的内容都由 {model} 在一台机器上生成。它是本软件包自带的默认模型：很小，在两个 CPU 核上训练，"
    "用来说明每个部分都能工作。它不是产品，说的有些是错的。结果没有挑选：同一个随机种子，第一次的结果。",
)
HONEST: Words = (
    "Everything marked as ours was made on one machine by the model {model}. Nothing was picked: one seed, the first "
    "result.",
    "标为“本模型”的内容都由模型 {model} 在一台机器上生成。结果没有挑选：同一个随机种子，第一次的结果。",
)
LEARNED: Words = (
    "It has learned {learned} of the {all} sections below.",
    "下面 {all} 个部分中，它学过 {learned} 个。",
)
RIGHT: Words = ("judged items as expected", "判定的项目正确")
WORK: Words = ("of work", "用时")
AUDIO: Words = ("of audio heard or made", "听过或生成的音频")
FAILED_ITEMS: Words = ("items failed", "个项目失败")
FAILED: Words = ("This failed", "失败")
NOTHING: Words = ("nothing", "（空）")
COMMAND: Words = ("Command for this section", "生成本部分的命令")
COMMAND_HERE: Words = ("Command (in the folder of this page)", "命令（在本页所在文件夹中运行）")
EVALUATED: Words = ("This model's scores on whole sets", "此模型在整套数据上的得分")
NOT_JUDGED: Words = ("Not judged: listen for yourself.", "没有评分：请自己听。")
UNTRAINED: Words = (
    "This model has not learned this (row {row}).",
    "此模型没有学过这一项（{row}）。",
)
EMPTY: Words = (
    "There are no recordings for this at hand.",
    "手头没有可用的录音。",
)
TRAIN_IT: Words = ("Commands that make data and train it", "准备数据并训练的命令")
ADD_SOME: Words = ("Commands that add some", "添加录音的命令")
AS_GIVEN: Words = ("as it was given", "未经处理的输入")
WORK_NOTE: Words = ("{seconds} s of work, real-time factor {factor}", "用时 {seconds} 秒，实时率 {factor}")
PICTURE: Words = ("log-mel spectrogram of {seconds}, 0 to 12 kHz", "{seconds} 的对数梅尔频谱图，0 至 12 kHz")
HEARD: Words = ("heard as", "听成")
AS_EXPECTED: Words = ("as expected", "正确")
NOT_AS_EXPECTED: Words = ("not as expected", "不正确")
PRIVATE: Words = (
    "This page holds recordings that may be listened to but not passed on: do not publish it.",
    "本页含有只供评测、不得转发的录音：请勿发布。",
)
JUDGE: Words = ("Words of speech were judged by {name}.", "语音中的词由 {name} 判定。")
JUDGE_OWN: Words = (
    "What the model made was written to a 16-bit file, read back, and judged by its own ears.",
    "模型生成的声音先写成 16 位文件再读回，由它自己来听。",
)
JUDGE_NONE: Words = (
    "Words of speech were not judged: there was no independent recogniser (UNIAUDIO2_WHISPER).",
    "语音中的词没有评分：没有独立的识别器（UNIAUDIO2_WHISPER）。",
)
FOOTER: Words = (
    "Voices of the model are synthetic. Pictures are log-mel spectrograms, 0 to 12 kHz, low tones at the bottom, all "
    "in one scale. Recordings of the package: Free Spoken Digit Dataset (CC BY-SA 4.0), Picovoice wake-word benchmark "
    "(Apache-2.0), LJ Speech and LibriVox (public domain), ESC-10 sounds (CC0).",
    "模型的声音均为合成。图为对数梅尔频谱图，0 至 12 kHz，低音在下，刻度一致。软件包中的录音：Free Spoken Digit Dataset"
    "（CC BY-SA 4.0）、Picovoice 唤醒词（Apache-2.0）、LJ Speech 与 LibriVox（公有领域）、ESC-10（CC0）。",
)

SAME_CLIPS: Words = ("ours, on the clips of the others", "本模型，与其他系统相同的录音")
PARTS: dict[str, Words] = {
    "codec": ("As on the reference page", "与参考页相同的部分"),
    "caption": ("What else the paper asks for", "论文中的其他任务"),
    "transcribe": ("What else this package does", "本软件包的其他功能"),
}
"""Parts of the page, by the section that each begins with."""

ROLES: dict[str, Words] = {
    "given": ("given", "输入"),
    "shot": ("example", "示例"),
    "ours": ("ours", "本模型"),
    "truth": ("ground truth", "参考"),
}
"""By `Piece.role`."""

VALUES: dict[str, Words] = {
    "audio": ("audio", "音频"),
    "transcription": ("text", "文字"),
    "caption": ("description", "描述"),
    "voice": ("voice", "声音样本"),
    "source": ("recording", "录音"),
    "target": ("result", "结果"),
    "mixture": ("mixture", "混合"),
    "first": ("first part", "第一部分"),
    "second": ("second part", "第二部分"),
    "instruction": ("instruction", "指令"),
    "question": ("question", "问题"),
    "answer": ("answer", "回答"),
    "lyric": ("lyrics", "歌词"),
    "turns": ("turns: speaker, start, end", "轮次：说话人 起 止"),
    "label": ("class", "类别"),
    "text": ("text", "文字"),
    "steps_1": ("1 step", "1 步"),
    "steps_2": ("2 steps", "2 步"),
    "steps_4": ("4 steps", "4 步"),
    "steps_10": ("10 steps", "10 步"),
}
"""By name of a value in the task table."""

METRICS: dict[str, Words] = {
    "word_errors": ("words wrong", "词错误率"),
    "char_errors": ("characters wrong", "字错误率"),
    "right": ("right", "正确"),
    "stoi": ("STOI", "STOI"),
    "log_mel_l1": ("log-mel distance", "对数梅尔距离"),
    "work_s": ("seconds of decoding", "解码秒数"),
    "error_s": ("diarization error rate", "说话人日志错误率"),
    "pitch_off": ("semitones of pitch off", "音高偏差（半音）"),
}
"""By key of the figure."""
