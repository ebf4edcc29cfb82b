"""What one training sequence is made of: the weighted draw over tasks, and the batches of an epoch.

Everything is a pure function of (seed, epoch): a task's clips are gone through in a new random order each pass, an
epoch takes the next share of every task's pass, sorts by length, cuts batches of a fixed number of positions and
shuffles them. So the position in the data is one number, the batch index, and a run can be resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from uniaudio2.errors import UserError
from uniaudio2.tasks import get_form, trained_forms

SENTENCES = ("same_task", "same_voice", "same_text", "any")
"""How the segments of an auditory sentence belong together."""


class MixtureError(UserError):
    """A mixture that cannot be drawn from the data at hand."""


@dataclass(frozen=True)
class MixtureConfig:
    """Shares of the tasks and limits on the clips."""

    weights: dict[str, float]  # share of the sequences by task, such as asr, or tts+voice; need not sum to one
    epoch_sequences: int = 8192  # sequences planned at once
    positions: int = 4096  # positions per batch, padding included
    max_duration_s: float = 12.0  # longest clip
    min_duration_s: float = 0.1  # shortest clip
    curriculum_start_s: float = 0.0  # > 0: longest clip at the first batch
    curriculum_batches: int = 0  # batches until max_duration_s is reached, in a straight line
    length_noise: float = 0.1  # relative noise on lengths when batches are sorted, so that neighbours vary
    source_repeats: dict[str, float] = field(default_factory=dict)  # clips of a source are drawn this often per pass
    house_voices: tuple[str, ...] = ()  # speakers of `tts` without a prompt; empty: every speaker
    voice_prompt_s: float = 3.0  # longest voice prompt
    min_voice_prompt_s: float = 1.2  # clips shorter than this are no voice prompts
    sentences: float = 0.0  # share of sequences joined to auditory sentences of 2 to 4 segments
    sentence_positions: int = 1024  # longest auditory sentence
    guidance_dropout: float = 0.1  # share of generation sequences without their condition
    bpe_dropout: float = 0.0  # chance of skipping a merge in input text
    language_dropout: float = 0.25  # chance that the prompt of asr names no language, as when a user names none
    caption_variety: float = 0.3  # chance that a caption target is another phrasing; inputs always vary

    def __post_init__(self) -> None:
        """Check names and ranges."""
        weights: dict[str, float] = {}
        for name, weight in self.weights.items():
            if weight < 0:
                raise MixtureError(f"weight of {name} must not be negative, got {weight}")
            try:
                weights[get_form(name).name] = weight
            except UserError as error:
                raise MixtureError(f"weights: {error}") from None
        object.__setattr__(self, "weights", weights)  # by the names of today
        if not any(self.weights.values()):
            raise MixtureError("weights: at least one task needs a weight above 0")
        if self.positions < 64 or self.epoch_sequences < 1:
            raise MixtureError("positions must be at least 64 and epoch_sequences at least 1")

    def longest_s(self, batch: int) -> float:
        """Longest clip allowed at batch ``batch``, seconds."""
        if self.curriculum_start_s <= 0 or self.curriculum_batches <= 0:
            return self.max_duration_s
        done = min(1.0, batch / self.curriculum_batches)
        return self.curriculum_start_s + (self.max_duration_s - self.curriculum_start_s) * done


@dataclass(frozen=True)
class Pool:
    """What a task can draw from: items with a length and a number of repeats per pass."""

    items: np.ndarray  # (n,) int: index of a clip or of a text
    durations_s: np.ndarray  # (n,) of the audio, 0 for text
    positions: np.ndarray  # (n,) rows of the whole sequence, about
    repeats: np.ndarray  # (n,) float
    clips: bool = True  # False: items are texts


@dataclass(frozen=True)
class Draw:
    """One sequence of a plan: a task's form and its item, or several for an auditory sentence."""

    segments: tuple[tuple[str, int], ...]
    positions: int


def draw_pass(pool: Pool, allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One pass over a pool in random order: indices into ``pool.items``.

    Args:
        pool: The pool.
        allowed: (n,) bool, which items may be drawn.
        rng: Order, and which items get the fractional part of their repeats.
    """
    whole = np.floor(pool.repeats).astype(np.int64)
    times = whole + (rng.random(len(whole)) < pool.repeats - whole)
    return rng.permutation(np.repeat(np.arange(len(times)), np.where(allowed, times, 0)))


class Planner:
    """Batches by index.

    Args:
        config: The mixture.
        pools: Name of a form → pool; forms with a weight must be there.
        seed: Of the run.
        speakers: Speaker number of every clip (for sentences of one voice), -1 where unknown.
        texts: Text number of every clip (for sentences of one text), -1 where unknown.

    Raises:
        MixtureError: If a task has a weight and nothing to draw.
    """

    def __init__(
        self,
        config: MixtureConfig,
        pools: Mapping[str, Pool],
        seed: int,
        *,
        speakers: np.ndarray | None = None,
        texts: np.ndarray | None = None,
    ) -> None:
        self.config, self.pools, self.seed = config, dict(pools), seed
        self.speakers, self.texts = speakers, texts
        self.names = [name for name, weight in config.weights.items() if weight > 0]
        for name in self.names:
            if name not in self.pools or not len(self.pools[name].items):
                raise MixtureError(f"task {name!r} has a weight, but no clip of the prepared codes suits it")
        self._order = {form.name: number for number, form in enumerate(trained_forms())}
        self._starts = [0]  # first batch of every epoch planned so far
        self._cache: dict[int, list[list[Draw]]] = {}
        self._pass_cache: dict[tuple[str, int, float], np.ndarray] = {}

    def batch(self, index: int) -> list[Draw]:
        """The sequences of batch ``index``."""
        while self._starts[-1] <= index:
            epoch = len(self._starts) - 1
            self._starts.append(self._starts[-1] + len(self._epoch(epoch)))
        epoch = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._epoch(epoch)[index - self._starts[epoch]]

    def _epoch(self, epoch: int) -> list[list[Draw]]:
        if epoch not in self._cache:
            if len(self._cache) > 1:
                self._cache.clear()
            self._cache[epoch] = self._plan(epoch, self.config.longest_s(self._starts[epoch]))
        return self._cache[epoch]

    def _plan(self, epoch: int, longest_s: float) -> list[list[Draw]]:
        config = self.config
        rng = np.random.default_rng((self.seed, 2, epoch))
        total = sum(config.weights[name] for name in self.names)
        draws: list[Draw] = []
        for number, name in enumerate(self.names):
            share = config.weights[name] / total * config.epoch_sequences
            first, last = round(share * epoch), round(share * (epoch + 1))
            pool = self.pools[name]
            for position in self._take(name, number, first, last, longest_s):
                draws.append(Draw(((name, int(pool.items[position])),), int(pool.positions[position])))
        if config.sentences > 0:
            draws = self._join(draws, rng)
        return self._cut(draws, rng)

    def _take(self, name: str, number: int, first: int, last: int, longest_s: float) -> list[int]:
        """Positions ``first``..``last`` of the endless shuffled stream of a pool."""
        pool = self.pools[name]
        allowed = pool.durations_s <= longest_s
        if not allowed.any():  # the curriculum starts below the shortest clip
            allowed = pool.durations_s <= pool.durations_s.min()
        out: list[int] = []
        size = max(1, round(float(pool.repeats[allowed].sum())))
        while first < last:
            turn, offset = divmod(first, size)
            key = (name, turn, longest_s)
            if key not in self._pass_cache:
                if len(self._pass_cache) > 4 * len(self.names):
                    self._pass_cache.clear()
                order = draw_pass(pool, allowed, np.random.default_rng((self.seed, 3, number, turn)))
                if not len(order):
                    order = np.flatnonzero(allowed)
                self._pass_cache[key] = np.resize(order, size)
            part = self._pass_cache[key][offset : min(size, offset + last - first)]
            out.extend(int(i) for i in part)
            first += len(part)
        return out

    def _join(self, draws: list[Draw], rng: np.random.Generator) -> list[Draw]:
        """Join a share of the draws to auditory sentences of 2 to 4 segments.

        Source: the paper's stage 4; kinds after its list: one task again and again (examples in context), one voice
        after another task, the same text in other voices, anything.
        """
        chosen = rng.random(len(draws)) < self.config.sentences
        rest = [draw for draw, take in zip(draws, chosen, strict=True) if not take]
        pile = [draw for draw, take in zip(draws, chosen, strict=True) if take]
        kinds = rng.integers(0, len(SENTENCES), len(pile))
        keyed = sorted(
            (SENTENCES[kinds[i]], self._kin(draw, SENTENCES[kinds[i]]), float(rng.random()), i)
            for i, draw in enumerate(pile)
        )
        current: list[Draw] = []
        wanted, key = 0, ("", -1)

        def flush() -> None:
            """Close the sequence that is being filled."""
            if current:
                segments = tuple(segment for draw in current for segment in draw.segments)
                rest.append(Draw(segments, sum(draw.positions for draw in current)))
                current.clear()

        for kind, kin, _, i in keyed:
            draw = pile[i]
            full = sum(d.positions for d in current) + draw.positions > self.config.sentence_positions
            if len(current) >= wanted or full or (kind, kin) != key:
                flush()
                wanted, key = int(rng.integers(2, 5)), (kind, kin)
            current.append(draw)
        flush()
        return rest

    def _kin(self, draw: Draw, kind: str) -> int:
        name, item = draw.segments[0]
        if kind == "same_task":
            return self._order[name]
        table = {"same_voice": self.speakers, "same_text": self.texts}.get(kind)
        if table is None or not self.pools[name].clips:
            return -1
        return int(table[item])

    def _cut(self, draws: Sequence[Draw], rng: np.random.Generator) -> list[list[Draw]]:
        """Batches of neighbours in length, shuffled; padded positions stay within the budget."""
        noise = 1.0 + self.config.length_noise * rng.random(len(draws))
        order = np.argsort(np.array([draw.positions for draw in draws]) * noise, kind="stable")
        batches: list[list[Draw]] = []
        current: list[Draw] = []
        longest = 0
        for i in order:
            draw = draws[int(i)]
            longest_now = max(longest, draw.positions)
            if current and longest_now * (len(current) + 1) > self.config.positions:
                batches.append(current)
                current, longest_now = [], draw.positions
            current.append(draw)
            longest = longest_now
        if current:
            batches.append(current)
        return [batches[i] for i in rng.permutation(len(batches))]
