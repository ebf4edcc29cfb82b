"""Qwen2.5-Omni on small random weights in its published format: it listens, answers and speaks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uniaudio2.errors import CheckpointError
from uniaudio2.systems import load_system, parse_systems

t = pytest.importorskip("transformers")


def save(out: Path) -> None:
    """A model of under a million parameters, with a byte-level tokenizer and twenty Mel frames as a voice."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|AUDIO|>",
        "<|audio_bos|>",
        "<|audio_eos|>",
        "<|IMAGE|>",
        "<|VIDEO|>",
        "<|vision_bos|>",
        "<|vision_eos|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
    ]
    alpha = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alpha)}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    T = t.Qwen2TokenizerFast(
        tokenizer_object=tok,
        additional_special_tokens=special,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "image_token": "<|IMAGE|>",
            "audio_token": "<|AUDIO|>",
            "video_token": "<|VIDEO|>",
            "vision_bos_token": "<|vision_bos|>",
            "vision_eos_token": "<|vision_eos|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
    )
    i = T.convert_tokens_to_ids
    V = 300
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    thinker = dict(
        audio_config=dict(
            d_model=16,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=16,
            output_dim=16,
            n_window=100,
            num_mel_bins=128,
            max_source_positions=1500,
        ),
        vision_config=dict(
            depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16, fullatt_block_indexes=[0]
        ),
        text_config=dict(
            vocab_size=V,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            rope_parameters=rope,
        ),
        audio_token_index=i("<|AUDIO|>"),
        image_token_index=i("<|IMAGE|>"),
        video_token_index=i("<|VIDEO|>"),
        audio_token_id=i("<|AUDIO|>"),
        audio_start_token_id=i("<|audio_bos|>"),
        audio_end_token_id=i("<|audio_eos|>"),
        vision_start_token_id=i("<|vision_bos|>"),
        vision_end_token_id=i("<|vision_eos|>"),
        user_token_id=1,
        pad_token_id=i("<|endoftext|>"),
    )
    talker = dict(
        vocab_size=60,
        embedding_size=16,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        rope_parameters=rope,
        tts_text_start_token_id=i("<|quad_start|>"),
        tts_text_end_token_id=i("<|quad_end|>"),
        tts_text_pad_token_id=i("<|box_end|>"),
        tts_codec_start_token_id=53,
        tts_codec_end_token_id=54,
        tts_codec_pad_token_id=52,
        tts_codec_mask_token_id=56,
        audio_token_index=i("<|AUDIO|>"),
        image_token_index=i("<|IMAGE|>"),
        video_token_index=i("<|VIDEO|>"),
        audio_start_token_id=i("<|audio_bos|>"),
        audio_end_token_id=i("<|audio_eos|>"),
        vision_start_token_id=i("<|vision_bos|>"),
        vision_end_token_id=i("<|vision_eos|>"),
    )
    t2w = dict(
        dit_config=dict(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            head_dim=8,
            emb_dim=8,
            ff_mult=1,
            num_embeds=64,
            mel_dim=80,
            look_ahead_layers=[0],
            look_backward_layers=[0],
            enc_emb_dim=8,
            enc_dim=8,
            enc_channels=[8, 8, 8, 8, 24],
            enc_attention_channels=8,
            enc_se_channels=8,
        ),
        bigvgan_config=dict(upsample_initial_channel=128),
    )
    cfg = t.Qwen2_5OmniConfig(
        thinker_config=thinker, talker_config=talker, token2wav_config=t2w, enable_audio_output=True
    )
    torch.manual_seed(0)
    m = t.Qwen2_5OmniForConditionalGeneration(cfg)
    m.save_pretrained(out)
    torch.save(
        {"Chelsie": {"bos_token": 53, "cond": torch.randn(1, 8), "ref_mel": torch.randn(1, 20, 80)}},
        out / "spk_dict.pt",
    )
    fe = t.WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    fe.save_pretrained(out)
    T.save_pretrained(out)


def test_it_listens_answers_and_speaks(tmp_path: Path) -> None:
    save(tmp_path)
    settings = "dtype=float32@max_new_tokens=6@max_audio_tokens=12"
    spec = parse_systems(f"qwen_omni@weights={tmp_path}@{settings}")[0]
    system = load_system(spec)
    assert system.tasks() == ("asr", "tts", "caption", "answer")
    wave = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    assert isinstance(system.transcribe(wave, language="en", seed=0), str)
    assert system.answer(wave, "what?", seed=0) == system.answer(wave, "what?", seed=0)
    spoken = system.speak("hello", language="en", voice=None, seed=0)
    assert 0 < spoken.shape[1] <= 12 * 16000 // 50 and bool(torch.isfinite(spoken).all())
    assert torch.equal(spoken, system.speak("hello", language="en", voice=None, seed=0))
    (tmp_path / "spk_dict.pt").unlink()
    with pytest.raises(CheckpointError, match=r"spk_dict\.pt, the voices of Qwen2\.5-Omni 7B, is missing"):
        load_system(spec)
