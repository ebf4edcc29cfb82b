"""The local decoder: its cached steps are the teacher-forced forward."""

from __future__ import annotations

import torch

from uniaudio2.lm.depth import DepthDecoder
from uniaudio2.lm.transformer import RopeConfig, StackConfig


@torch.no_grad()
def test_steps_equal_forward_and_cache_needs_no_clearing() -> None:
    torch.manual_seed(0)
    decoder = DepthDecoder(StackConfig(2, 16, 4, 2, 24), RopeConfig(), input_width=12, num_codebooks=4, vocab_size=7)
    decoder.heads.normal_()
    cache = decoder.new_cache(3)
    for _ in range(2):
        hidden, labels = torch.randn(3, 12), torch.randn(3, 3, 12)
        whole = decoder(hidden, labels)
        assert whole.shape == (3, 4, 7)
        for codebook in range(4):
            inputs = hidden if codebook == 0 else labels[:, codebook - 1]
            assert torch.allclose(decoder.step(inputs, codebook, cache), whole[:, codebook], atol=1e-5)
