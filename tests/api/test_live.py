"""Text of audio that is still coming: the pieces of the whole, guesses that grow, and bad chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.api.support import noise
from uniaudio2.api import listen as whole
from uniaudio2.api import live
from uniaudio2.api.inputs import as_blocks
from uniaudio2.api.listen import Listening
from uniaudio2.api.request import Heard
from uniaudio2.audio import Recording, resample
from uniaudio2.tasks import get_task

STEP = 768  # samples of a frame of the detector at 24 kHz


def in_blocks(audio: Tensor, rng: np.random.Generator) -> list[Tensor]:
    """A waveform (1, N) in blocks of random lengths."""
    cuts = np.sort(rng.integers(0, audio.shape[1], 40))
    sizes = np.diff(np.concatenate([[0], cuts, [audio.shape[1]]])).tolist()
    return list(audio.split(sizes, dim=1))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.5, None])
def test_pieces_that_come_are_those_of_the_whole(monkeypatch, seed, threshold):
    rng = np.random.default_rng(seed)
    audio = noise(rng.uniform(1.0, 25.0), seed)
    frames = -(-audio.shape[1] // STEP)
    talks = np.repeat(rng.random(frames) < 0.5, rng.integers(1, 90, frames))[:frames].astype(np.float32)

    def probabilities(blocks: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Somebody talks now and then."""
        came = done = 0
        for block in blocks:
            came += block.shape[1]
            if came // STEP > done:
                yield talks[done : came // STEP]
                done = came // STEP
        yield talks[done:]

    monkeypatch.setattr("uniaudio2.voice_activity.speech_probabilities", probabilities)
    monkeypatch.setattr("uniaudio2.api.live.speech_probabilities", probabilities)
    how = Listening(get_task("asr"), "en", 4.0, 1)
    expected = list(whole._divide(None, Recording.of(audio), how, threshold))  # type: ignore[arg-type]
    arrived = list(live.divide(None, in_blocks(audio, rng), how, threshold))  # type: ignore[arg-type]
    found = [chunk for one in arrived for chunk in one.finished]
    assert [(one.start, one.end, one.before) for one in found] == [(one.start, one.end, one.before) for one in expected]
    assert all(torch.equal(one.audio, other.audio) for one, other in zip(found, expected, strict=True))
    assert all(one.present.shape[1] <= round(4.2 * 24_000) for one in arrived)
    # However long the recording, a piece is there as soon as it is certain.
    for one in arrived:
        assert all(one.heard - chunk.end <= round((4.2 + 1.1) * 24_000) + 10 * STEP for chunk in one.finished)


def test_in_the_end_the_text_is_that_of_the_whole(model):
    audio = torch.cat([noise(3.0, 1), torch.zeros(1, 12_000), noise(2.0, 2)], dim=1)
    results = list(model.listen(in_blocks(audio, np.random.default_rng(0)), max_chunk_s=2.0, every_s=0.5, beams=2))
    expected = model.transcribe(audio, max_chunk_s=2.0, batch_size=1, beams=2)
    *_, last = results
    assert last.result == expected and last.text == expected.text and last.heard_s == expected.duration_s
    assert all(after.text.startswith(before.text) for before, after in itertools.pairwise(results))
    assert [piece for one in results for piece in one.finished] == list(expected.segments)
    assert last.to_dict()["result"]["text"] == str(last)
    quiet = list(model.listen([audio.numpy()], max_chunk_s=2.0, every_s=None, beams=2))
    assert not any(one.agreed or one.guess for one in quiet) and quiet[-1].result == expected


def test_words_stay_once_two_hearings_agree(monkeypatch):
    texts = iter(["a", "a cat", "a cap sat", "a cat sat on", "a cat sat on", "你 好", "你好吗"])
    monkeypatch.setattr(live, "hear", lambda *_: [Heard(next(texts))])
    guesses = live.Guesses(None, Listening(get_task("asr"), None, 10.0, 1), 0.1)  # type: ignore[arg-type]
    seen = []
    for tenth in range(5, 10):
        guesses.renew(torch.zeros(1, 24_000 * tenth))
        seen.append((guesses.agreed, guesses.guess))
    assert seen == [("", "a"), ("a", "cat"), ("a", "cap sat"), ("a", "cat sat on"), ("a cat sat on", "")]
    assert not guesses.renew(torch.zeros(1, 24_000 * 9))  # nothing new
    guesses.forget()
    for tenth in (2, 3):
        guesses.renew(torch.zeros(1, 24_000 * tenth))
    assert (guesses.agreed, guesses.guess) == ("你好", "吗")


def test_words_that_are_agreed_on_are_not_taken_back(monkeypatch):
    texts = iter(["a cat", "a cat", "the cap sat", "the cap sat", "a cat sat", "a cat sat down"])
    monkeypatch.setattr(live, "hear", lambda *_: [Heard(next(texts))])
    guesses = live.Guesses(None, Listening(get_task("asr"), None, 10.0, 1), 0.1)  # type: ignore[arg-type]
    seen = []
    for tenth in range(5, 11):
        guesses.renew(torch.zeros(1, 24_000 * tenth))
        seen.append((guesses.agreed, guesses.guess))
    assert seen[1:] == [("a cat", ""), ("a cat", "sat"), ("a cat", "sat"), ("a cat", "sat"), ("a cat sat", "down")]


def test_chunks_of_another_rate_are_resampled_on_the_way():
    low = noise(1.3)[0, :20_000]
    blocks = list(as_blocks(low.split(700), 16_000))
    joined, at_once = torch.cat(blocks, dim=1), resample(low[None], 16_000, 24_000)
    assert all(0 < block.shape[1] <= 24_000 for block in blocks) and joined.shape == at_once.shape
    torch.testing.assert_close(joined, at_once, atol=1e-4, rtol=0)
    stereo = torch.stack([low, -low]) + 0.1
    torch.testing.assert_close(torch.cat(list(as_blocks([stereo])), dim=1), torch.full((1, 20_000), 0.1))


@pytest.mark.parametrize(
    ("chunks", "options", "message"),
    [
        ([torch.zeros(10, dtype=torch.int16)], {}, "divide 16-bit integers by 32768"),
        (["speech.wav"], {}, "a chunk must be samples, got str"),
        ([torch.full((1, 10), torch.nan)], {}, "NaN"),
        ([torch.zeros(0)], {}, "no audio came"),
        ([], {}, "no audio came"),
        ([], {"every_s": 0.0}, "every_s"),
        ([], {"sample_rate": 0}, "sample_rate"),
        ([], {"language": "xx"}, "language"),
    ],
)
def test_what_cannot_be_heard_is_named(model, chunks, options, message):
    with pytest.raises(ValueError, match=message):
        list(model.listen(chunks, **options))
    if options:
        with pytest.raises(ValueError, match=message):
            model.listen(chunks, **options)
