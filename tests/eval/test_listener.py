import shutil
import subprocess

import pytest
import torch

from uniaudio2.audio import read_audio
from uniaudio2.eval.listener import Listener, distractors

POOL = (
    "how big can elephants be",
    "where did you find that apple",
    "move these files into the pictures folder",
    "the old man walked down the street",
    "she sells sea shells by the shore",
    "my brother lives in a small house",
    "nobody knew what the letter said",
    "we will leave early tomorrow morning",
    "please close the door behind you",
    "this is the best day ever",
    "the train arrived half an hour late",
    "he never forgot the summer by the lake",
    "they bought bread and milk at the market",
    "I have seen this picture before",
)


def test_distractors_are_repeatable_and_of_the_same_length():
    first = distractors("Please, close the door behind him.", POOL)
    assert first == distractors("please close the door behind him", list(reversed(POOL)))
    assert len(set(first)) == 9
    assert all(abs(len(text.split()) - 6) <= 1 for text in first)
    assert "this is the best day ever" not in distractors("this is the best day ever", POOL)


def test_too_small_a_pool_is_an_error():
    with pytest.raises(ValueError, match="larger pool"):
        distractors("one two three", POOL)


def test_unknown_words_are_refused():
    pytest.importorskip("pocketsphinx")
    listener = Listener()
    assert listener.knows("where did you find that apple")
    assert not listener.knows("xqzzt") and not listener.knows("...")
    with pytest.raises(ValueError, match="dictionary"):
        listener.choose(torch.zeros(1, 24000), ["xqzzt blorp", "apple"])


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_flite_is_understood_and_noise_is_not(tmp_path):
    pytest.importorskip("pocketsphinx")
    listener = Listener()
    right = 0
    for sentence in POOL[5:10]:
        subprocess.run(["flite", "-voice", "slt", "-t", sentence, "-o", str(tmp_path / "x.wav")], check=True)
        right += listener.right(read_audio(tmp_path / "x.wav"), sentence, POOL)
    assert right >= 4
    noise = 0.1 * torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    assert sum(listener.right(noise, sentence, POOL) for sentence in POOL[5:10]) <= 2
