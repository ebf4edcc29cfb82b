"""What other types of weights and caches lose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniaudio2.bench.config import BenchConfig
from uniaudio2.bench.inputs import make_prompt
from uniaudio2.checkpoint import open_folder
from uniaudio2.lm import AudioLM, LMConfig
from uniaudio2.lm.quantize import QUANTIZED_TYPES, quantize_weights
from uniaudio2.sequence import SequenceBuilder, TokenSequence
from uniaudio2.text import normalise_text


@dataclass(frozen=True)
class Quality:
    """What other weights change, against the same model in float32 that reads the same sequences."""

    token_agreement: float  # share of audio positions, all codebooks, whose likeliest id is the same
    logit_error: float  # root mean square difference of audio logits, in standard deviations of float32's
    text_agreement: float | None  # the same for text; None: random weights
    text_error: float | None


@torch.inference_mode()
def measure_quality(model: AudioLM, config: BenchConfig) -> Quality:
    """Compare weights of ``config.dtype`` with float32.

    Both read the same sequences, so one early difference does not spoil what follows: for a model folder with a codec
    the package's recordings, understood and made (asr, tts, audio_caption, tta), else random codes.

    Args:
        model: Not yet quantised; stays as it is.
        config: The setting.
    """
    lm = model.config
    sequences = _random_sequences(config, lm) if config.model is None else _recorded_sequences(config, lm)

    def logits(which: AudioLM) -> tuple[Tensor, Tensor]:
        """Of all drawn frames and of all drawn text ids."""
        audio, text = [], []
        for each in sequences:
            frames, words = (rows.to(model.device) for rows in _drawn(lm, each))
            output = which(
                each.tokens[None].to(model.device),
                each.mask[None].to(model.device),
                audio_targets=frames,
                text_targets=words if len(words) else frames[:1],
            )
            audio.append(output.audio_logits.float())
            text.append(output.text_logits.float()[: len(words)])
        return torch.cat(audio), torch.cat(text)

    reference = AudioLM(lm)
    reference.load_state_dict(model.state_dict())
    exact = logits(reference.to(model.device).float().eval())
    other = reference.to(model.dtype)
    if config.dtype in QUANTIZED_TYPES:
        quantize_weights(other, config.dtype)
    (audio, text), (audio_exact, text_exact) = logits(other), exact
    heard = _compare(text, text_exact) if len(text) else (None, None)
    return Quality(*_compare(audio, audio_exact), *heard)


def _compare(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Share of equal likeliest ids, and root mean square difference in standard deviations of ``exact``."""
    agreement = (found.argmax(-1) == exact.argmax(-1)).float().mean()
    return float(agreement), float((found - exact).square().mean().sqrt() / exact.std())


def _random_sequences(config: BenchConfig, lm: LMConfig) -> list[TokenSequence]:
    """Random codes after a prompt."""
    builder = SequenceBuilder(None, lm.audio, text=lm.text)
    generator = torch.Generator().manual_seed(config.seed + 1)
    prompt = make_prompt(lm, config.prompt_rows, text=False, seed=config.seed)
    shape = (config.frames, lm.audio.num_codebooks)
    tokens, mask = builder.audio_rows(torch.randint(0, lm.audio.streams[0].codebook_size, shape, generator=generator))
    loss_mask = torch.cat((torch.zeros_like(prompt.mask), mask))
    return [TokenSequence(torch.cat((prompt.tokens, tokens)), torch.cat((prompt.mask, mask)), loss_mask, ())]


def _recorded_sequences(config: BenchConfig, lm: LMConfig) -> list[TokenSequence]:
    """The package's recordings with their texts, as training would show them; random codes without a codec."""
    from uniaudio2.api.model import UniAudio2
    from uniaudio2.page.own import load_recordings

    if not open_folder(config.model).has("codec"):
        return _random_sequences(config, lm)
    model = UniAudio2.from_pretrained(config.model, device="cpu")
    table, found = load_recordings(), []
    tasks = {"transcribe": ("transcription", "asr", "tts"), "caption": ("caption", "audio_caption", "tta")}
    for section, (value, *names) in tasks.items():
        for entry in table[section]:
            words = normalise_text(entry["expected"], "en") if lm.prompt_style == "short" else entry["expected"]
            values = {"audio": model.encode(entry["path"]), value: words}
            found += [model.sequences.example(name, values, language="en") for name in names]
    return found


def _drawn(lm: LMConfig, sequence: TokenSequence) -> tuple[Tensor, Tensor]:
    """Positions whose next row is a predicted frame of codes, and those whose next is a predicted word's id."""
    labels, predicted = sequence.tokens[1:], sequence.loss_mask[1:]
    first = labels[:, 0]
    codes = lm.audio.is_code("reasoning", first) | lm.audio.is_code("reconstruction", first)
    special = torch.isin(labels[:, -1], torch.tensor(sorted(lm.text.ids())))
    return (predicted[:, 0] & codes).nonzero()[:, 0], (predicted[:, -1] & ~special).nonzero()[:, 0]


# -- showing -------------------------------------------------------------------------------------------------------
