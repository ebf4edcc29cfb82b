"""Codec stages: what trains, on which audio, with which loss.

Five stages, each of which trains one part of `ReasoningCodec` and exports exactly that part's tensors under the
codec's own key names, so that the parts of all stages together are the codec:

1. ``speech_expert``: phonemes by CTC.            2. ``sound_expert``: tags, pitch, loudness, masked mel.
3. ``autoencoder``: spectral distance.            4. ``reasoning``: text from nothing but the quantised codes.
5. ``reconstruction``: flow matching + 0.1 semantic distance + 0.5 commitment (UniAudio 2.0, codec objective).

Shapes: ``B`` batch, ``N`` samples, ``T`` frames, ``D`` width.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from uniaudio2.codec.autoencoder_convnext import ConvNeXtAutoencoder
from uniaudio2.codec.codec import CodecConfig, ReasoningCodec
from uniaudio2.codec.experts import Expert
from uniaudio2.codec.loss import SpectralLoss
from uniaudio2.codec.text_decoder import CTC_SIZE, TextDecoder, TextDecoderConfig
from uniaudio2.config import dump_config, load_config, preset_path
from uniaudio2.data.augment import augment, speed_perturb
from uniaudio2.data.corpus import Corpus
from uniaudio2.data.manifest import Example
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.errors import UserError
from uniaudio2.text import edit_distance
from uniaudio2.tokenizer import TextTokenizer
from uniaudio2.train.loop import TrainConfig, Trainer
from uniaudio2.train.state import save_tensors

SAMPLE_RATE = 24000
SHIPPED_TOKENIZER = Path(__file__).parents[2] / "weights" / "nano" / "tokenizer.json"
UNIT = 9600  # samples; the shortest piece that both code rates divide


@dataclass(frozen=True)
class ClipConfig:
    """Which audio a stage sees and how it is changed."""

    corpus: str  # folder with manifest.jsonl; several separated by commas
    batch_seconds: float = 48.0  # audio per micro-batch
    max_clip_s: float = 8.0  # longer clips are left out (or cropped, where crop_s is set)
    min_clip_s: float = 0.15
    crop_s: float | None = None  # > 0: random pieces of this length instead of whole clips
    augment_probability: float = 0.6  # share of clips with noise, reverberation, band limits, …
    speed_probability: float = 0.3  # share of clips played at 0.87 to 1.15 times their speed
    real_weight: float = 4.0  # how much more often a second of a real recording is drawn than one of synthesis
    sound_weight: float = 2.0  # the same for sounds and music
    shares: dict[str, float] = field(default_factory=dict)  # further weights by source, engine or language


class ClipSampler:
    """Draws batches of clips of similar length; batch ``i`` is a function of (seed, i) alone.

    Args:
        corpus: Where the waves are.
        keep: Indices of the examples to draw from.
        config: Lengths, weights and changes.
    """

    def __init__(self, corpus: Corpus, keep: Sequence[int], config: ClipConfig) -> None:
        if not keep:
            raise UserError("no clip of the corpus fits this stage: check the manifest's texts, kinds and durations")
        self.corpus, self.config = corpus, config
        self.index = np.asarray(keep)
        examples = [corpus.examples[i] for i in keep]
        self.seconds = np.asarray([e.duration for e in examples])
        length = np.minimum(self.seconds, config.crop_s or np.inf)
        weight = np.asarray([self._weight(e) for e in examples]) * (length if config.crop_s else 1.0)
        self.cumulative = np.cumsum(weight / weight.sum())

    def _weight(self, example: Example) -> float:
        config = self.config
        weight = 1.0
        if example.engine is None and example.kind == "speech":
            weight *= config.real_weight
        if example.kind != "speech":
            weight *= config.sound_weight
        for name in (example.source, example.engine, example.language):
            weight *= config.shares.get(name or "", 1.0)
        return weight

    def draw(self, rng: np.random.Generator) -> tuple[list[int], np.ndarray, list[int]]:
        """A batch: corpus indices, zero-padded waves (B, N), float32, N a multiple of 9600, and their own lengths."""
        config = self.config
        if config.crop_s:
            size = max(1, round(config.batch_seconds / config.crop_s))
            chosen = np.searchsorted(self.cumulative, rng.random(size)).clip(max=len(self.index) - 1)
        else:
            mean = float(np.mean(self.seconds))
            pool = np.searchsorted(self.cumulative, rng.random(max(8, int(6 * config.batch_seconds / mean))))
            pool = pool.clip(max=len(self.index) - 1)
            pool = pool[np.argsort(self.seconds[pool], kind="stable")]
            start = int(rng.integers(len(pool)))
            chosen, longest = [], 0.0
            for row in pool[start:]:
                longest = max(longest, float(self.seconds[row]))
                if chosen and longest * (len(chosen) + 1) > config.batch_seconds:
                    break
                chosen.append(row)
            chosen = np.asarray(chosen)
        rows = [int(self.index[c]) for c in chosen]
        waves = [self.change(self.corpus.wave(i), rng) for i in rows]
        unit = UNIT if not config.crop_s else int(config.crop_s * SAMPLE_RATE)
        longest = max(len(w) for w in waves)
        batch = np.zeros((len(rows), -(-longest // unit) * unit), np.float32)
        for row, wave in enumerate(waves):
            batch[row, : len(wave)] = wave
        return rows, batch, [len(w) for w in waves]

    def change(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Crop, speed, gain and augment one wave (N,)."""
        config = self.config
        if config.crop_s:
            size = int(config.crop_s * SAMPLE_RATE)
            if len(wave) > size:
                start = int(rng.integers(len(wave) - size + 1))
                wave = wave[start : start + size]
        if rng.random() < config.speed_probability:
            wave = speed_perturb(wave, float(rng.uniform(0.87, 1.15)))
            if config.crop_s:
                wave = wave[: int(config.crop_s * SAMPLE_RATE)]
        elif not config.crop_s and rng.random() < 0.3:
            wave = np.pad(wave, (int(rng.integers(7200)), int(rng.integers(7200))))
        if rng.random() < config.augment_probability:
            bank = None
            if rng.random() < 0.5:
                other = self.corpus.wave(int(self.index[rng.integers(len(self.index))]))
                bank = [other]
            wave = augment(wave, rng, noise_bank=bank, strength=1.0)
        peak = float(np.abs(wave).max()) if len(wave) else 0.0
        gain = 10 ** (rng.uniform(-8, 6) / 20)
        return (wave * min(gain, 0.98 / max(peak, 1e-4))).astype(np.float32)


def real_share(corpus: Corpus, sampler: ClipSampler) -> float:
    """Share of drawn clips that are real recordings or augmented, for the log."""
    weights = np.diff(sampler.cumulative, prepend=0)
    real = np.asarray([corpus.examples[i].engine is None for i in sampler.index])
    share = float((weights * real).sum())
    return share + (1 - share) * sampler.config.augment_probability


class CodecStage:
    """What all codec stages share: corpus, sampler, frozen parts, export by key prefix."""

    name = "codec"
    model: nn.ModuleDict

    def __init__(
        self, clips: ClipConfig, keep_kinds: Iterable[str], *, needs: Callable[[Example], Any] = lambda e: True
    ) -> None:
        self.clips = clips
        self.train_corpus = Corpus(clips.corpus, "train")
        self.dev_corpus = Corpus(clips.corpus, "dev")
        kinds = set(keep_kinds)
        limit = 1e9 if clips.crop_s else clips.max_clip_s

        def fits(example: Example) -> bool:
            """Whether the stage can learn from an example."""
            return bool(needs(example)) and example.kind in kinds and clips.min_clip_s <= example.duration <= limit

        self.fits = fits
        self.sampler = ClipSampler(
            self.train_corpus, [i for i, e in enumerate(self.train_corpus.examples) if fits(e)], clips
        )

    def parameters_to_train(self) -> Iterable[nn.Parameter]:
        """Every parameter of ``model``."""
        return self.model.parameters()

    def dev_waves(
        self, count: int, *, seed: int = 0, crop_s: float = 8.0, where: Any = None
    ) -> list[tuple[Example, Tensor]]:
        """``count`` fixed dev clips, spread over sources, as (example, audio (1, 1, N)), N a multiple of 9600."""
        groups: dict[str, list[int]] = {}
        for i, e in enumerate(self.dev_corpus.examples):
            if self.fits(e) and (where is None or where(e)):
                groups.setdefault(f"{e.source}/{e.engine}/{e.language}", []).append(i)
        rng = np.random.default_rng(seed)
        order = [list(rng.permutation(g)) for _, g in sorted(groups.items())]
        chosen = [g.pop() for _ in range(count) for g in order if g][:count]
        out = []
        for i in chosen:
            wave = self.dev_corpus.wave(int(i))[: int(crop_s * SAMPLE_RATE)]
            wave = np.pad(wave, (0, -len(wave) % UNIT))
            out.append((self.dev_corpus.examples[int(i)], torch.from_numpy(wave.copy())[None, None]))
        return out

    def export_part(self, out_dir: Path, module: nn.Module, prefix: str) -> None:
        """Write one part's tensors as ``out_dir/<stage>.safetensors`` under the codec's key names."""
        out_dir.mkdir(parents=True, exist_ok=True)
        tensors = {f"{prefix}{name}": value for name, value in module.state_dict().items()}
        save_tensors(tensors, out_dir / f"{self.name}.safetensors")


# ------------------------------------------------------------------------------------------------ 1 speech expert


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
    hz = 700 * (10 ** ((low + step * torch.arange(1, bands + 1)) / 2595) - 1)
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


def phone_inventory(corpus: Corpus, min_count: int = 30, limit: int | None = None) -> list[str]:
    """The blank, then the ``limit`` most frequent phones of at least ``min_count`` uses, in alphabetical order."""
    counts = Counter(p for e in corpus.examples if e.phonemes for p in e.phonemes.split())
    return ["<blank>", *sorted(p for p, n in counts.most_common(limit) if n >= min_count)]


class SpeechExpertStage(CodecStage):
    """Phonemes by CTC, two sub-frames per 25 Hz frame (50 Hz), as phones come faster than frames in quick speech.

    Args:
        clips: Which audio, how changed.
        expert: What learns.
        min_count: Rarer phones are left out of the inventory.
        head_from: Export folder of an earlier run, whose inventory and head go on.
        anchor: Weight of the distance to the features that ``expert`` begins with, on clips by the engines in
            ``anchor_engines``. Choice: new voices are learned while what was built on the expert (codes, language
            model) still fits it.
        anchor_engines: Engines whose voices the expert knew before.

    Raises:
        ValueError: If ``head_from`` holds no head.
    """

    name = "speech_expert"
    sub_frames = 2
    tract_lengths = (0.84, 1.18)  # vocal tracts, as a share of the speaker's own: few voices must stand for all
    warped_share = 0.6  # of the clips; the others keep their own tract

    def __init__(
        self,
        clips: ClipConfig,
        expert: Expert,
        *,
        min_count: int = 30,
        head_from: str | Path | None = None,
        anchor: float = 0.0,
        anchor_engines: Sequence[str] = ("espeak-ng", "flite", "festival"),
    ) -> None:
        super().__init__(clips, ("speech",), needs=lambda e: e.phonemes)
        folder = Path(head_from) if head_from else None
        if folder:
            for name in ("speech_head.safetensors", "phones.json"):
                if not (folder / name).is_file():
                    raise UserError(f"{folder} holds no {name}: give the export folder of a speech_expert run")
            self.phones: list[str] = json.loads((folder / "phones.json").read_text())
        else:
            self.phones = phone_inventory(self.train_corpus, min_count)
        self.ids = {p: i for i, p in enumerate(self.phones)}
        width = expert.config.width
        self.model = nn.ModuleDict({"part": expert, "head": nn.Linear(width, self.sub_frames * len(self.phones))})
        if folder:
            self.model["head"].load_state_dict(load_file(folder / "speech_head.safetensors"))
        self.anchor, self.anchor_engines = anchor, frozenset(anchor_engines)
        self.before = copy.deepcopy(expert).requires_grad_(False).eval() if anchor else None

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N), phone ids padded (B, L), their lengths (B,), whether a clip is anchored (B,)."""
        rows, waves, _ = self.sampler.draw(batch_rng(seed, step))
        targets = [self._target(self.train_corpus.examples[i]) for i in rows]
        lengths = torch.tensor([len(t) for t in targets])
        padded = torch.zeros(len(rows), max(1, int(lengths.max())), dtype=torch.long)
        for row, target in enumerate(targets):
            padded[row, : len(target)] = torch.tensor(target, dtype=torch.long)
        known = torch.tensor([self.train_corpus.examples[i].engine in self.anchor_engines for i in rows])
        return {"audio": torch.from_numpy(waves)[:, None], "target": padded, "length": lengths, "known": known}

    def _target(self, example: Example) -> list[int]:
        return [self.ids[p] for p in (example.phonemes or "").split() if p in self.ids]

    def log_probs(self, audio: Tensor) -> Tensor:
        """(B, 1, N) -> log-probabilities (B, 2 T, V)."""
        hidden = self.model["part"](audio)["phone"]
        logits = self.model["head"](hidden).unflatten(-1, (self.sub_frames, -1)).flatten(1, 2)
        return logits.float().log_softmax(-1)

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """CTC per phone, and the distance to the features at the start, as a share of their variance."""
        audio = batch["audio"]
        mel_expert: Any = self.model["part"]
        distance = None
        if mel_expert.training:
            log_probs, distance = self._training_pass(audio, batch["known"])
        else:
            log_probs = self.log_probs(audio)
        frames = torch.full((len(audio),), log_probs.shape[1])
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
            Log-probabilities (B, 2 T, V), and the distance from the features that the expert began with, over clips
            with their own tract; it sees no stripes. None without an anchor or such clips.
        """
        expert: Any = self.model["part"]
        warped = torch.rand(len(audio)) < self.warped_share
        lengths = torch.where(warped, torch.empty(len(audio)).uniform_(*self.tract_lengths), 1.0)
        mel = warp_mel(expert.mel(audio), lengths, expert.config.f_max_hz)
        before, anchored = None, known & ~warped
        if self.before is not None and bool(anchored.any()):
            with torch.no_grad():
                before = self.before.hidden_states(mel[anchored])
        b, t, f = mel.shape
        for _ in range(max(1, t // 200)):
            start = torch.randint(0, t, (b, 1))
            width = torch.randint(0, 12, (b, 1))
            position = torch.arange(t)[None]
            mel = mel.masked_fill(((position >= start) & (position < start + width))[..., None], 0.0)
        start, width = torch.randint(0, f, (b, 1)), torch.randint(0, 14, (b, 1))
        band = torch.arange(f)[None]
        mel = mel.masked_fill(((band >= start) & (band < start + width))[:, None], 0.0)
        states = expert.hidden_states(mel)
        logits = self.model["head"](states[-1]).unflatten(-1, (self.sub_frames, -1)).flatten(1, 2)
        distance = None
        if before is not None:
            # The two layers that `SpeechExpert` hands on.
            parts = [(states[i][anchored].float(), before[i].float()) for i in (len(states) // 2, len(states) - 1)]
            distance = torch.stack([F.mse_loss(now, was) / was.var() for now, was in parts]).mean()
        return logits.float().log_softmax(-1), distance

    def evaluate(self, step: int) -> dict[str, float]:
        """Phoneme error rate on dev clips, by source."""
        errors: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for example, audio in self.dev_waves(160):
            best = self.log_probs(audio)[0].argmax(-1).tolist()
            said = [p for i, p in enumerate(best) if p and (i == 0 or best[i - 1] != p)]
            target = self._target(example)
            group = f"{example.engine or example.source}_{example.language}"
            errors[group] += edit_distance(target, said)
            total[group] += max(1, len(target))
        rates = {f"per/{g}": errors[g] / total[g] for g in total}
        return {"per": sum(errors.values()) / max(1, sum(total.values())), **rates}

    def export(self, out_dir: Path) -> None:
        """The expert, and its phoneme head for inspection."""
        self.export_part(out_dir, self.model["part"], "encoders.speech_expert.")
        save_tensors(self.model["head"].state_dict(), out_dir / "speech_head.safetensors")
        (out_dir / "phones.json").write_text(json.dumps(self.phones, ensure_ascii=False))


# ------------------------------------------------------------------------------------------------- 2 sound expert

PITCH_BINS = 48  # from 60 to 600 Hz, plus one for "no pitch"


def pitch_and_level(audio: Tensor) -> tuple[Tensor, Tensor]:
    """Targets that every waveform carries.

    Args:
        audio: (B, 1, N), N a multiple of 960.

    Returns:
        Pitch bin (B, T) in [0, 48], 0 for no pitch, by the autocorrelation of 85 ms around each 25 Hz frame; log level
        (B, T, 4) of each 100 Hz quarter frame.
    """
    x = audio[:, 0]
    frames = F.pad(x, (544, 544)).unfold(1, 2048, 960) * torch.hann_window(2048)
    power = torch.fft.rfft(frames, 4096).abs().square()
    correlation = torch.fft.irfft(power)[..., :401]
    correlation = correlation / correlation[..., :1].clamp(min=1e-6)
    # The window's own fall-off is divided out, so that low and high pitches compete fairly.
    window = torch.fft.irfft(torch.fft.rfft(torch.hann_window(2048), 4096).abs().square())[:401]
    correlation = correlation / (window / window[0])
    lags = torch.arange(40, 401)
    # Choice: a small cost for long periods, because a periodic sound repeats at every multiple of its period.
    lag = (correlation[..., 40:] - 0.1 * lags / 400).argmax(-1, keepdim=True)
    best, lag = correlation[..., 40:].gather(-1, lag)[..., 0], lag[..., 0]
    hertz = SAMPLE_RATE / (lag + 40).float()
    bins = 1 + (torch.log2(hertz / 60) / np.log2(10) * PITCH_BINS).long().clamp(0, PITCH_BINS - 1)
    level = x.unfold(1, 240, 240).square().mean(-1).clamp(min=1e-7).log().unflatten(1, (-1, 4))
    loud = level.mean(-1) > np.log(1e-5)
    return torch.where((best > 0.6) & loud, bins, 0), (level + 7) / 4


class SoundExpertStage(CodecStage):
    """Tags of the clip; pitch, level and the masked part of the mel of every frame."""

    name = "sound_expert"

    def __init__(self, clips: ClipConfig, expert: Expert, *, min_count: int = 4) -> None:
        super().__init__(clips, ("speech", "sound", "music"))
        counts = Counter(t for e in self.train_corpus.examples for t in self.tags(e))
        self.labels = sorted(t for t, n in counts.items() if n >= min_count)
        self.ids = {t: i for i, t in enumerate(self.labels)}
        width = expert.config.width
        self.model = nn.ModuleDict(
            {
                "part": expert,
                "tag": nn.Linear(width, len(self.labels)),
                "attention": nn.Linear(width, len(self.labels)),
                "pitch": nn.Linear(width, PITCH_BINS + 1),
                "level": nn.Linear(width, 4),
                "mel": nn.Linear(width, 4 * expert.config.num_bands),
            }
        )

    @staticmethod
    def tags(example: Example) -> list[str]:
        """What the clip is: its sound classes, or speech with language and voice kind."""
        if example.kind == "speech":
            return ["speech", f"language_{example.language}"]
        return list(example.labels) or ([example.label] if example.label else [])

    def _target(self, example: Example) -> np.ndarray:
        target = np.zeros(len(self.labels), np.float32)
        for tag in self.tags(example):
            if tag in self.ids:
                target[self.ids[tag]] = 1
        return target

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N) and tags (B, C); every fourth clip is mixed with its neighbour."""
        rng = batch_rng(seed, step)
        rows, waves, _ = self.sampler.draw(rng)
        target = np.stack([self._target(self.train_corpus.examples[i]) for i in rows])
        for i in range(0, len(rows) - 1, 4):
            waves[i] = waves[i] + waves[i + 1] * 10 ** (rng.uniform(-6, 3) / 20)
            target[i] = np.maximum(target[i], target[i + 1])
        peak = np.abs(waves).max(1, keepdims=True)
        waves = waves / np.maximum(1.0, peak / 0.98)
        return {"audio": torch.from_numpy(waves.astype(np.float32))[:, None], "target": torch.from_numpy(target)}

    def tag_logits(self, hidden: Tensor) -> Tensor:
        """Per-class attention pooling of (B, T, D) -> (B, C)."""
        weight = self.model["attention"](hidden).float().softmax(1)
        return (weight * self.model["tag"](hidden).float()).sum(1)

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Tags + pitch + level + masked mel, with stripes of time and of bands blanked."""
        audio = batch["audio"]
        expert: Any = self.model["part"]
        mel = expert.mel(audio)
        b, t4, _ = mel.shape
        t = t4 // 4
        masked = torch.rand(b, -(-t // 5), 1).expand(-1, -1, 5).flatten(1)[:, :t] < 0.15  # spans of 0.2 s
        heard = mel.masked_fill(masked.repeat_interleave(4, 1)[..., None], 0.0)
        band, low = torch.arange(mel.shape[2]), torch.randint(0, mel.shape[2], (b, 1))
        stripe = (band >= low) & (band < low + torch.randint(0, 16, (b, 1)))
        hidden = expert.hidden_states(heard.masked_fill(stripe[:, None], 0.0))[-1]
        pitch, level = pitch_and_level(audio)
        tag_loss = F.binary_cross_entropy_with_logits(self.tag_logits(hidden), batch["target"], reduction="sum") / b
        pitch_loss = F.cross_entropy(self.model["pitch"](hidden).float().flatten(0, 1), pitch.flatten())
        level_loss = F.mse_loss(self.model["level"](hidden).float(), level)
        guess = self.model["mel"](hidden).float()
        distance = (guess - mel.reshape(b, t, -1)).abs().mean(-1)
        mel_loss = distance[masked].mean() if bool(masked.any()) else distance.mean()
        loss = tag_loss + 0.5 * pitch_loss + level_loss + mel_loss
        parts = {"tag": tag_loss, "pitch": pitch_loss, "level": level_loss, "mel": mel_loss}
        return loss, {**{k: v.detach() for k, v in parts.items()}, "units": audio.numel() / SAMPLE_RATE}

    def evaluate(self, step: int) -> dict[str, float]:
        """Share of ESC-10 dev clips whose best sound class is right."""
        right: list[bool] = []
        for example, audio in self.dev_waves(120, where=lambda e: e.source == "esc10"):
            scores = self.tag_logits(self.model["part"](audio)["semantic"])[0]
            right.append(self.labels[int(scores.argmax())] in self.tags(example))
        return {"esc10_accuracy": float(np.mean(right)) if right else 0.0}

    def export(self, out_dir: Path) -> None:
        """The expert."""
        self.export_part(out_dir, self.model["part"], "encoders.sound_expert.")
        (out_dir / "labels.json").write_text(json.dumps(self.labels, ensure_ascii=False))


# -------------------------------------------------------------------------------------------------- 3 autoencoder


class AutoencoderStage(CodecStage):
    """Spectral distance at four resolutions, with noise on the latents."""

    name = "autoencoder"

    def __init__(self, clips: ClipConfig, autoencoder: ConvNeXtAutoencoder, *, freeze_encoder: bool = False) -> None:
        super().__init__(clips, ("speech", "sound", "music"))
        self.model = nn.ModuleDict({"part": autoencoder})
        if freeze_encoder:
            # Choice: the decoder may learn on after codes are made, because the latents they stand for stay the same.
            for name in autoencoder.encoding_parts:
                autoencoder.get_submodule(name).requires_grad_(False)
        self.spectral = SpectralLoss()

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N)."""
        return {"audio": torch.from_numpy(self.sampler.draw(batch_rng(seed, step))[1])[:, None]}

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Distance of the decoded from the given waveform."""
        audio = batch["audio"]
        autoencoder: Any = self.model["part"]
        latents = autoencoder.encode(audio)
        loss = self.spectral(autoencoder.decode(latents), audio)
        spread = latents.detach().float().std()
        return loss, {"spectral": loss.detach(), "latent_std": spread, "units": audio.numel() / SAMPLE_RATE}

    def evaluate(self, step: int) -> dict[str, float]:
        """STOI and spectral distance on dev clips, synthetic and real speech apart."""
        autoencoder: Any = self.model["part"]
        clips = self.dev_waves(40, crop_s=4.0)
        return score_waves([(e, a, autoencoder.decode(autoencoder.encode(a)).float()) for e, a in clips], self.spectral)

    def export(self, out_dir: Path) -> None:
        """The autoencoder."""
        self.export_part(out_dir, self.model["part"], "autoencoder.")


def score_waves(items: Sequence[tuple[Example, Tensor, Tensor]], spectral: SpectralLoss) -> dict[str, float]:
    """Mean STOI of speech and spectral distance of all, by synthetic, real and sound."""
    from pystoi import stoi

    sums: dict[str, list[float]] = {}
    for example, clean, decoded in items:
        group = "sound" if example.kind != "speech" else ("real" if example.engine is None else "synthetic")
        sums.setdefault(f"spectral/{group}", []).append(float(spectral(decoded, clean)))
        if group != "sound" and clean.shape[-1] > SAMPLE_RATE * 0.7:
            sums.setdefault(f"stoi/{group}", []).append(
                float(stoi(clean[0, 0].numpy(), decoded[0, 0].numpy(), SAMPLE_RATE))
            )
    return {k: float(np.mean(v)) for k, v in sorted(sums.items())}


# ---------------------------------------------------------------------------------------------------- 4 reasoning


class ReasoningStage(CodecStage):
    """Transcripts and captions from nothing but the quantised reasoning codes.

    Choice: besides the decoder's cross-entropy a CTC loss on the phones of the same quantised vectors, because a
    decoder trained from nothing first learns to babble; the CTC loss makes the codes carry the sounds of the words in
    order from the first steps. Phones, not letters: the experts' features say them almost linearly, and spelling
    (Chinese above all) is then left to the decoder.
    """

    name = "reasoning"
    ctc_weight, commitment_weight = 0.5, 0.5

    def __init__(
        self,
        clips: ClipConfig,
        codec: ReasoningCodec,
        tokenizer: TextTokenizer,
        *,
        quantize_after: int = 0,
        text_decoder: str | Path | None = None,
        freeze_codebooks: bool = False,
    ) -> None:
        self.quantize_after, self.freeze_codebooks = quantize_after, freeze_codebooks
        super().__init__(
            clips, ("speech", "sound", "music"), needs=lambda e: e.text if e.kind == "speech" else e.caption
        )
        self.codec, self.tokenizer = codec.eval().requires_grad_(False), tokenizer
        codec.reasoning.requires_grad_(True)
        if freeze_codebooks:
            # Choice: what leads to a code may learn on, while every code goes on to mean the same vector.
            codec.reasoning.quantizer.requires_grad_(False)
        config = TextDecoderConfig(
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.tokens.bos,
            eos_id=tokenizer.tokens.eos,
            condition_dim=codec.config.reasoning.dim,
        )
        self.text_config = config
        decoder = TextDecoder(config)
        self.phones = phone_inventory(self.train_corpus, limit=CTC_SIZE - 1)
        if text_decoder is not None:
            load_parts(decoder, [text_decoder])
            # Its CTC head says the phones of its own corpus, in their order.
            listed = Path(text_decoder).parent / "phones.json"
            self.phones = json.loads(listed.read_text()) if listed.is_file() else self.phones
        self.model = nn.ModuleDict({"part": codec.reasoning, "text": decoder})
        self.phone_ids = {p: i for i, p in enumerate(self.phones)}

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves, reasoning frames per row, text tokens with begin and end, phones of speech where they are known."""
        rng = batch_rng(seed, step)
        rows, waves, lengths = self.sampler.draw(rng)
        examples = [self.train_corpus.examples[i] for i in rows]
        texts = [self._text(e, rng) for e in examples]
        spoken = [[self.phone_ids[p] for p in (e.phonemes or "").split() if p in self.phone_ids] for e in examples]
        return {
            "audio": torch.from_numpy(waves)[:, None],
            "frames": torch.tensor([n // 4800 + 1 for n in lengths]),
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
        tokens = torch.full((len(ids), max(map(len, ids))), -100)
        for row, item in enumerate(ids):
            tokens[row, : len(item)] = torch.tensor(item)
        padded = torch.zeros(len(ids), max(1, *map(len, spoken)), dtype=torch.long)
        for row, item in enumerate(spoken):
            padded[row, : len(item)] = torch.tensor(item, dtype=torch.long)
        return {"tokens": tokens, "phones": padded, "num_phones": torch.tensor([len(p) for p in spoken])}

    def losses(self, batch: dict[str, Any], *, shuffle: bool = False, quantize: bool = True) -> dict[str, Tensor]:
        """Cross-entropy per token, CTC per phone, commitment, perplexity; ``shuffle`` swaps the codes between clips."""
        with torch.no_grad():
            features = self.codec.extract_features(batch["audio"], roles=self.codec.config.reasoning.inputs)
        part: Any = self.model["part"]
        if self.freeze_codebooks:
            part.quantizer.levels.eval()  # codebooks learn by running means in training mode
        if quantize:
            out = part(features)
            quantized, commitment, perplexity = out.quantized, out.commitment_loss, out.perplexity
        else:
            projections = part.quantizer
            quantized = projections.project_out(projections.project_in(part.encode_queries(features)))
            commitment, perplexity = quantized.new_zeros(()), quantized.new_zeros(len(projections.levels))
        frames = batch["frames"].clamp(max=quantized.shape[1])
        if shuffle:
            quantized, frames = quantized.roll(1, 0), frames.roll(1, 0)
        text: Any = self.model["text"]
        memory, mask = text.read(quantized, frames)
        tokens = batch["tokens"]
        logits = text.logits(tokens[:, :-1].clamp(min=0), memory, mask)
        cross_entropy = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=-100)
        log_probs = text.ctc_logits(memory).float().log_softmax(-1)
        spoken = batch["num_phones"] > 0
        ctc = (
            F.ctc_loss(
                log_probs[spoken].transpose(0, 1),
                batch["phones"][spoken],
                (frames * self.text_config.sub_frames)[spoken],
                batch["num_phones"][spoken],
                zero_infinity=True,
                reduction="sum",
            )
            / batch["num_phones"].sum().clamp(min=1)
            if bool(spoken.any())
            else cross_entropy.new_zeros(())
        )
        return {"text": cross_entropy, "ctc": ctc, "commitment": commitment, "perplexity": perplexity}

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Text + CTC + commitment."""
        parts = self.losses(batch, quantize=step >= self.quantize_after)
        loss = parts["text"] + self.ctc_weight * parts["ctc"] + self.commitment_weight * parts["commitment"]
        logs: dict[str, float | Tensor] = {k: parts[k].detach() for k in ("text", "ctc", "commitment")}
        logs |= {f"perplexity/{k}": v for k, v in enumerate(parts["perplexity"].tolist())}
        return loss, {**logs, "units": batch["audio"].numel() / SAMPLE_RATE}

    def evaluate(self, step: int) -> dict[str, float]:
        """Word or character errors of speech and caption hits of sounds, right and with codes of another clip."""
        items = self.dev_waves(64, crop_s=self.clips.max_clip_s)
        text: Any = self.model["text"]
        sums: dict[str, list[float]] = {}
        vectors = [self.model["part"](self.codec.extract_features(audio)).quantized[0] for _, audio in items]
        frames = torch.tensor([len(v) for v in vectors])
        padded = nn.utils.rnn.pad_sequence(vectors, batch_first=True)
        for kind, shift in (("", 0), ("shuffled/", 1)):
            texts = text.generate(padded.roll(shift, 0), frames.roll(shift, 0))
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
        save_tensors(self.model["text"].state_dict(), out_dir / "text_decoder.safetensors")
        dump_config(self.text_config, out_dir / "text_decoder.yaml")
        (out_dir / "phones.json").write_text(json.dumps(self.phones, ensure_ascii=False))


# ----------------------------------------------------------------------------------------------- 5 reconstruction


class ReconstructionStage(CodecStage):
    """Reconstruction codes and the flow decoder together: flow + 0.1 semantic + 0.5 commitment (the paper's weights).

    Choice: a linear regression of the latents from the condition is added (weight 1), because the flow loss alone is
    too noisy to shape codebooks in an hour; its head is dropped at export.
    """

    name = "reconstruction"
    semantic_weight, commitment_weight, regression_weight = 0.1, 0.5, 1.0

    def __init__(
        self, clips: ClipConfig, codec: ReasoningCodec, *, warm_up: bool = False, freeze_codes: bool = False
    ) -> None:
        super().__init__(clips, ("speech", "sound", "music"))
        self.warm_up, self.freeze_codes = warm_up, freeze_codes
        self.codec = codec.eval().requires_grad_(False)
        codec.reconstruction.requires_grad_(not freeze_codes)
        codec.decoder.requires_grad_(True)
        self.frames_per_code = codec.config.flow.frames_per_code
        head = nn.Linear(codec.config.reconstruction.dim, self.frames_per_code * codec.autoencoder.latent_dim)
        self.model = nn.ModuleDict({"part": codec.reconstruction, "decoder": codec.decoder, "regression": head})
        self.spectral = SpectralLoss()

    def batch(self, step: int, seed: int) -> dict[str, Any]:
        """Waves (B, 1, N)."""
        return {"audio": torch.from_numpy(self.sampler.draw(batch_rng(seed, step))[1])[:, None]}

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Flow, regression, semantic and commitment losses; half of the clips decode with the reasoning sum."""
        audio = batch["audio"]
        part: Any = self.model["part"]
        decoder: Any = self.model["decoder"]
        if self.freeze_codes:
            part.eval()  # codebooks move in training mode
        with torch.no_grad():
            features = self.codec.extract_features(audio)
            reasoning = self._reasoning(features)
            latents = self.codec.autoencoder.encode(audio)
        out = part(features, reasoning)
        with_reasoning = (torch.rand(len(audio), 1, 1) < (0.0 if self.warm_up else 0.5)).to(out.quantized.dtype)
        total = out.quantized + with_reasoning * part.reasoning_condition(reasoning, out.quantized.shape[1])
        condition = decoder.condition(total)
        flow = decoder.loss(latents, condition)
        regression = (self._mean_latents(condition).float() - latents).abs().mean()
        semantic = part.semantic_loss(out, features)
        loss = (
            flow
            + self.regression_weight * regression
            + self.semantic_weight * semantic
            + self.commitment_weight * out.commitment_loss
        )
        parts = {"flow": flow, "regression": regression, "semantic": semantic, "commitment": out.commitment_loss}
        logs: dict[str, float | Tensor] = {k: v.detach() for k, v in parts.items()}
        logs |= {f"perplexity/{k}": v for k, v in enumerate(out.perplexity.tolist())}
        return loss, {**logs, "units": audio.numel() / SAMPLE_RATE}

    def _mean_latents(self, condition: Tensor) -> Tensor:
        """Regressed latents (B, 2 T, C) of a condition that repeats each of T code frames twice."""
        each = self.model["regression"](condition[:, :: self.frames_per_code])
        return each.unflatten(-1, (self.frames_per_code, -1)).flatten(1, 2)

    def _reasoning(self, features: dict[str, Tensor]) -> Tensor:
        """Quantised reasoning vectors; zeros while warming up before the reasoning branch is trained."""
        quantized = self.codec.reasoning(features).quantized
        return torch.zeros_like(quantized) if self.warm_up else quantized

    def evaluate(self, step: int) -> dict[str, float]:
        """STOI and spectral distance of decoded dev clips: oracle latents, regressed mean, flow."""
        part: Any = self.model["part"]
        decoder: Any = self.model["decoder"]
        results: dict[str, list[tuple[Example, Tensor, Tensor]]] = {"oracle": [], "mean": [], "flow": []}
        for example, audio in self.dev_waves(24, crop_s=3.2):
            features = self.codec.extract_features(audio)
            out = part(features, self._reasoning(features))
            condition = decoder.condition(out.quantized)
            generator = torch.Generator().manual_seed(0)
            latents = {
                "oracle": self.codec.autoencoder.encode(audio),
                "mean": self._mean_latents(condition),
                "flow": decoder.sample(condition, steps=8, guidance_scale=1.0, generator=generator),
            }
            for name, value in latents.items():
                results[name].append((example, audio, self.codec.autoencoder.decode(value).float()))
        return {f"{n}/{k}": v for n, items in results.items() for k, v in score_waves(items, self.spectral).items()}

    def export(self, out_dir: Path) -> None:
        """The reconstruction branch and the flow decoder."""
        both = nn.ModuleDict({"reconstruction": self.model["part"], "decoder": self.model["decoder"]})
        self.export_part(out_dir, both, "")


# ---------------------------------------------------------------------------------------------------- run a stage


@dataclass(frozen=True)
class CodecTrainConfig:
    """One codec stage, as a YAML file under configs/train/."""

    stage: Literal["speech_expert", "sound_expert", "autoencoder", "reasoning", "reconstruction"]
    train: TrainConfig
    clips: ClipConfig
    codec: str = "nano"  # preset under configs/codec, or the path of a YAML file
    parts: tuple[str, ...] = ()  # files that earlier stages exported
    freeze_codes: bool = False  # reconstruction only: the flow decoder learns on, the codes stay
    freeze_encoder: bool = False  # autoencoder only: the decoder learns on, the latents stay
    # reasoning only: steps before the codebooks are set, on vectors that already mean something
    quantize_after: int = 0
    text_decoder: str | None = None  # reasoning only: the text decoder of an earlier run of the stage
    freeze_codebooks: bool = False  # reasoning only: the encoder learns on, what each code stands for stays
    head_from: str | None = None  # speech_expert only: export folder of an earlier run, whose phones and head go on
    anchor: float = 0.0  # speech_expert only: weight of staying near the features at the start (see the stage)
    warm_up: bool = False  # reconstruction only: before the reasoning branch is trained, its condition is zero
    tokenizer: str | None = None  # tokenizer.json of the reasoning stage; the shipped one when null


def load_parts(codec: nn.Module, files: Iterable[str | Path]) -> set[str]:
    """Load exported parts into a codec.

    Args:
        codec: The module whose key names the files use.
        files: Safetensors files written by the stages.

    Returns:
        Names of the tensors that were loaded.

    Raises:
        ValueError: If a file is missing, or holds a tensor that the codec has not or has in another shape.
    """
    own = dict(codec.state_dict())
    loaded: set[str] = set()
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"{file} is not there: run the earlier stage that exports it first")
        tensors = load_file(file)
        for name, value in tensors.items():
            if name not in own or own[name].shape != value.shape:
                raise UserError(f"{file}: {name} {tuple(value.shape)} does not fit the codec preset")
        codec.load_state_dict(tensors, strict=False)
        loaded |= tensors.keys()
    return loaded


def build_stage(
    config: CodecTrainConfig,
) -> SpeechExpertStage | SoundExpertStage | AutoencoderStage | ReasoningStage | ReconstructionStage:
    """The stage that a config describes, with the parts of earlier stages loaded."""
    torch.manual_seed(config.train.seed)
    codec = ReasoningCodec(load_config(CodecConfig, preset_path("codec", config.codec)))
    load_parts(codec, config.parts)
    if config.stage == "speech_expert":
        expert: Any = codec.encoders["speech_expert"].unfreeze()  # pyright: ignore
        return SpeechExpertStage(config.clips, expert, head_from=config.head_from, anchor=config.anchor)
    if config.stage == "sound_expert":
        return SoundExpertStage(config.clips, codec.encoders["sound_expert"].unfreeze())  # pyright: ignore
    if config.stage == "autoencoder":
        autoencoder: Any = codec.autoencoder.requires_grad_(True)
        return AutoencoderStage(config.clips, autoencoder, freeze_encoder=config.freeze_encoder)
    if config.stage == "reasoning":
        return ReasoningStage(
            config.clips,
            codec,
            TextTokenizer.load(config.tokenizer or SHIPPED_TOKENIZER),
            quantize_after=config.quantize_after,
            text_decoder=config.text_decoder,
            freeze_codebooks=config.freeze_codebooks,
        )
    return ReconstructionStage(config.clips, codec, warm_up=config.warm_up, freeze_codes=config.freeze_codes)


def train(config: CodecTrainConfig) -> None:
    """Run one codec stage to its end (or resume it) and export its part to ``<out_dir>/export``."""
    Trainer(config.train, build_stage(config)).run()
