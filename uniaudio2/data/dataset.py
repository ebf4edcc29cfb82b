"""Prepared codes in memory, and training sequences made of them.

``CodeStore`` reads the shards that ``prepare`` wrote. ``LMDataset`` turns draws of a mixture into padded batches; a
batch is a pure function of (seed, index). Shapes: B batch, S positions, K codebooks, T frames.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from uniaudio2.codes import (
    REASONING_HOP,
    RECONSTRUCTION_HOP,
    RECONSTRUCTION_RATE_HZ,
    SAMPLE_RATE,
    AudioCodes,
)
from uniaudio2.data.collate import LMBatch, Segment, collate
from uniaudio2.data.mixture import MixtureConfig, Planner, Pool
from uniaudio2.data.prefetch import batch_rng
from uniaudio2.errors import UserError
from uniaudio2.sequence import SequenceBuilder
from uniaudio2.tasks import get_task
from uniaudio2.text import normalise_text


class DatasetError(UserError):
    """Prepared codes that are missing, broken or do not belong together."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Labels of one prepared clip; see the manifest for the fields."""

    id: str
    split: str
    kind: str
    text: str | None
    phonemes: str | None
    language: str | None
    speaker: str | None
    label: str | None
    caption: str | None
    captions: tuple[str, ...]
    engine: str | None
    source: str | None
    copy: int  # 0 = as recorded, n = copy n: augmented, or at another speed
    num_samples: int
    speed: float = 1.0  # other than 1: a copy at another speed, which is another voice
    parts: tuple[int, ...] = ()  # clips of the store that this one consists of, one after another

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.num_samples / SAMPLE_RATE

    @property
    def clean(self) -> bool:
        """Whether noise, rooms and the like were never added."""
        return not self.copy or self.speed != 1.0


class CodeStore:
    """Codes and labels of prepared folders, held in memory as 16-bit integers.

    Args:
        folders: Folders that ``prepare`` wrote (finished shards are read, so a folder may still be growing), all
            made by one codec.
        splits: Parts of the manifest to keep.

    Raises:
        DatasetError: If a folder holds no codes, or codes of another codec.
    """

    def __init__(self, folders: Iterable[str | Path], *, splits: Sequence[str] = ("train",)) -> None:
        self.clips: list[Clip] = []
        self._reasoning: list[np.ndarray] = []
        self._reconstruction: list[np.ndarray] = []
        places: list[tuple[int, int, int, int, int]] = []
        codec: str | None = None
        for folder in (Path(f) for f in folders):
            try:
                about = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise DatasetError(f"{folder} holds no prepared codes; run `uniaudio2 prepare` first") from None
            if codec is not None and about["codec"] != codec:
                raise DatasetError(f"{folder} was made by another codec than the other folders; prepare it again")
            codec = about["codec"]
            for labels in sorted(folder.glob("codes-*.jsonl")):
                shard = len(self._reasoning)
                with safe_open(labels.with_suffix(".safetensors"), framework="numpy") as file:
                    self._reasoning.append(file.get_tensor("reasoning"))
                    self._reconstruction.append(file.get_tensor("reconstruction"))
                for line in labels.read_text(encoding="utf-8").splitlines():
                    row = json.loads(line)
                    if row.get("split", "train") in splits:
                        self.clips.append(_clip(row))
                        places.append((shard, *row["reasoning"], *row["reconstruction"]))
        if not self.clips:
            raise DatasetError(f"no prepared clip of split {' or '.join(splits)} was found; run `uniaudio2 prepare`")
        self.codec = codec
        self._places = np.array(places, dtype=np.int64)
        self.reasoning_frames = self._places[:, 2]
        """Frames of every clip, (n,)."""
        self.reconstruction_frames = self._places[:, 4]
        """Frames of every clip, (n,)."""

    def __len__(self) -> int:
        return len(self.clips)

    def phones(self, limit: int) -> list[str]:
        """The ``limit`` most frequent phones of the clips' labels, in alphabetical order."""
        counts = Counter(phone for clip in self.clips for phone in (clip.phonemes or "").split())
        return sorted(phone for phone, _ in counts.most_common(limit))

    def codes(self, index: int) -> AudioCodes:
        """Codes of clip ``index``, batch size 1."""
        if parts := self.clips[index].parts:
            codes = [self.codes(part) for part in parts]
            lengths = self._joined_lengths(parts)
            return AudioCodes(
                torch.cat([c.reasoning for c in codes], dim=2),
                torch.cat([_of_length(c.reconstruction, n) for c, n in zip(codes, lengths, strict=True)], dim=2),
                self.clips[index].num_samples,
            )
        shard, rea, rea_count, rec, rec_count = (int(v) for v in self._places[index])
        reasoning = self._reasoning[shard][:, rea : rea + rea_count]
        reconstruction = self._reconstruction[shard][:, rec : rec + rec_count]
        return AudioCodes(
            torch.from_numpy(reasoning.astype(np.int64))[None],
            torch.from_numpy(reconstruction.astype(np.int64))[None],
            self.clips[index].num_samples,
        )

    def voice(self, index: int, rng: np.random.Generator, max_s: float) -> torch.Tensor:
        """A random stretch of a clip's reconstruction codes as a voice prompt, (K, T) int64."""
        codes = self.codes(index).reconstruction[0]
        frames = min(codes.shape[1], int(max_s * RECONSTRUCTION_RATE_HZ))
        first = int(rng.integers(0, codes.shape[1] - frames + 1))
        return codes[:, first : first + frames]

    def join(self, share: float, longest_s: float, seed: int) -> None:
        """Add clips that are several clips of one speaker, one after another.

        Choice: corpora of single sentences hold few long clips, and a model that hears only short ones loses its place
        in long ones. Codes are joined, not waves, so every run can draw other pairs without encoding anything.

        Args:
            share: Joined clips per clip of transcribed, clean speech, at most: fewer where a speaker has nothing that
                fits.
            longest_s: A joined clip aims at a length between a third of this and this, seconds.
            seed: Source of every choice.
        """
        speakers: dict[tuple[str, str | None], list[int]] = {}
        for index, clip in enumerate(self.clips):
            if clip.kind == "speech" and clip.text and clip.speaker and clip.clean and not clip.parts:
                speakers.setdefault((clip.speaker, clip.language), []).append(index)
        rng = np.random.default_rng((seed, 4))
        frames: list[list[int]] = [[], []]
        for own in speakers.values():
            for _ in range(round(share * len(own))):
                goal, parts = longest_s * rng.uniform(1 / 3, 1), []
                for index in rng.choice(own, min(len(own), 24), replace=False).tolist():
                    if self.clips[index].duration_s <= goal:
                        goal -= self.clips[index].duration_s
                        parts.append(index)
                if len(parts) > 1:
                    self.clips.append(self._joined(tuple(parts)))
                    frames[0].append(int(self.reasoning_frames[parts].sum()))
                    frames[1].append(sum(self._joined_lengths(parts)))
        self.reasoning_frames = np.concatenate([self.reasoning_frames, np.array(frames[0], dtype=np.int64)])
        self.reconstruction_frames = np.concatenate([self.reconstruction_frames, np.array(frames[1], dtype=np.int64)])

    def _joined_lengths(self, parts: Sequence[int]) -> list[int]:
        """Reconstruction frames of each part. All but the last are stretched so that the two streams stay in step."""
        lengths, reasoning = [], 0
        for part in parts[:-1]:
            reasoning += int(self._places[part, 2])
            lengths.append(reasoning * REASONING_HOP // RECONSTRUCTION_HOP - sum(lengths))
        return [*lengths, int(self._places[parts[-1], 4])]

    def _joined(self, parts: tuple[int, ...]) -> Clip:
        clips = [self.clips[part] for part in parts]
        between = "" if clips[0].language in ("zh", "yue") else " "
        before = sum(self._joined_lengths(parts)[:-1]) * RECONSTRUCTION_HOP
        return replace(
            clips[0],
            id="+".join(clip.id for clip in clips),
            text=between.join(clip.text or "" for clip in clips),
            phonemes=" ".join(clip.phonemes or "" for clip in clips) if all(c.phonemes for c in clips) else None,
            num_samples=before + clips[-1].num_samples,
            parts=parts,
        )


def _of_length(codes: torch.Tensor, length: int) -> torch.Tensor:
    """Codes (B, K, T) cut to ``length`` frames, or with the last frame repeated up to it."""
    return codes[:, :, torch.arange(length).clamp(max=codes.shape[2] - 1)]


def _clip(row: dict[str, Any]) -> Clip:
    return Clip(
        id=row["id"],
        split=row.get("split", "train"),
        kind=row.get("kind", "speech"),
        text=row.get("text"),
        phonemes=row.get("phonemes"),
        language=row.get("language"),
        speaker=row.get("speaker"),
        label=row.get("label"),
        caption=row.get("caption"),
        captions=tuple(row.get("captions", ())),
        engine=row.get("engine"),
        source=row.get("source"),
        copy=int(row["copy"]),
        num_samples=int(row["num_samples"]),
        speed=float(row.get("speed", 1.0)),
    )


class LMDataset:
    """Training batches of the language model: batch ``i`` is a function of (seed, i) alone.

    Args:
        store: Prepared clips.
        builder: Makes token sequences.
        config: Tasks, lengths, budget.
        seed: Of the run.
        texts: Normalised sentences for ``text_only``, besides the store's own transcripts.
        phones: Phone → id from 1 on, for what can be heard; other phones are left out.
        align_listening: See ``collate``.
        plan: False for held-out data, from which no training batch is drawn.

    Raises:
        MixtureError: If a task has a weight but no clip.
    """

    def __init__(
        self,
        store: CodeStore,
        builder: SequenceBuilder,
        config: MixtureConfig,
        *,
        seed: int,
        texts: Sequence[str] = (),
        phones: Mapping[str, int] | None = None,
        align_listening: bool = True,
        plan: bool = True,
    ) -> None:
        self.store, self.builder, self.config, self.seed = store, builder, config, seed
        self.align_listening = align_listening
        self.phones = dict(phones or {})
        self.texts = list(
            dict.fromkeys([*(c.text for c in store.clips if c.text and not c.copy and not c.parts), *texts])
        )
        self._ids: dict[str, list[int]] = {}
        self._voices = self._voice_index()
        voice_numbers = {name: i for i, name in enumerate(dict.fromkeys(c.speaker for c in store.clips if c.speaker))}
        text_numbers = {text: i for i, text in enumerate(dict.fromkeys(c.text for c in store.clips if c.text))}
        if not plan:
            return
        self.planner = Planner(
            config,
            {name: self._pool(name) for name in config.weights if config.weights[name] > 0},
            seed,
            speakers=np.array([voice_numbers.get(c.speaker or "", -1) for c in store.clips]),
            texts=np.array([text_numbers.get(c.text or "", -1) for c in store.clips]),
        )

    # ---------------------------------------------------------------- what can be drawn

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text with begin and end of text, remembered."""
        if text not in self._ids:
            self._ids[text] = self.builder.text_ids(text)
        return self._ids[text]

    def _voice_index(self) -> dict[str, np.ndarray]:
        """Clips that can be voice prompts, by speaker; at least two each."""
        found: dict[str, list[int]] = {}
        for index, clip in enumerate(self.store.clips):
            long_enough = clip.duration_s >= self.config.min_voice_prompt_s
            if clip.kind == "speech" and clip.speaker and clip.clean and not clip.parts and long_enough:
                found.setdefault(clip.speaker, []).append(index)
        return {speaker: np.array(indices) for speaker, indices in found.items() if len(indices) > 1}

    def fits(self, entry: str, clip: Clip) -> bool:
        """Whether a clip can serve an entry of the mixture."""
        speech = clip.kind == "speech" and bool(clip.text)
        if entry == "asr":
            return speech
        if entry == "tts":
            house = not self.config.house_voices or clip.speaker in self.config.house_voices
            return speech and not clip.copy and house
        if entry == "tts_voice":
            return speech and clip.clean and len(self._prompts(clip)) > 0
        if entry in ("audio_caption", "tta"):
            return clip.kind != "speech" and bool(clip.caption) and not (clip.copy and entry == "tta")
        return entry == "audio_only" and not clip.copy

    def _pool(self, entry: str) -> Pool:
        if entry == "text_only":
            lengths = np.array([len(self.text_ids(text)) for text in self.texts], dtype=np.int64)
            return Pool(np.arange(len(lengths)), np.zeros(len(lengths)), lengths, np.ones(len(lengths)))
        config, clips = self.config, self.store.clips
        durations = np.array([clip.duration_s for clip in clips])
        right_length = (durations <= config.max_duration_s) & (durations >= config.min_duration_s)
        items = np.array([i for i, c in enumerate(clips) if right_length[i] and self.fits(entry, c)], dtype=np.int64)
        positions = np.array([self._positions(entry, int(i)) for i in items], dtype=np.int64)
        repeats = np.array([self._repeats(clips[int(i)]) for i in items], dtype=np.float64)
        return Pool(items, durations[items] if len(items) else np.zeros(0), positions, repeats)

    def _repeats(self, clip: Clip) -> float:
        factor = 1.0
        for key in {clip.source, clip.engine or "recorded", clip.language, clip.kind}:
            factor *= self.config.source_repeats.get(key or "", 1.0)
        return factor

    def _positions(self, entry: str, index: int) -> int:
        """Rows of a sequence, without BPE dropout."""
        clip = self.store.clips[index]
        rows = int(self.store.reasoning_frames[index] + self.store.reconstruction_frames[index]) + 4
        if entry == "audio_only":
            return rows
        text = clip.text if clip.kind == "speech" else clip.caption
        rows += len(self.text_ids(text or "")) + 2
        task = get_task(_TASKS[entry])
        rows += len(self.builder.prompt_ids(task, language=clip.language if clip.kind == "speech" else None))
        if entry == "tts_voice":
            rows += int(self.config.voice_prompt_s * RECONSTRUCTION_RATE_HZ) + 2
        return rows

    # ---------------------------------------------------------------- building

    def segment(
        self, entry: str, item: int, rng: np.random.Generator, *, condition: int | None = None, training: bool = True
    ) -> Segment:
        """One example.

        Args:
            entry: Entry of the mixture.
            item: Clip, or text for ``text_only``.
            rng: Source of every choice.
            condition: Clip that the condition is taken from in place of ``item``'s own (to measure how much the
                model makes of its condition).
            training: With BPE dropout, varied captions and guidance dropout.
        """
        if entry == "text_only":
            sequence = self.builder.example("text_only", {"text": self.text_ids(self.texts[item])})
            return Segment(sequence, entry)
        clip, config = self.store.clips[item], self.config
        other = item if condition is None else condition
        values: dict[str, Any] = {}
        language = clip.language if clip.kind == "speech" else None
        heard = clip
        if entry == "asr":
            values = {"audio": self.store.codes(other), "transcription": self.text_ids(clip.text or "")}
            heard = self.store.clips[other]
            if training and rng.random() < config.language_dropout:
                language = None
        elif entry in ("tts", "tts_voice"):
            words = self.store.clips[other].text or ""
            plain = not training or config.bpe_dropout == 0
            values = {"transcription": self.text_ids(words) if plain else words, "audio": self.store.codes(item)}
            if entry == "tts_voice":
                values["voice"] = self.store.voice(self._other_clip(item, rng), rng, config.voice_prompt_s)
        elif entry == "audio_caption":
            vary = training and clip.captions and rng.random() < config.caption_variety
            caption = _pick(clip.captions, rng) if vary else clip.caption
            values = {"audio": self.store.codes(other), "caption": self.text_ids(caption or "")}
        elif entry == "tta":
            source = self.store.clips[other]
            phrasings = (source.caption or "", *source.captions)
            caption = _pick(phrasings, rng) if training else phrasings[0]
            values = {"caption": self.text_ids(caption), "audio": self.store.codes(item)}
        else:
            values = {"audio": self.store.codes(item)}
        task = get_task(_TASKS[entry])
        sequence = self.builder.example(
            task,
            values,
            language=language,
            guidance_form=training and task.guidance and rng.random() < config.guidance_dropout,
            text_dropout=config.bpe_dropout if training else 0.0,
            rng=random.Random(int(rng.integers(2**63))) if training else None,
        )
        spoken = (heard.phonemes or "").split()
        return Segment(sequence, entry, tuple(self.phones[p] for p in spoken if p in self.phones))

    def _other_clip(self, item: int, rng: np.random.Generator) -> int:
        """Another clip of the same voice."""
        choices = self._prompts(self.store.clips[item])
        choices = choices[choices != item]
        return int(choices[rng.integers(len(choices))])

    def _prompts(self, clip: Clip) -> np.ndarray:
        """Voice prompts for a clip, which may be among them; none if there would be no other."""
        own = self._voices.get(clip.speaker or "", np.zeros(0, dtype=np.int64))
        return own[~np.isin(own, clip.parts)] if clip.parts else own

    def batch(self, index: int) -> LMBatch:
        """Training batch ``index``."""
        rows = []
        for number, draw in enumerate(self.planner.batch(index)):
            rng = batch_rng(self.seed, index, stream=number + 1)
            rows.append([self.segment(entry, item, rng) for entry, item in draw.segments])
        return collate(self.builder, rows, align_listening=self.align_listening)

    def held_out(self, entry: str, items: Sequence[int], *, shuffled: bool) -> LMBatch:
        """A fixed batch for evaluation; ``shuffled`` gives every example the condition of its neighbour."""
        rows = []
        for number, item in enumerate(items):
            rng = batch_rng(0, item, stream=7)
            other = items[(number + 1) % len(items)] if shuffled else None
            rows.append([self.segment(entry, item, rng, condition=other, training=False)])
        return collate(self.builder, rows, align_listening=self.align_listening)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


_TASKS = {
    "asr": "asr",
    "tts": "tts",
    "tts_voice": "tts",
    "audio_caption": "audio_caption",
    "tta": "tta",
    "text_only": "text_only",
    "audio_only": "audio_only",
}


def read_sentences(path: str | Path, language: str, *, without: Iterable[str] = ()) -> list[str]:
    """Normalised sentences of a text file, one per line.

    Args:
        path: UTF-8 text.
        language: ``en``, ``zh`` or ``yue``.
        without: Sentences that must not be among them (held-out texts).

    Raises:
        DatasetError: If the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error})") from None
    left_out = set(without)
    sentences = (normalise_text(line, language) for line in lines if line.strip())
    return [sentence for sentence in sentences if sentence and sentence not in left_out]
