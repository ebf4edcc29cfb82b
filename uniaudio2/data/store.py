"""Prepared codes in memory: what `prepare` wrote, with the labels of every clip.

Shapes: K codebooks, T frames of a stream.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from uniaudio2.codes import REASONING_CODEC_HOPS, SAMPLE_RATE, AudioCodes
from uniaudio2.data.example import Turn
from uniaudio2.errors import UserError


class DatasetError(UserError):
    """Prepared codes that are missing, broken or do not belong together."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Labels of one prepared example; see the manifest for the fields. Its length is that of its first audio."""

    id: str
    split: str
    kind: str
    texts: Mapping[str, str]  # name -> text; "text" is what is said, "caption" what is heard
    phonemes: str | None
    language: str | None
    speaker: str | None
    label: str | None
    captions: tuple[str, ...]
    engine: str | None
    source: str | None
    copy: int  # 0 = as recorded, n = copy n: augmented, or at another speed
    num_samples: int
    audios: Mapping[str, int] = field(default_factory=dict)  # name -> number among the store's stretches of codes
    speed: float = 1.0  # other than 1: a copy at another speed, which is another voice
    parts: tuple[int, ...] = ()  # clips of the store that this one consists of, one after another
    turns: tuple[Turn, ...] = ()
    sample_rate: int = SAMPLE_RATE  # Hz

    @property
    def text(self) -> str | None:
        """What is said; None where unknown."""
        return self.texts.get("text")

    @property
    def caption(self) -> str | None:
        """What describes it; None where unknown."""
        return self.texts.get("caption")

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return self.num_samples / self.sample_rate

    @property
    def clean(self) -> bool:
        """Whether noise, rooms and the like were never added."""
        return not self.copy or self.speed != 1.0

    def phrasings(self, name: str) -> tuple[str, ...]:
        """All phrasings of one of its texts, the usual one first; none if it has no such text."""
        text = self.texts.get(name)
        others = self.captions if name == "caption" else ()
        return (text, *others) if text else ()


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Where the codes of one audio lie."""

    shard: int
    num_samples: int
    frames: tuple[tuple[int, int], ...]  # first frame and number of frames, by stream


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
        self.codec: str | None = None
        self.hops: dict[str, int] = dict(REASONING_CODEC_HOPS)  # stream -> samples per frame
        self.sample_rate = SAMPLE_RATE  # of the codec, Hz
        self._shards: list[dict[str, np.ndarray]] = []
        self._stretches: list[_Stretch] = []
        for folder in (Path(f) for f in folders):
            try:
                about = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise DatasetError(f"{folder} holds no prepared codes; run `uniaudio2 prepare` first") from None
            if self.codec is not None and about["codec"] != self.codec:
                raise DatasetError(f"{folder} was made by another codec than the other folders; prepare it again")
            self.codec = about["codec"]
            self.hops, self.sample_rate = about.get("streams", self.hops), about.get("sample_rate", self.sample_rate)
            for labels in sorted(folder.glob("codes-*.jsonl")):
                try:
                    self._read_shard(labels, splits)
                except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
                    raise DatasetError(
                        f"{labels}: damaged ({error}); remove it and run `uniaudio2 prepare` again"
                    ) from None
        if not self.clips:
            raise DatasetError(f"no prepared clip of split {' or '.join(splits)} was found; run `uniaudio2 prepare`")

    def __len__(self) -> int:
        return len(self.clips)

    def phones(self, limit: int) -> list[str]:
        """The ``limit`` most frequent phones of the clips' labels, in alphabetical order."""
        counts = Counter(phone for clip in self.clips for phone in (clip.phonemes or "").split())
        return sorted(phone for phone, _ in counts.most_common(limit))

    def frames(self, index: int, audio: str = "audio") -> dict[str, int]:
        """Frames of every stream of one of a clip's audios."""
        clip = self.clips[index]
        if not clip.parts:
            counts = [count for _, count in self._stretches[clip.audios[audio]].frames]
            return dict(zip(self.hops, counts, strict=True))
        return {name: sum(lengths) for name, lengths in self._joined_frames(clip.parts).items()}

    def codes(self, index: int, audio: str = "audio") -> AudioCodes:
        """Codes of one of a clip's audios, batch size 1."""
        clip = self.clips[index]
        if clip.parts:
            codes = [self.codes(part) for part in clip.parts]
            streams = {
                name: torch.cat([_of_length(c[name], n) for c, n in zip(codes, lengths, strict=True)], 2)
                for name, lengths in self._joined_frames(clip.parts).items()
            }
            return AudioCodes.of(streams, self.hops, clip.num_samples, sample_rate=self.sample_rate)
        stretch = self._stretches[clip.audios[audio]]
        shard = self._shards[stretch.shard]
        streams = {
            name: torch.from_numpy(shard[name][:, first : first + count].astype(np.int64))[None]
            for name, (first, count) in zip(self.hops, stretch.frames, strict=True)
        }
        return AudioCodes.of(streams, self.hops, stretch.num_samples, sample_rate=self.sample_rate)

    def voice(self, index: int, rng: np.random.Generator, max_s: float, audio: str = "audio") -> torch.Tensor:
        """A random stretch of a clip's codes of the last stream as a voice prompt, (K, T) int64."""
        *_, codes = (stream[0] for stream in self.codes(index, audio).streams.values())
        frames = min(codes.shape[1], self.voice_frames(max_s))
        first = int(rng.integers(0, codes.shape[1] - frames + 1))
        return codes[:, first : first + frames]

    def voice_frames(self, max_s: float) -> int:
        """Frames of a voice prompt of so many seconds."""
        return int(max_s * (self.sample_rate / list(self.hops.values())[-1]))

    # ---------------------------------------------------------------- clips one after another

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
            plain = "audio" in clip.audios and clip.clean and not clip.parts
            if clip.kind == "speech" and clip.text and clip.speaker and plain:
                speakers.setdefault((clip.speaker, clip.language), []).append(index)
        rng = np.random.default_rng((seed, 4))
        for own in speakers.values():
            for _ in range(round(share * len(own))):
                goal, parts = longest_s * rng.uniform(1 / 3, 1), []
                for index in rng.choice(own, min(len(own), 24), replace=False).tolist():
                    if self.clips[index].duration_s <= goal:
                        goal -= self.clips[index].duration_s
                        parts.append(index)
                if len(parts) > 1:
                    self.clips.append(self._joined(tuple(parts)))

    def _joined_frames(self, parts: Sequence[int]) -> dict[str, list[int]]:
        """Frames of each part by stream; all but the last are stretched to keep in step with the slowest stream."""
        own = [self.frames(part) for part in parts]
        slowest = max(self.hops, key=self.hops.__getitem__)
        lengths: dict[str, list[int]] = {name: [] for name in self.hops}
        ends_at = 0  # samples
        for frames in own[:-1]:
            ends_at += frames[slowest] * self.hops[slowest]
            for name, so_far in lengths.items():
                so_far.append(ends_at // self.hops[name] - sum(so_far))
        return {name: [*before, own[-1][name]] for name, before in lengths.items()}

    def _joined(self, parts: tuple[int, ...]) -> Clip:
        clips = [self.clips[part] for part in parts]
        between = "" if clips[0].language in ("zh", "yue") else " "
        fastest = min(self.hops, key=self.hops.__getitem__)
        before = sum(self._joined_frames(parts)[fastest][:-1]) * self.hops[fastest]
        return replace(
            clips[0],
            id="+".join(clip.id for clip in clips),
            texts={"text": between.join(clip.text or "" for clip in clips)},
            phonemes=" ".join(clip.phonemes or "" for clip in clips) if all(c.phonemes for c in clips) else None,
            num_samples=before + clips[-1].num_samples,
            audios={"audio": -1},
            parts=parts,
        )

    # ---------------------------------------------------------------- reading

    def _read_shard(self, labels: Path, splits: Sequence[str]) -> None:
        with safe_open(labels.with_suffix(".safetensors"), framework="numpy") as file:
            self._shards.append({name: file.get_tensor(name) for name in self.hops})
        for line in labels.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("split", "train") in splits:
                self.clips.append(self._clip(row))

    def _clip(self, row: dict[str, Any]) -> Clip:
        """A line of labels; its stretches of codes are noted. In format 1 the line has the frames of its one audio."""
        audios: dict[str, int] = {}
        for name, place in row.get("audios", {"audio": row}).items():
            frames = [place.get("frames", row)[stream] for stream in self.hops]
            audios[name] = len(self._stretches)
            found = tuple((int(first), int(count)) for first, count in frames)
            self._stretches.append(_Stretch(len(self._shards) - 1, int(place["num_samples"]), found))
        texts = {name: row[name] for name in ("text", "caption") if row.get(name)} | row.get("texts", {})
        return Clip(
            id=row["id"],
            split=row.get("split", "train"),
            kind=row.get("kind", "speech"),
            texts=texts,
            phonemes=row.get("phonemes"),
            language=row.get("language"),
            speaker=row.get("speaker"),
            label=row.get("label"),
            captions=tuple(row.get("captions", ())),
            engine=row.get("engine"),
            source=row.get("source"),
            copy=int(row["copy"]),
            num_samples=self._stretches[next(iter(audios.values()))].num_samples,
            audios=audios,
            speed=float(row.get("speed", 1.0)),
            turns=tuple(Turn(**turn) for turn in row.get("turns", ())),
            sample_rate=self.sample_rate,
        )


def _of_length(codes: torch.Tensor, length: int) -> torch.Tensor:
    """Codes (B, K, T) cut to ``length`` frames, or with the last frame repeated up to it."""
    return codes[:, :, torch.arange(length).clamp(max=codes.shape[2] - 1)]
