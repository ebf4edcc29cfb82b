"""The language model's stages: what trains, on which mixture of tasks, with which losses.

The four stages of the paper differ in their YAML files alone: the mixture, the loss weights, the share of the learning
rate that each part gets, and the folder that weights come from. What makes a small model
attend to its condition at all is in :mod:`uniaudio2.train.auxiliary`.

Shapes: B batch, S positions, K codebooks, D width, V ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uniaudio2.checkpoint import DEFAULT_FOLDER, TOKENIZER_FILE, load_codec, save_parts
from uniaudio2.config import dump_config, load_config, preset_path
from uniaudio2.data.collate import LMBatch
from uniaudio2.data.dataset import LMDataset, read_sentences
from uniaudio2.data.mixture import MixtureConfig
from uniaudio2.data.store import CodeStore
from uniaudio2.lm import AttentionProbe, AudioLM, LMConfig, LMLossConfig, LMLosses, lm_losses
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.storage.folder import write_folder_config
from uniaudio2.tasks import TASKS, Form, held_out_groups, trained_forms
from uniaudio2.tensors import save_tensors
from uniaudio2.tokenizer import AudioVocabulary, TextTokenizer
from uniaudio2.train.auxiliary import (
    PHONE_IDS,
    PhoneHeads,
    attention_prior_loss,
    blank_history,
    phones_of,
    spoken_texts,
)
from uniaudio2.train.config import TrainConfig, TrainingError
from uniaudio2.train.identity import fingerprint, flat_config
from uniaudio2.train.lm_start import (
    AUXILIARY_FILE,
    PHONES_FILE,
    LMModel,
    folders_of,
    load_phones,
    load_stage_weights,
    start_from_codebooks,
)
from uniaudio2.train.stage import to_device


@dataclass(frozen=True)
class LMLossWeights(LMLossConfig):
    """Weights of the language model's losses, and of those that help it to attend."""

    history_noise: float = 0.0  # share of the sequences that see their own audio history with holes
    ctc: float = 0.0  # of the CTC loss on the understanding expert
    reading: float = 0.0  # of the CTC loss on the text that is to be spoken, inside of the backbone
    foresight: float = 0.0  # of the loss of foretelling the phones of the next reasoning frames
    # CTC frames per reasoning frame, which comes 5 times a second. Choice: reasoning frames: they say the words,
    # and because a reconstruction frame's distance to the reasoning frame it belongs to depends on the clip's length.
    ctc_subframes: int = 8
    ctc_on_targets: bool = True  # also on audio that is predicted (its expert does not see the text)
    guided: float = 0.0  # of the attention prior
    guided_layer: int = 2  # backbone layer whose attention is guided
    guided_heads: tuple[int, ...] = (0, 1)  # its heads
    guided_width: float = 0.15  # deviation of the diagonal, as a share of the length
    guided_listening: bool = True  # also for transcription (text attends audio)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.ctc <= 0 < self.reading + self.foresight:
            raise TrainingError("losses.reading and losses.foresight need losses.ctc above 0: it is their teacher")
        if self.ctc_subframes < 1:
            raise TrainingError(f"losses.ctc_subframes must be at least 1, got {self.ctc_subframes}")


@dataclass(frozen=True)
class LMDataConfig:
    """Where sequences come from."""

    codes: tuple[str, ...]  # folders that `uniaudio2 prepare` wrote
    texts: dict[str, str] = field(default_factory=dict)  # sentence files for text_only → language
    tokenizer: str | None = None  # tokenizer.json; the shipped one when null
    joined: float = 0.0  # further clips, each several clips of one speaker one after another, per clip of clean speech
    joined_s: float = 10.0  # longest of them
    dev_clips: int = 32  # held-out clips per group and evaluation


@dataclass(frozen=True)
class LMTrainConfig:
    """One stage of the language model, as a YAML file under configs/train/."""

    train: TrainConfig
    data: LMDataConfig
    mixture: MixtureConfig
    losses: LMLossWeights
    stage: str = "lm"  # name in logs and folders
    lm: str = "nano"  # preset under configs/lm, or the path of a YAML file
    embeddings_from: str | None = None  # model folder whose codebooks the audio embeddings start from
    # Folder with lm.safetensors (an earlier stage's export, or a model folder; nano: the shipped one); of several, with
    # commas, the mean; null: fresh weights.
    init_from: str | None = None
    # Share of the learning rate by part (understanding, backbone, generation, depth, text_embedding, text_head,
    # audio_embedding); 0 freezes; parts not named get 1.
    part_lr: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.joined and self.data.joined_s > self.mixture.max_duration_s:
            raise TrainingError(
                f"data.joined_s is {self.data.joined_s}, but the mixture draws no clip above "
                f"mixture.max_duration_s ({self.mixture.max_duration_s}); raise that or lower this"
            )


class LMStage:
    """A stage of the language model for the trainer.

    Args:
        config: The stage.

    Raises:
        TrainingError: If the weights to start from do not fit the preset.
        DatasetError: If there are no codes.
    """

    def __init__(self, config: LMTrainConfig) -> None:
        self.config = config
        self.name = config.stage
        lm_config = load_lm_config(config.lm)
        self.tokenizer = load_tokenizer(config.data.tokenizer, lm_config)
        if lm_config.text_vocab_size != self.tokenizer.vocab_size:
            raise TrainingError(
                f"lm preset {config.lm!r} has text_vocab_size {lm_config.text_vocab_size}, "
                f"the tokenizer has {self.tokenizer.vocab_size}; set one to the other"
            )
        generator = torch.Generator().manual_seed(config.train.seed)
        torch.manual_seed(config.train.seed)
        lm = AudioLM(lm_config).initialise(generator)
        heads = PhoneHeads(lm_config.backbone.width, config.losses.ctc_subframes) if config.losses.ctc > 0 else None
        self.model = LMModel(lm, heads)
        if config.init_from:
            load_stage_weights(self.model, folders_of(config.init_from))
        if config.embeddings_from:
            start_from_codebooks(lm, load_codec(config.embeddings_from))
        builder = SequenceBuilder(
            self.tokenizer, lm_config.audio, text=lm_config.text, prompt_style=lm_config.prompt_style
        )
        dev_store = CodeStore(config.data.codes, splits=("dev",))
        held_out_texts = {clip.text for clip in dev_store.clips if clip.text}
        texts = [
            sentence
            for path, language in config.data.texts.items()
            for sentence in read_sentences(path, language, without=held_out_texts)
        ]
        align = config.losses.guided_listening
        seed = config.train.seed
        store = CodeStore(config.data.codes)
        if store.codec != dev_store.codec:
            raise TrainingError("training and held-out codes were made by different codecs; prepare them again")
        before = folders_of(config.init_from)[0] if config.init_from else None
        self.phones = load_phones(before) or store.phones(PHONE_IDS - 1)
        if config.losses.ctc > 0 and not self.phones and any(clip.text for clip in store.clips):
            raise TrainingError(
                "no clip has phonemes, which losses.ctc needs: add them by `uniaudio2 data validate CORPUS --phonemes` "
                "and prepare the codes again, or set losses.ctc, losses.reading and losses.foresight to 0"
            )
        ids = {phone: i + 1 for i, phone in enumerate(self.phones)}
        if config.data.joined:
            store.join(config.data.joined, config.data.joined_s, seed)
        self.dataset = LMDataset(
            store, builder, config.mixture, seed=seed, texts=texts, phones=ids, align_listening=align
        )
        self.dev = LMDataset(
            dev_store, builder, config.mixture, seed=seed, phones=ids, align_listening=align, plan=False
        )
        self.groups = self._groups()
        self._figures: dict[str, float] = {}  # of the last evaluation

    # ---------------------------------------------------------------- the trainer's protocol

    def parameters_to_train(self) -> Iterable[Mapping[str, Any]]:
        """One group per share of the learning rate; frozen parts are left out. Hidden are all layers but the heads."""
        shares = self.config.part_lr
        known = {name for name, _ in self.model.lm.named_children()}
        for name in shares:
            if name not in known:
                raise TrainingError(f"part_lr: unknown part {name!r}; allowed: {', '.join(sorted(known))}")
        groups: dict[float, list[nn.Parameter]] = {}
        for name, child in self.model.lm.named_children():
            share = shares.get(name, 1.0)
            for parameter in child.parameters():
                parameter.requires_grad_(share > 0)
                if share > 0:
                    groups.setdefault(share, []).append(parameter)
        if self.model.heads is not None:
            groups.setdefault(1.0, []).extend(self.model.heads.parameters())
        lm = self.model.lm
        hidden = [m.weight for m in lm.modules() if isinstance(m, nn.Linear) and m is not lm.text_head]
        return [{"params": params, "lr_scale": share, "hidden": hidden} for share, params in groups.items()]

    def identity(self) -> dict[str, Any]:
        """What makes a run this run: its config, and a fingerprint of the codes and texts."""
        places = (*self.config.data.codes, *self.config.data.texts)
        return {**flat_config(self.config), "data": fingerprint(places, ("codes.json", "codes-*.jsonl"))}

    def batch(self, step: int, seed: int) -> LMBatch:
        """Batch ``step`` of the dataset, which was made with the same seed."""
        if seed != self.dataset.seed:
            raise TrainingError(f"the dataset was made with seed {self.dataset.seed}, not {seed}")
        return self.dataset.batch(step)

    def loss(self, batch: LMBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Weighted sum of the text and codebook losses and of those that teach attention."""
        weights, lm = self.config.losses, self.model.lm
        guided = weights.guided if len(batch.aligned) + len(batch.attended) else 0.0
        probe = AttentionProbe(weights.guided_layer, weights.guided_heads) if guided + weights.reading > 0 else None
        shown, blanked = blank_history(batch, lm.config.audio, weights.history_noise if self.model.training else 0.0)
        losses = lm_losses(lm, batch.tokens, batch.mask, batch.loss_mask, weights, shown=shown, probe=probe)
        output, total = losses.output, losses.total
        metrics: dict[str, float | Tensor] = {"units": float(batch.num_positions)}
        if losses.text_each.numel():
            metrics["text"] = losses.text_each.detach().mean()
        metrics |= {name: nats.mean() for name, nats in code_groups(losses, lm.config.audio).items()}

        def add(name: str, weight: float, loss: Tensor) -> None:
            """Count one more loss."""
            nonlocal total
            total = total + weight * loss
            metrics[name] = loss.detach()

        heads = self.model.heads
        if heads is not None:
            spoken = batch if weights.ctc_on_targets else _only_inputs(batch)
            if len(spoken.heard):
                phones = (spoken.heard, spoken.heard_phones, spoken.heard_lengths)
                add("ctc", weights.ctc, heads.hearing.loss(output.understanding, *phones))
            texts, said_by = spoken_texts(batch)
            if weights.reading > 0 and len(texts) and output.probed is not None:
                phones = (texts, *phones_of(batch, said_by))
                add("reading", weights.reading, heads.reading.loss(output.probed.state, *phones))
            if weights.foresight > 0 and len(texts):
                spans = batch.heard[said_by]
                loss = heads.foresight_loss(output.hidden, output.understanding, spans, blanked)
                add("foresight", weights.foresight, loss)
        if guided > 0 and output.probed is not None:
            places = (batch.aligned, batch.attended)
            add("prior", guided, attention_prior_loss(output.probed.attention, *places, weights.guided_width))
        return total, metrics

    def evaluate(self, step: int) -> dict[str, float]:
        """Held-out nats per text token or code, with the right condition and with the neighbour's.

        ``GROUP/gap`` is what the condition is worth; a model that babbles has none (``gap_reasoning`` and
        ``gap_book0`` are those of the codes that carry the words). ``GROUP/ctc_error`` is the phone error rate of
        the hearing head.
        """
        figures: dict[str, float] = {}
        device = next(self.model.parameters()).device
        for group, (form, items) in self.groups.items():
            right, wrong = (self._evaluate_group(form, items, shuffled, device) for shuffled in (False, True))
            figures |= {f"{group}/{key}": value for key, value in right.items()}
            for key, name in (("nats", "gap"), ("reasoning", "gap_reasoning"), ("book0", "gap_book0")):
                if key in right:
                    figures[f"{group}/{name}"] = wrong[key] - right[key]
        self._figures = figures
        return figures

    def export(self, out_dir: Path) -> None:
        """Write the language model as a model folder, and the phone heads beside it for the next stage."""
        save_parts(out_dir, lm=self.model.lm, tokenizer=self.tokenizer)
        write_folder_config(out_dir, {"trained_tasks": self._trained_tasks()})
        if self.model.heads is not None:
            save_tensors(out_dir / AUXILIARY_FILE, self.model.heads.state_dict())
            (out_dir / PHONES_FILE).write_text(json.dumps(self.phones, ensure_ascii=False), encoding="utf-8")
        dump_config(self.config, out_dir / "train.yaml")

    def _trained_tasks(self) -> dict[str, list[dict[str, str | float]]]:
        """Rows that the mixture trains, and those that read alike, with their last held-out figures."""
        scores: dict[str, list[dict[str, str | float]]] = {}
        for form in (form for form in trained_forms() if self.config.mixture.weights.get(form.name, 0) > 0):
            found = scores.setdefault(form.task.name, [])
            for group in held_out_groups(form):
                if f"{group.name}/nats" in self._figures:
                    value = round(self._figures[f"{group.name}/nats"], 4)
                    found.append({"metric": "nats per token or code", "value": value, "set": f"held-out {group.name}"})
        short = self.model.lm.config.prompt_style == "short"
        rows = [row for row in TASKS.values() if short and any(row.reads_like(TASKS[name]) for name in scores)]
        return {**{row.name: [] for row in rows}, **scores}

    # ---------------------------------------------------------------- held-out figures

    def _groups(self) -> dict[str, tuple[Form, list[int]]]:
        """Held-out clips by task and group, each sorted by length so that neighbours are alike."""
        mixture, clips = self.config.mixture, self.dev.store.clips
        groups: dict[str, tuple[Form, list[int]]] = {}
        for form in (form for form in trained_forms() if mixture.weights.get(form.name, 0) > 0):
            for group in held_out_groups(form):
                items = [
                    index
                    for index, clip in enumerate(clips)
                    if clip.duration_s <= mixture.max_duration_s
                    and group.language in (None, clip.language)
                    and group.recorded in (None, clip.engine is None)
                    and self.dev.fits(form, index)
                ]
                if len(items) < 2:
                    continue
                chosen = np.random.default_rng(1).permutation(items)[: self.config.data.dev_clips]
                groups[group.name] = (form, sorted((int(i) for i in chosen), key=lambda i: clips[i].duration_s))
        return groups

    def _evaluate_group(self, form: Form, items: list[int], shuffled: bool, device: torch.device) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        special = torch.tensor(sorted(self.tokenizer.tokens.ids() - {self.tokenizer.tokens.eos}))
        for first in range(0, len(items), 16):
            part = items[first : first + 16]
            if len(part) < 2:
                continue
            batch = to_device(self.dev.held_out(form, part, shuffled=shuffled), device)
            losses = lm_losses(self.model.lm, batch.tokens, batch.mask, batch.loss_mask, self.config.losses)
            text = losses.text_each[~torch.isin(losses.output.text_labels, special.to(device))]
            if text.numel():
                _note(sums, "nats", text)
            if losses.codes_each.numel():
                _note(sums, "nats", losses.codes_each)
                for key, value in code_groups(losses, self.model.lm.config.audio).items():
                    _note(sums, key, value)
            heads = self.model.heads
            if heads is not None and not form.task.makes_audio and not shuffled and len(batch.heard):
                phones = (batch.heard, batch.heard_phones, batch.heard_lengths)
                rate = heads.hearing.error_rate(losses.output.understanding, *phones)
                _note(sums, "ctc_error", torch.full((int(batch.heard_lengths.sum()),), rate))
        return {key: total / max(count, 1) for key, (total, count) in sums.items()}


def _note(sums: dict[str, list[float]], key: str, values: Tensor) -> None:
    entry = sums.setdefault(key, [0.0, 0.0])
    entry[0] += float(values.cpu().double().sum())  # Apple GPUs have no float64
    entry[1] += values.numel()


def code_groups(losses: LMLosses, audio: AudioVocabulary) -> dict[str, Tensor]:
    """Log-likelihoods of the codes of every stream but the last, and of three groups of its codebooks, if any."""
    each, ids = losses.codes_each.detach(), losses.output.audio_labels[:, 0]
    fine = each[ids >= audio.fine_shift]
    groups: dict[str, Tensor] = {}
    for stream, shift in (audio.stream(stream.name) for stream in audio.streams[:-1]):
        groups[stream.name] = each[(ids >= shift) & (ids < shift + stream.num_ids)]
    groups |= {"book0": fine[:, :1], "book1": fine[:, 1:2], "books2+": fine[:, 2:]}
    return {key: value for key, value in groups.items() if value.numel()}


def _only_inputs(batch: LMBatch) -> LMBatch:
    """The batch without stretches of audio that is predicted."""
    keep = ~batch.loss_mask[batch.heard[:, 0], batch.heard[:, 1], 0]
    owner = torch.repeat_interleave(torch.arange(len(keep), device=keep.device), batch.heard_lengths)
    return replace(
        batch,
        heard=batch.heard[keep],
        heard_phones=batch.heard_phones[keep[owner]],
        heard_lengths=batch.heard_lengths[keep],
    )


def load_tokenizer(path: str | None, config: LMConfig) -> TextTokenizer:
    """A ``tokenizer.json``; the shipped one when ``path`` is None."""
    return TextTokenizer.load(path if path is not None else DEFAULT_FOLDER / TOKENIZER_FILE, config.text)


def load_lm_config(name: str) -> LMConfig:
    """A preset by name, or a YAML file by path."""
    return load_config(LMConfig, preset_path("lm", name))
