"""A model folder with random weights, small enough to make in a moment."""

from pathlib import Path

import torch

from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE, save_parts
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.config import load_config, preset_path, read_yaml
from uniaudio2.lm.model import AudioLM, LMConfig
from uniaudio2.storage.folder import write_folder_config


def make_tiny_model(folder: Path) -> Path:
    """Write the folder and return it; the codebooks of the tiny codec are made to fit the tiny language model."""
    lm_config = load_config(LMConfig, preset_path("lm", "tiny"))
    audio = lm_config.audio
    books = [f"reasoning.quantizer.codebook_size={audio.streams[0].codebook_size}"]
    books += [
        f"reconstruction.{group}.codebook_size={audio.fine.codebook_size}"
        for group in ("pronunciation", "structure", "acoustic")
    ]
    torch.manual_seed(0)
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", "tiny"), books))
    for parameter in codec.decoder.dit.parameters():  # gates start at zero: no option of the decoder would matter
        torch.nn.init.normal_(parameter, std=0.3)
    lm = AudioLM(lm_config).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():  # fresh weights are so small that every condition would draw the same ids
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    save_parts(folder, codec=codec, lm=lm, tokenizer=DEFAULT_FOLDER / TOKENIZER_FILE)
    write_folder_config(folder, {"generation": read_yaml(preset_path("generation", "tiny"))})
    return folder
