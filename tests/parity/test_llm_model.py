"""The language model against the published one: rotary table, training forward, losses, text forward."""

from __future__ import annotations

import torch

from tests.parity.fixtures import assert_close, load_fixture, load_json
from tests.parity.llm_support import rope_config, stage3_model
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm import AudioLM, LMConfig, published_lm_key
from uniaudio2.lm.loss import audio_cross_entropy, text_cross_entropy
from uniaudio2.lm.transformer import apply_rope, rope_table


def test_rope_table_and_application() -> None:
    fixture = load_fixture("llm_rope")
    atol = fixture.tolerances["atol"]
    positions = torch.tensor(fixture.info["positions"])
    for name in (key for key in fixture.tensors if key.startswith("cos")):
        size = int(name.removeprefix("cos"))
        cos, sin = rope_table(rope_config(fixture.info["config"]), size, positions)
        assert_close(cos, fixture[name], atol=atol, what=name)
        assert_close(sin, fixture[f"sin{size}"], atol=atol, what=f"sin{size}")
        rotated = apply_rope(fixture[f"x{size}"], cos[None, None], sin[None, None])
        assert_close(rotated, fixture[f"roped{size}"], atol=atol, what=f"roped{size}")


@torch.no_grad()
def test_training_forward_and_losses() -> None:
    fixture = load_fixture("llm_stage3")
    model = stage3_model(fixture)
    case = fixture.group("train")
    limits = dict(atol=fixture.tolerances["logits_atol"], rtol=fixture.tolerances["logits_rtol"])
    tokens, mask, loss_mask = case["tokens"], case["mask"].bool(), case["loss_mask"]
    output = model(tokens, mask)
    assert_close(output.text_logits, case["text_logits"], **limits, what="text logits")
    assert_close(output.audio_logits, case["audio_logits"], **limits, what="audio logits")
    assert torch.equal(output.audio_labels, case["chosen_labels"])
    chosen = loss_mask[:, 1:].reshape(-1, loss_mask.shape[-1])[output.audio_targets]
    assert torch.equal(chosen, case["chosen_mask"])

    text, accuracy = text_cross_entropy(output.text_logits, tokens[:, 1:, -1], loss_mask[:, 1:, -1])
    count = output.audio_labels.shape[1]
    weights = tuple(torch.linspace(1.0, 0.3, count).tolist())
    audio, each, audio_accuracy = audio_cross_entropy(
        output.audio_logits, output.audio_labels, chosen[:, :count], weights, normalisation="rows"
    )
    atol = fixture.tolerances["loss_atol"]
    assert_close(text, case["loss_text"], atol=atol, what="text loss")
    assert_close(accuracy, case["acc_text"], atol=1e-6, what="text accuracy")
    assert_close(each, case["loss_audio_each"], atol=atol, what="loss per codebook")
    assert_close(audio, case["loss_audio"], atol=atol, what="audio loss")
    assert_close(audio_accuracy, case["acc_audio"], atol=1e-6, what="audio accuracy")


@torch.no_grad()
def test_text_forward() -> None:
    fixture = load_fixture("llm_stage3")
    model = stage3_model(fixture)
    case = fixture.group("text")
    logits = model.forward_text(case["tokens"], case["mask"].bool())
    limits = dict(atol=fixture.tolerances["logits_atol"], rtol=fixture.tolerances["logits_rtol"])
    assert_close(logits, case["logits"], **limits, what="text logits")


def test_every_published_key_and_shape() -> None:
    """The published layout holds example vocabulary sizes, which the preset is set to."""
    layout = load_json("layout_llm")
    with torch.device("meta"):
        model = AudioLM(load_config(LMConfig, preset_path("lm", "3b")))
    ours = {published_lm_key(name): list(value.shape) for name, value in model.state_dict().items()}
    assert ours == layout["keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) == layout["parameters_total"]
