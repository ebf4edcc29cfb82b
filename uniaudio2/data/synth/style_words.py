"""Words for ways of speaking: captions that describe a style, and instructions that ask for a change.

In the normal form of the text tokenizer: English in lower case without punctuation, Mandarin in Han characters alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

STYLES = (
    "whisper", "shout", "slow", "fast", "loud", "quiet", "high", "low", "excited", "sad", "angry", "bored", "calm",
)  # fmt: skip
"""Ways of speaking; two of pitch, rate and loudness may come together."""

_WHO = {
    "en": {
        "female": "a woman|a female speaker|a lady|a female voice|a young woman",
        "male": "a man|a male speaker|a gentleman|a male voice|a young man",
        "child": "a child|a kid|a little child|a small child|a young child",
    },
    "zh": {
        "female": "女声|女人|一位女士|一个女人|女性的声音",
        "male": "男声|男人|一位男士|一个男人|男性的声音",
        "child": "小孩|童声|孩子|一个小孩|儿童的声音",
    },
}
_HOW = {
    "en": {
        "normal": "in a normal voice|in a neutral tone|in an ordinary way|plainly|at a normal pace|without any emotion",
        "whisper": "in a whisper|in a whispering voice|whispering|with a whispered voice|under the breath|"
        "in a hushed whisper|whispering as if it were a secret",
        "shout": "shouting|in a shout|yelling|with a raised voice|in a shouting voice|shouting as loud as possible|"
        "calling out across the street",
        "slow": "slowly|at a slow pace|very slowly|taking time over each word|in no hurry|with a slow tempo",
        "fast": "quickly|fast|at a fast pace|in a hurry|rapidly|at high speed|very fast",
        "loud": "loudly|at a high volume|in a loud voice|very loud|with a lot of volume",
        "quiet": "quietly|softly|at a low volume|in a soft voice|very quietly|not loud at all",
        "high": "in a high voice|with a high pitch|at a high pitch|in a high pitched voice|with a bright high voice",
        "low": "in a low voice|with a low pitch|at a low pitch|in a deep voice|with a deep low voice",
        "excited": "excitedly|full of energy|with excitement|in a lively happy tone|cheerfully|in high spirits",
        "sad": "sadly|in a sad voice|with sorrow|in a gloomy tone|sounding depressed|close to tears",
        "angry": "angrily|in an angry voice|with anger|furiously|in a harsh angry tone|sounding annoyed",
        "bored": "in a monotone|in a flat bored voice|without any melody|monotonously|sounding bored|in a dull tone",
        "calm": "calmly|in a calm voice|in a relaxed tone|gently and calmly|peacefully|sounding at ease",
    },
    "zh": {
        "normal": "用平常的语气|正常地|用普通的语气|语气自然地",
        "whisper": "用耳语|悄悄地|用气声|压低声音像说秘密一样|轻声耳语着",
        "shout": "大喊着|喊叫着|提高嗓门|用力喊着|大声叫喊着",
        "slow": "慢慢地|语速很慢地|放慢速度|不慌不忙地",
        "fast": "快速地|语速很快地|飞快地|急急忙忙地",
        "loud": "大声地|音量很大地|很响地",
        "quiet": "小声地|音量很小地|轻轻地",
        "high": "用高音|音调很高地|用高高的声音|声音尖尖地",
        "low": "用低音|音调很低地|用低沉的声音|声音低沉地",
        "excited": "兴奋地|激动地|充满活力地|高兴地",
        "sad": "悲伤地|难过地|伤心地|语气低落地",
        "angry": "生气地|愤怒地|恼火地|气冲冲地",
        "bored": "语气平淡地|单调地|无精打采地|毫无起伏地",
        "calm": "平静地|从容地|语气温和地|放松地",
    },
}
_CAPTION = {
    "en": (
        "{who} speaks {how}|{who} says it {how}|{who} talks {how}|speak {how} with the voice of {who}|"
        "{who} reads the sentence {how}|the voice of {who} speaking {how}|{how} spoken by {who}|"
        "let {who} say this {how}|{who} speaking {how}|say it {how} as {who}"
    ),
    "zh": "{who}{how}说话|{how}说话的{who}|请让{who}{how}说|{who}{how}读这句话|{who}{how}说出来",
}
_STYLE = {
    "en": "speak {how}|say it {how}|read it {how}|the sentence is spoken {how}|talk {how}|{how}|please say this {how}",
    "zh": "{how}说|请{how}读|{how}说话|{how}读这句话|请{how}说出来",
}
_EDIT = {
    "en": {
        "whisper": "whisper it|make it a whisper|turn this into a whisper|change the voice to a whisper|"
        "let the speaker whisper",
        "shout": "shout it|make it a shout|turn this into shouting|let the speaker shout|change it to shouting|yell it",
        "slow": "make it slower|slow it down|slow down the speech|speak more slowly|reduce the speaking rate",
        "fast": "make it faster|speed it up|speed up the speech|speak faster|increase the speaking rate",
        "loud": "make it louder|raise the volume|turn it up|speak louder|increase the loudness",
        "quiet": "make it quieter|lower the volume|turn it down|speak more softly|reduce the loudness",
        "high": "make the voice higher|raise the pitch|increase the pitch|speak with a higher voice|a higher pitch",
        "low": "make the voice lower|lower the pitch|reduce the pitch|speak with a deeper voice|a lower pitch",
        "excited": "make it sound excited|add excitement|sound happy and lively|let the speaker be full of energy",
        "sad": "make it sound sad|say it sadly|let the speaker sound sad|turn the mood to sadness",
        "angry": "make it sound angry|say it angrily|let the speaker sound angry|turn the mood to anger",
        "bored": "make it monotone|remove the melody|make it sound bored|flatten the pitch",
        "calm": "make it sound calm|say it calmly|let the speaker relax|turn the mood to calm",
    },
    "zh": {
        "whisper": "改成耳语|变成悄悄话|用气声说|让他轻声耳语",
        "shout": "改成大喊|变成喊叫|喊出来|让他大声喊",
        "slow": "说慢一点|放慢语速|降低语速|变慢一些",
        "fast": "说快一点|加快语速|提高语速|变快一些",
        "loud": "大声一点|提高音量|声音变大|音量调大",
        "quiet": "小声一点|降低音量|声音变小|音量调小",
        "high": "提高音调|音调高一点|声音变尖|让声音更高",
        "low": "降低音调|音调低一点|声音变低沉|让声音更低",
        "excited": "改成兴奋的语气|变得激动一些|说得高兴一点",
        "sad": "改成悲伤的语气|变得难过一些|说得伤心一点",
        "angry": "改成生气的语气|变得愤怒一些|说得凶一点",
        "bored": "改成平淡的语气|去掉语调起伏|说得单调一点",
        "calm": "改成平静的语气|变得温和一些|说得从容一点",
    },
}


def _pick(options: str, rng: random.Random) -> str:
    return rng.choice(options.split("|"))


def how(styles: Sequence[str], language: str, rng: random.Random) -> str:
    """A way of speaking in words, such as "slowly and in a low voice"; none is a normal way."""
    words = [_pick(_HOW[language][style], rng) for style in styles or ("normal",)]
    return (" and " if language == "en" else "").join(words)


def caption(who: str, styles: Sequence[str], language: str, rng: random.Random) -> str:
    """Who speaks (``"female"``, ``"male"`` or ``"child"``) and how, in words."""
    speaker = _pick(_WHO[language][who], rng)
    return _pick(_CAPTION[language], rng).format(who=speaker, how=how(styles, language, rng))


def style(styles: Sequence[str], language: str, rng: random.Random) -> str:
    """How to speak, whoever does, in words."""
    return _pick(_STYLE[language], rng).format(how=how(styles, language, rng))


def instruction(styles: Sequence[str], language: str, rng: random.Random) -> str:
    """What to change in a recording, in words."""
    words = [_pick(_EDIT[language][each], rng) for each in styles]
    return (" and " if language == "en" else "").join(words)
