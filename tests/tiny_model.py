"""A model folder with random weights, small enough to make in a moment."""

from pathlib import Path

import torch

from uniaudio2.checkpoint import save_parts
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import load_config, preset_path
from uniaudio2.lm.model import AudioLM, LMConfig
from uniaudio2.tokenizer import TextTokenizer

TEXTS = ["a dog barking", "good morning how are you", "zero one two three", "今天天气很好", "我哋去食飯"]


def make_tiny_model(folder: Path) -> Path:
    """Write the folder and return it; the vocabularies of the two presets are made to fit."""
    codec_config = load_config(CodecConfig, preset_path("codec", "tiny"))
    tokenizer = TextTokenizer.train(TEXTS * 3, 300)
    reasoning = codec_config.reasoning.quantizer.codebook_size
    reconstruction = codec_config.reconstruction.codebook_size
    lm_config = load_config(
        LMConfig,
        preset_path("lm", "tiny"),
        [
            f"text_vocab_size={tokenizer.vocab_size}",
            f"audio.num_reasoning={reasoning + 4}",
            f"audio.reasoning_codebook_size={reasoning}",
            f"audio.reasoning_bos={reasoning}",
            f"audio.reasoning_eos={reasoning + 1}",
            f"audio.reasoning_pad={reasoning + 2}",
            f"audio.num_reconstruction={reconstruction + 8}",
            f"audio.reconstruction_codebook_size={reconstruction}",
            f"audio.reconstruction_bos={reconstruction}",
            f"audio.reconstruction_eos={reconstruction + 1}",
            f"audio.reconstruction_pad={reconstruction + 2}",
            f"audio.voice_bos={reconstruction + 3}",
            f"audio.voice_eos={reconstruction + 4}",
        ],
    )
    torch.manual_seed(0)
    codec = ReasoningCodec(codec_config)
    for parameter in codec.decoder.parameters():  # gates start at zero, and then no option of the decoder would matter
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    lm = AudioLM(lm_config).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():  # fresh weights are so small that every condition would draw the same ids
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return save_parts(folder, codec=codec, lm=lm, tokenizer=tokenizer)
