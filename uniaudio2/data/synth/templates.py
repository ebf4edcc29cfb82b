"""Built-in sentences for a machine without sentence lists: short English, Mandarin and Cantonese phrases from parts.

They let every preset run; a model that is to read real text needs real lists (see `sentences.TEXT_SOURCES`).
"""

from __future__ import annotations

import itertools
import random

from uniaudio2.data.synth.sentences import Sentence

_ENGLISH = (
    "the old man|my sister|a small bird|the tired teacher|our neighbour|the captain|every child|a young doctor|"
    "the farmer|her brother|the blue train|a quiet girl|the judge|their guide|the baker|one soldier|the queen|"
    "a stranger|the good nurse|his uncle|the painter|a clever fox|the driver|nobody",
    "often sees|never finds|wants to buy|cannot forget|looked after|slowly opens|carries|will draw|once lost|"
    "talked about|gave away|asked for|was given|keeps|wrote about|still loves|has broken",
    "the red door|a heavy book|some fresh bread|the broken clock|three white horses|a letter|the golden ring|"
    "the village bridge|a cup of tea|green apples|the long road|a warm coat|this old house|the silver key|"
    "an empty box|the piano|a garden|two boats",
    "in the morning|before dinner|near the station|without a word|on the hill|after the storm|in spring|every evening",
)
_MANDARIN = (
    "我的朋友|那位老师|小女孩|他们|医生|我们家|一个年轻人|司机|奶奶|那只猫|学生们|你的哥哥|警察|农民|她|大家",
    "今天早上|昨天晚上|每个周末|在公园里|在学校|下雨的时候|吃饭以前|去年冬天|有时候|在火车上|明天|从来",
    "喜欢|看见了|想买|找不到|带来了|忘记了|画了|卖掉了|打开了|需要|听说过|写了",
    "一本新书|热牛奶|红色的门|三匹白马|那座桥|一封信|水果|旧照片|大房子|那个故事|音乐|一件外套|地图|月亮|钥匙|花",
)
_CANTONESE = (
    "我嘅朋友|嗰位老師|細妹|佢哋|醫生|我哋屋企|一個後生仔|司機|阿嫲|嗰隻貓|啲學生|你大佬|差人|農夫|佢|大家",
    "今朝|尋晚|每個禮拜|喺公園|喺學校|落雨嗰陣|食飯之前|舊年冬天|有時|喺火車度|聽日|成日",
    "鍾意|見到|想買|搵唔到|帶咗|唔記得|畫咗|賣咗|打開咗|需要|聽講過|寫咗",
    "一本新書|熱奶|紅色嘅門|三隻白馬|嗰條橋|一封信|生果|舊相|大屋|嗰個故事|音樂|一件外套|地圖|月光|鎖匙|花",
)
_PARTS = {"en": (_ENGLISH, " ", "."), "zh": (_MANDARIN, "", "。"), "yue": (_CANTONESE, "", "。")}


def built_in_sentences(language: str, seed: int) -> list[Sentence]:
    """All phrases of a language (58 752 English, 36 864 of each other), shuffled.

    Args:
        language: ``"en"``, ``"zh"`` or ``"yue"``.
        seed: Seed of the shuffle.
    """
    parts, join, end = _PARTS[language]
    texts = [join.join(words) for words in itertools.product(*(part.split("|") for part in parts))]
    random.Random(f"{seed}-{language}-templates").shuffle(texts)
    return [Sentence(text, text + end) for text in texts]
