"""The language model: presets, masks, subsets of targets, key map, overfitting one batch."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from uniaudio2.config import list_presets, load_config, preset_path
from uniaudio2.lm import AttentionProbe, AudioLM, LMConfig, LMLossConfig, lm_losses, published_lm_key
from uniaudio2.lm.model import lm_state_from_published
from uniaudio2.sequence import SequenceBuilder, TokenBatch

CONFIG = load_config(LMConfig, preset_path("lm", "tiny"))


def model() -> AudioLM:
    return AudioLM(CONFIG).initialise(torch.Generator().manual_seed(0)).eval()


def batch(count: int = 3) -> TokenBatch:
    builder = SequenceBuilder(None, CONFIG.audio, text=CONFIG.text)
    generator = torch.Generator().manual_seed(4)
    sequences = []
    for index in range(count):
        audio = (
            torch.randint(0, 16, (8, 3 + index), generator=generator),
            torch.randint(0, 32, (8, 6 + index), generator=generator),
        )
        words = torch.randint(20, 2000, (4 + index,), generator=generator).tolist()
        task = ("tts", "asr", "tts")[index % 3]
        sequences.append(builder.example(task, {"audio": audio, "transcription": [0, *words, 1]}, prompt=[0, 30, 1]))
    return builder.collate(sequences)


@pytest.mark.parametrize("preset", list_presets("lm"))
def test_every_preset_builds(preset: str) -> None:
    config = load_config(LMConfig, preset_path("lm", preset))
    with torch.device("meta"):
        built = AudioLM(config)
    assert len({published_lm_key(name) for name in built.state_dict()}) == len(built.state_dict())
    if preset == "3b":
        assert sum(parameter.numel() for parameter in built.parameters()) == 4_863_493_120


def test_rope_factors_are_those_of_each_llama() -> None:
    factors = {name: load_config(LMConfig, preset_path("lm", name)).rope.factor for name in ("1b", "3b", "8b")}
    assert factors == {"1b": 32.0, "3b": 32.0, "8b": 8.0}


@torch.no_grad()
def test_masked_columns_and_padding_cannot_change_a_logit() -> None:
    data, lm = batch(), model()
    output = lm(data.tokens, data.mask)
    noise = data.tokens.clone()
    noise[~data.mask] = torch.randint(0, 50, noise[~data.mask].shape)
    other = lm(noise, data.mask)
    assert torch.equal(output.text_logits, other.text_logits)
    longer = torch.nn.functional.pad(data.tokens, (0, 0, 0, 5), value=3)
    padded = lm(longer, torch.nn.functional.pad(data.mask, (0, 0, 0, 5)))
    length = data.tokens.shape[1] - 1
    assert torch.allclose(output.text_logits, padded.text_logits[:, :length], atol=1e-5)
    assert torch.allclose(output.audio_logits, padded.audio_logits, atol=1e-5)


@torch.no_grad()
def test_chosen_targets_are_rows_of_the_whole() -> None:
    data, lm = batch(), model()
    whole = lm(data.tokens, data.mask)
    rows = torch.tensor([0, 3, whole.audio_targets.shape[0] - 1])
    part = lm(data.tokens, data.mask, audio_targets=whole.audio_targets[rows], text_targets=torch.tensor([1, 7]))
    assert torch.allclose(part.audio_logits, whole.audio_logits[rows], atol=1e-5)
    assert torch.allclose(part.text_logits, whole.text_logits.flatten(0, 1)[[1, 7]], atol=1e-5)


def test_loss_ignores_padding_and_what_is_no_target() -> None:
    data, lm, config = batch(), model(), LMLossConfig()
    base = lm_losses(lm, data.tokens, data.mask, data.loss_mask, config)
    longer = torch.nn.functional.pad(data.tokens, (0, 0, 0, 4))
    mask, loss_mask = (torch.nn.functional.pad(each, (0, 0, 0, 4)) for each in (data.mask, data.loss_mask))
    padded = lm_losses(lm, longer, mask, loss_mask, config)
    assert torch.allclose(base.total, padded.total, atol=1e-5)
    assert base.codes_each.shape[1] == 8
    assert set(base.metrics()) == {"loss", "text", *(f"codebook{book}" for book in range(8))}


def test_every_parameter_learns() -> None:
    data, lm = batch(), model()
    lm_losses(lm, data.tokens, data.mask, data.loss_mask, LMLossConfig()).total.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in lm.parameters())


def test_bfloat16_autocast_trains() -> None:
    data, lm = batch(), model()
    exact = lm_losses(lm, data.tokens, data.mask, data.loss_mask, LMLossConfig()).total
    with torch.autocast("cpu", torch.bfloat16):
        losses = lm_losses(lm, data.tokens, data.mask, data.loss_mask, LMLossConfig())
    losses.total.backward()
    assert torch.allclose(losses.total, exact, rtol=0.02)


def test_overfits_one_batch() -> None:
    data, lm = batch(2), model().train()
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-2)
    for _ in range(50):
        losses = lm_losses(lm, data.tokens, data.mask, data.loss_mask, LMLossConfig())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert losses.text_accuracy == 1.0
    assert losses.codes_accuracy.min() > 0.9


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    data = batch()
    lm = AudioLM(replace(CONFIG, dropout=0.5)).initialise(torch.Generator().manual_seed(0))
    assert not torch.equal(*(lm.train()(data.tokens, data.mask).text_logits for _ in range(2)))
    assert torch.equal(*(lm.eval()(data.tokens, data.mask).text_logits for _ in range(2)))


@torch.no_grad()
def test_probe_and_understanding_have_the_promised_shapes() -> None:
    data, lm = batch(), model()
    output = lm(data.tokens, data.mask, probe=AttentionProbe(1, (0, 2)))
    size = data.tokens.shape[1] - 1
    assert output.probed is not None and output.probed.attention.shape == (3, 2, size, size)
    assert output.understanding.shape == (3, size, CONFIG.backbone.width)


def test_published_keys_round_trip_and_report() -> None:
    lm = model()
    state = {published_lm_key(name): value for name, value in lm.state_dict().items()}
    assert set(lm_state_from_published(state, lm)) == set(lm.state_dict())
    state["backbone.extra"] = torch.zeros(1)
    del state["audio_head"]
    with pytest.raises(ValueError, match=r"missing \['audio_head'\]; not used \['backbone.extra'\]"):
        lm_state_from_published(state, lm)
    with pytest.raises(KeyError):
        published_lm_key("backbone.layers.0.attention.bias")


def test_wrong_shapes_and_configs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, S, 9\)"):
        model()(torch.zeros(1, 4, 8, dtype=torch.int64), torch.zeros(1, 4, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="one width"):
        replace(CONFIG, generation=replace(CONFIG.generation, width=32))
    with pytest.raises(ValueError, match="reasoning_eos"):
        replace(CONFIG.audio.streams[0], eos=99)
    assert json.dumps(CONFIG.audio.size) == "60"
