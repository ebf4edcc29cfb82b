"""Stage 4: the reasoning branch, by text from nothing but its quantised codes.

Shapes: ``B`` batch, ``N`` samples, ``T`` reasoning frames (5 Hz), ``L`` text tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE
from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.text_decoder import CTC_SIZE, TextDecoder, TextDecoderConfig
from uniaudio2.codes import REASONING_HOP, SAMPLE_RATE
from uniaudio2.config import dump_config
from uniaudio2.data.manifest import Example
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.tensors import save_tensors
from uniaudio2.text import edit_distance
from uniaudio2.tokenizer import TextTokenizer
from uniaudio2.train.codec.base import (
    CodecStage,
    CodecStageConfig,
    known_phones,
    load_parts,
    padded,
    phone_inventory,
)


@dataclass(frozen=True, kw_only=True)
class ReasoningStageConfig(CodecStageConfig):
    """Stage ``reasoning``."""

    stage: Literal["reasoning"] = "reasoning"
    quantize_after: int = 0  # steps before the codebooks are set, on vectors that already mean something
    text_decoder: str | None = None  # the text decoder of an earlier run of the stage
    # Choice: what leads to a code may learn on, while every code goes on to mean the same vector.
    freeze_codebooks: bool = False
    tokenizer: str | None = None  # tokenizer.json; the shipped one when null


class ReasoningStage(CodecStage):
    """Transcripts and captions from nothing but the quantised reasoning codes.

    Choice: besides the decoder's cross-entropy a CTC loss on the phones of the same quantised vectors, because a
    decoder trained from nothing first learns to babble; the CTC loss makes the codes carry the sounds of the words in
    order from the first steps. Phones, not letters: the experts' features say them almost linearly, and spelling
    (Chinese above all) is then left to the decoder.
    """

    name = "reasoning"
    ctc_weight, commitment_weight = 0.5, 0.5

    def __init__(self, config: ReasoningStageConfig, codec: ReasoningCodec) -> None:
        super().__init__(config)
        self.quantize_after, self.freeze_codebooks = config.quantize_after, config.freeze_codebooks
        tokenizer = TextTokenizer.load(config.tokenizer or DEFAULT_FOLDER / TOKENIZER_FILE)
        self.codec, self.tokenizer = codec.eval().requires_grad_(False), tokenizer
        codec.reasoning.requires_grad_(True)
        if config.freeze_codebooks:
            codec.reasoning.quantizer.requires_grad_(False)
        self.text_config = TextDecoderConfig(
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.tokens.bos,
            eos_id=tokenizer.tokens.eos,
            condition_dim=codec.config.reasoning.dim,
        )
        decoder = TextDecoder(self.text_config)
        self.phones = phone_inventory(self.train_corpus, limit=CTC_SIZE - 1)
        if config.text_decoder is not None:
            loaded = load_parts(decoder, [config.text_decoder])
            if not any(name.startswith("ctc_head.") for name in loaded):
                self.ctc_weight = 0.0  # a model folder's decoder: a new head would disturb it
            # Its CTC head says the phones of its own corpus, in their order.
            listed = Path(config.text_decoder).parent / "phones.json"
            self.phones = json.loads(listed.read_text()) if listed.is_file() else self.phones
        self.model = nn.ModuleDict({"part": codec.reasoning, "text": decoder})
        self.phone_ids = {p: i for i, p in enumerate(self.phones)}

    def has_labels(self, example: Example) -> bool:
        """A transcript or a caption must be known."""
        return bool(example.text if example.kind == "speech" else example.caption)

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves, numbers of their examples, reasoning frames, text tokens with begin and end, phones where known."""
        rng = batch_rng(seed, step)
        rows, waves, lengths = self.sampler.draw(rng)
        examples = [self.train_corpus.examples[i] for i in rows]
        texts = [self._text(e, rng) for e in examples]
        spoken = [known_phones(e, self.phone_ids) for e in examples]
        return {
            "audio": torch.from_numpy(waves)[:, None],
            "rows": torch.tensor(rows),
            "frames": torch.tensor([n // REASONING_HOP + 1 for n in lengths]),
            **self._targets(texts, spoken),
        }

    def _text(self, example: Example, rng: np.random.Generator | None = None) -> str:
        if example.kind == "speech":
            return example.text or ""
        phrasings = [example.caption or "", *example.captions]
        return phrasings[int(rng.integers(len(phrasings)))] if rng else phrasings[0]

    def _targets(self, texts: list[str], spoken: list[list[int]]) -> dict[str, Tensor]:
        config = self.text_config
        ids = [
            [config.bos_id, *self.tokenizer.encode(t, special=False)[: config.max_tokens - 1], config.eos_id]
            for t in texts
        ]
        return {
            "tokens": padded(ids, -100),
            "phones": padded(spoken),
            "num_phones": torch.tensor([len(p) for p in spoken]),
        }

    @torch.no_grad()
    def features(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """What the reasoning branch reads."""
        return self.codec.extract_features(batch["audio"], roles=self.codec.config.reasoning.inputs)

    def vectors(self, features: dict[str, Tensor], *, quantize: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Reasoning vectors (B, T, D), commitment loss and perplexities."""
        part: Any = self.model["part"]
        if self.freeze_codebooks:
            part.quantizer.levels.eval()  # codebooks learn by running means in training mode
        if quantize:
            out = part(features)
            return out.quantized, out.commitment_loss, out.perplexity
        projections = part.quantizer
        quantized = projections.project_out(projections.project_in(part.encode_queries(features)))
        return quantized, quantized.new_zeros(()), quantized.new_zeros(len(projections.levels))

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Text + CTC + commitment."""
        return self.supervised(batch, self.vectors(self.features(batch), quantize=step >= self.quantize_after))

    def supervised(
        self, batch: dict[str, Any], vectors: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropy per token + CTC per phone + commitment, of what :meth:`vectors` gave."""
        quantized, commitment, perplexity = vectors
        frames = batch["frames"].clamp(max=quantized.shape[1])
        text: Any = self.model["text"]
        memory, mask = text.read(quantized, frames)
        tokens = batch["tokens"]
        logits = text.logits(tokens[:, :-1].clamp(min=0), memory, mask)
        cross_entropy = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=-100)
        logs: dict[str, float | Tensor] = {"text": cross_entropy.detach(), "commitment": commitment.detach()}
        loss = cross_entropy + self.commitment_weight * commitment
        if self.ctc_weight > 0:
            ctc = self._ctc(text.ctc_logits(memory).float().log_softmax(-1), frames, batch)
            logs["ctc"], loss = ctc.detach(), loss + self.ctc_weight * ctc
        logs |= {f"perplexity/{k}": v for k, v in enumerate(perplexity.tolist())}
        return loss, {**logs, "units": batch["audio"].numel() / SAMPLE_RATE}

    def _ctc(self, log_probs: Tensor, frames: Tensor, batch: dict[str, Any]) -> Tensor:
        """CTC loss per phone of log-probabilities (B, sub_frames T, V), over clips whose phones are known."""
        spoken, counts = batch["num_phones"] > 0, batch["num_phones"]
        if not bool(spoken.any()):
            return log_probs.new_zeros(())
        steps = (frames * self.text_config.sub_frames)[spoken]
        inputs = (log_probs[spoken].transpose(0, 1), batch["phones"][spoken], steps, counts[spoken])
        return F.ctc_loss(*inputs, zero_infinity=True, reduction="sum") / counts.sum().clamp(min=1)

    def evaluate(self, step: int) -> dict[str, float]:
        """Word or character errors of speech and caption hits of sounds, right and with codes of another clip."""
        items = self.dev_waves(64, crop_s=self.clips.max_clip_s)
        text: Any = self.model["text"]
        sums: dict[str, list[float]] = {}
        vectors = [self.model["part"](self.codec.extract_features(audio)).quantized[0] for _, audio in items]
        frames = torch.tensor([len(v) for v in vectors], device=self.device)
        memory = nn.utils.rnn.pad_sequence(vectors, batch_first=True)
        for kind, shift in (("", 0), ("shuffled/", 1)):
            texts = text.generate(memory.roll(shift, 0), frames.roll(shift, 0))
            for (example, _), ids in zip(items, texts, strict=True):
                said = self.tokenizer.decode(ids).strip()
                if example.kind != "speech":
                    hit = said in (example.caption, *example.captions)
                    sums.setdefault(f"{kind}caption_hit", []).append(float(hit))
                    continue
                true = (example.text or "").split() if example.language == "en" else list(example.text or "")
                guess = said.split() if example.language == "en" else list(said)
                group = f"{kind}wer/{'real' if example.engine is None else 'synthetic'}_{example.language}"
                sums.setdefault(group, []).append(edit_distance(true, guess) / max(1, len(true)))
        return {k: float(np.mean(v)) for k, v in sorted(sums.items())}

    def export(self, out_dir: Path) -> None:
        """The reasoning branch, and the text decoder beside it."""
        self.export_part(out_dir, self.model["part"], "reasoning.")
        text = self.model["text"].state_dict()
        if self.ctc_weight == 0:  # the head was never trained
            text = {name: value for name, value in text.items() if not name.startswith("ctc_head.")}
        save_tensors(out_dir / "text_decoder.safetensors", text)
        dump_config(self.text_config, out_dir / "text_decoder.yaml")
        (out_dir / "phones.json").write_text(json.dumps(self.phones, ensure_ascii=False))
