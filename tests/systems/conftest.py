"""Small random weights of other systems, saved as their publishers do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

HUBERT = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=[8] * 7,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)


def dac_part(ratios: list[int]) -> dict:
    return dict(
        model_type="dac",
        encoder_hidden_size=4,
        decoder_hidden_size=32,
        downsampling_ratios=ratios,
        upsampling_ratios=ratios,
        hidden_size=16,
    )


def encodec_config():
    return transformers.EncodecConfig(num_filters=4, hidden_size=16, codebook_dim=16, num_lstm_layers=1)


def mimi_config():
    return transformers.MimiConfig(
        num_filters=4, hidden_size=16, codebook_dim=8, vector_quantization_hidden_dimension=8, codebook_size=2048,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=16,
        upsample_groups=16,
    )  # fmt: skip


def dac_config():
    return transformers.DacConfig(
        sampling_rate=24000, encoder_hidden_size=4, downsampling_ratios=[2, 4, 5, 8], decoder_hidden_size=32,
        upsampling_ratios=[8, 5, 4, 2], n_codebooks=32,
    )  # fmt: skip


def xcodec_config():
    return transformers.XcodecConfig(
        acoustic_model_config=dac_part([8, 5, 4, 2]), semantic_model_config=dict(model_type="hubert", **HUBERT)
    )


def higgs_config():
    return transformers.HiggsAudioV2TokenizerConfig(
        acoustic_model_config=dac_part([8, 5, 4, 2, 3]),
        semantic_model_config=dict(model_type="hubert", mask_time_prob=0.0, **HUBERT),
    )


CODECS = {
    "encodec": ("EncodecModel", encodec_config),
    "mimi": ("MimiModel", mimi_config),
    "dac": ("DacModel", dac_config),
    "xcodec": ("XcodecModel", xcodec_config),
    "higgs": ("HiggsAudioV2TokenizerModel", higgs_config),
}


def save_codec(name: str, folder: Path) -> Path:
    """Random weights of a codec in its published format; codebooks of zeros would give one code only."""
    class_name, config = CODECS[name]
    torch.manual_seed(0)
    model = getattr(transformers, class_name)(config())
    for key, buffer in [*model.named_buffers(), *model.named_parameters()]:
        if "embed" in key and "pos" not in key and buffer.is_floating_point():
            torch.nn.init.normal_(buffer.data)
        elif key.endswith("cluster_usage"):
            torch.nn.init.ones_(buffer.data)
    model.save_pretrained(folder)
    return folder


def save_snac(folder: Path) -> Path:
    """Small random weights of SNAC as its repository on the hub holds them: ``config.json``, ``pytorch_model.bin``."""
    config = dict(
        sampling_rate=24000, encoder_dim=4, encoder_rates=[2, 4, 8, 8], decoder_dim=32, decoder_rates=[8, 8, 4, 2],
        attn_window_size=None, codebook_size=4096, codebook_dim=8, vq_strides=[4, 2, 1], noise=True, depthwise=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = pytest.importorskip("snac").SNAC(**config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory):
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "weights"
            made[name] = save_snac(folder) if name == "snac" else save_codec(name, folder)
        return made[name]

    return of
