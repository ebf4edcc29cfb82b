"""Every shipped preset loads strictly, and codec and LM presets build their model on the meta device."""

from __future__ import annotations

import pytest
import torch

from uniaudio2.checkpoint import PARTS
from uniaudio2.config import config_to_dict, list_presets, load_config, preset_path, read_yaml

# The published autoencoder's sizes come from sqcodec_config.yaml and have no default; these are an example.
EXAMPLE_AUTOENCODER = (
    "{num_bands: 1, sample_rate: 24000, causal: true, num_samples: 2, downsample_factors: [4, 4, 5, 6], "
    "downsample_kernel_sizes: [8, 8, 10, 12], upsample_factors: [6, 5, 4, 4], upsample_kernel_sizes: [12, 10, 8, 8], "
    "latent_hidden_dim: 136, default_kernel_size: 7, delay_kernel_size: 5, init_channel: 48, res_kernel_size: 7}"
)
OVERRIDES = {("codec", "published"): [f"autoencoder.config={EXAMPLE_AUTOENCODER}"]}
PRESETS = [(kind, name) for kind in ("codec", "lm") for name in list_presets(kind)]


@pytest.mark.parametrize(("kind", "name"), PRESETS, ids=lambda value: value)
def test_preset_builds_on_the_meta_device(kind: str, name: str) -> None:
    if (kind, name) == ("codec", "published"):
        pytest.importorskip("transformers", reason="the published encoders need the extra 'published'")
    config_class, model_class = (PARTS[kind].config_class, PARTS[kind].model_class)
    config = load_config(config_class, preset_path(kind, name), OVERRIDES.get((kind, name), ()))
    assert load_config(config_class, config_to_dict(config)) == config
    with torch.device("meta"):
        model = model_class(config)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    assert all(tensor.is_meta for tensor in model.state_dict().values()), "something was built on a real device"


def test_the_promised_presets_are_there() -> None:
    assert {"nano", "small", "mid", "1b", "3b", "8b", "tiny"} <= set(list_presets("lm"))
    assert {"nano", "published", "tiny"} <= set(list_presets("codec"))


@pytest.mark.parametrize("name", list_presets("train"))
def test_training_presets_are_readable(name: str) -> None:
    assert read_yaml(preset_path("train", name))
