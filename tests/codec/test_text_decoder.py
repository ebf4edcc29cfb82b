"""The text decoder that sees nothing but reasoning codes."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.codec.text_decoder import TextDecoder, TextDecoderConfig

TINY = TextDecoderConfig(vocab_size=20, bos_id=0, eos_id=1, condition_dim=8, width=16, num_layers=1, max_tokens=6)


@pytest.fixture
def decoder() -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(TINY).eval()


def test_frames_beyond_the_valid_ones_change_nothing(decoder: TextDecoder) -> None:
    codes, tokens = torch.randn(1, 5, 8), torch.tensor([[0, 4, 5]])
    padded = torch.cat((codes, torch.randn(1, 3, 8)), 1)
    with torch.no_grad():
        short = decoder.logits(tokens, *decoder.read(codes))
        long = decoder.logits(tokens, *decoder.read(padded, torch.tensor([5])))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)


def test_later_tokens_do_not_change_earlier_logits(decoder: TextDecoder) -> None:
    memory = decoder.read(torch.randn(1, 5, 8))
    with torch.no_grad():
        a = decoder.logits(torch.tensor([[0, 4, 5]]), *memory)
        b = decoder.logits(torch.tensor([[0, 4, 9]]), *memory)
    assert torch.equal(a[:, :2], b[:, :2])
    assert not torch.equal(a[:, 2], b[:, 2])


def test_it_learns_to_read_codes_and_shuffled_codes_fail(decoder: TextDecoder) -> None:
    codes, texts = torch.randn(4, 3, 8), torch.tensor([[0, 4, 5, 1], [0, 7, 8, 1], [0, 9, 4, 1], [0, 6, 7, 1]])
    optimizer = torch.optim.Adam(decoder.parameters(), 5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        logits = decoder.logits(texts[:, :-1], *decoder.read(codes))
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten()).backward()
        optimizer.step()
    wanted = [row[1:-1].tolist() for row in texts]
    assert decoder.generate(codes) == wanted
    assert decoder.generate(codes.roll(1, 0)) == wanted[-1:] + wanted[:-1]


def test_generation_stops_at_the_limit(decoder: TextDecoder) -> None:
    assert all(len(row) <= TINY.max_tokens for row in decoder.generate(torch.randn(3, 4, 8)))


def test_too_many_frames_are_refused(decoder: TextDecoder) -> None:
    with pytest.raises(ValueError, match="cut the audio"):
        decoder.read(torch.randn(1, TINY.max_frames + 1, 8))
