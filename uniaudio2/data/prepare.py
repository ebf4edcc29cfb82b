"""Audio clips to codes on disk: batched by padded length, in shards, resumable.

A folder of codes holds, per shard, ``codes-00012.safetensors`` (every stream of the codec by name, (K, frames of all
audios)) and ``codes-00012.jsonl`` (one line per example: its labels and where the frames of its audios lie), and
``codes.json`` (which codec made them, and its streams). A shard exists whole or not at all. Shapes: N samples, K
codebooks, T frames.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from uniaudio2.audio import SAMPLE_RATE, resample
from uniaudio2.codec.contract import AudioCodes, Codec, Stream
from uniaudio2.data.example import Example
from uniaudio2.data.prefetch import Prefetcher
from uniaudio2.errors import UserError
from uniaudio2.files import replacing, write_text

logger = logging.getLogger(__name__)

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
ChangeSpeed = Callable[[np.ndarray, float], np.ndarray]

VOICE_SPEEDS = (0.84, 0.89, 0.94, 1.07, 1.13, 1.19)
"""Speeds at which a speaker becomes another one: pitch, vocal tract and tempo change together. Choice: few of them, so
that every new speaker says many sentences and one of them can be the voice prompt of another."""


class PrepareError(UserError):
    """Codes cannot be made or do not belong to this folder."""


class ClipSource(Protocol):
    """Labelled clips with quick access to their samples (a ``Corpus``)."""

    @property
    def examples(self) -> Sequence[Example]:
        """The labels, in a fixed order."""
        ...

    def wave(self, index: int, audio: str | None = None) -> np.ndarray:
        """Samples of an audio of example ``index``, the first one by default: float32 in [-1, 1] at 24 kHz, (N,)."""
        ...


@dataclass(frozen=True)
class PrepareConfig:
    """How clips are encoded."""

    batch_s: float = 60.0  # seconds of padded audio per batch
    shard_clips: int = 1024  # clips per shard
    augmented_copies: int = 0  # further, augmented copies of every recording (clip without an engine) in train
    synthetic_copies: float = 0.0  # the same for synthetic clips, may be a share: 0.3 = every clip with probability 0.3
    voice_copies: float = 0.0  # copies of speech by another voice (one of VOICE_SPEEDS), may be a share
    max_duration_s: float = 30.0  # longer clips are left out
    splits: tuple[str, ...] = ("train", "dev")  # parts of the manifest that are encoded
    seed: int = 0  # augmentation and order
    part: int = 0  # this process encodes shards part, part + parts, …
    parts: int = 1  # processes that share the work
    precision: str = "float32"  # or "bf16": twice as fast on a CPU, a few codes of the later books differ

    def __post_init__(self) -> None:
        """Check ranges."""
        copies = (self.augmented_copies, self.synthetic_copies, self.voice_copies)
        if self.batch_s <= 0 or self.shard_clips < 1 or min(copies) < 0:
            raise PrepareError("batch_s and shard_clips must be above 0, copies not negative")
        if self.voice_copies > len(VOICE_SPEEDS):
            raise PrepareError(f"voice_copies must be at most {len(VOICE_SPEEDS)}, got {self.voice_copies}")
        if not 0 <= self.part < self.parts:
            raise PrepareError(f"part must be in [0, {self.parts}), got {self.part}")
        if self.precision not in ("float32", "bf16"):
            raise PrepareError(f"precision must be float32 or bf16, not {self.precision!r}")


@dataclass(frozen=True)
class _Item:
    """One example to encode."""

    index: int  # in the source
    copy: int  # 0 = as it is, n = copy n
    speed: float = 1.0  # other than 1: the copy is by another voice, not by the same one elsewhere


def _plan(examples: Sequence[Example], config: PrepareConfig) -> list[list[_Item]]:
    """Shards of clips in a random but fixed order, so that every shard is a fair sample."""
    items: list[_Item] = []
    for index, example in enumerate(examples):
        recordings = example.recordings.values()
        if example.split not in config.splits or max(r.duration for r in recordings) > config.max_duration_s:
            continue
        items.append(_Item(index, 0))
        # Choice: audios that belong together, and turns with times, are not changed.
        if example.split != "train" or len(recordings) > 1 or example.turns:
            continue
        copies = config.augmented_copies if example.engine is None else config.synthetic_copies
        last = _times(copies, example.id, config.seed)
        items.extend(_Item(index, copy) for copy in range(1, last + 1))
        if example.kind == "speech":
            voices = _times(config.voice_copies, f"voice/{example.id}", config.seed)
            first = int(_unit_hash(f"speed/{example.id}", config.seed) * len(VOICE_SPEEDS))
            for number in range(voices):
                speed = VOICE_SPEEDS[(first + number) % len(VOICE_SPEEDS)]
                items.append(_Item(index, last + 1 + number, speed))
    order = np.random.default_rng((config.seed, 1)).permutation(len(items))
    size = config.shard_clips
    return [[items[i] for i in order[start : start + size]] for start in range(0, len(items), size)]


def _times(copies: float, key: str, seed: int) -> int:
    """Whole number of copies of a clip; a fraction is the share of clips that get one more."""
    whole, share = divmod(copies, 1.0)
    return int(whole) + (_unit_hash(key, seed) < share)


def _unit_hash(text: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class _Batches:
    """Batches of the shards still to do; batch number → data, so that they can be made ahead."""

    def __init__(
        self,
        source: ClipSource,
        shards: dict[int, list[_Item]],
        config: PrepareConfig,
        codec: Codec,
        augment: Augment | None,
        change_speed: ChangeSpeed | None,
    ) -> None:
        self.source, self.config, self.augment, self.change_speed = source, config, augment, change_speed
        self.sample_rate, self.unit_s = codec.sample_rate, codec.unit / codec.sample_rate
        self.batches: list[tuple[int, list[tuple[_Item, str]]]] = []
        for shard, items in shards.items():
            self.batches.extend((shard, batch) for batch in self._split(items))

    def _split(self, items: list[_Item]) -> Iterator[list[tuple[_Item, str]]]:
        """Audios that are neighbours in length together, up to ``batch_s`` seconds of padded audio."""
        audios = [
            (recording.duration, item, name)
            for item in items
            for name, recording in self.source.examples[item.index].recordings.items()
        ]
        batch: list[tuple[_Item, str]] = []
        for duration, item, name in sorted(audios, key=lambda audio: audio[0]):
            padded = np.ceil(duration / self.unit_s) * self.unit_s
            if batch and padded * (len(batch) + 1) > self.config.batch_s:
                yield batch
                batch = []
            batch.append((item, name))
        if batch:
            yield batch

    def __call__(self, number: int) -> list[tuple[_Item, str, Tensor]]:
        """Batch ``number``: examples, names of audios, samples (1, N) at the codec's rate."""
        if number >= len(self.batches):
            return []
        return [(item, name, self._wave(item, name)) for item, name in self.batches[number][1]]

    def _wave(self, item: _Item, name: str) -> Tensor:
        wave = np.asarray(self.source.wave(item.index, name), dtype=np.float32).reshape(-1)
        if item.speed != 1.0 and self.change_speed is not None:
            wave = self.change_speed(wave, item.speed)
        elif item.copy and self.augment is not None:
            example = self.source.examples[item.index]
            key = int(_unit_hash(example.id, self.config.seed) * 2**63)
            wave = self.augment(wave, np.random.default_rng((self.config.seed, item.copy, key)))
        samples = torch.from_numpy(np.array(wave, dtype=np.float32).reshape(1, -1))
        samples = resample(samples, SAMPLE_RATE, self.sample_rate)
        return samples if samples.numel() else torch.zeros(1, 1)


def codec_fingerprint(codec: Codec) -> str:
    """A short hash of the weights that decide the codes: codes of different codecs must never meet."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.encoding_state().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def prepare(
    codec: Codec,
    source: ClipSource,
    out_dir: str | Path,
    config: PrepareConfig | None = None,
    *,
    augment: Augment | None = None,
    change_speed: ChangeSpeed | None = None,
    log: Callable[[str], None] | None = None,
) -> Path:
    """Encode all audios of ``source`` and write codes with their labels; goes on where it stopped.

    Args:
        codec: Used in eval mode, never trained.
        source: The examples.
        out_dir: Folder of codes; several may be loaded together later.
        config: Batching, copies, which part of the work.
        augment: (samples (N,), generator) → samples, for augmented copies.
        change_speed: (samples (N,), speed) → samples, for copies by another voice; their speaker is labelled
            ``name@speed``.
        log: Where progress lines go; the module's logger by default.

    Returns:
        ``out_dir``.

    Raises:
        PrepareError: If ``out_dir`` holds codes of another codec, or of another set of clips, or there is no clip.
    """
    config = config or PrepareConfig()
    if ((config.augmented_copies or config.synthetic_copies) and augment is None) or (
        config.voice_copies and change_speed is None
    ):
        raise PrepareError("copies are asked for, but no augmentation or change of speed is given")
    target = Path(out_dir)
    target.mkdir(parents=True, exist_ok=True)
    shards = _plan(source.examples, config)
    if not shards:
        raise PrepareError("no clip to encode: check the manifest's splits and max_duration_s")
    _check_folder(target, codec, source, config, len(shards))
    todo = {
        number: items
        for number, items in enumerate(shards)
        if number % config.parts == config.part and not _shard_path(target, number, "jsonl").exists()
    }
    if todo:
        batches = _Batches(source, todo, config, codec, augment, change_speed)
        _encode(codec.eval(), batches, target, len(shards), log or logger.info)
    return target


def _encode(codec: Codec, batches: _Batches, target: Path, num_shards: int, say: Callable[[str], None]) -> None:
    """Encode the batches and write every shard when its last one is done."""
    config, examples = batches.config, batches.source.examples
    last_batch = {shard: number for number, (shard, _) in enumerate(batches.batches)}
    prefetcher = Prefetcher(batches, mode="process", workers=1, depth=2)
    began, seconds = time.perf_counter(), 0.0
    done: dict[_Item, dict[str, AudioCodes]] = {}
    try:
        precise = torch.autocast(codec.device.type, torch.bfloat16, enabled=config.precision == "bf16")
        with torch.inference_mode(), precise:
            for number, (shard, _) in enumerate(batches.batches):
                audios = next(prefetcher)
                clips = codec.encode_clips([wave for _, _, wave in audios], batch_s=config.batch_s)
                for (item, name, _), codes in zip(audios, clips, strict=True):
                    done.setdefault(item, {})[name] = codes.to("cpu")
                    seconds += codes.duration_s
                if last_batch[shard] == number:
                    _write_shard(target, shard, done, examples, codec.streams)
                    done = {}
                    spent = time.perf_counter() - began
                    share = (number + 1) / len(batches.batches)
                    say(
                        f"prepare {target.name}: shard {shard + 1}/{num_shards}, {seconds / 3600:.2f} h of audio at "
                        f"{seconds / spent:.0f}x real time, {spent / share * (1 - share) / 60:.1f} min left"
                    )
    finally:
        prefetcher.close()


def _shard_path(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"codes-{number:05d}.{suffix}"


def _check_folder(folder: Path, codec: Codec, source: ClipSource, config: PrepareConfig, num_shards: int) -> None:
    """Write ``codes.json``, or see that the one there is the same."""
    ids = [
        " ".join((e.id, str(e.duration), *(f"{name} {r.duration}" for name, r in e.audios.items())))
        for e in source.examples
    ]
    plan = {
        "augmented_copies": config.augmented_copies,
        "synthetic_copies": config.synthetic_copies,
        "shard_clips": config.shard_clips,
        "voice_copies": config.voice_copies,
        "max_duration_s": config.max_duration_s,
        "splits": list(config.splits),
        "seed": config.seed,
        "precision": config.precision,
    }
    if config.voice_copies:
        plan["voice_speeds"] = list(VOICE_SPEEDS)
    wanted = {
        "format": 2,
        "codec": codec_fingerprint(codec),
        "sample_rate": codec.sample_rate,
        "streams": {stream.name: stream.hop_length for stream in codec.streams},
        "clips": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16],
        "plan": plan,
        "shards": num_shards,
    }
    path = folder / "codes.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        names = {"codec": "another codec", "clips": "other clips", "plan": "other settings"}
        for key, what in names.items():
            if found.get(key) != wanted[key]:
                raise PrepareError(f"{folder} holds codes of {what}; give another folder or remove it")
        return
    write_text(path, json.dumps(wanted, indent=1) + "\n")


def _write_shard(
    folder: Path,
    number: int,
    done: Mapping[_Item, Mapping[str, AudioCodes]],
    examples: Sequence[Example],
    streams: Sequence[Stream],
) -> None:
    """Write codes, then the labels: the labels' file says that the shard is complete."""
    lines: list[str] = []
    pieces: dict[str, list[np.ndarray]] = {stream.name: [] for stream in streams}
    frames = dict.fromkeys(pieces, 0)
    for item, audios in done.items():
        line = examples[item.index].to_json()
        for name in ("path", "start", "licence", "attribution", "audios"):
            line.pop(name, None)
        if item.speed != 1.0:
            line["speed"] = item.speed
            if line.get("speaker"):
                line["speaker"] += f"@{item.speed}"
        places: dict[str, dict[str, Any]] = {}
        for name in examples[item.index].recordings:
            codes = audios[name]
            places[name] = {"num_samples": codes.num_samples, "frames": {}}
            for stream, found in codes.streams.items():
                places[name]["frames"][stream] = [frames[stream], found.shape[2]]
                pieces[stream].append(found[0].numpy())
                frames[stream] += found.shape[2]
        line |= {"copy": item.copy, "audios": places}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    tensors = {
        stream.name: np.ascontiguousarray(
            np.concatenate(pieces[stream.name], axis=1).astype(np.int16 if stream.codebook_size <= 2**15 else np.int32)
        )
        for stream in streams
    }
    with replacing(_shard_path(folder, number, "safetensors")) as file:
        file.write(save(tensors))
    write_text(_shard_path(folder, number, "jsonl"), "".join(lines))  # last: a shard with labels is complete
