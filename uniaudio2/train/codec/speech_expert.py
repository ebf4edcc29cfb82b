"""Stage 1: phonemes by CTC, so that the speech expert's last layer says what is spoken.

Shapes: ``B`` batch, ``N`` samples, ``T`` 25 Hz frames, ``D`` width, ``V`` phones.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.codec.codec import ReasoningCodec
from uniaudio2.codec.experts import Expert, SpeechExpert, WhisperExpert
from uniaudio2.codes import SAMPLE_RATE
from uniaudio2.data.manifest import Example
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.tensors import load_tensors, save_tensors
from uniaudio2.text import edit_distance
from uniaudio2.train.codec.base import (
    CodecStage,
    CodecStageConfig,
    known_phones,
    padded,
    phone_inventory,
    trainable_encoder,
)
from uniaudio2.train.config import TrainingError

HEAD_FILE, PHONES_FILE = "speech_head.safetensors", "phones.json"
"""The phoneme head and its inventory, beside the exported expert."""


def warp_mel(mel: Tensor, factors: Tensor, f_max: float, *, f_min: float = 20.0) -> Tensor:
    """Stretch the frequency axis of log-mel frames, as a vocal tract of another length does.

    Source: vocal tract length perturbation (Jaitly and Hinton, 2013): linear up to where the top band stays inside.

    Args:
        mel: Log-mel frames on the HTK scale, (B, T, bands).
        factors: Length of the tract, (B,); what was at f Hz moves to f / factor.
        f_max: Highest edge of the bands, Hz.
        f_min: Lowest edge, Hz.

    Returns:
        (B, T, bands).
    """
    bands = mel.shape[-1]
    low, high = (2595 * math.log10(1 + f / 700) for f in (f_min, f_max))
    step = (high - low) / (bands + 1)
    hz = 700 * (10 ** ((low + step * torch.arange(1, bands + 1, device=mel.device)) / 2595) - 1)
    factors = factors[:, None]
    knee = 0.8 * f_max / factors.clamp(min=1.0)  # above it, a line that ends at f_max
    slope = (f_max - knee * factors) / (f_max - knee)
    source = torch.where(hz <= knee, hz * factors, f_max - slope * (f_max - hz))
    place = ((2595 * torch.log10(1 + source / 700) - low) / step - 1).clamp(0, bands - 1)
    below = place.floor().long().clamp(max=bands - 2)
    share = (place - below)[:, None]
    lower = mel.gather(2, below[:, None].expand_as(mel))
    upper = mel.gather(2, (below + 1)[:, None].expand_as(mel))
    return lower + share * (upper - lower)


@dataclass(frozen=True, kw_only=True)
class SpeechExpertConfig(CodecStageConfig):
    """Stage ``speech_expert``.

    Choice: ``anchor`` keeps the features near those at the start, or near those of another codec's expert, on clips by
    engines whose voices that expert knew: new voices are learned, or another encoder takes over, while what was built
    on the expert (codes, language model) still fits it.
    """

    stage: Literal["speech_expert"] = "speech_expert"
    min_count: int = 30  # phones with fewer uses in the corpus are left out of the inventory
    head_from: str | None = None  # export folder of an earlier run, whose inventory and head go on
    anchor: float = 0.0  # weight of the distance to the features at the start
    anchor_model: str | None = None  # model folder, or the name of a shipped one, whose codec's features those are
    anchor_engines: tuple[str, ...] = ("espeak-ng", "flite", "festival")


class SpeechExpertStage(CodecStage):
    """Phonemes by CTC, two sub-frames per 25 Hz frame (50 Hz), as phones come faster than frames in quick speech.

    Args:
        config: The stage.
        codec: Its encoder for the role "phone" learns.

    Raises:
        TrainingError: If ``head_from`` holds no head, or no clip has a phone of the inventory.
    """

    name = "speech_expert"
    sub_frames = 2
    tract_lengths = (0.84, 1.18)  # vocal tracts, as a share of the speaker's own: few voices must stand for all
    warped_share = 0.6  # of the clips; the others keep their own tract

    def __init__(self, config: SpeechExpertConfig, codec: ReasoningCodec) -> None:
        super().__init__(config, ("speech",))
        self.encoder_name, expert = trainable_encoder(codec, "phone")
        folder = Path(config.head_from) if config.head_from else None
        self.phones = _phones_of(folder) if folder else phone_inventory(self.train_corpus, config.min_count)
        self.ids = {p: i for i, p in enumerate(self.phones)}
        if not any(known_phones(self.train_corpus.examples[i], self.ids) for i in self.sampler.index):
            raise TrainingError(
                f"no phone of the {len(self.sampler.index)} clips is in the inventory of {len(self.phones) - 1}: "
                + ("leave head_from out" if folder else f"lower min_count={config.min_count}, or add labelled speech")
            )
        width = expert.config.width
        self.model = nn.ModuleDict({"part": expert, "head": nn.Linear(width, self.sub_frames * len(self.phones))})
        if folder:
            self.model["head"].load_state_dict(load_tensors(folder / HEAD_FILE))
        self.anchor, self.anchor_engines = config.anchor, frozenset(config.anchor_engines)
        self.before = _anchor(config, expert) if config.anchor else None

    def has_labels(self, example: Example) -> bool:
        """Phones must be known."""
        return bool(example.phonemes)

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N), phone ids padded (B, L), their lengths (B,), whether a clip is anchored (B,)."""
        rows, waves, _ = self.sampler.draw(batch_rng(seed, step))
        examples = [self.train_corpus.examples[i] for i in rows]
        targets = [known_phones(e, self.ids) for e in examples]
        return {
            "audio": torch.from_numpy(waves)[:, None],
            "target": padded(targets),
            "length": torch.tensor([len(t) for t in targets]),
            "known": torch.tensor([e.engine in self.anchor_engines for e in examples]),
        }

    def log_probs(self, audio: Tensor) -> Tensor:
        """(B, 1, N) -> log-probabilities (B, 2 T, V)."""
        expert: Any = self.model["part"]
        return self._head(expert.hidden_states(expert.frames(audio))[-1])

    def _head(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> log-probabilities (B, 2 T, V)."""
        logits = self.model["head"](hidden).unflatten(-1, (self.sub_frames, -1)).flatten(1, 2)
        return logits.float().log_softmax(-1)

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """CTC per phone, and the distance to the features at the start, as a share of their variance."""
        audio = batch["audio"]
        distance = None
        if self.model["part"].training:
            log_probs, distance = self._training_pass(audio, batch["known"])
        else:
            log_probs = self.log_probs(audio)
        frames = torch.full((len(audio),), log_probs.shape[1], device=audio.device)
        loss = F.ctc_loss(
            log_probs.transpose(0, 1), batch["target"], frames, batch["length"], zero_infinity=True, reduction="sum"
        )
        loss = loss / batch["length"].sum().clamp(min=1)
        logs = {"ctc": loss.detach(), "units": audio.numel() / SAMPLE_RATE}
        if distance is not None:
            loss = loss + self.anchor * distance
            logs["anchor"] = distance.detach()
        return loss, logs

    def _training_pass(self, audio: Tensor, known: Tensor) -> tuple[Tensor, Tensor | None]:
        """Other vocal tracts, and stripes of time and of bands blanked (SpecAugment).

        Args:
            audio: (B, 1, N).
            known: Clips that are anchored, (B,).

        Returns:
            Log-probabilities (B, 2 T, V), and the distance from the features that the expert is anchored to, over
            clips with their own tract; they see no stripes. None without an anchor or such clips.
        """
        expert: Any = self.model["part"]
        frames = expert.frames(audio)
        own = torch.ones_like(known)
        if not isinstance(expert, WhisperExpert):  # which has heard vocal tracts enough
            own = torch.rand(len(audio), device=audio.device) >= self.warped_share
            drawn = torch.empty(len(audio), device=audio.device).uniform_(*self.tract_lengths)
            frames = warp_mel(frames, torch.where(own, 1.0, drawn), expert.config.f_max_hz)
        states = expert.hidden_states(_with_stripes(frames))
        anchored = known & own
        if self.before is None or not bool(anchored.any()):
            return self._head(states[-1]), None
        with torch.no_grad():
            before = self.before(audio[anchored])
        now = expert.features([state[anchored] for state in states])
        parts = [F.mse_loss(now[role].float(), was.float()) / was.float().var() for role, was in before.items()]
        return self._head(states[-1]), torch.stack(parts).mean()

    def evaluate(self, step: int) -> dict[str, float]:
        """Phoneme error rate on dev clips, by source."""
        errors: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for example, audio in self.dev_waves(160):
            best = self.log_probs(audio)[0].argmax(-1).tolist()
            said = [p for i, p in enumerate(best) if p and (i == 0 or best[i - 1] != p)]
            target = known_phones(example, self.ids)
            group = f"{example.engine or example.source}_{example.language}"
            errors[group] += edit_distance(target, said)
            total[group] += max(1, len(target))
        rates = {f"per/{g}": errors[g] / total[g] for g in total}
        return {"per": sum(errors.values()) / max(1, sum(total.values())), **rates}

    def export(self, out_dir: Path) -> None:
        """The expert, and its phoneme head for inspection."""
        self.export_part(out_dir, self.model["part"], f"encoders.{self.encoder_name}.")
        save_tensors(out_dir / HEAD_FILE, self.model["head"].state_dict())
        (out_dir / PHONES_FILE).write_text(json.dumps(self.phones, ensure_ascii=False))


def _with_stripes(mel: Tensor) -> Tensor:
    """Blank stripes of time, one per 2 s, and one of bands. Source: SpecAugment (arXiv:1904.08779). (B, T, bands)."""
    b, t, f = mel.shape
    position, band = torch.arange(t, device=mel.device)[None], torch.arange(f, device=mel.device)[None]
    for _ in range(max(1, t // 200)):
        start, width = _draw(t, b, mel), _draw(12, b, mel)
        mel = mel.masked_fill(((position >= start) & (position < start + width))[..., None], 0.0)
    start, width = _draw(f, b, mel), _draw(14, b, mel)
    return mel.masked_fill(((band >= start) & (band < start + width))[:, None], 0.0)


def _draw(limit: int, rows: int, like: Tensor) -> Tensor:
    return torch.randint(0, limit, (rows, 1), device=like.device)


def _anchor(config: SpeechExpertConfig, expert: Expert) -> SpeechExpert:
    """The expert whose features are to be kept: as it is now, or another codec's.

    Raises:
        TrainingError: If that codec's expert gives features of other widths.
    """
    if config.anchor_model is None:
        return copy.deepcopy(expert).requires_grad_(False).eval()  # pyright: ignore[reportReturnType]
    codec = ReasoningCodec.from_pretrained(config.anchor_model)
    other = codec.encoders[codec.roles["phone"][0]]
    if not isinstance(other, SpeechExpert) or other.feature_info != expert.feature_info:
        raise TrainingError(
            f"{config.anchor_model}: its expert gives other features than the one that is to be trained"
        )
    return other.float().freeze()


def _phones_of(folder: Path) -> list[str]:
    """The inventory of an earlier run."""
    for name in (HEAD_FILE, PHONES_FILE):
        if not (folder / name).is_file():
            raise TrainingError(f"{folder} holds no {name}: give the export folder of a speech_expert run")
    return json.loads((folder / PHONES_FILE).read_text(encoding="utf-8"))
